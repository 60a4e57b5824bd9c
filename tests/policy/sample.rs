//! Messages that hold every element of their schema once, and their leaves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::Event;
use sivi_gateway::validate::{Builtin, Element, MessageSchema};

/// A message of `schema` with every element once. `text_of` may give the text
/// of an element by its path; all others are valid and tell places apart.
pub fn full(schema: &MessageSchema, text_of: &dyn Fn(&Element) -> Option<String>) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{} xmlns=\"{}\">",
        schema.root, schema.namespace
    );
    for child in &schema.elements[0].children {
        element_at(schema, *child, text_of, &mut out);
    }
    write!(out, "</{}>", schema.root).unwrap();
    out
}

fn element_at(
    schema: &MessageSchema,
    at: usize,
    text_of: &dyn Fn(&Element) -> Option<String>,
    out: &mut String,
) {
    let element = &schema.elements[at];
    write!(out, "<{}>", element.tag).unwrap();
    if element.is_leaf() {
        let text = text_of(element)
            .or_else(|| usual(element))
            .unwrap_or_else(|| value(element, at));
        out.push_str(&text);
    }
    for child in &element.children {
        element_at(schema, *child, text_of, out);
    }
    write!(out, "</{}>", element.tag).unwrap();
}

/// Texts by which gateway and tests recognise employer, person and case.
fn usual(element: &Element) -> Option<String> {
    let text = match element.tag.as_str() {
        "IdInzndr" => "ADP",
        "IdOntvngr" => "ARBONOORD",
        "Berrefnr" => return Some(super::support::reference()),
        "TestJN" | "OntvngstbevJN" | "EndVrzmJN" => "N",
        "IdWrkgvrArbdnst" => "105",
        "AansltnrGeguitwlngArbdnst" => "6431",
        "SofiNr" => "111222333",
        "Gebdat" => "1980-02-29",
        "IdWrknmr" if !element.path.contains("Cntprsn") => "W-1",
        "IdDnstvbnd" => "D-1",
        "VrzmgvlId" => "VG-1",
        "VrzmgvlVnrMld" => "1",
        "PrcVrzm" | "PrcArbther" => "100.00",
        "SrtDocumentCd" => "100",
        _ => return None,
    };
    Some(text.to_owned())
}

/// A valid text that differs from place to place where it can.
fn value(element: &Element, at: usize) -> String {
    let leaf = element.leaf.as_ref().unwrap();
    if let Some(code) = leaf.codes.first() {
        return code.clone();
    }
    match leaf.base {
        Builtin::Date => format!("2015-{:02}-{:02}", at % 12 + 1, at % 28 + 1),
        Builtin::Time => format!("{:02}:{:02}:00", at % 24, at % 60),
        Builtin::DateTime => "2015-01-01T00:00:00".to_owned(),
        Builtin::Decimal => format!("{}.00", at % 9 + 1),
        Builtin::Integer | Builtin::NonNegativeInteger | Builtin::PositiveInteger => {
            let digits = leaf.total_digits.unwrap_or(9).min(3);
            (at % 10_usize.pow(u32::try_from(digits).unwrap()))
                .max(1)
                .to_string()
        }
        Builtin::Boolean => "true".to_owned(),
        Builtin::String | Builtin::NormalizedString | Builtin::Token => {
            let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
            let mut text: String = [letter(at / 26), letter(at)].iter().collect();
            while leaf.max_length.is_none_or(|most| text.len() < most) && text.len() < 6 {
                text.push('q');
            }
            while leaf.min_length.is_some_and(|least| text.len() < least) {
                text.push('q');
            }
            text.truncate(leaf.max_length.unwrap_or(6));
            text
        }
    }
}

/// The texts of the leaves of a message by path.
#[expect(clippy::wildcard_enum_match_arm, reason = "releases hold nothing else")]
pub fn leaves(xml: &str) -> BTreeMap<String, Vec<String>> {
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut leaves: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut text: Option<String> = None;
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                path.push(tag.name().as_ref().to_owned());
                text = Some(String::new());
            }
            Event::Text(part) => {
                if let Some(text) = &mut text {
                    text.push_str(part.as_ref());
                }
            }
            Event::End(_) => {
                if let Some(text) = text.take() {
                    leaves.entry(path.join("/")).or_default().push(text);
                }
                path.pop();
            }
            Event::Eof => return leaves,
            _ => {}
        }
    }
}

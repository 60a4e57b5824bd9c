//! A second opinion on the tables: xsd-parser reads the same XSDs, and its
//! elements, their order and how often they occur have to be ours.
//!
//! It is a development dependency and never sees a partner's input: it pulls
//! quick-xml 0.38, which has two advisories (RUSTSEC-2026-0194 and -0195),
//! its generated types lose the leading zeros of a `SofiNr`, and it is no
//! validator.

use sivi_gateway::validate::{Editions, MessageSchema};
use std::path::Path;
use xsd_parser::config::Schema;
use xsd_parser::models::TypeIdent;
use xsd_parser::models::meta::{ElementMeta, ElementMetaVariant, MetaTypeVariant, MetaTypes};
use xsd_parser::models::schema::MaxOccurs;
use xsd_parser::{Config, exec_interpreter, exec_parser};

/// Path, minimum, maximum.
type Row = (String, u32, Option<u32>);

/// The elements as xsd-parser sees them, from the root, in document order.
fn second_opinion(schema: &MessageSchema) -> Vec<Row> {
    let file = format!("schemas/2017/{}.xsd", schema.name);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let config = Config::default().with_schema(Schema::File(path));
    let schemas = exec_parser(config.parser).unwrap();
    let types = exec_interpreter(config.interpreter, &schemas).unwrap();
    let root = types
        .items
        .keys()
        .find(|ident| ident.name.as_str() == schema.root && has_content(&types, ident))
        .expect("xsd-parser knows the root")
        .clone();
    let mut rows = vec![(schema.root.clone(), 1, Some(1))];
    below(&types, &root, &schema.root, &mut rows);
    rows
}

fn has_content(types: &MetaTypes, ident: &TypeIdent) -> bool {
    !elements(types, ident).is_empty()
}

/// The elements directly in a type, through references.
fn elements<'t>(types: &'t MetaTypes, ident: &TypeIdent) -> Vec<&'t ElementMeta> {
    match types.items.get(ident).map(|found| &found.variant) {
        Some(MetaTypeVariant::Reference(reference)) => elements(types, &reference.type_),
        Some(MetaTypeVariant::ComplexType(complex)) => complex
            .content
            .as_ref()
            .map_or_else(Vec::new, |ident| elements(types, ident)),
        Some(MetaTypeVariant::Sequence(group)) => group.elements.iter().collect(),
        _ => Vec::new(),
    }
}

fn below(types: &MetaTypes, ident: &TypeIdent, path: &str, rows: &mut Vec<Row>) {
    for element in elements(types, ident) {
        let path = format!("{path}/{}", element.ident.name.as_str());
        let max = match element.max_occurs {
            MaxOccurs::Unbounded => None,
            MaxOccurs::Bounded(max) => Some(u32::try_from(max).unwrap()),
        };
        rows.push((
            path.clone(),
            u32::try_from(element.min_occurs).unwrap(),
            max,
        ));
        if let ElementMetaVariant::Type { type_, .. } = &element.variant {
            below(types, type_, &path, rows);
        }
    }
}

#[test]
fn our_tables_are_those_of_another_reader() {
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    assert_eq!(edition.messages().count(), 7);
    for schema in edition.messages() {
        let ours: Vec<Row> = schema
            .elements
            .iter()
            .map(|element| (element.path.clone(), element.min, element.max))
            .collect();
        assert_eq!(ours, second_opinion(schema), "{}", schema.name);
    }
}

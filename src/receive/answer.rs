//! Answers in the standard's own form: the Retourmelding.
//!
//! A Retourmelding without `Foutmldng` says accepted, one with it refused.
//! What the codes of `SrtRetmldngCd` mean is not public: the mapping decides.

use jiff::civil::DateTime;

use crate::domain::{Finding, Language};

/// What a Retourmelding says.
pub struct Answer<'a> {
    /// Root and namespace of the edition, and its codes.
    pub schema: &'a crate::validate::MessageSchema,
    /// `IdInzndr`: the gateway.
    pub from: &'a str,
    /// `IdOntvngr`: who gets the answer.
    pub to: &'a str,
    /// Its own reference.
    pub berrefnr: &'a str,
    /// The reference of the message that is answered; empty when it could not
    /// be read.
    pub answered: &'a str,
    /// Test traffic.
    pub test: bool,
    /// When, on a Dutch wall.
    pub at: DateTime,
    /// `SrtRetmldngCd`.
    pub kind: &'a str,
    /// What is wrong; empty for a positive answer.
    pub errors: &'a [Finding],
    /// Why it was refused, for a refusal without findings.
    pub refused: Option<&'a str>,
}

/// `SrtFoutCd` of every error: the rest code of the standard's lists, because
/// the meaning of the others is not public.
const OTHER_ERROR: &str = "99";
/// Longest `Toelchtng`, in characters.
const EXPLANATION: usize = 512;
/// Longest party id, in characters.
const PARTY: usize = 40;
/// Longest reference, in characters.
const REFERENCE: usize = 512;

impl Answer<'_> {
    /// The XML.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        out.push_str(&format!(
            "<{} xmlns=\"{}\"><BrAlg>",
            self.schema.root, self.schema.namespace
        ));
        let header = [
            ("BrCd", self.schema.code.as_str()),
            ("VnrBrCd", &self.schema.version),
            ("AandatBr", &self.at.date().to_string()),
            (
                "AantijdBr",
                &self.at.time().strftime("%H:%M:%S").to_string(),
            ),
            ("IdInzndr", self.from),
            ("IdOntvngr", at_most(PARTY, self.to)),
            ("Berrefnr", self.berrefnr),
            ("BerrefnrIngzndnBer", at_most(REFERENCE, self.answered)),
            ("TestJN", if self.test { "J" } else { "N" }),
            ("OntvngstbevJN", "N"),
            ("SrtRetmldngCd", self.kind),
        ];
        for (tag, text) in header {
            leaf(&mut out, tag, text);
        }
        out.push_str("</BrAlg>");
        // An answer without any error would say that the message was accepted.
        let alone = self.refused.filter(|_| self.errors.is_empty());
        let errors = self.errors.iter().map(explanation);
        for error in errors.chain(alone.map(str::to_owned)) {
            out.push_str("<Foutmldng>");
            leaf(&mut out, "SrtFoutCd", OTHER_ERROR);
            leaf(&mut out, "Toelchtng", &error);
            out.push_str("</Foutmldng>");
        }
        out.push_str(&format!("</{}>\n", self.schema.root));
        out
    }
}

fn explanation(finding: &Finding) -> String {
    let message = finding.message(Language::Dutch);
    let place = if finding.line == 0 {
        String::new()
    } else {
        format!(
            " {} regel {}, kolom {}",
            finding.path, finding.line, finding.column
        )
    };
    format!("{}: {message}{place}", finding.code)
        .chars()
        .take(EXPLANATION)
        .collect()
}

/// What a refused message holds may be too long for an answer to be valid.
fn at_most(max: usize, text: &str) -> &str {
    if text.chars().count() > max { "" } else { text }
}

fn leaf(out: &mut String, tag: &str, text: &str) {
    let text = quick_xml::escape::escape(text);
    out.push_str(&format!("<{tag}>{text}</{tag}>"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;
    use crate::validate::{Editions, Mode, validate};

    #[test]
    fn every_answer_is_valid_against_the_edition() {
        let editions = Editions::load(None).unwrap();
        let edition = editions.get("2017").unwrap();
        let schema = edition.message_by_code("99999").unwrap();
        let errors: Vec<Finding> = Code::ALL
            .iter()
            .map(|code| Finding {
                line: 3,
                column: 7,
                path: "Wrkgvr[1]/Wrknmr[2]".repeat(30),
                ..Finding::new(*code)
            })
            .collect();
        for (errors, refused, entries) in [
            (&[][..], None, 0),
            (&[], Some("Niet <nu>"), 1),
            (&errors, Some("Niet nu"), errors.len()),
        ] {
            let answer = Answer {
                schema,
                from: "SIVI-GATEWAY",
                to: "A&B",
                berrefnr: "SGW-R-1",
                answered: &format!("a<b{}", "c".repeat(510 * usize::from(entries == 1))),
                test: false,
                at: "2026-11-22T10:00:00".parse().unwrap(),
                kind: "02",
                errors,
                refused,
            };
            let xml = answer.to_xml();
            assert_eq!(xml.matches("<Foutmldng>").count(), entries);
            assert!(
                validate(edition, xml.as_bytes(), Mode::SchemaOnly)
                    .unwrap()
                    .is_valid(),
                "{xml}"
            );
        }
    }
}

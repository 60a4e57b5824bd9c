//! From bytes to a message that can be planned: parse, validate, strip the
//! citizen service number, normalise, model, business rules.

use std::sync::Arc;

use jiff::Timestamp;

use crate::clock;
use crate::domain::{Code, Finding, KeyedHash, PartyId, Severity};
use crate::policy::{self, Stripped};
use crate::setup::Setup;
use crate::translate::{self, Kind, Mapping, Message, Remark};
use crate::validate::{self, Document, Edition, NodeId, Places, RejectedKind, Term};

/// A message that went through all stages before routing.
#[derive(Debug)]
pub struct Prepared {
    /// The edition that it is read in.
    pub edition: Arc<Edition>,
    /// The message without citizen service numbers.
    pub stripped: Stripped,
    /// What it says.
    pub model: Message,
    /// Warnings so far, with places.
    pub findings: Vec<Finding>,
    places: Places,
}

/// What can be said about a message even when it is refused: enough to answer
/// its sender and to recognise it.
#[derive(Default)]
pub struct Outline {
    /// `IdInzndr`.
    pub sender_id: Option<String>,
    /// `Berrefnr`.
    pub berrefnr: Option<String>,
    /// `TestJN` = J.
    pub test: bool,
    /// `OntvngstbevJN` = J.
    pub receipt_wanted: bool,
}

/// What came of the stages before routing.
pub enum Preparation {
    /// Ready to be planned, unless a finding is an error.
    Ready(Box<Prepared>),
    /// Not well-formed or with a forbidden construct.
    Malformed(Vec<Finding>),
    /// Invalid against the schema or a rule.
    Invalid {
        /// All findings.
        findings: Vec<Finding>,
        /// As much of the message as was understood.
        partial: Option<Document>,
    },
}

impl Prepared {
    /// Findings for `remarks`, as severe as the party's mapping says.
    #[must_use]
    pub fn findings_for(&self, remarks: impl IntoIterator<Item = Remark>, mapping: &Mapping) -> Vec<Finding> {
        findings_for(self.stripped.document(), &self.places, remarks, mapping)
    }
}

impl Prepared {
    /// True when a Retourmelding names an error: the receiver refused.
    #[must_use]
    pub fn has_error_entries(&self) -> bool {
        let document = self.stripped.document();
        document.children(document.root()).any(|node| document.term(node) == Some(Term::ErrorEntry))
    }
}

/// Runs the stages before routing on `body`, for a message of `party`.
#[must_use]
pub fn prepare(setup: &Setup, party: &PartyId, body: &[u8], now: Timestamp) -> (Preparation, Outline) {
    let standing = setup.standing(party);
    let edition = &standing.edition;
    let read = match validate::read(edition, body, &standing.tolerance) {
        Ok(read) => read,
        Err(rejected) => {
            let outline = rejected.partial.as_ref().map(outline_of).unwrap_or_default();
            let preparation = match rejected.kind {
                RejectedKind::Malformed => Preparation::Malformed(rejected.findings),
                RejectedKind::Invalid => Preparation::Invalid {
                    findings: rejected.findings,
                    partial: rejected.partial,
                },
            };
            return (preparation, outline);
        }
    };
    let outline = outline_of(&read.document);
    let places = Places::new(body);
    let (mut stripped, mut remarks) =
        policy::strip(read.document, &setup.policy.parts().bsn);
    remarks.extend(translate::normalise(stripped.document_mut(), &standing.mapping));
    let model = translate::read(stripped.document(), &standing.mapping);
    let today = clock::civil_at(now).date();
    remarks.extend(translate::check(&model, stripped.document(), today));
    let mut findings = read.findings;
    findings.extend(findings_for(stripped.document(), &places, remarks, &standing.mapping));
    let prepared = Prepared { edition: Arc::clone(edition), stripped, model, findings, places };
    if prepared.findings.iter().any(|finding| finding.severity == Severity::Error) {
        let findings = prepared.findings;
        let partial = Some(prepared.stripped.into_document());
        return (Preparation::Invalid { findings, partial }, outline);
    }
    (Preparation::Ready(Box::new(prepared)), outline)
}

fn findings_for(
    document: &Document,
    places: &Places,
    remarks: impl IntoIterator<Item = Remark>,
    mapping: &Mapping,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Remark { code, at } in remarks {
        let Some(severity) = mapping.severity(code) else { continue };
        let (line, column) = places.line_and_column(document.offset(at));
        let path = document.path(at);
        findings.push(Finding { severity, path, line, column, ..Finding::new(code) });
    }
    findings
}

/// The general part of a document, also of one that is not valid.
#[must_use]
pub fn outline_of(document: &Document) -> Outline {
    let Some(header) = document.child(document.root(), Term::Header) else {
        return Outline::default();
    };
    let text = |term| document.child_text(header, term).map(str::to_owned);
    Outline {
        sender_id: text(Term::SenderId),
        berrefnr: text(Term::Berrefnr),
        test: text(Term::Test).as_deref() == Some("J"),
        receipt_wanted: text(Term::ReceiptWanted).as_deref() == Some("J")
            && Kind::from_code(&document.schema().code) != Some(Kind::Return),
    }
}

/// Hash of the body, by which the same message is recognised.
#[must_use]
pub fn body_hash(setup: &Setup, body: &[u8]) -> KeyedHash {
    policy::body(&setup.keys, body)
}

/// The employers of a document, also of one that is not valid.
pub fn employers_of(document: &Document) -> impl Iterator<Item = NodeId> + '_ {
    document
        .children(document.root())
        .filter(|node| document.term(*node) == Some(Term::Employer))
}

/// A finding with this code at a node.
#[must_use]
pub fn finding_at(document: &Document, body: &[u8], code: Code, at: NodeId) -> Finding {
    let (line, column) = Places::new(body).line_and_column(document.offset(at));
    Finding { path: document.path(at), line, column, ..Finding::new(code) }
}

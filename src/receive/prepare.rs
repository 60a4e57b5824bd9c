//! From bytes to a message that can be planned: parse, validate, strip the
//! citizen service number, normalise, model, business rules.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::civil::Date;

use crate::domain::{Code, Finding, KeyedHash, Severity};
use crate::parse;
use crate::policy::{self, Policy, Stripped};
use crate::setup::{Setup, Standing};
use crate::translate::{self, Kind, Mapping, Message, Remark};
use crate::validate::{self, Document, Edition, MAX_FINDINGS, NodeId, RejectKind, Term};

/// A message that went through all stages before routing.
#[derive(Debug)]
pub struct Prepared<'b> {
    /// The edition that it is read in.
    pub edition: Arc<Edition>,
    /// The message without citizen service numbers.
    pub stripped: Stripped,
    /// What it says.
    pub model: Message,
    /// Warnings so far, with places.
    pub findings: Vec<Finding>,
    body: &'b [u8],
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
pub enum Preparation<'b> {
    /// Ready to be planned, unless a finding is an error.
    Ready(Box<Prepared<'b>>),
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

impl Preparation<'_> {
    /// The word for it in traces.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Malformed(_) => "malformed",
            Self::Invalid { .. } => "invalid",
        }
    }
}

impl Prepared<'_> {
    /// Findings for `remarks`, as severe as the party's mapping says.
    #[must_use]
    pub fn findings_for(
        &self,
        remarks: impl IntoIterator<Item = Remark>,
        mapping: &Mapping,
    ) -> Vec<Finding> {
        findings_for(self.stripped.document(), self.body, remarks, mapping)
    }
}

impl Prepared<'_> {
    /// Bytes of the body.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// True when a Retourmelding names an error: the receiver refused.
    #[must_use]
    pub fn has_error_entries(&self) -> bool {
        let document = self.stripped.document();
        document
            .children(document.root())
            .any(|node| document.term(node) == Some(Term::ErrorEntry))
    }
}

/// Runs the stages before routing on `body`, which came on the Dutch day
/// `today` from a party of this standing.
#[must_use]
pub fn prepare<'b>(
    standing: &Standing,
    policy: &Policy,
    body: &'b [u8],
    today: Date,
) -> (Preparation<'b>, Outline) {
    let edition = &standing.edition;
    let read = match validate::read(edition, body, &standing.tolerance) {
        Ok(read) => read,
        Err(rejected) => {
            let outline = rejected
                .partial
                .as_ref()
                .map(outline_of)
                .unwrap_or_default();
            let preparation = match rejected.kind {
                RejectKind::Malformed => Preparation::Malformed(rejected.findings),
                RejectKind::Invalid => Preparation::Invalid {
                    findings: rejected.findings,
                    partial: rejected.partial,
                },
            };
            return (preparation, outline);
        }
    };
    let outline = outline_of(&read.document);
    let (mut stripped, mut remarks) = policy::strip(read.document, &policy.parts().bsn);
    remarks.extend(translate::normalise(
        stripped.document_mut(),
        &standing.mapping,
    ));
    let model = translate::read(stripped.document(), &standing.mapping);
    remarks.extend(translate::check(&model, stripped.document(), today));
    let mut findings = read.findings;
    let document = stripped.document();
    findings.extend(findings_for(document, body, remarks, &standing.mapping));
    let findings = at_most(findings);
    let prepared = Prepared {
        edition: Arc::clone(edition),
        stripped,
        model,
        findings,
        body,
    };
    if prepared
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
    {
        let findings = prepared.findings;
        let partial = Some(prepared.stripped.into_document());
        return (Preparation::Invalid { findings, partial }, outline);
    }
    (Preparation::Ready(Box::new(prepared)), outline)
}

fn findings_for(
    document: &Document,
    body: &[u8],
    remarks: impl IntoIterator<Item = Remark>,
    mapping: &Mapping,
) -> Vec<Finding> {
    let judged = |remark: Remark| {
        mapping
            .severity(remark.code)
            .map(|severity| (severity, remark))
    };
    let mut judged: Vec<(Severity, Remark)> = remarks.into_iter().filter_map(judged).collect();
    let too_many = judged.len() > MAX_FINDINGS;
    // What refuses the message is listed before what does not.
    judged.sort_by_key(|(severity, _)| Reverse(*severity));
    judged.truncate(MAX_FINDINGS);
    let offsets: Vec<u64> = judged
        .iter()
        .map(|(_, remark)| document.offset(remark.at))
        .collect();
    let finding = |(severity, Remark { code, at })| Finding {
        severity,
        path: document.path(at),
        ..Finding::new(code)
    };
    let mut findings: Vec<Finding> = judged.into_iter().map(finding).collect();
    locate(&mut findings, &offsets, body);
    if too_many {
        findings.push(Finding::new(Code::TooManyFindings));
    }
    findings
}

fn locate(findings: &mut [Finding], offsets: &[u64], body: &[u8]) {
    if findings.is_empty() {
        return;
    }
    // A slice does not fail; without places the findings still stand.
    let places = parse::places(body, offsets).unwrap_or_default();
    for (finding, place) in findings.iter_mut().zip(places) {
        (finding.line, finding.column) = (place.line, place.column);
    }
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

/// Everything that validation and the business rules find in a message, for
/// the `validate` command.
#[must_use]
pub fn examine(standing: &Standing, policy: &Policy, body: &[u8], today: Date) -> Vec<Finding> {
    match prepare(standing, policy, body, today).0 {
        Preparation::Ready(prepared) => prepared.findings,
        Preparation::Malformed(findings) | Preparation::Invalid { findings, .. } => findings,
    }
}

/// At most as many findings as are listed, errors first.
#[must_use]
pub fn at_most(mut findings: Vec<Finding>) -> Vec<Finding> {
    if findings.len() > MAX_FINDINGS {
        findings.retain(|finding| finding.code != Code::TooManyFindings);
        findings.sort_by_key(|finding| Reverse(finding.severity));
        findings.truncate(MAX_FINDINGS);
        findings.push(Finding::new(Code::TooManyFindings));
    }
    findings
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
    let mut finding = Finding {
        path: document.path(at),
        ..Finding::new(code)
    };
    locate(
        std::slice::from_mut(&mut finding),
        &[document.offset(at)],
        body,
    );
    finding
}

//! The pass over a document: reader, walk, and what comes of them.

use super::document::Document;
use super::findings::Findings;
use super::frame::Header;
use super::identify::identify;
use super::schema::MessageSchema;
use super::types::{Builtin, SimpleType};
use super::walk::Walk;
use super::{Edition, Mode, Tolerance};
use crate::domain::{Code, Finding, Severity};
use crate::parse::{
    self, Attribute, EVENT_BYTES, Event, Instructions, NamespaceId, ParseError, Reader,
};
use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

/// What [`validate`] found.
#[derive(Debug)]
pub struct Verdict {
    /// The message, when it was recognised.
    pub message: Option<Arc<MessageSchema>>,
    /// The findings in the order of the document.
    pub findings: Vec<Finding>,
    /// Not well-formed, or forbidden, so that nothing behind the last finding
    /// was looked at.
    pub refused: bool,
    /// Byte offsets of the findings in the decoded text.
    offsets: Vec<u64>,
}

impl Verdict {
    /// Whether there is no finding of severity error.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !has_error(&self.findings)
    }

    /// Gives the findings their lines and columns; `again` is the same
    /// document from its beginning.
    ///
    /// # Errors
    ///
    /// Those of the source.
    pub fn locate(&mut self, again: impl BufRead) -> io::Result<()> {
        if self.findings.is_empty() {
            return Ok(());
        }
        let places = parse::places(again, &self.offsets)?;
        for (finding, place) in self.findings.iter_mut().zip(places) {
            (finding.line, finding.column) = (place.line, place.column);
        }
        Ok(())
    }
}

/// A message that can be processed.
#[derive(Debug)]
pub struct Read {
    /// Its tree.
    pub document: Document,
    /// Warnings.
    pub findings: Vec<Finding>,
}

/// Why a message is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectKind {
    /// Not well-formed, forbidden, or in an unknown encoding: HTTP 400.
    Malformed,
    /// Against the schema, or no message of the edition: HTTP 422.
    Invalid,
}

/// A message that cannot be processed.
pub struct Rejected {
    /// What is wrong, at least one error.
    pub findings: Vec<Finding>,
    /// How bad it is.
    pub kind: RejectKind,
    /// The message, when it was recognised.
    pub message: Option<Arc<MessageSchema>>,
    /// As much of it as was understood, for the sender's identity only.
    pub partial: Option<Document>,
    header: Header,
}

impl Rejected {
    /// The sender's reference, when it could be read; only for an answer to
    /// that sender.
    #[must_use]
    pub fn berrefnr(&self) -> Option<&str> {
        self.header.berrefnr.as_ref().map(|text| text.as_str())
    }

    /// Whether the sender wants an answer, when that could be read.
    #[must_use]
    pub fn receipt_wanted(&self) -> Option<bool> {
        self.header.receipt_wanted
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("kind", &self.kind)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

/// Judges a document of any length in bounded memory.
///
/// The findings have no lines yet: see [`Verdict::locate`].
///
/// # Errors
///
/// Those of the source; faults of the document are findings.
pub fn validate(edition: &Edition, input: impl BufRead, mode: Mode<'_>) -> io::Result<Verdict> {
    let (head, input) = parse::peek(input)?;
    let message = identify(edition, &head, mode);
    let passed = pass(message, &head, input, mode, None)?;
    Ok(passed.verdict(message))
}

/// Reads a message on receipt.
///
/// # Errors
///
/// [`Rejected`] when there is a finding of severity error.
///
/// # Panics
///
/// Never: a slice does not fail to be read.
pub fn read(edition: &Edition, body: &[u8], tolerance: &Tolerance) -> Result<Read, Box<Rejected>> {
    let mode = Mode::Tolerant(tolerance);
    let head = body
        .get(..body.len().min(parse::HEAD_BYTES))
        .unwrap_or(body);
    let message = identify(edition, head, mode);
    let document = message.map(|message| Document::new(Arc::clone(message), body.len()));
    let passed = pass(message, head, body, mode, document);
    let mut passed = passed.expect("a slice of bytes does not fail to be read");
    let document = passed.document.take();
    let header = std::mem::take(&mut passed.header);
    let mut verdict = passed.verdict(message);
    // A slice does not fail; without places the findings still stand.
    let _ = verdict.locate(body);
    match document {
        Some(document) if verdict.is_valid() => Ok(Read {
            document,
            findings: verdict.findings,
        }),
        document => Err(Box::new(Rejected {
            findings: verdict.findings,
            partial: document.filter(|document| !document.is_empty()),
            kind: if verdict.refused {
                RejectKind::Malformed
            } else {
                RejectKind::Invalid
            },
            message: verdict.message,
            header,
        })),
    }
}

fn has_error(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

/// What a pass leaves.
#[derive(Default)]
struct Passed {
    findings: Findings,
    refused: bool,
    header: Header,
    document: Option<Document>,
}

impl Passed {
    /// How reading ended: a refusal is a finding, a failure is not.
    fn stopped(mut self, outcome: Result<(), ParseError>) -> io::Result<Self> {
        match outcome {
            Ok(()) => Ok(self),
            Err(ParseError::Io(cause)) => Err(cause),
            Err(ParseError::Refused(refusal)) => {
                self.refused = true;
                self.findings
                    .refuse(Finding::new(refusal.code), refusal.offset);
                Ok(self)
            }
        }
    }

    fn verdict(self, message: Option<&Arc<MessageSchema>>) -> Verdict {
        let (findings, offsets) = self.findings.finish();
        Verdict {
            message: message.cloned(),
            findings,
            refused: self.refused,
            offsets,
        }
    }
}

fn pass(
    message: Option<&Arc<MessageSchema>>,
    head: &[u8],
    input: impl BufRead,
    mode: Mode<'_>,
    document: Option<Document>,
) -> io::Result<Passed> {
    let instructions = match mode {
        Mode::SchemaOnly => Instructions::PassOver,
        Mode::Tolerant(_) => Instructions::Refuse,
    };
    let mut reader = match Reader::new(head, input, instructions) {
        Ok(reader) => reader,
        Err(error) => return Passed::default().stopped(Err(error)),
    };
    let Some(schema) = message else {
        let (passed, outcome) = unknown(&mut reader);
        return passed.stopped(outcome);
    };
    let mut walk = Walk::new(schema, mode, document);
    let outcome = run(&mut walk, &mut reader);
    let Walk {
        findings,
        header,
        document,
        ..
    } = walk;
    Passed {
        findings,
        refused: false,
        header,
        document,
    }
    .stopped(outcome)
}

/// A document that is no message of the edition is still read to its end: it
/// may not be XML at all, which is another answer.
fn unknown<R: BufRead>(reader: &mut Reader<R>) -> (Passed, Result<(), ParseError>) {
    let mut findings = Findings::default();
    let mut root = None;
    let outcome = loop {
        match reader.next_event() {
            Ok((_, Event::Eof)) => break Ok(()),
            Ok((offset, Event::Start(_))) => {
                root.get_or_insert(offset);
            }
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    if let Some(offset) = root {
        findings.push(Finding::new(Code::MessageUnknown), offset);
    }
    (
        Passed {
            findings,
            ..Passed::default()
        },
        outcome,
    )
}

fn run<R: BufRead>(walk: &mut Walk<'_>, reader: &mut Reader<R>) -> Result<(), ParseError> {
    let mut allowance = EVENT_BYTES;
    loop {
        let (offset, event) = reader.next_event()?;
        match event {
            Event::Text(text) => within(walk.text(text, false, offset), offset)?,
            Event::Cdata(text) => within(walk.text(text, true, offset), offset)?,
            Event::End => walk.end(offset),
            Event::Nothing => {}
            Event::Eof => return Ok(()),
            Event::Start(start) => {
                let inside = walk.has_root();
                let known = inside && walk.start(start.local(), start.namespace, offset);
                // Rare, and judged when the event has given the reader back.
                let root = (!inside).then(|| (start.local().to_owned(), start.namespace));
                let judged = known || !inside;
                let attributes = if judged {
                    start.attributes.to_vec()
                } else {
                    Vec::new()
                };
                if let Some((tag, namespace)) = root {
                    let uri = namespace.and_then(|id| reader.uri(id)).unwrap_or("");
                    walk.judge_root(&tag, namespace, uri, offset);
                }
                if !attributes.is_empty() {
                    judge_attributes(walk, reader, &attributes);
                }
            }
        }
        if walk.allowance() != allowance {
            allowance = walk.allowance();
            reader.allow(allowance);
        }
    }
}

fn within(fits: bool, offset: u64) -> Result<(), ParseError> {
    if fits {
        return Ok(());
    }
    Err(ParseError::Refused(parse::Refusal {
        code: Code::LimitExceeded,
        offset,
    }))
}

/// The standard has no attributes. Those that XML Schema itself allows on
/// any element are judged as libxml2 does.
///
/// Source: XML Schema 1.0 part 1, sections 2.6 and 3.3.4.
fn judge_attributes<R: BufRead>(walk: &mut Walk<'_>, reader: &Reader<R>, attributes: &[Attribute]) {
    for attribute in attributes {
        let instance = attribute.namespace == Some(NamespaceId::INSTANCE);
        match attribute.local.as_str() {
            "schemaLocation" | "noNamespaceSchemaLocation" if instance => {}
            "type" if instance => match substitute(walk, reader, &attribute.value) {
                Ok(Some(other)) => walk.substitute(other),
                Ok(None) => {}
                Err(NotDerived) => walk.attribute_unknown(),
            },
            _ => walk.attribute_unknown(),
        }
    }
}

/// The type named is not the declared one, nor derived from it.
struct NotDerived;

/// The type that `xsi:type` puts in place of the declared one, if any.
fn substitute<R: BufRead>(
    walk: &Walk<'_>,
    reader: &Reader<R>,
    name: &str,
) -> Result<Option<SimpleType>, NotDerived> {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    let uri = reader
        .namespace(prefix)
        .map(|id| reader.uri(id).unwrap_or(""));
    let element = walk
        .open_element()
        .map(|id| walk.schema.element(id))
        .ok_or(NotDerived)?;
    // A type that is written out within its element has no name, so that
    // nothing can be derived from it.
    let declared = element.type_name.as_deref().ok_or(NotDerived)?;
    let (name, other) = match uri {
        Some("http://www.w3.org/2001/XMLSchema") => (
            format!("{{xsd}}{local}"),
            Builtin::named(local).map(SimpleType::builtin),
        ),
        Some(uri) if uri == walk.schema.namespace => {
            let name = format!("{{tns}}{local}");
            let other = walk.schema.types.get(&name).cloned();
            (name, other)
        }
        _ => return Err(NotDerived),
    };
    if name == declared {
        return Ok(None);
    }
    match other {
        Some(other) if other.lineage.iter().any(|ancestor| ancestor == declared) => Ok(Some(other)),
        _ => Err(NotDerived),
    }
}

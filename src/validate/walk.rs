//! One pass over a message against its schema.
//!
//! The state is a stack of open elements, each with a cursor in its sequence
//! and a count per particle. After a fault the pass goes on where that is
//! safe, so that a sender sees all faults at once.

use super::document::Document;
use super::findings::{Findings, Mark};
use super::frame::{Count, Frame, Header, Place};
use super::lexical::Rules;
use super::schema::{ElementId, MessageSchema};
use super::types::{Fault, SimpleType};
use super::{Mode, Term, Tolerance};
use crate::domain::{Code, Finding, Severity};
use crate::parse::{EVENT_BYTES, NamespaceId};
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The state of a pass.
pub(super) struct Walk<'a> {
    pub(super) schema: &'a Arc<MessageSchema>,
    pub(super) tolerance: Option<&'a Tolerance>,
    frames: Vec<Frame>,
    counts: Vec<Count>,
    value: Zeroizing<String>,
    /// Levels below an element that the schema does not know.
    skipped: usize,
    namespace: NamespaceId,
    /// Bytes that the open leaf may hold, when it is not the usual number.
    long_text: usize,
    pub(super) findings: Findings,
    pub(super) header: Header,
    pub(super) document: Option<Document>,
}

impl<'a> Walk<'a> {
    pub fn new(schema: &'a Arc<MessageSchema>, mode: Mode<'a>, document: Option<Document>) -> Self {
        Self {
            schema,
            tolerance: match mode {
                Mode::SchemaOnly => None,
                Mode::Tolerant(tolerance) => Some(tolerance),
            },
            frames: Vec::new(),
            counts: Vec::new(),
            value: Zeroizing::new(String::with_capacity(1024)),
            skipped: 0,
            namespace: NamespaceId::NONE,
            long_text: super::LONG_TEXT_BYTES,
            findings: Findings::default(),
            header: Header::default(),
            document,
        }
    }

    /// Bytes that events within the open element may take.
    #[inline]
    pub fn allowance(&self) -> usize {
        let open = self
            .frames
            .last()
            .map(|frame| self.schema.element(frame.element));
        match open.and_then(|element| element.leaf.as_ref()) {
            Some(leaf) if leaf.is_unlimited() => self.long_text,
            _ => EVENT_BYTES,
        }
    }

    /// Adds a finding about an element or its parent.
    pub(super) fn report(
        &mut self,
        code: Code,
        severity: Severity,
        place: Place,
        expected: Option<String>,
    ) {
        let severity = match self
            .tolerance
            .and_then(|tolerance| tolerance.severity.get(&code))
        {
            Some(None) => return,
            Some(Some(severity)) => *severity,
            None => severity,
        };
        let (path, offset) = match place {
            Place::Open => (
                self.path(""),
                self.frames.last().map_or(0, |frame| frame.offset),
            ),
            Place::Within(offset) => (self.path(""), offset),
            Place::Unknown(offset) => (self.unknown_path(), offset),
        };
        let finding = Finding {
            severity,
            path,
            expected,
            ..Finding::new(code)
        };
        self.findings.push(finding, offset);
    }

    fn fault(&mut self, code: Code, place: Place, expected: Option<String>) {
        self.report(code, Severity::Error, place, expected);
    }

    /// Tags with positions below the root, then `last`.
    fn path(&self, last: &str) -> String {
        if !self.findings.has_room() {
            return String::new();
        }
        let mut path = String::new();
        for frame in self.frames.iter().skip(1) {
            let tag = &self.schema.element(frame.element).tag;
            let separator = if path.is_empty() { "" } else { "/" };
            // Writing to a string cannot fail.
            let _ = write!(path, "{separator}{tag}[{}]", frame.position);
        }
        if !last.is_empty() {
            let separator = if path.is_empty() { "" } else { "/" };
            let _ = write!(path, "{separator}{last}");
        }
        path
    }

    /// The name of an unknown tag is never repeated: it is text of the sender.
    fn unknown_path(&self) -> String {
        let number = self.frames.last().map_or(1, |frame| frame.unknown);
        self.path(&format!("*[{number}]"))
    }

    /// Whether the root element has begun.
    #[inline]
    pub fn has_root(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The root element begins: judges its tag and its namespace, in which
    /// every other element then has to be. A prefix that is not bound is in
    /// no namespace that an element could share.
    pub fn judge_root(
        &mut self,
        tag: &str,
        namespace: Option<NamespaceId>,
        uri: &str,
        offset: u64,
    ) {
        let known = namespace.is_some();
        self.namespace = namespace.unwrap_or(NamespaceId::NONE);
        let mark = self.findings.mark();
        self.open(0, 1, 0, 0, offset, mark);
        let (alias, nameless) = self.tolerance.map_or((false, false), |tolerance| {
            (
                tolerance.root_aliases.iter().any(|alias| alias == tag),
                tolerance.missing_namespace,
            )
        });
        if tag != self.schema.root {
            let severity = if alias {
                Severity::Warning
            } else {
                Severity::Error
            };
            self.report(
                Code::RootUnexpected,
                severity,
                Place::Open,
                Some(self.schema.root.clone()),
            );
        }
        if uri != self.schema.namespace || !known {
            let fine = self.tolerance.is_some() && (!uri.is_empty() || nameless);
            let severity = if fine {
                Severity::Warning
            } else {
                Severity::Error
            };
            self.report(
                Code::NamespaceUnexpected,
                severity,
                Place::Open,
                Some(self.schema.namespace.clone()),
            );
        }
    }

    fn open(
        &mut self,
        element: ElementId,
        position: u32,
        particle: usize,
        parent_cursor: usize,
        offset: u64,
        mark: Mark,
    ) {
        let declared = self.schema.element(element);
        let counts = self.counts.len();
        self.counts
            .resize(counts + declared.children.len(), Count::default());
        let nodes = match &mut self.document {
            Some(document) => document.open(element, position, offset),
            None => 0,
        };
        if declared.leaf.is_some() {
            self.value.clear();
        }
        self.frames.push(Frame {
            element,
            position,
            particle,
            parent_cursor,
            cursor: 0,
            counts,
            unknown: 0,
            filled: false,
            text_reported: false,
            broken: false,
            offset,
            mark,
            nodes,
            substitute: None,
        });
    }

    /// An element begins. True when it is known, so that its attributes have
    /// to be judged.
    pub fn start(&mut self, local: &str, namespace: Option<NamespaceId>, offset: u64) -> bool {
        if self.skipped > 0 {
            self.skipped += 1;
            return false;
        }
        let mark = self.findings.mark();
        let Some(parent) = self.frames.last() else {
            return false;
        };
        let (element, cursor) = (parent.element, parent.cursor);
        let known = if namespace == Some(self.namespace) {
            self.find(local)
        } else {
            None
        };
        let Some(particle) = known else {
            self.unknown(offset);
            return false;
        };
        let (counts, declared) = (parent.counts, self.schema.element(element));
        let Some(&child) = declared.children.get(particle) else {
            return false;
        };
        let Some(count) = self.counts.get_mut(counts + particle) else {
            return false;
        };
        count.seen += 1;
        count.kept += 1;
        let (position, kept) = (count.seen, count.kept);
        if particle < cursor || self.schema.element(child).max.is_some_and(|max| kept > max) {
            self.open(child, position, particle, cursor, offset, mark);
            self.out_of_order(child, kept);
            return true;
        }
        if particle > cursor {
            self.advance(particle, offset);
        }
        self.open(child, position, particle, cursor, offset, mark);
        true
    }

    /// The particle of the open element that a tag belongs to: the next one
    /// that has room, else one before, else one without room.
    #[inline]
    fn find(&self, local: &str) -> Option<usize> {
        let parent = self.frames.last()?;
        let children = &self.schema.element(parent.element).children;
        let counts = self.counts.get(parent.counts..)?;
        let mut full = None;
        for (particle, child) in children.iter().enumerate().skip(parent.cursor) {
            let child = self.schema.element(*child);
            if child.tag == local {
                if child
                    .max
                    .is_none_or(|max| counts.get(particle).is_some_and(|count| count.kept < max))
                {
                    return Some(particle);
                }
                full.get_or_insert(particle);
            }
        }
        let before = || {
            children
                .iter()
                .take(parent.cursor)
                .position(|child| self.schema.element(*child).tag == local)
        };
        full.or_else(before)
    }

    /// Moves the cursor of the open element to a later particle.
    fn advance(&mut self, particle: usize, offset: u64) {
        let Some(parent) = self.frames.last_mut() else {
            return;
        };
        let (from, counts, element) = (parent.cursor, parent.counts, parent.element);
        parent.cursor = particle;
        for skipped in from..particle {
            self.require(element, counts, skipped, Place::Within(offset));
        }
    }

    /// Reports a particle that occurred too seldom.
    fn require(&mut self, element: ElementId, counts: usize, particle: usize, place: Place) {
        let schema = self.schema;
        let child = schema
            .element(element)
            .children
            .get(particle)
            .map(|id| schema.element(*id));
        let Some(child) = child else { return };
        let kept = self
            .counts
            .get(counts + particle)
            .map_or(0, |count| count.kept);
        if kept < child.min {
            self.fault(Code::ElementMissing, place, Some(child.tag.clone()));
        }
    }

    /// The element just opened came too late or too often.
    fn out_of_order(&mut self, child: ElementId, kept: u32) {
        let child = self.schema.element(child);
        if let Some(max) = child.max
            && kept > max
        {
            self.fault(
                Code::ElementRepeated,
                Place::Open,
                Some(format!("at most {max}")),
            );
            return;
        }
        let parent = self
            .frames
            .len()
            .checked_sub(2)
            .and_then(|at| self.frames.get(at));
        let since = parent.map(|frame| frame.mark).unwrap_or_default();
        let path = self.path("");
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        self.findings.retract_missing(above, &child.tag, since);
        self.fault(Code::ElementMisplaced, Place::Open, None);
    }

    fn unknown(&mut self, offset: u64) {
        self.skipped = 1;
        if let Some(parent) = self.frames.last_mut() {
            parent.unknown += 1;
            parent.filled = true;
            parent.broken = true;
        }
        self.fault(Code::ElementUnknown, Place::Unknown(offset), None);
    }

    /// The open element has an attribute that the schema does not allow.
    pub fn attribute_unknown(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.filled = true;
        }
        self.fault(Code::AttributeUnknown, Place::Open, None);
    }

    /// The declared type of the open element gives way to another.
    pub fn substitute(&mut self, other: SimpleType) {
        if let Some(frame) = self.frames.last_mut() {
            frame.substitute = Some(Box::new(other));
        }
    }

    /// The element that is open.
    pub fn open_element(&self) -> Option<ElementId> {
        self.frames.last().map(|frame| frame.element)
    }

    /// Text, or CDATA, within the open element. False when there is too much.
    #[inline]
    pub fn text(&mut self, text: &str, cdata: bool, offset: u64) -> bool {
        if self.skipped > 0 {
            return true;
        }
        let Some(frame) = self.frames.last_mut() else {
            return true;
        };
        let element = self.schema.element(frame.element);
        if let Some(leaf) = &element.leaf {
            let most = if leaf.is_unlimited() {
                self.long_text
            } else {
                EVENT_BYTES
            };
            if self.value.len() + text.len() > most {
                return false;
            }
            self.value.push_str(text);
            return true;
        }
        let blank = text
            .bytes()
            .all(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
        // libxml2 takes no CDATA between elements, not even an empty one.
        let fine = blank && !(cdata && self.tolerance.is_none());
        if !fine && !frame.text_reported {
            frame.text_reported = true;
            frame.filled = true;
            self.fault(Code::TextUnexpected, Place::Within(offset), None);
        }
        true
    }

    /// The innermost element ends; `offset` is where its end tag begins.
    pub fn end(&mut self, offset: u64) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        let Some(frame) = self.frames.last() else {
            return;
        };
        let element = self.schema.element(frame.element);
        let present = match &element.leaf {
            Some(leaf) => self.end_leaf(leaf, element.term),
            None => self.end_group(offset),
        };
        let Some(frame) = self.frames.pop() else {
            return;
        };
        self.counts.truncate(frame.counts);
        if let Some(document) = &mut self.document {
            if present {
                document.close(frame.nodes);
            } else {
                document.discard(frame.nodes);
            }
        }
        if present {
            if let Some(parent) = self.frames.last_mut() {
                parent.filled |= frame.filled;
            }
        } else {
            self.absent(&frame);
        }
    }

    /// An element that counts as absent leaves no trace but its position.
    fn absent(&mut self, frame: &Frame) {
        self.findings.forget(frame.mark);
        if let Some(parent) = self.frames.last_mut() {
            parent.cursor = frame.parent_cursor;
            if let Some(count) = self.counts.get_mut(parent.counts + frame.particle) {
                count.kept -= 1;
            }
        }
    }

    /// Whether the open element may be left out.
    fn optional(&self) -> bool {
        if !self
            .tolerance
            .is_some_and(|tolerance| tolerance.empty_is_absent)
        {
            return false;
        }
        let [.., parent, frame] = self.frames.as_slice() else {
            return false;
        };
        let kept = self
            .counts
            .get(parent.counts + frame.particle)
            .map_or(0, |count| count.kept);
        kept > self.schema.element(frame.element).min
    }

    fn end_group(&mut self, offset: u64) -> bool {
        let Some(frame) = self.frames.last() else {
            return true;
        };
        let (cursor, counts, element) = (frame.cursor, frame.counts, frame.element);
        if !frame.filled && self.optional() {
            return false;
        }
        for particle in cursor..self.schema.element(element).children.len() {
            self.require(element, counts, particle, Place::Within(offset));
        }
        true
    }

    fn end_leaf(&mut self, declared: &SimpleType, term: Option<Term>) -> bool {
        let optional = self.optional();
        let Some(frame) = self.frames.last_mut() else {
            return true;
        };
        let substitute = frame.substitute.take();
        let leaf = substitute.as_deref().unwrap_or(declared);
        let raw = std::mem::take(&mut self.value);
        let value = leaf.white_space.apply(&raw);
        let blank = value
            .bytes()
            .all(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
        frame.filled |= !blank;
        let present = !(blank && !frame.filled && optional);
        if present && !frame.broken {
            let rules = if self.tolerance.is_some() {
                Rules::Recommendation
            } else {
                Rules::Libxml2
            };
            if let Err(fault) = leaf.check(&value, &raw, rules) {
                self.bad_value(&fault, &value, term);
            }
            self.remember(term, &value);
            if let Some(document) = &mut self.document {
                document.push_text(&value);
            }
        }
        drop(value);
        self.value = raw;
        present
    }

    fn bad_value(&mut self, fault: &Fault<'_>, value: &str, term: Option<Term>) {
        if let (Some(tolerance), Fault::Codes(_)) = (self.tolerance, fault) {
            if term == Some(Term::MessageVersion) {
                if !tolerance.versions.iter().any(|version| version == value) {
                    self.report(
                        Code::VersionUnexpected,
                        Severity::Warning,
                        Place::Open,
                        fault.expected(),
                    );
                }
                return;
            }
            let open = self.open_element().map(|id| self.schema.element(id));
            if open.is_some_and(|element| element.lenient) {
                self.report(
                    Code::CodeUnknown,
                    Severity::Warning,
                    Place::Open,
                    fault.expected(),
                );
                return;
            }
        }
        self.fault(fault.code(), Place::Open, fault.expected());
    }

    fn remember(&mut self, term: Option<Term>, value: &str) {
        match term {
            Some(Term::Berrefnr) => {
                self.header.berrefnr = Some(Zeroizing::new(value.to_owned()));
            }
            Some(Term::ReceiptWanted) => self.header.receipt_wanted = Some(value == "J"),
            _ => {}
        }
    }
}

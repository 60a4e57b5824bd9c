//! From a decision to a message: which elements stay, and the XML of them.
//!
//! First the table and the decision mark what goes; then every group that
//! lost a mandatory part goes as a whole, so that the smallest valid ancestor
//! is dropped and what is left is valid.

use std::collections::{BTreeMap, HashSet};

use super::decide::Decision;
use super::table::{Cell, Opener, Parts, Rule, Sheet};
use crate::validate::{Document, NodeId, Term};

/// What the writer of a release needs beside the document.
pub(super) struct Filter<'a> {
    pub document: &'a Document,
    pub sheet: &'a Sheet,
    pub parts: &'a Parts,
    /// Employers that the release is about.
    pub employers: &'a HashSet<NodeId>,
    pub decision: &'a Decision,
    pub executor_name: bool,
    pub document_names: bool,
}

/// Why one element does not pass, for `explain` and the audit counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StrippedRow {
    /// `strip`, `bsn`, `minimal`, `code_unknown` or `incomplete`.
    pub rule: &'static str,
    /// The row of the table: the path of the element.
    pub row: String,
}

/// The elements that pass, and how many of each row do not.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// A bit per node: a message of many employers has many selections.
    kept: Vec<u64>,
    pub stripped: BTreeMap<StrippedRow, u32>,
}

impl Selection {
    pub fn keeps(&self, node: NodeId) -> bool {
        let word = self.kept.get(node.index() / 64).copied();
        word.unwrap_or(0) >> (node.index() % 64) & 1 == 1
    }

    fn set(&mut self, node: NodeId, kept: bool) {
        if let Some(word) = self.kept.get_mut(node.index() / 64) {
            let bit = 1 << (node.index() % 64);
            *word = if kept { *word | bit } else { *word & !bit };
        }
    }

    /// How many elements pass.
    fn size(&self) -> usize {
        self.kept
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    fn count(&mut self, rule: &'static str, row: &str) {
        *self
            .stripped
            .entry(StrippedRow {
                rule,
                row: row.to_owned(),
            })
            .or_default() += 1;
    }
}

enum Mark {
    Keep,
    /// Not a matter of the table: persons and parts that are not meant.
    Leave,
    Strip(&'static str),
}

impl Filter<'_> {
    /// Marks what passes.
    pub fn select(&self) -> Selection {
        let mut selection = Selection {
            kept: vec![0; self.document.len().div_ceil(64)],
            ..Selection::default()
        };
        self.mark(self.document.root(), false, &mut selection);
        self.prune(self.document.root(), &mut selection);
        selection
    }

    fn mark(&self, node: NodeId, minimal: bool, selection: &mut Selection) {
        match self.judge(node, minimal) {
            Mark::Keep => {}
            Mark::Leave => return,
            Mark::Strip(rule) => {
                selection.count(rule, &self.document.element(node).path);
                return;
            }
        }
        selection.set(node, true);
        let minimal = minimal || self.decision.minimal.contains(&node);
        for child in self.document.children(node) {
            self.mark(child, minimal, selection);
        }
    }

    fn judge(&self, node: NodeId, minimal: bool) -> Mark {
        let element = self.document.element(node);
        match self.document.term(node) {
            Some(Term::Employer) if !self.employers.contains(&node) => return Mark::Leave,
            Some(Term::Employee | Term::Absence | Term::Document)
                if !self.decision.kept.contains(&node) =>
            {
                return Mark::Leave;
            }
            Some(Term::Employment | Term::Appointment)
                if self.is_of_a_person(node) && !self.decision.kept.contains(&node) =>
            {
                return Mark::Leave;
            }
            _ => {}
        }
        match self.cell(self.sheet.rule(self.document.element_index(node))) {
            Cell::Strip | Cell::Never => return Mark::Strip("strip"),
            Cell::Bsn => return Mark::Strip("bsn"),
            Cell::Pass | Cell::Write | Cell::Constant(_) | Cell::Document => {}
        }
        if minimal && element.min == 0 && !self.parts.minimal.keep.contains(&element.tag) {
            return Mark::Strip("minimal");
        }
        if !self.document.is_listed_code(node) {
            return Mark::Strip("code_unknown");
        }
        Mark::Keep
    }

    /// True for the parts that decisions are about: not for an appointment
    /// that a document merely mentions.
    fn is_of_a_person(&self, node: NodeId) -> bool {
        match self.document.term(node) {
            Some(Term::Appointment) => self.document.parent(node) == Some(self.document.root()),
            _ => true,
        }
    }

    /// The cell that holds for this tenant.
    pub fn cell<'r>(&self, rule: &'r Rule) -> &'r Cell {
        let open = match rule.opener {
            None => false,
            Some(Opener::ExecutorName) => self.executor_name,
            Some(Opener::DocumentNames) => self.document_names,
        };
        if open { &Cell::Pass } else { &rule.cell }
    }

    /// Drops every group that lost a mandatory part. True when `node` stays.
    fn prune(&self, node: NodeId, selection: &mut Selection) -> bool {
        if !selection.keeps(node) {
            return false;
        }
        let mut present: BTreeMap<usize, u32> = BTreeMap::new();
        for child in self.document.children(node) {
            if self.prune(child, selection) {
                *present
                    .entry(self.document.element_index(child))
                    .or_default() += 1;
            }
        }
        let schema = self.document.schema();
        let complete = self.document.element(node).children.iter().all(|child| {
            let needed = schema.elements.get(*child).map_or(0, |element| element.min);
            present.get(child).copied().unwrap_or(0) >= needed
        });
        if !complete {
            // An employer of whom nobody is left is no group that was stripped.
            let held_persons = self.document.term(node) == Some(Term::Employer);
            if !held_persons && node != self.document.root() {
                selection.count("incomplete", &self.document.element(node).path);
            }
            selection.set(node, false);
        }
        complete
    }
}

/// Texts that the gateway writes itself, by term; and by tag below an
/// employer, what the receiver wants to see there.
pub(super) struct Written<'a> {
    pub header: &'a dyn Fn(Term) -> Option<String>,
    pub employer: &'a BTreeMap<String, String>,
}

/// The XML of what passes, with the schema's own root and namespace.
pub(super) fn render(filter: &Filter<'_>, selection: &Selection, written: &Written<'_>) -> Vec<u8> {
    let document = filter.document;
    let schema = document.schema();
    let mut out = String::with_capacity(selection.size() * 56 + 256);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<");
    out.push_str(&schema.root);
    out.push_str(" xmlns=\"");
    escape(&schema.namespace, &mut out);
    out.push_str("\">");
    Writer {
        filter,
        selection,
        written,
        out: &mut out,
    }
    .children(document.root());
    out.push_str("</");
    out.push_str(&schema.root);
    out.push_str(">\n");
    out.into_bytes()
}

struct Writer<'a> {
    filter: &'a Filter<'a>,
    selection: &'a Selection,
    written: &'a Written<'a>,
    out: &'a mut String,
}

impl Writer<'_> {
    fn children(&mut self, node: NodeId) {
        let document = self.filter.document;
        let adds = document.term(node) == Some(Term::Employer) && !self.written.employer.is_empty();
        let mut due = if adds {
            self.absent_tags(node)
        } else {
            Vec::new()
        };
        for child in document
            .children(node)
            .filter(|child| self.selection.keeps(*child))
        {
            let at = document.element_index(child);
            while due.first().is_some_and(|(element, _, _)| *element < at) {
                let (_, tag, text) = due.remove(0);
                self.leaf(&tag, &text);
            }
            self.node(child);
        }
        for (_, tag, text) in due {
            self.leaf(&tag, &text);
        }
    }

    /// What the receiver wants to see of an employer and the sender left out.
    fn absent_tags(&self, employer: NodeId) -> Vec<(usize, String, String)> {
        let document = self.filter.document;
        let present: HashSet<usize> = document
            .children(employer)
            .filter(|child| self.selection.keeps(*child))
            .map(|child| document.element_index(child))
            .collect();
        let mut absent = Vec::new();
        for child in &document.element(employer).children {
            let Some(element) = document.schema().elements.get(*child) else {
                continue;
            };
            if let Some(text) = self.written.employer.get(&element.tag)
                && !present.contains(child)
                && element.is_leaf()
            {
                absent.push((*child, element.tag.clone(), text.clone()));
            }
        }
        absent
    }

    fn node(&mut self, node: NodeId) {
        let document = self.filter.document;
        let element = document.element(node);
        if !element.is_leaf() {
            self.tag("<", &element.tag);
            self.children(node);
            self.tag("</", &element.tag);
            return;
        }
        match self.replacement(node) {
            Some(text) => self.leaf(&element.tag, &text),
            None => self.leaf(&element.tag, without_zone(document, node)),
        }
    }

    fn replacement(&self, node: NodeId) -> Option<String> {
        let document = self.filter.document;
        let parent_is = |term| {
            document
                .parent(node)
                .is_some_and(|parent| document.term(parent) == Some(term))
        };
        match self
            .filter
            .cell(self.filter.sheet.rule(document.element_index(node)))
        {
            Cell::Write => (self.written.header)(document.term(node)?),
            Cell::Constant(text) => Some(text.clone()),
            Cell::Pass if parent_is(Term::Employer) => self
                .written
                .employer
                .get(&document.element(node).tag)
                .cloned(),
            Cell::Pass | Cell::Document | Cell::Strip | Cell::Bsn | Cell::Never => None,
        }
    }

    fn leaf(&mut self, tag: &str, text: &str) {
        self.tag("<", tag);
        escape(text, self.out);
        self.tag("</", tag);
    }

    fn tag(&mut self, open: &str, tag: &str) {
        self.out.push_str(open);
        self.out.push_str(tag);
        self.out.push('>');
    }
}

/// The text of a leaf; a zone on a date or time is accepted and never sent.
fn without_zone(document: &Document, node: NodeId) -> &str {
    let text = document.text(node);
    if !document.element(node).is_date_or_time() {
        return text;
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    match text.len().checked_sub(6).map(|at| text.split_at(at)) {
        Some((value, zone)) if zone.starts_with(['+', '-']) && zone.contains(':') => value,
        _ => text,
    }
}

fn escape(text: &str, out: &mut String) {
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let reference = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\r' => "&#13;",
            _ => continue,
        };
        out.push_str(text.get(from..at).unwrap_or_default());
        out.push_str(reference);
        from = at + 1;
    }
    out.push_str(text.get(from..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_text_is_escaped() {
        let mut out = String::new();
        escape("a<b & \"c\"]]>\r", &mut out);
        assert_eq!(out, "a&lt;b &amp; &quot;c&quot;]]&gt;&#13;");
    }
}

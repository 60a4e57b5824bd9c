//! The sender's dialect, ironed out of a document.

use super::Remark;
use super::{CodeOutcome, FreeText, Mapping};
use crate::domain::Code;
use crate::validate::{Document, NodeId, Term};

/// Applies `mapping` to every value of `document`: sentinel dates and
/// placeholders go, ids get one spelling, codes are translated, and free text
/// goes where the mapping says so.
///
/// The remarks name placeholders, and codes that the mapping's table rejects
/// ([`Code::CodeRejected`]).
#[must_use]
pub fn normalise(document: &mut Document, mapping: &Mapping) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let leaves: Vec<NodeId> = document
        .descendants(document.root())
        .filter(|node| document.element(*node).is_leaf())
        .collect();
    for node in leaves {
        if let Some(code) = normalise_leaf(document, node, mapping) {
            remarks.push(Remark { code, at: node });
        }
    }
    remarks
}

fn normalise_leaf(document: &mut Document, node: NodeId, mapping: &Mapping) -> Option<Code> {
    let element = document.element(node);
    let (tag, text) = (element.tag.as_str(), document.text(node));
    if document.term(node) == Some(Term::FreeText) && mapping.free_text() == FreeText::Drop {
        document.remove(node);
        return None;
    }
    if element.is_date_or_time() {
        if element.min == 0 && mapping.is_sentinel(text) {
            document.remove(node);
        }
        return None;
    }
    if mapping.is_placeholder(tag, text) {
        document.remove(node);
        return Some(Code::Placeholder);
    }
    match mapping.code(tag, text) {
        CodeOutcome::Keep => {}
        CodeOutcome::Reject => return Some(Code::CodeRejected),
        CodeOutcome::Replace(code) => {
            document.set_text(node, code);
            return None;
        }
    }
    let normal = mapping.normalise_id(tag, text);
    if normal != text {
        let normal = normal.into_owned();
        document.set_text(node, &normal);
    }
    None
}

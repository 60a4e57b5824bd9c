//! Events in; a document that follows its schema out, or findings.
//!
//! Promises: the schemas are the XSD files themselves, read at start and
//! refused when they hold anything that is not understood. [`validate`] with
//! [`Mode::SchemaOnly`] gives the verdict that libxml2 gives with the same
//! XSD. Every finding of one pass is reported, with tags, line and column,
//! and no finding repeats a value of the message. Memory is bounded.
//!
//! Knows no party, no policy and no particular tag: `edition.toml` of each
//! edition says which tags mean what ([`Term`]).

pub mod command;
mod document;
mod edition;
mod findings;
mod frame;
mod identify;
mod lexical;
mod pass;
mod pattern;
mod schema;
mod simple;
mod term;
mod types;
mod walk;
mod xsd;
mod xsd_tree;

pub use document::{Document, Keep, NodeId};
pub use edition::{Edition, Editions};
pub use pass::{Read, RejectKind, Rejected, Verdict, read, validate};
pub use schema::{Certainty, Element, ElementId, MessageSchema, SchemaError};
pub use term::Term;
pub use types::{Bound, Builtin, SimpleType, WhiteSpace};

use crate::domain::{Code, Severity};
use std::collections::HashMap;

/// Findings listed for one message.
pub const MAX_FINDINGS: usize = 100;
/// Bytes that the value of a leaf without upper limit may take.
pub const LONG_TEXT_BYTES: usize = 192 * 1024 * 1024;

/// What a sender is forgiven, as its mapping says.
#[derive(Clone, Debug, Default)]
pub struct Tolerance {
    /// Other tags that the root may have, with a warning.
    pub root_aliases: Vec<String>,
    /// Whether a message without namespace passes, with a warning.
    pub missing_namespace: bool,
    /// Whether an optional element that is empty, or a group in which every
    /// leaf is, counts as absent.
    pub empty_is_absent: bool,
    /// Further values of `VnrBrCd` that are no reason for a warning.
    pub versions: Vec<String>,
    /// Severities other than the usual ones; `None` switches a rule off. A
    /// document that is not well-formed stays an error.
    pub severity: HashMap<Code, Option<Severity>>,
}

/// How strictly a message is judged.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// The verdict of the schema, as libxml2 gives it.
    SchemaOnly,
    /// As on receipt.
    Tolerant(&'a Tolerance),
}

//! What the pass over a message keeps in mind for each open element.

use super::findings::Mark;
use super::schema::ElementId;
use super::types::SimpleType;
use zeroize::Zeroizing;

/// How often a particle occurred.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    /// In the message as written.
    pub seen: u32,
    /// Of those, not treated as absent.
    pub kept: u32,
}

/// An open element.
pub(super) struct Frame {
    pub element: ElementId,
    /// Place among equal siblings, from 1.
    pub position: u32,
    /// Its particle in the sequence of its parent.
    pub particle: usize,
    /// The cursor of the parent before this element.
    pub parent_cursor: usize,
    /// The particle that comes next.
    pub cursor: usize,
    /// Where the counts of its particles begin.
    pub counts: usize,
    /// Children that the schema does not know.
    pub unknown: u32,
    /// Something within it is not empty.
    pub filled: bool,
    /// Text between its elements was reported.
    pub text_reported: bool,
    /// A leaf with elements in it: its value means nothing.
    pub broken: bool,
    pub offset: u64,
    pub mark: Mark,
    /// Nodes of the document before this one.
    pub nodes: usize,
    /// The type that `xsi:type` put in place of the declared one.
    pub substitute: Option<Box<SimpleType>>,
}

/// What a message says about itself before it may turn out to be invalid.
#[derive(Default)]
pub(super) struct Header {
    pub berrefnr: Option<Zeroizing<String>>,
    pub receipt_wanted: Option<bool>,
}

/// The place of a finding.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The open element.
    Open,
    /// Somewhere within the open element, at this offset.
    Within(u64),
    /// A child of the open element that the schema does not know.
    Unknown(u64),
}

//! The schema of one message as a table.

use super::Term;
use super::types::Builtin;
use super::types::SimpleType;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// Why a schema, or the description of an edition, cannot be used.
#[derive(Debug)]
pub struct SchemaError {
    /// The file.
    pub file: PathBuf,
    /// Line, counted from 1; 0 when the whole file is meant.
    pub line: u64,
    /// What is wrong, and with which construct.
    pub reason: String,
}

impl SchemaError {
    pub(super) fn new(file: impl Into<PathBuf>, line: u64, reason: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for SchemaError {}

/// How certain it is that an element looks like this in the real schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Transcribed from the schema of the publisher.
    Official,
    /// A source of 2017 shows it.
    Source,
    /// A schema of 2019 of the same family shows it.
    Analogy,
    /// Concluded from other facts.
    Inferred,
    /// Taken over from 2022.
    CarriedBack,
    /// Not listed, as for elements of an operator's own schema.
    Unlisted,
}

impl Certainty {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "official" => Self::Official,
            "source-2017" => Self::Source,
            "analogy-2019" => Self::Analogy,
            "inferred" => Self::Inferred,
            "carried-from-2022" => Self::CarriedBack,
            _ => return None,
        })
    }
}

/// The number of an element in [`MessageSchema::elements`].
pub type ElementId = usize;

/// One element of a message at one place.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its tag.
    pub tag: String,
    /// The tags from the root down to it, `Verzuimmeldingen/Wrkgvr/Wrknmr`.
    pub path: String,
    /// How often it has to occur.
    pub min: u32,
    /// How often it may occur; `None` is without limit.
    pub max: Option<u32>,
    /// What it holds, in this order; empty for a leaf.
    pub children: Vec<ElementId>,
    /// The type of its value; `None` for a group.
    pub leaf: Option<SimpleType>,
    /// What it means.
    pub term: Option<Term>,
    /// Accept it, do not send it, unless a setting of the partner says so.
    pub doubtful: bool,
    /// How sure its description is.
    pub certainty: Certainty,
    /// A code outside the list is a warning on receipt.
    pub lenient: bool,
    /// The named type that the schema gives it, as `{tns}Name`.
    pub(super) type_name: Option<String>,
}

impl Element {
    /// True for an element that holds a value.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.leaf.is_some()
    }

    /// True for a day or a time of day.
    #[must_use]
    pub fn is_date_or_time(&self) -> bool {
        let base = self.leaf.as_ref().map(|leaf| leaf.base);
        matches!(
            base,
            Some(Builtin::Date | Builtin::Time | Builtin::DateTime)
        )
    }

    /// True for free text: no number, date or code of a list.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.leaf
            .as_ref()
            .is_some_and(|leaf| leaf.base.is_text() && leaf.codes.is_empty())
    }
}

/// The schema of one message.
#[derive(Debug)]
pub struct MessageSchema {
    /// The name of the message.
    pub name: String,
    /// The tag of the root.
    pub root: String,
    /// The namespace of all elements; empty for none.
    pub namespace: String,
    /// `BrCd`.
    pub code: String,
    /// `VnrBrCd`.
    pub version: String,
    /// Other values of `VnrBrCd` that may be the ones of this edition.
    pub other_versions: Vec<String>,
    /// Every element, the root first, in document order.
    pub elements: Vec<Element>,
    /// The simple types that have a name, which `xsi:type` may ask for.
    pub(super) types: HashMap<String, SimpleType>,
}

impl MessageSchema {
    /// The element with this number.
    ///
    /// # Panics
    ///
    /// When the number is not one of this schema.
    #[must_use]
    #[inline]
    pub fn element(&self, id: ElementId) -> &Element {
        #[expect(
            clippy::indexing_slicing,
            reason = "numbers come from the schema itself"
        )]
        &self.elements[id]
    }

    /// The element at a path from the root.
    #[must_use]
    pub fn at_path(&self, path: &str) -> Option<&Element> {
        self.elements.iter().find(|element| element.path == path)
    }
}

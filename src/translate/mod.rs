//! From a sender's dialect to the gateway's own words.
//!
//! A [`Mapping`], read from `mappings/*.toml`, says how one party's messages
//! differ from the standard. [`normalise`] irons a validated document out by
//! it, [`read`] makes the edition-neutral model, [`check`] holds the model
//! against the business rules. All of it is pure; this module knows no route,
//! no ledger and no receiver. `docs/mappings.md` describes the files.

mod action;
mod identifier;
mod mapping;
mod model;
mod normalise;
mod rules;
mod set;
mod written;

pub use action::{Action, Pairing};
pub use identifier::{Case, IdRule, LeadingZeros};
pub use mapping::{
    CodeOutcome, CodeTable, EmployerKeyRule, FreeText, Mapping, ReceiptRule, SendReceipt,
};
pub use model::{
    Absence, Employee, Employer, Employment, Header, Item, ItemContent, Kind, Message, parse_date,
    read,
};
pub use normalise::normalise;
pub use rules::check;
pub use set::Mappings;

use crate::domain::Code;
use crate::validate::NodeId;

/// Something that the sender should know, at a node of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Remark {
    /// Which rule.
    pub code: Code,
    /// Where.
    pub at: NodeId,
}

//! Dialects: how one party's messages differ from the standard.
//!
//! A [`Mapping`] is read from `mappings/*.toml` and answers questions about
//! single texts: what does this code mean, how is this id written, is this
//! date a date. All answers are pure. This module does not know documents,
//! routes or persons; which element to ask about is the caller's business.
//!
//! `docs/mappings.md` describes the files.

mod action;
mod identifier;
mod mapping;
mod set;
mod written;

pub use action::{Action, Pairing};
pub use identifier::{Case, IdRule, LeadingZeros};
pub use mapping::{
    CodeOutcome, CodeTable, EmployerKeyRule, FreeText, Mapping, ReceiptRule, SendReceipt,
};
pub use set::Mappings;

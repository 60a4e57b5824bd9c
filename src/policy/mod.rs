//! Who may have what: the privacy policy.
//!
//! A document goes in, releases come out, and nothing else does: [`strip`]
//! removes citizen service numbers, [`decide`] finds the persons that pass on
//! a route, [`release`] writes what the table lets pass of them. All of it is
//! pure; the ledger is read before and written after. This module knows
//! neither HTTP nor SQL.

mod absences;
mod bsn;
mod decide;
mod filter;
mod identity;
mod ledger;
mod outgoing;
mod release;
mod table;

pub use absences::{has_changed_keys, is_repair};
pub use bsn::{Stripped, strip};
pub use decide::{
    Class, Decision, LedgerView, Scope, case_ids, class_of, decide, decide_items, is_known,
    is_sick_or_recovered, rule,
};
pub use filter::StrippedRow;
pub use identity::{Identity, berrefnr, body, route};
pub use ledger::{CaseEntry, CaseKey, CaseState, LedgerChange};
pub use outgoing::{Destination, Occasion, Outcome, Waiting, park, release};
#[cfg(test)]
pub use release::testing;
pub use release::{Parked, Release, Withheld};
pub use table::{Cell, Opener, Parts, Policy, PolicyError, Rule, Sheet};

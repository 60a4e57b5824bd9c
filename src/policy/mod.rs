//! Who may have what: the privacy policy.

mod ledger;
mod release;

pub use ledger::{CaseEntry, CaseKey, CaseState, LedgerChange};
#[cfg(test)]
pub use release::testing;
pub use release::{Parked, Release, Withheld};

//! The directory: which parties connect, whose messages they exchange, and
//! who may receive them.
//!
//! It starts as TOML that an operator applies ([`load`]), becomes records in
//! the store ([`Directory::to_records`]), and is asked by the pipeline through
//! a [`Lookup`]. A [`Directory`] that passed [`Directory::check`] has no
//! reference that leads nowhere and no employer that two tenants of one source
//! claim.
//!
//! This module does not know messages, the store or who approved a legal
//! basis. A secret is only ever a reference here. `docs/directory.md`
//! describes the file.

mod check;
mod delivery;
mod diff;
mod file;
mod lookup;
mod model;
mod record;

pub use check::{Inconsistency, Known};
pub use delivery::{ClientCertificate, Delivery, Push};
pub use diff::{Change, Diff};
pub use file::{DirectoryError, DirectoryFile, load};
pub use lookup::{Lookup, Match};
pub use model::{
    Agreement, BsnMode, Directory, EMPLOYER_TAGS, EmployerKey, LegalBasis, Party, PartyLimits, Pin,
    RecordKind, Route, Tenant,
};

#[cfg(test)]
mod tests;

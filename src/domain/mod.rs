//! Values and rules of the field, without IO and without serialisation of
//! secrets.
//!
//! Words of the standard that stay Dutch, because every partner knows them:
//!
//! | word | meaning |
//! |---|---|
//! | werkgever | employer |
//! | arbodienst | occupational health service |
//! | bedrijfsarts | company doctor |
//! | verzekeraar | insurer |
//! | Verzuimmelding | absence report |
//! | Dienstverband | employment |
//! | Retourmelding | technical answer to a message |
//! | Berrefnr | the sender's own reference of a message, unique per sender |
//!
//! This module does not know XML, HTTP, SQL or the configuration.

mod bsn;
mod finding;
mod hash;
mod name;
mod party;

pub use bsn::{Bsn, BsnError, passes_eleven_test};
pub use finding::{Code, Finding, Language, Severity};
pub use hash::KeyedHash;
pub use name::{DistinguishedName, Fingerprint, WrongName};
pub use party::{Domain, PartyId, PartyKind, TenantId, UnknownWord};

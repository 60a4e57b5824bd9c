//! Keyed hashes of the ids that the ledger, the inbox and parking remember.
//!
//! One place, so that two stages can never hash the same thing differently.

use jiff::civil::Date;

use crate::domain::{Domain, KeyedHash, PartyId, TenantId};
use crate::seal::Keys;

/// Hashes ids as one sender knows them.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    keys: &'a Keys,
    sender: &'a PartyId,
}

impl<'a> Identity<'a> {
    /// Ids of the employer's side `sender`.
    #[must_use]
    pub fn of(keys: &'a Keys, sender: &'a PartyId) -> Self {
        Self { keys, sender }
    }

    /// A person: sender and employee id.
    #[must_use]
    pub fn person(&self, employee_id: &str) -> KeyedHash {
        self.keys
            .keyed_hash("person", &[self.sender.as_str(), employee_id])
    }

    /// An employment.
    #[must_use]
    pub fn employment(&self, employment_id: &str) -> KeyedHash {
        self.keys
            .keyed_hash("employment", &[self.sender.as_str(), employment_id])
    }

    /// A case, as its id alone names it.
    #[must_use]
    pub fn case(&self, case_id: &str) -> KeyedHash {
        self.keys
            .keyed_hash("case", &[self.sender.as_str(), case_id])
    }

    /// A case of this person: a case id that is used again for somebody else
    /// is another case.
    #[must_use]
    pub fn case_of(&self, employee_id: &str, case_id: &str) -> KeyedHash {
        self.keys
            .keyed_hash("case-of", &[self.sender.as_str(), employee_id, case_id])
    }

    /// A date of birth; absent dates are all alike.
    #[must_use]
    pub fn birth(&self, date: Option<Date>) -> KeyedHash {
        let text = date.map(|date| date.to_string()).unwrap_or_default();
        self.keys.keyed_hash("birth", &[&text])
    }

    /// The content of a report, to tell a resend from another report.
    #[must_use]
    pub fn content(&self, bytes: &[u8]) -> KeyedHash {
        self.keys.keyed_hash_bytes("content", bytes)
    }
}

/// A route, apart for test traffic.
#[must_use]
pub fn route(
    keys: &Keys,
    tenant: &TenantId,
    to: &PartyId,
    domain: Domain,
    test: bool,
) -> KeyedHash {
    let traffic = if test { "test" } else { "production" };
    keys.keyed_hash(
        "route",
        &[tenant.as_str(), to.as_str(), domain.as_str(), traffic],
    )
}

/// A message reference of a party.
#[must_use]
pub fn berrefnr(keys: &Keys, party: &PartyId, reference: &str) -> KeyedHash {
    keys.keyed_hash("berrefnr", &[party.as_str(), reference])
}

/// A decoded body, to tell the same message from another one with its
/// reference.
#[must_use]
pub fn body(keys: &Keys, bytes: &[u8]) -> KeyedHash {
    keys.keyed_hash_bytes("body", bytes)
}

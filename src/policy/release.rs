//! What leaves policy: releases and parked parts. Only this module's parent
//! can make them, and the store takes nothing else.

use std::fmt;

use crate::domain::{Code, Domain, KeyedHash, PartyId, TenantId};

/// What one receiver gets of one message: a complete, valid message of its
/// own, without anything that its domain may not have.
pub struct Release {
    pub(super) id: String,
    pub(super) tenant: TenantId,
    pub(super) to: PartyId,
    pub(super) domain: Domain,
    pub(super) test: bool,
    pub(super) message_type: String,
    pub(super) edition: String,
    pub(super) berrefnr: KeyedHash,
    pub(super) policy_version: String,
    pub(super) cases: Vec<KeyedHash>,
    pub(super) xml: Vec<u8>,
}

impl Release {
    /// Opaque id, also what the receiver acknowledges.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose employee it is about.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Who gets it.
    #[must_use]
    pub fn to(&self) -> &PartyId {
        &self.to
    }

    /// The domain it was filtered for.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// True for test traffic, which has its own inbox and numbering.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.test
    }

    /// Name of the message, `Verzuimmeldingen`.
    #[must_use]
    pub fn message_type(&self) -> &str {
        &self.message_type
    }

    /// Edition that it is written in.
    #[must_use]
    pub fn edition(&self) -> &str {
        &self.edition
    }

    /// Hash of its own reference, by which a Retourmelding finds it.
    #[must_use]
    pub fn berrefnr(&self) -> &KeyedHash {
        &self.berrefnr
    }

    /// Version of the policy that made it.
    #[must_use]
    pub fn policy_version(&self) -> &str {
        &self.policy_version
    }

    /// The cases it reports on: releases that share one are handed out in
    /// order.
    #[must_use]
    pub fn cases(&self) -> &[KeyedHash] {
        &self.cases
    }

    /// The message, UTF-8.
    #[must_use]
    pub fn xml(&self) -> &[u8] {
        &self.xml
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Release({} to {})", self.id, self.to)
    }
}

/// A part of a message that cannot go anywhere yet: without citizen service
/// number, free text and bank account.
pub struct Parked {
    pub(super) id: String,
    pub(super) party: PartyId,
    pub(super) tenant: Option<TenantId>,
    pub(super) reason: Code,
    pub(super) test: bool,
    pub(super) message_type: String,
    pub(super) edition: String,
    pub(super) persons: Vec<KeyedHash>,
    pub(super) xml: Vec<u8>,
}

impl Parked {
    /// Opaque id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who sent it.
    #[must_use]
    pub fn party(&self) -> &PartyId {
        &self.party
    }

    /// The tenant, when it is known.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Why it waits.
    #[must_use]
    pub fn reason(&self) -> Code {
        self.reason
    }

    /// True for test traffic.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.test
    }

    /// Name of the message.
    #[must_use]
    pub fn message_type(&self) -> &str {
        &self.message_type
    }

    /// Edition that it is written in.
    #[must_use]
    pub fn edition(&self) -> &str {
        &self.edition
    }

    /// Hashes of sender and employee id of the persons it is about.
    #[must_use]
    pub fn persons(&self) -> &[KeyedHash] {
        &self.persons
    }

    /// The stripped message, UTF-8.
    #[must_use]
    pub fn xml(&self) -> &[u8] {
        &self.xml
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parked({} of {}: {})", self.id, self.party, self.reason)
    }
}

/// How often one rule withheld or stripped something: the audit count of a
/// message, without persons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Whose message.
    pub tenant: TenantId,
    /// Who did not get it.
    pub to: PartyId,
    /// In which domain.
    pub domain: Domain,
    /// Name of the message.
    pub message_type: String,
    /// The rule, such as `person_not_sick` or `bsn`.
    pub rule: &'static str,
    /// How many persons or elements.
    pub count: u32,
}

/// Makes releases without a message, for the tests of the store and of
/// delivery.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A release of `xml` about `cases`.
    ///
    /// # Panics
    ///
    /// When `to` is no id.
    #[must_use]
    pub fn release(id: &str, to: &str, test: bool, cases: &[KeyedHash], xml: &[u8]) -> Release {
        Release {
            id: id.to_owned(),
            tenant: TenantId::parse("bakkerij").unwrap(),
            to: PartyId::parse(to).unwrap(),
            domain: Domain::Arbodienst,
            test,
            message_type: "Verzuimmeldingen".to_owned(),
            edition: "2017".to_owned(),
            berrefnr: KeyedHash::from_bytes([7; KeyedHash::LEN]),
            policy_version: "1".to_owned(),
            cases: cases.to_vec(),
            xml: xml.to_vec(),
        }
    }

    /// A parked part of party `adp` about `persons`.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn parked(id: &str, reason: Code, persons: &[KeyedHash], xml: &[u8]) -> Parked {
        Parked {
            id: id.to_owned(),
            party: PartyId::parse("adp").unwrap(),
            tenant: None,
            reason,
            test: false,
            message_type: "Verzuimmeldingen".to_owned(),
            edition: "2017".to_owned(),
            persons: persons.to_vec(),
            xml: xml.to_vec(),
        }
    }

    /// A parked part of a tenant's.
    #[must_use]
    pub fn parked_of(tenant: TenantId, id: &str, reason: Code) -> Parked {
        Parked {
            tenant: Some(tenant),
            ..parked(id, reason, &[], b"<parked/>")
        }
    }
}

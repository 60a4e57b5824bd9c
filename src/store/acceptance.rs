//! What is written when a message is accepted, and its sealing.
//!
//! Everything personal is sealed here, on the task of the caller, so the
//! writer handles only bytes that nobody can read.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use super::details::Details;
use super::error::Error;
use super::ledger::LedgerStep;
use super::message::StoredMessage;
use super::parked::ParkedItem;
use super::sql::{self, blob};
use crate::clock;
use crate::domain::{Domain, Finding, KeyedHash, PartyId, TenantId};
use crate::policy::{LedgerChange, Parked, Release, Withheld};
use crate::seal::{Keys, NoKey, Place, Scope};

/// How far a clock may be off, and a decision be old, when what was decided
/// with one day is written on another. The clock of the database says which
/// day it is, so no two nodes decide with different days for longer.
pub const CLOCKS_APART: Duration = Duration::from_mins(2);

/// A message that was received, without its content.
#[derive(Clone)]
pub struct Message {
    /// Opaque id, told to the sender.
    pub id: String,
    /// Who sent it.
    pub party: PartyId,
    /// True for test traffic.
    pub test: bool,
    /// Hash of the sender's reference. Unique per party, test or not.
    pub berrefnr: KeyedHash,
    /// Hash of the body after decompression.
    pub body: KeyedHash,
    /// When it came in. Kept in whole milliseconds: cut it before the sender
    /// is told, so that a repeat gets the same receipt.
    pub received_at: Timestamp,
    /// Name of the message, `Verzuimmeldingen`.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// The sender's reference itself. Kept sealed.
    pub reference: String,
    /// What was odd about it.
    pub findings: Vec<Finding>,
    /// The domains of the routes that it was meant for.
    pub routed: Vec<Domain>,
    /// False when the sender's status ends at "routed" and shows no
    /// deliveries: they would tell who asked for care.
    pub shown: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} of {})", self.id, self.party)
    }
}

/// A case that a route will recognise until a day, without dates of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Hash of the route.
    pub route: KeyedHash,
    /// Hash of the case id.
    pub case: KeyedHash,
    /// The last day on which it is recognised.
    pub until: Date,
}

/// What a receiver said about a release in a Retourmelding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The release, one that went to the party of the message.
    pub release_id: String,
    /// True when the receiver took it.
    pub positive: bool,
}

/// Everything that accepting one message writes, in one transaction.
#[derive(Debug)]
pub struct Acceptance {
    /// The message.
    pub message: Message,
    /// The version of the directory that it was decided with.
    pub directory_version: i64,
    /// The Dutch day that it was decided with: what is valid depends on it.
    pub decided_on: Date,
    /// What its receivers get.
    pub releases: Vec<Release>,
    /// What their routes now know, by the tenant of the route.
    pub ledger: Vec<(TenantId, LedgerChange)>,
    /// Days that a closed case stays in the ledger, `policy.window_days`.
    pub window_days: i32,
    /// Cases to be recognised for two years.
    pub remember: Vec<Remembered>,
    /// Parts that cannot go anywhere yet.
    pub parked: Vec<Parked>,
    /// Ids of parked parts that this message resolves: removed with it.
    pub unparked: Vec<String>,
    /// What was kept back, in numbers.
    pub withheld: Vec<Withheld>,
    /// When the message is a Retourmelding about a release.
    pub answer: Option<Answer>,
}

impl Acceptance {
    /// Whose keys are needed to seal it.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        let released = self.releases.iter().map(Release::tenant);
        let parked = self.parked.iter().filter_map(Parked::tenant);
        let known = self.ledger.iter().map(|(tenant, _)| tenant);
        released.chain(parked).chain(known)
    }
}

/// Everything that releasing one parked part writes, in one transaction. Its
/// releases count as deliveries of the message that it came with.
#[derive(Debug)]
pub struct Unparking<'a> {
    /// The part.
    pub item: &'a ParkedItem,
    /// The version of the directory that it was decided with.
    pub directory_version: i64,
    /// The Dutch day that it was decided with: what is valid depends on it.
    pub decided_on: Date,
    /// What its receivers get; may be empty, when policy withholds it all.
    pub releases: Vec<Release>,
    /// What their routes now know, by the tenant of the route.
    pub ledger: Vec<(TenantId, LedgerChange)>,
    /// Days that a closed case stays in the ledger, `policy.window_days`.
    pub window_days: i32,
    /// Cases to be recognised for two years.
    pub remember: Vec<Remembered>,
    /// What was kept back, in numbers.
    pub withheld: Vec<Withheld>,
}

impl Unparking<'_> {
    /// Whose keys are needed to seal it.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        let known = self.ledger.iter().map(|(tenant, _)| tenant);
        self.releases.iter().map(Release::tenant).chain(known)
    }
}

/// Why an acceptance was not written; then nothing of it was.
#[derive(Debug)]
pub enum AcceptError {
    /// The party used this reference before. Same body hash: the same message
    /// again; else another one.
    Duplicate(Box<StoredMessage>),
    /// The ledger or a parked part changed since it was read: read it again
    /// and decide again.
    Conflict,
    /// The directory has another version than the one that it was decided
    /// with: read the directory, release what waits, and decide again.
    Stale,
    /// It was decided on a day that the database's clock, give or take
    /// [`CLOCKS_APART`], does not show: decide again if a day began meanwhile,
    /// else one of the clocks is wrong.
    OtherDay,
    /// The store failed; the sender may try again.
    Store(Error),
}

/// Why a parked part was not released; then nothing of it was written.
#[derive(Debug)]
pub enum UnparkError {
    /// It was released or dropped before: nothing is left to decide.
    Gone,
    /// The ledger changed since it was read: read it again and decide again.
    Conflict,
    /// As [`AcceptError::Stale`].
    Stale,
    /// As [`AcceptError::OtherDay`].
    OtherDay,
    /// The store failed; it waits on.
    Store(Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(_) => f.write_str("the sender used this reference before"),
            Self::Conflict => f.write_str("the ledger changed in the meantime"),
            Self::Stale => f.write_str("the directory changed in the meantime"),
            Self::OtherDay => f.write_str("it is another day by the clock of the database"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(cause) => Some(cause),
            Self::Duplicate(_) | Self::Conflict | Self::Stale | Self::OtherDay => None,
        }
    }
}

/// An acceptance as rows, sealed.
pub(crate) struct Prepared {
    pub(super) directory_version: i64,
    pub(super) decided_on: Date,
    /// None when a parked part is released: its message is already there.
    pub(super) message: Option<MessageRow>,
    pub(super) deliveries: Vec<DeliveryRow>,
    pub(super) ledger: Vec<LedgerStep>,
    pub(super) remember: Vec<Remembered>,
    pub(super) parked: Vec<ParkedRow>,
    pub(super) unparked: Vec<String>,
    pub(super) withheld: Vec<(WithheldKey, i64)>,
    pub(super) answer: Option<AnswerRow>,
}

pub(super) struct MessageRow {
    pub(super) id: String,
    pub(super) party: String,
    pub(super) test: bool,
    pub(super) berrefnr: KeyedHash,
    pub(super) body: Vec<u8>,
    pub(super) received_at: i64,
    pub(super) message_type: String,
    pub(super) edition: String,
    pub(super) details: Vec<u8>,
    pub(super) shown: bool,
    pub(super) parked: bool,
    /// Releases and parked parts: what conservation holds it to.
    pub(super) parts: i64,
}

pub(super) struct DeliveryRow {
    pub(super) id: String,
    pub(super) message_id: String,
    pub(super) party: String,
    pub(super) test: bool,
    pub(super) tenant: String,
    pub(super) domain: Domain,
    pub(super) message_type: String,
    pub(super) edition: String,
    pub(super) berrefnr: Vec<u8>,
    pub(super) policy_version: String,
    pub(super) cases: Vec<u8>,
    pub(super) received_at: i64,
    pub(super) offered_at: i64,
    /// Length of the message before sealing.
    pub(super) bytes: usize,
    pub(super) payload: Vec<u8>,
}

pub(super) struct ParkedRow {
    pub(super) id: String,
    pub(super) message_id: String,
    pub(super) party: String,
    pub(super) tenant: Option<String>,
    pub(super) reason: &'static str,
    pub(super) test: bool,
    pub(super) received_at: i64,
    pub(super) message_type: String,
    pub(super) edition: String,
    pub(super) bytes: usize,
    pub(super) sealed: Vec<u8>,
    pub(super) persons: Vec<Vec<u8>>,
}

/// What audit counts are added up by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WithheldKey {
    pub(super) on_day: i64,
    pub(super) tenant: String,
    pub(super) party: String,
    pub(super) domain: Domain,
    pub(super) test: bool,
    pub(super) message_type: String,
    pub(super) rule: &'static str,
}

pub(super) struct AnswerRow {
    pub(super) release_id: String,
    /// Who answered: a release of another party's stays as it is.
    pub(super) party: String,
    pub(super) positive: bool,
    pub(super) at: i64,
}

/// What the rows of one acceptance have in common.
struct Origin<'a> {
    keys: &'a Keys,
    message_id: &'a str,
    test: bool,
    received_at: i64,
    now: Timestamp,
}

/// Where the payload of a delivery is sealed.
pub(super) fn payload_place(id: &str) -> Place<'_> {
    Place {
        table: "payload",
        row: id.as_bytes(),
        column: "sealed",
    }
}

/// Where the content of a parked part is sealed.
pub(super) fn parked_place(id: &str) -> Place<'_> {
    Place {
        table: "parked",
        row: id.as_bytes(),
        column: "sealed",
    }
}

impl Prepared {
    pub(super) fn of_message(
        keys: &Keys,
        acceptance: &Acceptance,
        now: Timestamp,
    ) -> Result<Self, NoKey> {
        let message = &acceptance.message;
        let origin = Origin {
            keys,
            message_id: &message.id,
            test: message.test,
            received_at: sql::ms(message.received_at),
            now,
        };
        Ok(Self {
            directory_version: acceptance.directory_version,
            decided_on: acceptance.decided_on,
            message: Some(message_row(keys, acceptance)?),
            deliveries: acceptance
                .releases
                .iter()
                .map(|r| origin.delivery(r))
                .collect::<Result<_, _>>()?,
            ledger: origin.ledger(&acceptance.ledger, acceptance.window_days)?,
            remember: acceptance.remember.clone(),
            parked: acceptance
                .parked
                .iter()
                .map(|p| origin.parked(p))
                .collect::<Result<_, _>>()?,
            unparked: acceptance.unparked.clone(),
            withheld: acceptance
                .withheld
                .iter()
                .map(|w| origin.withheld(w))
                .collect(),
            answer: acceptance.answer.as_ref().map(|answer| AnswerRow {
                release_id: answer.release_id.clone(),
                party: message.party.to_string(),
                positive: answer.positive,
                at: origin.received_at,
            }),
        })
    }

    pub(super) fn of_parked(
        keys: &Keys,
        unparking: &Unparking<'_>,
        now: Timestamp,
    ) -> Result<Self, NoKey> {
        let item = unparking.item;
        let origin = Origin {
            keys,
            message_id: &item.message_id,
            test: item.test,
            received_at: sql::ms(item.received_at),
            now,
        };
        Ok(Self {
            directory_version: unparking.directory_version,
            decided_on: unparking.decided_on,
            message: None,
            deliveries: unparking
                .releases
                .iter()
                .map(|r| origin.delivery(r))
                .collect::<Result<_, _>>()?,
            ledger: origin.ledger(&unparking.ledger, unparking.window_days)?,
            remember: unparking.remember.clone(),
            parked: Vec::new(),
            unparked: vec![item.id.clone()],
            withheld: unparking
                .withheld
                .iter()
                .map(|w| origin.withheld(w))
                .collect(),
            answer: None,
        })
    }

    /// How much memory it holds while it waits, about.
    pub(super) fn bytes(&self) -> usize {
        let deliveries = self
            .deliveries
            .iter()
            .map(|d| d.payload.len() + d.cases.len());
        let parked = self.parked.iter().map(|p| p.sealed.len());
        deliveries.chain(parked).sum::<usize>() + 512 * (1 + self.ledger.len())
    }
}

fn message_row(keys: &Keys, acceptance: &Acceptance) -> Result<MessageRow, NoKey> {
    let message = &acceptance.message;
    let parts = acceptance.releases.len() + acceptance.parked.len();
    let details = Details {
        reference: &message.reference,
        findings: &message.findings,
        routed: &message.routed,
    };
    Ok(MessageRow {
        id: message.id.clone(),
        party: message.party.to_string(),
        test: message.test,
        berrefnr: message.berrefnr,
        body: blob(&message.body),
        received_at: sql::ms(message.received_at),
        message_type: message.message_type.clone(),
        edition: message.edition.clone(),
        details: details.seal(keys, &message.id)?,
        shown: message.shown,
        parked: !acceptance.parked.is_empty(),
        parts: i64::try_from(parts).unwrap_or(i64::MAX),
    })
}

impl Origin<'_> {
    fn delivery(&self, release: &Release) -> Result<DeliveryRow, NoKey> {
        let cases = release.cases().iter();
        Ok(DeliveryRow {
            id: release.id().to_owned(),
            message_id: self.message_id.to_owned(),
            party: release.to().to_string(),
            test: release.is_test(),
            tenant: release.tenant().to_string(),
            domain: release.domain(),
            message_type: release.message_type().to_owned(),
            edition: release.edition().to_owned(),
            berrefnr: blob(release.berrefnr()),
            policy_version: release.policy_version().to_owned(),
            cases: cases.flat_map(|case| *case.as_bytes()).collect(),
            received_at: self.received_at,
            offered_at: sql::ms(self.now),
            bytes: release.xml().len(),
            payload: self.keys.seal(
                Scope::Tenant(release.tenant()),
                payload_place(release.id()),
                release.xml(),
            )?,
        })
    }

    fn ledger(
        &self,
        changes: &[(TenantId, LedgerChange)],
        window_days: i32,
    ) -> Result<Vec<LedgerStep>, NoKey> {
        let steps = changes.iter();
        steps
            .map(|(tenant, change)| LedgerStep::new(self.keys, tenant, change, window_days))
            .collect()
    }

    fn parked(&self, parked: &Parked) -> Result<ParkedRow, NoKey> {
        let mut persons: Vec<Vec<u8>> = parked.persons().iter().map(blob).collect();
        persons.sort_unstable();
        persons.dedup();
        Ok(ParkedRow {
            id: parked.id().to_owned(),
            message_id: self.message_id.to_owned(),
            party: parked.party().to_string(),
            tenant: parked.tenant().map(ToString::to_string),
            reason: parked.reason().as_str(),
            test: parked.is_test(),
            received_at: self.received_at,
            message_type: parked.message_type().to_owned(),
            edition: parked.edition().to_owned(),
            bytes: parked.xml().len(),
            sealed: self.keys.seal(
                Scope::from(parked.tenant()),
                parked_place(parked.id()),
                parked.xml(),
            )?,
            persons,
        })
    }

    fn withheld(&self, withheld: &Withheld) -> (WithheldKey, i64) {
        let key = WithheldKey {
            on_day: sql::day(clock::civil_at(self.now).date()),
            tenant: withheld.tenant.to_string(),
            party: withheld.to.to_string(),
            domain: withheld.domain,
            test: self.test,
            message_type: withheld.message_type.clone(),
            rule: withheld.rule,
        };
        (key, i64::from(withheld.count))
    }
}

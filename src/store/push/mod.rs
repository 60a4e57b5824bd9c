//! What is pushed: claimed in order per case, within a bound per receiver,
//! and settled against its lease.
//!
//! ```text
//!                     first failure             2xx for a probe
//! receiver:  works ─────────────────▶ paused ─────────────────▶ works
//!                                      │  ▲
//!                    one probe at a    └──┘  it failed again:
//!                    time, when due          a longer pause
//!
//!            any ── 410, or by hand ──▶ stopped ── by hand ──▶ works
//! ```
//!
//! What an attempt says about its receiver counts only if nothing else was
//! said since it was claimed (`failures` is compared). So of many attempts
//! that fail together one counts; the others are given back untouched. Claim
//! and settlement go through the row of the receiver, so nodes that share a
//! database keep bound and pause together.
//!
//! This module does not know how long pauses are: they are passed in.

mod by_hand;
mod claim;
mod settle;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Store;
use super::backend::{Row, query};
use super::error::Error;
use super::inbox::{Leased, new_token};
use super::sql::Columnar as _;
use crate::domain::PartyId;
use by_hand::{Resume, Stop};
use claim::Claim;
use settle::Settle;

/// How a receiver that is pushed to does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReceiver {
    /// Whether anything is sent to it.
    pub state: PushState,
    /// Failures in a row.
    pub failures: u32,
    /// Why it is paused or stopped, in a word such as `timed_out`.
    pub reason: Option<String>,
    /// When it last began to work, fail or stand still.
    pub changed_at: Option<Timestamp>,
}

/// Receivers by party and kind of traffic, true for test traffic.
pub type PushReceivers = BTreeMap<(PartyId, bool), PushReceiver>;

/// Whether anything is sent to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushState {
    /// Everything that is due.
    Works,
    /// Nothing until then, and then one message to see whether it works.
    PausedUntil(Timestamp),
    /// Nothing until a person resumes it.
    Stopped,
}

impl PushReceiver {
    fn untold() -> Self {
        Self {
            state: PushState::Works,
            failures: 0,
            reason: None,
            changed_at: None,
        }
    }

    fn read(row: &Row) -> Result<Self, Error> {
        let until = row.moment_or_none("paused_until")?;
        Ok(Self {
            state: match until {
                _ if row.value("stopped")? => PushState::Stopped,
                Some(until) => PushState::PausedUntil(until),
                None => PushState::Works,
            },
            failures: count(row.value("failures")?),
            reason: row.value("reason")?,
            changed_at: row.moment_or_none("changed_at")?,
        })
    }
}

fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One inbox that is pushed to, and what a claim on it may take.
#[derive(Clone, Debug)]
pub struct PushInbox {
    /// The receiver.
    pub party: PartyId,
    /// True for its test traffic.
    pub test: bool,
    /// Most releases that it may hold at once, over all nodes.
    pub max_in_flight: u32,
    /// How long a claim holds.
    pub ttl: Duration,
}

/// A release in the hands of a worker.
#[derive(Debug)]
pub struct Pushed {
    /// The release and its lease.
    pub message: Leased,
    /// How many of its attempts its receiver failed.
    pub failures: u32,
    /// How many answers said that it cannot be read.
    pub refusals: u32,
    /// How long ago its first attempt failed; nothing if none did.
    pub tried_for: Duration,
    /// How many failures in a row its receiver had when it was claimed.
    pub receiver_failures: u32,
}

/// What a claim took, and when the next one is worth it.
#[derive(Debug)]
pub struct PushClaim {
    /// To be sent, all of different cases.
    pub taken: Vec<Pushed>,
    /// True when more can go as soon as one of what is held is settled.
    pub more: bool,
    /// After which time something comes due by itself.
    pub next: Option<Duration>,
    /// How the receiver does.
    pub receiver: PushReceiver,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver has it.
    TakenOver,
    /// The receiver works and cannot read it: again then, or never.
    Unparseable(Again),
    /// The receiver failed: nothing else goes to it for a while.
    Failed {
        /// When this one may go again.
        again: Again,
        /// How long nothing goes.
        pause: Duration,
        /// Why, in a word.
        reason: String,
    },
    /// The receiver wants nothing any more: the release stays as it was.
    Gone {
        /// Why, in a word.
        reason: String,
    },
    /// Nothing was found out: the release stays as it was.
    GivenBack,
}

/// Whether a release is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not before this time is over.
    After(Duration),
    /// Never: it is a dead letter.
    Never {
        /// Why, as a dead letter says it.
        code: &'static str,
        /// What the receiver said, in a word.
        reason: String,
    },
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What it says, and this to the receiver.
    Done(Option<Turn>),
    /// Somebody else's word about the receiver was first: given back.
    GivenBack,
    /// The lease is not the current one: nothing was changed.
    LeaseLost,
}

/// What changed for a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It worked and failed.
    Paused,
    /// It failed again.
    PausedLonger,
    /// It works again.
    Works,
    /// It wants nothing any more.
    Stopped,
}

/// Which claim a settlement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRef {
    /// The release.
    pub id: String,
    /// The lease of the claim.
    pub lease: String,
    /// True for test traffic.
    pub test: bool,
    /// [`Pushed::failures`] of the claim.
    pub failures: u32,
    /// [`Pushed::refusals`] of the claim.
    pub refusals: u32,
    /// [`Pushed::receiver_failures`] of the claim.
    pub receiver_failures: u32,
}

impl From<&Pushed> for PushedRef {
    fn from(pushed: &Pushed) -> Self {
        Self {
            id: pushed.message.id.clone(),
            lease: pushed.message.lease.clone(),
            test: pushed.message.test,
            failures: pushed.failures,
            refusals: pushed.refusals,
            receiver_failures: pushed.receiver_failures,
        }
    }
}

const RECEIVER: &str = "SELECT failures, paused_until, stopped, reason, changed_at
    FROM push_receiver WHERE party = $1 AND test = $2";
const RECEIVERS: &str = "SELECT party, test, failures, paused_until, stopped, reason, changed_at
    FROM push_receiver";
const IS_DUE: &str = "SELECT 1 AS one FROM delivery
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND due_at <= $3
    AND (state = 'offered' OR lease_until <= $3) LIMIT 1";

impl Store {
    /// Claims up to `most` releases that are due, oldest first, if the
    /// receiver is not paused. Order per case holds over all claims.
    ///
    /// # Errors
    ///
    /// As [`Store::lease`].
    pub async fn claim_push(&self, inbox: &PushInbox, most: usize) -> Result<PushClaim, Error> {
        let change = Claim {
            inbox: inbox.clone(),
            most,
            token: new_token(),
        };
        let token = change.token.clone();
        let claimed = self.writer().write(change).await?;
        let opened = self.open_leased(&inbox.party, inbox.test, &token, &claimed.taken);
        let mut rows = claimed.taken.rows.iter();
        let mut taken = Vec::new();
        for message in opened.await? {
            // What did not open is missing among the messages.
            let is_its = |row: &&Row| row.value::<&str>("id").is_ok_and(|id| id == message.id);
            let Some(row) = rows.find(is_its) else { break };
            let first_failed_at: Option<i64> = row.value("first_failed_at")?;
            taken.push(Pushed {
                message,
                failures: count(row.value("failures")?),
                refusals: count(row.value("refusals")?),
                tried_for: first_failed_at.map_or(Duration::ZERO, |at| between(at, claimed.now)),
                receiver_failures: claimed.receiver.failures,
            });
        }
        Ok(PushClaim {
            taken,
            more: claimed.taken.is_full || claimed.taken.held_back,
            next: claimed.next.map(|next| between(claimed.now, next)),
            receiver: claimed.receiver,
        })
    }

    /// Settles one release of a claim that was made when its receiver had
    /// `receiver_failures` failures in a row.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; settling again is fine.
    pub async fn settle_push(
        &self,
        party: &PartyId,
        pushed: &PushedRef,
        settlement: &Settlement,
    ) -> Result<Settled, Error> {
        let again = match settlement {
            Settlement::Unparseable(again) | Settlement::Failed { again, .. } => Some(again),
            Settlement::TakenOver | Settlement::Gone { .. } | Settlement::GivenBack => None,
        };
        let rejection = match again {
            Some(Again::Never { code, reason }) => {
                Some(self.sealed_rejection(&pushed.id, code, reason)?)
            }
            Some(Again::After(_)) | None => None,
        };
        let change = Settle {
            party: party.to_string(),
            pushed: pushed.clone(),
            settlement: settlement.clone(),
            rejection,
        };
        Ok(self.writer().write(change).await?.settled)
    }

    /// How a receiver does, without changing anything.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn push_receiver(&self, party: &PartyId, test: bool) -> Result<PushReceiver, Error> {
        let mut connection = self.reader().await?;
        let row = query(RECEIVER)
            .bind(party.as_str())
            .bind(test)
            .fetch_optional(&mut connection)
            .await?;
        row.map_or_else(
            || Ok(PushReceiver::untold()),
            |row| PushReceiver::read(&row),
        )
    }

    /// How every inbox does that was ever pushed to: party and whether it is
    /// its test traffic. One that is missing works.
    ///
    /// # Errors
    ///
    /// As [`Self::push_receiver`].
    pub async fn push_receivers(&self) -> Result<PushReceivers, Error> {
        let mut connection = self.reader().await?;
        let rows = query(RECEIVERS).fetch_all(&mut connection).await?;
        let receivers = rows.iter().map(|row| {
            let party = row.word("party", |text| PartyId::parse(text).ok())?;
            Ok(((party, row.value("test")?), PushReceiver::read(row)?))
        });
        receivers.collect()
    }

    /// True when a claim would find something that may go now, unless an
    /// earlier report of its case holds it up.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn has_due(&self, party: &PartyId, test: bool) -> Result<bool, Error> {
        let mut connection = self.reader().await?;
        let row = query(IS_DUE)
            .bind(party.as_str())
            .bind(test)
            .bind(connection.now_ms())
            .fetch_optional(&mut connection)
            .await?;
        Ok(row.is_some())
    }

    /// Stops a receiver until a person resumes it; what is on its way is
    /// finished. Says whether it was going.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn stop_push(
        &self,
        party: &PartyId,
        test: bool,
        reason: &str,
    ) -> Result<bool, Error> {
        let change = Stop {
            party: party.to_string(),
            test,
            reason: reason.to_owned(),
        };
        self.writer().write(change).await
    }

    /// Lets a receiver have its messages again, at once, also those that wait
    /// for a retry. Says whether it was paused or stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn resume_push(&self, party: &PartyId, test: bool) -> Result<bool, Error> {
        let change = Resume {
            party: party.to_string(),
            test,
        };
        self.writer().write(change).await
    }
}

/// From one moment to a later one, both in unix milliseconds.
fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

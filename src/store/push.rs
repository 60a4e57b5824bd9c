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

use std::time::Duration;

use super::Store;
use super::backend::{Connection, Row, query};
use super::bells::Rings;
use super::error::Error;
use super::inbox::{Leased, in_ms, new_token};
use super::lease::{Due, Lease, Reports, Taken};
use super::sql::{Columnar as _, ms};
use super::writer::Change;
use crate::domain::PartyId;
use jiff::Timestamp;

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

const RECEIVER: &str = "SELECT failures, paused_until, stopped, reason, changed_at
    FROM push_receiver WHERE party = $1 AND test = $2";
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
        self.writer().write(change).await
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

/// Makes the row of a receiver if there is none, locks it, and reads it.
const LOCK_RECEIVER: &str = "INSERT INTO push_receiver (party, test, failures, stopped)
    VALUES ($1, $2, 0, FALSE)
    ON CONFLICT (party, test) DO UPDATE SET failures = push_receiver.failures
    RETURNING failures, paused_until, stopped, reason, changed_at";
const HELD: &str = "SELECT COUNT(*) AS held, MIN(lease_until) AS until FROM delivery
    WHERE state = 'leased' AND party = $1 AND test = $2 AND lease_until > $3";

struct Claim {
    inbox: PushInbox,
    most: usize,
    token: String,
}

struct Claimed {
    taken: Taken,
    /// When the claim was made, in unix milliseconds of the database.
    now: i64,
    next: Option<i64>,
    receiver: PushReceiver,
}

impl Claim {
    /// How many more releases the receiver may hold, and when the first that
    /// it holds comes back at the latest.
    async fn room(
        &self,
        connection: &mut Connection,
        receiver: &PushReceiver,
    ) -> Result<(usize, Option<i64>), sqlx::Error> {
        let row = query(HELD)
            .bind(self.inbox.party.as_str())
            .bind(self.inbox.test)
            .bind(connection.now_ms())
            .fetch_one(connection)
            .await?;
        let held = usize::try_from(row.get::<i64>("held")?).unwrap_or(usize::MAX);
        let bound = match receiver.state {
            PushState::Works => usize::try_from(self.inbox.max_in_flight).unwrap_or(usize::MAX),
            // One message to see whether it works.
            PushState::PausedUntil(_) => 1,
            PushState::Stopped => 0,
        };
        Ok((bound.saturating_sub(held), row.get("until")?))
    }

    async fn take(
        &self,
        connection: &mut Connection,
        limit: usize,
        due: Due,
    ) -> Result<Taken, sqlx::Error> {
        let lease = Lease {
            party: self.inbox.party.to_string(),
            test: self.inbox.test,
            limit,
            token: self.token.clone(),
            ttl_ms: in_ms(self.inbox.ttl),
            due,
            reports: Reports::Apart,
        };
        lease.run(connection).await
    }
}

impl Change for Claim {
    type Output = Claimed;

    async fn run(&self, connection: &mut Connection) -> Result<Claimed, sqlx::Error> {
        let row = query(LOCK_RECEIVER)
            .bind(self.inbox.party.as_str())
            .bind(self.inbox.test)
            .fetch_one(&mut *connection)
            .await?;
        let receiver = PushReceiver::read(&row).map_err(undecodable)?;
        let now = connection.now_ms();
        let waiting = |taken: Taken, next: Option<i64>| Claimed {
            taken,
            now,
            next,
            receiver: receiver.clone(),
        };
        match receiver.state {
            PushState::Stopped => return Ok(waiting(Taken::default(), None)),
            PushState::PausedUntil(until) if ms(until) > now => {
                return Ok(waiting(Taken::default(), Some(ms(until))));
            }
            PushState::PausedUntil(_) | PushState::Works => {}
        }
        let (room, until) = self.room(connection, &receiver).await?;
        let limit = room.min(self.most);
        if limit == 0 {
            let full = Taken {
                is_full: true,
                ..Taken::default()
            };
            return Ok(waiting(full, until));
        }
        // Every second probe goes with a message that never failed: it may be
        // the message that the receiver chokes on, and not the receiver.
        let mut taken = Taken::default();
        if receiver.failures % 2 == 1 {
            taken = self.take(connection, limit, Due::NeverLater).await?;
        }
        if taken.rows.is_empty() {
            taken = self.take(connection, limit, Due::Now).await?;
        }
        let next = taken.next.into_iter().chain(until).min();
        Ok(waiting(taken, next))
    }

    fn ring(&self, claimed: &Claimed, rings: &mut Rings) {
        if claimed.taken.held_back {
            rings.hold_back(self.inbox.party.as_str(), self.inbox.test);
        }
    }
}

/// The row of a receiver holds what this version does not write.
fn undecodable(cause: Error) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(cause))
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

const TAKE_OVER: &str = "UPDATE delivery SET state = 'taken_over', lease = NULL, finished_at = $1
    WHERE id = $2 AND lease = $3 AND finished_at IS NULL";
const BURY: &str = "UPDATE delivery SET state = 'dead', lease = NULL, finished_at = $1,
    rejection = $2 WHERE id = $3 AND lease = $4 AND finished_at IS NULL";
const RETRY: &str = "UPDATE delivery SET state = 'offered', lease = NULL, lease_until = 0,
    due_at = $1, failures = $2, refusals = $3, first_failed_at = COALESCE(first_failed_at, $4)
    WHERE id = $5 AND lease = $6 AND finished_at IS NULL";
const GIVE_BACK: &str = "UPDATE delivery SET state = 'offered', lease = NULL, lease_until = 0
    WHERE id = $1 AND lease = $2 AND finished_at IS NULL";
const HOLDS: &str =
    "SELECT 1 AS one FROM delivery WHERE id = $1 AND lease = $2 AND finished_at IS NULL";
/// Counts a failure if nothing else was said of the receiver meanwhile.
const PAUSE: &str = "UPDATE push_receiver SET failures = failures + 1, paused_until = $1,
    reason = $2, changed_at = CASE WHEN failures = 0 THEN $3 ELSE changed_at END
    WHERE party = $4 AND test = $5 AND failures = $6 AND NOT stopped";
const WORKS: &str = "UPDATE push_receiver SET failures = 0, paused_until = NULL, reason = NULL,
    changed_at = $1 WHERE party = $2 AND test = $3 AND failures = $4 AND NOT stopped";
const STOP: &str = "UPDATE push_receiver SET stopped = TRUE, paused_until = NULL, reason = $1,
    changed_at = $2 WHERE party = $3 AND test = $4 AND NOT stopped";
const RESUME: &str = "UPDATE push_receiver SET failures = 0, paused_until = NULL, stopped = FALSE,
    reason = NULL, changed_at = $1 WHERE party = $2 AND test = $3
    AND (stopped OR failures > 0)";
/// What failed with its receiver need not wait once that works. What failed
/// more often than its receiver waits for its own time: else it would stop
/// the receiver again and again.
const BRING_FORWARD: &str = "UPDATE delivery SET due_at = 0
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND due_at > $3
    AND refusals = 0 AND failures <= $4";
const DUE_NOW: &str = "UPDATE delivery SET due_at = 0
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND due_at > 0";

struct Settle {
    party: String,
    pushed: PushedRef,
    settlement: Settlement,
    rejection: Option<Vec<u8>>,
}

impl Change for Settle {
    type Output = Settled;

    async fn run(&self, connection: &mut Connection) -> Result<Settled, sqlx::Error> {
        match &self.settlement {
            Settlement::TakenOver => {
                let changed = query(TAKE_OVER)
                    .bind(connection.now_ms())
                    .bind(&self.pushed.id)
                    .bind(&self.pushed.lease)
                    .execute(&mut *connection)
                    .await?;
                self.then_works(connection, changed).await
            }
            Settlement::Unparseable(again) => {
                let (failures, refusals) = (self.pushed.failures, self.pushed.refusals + 1);
                let changed = self.put(connection, again, failures, refusals).await?;
                self.then_works(connection, changed).await
            }
            Settlement::Failed {
                again,
                pause,
                reason,
            } => {
                if !self.holds(connection).await? {
                    return Ok(Settled::LeaseLost);
                }
                if !self.pause(connection, *pause, reason).await? {
                    return self.give_back(connection).await;
                }
                let (failures, refusals) = (self.pushed.failures + 1, self.pushed.refusals);
                self.put(connection, again, failures, refusals).await?;
                let is_first = self.pushed.receiver_failures == 0;
                Ok(Settled::Done(Some(if is_first {
                    Turn::Paused
                } else {
                    Turn::PausedLonger
                })))
            }
            Settlement::Gone { reason } => {
                let stopped = query(STOP)
                    .bind(reason)
                    .bind(connection.now_ms())
                    .bind(&self.party)
                    .bind(self.pushed.test)
                    .execute(&mut *connection)
                    .await?;
                let settled = self.give_back(connection).await?;
                let is_turn = stopped > 0 && settled != Settled::LeaseLost;
                Ok(if is_turn {
                    Settled::Done(Some(Turn::Stopped))
                } else {
                    settled
                })
            }
            Settlement::GivenBack => self.give_back(connection).await,
        }
    }

    fn ring(&self, settled: &Settled, rings: &mut Rings) {
        let is_finished = matches!(
            self.settlement,
            Settlement::TakenOver | Settlement::Unparseable(Again::Never { .. })
        ) || matches!(
            self.settlement,
            Settlement::Failed {
                again: Again::Never { .. },
                ..
            }
        );
        match settled {
            Settled::Done(_) if is_finished => rings.finished(&self.party, self.pushed.test),
            // Another worker may take it up.
            Settled::GivenBack => rings.ring(&self.party, self.pushed.test),
            Settled::Done(_) | Settled::LeaseLost => {}
        }
    }
}

impl Settle {
    async fn holds(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let row = query(HOLDS)
            .bind(&self.pushed.id)
            .bind(&self.pushed.lease)
            .fetch_optional(connection)
            .await?;
        Ok(row.is_some())
    }

    /// Retries the release later, or gives it up.
    async fn put(
        &self,
        connection: &mut Connection,
        again: &Again,
        failures: u32,
        refusals: u32,
    ) -> Result<u64, sqlx::Error> {
        let now = connection.now_ms();
        let change = match again {
            Again::After(pause) => query(RETRY)
                .bind(now.saturating_add(in_ms(*pause)))
                .bind(i64::from(failures))
                .bind(i64::from(refusals))
                .bind(connection.now_ms()),
            Again::Never { .. } => query(BURY).bind(now).bind(self.rejection.clone()),
        };
        let change = change.bind(&self.pushed.id).bind(&self.pushed.lease);
        change.execute(connection).await
    }

    async fn give_back(&self, connection: &mut Connection) -> Result<Settled, sqlx::Error> {
        let changed = query(GIVE_BACK)
            .bind(&self.pushed.id)
            .bind(&self.pushed.lease)
            .execute(connection)
            .await?;
        Ok(match changed {
            0 => Settled::LeaseLost,
            _ => Settled::GivenBack,
        })
    }

    /// Pauses the receiver; false when something else was said of it first.
    async fn pause(
        &self,
        connection: &mut Connection,
        pause: Duration,
        reason: &str,
    ) -> Result<bool, sqlx::Error> {
        let now = connection.now_ms();
        let changed = query(PAUSE)
            .bind(now.saturating_add(in_ms(pause)))
            .bind(reason)
            .bind(now)
            .bind(&self.party)
            .bind(self.pushed.test)
            .bind(i64::from(self.pushed.receiver_failures))
            .execute(connection)
            .await?;
        Ok(changed > 0)
    }

    /// Notes that the receiver works, if it was paused when this was claimed
    /// and the release was still held.
    async fn then_works(
        &self,
        connection: &mut Connection,
        changed: u64,
    ) -> Result<Settled, sqlx::Error> {
        if changed == 0 {
            return Ok(Settled::LeaseLost);
        }
        let failures = i64::from(self.pushed.receiver_failures);
        if failures == 0 {
            return Ok(Settled::Done(None));
        }
        let works = query(WORKS)
            .bind(connection.now_ms())
            .bind(&self.party)
            .bind(self.pushed.test)
            .bind(failures)
            .execute(&mut *connection)
            .await?;
        if works == 0 {
            return Ok(Settled::Done(None));
        }
        query(BRING_FORWARD)
            .bind(&self.party)
            .bind(self.pushed.test)
            .bind(connection.now_ms())
            .bind(failures)
            .execute(connection)
            .await?;
        Ok(Settled::Done(Some(Turn::Works)))
    }
}

struct Stop {
    party: String,
    test: bool,
    reason: String,
}

impl Change for Stop {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        query(LOCK_RECEIVER)
            .bind(&self.party)
            .bind(self.test)
            .fetch_one(&mut *connection)
            .await?;
        let changed = query(STOP)
            .bind(&self.reason)
            .bind(connection.now_ms())
            .bind(&self.party)
            .bind(self.test)
            .execute(connection)
            .await?;
        Ok(changed > 0)
    }
}

struct Resume {
    party: String,
    test: bool,
}

impl Change for Resume {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let changed = query(RESUME)
            .bind(connection.now_ms())
            .bind(&self.party)
            .bind(self.test)
            .execute(&mut *connection)
            .await?;
        query(DUE_NOW)
            .bind(&self.party)
            .bind(self.test)
            .execute(connection)
            .await?;
        Ok(changed > 0)
    }

    fn ring(&self, _resumed: &bool, rings: &mut Rings) {
        rings.ring(&self.party, self.test);
    }
}

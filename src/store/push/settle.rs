//! Settles an attempt against its lease, and what it says of the receiver
//! against what was said since.

use std::time::Duration;

use super::by_hand::STOP;
use super::{Again, PushedRef, Settled, Settlement, Turn};
use crate::store::backend::{Connection, query};
use crate::store::bells::Rings;
use crate::store::inbox::in_ms;
use crate::store::lease::{Mode, TakenOver};
use crate::store::writer::Change;

const TAKE_OVER: &str = "UPDATE delivery SET state = 'taken_over', lease = NULL, finished_at = $1
    WHERE id = $2 AND lease = $3 AND finished_at IS NULL RETURNING domain, received_at";
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
/// What failed with its receiver need not wait once that works. What failed
/// more often than its receiver waits for its own time: else it would stop
/// the receiver again and again.
const BRING_FORWARD: &str = "UPDATE delivery SET due_at = 0
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND due_at > $3
    AND refusals = 0 AND failures <= $4";

pub(super) struct Settle {
    pub(super) party: String,
    pub(super) pushed: PushedRef,
    pub(super) settlement: Settlement,
    /// Sealed, when it is given up.
    pub(super) rejection: Option<Vec<u8>>,
}

/// What a settlement did, and what is counted of it.
pub(super) struct Outcome {
    pub(super) settled: Settled,
    taken_over: Option<TakenOver>,
}

impl Change for Settle {
    type Output = Outcome;

    async fn run(&self, connection: &mut Connection) -> Result<Outcome, sqlx::Error> {
        let taken_over = match &self.settlement {
            Settlement::TakenOver => self.take_over(connection).await?,
            Settlement::Unparseable(_)
            | Settlement::Failed { .. }
            | Settlement::Gone { .. }
            | Settlement::GivenBack => None,
        };
        let settled = self.settle(connection, taken_over.is_some()).await?;
        Ok(Outcome {
            settled,
            taken_over,
        })
    }

    fn count(&self, outcome: &Outcome) {
        if let Some(taken_over) = &outcome.taken_over {
            taken_over.count(Mode::Push);
        }
    }

    fn ring(&self, outcome: &Outcome, rings: &mut Rings) {
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
        match outcome.settled {
            Settled::Done(_) if is_finished => rings.finished(&self.party, self.pushed.test),
            // Another worker may take it up.
            Settled::GivenBack => rings.ring(&self.party, self.pushed.test),
            Settled::Done(_) | Settled::LeaseLost => {}
        }
    }
}

impl Settle {
    async fn take_over(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<TakenOver>, sqlx::Error> {
        let now = connection.now_ms();
        let row = query(TAKE_OVER)
            .bind(now)
            .bind(&self.pushed.id)
            .bind(&self.pushed.lease)
            .fetch_optional(connection)
            .await?;
        row.map(|row| TakenOver::read(&row, now)).transpose()
    }

    /// `is_taken_over` says whether the release was held and is not any more.
    async fn settle(
        &self,
        connection: &mut Connection,
        is_taken_over: bool,
    ) -> Result<Settled, sqlx::Error> {
        match &self.settlement {
            Settlement::TakenOver => self.then_works(connection, u64::from(is_taken_over)).await,
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
                // A late word must not stop whom a person resumed since.
                if !self.holds(connection).await? {
                    return Ok(Settled::LeaseLost);
                }
                let stopped = query(STOP)
                    .bind(reason)
                    .bind(connection.now_ms())
                    .bind(&self.party)
                    .bind(self.pushed.test)
                    .execute(&mut *connection)
                    .await?;
                let settled = self.give_back(connection).await?;
                Ok(match stopped {
                    0 => settled,
                    _ => Settled::Done(Some(Turn::Stopped)),
                })
            }
            Settlement::GivenBack => self.give_back(connection).await,
        }
    }

    /// True when the lease is the current one; it stays so until the
    /// transaction ends.
    async fn holds(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let mut holds = query(HOLDS).bind(&self.pushed.id).bind(&self.pushed.lease);
        holds.push(connection.row_lock());
        let row = holds.fetch_optional(connection).await?;
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

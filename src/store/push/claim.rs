//! Claims what is due, under the lock of its receiver's row.

use super::{PushInbox, PushReceiver, PushState};
use crate::store::backend::{Connection, query};
use crate::store::bells::Rings;
use crate::store::error::Error;
use crate::store::inbox::in_ms;
use crate::store::lease::{Due, Lease, Mode, Reports, Taken};
use crate::store::sql::ms;
use crate::store::writer::Change;

/// Makes the row of a receiver if there is none, locks it, and reads it.
pub(super) const LOCK_RECEIVER: &str = "INSERT INTO push_receiver (party, test, failures, stopped)
    VALUES ($1, $2, 0, FALSE)
    ON CONFLICT (party, test) DO UPDATE SET failures = push_receiver.failures
    RETURNING failures, paused_until, stopped, reason, changed_at";
const HELD: &str = "SELECT COUNT(*) AS held, MIN(lease_until) AS until FROM delivery
    WHERE state = 'leased' AND party = $1 AND test = $2 AND lease_until > $3";

pub(super) struct Claim {
    pub(super) inbox: PushInbox,
    pub(super) most: usize,
    pub(super) token: String,
}

pub(super) struct Claimed {
    pub(super) taken: Taken,
    /// When the claim was made, in unix milliseconds of the database.
    pub(super) now: i64,
    pub(super) next: Option<i64>,
    pub(super) receiver: PushReceiver,
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

    fn count(&self, claimed: &Claimed) {
        let party = self.inbox.party.as_str();
        claimed.taken.count_expiries(party, Mode::Push);
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

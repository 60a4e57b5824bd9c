//! What a person gives up for good: a dead letter that nobody will need.
//!
//! Its content goes at once. Its row stays, so that its sender still sees that
//! it is dead, until the receipt of its message is too old; it is no dead
//! letter that waits for a decision any more.

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::message::DeliveryState;
use super::revive::state;
use super::sql;
use super::writer::Change;

/// What came of discarding one dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Its content is gone.
    Done,
    /// It was discarded before; nothing was changed.
    Already,
    /// It is not dead, and nothing was changed.
    NotDead(DeliveryState),
    /// There is no such release.
    Unknown,
}

/// As with a retry, its row is locked first: who comes second finds it done.
const LOOK: &str = "SELECT id, state, lease_until, discarded_at FROM delivery WHERE id IN";
const NOTE: &str = "UPDATE delivery SET discarded_at = $1 WHERE id = $2";
const DROP: &str = "DELETE FROM payload WHERE delivery_id = $1";

struct DiscardOne {
    id: String,
}

impl Change for DiscardOne {
    type Output = Discard;

    async fn run(&self, connection: &mut Connection) -> Result<Discard, sqlx::Error> {
        let rows = sql::lock_in(connection, LOOK, vec![&self.id], " ORDER BY id").await?;
        let Some(row) = rows.first() else {
            return Ok(Discard::Unknown);
        };
        let now = connection.now_ms();
        let state = state(row, now)?;
        if state != DeliveryState::Dead {
            return Ok(Discard::NotDead(state));
        }
        if row.get::<Option<i64>>("discarded_at")?.is_some() {
            return Ok(Discard::Already);
        }
        query(NOTE)
            .bind(now)
            .bind(&self.id)
            .execute(&mut *connection)
            .await?;
        query(DROP).bind(&self.id).execute(connection).await?;
        Ok(Discard::Done)
    }
}

impl Store {
    /// Discards one dead letter because a person said so. A release that is
    /// not dead stays as it is; discarding again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn discard_dead(&self, id: &str) -> Result<Discard, Error> {
        let change = DiscardOne { id: id.to_owned() };
        self.writer().write(change).await
    }
}

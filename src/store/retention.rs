//! Removal by age: what was handed over and read again long enough, the content
//! of dead letters that nobody decided about, and receipts that nobody can ask
//! for any more.
//!
//! Rows go in steps, so that receipt goes on in between; the database
//! overwrites what it removes (`secure_delete`).

use std::time::Duration;

use jiff::Timestamp;
use metrics::counter;

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::sql::{self, ms};
use super::writer::Change;

/// Rows that one transaction removes.
const STEP: i64 = 200;

/// How long what is finished stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The content of what was taken over, after that.
    pub replay: Duration,
    /// The content of a dead letter, after it was given up.
    pub dead: Duration,
    /// Receipts, after the message came in.
    pub receipt: Duration,
}

/// What [`Store::expire`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Messages as they were handed over.
    pub payloads: u64,
    /// Content of dead letters that nobody decided about.
    pub dead: u64,
    /// Receipts, with what is known of their deliveries.
    pub receipts: u64,
}

impl Store {
    /// Removes what is older than `terms` at `now`: the content of what was
    /// taken over, the content of dead letters, and receipts with nothing of
    /// them unfinished, parked, or dead without a decision. A dead letter stays
    /// one without its content.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; what is not removed yet is
    /// removed by the next call.
    pub async fn expire(&self, now: Timestamp, terms: &Terms) -> Result<Expired, Error> {
        let before = |age: Duration| ms(now.checked_sub(age).unwrap_or(Timestamp::MIN));
        let (replay, dead) = (before(terms.replay), before(terms.dead));
        let receipt = first_id_at(before(terms.receipt));
        Ok(Expired {
            payloads: self.in_steps(|| DropPayloads { before: replay }).await?,
            dead: self.in_steps(|| DropDead { before: dead }).await?,
            receipts: self
                .in_steps(|| DropReceipts {
                    before: receipt.clone(),
                })
                .await?,
        })
    }

    /// Repeats a step until it removes nothing more; gives the sum.
    async fn in_steps<C: Change<Output = u64>>(&self, step: impl Fn() -> C) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            match self.writer().write(step()).await? {
                0 => return Ok(removed),
                count => removed += count,
            }
        }
    }
}

/// Ids begin with their time (UUID version 7, RFC 9562 section 5.7), so the
/// primary key finds old rows without an index of its own.
pub(super) fn first_id_at(unix_ms: i64) -> String {
    format!("{:012x}", u64::try_from(unix_ms).unwrap_or(0))
}

struct DropPayloads {
    before: i64,
}

const DROP_PAYLOADS: &str = "DELETE FROM payload WHERE delivery_id IN
    (SELECT delivery_id FROM payload JOIN delivery ON id = delivery_id
     WHERE state = 'taken_over' AND finished_at < $1 LIMIT $2)";

impl Change for DropPayloads {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        query(DROP_PAYLOADS)
            .bind(self.before)
            .bind(STEP)
            .execute(connection)
            .await
    }
}

struct DropDead {
    before: i64,
}

/// Locked, so that none of them is made due meanwhile and goes without content.
const OLD_DEAD: &str = "SELECT id FROM delivery WHERE state = 'dead' AND finished_at < $1
    AND EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id)
    ORDER BY id LIMIT $2";

impl Change for DropDead {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let mut old = query(OLD_DEAD).bind(self.before).bind(STEP);
        old.push(connection.row_lock());
        let rows = old.fetch_all(&mut *connection).await?;
        let ids: Vec<String> = rows
            .iter()
            .map(|row| row.get("id"))
            .collect::<Result<_, _>>()?;
        sql::change_in(connection, "DELETE FROM payload WHERE delivery_id IN", &ids).await
    }

    fn count(&self, removed: &u64) {
        counter!("sivi_dead_contents_removed_total").increment(*removed);
    }
}

struct DropReceipts {
    before: String,
}

const OLD_RECEIPTS: &str = "SELECT id FROM message WHERE id < $1
    AND NOT EXISTS (SELECT 1 FROM parked WHERE message_id = message.id)
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id
        AND (finished_at IS NULL OR (state = 'dead' AND discarded_at IS NULL)))
    ORDER BY id LIMIT $2";

impl Change for DropReceipts {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let rows = query(OLD_RECEIPTS)
            .bind(&self.before)
            .bind(STEP)
            .fetch_all(&mut *connection)
            .await?;
        let ids: Vec<String> = rows
            .iter()
            .map(|row| row.get("id"))
            .collect::<Result<_, _>>()?;
        sql::change_in(connection, "DELETE FROM delivery WHERE message_id IN", &ids).await?;
        sql::change_in(connection, "DELETE FROM message WHERE id IN", &ids).await
    }
}

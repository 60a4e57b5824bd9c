//! Removal by age: what was handed over and read again long enough, and
//! receipts that nobody can ask for any more.
//!
//! Rows go in steps, so that receipt goes on in between; the database
//! overwrites what it removes (`secure_delete`).

use std::time::Duration;

use jiff::Timestamp;

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::sql::{self, ms};
use super::writer::Change;

/// Rows that one transaction removes.
const STEP: i64 = 200;

/// What [`Store::expire`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Messages as they were handed over.
    pub payloads: u64,
    /// Receipts, with what is known of their deliveries.
    pub receipts: u64,
}

impl Store {
    /// Removes the content of what was taken over more than `replay` before
    /// `now`, and receipts that are older than `receipt` with nothing of them
    /// unfinished, dead or parked.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; what is not removed yet is
    /// removed by the next call.
    pub async fn expire(
        &self,
        now: Timestamp,
        replay: Duration,
        receipt: Duration,
    ) -> Result<Expired, Error> {
        let before = |age: Duration| ms(now.checked_sub(age).unwrap_or(Timestamp::MIN));
        let mut expired = Expired::default();
        loop {
            let step = DropPayloads {
                before: before(replay),
            };
            match self.writer().write(step).await? {
                0 => break,
                count => expired.payloads += count,
            }
        }
        loop {
            let step = DropReceipts {
                before: first_id_at(before(receipt)),
            };
            match self.writer().write(step).await? {
                0 => return Ok(expired),
                count => expired.receipts += count,
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

struct DropReceipts {
    before: String,
}

const OLD_RECEIPTS: &str = "SELECT id FROM message WHERE id < $1
    AND NOT EXISTS (SELECT 1 FROM parked WHERE message_id = message.id)
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id
        AND (finished_at IS NULL OR state = 'dead'))
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

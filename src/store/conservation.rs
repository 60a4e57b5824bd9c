//! The law of conservation: what was accepted is somewhere, in one state.
//!
//! A message that is accepted is split into releases and parked parts. Their
//! number (`message.parts`) is written with them from what was to be written,
//! never counted from rows, and changes only with what makes or ends one:
//!
//! | change | parts of the message |
//! |---|---|
//! | accept | releases and parked parts |
//! | unpark | plus its releases, minus the part |
//! | a newer message resolves a part; discard; too old | minus the part |
//! | lease, acknowledge, reject, retry; discard or end of a dead letter | the same |
//! | receipt too old | goes with everything of it |
//!
//! A message whose parts nobody counted, because a daemon of a version before
//! this law accepted it, has none (null): its number is not judged.
//!
//! The law: as many rows are there as `parts` says, each delivery shows one
//! state and the traces of how it came there, and what is unfinished still has
//! its content. A message that breaks it is unaccounted.
//!
//! It is checked in bounded steps along the primary key, in the background; a
//! scrape reads only what was found.

use jiff::Timestamp;

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::sql::{self, Columnar as _, ms};
use super::writer::Change;

/// Most messages that one step notes; the rest is found by the next walk.
const NOTED_MAX: i64 = 200;

/// Where the walk stands; [`Default`] is the oldest message.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Walk {
    after: String,
}

impl Walk {
    /// Before the messages that came in at `at` or later.
    #[must_use]
    pub fn from(at: Timestamp) -> Self {
        Self {
            after: super::retention::first_id_at(ms(at)),
        }
    }
}

/// Messages that break the law, as far as they were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unaccounted {
    /// How many.
    pub messages: u64,
    /// When the first of them was found.
    pub since: Option<Timestamp>,
}

/// True of a row of `message` that breaks the law.
macro_rules! broken {
    () => {
        "((message.parts IS NOT NULL AND message.parts
            <> (SELECT COUNT(*) FROM delivery WHERE delivery.message_id = message.id)
             + (SELECT COUNT(*) FROM parked WHERE parked.message_id = message.id))
         OR EXISTS (SELECT 1 FROM delivery WHERE delivery.message_id = message.id AND NOT (
            (state = 'offered' AND finished_at IS NULL)
            OR (state = 'leased' AND finished_at IS NULL AND lease IS NOT NULL AND attempt > 0)
            OR (state = 'taken_over' AND finished_at IS NOT NULL AND attempt > 0)
            OR (state = 'dead' AND finished_at IS NOT NULL AND rejection IS NOT NULL)))
         OR EXISTS (SELECT 1 FROM delivery WHERE delivery.message_id = message.id
            AND finished_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id)))"
    };
}

const END_OF_STEP: &str = "SELECT id FROM message WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2";
const BROKEN: &str = concat!(
    "SELECT id FROM message WHERE id > $1 AND id <= $2 AND ",
    broken!(),
    " ORDER BY id LIMIT $3"
);
const NOTE: &str = concat!(
    "INSERT INTO unaccounted (message_id, found_at)
     SELECT id, CAST($1 AS BIGINT) FROM message WHERE id = $2 AND ",
    broken!(),
    " ON CONFLICT (message_id) DO NOTHING"
);
const SETTLED: &str = concat!(
    "DELETE FROM unaccounted WHERE NOT EXISTS
     (SELECT 1 FROM message WHERE message.id = unaccounted.message_id AND ",
    broken!(),
    ")"
);
const UNACCOUNTED: &str = "SELECT COUNT(*) AS messages, MIN(found_at) AS since FROM unaccounted";
const UNACCOUNTED_IDS: &str = "SELECT message_id FROM unaccounted ORDER BY message_id LIMIT $1";
/// Greater than every id: ids are lower-case hexadecimal, or words of tests.
const LAST_ID: &str = "~";

impl Store {
    /// Checks the next `step` messages after `walk` and notes those that break
    /// the law. Gives where to go on; `None` when the newest was reached.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn check_messages(
        &self,
        walk: &Walk,
        step: u32,
        now: Timestamp,
    ) -> Result<Option<Walk>, Error> {
        let mut connection = self.reader().await?;
        let end = query(END_OF_STEP)
            .bind(&walk.after)
            .bind(i64::from(step.max(1) - 1))
            .fetch_optional(&mut connection)
            .await?;
        let end: Option<String> = end.map(|row| row.value("id")).transpose()?;
        let rows = query(BROKEN)
            .bind(&walk.after)
            .bind(end.as_deref().unwrap_or(LAST_ID))
            .bind(NOTED_MAX)
            .fetch_all(&mut connection)
            .await?;
        drop(connection);
        let ids: Result<Vec<String>, Error> = rows.iter().map(|row| row.value("id")).collect();
        let ids = ids?;
        if !ids.is_empty() {
            self.writer().write(Note { ids, now: ms(now) }).await?;
        }
        Ok(end.map(|after| Walk { after }))
    }

    /// Strikes off what is in order again, and says what is left.
    ///
    /// # Errors
    ///
    /// As [`Self::check_messages`].
    pub async fn settle_unaccounted(&self) -> Result<Unaccounted, Error> {
        let found = self.unaccounted().await?;
        if found.messages == 0 {
            return Ok(found);
        }
        self.writer().write(Settle).await?;
        self.unaccounted().await
    }

    /// What breaks the law, as it was found last.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn unaccounted(&self) -> Result<Unaccounted, Error> {
        let mut connection = self.reader().await?;
        let row = query(UNACCOUNTED).fetch_one(&mut connection).await?;
        Ok(Unaccounted {
            messages: u64::try_from(row.value::<i64>("messages")?).unwrap_or(0),
            since: row.moment_or_none("since")?,
        })
    }

    /// Ids of messages that break the law, at most 1024: for the person who
    /// looks into it.
    ///
    /// # Errors
    ///
    /// As [`Self::unaccounted`].
    pub async fn unaccounted_ids(&self) -> Result<Vec<String>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(UNACCOUNTED_IDS)
            .bind(i64::try_from(sql::LIST_MAX).unwrap_or(i64::MAX))
            .fetch_all(&mut connection)
            .await?;
        rows.iter().map(|row| row.value("message_id")).collect()
    }
}

/// Notes messages that still break the law now.
struct Note {
    ids: Vec<String>,
    now: i64,
}

impl Change for Note {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        for id in &self.ids {
            query(NOTE)
                .bind(self.now)
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

struct Settle;

impl Change for Settle {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        query(SETTLED).execute(connection).await.map(drop)
    }
}

/// By how many the parts of a message change.
#[derive(Debug, Default)]
pub(super) struct Parts(std::collections::BTreeMap<String, i64>);

const ADD_PARTS: &str = "UPDATE message SET parts = parts + $1 WHERE id = $2";

impl Parts {
    /// Counts `by` more parts of a message.
    pub(super) fn add(&mut self, message_id: &str, by: i64) {
        *self.0.entry(message_id.to_owned()).or_default() += by;
    }

    /// Writes the changes, in the order of ids, so that two nodes never wait
    /// for each other.
    pub(super) async fn write(self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        for (id, by) in self.0.into_iter().filter(|(_, by)| *by != 0) {
            query(ADD_PARTS)
                .bind(by)
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

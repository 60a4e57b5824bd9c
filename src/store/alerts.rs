//! Alerts that are raised, and what the webhook still has to be told.
//!
//! A row is an alert that is raised now. Whoever inserts or removes the row
//! queues the message about it in the same transaction: so it is told once,
//! whatever restarts and however many nodes look.

use std::time::Duration;

use jiff::Timestamp;

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::sql::{Columnar as _, ms};
use super::writer::Change;
use crate::clock;

/// An alert that is raised. Names no person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Which one, such as `undelivered`.
    pub name: String,
    /// What it is about: a JSON object of words.
    pub subject: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// Since when the condition holds.
    pub since: Timestamp,
    /// How many, in the unit of the alert.
    pub number: u64,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// Up to which time what it counts was told, where more is told again.
    pub told_to: Option<Timestamp>,
}

/// What changed between two looks, each with the text for the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertChanges {
    /// Raised now.
    pub raised: Vec<(Alert, String)>,
    /// Still raised, with more than was told.
    pub grown: Vec<(Alert, String)>,
    /// Raised before, over now.
    pub cleared: Vec<(Alert, String)>,
    /// Still raised, with another number, and no news.
    pub renumbered: Vec<Alert>,
}

impl AlertChanges {
    /// True when there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raised.is_empty()
            && self.grown.is_empty()
            && self.cleared.is_empty()
            && self.renumbered.is_empty()
    }
}

/// What a change of alerts did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertsSettled {
    /// Alerts that this node raised.
    pub raised: u64,
    /// Alerts that this node told again.
    pub grown: u64,
    /// Alerts that this node cleared.
    pub cleared: u64,
    /// Messages that the bound of the queue pushed out.
    pub dropped: u64,
}

/// A message to the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMessage {
    /// Opaque id; the same at every attempt.
    pub id: String,
    /// JSON.
    pub body: String,
    /// How many times it was tried, this time included.
    pub attempt: u32,
}

const RAISED: &str = "SELECT name, subject, severity, since, number, raised_at, told_to FROM alert
    ORDER BY name, subject";
const TAKE_TURN: &str = "UPDATE watcher SET node = $1, until = $2
    WHERE id = 1 AND (node = $1 OR until <= $3 OR until > $4)";
const RAISE: &str = "INSERT INTO alert (name, subject, severity, since, number, raised_at, told_to)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name, subject) DO NOTHING";
const CLEAR: &str = "DELETE FROM alert WHERE name = $1 AND subject = $2 AND raised_at = $3";
/// Of two nodes that saw the same more, one tells it.
const GROW: &str = "UPDATE alert SET number = $1, told_to = $2
    WHERE name = $3 AND subject = $4 AND raised_at = $5
    AND (number < $1 OR told_to < $2)";
const RENUMBER: &str = "UPDATE alert SET number = $1, told_to = $2
    WHERE name = $3 AND subject = $4 AND raised_at = $5";
const QUEUE: &str = "INSERT INTO alert_message (id, body, due_at, attempt) VALUES ($1, $2, $3, 0)";
const TRIM: &str = "DELETE FROM alert_message WHERE id IN
    (SELECT id FROM alert_message ORDER BY id DESC LIMIT 1000000 OFFSET $1)";
const NEXT: &str = "SELECT id, body, due_at, attempt FROM alert_message ORDER BY id LIMIT 1";
const CLAIM: &str = "UPDATE alert_message SET due_at = $1, attempt = attempt + 1
    WHERE id = $2 AND due_at = $3";
const PUT_OFF: &str = "UPDATE alert_message SET due_at = $1 WHERE id = $2";
const SENT: &str = "DELETE FROM alert_message WHERE id = $1";

impl Store {
    /// The alerts that are raised now.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn alerts(&self) -> Result<Vec<Alert>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(RAISED).fetch_all(&mut connection).await?;
        let alerts = rows.iter().map(|row| {
            Ok(Alert {
                name: row.value("name")?,
                subject: row.value("subject")?,
                severity: row.value("severity")?,
                since: row.moment("since")?,
                number: u64::try_from(row.value::<i64>("number")?).unwrap_or(0),
                raised_at: row.moment("raised_at")?,
                told_to: row.moment_or_none("told_to")?,
            })
        });
        alerts.collect()
    }

    /// Whether `node` looks at what all nodes share, for the next `turn`: of
    /// several nodes one does, and the same one until it is late.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn take_turn(
        &self,
        node: &str,
        now: Timestamp,
        turn: Duration,
    ) -> Result<bool, Error> {
        let later = |by| ms(now.saturating_add(by).unwrap_or(Timestamp::MAX));
        let take = TakeTurn {
            node: node.to_owned(),
            now: ms(now),
            until: later(turn),
            // A node whose clock ran ahead must not keep the turn for ever.
            absurd: later(turn * 4),
        };
        self.writer().write(take).await
    }

    /// Writes what changed. Each transition counts once, also when another
    /// node saw it too; `queue` is how many messages may wait for the webhook,
    /// none without one.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn settle_alerts(
        &self,
        changes: AlertChanges,
        now: Timestamp,
        queue: Option<u64>,
    ) -> Result<AlertsSettled, Error> {
        let settle = Settle {
            changes,
            now,
            queue,
        };
        self.writer().write(settle).await
    }

    /// The oldest message for the webhook if it is due, hidden from other
    /// nodes for `hold`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn next_alert_message(
        &self,
        now: Timestamp,
        hold: Duration,
    ) -> Result<Option<AlertMessage>, Error> {
        let mut connection = self.reader().await?;
        let row = query(NEXT).fetch_optional(&mut connection).await?;
        drop(connection);
        let Some(row) = row else { return Ok(None) };
        let due: i64 = row.value("due_at")?;
        if due > ms(now) {
            return Ok(None);
        }
        let message = AlertMessage {
            id: row.value("id")?,
            body: row.value("body")?,
            attempt: u32::try_from(row.value::<i64>("attempt")? + 1).unwrap_or(u32::MAX),
        };
        let claim = Claim {
            id: message.id.clone(),
            due,
            until: ms(now.saturating_add(hold).unwrap_or(Timestamp::MAX)),
        };
        Ok(self.writer().write(claim).await?.then_some(message))
    }

    /// Strikes a message off: the webhook has it.
    ///
    /// # Errors
    ///
    /// As [`Self::next_alert_message`].
    pub async fn alert_message_sent(&self, id: &str) -> Result<(), Error> {
        let then = After::Sent;
        let id = id.to_owned();
        self.writer().write(Attempted { id, then }).await
    }

    /// Tries a message again at `at`.
    ///
    /// # Errors
    ///
    /// As [`Self::next_alert_message`].
    pub async fn put_off_alert_message(&self, id: &str, at: Timestamp) -> Result<(), Error> {
        let then = After::Due(ms(at));
        let id = id.to_owned();
        self.writer().write(Attempted { id, then }).await
    }
}

struct TakeTurn {
    node: String,
    now: i64,
    until: i64,
    absurd: i64,
}

impl Change for TakeTurn {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let taken = query(TAKE_TURN)
            .bind(&self.node)
            .bind(self.until)
            .bind(self.now)
            .bind(self.absurd)
            .execute(connection)
            .await?;
        Ok(taken > 0)
    }
}

struct Settle {
    changes: AlertChanges,
    now: Timestamp,
    queue: Option<u64>,
}

impl Change for Settle {
    type Output = AlertsSettled;

    async fn run(&self, connection: &mut Connection) -> Result<AlertsSettled, sqlx::Error> {
        let mut settled = AlertsSettled::default();
        for (alert, body) in &self.changes.cleared {
            let cleared = query(CLEAR)
                .bind(&alert.name)
                .bind(&alert.subject)
                .bind(ms(alert.raised_at))
                .execute(&mut *connection)
                .await?;
            if cleared > 0 {
                settled.cleared += 1;
                self.queue(connection, body).await?;
            }
        }
        for (alert, body) in &self.changes.raised {
            let raised = query(RAISE)
                .bind(&alert.name)
                .bind(&alert.subject)
                .bind(&alert.severity)
                .bind(ms(alert.since))
                .bind(i64::try_from(alert.number).unwrap_or(i64::MAX))
                .bind(ms(alert.raised_at))
                .bind(alert.told_to.map(ms))
                .execute(&mut *connection)
                .await?;
            if raised > 0 {
                settled.raised += 1;
                self.queue(connection, body).await?;
            }
        }
        for (alert, body) in &self.changes.grown {
            let grown = renumber(connection, GROW, alert).await?;
            if grown > 0 {
                settled.grown += 1;
                self.queue(connection, body).await?;
            }
        }
        for alert in &self.changes.renumbered {
            renumber(connection, RENUMBER, alert).await?;
        }
        settled.dropped = self.trim(connection).await?;
        Ok(settled)
    }
}

impl Settle {
    async fn queue(&self, connection: &mut Connection, body: &str) -> Result<(), sqlx::Error> {
        if self.queue.is_some() {
            query(QUEUE)
                .bind(clock::new_id_at(self.now))
                .bind(body)
                .bind(ms(self.now))
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    async fn trim(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let most = self.queue.unwrap_or(0);
        let trimmed = query(TRIM)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .execute(connection)
            .await?;
        Ok(trimmed)
    }
}

async fn renumber(
    connection: &mut Connection,
    statement: &'static str,
    alert: &Alert,
) -> Result<u64, sqlx::Error> {
    query(statement)
        .bind(i64::try_from(alert.number).unwrap_or(i64::MAX))
        .bind(alert.told_to.map(ms))
        .bind(&alert.name)
        .bind(&alert.subject)
        .bind(ms(alert.raised_at))
        .execute(connection)
        .await
}

struct Claim {
    id: String,
    due: i64,
    until: i64,
}

impl Change for Claim {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let claimed = query(CLAIM)
            .bind(self.until)
            .bind(&self.id)
            .bind(self.due)
            .execute(connection)
            .await?;
        Ok(claimed > 0)
    }
}

enum After {
    Sent,
    Due(i64),
}

struct Attempted {
    id: String,
    then: After,
}

impl Change for Attempted {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let change = match self.then {
            After::Sent => query(SENT),
            After::Due(at) => query(PUT_OFF).bind(at),
        };
        change.bind(&self.id).execute(connection).await.map(drop)
    }
}

//! What operators watch: what waits on which route, dead letters, parked
//! parts, the size of the database. Numbers without persons; nothing here
//! reads the finished millions.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;

use super::Store;
use super::backend::{Row, query};
use super::error::Error;
use super::ledger;
use super::sql::{Columnar as _, ms};
use crate::domain::{Domain, PartyId, TenantId};

/// What waits on one route, of one kind of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose employees.
    pub tenant: TenantId,
    /// Who has to take it over.
    pub party: PartyId,
    /// In which domain.
    pub domain: Domain,
    /// Name of the message.
    pub message_type: String,
    /// True for test traffic.
    pub test: bool,
    /// Releases that nobody holds.
    pub due: u64,
    /// Releases under a valid lease.
    pub leased: u64,
    /// When the message behind the oldest of them came in.
    pub oldest: Timestamp,
    /// The same, of those that were on offer for a while.
    pub oldest_offered: Option<Timestamp>,
}

/// Dead letters of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Whose employees.
    pub tenant: TenantId,
    /// Who did not take them.
    pub party: PartyId,
    /// In which domain.
    pub domain: Domain,
    /// True for test traffic.
    pub test: bool,
    /// How many.
    pub count: u64,
    /// When the first of them was given up.
    pub since: Option<Timestamp>,
    /// When the last of them was.
    pub latest: Option<Timestamp>,
}

/// What of one sender is parked for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedCount {
    /// Who sent it.
    pub party: PartyId,
    /// Why it waits.
    pub reason: String,
    /// How many parts.
    pub parts: u64,
    /// Their length together.
    pub bytes: u64,
    /// When the oldest came in.
    pub oldest: Timestamp,
}

/// A receiver that is pushed to and failed a few times in a row, or stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedReceiver {
    /// Which party.
    pub party: PartyId,
    /// True for its test traffic.
    pub test: bool,
    /// Failures in a row.
    pub failures: u64,
    /// When it began to fail or was stopped.
    pub since: Option<Timestamp>,
}

/// The index of what is unfinished, not the finished millions.
const WAITING: &str = "SELECT tenant, party, domain, message_type, test, COUNT(*) AS unfinished,
    COUNT(CASE WHEN state = 'leased' AND lease_until > $1 THEN 1 END) AS leased,
    MIN(received_at) AS oldest,
    MIN(CASE WHEN offered_at <= $2 THEN received_at END) AS oldest_offered
    FROM delivery WHERE finished_at IS NULL
    GROUP BY tenant, party, domain, message_type, test
    ORDER BY tenant, party, domain, message_type, test";
const DEAD: &str = "SELECT tenant, party, domain, test, COUNT(*) AS dead,
    MIN(finished_at) AS since, MAX(finished_at) AS latest
    FROM delivery WHERE state = 'dead' AND discarded_at IS NULL
    GROUP BY tenant, party, domain, test ORDER BY tenant, party, domain, test";
const DEAD_ENDING: &str = "SELECT tenant, party, domain, test, COUNT(*) AS dead,
    MIN(finished_at) AS since, MAX(finished_at) AS latest
    FROM delivery WHERE state = 'dead' AND discarded_at IS NULL AND finished_at < $1
    AND EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id)
    GROUP BY tenant, party, domain, test ORDER BY tenant, party, domain, test";
const PARKED: &str = "SELECT party, reason, COUNT(*) AS parts,
    CAST(SUM(bytes) AS BIGINT) AS bytes, MIN(received_at) AS oldest FROM parked
    GROUP BY party, reason ORDER BY party, reason";

/// One failure is a hiccup that the next probe mends.
const PAUSED: &str = "SELECT party, test, failures, changed_at FROM push_receiver
    WHERE stopped OR failures >= 3 ORDER BY party, test";

impl Store {
    /// Receivers that are stopped, or failed at least three times in a row.
    ///
    /// # Errors
    ///
    /// As [`Self::waiting`].
    pub async fn paused_receivers(&self) -> Result<Vec<PausedReceiver>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(PAUSED).fetch_all(&mut connection).await?;
        let paused = rows.iter().map(|row| {
            Ok(PausedReceiver {
                party: row.word("party", |text| PartyId::parse(text).ok())?,
                test: row.value("test")?,
                failures: count(row.value("failures")?),
                since: row.moment_or_none("changed_at")?,
            })
        });
        paused.collect()
    }

    /// What waits, per route and kind of message. `for_at_least` is how long a
    /// release must have been on offer to count for
    /// [`Waiting::oldest_offered`].
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn waiting(
        &self,
        now: Timestamp,
        for_at_least: Duration,
    ) -> Result<Vec<Waiting>, Error> {
        let offered = now.saturating_sub(for_at_least).unwrap_or(Timestamp::MIN);
        let mut connection = self.reader().await?;
        let rows = query(WAITING)
            .bind(ms(now))
            .bind(ms(offered))
            .fetch_all(&mut connection)
            .await?;
        let waiting = rows.iter().map(|row| {
            let leased = count(row.value("leased")?);
            Ok(Waiting {
                tenant: row.word("tenant", |text| TenantId::parse(text).ok())?,
                party: row.word("party", |text| PartyId::parse(text).ok())?,
                domain: row.word("domain", |text| text.parse().ok())?,
                message_type: row.value("message_type")?,
                test: row.value("test")?,
                due: count(row.value("unfinished")?).saturating_sub(leased),
                leased,
                oldest: row.moment("oldest")?,
                oldest_offered: row.moment_or_none("oldest_offered")?,
            })
        });
        waiting.collect()
    }

    /// Dead letters that wait for a decision, per route.
    ///
    /// # Errors
    ///
    /// As [`Self::waiting`].
    pub async fn dead_counts(&self) -> Result<Vec<DeadLetters>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(DEAD).fetch_all(&mut connection).await?;
        rows.iter().map(dead_letters).collect()
    }

    /// Of them those that were given up before `before` and still have their
    /// content, per route.
    ///
    /// # Errors
    ///
    /// As [`Self::waiting`].
    pub async fn dead_ending(&self, before: Timestamp) -> Result<Vec<DeadLetters>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(DEAD_ENDING)
            .bind(ms(before))
            .fetch_all(&mut connection)
            .await?;
        rows.iter().map(dead_letters).collect()
    }

    /// What is parked, per sender and reason. Parking is bounded per sender,
    /// and so is this.
    ///
    /// # Errors
    ///
    /// As [`Self::waiting`].
    pub async fn parked_counts(&self) -> Result<Vec<ParkedCount>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(PARKED).fetch_all(&mut connection).await?;
        let parked = rows.iter().map(|row| {
            Ok(ParkedCount {
                party: row.word("party", |text| PartyId::parse(text).ok())?,
                reason: row.value("reason")?,
                parts: count(row.value("parts")?),
                bytes: count(row.value("bytes")?),
                oldest: row.moment("oldest")?,
            })
        });
        parked.collect()
    }

    /// Bytes of the database, without its journals.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn database_bytes(&self) -> Result<u64, Error> {
        let mut connection = self.reader().await?;
        let row = connection.size().fetch_one(&mut connection).await?;
        Ok(count(row.value("bytes")?))
    }

    /// Looks at the next `step` entries of the ledger.
    ///
    /// # Errors
    ///
    /// As [`Self::waiting`].
    pub async fn silent_cases(
        &self,
        after: &LedgerWalk,
        step: u32,
        today: Date,
    ) -> Result<LedgerStep, Error> {
        let mut connection = self.reader().await?;
        let states = ledger::states_after(&mut connection, self.ring(), &after.after, step).await?;
        let silent = states.open.iter().filter(|state| state.is_silent_on(today));
        Ok(LedgerStep {
            silent: silent.count() as u64,
            damaged: states.damaged,
            next: states.last.map(|after| LedgerWalk { after }),
        })
    }
}

/// What one step through the ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerStep {
    /// Open cases of which nobody said anything for three years.
    pub silent: u64,
    /// Entries that do not open although their key is there: messages about
    /// their persons are refused.
    pub damaged: u64,
    /// Where to go on; none at the end.
    pub next: Option<LedgerWalk>,
}

/// Where a walk through the ledger stands; [`Default`] is its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerWalk {
    after: Vec<u8>,
}

fn dead_letters(row: &Row) -> Result<DeadLetters, Error> {
    Ok(DeadLetters {
        tenant: row.word("tenant", |text| TenantId::parse(text).ok())?,
        party: row.word("party", |text| PartyId::parse(text).ok())?,
        domain: row.word("domain", |text| text.parse().ok())?,
        test: row.value("test")?,
        count: count(row.value("dead")?),
        since: row.moment_or_none("since")?,
        latest: row.moment_or_none("latest")?,
    })
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

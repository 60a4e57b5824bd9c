//! Numbers for operators, without persons.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::Date;

use super::Store;
use super::backend::query;
use super::error::Error;
use super::sql::{self, Columnar as _, ms};
use crate::domain::{Domain, PartyId, TenantId};

/// How often a rule withheld or stripped something on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldCount {
    /// Dutch calendar day.
    pub day: Date,
    /// Whose message.
    pub tenant: TenantId,
    /// Who did not get it.
    pub to: PartyId,
    /// In which domain.
    pub domain: Domain,
    /// True for test traffic.
    pub test: bool,
    /// Name of the message.
    pub message_type: String,
    /// The rule, such as `person_not_sick`.
    pub rule: String,
    /// How many persons or elements.
    pub count: u64,
}

/// What waits in one inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Whose inbox.
    pub party: PartyId,
    /// True for test traffic.
    pub test: bool,
    /// Releases that nobody holds.
    pub due: u64,
    /// Releases under a valid lease.
    pub leased: u64,
    /// Releases that were given up and need an operator.
    pub dead: u64,
    /// When the message behind the oldest unfinished release came in.
    pub oldest_received_at: Option<Timestamp>,
}

const WITHHELD: &str = "SELECT on_day, tenant, party, domain, test, message_type, rule, total
    FROM withheld WHERE on_day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
    ORDER BY on_day, tenant, party, domain, test, message_type, rule";
/// Two index scans: unfinished and dead releases, not the finished millions.
const BACKLOG: &str = "SELECT party, test,
    COUNT(CASE WHEN held = 0 THEN 1 END) AS due, COUNT(CASE WHEN held = 1 THEN 1 END) AS leased,
    COUNT(CASE WHEN held = 2 THEN 1 END) AS dead, MIN(waiting_since) AS oldest
    FROM (
        SELECT party, test, CASE WHEN state = 'leased' AND lease_until > $1 THEN 1 ELSE 0 END
            AS held, received_at AS waiting_since FROM delivery WHERE finished_at IS NULL
        UNION ALL
        SELECT party, test, 2 AS held, CAST(NULL AS BIGINT) AS waiting_since
            FROM delivery WHERE state = 'dead'
    ) AS open GROUP BY party, test ORDER BY party, test";

impl Store {
    /// What was withheld on these days, for one tenant or all.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn withheld_counts(
        &self,
        days: RangeInclusive<Date>,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<WithheldCount>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(WITHHELD)
            .bind(sql::day(*days.start()))
            .bind(sql::day(*days.end()))
            .bind(tenant.map(TenantId::as_str))
            .fetch_all(&mut connection)
            .await?;
        let counts = rows.iter().map(|row| {
            let day = sql::to_day(row.value("on_day")?);
            Ok(WithheldCount {
                day: day.ok_or(Error::Damaged { what: "day" })?,
                tenant: row.word("tenant", |text| TenantId::parse(text).ok())?,
                to: row.word("party", |text| PartyId::parse(text).ok())?,
                domain: row.word("domain", |text| text.parse().ok())?,
                test: row.value("test")?,
                message_type: row.value("message_type")?,
                rule: row.value("rule")?,
                count: count(row.value("total")?),
            })
        });
        counts.collect()
    }

    /// What waits, per inbox that has anything unfinished or dead.
    ///
    /// # Errors
    ///
    /// As [`Self::withheld_counts`].
    pub async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(BACKLOG)
            .bind(ms(now))
            .fetch_all(&mut connection)
            .await?;
        let backlog = rows.iter().map(|row| {
            Ok(Backlog {
                party: row.word("party", |text| PartyId::parse(text).ok())?,
                test: row.value("test")?,
                due: count(row.value("due")?),
                leased: count(row.value("leased")?),
                dead: count(row.value("dead")?),
                oldest_received_at: row.moment_or_none("oldest")?,
            })
        });
        backlog.collect()
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

//! Numbers for operators, without persons.

use std::ops::RangeInclusive;

use jiff::civil::Date;

use super::Store;
use super::backend::query;
use super::error::Error;
use super::sql::{self, Columnar as _};
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

const WITHHELD: &str = "SELECT on_day, tenant, party, domain, test, message_type, rule, total
    FROM withheld WHERE on_day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
    ORDER BY on_day, tenant, party, domain, test, message_type, rule";
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
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

//! Parts of messages that cannot go anywhere yet, sealed.
//!
//! They wait for configuration or for a person; this module does not know
//! what would free them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use jiff::{Timestamp, ToSpan as _};
use zeroize::Zeroizing;

use super::Store;
use super::acceptance::parked_place;
use super::backend::{Connection, Row, query};
use super::error::Error;
use super::ring::Unopened;
use super::sql::{self, Columnar as _, blob, ms};
use super::writer::Change;
use crate::domain::{Code, KeyedHash, PartyId, TenantId};

/// Most parts that one look-up returns.
const ITEMS_MAX: i64 = 1000;
/// Parts that one transaction drops.
const DROP_STEP: i64 = 200;

/// A parked part.
pub struct ParkedItem {
    /// Opaque id.
    pub id: String,
    /// The message that it came with.
    pub message_id: String,
    /// Who sent it.
    pub party: PartyId,
    /// The tenant, when it is known.
    pub tenant: Option<TenantId>,
    /// Why it waits.
    pub reason: Code,
    /// True for test traffic.
    pub test: bool,
    /// When the message came in.
    pub received_at: Timestamp,
    /// Name of the message.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// Hashes of the persons that it is about.
    pub persons: Vec<KeyedHash>,
    /// The stripped message, UTF-8.
    pub xml: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ParkedItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ParkedItem({} of {}: {})",
            self.id, self.party, self.reason
        )
    }
}

/// Which parked parts to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedFilter {
    /// Only of this sender.
    pub party: Option<PartyId>,
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// Only what waits for this reason.
    pub reason: Option<Code>,
    /// Only what came in before this moment.
    pub before: Option<Timestamp>,
    /// Only behind the part with this id, to read on where a look-up ended.
    pub after: Option<String>,
}

/// A parked part without its content, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedSummary {
    /// Opaque id.
    pub id: String,
    /// The message that it came with.
    pub message_id: String,
    /// Who sent it.
    pub party: PartyId,
    /// The tenant, when it is known.
    pub tenant: Option<TenantId>,
    /// Why it waits.
    pub reason: Code,
    /// True for test traffic.
    pub test: bool,
    /// When the message came in.
    pub received_at: Timestamp,
    /// Name of the message.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many persons it is about.
    pub persons: u64,
}

/// Parked parts by id, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedPage {
    /// The parts of this page.
    pub parts: Vec<ParkedSummary>,
    /// The id to go on after; none on the last page.
    pub next: Option<String>,
}

const SUMMARIES: &str = "SELECT id, message_id, party, tenant, reason, test, received_at,
    message_type, edition, bytes,
    (SELECT COUNT(*) FROM parked_person WHERE parked_id = parked.id) AS persons FROM parked
    WHERE (CAST($1 AS TEXT) IS NULL OR party = $1) AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)
    AND (CAST($3 AS TEXT) IS NULL OR reason = $3)
    AND (CAST($4 AS BIGINT) IS NULL OR received_at < $4)
    AND (CAST($5 AS TEXT) IS NULL OR id > $5) ORDER BY id LIMIT $6";
const SUMMARY: &str = "SELECT id, message_id, party, tenant, reason, test, received_at,
    message_type, edition, bytes,
    (SELECT COUNT(*) FROM parked_person WHERE parked_id = parked.id) AS persons FROM parked
    WHERE id = $1";
const SUMMARIES_BY_ID: &str = "SELECT id, message_id, party, tenant, reason, test, received_at,
    message_type, edition, bytes,
    (SELECT COUNT(*) FROM parked_person WHERE parked_id = parked.id) AS persons FROM parked
    WHERE id IN";
const PARKED_BY_ID: &str = "SELECT id, message_id, party, tenant, reason, test, received_at,
    message_type, edition, sealed FROM parked WHERE id IN";
const STILL_PARKED: &str = "SELECT id FROM parked WHERE id IN";
const RECEIVED: &str = "SELECT id, received_at FROM parked WHERE id IN";
const PARKED_ABOUT: &str = "SELECT DISTINCT parked_id FROM parked_person WHERE person IN";
const PERSONS: &str = "SELECT parked_id, person FROM parked_person WHERE parked_id IN";
const PARKED_BYTES: &str =
    "SELECT COUNT(*) AS items, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes
    FROM parked WHERE party = $1";

impl Store {
    /// Parked parts, oldest first (ids begin with their time); at most 1,000
    /// or 16 MiB, and none only when no more fit the filter. What does not
    /// open is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn parked(&self, filter: &ParkedFilter) -> Result<Vec<ParkedItem>, Error> {
        let mut filter = filter.clone();
        loop {
            let mut connection = self.reader().await?;
            let mut rows = fitting(&mut connection, SUMMARIES, &filter, ITEMS_MAX).await?;
            sql::cut_to_answer(&mut rows)?;
            let ids: Result<Vec<String>, Error> = rows.iter().map(|row| row.value("id")).collect();
            let ids = ids?;
            let Some(last) = ids.last() else {
                return Ok(Vec::new());
            };
            filter.after = Some(last.clone());
            let rows = sql::select_in(&mut connection, PARKED_BY_ID, &ids, "").await?;
            let mut items = self.items(&mut connection, &rows).await?;
            if !items.is_empty() {
                items.sort_by(|a, b| a.id.cmp(&b.id));
                return Ok(items);
            }
        }
    }

    /// A parked part; none when it is gone.
    ///
    /// # Errors
    ///
    /// As [`Self::parked`].
    pub async fn parked_item(&self, id: &str) -> Result<Option<ParkedItem>, Error> {
        let mut connection = self.reader().await?;
        let id = [id.to_owned()];
        let rows = sql::select_in(&mut connection, PARKED_BY_ID, &id, "").await?;
        Ok(self.items(&mut connection, &rows).await?.pop())
    }

    /// Those of these parts that are parked still.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn still_parked(&self, ids: &[String]) -> Result<BTreeSet<String>, Error> {
        let mut connection = self.reader().await?;
        let rows = sql::select_in(&mut connection, STILL_PARKED, ids, "").await?;
        rows.iter().map(|row| row.value("id")).collect()
    }

    /// Up to `limit` parked parts, oldest first, without their content.
    ///
    /// # Errors
    ///
    /// As [`Self::parked`].
    pub async fn parked_page(
        &self,
        filter: &ParkedFilter,
        limit: usize,
    ) -> Result<ParkedPage, Error> {
        let mut connection = self.reader().await?;
        // One more than asked tells whether there is a next page.
        let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = fitting(&mut connection, SUMMARIES, filter, most).await?;
        let parts: Result<Vec<_>, Error> = rows.iter().take(limit).map(summary).collect();
        let parts = parts?;
        let more = rows.len() > parts.len();
        let next = parts.last().filter(|_| more).map(|last| last.id.clone());
        Ok(ParkedPage { parts, next })
    }

    /// One parked part without its content; none when it is gone.
    ///
    /// # Errors
    ///
    /// As [`Self::parked`].
    pub async fn parked_summary(&self, id: &str) -> Result<Option<ParkedSummary>, Error> {
        let mut connection = self.reader().await?;
        let row = query(SUMMARY)
            .bind(id)
            .fetch_optional(&mut connection)
            .await?;
        row.as_ref().map(summary).transpose()
    }

    /// The ids of the parked parts about any of these persons, and of those
    /// about anybody whom such a part is about, and so on: oldest first, as
    /// they have to go if any of them goes.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn parked_with(&self, persons: &[KeyedHash]) -> Result<Vec<String>, Error> {
        let mut connection = self.reader().await?;
        let mut known: HashSet<KeyedHash> = persons.iter().copied().collect();
        let mut asked: Vec<Vec<u8>> = known.iter().map(blob).collect();
        let mut ids = BTreeSet::new();
        while !asked.is_empty() {
            let found = sql::select_in(&mut connection, PARKED_ABOUT, &asked, "").await?;
            let found: Result<Vec<String>, Error> =
                found.iter().map(|row| row.value("parked_id")).collect();
            let mut new = found?;
            new.retain(|id| ids.insert(id.clone()));
            let others = sql::select_in(&mut connection, PERSONS, &new, "").await?;
            asked.clear();
            for row in &others {
                let person = row.hash("person")?;
                if known.insert(person) {
                    asked.push(blob(&person));
                }
            }
        }
        let ids: Vec<String> = ids.into_iter().collect();
        let rows = sql::select_in(&mut connection, RECEIVED, &ids, "").await?;
        let mut parts = Vec::with_capacity(rows.len());
        for row in &rows {
            parts.push((row.moment("received_at")?, row.value("id")?));
        }
        parts.sort();
        Ok(parts.into_iter().map(|(_, id)| id).collect())
    }

    /// Parked parts about any of these persons, oldest first, without their
    /// content: all of it together has no bound worth the name, so whoever
    /// needs it takes one at a time ([`Self::parked_item`]).
    ///
    /// # Errors
    ///
    /// As [`Self::parked`].
    pub async fn parked_about(&self, persons: &[KeyedHash]) -> Result<Vec<ParkedSummary>, Error> {
        if persons.is_empty() {
            return Ok(Vec::new());
        }
        let blobs: Vec<Vec<u8>> = persons.iter().map(blob).collect();
        let mut connection = self.reader().await?;
        let found = sql::select_in(&mut connection, PARKED_ABOUT, &blobs, "").await?;
        let ids: Result<Vec<String>, Error> = found.iter().map(|r| r.value("parked_id")).collect();
        let mut ids = ids?;
        ids.sort_unstable();
        ids.dedup();
        let rows = sql::select_in(&mut connection, SUMMARIES_BY_ID, &ids, "").await?;
        let parts: Result<Vec<_>, Error> = rows.iter().map(summary).collect();
        let mut parts = parts?;
        parts.sort_by(|a, b| (a.received_at, &a.id).cmp(&(b.received_at, &b.id)));
        Ok(parts)
    }

    async fn items(
        &self,
        connection: &mut Connection,
        rows: &[Row],
    ) -> Result<Vec<ParkedItem>, Error> {
        let ids: Result<Vec<String>, Error> = rows.iter().map(|row| row.value("id")).collect();
        let mut persons: HashMap<String, Vec<KeyedHash>> = HashMap::new();
        for row in sql::select_in(connection, PERSONS, &ids?, "").await? {
            let of = persons.entry(row.value("parked_id")?).or_default();
            of.push(row.hash("person")?);
        }
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.value("id")?;
            let persons = persons.remove(&id).unwrap_or_default();
            match self.item(row, persons).await {
                Ok(item) => items.extend(item),
                Err(Error::Damaged { what }) => {
                    tracing::error!(parked.id = %id, "Parked part {id} waits: a {what} is damaged");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(items)
    }

    /// None for a part whose key was destroyed: it is about to go; and for one
    /// that does not open, which must not hold up the others.
    async fn item(&self, row: &Row, persons: Vec<KeyedHash>) -> Result<Option<ParkedItem>, Error> {
        let id: String = row.value("id")?;
        let place = parked_place(&id);
        let xml = match self.ring().unseal(place, row.value("sealed")?).await {
            Ok(xml) => xml,
            Err(cause) if cause.is_destroyed() => return Ok(None),
            Err(Unopened::Sealed(cause)) => {
                tracing::error!(parked.id = %id, "Parked part {id} waits: {cause}");
                return Ok(None);
            }
            Err(Unopened::Store(cause)) => return Err(cause),
        };
        let tenant: Option<&str> = row.value("tenant")?;
        Ok(Some(ParkedItem {
            message_id: row.value("message_id")?,
            party: row.word("party", |text| PartyId::parse(text).ok())?,
            tenant: tenant.and_then(|text| TenantId::parse(text).ok()),
            reason: row.word("reason", Code::from_code)?,
            test: row.value("test")?,
            received_at: row.moment("received_at")?,
            message_type: row.value("message_type")?,
            edition: row.value("edition")?,
            persons,
            xml,
            id,
        }))
    }

    /// How many parts of a sender are parked, and their length in bytes: to
    /// bound what one party may pile up.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn parked_bytes(&self, party: &PartyId) -> Result<(u64, u64), Error> {
        let mut connection = self.reader().await?;
        let row = query(PARKED_BYTES)
            .bind(party.as_str())
            .fetch_one(&mut connection)
            .await?;
        let items = u64::try_from(row.value::<i64>("items")?).unwrap_or(0);
        let bytes = u64::try_from(row.value::<i64>("bytes")?).unwrap_or(0);
        Ok((items, bytes))
    }

    /// Drops parts that came in more than `days` days before `now`, and says
    /// how many. Their messages show it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn expire_parked(&self, now: Timestamp, days: u32) -> Result<u64, Error> {
        let age = (i64::from(days) * 24).hours();
        let before = now.saturating_sub(age).unwrap_or(Timestamp::MIN);
        let mut dropped = 0;
        loop {
            let step = self.writer().write(Drop {
                which: Which::Before(ms(before)),
                now: ms(now),
            });
            match step.await? {
                0 => return Ok(dropped),
                count => dropped += count,
            }
        }
    }

    /// Drops one part because a person said so; false when it is gone.
    ///
    /// # Errors
    ///
    /// As [`Self::expire_parked`].
    pub async fn discard_parked(&self, id: &str, now: Timestamp) -> Result<bool, Error> {
        let discard = Drop {
            which: Which::One(id.to_owned()),
            now: ms(now),
        };
        Ok(self.writer().write(discard).await? > 0)
    }
}

async fn fitting(
    connection: &mut Connection,
    statement: &'static str,
    filter: &ParkedFilter,
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let rows = query(statement)
        .bind(filter.party.as_ref().map(PartyId::as_str))
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.reason.map(Code::as_str))
        .bind(filter.before.map(ms))
        .bind(filter.after.as_deref())
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    Ok(rows)
}

fn summary(row: &Row) -> Result<ParkedSummary, Error> {
    let tenant: Option<String> = row.value("tenant")?;
    Ok(ParkedSummary {
        id: row.value("id")?,
        message_id: row.value("message_id")?,
        party: row.word("party", |text| PartyId::parse(text).ok())?,
        tenant: tenant.and_then(|text| TenantId::parse(&text).ok()),
        reason: row.word("reason", Code::from_code)?,
        test: row.value("test")?,
        received_at: row.moment("received_at")?,
        message_type: row.value("message_type")?,
        edition: row.value("edition")?,
        bytes: u64::try_from(row.value::<i64>("bytes")?).unwrap_or(0),
        persons: u64::try_from(row.value::<i64>("persons")?).unwrap_or(0),
    })
}

enum Which {
    Before(i64),
    One(String),
}

struct Drop {
    which: Which,
    now: i64,
}

const OLD: &str = "SELECT id, message_id FROM parked WHERE received_at < $1
    ORDER BY received_at LIMIT $2";
const ONE: &str = "SELECT id, message_id FROM parked WHERE id IN";
const DROP: &str = "DELETE FROM parked WHERE id = $1";
const NOTE_DROPPED: &str = "UPDATE message SET dropped_at = $1, parts = parts - 1 WHERE id = $2";

impl Change for Drop {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let rows = match &self.which {
            Which::Before(before) => {
                query(OLD)
                    .bind(*before)
                    .bind(DROP_STEP)
                    .fetch_all(&mut *connection)
                    .await?
            }
            Which::One(id) => sql::lock_in(connection, ONE, vec![id], " ORDER BY id").await?,
        };
        drop_parts(connection, &rows, self.now).await
    }
}

/// Removes parts, notes it with their messages, and says how many. Who comes
/// second finds a part gone and counts nothing off.
pub(super) async fn drop_parts(
    connection: &mut Connection,
    rows: &[Row],
    now: i64,
) -> Result<u64, sqlx::Error> {
    let mut dropped = 0;
    for row in rows {
        let gone = query(DROP)
            .bind(row.get::<&str>("id")?)
            .execute(&mut *connection)
            .await?;
        if gone == 0 {
            continue;
        }
        dropped += gone;
        query(NOTE_DROPPED)
            .bind(now)
            .bind(row.get::<&str>("message_id")?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(dropped)
}

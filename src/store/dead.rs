//! Dead letters: releases that were given up and need a person. This module
//! finds and shows them; [`super::revive`] makes them due again.
//!
//! What a receiver said when it rejected a release may hold anything, also a
//! name. Of that only the code leaves the store, and only when it looks like
//! one ([`Rejection`]). The sentence never does: an operator who needs it asks
//! the receiver, who wrote it and may read it.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Store;
use super::backend::{Connection, Row, query};
use super::error::Error;
use super::sql::{Columnar as _, ms};
use super::survey::{Candidate, Survey, by_inbox};
use crate::domain::{Domain, PartyId, TenantId};
use crate::seal::{Keys, Place};

/// Rows that one step of a look-up reads.
const STEP: i64 = 500;
/// Longest code that is shown, in bytes.
const CODE_MAX: usize = 40;
/// Most digits of a code that is shown: the number of a person has more.
const CODE_DIGITS: usize = 4;

/// A release that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Opaque id, the one that its receiver knows.
    pub id: String,
    /// The message behind it.
    pub message_id: String,
    /// Who sent that message.
    pub sender: PartyId,
    /// Whose inbox it is in.
    pub party: PartyId,
    /// Whose employees it is about.
    pub tenant: TenantId,
    /// Domain of the route.
    pub domain: Domain,
    /// Name of the message.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// True for test traffic.
    pub test: bool,
    /// Its place in the inbox.
    pub sequence: i64,
    /// When the message behind it came in.
    pub received_at: Timestamp,
    /// When it was offered.
    pub offered_at: Timestamp,
    /// When it was handed out last; none when it never was.
    pub leased_at: Option<Timestamp>,
    /// When it was given up.
    pub died_at: Timestamp,
    /// How many times it was handed out.
    pub attempts: u32,
    /// Length of the message in bytes.
    pub bytes: u64,
    /// Why, in a word.
    pub rejection: Rejection,
    /// False when its content is gone: it was discarded, was kept for as long
    /// as dead letters are, or its key was destroyed. Then it can never be due
    /// again.
    pub has_content: bool,
    /// When a person discarded it.
    pub discarded_at: Option<Timestamp>,
    /// How many later releases about a case of it its receiver took over or
    /// holds now: made due again, it would come after what is newer.
    pub overtaken: u64,
}

/// Why a release was given up, without what a person may have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// The code: at most 40 of `A-Z a-z 0-9 _ . -` with at most four digits,
    /// so that it is neither a sentence nor the number of a person. None for
    /// anything else.
    pub code: Option<String>,
    /// Length of the reason beside it, in characters.
    pub reason_length: usize,
}

impl Rejection {
    fn open(keys: &Keys, id: &str, sealed: Option<&[u8]>) -> Self {
        let place = Place {
            table: "delivery",
            row: id.as_bytes(),
            column: "rejection",
        };
        let plain = sealed.and_then(|sealed| keys.open(place, sealed).ok());
        let json: Option<Value> = plain.and_then(|plain| serde_json::from_slice(&plain).ok());
        let text = |key| Some(json.as_ref()?.get(key)?.as_str()?.to_owned());
        Self {
            code: text("code").filter(|code| is_code(code)),
            reason_length: text("reason").map_or(0, |reason| reason.chars().count()),
        }
    }
}

/// True for what can be shown as the code of a rejection.
fn is_code(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=CODE_MAX).contains(&text.len())
        && text.bytes().all(is_allowed)
        && text.bytes().filter(u8::is_ascii_digit).count() <= CODE_DIGITS
}

/// Which dead letters; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Only in the inbox of this party.
    pub party: Option<PartyId>,
    /// Only about employees of this tenant.
    pub tenant: Option<TenantId>,
    /// Only of routes in this domain.
    pub domain: Option<Domain>,
    /// Only messages of this name.
    pub message_type: Option<String>,
    /// Only with this code, one that is shown.
    pub code: Option<String>,
    /// Only what was given up at this moment or later.
    pub since: Option<Timestamp>,
    /// Only what was given up before this moment.
    pub until: Option<Timestamp>,
    /// Only test traffic, or none.
    pub test: Option<bool>,
}

/// Dead letters by id, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// The letters of this page.
    pub letters: Vec<DeadLetter>,
    /// The id to go on after; none on the last page.
    pub next: Option<String>,
}

const DEAD: &str = "SELECT delivery.id AS id, message_id, message.party AS sender,
    delivery.party AS party, delivery.test AS test, sequence, first_sequence, tenant, domain,
    delivery.message_type AS message_type, delivery.edition AS edition, cases, bytes,
    delivery.received_at AS received_at, offered_at, leased_at, finished_at, attempt, rejection,
    discarded_at, EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id) AS has_content
    FROM delivery JOIN message ON message.id = message_id
    WHERE state = 'dead' AND discarded_at IS NULL AND delivery.id > $1
    AND (CAST($2 AS TEXT) IS NULL OR delivery.party = $2)
    AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
    AND (CAST($4 AS TEXT) IS NULL OR domain = $4)
    AND (CAST($5 AS TEXT) IS NULL OR delivery.message_type = $5)
    AND (CAST($6 AS BIGINT) IS NULL OR finished_at >= $6)
    AND (CAST($7 AS BIGINT) IS NULL OR finished_at < $7)
    AND (CAST($8 AS BOOLEAN) IS NULL OR delivery.test = $8)
    ORDER BY delivery.id LIMIT $9";
const DEAD_BY_ID: &str = "SELECT delivery.id AS id, message_id, message.party AS sender,
    delivery.party AS party, delivery.test AS test, sequence, first_sequence, tenant, domain,
    delivery.message_type AS message_type, delivery.edition AS edition, cases, bytes,
    delivery.received_at AS received_at, offered_at, leased_at, finished_at, attempt, rejection,
    discarded_at, EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id) AS has_content
    FROM delivery JOIN message ON message.id = message_id
    WHERE state = 'dead' AND delivery.id = $1";

impl Store {
    /// Up to `limit` dead letters that wait for a decision, behind the one with the id `after`, oldest
    /// first (ids begin with their time).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn dead_letters(
        &self,
        filter: &DeadFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        let mut found = Vec::new();
        let mut after = after.unwrap_or_default().to_owned();
        let mut connection = self.reader().await?;
        // One more than asked tells whether there is a next page.
        while found.len() <= limit {
            let rows = matching(&mut connection, filter, &after).await?;
            let Some(last) = rows.last() else { break };
            after = last.value("id")?;
            for row in &rows {
                found.extend(self.fitting(row, filter)?);
            }
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let letters = self.with_overtaken(&mut connection, found).await?;
        let next = letters.last().filter(|_| more).map(|last| last.id.clone());
        Ok(DeadPage { letters, next })
    }

    /// One dead letter, also a discarded one; none when there is no release
    /// with this id, or when it is not dead.
    ///
    /// # Errors
    ///
    /// As [`Self::dead_letters`].
    pub async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, Error> {
        let mut connection = self.reader().await?;
        let row = query(DEAD_BY_ID)
            .bind(id)
            .fetch_optional(&mut connection)
            .await?;
        let found = row.as_ref().map(|row| self.letter(row)).transpose()?;
        let found = found.into_iter().collect();
        Ok(self.with_overtaken(&mut connection, found).await?.pop())
    }

    /// Every dead letter that the filter names and that still has its content,
    /// with what its order depends on. What was overtaken is not looked up.
    pub(super) async fn candidates(
        &self,
        filter: &DeadFilter,
    ) -> Result<Vec<(DeadLetter, Candidate)>, Error> {
        let mut found = Vec::new();
        let mut after = String::new();
        let mut connection = self.reader().await?;
        loop {
            let rows = matching(&mut connection, filter, &after).await?;
            let Some(last) = rows.last() else {
                return Ok(found);
            };
            after = last.value("id")?;
            for row in &rows {
                let fitting = self.fitting(row, filter)?;
                found.extend(fitting.filter(|(letter, _)| letter.has_content));
            }
        }
    }

    /// One dead letter as a candidate; none when it can not be due again.
    pub(super) async fn candidate(&self, id: &str) -> Result<Option<Candidate>, Error> {
        let mut connection = self.reader().await?;
        let row = query(DEAD_BY_ID)
            .bind(id)
            .fetch_optional(&mut connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let is_discarded = row.value::<Option<i64>>("discarded_at")?.is_some();
        if is_discarded || !row.value("has_content")? {
            return Ok(None);
        }
        Ok(Some(Candidate::read(&row)?))
    }

    /// The letter of a row, if its code is the one that was asked for: codes
    /// are sealed, so no statement can look at them.
    fn fitting(
        &self,
        row: &Row,
        filter: &DeadFilter,
    ) -> Result<Option<(DeadLetter, Candidate)>, Error> {
        let found = self.letter(row)?;
        let fits = filter.code.is_none() || filter.code == found.0.rejection.code;
        Ok(fits.then_some(found))
    }

    fn letter(&self, row: &Row) -> Result<(DeadLetter, Candidate), Error> {
        let id: String = row.value("id")?;
        let sealed: Option<Vec<u8>> = row.value("rejection")?;
        let letter = DeadLetter {
            message_id: row.value("message_id")?,
            sender: row.word("sender", |text| PartyId::parse(text).ok())?,
            party: row.word("party", |text| PartyId::parse(text).ok())?,
            tenant: row.word("tenant", |text| TenantId::parse(text).ok())?,
            domain: row.word("domain", |text| text.parse().ok())?,
            message_type: row.value("message_type")?,
            edition: row.value("edition")?,
            test: row.value("test")?,
            sequence: row.value("sequence")?,
            received_at: row.moment("received_at")?,
            offered_at: row.moment("offered_at")?,
            leased_at: row.moment_or_none("leased_at")?,
            died_at: row.moment("finished_at")?,
            attempts: u32::try_from(row.value::<i64>("attempt")?).unwrap_or(u32::MAX),
            bytes: u64::try_from(row.value::<i64>("bytes")?).unwrap_or(0),
            rejection: Rejection::open(self.keys(), &id, sealed.as_deref()),
            has_content: row.value("has_content")?,
            discarded_at: row.moment_or_none("discarded_at")?,
            overtaken: 0,
            id,
        };
        Ok((letter, Candidate::read(row)?))
    }

    /// Fills in how often each was overtaken, with one look per inbox.
    async fn with_overtaken(
        &self,
        connection: &mut Connection,
        found: Vec<(DeadLetter, Candidate)>,
    ) -> Result<Vec<DeadLetter>, Error> {
        let (mut letters, candidates): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let mut overtaken: HashMap<String, u64> = HashMap::new();
        let now = ms(self.clock().now());
        for candidates in by_inbox(candidates) {
            let survey = Survey::of(connection, candidates, now).await?;
            overtaken.extend(survey.overtaken());
        }
        for letter in &mut letters {
            letter.overtaken = overtaken.get(&letter.id).copied().unwrap_or(0);
        }
        Ok(letters)
    }
}

/// The next rows that fit everything but the code.
async fn matching(
    connection: &mut Connection,
    filter: &DeadFilter,
    after: &str,
) -> Result<Vec<Row>, Error> {
    let rows = query(DEAD)
        .bind(after)
        .bind(filter.party.as_ref().map(PartyId::as_str))
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.domain.map(Domain::as_str))
        .bind(filter.message_type.as_deref())
        .bind(filter.since.map(ms))
        .bind(filter.until.map(ms))
        .bind(filter.test)
        .bind(STEP)
        .fetch_all(&mut *connection)
        .await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_word_and_no_number_of_a_person() {
        for code in ["unreadable", "E1234", "schema.v2-7", "A", "404"] {
            assert!(is_code(code), "{code}");
        }
        let long = "x".repeat(41);
        for text in [
            "",
            "two words",
            "111222333",
            "W-10023",
            "Müller",
            "a/b",
            &long,
        ] {
            assert!(!is_code(text), "{text}");
        }
    }
}

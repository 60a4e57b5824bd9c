//! Writes many acceptances at once: judges each against what is stored and
//! against its neighbours, then inserts the rows of all that passed.
//!
//! A refused one leaves nothing behind. The unique keys of the schema are the
//! last word: where two nodes race, the loser's batch is undone, written
//! again job by job, and judged anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::Date;
use metrics::counter;
use tokio::sync::oneshot;

use super::acceptance::{CLOCKS_APART, DeliveryRow, MessageRow, ParkedRow, Prepared, WithheldKey};
use super::backend::{Connection, Row, query};
use super::bells::Rings;
use super::conservation::Parts;
use super::directory;
use super::error::Error;
use super::ledger::{LedgerRow, LedgerStep};
use super::sql::{self, Columns, Insert, blob};
use crate::clock;
use crate::domain::KeyedHash;

/// What became of one acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Written.
    Accepted,
    /// The party used this reference before; nothing was written.
    Duplicate,
    /// The ledger changed; nothing was written.
    Conflict,
    /// A parked part that was to go is gone; nothing was written.
    Gone,
    /// The directory changed; nothing was written.
    Stale,
    /// It was decided on another day than the database's; nothing was written.
    OtherDay,
}

/// An acceptance that waits for its answer.
pub(super) struct Job {
    prepared: Prepared,
    verdict: Verdict,
    answer: oneshot::Sender<Result<Verdict, Error>>,
}

impl Job {
    pub(super) fn new(prepared: Prepared) -> (Self, oneshot::Receiver<Result<Verdict, Error>>) {
        let (answer, answered) = oneshot::channel();
        let job = Self {
            prepared,
            verdict: Verdict::Conflict,
            answer,
        };
        (job, answered)
    }

    /// Which receivers to wake once it is written.
    pub(super) fn ring(&self, rings: &mut Rings) {
        if self.verdict == Verdict::Accepted {
            for row in &self.prepared.deliveries {
                rings.ring(&row.party, row.test);
            }
        }
    }

    /// Answers, and counts what was written.
    pub(super) fn settle(self, written: Result<(), Error>) {
        if written.is_ok() && self.verdict == Verdict::Accepted {
            count(&self.prepared);
        }
        drop(self.answer.send(written.map(|()| self.verdict)));
    }
}

/// Counts what was written, for operators.
fn count(written: &Prepared) {
    for (key, total) in &written.withheld {
        let labels = [("domain", key.domain.as_str()), ("rule", key.rule)];
        let total = u64::try_from(*total).unwrap_or(0);
        counter!("sivi_withheld_total", &labels).increment(total);
    }
    for part in &written.parked {
        counter!("sivi_parked_total", "reason" => part.reason).increment(1);
    }
}

/// Judges and writes `jobs` inside the transaction of the batch.
pub(super) async fn write(
    connection: &mut Connection,
    jobs: &mut [Job],
) -> Result<(), sqlx::Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut known = Known::read(connection, jobs).await?;
    for job in &mut *jobs {
        job.verdict = known.judge(&job.prepared);
    }
    let accepted = jobs.iter().filter(|job| job.verdict == Verdict::Accepted);
    let accepted: Vec<&Prepared> = accepted.map(|job| &job.prepared).collect();

    write_messages(connection, &accepted).await?;
    write_deliveries(connection, &accepted).await?;
    write_parked(connection, &accepted).await?;
    known.parts_of_others(&accepted).write(connection).await?;
    write_ledger(connection, &accepted, &known.stored).await?;
    write_remembered(connection, &accepted).await?;
    write_withheld(connection, &accepted).await?;
    write_answers(connection, &accepted).await
}

/// What the batch is judged against: first the stored state, then also what
/// the jobs that passed will change.
struct Known {
    directory_version: i64,
    /// The day, or two of them when another has just begun or is about to.
    days: RangeInclusive<Date>,
    references: HashSet<(KeyedHash, String)>,
    /// Version per entry, as stored before this batch.
    stored: HashMap<KeyedHash, i64>,
    /// Version per entry after the jobs that passed; 0 for a removed one.
    versions: HashMap<KeyedHash, i64>,
    /// Parked parts that are left after the jobs that passed.
    parked: HashSet<String>,
    /// The message of each parked part, as stored before this batch.
    came_with: HashMap<String, String>,
}

impl Known {
    async fn read(connection: &mut Connection, jobs: &[Job]) -> Result<Self, sqlx::Error> {
        let messages = jobs.iter().filter_map(|job| job.prepared.message.as_ref());
        let references: Vec<Vec<u8>> = messages.map(|row| blob(&row.berrefnr)).collect();
        let steps = jobs.iter().flat_map(|job| &job.prepared.ledger);
        let entries: Vec<Vec<u8>> = steps.map(|step| blob(&step.entry)).collect();
        let parked = jobs.iter().flat_map(|job| &job.prepared.unparked);
        let parked: Vec<String> = parked.cloned().collect();

        let directory_version = directory::lock_version(connection).await?;
        let references = sql::select_in(
            connection,
            "SELECT berrefnr, party FROM message WHERE berrefnr IN",
            &references,
            "",
        );
        let references = decode(&references.await?, |row| {
            Ok((hash(row, "berrefnr")?, row.get("party")?))
        })?;
        let versions = sql::lock_in(
            connection,
            "SELECT entry, version FROM ledger WHERE entry IN",
            entries,
            " ORDER BY entry",
        );
        let stored: HashMap<_, _> = decode(&versions.await?, |row| {
            Ok((hash(row, "entry")?, row.get("version")?))
        })?;
        let parked = sql::lock_in(
            connection,
            "SELECT id, message_id FROM parked WHERE id IN",
            parked,
            " ORDER BY id",
        );
        let came_with: HashMap<String, String> = decode(&parked.await?, |row| {
            Ok((row.get("id")?, row.get("message_id")?))
        })?;
        Ok(Self {
            directory_version,
            days: days_at(connection.now_ms()),
            references,
            versions: stored.clone(),
            stored,
            parked: came_with.keys().cloned().collect(),
            came_with,
        })
    }

    /// How the parts of messages change that were accepted before.
    fn parts_of_others(&self, accepted: &[&Prepared]) -> Parts {
        let mut parts = Parts::default();
        for job in accepted {
            let unparked: HashSet<&String> = job.unparked.iter().collect();
            for id in unparked {
                if let Some(message) = self.came_with.get(id) {
                    parts.add(message, -1);
                }
            }
            if job.message.is_none() {
                for delivery in &job.deliveries {
                    parts.add(&delivery.message_id, 1);
                }
            }
        }
        parts
    }

    /// Passes `job` if nothing it was decided on has changed, and then counts
    /// its changes as made.
    fn judge(&mut self, job: &Prepared) -> Verdict {
        let reference = job.message.as_ref();
        let reference = reference.map(|row| (row.berrefnr, row.party.clone()));
        if reference
            .as_ref()
            .is_some_and(|r| self.references.contains(r))
        {
            return Verdict::Duplicate;
        }
        if job.directory_version != self.directory_version {
            return Verdict::Stale;
        }
        if !self.days.contains(&job.decided_on) {
            return Verdict::OtherDay;
        }
        let unparked: HashSet<&String> = job.unparked.iter().collect();
        if !unparked.iter().all(|id| self.parked.contains(*id)) {
            return Verdict::Gone;
        }
        let Some(changed) = self.ledger_after(&job.ledger) else {
            return Verdict::Conflict;
        };
        self.references.extend(reference);
        self.versions.extend(changed);
        for id in unparked {
            self.parked.remove(id);
        }
        Verdict::Accepted
    }

    /// The versions after `steps`, or none if one was decided on another.
    fn ledger_after(&self, steps: &[LedgerStep]) -> Option<HashMap<KeyedHash, i64>> {
        let mut changed = HashMap::with_capacity(steps.len());
        for step in steps {
            let known = changed.get(&step.entry).or(self.versions.get(&step.entry));
            let current = known.copied().unwrap_or(0);
            if current != step.decided_on {
                return None;
            }
            let next = if step.row.is_some() { current + 1 } else { 0 };
            changed.insert(step.entry, next);
        }
        Some(changed)
    }
}

/// The days that a clock may show when the database's shows `now_ms`.
fn days_at(now_ms: i64) -> RangeInclusive<Date> {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::MIN);
    let day = |at: Result<Timestamp, _>| clock::civil_at(at.unwrap_or(now)).date();
    day(now.saturating_sub(CLOCKS_APART))..=day(now.saturating_add(CLOCKS_APART))
}

fn decode<T, C: FromIterator<T>>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, sqlx::Error>,
) -> Result<C, sqlx::Error> {
    rows.iter().map(read).collect()
}

fn hash(row: &Row, column: &str) -> Result<KeyedHash, sqlx::Error> {
    sql::to_hash(row.get(column)?).map_err(|cause| sqlx::Error::Decode(cause.into()))
}

const INSERT_MESSAGE: Insert = Insert {
    head: "INSERT INTO message (id, party, test, berrefnr, body, received_at, message_type,
           edition, details, shown, parked, parts) ",
    columns: 12,
    tail: "",
};

async fn write_messages(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    let rows = accepted.iter().filter_map(|job| job.message.as_ref());
    let rows: Vec<&MessageRow> = rows.collect();
    let bind = |columns: &mut Columns<'_>, row: &&MessageRow| {
        columns
            .push_bind(row.id.clone())
            .push_bind(row.party.clone())
            .push_bind(row.test)
            .push_bind(blob(&row.berrefnr))
            .push_bind(row.body.clone())
            .push_bind(row.received_at)
            .push_bind(row.message_type.clone())
            .push_bind(row.edition.clone())
            .push_bind(row.details.clone())
            .push_bind(row.shown)
            .push_bind(row.parked)
            .push_bind(row.parts);
    };
    INSERT_MESSAGE.run(connection, &rows, bind).await
}

const RESERVE_SEQUENCES: Insert = Insert {
    head: "INSERT INTO inbox (party, test, last_sequence) ",
    columns: 3,
    tail: " ON CONFLICT (party, test) DO UPDATE
           SET last_sequence = inbox.last_sequence + excluded.last_sequence
           RETURNING party, test, last_sequence",
};

/// Reserves numbers for `rows` and gives each row its own, in their order.
/// The counter's row is locked until COMMIT, so numbers follow commit order.
async fn number<'a>(
    connection: &mut Connection,
    rows: impl Iterator<Item = &'a DeliveryRow> + Clone,
) -> Result<Vec<(i64, &'a DeliveryRow)>, sqlx::Error> {
    let mut counts: BTreeMap<(&str, bool), i64> = BTreeMap::new();
    for row in rows.clone() {
        *counts.entry((&row.party, row.test)).or_default() += 1;
    }
    let wanted: Vec<_> = counts.iter().collect();
    let reserve = RESERVE_SEQUENCES.returning(connection, &wanted, |columns, (inbox, count)| {
        columns
            .push_bind(inbox.0.to_owned())
            .push_bind(inbox.1)
            .push_bind(**count);
    });
    let mut next: HashMap<(String, bool), i64> = HashMap::new();
    for row in reserve.await? {
        let inbox: (String, bool) = (row.get("party")?, row.get("test")?);
        let last: i64 = row.get("last_sequence")?;
        let count = counts.get(&(inbox.0.as_str(), inbox.1)).copied();
        next.insert(inbox, last - count.unwrap_or(0) + 1);
    }
    let mut numbered = Vec::new();
    for row in rows {
        let sequence = next
            .get_mut(&(row.party.clone(), row.test))
            .ok_or(sqlx::Error::RowNotFound)?;
        numbered.push((*sequence, row));
        *sequence += 1;
    }
    Ok(numbered)
}

const INSERT_DELIVERY: Insert = Insert {
    head: "INSERT INTO delivery (id, message_id, party, test, sequence, tenant, domain,
           message_type, edition, berrefnr, policy_version, cases, bytes, received_at,
           offered_at, state, lease_until, attempt) ",
    columns: 18,
    tail: "",
};
const INSERT_PAYLOAD: Insert = Insert {
    head: "INSERT INTO payload (delivery_id, sealed) ",
    columns: 2,
    tail: "",
};

async fn write_deliveries(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    let rows = number(connection, accepted.iter().flat_map(|job| &job.deliveries)).await?;
    let bind = |columns: &mut Columns<'_>, (sequence, row): &(i64, &DeliveryRow)| {
        columns
            .push_bind(row.id.clone())
            .push_bind(row.message_id.clone())
            .push_bind(row.party.clone())
            .push_bind(row.test)
            .push_bind(*sequence)
            .push_bind(row.tenant.clone())
            .push_bind(row.domain.as_str())
            .push_bind(row.message_type.clone())
            .push_bind(row.edition.clone())
            .push_bind(row.berrefnr.clone())
            .push_bind(row.policy_version.clone())
            .push_bind(row.cases.clone())
            .push_bind(i64::try_from(row.bytes).unwrap_or(i64::MAX))
            .push_bind(row.received_at)
            .push_bind(row.offered_at)
            .push_bind("offered")
            .push_bind(0_i64)
            .push_bind(0_i64);
    };
    INSERT_DELIVERY.run(connection, &rows, bind).await?;
    let bind = |columns: &mut Columns<'_>, (_, row): &(i64, &DeliveryRow)| {
        columns
            .push_bind(row.id.clone())
            .push_bind(row.payload.clone());
    };
    INSERT_PAYLOAD.run(connection, &rows, bind).await
}

const INSERT_PARKED: Insert = Insert {
    head: "INSERT INTO parked (id, message_id, party, tenant, reason, test, received_at,
           message_type, edition, bytes, sealed) ",
    columns: 11,
    tail: "",
};
const INSERT_PARKED_PERSON: Insert = Insert {
    head: "INSERT INTO parked_person (parked_id, person) ",
    columns: 2,
    tail: "",
};
const DELETE_PARKED: &str = "DELETE FROM parked WHERE id IN";

async fn write_parked(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    let gone = accepted.iter().flat_map(|job| job.unparked.iter().cloned());
    sql::change_in(connection, DELETE_PARKED, &gone.collect::<Vec<_>>()).await?;

    let rows: Vec<&ParkedRow> = accepted.iter().flat_map(|job| &job.parked).collect();
    let bind = |columns: &mut Columns<'_>, row: &&ParkedRow| {
        columns
            .push_bind(row.id.clone())
            .push_bind(row.message_id.clone())
            .push_bind(row.party.clone())
            .push_bind(row.tenant.clone())
            .push_bind(row.reason)
            .push_bind(row.test)
            .push_bind(row.received_at)
            .push_bind(row.message_type.clone())
            .push_bind(row.edition.clone())
            .push_bind(i64::try_from(row.bytes).unwrap_or(i64::MAX))
            .push_bind(row.sealed.clone());
    };
    INSERT_PARKED.run(connection, &rows, bind).await?;
    let persons = rows.iter().flat_map(|row| {
        let persons = row.persons.iter();
        persons.map(|person| (row.id.as_str(), person.as_slice()))
    });
    let persons: Vec<(&str, &[u8])> = persons.collect();
    let bind = |columns: &mut Columns<'_>, (id, person): &(&str, &[u8])| {
        columns
            .push_bind((*id).to_owned())
            .push_bind(person.to_vec());
    };
    INSERT_PARKED_PERSON.run(connection, &persons, bind).await
}

/// A plain INSERT, so that an entry that another node made first is a broken
/// unique key, not an overwritten row.
const INSERT_ENTRY: Insert = Insert {
    head: "INSERT INTO ledger (entry, route, person, case_hash, forget_on, version, sealed) ",
    columns: 7,
    tail: "",
};
/// For rows that are there and locked by this transaction.
const REPLACE_ENTRY: Insert = Insert {
    head: INSERT_ENTRY.head,
    columns: 7,
    tail: " ON CONFLICT (entry) DO UPDATE SET forget_on = excluded.forget_on,
           version = excluded.version, sealed = excluded.sealed",
};
const DELETE_ENTRY: &str = "DELETE FROM ledger WHERE entry IN";

async fn write_ledger(
    connection: &mut Connection,
    accepted: &[&Prepared],
    stored: &HashMap<KeyedHash, i64>,
) -> Result<(), sqlx::Error> {
    // Only the last change of an entry is written.
    let mut last: BTreeMap<KeyedHash, Option<(i64, &LedgerRow)>> = BTreeMap::new();
    for step in accepted.iter().flat_map(|job| &job.ledger) {
        let row = step.row.as_ref().map(|row| (step.decided_on + 1, row));
        last.insert(step.entry, row);
    }
    let (mut new, mut replaced, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, row) in last {
        match (row, stored.contains_key(&entry)) {
            (Some(row), false) => new.push(row),
            (Some(row), true) => replaced.push(row),
            (None, true) => gone.push(blob(&entry)),
            (None, false) => {}
        }
    }
    INSERT_ENTRY.run(connection, &new, bind_entry).await?;
    REPLACE_ENTRY.run(connection, &replaced, bind_entry).await?;
    sql::change_in(connection, DELETE_ENTRY, &gone).await?;
    Ok(())
}

fn bind_entry(columns: &mut Columns<'_>, (version, row): &(i64, &LedgerRow)) {
    columns
        .push_bind(row.entry.clone())
        .push_bind(row.route.clone())
        .push_bind(row.person.clone())
        .push_bind(row.case.clone())
        .push_bind(row.forget_on)
        .push_bind(*version)
        .push_bind(row.sealed.clone());
}

const UPSERT_REMEMBERED: Insert = Insert {
    head: "INSERT INTO remembered (case_hash, route, until_day) ",
    columns: 3,
    tail: " ON CONFLICT (case_hash, route) DO UPDATE SET until_day = excluded.until_day
           WHERE excluded.until_day > remembered.until_day",
};

async fn write_remembered(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    // One row per key: a statement may not touch the same row twice.
    let mut until: BTreeMap<(KeyedHash, KeyedHash), i64> = BTreeMap::new();
    for remembered in accepted.iter().flat_map(|job| &job.remember) {
        let day = until
            .entry((remembered.case, remembered.route))
            .or_insert(i64::MIN);
        *day = (*day).max(sql::day(remembered.until));
    }
    let rows: Vec<_> = until.into_iter().collect();
    let bind = |columns: &mut Columns<'_>, (key, day): &((KeyedHash, KeyedHash), i64)| {
        columns
            .push_bind(blob(&key.0))
            .push_bind(blob(&key.1))
            .push_bind(*day);
    };
    UPSERT_REMEMBERED.run(connection, &rows, bind).await
}

const ADD_WITHHELD: Insert = Insert {
    head: "INSERT INTO withheld (on_day, tenant, party, domain, test, message_type, rule, total) ",
    columns: 8,
    tail: " ON CONFLICT (on_day, tenant, party, domain, test, message_type, rule)
           DO UPDATE SET total = withheld.total + excluded.total",
};

async fn write_withheld(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    let mut totals: BTreeMap<&WithheldKey, i64> = BTreeMap::new();
    for (key, count) in accepted.iter().flat_map(|job| &job.withheld) {
        *totals.entry(key).or_default() += count;
    }
    let rows: Vec<_> = totals.into_iter().collect();
    let bind = |columns: &mut Columns<'_>, (key, total): &(&WithheldKey, i64)| {
        columns
            .push_bind(key.on_day)
            .push_bind(key.tenant.clone())
            .push_bind(key.party.clone())
            .push_bind(key.domain.as_str())
            .push_bind(key.test)
            .push_bind(key.message_type.clone())
            .push_bind(key.rule)
            .push_bind(*total);
    };
    ADD_WITHHELD.run(connection, &rows, bind).await
}

const ANSWER_DELIVERY: &str = "UPDATE delivery SET answered_at = $1, answer_positive = $2
    WHERE id = $3 AND party = $4";

async fn write_answers(
    connection: &mut Connection,
    accepted: &[&Prepared],
) -> Result<(), sqlx::Error> {
    for answer in accepted.iter().filter_map(|job| job.answer.as_ref()) {
        query(ANSWER_DELIVERY)
            .bind(answer.at)
            .bind(answer.positive)
            .bind(&answer.release_id)
            .bind(&answer.party)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

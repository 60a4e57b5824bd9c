//! The case ledger at rest: hashes for look-up, everything else sealed.
//!
//! An entry is found by person or by case, within a route. Its id is a keyed
//! hash of its whole key, so the columns need not repeat the employment.
//! It does not decide who is sick; [`crate::policy`] does.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use zeroize::Zeroizing;

use super::Store;
use super::backend::{Connection, Row, query};
use super::error::Error;
use super::ring::Ring;
use super::sql::{self, Columnar as _, blob};
use super::writer::Change;
use crate::domain::{KeyedHash, TenantId};
use crate::policy::{CaseEntry, CaseKey, CaseState, LedgerChange};
use crate::seal::{Keys, NoKey, Place, Scope};

/// How many rows one transaction forgets at most, so that erasure never holds
/// up receipt.
const FORGET_STEP: i64 = 500;

/// What [`Store::forget`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Closed cases whose window is over.
    pub cases: u64,
    /// Hashes of cases whose two years are over.
    pub remembered: u64,
}

/// An entry as the table holds it.
pub(super) struct LedgerRow {
    pub(super) entry: Vec<u8>,
    pub(super) route: Vec<u8>,
    pub(super) person: Vec<u8>,
    pub(super) case: Vec<u8>,
    pub(super) forget_on: Option<i64>,
    pub(super) sealed: Vec<u8>,
}

/// One change, ready to be judged against the stored versions.
pub(super) struct LedgerStep {
    pub(super) entry: KeyedHash,
    /// The version that was decided on; 0 when there was none.
    pub(super) decided_on: i64,
    /// The new row; none removes it.
    pub(super) row: Option<LedgerRow>,
}

impl LedgerStep {
    pub(super) fn new(
        keys: &Keys,
        tenant: &TenantId,
        change: &LedgerChange,
        window_days: i32,
    ) -> Result<Self, NoKey> {
        Ok(match change {
            LedgerChange::Put(entry) => {
                let id = entry_id(keys, &entry.key);
                Self {
                    entry: id,
                    decided_on: entry.version,
                    row: Some(seal_entry(keys, tenant, &id, entry, window_days)?),
                }
            }
            LedgerChange::Remove { key, version } => Self {
                entry: entry_id(keys, key),
                decided_on: *version,
                row: None,
            },
        })
    }
}

fn entry_id(keys: &Keys, key: &CaseKey) -> KeyedHash {
    let parts = [&key.route, &key.person, &key.employment, &key.case];
    keys.keyed_hash_parts(
        "ledger entry",
        &parts.map(|hash| hash.as_bytes().as_slice()),
    )
}

fn place(entry: &[u8]) -> Place<'_> {
    Place {
        table: "ledger",
        row: entry,
        column: "sealed",
    }
}

fn seal_entry(
    keys: &Keys,
    tenant: &TenantId,
    id: &KeyedHash,
    entry: &CaseEntry,
    window_days: i32,
) -> Result<LedgerRow, NoKey> {
    let plain = encode(entry);
    Ok(LedgerRow {
        entry: blob(id),
        route: blob(&entry.key.route),
        person: blob(&entry.key.person),
        case: blob(&entry.key.case),
        forget_on: entry.state.remembered_until(window_days).map(sql::day),
        sealed: keys.seal(Scope::Tenant(tenant), place(id.as_bytes()), &plain)?,
    })
}

/// None for an entry whose key was destroyed: it is about to go.
async fn open_entry(ring: &Ring, row: &Row) -> Result<Option<CaseEntry>, Error> {
    let id: &[u8] = row.value("entry")?;
    let sealed: &[u8] = row.value("sealed")?;
    let plain = match ring.unseal(place(id), sealed).await {
        Ok(plain) => plain,
        Err(cause) if cause.is_destroyed() => return Ok(None),
        Err(cause) => return Err(cause.damaged("ledger entry")),
    };
    let inner = decode(&plain).ok_or(Error::Damaged {
        what: "ledger entry",
    })?;
    Ok(Some(CaseEntry {
        key: CaseKey {
            route: row.hash("route")?,
            person: row.hash("person")?,
            employment: inner.employment,
            case: row.hash("case_hash")?,
        },
        birth: inner.birth,
        state: inner.state,
        version: row.value("version")?,
    }))
}

/// Layout of the sealed part. Every entry has the same length, so the length
/// does not tell an open case from a closed one.
const LAYOUT: u8 = 1;
/// Stands for "no day".
const NO_DAY: i64 = i64::MIN;

struct Inner {
    employment: KeyedHash,
    birth: KeyedHash,
    state: CaseState,
}

fn encode(entry: &CaseEntry) -> Zeroizing<Vec<u8>> {
    let state = &entry.state;
    let mut bytes = Zeroizing::new(Vec::with_capacity(138));
    bytes.push(LAYOUT);
    for hash in [&entry.key.employment, &entry.birth, &state.last_content] {
        bytes.extend_from_slice(hash.as_bytes());
    }
    for day in [
        Some(state.first_day),
        state.recovered_on,
        state.closed_on,
        Some(state.last_message_on),
    ] {
        let number = day.map_or(NO_DAY, sql::day);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.push(u8::from(state.withdrawn));
    bytes.extend_from_slice(&state.last_number.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Inner> {
    let ([layout], mut rest) = bytes.split_first_chunk()?;
    if *layout != LAYOUT {
        return None;
    }
    let employment = KeyedHash::from_bytes(take(&mut rest)?);
    let birth = KeyedHash::from_bytes(take(&mut rest)?);
    let last_content = KeyedHash::from_bytes(take(&mut rest)?);
    let mut day = || match i64::from_be_bytes(take(&mut rest)?) {
        NO_DAY => Some(None),
        number => sql::to_day(number).map(Some),
    };
    let (first_day, recovered_on, closed_on, last_message_on) = (day()??, day()?, day()?, day()??);
    let [withdrawn] = take(&mut rest)?;
    let last_number = u32::from_be_bytes(take(&mut rest)?);
    rest.is_empty().then_some(Inner {
        employment,
        birth,
        state: CaseState {
            first_day,
            recovered_on,
            closed_on,
            withdrawn: withdrawn != 0,
            last_number,
            last_content,
            last_message_on,
        },
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

const ENTRIES_OF_PERSONS: &str =
    "SELECT entry, route, person, case_hash, version, sealed FROM ledger WHERE person IN";
const ENTRIES_OF_CASES: &str =
    "SELECT entry, route, person, case_hash, version, sealed FROM ledger WHERE case_hash IN";
const REMEMBERED: &str = "SELECT route, case_hash FROM remembered WHERE case_hash IN";

/// Persons of one message above which it gets a query of its own.
const ALONE: usize = 64;

async fn open_entries(ring: &Ring, rows: &[Row]) -> Result<Vec<CaseEntry>, Error> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        entries.extend(open_entry(ring, row).await?);
    }
    Ok(entries)
}

/// What is known of persons, each for himself: an entry that does not open is
/// an error of his alone.
pub(super) type Known = HashMap<KeyedHash, Result<Vec<CaseEntry>, Error>>;

/// The entries of persons on all routes. Of whom nothing is known is left out.
pub(super) async fn entries_of_persons(
    connection: &mut Connection,
    ring: &Ring,
    persons: HashSet<KeyedHash>,
) -> Result<Known, Error> {
    let blobs: Vec<Vec<u8>> = persons.iter().map(blob).collect();
    let rows = sql::select_in(connection, ENTRIES_OF_PERSONS, &blobs, "").await?;
    let mut known = Known::new();
    for row in &rows {
        let opened = open_entry(ring, row).await;
        let of = known.entry(row.hash("person")?).or_insert(Ok(Vec::new()));
        match (of.as_mut(), opened) {
            (Ok(entries), Ok(entry)) => entries.extend(entry),
            (Ok(_), Err(cause)) => *of = Err(cause),
            (Err(_), _) => {}
        }
    }
    Ok(known)
}

const STATES: &str = "SELECT entry, route, person, case_hash, version, sealed FROM ledger
    WHERE entry > $1 ORDER BY entry LIMIT $2";

/// One step of a walk through the ledger.
pub(super) struct States {
    /// The states that opened.
    pub(super) open: Vec<CaseState>,
    /// How many did not, although their key is there.
    pub(super) damaged: u64,
    /// The id of the last entry; none when there are no more.
    pub(super) last: Option<Vec<u8>>,
}

/// The next `step` entries after `after`, in the order of their ids.
pub(super) async fn states_after(
    connection: &mut Connection,
    ring: &Ring,
    after: &[u8],
    step: u32,
) -> Result<States, Error> {
    let rows = query(STATES)
        .bind(after.to_vec())
        .bind(i64::from(step))
        .fetch_all(connection)
        .await?;
    let is_full = rows.len() >= usize::try_from(step).unwrap_or(usize::MAX);
    let last = rows.last().filter(|_| is_full);
    let mut states = States {
        open: Vec::with_capacity(rows.len()),
        damaged: 0,
        last: last.map(|row| row.value("entry")).transpose()?,
    };
    for row in &rows {
        match open_entry(ring, row).await {
            Ok(entry) => states.open.extend(entry.map(|entry| entry.state)),
            Err(Error::Damaged { .. }) => states.damaged += 1,
            Err(cause) => return Err(cause),
        }
    }
    Ok(states)
}

impl Store {
    /// The entries of persons, each on one route: pairs of route and person.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn ledger(
        &self,
        persons: &[(KeyedHash, KeyedHash)],
    ) -> Result<Vec<CaseEntry>, Error> {
        let wanted: HashSet<(KeyedHash, KeyedHash)> = persons.iter().copied().collect();
        let distinct: HashSet<KeyedHash> = persons.iter().map(|(_, person)| *person).collect();
        let mut entries = if distinct.len() > ALONE {
            let mut connection = self.reader().await?;
            let known = entries_of_persons(&mut connection, self.ring(), distinct).await?;
            let known: Result<Vec<Vec<CaseEntry>>, Error> = known.into_values().collect();
            known?.into_iter().flatten().collect()
        } else {
            self.lookups().ask(distinct.into_iter().collect()).await?
        };
        entries.retain(|entry| wanted.contains(&(entry.key.route, entry.key.person)));
        Ok(entries)
    }

    /// The entries of cases, each on one route: pairs of route and case.
    ///
    /// # Errors
    ///
    /// As [`Self::ledger`].
    pub async fn ledger_cases(
        &self,
        cases: &[(KeyedHash, KeyedHash)],
    ) -> Result<Vec<CaseEntry>, Error> {
        let rows = self.by_second(ENTRIES_OF_CASES, cases).await?;
        let wanted: HashSet<_> = cases.iter().copied().collect();
        let mut entries = open_entries(self.ring(), &rows).await?;
        entries.retain(|entry| wanted.contains(&(entry.key.route, entry.key.case)));
        Ok(entries)
    }

    /// Which of these cases their route knew within the last two years: pairs
    /// of route and case.
    ///
    /// # Errors
    ///
    /// As [`Self::ledger`].
    pub async fn remembered(
        &self,
        cases: &[(KeyedHash, KeyedHash)],
    ) -> Result<HashSet<(KeyedHash, KeyedHash)>, Error> {
        let rows = self.by_second(REMEMBERED, cases).await?;
        let wanted: HashSet<_> = cases.iter().copied().collect();
        let found = rows
            .iter()
            .map(|row| Ok((row.hash("route")?, row.hash("case_hash")?)));
        let found: HashSet<_> = found.collect::<Result<_, Error>>()?;
        Ok(found.intersection(&wanted).copied().collect())
    }

    /// Rows by the second hash of each pair. It is nearly unique; the route
    /// is not, and is compared afterwards.
    async fn by_second(
        &self,
        statement: &'static str,
        pairs: &[(KeyedHash, KeyedHash)],
    ) -> Result<Vec<Row>, Error> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let distinct: HashSet<KeyedHash> = pairs.iter().map(|(_, second)| *second).collect();
        let blobs: Vec<Vec<u8>> = distinct.iter().map(blob).collect();
        let mut connection = self.reader().await?;
        Ok(sql::select_in(&mut connection, statement, &blobs, "").await?)
    }

    /// Removes closed cases whose window ended before `today`, and case
    /// hashes that are remembered until a day before `today`; in steps, so
    /// that receipt goes on in between.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; what is not removed yet is
    /// removed by the next call.
    pub async fn forget(&self, today: Date) -> Result<Forgotten, Error> {
        let before = sql::day(today);
        let mut forgotten = Forgotten::default();
        for (statement, count) in [
            (FORGET_CASES, &mut forgotten.cases),
            (FORGET_REMEMBERED, &mut forgotten.remembered),
        ] {
            loop {
                let removed = self.writer().write(Forget { statement, before }).await?;
                *count += removed;
                if removed == 0 {
                    break;
                }
            }
        }
        Ok(forgotten)
    }
}

const FORGET_CASES: &str = "DELETE FROM ledger WHERE entry IN
    (SELECT entry FROM ledger WHERE forget_on < $1 LIMIT $2)";
const FORGET_REMEMBERED: &str = "DELETE FROM remembered WHERE (case_hash, route) IN
    (SELECT case_hash, route FROM remembered WHERE until_day < $1 LIMIT $2)";

struct Forget {
    statement: &'static str,
    before: i64,
}

impl Change for Forget {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        query(self.statement)
            .bind(self.before)
            .bind(FORGET_STEP)
            .execute(connection)
            .await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day() -> impl Strategy<Value = Date> {
        (-30_000_i64..60_000).prop_map(|number| sql::to_day(number).unwrap())
    }

    prop_compose! {
        fn entry()(
            hashes in any::<[[u8; KeyedHash::LEN]; 6]>(),
            first_day in day(),
            recovered_on in proptest::option::of(day()),
            closed_on in proptest::option::of(day()),
            withdrawn: bool,
            last_number: u32,
            last_message_on in day(),
        ) -> CaseEntry {
            let [route, person, employment, case, birth, last_content] =
                hashes.map(KeyedHash::from_bytes);
            CaseEntry {
                key: CaseKey { route, person, employment, case },
                birth,
                state: CaseState {
                    first_day,
                    recovered_on,
                    closed_on,
                    withdrawn,
                    last_number,
                    last_content,
                    last_message_on,
                },
                version: 1,
            }
        }
    }

    proptest! {
        #[test]
        fn a_sealed_entry_reads_back_and_does_not_tell_by_length(a in entry(), b in entry()) {
            let inner = decode(&encode(&a)).unwrap();
            prop_assert_eq!(inner.state, a.state.clone());
            prop_assert_eq!((inner.employment, inner.birth), (a.key.employment, a.birth));
            prop_assert_eq!(encode(&a).len(), encode(&b).len());
        }

        #[test]
        fn a_cut_or_longer_entry_is_not_read(a in entry(), cut in 0_usize..130) {
            let bytes = encode(&a);
            prop_assert!(decode(&bytes[..cut]).is_none());
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert!(decode(&longer).is_none());
        }
    }
}

//! Marks: one sealed value per data key, kept with the messages.
//!
//! They tell the right key ring from a wrong one, and from an older copy that
//! lacks a key, before anything is written. A mark of a key that was destroyed
//! says that values of it may be left here. A store without any is new: beside a
//! ring that was in use it stands where another one was lost.

use std::collections::{BTreeSet, HashSet};

use super::backend::{Backend, Connection, query};
use super::error::Error;
use super::ring::{Ring, RingPlace};
use super::sql::Columnar as _;
use super::writer::Change;
use crate::clock::Clock;
use crate::seal::{Keys, Place, SealError};

/// What a mark seals; any text will do.
const PLAIN: &[u8] = b"sivi-gateway";

/// One mark.
pub(super) struct Mark {
    number: i64,
    sealed: Vec<u8>,
}

impl Mark {
    /// True when these keys opened it, or did before they were destroyed.
    pub(super) fn fits(&self, keys: &Keys) -> bool {
        match keys.open(place(&self.number.to_string()), &self.sealed) {
            Ok(plain) => plain.as_slice() == PLAIN,
            Err(cause) => cause == SealError::Destroyed,
        }
    }
}

fn place(number: &str) -> Place<'_> {
    Place {
        table: "key_check",
        row: number.as_bytes(),
        column: "sealed",
    }
}

const UNMARK: &str = "DELETE FROM key_check WHERE number = $1";
const MARKS: &str = "SELECT number, sealed FROM key_check ORDER BY number";
const NUMBERS: &str = "SELECT number FROM key_check";
const MARK: &str =
    "INSERT INTO key_check (number, sealed) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING";

/// All marks.
pub(super) async fn marks(connection: &mut Connection) -> Result<Vec<Mark>, Error> {
    let rows = query(MARKS).fetch_all(connection).await?;
    let marks = rows.iter().map(|row| {
        Ok(Mark {
            number: row.value("number")?,
            sealed: row.value("sealed")?,
        })
    });
    marks.collect()
}

/// All marks of a database that may be new, or not there; nothing is made.
async fn marks_there(store: &Backend) -> Result<Vec<Mark>, Error> {
    let Some(mut connection) = store.look().await? else {
        return Ok(Vec::new());
    };
    let found = if connection.has_table("key_check").await? {
        marks(&mut connection).await?
    } else {
        Vec::new()
    };
    connection.close().await?;
    Ok(found)
}

/// Opens the ring of a store, before anything of the store is made.
///
/// # Errors
///
/// As [`Ring::open`]; [`Error::StoreLost`] when the ring was in use and the
/// store has no mark.
pub(super) async fn open_ring(
    store: &Backend,
    place: &RingPlace,
    clock: &Clock,
) -> Result<Ring, Error> {
    let marks = marks_there(store).await?;
    let ring = Ring::open(place, &marks, clock.clone()).await?;
    if !marks.is_empty() || !ring.is_in_use().await? {
        return Ok(ring);
    }
    ring.close().await;
    // A node that starts at the same time marks the store before the ring.
    let marks = marks_there(store).await?;
    if marks.is_empty() {
        return Err(Error::StoreLost);
    }
    Ring::open(place, &marks, clock.clone()).await
}

/// Holds the marks against keys; false when there are none yet.
///
/// # Errors
///
/// [`Error::WrongKeys`].
pub(super) async fn check(connection: &mut Connection, keys: &Keys) -> Result<bool, Error> {
    let marks = marks(connection).await?;
    if marks.iter().all(|mark| mark.fits(keys)) {
        Ok(!marks.is_empty())
    } else {
        Err(Error::WrongKeys)
    }
}

/// Those of these keys that have a mark.
pub(super) async fn marked(connection: &mut Connection, keys: &[u32]) -> Result<Vec<u32>, Error> {
    let marks = marks(connection).await?;
    let marked: HashSet<i64> = marks.iter().map(|mark| mark.number).collect();
    let mut keys = keys.to_vec();
    keys.retain(|number| marked.contains(&i64::from(*number)));
    Ok(keys)
}

/// Takes the mark of a key away.
pub(super) async fn unmark(connection: &mut Connection, key: u32) -> Result<(), sqlx::Error> {
    let unmark = query(UNMARK).bind(i64::from(key));
    unmark.execute(connection).await.map(drop)
}

/// Leaves a mark of every key that has none, in the order of their numbers, so
/// that nodes that mark together wait for each other in turn.
pub(super) async fn write_marks(
    connection: &mut Connection,
    keys: &Keys,
) -> Result<(), sqlx::Error> {
    let marked = query(NUMBERS).fetch_all(connection).await?;
    let marked: Result<HashSet<i64>, _> = marked.iter().map(|row| row.get("number")).collect();
    let marked = marked?;
    let numbers: BTreeSet<u32> = keys.numbers().into_iter().collect();
    for number in numbers {
        if marked.contains(&i64::from(number)) {
            continue;
        }
        let row = number.to_string();
        let Ok(sealed) = keys.seal_with(number, place(&row), PLAIN) else {
            continue; // destroyed since
        };
        query(MARK)
            .bind(i64::from(number))
            .bind(sealed)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The same, by the writer.
pub(super) struct WriteMarks {
    pub(super) keys: Keys,
}

impl Change for WriteMarks {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        write_marks(connection, &self.keys).await
    }
}

//! Moves everything from a database file to a server, so that a site can grow
//! out of one machine without losing a message.
//!
//! The order makes it safe to be killed at any point:
//!
//! 1. The source is locked for writing (daemons on it answer 503 meanwhile),
//!    the target for everybody, in one transaction each.
//! 2. All rows are copied, and both sides are read back and compared.
//! 3. The source is marked as moved and commits: from here on it takes no
//!    change ([`backend::mark`](super::backend)).
//! 4. The target commits. Only now it holds anything.
//!
//! So at no time do both take messages. A kill before 3 leaves the source in
//! use and the target empty. A kill between 3 and 4 leaves a source that takes
//! nothing and a target that holds everything or nothing; the target knows
//! which by the id of the copy, which it was told before 1. The command, run
//! again, looks there: either everything is done, or the mark is taken away
//! and the copy starts anew.
//!
//! This module knows tables, columns and keys, and not what they mean.

mod moment;
mod outcome;
mod rows;
mod tables;

use std::time::Duration;

use super::backend::{
    Backend, Connection, DatabaseUrl, Moved, Schema, mark, mark_of, query, unmark,
};
use super::error::{Cause, Error};
use super::marks::{self, marks};
use super::ring::{Ring, RingPlace};
use crate::clock::{self, Clock};
use crate::seal::Keys;
use rows::{Walk, count, insert, sum};
use tables::{TABLES, Table, unlisted};

pub(super) use moment::copy_moment;
pub use outcome::{Copied, CopyError, Occupied, Step};

/// How long to wait for daemons that write the source. The target waits as long
/// once its time limits are lifted.
const PATIENCE: Duration = Duration::from_secs(20);

/// Moves everything from the file `from` to the server `to`, which must be
/// empty. `watch` is told of each step.
///
/// # Errors
///
/// [`CopyError`]; only after [`CopyError::Unsettled`] the source is not as it
/// was.
pub async fn copy_store(
    from: &DatabaseUrl,
    to: &DatabaseUrl,
    ring: &RingPlace,
    clock: &Clock,
    watch: &mut (dyn FnMut(Step) + Send),
) -> Result<Copied, CopyError> {
    if from.is_shared() || !to.is_shared() {
        return Err(CopyError::Direction);
    }
    let sides = Sides::of(from, to, ring, clock).await?;
    match sides.end_earlier_run().await? {
        Earlier::Complete => Ok(Copied::Before),
        Earlier::None => sides.copy(watch).await,
    }
}

/// The keys of the source; nothing is changed there.
async fn keys_of(source: &Backend, ring: &RingPlace, clock: &Clock) -> Result<Keys, Error> {
    let mut connection = source.writer().await?;
    if !connection.has_table("key_check").await? {
        return Err(Error::Unavailable(Cause::Schema));
    }
    let marks = marks(&mut connection).await?;
    if marks.is_empty() {
        return Err(Error::Unavailable(Cause::Schema));
    }
    let ring = Ring::open(ring, &marks, clock.clone()).await?;
    let keys = ring.keys().clone();
    ring.close().await;
    Ok(keys)
}

/// What became of an earlier run.
enum Earlier {
    None,
    Complete,
}

struct Sides {
    source: Backend,
    target: Backend,
    /// What the source is marked with when this run succeeds.
    moved: Moved,
    keys: Keys,
}

impl Sides {
    async fn of(
        from: &DatabaseUrl,
        to: &DatabaseUrl,
        ring: &RingPlace,
        clock: &Clock,
    ) -> Result<Self, CopyError> {
        let source = Backend::new(from, PATIENCE, clock.clone());
        let keys = keys_of(&source, ring, clock).await;
        Ok(Self {
            keys: keys.map_err(CopyError::Source)?,
            source,
            target: Backend::new(to, PATIENCE, clock.clone()),
            moved: Moved {
                copy: clock::new_id(),
                to: to.to_string(),
            },
        })
    }

    /// Looks whether an earlier run came to an end. One that did not is undone.
    async fn end_earlier_run(&self) -> Result<Earlier, CopyError> {
        let mut source = self.look_at_source().await.map_err(CopyError::Source)?;
        let earlier = async {
            source.begin().await?;
            mark_of(&mut source).await
        };
        let earlier = earlier.await.map_err(from_source)?;
        let Some(moved) = earlier else {
            source.rollback().await.map_err(from_source)?;
            return Ok(Earlier::None);
        };
        let verdict = self.verdict_of_target(&moved.copy).await;
        match verdict.map_err(CopyError::Unsettled)? {
            Verdict::Holds => Ok(Earlier::Complete),
            Verdict::Lacks => {
                reopen(&mut source).await.map_err(from_source)?;
                Ok(Earlier::None)
            }
            Verdict::Stranger => Err(CopyError::MovedElsewhere { to: moved.to }),
        }
    }

    /// Connects to the source without changing anything, if the keys are its own.
    async fn look_at_source(&self) -> Result<Connection, Error> {
        let mut source = self.source.writer().await?;
        if marks::check(&mut source, &self.keys).await? {
            return Ok(source);
        }
        Err(Error::Unavailable(Cause::Schema))
    }

    /// Waits for the end of whatever the target was doing with a copy, and
    /// looks what came of it.
    async fn verdict_of_target(&self, copy: &str) -> Result<Verdict, Error> {
        let mut target = self.target.writer().await?;
        target.lift_time_limits().await?;
        if !target.has_table("_copy").await? {
            return Ok(Verdict::Stranger);
        }
        target.begin().await?;
        query(LOCK_NOTES).execute(&mut target).await?;
        let note = query(READ_NOTE).bind(copy).fetch_optional(&mut target);
        let verdict = match note.await? {
            None => Verdict::Stranger,
            Some(note) if note.get("complete")? => Verdict::Holds,
            Some(_) => Verdict::Lacks,
        };
        target.rollback().await?;
        Ok(verdict)
    }

    async fn copy(&self, watch: &mut (dyn FnMut(Step) + Send)) -> Result<Copied, CopyError> {
        let mut source = self.lock_source().await?;
        let mut target = self.lock_target().await?;
        let copied = transfer(&mut source, &mut target, watch).await?;
        let note = query(COMPLETE_NOTE).bind(&self.moved.copy);
        note.execute(&mut target).await.map_err(from_target)?;
        watch(Step::Closing);
        let closed = async {
            mark(&mut source, &self.moved, names()).await?;
            source.commit().await
        };
        closed.await.map_err(from_source)?;
        watch(Step::Opening);
        match target.commit().await {
            Ok(()) => Ok(Copied::Now(copied)),
            Err(cause) => {
                drop(target.close_hard().await);
                self.judge(&mut source, cause.into(), copied).await
            }
        }
    }

    /// The target did not confirm: asks it anew, and opens the source again
    /// when it is certain that the target holds nothing.
    async fn judge(
        &self,
        source: &mut Connection,
        cause: Error,
        copied: Vec<(&'static str, u64)>,
    ) -> Result<Copied, CopyError> {
        match self.verdict_of_target(&self.moved.copy).await {
            Ok(Verdict::Holds) => Ok(Copied::Now(copied)),
            Ok(Verdict::Lacks) => {
                let reopened = async {
                    source.begin().await?;
                    // While we slept another run may have come to another end.
                    if mark_of(source).await?.as_ref() == Some(&self.moved) {
                        return reopen(source).await.map(|()| true);
                    }
                    source.rollback().await.map(|()| false)
                };
                match reopened.await {
                    Ok(true) => Err(CopyError::Target(cause)),
                    Ok(false) | Err(_) => Err(CopyError::Unsettled(cause)),
                }
            }
            Ok(Verdict::Stranger) | Err(_) => Err(CopyError::Unsettled(cause)),
        }
    }

    /// Brings the source up to date and keeps everybody from writing it.
    async fn lock_source(&self) -> Result<Connection, CopyError> {
        let mut source = self
            .source
            .prepare(Schema::Messages)
            .await
            .map_err(CopyError::Source)?;
        source.begin().await.map_err(from_source)?;
        // Another run may have been faster.
        if let Some(moved) = mark_of(&mut source).await.map_err(from_source)? {
            return Err(CopyError::Source(Error::Moved { to: moved.to }));
        }
        match unlisted(&mut source).await.map_err(CopyError::Source)? {
            None => Ok(source),
            Some(what) => Err(CopyError::Unlisted { what }),
        }
    }

    /// Makes the schema of the target, tells it of this copy, and keeps
    /// everybody from writing it.
    async fn lock_target(&self) -> Result<Connection, CopyError> {
        let mut target = self
            .target
            .prepare(Schema::Messages)
            .await
            .map_err(CopyError::Target)?;
        // It waits in its transaction while the source is read.
        target.lift_time_limits().await.map_err(from_target)?;
        self.begin_on_empty(&mut target).await?;
        let announced = async {
            query(WRITE_NOTE)
                .bind(&self.moved.copy)
                .bind(target.now_ms())
                .execute(&mut target)
                .await?;
            target.commit().await
        };
        announced.await.map_err(from_target)?;
        self.begin_on_empty(&mut target).await?;
        empty_filled(&mut target).await.map_err(from_target)?;
        Ok(target)
    }

    async fn begin_on_empty(&self, target: &mut Connection) -> Result<(), CopyError> {
        let locked = async {
            target.begin().await?;
            query(MAKE_NOTES).execute(target).await?;
            query(LOCK_NOTES).execute(target).await?;
            lock_tables(target).await
        };
        locked.await.map_err(from_target)?;
        let keys = marks::check(target, &self.keys).await;
        keys.map_err(CopyError::Target)?;
        let occupied = occupied(target).await.map_err(CopyError::Target)?;
        if occupied.is_empty() {
            return Ok(());
        }
        target.rollback().await.map_err(from_target)?;
        Err(CopyError::Occupied(occupied))
    }
}

/// What the target says of a copy.
enum Verdict {
    /// It holds all of it.
    Holds,
    /// It was told of it and holds nothing of it.
    Lacks,
    /// It never heard of it.
    Stranger,
}

/// Notes of the target about copies.
const MAKE_NOTES: &str = "CREATE TABLE IF NOT EXISTS _copy (id TEXT NOT NULL PRIMARY KEY,
    complete BOOLEAN NOT NULL, begun_at BIGINT NOT NULL)";
const LOCK_NOTES: &str = "LOCK TABLE _copy IN EXCLUSIVE MODE";
const WRITE_NOTE: &str = "INSERT INTO _copy (id, complete, begun_at) VALUES ($1, FALSE, $2)";
const COMPLETE_NOTE: &str = "UPDATE _copy SET complete = TRUE WHERE id = $1";
const READ_NOTE: &str = "SELECT complete FROM _copy WHERE id = $1";

fn names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|table| table.name)
}

fn from_source(cause: sqlx::Error) -> CopyError {
    CopyError::Source(cause.into())
}

fn from_target(cause: sqlx::Error) -> CopyError {
    CopyError::Target(cause.into())
}

/// Opens a source again that was marked as moved.
async fn reopen(source: &mut Connection) -> Result<(), sqlx::Error> {
    unmark(source, names()).await?;
    source.commit().await
}

async fn lock_tables(target: &mut Connection) -> Result<(), sqlx::Error> {
    let mut lock = query("LOCK TABLE ");
    for (at, name) in names().enumerate() {
        lock.push(if at == 0 { "" } else { ", " }).push(name);
    }
    lock.push(" IN SHARE ROW EXCLUSIVE MODE");
    lock.execute(target).await.map(drop)
}

async fn occupied(target: &mut Connection) -> Result<Occupied, Error> {
    let mut occupied = Vec::new();
    for table in TABLES.iter().filter(|table| !table.is_filled) {
        let rows = count(target, table).await?;
        if rows > 0 {
            occupied.push((table.name, rows));
        }
    }
    Ok(occupied)
}

/// Empties the tables that have rows in a new store.
async fn empty_filled(target: &mut Connection) -> Result<(), sqlx::Error> {
    for table in TABLES.iter().filter(|table| table.is_filled) {
        query(table.delete).execute(&mut *target).await?;
    }
    Ok(())
}

/// Copies all rows and reads both sides back: rows by table.
async fn transfer(
    source: &mut Connection,
    target: &mut Connection,
    watch: &mut (dyn FnMut(Step) + Send),
) -> Result<Vec<(&'static str, u64)>, CopyError> {
    let mut copied = Vec::new();
    for table in TABLES {
        let rows = copy_table(source, target, table, watch).await?;
        copied.push((table.name, rows));
    }
    for table in TABLES {
        watch(Step::Comparing { table: table.name });
        let ours = sum(source, table).await.map_err(CopyError::Source)?;
        let theirs = sum(target, table).await.map_err(CopyError::Target)?;
        if !ours.is_whole_and_as(&theirs) {
            return Err(CopyError::Differs { table: table.name });
        }
    }
    Ok(copied)
}

async fn copy_table(
    source: &mut Connection,
    target: &mut Connection,
    table: &'static Table,
    watch: &mut (dyn FnMut(Step) + Send),
) -> Result<u64, CopyError> {
    let mut walk = Walk::new(table);
    let mut rows = 0;
    loop {
        let records = walk.next(source).await.map_err(CopyError::Source)?;
        if records.is_empty() {
            return Ok(rows);
        }
        let inserted = insert(target, table, &records).await;
        inserted.map_err(CopyError::Target)?;
        rows += records.len() as u64;
        watch(Step::Copying {
            table: table.name,
            rows,
        });
    }
}

#[cfg(test)]
mod tests;

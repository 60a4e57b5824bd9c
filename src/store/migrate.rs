//! Prepares a database without opening it as a store: brings its schema up to
//! date, for which no key is needed and no row is written; or makes it the new
//! store of a ring that was in use.

use super::BUSY;
use super::backend::{Backend, DatabaseUrl, Schema};
use super::error::Error;
use super::marks::{marks, write_marks};
use super::ring::{Ring, RingPlace};
use crate::clock::Clock;

/// From which version to which; equal when nothing was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Number of the newest migration that was there; 0 for a new database.
    pub from: i64,
    /// Number of the newest migration that is there now.
    pub to: i64,
}

/// Makes the database if there is none and this can be done, and brings its
/// schema up to date. Safe beside running daemons and beside others that do
/// the same: who comes second finds it done.
///
/// # Errors
///
/// [`Error::Unavailable`], also for a schema of a newer version, or
/// [`Error::Moved`].
pub async fn migrate(url: &DatabaseUrl, clock: Clock) -> Result<Migrated, Error> {
    let backend = Backend::new(url, BUSY, clock);
    let from = backend.version().await?;
    backend.prepare(Schema::Messages).await?.close().await?;
    let to = backend.version().await?;
    Ok(Migrated { from, to })
}

/// Makes a new store beside a key ring that was in use with another one, which
/// [`Store::open`](super::Store::open) refuses. True when it was new; one that
/// was in use already stays as it is.
///
/// # Errors
///
/// As [`Store::open`](super::Store::open), but for [`Error::StoreLost`].
pub async fn begin_anew(url: &DatabaseUrl, ring: &RingPlace, clock: Clock) -> Result<bool, Error> {
    let backend = Backend::new(url, BUSY, clock.clone());
    let mut connection = backend.prepare(Schema::Messages).await?;
    let marks = marks(&mut connection).await?;
    let ring = Ring::open(ring, &marks, clock).await?;
    write_marks(&mut connection, ring.keys()).await?;
    ring.note_use().await?;
    ring.close().await;
    connection.close().await?;
    Ok(marks.is_empty())
}

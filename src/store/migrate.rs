//! Brings the schema of a database up to date without opening it as a store:
//! no key is needed and no row is written.

use super::BUSY;
use super::backend::{Backend, DatabaseUrl, Schema};
use super::error::Error;
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

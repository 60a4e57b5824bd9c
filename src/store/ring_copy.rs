//! Copies the key ring to another database, so that several nodes can share
//! it. The keys stay wrapped by the same master key.

use std::fmt;

use super::backend::{Backend, Connection, DatabaseUrl, Schema, query};
use super::error::Error;
use super::ring::{RingRow, in_use_since, load, rows};
use super::ring_change::{NoteUse, raise};
use super::sql::ms;
use super::writer::Change as _;
use super::{BUSY, Store};
use crate::domain::TenantId;

const INSERT: &str = "INSERT INTO ring_key (number, purpose, tenant, generation, wrapped,
    created_at, replaced_at, destroyed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// Why the ring was not copied; then nothing was written.
#[derive(Debug)]
pub enum RingCopyError {
    /// The target holds other keys.
    Occupied,
    /// A node changed the ring meanwhile: stop the nodes and copy again.
    Changed,
    /// A database failed.
    Store(Error),
}

impl fmt::Display for RingCopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied => f.write_str("the target holds other keys already"),
            Self::Changed => f.write_str("a node changed the key ring meanwhile: stop the nodes"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for RingCopyError {}

impl From<Error> for RingCopyError {
    fn from(cause: Error) -> Self {
        Self::Store(cause)
    }
}

impl From<sqlx::Error> for RingCopyError {
    fn from(cause: sqlx::Error) -> Self {
        Self::Store(cause.into())
    }
}

impl Store {
    /// Copies every key of the ring to `to`, which has to be empty or to hold
    /// the same keys already, and gives their number. `keys.ring` has to name
    /// the copy before a node makes another key.
    ///
    /// # Errors
    ///
    /// [`RingCopyError`].
    pub async fn copy_ring(&self, to: &DatabaseUrl) -> Result<usize, RingCopyError> {
        let (version, keys) = load(self.ring().pool()).await?;
        let target = Backend::new(to, BUSY, self.clock().clone());
        let mut target = target.prepare(Schema::Ring).await?;
        target.begin().await?;
        raise(&mut target).await?;
        let there = rows(&mut target).await?;
        if there == keys {
            target.rollback().await?;
            return Ok(keys.len());
        }
        if !there.is_empty() {
            target.rollback().await?;
            return Err(RingCopyError::Occupied);
        }
        let since = in_use_since(&mut self.ring().pool().acquire().await?).await?;
        fill(&mut target, &keys, since).await?;
        let (now, _) = load(self.ring().pool()).await?;
        if now != version {
            target.rollback().await?;
            return Err(RingCopyError::Changed);
        }
        target.commit().await?;
        target.close().await?;
        Ok(keys.len())
    }
}

/// Copies every key that a ring on a server holds at one moment into `target`,
/// a new ring, while its nodes go on.
///
/// # Errors
///
/// [`Error`]; then `target` is worth nothing.
pub(super) async fn copy_ring_moment(
    server: &Backend,
    target: &mut Connection,
) -> Result<(), Error> {
    let mut source = server.writer().await?;
    // One statement sees one moment.
    let keys = rows(&mut source).await?;
    let since = in_use_since(&mut source).await?;
    source.close().await?;
    target.begin().await?;
    raise(target).await?;
    fill(target, &keys, since).await?;
    Ok(target.commit().await?)
}

/// Writes the keys, and since when their ring is in use.
async fn fill(
    target: &mut Connection,
    keys: &[RingRow],
    since: Option<i64>,
) -> Result<(), sqlx::Error> {
    for key in keys {
        insert(target, key).await?;
    }
    match since {
        Some(since) => NoteUse { since }.run(target).await,
        None => Ok(()),
    }
}

async fn insert(target: &mut Connection, key: &RingRow) -> Result<(), sqlx::Error> {
    let (record, about) = (&key.record, &key.about);
    let tenant = about.tenant.as_ref().map_or("", TenantId::as_str);
    query(INSERT)
        .bind(i64::from(about.number))
        .bind(about.purpose.as_str())
        .bind(tenant)
        .bind(i64::from(about.generation))
        .bind(record.wrapped.clone())
        .bind(ms(about.created_at))
        .bind(about.replaced_at.map(ms))
        .bind(about.destroyed_at.map(ms))
        .execute(target)
        .await
        .map(drop)
}

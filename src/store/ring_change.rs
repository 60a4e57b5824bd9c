//! What happens to a key ring: keys are made, replaced, wrapped anew and
//! destroyed. Each change begins with [`raise`], which makes it wait for the
//! ones before it.

use super::backend::{Connection, Query, query};
use super::error::Error;
use super::ring::{RingKey, RingRow, fetch, read_all, records};
use super::writer::Change;
use crate::domain::TenantId;
use crate::seal::{self, KeyRecord, Masters, Purpose, WrongMaster};

const RAISE: &str = "UPDATE ring SET version = version + 1 WHERE id = 1";
const INSERT: &str = "INSERT INTO ring_key (number, purpose, tenant, generation, wrapped,
    created_at, replaced_at, destroyed_at) VALUES ($1, $2, $3, $4, $5, $6, NULL, NULL)";
const REPLACE: &str = "UPDATE ring_key SET replaced_at = $1
    WHERE purpose = $2 AND tenant = $3 AND replaced_at IS NULL";
const WRAP: &str = "UPDATE ring_key SET wrapped = $1 WHERE number = $2 AND wrapped IS NOT NULL";
const DESTROY: &str = "UPDATE ring_key SET wrapped = NULL, destroyed_at = $1,
    replaced_at = COALESCE(replaced_at, $1)
    WHERE purpose = 'data' AND tenant = $2 AND wrapped IS NOT NULL";
const DESTROY_REPLACED: &str = "UPDATE ring_key SET wrapped = NULL, destroyed_at = $1
    WHERE purpose = 'data' AND tenant = $2 AND wrapped IS NOT NULL AND replaced_at IS NOT NULL
    AND number = $3";

const NOTE_USE: &str = "UPDATE ring SET in_use_since = $1 WHERE id = 1 AND in_use_since IS NULL";

/// Raises the version, and so waits for whoever changes the ring now.
pub(super) async fn raise(connection: &mut Connection) -> Result<(), sqlx::Error> {
    query(RAISE).execute(connection).await.map(drop)
}

/// A row that cannot be read undoes the change.
async fn current(connection: &mut Connection) -> Result<Vec<RingRow>, sqlx::Error> {
    let rows = fetch(connection).await?;
    read_all(&rows).map_err(|cause| sqlx::Error::Decode(cause.into()))
}

async fn insert(
    connection: &mut Connection,
    record: &KeyRecord,
    generation: u32,
    now: i64,
) -> Result<(), sqlx::Error> {
    query(INSERT)
        .bind(i64::from(record.number))
        .bind(record.purpose.as_str())
        .bind(
            record
                .tenant
                .as_ref()
                .map_or("", TenantId::as_str)
                .to_owned(),
        )
        .bind(i64::from(generation))
        .bind(record.wrapped.clone())
        .bind(now)
        .execute(connection)
        .await
        .map(drop)
}

/// Every key, and the time by the clock of the ring, in unix milliseconds.
pub(super) struct Look;

impl Change for Look {
    type Output = (Vec<RingKey>, i64);

    async fn run(&self, connection: &mut Connection) -> Result<Self::Output, sqlx::Error> {
        let rows = current(connection).await?.into_iter();
        let keys = rows.map(|row| row.about).collect();
        Ok((keys, connection.now_ms()))
    }
}

/// The first keys of an empty ring. Of several nodes that start at once one
/// plants.
pub(super) struct Plant {
    pub(super) records: Vec<KeyRecord>,
    pub(super) now: i64,
}

impl Change for Plant {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        raise(connection).await?;
        if !current(connection).await?.is_empty() {
            return Ok(());
        }
        for record in &self.records {
            insert(connection, record, 1, self.now).await?;
        }
        Ok(())
    }
}

/// That a store is in use with the ring. No key changes, so neither does the
/// version.
pub(super) struct NoteUse {
    /// Unix milliseconds.
    pub(super) since: i64,
}

impl Change for NoteUse {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let note = query(NOTE_USE).bind(self.since);
        note.execute(connection).await.map(drop)
    }
}

/// A key for each of these tenants that has none.
pub(super) struct MakeKeys {
    pub(super) tenants: Vec<TenantId>,
    pub(super) masters: Masters,
    pub(super) now: i64,
}

impl Change for MakeKeys {
    type Output = Result<(), Error>;

    async fn run(&self, connection: &mut Connection) -> Result<Self::Output, sqlx::Error> {
        raise(connection).await?;
        let mut rows = current(connection).await?;
        for tenant in &self.tenants {
            let is_theirs =
                |row: &RingRow| row.record.current && row.record.tenant.as_ref() == Some(tenant);
            if rows.iter().any(is_theirs) {
                continue;
            }
            let made = next(&self.masters, &rows, Purpose::Data, Some(tenant));
            let Ok((record, generation)) = made else {
                return Ok(Err(Error::WrongKeys));
            };
            insert(connection, &record, generation, self.now).await?;
            rows = current(connection).await?;
        }
        Ok(Ok(()))
    }
}

/// The next key of a purpose and tenant, and its generation; wrapped by the
/// master that wraps the others.
fn next(
    masters: &Masters,
    rows: &[RingRow],
    purpose: Purpose,
    tenant: Option<&TenantId>,
) -> Result<(KeyRecord, u32), WrongMaster> {
    let records = records(rows);
    let master = masters.of_ring(&records).ok_or(WrongMaster)?;
    let number = records.iter().map(|record| record.number).max();
    let number = number.unwrap_or(0) + 1;
    let same = rows
        .iter()
        .filter(|row| row.about.purpose == purpose && row.about.tenant.as_ref() == tenant);
    let generation = same.map(|row| row.about.generation).max().unwrap_or(0) + 1;
    let record = KeyRecord {
        number,
        purpose,
        tenant: tenant.cloned(),
        current: true,
        wrapped: Some(seal::new_key(master, number, purpose, tenant)),
    };
    Ok((record, generation))
}

/// Which keys are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The data key of the installation.
    Installation,
    /// The data key of a tenant.
    Tenant(TenantId),
    /// The data keys of the installation and of every tenant.
    All,
    /// The key that signs receipts.
    Receipts,
}

/// Puts a new key in the place of each that is meant; gives their numbers. When
/// is told by the clock of the ring: how old a replaced key is, decides whether
/// it may go.
pub(super) struct Rotate {
    pub(super) which: Rotation,
    pub(super) masters: Masters,
}

impl Rotate {
    fn means(&self, record: &KeyRecord) -> bool {
        if !record.current {
            return false;
        }
        match (&self.which, record.purpose) {
            (Rotation::Installation, Purpose::Data) => record.tenant.is_none(),
            (Rotation::Tenant(tenant), Purpose::Data) => record.tenant.as_ref() == Some(tenant),
            (Rotation::All, Purpose::Data) | (Rotation::Receipts, Purpose::Receipts) => true,
            _ => false,
        }
    }
}

impl Change for Rotate {
    type Output = Result<Vec<u32>, Error>;

    async fn run(&self, connection: &mut Connection) -> Result<Self::Output, sqlx::Error> {
        raise(connection).await?;
        let now = connection.now_ms();
        let mut rows = current(connection).await?;
        let old: Vec<KeyRecord> = records(&rows)
            .into_iter()
            .filter(|record| self.means(record))
            .collect();
        let mut made = Vec::with_capacity(old.len());
        for KeyRecord {
            purpose, tenant, ..
        } in old
        {
            let next = next(&self.masters, &rows, purpose, tenant.as_ref());
            let Ok((record, generation)) = next else {
                return Ok(Err(Error::WrongKeys));
            };
            query(REPLACE)
                .bind(now)
                .bind(purpose.as_str())
                .bind(tenant.as_ref().map_or("", TenantId::as_str).to_owned())
                .execute(&mut *connection)
                .await?;
            insert(connection, &record, generation, now).await?;
            made.push(record.number);
            rows = current(connection).await?;
        }
        Ok(Ok(made))
    }
}

/// Wraps every key with the current master; gives their number.
pub(super) struct Rewrap {
    pub(super) masters: Masters,
}

impl Change for Rewrap {
    type Output = Result<usize, Error>;

    async fn run(&self, connection: &mut Connection) -> Result<Self::Output, sqlx::Error> {
        raise(connection).await?;
        let rows = current(connection).await?;
        let Ok(wrapped) = self.masters.rewrap(&records(&rows)) else {
            return Ok(Err(Error::WrongKeys));
        };
        for (number, wrapped) in &wrapped {
            query(WRAP)
                .bind(wrapped.clone())
                .bind(i64::from(*number))
                .execute(&mut *connection)
                .await?;
        }
        Ok(Ok(wrapped.len()))
    }
}

/// Which keys of a tenant go.
pub(super) enum Going {
    /// All, the one in use too.
    All,
    /// Those of these that were replaced, and no others: one that is replaced
    /// meanwhile stays.
    Replaced(Vec<u32>),
}

/// Erases keys of a tenant; their rows stay, so that their numbers are never
/// used again. Gives how many.
pub(super) struct Destroy {
    pub(super) tenant: TenantId,
    pub(super) going: Going,
    pub(super) now: i64,
}

impl Destroy {
    fn statement(&self, text: &'static str) -> Query {
        query(text)
            .bind(self.now)
            .bind(self.tenant.as_str().to_owned())
    }
}

impl Change for Destroy {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        raise(connection).await?;
        let numbers = match &self.going {
            Going::All => return self.statement(DESTROY).execute(connection).await,
            Going::Replaced(numbers) => numbers,
        };
        let mut erased = 0;
        for number in numbers {
            let destroy = self.statement(DESTROY_REPLACED).bind(i64::from(*number));
            erased += destroy.execute(&mut *connection).await?;
        }
        Ok(erased)
    }
}

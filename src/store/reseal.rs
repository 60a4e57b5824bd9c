//! Seals anew what replaced keys sealed, so that they can be destroyed and
//! nothing is lost.
//!
//! Receipt and hand-over go on meanwhile: values are read and sealed outside of
//! any transaction, and a small step of them is exchanged at a time, each only
//! if the row still holds what was read. So a row that changed in between keeps
//! what it got, whoever wrote it, and a run that was cut short is simply begun
//! again. It is over when a whole pass found nothing to do.

use std::collections::{HashMap, HashSet};

use super::Store;
use super::backend::{Connection, Row, Value, query};
use super::error::Error;
use super::ring_change::Rotation;
use super::sealed::{DETAILS, IdKind, LEDGER, PARKED, PAYLOADS, REJECTIONS, SealedColumn};
use super::sql::{self, Columnar as _};
use super::writer::Change;
use crate::domain::TenantId;
use crate::seal::{Place, Purpose, Scope, number_of};

/// Rows that one look reads, and one transaction changes at most.
const STEP: i64 = 200;
/// Bytes of values that one transaction exchanges; a single larger one goes
/// alone.
const STEP_BYTES: i64 = 1024 * 1024;
/// Passes before it gives up on nodes that go on sealing with older keys.
const PASSES: usize = 10;

/// What was sealed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Receipts.
    pub receipts: u64,
    /// Codes and reasons of rejections.
    pub rejections: u64,
    /// Messages to receivers.
    pub payloads: u64,
    /// Parked parts.
    pub parked: u64,
    /// Entries of the ledger.
    pub entries: u64,
    /// Values that were left as they are, because they do not open.
    pub unopened: u64,
}

impl Resealed {
    /// Every column of sealed values with its count.
    pub(super) fn columns(&mut self) -> [(&'static SealedColumn, &mut u64); 5] {
        [
            (&DETAILS, &mut self.receipts),
            (&REJECTIONS, &mut self.rejections),
            (&PAYLOADS, &mut self.payloads),
            (&PARKED, &mut self.parked),
            (&LEDGER, &mut self.entries),
        ]
    }
}

/// What one pass, or one step of it, came to.
#[derive(Clone, Copy, Default)]
struct Pass {
    exchanged: u64,
    /// Rows that changed or went in between.
    moved: u64,
    unopened: u64,
}

impl Store {
    /// Seals with the key in use what older keys of the same owner sealed; of
    /// the installation or tenants that `which` means, and nothing of
    /// [`Rotation::Receipts`]. Nodes should have followed the rotation.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]: what was done stays done, so
    /// begin again. [`Error::Conflict`] when a node goes on sealing with older
    /// keys.
    pub async fn reseal(&self, which: &Rotation) -> Result<Resealed, Error> {
        let mut total = Resealed::default();
        for _ in 0..PASSES {
            self.follow_ring().await?;
            let owners = Owners::of(self, which).await?;
            let (mut is_over, mut unopened) = (true, 0);
            for (column, count) in total.columns() {
                let pass = self.reseal_column(column, &owners).await?;
                *count += pass.exchanged;
                is_over &= pass.exchanged == 0 && pass.moved == 0;
                unopened += pass.unopened;
            }
            total.unopened = unopened;
            if is_over {
                return Ok(total);
            }
        }
        Err(Error::Conflict)
    }

    async fn reseal_column(
        &self,
        column: &'static SealedColumn,
        owners: &Owners,
    ) -> Result<Pass, Error> {
        let mut pass = Pass::default();
        let mut after = column.first();
        loop {
            let page = query(column.page).bind(after.value()).bind(STEP);
            let rows = page.fetch_all(&mut self.reader().await?).await?;
            let Some(last) = rows.last() else {
                return Ok(pass);
            };
            after = column.id_of(last)?;
            for step in column.steps(&rows, owners)? {
                let done = self.reseal_step(column, step).await?;
                pass.exchanged += done.exchanged;
                pass.moved += done.moved;
                pass.unopened += done.unopened;
            }
        }
    }

    async fn reseal_step(
        &self,
        column: &'static SealedColumn,
        step: Vec<(RowId, Owner)>,
    ) -> Result<Pass, Error> {
        let ids: Vec<Value> = step.iter().map(|(id, _)| id.value()).collect();
        let read = sql::select_in(&mut self.reader().await?, column.read, &ids, "").await?;
        let mut moved = step.len().saturating_sub(read.len()) as u64;
        let owners: HashMap<RowId, Owner> = step.into_iter().collect();
        let (mut exchanges, mut unopened) = (Vec::with_capacity(read.len()), 0);
        for row in read {
            let id = column.id_of(&row)?;
            let old: Vec<u8> = row.value("sealed")?;
            let place = Place {
                table: column.table,
                row: id.as_bytes(),
                column: column.column,
            };
            let Ok(plain) = self.keys().open(place, &old) else {
                unopened += 1;
                continue;
            };
            let owner = owners.get(&id).and_then(Option::as_ref);
            let new = self.keys().seal(Scope::from(owner), place, &plain)?;
            exchanges.push(Exchange { id, old, new });
        }
        let all = exchanges.len() as u64;
        let exchanged = match all {
            0 => 0,
            _ => {
                self.writer()
                    .write(ExchangeAll { column, exchanges })
                    .await?
            }
        };
        moved += all.saturating_sub(exchanged);
        Ok(Pass {
            exchanged,
            moved,
            unopened,
        })
    }
}

/// Whose a value is; none for the installation.
type Owner = Option<TenantId>;

/// Which key seals for whom, and whose a key is.
struct Owners {
    which: Rotation,
    of_key: HashMap<u32, Owner>,
    in_use: HashMap<Owner, u32>,
}

impl Owners {
    async fn of(store: &Store, which: &Rotation) -> Result<Self, Error> {
        let mut owners = Self {
            which: which.clone(),
            of_key: HashMap::new(),
            in_use: HashMap::new(),
        };
        for key in store.ring_keys().await? {
            // What a destroyed key sealed opens for nobody.
            if key.purpose != Purpose::Data || key.destroyed_at.is_some() {
                continue;
            }
            if key.replaced_at.is_none() {
                owners.in_use.insert(key.tenant.clone(), key.number);
            }
            owners.of_key.insert(key.number, key.tenant);
        }
        Ok(owners)
    }

    /// Whose a value is that was sealed with another key than the one in use;
    /// none when nothing is to be done. A row that tells its tenant is that
    /// tenant's, also when an older version sealed it with a key of the
    /// installation.
    fn to_reseal(&self, header: &[u8], tenant: Option<&str>) -> Option<Owner> {
        let number = number_of(header)?;
        let of_key = self.of_key.get(&number)?;
        let of_row = tenant.and_then(|tenant| TenantId::parse(tenant).ok());
        let owner = match of_row {
            Some(tenant) if self.in_use.contains_key(&Some(tenant.clone())) => Some(tenant),
            _ => of_key.clone(),
        };
        let in_use = self.in_use.get(&owner)?;
        (self.means(&owner) && *in_use != number).then_some(owner)
    }

    fn means(&self, owner: &Owner) -> bool {
        match &self.which {
            Rotation::Installation => owner.is_none(),
            Rotation::Tenant(tenant) => owner.as_ref() == Some(tenant),
            Rotation::All => true,
            Rotation::Receipts => false,
        }
    }
}

/// The primary key of a row.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum RowId {
    Text(String),
    Bytes(Vec<u8>),
}

impl RowId {
    fn value(&self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => bytes.into(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl SealedColumn {
    /// What every id is behind.
    fn first(&self) -> RowId {
        match self.id {
            IdKind::Text => RowId::Text(String::new()),
            IdKind::Bytes => RowId::Bytes(Vec::new()),
        }
    }

    fn id_of(&self, row: &Row) -> Result<RowId, sqlx::Error> {
        Ok(match self.id {
            IdKind::Text => RowId::Text(row.get("id")?),
            IdKind::Bytes => RowId::Bytes(row.get("id")?),
        })
    }

    /// Those of these rows that are to be sealed anew, in steps.
    fn steps(&self, rows: &[Row], owners: &Owners) -> Result<Vec<Vec<(RowId, Owner)>>, Error> {
        let mut steps = Vec::new();
        let (mut step, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let Some(owner) = owners.to_reseal(row.value("header")?, row.value("tenant")?) else {
                continue;
            };
            bytes += row.value::<i64>("weight")?;
            if bytes > STEP_BYTES && !step.is_empty() {
                bytes = row.value("weight")?;
                steps.push(std::mem::take(&mut step));
            }
            step.push((self.id_of(row)?, owner));
        }
        if !step.is_empty() {
            steps.push(step);
        }
        Ok(steps)
    }
}

/// One value, sealed anew.
pub(super) struct Exchange {
    pub(super) id: RowId,
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
}

/// Puts a step of values in the place of the old ones, where these still are,
/// and says in how many rows.
pub(super) struct ExchangeAll {
    pub(super) column: &'static SealedColumn,
    pub(super) exchanges: Vec<Exchange>,
}

impl ExchangeAll {
    /// Locks those rows that no other node is about to change: it must not wait
    /// for one and hold the others meanwhile. None where there is one writer.
    async fn free(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<HashSet<RowId>>, sqlx::Error> {
        if !connection.is_shared() {
            return Ok(None);
        }
        let ids: Vec<Value> = self.exchanges.iter().map(|one| one.id.value()).collect();
        let lock = connection.free_row_lock();
        let rows = sql::select_in(connection, self.column.ids, &ids, lock).await?;
        let free: Result<_, _> = rows.iter().map(|row| self.column.id_of(row)).collect();
        free.map(Some)
    }
}

impl Change for ExchangeAll {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let free = self.free(connection).await?;
        let mut exchanged = 0;
        for Exchange { id, old, new } in &self.exchanges {
            if free.as_ref().is_some_and(|free| !free.contains(id)) {
                continue;
            }
            exchanged += query(self.column.exchange)
                .bind(new)
                .bind(id.value())
                .bind(old)
                .execute(&mut *connection)
                .await?;
        }
        Ok(exchanged)
    }
}

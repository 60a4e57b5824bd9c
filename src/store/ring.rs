//! The key ring: a database of its own, apart from the messages.
//!
//! It is small, changes seldom and is read into memory; nodes that share it
//! follow its version. Every change raises the version first, so that changes
//! of several nodes go one after another: what a change reads inside its
//! transaction is the whole truth.
//!
//! The ring in memory is [`Keys`]; what keys do is not this module's concern.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::BUSY;
use super::backend::{Backend, Connection, DatabaseUrl, Pool, Row, Schema, query};
use super::bells::Bells;
use super::error::Error;
use super::marks::Mark;
use super::ring_change::{MakeKeys, NoteUse, Plant};
use super::sql::{Columnar as _, ms};
use super::writer::{Change, Writer};
use crate::clock::Clock;
use crate::domain::TenantId;
use crate::seal::{
    KeyRecord, Keys, Masters, Place, Purpose, RingError, Scope, SealError, Seed, number_of,
};

/// Where the key ring is, and what opens it.
#[derive(Clone, Debug)]
pub struct RingPlace {
    /// Its database: never the one that holds the messages.
    pub url: DatabaseUrl,
    /// The master key that wraps it.
    pub masters: Masters,
}

/// One key of the ring, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingKey {
    /// Its number.
    pub number: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// Whose values it seals; none for the installation.
    pub tenant: Option<TenantId>,
    /// The how manieth of its purpose and tenant, from 1.
    pub generation: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When another one took over; none for the one in use.
    pub replaced_at: Option<Timestamp>,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
}

/// A row of the ring.
#[derive(PartialEq, Eq)]
pub(super) struct RingRow {
    pub(super) record: KeyRecord,
    pub(super) about: RingKey,
}

const VERSION: &str = "SELECT version FROM ring WHERE id = 1";
const KEYS: &str = "SELECT number, purpose, tenant, generation, wrapped, created_at, replaced_at,
    destroyed_at FROM ring_key ORDER BY number";

const IN_USE: &str = "SELECT in_use_since FROM ring WHERE id = 1";

/// Since when the ring is in use with a store, in unix milliseconds; none
/// before the first.
pub(super) async fn in_use_since(connection: &mut Connection) -> Result<Option<i64>, Error> {
    query(IN_USE)
        .fetch_one(connection)
        .await?
        .value("in_use_since")
}

/// Every key, oldest first.
pub(super) async fn rows(connection: &mut Connection) -> Result<Vec<RingRow>, Error> {
    read_all(&fetch(connection).await?)
}

/// Every row of a key, oldest first, as the database gives it.
pub(super) async fn fetch(connection: &mut Connection) -> Result<Vec<Row>, sqlx::Error> {
    query(KEYS).fetch_all(connection).await
}

/// The keys of these rows.
///
/// # Errors
///
/// [`Error::Damaged`].
pub(super) fn read_all(rows: &[Row]) -> Result<Vec<RingRow>, Error> {
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<RingRow, Error> {
    let number = |column| -> Result<u32, Error> {
        u32::try_from(row.value::<i64>(column)?).map_err(|_| Error::Damaged { what: "key ring" })
    };
    let tenant = row.word("tenant", |text| match text {
        "" => Some(None),
        text => TenantId::parse(text).ok().map(Some),
    })?;
    let purpose = row.word("purpose", |text| text.parse().ok())?;
    let replaced_at = row.moment_or_none("replaced_at")?;
    let wrapped: Option<Vec<u8>> = row.value("wrapped")?;
    Ok(RingRow {
        record: KeyRecord {
            number: number("number")?,
            purpose,
            tenant: tenant.clone(),
            current: replaced_at.is_none(),
            wrapped,
        },
        about: RingKey {
            number: number("number")?,
            purpose,
            tenant,
            generation: number("generation")?,
            created_at: row.moment("created_at")?,
            replaced_at,
            destroyed_at: row.moment_or_none("destroyed_at")?,
        },
    })
}

/// The records alone.
pub(super) fn records(rows: &[RingRow]) -> Vec<KeyRecord> {
    rows.iter().map(|row| row.record.clone()).collect()
}

/// The open ring.
pub(super) struct Ring {
    read: Pool,
    writer: Writer,
    backend: Backend,
    masters: Masters,
    keys: Keys,
    clock: Clock,
    /// The version that `keys` follows.
    version: Mutex<i64>,
    /// True while keys may lack their mark beside the messages.
    unmarked: AtomicBool,
    /// Destroyed keys of which a value was met.
    met: std::sync::Mutex<BTreeSet<u32>>,
}

impl Ring {
    /// Opens the ring, and fills an empty one: with the keys of before, when
    /// `marks` show that there were any, else with random ones.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKeys`] when the master does not open it, or when it does
    /// not open what is there.
    pub(super) async fn open(
        place: &RingPlace,
        marks: &[Mark],
        clock: Clock,
    ) -> Result<Self, Error> {
        let backend = Backend::new(&place.url, BUSY, clock.clone());
        let mut connection = backend.prepare(Schema::Ring).await?;
        let is_empty = rows(&mut connection).await?.is_empty();
        let writer = Writer::start(
            backend.clone(),
            connection,
            Arc::new(Bells::default()),
            Arc::from("ring"),
        );
        if is_empty {
            let master = &place.masters.previous;
            let master = master.as_ref().unwrap_or(&place.masters.current);
            let seed = if marks.is_empty() {
                Seed::random()
            } else {
                Seed::derived(master)
            };
            let records = seed.wrap(master);
            open_marked(&place.masters, &records, marks)?;
            let now = ms(clock.now());
            writer.write(Plant { records, now }).await?;
        }
        let read = backend.readers();
        let (version, stored) = load(&read).await?;
        let keys = open_marked(&place.masters, &records(&stored), marks)?;
        Ok(Self {
            read,
            writer,
            backend,
            masters: place.masters.clone(),
            keys,
            clock,
            version: Mutex::new(version),
            unmarked: AtomicBool::new(false),
            met: std::sync::Mutex::default(),
        })
    }

    /// The keys, which follow the ring.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn masters(&self) -> Masters {
        self.masters.clone()
    }

    pub(super) fn now(&self) -> i64 {
        ms(self.clock.now())
    }

    /// True when a store was in use with this ring.
    pub(super) async fn is_in_use(&self) -> Result<bool, Error> {
        let since = in_use_since(&mut self.read.acquire().await?).await?;
        Ok(since.is_some())
    }

    /// Notes that a store is in use with this ring; it has to have its marks,
    /// or it is taken for a new one.
    pub(super) async fn note_use(&self) -> Result<(), Error> {
        if self.is_in_use().await? {
            return Ok(());
        }
        self.writer.write(NoteUse { since: self.now() }).await
    }

    /// Every key of the ring, without the keys.
    pub(super) async fn list(&self) -> Result<Vec<RingKey>, Error> {
        let (_, rows) = load(&self.read).await?;
        Ok(rows.into_iter().map(|row| row.about).collect())
    }

    #[cfg(test)]
    pub(super) async fn records(&self) -> Result<Vec<KeyRecord>, Error> {
        let (_, rows) = load(&self.read).await?;
        Ok(records(&rows))
    }

    /// Looks whether the ring changed, and follows it. True when it did.
    pub(super) async fn follow(&self) -> Result<bool, Error> {
        let mut followed = self.version.lock().await;
        let mut connection = self.read.acquire().await?;
        let row = query(VERSION).fetch_one(&mut connection).await?;
        if row.value::<i64>("version")? == *followed {
            return Ok(false);
        }
        drop(connection);
        let (version, rows) = load(&self.read).await?;
        self.keys.follow(&self.masters, &records(&rows));
        self.unmarked.store(true, Ordering::Relaxed);
        *followed = version;
        Ok(true)
    }

    /// Makes a change, and follows it here at once.
    pub(super) async fn change<C: Change>(&self, change: C) -> Result<C::Output, Error> {
        let output = self.writer.write(change).await?;
        self.follow().await?;
        Ok(output)
    }

    /// Makes a key for every tenant that has none, and says whether there was
    /// one; mostly not.
    pub(super) async fn provide<'t>(
        &self,
        tenants: impl IntoIterator<Item = &'t TenantId>,
    ) -> Result<bool, Error> {
        let lacking: BTreeSet<TenantId> = tenants
            .into_iter()
            .filter(|tenant| !self.keys.has_key_for(Scope::Tenant(tenant)))
            .cloned()
            .collect();
        if lacking.is_empty() {
            return Ok(false);
        }
        let change = MakeKeys {
            tenants: lacking.iter().cloned().collect(),
            masters: self.masters.clone(),
            now: self.now(),
        };
        self.change(change).await??;
        let provided = |tenant| self.keys.has_key_for(Scope::Tenant(tenant));
        // The ring may have got a master that is not known here.
        let all = lacking.iter().all(provided);
        all.then_some(true).ok_or(Error::WrongKeys)
    }

    /// True when keys may lack their mark. Whoever asks marks them, or says
    /// [`Self::marks_failed`].
    pub(super) fn take_unmarked(&self) -> bool {
        self.unmarked.swap(false, Ordering::Relaxed)
    }

    /// The keys still lack their marks.
    pub(super) fn marks_failed(&self) {
        self.unmarked.store(true, Ordering::Relaxed);
    }

    /// The destroyed keys of which a value was met since the last call: one
    /// that a node wrote which had not heard of the end of the key.
    pub(super) fn take_met(&self) -> BTreeSet<u32> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut met)
    }

    /// These are still to be removed.
    pub(super) fn put_met(&self, numbers: BTreeSet<u32>) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.extend(numbers);
    }

    /// Opens a value; one of a key that is not known here looks at the ring
    /// once more. A value of a destroyed key is noted, see [`Self::take_met`].
    ///
    /// # Errors
    ///
    /// [`Unopened`].
    pub(super) async fn unseal(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let mut opened = self.keys.open(place, sealed);
        if let Err(SealError::KeyUnknown { .. }) = opened {
            self.follow().await.map_err(Unopened::Store)?;
            opened = self.keys.open(place, sealed);
        }
        if let (Err(SealError::Destroyed), Some(number)) = (&opened, number_of(sealed)) {
            self.put_met(BTreeSet::from([number]));
        }
        opened.map_err(Unopened::Sealed)
    }

    /// Removes what the files still hold of destroyed keys.
    pub(super) async fn scrub(&self) -> Result<(), Error> {
        Ok(self.backend.scrub_ring().await?)
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.read
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// As [`Writer::ended`].
    pub(super) async fn ended(&self) {
        self.writer.ended().await;
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.writer.close().await;
    }
}

/// Why a value of a row did not open.
#[derive(Debug)]
pub(super) enum Unopened {
    /// The value or its key.
    Sealed(SealError),
    /// The ring cannot be looked at.
    Store(Error),
}

impl Unopened {
    /// True when the key was destroyed on purpose.
    pub(super) fn is_destroyed(&self) -> bool {
        matches!(self, Self::Sealed(SealError::Destroyed))
    }

    /// The error of a value that has to open.
    pub(super) fn damaged(self, what: &'static str) -> Error {
        match self {
            Self::Sealed(_) => Error::Damaged { what },
            Self::Store(cause) => cause,
        }
    }
}

/// One moment of the ring: its version and its rows. The version is read
/// first: rows that are newer than it are read again at the next look.
pub(super) async fn load(read: &Pool) -> Result<(i64, Vec<RingRow>), Error> {
    let mut connection = read.acquire().await?;
    let row = query(VERSION).fetch_one(&mut connection).await?;
    let version = row.value("version")?;
    Ok((version, rows(&mut connection).await?))
}

/// Opens a ring that has to open every mark.
fn open_marked(masters: &Masters, records: &[KeyRecord], marks: &[Mark]) -> Result<Keys, Error> {
    let keys = Keys::open_ring(masters, records).map_err(|cause| match cause {
        RingError::WrongMaster => Error::WrongKeys,
        RingError::Incomplete => Error::Damaged { what: "key ring" },
    })?;
    let fits = marks.iter().all(|mark| mark.fits(&keys));
    fits.then_some(keys).ok_or(Error::WrongKeys)
}

//! The store: what must survive a crash, sealed.
//!
//! It promises:
//! - what was answered is on disk; what failed left nothing behind;
//! - a message of a party is accepted once, whatever races;
//! - a release is lost by nothing but its receiver's word, is held by one
//!   receiver at a time, and comes in order per case;
//! - no personal value is readable in its files: payloads, references and
//!   ledger are sealed to their rows, keys are keyed hashes.
//!
//! Reads go to a pool of connections that cannot write. Writes go to one task
//! (`writer`) that commits many at once. Other processes may write the same
//! database, and several nodes may share a `PostgreSQL`: every decision is
//! checked inside the transaction that it guards, and where nodes share, the
//! clock of the database alone tells which leases ran out.
//!
//! It does not know XML, HTTP, or who may have what.

mod accept;
mod acceptance;
mod alerts;
mod api_key;
mod backend;
mod bells;
mod conservation;
mod copy;
mod counts;
mod dead;
mod details;
mod directory;
mod error;
mod failpoint;
mod inbox;
mod lease;
mod ledger;
mod lookup;
mod message;
mod migrate;
mod parked;
mod push;
mod replay;
mod retention;
mod revive;
mod sql;
mod survey;
mod watching;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use acceptance::{AcceptError, Acceptance, Answer, Message, Remembered, Unparking};
pub use alerts::{Alert, AlertChanges, AlertMessage, AlertsSettled};
pub use api_key::ApiKey;
pub use backend::{DatabaseUrl, UnknownDatabase};
pub use conservation::{Unaccounted, Walk};
pub use copy::{Copied, CopyError, Occupied, Step, copy_store};
pub use counts::WithheldCount;
pub use dead::{DeadFilter, DeadLetter, DeadPage, Rejection};
pub use directory::{Directory, DirectoryChange, Record};
pub use error::{Cause, Error};
#[cfg(debug_assertions)]
pub use failpoint::die_at;
pub use inbox::{Acked, FeedItem, InboxError, Leased, Payload, ReleaseRef, UNREADABLE};
pub use ledger::Forgotten;
pub use message::{Delivery, DeliveryState, ParkedState, StoredMessage};
pub use migrate::{Migrated, migrate};
pub use parked::{ParkedFilter, ParkedItem, ParkedPage, ParkedSummary};
pub use push::{
    Again, PushClaim, PushInbox, PushReceiver, PushState, Pushed, PushedRef, Settled, Settlement,
    Turn,
};
pub use replay::{Replay, ReplayCount, ReplayGroup};
pub use retention::Expired;
pub use revive::{Overtaken, Retry};
pub use watching::{DeadLetters, LedgerWalk, ParkedCount, PausedReceiver, Waiting};

use crate::clock::{self, Clock};
use crate::seal::{Keys, Place};
use backend::{Backend, Connection, Heard, Listener, Pool, mark_of, query};
use bells::{Bells, Rings};
use lookup::Lookups;
use writer::Writer;

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// A database and the keys to it. Cheap to clone; the last clone that goes
/// lets the writer finish and end.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    read: Pool,
    lookups: Lookups,
    writer: Writer,
    bells: Arc<Bells>,
    keys: Keys,
    clock: Clock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database, makes it if there is none, and brings its schema
    /// up to date.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], or [`Error::WrongKeys`] before anything is
    /// written with keys that cannot read what is there.
    pub async fn open(url: &DatabaseUrl, keys: Keys, clock: Clock) -> Result<Self, Error> {
        Self::start(Backend::new(url, BUSY, clock.clone()), keys, clock).await
    }

    async fn start(backend: Backend, keys: Keys, clock: Clock) -> Result<Self, Error> {
        let mut connection = backend.prepare().await?;
        check_keys(&mut connection, &keys).await?;
        let bells = Arc::new(Bells::default());
        let read = backend.readers();
        let node: Arc<str> = clock::new_id().into();
        if let Some(listener) = read.listener().await? {
            tokio::spawn(hear(listener, Arc::clone(&node), Arc::clone(&bells)));
        }
        let shared = Shared {
            lookups: Lookups::start(read.clone(), keys.clone()),
            read,
            writer: Writer::start(backend, connection, Arc::clone(&bells), node),
            bells,
            keys,
            clock,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// True when other nodes may work on the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.read.is_shared()
    }

    /// Writes what waits, refuses what comes later, and lets the files go.
    pub async fn close(&self) {
        self.shared.read.close().await;
        self.shared.writer.close().await;
    }

    /// Answers whether the database can be read and, if the last write
    /// failed, whether it takes writes again.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when not, [`Error::Moved`] when it never will.
    pub async fn health(&self) -> Result<(), Error> {
        self.directory_version().await?;
        let mut connection = self.reader().await?;
        if !connection.is_shared()
            && let Some(moved) = mark_of(&mut connection).await?
        {
            return Err(Error::Moved { to: moved.to });
        }
        drop(connection);
        if self.writer().is_failing() {
            self.writer().write(directory::Probe).await?;
        }
        Ok(())
    }

    async fn reader(&self) -> Result<Connection, Error> {
        Ok(self.shared.read.acquire().await?)
    }

    fn lookups(&self) -> &Lookups {
        &self.shared.lookups
    }

    fn writer(&self) -> &Writer {
        &self.shared.writer
    }

    fn bells(&self) -> &Bells {
        &self.shared.bells
    }

    fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

const READ_KEY_CHECK: &str = "SELECT sealed FROM key_check WHERE number = 1";
const WRITE_KEY_CHECK: &str =
    "INSERT INTO key_check (number, sealed) VALUES (1, $1) ON CONFLICT (number) DO NOTHING";
/// What the key check seals; any text will do.
const KEY_CHECK: &[u8] = b"sivi-gateway";
const KEY_CHECK_PLACE: Place<'static> = Place {
    table: "key_check",
    row: b"1",
    column: "sealed",
};

/// Leaves a sealed value on first use, and opens it ever after.
async fn check_keys(connection: &mut Connection, keys: &Keys) -> Result<(), Error> {
    query(WRITE_KEY_CHECK)
        .bind(keys.seal(KEY_CHECK_PLACE, KEY_CHECK))
        .execute(&mut *connection)
        .await?;
    open_key_check(connection, keys).await.map(drop)
}

/// Opens the sealed value with these keys; `false` when there is none yet.
async fn open_key_check(connection: &mut Connection, keys: &Keys) -> Result<bool, Error> {
    let found = query(READ_KEY_CHECK).fetch_optional(connection).await?;
    let Some(row) = found else {
        return Ok(false);
    };
    match keys.open(KEY_CHECK_PLACE, row.get("sealed")?) {
        Ok(_) => Ok(true),
        Err(_) => Err(Error::WrongKeys),
    }
}

/// Rings what other nodes put into the inboxes that they share with us.
async fn hear(mut listener: Listener, node: Arc<str>, bells: Arc<Bells>) {
    loop {
        match listener.next().await {
            Heard::Text(text) => bells.ring(&Rings::heard(&text, &node)),
            Heard::Gap => bells.ring_all(),
            Heard::End => return,
        }
    }
}

#[cfg(test)]
mod tests;

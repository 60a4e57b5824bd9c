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
mod backup;
mod bells;
mod conservation;
mod copy;
mod counts;
mod dead;
mod details;
mod directory;
mod discard;
mod error;
mod failpoint;
mod feed;
mod inbox;
mod lease;
mod ledger;
mod lookup;
mod marks;
mod message;
mod migrate;
mod parked;
mod push;
mod replay;
mod reseal;
mod retention;
mod retire;
mod revive;
mod ring;
mod ring_change;
mod ring_copy;
mod sealed;
mod sql;
mod survey;
mod unreadable;
mod vault;
mod watching;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub use acceptance::{
    AcceptError, Acceptance, Answer, CLOCKS_APART, Message, Remembered, UnparkError, Unparking,
};
pub use alerts::{Alert, AlertChanges, AlertMessage, AlertsSettled};
pub use api_key::{ApiKey, ApiKeys};
pub use backend::{DatabaseUrl, UnknownDatabase};
pub use backup::{BackupError, Contents, Restored, restore};
pub use conservation::{Unaccounted, Walk};
pub use copy::{Copied, CopyError, Occupied, Step, copy_store};
pub use counts::WithheldCount;
pub use dead::{DeadFilter, DeadLetter, DeadPage, Rejection};
pub use directory::{Directory, DirectoryChange, Record};
pub use discard::Discard;
pub use error::{Cause, Error};
#[cfg(debug_assertions)]
pub use failpoint::die_at;
pub use feed::FeedItem;
pub use inbox::{Acked, InboxError, Leased, Payload, ReleaseRef, UNREADABLE};
pub use ledger::Forgotten;
pub use message::{Delivery, DeliveryState, ParkedState, StoredMessage};
pub use migrate::{Migrated, begin_anew, migrate};
pub use parked::{ParkedFilter, ParkedItem, ParkedPage, ParkedSummary};
pub use push::{
    Again, PushClaim, PushInbox, PushReceiver, PushReceivers, PushState, Pushed, PushedRef,
    Settled, Settlement, Turn,
};
pub use replay::{Replay, ReplayCount, ReplayGroup};
pub use reseal::Resealed;
pub use retention::{Expired, Terms};
pub use retire::{ReplacedKeys, RetireError, YoungKey};
pub use revive::{Overtaken, Retry};
pub use ring::{RingKey, RingPlace};
pub use ring_change::Rotation;
pub use ring_copy::RingCopyError;
pub use unreadable::Removed;
pub use vault::Destroyed;
pub use watching::{DeadLetters, LedgerStep, LedgerWalk, ParkedCount, PausedReceiver, Waiting};

use crate::clock::{self, Clock};
use crate::seal::Keys;
use crate::supervise::keep_running;
use backend::{Backend, Connection, Heard, Listener, Pool, Schema, mark_of};
use bells::{Bells, Rings};
use lookup::Lookups;
use marks::{open_ring, write_marks};
use ring::Ring;
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
    backend: Backend,
    read: Pool,
    lookups: Lookups,
    writer: Writer,
    bells: Arc<Bells>,
    ring: Arc<Ring>,
    clock: Clock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database and its key ring, makes what is not there, and
    /// brings the schema up to date.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], or [`Error::WrongKeys`] before anything is
    /// written with keys that cannot read what is there. [`Error::StoreLost`]
    /// for a new database whose ring was in use: see [`begin_anew`].
    pub async fn open(url: &DatabaseUrl, ring: &RingPlace, clock: Clock) -> Result<Self, Error> {
        Self::start(Backend::new(url, BUSY, clock.clone()), ring, clock).await
    }

    async fn start(backend: Backend, ring: &RingPlace, clock: Clock) -> Result<Self, Error> {
        let ring = Arc::new(open_ring(&backend, ring, &clock).await?);
        let mut connection = backend.prepare(Schema::Messages).await?;
        write_marks(&mut connection, ring.keys()).await?;
        ring.note_use().await?;
        let bells = Arc::new(Bells::default());
        let read = backend.readers();
        let node: Arc<str> = clock::new_id().into();
        if let Some(listener) = read.listener().await? {
            let listener = Arc::new(Mutex::new(listener));
            let (node, bells) = (Arc::clone(&node), Arc::clone(&bells));
            tokio::spawn(async move {
                // It ends when the store is closed.
                let unstopped = CancellationToken::new();
                let start = || hear(Arc::clone(&listener), Arc::clone(&node), Arc::clone(&bells));
                keep_running("news of other nodes", &unstopped, start).await;
            });
        }
        let shared = Shared {
            lookups: Lookups::start(read.clone(), Arc::clone(&ring)),
            read,
            writer: Writer::start(backend.clone(), connection, Arc::clone(&bells), node),
            backend,
            bells,
            ring,
            clock,
        };
        let store = Self {
            shared: Arc::new(shared),
        };
        // What is left of destroyed keys goes at the next look at the ring, too:
        // it must not keep a daemon from starting.
        if let Err(cause) = store.remove_destroyed().await {
            tracing::error!("What destroyed keys sealed was not removed yet: {cause}");
        }
        Ok(store)
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
        self.shared.ring.close().await;
    }

    /// Completes when nothing can be written any more: after [`Self::close`], or
    /// because a writer ended by a fault of ours. Nothing but a new process helps
    /// then.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.writer().ended() => {}
            () = self.ring().ended() => {}
        }
    }

    /// How far the clock of this node is from that of the database, in seconds;
    /// none where they are the same.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn clock_difference(&self) -> Result<Option<u64>, Error> {
        let theirs = self.reader().await?.clock_of_database().await?;
        let ours = self.clock().now().as_second();
        Ok(theirs.map(|theirs| theirs.as_second().abs_diff(ours)))
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

    fn backend(&self) -> &Backend {
        &self.shared.backend
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

    /// The keys of the installation, which follow the ring.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        self.shared.ring.keys()
    }

    fn ring(&self) -> &Ring {
        &self.shared.ring
    }

    fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

/// Rings what other nodes put into the inboxes that they share with us.
async fn hear(listener: Arc<Mutex<Listener>>, node: Arc<str>, bells: Arc<Bells>) {
    let mut listener = listener.lock().await;
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

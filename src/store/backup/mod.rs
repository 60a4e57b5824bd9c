//! One file that holds all messages as of one moment, and the way back.
//!
//! A backup holds sealed values and no key: without master key and key ring
//! nobody can read it, and what a destroyed key sealed stays unreadable. It is
//! a database file whatever was backed up, so that there is one way back:
//! [`restore`], and from there `copy-store` to a server.

mod draft;
mod restore;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::backend::{Backend, Connection, Row, Schema, query};
use super::copy::{CopyError, copy_moment};
use super::error::Error;
use super::failpoint::{self, Place};
use super::ring_copy::copy_ring_moment;
use super::sql::Columnar as _;
use super::{BUSY, Store};
use crate::clock::Clock;
use draft::Draft;

pub use restore::{Restored, restore};

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Receipts of messages.
    pub messages: u64,
    /// Releases that nobody has taken over or given up.
    pub undelivered: u64,
    /// Releases that were given up and wait for a person.
    pub dead: u64,
    /// Parked parts.
    pub parked: u64,
    /// When the newest message came in.
    pub newest_received_at: Option<Timestamp>,
}

/// Why there is no backup, or why it was not put back. Then nothing changed.
#[derive(Debug)]
pub enum BackupError {
    /// A backup is restored to a file, and this database is a server.
    Shared,
    /// There is a file in the way; it is never overwritten.
    Exists(PathBuf),
    /// Somebody has the database open: stop the daemon first.
    InUse,
    /// A file cannot be read or written.
    File(io::Error),
    /// The file is no sound database.
    Unsound,
    /// What a server holds could not be copied.
    Copy(CopyError),
    /// The database or its keys; [`Error::WrongKeys`] when master key and ring
    /// do not open it.
    Store(Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str(
                "the database is a server: restore to a file (database.url = \"sqlite:PATH\"), \
                 and copy-store from there to an empty database",
            ),
            Self::Exists(path) => write!(f, "{} exists", path.display()),
            Self::InUse => f.write_str("the database is open elsewhere: stop the daemon first"),
            Self::File(cause) => write!(f, "{cause}"),
            Self::Unsound => f.write_str("the file is not a sound database"),
            Self::Copy(cause) => write!(f, "{cause}"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<Error> for BackupError {
    fn from(cause: Error) -> Self {
        Self::Store(cause)
    }
}

impl From<CopyError> for BackupError {
    fn from(cause: CopyError) -> Self {
        Self::Copy(cause)
    }
}

impl From<sqlx::Error> for BackupError {
    fn from(cause: sqlx::Error) -> Self {
        Self::Store(cause.into())
    }
}

impl From<io::Error> for BackupError {
    fn from(cause: io::Error) -> Self {
        Self::File(cause)
    }
}

impl Store {
    /// Writes all messages as of one moment to a new file at `path`, for its
    /// owner alone, checks it, and says what it holds. Receipt goes on.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; then there is no file at `path`.
    pub async fn backup(&self, path: &Path) -> Result<Contents, BackupError> {
        let look = async |copy: &mut Connection| Ok(contents(copy).await?);
        write_out(self.backend(), Schema::Messages, path, self.clock(), look).await
    }

    /// Writes the key ring to a new file at `path`, for its owner alone. Its
    /// keys are wrapped by the master key, which is not in it.
    ///
    /// # Errors
    ///
    /// As [`Self::backup`].
    pub async fn export_ring(&self, path: &Path) -> Result<u64, BackupError> {
        let look = async |copy: &mut Connection| {
            let row = query(KEYS).fetch_one(copy).await?;
            Ok(count(&row, "total")?)
        };
        let ring = self.ring().backend();
        write_out(ring, Schema::Ring, path, self.clock(), look).await
    }
}

/// Writes a database to a file that is complete or absent, and looks at it.
async fn write_out<T>(
    database: &Backend,
    schema: Schema,
    path: &Path,
    clock: &Clock,
    look: impl AsyncFnOnce(&mut Connection) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    if path.try_exists()? {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let draft = Draft::beside(path, clock)?;
    match database.file() {
        Some(file) => file.copy_into(draft.file()).await?,
        None => fill(&draft, schema, database, clock).await?,
    }
    let mut copy = draft.file().open_as_is().await?;
    check(&mut copy).await?;
    let found = look(&mut copy).await?;
    copy.close().await?;
    failpoint::pass(Place::Drafted);
    draft.keep(path)?;
    failpoint::pass(Place::Kept);
    Ok(found)
}

/// Copies what a server holds at one moment, while its nodes go on.
async fn fill(
    draft: &Draft,
    schema: Schema,
    server: &Backend,
    clock: &Clock,
) -> Result<(), BackupError> {
    let empty = Backend::new(&draft.url(), BUSY, clock.clone());
    let mut target = empty.prepare(schema).await?;
    // Rows go straight into the file, which needs no log beside it.
    draft.file().fold(&mut target).await?;
    match schema {
        Schema::Messages => copy_moment(server, &mut target).await?,
        Schema::Ring => copy_ring_moment(server, &mut target).await?,
    }
    Ok(target.close().await?)
}

async fn check(connection: &mut Connection) -> Result<(), BackupError> {
    let rows = query("PRAGMA integrity_check(1)")
        .fetch_all(connection)
        .await
        .map_err(|_| BackupError::Unsound)?;
    let said: Result<Vec<String>, _> = rows
        .iter()
        .map(|row| row.value("integrity_check"))
        .collect();
    if said.map_err(|_| BackupError::Unsound)? != ["ok"] {
        return Err(BackupError::Unsound);
    }
    Ok(())
}

const KEYS: &str = "SELECT COUNT(*) AS total FROM ring_key";
const CONTENTS: &str = "SELECT (SELECT COUNT(*) FROM message) AS messages,
    (SELECT COUNT(*) FROM delivery WHERE finished_at IS NULL) AS undelivered,
    (SELECT COUNT(*) FROM delivery WHERE state = 'dead' AND discarded_at IS NULL) AS dead,
    (SELECT COUNT(*) FROM parked) AS parked,
    (SELECT MAX(received_at) FROM message) AS newest";

async fn contents(connection: &mut Connection) -> Result<Contents, Error> {
    let row = query(CONTENTS).fetch_one(connection).await?;
    Ok(Contents {
        messages: count(&row, "messages")?,
        undelivered: count(&row, "undelivered")?,
        dead: count(&row, "dead")?,
        parked: count(&row, "parked")?,
        newest_received_at: row.moment_or_none("newest")?,
    })
}

fn count(row: &Row, column: &str) -> Result<u64, Error> {
    Ok(u64::try_from(row.value::<i64>(column)?).unwrap_or(0))
}

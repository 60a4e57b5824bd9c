//! One file that holds all messages as of one moment, and the way back.
//!
//! A backup holds sealed values and no key: without master key and key ring
//! nobody can read it, and what a destroyed key sealed stays unreadable. The
//! way back voids leases, because whoever held one no longer does, and moves
//! the numbers of inboxes far on, so that no receiver of the feed has read
//! past what comes next.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::backend::{Alone, Backend, Connection, DatabaseFile, DatabaseUrl, Row, query};
use super::error::Error;
use super::ring::RingPlace;
use super::sql::Columnar as _;
use super::writer::Change;
use super::{BUSY, Store};
use crate::clock::Clock;
use crate::seal;

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Receipts of messages.
    pub messages: u64,
    /// Releases that nobody has taken over or given up.
    pub undelivered: u64,
    /// Releases that were given up.
    pub dead: u64,
    /// Parked parts.
    pub parked: u64,
    /// When the newest message came in.
    pub newest_received_at: Option<Timestamp>,
}

/// What [`restore`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What is in the database now.
    pub contents: Contents,
    /// Leases that were void.
    pub leases: u64,
    /// Where the database of before is, if there was one.
    pub aside: Option<PathBuf>,
}

/// Why there is no backup, or why it was not put back. Then nothing changed.
#[derive(Debug)]
pub enum BackupError {
    /// The database is a server: use its own tools, or `copy-store` to a file.
    Shared,
    /// There is a file in the way; it is never overwritten.
    Exists(PathBuf),
    /// Somebody has the database open: stop the daemon first.
    InUse,
    /// A file cannot be read or written.
    File(io::Error),
    /// The file is no sound database.
    Unsound,
    /// The database or its keys; [`Error::WrongKeys`] when master key and ring
    /// do not open it.
    Store(Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str(
                "the database is a server: use its own tools, or copy-store to sqlite:PATH",
            ),
            Self::Exists(path) => write!(f, "{} exists", path.display()),
            Self::InUse => f.write_str("the database is open elsewhere: stop the daemon first"),
            Self::File(cause) => write!(f, "{cause}"),
            Self::Unsound => f.write_str("the file is not a sound database"),
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
        copy_out(self.backend(), path, async |connection| {
            Ok(contents(connection).await?)
        })
        .await
    }

    /// Writes the key ring to a new file at `path`, for its owner alone. Its
    /// keys are wrapped by the master key, which is not in it.
    ///
    /// # Errors
    ///
    /// As [`Self::backup`].
    pub async fn export_ring(&self, path: &Path) -> Result<u64, BackupError> {
        copy_out(self.ring().backend(), path, async |connection| {
            let row = query("SELECT COUNT(*) AS total FROM ring_key")
                .fetch_one(connection)
                .await?;
            Ok(count(&row, "total")?)
        })
        .await
    }
}

/// Copies a database into a file that is complete or absent, and looks at it.
async fn copy_out<T>(
    database: &Backend,
    path: &Path,
    look: impl AsyncFnOnce(&mut Connection) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    if path.try_exists()? {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let file = database.file().ok_or(BackupError::Shared)?;
    let draft = Draft::beside(path)?;
    let text = draft.path.to_str();
    let text = text.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    file.copy_into(text).await?;
    let mut copy = file.open_copy(&draft.path).await?;
    check(&mut copy).await?;
    let found = look(&mut copy).await?;
    copy.close().await?;
    draft.keep(path)?;
    Ok(found)
}

/// A file of our own, in the folder of the one that it will be.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        let name = format!(".sivi-{:016x}", u64::from_be_bytes(seal::random()));
        let path = folder(path).join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path })
    }

    /// Puts it in place, unless there is a file already.
    fn keep(self, path: &Path) -> Result<(), BackupError> {
        File::open(&self.path)?.sync_all()?;
        match fs::hard_link(&self.path, path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(path.to_owned()));
            }
            linked => linked?,
        }
        File::open(folder(path))?.sync_all()?;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            // Most of them were never there.
            drop(fs::remove_file(with_end(&self.path, end)));
        }
    }
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
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

const CONTENTS: &str = "SELECT (SELECT COUNT(*) FROM message) AS messages,
    (SELECT COUNT(*) FROM delivery WHERE finished_at IS NULL) AS undelivered,
    (SELECT COUNT(*) FROM delivery WHERE state = 'dead') AS dead,
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

/// Puts the backup at `from` in the place of the database at `to`. With
/// `aside` the one that is there is kept under that name; without, it must not
/// be there.
///
/// # Errors
///
/// [`BackupError`]; then what was there is there still.
pub async fn restore(
    from: &Path,
    to: &DatabaseUrl,
    aside: Option<&Path>,
    ring: &RingPlace,
    clock: Clock,
) -> Result<Restored, BackupError> {
    let file = Backend::new(to, BUSY, clock.clone()).file();
    let file = file.ok_or(BackupError::Shared)?;
    let place = &file.path();
    let is_there = place.try_exists()?;
    if is_there && aside.is_none() {
        return Err(BackupError::Exists(place.to_owned()));
    }
    let taken = if is_there {
        file.take_alone().await?
    } else {
        Alone::Nothing
    };
    if let Alone::InUse = taken {
        return Err(BackupError::InUse);
    }
    fs::create_dir_all(folder(place))?;
    let draft = Draft::beside(place)?;
    copy_in(from, &draft.path)?;
    let (contents, leases) = ready(&file, &draft.path, ring, clock).await?;
    let aside = aside.filter(|_| is_there);
    if let Some(aside) = aside {
        for end in ["", "-wal", "-shm"] {
            match fs::rename(with_end(place, end), with_end(aside, end)) {
                Err(cause) if end.is_empty() || cause.kind() != io::ErrorKind::NotFound => {
                    return Err(cause.into());
                }
                _ => {}
            }
        }
    }
    draft.keep(place)?;
    if let Alone::Taken(former) = taken {
        // It is the file that was put aside, and nothing was changed in it.
        drop(former.close().await);
    }
    Ok(Restored {
        contents,
        leases,
        aside: aside.map(Path::to_owned),
    })
}

/// Copies the file, and its log when it was copied from a running database.
fn copy_in(from: &Path, draft: &Path) -> Result<(), BackupError> {
    for end in ["", "-wal"] {
        let mut source = match File::open(with_end(from, end)) {
            Err(cause) if !end.is_empty() && cause.kind() == io::ErrorKind::NotFound => continue,
            source => source?,
        };
        let mut target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(with_end(draft, end))?;
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

/// Brings a copy up to date and checks that the keys open it.
async fn ready(
    file: &DatabaseFile,
    draft: &Path,
    ring: &RingPlace,
    clock: Clock,
) -> Result<(Contents, u64), BackupError> {
    let url = DatabaseUrl::sqlite(draft);
    let mut copy = file
        .open_copy(draft)
        .await
        .map_err(|_| BackupError::Unsound)?;
    check(&mut copy).await?;
    let is_ours = "SELECT COUNT(*) AS total FROM key_check";
    let marks = query(is_ours).fetch_one(&mut copy).await;
    if count(&marks.map_err(|_| BackupError::Unsound)?, "total")? == 0 {
        return Err(BackupError::Unsound);
    }
    copy.close().await?;

    let store = Store::open(&url, ring, clock).await?;
    let ready = async {
        let leases = store.writer().write(VoidLeases).await?;
        let mut connection = store.reader().await?;
        Ok::<_, BackupError>((contents(&mut connection).await?, leases))
    }
    .await;
    store.close().await;
    // One file again, without a log beside it.
    let mut last = file.open_copy(draft).await?;
    file.fold(&mut last).await?;
    last.close().await?;
    ready
}

const VOID_LEASES: &str = "UPDATE delivery SET state = 'offered', lease = NULL, lease_until = 0
    WHERE state = 'leased'";
/// Numbers may have been given out after the backup.
const MOVE_ON: &str = "UPDATE inbox SET last_sequence = last_sequence + 1000000000";

struct VoidLeases;

impl Change for VoidLeases {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        query(MOVE_ON).execute(&mut *connection).await?;
        let voided = query(VOID_LEASES).execute(connection).await?;
        Ok(voided)
    }
}

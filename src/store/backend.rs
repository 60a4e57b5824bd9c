//! Everything that differs between databases: types, opening, locks.
//!
//! The rest of the store is written against these names. `SQLite` is the only
//! one so far; its file is made for its owner alone.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::error::{Cause, Error};

pub(super) type Db = Sqlite;
pub(super) type Connection = SqliteConnection;
pub(super) type Pool = SqlitePool;
pub(super) type Row = SqliteRow;

/// Starts a transaction that writes: takes the only write lock at once, since
/// taking it halfway could fail after work was done.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Ends a SELECT of rows that the same transaction will change. `SQLite` has
/// one writer, so nothing is needed.
pub(super) const ROW_LOCK: &str = "";
/// Most values that one statement may bind.
pub(super) const MAX_BINDS: usize = 32_766;

const READERS: u32 = 4;
const STATEMENTS_KEPT: usize = 512;
/// Negative means KiB. Keyed hashes land all over their indexes, so most of
/// those should stay in memory.
const CACHE_KIB: &str = "-65536";
const READER_CACHE_KIB: &str = "-8192";
/// Pages in the journal before they move to the file: 32 MiB. Fewer moves
/// carry more changes of the same page.
const CHECKPOINT_PAGES: &str = "8192";
const MIGRATION_ATTEMPTS: u32 = 10;
const MIGRATION_PAUSE: Duration = Duration::from_millis(100);

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Where the database is: `sqlite:PATH`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    path: PathBuf,
}

impl DatabaseUrl {
    /// A database file.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
    }
}

/// A database URL of a kind that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDatabase;

impl fmt::Display for UnknownDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a database url must be sqlite:PATH")
    }
}

impl std::error::Error for UnknownDatabase {}

impl FromStr for DatabaseUrl {
    type Err = UnknownDatabase;

    fn from_str(text: &str) -> Result<Self, UnknownDatabase> {
        let path = text.strip_prefix("sqlite:").ok_or(UnknownDatabase)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(UnknownDatabase);
        }
        Ok(Self::sqlite(path))
    }
}

/// How to connect; kept to connect again after a failure.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    write: SqliteConnectOptions,
    read: SqliteConnectOptions,
    path: PathBuf,
}

impl Backend {
    /// `busy` is how long to wait for another process that writes.
    pub(super) fn new(url: &DatabaseUrl, busy: Duration) -> Self {
        let write = SqliteConnectOptions::new()
            .filename(&url.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(busy)
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", CACHE_KIB)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(STATEMENTS_KEPT)
            .disable_statement_logging();
        Self {
            read: write
                .clone()
                .pragma("query_only", "ON")
                .pragma("cache_size", READER_CACHE_KIB),
            write,
            path: url.path.clone(),
        }
    }

    /// Makes the file if there is none, and brings the schema up to date.
    pub(super) async fn prepare(&self) -> Result<Connection, Error> {
        make_private(&self.path).map_err(|cause| Error::Unavailable(Cause::Io(cause.kind())))?;
        let mut connection = self.writer().await?;
        for attempt in 1.. {
            match MIGRATIONS.run_direct(None, &mut connection, false).await {
                Ok(()) => break,
                // Another process may be making the same tables right now.
                Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                    if attempt < MIGRATION_ATTEMPTS =>
                {
                    tokio::time::sleep(MIGRATION_PAUSE).await;
                }
                Err(MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) => {
                    return Err(cause.into());
                }
                Err(_) => return Err(Error::Unavailable(Cause::Schema)),
            }
        }
        Ok(connection)
    }

    pub(super) async fn writer(&self) -> Result<Connection, sqlx::Error> {
        Connection::connect_with(&self.write).await
    }

    /// Connections that cannot write.
    pub(super) fn readers(&self) -> Pool {
        SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_lazy_with(self.read.clone())
    }

    #[cfg(test)]
    pub(super) fn with_pages_at_most(mut self, pages: u32) -> Self {
        self.write = self.write.pragma("max_page_count", pages.to_string());
        self
    }
}

/// `SQLite` would make the file readable by everybody; its journals get the
/// mode of the file.
///
/// A file that is there already is never opened: closing it would drop the
/// locks that this process holds on it (POSIX), and the next process to look
/// in would take the write-ahead log for abandoned and remove it.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let made = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_is_a_database() {
        let url: DatabaseUrl = "sqlite:data/gateway.db".parse().unwrap();
        assert_eq!(url.path(), Path::new("data/gateway.db"));
        let url: DatabaseUrl = "sqlite:///var/lib/gateway.db".parse().unwrap();
        assert_eq!(url.path(), Path::new("/var/lib/gateway.db"));
        for wrong in [
            "",
            "sqlite:",
            "sqlite::memory:",
            "postgres://host/db",
            "data.db",
        ] {
            assert_eq!(
                wrong.parse::<DatabaseUrl>(),
                Err(UnknownDatabase),
                "{wrong}"
            );
        }
    }
}

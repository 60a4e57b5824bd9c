//! `SQLite`: one file for one node, made for its owner alone.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{READERS, STATEMENTS_KEPT, Schema};
use crate::store::error::{Cause, Error};

/// Bytes of the file, without its journals.
pub(super) const SIZE: &str = "SELECT page_count * page_size AS bytes
    FROM pragma_page_count(), pragma_page_size()";

/// Takes the only write lock at once, since taking it halfway could fail after
/// work was done.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Its first query looks, and all that follow see the same.
pub(super) const BEGIN_MOMENT: &str = "BEGIN DEFERRED";
/// Negative means KiB. Keyed hashes land all over their indexes, so most of
/// those should stay in memory.
const CACHE_KIB: &str = "-65536";
const READER_CACHE_KIB: &str = "-8192";
/// Pages in the journal before they move to the file: 32 MiB. Fewer moves
/// carry more changes of the same page.
const CHECKPOINT_PAGES: &str = "8192";
pub(super) const HAS_TABLE: &str =
    "SELECT COUNT(*) > 0 AS found FROM sqlite_master WHERE type = 'table' AND name = $1";
pub(super) const COLUMNS: &str = "SELECT m.name AS tab, c.name AS col, c.type AS kind, c.pk AS key
    FROM sqlite_master m JOIN pragma_table_info(m.name) c
    WHERE m.type = 'table' AND m.name NOT LIKE '\\_%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%'
    ORDER BY m.name, c.cid";
const MIGRATION_ATTEMPTS: u32 = 10;
const MIGRATION_PAUSE: Duration = Duration::from_millis(100);

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");
static RING_MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/ring/sqlite");

/// Cuts the write-ahead log, which may hold older pages.
pub(super) const SCRUB: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// How to connect.
#[derive(Clone)]
pub(super) struct Options {
    write: SqliteConnectOptions,
    read: SqliteConnectOptions,
    path: PathBuf,
}

impl Options {
    /// `busy` is how long to wait for another process that writes.
    pub(super) fn new(path: &Path, busy: Duration) -> Self {
        let write = SqliteConnectOptions::new()
            .filename(path)
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
            path: path.to_owned(),
        }
    }

    /// Makes the file if there is none, and brings the schema up to date.
    pub(super) async fn prepare(&self, schema: Schema) -> Result<SqliteConnection, Error> {
        let migrations = match schema {
            Schema::Messages => &MIGRATIONS,
            Schema::Ring => &RING_MIGRATIONS,
        };
        make_private(&self.path).map_err(|cause| Error::Unavailable(Cause::Io(cause.kind())))?;
        let mut connection = self.writer().await?;
        for attempt in 1.. {
            match migrations.run_direct(None, &mut connection, false).await {
                Ok(()) => break,
                // Another process may be making the same tables right now.
                Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                    if attempt < MIGRATION_ATTEMPTS =>
                {
                    tokio::time::sleep(MIGRATION_PAUSE).await;
                }
                Err(cause) => return Err(schema_error(cause)),
            }
        }
        Ok(connection)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// To a file that is there.
    pub(super) async fn writer(&self) -> Result<SqliteConnection, sqlx::Error> {
        SqliteConnection::connect_with(&self.write).await
    }

    /// Connections that cannot write.
    pub(super) fn readers(&self) -> SqlitePool {
        SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_lazy_with(self.read.clone())
    }

    #[cfg(test)]
    pub(super) fn bound_pages(&mut self, pages: u32) {
        self.write = self
            .write
            .clone()
            .pragma("max_page_count", pages.to_string());
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

/// A database that cannot be reached, or a schema that does not fit.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver adds variants")]
pub(super) fn schema_error(cause: MigrateError) -> Error {
    match cause {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => cause.into(),
        _ => Error::Unavailable(Cause::Schema),
    }
}

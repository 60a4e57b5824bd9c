//! The directory: parties, tenants, routes as records, with one version.
//!
//! It keeps what `apply` wrote and counts changes; what a record means is not
//! its concern.

use super::Store;
use super::backend::{Connection, query};
use super::error::Error;
use super::sql::Columnar as _;
use super::writer::Change;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is, such as `party`.
    pub kind: String,
    /// Its id, unique per kind.
    pub id: String,
    /// Its content as JSON.
    pub body: String,
}

/// All records as of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Number of changes so far; 0 for an empty installation.
    pub version: i64,
    /// By kind and id.
    pub records: Vec<Record>,
}

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// Add the record, or replace the one of the same kind and id.
    Put(Record),
    /// Remove the record, if it is there.
    Delete {
        /// What it is.
        kind: String,
        /// Its id.
        id: String,
    },
}

const VERSION: &str = "SELECT directory FROM revision WHERE id = 1";
const CHANGES: &str = "SELECT directory + api_keys AS changes FROM revision WHERE id = 1";
/// One statement, so that version and records are of the same moment.
const DIRECTORY: &str =
    "SELECT revision.directory AS version, kind, directory_record.id AS id, body
    FROM revision LEFT JOIN directory_record ON 1 = 1
    WHERE revision.id = 1 ORDER BY kind, directory_record.id";
const RAISE_VERSION: &str = "UPDATE revision SET directory = directory + 1
    WHERE id = 1 AND directory = $1";
const PUT: &str = "INSERT INTO directory_record (kind, id, body) VALUES ($1, $2, $3)
    ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body";
const DELETE: &str = "DELETE FROM directory_record WHERE kind = $1 AND id = $2";

impl Store {
    /// All records and their version.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn directory(&self) -> Result<Directory, Error> {
        let mut connection = self.reader().await?;
        let rows = query(DIRECTORY).fetch_all(&mut connection).await?;
        let mut directory = Directory {
            version: 0,
            records: Vec::with_capacity(rows.len()),
        };
        for row in &rows {
            directory.version = row.value("version")?;
            if let Some(kind) = row.value::<Option<String>>("kind")? {
                directory.records.push(Record {
                    kind,
                    id: row.value("id")?,
                    body: row.value("body")?,
                });
            }
        }
        Ok(directory)
    }

    /// The version of the directory alone.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn directory_version(&self) -> Result<i64, Error> {
        let mut connection = self.reader().await?;
        let row = query(VERSION).fetch_one(&mut connection).await?;
        row.value("directory")
    }

    /// Grows with every change of the directory and of API keys, made by any
    /// process: one cheap number to poll.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn changes_version(&self) -> Result<i64, Error> {
        let mut connection = self.reader().await?;
        let row = query(CHANGES).fetch_one(&mut connection).await?;
        row.value("changes")
    }

    /// Makes all `changes` at once, if the directory still has the version
    /// that they were decided on, and returns the new version.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when it has another version; [`Error::Busy`] or
    /// [`Error::Unavailable`]. Then nothing was changed.
    pub async fn change_directory(
        &self,
        expected_version: i64,
        changes: Vec<DirectoryChange>,
    ) -> Result<i64, Error> {
        let request = ChangeDirectory {
            expected_version,
            changes,
        };
        if self.writer().write(request).await? {
            Ok(expected_version + 1)
        } else {
            Err(Error::Conflict)
        }
    }
}

/// The version, which stays until the transaction ends: who changes the
/// directory waits for those who decided with it, so that afterwards all that
/// they parked can be seen.
pub(super) async fn lock_version(connection: &mut Connection) -> Result<i64, sqlx::Error> {
    let mut version = query(VERSION);
    version.push(connection.share_lock());
    version.fetch_one(connection).await?.get("directory")
}

struct ChangeDirectory {
    expected_version: i64,
    changes: Vec<DirectoryChange>,
}

impl Change for ChangeDirectory {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let raised = query(RAISE_VERSION)
            .bind(self.expected_version)
            .execute(&mut *connection)
            .await?;
        if raised == 0 {
            return Ok(false);
        }
        for change in &self.changes {
            let query = match change {
                DirectoryChange::Put(record) => query(PUT)
                    .bind(&record.kind)
                    .bind(&record.id)
                    .bind(&record.body),
                DirectoryChange::Delete { kind, id } => query(DELETE).bind(kind).bind(id),
            };
            query.execute(&mut *connection).await?;
        }
        Ok(true)
    }
}

/// Writes one row without changing it: can the database be written at all?
pub(super) struct Probe;

impl Change for Probe {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let row = query("UPDATE revision SET id = 1 WHERE id = 1 RETURNING id");
        let row = row.fetch_one(connection).await?;
        row.get::<i64>("id").map(drop)
    }
}

//! What can be done with a database because it is one file: copy it, and take
//! it for oneself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Connection, Link, query, sqlite};
use crate::clock::Clock;
use crate::store::BUSY;

/// A database that is one file.
pub(in crate::store) struct DatabaseFile {
    options: Box<sqlite::Options>,
    clock: Clock,
}

/// Whether a database could be had alone.
pub(in crate::store) enum Alone {
    /// Nobody else can open it while this connection lives.
    Taken(Connection),
    /// Somebody has it open.
    InUse,
    /// There is no sound database.
    Nothing,
}

impl DatabaseFile {
    pub(super) fn new(options: &sqlite::Options, clock: &Clock) -> Self {
        Self {
            options: Box::new(options.clone()),
            clock: clock.clone(),
        }
    }

    /// The one at `path`.
    pub(in crate::store) fn at(path: &Path, clock: &Clock) -> Self {
        Self::new(&sqlite::Options::new(path, BUSY), clock)
    }

    /// Where it is.
    pub(in crate::store) fn path(&self) -> PathBuf {
        self.options.path().to_owned()
    }

    /// Copies everything, as of one moment, into an empty file.
    pub(in crate::store) async fn copy_into(&self, empty: &Self) -> Result<(), sqlx::Error> {
        let path = empty.options.path().to_str();
        let path = path.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let link = Link::Sqlite(self.options.writer().await?);
        let mut connection = Connection::new(link, self.clock.clone());
        query("VACUUM INTO $1")
            .bind(path)
            .execute(&mut connection)
            .await?;
        connection.close().await
    }

    /// Opens it as it is, so that it stays one file.
    pub(in crate::store) async fn open_as_is(&self) -> Result<Connection, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(self.options.path())
            .busy_timeout(Duration::ZERO)
            .disable_statement_logging();
        let link = SqliteConnection::connect_with(&options).await?;
        Ok(Connection::new(Link::Sqlite(link), self.clock.clone()))
    }

    /// Moves the log into the file; false when somebody else has it open.
    pub(in crate::store) async fn fold(
        &self,
        connection: &mut Connection,
    ) -> Result<bool, sqlx::Error> {
        let row = query("PRAGMA journal_mode = DELETE")
            .fetch_one(connection)
            .await?;
        Ok(row.get::<&str>("journal_mode")? == "delete")
    }

    /// Takes a database that nobody else has open, as one file, so that it can
    /// be put aside. One that is damaged is nobody's.
    pub(in crate::store) async fn take_alone(&self) -> Result<Alone, sqlx::Error> {
        let mut connection = self.open_as_is().await?;
        let taken = async {
            let is_ours = self.fold(&mut connection).await?;
            if is_ours {
                query("BEGIN EXCLUSIVE").execute(&mut connection).await?;
            }
            Ok(is_ours)
        }
        .await;
        match taken {
            Ok(true) => Ok(Alone::Taken(connection)),
            Ok(false) => Ok(Alone::InUse),
            Err(sqlx::Error::Database(refusal)) => match refusal.code().as_deref() {
                // SQLITE_CORRUPT and SQLITE_NOTADB.
                Some("11" | "26") => Ok(Alone::Nothing),
                _ => Ok(Alone::InUse),
            },
            Err(cause) => Err(cause),
        }
    }
}

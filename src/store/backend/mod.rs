//! Everything that differs between databases: opening, transactions, locks,
//! time, and how nodes wake each other.
//!
//! The rest of the store is written against these names and holds one text of
//! each statement. [`sqlite`] is one file for one node; [`postgres`] is a
//! server for several.

mod file;
mod moved;
mod postgres;
mod query;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgConnection, Postgres, Sqlite, SqliteConnection};

pub(super) use file::{Alone, DatabaseFile};
pub(super) use moved::{Moved, mark, mark_of, unmark};
pub(super) use postgres::{Heard, Listener};
pub(super) use query::{Query, Readable, Row, Value, query};

use super::error::Error;
use crate::clock::Clock;

/// Most values that one statement may bind; `PostgreSQL` takes twice as many.
pub(super) const MAX_BINDS: usize = 32_766;

/// Connections that read at once.
const READERS: u32 = 4;
/// Statements that a connection keeps prepared.
const STATEMENTS_KEPT: usize = 512;

const VERSION: &str =
    "SELECT COALESCE(MAX(version), 0) AS version FROM _sqlx_migrations WHERE success";

/// Where the database is.
#[derive(Clone)]
pub struct DatabaseUrl(Location);

#[derive(Clone)]
enum Location {
    Sqlite(PathBuf),
    Postgres(Box<sqlx::postgres::PgConnectOptions>),
}

impl DatabaseUrl {
    /// A database file.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Location::Sqlite(path.into()))
    }

    /// True for a server that several nodes can share.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Location::Postgres(_))
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        match &self.0 {
            Location::Sqlite(path) => Some(path),
            Location::Postgres(_) => None,
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without user and password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Location::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Location::Postgres(options) => write!(
                f,
                "postgres://{}:{}/{}",
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
        }
    }
}

/// A database URL of a kind that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDatabase;

impl fmt::Display for UnknownDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a database url must be sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")
    }
}

impl std::error::Error for UnknownDatabase {}

impl FromStr for DatabaseUrl {
    type Err = UnknownDatabase;

    fn from_str(text: &str) -> Result<Self, UnknownDatabase> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // The driver's own error may repeat the password.
            let options = text.parse().map_err(|_| UnknownDatabase)?;
            return Ok(Self(Location::Postgres(Box::new(options))));
        }
        let path = text.strip_prefix("sqlite:").ok_or(UnknownDatabase)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(UnknownDatabase);
        }
        Ok(Self::sqlite(path))
    }
}

/// What a database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// Messages and everything about them.
    Messages,
    /// The key ring.
    Ring,
}

/// How to connect; kept to connect again after a failure.
#[derive(Clone)]
pub(super) struct Backend {
    kind: Kind,
    clock: Clock,
}

#[derive(Clone)]
enum Kind {
    Sqlite(Box<sqlite::Options>),
    Postgres(Box<postgres::Options>),
}

impl Backend {
    /// `busy` is how long to wait for another process that writes a file.
    pub(super) fn new(url: &DatabaseUrl, busy: Duration, clock: Clock) -> Self {
        let kind = match &url.0 {
            Location::Sqlite(path) => Kind::Sqlite(Box::new(sqlite::Options::new(path, busy))),
            Location::Postgres(options) => {
                Kind::Postgres(Box::new(postgres::Options::new(options)))
            }
        };
        Self { kind, clock }
    }

    /// Makes the database if there is none and this can be done, and brings
    /// the schema up to date. Safe when several nodes start together.
    ///
    /// # Errors
    ///
    /// [`Error::Moved`] for a file that is no store any more.
    pub(super) async fn prepare(&self, schema: Schema) -> Result<Connection, Error> {
        match &self.kind {
            Kind::Sqlite(options) => {
                drop(self.look().await?);
                let link = options.prepare(schema).await?;
                Ok(self.connection(Link::Sqlite(link)))
            }
            Kind::Postgres(options) => {
                let link = options.prepare(schema).await?;
                Ok(self.connection(Link::Postgres(Box::new(link))))
            }
        }
    }

    /// Connects to what is there and makes nothing; none without a file.
    ///
    /// # Errors
    ///
    /// As [`Self::prepare`].
    pub(super) async fn look(&self) -> Result<Option<Connection>, Error> {
        let Kind::Sqlite(options) = &self.kind else {
            return Ok(Some(self.writer().await?));
        };
        if !options.is_there() {
            return Ok(None);
        }
        let mut connection = self.writer().await?;
        match mark_of(&mut connection).await? {
            Some(moved) => Err(Error::Moved { to: moved.to }),
            None => Ok(Some(connection)),
        }
    }

    /// Number of the newest migration that the database has; 0 without any,
    /// and for a file that is not there.
    pub(super) async fn version(&self) -> Result<i64, Error> {
        if let Kind::Sqlite(options) = &self.kind
            && !options.is_there()
        {
            return Ok(0);
        }
        let mut connection = self.writer().await?;
        if !connection.has_table("_sqlx_migrations").await? {
            return Ok(0);
        }
        let row = query(VERSION).fetch_one(&mut connection).await?;
        Ok(row.get("version")?)
    }

    /// A connection that can write, to a database that is there.
    pub(super) async fn writer(&self) -> Result<Connection, sqlx::Error> {
        match &self.kind {
            Kind::Sqlite(options) => Ok(self.connection(Link::Sqlite(options.writer().await?))),
            Kind::Postgres(options) => {
                let link = options.writer().await?;
                Ok(self.connection(Link::Postgres(Box::new(link))))
            }
        }
    }

    /// Connections that cannot write.
    pub(super) fn readers(&self) -> Pool {
        let readers = match &self.kind {
            Kind::Sqlite(options) => Readers::Sqlite(options.readers()),
            Kind::Postgres(options) => Readers::Postgres(options.readers()),
        };
        Pool {
            readers,
            clock: self.clock.clone(),
        }
    }

    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<DatabaseFile> {
        match &self.kind {
            Kind::Sqlite(options) => Some(DatabaseFile::new(options, &self.clock)),
            Kind::Postgres(_) => None,
        }
    }

    /// Removes what erased keys left behind beside the rows of a key ring:
    /// older pages in the write-ahead log, or dead rows.
    pub(super) async fn scrub_ring(&self) -> Result<(), sqlx::Error> {
        let scrub = match &self.kind {
            Kind::Sqlite(_) => sqlite::SCRUB,
            Kind::Postgres(_) => postgres::SCRUB_RING,
        };
        let mut connection = self.writer().await?;
        query(scrub).fetch_all(&mut connection).await?;
        connection.close().await
    }

    fn connection(&self, link: Link) -> Connection {
        Connection::new(link, self.clock.clone())
    }

    #[cfg(test)]
    pub(super) fn with_pages_at_most(mut self, pages: u32) -> Self {
        if let Kind::Sqlite(options) = &mut self.kind {
            options.bound_pages(pages);
        }
        self
    }
}

/// Connections that cannot write.
#[derive(Clone)]
pub(super) struct Pool {
    readers: Readers,
    clock: Clock,
}

#[derive(Clone)]
enum Readers {
    Sqlite(sqlx::SqlitePool),
    Postgres(sqlx::PgPool),
}

impl Pool {
    pub(super) async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        let link = match &self.readers {
            Readers::Sqlite(pool) => Link::SqliteReader(pool.acquire().await?),
            Readers::Postgres(pool) => Link::PostgresReader(pool.acquire().await?),
        };
        Ok(Connection::new(link, self.clock.clone()))
    }

    /// True where other nodes may work on the same database.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.readers, Readers::Postgres(_))
    }

    pub(super) async fn close(&self) {
        match &self.readers {
            Readers::Sqlite(pool) => pool.close().await,
            Readers::Postgres(pool) => pool.close().await,
        }
    }

    /// Hears what other nodes ring, where there can be other nodes.
    pub(super) async fn listener(&self) -> Result<Option<Listener>, sqlx::Error> {
        match &self.readers {
            Readers::Sqlite(_) => Ok(None),
            Readers::Postgres(pool) => Listener::start(pool.clone()).await.map(Some),
        }
    }
}

/// One connection, for writing or out of the pool of readers.
pub(super) struct Connection {
    link: Link,
    clock: Clock,
    now_ms: i64,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
    SqliteReader(PoolConnection<Sqlite>),
    PostgresReader(PoolConnection<Postgres>),
}

/// A connection as the drivers know it.
enum On<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection {
    fn new(link: Link, clock: Clock) -> Self {
        Self {
            link,
            now_ms: clock.now().as_millisecond(),
            clock,
        }
    }

    fn on(&mut self) -> On<'_> {
        match &mut self.link {
            Link::Sqlite(link) => On::Sqlite(link),
            Link::Postgres(link) => On::Postgres(link),
            Link::SqliteReader(link) => On::Sqlite(link),
            Link::PostgresReader(link) => On::Postgres(link),
        }
    }

    /// Starts a transaction that writes, and looks at the clock: the one of
    /// the database, where several nodes share it, so that they agree on
    /// which leases ran out. A clock that is moved by hand goes before.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let given = self.clock.by_hand();
        self.now_ms = match (self.on(), given) {
            (On::Sqlite(link), _) => {
                sqlx::raw_sql(sqlite::BEGIN).execute(link).await?;
                self.clock.now().as_millisecond()
            }
            (On::Postgres(link), given) => {
                sqlx::raw_sql(postgres::BEGIN).execute(&mut *link).await?;
                match given {
                    Some(given) => given.as_millisecond(),
                    None => postgres::now_ms(link).await?,
                }
            }
        };
        Ok(())
    }

    /// Starts a transaction that reads everything as of one moment, however
    /// long it takes and whatever others write meanwhile.
    pub(super) async fn begin_moment(&mut self) -> Result<(), sqlx::Error> {
        self.lift_time_limits().await?;
        self.run_raw(sqlite::BEGIN_MOMENT, postgres::BEGIN_MOMENT)
            .await
    }

    /// What the clock of the database shows; none where that is this machine's,
    /// or one that is moved by hand.
    pub(super) async fn clock_of_database(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        if self.clock.by_hand().is_some() {
            return Ok(None);
        }
        let ms = match self.on() {
            On::Sqlite(_) => return Ok(None),
            On::Postgres(link) => postgres::now_ms(link).await?,
        };
        Ok(Timestamp::from_millisecond(ms).ok())
    }

    /// When the transaction began, in unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// # Errors
    ///
    /// Also when a statement of the transaction failed and nobody said so:
    /// then nothing of it may count as written.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.run_raw("COMMIT", postgres::COMMIT).await
    }

    pub(super) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.run_raw("ROLLBACK", "ROLLBACK").await
    }

    async fn run_raw(
        &mut self,
        on_sqlite: &'static str,
        on_postgres: &'static str,
    ) -> Result<(), sqlx::Error> {
        match self.on() {
            On::Sqlite(link) => sqlx::raw_sql(on_sqlite).execute(link).await.map(drop),
            On::Postgres(link) => sqlx::raw_sql(on_postgres).execute(link).await.map(drop),
        }
    }

    /// Lets one transaction take as long as a whole database takes to copy. A
    /// server ends it soon after whoever copies is gone.
    pub(super) async fn lift_time_limits(&mut self) -> Result<(), sqlx::Error> {
        match self.on() {
            On::Sqlite(_) => Ok(()),
            On::Postgres(link) => postgres::lift_time_limits(link).await,
        }
    }

    /// True when there is a table with this name.
    pub(super) async fn has_table(&mut self, name: &str) -> Result<bool, sqlx::Error> {
        let text = match self.on() {
            On::Sqlite(_) => sqlite::HAS_TABLE,
            On::Postgres(_) => postgres::HAS_TABLE,
        };
        let row = query(text).bind(name).fetch_one(self).await?;
        row.get("found")
    }

    /// Every column of every table of ours, but those of the driver and the
    /// notes about copies: their names begin with `_`. Columns: `tab`, `col`,
    /// `kind`, and `key`, its place in the primary key or 0.
    pub(super) async fn columns(&mut self) -> Result<Vec<Row>, sqlx::Error> {
        let text = match self.on() {
            On::Sqlite(_) => sqlite::COLUMNS,
            On::Postgres(_) => postgres::COLUMNS,
        };
        query(text).fetch_all(self).await
    }

    /// True where other nodes may hold rows of this database right now.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.link, Link::Postgres(_) | Link::PostgresReader(_))
    }

    /// Asks for the `bytes` of the database.
    pub(super) fn size(&self) -> Query {
        query(match self.link {
            Link::Sqlite(_) | Link::SqliteReader(_) => sqlite::SIZE,
            Link::Postgres(_) | Link::PostgresReader(_) => postgres::SIZE,
        })
    }

    /// Ends a SELECT of rows that the same transaction will change, after the
    /// order in which to lock them. `SQLite` has one writer at a time.
    pub(super) fn row_lock(&self) -> &'static str {
        if self.is_shared() { " FOR UPDATE" } else { "" }
    }

    /// Ends a SELECT of rows that must stay as they are until the transaction
    /// ends.
    pub(super) fn share_lock(&self) -> &'static str {
        if self.is_shared() { " FOR SHARE" } else { "" }
    }

    /// Ends a SELECT of rows that nobody else is about to change.
    pub(super) fn free_row_lock(&self) -> &'static str {
        if self.is_shared() {
            " FOR UPDATE SKIP LOCKED"
        } else {
            ""
        }
    }

    /// Tells other nodes, once this transaction commits.
    pub(super) async fn notify(&mut self, text: String) -> Result<(), sqlx::Error> {
        if self.is_shared() {
            query(postgres::NOTIFY).bind(text).execute(self).await?;
        }
        Ok(())
    }

    /// Says goodbye to the database.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self.link {
            Link::Sqlite(link) => link.close().await,
            Link::Postgres(link) => link.close().await,
            Link::SqliteReader(link) => link.close().await,
            Link::PostgresReader(link) => link.close().await,
        }
    }

    /// Drops a connection whose state nobody knows.
    pub(super) async fn close_hard(self) -> Result<(), sqlx::Error> {
        match self.link {
            Link::Sqlite(link) => link.close_hard().await,
            Link::Postgres(link) => link.close_hard().await,
            Link::SqliteReader(link) => link.detach().close_hard().await,
            Link::PostgresReader(link) => link.detach().close_hard().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        let url: DatabaseUrl = "sqlite:data/gateway.db".parse().unwrap();
        assert_eq!(url.to_string(), "sqlite:data/gateway.db");
        let url: DatabaseUrl = "sqlite:///var/lib/gateway.db".parse().unwrap();
        assert_eq!(url.to_string(), "sqlite:/var/lib/gateway.db");
        for wrong in ["", "sqlite:", "sqlite::memory:", "mysql://h/db", "data.db"] {
            assert!(wrong.parse::<DatabaseUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_shown_without_user_and_password() {
        let url: DatabaseUrl = "postgres://sivi:geheim@db.example:5433/gateway"
            .parse()
            .unwrap();
        assert!(url.is_shared());
        assert_eq!(format!("{url:?}"), "postgres://db.example:5433/gateway");
    }
}

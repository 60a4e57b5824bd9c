//! `PostgreSQL`: a server that several nodes share.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, Row as _};

use super::{READERS, STATEMENTS_KEPT, Schema};
use crate::store::error::{Cause, Error};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/postgres");
static RING_MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/ring/postgres");

/// Writes the table anew, without dead rows.
pub(super) const SCRUB_RING: &str = "VACUUM (FULL) ring_key";

/// How long to wait for rows that another node holds: everything else waits
/// behind.
const LOCK: &str = "2s";
/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(3);
/// How long nodes that start together wait for the one that makes the tables.
const MIGRATE: Duration = Duration::from_mins(2);
/// Pause of a listener whose connection was lost.
const RELISTEN: Duration = Duration::from_millis(500);

/// Bytes of the database on the server.
pub(super) const SIZE: &str = "SELECT pg_database_size(current_database()) AS bytes";

/// READ COMMITTED whatever the server's default: what a transaction decides on
/// it locks or writes with a unique key.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// A transaction of which a statement failed answers COMMIT with a quiet
/// rollback; the statement before it fails aloud there. One round trip.
pub(super) const COMMIT: &str = "SELECT 1; COMMIT";
/// Its first query looks, and all that follow see the same.
pub(super) const BEGIN_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const NOW: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now";
/// 202 means on disk, whatever the server's default.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', FALSE)
    WHERE current_setting('synchronous_commit') = 'off'";
const FSYNC: &str = "SELECT current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS pages";
/// Settings of a session, where this version of the server has them. Nothing
/// ends it for being slow or idle, and it waits longer for others, since
/// nobody waits behind it; a client that vanished without a word is noticed
/// within two minutes.
const LIFT_TIME_LIMITS: &str = "SELECT set_config(name, wanted, FALSE) AS done
    FROM (VALUES ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
        ('transaction_timeout', '0'), ('lock_timeout', '20s'), ('tcp_keepalives_idle', '60'),
        ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '6')) AS wish (name, wanted)
    JOIN pg_settings USING (name)";

pub(super) const HAS_TABLE: &str = "SELECT to_regclass($1) IS NOT NULL AS found";
pub(super) const COLUMNS: &str = "SELECT CAST(c.table_name AS TEXT) AS tab,
    CAST(c.column_name AS TEXT) AS col, CAST(c.data_type AS TEXT) AS kind,
    CAST(COALESCE(k.ordinal_position, 0) AS BIGINT) AS key
    FROM information_schema.columns c
    LEFT JOIN information_schema.table_constraints p ON p.table_schema = c.table_schema
        AND p.table_name = c.table_name AND p.constraint_type = 'PRIMARY KEY'
    LEFT JOIN information_schema.key_column_usage k
        ON k.constraint_schema = p.constraint_schema AND k.constraint_name = p.constraint_name
        AND k.table_name = c.table_name AND k.column_name = c.column_name
    WHERE c.table_schema = current_schema() AND c.table_name NOT LIKE '\\_%'
    ORDER BY c.table_name, c.ordinal_position";

const CHANNEL: &str = "sivi_gateway";
/// Tells other nodes what was put in; heard after COMMIT.
pub(super) const NOTIFY: &str = "SELECT pg_notify('sivi_gateway', $1)";

/// How to connect.
#[derive(Clone)]
pub(super) struct Options {
    write: PgConnectOptions,
    read: PgConnectOptions,
}

impl Options {
    /// How to connect to this server.
    pub(super) fn new(options: &PgConnectOptions) -> Self {
        let options = options
            .clone()
            .application_name("sivi-gateway")
            .statement_cache_capacity(STATEMENTS_KEPT)
            .disable_statement_logging();
        Self {
            write: options.clone().options([
                ("lock_timeout", LOCK),
                ("statement_timeout", "60s"),
                // A node that hangs in the middle must not hold its rows.
                ("idle_in_transaction_session_timeout", "10s"),
            ]),
            read: options.options([
                ("default_transaction_read_only", "on"),
                ("statement_timeout", "60s"),
            ]),
        }
    }

    /// Brings the schema up to date. The driver takes an advisory lock of the
    /// database meanwhile, so that nodes that start together go one by one.
    pub(super) async fn prepare(&self, schema: Schema) -> Result<PgConnection, Error> {
        let migrations = match schema {
            Schema::Messages => &MIGRATIONS,
            Schema::Ring => &RING_MIGRATIONS,
        };
        let mut patient = self
            .write
            .clone()
            .options([("lock_timeout", "120s"), ("statement_timeout", "120s")]);
        patient = patient.disable_statement_logging();
        let mut link = connect(&patient).await?;
        let migrate = migrations.run_direct(None, &mut link, false);
        match tokio::time::timeout(MIGRATE, migrate).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return Err(super::sqlite::schema_error(cause)),
            Err(_) => return Err(Error::Unavailable(Cause::NoConnection)),
        }
        drop(link.close().await);
        let mut link = self.writer().await?;
        warn_of_a_careless_server(&mut link).await?;
        Ok(link)
    }

    pub(super) async fn writer(&self) -> Result<PgConnection, sqlx::Error> {
        let mut link = connect(&self.write).await?;
        sqlx::query(DURABLE).execute(&mut link).await?;
        Ok(link)
    }

    pub(super) fn readers(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(READERS)
            // A server that is away is asked again until then: short, so that
            // a sender is told to come back, and longer than a restart hiccup.
            .acquire_timeout(CONNECT)
            // A server that was restarted leaves dead connections behind.
            .test_before_acquire(true)
            .connect_lazy_with(self.read.clone())
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(link) => link,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// A server that does not write to disk breaks the promise of a 202, and only
/// its administrator can mend that.
async fn warn_of_a_careless_server(link: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::query(FSYNC).fetch_one(link).await?;
    for (column, setting) in [("fsync", "fsync"), ("pages", "full_page_writes")] {
        if row.try_get::<&str, _>(column)? == "off" {
            tracing::warn!(
                setting,
                "The database server runs with {setting} = off: a power cut can lose messages that were accepted"
            );
        }
    }
    Ok(())
}

pub(super) async fn lift_time_limits(link: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(LIFT_TIME_LIMITS).execute(link).await.map(drop)
}

/// The time of the server, in unix milliseconds.
pub(super) async fn now_ms(link: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query(NOW).fetch_one(link).await?.try_get("now")
}

/// Hears what other nodes put in. It holds one connection for as long as it
/// lives and connects again by itself.
pub(in crate::store) struct Listener {
    pool: PgPool,
    inner: Option<PgListener>,
}

/// What a listener heard.
pub(in crate::store) enum Heard {
    /// The text of one notification.
    Text(String),
    /// The connection was lost: anything may have been missed.
    Gap,
    /// The store was closed.
    End,
}

impl Listener {
    /// Listens from now on.
    pub(super) async fn start(pool: PgPool) -> Result<Self, sqlx::Error> {
        let mut listener = Self { pool, inner: None };
        listener.listen().await?;
        Ok(listener)
    }

    /// Waits for the next thing to hear.
    pub(in crate::store) async fn next(&mut self) -> Heard {
        loop {
            let Some(inner) = &mut self.inner else {
                match self.listen().await {
                    Ok(()) => return Heard::Gap,
                    Err(_) if self.pool.is_closed() => return Heard::End,
                    Err(_) => tokio::time::sleep(RELISTEN).await,
                }
                continue;
            };
            match inner.try_recv().await {
                Ok(Some(heard)) => return Heard::Text(heard.payload().to_owned()),
                _ if self.pool.is_closed() => return Heard::End,
                Ok(None) | Err(_) => self.inner = None,
            }
        }
    }

    async fn listen(&mut self) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        self.inner = Some(listener);
        Ok(())
    }
}

//! API keys: hashes and dates. The key itself is never here.

use jiff::Timestamp;

use super::Store;
use super::backend::{Connection, Row, query};
use super::error::Error;
use super::sql::{Columnar as _, blob, ms};
use super::writer::Change;
use crate::domain::{KeyedHash, PartyId};

/// One API key of a party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Id by which it is listed and revoked; not secret.
    pub id: String,
    /// Whose it is.
    pub party: PartyId,
    /// Keyed hash of the key.
    pub hash: KeyedHash,
    /// When it was issued.
    pub created_at: Timestamp,
    /// From when it no longer counts.
    pub expires_at: Option<Timestamp>,
    /// Since when it no longer counts.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, about.
    pub last_used_at: Option<Timestamp>,
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeys {
    /// Those that can be read.
    pub readable: Vec<ApiKey>,
    /// The ids of the others: damaged, or written by a newer version. They do
    /// not count.
    pub unreadable: Vec<String>,
}

const LIST: &str = "SELECT id, party, hash, created_at, expires_at, revoked_at, last_used_at
    FROM api_key ORDER BY party, created_at, id";
const INSERT: &str = "INSERT INTO api_key (id, party, hash, created_at, expires_at, revoked_at,
    last_used_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const REVOKE: &str = "UPDATE api_key SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
const EXISTS: &str = "SELECT id FROM api_key WHERE id = $1";
const TOUCH: &str = "UPDATE api_key SET last_used_at = $1
    WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)";
const RAISE_VERSION: &str = "UPDATE revision SET api_keys = api_keys + 1 WHERE id = 1";

impl Store {
    /// Every key, also expired and revoked ones.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn api_keys(&self) -> Result<ApiKeys, Error> {
        let mut connection = self.reader().await?;
        let rows = query(LIST).fetch_all(&mut connection).await?;
        let mut keys = ApiKeys::default();
        for row in &rows {
            match read(row) {
                Ok(key) => keys.readable.push(key),
                Err(_) => keys.unreadable.push(row.value("id")?),
            }
        }
        Ok(keys)
    }

    /// Adds a key.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], also for an id or a hash that is there already.
    pub async fn insert_api_key(&self, key: ApiKey) -> Result<(), Error> {
        self.writer().write(KeyChange::Insert(key)).await.map(drop)
    }

    /// Revokes a key; true also when it was revoked before, false when there
    /// is none with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn revoke_api_key(&self, id: &str, now: Timestamp) -> Result<bool, Error> {
        let change = KeyChange::Revoke {
            id: id.to_owned(),
            at: ms(now),
        };
        self.writer().write(change).await
    }

    /// Notes when keys were last used; ids that are gone do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn touch_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), Error> {
        if used.is_empty() {
            return Ok(());
        }
        self.writer().write(KeyChange::Touch(used)).await.map(drop)
    }
}

fn read(row: &Row) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: row.value("id")?,
        party: row.word("party", |text| PartyId::parse(text).ok())?,
        hash: row.hash("hash")?,
        created_at: row.moment("created_at")?,
        expires_at: row.moment_or_none("expires_at")?,
        revoked_at: row.moment_or_none("revoked_at")?,
        last_used_at: row.moment_or_none("last_used_at")?,
    })
}

enum KeyChange {
    Insert(ApiKey),
    Revoke { id: String, at: i64 },
    Touch(Vec<(String, Timestamp)>),
}

impl Change for KeyChange {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        match self {
            Self::Insert(key) => insert(connection, key).await?,
            Self::Revoke { id, at } => return revoke(connection, id, *at).await,
            Self::Touch(used) => {
                for (id, at) in used {
                    let touch = query(TOUCH).bind(ms(*at)).bind(id);
                    touch.execute(&mut *connection).await?;
                }
            }
        }
        Ok(true)
    }
}

async fn insert(connection: &mut Connection, key: &ApiKey) -> Result<(), sqlx::Error> {
    query(INSERT)
        .bind(&key.id)
        .bind(key.party.as_str())
        .bind(blob(&key.hash))
        .bind(ms(key.created_at))
        .bind(key.expires_at.map(ms))
        .bind(key.revoked_at.map(ms))
        .bind(key.last_used_at.map(ms))
        .execute(&mut *connection)
        .await?;
    query(RAISE_VERSION).execute(connection).await?;
    Ok(())
}

async fn revoke(connection: &mut Connection, id: &str, at: i64) -> Result<bool, sqlx::Error> {
    let revoke = query(REVOKE).bind(at).bind(id);
    if revoke.execute(&mut *connection).await? > 0 {
        query(RAISE_VERSION).execute(connection).await?;
        return Ok(true);
    }
    let row = query(EXISTS).bind(id).fetch_optional(connection).await?;
    Ok(row.is_some())
}

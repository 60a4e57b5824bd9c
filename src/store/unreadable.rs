//! What a destroyed key leaves behind: values that nobody can open. They are
//! removed, so that they stand in nobody's way.
//!
//! An unfinished release goes with its content: it is a dead letter in the same
//! transaction, so that every message stays in exactly one state.

use std::ops::Add;

use super::backend::{Connection, Row, query};
use super::marks::unmark;
use super::parked::drop_parts;
use super::sql;
use super::writer::Change;
use crate::domain::TenantId;
use crate::seal::header_of;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Messages to receivers.
    pub payloads: u64,
    /// Parked parts.
    pub parked: u64,
    /// Entries of the ledger.
    pub entries: u64,
}

impl Add for Removed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            payloads: self.payloads + other.payloads,
            parked: self.parked + other.parked,
            entries: self.entries + other.entries,
        }
    }
}

/// How a sealed value begins, which names its key.
pub(super) type Header = [u8; 5];

const PAYLOADS: &str = "DELETE FROM payload WHERE SUBSTR(sealed, 1, 5) = $1";
const ENTRIES: &str = "DELETE FROM ledger WHERE SUBSTR(sealed, 1, 5) = $1";
const BURY: &str = "UPDATE delivery SET state = 'dead', lease = NULL, finished_at = $1
    WHERE finished_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id)";
const PARTS: &str = "SELECT id, message_id FROM parked WHERE SUBSTR(sealed, 1, 5) = $1";

/// Removes everything that these keys sealed, and then their marks.
pub(super) struct RemoveSealed {
    pub(super) keys: Vec<u32>,
    pub(super) now: i64,
}

impl Change for RemoveSealed {
    type Output = Removed;

    async fn run(&self, connection: &mut Connection) -> Result<Removed, sqlx::Error> {
        let mut removed = Removed::default();
        for number in &self.keys {
            let header = header_of(*number).to_vec();
            for (statement, count) in [
                (PAYLOADS, &mut removed.payloads),
                (ENTRIES, &mut removed.entries),
            ] {
                let done = query(statement)
                    .bind(header.clone())
                    .execute(&mut *connection)
                    .await?;
                *count += done;
            }
            let parts = query(PARTS)
                .bind(header)
                .fetch_all(&mut *connection)
                .await?;
            removed.parked += drop_parts(connection, &parts, self.now).await?;
            unmark(connection, *number).await?;
        }
        bury(connection, self.now).await?;
        Ok(removed)
    }
}

/// Gives up what has no content any more.
async fn bury(connection: &mut Connection, now: i64) -> Result<(), sqlx::Error> {
    query(BURY).bind(now).execute(connection).await.map(drop)
}

const PAYLOADS_OF: &str = "SELECT delivery_id, SUBSTR(sealed, 1, 5) AS header
    FROM payload JOIN delivery ON id = delivery_id WHERE tenant = $1";
const PARTS_OF: &str = "SELECT id, message_id, SUBSTR(sealed, 1, 5) AS header
    FROM parked WHERE tenant = $1";

/// Removes what is a tenant's and was sealed with none of these keys: also
/// what was sealed before the tenant had a key of its own.
pub(super) struct RemoveOthers {
    pub(super) tenant: TenantId,
    pub(super) keep: Vec<Header>,
    pub(super) now: i64,
}

impl RemoveOthers {
    async fn unkept(
        &self,
        connection: &mut Connection,
        statement: &'static str,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = query(statement)
            .bind(self.tenant.as_str().to_owned())
            .fetch_all(connection)
            .await?;
        let mut unkept = Vec::new();
        for row in rows {
            let header: &[u8] = row.get("header")?;
            if !self.keep.iter().any(|kept| kept == header) {
                unkept.push(row);
            }
        }
        Ok(unkept)
    }
}

impl Change for RemoveOthers {
    type Output = Removed;

    async fn run(&self, connection: &mut Connection) -> Result<Removed, sqlx::Error> {
        let payloads = self.unkept(connection, PAYLOADS_OF).await?;
        let ids: Result<Vec<String>, _> =
            payloads.iter().map(|row| row.get("delivery_id")).collect();
        let parts = self.unkept(connection, PARTS_OF).await?;
        let payloads = sql::change_in(
            connection,
            "DELETE FROM payload WHERE delivery_id IN",
            &ids?,
        )
        .await?;
        bury(connection, self.now).await?;
        Ok(Removed {
            payloads,
            parked: drop_parts(connection, &parts, self.now).await?,
            entries: 0,
        })
    }
}

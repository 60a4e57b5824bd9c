//! What a destroyed key leaves behind: values that nobody can open. They are
//! removed, so that they stand in nobody's way.
//!
//! An unfinished release goes with its content: it is a dead letter in the same
//! transaction, so that every message stays in exactly one state, and its row
//! says why (code [`UNREADABLE`]). Releases go in steps, so that receipt goes on
//! in between; the mark of a key goes last, so that what was interrupted is
//! found again.

use std::ops::Add;

use super::Store;
use super::backend::{Connection, Query, Row, query};
use super::error::Error;
use super::inbox::UNREADABLE;
use super::marks::unmark;
use super::parked::drop_parts;
use super::sql::{self, Columnar as _, ms};
use super::writer::Change;
use crate::domain::TenantId;
use crate::seal::{header_of, number_of};

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

impl Removed {
    /// The greater of each count.
    pub(super) fn at_least(self, other: Self) -> Self {
        Self {
            payloads: self.payloads.max(other.payloads),
            parked: self.parked.max(other.parked),
            entries: self.entries.max(other.entries),
        }
    }
}

/// How a sealed value begins, which names its key.
pub(super) type Header = [u8; 5];

/// What stays when the rest of a tenant goes.
pub(super) struct Kept {
    /// What these keys sealed.
    pub(super) headers: Vec<Header>,
    /// And what keys with higher numbers sealed: they were made since.
    pub(super) newest: u32,
}

/// Rows that one look reads and one transaction changes.
const STEP: i64 = 200;

const PAYLOADS: &str = "SELECT delivery_id FROM payload
    WHERE SUBSTR(sealed, 1, 5) = $1 AND delivery_id > $2 ORDER BY delivery_id LIMIT $3";
const PAYLOADS_OF: &str = "SELECT delivery_id, SUBSTR(sealed, 1, 5) AS header
    FROM payload JOIN delivery ON id = delivery_id
    WHERE tenant = $1 AND delivery_id > $2 ORDER BY delivery_id LIMIT $3";
const PARTS_OF: &str = "SELECT id, message_id, SUBSTR(sealed, 1, 5) AS header
    FROM parked WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
/// Those that were given up without a word, as versions before this one did.
const SPEECHLESS: &str = "SELECT id FROM delivery
    WHERE state = 'dead' AND rejection IS NULL AND id > $1
    AND NOT EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id)
    ORDER BY id LIMIT $2";

const COUNT: &str = "SELECT
    (SELECT COUNT(*) FROM payload WHERE SUBSTR(sealed, 1, 5) = $1) AS payloads,
    (SELECT COUNT(*) FROM parked WHERE SUBSTR(sealed, 1, 5) = $1) AS parts,
    (SELECT COUNT(*) FROM ledger WHERE SUBSTR(sealed, 1, 5) = $1) AS entries";

impl Store {
    /// What these keys sealed and is still here.
    pub(super) async fn sealed_by(&self, keys: &[u32]) -> Result<Removed, Error> {
        let mut found = Removed::default();
        for key in keys {
            let count = query(COUNT).bind(header_of(*key).to_vec());
            let row = count.fetch_one(&mut self.reader().await?).await?;
            let number = |column: &str| row.value::<i64>(column).map(i64::unsigned_abs);
            found = found
                + Removed {
                    payloads: number("payloads")?,
                    parked: number("parts")?,
                    entries: number("entries")?,
                };
        }
        Ok(found)
    }

    /// Removes everything that these keys sealed, and then their marks.
    pub(super) async fn remove_sealed(&self, keys: Vec<u32>) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for key in keys {
            let mut is_over = false;
            while !is_over {
                removed.payloads += self.remove_payloads(key).await?;
                let mut is_empty = false;
                while !is_empty {
                    let now = ms(self.clock().now());
                    let rest = self.writer().write(RemoveRest { key, now }).await?;
                    (is_empty, is_over) = (rest.is_empty, rest.is_over);
                    removed = removed + rest.removed;
                }
            }
        }
        self.give_reasons().await?;
        Ok(removed)
    }

    /// Removes what is a tenant's and was sealed with none of these keys: also
    /// what was sealed before the tenant had a key of its own.
    pub(super) async fn remove_others(
        &self,
        tenant: &TenantId,
        keep: Kept,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        let mut after = String::new();
        loop {
            let page = query(PAYLOADS_OF).bind(tenant.as_str());
            let rows = self.page(page, "delivery_id", &mut after).await?;
            if rows.is_empty() {
                break;
            }
            let ids = ids(&unkept(rows, &keep)?, "delivery_id")?;
            removed.payloads += self.bury(ids).await?;
        }
        removed.parked = self.remove_parts(tenant, &keep).await?;
        self.give_reasons().await?;
        Ok(removed)
    }

    async fn remove_parts(&self, tenant: &TenantId, keep: &Kept) -> Result<u64, Error> {
        let mut removed = 0;
        let mut after = String::new();
        loop {
            let page = query(PARTS_OF).bind(tenant.as_str());
            let rows = self.page(page, "id", &mut after).await?;
            if rows.is_empty() {
                return Ok(removed);
            }
            let parts = unkept(rows, keep)?;
            let now = ms(self.clock().now());
            removed += self.writer().write(RemoveParts { parts, now }).await?;
        }
    }

    async fn remove_payloads(&self, key: u32) -> Result<u64, Error> {
        let mut removed = 0;
        let mut after = String::new();
        loop {
            let page = query(PAYLOADS).bind(header_of(key).to_vec());
            let rows = self.page(page, "delivery_id", &mut after).await?;
            if rows.is_empty() {
                return Ok(removed);
            }
            removed += self.bury(ids(&rows, "delivery_id")?).await?;
        }
    }

    /// The next step of rows behind `after`, in the order of the column `id`;
    /// `after` moves along. The statement ends with both of them.
    async fn page(
        &self,
        statement: Query,
        id: &str,
        after: &mut String,
    ) -> Result<Vec<Row>, Error> {
        let page = statement.bind(&*after).bind(STEP);
        let rows = page.fetch_all(&mut self.reader().await?).await?;
        if let Some(last) = rows.last() {
            *after = last.value(id)?;
        }
        Ok(rows)
    }

    /// Says of every release without content that was given up without a word
    /// why it was.
    async fn give_reasons(&self) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let rows = self.page(query(SPEECHLESS), "id", &mut after).await?;
            if rows.is_empty() {
                return Ok(());
            }
            self.bury(ids(&rows, "id")?).await?;
        }
    }

    /// Removes the content of these releases and gives up what of them is
    /// unfinished; says how many had content.
    async fn bury(&self, ids: Vec<String>) -> Result<u64, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let rejections = ids
            .into_iter()
            .map(|id| Ok((self.sealed_rejection(&id, UNREADABLE, "")?, id)))
            .collect::<Result<Vec<_>, Error>>()?;
        let now = ms(self.clock().now());
        self.writer().write(Bury { rejections, now }).await
    }
}

fn ids(rows: &[Row], column: &str) -> Result<Vec<String>, Error> {
    rows.iter().map(|row| row.value(column)).collect()
}

/// Those whose `header` is not kept.
fn unkept(rows: Vec<Row>, keep: &Kept) -> Result<Vec<Row>, sqlx::Error> {
    let mut unkept = Vec::new();
    for row in rows {
        let header: &[u8] = row.get("header")?;
        let is_newer = number_of(header).is_some_and(|number| number > keep.newest);
        if !is_newer && !keep.headers.iter().any(|kept| kept == header) {
            unkept.push(row);
        }
    }
    Ok(unkept)
}

/// Removes the content of releases, each with what its row says then.
struct Bury {
    rejections: Vec<(Vec<u8>, String)>,
    now: i64,
}

const BURY: &str = "UPDATE delivery SET state = 'dead', lease = NULL,
    finished_at = COALESCE(finished_at, $1), rejection = $2
    WHERE id = $3 AND (finished_at IS NULL OR (state = 'dead' AND rejection IS NULL))";

impl Change for Bury {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        let ids: Vec<&str> = self.rejections.iter().map(|(_, id)| id.as_str()).collect();
        let removed =
            sql::change_in(connection, "DELETE FROM payload WHERE delivery_id IN", &ids).await?;
        for (rejection, id) in &self.rejections {
            query(BURY)
                .bind(self.now)
                .bind(rejection)
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        Ok(removed)
    }
}

/// Removes a step of what else a key sealed, and its mark once nothing is left.
struct RemoveRest {
    key: u32,
    now: i64,
}

struct Rest {
    removed: Removed,
    /// Nothing was found but releases, perhaps.
    is_empty: bool,
    /// Nothing is left at all.
    is_over: bool,
}

const ENTRIES: &str = "DELETE FROM ledger WHERE entry IN
    (SELECT entry FROM ledger WHERE SUBSTR(sealed, 1, 5) = $1 LIMIT $2)";
const PARTS: &str = "SELECT id, message_id FROM parked WHERE SUBSTR(sealed, 1, 5) = $1 LIMIT $2";
const ANY_PAYLOAD: &str = "SELECT 1 AS one FROM payload WHERE SUBSTR(sealed, 1, 5) = $1 LIMIT 1";

impl Change for RemoveRest {
    type Output = Rest;

    async fn run(&self, connection: &mut Connection) -> Result<Rest, sqlx::Error> {
        let header = header_of(self.key).to_vec();
        let entries = query(ENTRIES)
            .bind(header.clone())
            .bind(STEP)
            .execute(&mut *connection)
            .await?;
        let parts = query(PARTS)
            .bind(header.clone())
            .bind(STEP)
            .fetch_all(&mut *connection)
            .await?;
        let parked = drop_parts(connection, &parts, self.now).await?;
        let is_empty = entries == 0 && parts.is_empty();
        // The whole table is read for this, so last and once.
        let mut is_over = false;
        if is_empty {
            let left = query(ANY_PAYLOAD).bind(header);
            is_over = left.fetch_optional(&mut *connection).await?.is_none();
        }
        if is_over {
            unmark(connection, self.key).await?;
        }
        Ok(Rest {
            removed: Removed {
                payloads: 0,
                parked,
                entries,
            },
            is_empty,
            is_over,
        })
    }
}

/// Removes these parked parts.
struct RemoveParts {
    parts: Vec<Row>,
    now: i64,
}

impl Change for RemoveParts {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        drop_parts(connection, &self.parts, self.now).await
    }
}

//! The feed: what an inbox holds, read by number, as often as its receiver
//! likes. Reading changes nothing.
//!
//! A reader goes on behind the last number of a page and stops at an empty
//! one, so a page is empty at the end of the inbox only.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Store;
use super::backend::{Row, query};
use super::error::Error;
use super::inbox::{earlier, tenant};
use super::sql::{self, Columnar as _, ms};
use crate::domain::{PartyId, TenantId};

/// How many pages are looked through for one release that opens.
const PAGES: usize = 16;
/// Fewest rows of such a page, after the first.
const AHEAD: usize = 64;

/// One release as the read-only feed shows it.
pub struct FeedItem {
    /// Opaque id.
    pub id: String,
    /// Place in the inbox; the next page starts after it.
    pub sequence: i64,
    /// Name of the message.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// Whose employees it is about.
    pub tenant: TenantId,
    /// True for test traffic.
    pub test: bool,
    /// When the message behind it came in.
    pub received_at: Timestamp,
    /// The message, UTF-8.
    pub xml: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FeedItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedItem({} at {})", self.id, self.sequence)
    }
}

/// A release whose content is gone, as with a destroyed key, is in no page.
const FEED: &str = "SELECT id, sequence, message_type, edition, tenant, test, received_at, bytes
    FROM delivery JOIN payload ON delivery_id = id
    WHERE party = $1 AND test = $2 AND sequence > $3
    AND (finished_at IS NULL OR finished_at >= $4) ORDER BY sequence LIMIT $5";

impl Store {
    /// Up to `limit` releases after number `after`, finished ones too until
    /// `replay` after they were; changes nothing. Pages end after 16 MiB, and
    /// none is empty unless nothing comes after it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`]. A release that does not open is left out;
    /// [`Error::Damaged`] when a thousand and more in a row do not.
    /// [`Error::WrongKeys`] in front of one whose key this ring lacks: it can
    /// be read once the ring is the right one.
    pub async fn feed(
        &self,
        party: &PartyId,
        test: bool,
        after: i64,
        limit: usize,
        now: Timestamp,
        replay: Duration,
    ) -> Result<Vec<FeedItem>, Error> {
        let mut page = Page {
            party,
            test,
            after,
            limit,
            since: ms(earlier(now, replay)),
        };
        for _ in 0..PAGES {
            let rows = self.rows_of(&page).await?;
            let Some(last) = rows.last() else {
                return Ok(Vec::new());
            };
            page.after = last.value("sequence")?;
            let mut items = self.open_rows(&rows).await?;
            if !items.is_empty() {
                items.truncate(limit);
                return Ok(items);
            }
            page.limit = limit.max(AHEAD);
        }
        Err(Error::Damaged { what: "payload" })
    }

    async fn rows_of(&self, page: &Page<'_>) -> Result<Vec<Row>, Error> {
        let mut connection = self.reader().await?;
        let mut rows = query(FEED)
            .bind(page.party.as_str())
            .bind(page.test)
            .bind(page.after)
            .bind(page.since)
            .bind(i64::try_from(page.limit.min(sql::LIST_MAX)).unwrap_or(0))
            .fetch_all(&mut connection)
            .await?;
        drop(connection);
        sql::cut_to_answer(&mut rows)?;
        Ok(rows)
    }

    /// Those that open, up to one whose key is not known here.
    async fn open_rows(&self, rows: &[Row]) -> Result<Vec<FeedItem>, Error> {
        let mut payloads = self.payloads(rows).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.value("id")?;
            let Some(xml) = payloads.open.remove(&id) else {
                if !payloads.keyless.contains(&id) {
                    continue;
                }
                if items.is_empty() {
                    return Err(Error::WrongKeys);
                }
                break;
            };
            items.push(FeedItem {
                id,
                sequence: row.value("sequence")?,
                message_type: row.value("message_type")?,
                edition: row.value("edition")?,
                tenant: tenant(row)?,
                test: row.value("test")?,
                received_at: row.moment("received_at")?,
                xml,
            });
        }
        Ok(items)
    }
}

/// Which rows are read next.
struct Page<'p> {
    party: &'p PartyId,
    test: bool,
    after: i64,
    limit: usize,
    /// What was finished before, in unix milliseconds, is not shown.
    since: i64,
}

//! Inboxes: what each receiving party has to take over, in order.
//!
//! Production and test traffic of a party are two inboxes. This module hands
//! out what policy released and knows nothing of its content; [`super::lease`]
//! holds the rules of order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Store;
use super::acceptance::payload_place;
use super::backend::{Row, query};
use super::details::OpenDetails;
use super::error::Error;
use super::lease::{Acknowledge, Due, Fenced, Lease, Reports, Taken, Then, WithLease};
use super::ring::Unopened;
use super::sql::{self, Columnar as _, blob, ms};
use crate::domain::{Domain, KeyedHash, PartyId, TenantId};
use crate::seal::{self, Place, Scope, SealError};

/// Code of a release that was given up because it does not open.
pub const UNREADABLE: &str = "unreadable";

/// One release in the hands of its receiver, for a while.
pub struct Leased {
    /// Opaque id.
    pub id: String,
    /// Proves that this answer holds it; the same for all of one answer.
    pub lease: String,
    /// Place in the inbox; grows, with gaps.
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
    /// How many times it was handed out, this time included.
    pub attempt: u32,
    /// Until when nobody else gets it.
    pub lease_until: Timestamp,
    /// The message, UTF-8.
    pub xml: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leased({} at {})", self.id, self.sequence)
    }
}

/// A release that is handed out again.
pub struct Payload {
    /// Name of the message.
    pub message_type: String,
    /// Edition that it is written in.
    pub edition: String,
    /// Whose employees it is about.
    pub tenant: TenantId,
    /// True for test traffic.
    pub test: bool,
    /// The message, UTF-8.
    pub xml: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload of {}", self.tenant)
    }
}

/// What an acknowledgement did, each list in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Taken over, now or before.
    pub acknowledged: Vec<String>,
    /// Not this party's, never handed out, or no longer under that lease.
    pub unknown: Vec<String>,
}

/// Why a leased release was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboxError {
    /// No such release of this party.
    Unknown,
    /// The lease is not the current one; somebody else may hold it.
    LeaseLost,
    /// The store failed.
    Store(Error),
}

impl fmt::Display for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such message for this party"),
            Self::LeaseLost => f.write_str("the lease is not the current one"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for InboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(cause) => Some(cause),
            Self::Unknown | Self::LeaseLost => None,
        }
    }
}

impl From<Error> for InboxError {
    fn from(cause: Error) -> Self {
        Self::Store(cause)
    }
}

/// The release that a Retourmelding is about.
#[derive(Clone)]
pub struct ReleaseRef {
    /// The release.
    pub id: String,
    /// The message behind it.
    pub message_id: String,
    /// Whose employees it is about.
    pub tenant: TenantId,
    /// Domain of the route it went over.
    pub domain: Domain,
    /// Who sent the message behind it.
    pub sender: PartyId,
    /// The reference of the message behind it.
    pub reference: String,
    /// False when its sender may not learn whether anything of it passed.
    pub shown: bool,
    /// True for test traffic.
    pub test: bool,
}

impl fmt::Debug for ReleaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseRef({})", self.id)
    }
}

const ANYTHING: &str = "SELECT 1 AS one FROM delivery
    WHERE party = $1 AND test = $2 AND finished_at IS NULL LIMIT 1";
const PAYLOADS: &str = "SELECT delivery_id, sealed FROM payload WHERE delivery_id IN";
const PAYLOAD: &str = "SELECT id, message_type, edition, tenant, test, sealed
    FROM delivery JOIN payload ON delivery_id = id
    WHERE id = $1 AND party = $2 AND (finished_at IS NULL OR finished_at >= $3)";
const RELEASE_BY_BERREFNR: &str = "SELECT delivery.id AS id, message_id, tenant, domain,
    delivery.test AS test, message.party AS sender, shown, details
    FROM delivery JOIN message ON message.id = message_id
    WHERE delivery.berrefnr = $1 AND delivery.party = $2 ORDER BY sequence DESC LIMIT 1";

impl Store {
    /// Hands out up to `limit` releases, oldest first, and hides them for
    /// `ttl`. Order per case holds over all answers. Messages of more than
    /// 16 MiB together come in several answers.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]. A release that does not
    /// open is given up (code [`UNREADABLE`]) and reported in the log, so
    /// that it does not stop the rest.
    pub async fn lease(
        &self,
        party: &PartyId,
        test: bool,
        limit: usize,
        ttl: Duration,
    ) -> Result<Vec<Leased>, Error> {
        if limit == 0 || !self.has_anything(party, test).await? {
            return Ok(Vec::new());
        }
        let request = Lease {
            party: party.to_string(),
            test,
            limit: limit.min(sql::LIST_MAX),
            token: new_token(),
            ttl_ms: in_ms(ttl),
            // Whoever asks for its messages need not wait for a retry.
            due: Due::Any,
            reports: Reports::Together,
        };
        let lease = request.token.clone();
        let taken = self.writer().write(request).await?;
        self.open_leased(party, test, &lease, &taken).await
    }

    /// The releases that a lease took; one that does not open is given up.
    pub(super) async fn open_leased(
        &self,
        party: &PartyId,
        test: bool,
        lease: &str,
        taken: &Taken,
    ) -> Result<Vec<Leased>, Error> {
        let mut payloads = self.payloads(&taken.rows).await?;
        let mut leased = Vec::with_capacity(taken.rows.len());
        for row in &taken.rows {
            let id: String = row.value("id")?;
            let Some(xml) = payloads.open.remove(&id) else {
                if !payloads.keyless.contains(&id) {
                    self.give_up(party, &id, lease).await?;
                }
                continue;
            };
            leased.push(Leased {
                id,
                lease: lease.to_owned(),
                sequence: row.value("sequence")?,
                message_type: row.value("message_type")?,
                edition: row.value("edition")?,
                tenant: tenant(row)?,
                test,
                received_at: row.moment("received_at")?,
                attempt: u32::try_from(row.value::<i64>("attempt")? + 1).unwrap_or(u32::MAX),
                lease_until: moment(taken.until)?,
                xml,
            });
        }
        Ok(leased)
    }

    /// A cheap look before a lease, which would wait for the writer.
    async fn has_anything(&self, party: &PartyId, test: bool) -> Result<bool, Error> {
        let mut connection = self.reader().await?;
        let row = query(ANYTHING)
            .bind(party.as_str())
            .bind(test)
            .fetch_optional(&mut connection)
            .await?;
        Ok(row.is_some())
    }

    /// The payloads of `rows`; one that does not open is left out.
    pub(super) async fn payloads(&self, rows: &[Row]) -> Result<Payloads, Error> {
        let ids: Result<Vec<String>, Error> = rows.iter().map(|row| row.value("id")).collect();
        let mut connection = self.reader().await?;
        let sealed = sql::select_in(&mut connection, PAYLOADS, &ids?, "").await?;
        drop(connection);
        let mut payloads = Payloads::default();
        for row in &sealed {
            let id: String = row.value("delivery_id")?;
            let place = payload_place(&id);
            match self.ring().unseal(place, row.value("sealed")?).await {
                Ok(xml) => {
                    payloads.open.insert(id, xml);
                }
                Err(Unopened::Sealed(SealError::KeyUnknown { number })) => {
                    tracing::error!(
                        release.id = %id,
                        "Release {id} waits: the key ring does not hold key {number}"
                    );
                    payloads.keyless.insert(id);
                }
                Err(Unopened::Sealed(_)) => {}
                Err(Unopened::Store(cause)) => return Err(cause),
            }
        }
        Ok(payloads)
    }

    async fn give_up(&self, party: &PartyId, id: &str, token: &str) -> Result<(), Error> {
        tracing::error!(release.id = %id, "Release {id} does not open and was given up");
        match self.reject(party, id, token, UNREADABLE, "").await {
            Ok(()) | Err(InboxError::Unknown | InboxError::LeaseLost) => Ok(()),
            Err(InboxError::Store(cause)) => Err(cause),
        }
    }

    /// Takes over releases: pairs of id and, if the receiver kept it, lease.
    /// With a lease only the current one counts; without, that the release
    /// was ever handed to this party. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; then nothing was taken
    /// over for certain.
    pub async fn ack(
        &self,
        party: &PartyId,
        items: &[(String, Option<String>)],
    ) -> Result<Acked, Error> {
        if items.is_empty() {
            return Ok(Acked::default());
        }
        let acknowledge = Acknowledge {
            party: party.to_string(),
            items: items.to_vec(),
        };
        let outcome = self.writer().write(acknowledge).await?;
        let ids = items.iter().map(|(id, _)| id.clone());
        let (acknowledged, unknown) = ids.partition(|id| outcome.counted.contains(id));
        Ok(Acked {
            acknowledged,
            unknown,
        })
    }

    /// Gives a leased release up; later ones of its case go on. Code and
    /// reason are kept sealed.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub async fn reject(
        &self,
        party: &PartyId,
        id: &str,
        lease: &str,
        code: &str,
        reason: &str,
    ) -> Result<(), InboxError> {
        let then = Then::Bury {
            rejection: self.sealed_rejection(id, code, reason)?,
        };
        self.with_lease(party, id, lease, then).await?;
        Ok(())
    }

    /// Why a release was given up, as its row holds it.
    pub(super) fn sealed_rejection(
        &self,
        id: &str,
        code: &str,
        reason: &str,
    ) -> Result<Vec<u8>, Error> {
        let plain = Zeroizing::new(json!({ "code": code, "reason": reason }).to_string());
        let place = Place {
            table: "delivery",
            row: id.as_bytes(),
            column: "rejection",
        };
        let sealed = self
            .keys()
            .seal(Scope::Installation, place, plain.as_bytes());
        Ok(sealed?)
    }

    /// Holds a leased release for `ttl` from now, and says until when.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub async fn extend(
        &self,
        party: &PartyId,
        id: &str,
        lease: &str,
        ttl: Duration,
    ) -> Result<Timestamp, InboxError> {
        let ttl_ms = in_ms(ttl);
        let then = Then::Extend { ttl_ms };
        let at = self.with_lease(party, id, lease, then).await?;
        Ok(moment(at.saturating_add(ttl_ms))?)
    }

    /// Makes a change that needs the current lease, and says when it was made.
    async fn with_lease(
        &self,
        party: &PartyId,
        id: &str,
        lease: &str,
        then: Then,
    ) -> Result<i64, InboxError> {
        let change = WithLease {
            party: party.to_string(),
            id: id.to_owned(),
            token: lease.to_owned(),
            then,
        };
        match self.writer().write(change).await? {
            Fenced::Done { at, .. } => Ok(at),
            Fenced::Unknown => Err(InboxError::Unknown),
            Fenced::LeaseLost => Err(InboxError::LeaseLost),
        }
    }

    /// A release of this party again, until `replay` after it was taken over
    /// or given up.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn payload(
        &self,
        party: &PartyId,
        id: &str,
        now: Timestamp,
        replay: Duration,
    ) -> Result<Option<Payload>, Error> {
        let mut connection = self.reader().await?;
        let row = query(PAYLOAD)
            .bind(id)
            .bind(party.as_str())
            .bind(ms(earlier(now, replay)))
            .fetch_optional(&mut connection)
            .await?;
        drop(connection);
        let Some(row) = row else { return Ok(None) };
        let place = payload_place(id);
        let xml = match self.ring().unseal(place, row.value("sealed")?).await {
            Ok(xml) => xml,
            Err(cause) if cause.is_destroyed() => return Ok(None),
            Err(cause) => return Err(cause.damaged("payload")),
        };
        Ok(Some(Payload {
            message_type: row.value("message_type")?,
            edition: row.value("edition")?,
            tenant: tenant(&row)?,
            test: row.value("test")?,
            xml,
        }))
    }

    /// Changes whenever something may have become due in an inbox: new
    /// releases, or a finished report that others waited for. Subscribe
    /// first, then lease, then wait. A lease that runs out changes nothing.
    #[must_use]
    pub fn watch(&self, party: &PartyId, test: bool) -> watch::Receiver<u64> {
        self.bells().subscribe(party.as_str(), test)
    }

    /// The newest release to `party` with this reference, and the message
    /// behind it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn release_by_berrefnr(
        &self,
        party: &PartyId,
        berrefnr: &KeyedHash,
    ) -> Result<Option<ReleaseRef>, Error> {
        let mut connection = self.reader().await?;
        let row = query(RELEASE_BY_BERREFNR)
            .bind(blob(berrefnr))
            .bind(party.as_str())
            .fetch_optional(&mut connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let message_id: String = row.value("message_id")?;
        let details = OpenDetails::open(self.ring(), &message_id, row.value("details")?).await?;
        Ok(Some(ReleaseRef {
            id: row.value("id")?,
            tenant: tenant(&row)?,
            domain: row.word("domain", |text| text.parse().ok())?,
            sender: row.word("sender", |text| PartyId::parse(text).ok())?,
            reference: details.reference,
            shown: row.value("shown")?,
            test: row.value("test")?,
            message_id,
        }))
    }
}

/// Payloads that were read, by release.
#[derive(Default)]
pub(super) struct Payloads {
    pub(super) open: HashMap<String, Zeroizing<Vec<u8>>>,
    /// Those whose key this ring does not hold: it may be an older copy, so
    /// they wait for the right one and are not given up.
    pub(super) keyless: HashSet<String>,
}

pub(super) fn tenant(row: &Row) -> Result<TenantId, Error> {
    row.word("tenant", |text| TenantId::parse(text).ok())
}

/// 128 random bits as 32 hexadecimal digits.
pub(super) fn new_token() -> String {
    format!("{:032x}", u128::from_be_bytes(seal::random()))
}

pub(super) fn in_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn moment(unix_ms: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(unix_ms).map_err(|_| Error::Damaged { what: "time" })
}

pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

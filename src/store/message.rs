//! Receipts: what became of a message that was accepted.

use std::fmt;

use jiff::Timestamp;

use super::Store;
use super::accept::Verdict;
use super::acceptance::{AcceptError, Acceptance, Prepared, UnparkError, Unparking};
use super::backend::{Row, query};
use super::details::OpenDetails;
use super::error::Error;
use super::sql::{Columnar as _, blob, ms};
use crate::domain::{Domain, Finding, KeyedHash, PartyId};
use crate::seal::NoKey;

/// Where a delivery stands, in the words that senders know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// Waits for its receiver.
    Offered,
    /// Handed out, not acknowledged yet.
    Leased,
    /// The receiver has it.
    TakenOver,
    /// Given up: the receiver rejected it, or it cannot be read.
    Dead,
    /// The receiver answered with a negative Retourmelding.
    Refused,
}

impl DeliveryState {
    /// The word in answers and pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Leased => "leased",
            Self::TakenOver => "taken_over",
            Self::Dead => "dead",
            Self::Refused => "refused",
        }
    }
}

/// The way of one release, as its sender may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Domain of the route.
    pub domain: Domain,
    /// Where it stands.
    pub state: DeliveryState,
    /// Since when.
    pub at: Timestamp,
    /// Every step with its time, oldest first; the last one is not always
    /// `state`, because a lease that ran out is no step.
    pub steps: Vec<(DeliveryState, Timestamp)>,
}

/// What became of the parked parts of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// Some still wait.
    Waiting,
    /// All found their way.
    Resolved,
    /// Some were discarded, or waited too long.
    Dropped(Timestamp),
}

/// A receipt.
#[derive(Clone)]
pub struct StoredMessage {
    /// Opaque id.
    pub id: String,
    /// Who sent it.
    pub party: PartyId,
    /// True for test traffic.
    pub test: bool,
    /// Hash of the body, to tell a repeat from another message.
    pub body: KeyedHash,
    /// When it came in.
    pub received_at: Timestamp,
    /// Name of the message.
    pub message_type: String,
    /// Edition.
    pub edition: String,
    /// The sender's reference.
    pub reference: String,
    /// What was odd about it.
    pub findings: Vec<Finding>,
    /// The domains of the routes that it was meant for.
    pub routed: Vec<Domain>,
    /// False when the sender's status ends at "routed".
    pub shown: bool,
    /// What became of its releases; empty when `shown` is false, so that it
    /// cannot be told by mistake.
    pub deliveries: Vec<Delivery>,
    /// None when nothing of it was parked.
    pub parked: Option<ParkedState>,
}

impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredMessage({} of {})", self.id, self.party)
    }
}

const MESSAGE_BY_BERREFNR: &str =
    "SELECT id, party, test, body, received_at, message_type, edition,
    details, shown, parked, dropped_at FROM message WHERE berrefnr = $1 AND party = $2";
const MESSAGE_BY_ID: &str = "SELECT id, party, test, body, received_at, message_type, edition,
    details, shown, parked, dropped_at FROM message WHERE id = $1 AND party = $2";
const DELIVERIES: &str = "SELECT domain, state, lease_until, offered_at, leased_at, finished_at,
    answered_at, answer_positive FROM delivery WHERE message_id = $1 ORDER BY party, sequence";
const STILL_PARKED: &str = "SELECT COUNT(*) AS waiting FROM parked WHERE message_id = $1";

impl Store {
    /// Writes a message and everything that follows from it, and answers once
    /// that is durable. All of it or nothing.
    ///
    /// # Errors
    ///
    /// [`AcceptError`]. After [`AcceptError::Store`] it may still have been
    /// written: a repeat finds out.
    pub async fn accept(&self, acceptance: Acceptance) -> Result<(), AcceptError> {
        let provided = self.provide(acceptance.tenants()).await;
        provided.map_err(AcceptError::Store)?;
        let prepared = Prepared::of_message(self.keys(), &acceptance, self.clock().now());
        // A key that was destroyed since is made anew by the next attempt.
        let prepared = prepared.map_err(|NoKey| AcceptError::Conflict)?;
        match self.write(prepared).await.map_err(AcceptError::Store)? {
            Verdict::Accepted => Ok(()),
            Verdict::Conflict | Verdict::Gone => Err(AcceptError::Conflict),
            Verdict::Stale => Err(AcceptError::Stale),
            Verdict::OtherDay => Err(AcceptError::OtherDay),
            Verdict::Duplicate => {
                let message = &acceptance.message;
                let earlier = self.find_message(&message.party, &message.berrefnr).await;
                match earlier.map_err(AcceptError::Store)? {
                    Some(earlier) => Err(AcceptError::Duplicate(Box::new(earlier))),
                    // Erased in between.
                    None => Err(AcceptError::Conflict),
                }
            }
        }
    }

    /// Writes the releases of a parked part and removes the part. All of it
    /// or nothing.
    ///
    /// # Errors
    ///
    /// [`UnparkError`].
    pub async fn unpark(&self, unparking: Unparking<'_>) -> Result<(), UnparkError> {
        let provided = self.provide(unparking.tenants()).await;
        provided.map_err(UnparkError::Store)?;
        let prepared = Prepared::of_parked(self.keys(), &unparking, self.clock().now());
        let prepared = prepared.map_err(|NoKey| UnparkError::Conflict)?;
        match self.write(prepared).await.map_err(UnparkError::Store)? {
            Verdict::Accepted => Ok(()),
            Verdict::Stale => Err(UnparkError::Stale),
            Verdict::OtherDay => Err(UnparkError::OtherDay),
            Verdict::Gone => Err(UnparkError::Gone),
            // It has no reference of its own.
            Verdict::Conflict | Verdict::Duplicate => Err(UnparkError::Conflict),
        }
    }

    async fn write(&self, prepared: Prepared) -> Result<Verdict, Error> {
        let bytes = prepared.bytes();
        self.writer().accept(prepared, bytes).await
    }

    /// The receipt of a message by the sender's reference.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn find_message(
        &self,
        party: &PartyId,
        berrefnr: &KeyedHash,
    ) -> Result<Option<StoredMessage>, Error> {
        let mut connection = self.reader().await?;
        let row = query(MESSAGE_BY_BERREFNR)
            .bind(blob(berrefnr))
            .bind(party.as_str())
            .fetch_optional(&mut connection)
            .await?;
        drop(connection);
        self.receipt(row).await
    }

    /// The receipt of a message by our id; none for another party's.
    ///
    /// # Errors
    ///
    /// As [`Self::find_message`].
    pub async fn message(&self, party: &PartyId, id: &str) -> Result<Option<StoredMessage>, Error> {
        let mut connection = self.reader().await?;
        let row = query(MESSAGE_BY_ID)
            .bind(id)
            .bind(party.as_str())
            .fetch_optional(&mut connection)
            .await?;
        drop(connection);
        self.receipt(row).await
    }

    async fn receipt(&self, row: Option<Row>) -> Result<Option<StoredMessage>, Error> {
        let Some(row) = row else { return Ok(None) };
        let id: String = row.value("id")?;
        let details = OpenDetails::open(self.ring(), &id, row.value("details")?).await?;
        let shown = row.value("shown")?;
        Ok(Some(StoredMessage {
            party: row.word("party", |text| PartyId::parse(text).ok())?,
            test: row.value("test")?,
            body: row.hash("body")?,
            received_at: row.moment("received_at")?,
            message_type: row.value("message_type")?,
            edition: row.value("edition")?,
            reference: details.reference,
            findings: details.findings,
            routed: details.routed,
            shown,
            deliveries: if shown {
                self.deliveries(&id).await?
            } else {
                Vec::new()
            },
            parked: self.parked_state(&id, &row).await?,
            id,
        }))
    }

    async fn deliveries(&self, message_id: &str) -> Result<Vec<Delivery>, Error> {
        let mut connection = self.reader().await?;
        let rows = query(DELIVERIES)
            .bind(message_id)
            .fetch_all(&mut connection)
            .await?;
        let now = ms(self.clock().now());
        rows.iter().map(|row| delivery(row, now)).collect()
    }

    async fn parked_state(&self, id: &str, row: &Row) -> Result<Option<ParkedState>, Error> {
        if !row.value::<bool>("parked")? {
            return Ok(None);
        }
        let mut connection = self.reader().await?;
        let count = query(STILL_PARKED)
            .bind(id)
            .fetch_one(&mut connection)
            .await?;
        let dropped_at = row.moment_or_none("dropped_at")?;
        Ok(Some(match (count.value::<i64>("waiting")?, dropped_at) {
            (1.., _) => ParkedState::Waiting,
            (_, Some(at)) => ParkedState::Dropped(at),
            (_, None) => ParkedState::Resolved,
        }))
    }
}

fn delivery(row: &Row, now: i64) -> Result<Delivery, Error> {
    let mut steps = vec![(DeliveryState::Offered, row.moment("offered_at")?)];
    let mut step = |state, at: Option<Timestamp>| steps.extend(at.map(|at| (state, at)));
    step(DeliveryState::Leased, row.moment_or_none("leased_at")?);
    let state = match row.value("state")? {
        "taken_over" => DeliveryState::TakenOver,
        "dead" => DeliveryState::Dead,
        "leased" if row.value::<i64>("lease_until")? > now => DeliveryState::Leased,
        _ => DeliveryState::Offered,
    };
    step(state, row.moment_or_none("finished_at")?);
    let refused = row.value::<Option<bool>>("answer_positive")? == Some(false);
    if refused {
        step(DeliveryState::Refused, row.moment_or_none("answered_at")?);
    }
    let state = if refused && state != DeliveryState::Dead {
        DeliveryState::Refused
    } else {
        state
    };
    let since = steps.iter().rev().find(|(step, _)| *step == state);
    let at = since.map_or(row.moment("offered_at")?, |(_, at)| *at);
    Ok(Delivery {
        domain: row.word("domain", |text| text.parse().ok())?,
        state,
        at,
        steps,
    })
}

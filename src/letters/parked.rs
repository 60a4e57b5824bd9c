//! Parked parts: what has no way to go yet.

use std::collections::BTreeMap;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Unfit;
use crate::domain::Code;
use crate::receive::{Intake, Unparked};
use crate::store::{Error, ParkedFilter, ParkedPage, ParkedSummary, Store};

/// Which parked parts, in the words of a command line, a query or JSON.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ParkedAsked {
    /// Only of this sender.
    #[arg(long, value_name = "ID")]
    pub party: Option<String>,
    /// Only of this tenant.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Only what waits for this reason, such as `employer_unknown`.
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,
    /// Only what came in more than so many hours ago.
    #[arg(long, value_name = "N")]
    pub older_than_hours: Option<u32>,
}

impl ParkedAsked {
    /// Every key of a filter.
    pub const KEYS: &'static [&'static str] = &["party", "tenant", "reason", "older_than_hours"];

    /// The filter that it means at this moment.
    ///
    /// # Errors
    ///
    /// [`Unfit`] names the part that cannot be used.
    pub fn filter(&self, now: Timestamp) -> Result<ParkedFilter, Unfit> {
        let reason = self.reason.as_deref().map(|text| {
            Code::from_code(text).ok_or(Unfit {
                key: "reason",
                expected: "the code of a finding",
            })
        });
        let age = |hours: u32| SignedDuration::from_hours(hours.into());
        let before = |hours| now.checked_sub(age(hours)).unwrap_or(Timestamp::MIN);
        Ok(ParkedFilter {
            party: super::party(self.party.as_deref())?,
            tenant: super::tenant(self.tenant.as_deref())?,
            reason: reason.transpose()?,
            before: self.older_than_hours.map(before),
            after: None,
        })
    }

    /// True when it leaves nothing out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of many parked parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Parts that had a way to go.
    pub released: u64,
    /// Parts that wait on, or cannot be read.
    pub waiting: u64,
    /// Why they wait; a part may have several reasons.
    pub reasons: BTreeMap<Code, u64>,
}

/// Runs one parked part through the stages again.
///
/// # Errors
///
/// As [`Intake::retry_parked`].
pub async fn retry(intake: &Intake, id: &str) -> Result<Unparked, Error> {
    let became = intake.retry_parked(id).await?;
    if let Unparked::Released { releases } = became {
        tracing::info!(parked.id = %id, releases, "Parked part {id} was released by hand");
    }
    Ok(became)
}

/// Runs every parked part that the filter names through the stages again.
///
/// # Errors
///
/// As [`Intake::retry_all_parked`].
pub async fn retry_all(intake: &Intake, filter: &ParkedFilter) -> Result<Retried, Error> {
    let mut retried = Retried::default();
    let count = |item: &crate::store::ParkedItem, became: &Unparked| match became {
        Unparked::Released { .. } => retried.released += 1,
        Unparked::Gone => {}
        Unparked::Unreadable => {
            retried.waiting += 1;
            *retried.reasons.entry(item.reason).or_default() += 1;
        }
        Unparked::Waits(reasons) => {
            retried.waiting += 1;
            for reason in reasons {
                *retried.reasons.entry(*reason).or_default() += 1;
            }
        }
    };
    intake.retry_all_parked(filter, count).await?;
    let (released, waiting) = (retried.released, retried.waiting);
    tracing::info!(
        released,
        waiting,
        "{released} parked parts were released by hand, {waiting} wait on"
    );
    Ok(retried)
}

/// Drops one parked part; its message shows it. False when it is gone.
///
/// # Errors
///
/// As [`Store::discard_parked`].
pub async fn discard(store: &Store, id: &str, now: Timestamp) -> Result<bool, Error> {
    let discarded = store.discard_parked(id, now).await?;
    if discarded {
        tracing::warn!(parked.id = %id, "Parked part {id} was discarded by hand");
    }
    Ok(discarded)
}

/// A page, with the id to go on after.
#[must_use]
pub fn page_json(page: &ParkedPage, now: Timestamp) -> Value {
    let parts = page.parts.iter().map(|part| part_json(part, now));
    json!({ "parked": parts.collect::<Vec<_>>(), "next": page.next })
}

/// A parked part without its content and without persons.
#[must_use]
pub fn part_json(part: &ParkedSummary, now: Timestamp) -> Value {
    json!({
        "id": part.id,
        "message_id": part.message_id,
        "party": part.party.as_str(),
        "tenant": part.tenant.as_ref().map(crate::domain::TenantId::as_str),
        "reason": part.reason.as_str(),
        "message_type": part.message_type,
        "edition": part.edition,
        "test": part.test,
        "received_at": part.received_at.to_string(),
        "age_seconds": now.duration_since(part.received_at).as_secs().max(0),
        "bytes": part.bytes,
        "persons": part.persons,
    })
}

/// What became of one part: `result` is `released`, `waiting`, `unreadable` or
/// `gone`.
#[must_use]
pub fn retry_json(id: &str, became: &Unparked) -> Value {
    match became {
        Unparked::Released { releases } => {
            json!({ "id": id, "result": "released", "releases": releases })
        }
        Unparked::Waits(reasons) => {
            let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
            json!({ "id": id, "result": "waiting", "reasons": reasons })
        }
        Unparked::Unreadable => json!({ "id": id, "result": "unreadable" }),
        Unparked::Gone => json!({ "id": id, "result": "gone" }),
    }
}

/// What became of many parts.
#[must_use]
pub fn retried_json(retried: &Retried) -> Value {
    let reasons: BTreeMap<&str, u64> = retried
        .reasons
        .iter()
        .map(|(reason, count)| (reason.as_str(), *count))
        .collect();
    json!({ "released": retried.released, "waiting": retried.waiting, "reasons": reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_filter() {
        let now: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        for key in ParkedAsked::KEYS {
            let value = match *key {
                "older_than_hours" => json!(36),
                "reason" => json!("employer_unknown"),
                _ => json!("x"),
            };
            let asked: ParkedAsked = serde_json::from_value(json!({ *key: value })).unwrap();
            assert!(!asked.is_everything(), "{key}");
            assert!(asked.filter(now).is_ok(), "{key}");
        }
    }
}

//! Dead letters: releases that their receiver rejected, that could not be
//! pushed, or that do not open.

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Unfit;
use crate::store::{
    DeadFilter, DeadLetter, DeadPage, Discard, Error, Overtaken, Replay, ReplayCount, ReplayGroup,
    Retry, Store,
};

/// Which dead letters, in the words of a command line, a query or JSON.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct DeadAsked {
    /// Only in the inbox of this party.
    #[arg(long, value_name = "ID")]
    pub party: Option<String>,
    /// Only about employees of this tenant.
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Only of routes in this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Only messages of this name, such as Verzuimmeldingen.
    #[arg(long, value_name = "NAME")]
    pub message_type: Option<String>,
    /// Only with this code.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Only what was given up at this moment or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Only what was given up before this moment (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Only test traffic (true), or none of it (false).
    #[arg(long, value_name = "BOOL")]
    pub test: Option<bool>,
}

impl DeadAsked {
    /// Every key of a filter.
    pub const KEYS: &'static [&'static str] = &[
        "party",
        "tenant",
        "domain",
        "message_type",
        "code",
        "since",
        "until",
        "test",
    ];

    /// The filter that it means.
    ///
    /// # Errors
    ///
    /// [`Unfit`] names the part that cannot be used.
    pub fn filter(&self) -> Result<DeadFilter, Unfit> {
        let domain = self.domain.as_deref().map(str::parse).transpose();
        Ok(DeadFilter {
            party: super::party(self.party.as_deref())?,
            tenant: super::tenant(self.tenant.as_deref())?,
            domain: domain.map_err(|_| Unfit {
                key: "domain",
                expected: "werkgever, arbodienst, bedrijfsarts or verzekeraar",
            })?,
            message_type: self.message_type.clone(),
            code: self.code.clone(),
            since: self.since,
            until: self.until,
            test: self.test,
        })
    }

    /// True when it leaves nothing out.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What to do with what was overtaken, from a flag.
#[must_use]
pub fn overtaken(send: bool) -> Overtaken {
    if send {
        Overtaken::Send
    } else {
        Overtaken::Leave
    }
}

/// Makes one dead letter due again.
///
/// # Errors
///
/// As [`Store::retry`].
pub async fn retry(store: &Store, id: &str, overtaken: Overtaken) -> Result<Retry, Error> {
    let retry = store.retry(id, overtaken).await?;
    if let Retry::Due { sequence } = retry {
        tracing::info!(release.id = %id, sequence, "Dead letter {id} was made due again by hand");
    }
    Ok(retry)
}

/// Makes every dead letter due again that the filter names.
///
/// # Errors
///
/// As [`Store::replay`].
pub async fn replay(
    store: &Store,
    filter: &DeadFilter,
    overtaken: Overtaken,
) -> Result<Replay, Error> {
    let replay = store.replay(filter, overtaken).await?;
    let (due, matched) = (replay.due, replay.matched);
    tracing::info!(
        due,
        matched,
        "{due} of {matched} dead letters were made due again by hand"
    );
    Ok(replay)
}

/// Discards one dead letter for good; its sender still sees it as dead.
///
/// # Errors
///
/// As [`Store::discard_dead`].
pub async fn discard(store: &Store, id: &str) -> Result<Discard, Error> {
    let discard = store.discard_dead(id).await?;
    if discard == Discard::Done {
        tracing::warn!(release.id = %id, "Dead letter {id} was discarded by hand");
    }
    Ok(discard)
}

/// A page, with the id to go on after.
#[must_use]
pub fn page_json(page: &DeadPage) -> Value {
    let letters: Vec<Value> = page.letters.iter().map(letter_json).collect();
    json!({ "dead": letters, "next": page.next })
}

/// A dead letter without anything about persons.
#[must_use]
pub fn letter_json(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "message_id": letter.message_id,
        "sender": letter.sender.as_str(),
        "party": letter.party.as_str(),
        "tenant": letter.tenant.as_str(),
        "domain": letter.domain.as_str(),
        "message_type": letter.message_type,
        "edition": letter.edition,
        "test": letter.test,
        "sequence": letter.sequence,
        "received_at": letter.received_at.to_string(),
        "offered_at": letter.offered_at.to_string(),
        "leased_at": letter.leased_at.map(|at| at.to_string()),
        "died_at": letter.died_at.to_string(),
        "attempts": letter.attempts,
        "bytes": letter.bytes,
        "code": letter.rejection.code,
        "reason_length": letter.rejection.reason_length,
        "overtaken": letter.overtaken,
        "content": letter.has_content,
        "discarded_at": letter.discarded_at.map(|at| at.to_string()),
    })
}

/// What came of a retry: `result` is `due`, `unchanged`, `overtaken`,
/// `discarded`, `no_content` or `unknown`, `state` where the release stands now.
#[must_use]
pub fn retry_json(id: &str, retry: Retry) -> Value {
    match retry {
        Retry::Due { sequence } => {
            json!({ "id": id, "result": "due", "state": "offered", "sequence": sequence })
        }
        Retry::NotDead(state) => {
            json!({ "id": id, "result": "unchanged", "state": state.as_str() })
        }
        Retry::Overtaken { by } => {
            json!({ "id": id, "result": "overtaken", "state": "dead", "overtaken": by })
        }
        Retry::Discarded => json!({ "id": id, "result": "discarded", "state": "dead" }),
        Retry::NoContent => json!({ "id": id, "result": "no_content", "state": "dead" }),
        Retry::Unknown => json!({ "id": id, "result": "unknown" }),
    }
}

/// What came of discarding: `result` is `discarded`, also when it was so
/// before, `unchanged` or `unknown`, `state` where the release stands.
#[must_use]
pub fn discard_json(id: &str, discard: Discard) -> Value {
    match discard {
        Discard::Done | Discard::Already => {
            json!({ "id": id, "result": "discarded", "state": "dead" })
        }
        Discard::NotDead(state) => {
            json!({ "id": id, "result": "unchanged", "state": state.as_str() })
        }
        Discard::Unknown => json!({ "id": id, "result": "unknown" }),
    }
}

/// The counts of a replay, or of its preview.
#[must_use]
pub fn replay_json(replay: &Replay, dry_run: bool) -> Value {
    let group = |(group, count): (&ReplayGroup, &ReplayCount)| {
        json!({
            "party": group.party.as_str(),
            "test": group.test,
            "tenant": group.tenant.as_str(),
            "domain": group.domain.as_str(),
            "message_type": group.message_type,
            "code": group.code,
            "matched": count.matched,
            "due": count.due,
            "overtaken": count.overtaken,
        })
    };
    json!({
        "dry_run": dry_run,
        "matched": replay.matched,
        "due": replay.due,
        "overtaken": replay.overtaken,
        "groups": replay.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_filter() {
        for key in DeadAsked::KEYS {
            let value = match *key {
                "test" => json!(true),
                "since" | "until" => json!("2026-11-22T09:00:00Z"),
                "domain" => json!("arbodienst"),
                _ => json!("x"),
            };
            let asked: DeadAsked = serde_json::from_value(json!({ *key: value })).unwrap();
            assert!(!asked.is_everything(), "{key}");
            assert!(asked.filter().is_ok(), "{key}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_used_repeats_no_value() {
        for key in ["party", "tenant", "domain"] {
            let asked: DeadAsked = serde_json::from_value(json!({ key: "Müller" })).unwrap();
            let unfit = asked.filter().unwrap_err();
            assert_eq!(unfit.key, key);
            assert!(!unfit.to_string().contains("Müller"));
        }
    }
}

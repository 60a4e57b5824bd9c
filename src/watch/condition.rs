//! What holds, from what was observed. Pure: the same observation gives the
//! same conditions.

mod name;

pub use name::{AlertName, Severity};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::age::alarm_hours;
use crate::config::Settings;
use crate::directory::{Directory, Party};
use crate::store::{Alert, ApiKey, DeadLetters, ParkedCount, PausedReceiver, Unaccounted, Waiting};

/// Days before something expires at which operators are told.
const EXPIRES_WITHIN: Duration = Duration::from_hours(14 * 24);

/// Days before the content of a dead letter goes at which operators are told.
const DEAD_ENDING_WITHIN: Duration = Duration::from_hours(14 * 24);

/// After how long another node may say that an alert about a node is over.
const NODE_GONE: Duration = Duration::from_hours(2);

/// What an alert is about: words such as party and domain, never a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject(BTreeMap<&'static str, String>);

impl Subject {
    /// With one word more.
    #[must_use]
    pub fn with(mut self, key: &'static str, word: &str) -> Self {
        self.0.insert(key, word.to_owned());
        self
    }

    /// As the store keeps it: a JSON object, keys sorted.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }
}

/// Something that holds and that operators should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which alert.
    pub name: AlertName,
    /// What it is about.
    pub subject: Subject,
    /// Since when it holds.
    pub since: Timestamp,
    /// How many.
    pub number: u64,
    /// When the latest of them came about, where a later one is told again.
    pub latest: Option<Timestamp>,
}

/// What was observed. `None` is not observed this time: then nothing is said
/// about it, and what is raised stays.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What waits for receivers.
    pub waiting: Option<Vec<Waiting>>,
    /// Dead letters.
    pub dead: Option<Vec<DeadLetters>>,
    /// Those of them that were given up before [`Bounds::dead_ending_before`]
    /// and have their content.
    pub dead_ending: Option<Vec<DeadLetters>>,
    /// Parked parts.
    pub parked: Option<Vec<ParkedCount>>,
    /// Receivers that are pushed to and paused.
    pub paused: Option<Vec<PausedReceiver>>,
    /// Keys and certificates that end one day.
    pub endings: Option<Vec<Ending>>,
    /// Messages that break the law of conservation.
    pub unaccounted: Option<Unaccounted>,
    /// Open cases that are silent, after a whole walk through the ledger.
    pub silent_cases: Option<u64>,
    /// Since when parked parts fail whenever this node tries them, and how many.
    pub parked_failing: Option<Option<(Timestamp, u64)>>,
    /// Since when the clock of this node is known to have jumped, and by how
    /// many seconds.
    pub clock_jump: Option<Option<(Timestamp, u64)>>,
    /// Since when the clock of this node is not that of the database, and by how
    /// many seconds.
    pub clock_differs: Option<Option<(Timestamp, u64)>>,
    /// Since when this node cannot use all of the stored configuration, and how
    /// many parties cannot send to it.
    pub unusable: Option<Option<(Timestamp, u64)>>,
}

/// A key or certificate that ends one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What it is: a party and the id of its key, or which certificate.
    pub subject: Subject,
    /// When it no longer counts.
    pub ends_at: Timestamp,
}

/// What of all this ends; given from outside, because certificates are known
/// there.
pub type Endings = Arc<dyn Fn(&[ApiKey], Timestamp) -> Vec<Ending> + Send + Sync>;

/// Parked parts that were passed over because they fail, by id, and since
/// when; given from outside, because they are tried there.
pub type PassedOver = Arc<dyn Fn() -> BTreeMap<String, Timestamp> + Send + Sync>;

/// The bounds that conditions are held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Share of a bound, in percent, that is near it.
    pub parked_percent: u64,
    /// Parked parts of one party.
    pub parked_per_party: u64,
    /// Bytes of the parked parts of one party.
    pub parked_bytes_per_party: u64,
    /// Days that a part is parked.
    pub parked_days: u64,
    /// Days that the content of a dead letter is kept.
    pub dead_days: u64,
}

impl Bounds {
    /// Those of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            parked_percent: settings.alerts.parked_percent,
            parked_per_party: settings.limits.parked_per_party,
            parked_bytes_per_party: settings.limits.parked_bytes_per_party,
            parked_days: settings.limits.parked_days,
            dead_days: settings.limits.dead_days,
        }
    }

    /// Dead letters that were given up before this moment lose their content
    /// within fourteen days.
    #[must_use]
    pub fn dead_ending_before(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(self.dead_told_after())
            .unwrap_or(Timestamp::MIN)
    }

    fn dead_told_after(&self) -> Duration {
        let kept = Duration::from_hours(self.dead_days.saturating_mul(24));
        kept.saturating_sub(DEAD_ENDING_WITHIN)
    }
}

impl Observed {
    /// The alerts about which something was observed.
    pub(super) fn names(&self) -> BTreeSet<AlertName> {
        let seen = [
            (AlertName::Undelivered, self.waiting.is_some()),
            (AlertName::DeadLetter, self.dead.is_some()),
            (AlertName::DeadLetterEnding, self.dead_ending.is_some()),
            (AlertName::Parked, self.parked.is_some()),
            (AlertName::ParkedFailing, self.parked_failing.is_some()),
            (AlertName::ReceiverPaused, self.paused.is_some()),
            (AlertName::Expiring, self.endings.is_some()),
            (AlertName::Unaccounted, self.unaccounted.is_some()),
            (AlertName::CaseSilent, self.silent_cases.is_some()),
            (AlertName::ClockJump, self.clock_jump.is_some()),
            (AlertName::ClockDiffers, self.clock_differs.is_some()),
            (AlertName::ConfigurationUnusable, self.unusable.is_some()),
        ];
        let seen = seen.into_iter().filter(|(_, seen)| *seen);
        seen.map(|(name, _)| name).collect()
    }
}

/// What holds at `now`. Test traffic raises nothing: no term runs for it.
#[must_use]
pub fn conditions(
    observed: &Observed,
    directory: &Directory,
    bounds: Bounds,
    node: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut holds = Vec::new();
    holds.extend(undelivered(
        observed.waiting.as_deref().unwrap_or_default(),
        directory,
        now,
    ));
    holds.extend(dead(observed.dead.as_deref().unwrap_or_default(), now));
    holds.extend(dead_ending(
        observed.dead_ending.as_deref().unwrap_or_default(),
        bounds,
        now,
    ));
    holds.extend(parked(
        observed.parked.as_deref().unwrap_or_default(),
        bounds,
        now,
    ));
    holds.extend(paused(
        observed.paused.as_deref().unwrap_or_default(),
        directory,
        now,
    ));
    holds.extend(expiring(
        observed.endings.as_deref().unwrap_or_default(),
        now,
    ));
    let unaccounted = observed.unaccounted.unwrap_or_default();
    let silent = observed.silent_cases.unwrap_or_default();
    let counted = [
        (
            AlertName::Unaccounted,
            unaccounted.messages,
            unaccounted.since.unwrap_or(now),
        ),
        (AlertName::CaseSilent, silent, now),
    ];
    let counted = counted.into_iter().filter(|(_, number, _)| *number > 0);
    holds.extend(counted.map(|(name, number, since)| Condition {
        name,
        subject: Subject::default(),
        since,
        number,
        latest: None,
    }));
    let of_node = [
        (AlertName::ParkedFailing, observed.parked_failing.flatten()),
        (AlertName::ClockJump, observed.clock_jump.flatten()),
        (AlertName::ClockDiffers, observed.clock_differs.flatten()),
        (
            AlertName::ConfigurationUnusable,
            observed.unusable.flatten(),
        ),
    ];
    holds.extend(of_node.into_iter().filter_map(|(name, seen)| {
        let (since, number) = seen?;
        Some(Condition {
            name,
            subject: Subject::default().with("node", node),
            since,
            number,
            latest: None,
        })
    }));
    holds
}

fn undelivered(waiting: &[Waiting], directory: &Directory, now: Timestamp) -> Vec<Condition> {
    let late = waiting.iter().filter(|one| !one.test).filter_map(|one| {
        let hours = u64::from(alarm_hours(directory, one));
        let since = one.oldest_offered?;
        let limit = Duration::from_hours(hours);
        (age(since, now) > limit).then(|| Condition {
            name: AlertName::Undelivered,
            subject: Subject::default()
                .with("tenant", one.tenant.as_str())
                .with("party", one.party.as_str())
                .with("domain", one.domain.as_str())
                .with("message_type", &one.message_type),
            since,
            number: one.due + one.leased,
            latest: None,
        })
    });
    late.collect()
}

fn dead(dead: &[DeadLetters], now: Timestamp) -> Vec<Condition> {
    let dead = dead.iter().filter(|one| !one.test && one.count > 0);
    let dead = dead.map(|one| Condition {
        name: AlertName::DeadLetter,
        subject: route(one),
        since: one.since.unwrap_or(now),
        number: one.count,
        latest: one.latest,
    });
    dead.collect()
}

fn dead_ending(ending: &[DeadLetters], bounds: Bounds, now: Timestamp) -> Vec<Condition> {
    let began = |died: Timestamp| died.saturating_add(bounds.dead_told_after()).unwrap_or(now);
    let ending = ending.iter().filter(|one| !one.test && one.count > 0);
    let ending = ending.map(|one| Condition {
        name: AlertName::DeadLetterEnding,
        subject: route(one),
        since: one.since.map_or(now, began),
        number: one.count,
        latest: one.latest,
    });
    ending.collect()
}

fn route(of: &DeadLetters) -> Subject {
    Subject::default()
        .with("tenant", of.tenant.as_str())
        .with("party", of.party.as_str())
        .with("domain", of.domain.as_str())
}

/// Per sender, over all reasons: that is what the bounds are about.
fn parked(parked: &[ParkedCount], bounds: Bounds, now: Timestamp) -> Vec<Condition> {
    let mut senders: BTreeMap<&str, (u64, u64, Timestamp)> = BTreeMap::new();
    for one in parked {
        let sum = senders
            .entry(one.party.as_str())
            .or_insert((0, 0, one.oldest));
        sum.0 += one.parts;
        sum.1 += one.bytes;
        sum.2 = sum.2.min(one.oldest);
    }
    let near = |number: u64, bound: u64| {
        number.saturating_mul(100) >= bound.saturating_mul(bounds.parked_percent)
    };
    let days = Duration::from_hours(bounds.parked_days * 24).as_secs();
    let full = senders.into_iter().filter(|(_, (parts, bytes, oldest))| {
        near(*parts, bounds.parked_per_party)
            || near(*bytes, bounds.parked_bytes_per_party)
            || near(age(*oldest, now).as_secs(), days)
    });
    let full = full.map(|(party, (parts, _, oldest))| Condition {
        name: AlertName::Parked,
        subject: Subject::default().with("party", party),
        since: oldest,
        number: parts,
        latest: None,
    });
    full.collect()
}

/// Of those that are pushed to now: whoever polls since, or is gone, waits for
/// nothing.
fn paused(paused: &[PausedReceiver], directory: &Directory, now: Timestamp) -> Vec<Condition> {
    let is_pushed_to = |id| directory.party(id).is_some_and(Party::is_pushed_to);
    let paused = paused.iter();
    let paused = paused.filter(|one| !one.test && is_pushed_to(&one.party));
    let paused = paused.map(|one| Condition {
        name: AlertName::ReceiverPaused,
        subject: Subject::default().with("party", one.party.as_str()),
        since: one.since.unwrap_or(now),
        number: one.failures,
        latest: None,
    });
    paused.collect()
}

fn expiring(endings: &[Ending], now: Timestamp) -> Vec<Condition> {
    let soon = now.saturating_add(EXPIRES_WITHIN).unwrap_or(Timestamp::MAX);
    let endings = endings.iter().filter(|one| one.ends_at <= soon);
    let endings = endings.map(|one| Condition {
        name: AlertName::Expiring,
        subject: one.subject.clone(),
        since: one.ends_at.saturating_sub(EXPIRES_WITHIN).unwrap_or(now),
        number: age(now, one.ends_at).as_secs() / 86_400,
        latest: None,
    });
    endings.collect()
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

/// Whether another look may say that `raised` is over: something was observed
/// about it, and by this node if it is about a node, unless that node seems to
/// be gone.
pub(super) fn may_clear(
    raised: &Alert,
    seen: &BTreeSet<AlertName>,
    node: &str,
    now: Timestamp,
) -> bool {
    let known = seen.iter().any(|name| name.as_str() == raised.name);
    let subject: BTreeMap<String, String> =
        serde_json::from_str(&raised.subject).unwrap_or_default();
    let is_ours = subject.get("node").is_none_or(|of| of == node);
    known && (is_ours || age(raised.raised_at, now) > NODE_GONE)
}

#[cfg(test)]
mod tests;

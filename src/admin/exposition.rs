//! What is there, as text for Prometheus (exposition format 0.0.4): exactly
//! what was read, so that a route that is empty now leaves no line behind.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::state::State;
use crate::store::{Alert, DeadLetters, Waiting};

/// Routes that get lines of their own: those whose oldest waits longest. With
/// thousands of employers all of them would be too many series.
const ROUTES_SHOWN: usize = 500;

/// Every gauge, for the page for operators.
#[cfg(test)]
pub(super) const NAMES: &[&str] = &[
    "sivi_queue_due",
    "sivi_queue_leased",
    "sivi_queue_dead",
    "sivi_queue_oldest_seconds",
    "sivi_route_due",
    "sivi_route_leased",
    "sivi_route_dead",
    "sivi_route_oldest_seconds",
    "sivi_routes_not_shown",
    "sivi_push_paused",
    "sivi_parked",
    "sivi_parked_bytes",
    "sivi_messages_unaccounted",
    "sivi_alert_active",
    "sivi_database_bytes",
    "sivi_state_age_seconds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Labels of one line.
type Labels = Vec<(String, String)>;

/// Gauges as text.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, lines: impl IntoIterator<Item = (Labels, f64)>) {
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (labels, value) in lines {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, word)| format!("{key}=\"{}\"", escaped(word)))
                .collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                some => format!("{{{}}}", some.join(",")),
            };
            self.0.push_str(&format!("{name}{labels} {value}\n"));
        }
        self.0.push('\n');
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, [(Labels::new(), value)]);
    }
}

fn escaped(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"");
    word.replace('\n', "\\n")
}

fn labels<const N: usize>(words: [(&str, &str); N]) -> Labels {
    let owned = words.map(|(key, word)| (key.to_owned(), word.to_owned()));
    owned.to_vec()
}

/// Numbers of one inbox or route.
#[derive(Clone, Copy, Default)]
struct Depth {
    due: u64,
    leased: u64,
    dead: u64,
    oldest: Option<Timestamp>,
}

impl Depth {
    fn wait(&mut self, one: &Waiting) {
        self.due += one.due;
        self.leased += one.leased;
        self.oldest = Some(self.oldest.map_or(one.oldest, |at| at.min(one.oldest)));
    }

    fn die(&mut self, one: &DeadLetters) {
        self.dead += one.count;
    }

    fn age(&self, now: Timestamp) -> f64 {
        self.oldest
            .map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0))
    }
}

/// The page of `state`, read at `now`.
pub(super) fn page(state: &State, now: Timestamp) -> String {
    let mut page = Page::default();
    queues(&mut page, state, now);
    routes(&mut page, state, now);
    pushed(&mut page, state);
    parked(&mut page, state);
    page.single(
        "sivi_messages_unaccounted",
        "Accepted messages that are neither finished, leased, due, parked nor dead: 0.",
        number(state.unaccounted.messages),
    );
    page.gauge(
        "sivi_alert_active",
        "1 for each alert that is raised now.",
        state.alerts.iter().map(|alert| (alert_labels(alert), 1.0)),
    );
    page.single(
        "sivi_database_bytes",
        "Bytes of the database, without its journals.",
        number(state.database_bytes),
    );
    page.0
}

/// What of a page does not come from the database.
pub(super) fn process(age: f64) -> String {
    let mut page = Page::default();
    page.single(
        "sivi_state_age_seconds",
        "Age of the gauges that come from the database; grows while it does not answer.",
        age,
    );
    page.single(
        "process_resident_memory_bytes",
        "Resident memory.",
        number(super::process::resident_bytes()),
    );
    page.single(
        "process_start_time_seconds",
        "Start of the process, seconds since 1970.",
        super::process::start_seconds(),
    );
    page.0
}

fn queues(page: &mut Page, state: &State, now: Timestamp) {
    let mut inboxes: BTreeMap<(&str, bool), Depth> = BTreeMap::new();
    for party in &state.receivers {
        inboxes.insert((party.as_str(), false), Depth::default());
    }
    for one in &state.waiting {
        let inbox = inboxes.entry((one.party.as_str(), one.test));
        inbox.or_default().wait(one);
    }
    for one in &state.dead {
        let inbox = inboxes.entry((one.party.as_str(), one.test));
        inbox.or_default().die(one);
    }
    let lines = |of: &dyn Fn(&Depth) -> f64| -> Vec<(Labels, f64)> {
        let line = |((party, test), depth): (&(&str, bool), &Depth)| {
            let words = labels([("party", party), ("test", &test.to_string())]);
            (words, of(depth))
        };
        inboxes.iter().map(line).collect()
    };
    page.gauge(
        "sivi_queue_due",
        "Releases that wait for a receiver and that nobody holds.",
        lines(&|depth| number(depth.due)),
    );
    page.gauge(
        "sivi_queue_leased",
        "Releases under a valid lease.",
        lines(&|depth| number(depth.leased)),
    );
    page.gauge(
        "sivi_queue_dead",
        "Dead letters that wait for a decision.",
        lines(&|depth| number(depth.dead)),
    );
    page.gauge(
        "sivi_queue_oldest_seconds",
        "Age of the oldest message that its receiver has not taken over; 0 for none.",
        lines(&|depth| depth.age(now)),
    );
}

fn routes(page: &mut Page, state: &State, now: Timestamp) {
    type Route<'a> = (&'a str, &'a str, &'a str, bool);
    let mut routes: BTreeMap<Route<'_>, Depth> = BTreeMap::new();
    for one in &state.waiting {
        let domain = one.domain.as_str();
        let route = (one.tenant.as_str(), one.party.as_str(), domain, one.test);
        routes.entry(route).or_default().wait(one);
    }
    for one in &state.dead {
        let domain = one.domain.as_str();
        let route = (one.tenant.as_str(), one.party.as_str(), domain, one.test);
        routes.entry(route).or_default().die(one);
    }
    let mut shown: Vec<_> = routes.into_iter().collect();
    // None is last: nothing of it waits.
    shown.sort_by_key(|(_, depth)| depth.oldest.unwrap_or(Timestamp::MAX));
    let hidden = shown.len().saturating_sub(ROUTES_SHOWN);
    shown.truncate(ROUTES_SHOWN);
    let lines = |of: &dyn Fn(&Depth) -> f64| -> Vec<(Labels, f64)> {
        let line = |((tenant, party, domain, test), depth): &(Route<'_>, Depth)| {
            let words = labels([
                ("tenant", tenant),
                ("party", party),
                ("domain", domain),
                ("test", &test.to_string()),
            ]);
            (words, of(depth))
        };
        shown.iter().map(line).collect()
    };
    page.gauge(
        "sivi_route_due",
        "As sivi_queue_due, per route that has anything; the 500 oldest.",
        lines(&|depth| number(depth.due)),
    );
    page.gauge(
        "sivi_route_leased",
        "As sivi_queue_leased, per route.",
        lines(&|depth| number(depth.leased)),
    );
    page.gauge(
        "sivi_route_dead",
        "As sivi_queue_dead, per route.",
        lines(&|depth| number(depth.dead)),
    );
    page.gauge(
        "sivi_route_oldest_seconds",
        "As sivi_queue_oldest_seconds, per route.",
        lines(&|depth| depth.age(now)),
    );
    page.single(
        "sivi_routes_not_shown",
        "Routes that have something and no lines of their own.",
        number(hidden as u64),
    );
}

fn pushed(page: &mut Page, state: &State) {
    let lines = state.pushed.iter().map(|one| {
        let test = one.test.to_string();
        let words = labels([("party", one.party.as_str()), ("test", &test)]);
        (words, if one.is_paused { 1.0 } else { 0.0 })
    });
    page.gauge(
        "sivi_push_paused",
        "1 while a receiver that is pushed to is paused, stopped or cannot be pushed to at all.",
        lines,
    );
}

fn parked(page: &mut Page, state: &State) {
    let words = |one: &crate::store::ParkedCount| {
        labels([("party", one.party.as_str()), ("reason", &one.reason)])
    };
    let parts = state.parked.iter();
    page.gauge(
        "sivi_parked",
        "Parts that are parked, by sender and reason.",
        parts.clone().map(|one| (words(one), number(one.parts))),
    );
    page.gauge(
        "sivi_parked_bytes",
        "Bytes of parked parts, by sender and reason.",
        parts.map(|one| (words(one), number(one.bytes))),
    );
}

fn alert_labels(alert: &Alert) -> Labels {
    let subject: BTreeMap<String, String> =
        serde_json::from_str(&alert.subject).unwrap_or_default();
    let mut words = labels([("alert", &alert.name), ("severity", &alert.severity)]);
    words.extend(subject);
    words
}

#[expect(
    clippy::cast_precision_loss,
    reason = "above 2^53 the last digits do not matter"
)]
fn number(count: u64) -> f64 {
    count as f64
}

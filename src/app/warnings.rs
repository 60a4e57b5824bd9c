//! Renewed certificates are taken over, and what ends soon is spoken of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use crate::access::SeenCertificates;
use crate::clock::Clock;
use crate::expiry::{Expiry, Known, Subject, expiring};
use crate::receive::Intake;
use crate::store::{ApiKey, Store};
use crate::watch;

/// How often files of certificates are compared with what is in use.
const LOOK: Duration = Duration::from_mins(1);

/// Looks after certificates and keys.
#[derive(Clone)]
pub(super) struct Warnings {
    pub(super) live: Arc<Live>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) seen: SeenCertificates,
}

impl Warnings {
    /// Looks at once, and then every minute.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut told = Told::default();
        let mut known = BTreeSet::new();
        loop {
            let faults = self.live.renew_certificates().await;
            let faults: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
            // Once per fault, not once per minute.
            for why in faults.difference(&known) {
                tracing::error!("A changed certificate cannot be used, the old one stays: {why}");
            }
            known = faults;
            if let Some(all) = self.expiring().await {
                let first = self.live.setup().settings.limits.expiry_warning_days;
                let now = self.clock.now();
                for one in told.due(&all, self.clock.today(), now, first) {
                    say(one, now);
                }
                told.measure(&all, now);
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(LOOK))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Everything that ends; `None` while the store does not answer.
    async fn expiring(&self) -> Option<Vec<Expiry>> {
        let now = self.clock.now();
        // Read anew: the snapshot does not follow when keys are used.
        let api_keys = self.store.api_keys().await.ok()?;
        Some(all_that_ends(
            &self.live,
            &self.seen,
            &api_keys.readable,
            now,
        ))
    }
}

fn all_that_ends(
    live: &Live,
    seen: &SeenCertificates,
    api_keys: &[ApiKey],
    now: Timestamp,
) -> Vec<Expiry> {
    let setup = live.setup();
    let authorities = setup.client_ca.as_ref();
    let known = Known {
        server: Some(live.own_ends_at()),
        authorities: authorities.map_or(&[], |all| all.certificates()),
        party_certificates: &seen.in_use(now),
        api_keys,
    };
    expiring(&known, now)
}

/// The same, as alerts look at it: of what has one name, the first to end.
pub(super) fn endings(live: Arc<Live>, seen: SeenCertificates) -> watch::Endings {
    Arc::new(move |api_keys, now| {
        let mut endings: Vec<watch::Ending> = Vec::new();
        for expiry in all_that_ends(&live, &seen, api_keys, now) {
            let subject = alert_subject(&expiry.subject);
            if endings.iter().all(|known| known.subject != subject) {
                let ends_at = expiry.ends_at;
                endings.push(watch::Ending { subject, ends_at });
            }
        }
        endings
    })
}

/// Parked parts that fail, as alerts look at them.
pub(super) fn passed_over(intake: &Intake) -> watch::PassedOver {
    let catch_up = intake.catch_up.clone();
    Arc::new(move || catch_up.passed_over())
}

fn alert_subject(subject: &Subject) -> watch::Subject {
    let named = watch::Subject::default();
    match subject {
        Subject::ServerCertificate => named.with("certificate", "server"),
        Subject::ClientAuthority => named.with("certificate", "client_ca"),
        Subject::PartyCertificate(party) => named
            .with("party", party.as_str())
            .with("certificate", "client"),
        Subject::ApiKey { party, id } => named.with("party", party.as_str()).with("api_key", id),
    }
}

/// What was said already.
#[derive(Default)]
struct Told {
    on: Option<Date>,
    gauges: BTreeSet<Gauge>,
}

/// Name, label and value of the label of a gauge.
type Gauge = (&'static str, &'static str, String);

impl Told {
    /// What to speak of: everything that ends soon, once a day.
    fn due<'e>(
        &mut self,
        all: &'e [Expiry],
        today: Date,
        now: Timestamp,
        first: u64,
    ) -> Vec<&'e Expiry> {
        if self.on.replace(today) == Some(today) {
            return Vec::new();
        }
        let is_due = |one: &&Expiry| one.stage(now, first).is_some();
        all.iter().filter(is_due).collect()
    }

    /// Sets one gauge per label to what is left of the one that ends first.
    fn measure(&mut self, all: &[Expiry], now: Timestamp) {
        let mut left: BTreeMap<Gauge, f64> = BTreeMap::new();
        for one in all {
            let seconds = one.left(now).as_secs_f64();
            let least = left.entry(gauge_of(&one.subject)).or_insert(f64::INFINITY);
            *least = least.min(seconds);
        }
        for gone in self.gauges.iter().filter(|name| !left.contains_key(*name)) {
            set(gone, f64::INFINITY);
        }
        for (name, seconds) in &left {
            set(name, *seconds);
        }
        self.gauges.extend(left.into_keys());
    }
}

fn say(one: &Expiry, now: Timestamp) {
    let days = one.left(now).as_hours().div_euclid(24);
    let (subject, ends_at) = (&one.subject, one.ends_at);
    if days < 0 {
        tracing::error!(days, "{subject} ended at {ends_at}");
    } else {
        tracing::warn!(days, "{subject} ends at {ends_at}, in {days} days");
    }
}

fn set((name, label, value): &Gauge, seconds: f64) {
    gauge!(*name, *label => value.clone()).set(seconds);
}

fn gauge_of(subject: &Subject) -> Gauge {
    let certificate = |which: String| ("sivi_certificate_expires_seconds", "which", which);
    match subject {
        Subject::ServerCertificate => certificate("server".to_owned()),
        Subject::ClientAuthority => certificate("client_ca".to_owned()),
        Subject::PartyCertificate(party) => certificate(format!("party:{party}")),
        Subject::ApiKey { party, .. } => {
            ("sivi_api_key_expires_seconds", "party", party.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn what_ends_soon_is_due_once_a_day() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let ending = |subject, days: u64| Expiry {
            subject,
            ends_at: now + Duration::from_hours(24 * days),
        };
        let all = [
            ending(Subject::ServerCertificate, 3),
            ending(Subject::ClientAuthority, 31),
        ];
        let mut told = Told::default();
        let mut due = |day, first| {
            let due = told.due(&all, day, now, first);
            due.into_iter().map(|one| one.subject.clone()).collect()
        };
        let (first, second) = (date(2026, 11, 22), date(2026, 11, 23));
        let one: Vec<Subject> = due(first, 30);
        assert_eq!(one, [Subject::ServerCertificate]);
        assert!(due(first, 30).is_empty());
        assert_eq!(due(second, 60).len(), 2);
    }
}

//! The recorder of what is counted, with the names and meanings of all of it.

use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What is counted, and what it means.
const COUNTERS: &[(&str, &str)] = &[
    (
        "sivi_messages_accepted_total",
        "Messages answered 202, or 200 when replay=true, by sender and kind.",
    ),
    (
        "sivi_messages_refused_total",
        "Findings of refused messages, by code and status of the answer.",
    ),
    (
        "sivi_requests_refused_total",
        "Requests to send a message that were refused, by status and kind of problem.",
    ),
    (
        "sivi_withheld_total",
        "Persons and elements kept back, by domain of the receiver and rule.",
    ),
    (
        "sivi_parked_total",
        "Parts that were parked because they could not go anywhere yet, by reason.",
    ),
    (
        "sivi_messages_leased_total",
        "Releases handed out to pollers, repeats included.",
    ),
    (
        "sivi_messages_acknowledged_total",
        "Releases acknowledged by pollers, repeats included.",
    ),
    (
        "sivi_messages_rejected_total",
        "Releases that pollers rejected: dead letters.",
    ),
    (
        "sivi_push_attempts_total",
        "Attempts to push a release, by receiver and outcome.",
    ),
    (
        "sivi_push_restarts_total",
        "Workers that push and were started again after a fault of ours, by receiver.",
    ),
    (
        "sivi_task_restarts_total",
        "Tasks in the background that were started again after a fault of ours, by task.",
    ),
    (
        "sivi_dead_contents_removed_total",
        "Dead letters whose content was removed because nobody decided about them in time.",
    ),
    (
        "sivi_lease_expiries_total",
        "Leases that ran out and whose release went again, by receiver and mode.",
    ),
    (
        "sivi_writer_refused_total",
        "Changes refused because too much waited to be written (answered 503).",
    ),
    (
        "sivi_alert_messages_total",
        "Attempts to bring an alert to the webhook, by outcome.",
    ),
    (
        "sivi_alert_messages_dropped_total",
        "Alert messages that were dropped because too many waited.",
    ),
    (
        "sivi_answers_given_up_total",
        "Answers that were given up because the client did not take them.",
    ),
];

/// What is measured: name, meaning, upper bounds of its buckets.
const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
    (
        "sivi_commit_seconds",
        "Time of COMMIT, the sync to disk included.",
        &[
            0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
        ],
    ),
    (
        "sivi_commit_jobs",
        "Changes that went into one commit.",
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
    ),
    (
        "sivi_push_seconds",
        "Time that a receiver took to answer a push.",
        &[
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ],
    ),
    (
        "sivi_takeover_seconds",
        "Time from receipt of a message to taking over a release of it, by domain and mode.",
        &[
            0.01, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0,
            259_200.0, 604_800.0,
        ],
    ),
];

/// The recorder of the whole process: the `metrics` crate knows only one.
pub(super) fn recorder() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    for (name, _, buckets) in HISTOGRAMS {
        let matcher = Matcher::Full((*name).to_owned());
        builder = builder.set_buckets_for_metric(matcher, buckets).ok()?;
    }
    let handle = builder.install_recorder().ok()?;
    for (name, meaning) in COUNTERS {
        describe_counter!(*name, *meaning);
    }
    for (name, meaning, _) in HISTOGRAMS {
        let unit = if name.ends_with("_seconds") {
            Unit::Seconds
        } else {
            Unit::Count
        };
        describe_histogram!(*name, unit, *meaning);
    }
    Some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each metric has its row in the page for operators.
    #[test]
    fn every_metric_is_in_the_page_for_operators() {
        let page = include_str!("../../docs/watching.md");
        let counters = COUNTERS.iter().map(|(name, _)| *name);
        let histograms = HISTOGRAMS.iter().map(|(name, _, _)| *name);
        let gauges = super::super::exposition::NAMES.iter().copied();
        for name in counters.chain(histograms).chain(gauges) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn buckets_grow() {
        for (name, _, buckets) in HISTOGRAMS {
            assert!(buckets.is_sorted(), "{name}");
        }
    }
}

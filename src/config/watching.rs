//! Settings of alerts and traces.

use serde::Deserialize;

use super::address::{WRONG, outgoing};
use super::{Secret, Source};

/// When and where operators are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// The webhook: `https://…`, or `http://` on loopback. None by default;
    /// alerts are then seen in metrics only.
    pub url: Option<Secret>,
    /// Signs the messages, `whsec_` and base64 of 24 to 64 bytes (Standard
    /// Webhooks). None by default: not signed.
    pub secret: Option<Secret>,
    /// More certificate authorities that the webhook may have, PEM.
    pub ca: Option<Source>,
    /// Seconds between two looks. 1 to 3600, default 15.
    pub look_seconds: u64,
    /// Share of a bound of parking, in percent, at which operators are told.
    /// 1 to 100, default 80.
    pub parked_percent: u64,
    /// Seconds by which the clock may jump between two looks. 1 to 86400,
    /// default 30.
    pub clock_jump_seconds: u64,
    /// Messages that wait for the webhook at most; older ones go first. 1 to
    /// 100000, default 1000.
    pub queue: u64,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Base address of a collector (OTLP over HTTP, JSON): `https://…`, or
    /// `http://` on loopback. None by default: no spans are made.
    pub endpoint: Option<Secret>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenAlerts {
    url: Option<String>,
    secret: Option<String>,
    pub(super) ca: Option<String>,
    look_seconds: u64,
    parked_percent: u64,
    clock_jump_seconds: u64,
    queue: u64,
}

impl Default for WrittenAlerts {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            ca: None,
            look_seconds: 15,
            parked_percent: 80,
            clock_jump_seconds: 30,
            queue: 1_000,
        }
    }
}

impl WrittenAlerts {
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let numbers = [
            ("alerts.look_seconds", self.look_seconds, 3_600),
            ("alerts.parked_percent", self.parked_percent, 100),
            ("alerts.clock_jump_seconds", self.clock_jump_seconds, 86_400),
            ("alerts.queue", self.queue, 100_000),
        ];
        let outside = numbers
            .into_iter()
            .find(|(_, number, most)| !(1..=*most).contains(number));
        if let Some((key, _, most)) = outside {
            return Some((key, format!("must be 1 to {most}")));
        }
        wrong("alerts.url", self.url.as_deref())
    }

    /// Without `ca`, which is a source.
    pub(super) fn read(self) -> Alerts {
        Alerts {
            url: spelled(self.url),
            secret: self.secret.map(Secret),
            ca: None,
            look_seconds: self.look_seconds,
            parked_percent: self.parked_percent,
            clock_jump_seconds: self.clock_jump_seconds,
            queue: self.queue,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTrace {
    endpoint: Option<String>,
}

impl WrittenTrace {
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let key = "trace.endpoint";
        let endpoint = self.endpoint.as_deref();
        wrong(key, endpoint).or_else(|| {
            let has_query = outgoing(endpoint?)?.query().is_some();
            has_query.then(|| {
                (
                    key,
                    "must not hold a query: a path is added to it".to_owned(),
                )
            })
        })
    }

    pub(super) fn read(self) -> Trace {
        Trace {
            endpoint: spelled(self.endpoint),
        }
    }
}

fn wrong(key: &'static str, address: Option<&str>) -> Option<(&'static str, String)> {
    let wrong = address.is_some_and(|address| outgoing(address).is_none());
    wrong.then(|| (key, WRONG.to_owned()))
}

/// The address in the one spelling that every client reads alike.
fn spelled(address: Option<String>) -> Option<Secret> {
    let spelled = |address: String| outgoing(&address).map_or(address, String::from);
    address.map(spelled).map(Secret)
}

//! How a party gets its messages, and how that is written.
//!
//! Keys and certificates are references here (`file:PATH`, `env:NAME`); who
//! uses them reads them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::Findings;
use super::record::{Wrong, wrong};

/// How a party gets its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It asks for them.
    Poll,
    /// They are sent to it.
    Push(Box<Push>),
}

/// Where and how messages are sent to a party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Where, `https://…` without user or password.
    pub url: String,
    /// Reference of the key that signs. Absent only in a record of an older
    /// version; then nothing is sent.
    pub secret: Option<String>,
    /// Reference of the key before it, which signs too while the receiver
    /// changes to the new one.
    pub previous_secret: Option<String>,
    /// References of the certificate chain and private key that the gateway
    /// shows to the receiver, PEM.
    pub client: Option<ClientCertificate>,
    /// Reference of the authorities, PEM, that the receiver's certificate
    /// comes from, in place of those of the system.
    pub ca: Option<String>,
    /// Hosts whose private addresses may be connected to.
    pub allow_private: Vec<String>,
    /// How long one attempt may take, 1 to 60 s, default 20 s.
    pub timeout: Duration,
    /// Messages on their way at once, 1 to 100, default 8.
    pub max_in_flight: u32,
}

/// References of a certificate chain and its private key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain.
    pub cert: String,
    /// The key.
    pub key: String,
}

const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;
const MAX_IN_FLIGHT: std::ops::RangeInclusive<u32> = 1..=100;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenDelivery {
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow_private: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
}

impl WrittenDelivery {
    pub(super) fn poll() -> Self {
        Self {
            mode: "poll".to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn read(self) -> Result<Delivery, Wrong> {
        match self.mode.as_str() {
            "poll" if self.says_nothing_of_push() => Ok(Delivery::Poll),
            "poll" => wrong(
                "delivery",
                "a party that polls has no url, no secret and nothing else of push",
            ),
            "push" => Ok(Delivery::Push(Box::new(self.read_push()?))),
            _ => wrong("delivery.mode", "must be poll or push"),
        }
    }

    fn says_nothing_of_push(&self) -> bool {
        let texts = [
            &self.url,
            &self.secret,
            &self.previous_secret,
            &self.client_cert,
            &self.client_key,
            &self.ca,
        ];
        texts.iter().all(|text| text.is_none())
            && self.allow_private.is_empty()
            && self.timeout_seconds.is_none()
            && self.max_in_flight.is_none()
    }

    fn read_push(self) -> Result<Push, Wrong> {
        let Some(url) = self.url else {
            return wrong("delivery", "push needs a url");
        };
        check_push_url(&url)?;
        let client = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some(ClientCertificate {
                cert: reference("client_cert", cert)?,
                key: reference("client_key", key)?,
            }),
            (None, None) => None,
            _ => return wrong("delivery", "client_cert and client_key go together"),
        };
        for (index, host) in self.allow_private.iter().enumerate() {
            check_host(&format!("delivery.allow_private[{}]", index + 1), host)?;
        }
        let seconds = self.timeout_seconds.unwrap_or(20);
        if !TIMEOUT_SECONDS.contains(&seconds) {
            return wrong("delivery.timeout_seconds", "must be 1 to 60");
        }
        let max_in_flight = self.max_in_flight.unwrap_or(8);
        if !MAX_IN_FLIGHT.contains(&max_in_flight) {
            return wrong("delivery.max_in_flight", "must be 1 to 100");
        }
        let optional = |key, text: Option<String>| text.map(|text| reference(key, text));
        Ok(Push {
            url,
            secret: optional("secret", self.secret).transpose()?,
            previous_secret: optional("previous_secret", self.previous_secret).transpose()?,
            client,
            ca: optional("ca", self.ca).transpose()?,
            allow_private: self.allow_private,
            timeout: Duration::from_secs(seconds),
            max_in_flight,
        })
    }

    pub(super) fn write(delivery: &Delivery) -> Self {
        let Delivery::Push(push) = delivery else {
            return Self::poll();
        };
        let client = push.client.as_ref();
        Self {
            mode: "push".to_owned(),
            url: Some(push.url.clone()),
            secret: push.secret.clone(),
            previous_secret: push.previous_secret.clone(),
            client_cert: client.map(|client| client.cert.clone()),
            client_key: client.map(|client| client.key.clone()),
            ca: push.ca.clone(),
            allow_private: push.allow_private.clone(),
            timeout_seconds: Some(push.timeout.as_secs()),
            max_in_flight: Some(push.max_in_flight),
        }
    }
}

/// Keys and certificates stand elsewhere: a secret here would be in every
/// diff and in the database.
fn reference(key: &str, text: String) -> Result<String, Wrong> {
    let named = text.strip_prefix("file:").or(text.strip_prefix("env:"));
    if named.is_none_or(str::is_empty) {
        let problem = "must be file:PATH or env:NAME, never the secret itself";
        return wrong(&format!("delivery.{key}"), problem);
    }
    Ok(text)
}

fn check_push_url(url: &str) -> Result<(), Wrong> {
    let key = "delivery.url";
    let Some(rest) = url.strip_prefix("https://") else {
        return wrong(key, "must start with https://");
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        return wrong(key, "names no host");
    }
    // It would stand in every diff and list.
    if host.contains('@') {
        return wrong(key, "must not hold a user or password");
    }
    if url.contains('#') {
        return wrong(key, "must not hold a fragment: it is never sent");
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong(key, "must be printable ASCII without spaces");
    }
    Ok(())
}

fn check_host(key: &str, host: &str) -> Result<(), Wrong> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(fits) {
        return wrong(
            key,
            "must be a host or an address, without port or brackets",
        );
    }
    Ok(())
}

/// What a record may lack and a new one may not.
pub(super) fn check_delivery(delivery: &Delivery, findings: &mut Findings<'_>) {
    let Delivery::Push(push) = delivery else {
        return;
    };
    if push.secret.is_none() {
        findings.add("delivery", "push needs a secret to sign with");
    }
    // As the client that sends will read it.
    if Url::parse(&push.url).is_err() {
        findings.add("delivery.url", "is no address");
    }
}

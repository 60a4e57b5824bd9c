//! One receiver over HTTPS: what is sent, and what its answer means.
//!
//! TLS by rustls, no redirects, no proxy, only addresses that
//! [`super::address`] lets through. Of an answer the status and `Retry-After`
//! count; its body is read to free the connection and is kept nowhere.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url};

use super::address::{Guard, PrivateAddress};
use super::schedule;
use super::sign::{self, Key};
use crate::config::{Secret, Settings};
use crate::directory::Push;
use crate::store::Leased;

/// Most bytes of an answer that are read; a longer one costs its connection.
const ANSWER_BYTES: usize = 16 * 1024;
/// Connections that nobody uses are closed, before most servers do so.
const IDLE: Duration = Duration::from_secs(30);

/// What the settings of a receiver refer to, as it was read.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    keys: Vec<Secret>,
    client: Option<[Secret; 2]>,
    ca: Option<Secret>,
}

impl Material {
    /// Reads keys and certificates.
    ///
    /// # Errors
    ///
    /// [`LinkFault`] names the setting.
    pub(super) fn read(push: &Push, settings: &Settings) -> Result<Self, LinkFault> {
        let read = |setting, reference: &str| {
            let secret = settings.secret(reference);
            secret.map_err(|cause| LinkFault::new(setting, cause))
        };
        let secret = push.secret.as_ref();
        let secret = secret.ok_or_else(|| LinkFault::new("secret", "is missing"))?;
        let mut keys = vec![read("secret", secret)?];
        if let Some(previous) = &push.previous_secret {
            keys.push(read("previous_secret", previous)?);
        }
        let client = match &push.client {
            Some(client) => Some([
                read("client_cert", &client.cert)?,
                read("client_key", &client.key)?,
            ]),
            None => None,
        };
        let ca = push.ca.as_ref().map(|ca| read("ca", ca)).transpose()?;
        Ok(Self { keys, client, ca })
    }
}

/// A way to a receiver that can be used.
pub(super) struct Link {
    material: Material,
    client: Client,
    url: Url,
    keys: Vec<Key>,
}

impl Link {
    /// Makes a way of settings and of what they refer to.
    ///
    /// # Errors
    ///
    /// [`LinkFault`] names the setting that cannot be used.
    pub(super) fn open(push: &Push, material: Material) -> Result<Self, LinkFault> {
        let url = Url::parse(&push.url).map_err(|cause| LinkFault::new("url", cause))?;
        let guard = Guard::new(&push.allow_private);
        guard
            .check_literal(&url)
            .map_err(|cause| LinkFault::new("url", cause))?;
        let names = ["secret", "previous_secret"];
        let keys = material.keys.iter().zip(names).map(|(secret, name)| {
            Key::read(secret.expose()).map_err(|cause| LinkFault::new(name, cause))
        });
        let keys = keys.collect::<Result<_, _>>()?;
        let mut builder = Client::builder()
            .https_only(true)
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(push.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(usize::try_from(push.max_in_flight).unwrap_or(usize::MAX))
            .dns_resolver(guard)
            .user_agent(concat!("sivi-gateway/", env!("CARGO_PKG_VERSION")));
        if let Some(ca) = &material.ca {
            let certificates = Certificate::from_pem_bundle(ca.expose().as_bytes())
                .map_err(|cause| LinkFault::new("ca", root(&cause)))?;
            if certificates.is_empty() {
                return Err(LinkFault::new("ca", "holds no certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some([cert, key]) = &material.client {
            let pem = zeroize::Zeroizing::new(format!("{}\n{}", cert.expose(), key.expose()));
            let identity = Identity::from_pem(pem.as_bytes())
                .map_err(|cause| LinkFault::new("client_cert", root(&cause)))?;
            builder = builder.identity(identity);
        }
        let client = builder
            .build()
            .map_err(|cause| LinkFault::new("ca", root(&cause)))?;
        Ok(Self {
            material,
            client,
            url,
            keys,
        })
    }

    /// True when it was made of this.
    pub(super) fn is_made_of(&self, material: &Material) -> bool {
        self.material == *material
    }

    /// Sends one message, within the time-out of the settings.
    pub(super) async fn send(&self, message: Leased, now: Timestamp) -> Answer {
        let seconds = now.as_second();
        let signature = sign::signatures(&self.keys, &message.id, seconds, &message.xml);
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/xml; charset=utf-8")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .header("message-type", &message.message_type)
            .header("message-edition", &message.edition)
            .header("message-tenant", message.tenant.as_str())
            .header("message-test", message.test.to_string())
            .header("message-sequence", message.sequence)
            .header("message-attempt", message.attempt)
            .header("message-received-at", message.received_at.to_string())
            // The bytes are overwritten when the request is done.
            .body(Bytes::from_owner(message.xml));
        match request.send().await {
            Ok(response) => {
                let answer = Answer::of(&response, now);
                drain(response).await;
                answer
            }
            Err(cause) => Answer::Failed(Failure::of(&cause)),
        }
    }
}

/// Reads the rest of an answer, so that its connection can be used again.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len();
        if read > ANSWER_BYTES {
            return;
        }
    }
}

/// What a receiver said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has the message.
    TakenOver,
    /// It cannot read this message.
    Unparseable {
        /// 400, 413, 415 or 422.
        status: u16,
    },
    /// It wants no messages any more.
    Gone,
    /// It, or the way to it, does not work.
    Failed(Failure),
}

impl Answer {
    fn of(response: &Response, now: Timestamp) -> Self {
        let status = response.status();
        match status {
            status if status.is_success() => Self::TakenOver,
            StatusCode::GONE => Self::Gone,
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Self::Unparseable {
                status: status.as_u16(),
            },
            status => {
                let asked = response.headers().get(RETRY_AFTER);
                let asked = asked.and_then(|value: &HeaderValue| value.to_str().ok());
                Self::Failed(Failure {
                    reason: format!("status_{}", status.as_u16()),
                    cause: None,
                    retry_after: asked.and_then(|text| schedule::retry_after(text, now)),
                })
            }
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A word that is kept and shown: `timed_out`, `status_503`.
    pub(super) reason: String,
    /// What TLS or the system said, for the log.
    pub(super) cause: Option<String>,
    /// When the receiver wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    fn of(cause: &reqwest::Error) -> Self {
        let sources = std::iter::successors(cause.source(), |&cause| cause.source());
        let is_private = sources
            .into_iter()
            .any(<dyn std::error::Error>::is::<PrivateAddress>);
        let reason = if is_private {
            "private_address"
        } else if cause.is_timeout() {
            "timed_out"
        } else if cause.is_connect() {
            "unreachable"
        } else {
            "connection_broken"
        };
        Self {
            reason: reason.to_owned(),
            cause: Some(root(cause)),
            retry_after: None,
        }
    }
}

/// The innermost cause: what TLS or the system said, without the url.
fn root(cause: &reqwest::Error) -> String {
    let sources = std::iter::successors(cause.source(), |&cause| cause.source());
    sources
        .last()
        .map_or_else(|| "it cannot be used".to_owned(), ToString::to_string)
}

/// A setting of a receiver that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFault {
    setting: &'static str,
    problem: String,
}

impl LinkFault {
    fn new(setting: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            setting,
            problem: problem.to_string(),
        }
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivery.{}: {}", self.setting, self.problem)
    }
}

//! Brings messages to the webhook, one at a time, oldest first.
//!
//! What cannot be brought waits and is tried again, seldom and seldomer: the
//! webhook is one place, so what comes later waits behind it. A message comes
//! at least once, always with the same `webhook-id`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics::counter;
use reqwest::redirect::Policy;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::message::sign;
use crate::clock::{self, Clock};
use crate::config::{Settings, Source};
use crate::store::{self, AlertMessage, Store};

/// How long the webhook may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message is hidden from other nodes while it is brought.
const HOLD: Duration = Duration::from_mins(1);
/// How often the courier looks without being called.
const LOOK: Duration = Duration::from_secs(5);
/// When a message is tried again, in seconds; then always the last.
const AGAIN: [u64; 6] = [5, 30, 120, 300, 900, 1_800];

/// Why the webhook cannot be used.
#[derive(Debug)]
pub enum CourierError {
    /// `alerts.ca` cannot be read or holds no certificate.
    Authorities,
    /// `alerts.secret` is no Standard Webhooks secret.
    Secret,
    /// The client cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for CourierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities => f.write_str("alerts.ca: is no readable PEM with certificates"),
            Self::Secret => {
                f.write_str("alerts.secret: must be whsec_ and base64 of 24 to 64 bytes")
            }
            Self::Client(_) => f.write_str("alerts: the HTTPS client cannot be made"),
        }
    }
}

impl std::error::Error for CourierError {}

/// The webhook.
struct Webhook {
    url: String,
    secret: Option<String>,
    client: reqwest::Client,
}

/// Whether the webhook of the settings can be used; sends nothing.
///
/// # Errors
///
/// [`CourierError`].
pub fn check_webhook(settings: &Settings) -> Result<(), CourierError> {
    Webhook::of(settings).map(drop)
}

impl Webhook {
    fn of(settings: &Settings) -> Result<Option<Self>, CourierError> {
        let alerts = &settings.alerts;
        let secret = alerts.secret.as_ref().map(|s| s.expose().to_owned());
        if secret
            .as_ref()
            .is_some_and(|s| sign(s, "", 0, b"").is_none())
        {
            return Err(CourierError::Secret);
        }
        let Some(url) = &alerts.url else {
            return Ok(None);
        };
        let mut client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // The environment is not a setting of ours.
            .no_proxy()
            // What answers with another address is not the webhook.
            .redirect(Policy::none())
            .user_agent("sivi-gateway");
        if let Some(source) = &alerts.ca {
            let pem = match source {
                Source::File(path) => std::fs::read(path).map_err(|_| CourierError::Authorities)?,
                Source::Text(text) => text.expose().as_bytes().to_vec(),
            };
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or(CourierError::Authorities)?;
            client = client.tls_certs_merge(authorities);
        }
        Ok(Some(Self {
            url: url.expose().to_owned(),
            secret,
            client: client.build().map_err(CourierError::Client)?,
        }))
    }

    /// True when the webhook answered 2xx.
    async fn post(&self, id: &str, body: &str, at: Timestamp) -> bool {
        let seconds = at.as_second();
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds.to_string());
        let secret = self.secret.as_deref();
        if let Some(signature) = secret.and_then(|s| sign(s, id, seconds, body.as_bytes())) {
            request = request.header("webhook-signature", signature);
        }
        let answer = request.body(body.to_owned()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// Brings messages until it is stopped.
pub(super) struct Courier {
    store: Store,
    clock: Clock,
    webhook: Option<Webhook>,
    called: Arc<Notify>,
    /// Messages that no database could keep.
    direct: mpsc::Receiver<String>,
    failing: bool,
}

/// Calls the courier.
#[derive(Clone)]
pub(super) struct Call {
    called: Arc<Notify>,
    direct: mpsc::Sender<String>,
}

impl Call {
    /// Something is in the queue.
    pub(super) fn ring(&self) {
        self.called.notify_one();
    }

    /// Brings `body` without the queue. When too many wait it is dropped.
    pub(super) fn bring(&self, body: String) {
        if self.direct.try_send(body).is_err() {
            counter!("sivi_alert_messages_dropped_total").increment(1);
        }
    }
}

impl Courier {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        settings: &Settings,
    ) -> Result<(Self, Call), CourierError> {
        let called = Arc::new(Notify::new());
        let (bring, direct) = mpsc::channel(16);
        let call = Call {
            called: Arc::clone(&called),
            direct: bring,
        };
        let courier = Self {
            store,
            clock,
            webhook: Webhook::of(settings)?,
            called,
            direct,
            failing: false,
        };
        Ok((courier, call))
    }

    pub(super) async fn run(&mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.bring_direct(&stop).await;
            match self.bring_next().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(cause) => tracing::debug!("No alert could be taken from the queue: {cause}"),
            }
            tokio::select! {
                () = self.called.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Brings the oldest message if it is due; false when there is none, or
    /// when the webhook did not take it.
    async fn bring_next(&mut self) -> Result<bool, store::Error> {
        if self.webhook.is_none() {
            return Ok(false);
        }
        let now = self.clock.now();
        let Some(message) = self.store.next_alert_message(now, HOLD).await? else {
            return Ok(false);
        };
        let AlertMessage { id, body, attempt } = message;
        if self.post(&id, &body).await {
            self.store.alert_message_sent(&id).await?;
            return Ok(true);
        }
        let now = self.clock.now();
        let later = now.saturating_add(pause(attempt)).unwrap_or(Timestamp::MAX);
        self.store.put_off_alert_message(&id, later).await?;
        Ok(false)
    }

    /// Brings what no database keeps, until the webhook has it.
    async fn bring_direct(&mut self, stop: &CancellationToken) {
        while let Ok(body) = self.direct.try_recv() {
            let id = clock::new_id_at(self.clock.now());
            let mut attempt = 1;
            while self.webhook.is_some() && !self.post(&id, &body).await {
                let waited = tokio::time::sleep(pause(attempt));
                if stop.run_until_cancelled(waited).await.is_none() {
                    return;
                }
                attempt += 1;
            }
        }
    }

    async fn post(&mut self, id: &str, body: &str) -> bool {
        let Some(webhook) = &self.webhook else {
            return false;
        };
        let sent = webhook.post(id, body, self.clock.now()).await;
        let outcome = if sent { "sent" } else { "failed" };
        counter!("sivi_alert_messages_total", "outcome" => outcome).increment(1);
        let failed_before = std::mem::replace(&mut self.failing, !sent);
        if !sent && !failed_before {
            tracing::warn!("The webhook for alerts does not take messages; they wait");
        } else if sent && failed_before {
            tracing::info!("The webhook for alerts takes messages again");
        }
        sent
    }
}

fn pause(attempt: u32) -> Duration {
    let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let last = AGAIN.last().copied().unwrap_or(1_800);
    Duration::from_secs(AGAIN.get(at).copied().unwrap_or(last))
}

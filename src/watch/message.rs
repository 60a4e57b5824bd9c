//! A message to the webhook: JSON, signed as Standard Webhooks says.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

use crate::store::Alert;

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Its condition holds now.
    Raised,
    /// It is raised, and there is more of what it is about.
    Grown,
    /// Its condition is over.
    Cleared,
}

impl Transition {
    /// `raised`, also when it is told again, or `cleared`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised | Self::Grown => "raised",
            Self::Cleared => "cleared",
        }
    }
}

/// The text for the webhook.
pub(super) fn body(alert: &Alert, transition: Transition, summary: &str, at: Timestamp) -> String {
    let subject: BTreeMap<String, String> =
        serde_json::from_str(&alert.subject).unwrap_or_default();
    json!({
        "type": format!("sivi-gateway.alert.{}", transition.as_str()),
        "alert": alert.name,
        "transition": transition.as_str(),
        "again": transition == Transition::Grown,
        "severity": alert.severity,
        "subject": subject,
        "since": alert.since.to_string(),
        "number": alert.number,
        "raised_at": alert.raised_at.to_string(),
        "timestamp": at.to_string(),
        "summary": summary,
    })
    .to_string()
}

/// The value of `webhook-signature`: `v1,` and the HMAC-SHA-256 of
/// `id.timestamp.body` (Standard Webhooks 1.0). `None` when `secret` is not
/// `whsec_` and base64 of 24 to 64 bytes.
#[must_use]
pub fn sign(secret: &str, id: &str, unix_seconds: i64, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    if !(24..=64).contains(&key.len()) {
        return None;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = [format!("{id}.{unix_seconds}.").as_bytes(), body].concat();
    let tag = hmac::sign(&key, &signed);
    Some(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature.as_deref(), Some(expected));
        for wrong in ["", "hush", "whsec_", "whsec_AAAA", "whsec_*"] {
            assert_eq!(sign(wrong, "m", 0, b""), None);
        }
    }
}

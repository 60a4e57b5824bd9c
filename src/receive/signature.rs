//! The signature under a receipt, so that a sender can prove later what was
//! accepted.
//!
//! A detached JWS (RFC 7515 appendix F, Ed25519 of RFC 8037) over exactly the
//! bytes of the answer. Its protected header says what was accepted, because a
//! Retourmelding has no place for that: one verifier serves both forms.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::routes::Reception;
use crate::setup::Setup;
use crate::store::StoredMessage;

/// Where the signature stands.
pub(super) const RECEIPT_SIGNATURE: HeaderName = HeaderName::from_static("receipt-signature");

/// Public keys are new within five seconds of a rotation; an hour old they
/// still hold every key that signed before.
const JWKS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `GET /.well-known/jwks.json`: every key that ever signed, for everybody.
pub(super) async fn public_keys(State(reception): State<Reception>) -> Response {
    let keys = reception.intake.current.get().keys.public_keys();
    ([(header::CACHE_CONTROL, JWKS_CACHE)], Json(keys)).into_response()
}

/// Signs the body of a receipt: who accepted (`iss`), when (`iat`, seconds
/// since 1970), under which `id`, and the `digest` of what was received.
pub(super) fn sign(
    setup: &Setup,
    message: &StoredMessage,
    digest: &str,
    body: &[u8],
) -> Option<HeaderValue> {
    let claims: [(&str, Value); 4] = [
        ("iss", setup.settings.gateway.sender_id.as_str().into()),
        ("iat", message.received_at.as_second().into()),
        ("id", message.id.as_str().into()),
        ("digest", digest.into()),
    ];
    let claims: Map<String, Value> = claims
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    HeaderValue::try_from(setup.keys.sign_detached(claims, body)?).ok()
}

//! What is the same for every request: TLS, connection limits, problem
//! documents and the answers to unknown paths.
//!
//! This module knows no message, no party and no store.

mod accept;
mod outgoing;
mod pace;
mod peer;
mod places;
mod problem;
mod server;
mod stream;
mod tls;

pub use accept::{Wanted, language};
pub use pace::{Line, Moving};
pub use peer::PeerCertificate;
pub use problem::{Kind, Problem, finding_json};
pub use server::{Limits, Server};
pub use tls::{SelfSigned, TlsError, server_config};

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// The contract in `OpenAPI` 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub fn openapi<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let answer =
        || async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response() };
    Router::new().route("/openapi.json", get(answer))
}

/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The answer to a path that does not exist.
pub async fn not_found() -> Problem {
    Problem::new(Kind::NotFound)
}

/// The answer to a method that a path does not have.
pub async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed)
}

//! The operators' side: what monitoring reads, and what operators do over
//! HTTP, `/admin/v1`, if they hold the token.
//!
//! Nothing here holds personal data.

mod asked;
mod dead;
mod monitor;
mod parked;
mod token;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::get;

pub use monitor::{Admin, health};
pub use token::{TOKEN_FILE, Token};

use crate::receive::Intake;

/// State of the operators' API.
#[derive(Clone)]
pub struct Desk {
    /// The store, and what lets parked parts go.
    pub intake: Intake,
    /// What an operator has to show.
    pub token: Token,
}

/// The contract of the operators' API in `OpenAPI` 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest body that an operator sends, in bytes.
const BODY_MAX: usize = 64 * 1024;

/// Everything on the operators' listener.
pub fn routes(admin: Admin, desk: Desk) -> Router {
    Router::new()
        .merge(monitor::routes(admin))
        .merge(api(desk))
        .fallback(crate::http::not_found)
        .method_not_allowed_fallback(crate::http::method_not_allowed)
}

/// The operators' API. Its contract is no secret; everything else needs the
/// token.
fn api(desk: Desk) -> Router {
    let contract = || async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) };
    Router::new()
        .merge(dead::routes())
        .merge(parked::routes())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .route("/admin/openapi.json", get(contract))
        .with_state(desk)
}

//! `/admin`: what operators do over HTTP, if they hold the token.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::get;

use super::token::Token;
use super::{alerts, dead, parked};
use crate::receive::Intake;
use crate::watch::Board;

/// State of the operators' API.
#[derive(Clone)]
pub struct Desk {
    /// The store, and what lets parked parts go.
    pub intake: Intake,
    /// The alerts that are raised.
    pub board: Board,
    /// What an operator has to show.
    pub token: Token,
}

/// The contract of the operators' API in `OpenAPI` 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest body that an operator sends, in bytes.
const BODY_MAX: usize = 64 * 1024;

/// The contract, which is no secret, and everything that needs the token.
pub(super) fn routes(desk: Desk) -> Router {
    let contract = || async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) };
    Router::new()
        .merge(alerts::routes())
        .merge(dead::routes())
        .merge(parked::routes())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .route("/admin/openapi.json", get(contract))
        .with_state(desk)
}

//! What operators and monitoring read: health, readiness, metrics; and what
//! operators do over HTTP.
//!
//! Nothing here holds personal data: labels are parties, domains and rules.
//! What happens is counted where it happens; what is there is read when it is
//! asked for (`state`), within a bounded time.

mod alerts;
mod api;
mod asked;
mod dead;
mod described;
mod exposition;
mod parked;
mod process;
mod state;
mod token;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

pub use api::{Desk, OPENAPI};
pub use state::States;
pub use token::{TOKEN_FILE, Token};

use crate::clock::Clock;
use crate::domain::PartyId;
use crate::http::{Kind, Problem};
use crate::setup::Current;
use crate::store::Store;
use crate::watch::Board;

/// Says of a receiver whether nothing can be pushed to it; given from outside,
/// because links are known there.
pub type Unreachable = Arc<dyn Fn(&PartyId) -> bool + Send + Sync>;

/// State of the routes.
#[derive(Clone)]
pub struct Admin {
    /// Asked whether it answers.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The configuration.
    pub current: Current,
    /// The alerts that are raised.
    pub board: Board,
    /// Whom this node cannot push to.
    pub unreachable: Unreachable,
    /// What was read for the last scrape.
    pub states: States,
}

/// `GET /healthz` and `GET /readyz`, on both listeners.
pub fn health(admin: Admin) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(|| async { Json(json!({ "status": "alive" })) }),
        )
        .route("/readyz", get(ready))
        .with_state(admin)
}

/// Health, readiness, `GET /metrics` and `/admin`, for the operators' listener.
pub fn routes(admin: Admin, desk: Desk) -> Router {
    // Installed now, so that nothing is counted before the first scrape in vain.
    let _ = described::recorder();
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(admin.clone())
        .merge(health(admin))
        .merge(api::routes(desk))
        .fallback(crate::http::not_found)
        .method_not_allowed_fallback(crate::http::method_not_allowed)
}

async fn ready(State(admin): State<Admin>) -> Result<Response, Problem> {
    admin.store.health().await.map_err(|cause| {
        tracing::warn!("Not ready: {cause}");
        Problem::new(Kind::Unavailable).detail("the database does not answer")
    })?;
    let setup = admin.current.get();
    if let Some(trouble) = setup.trouble() {
        // Its names are for the log, which says them once.
        return Err(Problem::new(Kind::Unavailable).detail(trouble.reason()));
    }
    let editions: Vec<&str> = setup.editions.names().collect();
    let answer = json!({
        "status": "ready",
        "editions": editions,
        "policy_version": setup.policy.version(),
    });
    Ok(Json(answer).into_response())
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    let state = admin.states.read(&admin).await;
    let handle = described::recorder().ok_or_else(|| Problem::new(Kind::Unavailable))?;
    handle.run_upkeep();
    let mut text = handle.render();
    text.push_str(&state);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

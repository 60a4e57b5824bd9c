//! What operators and monitoring read: health, readiness, metrics; and what
//! operators do over HTTP.
//!
//! Nothing here holds personal data: labels are parties, domains and rules.

mod api;
mod asked;
mod dead;
mod parked;
mod token;

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;

pub use api::{Desk, OPENAPI};
pub use token::{TOKEN_FILE, Token};

use crate::clock::Clock;
use crate::http::{Kind, Problem};
use crate::setup::Current;
use crate::store::Store;

/// State of the routes.
#[derive(Clone)]
pub struct Admin {
    /// Asked whether it answers.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The configuration.
    pub current: Current,
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
    let _ = recorder();
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
    let editions: Vec<&str> = setup.editions.names().collect();
    let answer = json!({
        "status": "ready",
        "editions": editions,
        "policy_version": setup.policy.version(),
    });
    Ok(Json(answer).into_response())
}

/// The recorder of the whole process: the `metrics` crate knows only one.
fn recorder() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| PrometheusBuilder::new().install_recorder().ok())
        .as_ref()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    let now = admin.clock.now();
    if let Ok(backlog) = admin.store.backlog(now).await {
        for line in backlog {
            let labels = [
                ("party", line.party.as_str().to_owned()),
                ("test", line.test.to_string()),
            ];
            gauge!("sivi_queue_due", &labels).set(as_f64(line.due));
            gauge!("sivi_queue_leased", &labels).set(as_f64(line.leased));
            gauge!("sivi_queue_dead", &labels).set(as_f64(line.dead));
            let age = line
                .oldest_received_at
                .map_or(0.0, |at| now.duration_since(at).as_secs_f64());
            gauge!("sivi_queue_oldest_seconds", &labels).set(age);
        }
    }
    let handle = recorder().ok_or_else(|| Problem::new(Kind::Unavailable))?;
    handle.run_upkeep();
    let text = handle.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

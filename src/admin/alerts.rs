//! `/admin/v1/alerts`: what is raised now.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::api::Desk;
use super::token::Operator;
use crate::store::Alert;

pub(super) fn routes() -> Router<Desk> {
    Router::new().route("/admin/v1/alerts", get(list))
}

async fn list(State(desk): State<Desk>, _operator: Operator) -> Json<Value> {
    let alerts = desk.board.alerts().await;
    let alerts: Vec<Value> = alerts.iter().map(alert_json).collect();
    Json(json!({ "alerts": alerts }))
}

fn alert_json(alert: &Alert) -> Value {
    // What is not JSON was written by a newer version.
    let subject: Value = serde_json::from_str(&alert.subject).unwrap_or_default();
    json!({
        "name": alert.name,
        "severity": alert.severity,
        "subject": subject,
        "since": alert.since.to_string(),
        "number": alert.number,
        "raised_at": alert.raised_at.to_string(),
    })
}

//! `/admin/v1/parked`: parked parts, and letting them go.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::Desk;
use super::asked::{self, store_problem};
use super::token::Operator;
use crate::http::Problem;
use crate::letters::parked::{self, ParkedAsked};
use crate::receive::Unparked;

pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/admin/v1/parked", get(list))
        .route("/admin/v1/parked/retry", post(retry_all))
        .route("/admin/v1/parked/{id}", get(show))
        .route("/admin/v1/parked/{id}/retry", post(retry))
        .route("/admin/v1/parked/{id}/discard", post(discard))
}

async fn list(
    State(desk): State<Desk>,
    _operator: Operator,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let (asked, page) = asked::listing::<ParkedAsked>(&uri, ParkedAsked::KEYS)?;
    let now = desk.intake.clock.now();
    let mut filter = asked.filter(now).map_err(asked::unfit)?;
    filter.after = page.after;
    let found = desk.intake.store.parked_page(&filter, page.limit).await;
    let found = found.map_err(|cause| store_problem(&cause))?;
    Ok(Json(parked::page_json(&found, now)))
}

async fn show(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let found = desk.intake.store.parked_summary(&asked::id(id)?).await;
    let found = found.map_err(|cause| store_problem(&cause))?;
    let part = found.ok_or_else(asked::not_found)?;
    Ok(Json(parked::part_json(&part, desk.intake.clock.now())))
}

async fn retry(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id = asked::id(id)?;
    let became = parked::retry(&desk.intake, &id).await;
    match became.map_err(|cause| store_problem(&cause))? {
        Unparked::Gone => Err(asked::not_found()),
        became @ (Unparked::Released { .. } | Unparked::Waits(_) | Unparked::Unreadable) => {
            Ok(Json(parked::retry_json(&id, &became)))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryBody {
    filter: Option<Map<String, Value>>,
}

async fn retry_all(
    State(desk): State<Desk>,
    _operator: Operator,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let asked: RetryBody = asked::body(body)?;
    let filter: ParkedAsked = asked::filter(asked.filter, ParkedAsked::KEYS)?;
    let filter = filter.filter(desk.intake.clock.now());
    let filter = filter.map_err(asked::unfit)?;
    let retried = parked::retry_all(&desk.intake, &filter).await;
    let retried = retried.map_err(|cause| store_problem(&cause))?;
    Ok(Json(parked::retried_json(&retried)))
}

async fn discard(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id = asked::id(id)?;
    let intake = &desk.intake;
    let discarded = parked::discard(&intake.store, &id, intake.clock.now()).await;
    if discarded.map_err(|cause| store_problem(&cause))? {
        Ok(Json(json!({ "id": id, "result": "discarded" })))
    } else {
        Err(asked::not_found())
    }
}

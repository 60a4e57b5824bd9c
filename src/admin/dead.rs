//! `/admin/v1/dead`: dead letters, making them due again, discarding them.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::api::Desk;
use super::asked::{self, store_problem};
use super::token::Operator;
use crate::http::{Kind, Problem};
use crate::letters::dead::{self, DeadAsked};
use crate::store::{Discard, Retry};

pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/admin/v1/dead", get(list))
        .route("/admin/v1/dead/replay", post(replay))
        .route("/admin/v1/dead/{id}", get(show))
        .route("/admin/v1/dead/{id}/retry", post(retry))
        .route("/admin/v1/dead/{id}/discard", post(discard))
}

async fn list(
    State(desk): State<Desk>,
    _operator: Operator,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let (asked, page) = asked::listing::<DeadAsked>(&uri, DeadAsked::KEYS)?;
    let filter = asked.filter().map_err(asked::unfit)?;
    let store = &desk.intake.store;
    let found = store
        .dead_letters(&filter, page.after.as_deref(), page.limit)
        .await;
    let found = found.map_err(|cause| store_problem(&cause))?;
    Ok(Json(dead::page_json(&found)))
}

async fn show(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let found = desk.intake.store.dead_letter(&asked::id(id)?).await;
    let found = found.map_err(|cause| store_problem(&cause))?;
    let letter = found.ok_or_else(asked::not_found)?;
    Ok(Json(dead::letter_json(&letter)))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryBody {
    overtaken: bool,
}

async fn retry(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let id = asked::id(id)?;
    let asked: RetryBody = asked::body(body)?;
    let overtaken = dead::overtaken(asked.overtaken);
    let intake = &desk.intake;
    let retry = dead::retry(&intake.store, &id, overtaken).await;
    match retry.map_err(|cause| store_problem(&cause))? {
        Retry::Unknown => Err(asked::not_found()),
        Retry::Overtaken { by } => Err(Problem::new(Kind::Overtaken).detail(format!(
            "newer messages about its cases that its receiver has: {by}; \
             {{\"overtaken\": true}} sends it all the same"
        ))),
        Retry::Discarded | Retry::NoContent => {
            Err(Problem::new(Kind::Erased)
                .detail("its content is gone: ask its sender for it again"))
        }
        done @ (Retry::Due { .. } | Retry::NotDead(_)) => Ok(Json(dead::retry_json(&id, done))),
    }
}

async fn discard(
    State(desk): State<Desk>,
    _operator: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id = asked::id(id)?;
    let discard = dead::discard(&desk.intake.store, &id).await;
    match discard.map_err(|cause| store_problem(&cause))? {
        Discard::Unknown => Err(asked::not_found()),
        done @ (Discard::Done | Discard::Already | Discard::NotDead(_)) => {
            Ok(Json(dead::discard_json(&id, done)))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplayBody {
    filter: Option<Map<String, Value>>,
    dry_run: bool,
    overtaken: bool,
}

async fn replay(
    State(desk): State<Desk>,
    _operator: Operator,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let asked: ReplayBody = asked::body(body)?;
    let filter: DeadAsked = asked::filter(asked.filter, DeadAsked::KEYS)?;
    let filter = filter.filter().map_err(asked::unfit)?;
    let overtaken = dead::overtaken(asked.overtaken);
    let store = &desk.intake.store;
    let replay = if asked.dry_run {
        store.preview_replay(&filter, overtaken).await
    } else {
        dead::replay(store, &filter, overtaken).await
    };
    let replay = replay.map_err(|cause| store_problem(&cause))?;
    Ok(Json(dead::replay_json(&replay, asked.dry_run)))
}

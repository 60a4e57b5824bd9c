//! The inbox over HTTP.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics::counter;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use super::answers::Answers;
use super::shown;
use super::wait::{self, Found, Request};
use crate::access::{Caller, Door, Doorkeeper, Limit};
use crate::clock::Clock;
use crate::http::{Kind, Problem, Wanted};
use crate::store::{Error, InboxError, Leased, Store};
use crate::trace;

/// State of the routes.
#[derive(Clone)]
pub struct Counter {
    /// Where the messages are.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Who may come in.
    pub door: Door,
    /// Answers that hold messages.
    pub answers: Answers,
    /// Ends long polls when the daemon stops.
    pub stop: CancellationToken,
}

impl Doorkeeper for Counter {
    fn door(&self) -> &Door {
        &self.door
    }
}

/// The routes of the receiving side.
pub fn routes(counter: Counter) -> Router {
    Router::new()
        .route("/v1/inbox/lease", post(lease))
        .route("/v1/inbox/ack", post(ack))
        .route("/v1/inbox/feed", get(feed))
        .route("/v1/inbox/{id}", get(read))
        .route("/v1/inbox/{id}/reject", post(reject))
        .route("/v1/inbox/{id}/extend", post(extend))
        .with_state(counter)
}

/// Bounds of a lease, in seconds.
const TTL: std::ops::RangeInclusive<u64> = 10..=900;
/// Bounds of a wait, in seconds.
const WAIT: std::ops::RangeInclusive<u64> = 0..=60;
/// Bounds of a batch.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=1000;
/// Longest code and reason of a rejection, in characters.
const REASON: usize = 2000;

#[derive(Deserialize)]
struct LeaseQuery {
    #[serde(default = "default_limit")]
    limit: usize,
    #[serde(default)]
    wait: u64,
    #[serde(default = "default_ttl")]
    ttl: u64,
    #[serde(default)]
    test: bool,
}

fn default_limit() -> usize {
    100
}

fn default_ttl() -> u64 {
    60
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: &T,
    bounds: &std::ops::RangeInclusive<T>,
) -> Result<(), Problem> {
    if bounds.contains(value) {
        return Ok(());
    }
    let detail = format!("{name} must be {} to {}", bounds.start(), bounds.end());
    Err(Problem::new(Kind::BadRequest).detail(detail))
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    let problem = || Problem::new(Kind::BadRequest).detail("a query parameter has the wrong form");
    query.map(|Query(query)| query).map_err(|_| problem())
}

/// A small JSON body that came in time: whole within the pause that a large
/// one may make between two pieces.
struct Small<T>(T);

impl<T: DeserializeOwned> FromRequest<Counter> for Small<T> {
    type Rejection = Problem;

    async fn from_request(
        request: axum::extract::Request,
        counter: &Counter,
    ) -> Result<Self, Problem> {
        let limits = &counter.door.current.get().settings.limits;
        let pause = Duration::from_secs(limits.body_idle_seconds);
        let read = tokio::time::timeout(pause, Json::from_request(request, counter)).await;
        let read: Result<Json<T>, JsonRejection> =
            read.map_err(|_| Problem::new(Kind::Timeout).closing())?;
        let problem = |cause: JsonRejection| match cause.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::TooLarge).closing(),
            _ => Problem::new(Kind::BadRequest).detail("the JSON body has the wrong form"),
        };
        read.map(|Json(body)| Self(body)).map_err(problem)
    }
}

/// An id that is no text is nobody's.
fn known(id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    id.map(|Path(id)| id)
        .map_err(|_| Problem::new(Kind::NotFound))
}

async fn lease(
    State(counter): State<Counter>,
    caller: Caller,
    asked: Result<Query<LeaseQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = query(asked)?;
    within("limit", &asked.limit, &LIMIT)?;
    within("wait", &asked.wait, &WAIT)?;
    within("ttl", &asked.ttl, &TTL)?;
    let as_xml = Wanted::of(&headers) == Wanted::Xml;
    if as_xml && asked.limit != 1 {
        return Err(Problem::new(Kind::BadRequest).detail("raw XML needs limit=1"));
    }
    let request = Request {
        caller: &caller,
        test: asked.test,
        limit: asked.limit,
        ttl: Duration::from_secs(asked.ttl),
        wait: Duration::from_secs(asked.wait),
    };
    let span = lease_span(&request, &headers);
    let allowances = &counter.door.allowances;
    let may_wait = || allowances.begin(&caller, Limit::PollsPerParty);
    let found = wait::lease(&counter, &request, may_wait)
        .instrument(span.clone())
        .await?;
    let leased = found.as_ref().map(|found| found.leased.as_slice());
    let leased = leased.unwrap_or_default();
    record_leased(&span, leased);
    drop(span);
    counter!("sivi_messages_leased_total").increment(leased.len() as u64);
    Ok(match found {
        None if as_xml => StatusCode::NO_CONTENT.into_response(),
        None => Json(json!({ "messages": [] })).into_response(),
        Some(found) if as_xml => raw(found),
        Some(Found { leased, turn }) => turn.answer(JSON, shown::leased(&leased)),
    })
}

fn lease_span(request: &Request<'_>, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: trace::TARGET,
        "lease",
        party = request.caller.party.as_str(),
        test = request.test,
        releases = Empty,
        release.ids = Empty,
    );
    follow(&span, headers);
    span
}

/// Ids of releases that one span names at most.
const IDS_IN_SPAN: usize = 100;

fn record_leased(span: &Span, leased: &[Leased]) {
    if span.is_disabled() {
        return;
    }
    let ids: Vec<&str> = leased.iter().map(|one| one.id.as_str()).collect();
    let named = ids.get(..IDS_IN_SPAN).unwrap_or(&ids);
    span.record("releases", ids.len());
    span.record("release.ids", named.join(" "));
}

fn follow(span: &Span, headers: &HeaderMap) {
    trace::follow(span, &|name| headers.get(name)?.to_str().ok());
}

const JSON: &str = "application/json";
const XML: &str = "application/xml; charset=utf-8";

/// The one message of an answer in raw XML.
fn raw(found: Found) -> Response {
    let Found { leased, turn } = found;
    let Some(leased) = leased.into_iter().next() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let headers = [
        ("message-id", leased.id),
        ("message-lease", leased.lease),
        ("message-type", leased.message_type),
        ("lease-until", leased.lease_until.to_string()),
    ];
    let mut response = turn.answer(XML, leased.xml);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    ids: Option<Vec<String>>,
    items: Option<Vec<AckItem>>,
}

#[derive(Deserialize)]
struct AckItem {
    id: String,
    lease: Option<String>,
}

async fn ack(
    State(counter): State<Counter>,
    caller: Caller,
    headers: HeaderMap,
    asked: Result<Small<AckBody>, Problem>,
) -> Result<Json<Value>, Problem> {
    let Small(asked) = asked?;
    let by_id = asked.ids.into_iter().flatten().map(|id| (id, None));
    let by_lease = asked
        .items
        .into_iter()
        .flatten()
        .map(|item| (item.id, item.lease));
    let items: Vec<(String, Option<String>)> = by_id.chain(by_lease).collect();
    let span = info_span!(
        target: trace::TARGET,
        "ack",
        party = caller.party.as_str(),
        acknowledged = Empty,
        unknown = Empty,
    );
    follow(&span, &headers);
    let acked = counter
        .store
        .ack(&caller.party, &items)
        .instrument(span.clone())
        .await;
    let acked = acked.map_err(|cause| store_problem(&cause))?;
    span.record("acknowledged", acked.acknowledged.len());
    span.record("unknown", acked.unknown.len());
    counter!("sivi_messages_acknowledged_total").increment(acked.acknowledged.len() as u64);
    Ok(Json(
        json!({ "acknowledged": acked.acknowledged, "unknown": acked.unknown }),
    ))
}

#[derive(Deserialize)]
struct RejectBody {
    lease: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    reason: String,
}

async fn reject(
    State(counter): State<Counter>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    asked: Result<Small<RejectBody>, Problem>,
) -> Result<Json<Value>, Problem> {
    let id = known(id)?;
    let Small(asked) = asked?;
    if asked.code.chars().count() > REASON || asked.reason.chars().count() > REASON {
        return Err(
            Problem::new(Kind::BadRequest).detail("code and reason hold at most 2000 characters")
        );
    }
    let RejectBody {
        lease,
        code,
        reason,
    } = asked;
    counter
        .store
        .reject(&caller.party, &id, &lease, &code, &reason)
        .await
        .map_err(inbox_problem)?;
    counter!("sivi_messages_rejected_total").increment(1);
    Ok(Json(json!({ "id": id, "state": "dead" })))
}

#[derive(Deserialize)]
struct ExtendBody {
    lease: String,
    #[serde(default = "default_ttl")]
    ttl: u64,
}

async fn extend(
    State(counter): State<Counter>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    asked: Result<Small<ExtendBody>, Problem>,
) -> Result<Json<Value>, Problem> {
    let id = known(id)?;
    let Small(asked) = asked?;
    within("ttl", &asked.ttl, &TTL)?;
    let ttl = Duration::from_secs(asked.ttl);
    let until = counter
        .store
        .extend(&caller.party, &id, &asked.lease, ttl)
        .await;
    let until = until.map_err(inbox_problem)?;
    Ok(Json(
        json!({ "id": id, "lease": asked.lease, "lease_until": until.to_string() }),
    ))
}

async fn read(
    State(counter): State<Counter>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = known(id)?;
    let turn = counter.answers.turn(&caller).await?;
    let replay = wait::days(caller.setup.settings.limits.replay_days);
    let found = counter
        .store
        .payload(&caller.party, &id, counter.clock.now(), replay)
        .await;
    let found = found.map_err(|cause| store_problem(&cause))?;
    let payload = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(turn.answer(XML, payload.xml))
}

#[derive(Deserialize)]
struct FeedQuery {
    #[serde(default)]
    after: i64,
    #[serde(default = "default_limit")]
    limit: usize,
    #[serde(default)]
    test: bool,
}

async fn feed(
    State(counter): State<Counter>,
    caller: Caller,
    asked: Result<Query<FeedQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let asked = query(asked)?;
    within("limit", &asked.limit, &LIMIT)?;
    let turn = counter.answers.turn(&caller).await?;
    let replay = wait::days(caller.setup.settings.limits.replay_days);
    let now = counter.clock.now();
    let found = counter
        .store
        .feed(
            &caller.party,
            asked.test,
            asked.after,
            asked.limit,
            now,
            replay,
        )
        .await;
    let items = found.map_err(|cause| store_problem(&cause))?;
    Ok(turn.answer(JSON, shown::feed(&items)))
}

fn inbox_problem(cause: InboxError) -> Problem {
    match cause {
        InboxError::Unknown => Problem::new(Kind::NotFound),
        InboxError::LeaseLost => Problem::new(Kind::LeaseLost),
        InboxError::Store(cause) => store_problem(&cause),
    }
}

pub(super) fn store_problem(cause: &Error) -> Problem {
    match cause {
        Error::Busy | Error::Unavailable(_) => {
            tracing::warn!("The store cannot answer now: {cause}");
            Problem::new(Kind::Unavailable)
        }
        Error::Conflict
        | Error::WrongKeys
        | Error::StoreLost
        | Error::Moved { .. }
        | Error::Damaged { .. } => Problem::internal(cause),
    }
}

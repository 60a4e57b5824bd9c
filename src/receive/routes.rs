//! `/v1/messages`: HTTP in, HTTP out. Every decision is made elsewhere.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts as _, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::civil::DateTime;
use metrics::counter;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::body::{self, BodyLimits};
use super::intake::{Accepted, Intake, Refusal};
use super::prepare::Outline;
use crate::access::{Caller, Doorkeeper};
use crate::clock;
use crate::domain::{Finding, Language};
use crate::http::{Kind, Problem, finding_json};
use crate::policy;
use crate::setup::{Current, Setup, Standing};
use crate::store::StoredMessage;
use crate::translate::SendReceipt;

/// State of the routes.
#[derive(Clone)]
pub struct Reception {
    /// Takes messages in.
    pub intake: Intake,
    /// Bounds on bodies.
    pub limits: BodyLimits,
    /// Told which API key was used.
    pub used_keys: tokio::sync::mpsc::Sender<String>,
    /// Messages per party and minute.
    pub pace: super::pace::Pace,
}

impl Doorkeeper for Reception {
    fn current(&self) -> &Current {
        &self.intake.current
    }

    fn clock(&self) -> &clock::Clock {
        &self.intake.clock
    }

    fn used(&self, key: &str) {
        // A full queue loses a time of last use, nothing else.
        let _ = self.used_keys.try_send(key.to_owned());
    }
}

/// The routes of the sending side.
pub fn routes(reception: Reception) -> Router {
    Router::new()
        .route("/v1/messages", post(post_message).get(find_message))
        .route("/v1/messages/{id}", get(get_message))
        .layer(DefaultBodyLimit::disable())
        .with_state(reception)
}

/// What kind of answer the client wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Json,
    Xml,
    /// Nothing said: the message decides.
    Either,
}

fn wanted(headers: &HeaderMap) -> Wanted {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.contains("application/json") {
        Wanted::Json
    } else if accept.contains("/xml") {
        Wanted::Xml
    } else {
        Wanted::Either
    }
}

fn language(headers: &HeaderMap) -> Language {
    let accepted = headers
        .get(header::ACCEPT_LANGUAGE)
        .and_then(|v| v.to_str().ok());
    match accepted {
        Some(accepted) if accepted.trim_start().to_ascii_lowercase().starts_with("nl") => {
            Language::Dutch
        }
        _ => Language::English,
    }
}

/// `POST /v1/messages`: answers 202 only after the message is on disk.
async fn post_message(State(reception): State<Reception>, request: Request<Body>) -> Response {
    let wanted = wanted(request.headers());
    let language = language(request.headers());
    let (mut parts, request_body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &reception).await;
    let caller: Caller = match caller {
        Ok(caller) => caller,
        Err(problem) => return refuse_early(problem, request_body, wanted, &reception).await,
    };
    let head = body::check_head(&parts.headers, &reception.limits)
        .and_then(|encoding| reception.pace.admit(&caller.party).map(|()| encoding));
    let encoding = match head {
        Ok(encoding) => encoding,
        Err(problem) => return refuse_early(problem, request_body, wanted, &reception).await,
    };
    let received = match body::read(request_body, &encoding, &reception.limits).await {
        Ok(received) => received,
        Err(problem) => return render(problem, wanted, None, &caller, &reception),
    };
    let bytes = received.bytes.as_slice();
    match reception.intake.accept(&caller.party, bytes).await {
        Ok(accepted) => {
            counter!("sivi_messages_accepted_total", "replay" => accepted.replay.to_string())
                .increment(1);
            receipt(&accepted, bytes, wanted, language, &caller)
        }
        Err((refusal, outline)) => {
            let problem = problem_of(refusal).language(language);
            for finding in problem.all_findings() {
                counter!("sivi_messages_refused_total", "code" => finding.code.as_str())
                    .increment(1);
            }
            render(problem, wanted, Some(&outline), &caller, &reception)
        }
    }
}

async fn refuse_early(
    problem: Problem,
    rest: Body,
    wanted: Wanted,
    reception: &Reception,
) -> Response {
    body::drain(rest).await;
    let problem = problem.closing();
    let setup = reception.intake.current.get();
    if wanted == Wanted::Xml {
        xml_problem(
            &problem,
            None,
            setup.fallback(),
            &setup,
            reception.intake.clock.civil(),
        )
    } else {
        problem.into_response()
    }
}

fn problem_of(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Malformed(findings) => Problem::new(Kind::Malformed).findings(findings),
        Refusal::Forbidden(findings) => Problem::new(Kind::Forbidden).findings(findings),
        Refusal::ReferenceReused => Problem::new(Kind::ReferenceReused),
        Refusal::Invalid(findings) => Problem::new(Kind::Invalid).findings(findings),
        Refusal::Busy(findings) => Problem::new(Kind::Unavailable).findings(findings),
        Refusal::Internal(cause) => Problem::internal(&cause),
    }
}

fn render(
    problem: Problem,
    wanted: Wanted,
    outline: Option<&Outline>,
    caller: &Caller,
    reception: &Reception,
) -> Response {
    if wanted == Wanted::Xml {
        let at = reception.intake.clock.civil();
        xml_problem(
            &problem,
            outline,
            caller.setup.standing(&caller.party),
            &caller.setup,
            at,
        )
    } else {
        problem.into_response()
    }
}

/// An error as a Retourmelding.
fn xml_problem(
    problem: &Problem,
    outline: Option<&Outline>,
    standing: &Standing,
    setup: &Setup,
    at: DateTime,
) -> Response {
    let Some(schema) = standing.edition.message_by_code("99999") else {
        return Problem::new(problem.kind()).into_response();
    };
    let sender = outline
        .and_then(|outline| outline.sender_id.as_deref())
        .unwrap_or_default();
    let reference = clock::new_id();
    let answer = Answer {
        schema,
        from: &setup.settings.gateway.sender_id,
        to: sender,
        berrefnr: &format!("SGW-R-{reference}"),
        answered: outline
            .and_then(|outline| outline.berrefnr.as_deref())
            .unwrap_or_default(),
        test: outline.is_some_and(|outline| outline.test),
        at,
        kind: &standing.mapping.receipt().negative,
        errors: problem.all_findings(),
    };
    let mut response = xml_response(problem.kind().status(), answer.to_xml());
    problem.add_headers(&mut response);
    response
}

fn xml_response(status: StatusCode, xml: String) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/xml; charset=utf-8")],
        xml,
    )
        .into_response()
}

/// The receipt of an accepted message: the same one every time.
fn receipt(
    accepted: &Accepted,
    body: &[u8],
    wanted: Wanted,
    language: Language,
    caller: &Caller,
) -> Response {
    let message = &accepted.message;
    let status = if accepted.replay {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mapping = &caller.setup.standing(&caller.party).mapping;
    let asked = match mapping.receipt().send {
        SendReceipt::Honour => accepted.outline.receipt_wanted,
        SendReceipt::Always => true,
        SendReceipt::Never => false,
    };
    let as_xml = wanted == Wanted::Xml || (wanted == Wanted::Either && asked);
    let schema = caller
        .setup
        .standing(&caller.party)
        .edition
        .message_by_code("99999");
    let mut response = match schema.filter(|_| as_xml) {
        Some(schema) => {
            let answer = Answer {
                schema,
                from: &caller.setup.settings.gateway.sender_id,
                to: accepted.outline.sender_id.as_deref().unwrap_or_default(),
                berrefnr: &format!("SGW-R-{}", message.id),
                answered: accepted.outline.berrefnr.as_deref().unwrap_or_default(),
                test: message.test,
                at: clock::civil_at(message.received_at),
                kind: &mapping.receipt().positive,
                errors: &[],
            };
            xml_response(status, answer.to_xml())
        }
        None => (status, Json(receipt_json(message, body, language))).into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/messages/{}", message.id)) {
        headers.insert(header::LOCATION, location);
    }
    if accepted.replay {
        headers.insert("idempotent-replay", HeaderValue::from_static("true"));
    }
    response
}

fn receipt_json(message: &StoredMessage, body: &[u8], language: Language) -> Value {
    json!({
        "id": message.id,
        "status": "accepted",
        "received_at": message.received_at.to_string(),
        "digest": format!("sha-256:{}", hex_digest(body)),
        "message_type": message.message_type,
        "edition": message.edition,
        "test": message.test,
        "findings": findings_json(&message.findings, language),
    })
}

fn hex_digest(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn findings_json(findings: &[Finding], language: Language) -> Vec<Value> {
    findings
        .iter()
        .map(|finding| finding_json(finding, language))
        .collect()
}

#[derive(Deserialize)]
struct ByReference {
    berrefnr: Option<String>,
}

/// `GET /v1/messages?berrefnr=…`
async fn find_message(
    State(reception): State<Reception>,
    caller: Caller,
    query: Result<Query<ByReference>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let reference = query.ok().and_then(|Query(by)| by.berrefnr);
    let reference = reference.ok_or_else(|| {
        Problem::new(Kind::BadRequest).detail("the query parameter berrefnr is needed")
    })?;
    let hash = policy::berrefnr(&caller.setup.keys, &caller.party, &reference);
    let found = reception
        .intake
        .store
        .find_message(&caller.party, &hash)
        .await;
    show(found, &headers)
}

/// `GET /v1/messages/{id}`
async fn get_message(
    State(reception): State<Reception>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let found = reception.intake.store.message(&caller.party, &id).await;
    show(found, &headers)
}

fn show(
    found: Result<Option<StoredMessage>, crate::store::Error>,
    headers: &HeaderMap,
) -> Result<Json<Value>, Problem> {
    let message = found.map_err(|cause| super::store_problem(&cause))?;
    let message = message.ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(Json(super::status::status_json(
        &message,
        findings_json(&message.findings, language(headers)),
    )))
}

//! `/v1/messages`: HTTP in, HTTP out. Every decision is made elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Body as _;
use jiff::civil::DateTime;
use metrics::counter;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use super::answer::Answer;
use super::body::{self, BodyLimits, Received};
use super::intake::{Accepted, Intake, Refusal};
use super::prepare::Outline;
use super::signature;
use crate::access::{Caller, Door, Doorkeeper, Limit, Memory, Running};
use crate::clock;
use crate::domain::{Finding, Language, PartyId};
use crate::http::{Kind, Line, Problem, Wanted, finding_json, language};
use crate::policy;
use crate::setup::Setup;
use crate::store::StoredMessage;
use crate::trace;
use crate::translate::SendReceipt;

/// State of the routes.
#[derive(Clone)]
pub struct Reception {
    /// Takes messages in.
    pub intake: Intake,
    /// The memory that bodies hold.
    pub memory: Memory,
    /// Who may come in.
    pub door: Door,
}

impl Doorkeeper for Reception {
    fn door(&self) -> &Door {
        &self.door
    }
}

/// The routes of the sending side.
pub fn routes(reception: Reception) -> Router {
    Router::new()
        .route("/v1/messages", post(post_message).get(find_message))
        .route("/v1/messages/{id}", get(get_message))
        .route("/.well-known/jwks.json", get(signature::public_keys))
        .layer(DefaultBodyLimit::disable())
        .with_state(reception)
}

/// `POST /v1/messages`: answers 202 only after the message is on disk.
async fn post_message(State(reception): State<Reception>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let caller = Caller::identify(&parts, &reception.door);
    let span = info_span!(
        target: trace::TARGET,
        "receive",
        party = Empty,
        bytes = Empty,
        message.id = Empty,
        message.r#type = Empty,
        test = Empty,
        replay = Empty,
        status = Empty,
    );
    // What somebody unknown sends goes nowhere.
    if caller.is_ok() {
        trace::follow(&span, &|name| parts.headers.get(name)?.to_str().ok());
    }
    let response = take_message(reception, caller, &parts, body)
        .instrument(span.clone())
        .await;
    span.record("status", response.status().as_u16());
    response
}

async fn take_message(
    reception: Reception,
    caller: Result<Caller, Problem>,
    parts: &Parts,
    mut request_body: Body,
) -> Response {
    let asked = Asked {
        wanted: Wanted::of(&parts.headers),
        language: language(&parts.headers),
        waits: parts.headers.contains_key(header::EXPECT),
        in_streams: parts.version == Version::HTTP_2,
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => {
            let setup = reception.intake.current.get();
            let answered = Answered {
                outline: None,
                party: None,
                setup: &setup,
                at: reception.intake.clock.civil(),
            };
            return refuse_early(problem, request_body, asked, answered).await;
        }
    };
    Span::current().record("party", caller.party.as_str());
    let answered = |outline| Answered {
        outline,
        party: Some(&caller.party),
        setup: &caller.setup,
        at: reception.intake.clock.civil(),
    };
    let limits = BodyLimits::of(&caller.setup);
    let head = body::check_head(&parts.headers, &limits)
        .and_then(|encoding| Ok((encoding, admit(&reception, &caller)?)));
    let (encoding, uploading) = match head {
        Ok(admitted) => admitted,
        Err(problem) => return refuse_early(problem, request_body, asked, answered(None)).await,
    };
    let allowances = &reception.door.allowances;
    let came = |bytes: usize| {
        allowances.charge(&caller, Limit::BytesPerMinute, bytes as u64);
    };
    let line = parts.extensions.get::<Line>().cloned().unwrap_or_default();
    let received = body::read(
        &mut request_body,
        &encoding,
        &limits,
        &line,
        reception.memory.hold(&caller),
        &came,
    );
    let received = match received.await {
        Ok(received) => Arc::new(received),
        Err(problem) => return refuse_early(problem, request_body, asked, answered(None)).await,
    };
    Span::current().record("bytes", received.bytes.len());
    match accept(&reception, &caller.party, &received, uploading).await {
        Ok(accepted) => {
            count_accepted(&accepted);
            let (span, message) = (Span::current(), &accepted.message);
            span.record("message.id", message.id.as_str());
            span.record("message.type", message.message_type.as_str());
            span.record("test", message.test);
            span.record("replay", accepted.replay);
            receipt(&accepted, &received, asked, &caller)
        }
        Err((refusal, outline)) => {
            let problem = problem_of(refusal).language(asked.language);
            render(problem, asked.wanted, &answered(Some(&outline)))
        }
    }
}

/// Takes a message in, to the end also when its sender hangs up meanwhile: a
/// message may be on disk by then, and what follows from it has to follow.
async fn accept(
    reception: &Reception,
    party: &PartyId,
    received: &Arc<Received>,
    uploading: Running,
) -> Result<Accepted, (Refusal, Outline)> {
    let (intake, party, received) = (
        reception.intake.clone(),
        party.clone(),
        Arc::clone(received),
    );
    let accepting = async move {
        let accepted = intake.accept(&party, &received.bytes).await;
        drop(uploading);
        accepted
    };
    match tokio::spawn(accepting.in_current_span()).await {
        Ok(accepted) => accepted,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(_) => Err((Refusal::Busy(Vec::new()), Outline::default())),
        },
    }
}

/// Whether one more message of this party may come in now. The count per
/// minute comes last: what another bound refuses does not use it up.
fn admit(reception: &Reception, caller: &Caller) -> Result<Running, Problem> {
    let allowances = &reception.door.allowances;
    let uploading = allowances.begin(caller, Limit::UploadsPerParty)?;
    allowances.check(caller, Limit::BytesPerMinute)?;
    allowances.admit(caller, Limit::MessagesPerMinute)?;
    Ok(uploading)
}

/// How the client wants to be answered.
#[derive(Clone, Copy)]
struct Asked {
    wanted: Wanted,
    language: Language,
    /// It sends its body only when it is told to go on.
    waits: bool,
    /// HTTP/2: a body that is dropped resets its stream, and the answer may
    /// go down with it.
    in_streams: bool,
}

/// Whom an answer goes to, and what it is about.
#[derive(Clone, Copy)]
struct Answered<'a> {
    outline: Option<&'a Outline>,
    party: Option<&'a PartyId>,
    setup: &'a Setup,
    at: DateTime,
}

async fn refuse_early(
    problem: Problem,
    mut rest: Body,
    asked: Asked,
    answered: Answered<'_>,
) -> Response {
    let problem = problem.language(asked.language);
    if rest.is_end_stream() {
        return render(problem, asked.wanted, &answered);
    }
    // Reading on would ask a client for the body that it kept back; one that
    // was too slow before is not waited for again.
    if !asked.waits && problem.kind() != Kind::Timeout {
        body::drain(&mut rest).await;
    }
    if asked.in_streams {
        tokio::spawn(async move { body::linger(rest).await });
    }
    render(problem.closing(), asked.wanted, &answered)
}

fn problem_of(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Malformed(findings) => Problem::new(Kind::Malformed).findings(findings),
        Refusal::Forbidden(findings) => Problem::new(Kind::Forbidden).findings(findings),
        Refusal::ReferenceReused => Problem::new(Kind::ReferenceReused),
        Refusal::Invalid(findings) => Problem::new(Kind::Invalid).findings(findings),
        Refusal::Busy(findings) => Problem::new(Kind::Unavailable).findings(findings),
        Refusal::Stale | Refusal::OtherDay => Problem::new(Kind::Unavailable),
        Refusal::Internal(cause) => Problem::internal(&cause),
    }
}

fn count_accepted(accepted: &Accepted) {
    let message = &accepted.message;
    let labels = [
        ("replay", accepted.replay.to_string()),
        ("party", message.party.to_string()),
        ("message_type", message.message_type.clone()),
        ("test", message.test.to_string()),
    ];
    counter!("sivi_messages_accepted_total", &labels).increment(1);
}

fn count_refused(problem: &Problem) {
    let kind = problem.kind();
    let status = kind.status().as_str().to_owned();
    for finding in problem.all_findings() {
        let labels = [
            ("code", finding.code.as_str().to_owned()),
            ("status", status.clone()),
        ];
        counter!("sivi_messages_refused_total", &labels).increment(1);
    }
    let labels = [("status", status), ("kind", kind.slug().to_owned())];
    counter!("sivi_requests_refused_total", &labels).increment(1);
}

fn render(problem: Problem, wanted: Wanted, answered: &Answered<'_>) -> Response {
    count_refused(&problem);
    match wanted {
        Wanted::Xml => xml_problem(problem, answered),
        Wanted::Json | Wanted::Either => problem.into_response(),
    }
}

/// An error as a Retourmelding.
fn xml_problem(problem: Problem, answered: &Answered<'_>) -> Response {
    let &Answered {
        outline,
        party,
        setup,
        at,
    } = answered;
    let standing = party.map_or(setup.fallback(), |party| setup.standing_or_fallback(party));
    let Some(schema) = standing.edition.message_by_code("99999") else {
        return problem.into_response();
    };
    let answer = Answer {
        schema,
        from: &setup.settings.gateway.sender_id,
        to: addressee(setup, party, outline),
        berrefnr: &format!("SGW-R-{}", clock::new_id()),
        answered: outline
            .and_then(|outline| outline.berrefnr.as_deref())
            .unwrap_or_default(),
        test: outline.is_some_and(|outline| outline.test),
        at,
        kind: &standing.mapping.receipt().negative,
        errors: problem.all_findings(),
        refused: Some(problem.kind().dutch()),
    };
    let mut response = xml_response(problem.kind().status(), answer.to_xml());
    problem.add_headers(&mut response);
    response
}

/// The id by which the sender called itself, if it is one of its own: what
/// else a refused message holds is not repeated.
fn addressee<'a>(
    setup: &'a Setup,
    party: Option<&PartyId>,
    outline: Option<&'a Outline>,
) -> &'a str {
    let Some(party) = party.and_then(|party| setup.party(party)) else {
        return "";
    };
    let own = outline
        .and_then(|outline| outline.sender_id.as_deref())
        .filter(|sender_id| party.may_send_as(sender_id));
    let known = party.receiver_id.as_ref().or(party.sender_ids.first());
    own.or(known.map(String::as_str)).unwrap_or_default()
}

const XML: &str = "application/xml; charset=utf-8";

fn xml_response(status: StatusCode, xml: String) -> Response {
    (status, [(header::CONTENT_TYPE, XML)], xml).into_response()
}

/// The receipt of an accepted message: the same one every time.
fn receipt(accepted: &Accepted, received: &Received, asked: Asked, caller: &Caller) -> Response {
    let message = &accepted.message;
    let status = if accepted.replay {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mapping = &caller.setup.standing_or_fallback(&caller.party).mapping;
    let is_due = match mapping.receipt().send {
        SendReceipt::Honour => accepted.outline.receipt_wanted,
        SendReceipt::Always => true,
        SendReceipt::Never => false,
    };
    let as_xml = match asked.wanted {
        Wanted::Json => false,
        Wanted::Xml => true,
        Wanted::Either => is_due,
    };
    let schema = caller
        .setup
        .standing_or_fallback(&caller.party)
        .edition
        .message_by_code("99999");
    let digest = received
        .sent
        .unwrap_or_else(|| body::sha256(&received.bytes));
    let digest = format!("sha-256:{}", hex(&digest));
    let (kind, text) = if let Some(schema) = schema.filter(|_| as_xml) {
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
            refused: None,
        };
        (XML, answer.to_xml())
    } else {
        let receipt = receipt_json(message, &digest, asked.language);
        ("application/json", receipt.to_string())
    };
    let signed = signature::sign(&caller.setup, message, &digest, text.as_bytes());
    let mut response = (status, [(header::CONTENT_TYPE, kind)], text).into_response();
    let headers = response.headers_mut();
    if let Some(signed) = signed {
        headers.insert(signature::RECEIPT_SIGNATURE, signed);
    }
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/messages/{}", message.id)) {
        headers.insert(header::LOCATION, location);
    }
    if accepted.replay {
        headers.insert("idempotent-replay", HeaderValue::from_static("true"));
    }
    response
}

fn receipt_json(message: &StoredMessage, digest: &str, language: Language) -> Value {
    json!({
        "id": message.id,
        "status": "accepted",
        "received_at": message.received_at.to_string(),
        "digest": digest,
        "message_type": message.message_type,
        "edition": message.edition,
        "test": message.test,
        "findings": findings_json(&message.findings, language),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    query: Result<Query<ByReference>, QueryRejection>,
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
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id.map_err(|_| Problem::new(Kind::NotFound))?;
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
        &findings_json(&message.findings, language(headers)),
    )))
}

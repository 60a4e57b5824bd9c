//! Takes a message in: the stages in the order that the contract gives.
//!
//! 400 before 403 before 200 and 409 before 422: each check looks only at
//! what the ones before it let through.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::Notify;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use super::catch_up::CatchUp;
use super::plan::{Foreign, Plan, Planner};
use super::prepare::{self, Outline, Preparation, Prepared, at_most};
use super::record::{acceptance, message_row, receipt_of};
use crate::clock::{self, Clock};
use crate::directory::Match;
use crate::domain::{Code, Finding, KeyedHash, PartyId, Severity};
use crate::policy::{self, LedgerView, Release};
use crate::setup::{Current, Setup, Trouble};
use crate::store::{AcceptError, Acceptance, Answer, Store, StoredMessage};
use crate::trace::TARGET;
use crate::translate::{Kind, Remark};
use crate::validate::{Document, NodeId};

/// How often a decision is made anew when the ledger moved meanwhile.
pub(super) const ATTEMPTS: u32 = 8;

/// How long a message waits for a configuration that was changed.
const RELOADED: Duration = Duration::from_secs(5);

/// Takes messages in.
#[derive(Clone)]
pub struct Intake {
    /// Where they are kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The configuration.
    pub current: Current,
    /// Takes up what waits after a change of the configuration, before newer
    /// reports pass it.
    pub catch_up: CatchUp,
    /// Asks for the stored configuration to be compared with the one in use
    /// now, and not in a second.
    pub look_again: Arc<Notify>,
}

/// A message that was accepted, now or before.
pub struct Accepted {
    /// What is kept of it.
    pub message: StoredMessage,
    /// True when it was accepted before and nothing was done now.
    pub replay: bool,
    /// Its general part.
    pub outline: Outline,
}

/// Why a message was not accepted. Nothing of it was kept.
pub enum Refusal {
    /// 400: not well-formed or with a forbidden construct.
    Malformed(Vec<Finding>),
    /// 403: not this party's to send.
    Forbidden(Vec<Finding>),
    /// 409: the reference was used for another message.
    ReferenceReused,
    /// 422: invalid against the schema or a rule.
    Invalid(Vec<Finding>),
    /// 503: cannot store now.
    Busy(Vec<Finding>),
    /// The directory moved on: decide again with the new one.
    Stale,
    /// It is another day by the clock of the database: decide again if a day
    /// began, else 503.
    OtherDay,
    /// 500: a fault of ours.
    Internal(crate::store::Error),
}

impl Intake {
    /// Accepts one message of `party`: when this returns, it is durable.
    ///
    /// # Errors
    ///
    /// A `Refusal`, and what of the message could be read.
    pub async fn accept(
        &self,
        party: &PartyId,
        body: &[u8],
    ) -> Result<Accepted, (Refusal, Outline)> {
        loop {
            let version = self.current.get().version();
            let day = self.clock.today();
            match self.accept_now(party, body).await {
                // It took long, and a day began.
                Err((Refusal::OtherDay, _)) if self.clock.today() != day => {}
                // A clock that is wrong is not right in five seconds: an alert
                // tells of it.
                Err((Refusal::OtherDay, outline)) => {
                    return Err((Refusal::Busy(Vec::new()), outline));
                }
                // Not under the gate: whoever replaces the configuration
                // waits for it.
                Err((Refusal::Stale, outline)) => {
                    if self.is_left_behind() {
                        return Err((Refusal::Busy(Vec::new()), outline));
                    }
                    self.look_again.notify_one();
                    if !self.current.moved_on(version, RELOADED).await {
                        return Err((Refusal::Busy(Vec::new()), outline));
                    }
                }
                decided => return decided,
            }
        }
    }

    /// True while this node cannot read the stored directory: then another
    /// look, or waiting for one, helps nobody.
    fn is_left_behind(&self) -> bool {
        matches!(self.current.get().trouble(), Some(Trouble::Directory(_)))
    }

    async fn accept_now(
        &self,
        party: &PartyId,
        body: &[u8],
    ) -> Result<Accepted, (Refusal, Outline)> {
        let _at_work = self.catch_up.enter();
        let setup = &*self.current.get();
        let Some(standing) = setup.standing(party) else {
            return Err((Refusal::Busy(Vec::new()), Outline::default()));
        };
        let now = self.clock.now();
        let today = clock::civil_at(now).date();
        let span = info_span!(target: TARGET, "prepare", bytes = body.len(), outcome = Empty);
        let (preparation, outline) = off_the_road(body.len(), || {
            span.in_scope(|| prepare::prepare(standing, &setup.policy, body, today))
        });
        span.record("outcome", preparation.outcome());
        drop(span);
        match self
            .decide(setup, party, body, now, preparation, &outline)
            .await
        {
            Ok((message, replay)) => Ok(Accepted {
                message,
                replay,
                outline,
            }),
            Err(refusal) => Err((refusal, outline)),
        }
    }

    async fn decide(
        &self,
        setup: &Setup,
        party: &PartyId,
        body: &[u8],
        now: Timestamp,
        preparation: Preparation<'_>,
        outline: &Outline,
    ) -> Result<(StoredMessage, bool), Refusal> {
        if let Preparation::Malformed(findings) = preparation {
            return Err(Refusal::Malformed(findings));
        }
        let today = clock::civil_at(now).date();
        check_sender(setup, party, &preparation, outline, body, today)?;
        let hash = prepare::body_hash(setup, body);
        let taken = match preparation {
            // The store itself finds a valid message that it knows.
            Preparation::Ready(prepared) => self.take(setup, party, &prepared, hash, now).await,
            Preparation::Invalid { findings, .. } | Preparation::Malformed(findings) => {
                Err(Refusal::Invalid(findings))
            }
        };
        // A message that was accepted before gets its receipt again, whatever
        // stands in its way now.
        match (taken, &outline.berrefnr) {
            (
                Err(
                    refused @ (Refusal::Invalid(_)
                    | Refusal::Busy(_)
                    | Refusal::Stale
                    | Refusal::OtherDay),
                ),
                Some(reference),
            ) => {
                let reference = policy::berrefnr(&setup.keys, party, reference);
                let known = self.known(party, &reference, &hash).await?;
                known.map(|known| (known, true)).ok_or(refused)
            }
            (taken, _) => taken,
        }
    }

    /// Plans and stores, again when the ledger moved between the two.
    async fn take(
        &self,
        setup: &Setup,
        party: &PartyId,
        prepared: &Prepared<'_>,
        body: KeyedHash,
        now: Timestamp,
    ) -> Result<(StoredMessage, bool), Refusal> {
        if prepared.model.kind == Kind::Return {
            return self.take_answer(setup, party, prepared, body, now).await;
        }
        let planner = Planner {
            setup,
            party,
            message: prepared,
            now,
        };
        self.let_go_before(&planner).await?;
        for _ in 0..ATTEMPTS {
            let parts = planner
                .sort()
                .map_err(|foreign| forbidden(prepared, setup, party, &foreign))?;
            let domains = parts.domains().into_iter().collect();
            let ledger = self.ledger(&planner, &parts).await?;
            let span = plan_span();
            let plan = off_the_road(prepared.body_len(), || {
                span.in_scope(|| planner.plan(parts, &ledger))
            })
            .map_err(|foreign| forbidden(prepared, setup, party, &foreign))?;
            record_plan(&span, &plan);
            drop(span);
            self.check_parking(setup, party, &plan).await?;
            let findings = findings_of(prepared, setup, party, &plan);
            let message = message_row(setup, party, prepared, body, now, findings, domains);
            if has_error(&message.findings) {
                return Err(Refusal::Invalid(message.findings));
            }
            let receipt = receipt_of(&message);
            let persons = persons_of(&planner);
            let waits = !plan.parked.is_empty();
            let earlier = self.waiting_before(&planner, &plan, &persons).await;
            let mut acceptance = acceptance(setup, message, plan, now);
            earlier.go_before(&mut acceptance);
            let span = store_span(&acceptance);
            // Before: who sees it in the store also knows of it. And after: a
            // walk that began before saw nothing of it.
            if waits {
                self.catch_up.note_parked();
            }
            match self.store.accept(acceptance).instrument(span).await {
                Ok(()) => {
                    if waits {
                        self.catch_up.note_parked();
                    }
                    self.release_waiting(setup, &persons).await;
                    return Ok((receipt, false));
                }
                Err(AcceptError::Conflict) => {}
                Err(AcceptError::Stale) => return Err(Refusal::Stale),
                Err(AcceptError::OtherDay) => return Err(Refusal::OtherDay),
                Err(AcceptError::Duplicate(known)) => {
                    return same_or_other(*known, &body).map(|known| (known, true));
                }
                Err(AcceptError::Store(cause)) => return Err(refusal(cause)),
            }
        }
        Err(Refusal::Busy(Vec::new()))
    }

    /// The receipt of a message that was accepted before.
    ///
    /// # Errors
    ///
    /// [`Refusal::ReferenceReused`] when that was another message.
    async fn known(
        &self,
        party: &PartyId,
        reference: &KeyedHash,
        body: &KeyedHash,
    ) -> Result<Option<StoredMessage>, Refusal> {
        let known = self
            .store
            .find_message(party, reference)
            .await
            .map_err(refusal)?;
        known.map(|known| same_or_other(known, body)).transpose()
    }

    /// What the ledger knows of the persons of a message.
    ///
    /// # Errors
    ///
    /// `Refusal::Busy` when the store cannot be read.
    pub async fn ledger(
        &self,
        planner: &Planner<'_>,
        parts: &super::plan::Parts<'_>,
    ) -> Result<LedgerView, Refusal> {
        let needs = planner.needs(parts);
        if needs.persons.is_empty() {
            return Ok(LedgerView::default());
        }
        let mut entries = self.store.ledger(&needs.persons).await.map_err(refusal)?;
        // Case ids tell only whose a return message or a correction is.
        let cases = if planner.asks_for_cases() {
            needs.cases.as_slice()
        } else {
            &[]
        };
        let mut remembered = HashSet::new();
        if !cases.is_empty() {
            entries.extend(self.store.ledger_cases(cases).await.map_err(refusal)?);
            remembered = self.store.remembered(cases).await.map_err(refusal)?;
        }
        Ok(LedgerView::new(entries, remembered))
    }

    /// A Retourmelding belongs to the release whose reference it names, and
    /// is shown to the sender of that message.
    async fn take_answer(
        &self,
        setup: &Setup,
        party: &PartyId,
        prepared: &Prepared<'_>,
        body: KeyedHash,
        now: Timestamp,
    ) -> Result<(StoredMessage, bool), Refusal> {
        let answered = prepared
            .model
            .header
            .answered
            .as_deref()
            .unwrap_or_default();
        let reference = policy::berrefnr(&setup.keys, party, answered);
        let found = self
            .store
            .release_by_berrefnr(party, &reference)
            .await
            .map_err(refusal)?;
        let matched = found.filter(|release| release.test == prepared.model.header.test);
        let Some(release) = matched else {
            let root = prepared.stripped.document().root();
            let remark = Remark {
                code: Code::AnswerUnmatched,
                at: root,
            };
            let mapping = &setup.standing_or_fallback(party).mapping;
            return Err(Refusal::Invalid(prepared.findings_for([remark], mapping)));
        };
        let planner = Planner {
            setup,
            party,
            message: prepared,
            now,
        };
        let forwarded = planner.forward_answer(&release);
        let positive = !prepared.has_error_entries();
        let domains = forwarded.iter().map(Release::domain).collect();
        let findings = prepared.findings.clone();
        let message = message_row(setup, party, prepared, body, now, findings, domains);
        let receipt = receipt_of(&message);
        let acceptance = Acceptance {
            answer: Some(Answer {
                release_id: release.id.clone(),
                positive,
            }),
            releases: forwarded,
            ..acceptance(setup, message, Plan::default(), now)
        };
        let span = store_span(&acceptance);
        match self.store.accept(acceptance).instrument(span).await {
            Ok(()) => Ok((receipt, false)),
            Err(AcceptError::Duplicate(known)) => {
                same_or_other(*known, &body).map(|known| (known, true))
            }
            Err(AcceptError::Conflict) => Err(Refusal::Busy(Vec::new())),
            Err(AcceptError::Stale) => Err(Refusal::Stale),
            Err(AcceptError::OtherDay) => Err(Refusal::OtherDay),
            Err(AcceptError::Store(cause)) => Err(refusal(cause)),
        }
    }

    /// Parking is bounded per party: beyond it nothing is accepted.
    async fn check_parking(
        &self,
        setup: &Setup,
        party: &PartyId,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        if plan.parked.is_empty() {
            return Ok(());
        }
        let limits = &setup.settings.limits;
        let (count, bytes) = self.store.parked_bytes(party).await.map_err(refusal)?;
        let more: u64 = plan.parked.iter().map(|part| part.xml().len() as u64).sum();
        if count + plan.parked.len() as u64 > limits.parked_per_party
            || bytes + more > limits.parked_bytes_per_party
        {
            return Err(Refusal::Busy(vec![Finding::new(Code::ParkingFull)]));
        }
        Ok(())
    }
}

fn plan_span() -> Span {
    info_span!(
        target: TARGET,
        "plan",
        routes = Empty,
        releases = Empty,
        parked = Empty,
    )
}

fn record_plan(span: &Span, plan: &Plan) {
    let releases = plan.routes.iter().filter(|route| route.release.is_some());
    span.record("routes", plan.routes.len());
    span.record("releases", releases.count());
    span.record("parked", plan.parked.len());
}

fn store_span(acceptance: &Acceptance) -> Span {
    info_span!(
        target: TARGET,
        "store",
        message.id = %acceptance.message.id,
        releases = acceptance.releases.len(),
        parked = acceptance.parked.len(),
    )
}

/// Above this many bytes the work on a message gets a thread of its own.
const LARGE: usize = 1 << 18;

/// Does work on a message of `bytes`, a large one without holding up others.
pub(super) fn off_the_road<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes > LARGE {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

pub(super) fn refusal(cause: crate::store::Error) -> Refusal {
    use crate::store::Error;
    match cause {
        Error::Busy | Error::Unavailable(_) => {
            tracing::warn!("The store cannot answer now: {cause}");
            Refusal::Busy(Vec::new())
        }
        Error::Conflict
        | Error::WrongKeys
        | Error::StoreLost
        | Error::Moved { .. }
        | Error::Damaged { .. } => Refusal::Internal(cause),
    }
}

/// 403 for a sender or an employer that is not this party's, also when the
/// message is not valid.
///
/// # Errors
///
/// [`Refusal::Forbidden`].
pub fn check_sender(
    setup: &Setup,
    party: &PartyId,
    preparation: &Preparation<'_>,
    outline: &Outline,
    body: &[u8],
    today: Date,
) -> Result<(), Refusal> {
    let document = match preparation {
        Preparation::Ready(prepared) => Some(prepared.stripped.document()),
        Preparation::Invalid { partial, .. } => partial.as_ref(),
        Preparation::Malformed(_) => None,
    };
    let (Some(document), Some(sender_id)) = (document, &outline.sender_id) else {
        return Ok(());
    };
    let known = setup
        .party(party)
        .is_some_and(|party| party.may_send_as(sender_id));
    let at = |code, node| prepare::finding_at(document, body, code, node);
    if !known {
        return Err(Refusal::Forbidden(vec![at(
            Code::SenderMismatch,
            document.root(),
        )]));
    }
    if !setup
        .party(party)
        .is_some_and(|party| party.kind.speaks_for_employers())
    {
        return Ok(());
    }
    for employer in prepare::employers_of(document) {
        let text = |tag: &str| child_text(document, employer, tag);
        let code = match setup.directory.tenant_for(party, &text) {
            Match::Foreign(_) => Code::EmployerForeign,
            Match::Mine(tenant) if !tenant.has_agreement_on(today) => Code::NoAgreement,
            Match::Mine(_) | Match::Unknown => continue,
        };
        return Err(Refusal::Forbidden(vec![at(code, employer)]));
    }
    Ok(())
}

/// The text of an employer's child, as the directory asks for it.
fn child_text<'d>(document: &'d Document, employer: NodeId, tag: &str) -> Option<&'d str> {
    document
        .children(employer)
        .find(|child| document.element(*child).tag == tag)
        .map(|child| document.text(child))
}

fn same_or_other(known: StoredMessage, body: &KeyedHash) -> Result<StoredMessage, Refusal> {
    if &known.body == body {
        Ok(known)
    } else {
        Err(Refusal::ReferenceReused)
    }
}

/// The refusal of a message of which something is another party's.
pub fn forbidden(
    prepared: &Prepared<'_>,
    setup: &Setup,
    party: &PartyId,
    foreign: &Foreign,
) -> Refusal {
    let remark = Remark {
        code: foreign.code,
        at: foreign.at,
    };
    Refusal::Forbidden(prepared.findings_for([remark], &setup.standing_or_fallback(party).mapping))
}

/// What the sender is told: what validation found and what the plan adds.
pub fn findings_of(
    prepared: &Prepared<'_>,
    setup: &Setup,
    party: &PartyId,
    plan: &Plan,
) -> Vec<Finding> {
    let mut findings = prepared.findings.clone();
    let remarks = plan.remarks.iter().copied();
    findings.extend(prepared.findings_for(remarks, &setup.standing_or_fallback(party).mapping));
    at_most(findings)
}

fn persons_of(planner: &Planner<'_>) -> Vec<KeyedHash> {
    let model = &planner.message.model;
    if model.kind != Kind::Absences {
        return Vec::new();
    }
    let identity = policy::Identity::of(&planner.setup.keys, planner.party);
    let employees = model
        .employers
        .iter()
        .flat_map(|employer| &employer.employees);
    employees
        .map(|employee| identity.person(&employee.id))
        .collect()
}

/// True when a finding refuses the message.
#[must_use]
pub fn has_error(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

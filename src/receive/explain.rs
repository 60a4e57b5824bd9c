//! The dry run: what would become of a message, by which rule and which row
//! of the policy, without a person in the output.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::intake::{Intake, Refusal, findings_of, has_error};
use super::plan::{Planner, RoutePlan};
use super::prepare::{self, Preparation};
use crate::clock;
use crate::domain::{Finding, Language, PartyId};
use crate::http::finding_json;
use crate::setup::Setup;

/// Why a message cannot be explained.
#[derive(Debug)]
pub enum ExplainError {
    /// There is no such party.
    PartyUnknown,
    /// The store cannot be read.
    Store,
}

impl fmt::Display for ExplainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartyUnknown => f.write_str("there is no such party in the directory"),
            Self::Store => f.write_str("the ledger cannot be read"),
        }
    }
}

impl std::error::Error for ExplainError {}

/// What would become of `body`, sent by `party` now. Nothing is changed.
///
/// # Errors
///
/// [`ExplainError`]. A message that would be refused is explained, not an
/// error: its findings say why, `accepted` is false.
pub async fn explain(
    intake: &Intake,
    setup: &Setup,
    party: &PartyId,
    body: &[u8],
) -> Result<Value, ExplainError> {
    let standing = setup.party(party).and_then(|_| setup.standing(party));
    let standing = standing.ok_or(ExplainError::PartyUnknown)?;
    let now = intake.clock.now();
    let today = clock::civil_at(now).date();
    let (preparation, outline) = prepare::prepare(standing, &setup.policy, body, today);
    if let Err(refusal) =
        super::intake::check_sender(setup, party, &preparation, &outline, body, today)
    {
        return Ok(refused(setup, party, &findings_in(refusal)));
    }
    let prepared = match preparation {
        Preparation::Ready(prepared) => prepared,
        Preparation::Malformed(findings) | Preparation::Invalid { findings, .. } => {
            return Ok(refused(setup, party, &findings));
        }
    };
    let planner = Planner {
        setup,
        party,
        message: &prepared,
        now,
    };
    let parts = match planner.sort() {
        Ok(parts) => parts,
        Err(foreign) => {
            let refusal = super::intake::forbidden(&prepared, setup, party, &foreign);
            return Ok(refused(setup, party, &findings_in(refusal)));
        }
    };
    let ledger = intake
        .ledger(&planner, &parts)
        .await
        .map_err(|_| ExplainError::Store)?;
    let plan = match planner.plan(parts, &ledger) {
        Ok(plan) => plan,
        Err(foreign) => {
            let refusal = super::intake::forbidden(&prepared, setup, party, &foreign);
            return Ok(refused(setup, party, &findings_in(refusal)));
        }
    };
    let findings = findings_of(&prepared, setup, party, &plan);
    let parked: Vec<Value> = plan
        .parked
        .iter()
        .map(|part| json!({ "reason": part.reason().as_str(), "persons": part.persons().len() }))
        .collect();
    let routes: Vec<Value> = plan.routes.iter().map(route_json).collect();
    let mut report = report(setup, party, &findings);
    let plan = [
        ("accepted", json!(!has_error(&findings))),
        ("as_of", json!(today.to_string())),
        (
            "message_type",
            json!(prepared.stripped.document().schema().name),
        ),
        ("routes", json!(routes)),
        ("parked", json!(parked)),
    ];
    if let Some(report) = report.as_object_mut() {
        report.extend(plan.map(|(key, value)| (key.to_owned(), value)));
    }
    Ok(report)
}

fn findings_in(refusal: Refusal) -> Vec<Finding> {
    match refusal {
        Refusal::Malformed(findings)
        | Refusal::Forbidden(findings)
        | Refusal::Invalid(findings)
        | Refusal::Busy(findings) => findings,
        Refusal::ReferenceReused | Refusal::Stale | Refusal::OtherDay | Refusal::Internal(_) => {
            Vec::new()
        }
    }
}

fn refused(setup: &Setup, party: &PartyId, findings: &[Finding]) -> Value {
    report(setup, party, findings)
}

fn report(setup: &Setup, party: &PartyId, findings: &[Finding]) -> Value {
    let standing = setup.standing_or_fallback(party);
    let findings: Vec<Value> = findings
        .iter()
        .map(|finding| finding_json(finding, Language::English))
        .collect();
    json!({
        "accepted": false,
        "party": party.as_str(),
        "edition": standing.edition.name(),
        "policy_version": setup.policy.version(),
        "pairing": standing.mapping.pairing().to_string(),
        "routes": [],
        "parked": [],
        "findings": findings,
    })
}

fn route_json(route: &RoutePlan) -> Value {
    let mut rules: BTreeMap<(&str, Option<&str>), u32> = BTreeMap::new();
    for (rule, count) in &route.decision.counts {
        *rules.entry((*rule, None)).or_default() += count;
    }
    for (stripped, count) in &route.stripped {
        *rules
            .entry((stripped.rule, Some(&stripped.row)))
            .or_default() += count;
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|((rule, row), count)| match row {
            None => json!({ "rule": rule, "count": count }),
            Some(row) => json!({ "rule": rule, "row": row, "count": count }),
        })
        .collect();
    json!({
        "tenant": route.tenant.as_str(),
        "to": route.to.as_str(),
        "domain": route.domain.as_str(),
        "sends": route.release.is_some(),
        "persons_passed": route.decision.persons_passed,
        "persons_withheld": route.decision.persons_withheld,
        "elements_stripped": route.stripped.values().sum::<u32>(),
        "rules": rules,
        "valid": route.valid,
    })
}

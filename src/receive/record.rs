//! A decision as the store takes it.

use std::collections::HashSet;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};

use super::plan::{Plan, RoutePlan};
use super::prepare::Prepared;
use crate::clock;
use crate::domain::{Domain, Finding, KeyedHash, PartyId};
use crate::policy;
use crate::setup::Setup;
use crate::store::{Acceptance, Message, Remembered, StoredMessage};
use crate::translate::Kind;

/// The message itself.
pub(super) fn message_row(
    setup: &Setup,
    party: &PartyId,
    prepared: &Prepared<'_>,
    body: KeyedHash,
    now: Timestamp,
    findings: Vec<Finding>,
    routed: Vec<Domain>,
) -> Message {
    let header = &prepared.model.header;
    Message {
        id: clock::new_id_at(now),
        party: party.clone(),
        test: header.test,
        berrefnr: policy::berrefnr(&setup.keys, party, &header.berrefnr),
        body,
        received_at: now,
        message_type: prepared.stripped.document().schema().name.clone(),
        edition: prepared.edition.name().to_owned(),
        reference: header.berrefnr.clone(),
        findings,
        routed,
        // Of these the sender may not learn whether a person passed.
        shown: !matches!(prepared.model.kind, Kind::Employments | Kind::EmployeeData),
    }
}

/// Everything that accepting it writes.
pub(super) fn acceptance(
    setup: &Setup,
    message: Message,
    mut plan: Plan,
    now: Timestamp,
) -> Acceptance {
    let message_type = message.message_type.clone();
    Acceptance {
        withheld: plan
            .routes
            .iter()
            .flat_map(|route| route.withheld(&message_type))
            .collect(),
        remember: remembered(&plan, now),
        ledger: plan
            .routes
            .iter_mut()
            .flat_map(RoutePlan::take_changes)
            .collect(),
        releases: plan
            .routes
            .into_iter()
            .filter_map(|route| route.release)
            .collect(),
        directory_version: setup.directory_version(),
        window_days: setup.policy.window_days(),
        parked: plan.parked,
        unparked: Vec::new(),
        answer: None,
        message,
    }
}

/// Released cases are recognised for two years, to the end of the month, so
/// that the day of the report cannot be read from it.
pub(super) fn remembered(plan: &Plan, now: Timestamp) -> Vec<Remembered> {
    let until: Date = clock::civil_at(now)
        .date()
        .saturating_add(2.years())
        .last_of_month();
    let released = plan.routes.iter().filter(|route| route.release.is_some());
    let cases: HashSet<(KeyedHash, KeyedHash)> = released
        .flat_map(|route| {
            route
                .decision
                .remember
                .iter()
                .map(|case| (route.route, *case))
        })
        .collect();
    cases
        .into_iter()
        .map(|(route, case)| Remembered { route, case, until })
        .collect()
}

/// A receipt as the store would give it back, without asking it.
pub(super) fn receipt_of(message: &Message) -> StoredMessage {
    StoredMessage {
        id: message.id.clone(),
        party: message.party.clone(),
        test: message.test,
        body: message.body,
        received_at: message.received_at,
        message_type: message.message_type.clone(),
        edition: message.edition.clone(),
        reference: message.reference.clone(),
        findings: message.findings.clone(),
        routed: message.routed.clone(),
        shown: message.shown,
        deliveries: Vec::new(),
        parked: None,
    }
}

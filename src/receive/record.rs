//! A decision as the store takes it.

use std::collections::HashSet;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};

use super::plan::{Plan, RoutePlan};
use super::prepare::Prepared;
use crate::clock;
use crate::domain::{Domain, Finding, KeyedHash, PartyId, TenantId};
use crate::policy::{self, LedgerChange, Release, Withheld};
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

/// What a plan writes beside what it parks.
pub(super) struct Written {
    pub(super) releases: Vec<Release>,
    pub(super) ledger: Vec<(TenantId, LedgerChange)>,
    pub(super) withheld: Vec<Withheld>,
    pub(super) remember: Vec<Remembered>,
}

impl Written {
    /// Takes it out of the plan of a message with this name.
    pub(super) fn take(plan: &mut Plan, message_type: &str, now: Timestamp) -> Self {
        let remember = remembered(plan, now);
        let routes = &mut plan.routes;
        Self {
            withheld: routes
                .iter()
                .flat_map(|route| route.withheld(message_type))
                .collect(),
            ledger: routes
                .iter_mut()
                .flat_map(RoutePlan::take_changes)
                .collect(),
            releases: routes
                .iter_mut()
                .filter_map(|route| route.release.take())
                .collect(),
            remember,
        }
    }
}

/// Everything that accepting it writes.
pub(super) fn acceptance(
    setup: &Setup,
    message: Message,
    mut plan: Plan,
    now: Timestamp,
) -> Acceptance {
    let written = Written::take(&mut plan, &message.message_type, now);
    Acceptance {
        releases: written.releases,
        ledger: written.ledger,
        withheld: written.withheld,
        remember: written.remember,
        directory_version: setup.directory_version(),
        decided_on: clock::civil_at(now).date(),
        window_days: setup.policy.window_days(),
        parked: plan.parked,
        unparked: Vec::new(),
        answer: None,
        message,
    }
}

/// Released cases are recognised for two years, to the end of the month, so
/// that the day of the report cannot be read from it.
fn remembered(plan: &Plan, now: Timestamp) -> Vec<Remembered> {
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

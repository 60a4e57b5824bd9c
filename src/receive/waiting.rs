//! What waits is taken up again: when the configuration changes, when a day
//! begins, and when a report makes a case known.
//!
//! A correction that came before the report of its case goes behind it. One
//! that is older than the report goes before it, in the same transaction, so
//! that its receiver never ends on what was overtaken.

use std::sync::atomic::Ordering;

use super::intake::{ATTEMPTS, Intake, remembered};
use super::plan::{Plan, Planner, RoutePlan};
use super::prepare::{self, Preparation, Prepared};
use crate::clock;
use crate::domain::{Code, KeyedHash};
use crate::policy::{LedgerChange, Release, Withheld};
use crate::setup::Setup;
use crate::store::{AcceptError, Acceptance, ParkedFilter, ParkedItem, Remembered, Unparking};
use crate::translate::{Absence, Message};

/// Parked parts that have to go before a report, with it.
#[derive(Default)]
pub(super) struct Earlier {
    ids: Vec<String>,
    releases: Vec<Release>,
    withheld: Vec<Withheld>,
    remember: Vec<Remembered>,
}

impl Earlier {
    /// Puts them before everything that `acceptance` sends.
    pub(super) fn go_before(self, acceptance: &mut Acceptance) {
        acceptance.unparked.extend(self.ids);
        acceptance.releases.splice(0..0, self.releases);
        acceptance.withheld.extend(self.withheld);
        acceptance.remember.extend(self.remember);
    }
}

impl Intake {
    fn may_wait(&self) -> bool {
        self.store.is_shared() || self.something_waits.load(Ordering::Acquire)
    }

    /// The parked parts that are older than the reports of this message on
    /// their cases, and that pass once these are known. The ledger keeps what
    /// the newer reports say.
    pub(super) async fn waiting_before(
        &self,
        planner: &Planner<'_>,
        plan: &Plan,
        persons: &[KeyedHash],
    ) -> Earlier {
        let mut earlier = Earlier::default();
        if persons.is_empty() || !self.may_wait() {
            return earlier;
        }
        let items = match self.store.parked_about(persons).await {
            Ok(items) => items,
            Err(cause) => {
                tracing::warn!("Parked parts were not looked at: {cause}");
                return earlier;
            }
        };
        let known: Vec<&LedgerChange> = plan
            .routes
            .iter()
            .flat_map(|route| &route.decision.changes)
            .collect();
        for item in items.iter().filter(|item| is_worth_a_try(item)) {
            let Some(prepared) = self.prepare_parked(planner.setup, item) else {
                continue;
            };
            if !is_older(&prepared.model, &planner.message.model) {
                continue;
            }
            let of_item = Planner {
                party: &item.party,
                message: &prepared,
                ..*planner
            };
            let Some(plan) = self.plan_parked(&of_item, &known).await else {
                continue;
            };
            let message_type = &prepared.stripped.document().schema().name;
            earlier.ids.push(item.id.clone());
            earlier.remember.extend(remembered(&plan, planner.now));
            let withheld = plan
                .routes
                .iter()
                .flat_map(|route| route.withheld(message_type));
            earlier.withheld.extend(withheld);
            earlier
                .releases
                .extend(plan.routes.into_iter().filter_map(|route| route.release));
        }
        earlier
    }

    /// A parked part, read again. Its ids and codes were translated when it
    /// came in: not twice.
    fn prepare_parked<'i>(&self, setup: &Setup, item: &'i ParkedItem) -> Option<Box<Prepared<'i>>> {
        let today = clock::civil_at(self.clock.now()).date();
        let standing = setup.standing(&item.party).normalised();
        let (preparation, _) = prepare::prepare(&standing, &setup.policy, &item.xml, today);
        if let Preparation::Ready(prepared) = preparation {
            return Some(prepared);
        }
        tracing::error!(parked.id = %item.id, "Parked part {} cannot be read any more", item.id);
        None
    }

    /// The plan of a parked part with these changes made; `None` while any of
    /// it has to wait on. It goes only as a whole.
    async fn plan_parked(&self, planner: &Planner<'_>, known: &[&LedgerChange]) -> Option<Plan> {
        let parts = planner.sort().ok()?;
        let mut ledger = self.ledger(planner, &parts).await.ok()?;
        ledger.apply(known.iter().copied());
        let plan = planner.plan(parts, &ledger).ok()?;
        (plan.parked.is_empty() && !plan.routes.is_empty()).then_some(plan)
    }

    /// A report may make a parked correction of its case releasable.
    pub(super) async fn release_waiting(&self, setup: &Setup, persons: &[KeyedHash]) {
        if persons.is_empty() || !self.may_wait() {
            return;
        }
        match self.store.parked_about(persons).await {
            Ok(items) => {
                // What waits for one person alone may have come for want of a
                // route, and waits for a report of its case since.
                let waiting = items.into_iter().filter(is_worth_a_try);
                self.release_parked(setup, waiting.collect()).await;
            }
            Err(cause) => tracing::warn!("Parked parts were not looked at: {cause}"),
        }
    }

    /// Releases what waits and has a way to go now, oldest first.
    pub async fn release_all_parked(&self, setup: &Setup) {
        // Lowered before looking: whoever parks meanwhile raises it again.
        self.something_waits.store(false, Ordering::Release);
        let mut filter = ParkedFilter::default();
        loop {
            let items = match self.store.parked(&filter).await {
                Ok(items) => items,
                Err(cause) => {
                    self.something_waits.store(true, Ordering::Release);
                    tracing::warn!("Parked parts were not looked at: {cause}");
                    return;
                }
            };
            let Some(last) = items.last() else { return };
            filter.after = Some(last.id.clone());
            self.something_waits.store(true, Ordering::Release);
            self.release_parked(setup, items).await;
        }
    }

    async fn release_parked(&self, setup: &Setup, items: Vec<ParkedItem>) {
        for item in items {
            let released = self.release_one(setup, &item).await;
            match released {
                Ok(true) => {
                    tracing::info!(parked.id = %item.id, "Released parked part {}", item.id);
                }
                Ok(false) => {}
                Err(cause) => {
                    tracing::warn!(parked.id = %item.id, "Parked part {} stays: {cause}", item.id);
                }
            }
        }
    }

    /// Runs a parked part through the stages again, and sends it if all of it
    /// may go.
    async fn release_one(&self, setup: &Setup, item: &ParkedItem) -> Result<bool, AcceptError> {
        let Some(prepared) = self.prepare_parked(setup, item) else {
            return Ok(false);
        };
        let now = self.clock.now();
        let planner = Planner {
            setup,
            party: &item.party,
            message: &prepared,
            now,
        };
        for _ in 0..ATTEMPTS {
            let Some(mut plan) = self.plan_parked(&planner, &[]).await else {
                return Ok(false);
            };
            let message_type = &prepared.stripped.document().schema().name;
            let unparking = Unparking {
                item,
                withheld: plan
                    .routes
                    .iter()
                    .flat_map(|route| route.withheld(message_type))
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
            };
            match self.store.unpark(unparking).await {
                Ok(()) => return Ok(true),
                Err(AcceptError::Conflict) => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(false)
    }
}

fn is_worth_a_try(item: &ParkedItem) -> bool {
    item.reason == Code::CaseUnknown
        || (item.persons.len() == 1 && item.reason != Code::KeyChangeUnconfirmed)
}

/// True when every report of `waiting` is about a case on which `new` has a
/// report with a higher number.
fn is_older(waiting: &Message, new: &Message) -> bool {
    let newer = |person: &str, absence: &Absence| {
        reports(new).any(|(other, report)| {
            other == person && report.case_id == absence.case_id && report.number > absence.number
        })
    };
    let mut waiting = reports(waiting).peekable();
    waiting.peek().is_some() && waiting.all(|(person, absence)| newer(person, absence))
}

/// Every report of a message, with the id of its person.
fn reports(message: &Message) -> impl Iterator<Item = (&str, &Absence)> {
    let employees = message
        .employers
        .iter()
        .flat_map(|employer| &employer.employees);
    employees.flat_map(|employee| {
        let absences = employee
            .employments
            .iter()
            .flat_map(|employment| &employment.absences);
        absences.map(|absence| (employee.id.as_str(), absence))
    })
}

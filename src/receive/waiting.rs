//! What waits is taken up again: when a report makes a case known, and when a
//! person says so. (`catch_up`: when the configuration changes or a day
//! begins.)
//!
//! A correction that came before the report of its case goes behind it. One
//! that is older than the report goes before it, in the same transaction, so
//! that its receiver never ends on what was overtaken.

use std::collections::BTreeSet;

use tokio::sync::MutexGuard;

use super::intake::{ATTEMPTS, Intake, Refusal, off_the_road};
use super::plan::{Foreign, Plan, Planner};
use super::prepare::{self, Preparation, Prepared};
use super::record::Written;
use crate::clock;
use crate::domain::{Code, KeyedHash};
use crate::policy::{LedgerChange, Parked, Release, Withheld};
use crate::setup::Setup;
use crate::store::{
    Acceptance, Error, ParkedFilter, ParkedItem, ParkedSummary, Remembered, UnparkError, Unparking,
};
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
        self.store.is_shared() || self.catch_up.something_waits()
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
        let known: Vec<&LedgerChange> = plan
            .routes
            .iter()
            .flat_map(|route| &route.decision.changes)
            .collect();
        for id in self.worth_a_try(persons).await {
            if let Some((item, _turn)) = self.in_hand(&id).await {
                self.take_earlier(planner, &item, &known, &mut earlier)
                    .await;
            }
        }
        earlier
    }

    /// Takes a parked part along if it is older than the message.
    async fn take_earlier(
        &self,
        planner: &Planner<'_>,
        item: &ParkedItem,
        known: &[&LedgerChange],
        earlier: &mut Earlier,
    ) {
        let Some(prepared) = self.prepare_parked(planner.setup, item) else {
            return;
        };
        if !is_older(&prepared.model, &planner.message.model) {
            return;
        }
        let of_item = Planner {
            party: &item.party,
            message: &prepared,
            ..*planner
        };
        let Ok(mut plan) = self.plan_parked(&of_item, known).await else {
            return;
        };
        let message_type = &prepared.stripped.document().schema().name;
        let written = Written::take(&mut plan, message_type, planner.now);
        earlier.ids.push(item.id.clone());
        earlier.remember.extend(written.remember);
        earlier.withheld.extend(written.withheld);
        earlier.releases.extend(written.releases);
    }

    /// What waits for these persons and may pass with a report, oldest first.
    async fn worth_a_try(&self, persons: &[KeyedHash]) -> Vec<String> {
        let parts = self.store.parked_about(persons).await;
        let parts = parts.unwrap_or_else(|cause| {
            tracing::warn!("Parked parts were not looked at: {cause}");
            Vec::new()
        });
        let parts = parts.into_iter().filter(is_worth_a_try);
        parts.map(|part| part.id).collect()
    }

    /// A parked part, and the turn to have one in hand; who comes second may
    /// find it gone.
    async fn in_hand(&self, id: &str) -> Option<(ParkedItem, MutexGuard<'_, ()>)> {
        let turn = self.catch_up.turn().await;
        let item = self.store.parked_item(id).await.unwrap_or_else(|cause| {
            tracing::warn!(parked.id = %id, "Parked part {id} was not looked at: {cause}");
            None
        });
        item.map(|item| (item, turn))
    }

    /// A parked part, read again. Its ids and codes were translated when it
    /// came in: not twice.
    fn prepare_parked<'i>(&self, setup: &Setup, item: &'i ParkedItem) -> Option<Box<Prepared<'i>>> {
        let today = clock::civil_at(self.clock.now()).date();
        // Without its mapping nobody can tell; said where that is noticed.
        let standing = setup.standing(&item.party)?.normalised();
        let (preparation, _) = off_the_road(item.xml.len(), || {
            prepare::prepare(&standing, &setup.policy, &item.xml, today)
        });
        if let Preparation::Ready(prepared) = preparation {
            return Some(prepared);
        }
        tracing::error!(parked.id = %item.id, "Parked part {} cannot be read any more", item.id);
        None
    }

    /// The plan of a parked part with these changes made. It goes only as a
    /// whole.
    ///
    /// # Errors
    ///
    /// Why it has to wait on.
    async fn plan_parked(
        &self,
        planner: &Planner<'_>,
        known: &[&LedgerChange],
    ) -> Result<Plan, Waits> {
        let foreign = |foreign: Foreign| Waits::For(BTreeSet::from([foreign.code]));
        let parts = planner.sort().map_err(foreign)?;
        let ledger = self.ledger(planner, &parts).await;
        let mut ledger = ledger.map_err(|refusal| {
            let damage = if let Refusal::Internal(cause) = refusal {
                Some(cause)
            } else {
                None
            };
            Waits::ForTheStore(damage.unwrap_or(Error::Busy))
        })?;
        ledger.apply(known.iter().copied());
        let plan = off_the_road(planner.message.body_len(), || planner.plan(parts, &ledger));
        let plan = plan.map_err(foreign)?;
        if plan.parked.is_empty() && !plan.routes.is_empty() {
            return Ok(plan);
        }
        let reasons = plan.parked.iter().map(Parked::reason);
        Err(Waits::For(reasons.collect()))
    }

    /// A report may make a parked correction of its case releasable.
    pub(super) async fn release_waiting(&self, setup: &Setup, persons: &[KeyedHash]) {
        if persons.is_empty() || !self.may_wait() {
            return;
        }
        for id in self.worth_a_try(persons).await {
            if let Some((item, _turn)) = self.in_hand(&id).await {
                // What stays is tried again another time; it was logged.
                drop(self.let_go(setup, &item).await);
            }
        }
    }

    /// Runs one parked part through the stages again because a person said
    /// so. What waits for the same persons longer is tried before it.
    ///
    /// # Errors
    ///
    /// The store failed, or others changed the same cases all the time.
    pub async fn retry_parked(&self, id: &str) -> Result<Unparked, Error> {
        let _at_work = self.catch_up.enter();
        let setup = &*self.current.get();
        let Some(item) = self.store.parked_item(id).await? else {
            return Ok(Unparked::Gone);
        };
        let is_older = |one: &ParkedItem| (one.received_at, &one.id) < (item.received_at, &item.id);
        // What stays is tried again another time; it was logged.
        drop(self.let_go_with(setup, &item.persons, is_older).await);
        self.retry_one(setup, &item).await
    }

    /// Runs every parked part that the filter names through the stages again,
    /// oldest first; `see` is told what became of each.
    ///
    /// # Errors
    ///
    /// As [`Self::retry_parked`]; what was released before stays released.
    pub async fn retry_all_parked(
        &self,
        filter: &ParkedFilter,
        mut see: impl FnMut(&ParkedItem, &Unparked) + Send,
    ) -> Result<(), Error> {
        let mut filter = filter.clone();
        loop {
            let items = self.store.parked(&filter).await?;
            let Some(last) = items.last() else {
                return Ok(());
            };
            filter.after = Some(last.id.clone());
            for item in &items {
                // For each anew: nobody waits for the end of all of it.
                let _at_work = self.catch_up.enter();
                let became = self.retry_one(&self.current.get(), item).await?;
                see(item, &became);
            }
        }
    }

    async fn retry_one(&self, setup: &Setup, item: &ParkedItem) -> Result<Unparked, Error> {
        match self.release_one(setup, item).await {
            Ok(became) => Ok(became),
            Err(UnparkError::Gone) => Ok(Unparked::Gone),
            Err(UnparkError::Store(cause)) => Err(cause),
            Err(UnparkError::Stale) => {
                self.look_again.notify_one();
                Err(Error::Conflict)
            }
            Err(UnparkError::Conflict | UnparkError::OtherDay) => Err(Error::Conflict),
        }
    }

    /// Runs a parked part through the stages again, and sends it if all of it
    /// may go.
    pub(super) async fn release_one(
        &self,
        setup: &Setup,
        item: &ParkedItem,
    ) -> Result<Unparked, UnparkError> {
        let Some(prepared) = self.prepare_parked(setup, item) else {
            return Ok(Unparked::Unreadable);
        };
        let now = self.clock.now();
        let planner = Planner {
            setup,
            party: &item.party,
            message: &prepared,
            now,
        };
        for _ in 0..ATTEMPTS {
            let mut plan = match self.plan_parked(&planner, &[]).await {
                Ok(plan) => plan,
                Err(Waits::For(reasons)) => return Ok(Unparked::Waits(reasons)),
                Err(Waits::ForTheStore(cause)) => return Err(UnparkError::Store(cause)),
            };
            let message_type = &prepared.stripped.document().schema().name;
            let written = Written::take(&mut plan, message_type, now);
            let unparking = Unparking {
                item,
                withheld: written.withheld,
                remember: written.remember,
                ledger: written.ledger,
                releases: written.releases,
                directory_version: setup.directory_version(),
                decided_on: clock::civil_at(now).date(),
                window_days: setup.policy.window_days(),
            };
            let releases = unparking.releases.len();
            match self.store.unpark(unparking).await {
                Ok(()) => return Ok(Unparked::Released { releases }),
                Err(UnparkError::Conflict) => {}
                Err(cause) => return Err(cause),
            }
        }
        Err(UnparkError::Conflict)
    }
}

/// What became of a parked part that was run through the stages again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unparked {
    /// All of it had a way to go; none of it waits any more.
    Released {
        /// How many receivers get something of it: none when policy withholds
        /// all of it.
        releases: usize,
    },
    /// Some of it has to wait, so all of it waits: why.
    Waits(BTreeSet<Code>),
    /// It cannot be read any more.
    Unreadable,
    /// It was released or dropped before, or there never was such a part.
    Gone,
}

/// Why a parked part has to wait on.
enum Waits {
    /// For configuration or for a report.
    For(BTreeSet<Code>),
    /// The ledger cannot be read.
    ForTheStore(Error),
}

/// What waits for one person alone may have come for want of a route, and
/// waits for a report of its case since.
fn is_worth_a_try(part: &ParkedSummary) -> bool {
    part.reason == Code::CaseUnknown
        || (part.persons == 1 && part.reason != Code::KeyChangeUnconfirmed)
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

//! What waits: which parts of a message are parked, and in which pieces.
//!
//! A parked part is released as a whole. So what is sure to pass once it has a
//! way to go waits together, and each person's corrections and changed keys
//! wait apart: they may have to wait on, and must hold nobody else's sick
//! report back until all of it expires.

use std::collections::{BTreeSet, HashSet};

use super::Planner;
use super::routing::{Part, Stray};
use crate::clock;
use crate::domain::{Code, TenantId};
use crate::policy::{self, Identity, Parked, Waiting};
use crate::translate::{Absence, Employee, Employer, Item, Kind};
use crate::validate::NodeId;

impl<'a> Planner<'a> {
    /// True for what may be parked: reports on cases, and return messages.
    /// Employment and personal data are dropped instead.
    pub(super) fn may_wait(&self) -> bool {
        self.is_return() || self.message.model.kind == Kind::Absences
    }

    /// Parks a part that has no way to go.
    pub(super) fn park_stray(&self, stray: &Stray<'a>) -> Vec<Parked> {
        let pieces = Holders::of_stray(&stray.employers, &stray.items);
        self.park(stray.reason, stray.tenant, &stray.employers, pieces)
    }

    /// Parks those persons, reports and items of a part that wait.
    pub(super) fn park_waiting(
        &self,
        reason: Code,
        part: &Part<'a>,
        nodes: &HashSet<NodeId>,
    ) -> Vec<Parked> {
        let pieces = Holders::of_part(reason, part, nodes);
        self.park(reason, Some(&part.tenant.id), &part.employers, pieces)
    }

    fn park(
        &self,
        reason: Code,
        tenant: Option<&'a TenantId>,
        employers: &[&'a Employer],
        pieces: Vec<Holders>,
    ) -> Vec<Parked> {
        if !self.may_wait() {
            return Vec::new();
        }
        let employers: HashSet<NodeId> = employers.iter().map(|employer| employer.at).collect();
        let source = tenant
            .and_then(|tenant| self.setup.tenant(tenant))
            .map_or(self.party, |tenant| &tenant.source);
        let identity = Identity::of(&self.setup.keys, source);
        let parked = |about: Holders| {
            let waiting = Waiting {
                id: &clock::new_id(),
                party: self.party,
                tenant,
                reason,
                employers: &employers,
                nodes: about.nodes,
                persons: about.persons.iter().map(|id| identity.person(id)).collect(),
            };
            policy::park(&self.message.stripped, &waiting, &self.occasion(None))
        };
        pieces
            .into_iter()
            .filter(|about| !about.nodes.is_empty())
            .filter_map(parked)
            .collect()
    }
}

/// The nodes that a parked part is about, with everything above them, and the
/// ids of the persons.
#[derive(Default)]
struct Holders {
    nodes: HashSet<NodeId>,
    persons: BTreeSet<String>,
}

impl Holders {
    /// A stray in pieces: plain reports first, then what may have to wait on.
    fn of_stray(employers: &[&Employer], items: &[&Item]) -> Vec<Self> {
        let mut plain = Self::default();
        let mut apart = Vec::new();
        for employee in employers.iter().flat_map(|employer| &employer.employees) {
            let rekeyed = policy::has_changed_keys(employee);
            let waits_on = |absence: &Absence| rekeyed || policy::is_repair(absence);
            plain.add_reports(employee, |absence| !waits_on(absence));
            let mut own = Self::default();
            own.add_reports(employee, waits_on);
            apart.push(own);
        }
        apart.extend(items.iter().map(|item| Self::of_item(item)));
        apart.insert(0, plain);
        apart
    }

    /// The chosen nodes of a part. Reports that nobody can send wait together,
    /// everything else by person.
    fn of_part(reason: Code, part: &Part<'_>, chosen: &HashSet<NodeId>) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::new();
        let employers = part.employers.iter();
        for employee in employers.flat_map(|employer| &employer.employees) {
            let whole = reason == Code::KeyChangeUnconfirmed && chosen.contains(&employee.at);
            let mut own = Self::default();
            own.add_reports(employee, |absence| whole || chosen.contains(&absence.at));
            match pieces.first_mut() {
                Some(together) if reason == Code::ReleaseInvalid => together.join(own),
                _ => pieces.push(own),
            }
        }
        let items = part.items.iter().filter(|item| chosen.contains(&item.at));
        pieces.extend(items.map(|item| Self::of_item(item)));
        pieces
    }

    fn of_item(item: &Item) -> Self {
        let mut about = Self::default();
        about.nodes.extend([item.at, item.employee.at]);
        for employment in &item.employee.employments {
            about.nodes.insert(employment.at);
            let reports = employment.absences.iter().map(|absence| absence.at);
            about.nodes.extend(reports);
        }
        about.persons.insert(item.employee.id.clone());
        about
    }

    /// The chosen reports of a person; nothing of one without any.
    fn add_reports(&mut self, employee: &Employee, chosen: impl Fn(&Absence) -> bool) {
        for employment in &employee.employments {
            let reports = employment.absences.iter().filter(|absence| chosen(absence));
            let mut reports = reports.map(|absence| absence.at).peekable();
            if reports.peek().is_none() {
                continue;
            }
            self.nodes.extend(reports);
            self.nodes.extend([employment.at, employee.at]);
            self.persons.insert(employee.id.clone());
        }
    }

    fn join(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.persons.extend(other.persons);
    }
}

//! Which persons pass on a route: the classes of the policy.
//!
//! S: an open absence case was, or is now, released on this route. R:
//! recovered, inside the window. N: everybody else. The classes come from the
//! ledger of the route alone, so two receivers of one employer can differ.
//!
//! Everything here is pure: message, ledger and date in, decision out.
//!
//! Source: BRIEF §4; AP rules on the sick employee; AVG art. 5(1)(c).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::civil::Date;

use super::absences::Cases;
use super::identity::Identity;
use super::ledger::{CaseEntry, LedgerChange};
use crate::domain::{Code, KeyedHash};
use crate::translate::{Employee, Employer, Item, ItemContent, Kind, Remark};
use crate::validate::{Document, NodeId};

/// The rules that withhold, by the names that `explain`, metrics and audit
/// counts use.
pub mod rule {
    /// Class N: no case of this person was released here.
    pub const NOT_SICK: &str = "person_not_sick";
    /// Class R, and the route does not take leavers.
    pub const RECOVERED: &str = "person_recovered";
    /// The employment is not one of the case.
    pub const OTHER_EMPLOYMENT: &str = "employment_not_of_case";
    /// The key is known, but with another birth date: a key used again.
    pub const OTHER_BIRTH_DATE: &str = "birth_date_differs";
    /// A changed key outside an absence report, or one that cannot be confirmed.
    pub const KEY_CHANGE: &str = "key_change_unconfirmed";
    /// A correction or withdrawal of a case that this route never got.
    pub const CASE_UNKNOWN: &str = "case_unknown";
    /// A return message about somebody who was never reported.
    pub const PERSON_UNKNOWN: &str = "person_unknown";
    /// A document of a kind that the tenant does not list.
    pub const DOCUMENT_KIND: &str = "document_kind";
}

/// What the ledger says about the persons of one message, read beforehand.
#[derive(Debug, Default)]
pub struct LedgerView {
    entries: HashMap<(KeyedHash, KeyedHash), Vec<CaseEntry>>,
    remembered: HashSet<(KeyedHash, KeyedHash)>,
}

impl LedgerView {
    /// A view of `entries`, and of the (route, case) pairs of `remembered`.
    #[must_use]
    pub fn new(entries: Vec<CaseEntry>, remembered: HashSet<(KeyedHash, KeyedHash)>) -> Self {
        let mut view = Self {
            remembered,
            ..Self::default()
        };
        for entry in entries {
            let cases = view
                .entries
                .entry((entry.key.route, entry.key.person))
                .or_default();
            if !cases.iter().any(|known| known.key == entry.key) {
                cases.push(entry);
            }
        }
        view
    }

    /// The view as it is once `changes` are made.
    pub fn apply<'c>(&mut self, changes: impl Iterator<Item = &'c LedgerChange>) {
        for change in changes {
            let key = match change {
                LedgerChange::Put(entry) => entry.key,
                LedgerChange::Remove { key, .. } => *key,
            };
            let cases = self.entries.entry((key.route, key.person)).or_default();
            cases.retain(|known| known.key != key);
            if let LedgerChange::Put(entry) = change {
                cases.push(entry.clone());
            }
        }
    }

    /// The cases of a person on a route.
    #[must_use]
    pub fn cases_of(&self, route: KeyedHash, person: KeyedHash) -> &[CaseEntry] {
        self.entries
            .get(&(route, person))
            .map_or(&[], Vec::as_slice)
    }

    /// The entries of a case on a route, whoever it is about.
    fn entries_of(&self, route: KeyedHash, case: KeyedHash) -> impl Iterator<Item = &CaseEntry> {
        let all = self.entries.values().flatten();
        all.filter(move |entry| entry.key.route == route && entry.key.case == case)
    }

    pub(super) fn remembers(&self, route: KeyedHash, case: KeyedHash) -> bool {
        self.remembered.contains(&(route, case))
    }
}

/// What policy has to know of a route, of its tenant, and of today.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Hash of the route.
    pub route: KeyedHash,
    /// Ids as the employer's side knows them.
    pub identity: Identity<'a>,
    /// What the ledger knows.
    pub ledger: &'a LedgerView,
    /// True when recovered persons' employments may pass.
    pub leavers: bool,
    /// Document kinds that may pass.
    pub document_codes: &'a [String],
    /// Today in the Netherlands.
    pub today: Date,
    /// Days during which a recovered person is remembered.
    pub window_days: i32,
}

/// What passes on one route, what does not, and by which rule.
#[derive(Debug, Default)]
pub struct Decision {
    /// Persons, employments, reports and items that pass.
    pub kept: HashSet<NodeId>,
    /// Persons of whom only the minimal fields pass.
    pub minimal: HashSet<NodeId>,
    /// Parts that wait, with the reason: persons, reports or items.
    pub parked: Vec<(NodeId, Code)>,
    /// How the ledger changes once the release is stored.
    pub changes: Vec<LedgerChange>,
    /// Cases to recognise for two years, on this route.
    pub remember: BTreeSet<KeyedHash>,
    /// Cases that the release must keep its order in.
    pub cases: BTreeSet<KeyedHash>,
    /// What the sender should know.
    pub remarks: Vec<Remark>,
    /// How often each rule withheld a person, employment, report or item.
    pub counts: BTreeMap<&'static str, u32>,
    /// Persons of whom at least something passes.
    pub persons_passed: u32,
    /// Persons of whom nothing passes.
    pub persons_withheld: u32,
}

impl Decision {
    pub(super) fn count(&mut self, rule: &'static str) {
        *self.counts.entry(rule).or_default() += 1;
    }

    pub(super) fn park(&mut self, at: NodeId, code: Code, rule: &'static str) {
        self.parked.push((at, code));
        self.count(rule);
    }
}

/// Decides on the persons of `employers` for a message of `kind`.
#[must_use]
pub fn decide(
    kind: Kind,
    document: &Document,
    employers: &[&Employer],
    scope: &Scope<'_>,
) -> Decision {
    let mut decision = Decision::default();
    let mut cases = Cases::new(scope);
    for employee in employers.iter().flat_map(|employer| &employer.employees) {
        let passed = match kind {
            Kind::Absences => cases.decide(employee, document, &mut decision),
            Kind::Employments | Kind::EmployeeData => {
                decide_employments(employee, scope, &mut decision)
            }
            Kind::EmployerData | Kind::Documents | Kind::Appointments | Kind::Return => false,
        };
        if passed {
            decision.kept.insert(employee.at);
            decision.persons_passed += 1;
        } else {
            decision.persons_withheld += 1;
        }
    }
    decision.changes = cases.changes();
    decision
}

/// Decides on documents and appointments. `known` says whether the person of
/// an item was reported on this tenant's behalf.
#[must_use]
pub fn decide_items(items: &[&Item], scope: &Scope<'_>, known: impl Fn(&Item) -> bool) -> Decision {
    let mut decision = Decision::default();
    for item in items {
        let refused = match &item.content {
            _ if !known(item) => Some((Code::PersonUnknown, rule::PERSON_UNKNOWN)),
            ItemContent::Document { kind } if !scope.document_codes.contains(kind) => {
                Some((Code::DocumentKind, rule::DOCUMENT_KIND))
            }
            ItemContent::Document { .. } | ItemContent::Appointment => None,
        };
        if let Some((code, rule)) = refused {
            decision.persons_withheld += 1;
            decision.park(item.at, code, rule);
            decision.remarks.push(Remark { code, at: item.at });
            continue;
        }
        decision.persons_passed += 1;
        decision.kept.extend([item.at, item.employee.at]);
        decision
            .cases
            .insert(scope.identity.person(&item.employee.id));
        for employment in &item.employee.employments {
            decision.kept.insert(employment.at);
            decision
                .kept
                .extend(employment.absences.iter().map(|absence| absence.at));
        }
    }
    decision
}

/// True when the person of an item is known on one of `routes`: by employee
/// id, with a birth date that agrees where there is one, or by a case that was
/// reported of this person. A case id alone tells whose an item is only where
/// it names no person.
#[must_use]
pub fn is_known(item: &Item, routes: &[KeyedHash], scope: &Scope<'_>) -> bool {
    let employee = &item.employee;
    let identity = scope.identity;
    let person = identity.person(&employee.id);
    let birth = identity.birth(employee.birth_date);
    let agrees = |entry: &CaseEntry| employee.birth_date.is_none() || entry.birth == birth;
    routes.iter().any(|route| {
        let cases = scope.ledger.cases_of(*route, person);
        if !cases.is_empty() {
            return cases.iter().any(agrees);
        }
        // A receiver may know the person by an id of its own: then the case
        // tells who is meant, if the birth date confirms it.
        let confirmed = |entry: &CaseEntry| employee.birth_date.is_some() && entry.birth == birth;
        case_ids(employee).any(|case| {
            let mut of_case = scope.ledger.entries_of(*route, identity.case(case));
            of_case.any(confirmed)
                || scope
                    .ledger
                    .remembers(*route, identity.case_of(&employee.id, case))
        })
    })
}

/// True when an item of the employer's side is about somebody whom the route
/// knows as sick or recovered, with a birth date that agrees.
#[must_use]
pub fn is_sick_or_recovered(item: &Item, scope: &Scope<'_>) -> bool {
    let employee = &item.employee;
    let birth = scope.identity.birth(employee.birth_date);
    let known = scope
        .ledger
        .cases_of(scope.route, scope.identity.person(&employee.id));
    let agreeing = known
        .iter()
        .filter(|entry| employee.birth_date.is_none() || entry.birth == birth);
    class_of(agreeing, scope.today, scope.window_days) != Class::Neither
}

/// The case ids that a person's employments name.
pub fn case_ids(employee: &Employee) -> impl Iterator<Item = &str> {
    let absences = employee
        .employments
        .iter()
        .flat_map(|employment| &employment.absences);
    absences
        .flat_map(|absence| {
            [
                absence.case_id.as_deref(),
                absence.former_case_id.as_deref(),
            ]
        })
        .flatten()
}

/// The class of a person, from the cases that a route knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An open case was released here.
    Sick,
    /// Recovered, inside the window.
    Recovered,
    /// None of these.
    Neither,
}

/// The class that `cases` give on `today`.
#[must_use]
pub fn class_of<'a>(
    cases: impl Iterator<Item = &'a CaseEntry>,
    today: Date,
    window_days: i32,
) -> Class {
    let mut class = Class::Neither;
    for case in cases {
        if case.state.is_silent_on(today) {
            tracing::warn!("An open case without a message for three years counts as closed");
            continue;
        }
        if case.state.is_open() {
            return Class::Sick;
        }
        let until = case.state.remembered_until(window_days);
        if !case.state.withdrawn && until.is_some_and(|until| today <= until) {
            class = Class::Recovered;
        }
    }
    class
}

/// Employment and personal data: of S, of R only for leavers, of N never; and
/// only the employments of the case.
fn decide_employments(employee: &Employee, scope: &Scope<'_>, decision: &mut Decision) -> bool {
    let person = scope.identity.person(&employee.id);
    let birth = scope.identity.birth(employee.birth_date);
    let known = scope.ledger.cases_of(scope.route, person);
    let cases: Vec<&CaseEntry> = known.iter().filter(|entry| entry.birth == birth).collect();
    let class = class_of(cases.iter().copied(), scope.today, scope.window_days);
    let withheld_by = match class {
        Class::Sick => None,
        Class::Recovered if scope.leavers => None,
        Class::Recovered => Some(rule::RECOVERED),
        Class::Neither if cases.is_empty() && !known.is_empty() => Some(rule::OTHER_BIRTH_DATE),
        Class::Neither if former_key_is_known(employee, scope) => Some(rule::KEY_CHANGE),
        Class::Neither => Some(rule::NOT_SICK),
    };
    if let Some(rule) = withheld_by {
        decision.count(rule);
        return false;
    }
    let of_class: Vec<&CaseEntry> = cases
        .into_iter()
        .filter(|entry| class_of([*entry].into_iter(), scope.today, scope.window_days) == class)
        .collect();
    let mut passed = false;
    for employment in &employee.employments {
        let hash = scope
            .identity
            .employment(employment.id.as_deref().unwrap_or_default());
        let mut of_employment = of_class
            .iter()
            .filter(|entry| entry.key.employment == hash)
            .peekable();
        if of_employment.peek().is_none() {
            decision.count(rule::OTHER_EMPLOYMENT);
            continue;
        }
        passed = true;
        decision.kept.insert(employment.at);
        decision
            .cases
            .extend(of_employment.map(|entry| entry.key.case));
    }
    passed
}

fn former_key_is_known(employee: &Employee, scope: &Scope<'_>) -> bool {
    employee.former_id.as_deref().is_some_and(|former| {
        !scope
            .ledger
            .cases_of(scope.route, scope.identity.person(former))
            .is_empty()
    })
}

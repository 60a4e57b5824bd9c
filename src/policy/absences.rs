//! Absence reports: what each report does to the case that it names.
//!
//! An open case makes a person S, whatever the number of the report.
//! Corrections and withdrawals pass for a case that the route knows and wait
//! for one that it does not; they are never taken for a new case.

use std::collections::{BTreeMap, HashSet};

use jiff::civil::Date;

use super::decide::{Decision, Scope, rule};
use super::ledger::{CaseEntry, CaseKey, CaseState, LedgerChange};
use crate::domain::{Code, KeyedHash};
use crate::translate::{Absence, Action, Employee, Employment, Remark};
use crate::validate::{Document, NodeId};

/// A case while a message is decided on.
#[derive(Clone)]
struct Working {
    entry: CaseEntry,
    /// Key and version as stored, `None` for a case that is new.
    stored: Option<(CaseKey, i64)>,
    touched: bool,
}

/// The cases of a message's persons on one route, as far as decided: a person
/// may stand in it several times, once per employment or employer.
pub(super) struct Cases<'a> {
    scope: &'a Scope<'a>,
    persons: BTreeMap<KeyedHash, Vec<Working>>,
}

impl<'a> Cases<'a> {
    pub(super) fn new(scope: &'a Scope<'a>) -> Self {
        Self {
            scope,
            persons: BTreeMap::new(),
        }
    }

    /// True when something of the person passes.
    pub(super) fn decide(
        &mut self,
        employee: &Employee,
        document: &Document,
        decision: &mut Decision,
    ) -> bool {
        let scope = self.scope;
        let person = scope.identity.person(&employee.id);
        let former = changed(employee.former_id.as_ref(), Some(&employee.id))
            .map(|former| scope.identity.person(former));
        let mut case = AbsenceCase {
            employee,
            scope,
            person,
            birth: scope.identity.birth(employee.birth_date),
            cases: self.of(person),
            former: former.map(|former| self.of(former)).unwrap_or_default(),
        };
        let passed = case.decide(document, decision);
        if passed {
            if let Some(former) = former {
                self.persons.insert(former, case.former);
            }
            self.persons.insert(person, case.cases);
        }
        passed
    }

    fn of(&self, person: KeyedHash) -> Vec<Working> {
        if let Some(decided) = self.persons.get(&person) {
            return decided.clone();
        }
        let known = self.scope.ledger.cases_of(self.scope.route, person);
        known.iter().map(Working::stored).collect()
    }

    /// How the ledger changes once the release is stored.
    pub(super) fn changes(self) -> Vec<LedgerChange> {
        let mut changes = Vec::new();
        let mut written: HashSet<CaseKey> = HashSet::new();
        let cases = self.persons.into_values().flatten();
        for case in cases.filter(|case| case.touched) {
            let mut entry = case.entry;
            if let Some((key, version)) = case.stored {
                if key == entry.key {
                    entry.version = version;
                } else {
                    changes.push(LedgerChange::Remove { key, version });
                    entry.version = 0;
                }
            }
            // Two cases can meet under one key when a former key is followed.
            if written.insert(entry.key) {
                changes.push(LedgerChange::Put(entry));
            }
        }
        changes
    }
}

impl Working {
    fn stored(entry: &CaseEntry) -> Self {
        Self {
            entry: entry.clone(),
            stored: Some((entry.key, entry.version)),
            touched: false,
        }
    }
}

/// One person of an absence message on one route.
struct AbsenceCase<'a> {
    employee: &'a Employee,
    scope: &'a Scope<'a>,
    person: KeyedHash,
    birth: KeyedHash,
    cases: Vec<Working>,
    /// What is known under a former id; empty once it is taken over.
    former: Vec<Working>,
}

/// What happens to one report.
enum Verdict {
    Pass,
    Withhold(&'static str),
    Park,
}

impl AbsenceCase<'_> {
    fn decide(&mut self, document: &Document, decision: &mut Decision) -> bool {
        if self.follow_changed_keys().is_err() {
            decision.park(
                self.employee.at,
                Code::KeyChangeUnconfirmed,
                rule::KEY_CHANGE,
            );
            decision.remarks.push(Remark {
                code: Code::KeyChangeUnconfirmed,
                at: self.employee.at,
            });
            return false;
        }
        let sick_before = self.is_sick();
        let mut passed = false;
        let mut only_repairs = true;
        for employment in &self.employee.employments {
            let mut employment_passes = false;
            for absence in &employment.absences {
                match self.judge(employment, absence) {
                    Verdict::Pass => {
                        employment_passes = true;
                        only_repairs &= is_repair(absence);
                        decision.kept.insert(absence.at);
                        self.record(document, employment, absence, decision);
                    }
                    Verdict::Withhold(rule) => decision.count(rule),
                    Verdict::Park => {
                        decision.park(absence.at, Code::CaseUnknown, rule::CASE_UNKNOWN);
                        decision.remarks.push(Remark {
                            code: Code::CaseUnknown,
                            at: absence.at,
                        });
                    }
                }
            }
            if employment_passes {
                decision.kept.insert(employment.at);
                passed = true;
            }
        }
        if passed && only_repairs && !sick_before && !self.is_sick() {
            decision.minimal.insert(self.employee.at);
        }
        passed
    }

    /// An open case of this very person: not of an earlier holder of the id.
    fn is_sick(&self) -> bool {
        self.cases
            .iter()
            .any(|case| case.entry.state.is_open() && case.entry.birth == self.birth)
    }

    /// Takes over what is known under a former key, if the birth date agrees.
    fn follow_changed_keys(&mut self) -> Result<(), ()> {
        let scope = self.scope;
        if !self.former.is_empty() {
            let from = self.cases.len();
            self.cases.append(&mut self.former);
            let person = self.person;
            self.rekey(from, |_| true, |key| key.person = person)?;
        }
        for employment in &self.employee.employments {
            if let Some(former) = changed(employment.former_id.as_ref(), employment.id.as_ref()) {
                let old = scope.identity.employment(former);
                let new = scope
                    .identity
                    .employment(employment.id.as_deref().unwrap_or_default());
                self.rekey(0, |key| key.employment == old, |key| key.employment = new)?;
            }
            for absence in &employment.absences {
                if let Some(former) =
                    changed(absence.former_case_id.as_ref(), absence.case_id.as_ref())
                {
                    let old = scope.identity.case(former);
                    let new = scope
                        .identity
                        .case(absence.case_id.as_deref().unwrap_or_default());
                    self.rekey(0, |key| key.case == old, |key| key.case = new)?;
                }
            }
        }
        if has_changed_keys(self.employee) {
            self.confirm_new_keys()?;
        }
        Ok(())
    }

    /// What is known under the new keys has to agree as well: the change may
    /// have been followed before, for somebody else.
    fn confirm_new_keys(&self) -> Result<(), ()> {
        let absences = self.employee.employments.iter();
        let mut ids = absences
            .flat_map(|employment| &employment.absences)
            .filter_map(|absence| absence.case_id.as_deref());
        let other_birth = |case_id: &str| {
            let case = self.scope.identity.case(case_id);
            let mut known = self.cases.iter().map(|working| &working.entry);
            known.any(|entry| entry.key.case == case && entry.birth != self.birth)
        };
        if ids.any(other_birth) {
            return Err(());
        }
        Ok(())
    }

    fn rekey(
        &mut self,
        from: usize,
        applies: impl Fn(&CaseKey) -> bool,
        change: impl Fn(&mut CaseKey),
    ) -> Result<(), ()> {
        for case in self
            .cases
            .iter_mut()
            .skip(from)
            .filter(|case| applies(&case.entry.key))
        {
            if case.entry.birth != self.birth || self.employee.birth_date.is_none() {
                return Err(());
            }
            change(&mut case.entry.key);
            case.touched = true;
        }
        Ok(())
    }

    /// The cases that a report is about: the one under its employment, else
    /// those under others when it ends the case. A case that ended must not
    /// stay open because its report names another employment.
    fn find(&self, employment: &Employment, absence: &Absence) -> Vec<usize> {
        let identity = self.scope.identity;
        let case = identity.case(absence.case_id.as_deref().unwrap_or_default());
        let at = identity.employment(employment.id.as_deref().unwrap_or_default());
        let of_case = |(_, working): &(usize, &Working)| working.entry.key.case == case;
        let same: Vec<(usize, &Working)> = self.cases.iter().enumerate().filter(of_case).collect();
        let under_it = same
            .iter()
            .find(|(_, working)| working.entry.key.employment == at);
        match under_it {
            Some((found, _)) => vec![*found],
            None if ends(absence) => same.into_iter().map(|(found, _)| found).collect(),
            None => Vec::new(),
        }
    }

    fn judge(&self, employment: &Employment, absence: &Absence) -> Verdict {
        if is_repair(absence) {
            return if self.knows_the_case(absence) {
                Verdict::Pass
            } else {
                Verdict::Park
            };
        }
        let known = self.find(employment, absence);
        let mut known = known.iter().filter_map(|at| self.cases.get(*at));
        if !ends(absence)
            || known
                .any(|case| case.entry.birth == self.birth && self.is_in_time(&case.entry.state))
            || self.recovered_lately(absence)
        {
            return Verdict::Pass;
        }
        Verdict::Withhold(rule::NOT_SICK)
    }

    /// False for a case whose window is over and that is still to be removed.
    fn is_in_time(&self, state: &CaseState) -> bool {
        let until = state.remembered_until(self.scope.window_days);
        until.is_none_or(|until| self.scope.today <= until)
    }

    /// A case of this person, under whichever employment, or one that the
    /// ledger has forgotten but recognises.
    fn knows_the_case(&self, absence: &Absence) -> bool {
        let scope = self.scope;
        let Some(case_id) = absence.case_id.as_deref() else {
            return false;
        };
        let case = scope.identity.case(case_id);
        let is_it = |working: &Working| working.entry.key.case == case;
        if self.cases.iter().any(is_it) {
            return true;
        }
        // Not under former keys: the birth date that confirms them is forgotten.
        let of_person = scope.identity.case_of(&self.employee.id, case_id);
        scope.ledger.remembers(scope.route, of_person)
    }

    /// A whole absence that arrives after the recovery, inside the window.
    fn recovered_lately(&self, absence: &Absence) -> bool {
        let window = jiff::Span::new().days(self.scope.window_days);
        absence
            .recovered_on
            .or(absence.effective_on)
            .is_some_and(|day| self.scope.today <= day.saturating_add(window))
    }

    /// Notes a report that passes in the working ledger.
    fn record(
        &mut self,
        document: &Document,
        employment: &Employment,
        absence: &Absence,
        decision: &mut Decision,
    ) {
        let scope = self.scope;
        let content = scope.identity.content(&content_of(document, absence.at));
        let number = absence.number.unwrap_or_default();
        let case_id = absence.case_id.as_deref().unwrap_or_default();
        let key = CaseKey {
            route: scope.route,
            person: self.person,
            employment: scope
                .identity
                .employment(employment.id.as_deref().unwrap_or_default()),
            case: scope.identity.case(case_id),
        };
        decision.cases.insert(key.case);
        decision.cases.extend(
            absence
                .former_case_id
                .as_deref()
                .map(|id| scope.identity.case(id)),
        );
        decision
            .remember
            .insert(scope.identity.case_of(&self.employee.id, case_id));
        let mut found = self.find(employment, absence);
        if found.is_empty() {
            // A repair of a case that only its remembered hash recognises
            // changes nothing here, unless it opens the case again.
            if is_repair(absence) && ends(absence) {
                return;
            }
            found.push(self.cases.len());
            self.cases.push(self.new_case(key, absence));
        }
        let birth = self.birth;
        for at in found {
            let Some(case) = self.cases.get_mut(at) else {
                continue;
            };
            if case.stored.is_some() {
                let remark = numbering(&case.entry.state, absence, number, content);
                let at = absence.at;
                decision
                    .remarks
                    .extend(remark.map(|code| Remark { code, at }));
            }
            case.touched = true;
            case.entry.birth = birth;
            case.entry
                .state
                .apply(absence, number, content, scope.today);
        }
    }

    fn new_case(&self, key: CaseKey, absence: &Absence) -> Working {
        let state = CaseState {
            first_day: absence.first_day.unwrap_or(self.scope.today),
            recovered_on: None,
            closed_on: None,
            withdrawn: false,
            last_number: 0,
            last_content: KeyedHash::from_bytes([0; KeyedHash::LEN]),
            last_message_on: self.scope.today,
        };
        let entry = CaseEntry {
            key,
            birth: self.birth,
            state,
            version: 0,
        };
        Working {
            entry,
            stored: None,
            touched: true,
        }
    }
}

impl CaseState {
    /// What a report that passes makes of the case.
    ///
    /// A withdrawal closes the case whichever report it names: the standard
    /// does not say publicly whether a single report or the case is meant, and
    /// closed is the side on which nothing leaks. Later reports pass all the
    /// same and open it again.
    fn apply(&mut self, absence: &Absence, number: u32, content: KeyedHash, today: Date) {
        self.last_message_on = today;
        if let Some(day) = absence.first_day {
            self.first_day = day;
        }
        if self.is_overtaken(absence, number) {
            return;
        }
        self.withdrawn = absence.action == Some(Action::Delete);
        if self.withdrawn || absence.ended {
            self.recovered_on = absence.recovered_on.or(absence.effective_on);
            self.closed_on = Some(self.closed_on.unwrap_or(today));
        } else {
            self.recovered_on = None;
            self.closed_on = None;
        }
        if number >= self.last_number {
            self.last_number = number;
            self.last_content = content;
        }
    }

    /// True for an earlier report that comes, or is corrected, after the case
    /// was closed: it must not open the case again. A report of a day after
    /// the recovery does, whatever its number.
    fn is_overtaken(&self, absence: &Absence, number: u32) -> bool {
        if self.is_open() || ends(absence) || number >= self.last_number {
            return false;
        }
        let recovered = self.recovered_on.or(self.closed_on);
        is_repair(absence) || absence.effective_on <= recovered
    }
}

fn numbering(
    state: &CaseState,
    absence: &Absence,
    number: u32,
    content: KeyedHash,
) -> Option<Code> {
    if is_repair(absence) {
        return None;
    }
    if number > state.last_number.saturating_add(1) {
        Some(Code::CaseNumberGap)
    } else if number < state.last_number {
        Some(Code::CaseNumberBack)
    } else if number == state.last_number && content != state.last_content {
        Some(Code::DuplicateReport)
    } else {
        None
    }
}

/// True when a report of the person names a key that it had before.
#[must_use]
pub fn has_changed_keys(employee: &Employee) -> bool {
    let of_report = |absence: &Absence| absence.former_case_id.is_some();
    let of_employment = |employment: &Employment| {
        employment.former_id.is_some() || employment.absences.iter().any(of_report)
    };
    employee.former_id.is_some() || employee.employments.iter().any(of_employment)
}

/// True when nobody is absent any more after this report.
fn ends(absence: &Absence) -> bool {
    absence.ended || absence.action == Some(Action::Delete)
}

/// A correction or withdrawal. A code that the party's pairing does not name
/// counts as one: it passes for a known case and waits for an unknown one.
#[must_use]
pub fn is_repair(absence: &Absence) -> bool {
    match absence.action {
        Some(Action::Report | Action::Change | Action::Synchronise) => false,
        Some(Action::Correct | Action::Delete) | None => true,
    }
}

fn changed<'s>(former: Option<&'s String>, now: Option<&String>) -> Option<&'s String> {
    former.filter(|former| Some(*former) != now)
}

/// A report's tags and texts in order, as one text to hash.
fn content_of(document: &Document, at: NodeId) -> Vec<u8> {
    let mut content = Vec::new();
    for node in document.descendants(at) {
        content.extend_from_slice(document.element(node).tag.as_bytes());
        content.push(0);
        if document.element(node).is_leaf() {
            content.extend_from_slice(document.text(node).as_bytes());
        }
        content.push(1);
    }
    content
}

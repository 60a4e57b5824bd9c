//! Absence reports: what each report does to the case that it names.
//!
//! An open case makes a person S, whatever the number of the report.
//! Corrections and withdrawals pass for a case that the route knows and wait
//! for one that it does not; they are never taken for a new case.

use std::collections::HashSet;

use jiff::civil::Date;

use super::decide::{Decision, Scope, rule};
use super::ledger::{CaseEntry, CaseKey, CaseState, LedgerChange};
use crate::domain::{Code, KeyedHash};
use crate::translate::{Absence, Action, Employee, Employment, Remark};
use crate::validate::{Document, NodeId};

/// A case while a message is decided on.
struct Working {
    entry: CaseEntry,
    /// Key and version as stored, `None` for a case that is new.
    stored: Option<(CaseKey, i64)>,
    touched: bool,
}

/// One person of an absence message on one route.
pub(super) struct AbsenceCase<'a> {
    employee: &'a Employee,
    scope: &'a Scope<'a>,
    person: KeyedHash,
    birth: KeyedHash,
    cases: Vec<Working>,
}

/// What happens to one report.
enum Verdict {
    Pass,
    Withhold(&'static str),
    Park,
}

impl<'a> AbsenceCase<'a> {
    pub(super) fn of(employee: &'a Employee, scope: &'a Scope<'a>) -> Self {
        let person = scope.identity.person(&employee.id);
        let mut case = Self {
            employee,
            scope,
            person,
            birth: scope.identity.birth(employee.birth_date),
            cases: Vec::new(),
        };
        case.load(person);
        case
    }

    fn load(&mut self, person: KeyedHash) {
        for entry in self.scope.ledger.cases_of(self.scope.route, person) {
            let stored = Some((entry.key, entry.version));
            self.cases.push(Working {
                entry: entry.clone(),
                stored,
                touched: false,
            });
        }
    }

    /// True when something of the person passes.
    pub(super) fn decide(mut self, document: &Document, decision: &mut Decision) -> bool {
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
        if passed {
            decision.changes.extend(self.changes());
        }
        passed
    }

    fn is_sick(&self) -> bool {
        self.cases.iter().any(|case| case.entry.state.is_open())
    }

    /// Takes over what is known under a former key, if the birth date agrees.
    fn follow_changed_keys(&mut self) -> Result<(), ()> {
        let scope = self.scope;
        if let Some(former) = changed(self.employee.former_id.as_ref(), Some(&self.employee.id)) {
            let from = self.cases.len();
            self.load(scope.identity.person(former));
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
            if case.entry.birth != self.birth {
                return Err(());
            }
            change(&mut case.entry.key);
            case.touched = true;
        }
        Ok(())
    }

    fn find(&self, employment: &Employment, absence: &Absence) -> Option<usize> {
        let identity = self.scope.identity;
        let case = identity.case(absence.case_id.as_deref().unwrap_or_default());
        let at = identity.employment(employment.id.as_deref().unwrap_or_default());
        let same_case = |working: &Working| working.entry.key.case == case;
        self.cases
            .iter()
            .position(|working| same_case(working) && working.entry.key.employment == at)
    }

    fn judge(&self, employment: &Employment, absence: &Absence) -> Verdict {
        let known = self.find(employment, absence).is_some();
        if known {
            return Verdict::Pass;
        }
        if is_repair(absence) {
            let known_case = self.knows_the_case(absence);
            return if known_case {
                Verdict::Pass
            } else {
                Verdict::Park
            };
        }
        if !absence.ended || self.recovered_lately(absence) {
            return Verdict::Pass;
        }
        Verdict::Withhold(rule::NOT_SICK)
    }

    /// A case of this person under another employment, or one that the ledger
    /// has forgotten but recognises.
    fn knows_the_case(&self, absence: &Absence) -> bool {
        let scope = self.scope;
        let Some(case_id) = absence.case_id.as_deref() else {
            return false;
        };
        let case = scope.identity.case(case_id);
        if self
            .cases
            .iter()
            .any(|working| working.entry.key.case == case)
        {
            return true;
        }
        let persons = [Some(&self.employee.id), self.employee.former_id.as_ref()];
        let cases = [Some(case_id), absence.former_case_id.as_deref()];
        persons.into_iter().flatten().any(|person| {
            cases.into_iter().flatten().any(|case| {
                scope
                    .ledger
                    .remembers(scope.route, scope.identity.case_of(person, case))
            })
        })
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
        decision.remember.insert(key.case);
        decision
            .remember
            .insert(scope.identity.case_of(&self.employee.id, case_id));
        let at = match self.find(employment, absence) {
            Some(at) => {
                if let Some(state) = self.cases.get(at).map(|case| &case.entry.state) {
                    let remark = numbering(state, absence, number, content);
                    decision.remarks.extend(remark.map(|code| Remark {
                        code,
                        at: absence.at,
                    }));
                }
                at
            }
            None if self.is_late_repair(absence) => return,
            None => {
                self.cases.push(self.new_case(key, absence));
                self.cases.len() - 1
            }
        };
        let birth = self.birth;
        if let Some(case) = self.cases.get_mut(at) {
            case.touched = true;
            case.entry.birth = birth;
            case.entry
                .state
                .apply(absence, number, content, scope.today);
        }
    }

    /// A repair of a case that only its remembered hash recognises changes
    /// nothing in the ledger, unless it opens the case again.
    fn is_late_repair(&self, absence: &Absence) -> bool {
        is_repair(absence) && (absence.ended || absence.action == Some(Action::Delete))
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

    fn changes(self) -> Vec<LedgerChange> {
        let mut changes = Vec::new();
        let mut written: HashSet<CaseKey> = HashSet::new();
        for case in self.cases.into_iter().filter(|case| case.touched) {
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

impl CaseState {
    /// What a report that passes makes of the case.
    ///
    /// A withdrawal closes the case whichever report it names: the standard
    /// does not say publicly whether a single report or the case is meant, and
    /// closed is the side on which nothing leaks. Later reports pass all the
    /// same and open it again.
    fn apply(&mut self, absence: &Absence, number: u32, content: KeyedHash, today: Date) {
        self.withdrawn = absence.action == Some(Action::Delete);
        if let Some(day) = absence.first_day {
            self.first_day = day;
        }
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
        self.last_message_on = today;
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

/// A correction or withdrawal. A code that the party's pairing does not name
/// counts as one: it passes for a known case and waits for an unknown one.
fn is_repair(absence: &Absence) -> bool {
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

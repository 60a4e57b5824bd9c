//! The business rules: what the standard means and no schema says.
//!
//! Only what the message itself shows; the numbering of reports is compared
//! with the ledger in [`crate::policy`].
//!
//! Source: BRIEF §6.

use jiff::ToSpan;
use jiff::civil::Date;

use super::Remark;
use super::model::{Absence, Employee, Employment, Message};
use crate::domain::Code;
use crate::validate::{Document, Term};

/// How far ahead a first day of absence may lie, in days.
const FUTURE_DAYS: i64 = 31;
/// A percentage of one hundred, in hundredths.
const WHOLE: u32 = 10_000;

/// Every rule that `message` breaks on `today`, in document order per person.
#[must_use]
pub fn check(message: &Message, document: &Document, today: Date) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let tomorrow = today.saturating_add(1.day());
    if message.header.created_on.is_some_and(|day| day > tomorrow) {
        let header = document.child(document.root(), Term::Header);
        let at = header.and_then(|header| document.child(header, Term::CreatedOn));
        remarks.extend(at.map(|at| Remark {
            code: Code::ReferenceDate,
            at,
        }));
    }
    let employees = message
        .employers
        .iter()
        .flat_map(|employer| &employer.employees);
    let persons = employees
        .clone()
        .chain(message.items.iter().map(|item| &item.employee));
    remarks.extend(persons.flat_map(empty_keys));
    for employment in employees.flat_map(|employee| &employee.employments) {
        check_employment(employment, &mut remarks);
        for absence in &employment.absences {
            check_absence(absence, today, &mut remarks);
        }
    }
    remarks
}

/// Keys without a text: whoever has one is the same as everybody else.
fn empty_keys(employee: &Employee) -> Vec<Remark> {
    let is_empty = |key: &Option<String>| key.as_ref().is_some_and(String::is_empty);
    let mut found = Vec::new();
    if employee.id.is_empty() {
        found.push(employee.at);
    }
    for employment in &employee.employments {
        if is_empty(&employment.id) {
            found.push(employment.at);
        }
        let absences = employment.absences.iter();
        found.extend(
            absences
                .filter(|absence| is_empty(&absence.case_id))
                .map(|absence| absence.at),
        );
    }
    found
        .into_iter()
        .map(|at| Remark {
            code: Code::KeyEmpty,
            at,
        })
        .collect()
}

fn check_employment(employment: &Employment, remarks: &mut Vec<Remark>) {
    if let (Some(start), Some(end)) = (employment.start, employment.end)
        && end < start
    {
        remarks.push(Remark {
            code: Code::DateOrder,
            at: employment.at,
        });
    }
}

fn check_absence(absence: &Absence, today: Date, remarks: &mut Vec<Remark>) {
    let broken = [
        (dates_contradict(absence), Code::DateOrder),
        (
            absence
                .first_day
                .is_some_and(|day| day > today.saturating_add(FUTURE_DAYS.days())),
            Code::DateFuture,
        ),
        (
            absence.ended && absence.recovered_on.is_none(),
            Code::ClosedWithoutRecovery,
        ),
        (
            !absence.ended && absence.recovered_on.is_some(),
            Code::OpenWithRecovery,
        ),
        (
            [absence.percentage, absence.therapy]
                .into_iter()
                .flatten()
                .any(|part| part > WHOLE),
            Code::PercentageRange,
        ),
        (
            absence.number == Some(1)
                && absence
                    .percentage
                    .is_some_and(|part| part > 0 && part < WHOLE),
            Code::PartialFromEmployer,
        ),
    ];
    let codes = broken.into_iter().filter(|(is_broken, _)| *is_broken);
    remarks.extend(codes.map(|(_, code)| Remark {
        code,
        at: absence.at,
    }));
}

fn dates_contradict(absence: &Absence) -> bool {
    let Some(recovered_on) = absence.recovered_on else {
        return false;
    };
    absence.first_day.is_some_and(|first| first > recovered_on)
        || (absence.ended && absence.effective_on.is_some_and(|day| day > recovered_on))
}

//! Who sends what in the demo, and what should come of it.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::civil::Date;

/// One message of the demo.
pub(super) struct Step {
    pub party: &'static str,
    pub sender: &'static str,
    pub file: &'static str,
    pub what: &'static str,
    /// The status that the contract gives.
    pub status: u16,
    text: &'static str,
}

macro_rules! steps {
    ($($party:literal $sender:literal $file:literal $status:literal $what:literal;)+) => {
        /// Every message, in order.
        pub(super) const STEPS: &[Step] = &[$(Step {
            party: $party,
            sender: $sender,
            file: $file,
            what: $what,
            status: $status,
            text: include_str!(concat!("samples/", $file)),
        }),+];
    };
}

steps! {
    "adp" "ADP" "adp-1-new.xml" 202 "new sick report, BSN in three places";
    "adp" "ADP" "adp-2-partial.xml" 202 "partial recovery";
    "adp" "ADP" "adp-3-recovery.xml" 202 "recovery";
    "adp" "ADP" "adp-4-correction.xml" 202 "correction of the recovery";
    "adp" "ADP" "adp-5-several.xml" 202 "three persons, one long recovered";
    "adp" "ADP" "adp-6-withdrawal.xml" 202 "withdrawal";
    "nmbrs" "NMBRS" "nmbrs-1-new.xml" 202 "new sick report with a medical remark";
    "nmbrs" "NMBRS" "nmbrs-2-employments.xml" 202 "employment change: one sick, one not";
    "nmbrs" "NMBRS" "nmbrs-3-invalid.xml" 422 "an invalid message";
    "sap" "SAP" "sap-1-new.xml" 202 "new sick report, number with zeros";
    "sap" "SAP" "sap-2-employee-data.xml" 202 "personal data of a non-sick person";
    "sap" "SAP" "sap-3-bsn-everywhere.xml" 202 "sick report, BSN everywhere";
    "sap" "SAP" "sap-4-bsn-as-key.xml" 422 "sick report with the BSN as key";
    "sap" "SAP" "sap-5-unknown-employer.xml" 202 "an employer that nobody configured";
    "sap" "SAP" "sap-6-employer-data.xml" 202 "data of the employer itself";
    "arbo-noord" "ARBO NOORD" "arbo-1-appointments.xml" 202 "an appointment";
    "arbo-noord" "ARBO NOORD" "arbo-2-documents.xml" 202 "two documents, one of a kind not taken";
}

impl Step {
    /// The message, with `{today-N}` and `{today+N}` replaced.
    pub fn message(&self, today: Date) -> String {
        with_days(self.text, today)
    }
}

fn with_days(text: &str, today: Date) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{today") {
        out.push_str(before);
        let (offset, behind) = after.split_once('}').unwrap_or(("", after));
        let days: i64 = offset.parse().unwrap_or_default();
        out.push_str(&today.saturating_add(days.days()).to_string());
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The citizen service numbers of the samples.
pub(super) fn planted_numbers() -> BTreeSet<String> {
    let elements = STEPS
        .iter()
        .flat_map(|step| step.text.split("SofiNr>").skip(1).step_by(2));
    elements
        .filter_map(|rest| rest.split('<').next())
        .map(|number| format!("{:0>9}", number.trim()))
        .collect()
}

/// One rule, for a visitor.
pub(super) fn explain_rule(rule: &str) -> &'static str {
    match rule {
        "person_not_sick" => "not sick: stays with the employer",
        "person_recovered" => "recovered: nothing more is needed",
        "employment_not_of_case" => "another employment than the one of the case",
        "birth_date_differs" => "a known number, another birth date",
        "key_change_unconfirmed" => "a changed key that nothing confirms",
        "case_unknown" => "a correction of a case that never came",
        "person_unknown" => "an answer about somebody never reported",
        "document_kind" => "a kind of document that the employer does not take",
        "strip" => "elements that the receiver does not need",
        "bsn" => "citizen service numbers: no legal basis on this route",
        "minimal" => "a correction after recovery: only the minimum goes",
        "incomplete" => "groups that lost a mandatory part",
        "code_unknown" => "codes outside the edition's list",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_today() {
        let today: Date = "2026-03-01".parse().unwrap();
        assert_eq!(
            with_days("a {today-1} {today+31} {today-0}", today),
            "a 2026-02-28 2026-04-01 2026-03-01"
        );
    }

    #[test]
    fn the_numbers_of_the_samples_are_found() {
        assert!(planted_numbers().len() >= 3);
    }
}

//! The vocabulary that later stages speak instead of tags, so that they work
//! on every edition. `edition.toml` of each edition says which tags mean what.

macro_rules! terms {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)+) => {
        /// What an element means, whatever its tag is in an edition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Term { $($(#[$doc])* $variant),+ }

        impl Term {
            /// Every term.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in `edition.toml`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The term of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

terms! {
    /// General part of a message (`BrAlg`).
    Header = "header";
    /// Which message it is (`BrCd`).
    MessageCode = "message_code";
    /// Version of the message (`VnrBrCd`).
    MessageVersion = "message_version";
    /// Date of creation of the message.
    CreatedOn = "created_on";
    /// Time of creation of the message.
    CreatedAt = "created_at";
    /// Who sends.
    SenderId = "sender_id";
    /// Who receives.
    ReceiverId = "receiver_id";
    /// The sender's reference of the message.
    Berrefnr = "berrefnr";
    /// In an answer: the reference of the message that it answers.
    AnsweredBerrefnr = "answered_berrefnr";
    /// Whether it is a test (`J` or `N`).
    Test = "test";
    /// Whether an answer is wanted (`J` or `N`).
    ReceiptWanted = "receipt_wanted";
    /// Kind of answer.
    ReturnKind = "return_kind";
    /// One error in an answer.
    ErrorEntry = "error_entry";
    /// Administration office.
    Office = "office";
    /// Employer.
    Employer = "employer";
    /// Employee, as a group.
    Employee = "employee";
    /// Employment (dienstverband), as a group.
    Employment = "employment";
    /// Absence report (verzuim), as a group.
    Absence = "absence";
    /// Document, as a group.
    Document = "document";
    /// Appointment that a message is about.
    Appointment = "appointment";
    /// A person to speak to, or who carries out something.
    Contact = "contact";
    /// What the receiver is to do with an entry (`VrwrkCd`).
    Action = "action";
    /// Key of an employee.
    EmployeeId = "employee_id";
    /// Key that an employee had before.
    FormerEmployeeId = "former_employee_id";
    /// Citizen service number.
    Bsn = "bsn";
    /// Date of birth.
    BirthDate = "birth_date";
    /// Key of an employment.
    EmploymentId = "employment_id";
    /// Key that an employment had before.
    FormerEmploymentId = "former_employment_id";
    /// Personnel number.
    PersonnelNumber = "personnel_number";
    /// Personnel number before.
    FormerPersonnelNumber = "former_personnel_number";
    /// First day of an employment.
    EmploymentStart = "employment_start";
    /// Last day of an employment.
    EmploymentEnd = "employment_end";
    /// Key of a case of absence.
    CaseId = "case_id";
    /// Key that a case had before.
    FormerCaseId = "former_case_id";
    /// Number of a report within its case.
    ReportNumber = "report_number";
    /// Day from which a report holds.
    EffectiveOn = "effective_on";
    /// Whether the case has ended (`J` or `N`).
    CaseEnded = "case_ended";
    /// First day of absence.
    FirstDay = "first_day";
    /// Day of recovery.
    RecoveredOn = "recovered_on";
    /// Percentage of absence.
    AbsencePercentage = "absence_percentage";
    /// Percentage of work as therapy.
    TherapyPercentage = "therapy_percentage";
    /// Telephone number or mail address.
    PhoneOrMail = "phone_or_mail";
    /// Wage tax number (loonheffingennummer).
    WageTaxNumber = "wage_tax_number";
    /// IBAN.
    BankAccount = "bank_account";
    /// Free text.
    FreeText = "free_text";
    /// Kind of a document.
    DocumentKind = "document_kind";
    /// Content of a document.
    DocumentData = "document_data";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_is_found_by_its_name() {
        for term in Term::ALL {
            assert_eq!(Term::named(term.as_str()), Some(*term));
        }
    }
}

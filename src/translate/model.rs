//! The edition-neutral model: who a message is about and what it says of them.
//!
//! It holds what the gateway reasons about. Everything that merely travels
//! stays in the [`Document`], where the policy table governs it; each part
//! names its node there. The model does not know tags: it reads terms.

use jiff::civil::Date;

use super::{Action, Mapping};
use crate::validate::{Document, NodeId, Term};

/// What a message is for. The code `BrCd` is the same in every edition.
///
/// Source: `shared/sivi/messages.tsv`, column `BrCd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Verzuimmeldingen: reports on absence cases.
    Absences,
    /// WerkgeversGegevensBasisregistratie: the employer itself.
    EmployerData,
    /// Dienstverbanden: changes of employments.
    Employments,
    /// WerknemersGegevens: changes of personal data.
    EmployeeData,
    /// Documenten.
    Documents,
    /// Afspraken: appointments with the arbodienst.
    Appointments,
    /// Retourmelding: an answer to a message.
    Return,
}

impl Kind {
    /// The kind with this `BrCd`.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Some(match code {
            "00100" => Self::Absences,
            "00101" => Self::EmployerData,
            "00105" => Self::Appointments,
            "00106" => Self::Employments,
            "00500" => Self::Documents,
            "00600" => Self::EmployeeData,
            "99999" => Self::Return,
            _ => return None,
        })
    }
}

/// A message in the words of the gateway.
#[derive(Debug)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Who sends what to whom.
    pub header: Header,
    /// The employers, each with its employees.
    pub employers: Vec<Employer>,
    /// Documents and appointments, each about one person.
    pub items: Vec<Item>,
}

/// The general part of a message (`BrAlg`).
#[derive(Debug, Default)]
pub struct Header {
    /// `IdInzndr`.
    pub sender_id: String,
    /// `IdOntvngr`: the final receiver.
    pub receiver_id: String,
    /// `Berrefnr`.
    pub berrefnr: String,
    /// `BerrefnrIngzndnBer`, in a Retourmelding.
    pub answered: Option<String>,
    /// `TestJN` = J.
    pub test: bool,
    /// `OntvngstbevJN` = J.
    pub receipt_wanted: bool,
    /// `AandatBr`.
    pub created_on: Option<Date>,
}

/// An employer and the employees that the message names.
#[derive(Debug)]
pub struct Employer {
    /// Its node.
    pub at: NodeId,
    /// Its employees, in order.
    pub employees: Vec<Employee>,
}

/// A person, as the sender's system knows one.
#[derive(Debug)]
pub struct Employee {
    /// Its node.
    pub at: NodeId,
    /// `IdWrknmr`, normalised.
    pub id: String,
    /// `IdWrknmrOud`, when the id itself changed.
    pub former_id: Option<String>,
    /// `Gebdat`.
    pub birth_date: Option<Date>,
    /// The employments that the message names.
    pub employments: Vec<Employment>,
}

/// One employment (dienstverband) of a person.
#[derive(Debug)]
pub struct Employment {
    /// Its node.
    pub at: NodeId,
    /// `IdDnstvbnd`, normalised.
    pub id: Option<String>,
    /// `IdDnstvbndOud`.
    pub former_id: Option<String>,
    /// `Ingdat`.
    pub start: Option<Date>,
    /// `Enddat`.
    pub end: Option<Date>,
    /// Reports on absence cases.
    pub absences: Vec<Absence>,
}

/// One report on an absence case (verzuimgeval).
#[derive(Debug)]
pub struct Absence {
    /// Its node.
    pub at: NodeId,
    /// What is to be done with it, by the party's pairing of `VrwrkCd`.
    pub action: Option<Action>,
    /// `VrzmgvlId`, normalised.
    pub case_id: Option<String>,
    /// `VrzmgvlIdOud`.
    pub former_case_id: Option<String>,
    /// `VrzmgvlVnrMld`.
    pub number: Option<u32>,
    /// `IngdatMutVrzm`.
    pub effective_on: Option<Date>,
    /// `DatEerstVrzmdg`.
    pub first_day: Option<Date>,
    /// `DatHrstld`.
    pub recovered_on: Option<Date>,
    /// `EndVrzmJN` = J.
    pub ended: bool,
    /// `PrcVrzm` in hundredths of a percent.
    pub percentage: Option<u32>,
    /// `PrcArbther` in hundredths of a percent.
    pub therapy: Option<u32>,
}

/// Something about one person that is not an absence report.
#[derive(Debug)]
pub struct Item {
    /// Its node.
    pub at: NodeId,
    /// The person, with the employments and cases that the item names.
    pub employee: Employee,
    /// What it is.
    pub content: ItemContent,
}

/// What an item is.
#[derive(Debug)]
pub enum ItemContent {
    /// A document of this kind (`SrtDocumentCd`).
    Document {
        /// The code of its kind.
        kind: String,
    },
    /// An appointment.
    Appointment,
}

/// Reads the model out of a document, by the terms of its edition.
#[must_use]
pub fn read(document: &Document, mapping: &Mapping) -> Message {
    let reader = Reader { document, mapping };
    let root = document.root();
    let mut message = Message {
        kind: Kind::from_code(&document.schema().code).unwrap_or(Kind::Return),
        header: reader.header(),
        employers: Vec::new(),
        items: Vec::new(),
    };
    for node in document.children(root) {
        match document.term(node) {
            Some(Term::Employer) => message.employers.push(reader.employer(node)),
            Some(Term::Document) => {
                let kind = reader.text(node, Term::DocumentKind).unwrap_or_default();
                message
                    .items
                    .push(reader.item(node, ItemContent::Document { kind }));
            }
            Some(Term::Appointment) => {
                message
                    .items
                    .push(reader.item(node, ItemContent::Appointment));
            }
            _ => {}
        }
    }
    message
}

struct Reader<'a> {
    document: &'a Document,
    mapping: &'a Mapping,
}

impl Reader<'_> {
    fn text(&self, node: NodeId, term: Term) -> Option<String> {
        self.document.child_text(node, term).map(str::to_owned)
    }

    fn date(&self, node: NodeId, term: Term) -> Option<Date> {
        parse_date(self.document.child_text(node, term)?)
    }

    fn header(&self) -> Header {
        let Some(at) = self.document.child(self.document.root(), Term::Header) else {
            return Header::default();
        };
        let text = |term| self.text(at, term).unwrap_or_default();
        Header {
            sender_id: text(Term::SenderId),
            receiver_id: text(Term::ReceiverId),
            berrefnr: text(Term::Berrefnr),
            answered: self.text(at, Term::AnsweredBerrefnr),
            test: text(Term::Test) == "J",
            receipt_wanted: text(Term::ReceiptWanted) == "J",
            created_on: self.date(at, Term::CreatedOn),
        }
    }

    fn employer(&self, at: NodeId) -> Employer {
        let employees = self
            .document
            .children(at)
            .filter(|node| self.document.term(*node) == Some(Term::Employee))
            .map(|node| self.employee(node, node))
            .collect();
        Employer { at, employees }
    }

    /// A person at `at`; its employments hang below `holder`.
    fn employee(&self, at: NodeId, holder: NodeId) -> Employee {
        Employee {
            at,
            id: self.text(at, Term::EmployeeId).unwrap_or_default(),
            former_id: self.text(at, Term::FormerEmployeeId),
            birth_date: self.date(at, Term::BirthDate),
            employments: self
                .document
                .children(holder)
                .filter(|node| self.document.term(*node) == Some(Term::Employment))
                .map(|node| self.employment(node))
                .collect(),
        }
    }

    fn employment(&self, at: NodeId) -> Employment {
        Employment {
            at,
            id: self.text(at, Term::EmploymentId),
            former_id: self.text(at, Term::FormerEmploymentId),
            start: self.date(at, Term::EmploymentStart),
            end: self.date(at, Term::EmploymentEnd),
            absences: self
                .document
                .children(at)
                .filter(|node| self.document.term(*node) == Some(Term::Absence))
                .map(|node| self.absence(node))
                .collect(),
        }
    }

    fn absence(&self, at: NodeId) -> Absence {
        let code = self.document.child_text(at, Term::Action);
        let hundredths = |term| {
            self.document
                .child_text(at, term)
                .and_then(parse_hundredths)
        };
        Absence {
            at,
            action: code.and_then(|code| self.mapping.action(code)),
            case_id: self.text(at, Term::CaseId),
            former_case_id: self.text(at, Term::FormerCaseId),
            number: self
                .document
                .child_text(at, Term::ReportNumber)
                .and_then(parse_number),
            effective_on: self.date(at, Term::EffectiveOn),
            first_day: self.date(at, Term::FirstDay),
            recovered_on: self.date(at, Term::RecoveredOn),
            ended: self.document.child_text(at, Term::CaseEnded) == Some("J"),
            percentage: hundredths(Term::AbsencePercentage),
            therapy: hundredths(Term::TherapyPercentage),
        }
    }

    fn item(&self, at: NodeId, content: ItemContent) -> Item {
        let person = self.document.child(at, Term::Employee).unwrap_or(at);
        Item {
            at,
            employee: self.employee(person, at),
            content,
        }
    }
}

/// The day of an `xsd:date`, whose zone says nothing about a day of absence.
/// Years outside 0001 to 9999 have no day.
#[must_use]
pub fn parse_date(text: &str) -> Option<Date> {
    text.get(..10)?.parse().ok()
}

fn parse_number(text: &str) -> Option<u32> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

/// Hundredths of a decimal with two digits behind the point.
fn parse_hundredths(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part: u32 = match part.len() {
        0 => 0,
        1 => part.parse::<u32>().ok()? * 10,
        _ => part.get(..2)?.parse().ok()?,
    };
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    whole.checked_mul(100)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_does_not_move_a_day() {
        for text in ["2017-09-01", "2017-09-01Z", "2017-09-01+14:00"] {
            assert_eq!(parse_date(text).unwrap().to_string(), "2017-09-01");
        }
        assert_eq!(parse_date("2017-02-30"), None);
        assert_eq!(parse_date("12017-02-03"), None);
    }

    #[test]
    fn a_percentage_is_read_in_hundredths() {
        assert_eq!(parse_hundredths("100.00"), Some(10_000));
        assert_eq!(parse_hundredths("0.50"), Some(50));
        assert_eq!(parse_hundredths("7"), Some(700));
        assert_eq!(parse_hundredths("9999999999.00"), None);
    }
}

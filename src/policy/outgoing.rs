//! Releases and parked parts are made here and nowhere else.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::civil::DateTime;

use super::bsn::Stripped;
use super::decide::Decision;
use super::filter::{self, Filter, Selection, StrippedRow, Written};
use super::identity;
use super::release::{Parked, Release};
use super::table::{Policy, Sheet};
use crate::domain::{Code, Domain, KeyedHash, PartyId, TenantId};
use crate::seal::Keys;
use crate::validate::{Edition, Mode, NodeId, Term, validate};

/// The route that a release is made for.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Whose employees.
    pub tenant: &'a TenantId,
    /// Who gets it.
    pub to: &'a PartyId,
    /// In which domain.
    pub domain: Domain,
    /// `IdOntvngr` of the release.
    pub receiver_id: &'a str,
    /// `IdInzndr` of the release: the gateway.
    pub sender_id: &'a str,
    /// `VnrBrCd` where the receiver wants another one than the edition's.
    pub version: Option<&'a str>,
    /// True to ask the receiver for a Retourmelding.
    pub receipt: bool,
    /// What the receiver wants to see of the employer, by tag.
    pub write: &'a BTreeMap<String, String>,
    /// The tenant lets the executor's name pass.
    pub executor_name: bool,
    /// The tenant lets document names pass.
    pub document_names: bool,
}

/// What is the same for every release of one message.
#[derive(Clone, Copy)]
pub struct Occasion<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The edition that the message is read and written in.
    pub edition: &'a Edition,
    /// The keys of the installation.
    pub keys: &'a Keys,
    /// Test traffic.
    pub test: bool,
    /// The moment, on a Dutch wall.
    pub at: DateTime,
    /// The reference of the answered message, in a Retourmelding.
    pub answered: Option<&'a str>,
}

/// What came of a message on one route.
#[derive(Debug)]
pub enum Outcome {
    /// Something passes.
    Release(Box<Release>),
    /// Nothing is left after filtering.
    Nothing,
    /// What is left would not be valid. Nothing leaves.
    Invalid,
}

/// The release of what `decision` lets pass, and what was stripped from it.
#[must_use]
pub fn release(
    id: &str,
    message: &Stripped,
    employers: &HashSet<NodeId>,
    decision: &Decision,
    to: &Destination<'_>,
    occasion: &Occasion<'_>,
) -> (Outcome, BTreeMap<StrippedRow, u32>) {
    let document = message.document();
    let schema = document.schema();
    let sheet = occasion
        .policy
        .sheet(schema, occasion.edition.name(), to.domain);
    let Some(sheet) = sheet.filter(|sheet| sheet.admits_message()) else {
        return (Outcome::Nothing, BTreeMap::new());
    };
    let filter = Filter {
        document,
        sheet,
        parts: occasion.policy.parts(),
        employers,
        decision,
        executor_name: to.executor_name,
        document_names: to.document_names,
    };
    let mut selection = filter.select();
    count_bsn(message, &mut selection);
    let stripped = std::mem::take(&mut selection.stripped);
    if !selection.keeps(document.root()) {
        return (Outcome::Nothing, stripped);
    }
    let berrefnr = format!("SGW-{id}");
    let render = |version: &str| {
        let header = |term| header_text(term, &berrefnr, &schema.code, version, to, occasion);
        filter::render(
            &filter,
            &selection,
            &Written {
                header: &header,
                employer: to.write,
            },
        )
    };
    // The proof: nothing is sent that a receiver's own validator would refuse.
    let mut xml = render(&schema.version);
    let verdict = validate(occasion.edition, xml.as_slice(), Mode::SchemaOnly);
    if !verdict.is_ok_and(|verdict| verdict.is_valid()) {
        return (Outcome::Invalid, stripped);
    }
    // A receiver that wants another version code wants nothing else changed.
    if let Some(version) = to.version {
        xml = render(version);
    }
    let release = Release {
        id: id.to_owned(),
        tenant: to.tenant.clone(),
        to: to.to.clone(),
        domain: to.domain,
        test: occasion.test,
        message_type: schema.name.clone(),
        edition: occasion.edition.name().to_owned(),
        berrefnr: identity::berrefnr(occasion.keys, to.to, &berrefnr),
        policy_version: occasion.policy.version().to_owned(),
        cases: decision.cases.iter().copied().collect(),
        xml,
    };
    (Outcome::Release(Box::new(release)), stripped)
}

/// The number was removed on receipt; the count belongs to the persons that
/// pass here.
fn count_bsn(message: &Stripped, selection: &mut Selection) {
    for person in message.removed_from() {
        if !selection.keeps(*person) {
            continue;
        }
        let row = format!("{}/SofiNr", message.document().element(*person).path);
        *selection
            .stripped
            .entry(StrippedRow { rule: "bsn", row })
            .or_default() += 1;
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other terms are not written by the gateway"
)]
fn header_text(
    term: Term,
    berrefnr: &str,
    code: &str,
    version: &str,
    to: &Destination<'_>,
    occasion: &Occasion<'_>,
) -> Option<String> {
    let yes_no = |yes: bool| if yes { "J" } else { "N" }.to_owned();
    Some(match term {
        Term::MessageCode => code.to_owned(),
        Term::MessageVersion => version.to_owned(),
        Term::CreatedOn => occasion.at.date().to_string(),
        Term::CreatedAt => occasion.at.time().strftime("%H:%M:%S").to_string(),
        Term::SenderId => to.sender_id.to_owned(),
        Term::ReceiverId => to.receiver_id.to_owned(),
        Term::Berrefnr => berrefnr.to_owned(),
        Term::AnsweredBerrefnr => occasion.answered?.to_owned(),
        Term::Test => yes_no(occasion.test),
        Term::ReceiptWanted => yes_no(to.receipt),
        _ => return None,
    })
}

/// A part that waits: its own employer or items only, without anything that
/// no domain may have.
pub struct Waiting<'a> {
    /// Opaque id.
    pub id: &'a str,
    /// Who sent it.
    pub party: &'a PartyId,
    /// The tenant, when known.
    pub tenant: Option<&'a TenantId>,
    /// Why it waits.
    pub reason: Code,
    /// Employers that it is about.
    pub employers: &'a HashSet<NodeId>,
    /// Persons, employments, reports and items that wait.
    pub nodes: HashSet<NodeId>,
    /// Hashes of the persons.
    pub persons: BTreeSet<KeyedHash>,
}

/// Makes a parked part, or `None` when nothing of it may wait.
#[must_use]
pub fn park(message: &Stripped, waiting: &Waiting<'_>, occasion: &Occasion<'_>) -> Option<Parked> {
    let document = message.document();
    let schema = document.schema();
    let sheet: &Sheet = occasion
        .policy
        .union_sheet(schema, occasion.edition.name())?;
    let decision = Decision {
        kept: waiting.nodes.clone(),
        ..Decision::default()
    };
    let filter = Filter {
        document,
        sheet,
        parts: occasion.policy.parts(),
        employers: waiting.employers,
        decision: &decision,
        executor_name: true,
        document_names: true,
    };
    let selection = filter.select();
    if !selection.keeps(document.root()) {
        return None;
    }
    let nothing = BTreeMap::new();
    let written = Written {
        header: &|_| None,
        employer: &nothing,
    };
    Some(Parked {
        id: waiting.id.to_owned(),
        party: waiting.party.clone(),
        tenant: waiting.tenant.cloned(),
        reason: waiting.reason,
        test: occasion.test,
        message_type: schema.name.clone(),
        edition: occasion.edition.name().to_owned(),
        persons: waiting.persons.iter().copied().collect(),
        xml: filter::render(&filter, &selection, &written),
    })
}

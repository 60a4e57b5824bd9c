//! What the directory holds.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use crate::domain::{
    DistinguishedName, Domain, Fingerprint, PartyId, PartyKind, TenantId, UnknownWord,
};

/// Tags of an employer in the messages of edition 2017 that can say who it is.
pub const EMPLOYER_TAGS: [&str; 7] = [
    "AansltnrGeguitwlngArbdnst",
    "HndlsnmOrg",
    "IdWrkgvrArbdnst",
    "IdWrkgvrUWV",
    "InschrijvingsnrKvK",
    "Lhnr",
    "VestigingsnrHandelsregister",
];

/// All parties, tenants and legal bases of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Who connects.
    pub parties: BTreeMap<PartyId, Party>,
    /// Whose messages are exchanged.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Why a citizen service number may be passed on, by id.
    pub legal_bases: BTreeMap<String, LegalBasis>,
}

/// What a record of the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// A party.
    Party,
    /// A tenant with its routes.
    Tenant,
    /// A legal basis.
    LegalBasis,
}

impl RecordKind {
    /// Every kind, in the order in which records are written.
    pub const ALL: [Self; 3] = [Self::Party, Self::Tenant, Self::LegalBasis];

    /// The word of the file and of the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Party => "party",
            Self::Tenant => "tenant",
            Self::LegalBasis => "legal_basis",
        }
    }

    /// The kind that a word of the store names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An organisation that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its id.
    pub id: PartyId,
    /// Its name, for people.
    pub name: String,
    /// What kind of organisation it is.
    pub kind: PartyKind,
    /// `IdInzndr` values that it may send with. Two parties may share one:
    /// the credentials tell them apart.
    pub sender_ids: Vec<String>,
    /// `IdOntvngr` of what it receives; present when a route leads to it.
    pub receiver_id: Option<String>,
    /// Name of the mapping that reads what it sends.
    pub mapping: String,
    /// Edition of the standard that it sends.
    pub edition: String,
    /// How it gets its messages.
    pub delivery: Delivery,
    /// Its client certificates; each may be used beside an API key.
    pub certificates: Vec<Pin>,
    /// True when it may not come without one of them.
    pub require_certificate: bool,
    /// Its own bounds, in place of those of the settings.
    pub limits: PartyLimits,
}

impl Party {
    /// True when `IdInzndr` may be this text in what the party sends.
    #[must_use]
    pub fn may_send_as(&self, sender_id: &str) -> bool {
        self.sender_ids.iter().any(|known| known == sender_id)
    }

    /// True when its messages are sent to it, in place of waiting for it.
    #[must_use]
    pub fn is_pushed_to(&self) -> bool {
        matches!(self.delivery, Delivery::Push(_))
    }
}

/// How a client certificate of a party is recognised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// This very certificate, whoever issued it.
    Fingerprint(Fingerprint),
    /// Any certificate of this name that chains to `tls.client_ca`: it may be
    /// renewed without a change here.
    Name {
        /// Who issued it.
        issuer: DistinguishedName,
        /// To whom.
        subject: DistinguishedName,
    },
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Name { issuer, subject } => write!(f, "{subject} issued by {issuer}"),
        }
    }
}

/// Bounds of one party, each in place of the setting `limits.*` of its name;
/// 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PartyLimits {
    /// Messages per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// Bytes of messages per minute, as they come over the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_minute: Option<u64>,
    /// Messages being sent at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploads_per_party: Option<u32>,
    /// Requests per minute other than messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Polls that wait at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polls_per_party: Option<u32>,
}

/// An employer whose employees' messages are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, for people.
    pub name: String,
    /// The party that reports for it.
    pub source: PartyId,
    /// The processing agreement; without one nothing of it is stored.
    pub agreement: Option<Agreement>,
    /// How it is recognised in a message; entries are alternatives.
    pub employer_keys: Vec<EmployerKey>,
    /// `SrtDocumentCd` values that may go to the employer's side.
    pub document_codes: Vec<String>,
    /// True when the employer may see who made an appointment.
    pub executor_name: bool,
    /// True when the employer may see the names of documents.
    pub document_names: bool,
    /// Who receives what.
    pub routes: Vec<Route>,
}

impl Tenant {
    /// True when a processing agreement is in force on `day`.
    #[must_use]
    pub fn has_agreement_on(&self, day: Date) -> bool {
        let agreement = self.agreement.as_ref();
        agreement.is_some_and(|agreement| agreement.in_force_on(day))
    }

    /// The routes that are valid on `day`.
    pub fn routes_on(&self, day: Date) -> impl Iterator<Item = &Route> {
        self.routes
            .iter()
            .filter(move |route| route.in_force_on(day))
    }
}

/// A processing agreement (verwerkersovereenkomst).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// First day in force.
    pub signed_on: Date,
    /// Last day in force.
    pub until: Option<Date>,
    /// Where the paper is found.
    pub reference: String,
}

impl Agreement {
    /// True from the day of signature to the last day, both included.
    #[must_use]
    pub fn in_force_on(&self, day: Date) -> bool {
        within(day, self.signed_on, self.until)
    }
}

/// Tags of an employer with the texts that they must all have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EmployerKey(pub BTreeMap<String, String>);

impl EmployerKey {
    /// True when `text_of` gives the text of this key for each of its tags.
    #[must_use]
    pub fn agrees<'m>(&self, text_of: &dyn Fn(&str) -> Option<&'m str>) -> bool {
        agrees(&self.0, text_of)
    }

    /// True when one employer could match both keys: no tag tells them apart.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let differs = |(tag, text): (&String, &String)| {
            let there = other.0.get(tag);
            there.is_some_and(|there| there != text)
        };
        !self.0.iter().any(differs)
    }
}

/// True when `text_of` gives these texts for these tags, at least one.
pub(super) fn agrees<'m>(
    texts: &BTreeMap<String, String>,
    text_of: &dyn Fn(&str) -> Option<&'m str>,
) -> bool {
    let matches = |(tag, text): (&String, &String)| text_of(tag) == Some(text.as_str());
    !texts.is_empty() && texts.iter().all(matches)
}

/// Tenant to receiver, in one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The receiving party.
    pub to: PartyId,
    /// What the receiver is in privacy law.
    pub domain: Domain,
    /// Edition of the standard that it gets.
    pub edition: String,
    /// First day.
    pub from: Date,
    /// Last day.
    pub until: Option<Date>,
    /// When a citizen service number may be passed on.
    pub bsn: BsnMode,
    /// The legal basis for passing it on.
    pub legal_basis: Option<String>,
    /// Texts that replace those of the employer in what this receiver gets.
    pub write: BTreeMap<String, String>,
    /// True when this route also takes messages meant for another receiver.
    pub copy: bool,
    /// True when employments of recovered persons go here too.
    pub leavers: bool,
    /// True when releases ask for a Retourmelding (`OntvngstbevJN`).
    pub receipt: bool,
    /// `VnrBrCd` to write per message, in place of the edition's.
    pub versions: BTreeMap<String, String>,
    /// Hours after which an undelivered message is an alarm, 1 to 1008 (six
    /// weeks); without it the default of its domain and message type.
    pub alarm_hours: Option<u32>,
}

impl Route {
    /// True from the first to the last day, both included.
    #[must_use]
    pub fn in_force_on(&self, day: Date) -> bool {
        within(day, self.from, self.until)
    }

    /// True when some day lies in both periods.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let starts_before_end = |a: &Self, b: &Self| b.until.is_none_or(|end| a.from <= end);
        starts_before_end(self, other) && starts_before_end(other, self)
    }
}

/// When a route may carry a citizen service number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BsnMode {
    /// Never.
    Never,
    /// When the receiver asks for it.
    OnRequest,
    /// With each report of a sick person.
    WithReport,
}

impl BsnMode {
    /// The word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRequest => "on_request",
            Self::WithReport => "with_report",
        }
    }

    pub(super) fn from_word(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "never" => Ok(Self::Never),
            "on_request" => Ok(Self::OnRequest),
            "with_report" => Ok(Self::WithReport),
            _ => Err(UnknownWord {
                what: "mode",
                known: &["never", "on_request", "with_report"],
            }),
        }
    }
}

/// Why a citizen service number may be passed on. It counts only after
/// another person approved it, which the store records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegalBasis {
    /// Its id.
    pub id: String,
    /// The tenant that it is about.
    pub tenant: TenantId,
    /// The law and article.
    pub statute: String,
    /// What for.
    pub purpose: String,
    /// Where it is laid down.
    pub evidence: String,
    /// Who asked for it.
    pub requested_by: String,
    /// First day.
    pub from: Date,
    /// Last day.
    pub until: Option<Date>,
}

impl LegalBasis {
    /// True from the first to the last day, both included.
    #[must_use]
    pub fn in_force_on(&self, day: Date) -> bool {
        within(day, self.from, self.until)
    }
}

fn within(day: Date, from: Date, until: Option<Date>) -> bool {
    from <= day && until.is_none_or(|end| day <= end)
}

impl Directory {
    /// The party with this id.
    #[must_use]
    pub fn party(&self, id: &PartyId) -> Option<&Party> {
        self.parties.get(id)
    }

    /// The tenant with this id.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.tenants.get(id)
    }
}

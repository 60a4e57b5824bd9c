//! Records: the written form of the directory, in files (TOML) and in the
//! store (JSON). A key that an older record does not have takes its default.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::delivery::WrittenDelivery;
use super::model::{
    Agreement, BsnMode, Directory, EmployerKey, LegalBasis, Party, PartyLimits, Pin, RecordKind,
    Route, Tenant,
};
use crate::domain::{PartyId, TenantId, WrongName};

/// A key of a record with what is wrong with it.
pub(super) type Wrong = (String, String);

pub(super) fn wrong<T>(key: &str, problem: impl fmt::Display) -> Result<T, Wrong> {
    Err((key.to_owned(), problem.to_string()))
}

/// A date: a date of TOML, or its text in JSON.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Day(Date);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DayVisitor;

        impl<'de> Visitor<'de> for DayVisitor {
            type Value = Day;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date such as 2018-01-31")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Day, E> {
                // Without the length a date with a time would do.
                let day = text.parse().ok().filter(|_| text.len() == 10);
                day.map(Day).ok_or_else(|| E::custom("is not a date"))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Day, A::Error> {
                let found = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))?;
                self.visit_str(&found.to_string())
            }
        }
        deserializer.deserialize_any(DayVisitor)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenDirectory {
    pub(super) party: Vec<WrittenParty>,
    pub(super) tenant: Vec<WrittenTenant>,
    pub(super) legal_basis: Vec<WrittenLegalBasis>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenParty {
    pub(super) id: String,
    name: String,
    kind: String,
    #[serde(default)]
    sender_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver_id: Option<String>,
    #[serde(default = "default_mapping")]
    mapping: String,
    #[serde(default = "default_edition")]
    edition: String,
    #[serde(default = "WrittenDelivery::poll")]
    delivery: WrittenDelivery,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<WrittenPin>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    require_certificate: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    limits: PartyLimits,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenPin {
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
}

fn is_default(limits: &PartyLimits) -> bool {
    *limits == PartyLimits::default()
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTenant {
    pub(super) id: String,
    name: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<WrittenAgreement>,
    employer_keys: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    document_codes: Vec<String>,
    #[serde(default)]
    executor_name: bool,
    #[serde(default)]
    document_names: bool,
    #[serde(default)]
    route: Vec<WrittenRoute>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenAgreement {
    signed_on: Day,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Day>,
    reference: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    to: String,
    domain: String,
    #[serde(default = "default_edition")]
    edition: String,
    from: Day,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Day>,
    #[serde(default = "default_bsn")]
    bsn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    legal_basis: Option<String>,
    #[serde(default)]
    write: BTreeMap<String, String>,
    #[serde(default)]
    copy: bool,
    #[serde(default)]
    leavers: bool,
    #[serde(default = "default_receipt")]
    receipt: String,
    #[serde(default)]
    versions: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm_hours: Option<u32>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLegalBasis {
    pub(super) id: String,
    tenant: String,
    statute: String,
    purpose: String,
    evidence: String,
    requested_by: String,
    from: Day,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Day>,
}

/// Bounds of an age alarm: six weeks, the longest term that anything has.
const ALARM_HOURS: std::ops::RangeInclusive<u32> = 1..=1_008;

fn default_mapping() -> String {
    "default".to_owned()
}
fn default_edition() -> String {
    "2017".to_owned()
}
fn default_bsn() -> String {
    BsnMode::Never.as_str().to_owned()
}
fn default_receipt() -> String {
    "N".to_owned()
}

impl WrittenParty {
    pub(super) fn read(self) -> Result<Party, Wrong> {
        let mut certificates = Vec::new();
        for (index, pin) in self.certificates.into_iter().enumerate() {
            let at = |(key, problem)| (format!("certificates[{}]{key}", index + 1), problem);
            certificates.push(pin.read().map_err(at)?);
        }
        Ok(Party {
            id: PartyId::parse(&self.id).or_else(|problem| wrong("id", problem))?,
            kind: self
                .kind
                .parse()
                .or_else(|problem| wrong("kind", problem))?,
            name: self.name,
            sender_ids: self.sender_ids,
            receiver_id: self.receiver_id,
            mapping: self.mapping,
            edition: self.edition,
            delivery: self.delivery.read()?,
            certificates,
            require_certificate: self.require_certificate,
            limits: self.limits,
        })
    }

    fn write(party: &Party) -> Self {
        Self {
            id: party.id.to_string(),
            name: party.name.clone(),
            kind: party.kind.to_string(),
            sender_ids: party.sender_ids.clone(),
            receiver_id: party.receiver_id.clone(),
            mapping: party.mapping.clone(),
            edition: party.edition.clone(),
            delivery: WrittenDelivery::write(&party.delivery),
            certificates: party.certificates.iter().map(WrittenPin::write).collect(),
            require_certificate: party.require_certificate,
            limits: party.limits,
        }
    }
}

impl WrittenPin {
    fn read(self) -> Result<Pin, Wrong> {
        let at = |key: &str, problem: WrongName| (format!(".{key}"), problem.to_string());
        match (self.fingerprint, self.issuer, self.subject) {
            (Some(fingerprint), None, None) => {
                let read = fingerprint
                    .parse()
                    .map_err(|cause| at("fingerprint", cause))?;
                Ok(Pin::Fingerprint(read))
            }
            (None, Some(issuer), Some(subject)) => Ok(Pin::Name {
                issuer: issuer.parse().map_err(|cause| at("issuer", cause))?,
                subject: subject.parse().map_err(|cause| at("subject", cause))?,
            }),
            _ => wrong("", "names either a fingerprint, or an issuer and a subject"),
        }
    }

    fn write(pin: &Pin) -> Self {
        let mut written = Self {
            fingerprint: None,
            issuer: None,
            subject: None,
        };
        match pin {
            Pin::Fingerprint(fingerprint) => written.fingerprint = Some(fingerprint.to_string()),
            Pin::Name { issuer, subject } => {
                written.issuer = Some(issuer.to_string());
                written.subject = Some(subject.to_string());
            }
        }
        written
    }
}

impl WrittenTenant {
    pub(super) fn read(self) -> Result<Tenant, Wrong> {
        let mut routes = Vec::new();
        for (index, route) in self.route.into_iter().enumerate() {
            let at = |(key, problem)| (format!("route[{}].{key}", index + 1), problem);
            routes.push(route.read().map_err(at)?);
        }
        Ok(Tenant {
            id: TenantId::parse(&self.id).or_else(|problem| wrong("id", problem))?,
            source: PartyId::parse(&self.source).or_else(|problem| wrong("source", problem))?,
            name: self.name,
            agreement: self.agreement.map(|written| Agreement {
                signed_on: written.signed_on.0,
                until: written.until.map(|day| day.0),
                reference: written.reference,
            }),
            employer_keys: self.employer_keys.into_iter().map(EmployerKey).collect(),
            document_codes: self.document_codes,
            executor_name: self.executor_name,
            document_names: self.document_names,
            routes,
        })
    }

    fn write(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            source: tenant.source.to_string(),
            agreement: tenant.agreement.as_ref().map(|agreement| WrittenAgreement {
                signed_on: Day(agreement.signed_on),
                until: agreement.until.map(Day),
                reference: agreement.reference.clone(),
            }),
            employer_keys: tenant
                .employer_keys
                .iter()
                .map(|key| key.0.clone())
                .collect(),
            document_codes: tenant.document_codes.clone(),
            executor_name: tenant.executor_name,
            document_names: tenant.document_names,
            route: tenant.routes.iter().map(WrittenRoute::write).collect(),
        }
    }
}

impl WrittenRoute {
    fn read(self) -> Result<Route, Wrong> {
        let receipt = match self.receipt.as_str() {
            "J" => true,
            "N" => false,
            _ => return wrong("receipt", "must be J or N"),
        };
        if self
            .alarm_hours
            .is_some_and(|hours| !ALARM_HOURS.contains(&hours))
        {
            return wrong("alarm_hours", "must be 1 to 1008");
        }
        Ok(Route {
            to: PartyId::parse(&self.to).or_else(|problem| wrong("to", problem))?,
            domain: self
                .domain
                .parse()
                .or_else(|problem| wrong("domain", problem))?,
            edition: self.edition,
            from: self.from.0,
            until: self.until.map(|day| day.0),
            bsn: BsnMode::from_word(&self.bsn).or_else(|problem| wrong("bsn", problem))?,
            legal_basis: self.legal_basis,
            write: self.write,
            copy: self.copy,
            leavers: self.leavers,
            receipt,
            versions: self.versions,
            alarm_hours: self.alarm_hours,
        })
    }

    fn write(route: &Route) -> Self {
        Self {
            to: route.to.to_string(),
            domain: route.domain.to_string(),
            edition: route.edition.clone(),
            from: Day(route.from),
            until: route.until.map(Day),
            bsn: route.bsn.as_str().to_owned(),
            legal_basis: route.legal_basis.clone(),
            write: route.write.clone(),
            copy: route.copy,
            leavers: route.leavers,
            receipt: if route.receipt { "J" } else { "N" }.to_owned(),
            versions: route.versions.clone(),
            alarm_hours: route.alarm_hours,
        }
    }
}

impl WrittenLegalBasis {
    pub(super) fn read(self) -> Result<LegalBasis, Wrong> {
        // The same form as the ids of tenants.
        let id = TenantId::parse(&self.id).or_else(|problem| wrong("id", problem))?;
        Ok(LegalBasis {
            id: id.to_string(),
            tenant: TenantId::parse(&self.tenant).or_else(|problem| wrong("tenant", problem))?,
            statute: self.statute,
            purpose: self.purpose,
            evidence: self.evidence,
            requested_by: self.requested_by,
            from: self.from.0,
            until: self.until.map(|day| day.0),
        })
    }

    fn write(basis: &LegalBasis) -> Self {
        Self {
            id: basis.id.clone(),
            tenant: basis.tenant.to_string(),
            statute: basis.statute.clone(),
            purpose: basis.purpose.clone(),
            evidence: basis.evidence.clone(),
            requested_by: basis.requested_by.clone(),
            from: Day(basis.from),
            until: basis.until.map(Day),
        }
    }
}

impl Directory {
    /// The records as the store keeps them: kind, id and canonical JSON, in
    /// order of kind and id. Secrets are references.
    #[must_use]
    pub fn to_records(&self) -> Vec<(&'static str, String, String)> {
        let bodies = self.bodies().into_iter();
        bodies
            .map(|((kind, id), body)| (kind.as_str(), id, body.to_string()))
            .collect()
    }

    pub(super) fn bodies(&self) -> BTreeMap<(RecordKind, String), serde_json::Value> {
        fn body(written: &impl Serialize) -> serde_json::Value {
            serde_json::to_value(written).expect("texts, lists and maps by text are JSON")
        }
        let mut bodies = BTreeMap::new();
        for party in self.parties.values() {
            let key = (RecordKind::Party, party.id.to_string());
            bodies.insert(key, body(&WrittenParty::write(party)));
        }
        for tenant in self.tenants.values() {
            let key = (RecordKind::Tenant, tenant.id.to_string());
            bodies.insert(key, body(&WrittenTenant::write(tenant)));
        }
        for basis in self.legal_bases.values() {
            let key = (RecordKind::LegalBasis, basis.id.clone());
            bodies.insert(key, body(&WrittenLegalBasis::write(basis)));
        }
        bodies
    }

    /// The directory of these records: kind, id, body.
    ///
    /// # Errors
    ///
    /// What is wrong with the first record that cannot be read: it was
    /// written by a newer version, or by another hand.
    pub fn from_records<K, I, B>(
        records: impl IntoIterator<Item = (K, I, B)>,
    ) -> Result<Self, super::Inconsistency>
    where
        K: AsRef<str>,
        I: AsRef<str>,
        B: AsRef<str>,
    {
        let mut directory = Self::default();
        for (kind, id, body) in records {
            let id = id.as_ref();
            let Some(kind) = RecordKind::from_word(kind.as_ref()) else {
                let problem = "a record of an unknown kind".to_owned();
                return Err(super::Inconsistency::new(
                    RecordKind::Party,
                    id,
                    "",
                    problem,
                ));
            };
            directory
                .take(kind, body.as_ref())
                .map_err(|(key, problem)| super::Inconsistency::new(kind, id, &key, problem))?;
        }
        Ok(directory)
    }

    fn take(&mut self, kind: RecordKind, body: &str) -> Result<(), Wrong> {
        match kind {
            RecordKind::Party => {
                let party = from_json::<WrittenParty>(body)?.read()?;
                self.parties.insert(party.id.clone(), party);
            }
            RecordKind::Tenant => {
                let tenant = from_json::<WrittenTenant>(body)?.read()?;
                self.tenants.insert(tenant.id.clone(), tenant);
            }
            RecordKind::LegalBasis => {
                let basis = from_json::<WrittenLegalBasis>(body)?.read()?;
                self.legal_bases.insert(basis.id.clone(), basis);
            }
        }
        Ok(())
    }
}

fn from_json<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, Wrong> {
    serde_json::from_str(body).or_else(|problem| wrong("", problem))
}

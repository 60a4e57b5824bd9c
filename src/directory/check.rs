//! What must hold in a directory as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::delivery::check_delivery;
use super::model::{
    BsnMode, Directory, EMPLOYER_TAGS, EmployerKey, Party, Pin, RecordKind, Route, Tenant,
};
use crate::domain::{Domain, PartyId, PartyKind, TenantId};

/// Names that the directory may refer to but does not hold itself.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names of mappings.
    pub mappings: BTreeSet<String>,
    /// Editions with schemas.
    pub editions: BTreeSet<String>,
}

/// Something in the directory that contradicts something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inconsistency {
    /// What kind of record.
    pub kind: RecordKind,
    /// Its id.
    pub id: String,
    /// Key in the record, `route[2].to`; empty for the record as a whole.
    pub key: String,
    /// What is wrong, and with what.
    pub problem: String,
}

impl Inconsistency {
    pub(super) fn new(kind: RecordKind, id: &str, key: &str, problem: String) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            key: key.to_owned(),
            problem,
        }
    }
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.kind, self.id)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Inconsistency {}

impl Directory {
    /// Everything that does not fit together; empty when all is well.
    #[must_use]
    pub fn check(&self, known: &Known) -> Vec<Inconsistency> {
        let mut found = Vec::new();
        for party in self.parties.values() {
            check_party(
                party,
                known,
                &mut Findings::of(RecordKind::Party, party.id.as_str(), &mut found),
            );
        }
        for tenant in self.tenants.values() {
            let mut findings = Findings::of(RecordKind::Tenant, tenant.id.as_str(), &mut found);
            self.check_tenant(tenant, &mut findings);
            for (index, route) in tenant.routes.iter().enumerate() {
                findings.prefix = format!("route[{}].", index + 1);
                self.check_route(tenant, route, known, &mut findings);
                self.check_other_routes(tenant, index, route, &mut findings);
            }
        }
        self.check_employer_keys(&mut found);
        self.check_certificates(&mut found);
        for basis in self.legal_bases.values() {
            let mut findings = Findings::of(RecordKind::LegalBasis, &basis.id, &mut found);
            if !self.tenants.contains_key(&basis.tenant) {
                findings.add("tenant", format!("there is no tenant {}", basis.tenant));
            }
            if basis.until.is_some_and(|until| until < basis.from) {
                findings.add("until", "lies before from");
            }
        }
        found
    }

    fn check_tenant(&self, tenant: &Tenant, findings: &mut Findings<'_>) {
        match self.parties.get(&tenant.source) {
            None => findings.add("source", format!("there is no party {}", tenant.source)),
            Some(party) if !party.kind.speaks_for_employers() => {
                let problem = format!(
                    "{} is a party of kind {}: a source is payroll or werkgever",
                    party.id, party.kind
                );
                findings.add("source", problem);
            }
            Some(party) if party.sender_ids.is_empty() => {
                findings.add(
                    "source",
                    format!("{} has no sender_ids, so it cannot send", party.id),
                );
            }
            Some(_) => {}
        }
        if let Some(agreement) = &tenant.agreement
            && agreement
                .until
                .is_some_and(|until| until < agreement.signed_on)
        {
            findings.add("agreement.until", "lies before signed_on");
        }
        if tenant.employer_keys.is_empty() {
            findings.add(
                "employer_keys",
                "names no key, so the employer is never found",
            );
        }
        for (index, key) in tenant.employer_keys.iter().enumerate() {
            let at = format!("employer_keys[{}]", index + 1);
            if key.0.is_empty() {
                findings.add(&at, "names no tag");
            }
            for (tag, text) in &key.0 {
                check_employer_tag(&format!("{at}.{tag}"), tag, text, findings);
            }
        }
        for (index, code) in tenant.document_codes.iter().enumerate() {
            if code.is_empty() || code.len() > 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
                let key = format!("document_codes[{}]", index + 1);
                findings.add(&key, "must be a code of 1 to 3 digits");
            }
        }
    }

    fn check_route(
        &self,
        tenant: &Tenant,
        route: &Route,
        known: &Known,
        findings: &mut Findings<'_>,
    ) {
        match self.parties.get(&route.to) {
            None => findings.add("to", format!("there is no party {}", route.to)),
            Some(party) => check_receiver(party, route, findings),
        }
        check_edition(&route.edition, known, findings);
        if route.until.is_some_and(|until| until < route.from) {
            findings.add("until", "lies before from");
        }
        for (tag, text) in &route.write {
            check_employer_tag(&format!("write.{tag}"), tag, text, findings);
        }
        for (message, version) in &route.versions {
            if version.len() != 5 || !version.bytes().all(|byte| byte.is_ascii_digit()) {
                findings.add(&format!("versions.{message}"), "must be five digits");
            }
        }
        match route.legal_basis.as_ref() {
            None if route.bsn != BsnMode::Never => {
                findings.add("bsn", "needs a legal_basis unless it is never");
            }
            None => {}
            Some(id) => match self.legal_bases.get(id) {
                None => findings.add("legal_basis", format!("there is no legal basis {id}")),
                Some(basis) if basis.tenant != tenant.id => {
                    let problem = format!("{id} is about tenant {}", basis.tenant);
                    findings.add("legal_basis", problem);
                }
                Some(_) => {}
            },
        }
    }

    /// Compares a route with the ones after it.
    fn check_other_routes(
        &self,
        tenant: &Tenant,
        index: usize,
        route: &Route,
        findings: &mut Findings<'_>,
    ) {
        let others = tenant.routes.iter().enumerate().skip(index + 1);
        for (other_index, other) in others.filter(|(_, other)| route.meets(other)) {
            let number = other_index + 1;
            if other.to == route.to && other.domain == route.domain {
                let problem =
                    format!("the same receiver and domain at the same time as route[{number}]");
                findings.add("to", problem);
            }
            let receiver_id = |route: &Route| self.parties.get(&route.to)?.receiver_id.clone();
            if other.to != route.to
                && receiver_id(route).is_some()
                && receiver_id(route) == receiver_id(other)
            {
                let problem = format!(
                    "{} has the receiver_id of {} in route[{number}]: a sender could not tell them apart",
                    route.to, other.to
                );
                findings.add("to", problem);
            }
        }
    }

    /// A certificate names one party, or it names nobody.
    fn check_certificates(&self, found: &mut Vec<Inconsistency>) {
        let mut holders: BTreeMap<&Pin, &PartyId> = BTreeMap::new();
        for party in self.parties.values() {
            for (index, pin) in party.certificates.iter().enumerate() {
                let Some(holder) = holders.insert(pin, &party.id) else {
                    continue;
                };
                let problem = format!("is a certificate of party {holder} already");
                let at = format!("certificates[{}]", index + 1);
                let id = party.id.as_str();
                found.push(Inconsistency::new(RecordKind::Party, id, &at, problem));
            }
        }
    }

    fn check_employer_keys(&self, found: &mut Vec<Inconsistency>) {
        let mut by_source: BTreeMap<&PartyId, KeysByTags<'_>> = BTreeMap::new();
        for tenant in self.tenants.values() {
            let groups = by_source.entry(&tenant.source).or_default();
            for (index, key) in tenant.employer_keys.iter().enumerate() {
                let tags = key.0.keys().map(String::as_str).collect();
                groups.entry(tags).or_default().push((tenant, index, key));
            }
        }
        for groups in by_source.values() {
            for (later, earlier) in overlaps(groups) {
                let problem = format!(
                    "overlaps with employer_keys[{}] of tenant {}: no tag tells the two employers apart, and {} reports both",
                    earlier.1 + 1,
                    earlier.0.id,
                    earlier.0.source
                );
                let at = format!("employer_keys[{}]", later.1 + 1);
                let id = later.0.id.as_str();
                found.push(Inconsistency::new(RecordKind::Tenant, id, &at, problem));
            }
        }
    }
}

/// A tenant, the place of one of its keys, and the key.
type KeyOf<'a> = (&'a Tenant, usize, &'a EmployerKey);

/// Keys of one source, grouped by the tags that they name.
type KeysByTags<'a> = BTreeMap<BTreeSet<&'a str>, Vec<KeyOf<'a>>>;

/// Pairs of keys of different tenants that one employer could match, each
/// later tenant's key once. Keys are compared by the texts of the tags that
/// two groups share, so that thousands of employers are cheap.
fn overlaps<'a>(groups: &KeysByTags<'a>) -> Vec<(KeyOf<'a>, KeyOf<'a>)> {
    let mut first: BTreeMap<(&TenantId, usize), (KeyOf<'a>, KeyOf<'a>)> = BTreeMap::new();
    for (tags, keys) in groups {
        for (other_tags, others) in groups {
            let shared: Vec<&str> = tags.intersection(other_tags).copied().collect();
            // The lowest tenant per texts: enough to find one pair for each other.
            let mut lowest: BTreeMap<Vec<&str>, KeyOf<'a>> = BTreeMap::new();
            for key in others {
                let known = lowest.entry(texts(key.2, &shared)).or_insert(*key);
                if key.0.id < known.0.id {
                    *known = *key;
                }
            }
            for key in keys {
                if let Some(other) = lowest.get(&texts(key.2, &shared))
                    && other.0.id < key.0.id
                {
                    first.entry((&key.0.id, key.1)).or_insert((*key, *other));
                }
            }
        }
    }
    first.into_values().collect()
}

fn texts<'a>(key: &'a EmployerKey, tags: &[&str]) -> Vec<&'a str> {
    let text = |tag: &&str| key.0.get(*tag).map_or("", String::as_str);
    tags.iter().map(text).collect()
}

/// Collects what is wrong with one record.
pub(super) struct Findings<'a> {
    kind: RecordKind,
    id: &'a str,
    prefix: String,
    found: &'a mut Vec<Inconsistency>,
}

impl<'a> Findings<'a> {
    fn of(kind: RecordKind, id: &'a str, found: &'a mut Vec<Inconsistency>) -> Self {
        Self {
            kind,
            id,
            prefix: String::new(),
            found,
        }
    }

    pub(super) fn add(&mut self, key: &str, problem: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.found
            .push(Inconsistency::new(self.kind, self.id, &key, problem.into()));
    }
}

fn check_party(party: &Party, known: &Known, findings: &mut Findings<'_>) {
    if !known.mappings.contains(&party.mapping) {
        findings.add("mapping", format!("there is no mapping {}", party.mapping));
    }
    check_edition(&party.edition, known, findings);
    for (index, id) in party.sender_ids.iter().enumerate() {
        check_name(&format!("sender_ids[{}]", index + 1), id, findings);
    }
    if let Some(id) = &party.receiver_id {
        check_name("receiver_id", id, findings);
    }
    check_delivery(&party.delivery, findings);
    if party.require_certificate && party.certificates.is_empty() {
        findings.add(
            "require_certificate",
            "needs certificates, or nobody could come in",
        );
    }
}

/// `IdInzndr` and `IdOntvngr` have at most 40 characters.
fn check_name(key: &str, name: &str, findings: &mut Findings<'_>) {
    if name.trim().is_empty() || name.chars().count() > 40 {
        findings.add(key, "must be 1 to 40 characters");
    }
}

fn check_edition(edition: &str, known: &Known, findings: &mut Findings<'_>) {
    if !known.editions.contains(edition) {
        let editions: Vec<&str> = known.editions.iter().map(String::as_str).collect();
        findings.add(
            "edition",
            format!("unknown edition: expected one of {}", editions.join(", ")),
        );
    }
}

fn check_employer_tag(key: &str, tag: &str, text: &str, findings: &mut Findings<'_>) {
    if !EMPLOYER_TAGS.contains(&tag) {
        findings.add(
            key,
            format!(
                "is no tag of an employer: expected one of {}",
                EMPLOYER_TAGS.join(", ")
            ),
        );
    }
    if text.trim().is_empty() {
        findings.add(key, "is empty");
    }
}

fn check_receiver(party: &Party, route: &Route, findings: &mut Findings<'_>) {
    if party.receiver_id.is_none() {
        findings.add(
            "to",
            format!("{} has no receiver_id, so it cannot receive", party.id),
        );
    }
    let fitting: &[PartyKind] = match route.domain {
        Domain::Werkgever => &[PartyKind::Payroll, PartyKind::Werkgever],
        Domain::Arbodienst => &[PartyKind::Arbodienst],
        Domain::Bedrijfsarts => &[PartyKind::Bedrijfsarts, PartyKind::Arbodienst],
        Domain::Verzekeraar => &[PartyKind::Verzekeraar],
    };
    if !fitting.contains(&party.kind) {
        let kinds: Vec<&str> = fitting.iter().map(|kind| kind.as_str()).collect();
        let problem = format!(
            "{} goes to a party of kind {}, and {} is {}",
            route.domain,
            kinds.join(" or "),
            party.id,
            party.kind
        );
        findings.add("domain", problem);
    }
}

//! Look-ups of the pipeline, from an index that is built once.
//!
//! An employer is found by all texts of one key together, so a look-up costs
//! one probe per combination of tags in use, not one per tenant.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;

use super::model::{Directory, Pin, Route, Tenant};
use crate::domain::{PartyId, TenantId};

/// A directory with its index. Immutable: a changed directory gets a new one.
#[derive(Debug)]
pub struct Lookup {
    directory: Directory,
    employers: KeyIndex,
    seen_by: HashMap<PartyId, KeyIndex>,
    holders: BTreeMap<Pin, PartyId>,
}

/// Whose employer an employer of a message is.
#[derive(Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// This tenant, reported by the sending party.
    Mine(&'a Tenant),
    /// A tenant that this other party reports.
    Foreign(&'a PartyId),
    /// Nobody's.
    Unknown,
}

impl Directory {
    /// Builds the index.
    #[must_use]
    pub fn index(self) -> Lookup {
        let mut employers = KeyIndex::default();
        let mut seen_by: HashMap<PartyId, KeyIndex> = HashMap::new();
        for tenant in self.tenants.values() {
            for key in &tenant.employer_keys {
                employers.add(&key.0, &tenant.id);
            }
            for route in &tenant.routes {
                let seen = seen_by.entry(route.to.clone()).or_default();
                seen.add(&route.write, &tenant.id);
                for key in &tenant.employer_keys {
                    seen.add(&key.0, &tenant.id);
                }
            }
        }
        let pins = self.parties.values().flat_map(|party| {
            let pins = party.certificates.iter().cloned();
            pins.map(|pin| (pin, party.id.clone()))
        });
        Lookup {
            holders: pins.collect(),
            directory: self,
            employers,
            seen_by,
        }
    }
}

impl Lookup {
    /// The directory behind the index.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whose client certificate it is that this pin recognises.
    #[must_use]
    pub fn holder(&self, pin: &Pin) -> Option<&PartyId> {
        self.holders.get(pin)
    }

    /// Whose employer it is that `text_of` gives the texts of (by tag, after
    /// the mapping of `source` normalised them) in a message of `source`.
    /// When tenants of several parties match, the one of `source` counts.
    #[must_use]
    pub fn tenant_for<'m>(
        &self,
        source: &PartyId,
        text_of: &dyn Fn(&str) -> Option<&'m str>,
    ) -> Match<'_> {
        let mut foreign = None;
        for tenant in self.found(&self.employers, text_of) {
            if tenant.source == *source {
                return Match::Mine(tenant);
            }
            foreign = foreign.or(Some(&tenant.source));
        }
        foreign.map_or(Match::Unknown, Match::Foreign)
    }

    /// The tenants that `receiver` can mean when it answers on `day` about the
    /// employer that `text_of` gives the texts of: those with a route to it
    /// that is valid that day and writes these texts, or that have them as
    /// employer key. More than one when two sources report one employer.
    #[must_use]
    pub fn tenants_for_return<'m>(
        &self,
        receiver: &PartyId,
        day: Date,
        text_of: &dyn Fn(&str) -> Option<&'m str>,
    ) -> Vec<&Tenant> {
        let Some(seen) = self.seen_by.get(receiver) else {
            return Vec::new();
        };
        let meant = |route: &Route, tenant: &Tenant| {
            route.to == *receiver
                && (super::model::agrees(&route.write, text_of)
                    || tenant.employer_keys.iter().any(|key| key.agrees(text_of)))
        };
        let found = self.found(seen, text_of);
        found
            .filter(|tenant| tenant.routes_on(day).any(|route| meant(route, tenant)))
            .collect()
    }

    /// The tenants with a route to `receiver` that is valid on `day`.
    pub fn tenants_of_receiver(
        &self,
        receiver: &PartyId,
        day: Date,
    ) -> impl Iterator<Item = &Tenant> {
        let leads_there =
            move |tenant: &&Tenant| tenant.routes_on(day).any(|route| route.to == *receiver);
        self.directory.tenants.values().filter(leads_there)
    }

    fn found<'m>(
        &self,
        index: &KeyIndex,
        text_of: &dyn Fn(&str) -> Option<&'m str>,
    ) -> impl Iterator<Item = &Tenant> {
        let ids = index.find(text_of);
        ids.into_iter()
            .filter_map(|id| self.directory.tenants.get(&id))
    }
}

/// Tenants by the texts of their keys, one table per combination of tags.
#[derive(Debug, Default)]
struct KeyIndex(BTreeMap<Vec<String>, HashMap<Vec<String>, Vec<TenantId>>>);

impl KeyIndex {
    fn add(&mut self, key: &BTreeMap<String, String>, tenant: &TenantId) {
        if key.is_empty() {
            return;
        }
        let tags = key.keys().cloned().collect();
        let texts = key.values().cloned().collect();
        let tenants = self.0.entry(tags).or_default().entry(texts).or_default();
        if !tenants.contains(tenant) {
            tenants.push(tenant.clone());
        }
    }

    /// The tenants with a key whose texts all agree, each once, by id.
    fn find<'m>(&self, text_of: &dyn Fn(&str) -> Option<&'m str>) -> Vec<TenantId> {
        let mut found = Vec::new();
        for (tags, tenants) in &self.0 {
            let texts: Option<Vec<String>> = tags
                .iter()
                .map(|tag| text_of(tag).map(str::to_owned))
                .collect();
            if let Some(there) = texts.and_then(|texts| tenants.get(&texts)) {
                found.extend_from_slice(there);
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

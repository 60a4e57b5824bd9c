//! For whom a message is: the tenant of each employer, the routes meant, and
//! what the ledger has to be asked before anything is decided.

use std::collections::{BTreeSet, HashSet};

use super::{Foreign, Planner};
use crate::clock;
use crate::directory::{Match, Route, Tenant};
use crate::domain::{Code, Domain, KeyedHash, TenantId};
use crate::policy::{self, Identity, LedgerView};
use crate::translate::{Employee, Employer, Item, Kind};
use crate::validate::NodeId;

/// A part of a message that one tenant's routes get.
pub struct Part<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) routes: Vec<&'a Route>,
    pub(super) employers: Vec<&'a Employer>,
    pub(super) items: Vec<&'a Item>,
}

/// A part that has no way to go.
pub struct Stray<'a> {
    pub(super) reason: Code,
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) at: NodeId,
    pub(super) employers: Vec<&'a Employer>,
    pub(super) items: Vec<&'a Item>,
}

/// The parts of a message, by where they go.
#[derive(Default)]
pub struct Parts<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) strays: Vec<Stray<'a>>,
}

/// The look-ups that a plan needs.
#[derive(Debug, Default)]
pub struct Needs {
    /// (route, person) pairs.
    pub persons: Vec<(KeyedHash, KeyedHash)>,
    /// (route, case) pairs.
    pub cases: Vec<(KeyedHash, KeyedHash)>,
}

impl<'a> Planner<'a> {
    /// True for messages from the receiving side to the employer's.
    pub(super) fn is_return(&self) -> bool {
        let from_employer = self
            .setup
            .party(self.party)
            .is_some_and(|p| p.kind.speaks_for_employers());
        !from_employer
            && matches!(
                self.message.model.kind,
                Kind::Documents | Kind::Appointments
            )
    }

    /// True when case ids have to be looked up: for return messages, and for
    /// corrections and withdrawals.
    #[must_use]
    pub fn asks_for_cases(&self) -> bool {
        let employers = self.message.model.employers.iter();
        let mut absences = employers
            .flat_map(|employer| &employer.employees)
            .flat_map(|employee| &employee.employments)
            .flat_map(|employment| &employment.absences);
        self.is_return() || absences.any(policy::is_repair)
    }

    /// The texts of an employer by tag, as far as the sender's mapping lets
    /// them name one.
    fn keys_of(&self, employer: NodeId) -> impl Fn(&str) -> Option<&'a str> {
        let document = self.message.stripped.document();
        let mapping = &self.setup.standing_or_fallback(self.party).mapping;
        let text = move |tag: &str| {
            let mut children = document.children(employer);
            let child = children.find(|child| document.element(*child).tag == tag)?;
            Some(document.text(child)).filter(|text| !text.is_empty())
        };
        move |tag: &str| {
            text(tag).filter(|_| mapping.names_employer(tag, &|tag| text(tag).is_some()))
        }
    }

    /// Finds the tenant and the routes of each employer of a message from the
    /// employer's side.
    ///
    /// # Errors
    ///
    /// [`Foreign`] when an employer is another party's, or has no processing
    /// agreement in force: then nothing of the message is taken.
    pub fn sort(&self) -> Result<Parts<'a>, Foreign> {
        if self.is_return() {
            return self.sort_return();
        }
        let mut parts = Parts::default();
        let today = clock::civil_at(self.now).date();
        let items: Vec<&Item> = self.message.model.items.iter().collect();
        for (at, employer) in self.message.model.employers.iter().enumerate() {
            // Documents hang below the root: they belong to the one employer.
            let items = if at == 0 { items.clone() } else { Vec::new() };
            let stray = |reason, tenant| Stray {
                reason,
                tenant,
                at: employer.at,
                employers: vec![employer],
                items: items.clone(),
            };
            let keys = self.keys_of(employer.at);
            let tenant = match self.setup.directory.tenant_for(self.party, &keys) {
                Match::Mine(tenant) => tenant,
                Match::Foreign(_) => {
                    return Err(Foreign {
                        code: Code::EmployerForeign,
                        at: employer.at,
                    });
                }
                Match::Unknown => {
                    parts.strays.push(stray(Code::EmployerUnknown, None));
                    continue;
                }
            };
            if !tenant.has_agreement_on(today) {
                return Err(Foreign {
                    code: Code::NoAgreement,
                    at: employer.at,
                });
            }
            match self.routes_meant(tenant) {
                Ok(routes) => parts.add(tenant, routes, employer, items.clone()),
                Err(reason) => parts.strays.push(stray(reason, Some(&tenant.id))),
            }
        }
        if self.message.model.employers.is_empty() && !items.is_empty() {
            let at = items
                .first()
                .map_or(self.message.stripped.document().root(), |item| item.at);
            let reason = Code::EmployerUnknown;
            parts.strays.push(Stray {
                reason,
                tenant: None,
                at,
                employers: Vec::new(),
                items,
            });
        }
        Ok(parts)
    }

    /// The routes that a message of the employer's side is meant for.
    fn routes_meant(&self, tenant: &'a Tenant) -> Result<Vec<&'a Route>, Code> {
        let open: Vec<&Route> = self
            .open_routes(tenant)
            .filter(|route| route.domain != Domain::Werkgever)
            .collect();
        if open.is_empty() {
            return Err(Code::NoRoute);
        }
        let named = self.message.model.header.receiver_id.as_str();
        if named == self.setup.settings.gateway.receiver_id {
            return Ok(open);
        }
        let is_named = |route: &Route| {
            self.setup
                .party(&route.to)
                .and_then(|party| party.receiver_id.as_deref())
                == Some(named)
        };
        let meant: HashSet<Domain> = open
            .iter()
            .filter(|route| is_named(route))
            .map(|route| route.domain)
            .collect();
        if meant.is_empty() {
            return Err(Code::ReceiverMismatch);
        }
        let also = |route: &Route| route.copy && !meant.contains(&route.domain);
        Ok(open
            .into_iter()
            .filter(|route| is_named(route) || also(route))
            .collect())
    }

    /// Routes that are valid today and whose domain may have this message.
    fn open_routes(&self, tenant: &'a Tenant) -> impl Iterator<Item = &'a Route> {
        let today = clock::civil_at(self.now).date();
        let schema = self.message.stripped.document().schema().clone();
        let edition = self.message.edition.name().to_owned();
        let policy = &self.setup.policy;
        tenant.routes_on(today).filter(move |route| {
            route.edition == edition
                && policy
                    .sheet(&schema, &edition, route.domain)
                    .is_some_and(policy::Sheet::admits_message)
        })
    }

    /// Return messages carry the keys that their sender knows; without keys a
    /// case or person that was released to it tells whose it is. Which one is
    /// decided with the ledger at hand, in [`Planner::settle_return`].
    fn sort_return(&self) -> Result<Parts<'a>, Foreign> {
        let mut parts = Parts::default();
        let model = &self.message.model;
        let today = clock::civil_at(self.now).date();
        let items: Vec<&Item> = model.items.iter().collect();
        let by_keys = model.employers.first().and_then(|employer| {
            let keys = self.keys_of(employer.at);
            let mut found = self
                .setup
                .directory
                .tenants_for_return(self.party, today, &keys);
            // Two sources may report one employer: then the ledger decides.
            if found.len() == 1 { found.pop() } else { None }
        });
        if by_keys.is_some_and(|tenant| !tenant.has_agreement_on(today)) {
            let at = model
                .employers
                .first()
                .map_or(self.message.stripped.document().root(), |e| e.at);
            return Err(Foreign {
                code: Code::NoAgreement,
                at,
            });
        }
        let employers: Vec<&Employer> = model.employers.iter().collect();
        match by_keys {
            Some(tenant) => parts.parts.push(Part {
                tenant,
                routes: self.employer_routes(tenant),
                employers,
                items,
            }),
            None => parts.strays.push(Stray {
                reason: Code::EmployerUnknown,
                tenant: None,
                at: self.message.stripped.document().root(),
                employers,
                items,
            }),
        }
        Ok(parts)
    }

    pub(super) fn employer_routes(&self, tenant: &'a Tenant) -> Vec<&'a Route> {
        self.open_routes(tenant)
            .filter(|route| route.domain == Domain::Werkgever)
            .collect()
    }

    /// The routes on which this sender is a receiver of the tenant.
    fn routes_to_sender(&self, tenant: &'a Tenant) -> Vec<KeyedHash> {
        let to_sender = tenant
            .routes
            .iter()
            .filter(|route| &route.to == self.party && route.domain != Domain::Werkgever);
        to_sender
            .map(|route| self.route_hash(tenant, route))
            .collect()
    }

    fn candidates(&self) -> Vec<&'a Tenant> {
        let today = clock::civil_at(self.now).date();
        self.setup
            .directory
            .tenants_of_receiver(self.party, today)
            .collect()
    }

    /// What has to be looked up before a plan can be made.
    #[must_use]
    pub fn needs(&self, parts: &Parts<'a>) -> Needs {
        let mut needs = Needs::default();
        if self.is_return() {
            for tenant in self.candidates() {
                let routes = self.routes_to_sender(tenant);
                for item in &self.message.model.items {
                    needs.add_item(item, &routes, self.identity_of(tenant));
                }
            }
            return needs;
        }
        for part in &parts.parts {
            let identity = self.identity_of(part.tenant);
            for route in &part.routes {
                let route = self.route_hash(part.tenant, route);
                for employee in part
                    .employers
                    .iter()
                    .flat_map(|employer| &employer.employees)
                {
                    needs.add(employee, route, identity);
                }
                for item in &part.items {
                    needs.add(&item.employee, route, identity);
                }
            }
        }
        needs
    }

    /// Gives the strays of a return message to the tenant that the ledger
    /// names, if it names exactly one.
    ///
    /// # Errors
    ///
    /// [`Foreign`] when that tenant has no processing agreement in force.
    pub(super) fn settle_return(
        &self,
        parts: Parts<'a>,
        ledger: &LedgerView,
    ) -> Result<Parts<'a>, Foreign> {
        let today = clock::civil_at(self.now).date();
        let mut settled = Parts {
            parts: parts.parts,
            strays: Vec::new(),
        };
        for stray in parts.strays {
            let mut left = Vec::new();
            for item in stray.items {
                let mut knowing = self
                    .candidates()
                    .into_iter()
                    .filter(|tenant| self.is_known(item, tenant, ledger));
                let (Some(tenant), None) = (knowing.next(), knowing.next()) else {
                    left.push(item);
                    continue;
                };
                if !tenant.has_agreement_on(today) {
                    return Err(Foreign {
                        code: Code::NoAgreement,
                        at: item.at,
                    });
                }
                settled.add_item(tenant, self.employer_routes(tenant), item);
            }
            if !left.is_empty() {
                settled.strays.push(Stray {
                    items: left,
                    ..stray
                });
            }
        }
        Ok(settled)
    }

    pub(super) fn is_known(&self, item: &Item, tenant: &'a Tenant, ledger: &LedgerView) -> bool {
        let codes = &tenant.document_codes;
        let scope = self.scope(tenant, KeyedHash::from_bytes([0; 32]), false, codes, ledger);
        policy::is_known(item, &self.routes_to_sender(tenant), &scope)
    }
}

impl<'a> Part<'a> {
    /// The part as one that has no route; `root` is where it is when nothing
    /// narrower is.
    pub(super) fn without_route(&self, root: NodeId) -> Stray<'a> {
        Stray {
            reason: Code::NoRoute,
            tenant: Some(&self.tenant.id),
            at: self.items.first().map_or(root, |item| item.at),
            employers: self.employers.clone(),
            items: self.items.clone(),
        }
    }
}

impl<'a> Parts<'a> {
    fn add(
        &mut self,
        tenant: &'a Tenant,
        routes: Vec<&'a Route>,
        employer: &'a Employer,
        items: Vec<&'a Item>,
    ) {
        if let Some(part) = self
            .parts
            .iter_mut()
            .find(|part| part.tenant.id == tenant.id)
        {
            part.employers.push(employer);
            part.items.extend(items);
        } else {
            self.parts.push(Part {
                tenant,
                routes,
                employers: vec![employer],
                items,
            });
        }
    }

    fn add_item(&mut self, tenant: &'a Tenant, routes: Vec<&'a Route>, item: &'a Item) {
        if let Some(part) = self
            .parts
            .iter_mut()
            .find(|part| part.tenant.id == tenant.id)
        {
            part.items.push(item);
        } else {
            self.parts.push(Part {
                tenant,
                routes,
                employers: Vec::new(),
                items: vec![item],
            });
        }
    }

    /// The domains that the message is meant for, for the sender's view.
    #[must_use]
    pub fn domains(&self) -> BTreeSet<Domain> {
        self.parts
            .iter()
            .flat_map(|part| &part.routes)
            .map(|route| route.domain)
            .collect()
    }
}

impl Needs {
    fn add(&mut self, employee: &Employee, route: KeyedHash, identity: Identity<'_>) {
        let ids = [Some(&employee.id), employee.former_id.as_ref()];
        for id in ids.into_iter().flatten() {
            self.persons.push((route, identity.person(id)));
            for case in policy::case_ids(employee) {
                self.cases.push((route, identity.case_of(id, case)));
            }
        }
    }

    fn add_item(&mut self, item: &Item, routes: &[KeyedHash], identity: Identity<'_>) {
        for route in routes {
            self.persons
                .push((*route, identity.person(&item.employee.id)));
            for case in policy::case_ids(&item.employee) {
                let of_person = identity.case_of(&item.employee.id, case);
                self.cases.push((*route, identity.case(case)));
                self.cases.push((*route, of_person));
            }
        }
    }
}

//! What is to become of a message: for whom it is, what each receiver gets,
//! what waits, and what the sender is told.
//!
//! A plan changes nothing. `accept` stores it, `explain` shows it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use super::prepare::Prepared;
use crate::clock;
use crate::directory::{Match, Route, Tenant};
use crate::domain::{Code, Domain, KeyedHash, PartyId, TenantId};
use crate::policy::{
    self, Decision, Destination, Identity, LedgerChange, LedgerView, Occasion, Outcome, Parked,
    Release, Scope, StrippedRow, Waiting, Withheld,
};
use crate::setup::Setup;
use crate::translate::{Employer, Item, Kind, Remark};
use crate::validate::NodeId;

/// What a message would change and send.
#[derive(Debug, Default)]
pub struct Plan {
    /// What came of each route.
    pub routes: Vec<RoutePlan>,
    /// Parts that wait.
    pub parked: Vec<Parked>,
    /// What the sender should know beside what validation found.
    pub remarks: BTreeSet<Remark>,
}

/// What came of a message on one route.
#[derive(Debug)]
pub struct RoutePlan {
    /// Whose employees.
    pub tenant: TenantId,
    /// The receiver.
    pub to: PartyId,
    /// Its domain.
    pub domain: Domain,
    /// Hash of the route.
    pub route: KeyedHash,
    /// Which persons pass.
    pub decision: Decision,
    /// Which elements do not.
    pub stripped: BTreeMap<StrippedRow, u32>,
    /// What is sent.
    pub release: Option<Release>,
    /// False when what is left would not be valid.
    pub valid: bool,
}

impl RoutePlan {
    /// The audit counts.
    #[must_use]
    pub fn withheld(&self, message_type: &str) -> Vec<Withheld> {
        let mut counts: BTreeMap<&'static str, u32> = self.decision.counts.clone();
        for (row, count) in &self.stripped {
            *counts.entry(row.rule).or_default() += count;
        }
        let count = |(rule, count)| Withheld {
            tenant: self.tenant.clone(),
            to: self.to.clone(),
            domain: self.domain,
            message_type: message_type.to_owned(),
            rule,
            count,
        };
        counts.into_iter().map(count).collect()
    }

    /// The changes of the ledger; none when nothing was released.
    pub fn take_changes(&mut self) -> Vec<LedgerChange> {
        if self.release.is_some() {
            std::mem::take(&mut self.decision.changes)
        } else {
            Vec::new()
        }
    }
}

/// Why a message is not for this party to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// [`Code::EmployerForeign`] or [`Code::NoAgreement`].
    pub code: Code,
    /// The employer.
    pub at: NodeId,
}

/// A part of a message that one tenant's routes get.
pub struct Part<'a> {
    tenant: &'a Tenant,
    routes: Vec<&'a Route>,
    employers: Vec<&'a Employer>,
    items: Vec<&'a Item>,
}

/// A part that has no way to go.
pub struct Stray<'a> {
    reason: Code,
    tenant: Option<&'a TenantId>,
    at: NodeId,
    employers: Vec<&'a Employer>,
    items: Vec<&'a Item>,
}

/// The parts of a message, by where they go.
#[derive(Default)]
pub struct Parts<'a> {
    parts: Vec<Part<'a>>,
    strays: Vec<Stray<'a>>,
}

/// The look-ups that a plan needs.
#[derive(Debug, Default)]
pub struct Needs {
    /// (route, person) pairs.
    pub persons: Vec<(KeyedHash, KeyedHash)>,
    /// (route, case) pairs.
    pub cases: Vec<(KeyedHash, KeyedHash)>,
}

/// Plans for one message against one state of the configuration.
pub struct Planner<'a> {
    /// Everything that operators configured.
    pub setup: &'a Setup,
    /// The sender.
    pub party: &'a PartyId,
    /// The message.
    pub message: &'a Prepared<'a>,
    /// Now.
    pub now: Timestamp,
}

impl<'a> Planner<'a> {
    /// True for messages from the receiving side to the employer's.
    fn is_return(&self) -> bool {
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

    fn test(&self) -> bool {
        self.message.model.header.test
    }

    fn identity_of(&self, tenant: &'a Tenant) -> Identity<'a> {
        Identity::of(&self.setup.keys, &tenant.source)
    }

    fn route_hash(&self, tenant: &Tenant, route: &Route) -> KeyedHash {
        policy::route(
            &self.setup.keys,
            &tenant.id,
            &route.to,
            route.domain,
            self.test(),
        )
    }

    /// The texts of an employer by tag, as far as the sender's mapping lets
    /// them name one.
    fn keys_of(&self, employer: NodeId) -> impl Fn(&str) -> Option<&'a str> {
        let document = self.message.stripped.document();
        let mapping = &self.setup.standing(self.party).mapping;
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
        if let Some(tenant) = by_keys {
            if !tenant.has_agreement_on(today) {
                let at = model
                    .employers
                    .first()
                    .map_or(self.message.stripped.document().root(), |e| e.at);
                return Err(Foreign {
                    code: Code::NoAgreement,
                    at,
                });
            }
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

    fn employer_routes(&self, tenant: &'a Tenant) -> Vec<&'a Route> {
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
    fn settle_return(&self, parts: Parts<'a>, ledger: &LedgerView) -> Parts<'a> {
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
                match (knowing.next(), knowing.next()) {
                    (Some(tenant), None) => {
                        settled.add_item(tenant, self.employer_routes(tenant), item)
                    }
                    _ => left.push(item),
                }
            }
            if !left.is_empty() {
                settled.strays.push(Stray {
                    items: left,
                    ..stray
                });
            }
        }
        settled
    }

    fn is_known(&self, item: &Item, tenant: &'a Tenant, ledger: &LedgerView) -> bool {
        let codes = &tenant.document_codes;
        let scope = self.scope(tenant, KeyedHash::from_bytes([0; 32]), false, codes, ledger);
        policy::is_known(item, &self.routes_to_sender(tenant), &scope)
    }

    fn scope<'s>(
        &'s self,
        tenant: &'a Tenant,
        route: KeyedHash,
        leavers: bool,
        document_codes: &'s [String],
        ledger: &'s LedgerView,
    ) -> Scope<'s>
    where
        'a: 's,
    {
        Scope {
            route,
            identity: self.identity_of(tenant),
            ledger,
            leavers,
            document_codes,
            today: clock::civil_at(self.now).date(),
            window_days: self.setup.policy.window_days(),
        }
    }

    /// The plan, with the ledger at hand.
    #[must_use]
    pub fn plan(&self, parts: Parts<'a>, ledger: &LedgerView) -> Plan {
        let parts = if self.is_return() {
            self.settle_return(parts, ledger)
        } else {
            parts
        };
        let mut plan = Plan::default();
        for part in &parts.parts {
            self.plan_part(part, ledger, &mut plan);
        }
        for stray in &parts.strays {
            plan.remarks.insert(Remark {
                code: stray.reason,
                at: stray.at,
            });
            self.park_stray(stray, &mut plan);
        }
        plan
    }

    fn plan_part(&self, part: &Part<'a>, ledger: &LedgerView, plan: &mut Plan) {
        if part.routes.is_empty() {
            let at = part
                .items
                .first()
                .map_or(self.message.stripped.document().root(), |item| item.at);
            let stray = Stray {
                reason: Code::NoRoute,
                tenant: Some(&part.tenant.id),
                at,
                employers: part.employers.clone(),
                items: part.items.clone(),
            };
            plan.remarks.insert(Remark {
                code: Code::NoRoute,
                at,
            });
            return self.park_stray(&stray, plan);
        }
        let mut waiting: HashMap<Code, HashSet<NodeId>> = HashMap::new();
        let mut passing: HashSet<NodeId> = HashSet::new();
        for route in &part.routes {
            let planned = self.plan_route(part, route, ledger);
            plan.remarks
                .extend(planned.decision.remarks.iter().copied());
            if planned.valid {
                passing.extend(&planned.decision.kept);
            } else {
                let parts = planned.decision.kept.iter().copied();
                waiting
                    .entry(Code::ReleaseInvalid)
                    .or_default()
                    .extend(parts);
                let at = part
                    .employers
                    .first()
                    .map_or(self.message.stripped.document().root(), |e| e.at);
                plan.remarks.insert(Remark {
                    code: Code::ReleaseInvalid,
                    at,
                });
            }
            for (at, code) in &planned.decision.parked {
                waiting.entry(*code).or_default().insert(*at);
            }
            plan.routes.push(planned);
        }
        for (reason, mut nodes) in waiting {
            // What one receiver has got must not be parked for the others of
            // the tenant: released later it would reach the first one twice.
            nodes.retain(|node| !passing.contains(node));
            let about = Holders::of(part, &nodes);
            plan.parked
                .extend(self.park(reason, Some(&part.tenant.id), &part.employers, about));
        }
    }

    fn plan_route(&self, part: &Part<'a>, route: &'a Route, ledger: &LedgerView) -> RoutePlan {
        let tenant = part.tenant;
        let hash = self.route_hash(tenant, route);
        let scope = self.scope(tenant, hash, route.leavers, &tenant.document_codes, ledger);
        let kind = self.message.model.kind;
        let document = self.message.stripped.document();
        let decision = match kind {
            Kind::Documents | Kind::Appointments if self.is_return() => {
                let known = |item: &Item| self.is_known(item, tenant, ledger);
                policy::decide_items(&part.items, &scope, known)
            }
            Kind::Documents | Kind::Appointments => {
                policy::decide_items(&part.items, &scope, |item| {
                    policy::is_sick_or_recovered(item, &scope)
                })
            }
            Kind::Absences
            | Kind::Employments
            | Kind::EmployeeData
            | Kind::EmployerData
            | Kind::Return => policy::decide(kind, document, &part.employers, &scope),
        };
        let employers: HashSet<NodeId> =
            part.employers.iter().map(|employer| employer.at).collect();
        let destination = self.destination(tenant, route);
        let (outcome, stripped) = policy::release(
            &clock::new_id(),
            &self.message.stripped,
            &employers,
            &decision,
            &destination,
            &self.occasion(None),
        );
        let (release, valid) = match outcome {
            Outcome::Release(release) => (Some(*release), true),
            Outcome::Nothing => (None, true),
            Outcome::Invalid => (None, false),
        };
        RoutePlan {
            tenant: tenant.id.clone(),
            to: route.to.clone(),
            domain: route.domain,
            route: hash,
            decision,
            stripped,
            release,
            valid,
        }
    }

    /// Where a release on this route goes, and what it shows there.
    #[must_use]
    pub fn destination(&self, tenant: &'a Tenant, route: &'a Route) -> Destination<'a> {
        let party = self.setup.party(&route.to);
        Destination {
            tenant: &tenant.id,
            to: &route.to,
            domain: route.domain,
            receiver_id: party
                .and_then(|party| party.receiver_id.as_deref())
                .unwrap_or_default(),
            sender_id: &self.setup.settings.gateway.sender_id,
            version: route
                .versions
                .get(&self.message.stripped.document().schema().name)
                .map(String::as_str),
            receipt: route.receipt,
            write: &route.write,
            executor_name: tenant.executor_name,
            document_names: tenant.document_names,
        }
    }

    /// What is the same for every release of this message.
    #[must_use]
    pub fn occasion<'s>(&'s self, answered: Option<&'s str>) -> Occasion<'s> {
        Occasion {
            policy: &self.setup.policy,
            edition: &self.message.edition,
            keys: &self.setup.keys,
            test: self.test(),
            at: clock::civil_at(self.now),
            answered,
        }
    }

    /// The releases that show a Retourmelding to the sender of the message that
    /// it answers: on the tenant's routes to the employer's side.
    #[must_use]
    pub fn forward_answer(&self, answered: &crate::store::ReleaseRef) -> Vec<Release> {
        let Some(tenant) = self.setup.tenant(&answered.tenant) else {
            return Vec::new();
        };
        let routes = self.employer_routes(tenant);
        let to_sender = routes
            .into_iter()
            .filter(|route| route.to == answered.sender);
        let decision = Decision::default();
        let employers = HashSet::new();
        to_sender
            .filter_map(|route| {
                let (outcome, _) = policy::release(
                    &clock::new_id(),
                    &self.message.stripped,
                    &employers,
                    &decision,
                    &self.destination(tenant, route),
                    &self.occasion(Some(&answered.reference)),
                );
                match outcome {
                    Outcome::Release(release) => Some(*release),
                    Outcome::Nothing | Outcome::Invalid => None,
                }
            })
            .collect()
    }

    /// Parks what may wait: reports on cases, and return messages. Employment
    /// and personal data of others are not kept.
    fn park_stray(&self, stray: &Stray<'a>, plan: &mut Plan) {
        let may_wait = self.is_return() || self.message.model.kind == Kind::Absences;
        if !may_wait {
            return;
        }
        let everything = Holders::everything(&stray.employers, &stray.items);
        plan.parked
            .extend(self.park(stray.reason, stray.tenant, &stray.employers, everything));
    }

    fn park(
        &self,
        reason: Code,
        tenant: Option<&'a TenantId>,
        employers: &[&'a Employer],
        about: Holders,
    ) -> Option<Parked> {
        if about.nodes.is_empty() {
            return None;
        }
        let employers: HashSet<NodeId> = employers.iter().map(|employer| employer.at).collect();
        let source = tenant
            .and_then(|tenant| self.setup.tenant(tenant))
            .map_or(self.party, |tenant| &tenant.source);
        let identity = Identity::of(&self.setup.keys, source);
        let persons = about.persons.iter().map(|id| identity.person(id)).collect();
        let waiting = Waiting {
            id: &clock::new_id(),
            party: self.party,
            tenant,
            reason,
            employers: &employers,
            nodes: about.nodes,
            persons,
        };
        policy::park(&self.message.stripped, &waiting, &self.occasion(None))
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
    fn add(
        &mut self,
        employee: &crate::translate::Employee,
        route: KeyedHash,
        identity: Identity<'_>,
    ) {
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
                self.cases.push((*route, identity.case(case)));
            }
        }
    }
}

/// The nodes that a parked part is about, with everything above them, and the
/// ids of the persons.
#[derive(Default)]
struct Holders {
    nodes: HashSet<NodeId>,
    persons: BTreeSet<String>,
}

impl Holders {
    fn everything(employers: &[&Employer], items: &[&Item]) -> Self {
        let mut about = Self::default();
        for employee in employers.iter().flat_map(|employer| &employer.employees) {
            about.add(employee, |_| true);
        }
        for item in items {
            about.nodes.insert(item.at);
            about.add(&item.employee, |_| true);
        }
        about
    }

    fn of(part: &Part<'_>, chosen: &HashSet<NodeId>) -> Self {
        let mut about = Self::default();
        for employee in part
            .employers
            .iter()
            .flat_map(|employer| &employer.employees)
        {
            let whole = chosen.contains(&employee.at);
            about.add(employee, |node| whole || chosen.contains(&node));
        }
        for item in part.items.iter().filter(|item| chosen.contains(&item.at)) {
            about.nodes.insert(item.at);
            about.add(&item.employee, |_| true);
        }
        about
    }

    fn add(&mut self, employee: &crate::translate::Employee, chosen: impl Fn(NodeId) -> bool) {
        let mut found = false;
        for employment in &employee.employments {
            let reports: Vec<NodeId> = employment
                .absences
                .iter()
                .map(|absence| absence.at)
                .filter(|at| chosen(*at))
                .collect();
            if !reports.is_empty() || (employment.absences.is_empty() && chosen(employment.at)) {
                self.nodes.insert(employment.at);
                self.nodes.extend(reports);
                found = true;
            }
        }
        if found || chosen(employee.at) {
            self.nodes.insert(employee.at);
            self.persons.insert(employee.id.clone());
        }
    }
}

//! What is to become of a message: for whom it is, what each receiver gets,
//! what waits, and what the sender is told.
//!
//! A plan changes nothing. `accept` stores it, `explain` shows it. `routing`
//! finds out for whom a message is, `parking` what of it waits.

mod parking;
mod routing;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;

use self::routing::Part;
pub use self::routing::Parts;
use super::prepare::Prepared;
use crate::clock;
use crate::directory::{Route, Tenant};
use crate::domain::{Code, Domain, KeyedHash, PartyId, TenantId};
use crate::policy::{
    self, Decision, Destination, Identity, LedgerChange, LedgerView, Occasion, Outcome, Parked,
    Release, Scope, StrippedRow, Withheld,
};
use crate::setup::Setup;
use crate::translate::{Item, Kind, Remark};
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

    /// The changes of the ledger, with whose they are; none when nothing was
    /// released.
    pub fn take_changes(&mut self) -> Vec<(TenantId, LedgerChange)> {
        if self.release.is_none() {
            return Vec::new();
        }
        let changes = std::mem::take(&mut self.decision.changes);
        let theirs = changes.into_iter();
        theirs.map(|change| (self.tenant.clone(), change)).collect()
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
    ///
    /// # Errors
    ///
    /// [`Foreign`] when the ledger names a tenant without a processing
    /// agreement in force: then nothing of the message is taken.
    pub fn plan(&self, parts: Parts<'a>, ledger: &LedgerView) -> Result<Plan, Foreign> {
        let parts = if self.is_return() {
            self.settle_return(parts, ledger)?
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
            plan.parked.extend(self.park_stray(stray));
        }
        Ok(plan)
    }

    fn plan_part(&self, part: &Part<'a>, ledger: &LedgerView, plan: &mut Plan) {
        if part.routes.is_empty() {
            let stray = part.without_route(self.message.stripped.document().root());
            plan.remarks.insert(Remark {
                code: stray.reason,
                at: stray.at,
            });
            plan.parked.extend(self.park_stray(&stray));
            return;
        }
        let mut waiting: BTreeMap<Code, HashSet<NodeId>> = BTreeMap::new();
        let mut passing: HashSet<NodeId> = HashSet::new();
        for route in &part.routes {
            let mut planned = self.plan_route(part, route, ledger);
            plan.remarks
                .extend(planned.decision.remarks.iter().copied());
            if planned.valid {
                passing.extend(&planned.decision.kept);
            } else {
                self.note_invalid(part, &mut planned, &mut waiting, plan);
            }
            for (at, code) in &planned.decision.parked {
                waiting.entry(*code).or_default().insert(*at);
            }
            plan.routes.push(planned);
        }
        // Of two receivers one may know the case: then nothing waits.
        let is_moot = |remark: &Remark| {
            let waits = matches!(remark.code, Code::CaseUnknown | Code::KeyChangeUnconfirmed);
            waits && passing.contains(&remark.at)
        };
        plan.remarks.retain(|remark| !is_moot(remark));
        for (reason, mut nodes) in waiting {
            // What one receiver has got must not be parked for the others of
            // the tenant: released later it would reach the first one twice.
            // Unless it could not be sent to the other: a report twice is
            // better than a report lost.
            if reason != Code::ReleaseInvalid {
                nodes.retain(|node| !passing.contains(node));
            }
            plan.parked.extend(self.park_waiting(reason, part, &nodes));
        }
    }

    /// What is left would not be valid: reports and return messages wait, the
    /// rest is counted. The sender is told only where that does not show that
    /// a person passed.
    fn note_invalid(
        &self,
        part: &Part<'a>,
        planned: &mut RoutePlan,
        waiting: &mut BTreeMap<Code, HashSet<NodeId>>,
        plan: &mut Plan,
    ) {
        let counts = &mut planned.decision.counts;
        *counts.entry(Code::ReleaseInvalid.as_str()).or_default() += 1;
        if !self.may_wait() {
            return;
        }
        let kept = planned.decision.kept.iter().copied();
        waiting
            .entry(Code::ReleaseInvalid)
            .or_default()
            .extend(kept);
        let employer = part.employers.first().map(|employer| employer.at);
        plan.remarks.insert(Remark {
            code: Code::ReleaseInvalid,
            at: employer.unwrap_or(self.message.stripped.document().root()),
        });
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
    /// it answers: on the tenant's routes to the employer's side. None for a
    /// message of which the sender may not learn whether anything passed.
    #[must_use]
    pub fn forward_answer(&self, answered: &crate::store::ReleaseRef) -> Vec<Release> {
        let tenant = self.setup.tenant(&answered.tenant);
        // An answer would show that somebody passed.
        let Some(tenant) = tenant.filter(|_| answered.shown) else {
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
}

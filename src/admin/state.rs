//! What is read from the database for a scrape, within a bounded time. One
//! read at a time, however many scrape; while the database does not answer,
//! what was read last is shown, with its age.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::Admin;
use super::exposition;
use crate::domain::PartyId;
use crate::store::{
    Alert, DeadLetters, Error, ParkedCount, PushReceivers, PushState, Unaccounted, Waiting,
};

/// How long a scrape waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is there.
#[derive(Default)]
pub(super) struct State {
    pub(super) receivers: Vec<PartyId>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) dead: Vec<DeadLetters>,
    pub(super) pushed: Vec<Pushed>,
    pub(super) parked: Vec<ParkedCount>,
    pub(super) unaccounted: Unaccounted,
    pub(super) alerts: Vec<Alert>,
    pub(super) database_bytes: u64,
}

/// An inbox that is pushed to.
pub(super) struct Pushed {
    pub(super) party: PartyId,
    pub(super) test: bool,
    /// True while nothing, or only a probe, is sent.
    pub(super) is_paused: bool,
}

/// What was read for the last scrape. Cheap to clone.
#[derive(Clone, Default)]
pub struct States(Arc<Mutex<Option<Read>>>);

struct Read {
    page: String,
    at: Timestamp,
}

impl States {
    /// The gauges as text.
    pub(super) async fn read(&self, admin: &Admin) -> String {
        let mut last = self.0.lock().await;
        let now = admin.clock.now();
        match tokio::time::timeout(PATIENCE, state(admin, now)).await {
            Ok(Ok(state)) => {
                let page = exposition::page(&state, now);
                *last = Some(Read { page, at: now });
            }
            Ok(Err(cause)) => tracing::debug!("The gauges were not read: {cause}"),
            Err(_) => tracing::debug!("The gauges were not read in time"),
        }
        let (mut page, age) = last.as_ref().map_or_else(
            || (String::new(), f64::INFINITY),
            |read| (read.page.clone(), now.duration_since(read.at).as_secs_f64()),
        );
        page.push_str(&exposition::process(age));
        page
    }
}

async fn state(admin: &Admin, now: Timestamp) -> Result<State, Error> {
    let store = &admin.store;
    Ok(State {
        receivers: receivers(admin),
        waiting: store.waiting(now, Duration::ZERO).await?,
        dead: store.dead_counts().await?,
        pushed: pushed(admin, &store.push_receivers().await?),
        parked: store.parked_counts().await?,
        unaccounted: store.unaccounted().await?,
        alerts: admin.board.alerts().await,
        database_bytes: store.database_bytes().await?,
    })
}

/// Whoever a route leads to: an empty inbox is a 0, not a missing line.
fn receivers(admin: &Admin) -> Vec<PartyId> {
    let setup = admin.current.get();
    let tenants = setup.directory.directory().tenants.values();
    let mut parties: Vec<PartyId> = tenants
        .flat_map(|tenant| tenant.routes.iter().map(|route| route.to.clone()))
        .collect();
    parties.sort_unstable();
    parties.dedup();
    parties
}

/// Whoever is pushed to now; what was noted of others is of the past.
fn pushed(admin: &Admin, known: &PushReceivers) -> Vec<Pushed> {
    let setup = admin.current.get();
    let parties = setup.directory.directory().parties.values();
    let inboxes = parties
        .filter(|party| party.is_pushed_to())
        .flat_map(|party| [false, true].map(|test| (party.id.clone(), test)));
    let pushed = inboxes.map(|inbox| {
        let works = known
            .get(&inbox)
            .is_none_or(|receiver| receiver.state == PushState::Works);
        let is_paused = !works || (admin.unreachable)(&inbox.0);
        let (party, test) = inbox;
        Pushed {
            party,
            test,
            is_paused,
        }
    });
    pushed.collect()
}

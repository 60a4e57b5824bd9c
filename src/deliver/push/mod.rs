//! Push: releases are sent to the receivers whose directory entry says so,
//! at least once and in order per case, signed by Standard Webhooks 1.0.
//!
//! Each receiver has workers of its own (production and test traffic), so a
//! slow one slows no other. What a failing receiver cannot take stays in its
//! queue; `docs/push.md` says what operators see of it. This module does not
//! look into messages.

mod address;
mod client;
mod faults;
mod pair;
mod schedule;
mod settlement;
mod sign;
mod worker;

pub use pair::{PairError, make_pair, public_half};
pub use sign::KeyFault;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::faults::Faults;

use self::client::{Link, Material};
use self::worker::{Courier, Worker};
use crate::clock::Clock;
use crate::config::Settings;
use crate::directory::{Delivery, Push};
use crate::domain::PartyId;
use crate::setup::{Current, Setup};
use crate::store::{PushInbox, Store};
use crate::supervise::supervise;

/// What pushing needs.
#[derive(Clone)]
pub struct Pusher {
    /// Where the messages are.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// The configuration; its changes start and stop workers.
    pub current: Current,
    /// Whom this node cannot push to.
    pub faults: Faults,
    /// Ends pushing when the daemon stops.
    pub stop: CancellationToken,
}

/// A worker that runs, and what it was started with.
struct Running {
    push: Push,
    stop: CancellationToken,
}

impl Pusher {
    /// Pushes until it is stopped; then finishes or gives back what is on its
    /// way.
    pub async fn run(mut self) {
        let mut workers = JoinSet::new();
        let mut running = HashMap::new();
        loop {
            let setup = self.current.get();
            self.follow(&setup, &mut running, &mut workers);
            // Those that ended with an older configuration.
            while workers.try_join_next().is_some() {}
            let changed = self.stop.run_until_cancelled(self.current.changed()).await;
            if changed != Some(true) {
                break;
            }
        }
        self.stop.cancelled().await;
        while workers.join_next().await.is_some() {}
    }

    /// Starts and stops workers, so that they are those of `setup`.
    fn follow(
        &self,
        setup: &Setup,
        running: &mut HashMap<(PartyId, bool), Running>,
        workers: &mut JoinSet<()>,
    ) {
        let parties = &setup.directory.directory().parties;
        let push_of = |id: &PartyId| match parties.get(id).map(|party| &party.delivery) {
            Some(Delivery::Push(push)) => Some(&**push),
            Some(Delivery::Poll) | None => None,
        };
        running.retain(|(party, _), worker| {
            let stays = push_of(party) == Some(&worker.push);
            if !stays {
                worker.stop.cancel();
            }
            stays
        });
        for id in parties.keys() {
            let Some(push) = push_of(id) else { continue };
            for test in [false, true] {
                running.entry((id.clone(), test)).or_insert_with(|| {
                    let stop = self.stop.child_token();
                    let worker = self.worker(id, test, push, &setup.settings, stop.clone());
                    let stopped = stop.clone();
                    workers.spawn(async move {
                        // What it had on its way comes again when its leases
                        // run out.
                        let inbox = Arc::clone(&worker.courier.inbox);
                        let tell = |pause| tell_restart(&inbox, pause);
                        supervise(&stopped, || worker.clone().run(), tell).await;
                    });
                    Running {
                        push: push.clone(),
                        stop,
                    }
                });
            }
        }
    }

    fn worker(
        &self,
        party: &PartyId,
        test: bool,
        push: &Push,
        settings: &Arc<Settings>,
        stop: CancellationToken,
    ) -> Worker {
        Worker {
            courier: Courier {
                store: self.store.clone(),
                clock: self.clock.clone(),
                inbox: Arc::new(worker::inbox(party, test, push)),
            },
            push: push.clone(),
            settings: Arc::clone(settings),
            faults: self.faults.clone(),
            stop,
        }
    }
}

fn tell_restart(inbox: &PushInbox, pause: Duration) {
    let (party, test) = (&inbox.party, inbox.test);
    counter!("sivi_push_restarts_total", "party" => party.to_string()).increment(1);
    tracing::error!(
        %party, test,
        "The worker that pushes to {party} failed by a fault of ours; it starts again in {} s",
        pause.as_secs()
    );
}

/// What would keep messages from being pushed to a receiver, as far as it can
/// be seen without sending one.
///
/// # Errors
///
/// The setting that cannot be used, and why.
pub fn check(push: &Push, settings: &Settings) -> Result<(), String> {
    let material = Material::read(push, settings).map_err(|fault| fault.to_string())?;
    Link::open(push, material)
        .map(drop)
        .map_err(|fault| fault.to_string())
}

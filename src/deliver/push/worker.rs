//! The loop of one inbox that is pushed to.
//!
//! It claims what is due, sends each release by a task of its own, and sleeps
//! until its bell rings, an attempt is settled, or something comes due. While
//! nothing of that happens it looks now and then for what another process
//! changed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{counter, histogram};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::client::{Answer, Link, LinkFault, Material};
use super::faults::Faults;
use super::schedule::Jitter;
use super::settlement::{self, History};
use crate::clock::Clock;
use crate::config::Settings;
use crate::directory::Push;
use crate::store::{
    Again, Error, Leased, PushClaim, PushInbox, PushState, Pushed, PushedRef, Settled, Settlement,
    Store, Turn,
};
use crate::trace::TARGET;

/// How much longer than an attempt a lease holds: time to settle it.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How often a worker looks without being woken: for what a command or
/// another node changed.
const LOOK: Duration = Duration::from_secs(4);
/// How often keys and certificates are read again.
const MATERIAL_AGE: Duration = Duration::from_secs(10);
/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a worker needs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) courier: Courier,
    pub(super) push: Push,
    pub(super) settings: Arc<Settings>,
    pub(super) faults: Faults,
    /// Ends the loop; what is on its way is finished.
    pub(super) stop: CancellationToken,
}

/// Sends and settles; shared by the attempts of one inbox.
#[derive(Clone)]
pub(super) struct Courier {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) inbox: Arc<PushInbox>,
}

/// One inbox of a receiver with what its settings say.
pub(super) fn inbox(party: &crate::domain::PartyId, test: bool, push: &Push) -> PushInbox {
    PushInbox {
        party: party.clone(),
        test,
        max_in_flight: push.max_in_flight,
        ttl: push.timeout + LEASE_MARGIN,
    }
}

/// What the last claim said of the next one.
struct Outlook {
    /// More can go as soon as an attempt is settled.
    more: bool,
    /// Something comes due by itself.
    next: Option<Timestamp>,
    state: PushState,
}

/// Why the loop goes on.
enum Wake {
    Stop,
    /// An attempt was settled; true when that said something of the receiver.
    Settled(bool),
    Rung,
    Due,
    Look,
}

impl Worker {
    /// Pushes until it is stopped; then finishes or gives back what is on its
    /// way.
    pub(super) async fn run(self) {
        let inbox = Arc::clone(&self.courier.inbox);
        let mut bell = self.courier.store.watch(&inbox.party, inbox.test);
        let mut line = Line::default();
        let mut attempts = Attempts::default();
        let mut outlook = Outlook {
            more: false,
            next: Some(self.courier.clock.now()),
            state: PushState::Works,
        };
        let mut look_at = Instant::now() + LOOK;
        loop {
            let wake = self.wait(&mut bell, &mut attempts, &outlook, look_at).await;
            let is_worth_it = match wake {
                Wake::Stop => break,
                Wake::Due => true,
                Wake::Settled(told) => told || outlook.more,
                Wake::Rung => self.goes_at_once(&attempts, &mut outlook),
                Wake::Look => {
                    look_at = Instant::now() + LOOK;
                    line.link.is_none() || self.look(&attempts, &mut outlook).await
                }
            };
            if !is_worth_it {
                continue;
            }
            // Before the claim: what rings while it runs is not missed.
            bell.mark_unchanged();
            let Some(link) = line.current(&self) else {
                outlook.next = None;
                continue;
            };
            match self.claim(&attempts).await {
                Ok(claim) => outlook = self.send(claim, &link, &mut attempts),
                Err(cause) => {
                    tracing::debug!("Nothing can be claimed for {}: {cause}", inbox.party);
                    outlook.next = Some(self.courier.clock.now());
                    self.stop.run_until_cancelled(sleep(STORE_PAUSE)).await;
                }
            }
        }
        let stop = Duration::from_secs(self.settings.limits.stop_seconds);
        attempts.finish(stop).await;
    }

    async fn wait(
        &self,
        bell: &mut watch::Receiver<u64>,
        attempts: &mut Attempts,
        outlook: &Outlook,
        look_at: Instant,
    ) -> Wake {
        let next = outlook.next.unwrap_or(Timestamp::MAX);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            told = attempts.next() => Wake::Settled(told),
            () = self.courier.clock.sleep_until(next) => Wake::Due,
            Ok(()) = bell.changed() => Wake::Rung,
            () = sleep_until(look_at) => Wake::Look,
        }
    }

    /// True when the receiver can have one more now.
    fn has_room(&self, attempts: &Attempts, state: PushState) -> bool {
        match state {
            PushState::Works => attempts.len() < self.most(),
            PushState::PausedUntil(until) => {
                until <= self.courier.clock.now() && attempts.len() == 0
            }
            PushState::Stopped => false,
        }
    }

    /// True when what is new may go at once; else it goes when an attempt is
    /// settled or the pause is over.
    fn goes_at_once(&self, attempts: &Attempts, outlook: &mut Outlook) -> bool {
        let goes = self.has_room(attempts, outlook.state);
        outlook.more |= !goes;
        goes
    }

    /// Looks without the writer whether a claim would find something.
    async fn look(&self, attempts: &Attempts, outlook: &mut Outlook) -> bool {
        let inbox = &self.courier.inbox;
        let store = &self.courier.store;
        let Ok(receiver) = store.push_receiver(&inbox.party, inbox.test).await else {
            return false;
        };
        outlook.state = receiver.state;
        self.has_room(attempts, receiver.state)
            && store
                .has_due(&inbox.party, inbox.test)
                .await
                .unwrap_or(false)
    }

    async fn claim(&self, attempts: &Attempts) -> Result<PushClaim, Error> {
        let most = self.most().saturating_sub(attempts.len());
        let store = &self.courier.store;
        store.claim_push(&self.courier.inbox, most).await
    }

    fn most(&self) -> usize {
        usize::try_from(self.push.max_in_flight).unwrap_or(usize::MAX)
    }

    fn send(&self, claim: PushClaim, link: &Arc<Link>, attempts: &mut Attempts) -> Outlook {
        let now = self.courier.clock.now();
        let outlook = Outlook {
            more: claim.more,
            next: claim.next.and_then(|wait| now.checked_add(wait).ok()),
            state: claim.receiver.state,
        };
        for pushed in claim.taken {
            let courier = self.courier.clone();
            let abandon = attempts.abandon.clone();
            let attempt = courier.deliver(Arc::clone(link), pushed, abandon);
            attempts.running.spawn(attempt);
        }
        outlook
    }
}

/// The way to the receiver, made anew when keys or certificates change.
#[derive(Default)]
struct Line {
    link: Option<Arc<Link>>,
    read_at: Option<Instant>,
    fault: Option<LinkFault>,
}

impl Line {
    /// The way as it is now; without one nothing is claimed. A fault is
    /// logged once.
    fn current(&mut self, worker: &Worker) -> Option<Arc<Link>> {
        let age = match self.link {
            Some(_) => MATERIAL_AGE,
            None => LOOK / 2,
        };
        if self.read_at.is_some_and(|at| at.elapsed() < age) {
            return self.link.clone();
        }
        self.read_at = Some(Instant::now());
        let found = Material::read(&worker.push, &worker.settings);
        let made = found.and_then(|material| match &self.link {
            Some(link) if link.is_made_of(&material) => Ok(Arc::clone(link)),
            Some(_) | None => Link::open(&worker.push, material).map(Arc::new),
        });
        let party = &worker.courier.inbox.party;
        match made {
            Ok(link) => {
                if self.fault.take().is_some() {
                    tracing::info!(%party, "Pushing to {party} is possible again");
                }
                worker.faults.clear(party);
                self.link = Some(link);
            }
            Err(fault) => {
                if self.fault.as_ref() != Some(&fault) {
                    tracing::error!(%party, "Nothing can be pushed to {party}: {fault}");
                }
                worker.faults.note(party);
                self.fault = Some(fault);
                self.link = None;
            }
        }
        self.link.clone()
    }
}

/// What is on its way.
#[derive(Default)]
struct Attempts {
    running: JoinSet<bool>,
    /// Makes attempts give back what they hold.
    abandon: CancellationToken,
}

impl Attempts {
    fn len(&self) -> usize {
        self.running.len()
    }

    /// Waits for one attempt to be settled, and takes what else is; true when
    /// one of them said something of the receiver. Waits for ever when there
    /// is none.
    async fn next(&mut self) -> bool {
        let Some(first) = self.running.join_next().await else {
            return std::future::pending().await;
        };
        let mut told = first.unwrap_or(true);
        while let Some(another) = self.running.try_join_next() {
            told |= another.unwrap_or(true);
        }
        told
    }

    async fn finish(mut self, within: Duration) {
        let abandon = self.abandon.clone();
        tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => return,
            () = sleep(within) => abandon.cancel(),
        }
        while self.running.join_next().await.is_some() {}
    }
}

impl Courier {
    /// Sends one release and settles it; true when that said something of the
    /// receiver.
    async fn deliver(self, link: Arc<Link>, pushed: Pushed, abandon: CancellationToken) -> bool {
        let (history, about) = (History::from(&pushed), PushedRef::from(&pushed));
        let span = push_span(&pushed.message, &self.inbox);
        let started = Instant::now();
        let sent = link.send(pushed.message, self.clock.now());
        let answer = abandon.run_until_cancelled(sent).await;
        let settlement = match &answer {
            Some(answer) => {
                let party = self.inbox.party.to_string();
                histogram!("sivi_push_seconds", "party" => party)
                    .record(started.elapsed().as_secs_f64());
                settlement::of(answer, history, Jitter::random())
            }
            None => Settlement::GivenBack,
        };
        let Some(settled) = self.settle(&about, &settlement, &abandon).await else {
            span.record("outcome", "unsettled");
            return true;
        };
        let outcome = settlement::outcome(&settlement, settled);
        span.record("outcome", outcome);
        let party = self.inbox.party.to_string();
        counter!("sivi_push_attempts_total", "party" => party, "outcome" => outcome).increment(1);
        self.tell(&about, &settlement, settled, answer.as_ref());
        settled != Settled::Done(None)
    }

    /// Settles until the store takes it: while it does not, nobody else gets
    /// the release either.
    async fn settle(
        &self,
        about: &PushedRef,
        settlement: &Settlement,
        abandon: &CancellationToken,
    ) -> Option<Settled> {
        loop {
            let settled = self.store.settle_push(&self.inbox.party, about, settlement);
            let cause = match settled.await {
                Ok(settled) => return Some(settled),
                Err(cause) => cause,
            };
            let is_over = abandon.is_cancelled();
            if is_over || !matches!(cause, Error::Busy | Error::Unavailable(_)) {
                let id = &about.id;
                tracing::error!(
                    release.id = %id,
                    "What became of release {id} could not be written, it may be sent again: {cause}"
                );
                return None;
            }
            abandon.run_until_cancelled(sleep(STORE_PAUSE)).await;
        }
    }

    /// Logs what an operator has to know, once per change and not per retry.
    fn tell(
        &self,
        about: &PushedRef,
        settlement: &Settlement,
        settled: Settled,
        answer: Option<&Answer>,
    ) {
        let (party, test) = (&self.inbox.party, self.inbox.test);
        let Settled::Done(turn) = settled else { return };
        if let Settlement::Unparseable(Again::Never { code, reason })
        | Settlement::Failed {
            again: Again::Never { code, reason },
            ..
        } = settlement
        {
            let id = &about.id;
            tracing::error!(
                %party, test, release.id = %id, code,
                "Release {id} to {party} is a dead letter: {code} ({reason})"
            );
        }
        match turn {
            Some(Turn::Paused) => {
                let (reason, cause) = match answer {
                    Some(Answer::Failed(failure)) => {
                        (failure.reason.as_str(), failure.cause.as_deref())
                    }
                    _ => ("unknown", None),
                };
                let cause = cause.unwrap_or("see its answer");
                tracing::warn!(
                    %party, test, reason,
                    "{party} fails ({reason}: {cause}): paused until it works, its queue stays"
                );
            }
            Some(Turn::Works) => {
                tracing::info!(%party, test, "{party} works again");
            }
            Some(Turn::Stopped) => {
                tracing::error!(
                    %party, test,
                    "{party} wants no messages any more (410): stopped until push resume"
                );
            }
            Some(Turn::PausedLonger) | None => {}
        }
    }
}

/// The span of one attempt. No trace is kept with a release, so it is the root
/// of its own; `attempt` counts, and tenant and party tell which route it goes.
fn push_span(message: &Leased, inbox: &PushInbox) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        "push",
        party = inbox.party.as_str(),
        tenant = message.tenant.as_str(),
        test = inbox.test,
        release.id = message.id,
        attempt = message.attempt,
        outcome = Empty,
    )
}

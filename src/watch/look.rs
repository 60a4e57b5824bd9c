//! The look: every few seconds, what holds now is compared with what is
//! raised, and the difference is told.
//!
//! Of several nodes one looks at what they share; each looks at its own clock,
//! at its configuration, and at whether the database answers it. The latter no
//! database can keep: it is told by each node for itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use metrics::counter;
use tokio::sync::Mutex as Shared;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::changes::{changes, raise};
use super::condition::{
    AlertName, Bounds, Condition, Endings, Observed, PassedOver, Subject, conditions,
};
use super::courier::{Call, Courier, CourierError};
use super::message::{Transition, body};
use crate::clock::Clock;
use crate::config::Settings;
use crate::setup::Current;
use crate::store::{self, Alert, CLOCKS_APART, LedgerWalk, Store, Walk};
use crate::supervise::keep_running;

/// How long a release must have been on offer before its age counts: what was
/// parked may be old when it is offered.
const OFFERED_FOR: Duration = Duration::from_mins(15);
/// Messages that one look checks, of the young and of all.
const MESSAGES: u32 = 1_000;
/// How old the young are at most.
const YOUNG: Duration = Duration::from_hours(48);
/// Entries of the ledger that one look reads.
const LEDGER: u32 = 500;
/// Looks that a node may be late before another one looks in its place.
const TURN_LOOKS: u32 = 3;
/// How long the database may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Looks that the database fails before it is told.
const FAILED_LOOKS: u32 = 2;
/// How long a jump of the clock is shown.
const JUMP_SHOWN: Duration = Duration::from_hours(1);

/// The alerts that are raised, for whoever shows them. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    store: Store,
    failing: Arc<Mutex<Option<Alert>>>,
}

impl Board {
    /// A board of what `store` keeps.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            failing: Arc::default(),
        }
    }

    /// Every alert that is raised now. Without a database that answers, only
    /// that it does not.
    pub async fn alerts(&self) -> Vec<Alert> {
        let kept = tokio::time::timeout(Duration::from_secs(2), self.store.alerts()).await;
        let mut alerts = kept.ok().and_then(Result::ok).unwrap_or_default();
        alerts.extend(self.failing().clone());
        alerts
    }

    fn failing(&self) -> std::sync::MutexGuard<'_, Option<Alert>> {
        // A value that is replaced as a whole is never half changed.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until it is stopped.
pub struct Watch {
    store: Store,
    clock: Clock,
    current: Current,
    board: Board,
    node: String,
    endings: Endings,
    passed_over: PassedOver,
    courier: Courier,
    call: Call,
}

impl Watch {
    /// Watches `board`'s store. `node` names this node; it stays the same over
    /// a restart. `endings` says what ends one day, `passed_over` which parked
    /// parts fail.
    ///
    /// # Errors
    ///
    /// [`CourierError`] when the settings of the webhook cannot be used.
    pub fn new(
        board: Board,
        clock: Clock,
        current: Current,
        node: String,
        endings: Endings,
        passed_over: PassedOver,
    ) -> Result<Self, CourierError> {
        let store = board.store.clone();
        let settings = Arc::clone(&current.get().settings);
        let (courier, call) = Courier::new(store.clone(), clock.clone(), &settings)?;
        Ok(Self {
            store,
            clock,
            current,
            board,
            node,
            endings,
            passed_over,
            courier,
            call,
        })
    }

    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let look = Look {
            store: self.store,
            clock: self.clock,
            current: self.current,
            board: self.board,
            node: self.node,
            endings: self.endings,
            passed_over: self.passed_over,
            call: self.call,
            walks: Walks::default(),
            unseen: HashSet::new(),
            failed: 0,
            last: None,
            jump: None,
            clock_differs_since: None,
            unusable_since: None,
        };
        // What they remember stays when one of them has to start again.
        let courier = Arc::new(Shared::new(self.courier));
        let look = Arc::new(Shared::new(look));
        let bring = || {
            let (courier, stop) = (Arc::clone(&courier), stop.clone());
            async move { courier.lock().await.run(stop).await }
        };
        let watch = || {
            let (look, stop) = (Arc::clone(&look), stop.clone());
            async move { look.lock().await.run(stop).await }
        };
        tokio::join!(
            keep_running("alert courier", &stop, bring),
            keep_running("watch", &stop, watch),
        );
    }
}

/// Where the walks stand.
#[derive(Default)]
struct Walks {
    young: Walk,
    all: Walk,
    ledger: LedgerWalk,
    /// Silent cases of the walk that goes on.
    silent: u64,
    /// Entries of it that do not open.
    damaged: u64,
}

/// One node's look, and what it remembers of the last.
struct Look {
    store: Store,
    clock: Clock,
    current: Current,
    board: Board,
    node: String,
    endings: Endings,
    passed_over: PassedOver,
    call: Call,
    walks: Walks,
    /// What the last look did not see.
    unseen: HashSet<&'static str>,
    failed: u32,
    /// What both clocks said at the last look.
    last: Option<(Timestamp, Instant)>,
    jump: Option<(Instant, Timestamp, u64)>,
    /// When the clock was first seen to differ from the database's.
    clock_differs_since: Option<Timestamp>,
    /// When the configuration was first seen to be unusable.
    unusable_since: Option<Timestamp>,
}

impl Look {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.get().settings)
    }

    async fn run(&mut self, stop: CancellationToken) {
        loop {
            self.once().await;
            let pause = Duration::from_secs(self.settings().alerts.look_seconds);
            let waited = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            if waited.is_none() {
                return;
            }
        }
    }

    async fn once(&mut self) {
        let now = self.clock.now();
        self.look_at_clock(now);
        if !self.database_answers(now).await {
            return;
        }
        if let Err(cause) = self.settle(now).await {
            tracing::debug!("The look was not finished: {cause}");
        }
    }

    /// Compares the clock on the wall with one that nobody can set.
    fn look_at_clock(&mut self, now: Timestamp) {
        let ticked = Instant::now();
        let bound = self.settings().alerts.clock_jump_seconds;
        if let Some((wall, tick)) = self.last.replace((now, ticked)) {
            let by_wall = now.duration_since(wall).as_secs();
            let by_tick = i64::try_from(ticked.duration_since(tick).as_secs()).unwrap_or(0);
            let off = by_wall.abs_diff(by_tick);
            if off > bound {
                tracing::warn!(seconds = off, "The clock jumped by {off} seconds");
                self.jump = Some((ticked, now, off));
            }
        }
        if self
            .jump
            .is_some_and(|(at, _, _)| ticked.duration_since(at) > JUMP_SHOWN)
        {
            self.jump = None;
        }
    }

    /// Since when not all of the stored configuration can be used here, and how
    /// many parties cannot send.
    fn unusable(&mut self, now: Timestamp) -> Option<(Timestamp, u64)> {
        let setup = self.current.get();
        let parties = setup.directory.directory().parties.len();
        let silenced = setup.trouble().map(|trouble| trouble.silenced(parties));
        let since = silenced.map(|_| self.unusable_since.unwrap_or(now));
        self.unusable_since = since;
        since.zip(silenced)
    }

    /// Since when parked parts are passed over here, and how many are parked
    /// still.
    async fn parked_failing(&self) -> Result<Option<(Timestamp, u64)>, store::Error> {
        let passed_over = (self.passed_over)();
        if passed_over.is_empty() {
            return Ok(None);
        }
        let ids: Vec<String> = passed_over.keys().cloned().collect();
        let parked = self.store.still_parked(&ids).await?;
        let since = parked.iter().filter_map(|id| passed_over.get(id)).min();
        Ok(since.map(|since| (*since, parked.len() as u64)))
    }

    /// Since when the clocks differ by more than they may, and by how many
    /// seconds now.
    fn clock_differs(&mut self, seconds: Option<u64>, now: Timestamp) -> Option<(Timestamp, u64)> {
        let seconds = seconds.filter(|seconds| *seconds > CLOCKS_APART.as_secs() / 2);
        let since = seconds.map(|_| self.clock_differs_since.unwrap_or(now));
        self.clock_differs_since = since;
        since.zip(seconds)
    }

    async fn database_answers(&mut self, now: Timestamp) -> bool {
        let answer = tokio::time::timeout(ANSWER, self.store.health()).await;
        if matches!(answer, Ok(Ok(()))) {
            self.failed = 0;
            let over = self.board.failing().take();
            if let Some(alert) = over {
                self.tell_directly(&alert, Transition::Cleared, now);
            }
            return true;
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed == FAILED_LOOKS {
            let failing = Condition {
                name: AlertName::DatabaseFailing,
                subject: Subject::default().with("node", &self.node),
                since: now,
                number: 1,
                latest: None,
            };
            let alert = raise(&failing, now);
            *self.board.failing() = Some(alert.clone());
            self.tell_directly(&alert, Transition::Raised, now);
        }
        false
    }

    fn tell_directly(&self, alert: &Alert, transition: Transition, now: Timestamp) {
        log(alert, transition);
        if self.settings().alerts.url.is_some() {
            let summary = AlertName::DatabaseFailing.summary();
            self.call.bring(body(alert, transition, summary, now));
            self.call.ring();
        }
    }

    async fn settle(&mut self, now: Timestamp) -> Result<(), store::Error> {
        let settings = self.settings();
        // Read first: only what was raised before this look may be cleared by it.
        let raised = self.store.alerts().await?;
        let mut observed = Observed {
            clock_jump: Some(self.jump.map(|(_, since, seconds)| (since, seconds))),
            unusable: Some(self.unusable(now)),
            ..Observed::default()
        };
        let failing = self.parked_failing().await;
        observed.parked_failing = self.seen("parked parts that fail", failing);
        let difference = self.store.clock_difference().await;
        let difference = self.seen("the clock of the database", difference);
        observed.clock_differs = difference.map(|seconds| self.clock_differs(seconds, now));
        let turn = Duration::from_secs(settings.alerts.look_seconds) * TURN_LOOKS;
        if self.store.take_turn(&self.node, now, turn).await? {
            self.observe(&mut observed, now).await;
        }
        let setup = self.current.get();
        let holds = conditions(
            &observed,
            setup.directory.directory(),
            Bounds::of(&settings),
            &self.node,
            now,
        );
        let changes = changes(raised, &holds, &observed, &self.node, now);
        if changes.is_empty() {
            return Ok(());
        }
        let queue = settings.alerts.url.as_ref().map(|_| settings.alerts.queue);
        let told = changes.clone();
        let settled = self.store.settle_alerts(changes, now, queue).await?;
        for (alert, _) in &told.raised {
            log(alert, Transition::Raised);
        }
        for (alert, _) in &told.grown {
            log(alert, Transition::Grown);
        }
        for (alert, _) in &told.cleared {
            log(alert, Transition::Cleared);
        }
        counter!("sivi_alert_messages_dropped_total").increment(settled.dropped);
        self.call.ring();
        Ok(())
    }

    /// What all nodes share. What one question meets hides no other's answer.
    async fn observe(&mut self, observed: &mut Observed, now: Timestamp) {
        let store = self.store.clone();
        let waiting = store.waiting(now, OFFERED_FOR).await;
        observed.waiting = self.seen("waiting releases", waiting);
        observed.dead = self.seen("dead letters", store.dead_counts().await);
        let before = Bounds::of(&self.settings()).dead_ending_before(now);
        let ending = store.dead_ending(before).await;
        observed.dead_ending = self.seen("dead letters whose content ends", ending);
        observed.parked = self.seen("parked parts", store.parked_counts().await);
        observed.paused = self.seen("paused receivers", store.paused_receivers().await);
        let api_keys = self.seen("API keys", store.api_keys().await);
        observed.endings = api_keys.map(|api_keys| (self.endings)(&api_keys.readable, now));
        let walked = self.walk_messages(now).await;
        self.seen("messages", walked);
        observed.unaccounted = self.seen("messages in no state", store.settle_unaccounted().await);
        let walked = self.walk_ledger().await;
        observed.silent_cases = self.seen("ledger", walked).flatten();
    }

    /// The answer to a question; without one, says so once.
    fn seen<T>(&mut self, what: &'static str, answer: Result<T, store::Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                if self.unseen.remove(what) {
                    tracing::info!("The watch sees again: {what}");
                }
                Some(answer)
            }
            Err(cause) => {
                if self.unseen.insert(what) {
                    tracing::error!("The watch does not see: {what}: {cause}");
                }
                None
            }
        }
    }

    /// A step through the young messages, so that what breaks is seen soon,
    /// and a step through all of them.
    async fn walk_messages(&mut self, now: Timestamp) -> Result<(), store::Error> {
        let young = Walk::from(now.saturating_sub(YOUNG).unwrap_or(Timestamp::MIN));
        let from = self.walks.young.clone().max(young);
        let next = self.store.check_messages(&from, MESSAGES, now).await?;
        self.walks.young = next.unwrap_or_default();
        let next = self
            .store
            .check_messages(&self.walks.all, MESSAGES, now)
            .await?;
        self.walks.all = next.unwrap_or_default();
        Ok(())
    }

    /// A step through the ledger; the count once the walk is over.
    async fn walk_ledger(&mut self) -> Result<Option<u64>, store::Error> {
        let today = self.clock.today();
        let step = self.store.silent_cases(&self.walks.ledger, LEDGER, today);
        let step = step.await?;
        self.walks.silent += step.silent;
        self.walks.damaged += step.damaged;
        let is_over = step.next.is_none();
        self.walks.ledger = step.next.unwrap_or_default();
        if !is_over {
            return Ok(None);
        }
        let damaged = std::mem::take(&mut self.walks.damaged);
        if damaged > 0 {
            tracing::error!(
                number = damaged,
                "{damaged} entries of the ledger do not open: messages about these persons are \
                 refused until a backup is restored (docs/backup.md)"
            );
        }
        Ok(Some(std::mem::take(&mut self.walks.silent)))
    }
}

fn log(alert: &Alert, transition: Transition) {
    let (name, subject) = (&alert.name, &alert.subject);
    let number = alert.number;
    match transition {
        Transition::Raised => tracing::warn!(
            alert = %name, %subject, number,
            "Alert {name} was raised for {subject}: {number}"
        ),
        Transition::Grown => tracing::warn!(
            alert = %name, %subject, number,
            "Alert {name} grew for {subject}: {number}"
        ),
        Transition::Cleared => tracing::info!(
            alert = %name, %subject,
            "Alert {name} is over for {subject}"
        ),
    }
}

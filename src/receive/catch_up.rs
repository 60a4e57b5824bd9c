//! After a change of the configuration, and when a day begins, what waits is
//! taken up again while messages go on coming in.
//!
//! The change counts at once. Until everything that waits was tried with it,
//! a message first takes up what waits for its own persons
//! ([`Intake::let_go_before`]), so that nothing newer passes it. So the walk
//! may take as long as it likes, and nobody waits for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use metrics::gauge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::intake::{Intake, Refusal, refusal};
use super::plan::Planner;
use super::waiting::Unparked;
use crate::clock;
use crate::domain::{KeyedHash, PartyId};
use crate::policy::Identity;
use crate::setup::Setup;
use crate::store::{Error, ParkedFilter, ParkedItem, UnparkError};

/// Pauses before a walk that was cut short goes on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How long into a day another node may still park with the day before: its
/// clock may be behind ([`store::CLOCKS_APART`] of the database's, as ours may
/// be ahead), and what it decided has to be written.
const DAY_BEGINS_EVERYWHERE: Duration = Duration::from_mins(6);

/// How often a walk begins again at a part that fails.
const PATIENCE: u32 = 6;

/// How far what waits was taken up. Cheap to clone.
#[derive(Clone)]
pub struct CatchUp(Arc<Shared>);

struct Shared {
    /// Changes that are about to count.
    begun: AtomicU64,
    /// Changes that count.
    counts: watch::Sender<u64>,
    done: Mutex<Done>,
    /// The days of the last change.
    days: Mutex<Days>,
    /// Who works with what counted until now.
    at_work: Mutex<TaskTracker>,
    /// Held by whoever has a parked part in hand for a message: parts are
    /// large, so it is one at a time, however many messages come in.
    turn: tokio::sync::Mutex<()>,
    /// How often something was parked here.
    parked: AtomicU64,
    /// What `parked` was when nothing waited.
    nothing_waited: AtomicU64,
    /// Parts that failed time and again, and since when they are passed over.
    passed_over: Mutex<BTreeMap<String, Timestamp>>,
}

/// The last change and the day with which everything was tried.
#[derive(Clone, Copy)]
struct Done {
    change: u64,
    /// The last day that had begun on every node.
    day: Date,
}

/// What day it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    here: Date,
    /// The last day that has begun on every node.
    everywhere: Date,
}

impl Days {
    /// At `now`; `is_shared` where other nodes park in the same store, by
    /// clocks of their own.
    #[must_use]
    pub fn at(now: Timestamp, is_shared: bool) -> Self {
        let behind = if is_shared {
            DAY_BEGINS_EVERYWHERE
        } else {
            Duration::ZERO
        };
        let everywhere = now.saturating_sub(behind).unwrap_or(now);
        Self {
            here: clock::civil_at(now).date(),
            everywhere: clock::civil_at(everywhere).date(),
        }
    }
}

impl CatchUp {
    /// Nothing to catch up with on these days; something may wait for a report.
    #[must_use]
    pub fn new(days: Days) -> Self {
        Self(Arc::new(Shared {
            begun: AtomicU64::new(0),
            counts: watch::Sender::new(0),
            done: Mutex::new(Done {
                change: 0,
                day: days.everywhere,
            }),
            days: Mutex::new(days),
            at_work: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            parked: AtomicU64::new(1),
            nothing_waited: AtomicU64::new(0),
            passed_over: Mutex::default(),
        }))
    }

    /// Makes a change count by `publish`, after which everything that waits is
    /// tried again.
    pub fn change(&self, publish: impl FnOnce()) {
        // Who sees the change also sees that what waits goes first.
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        gauge!("sivi_catching_up").set(1.0);
        publish();
        self.0.counts.send_modify(|changes| *changes += 1);
    }

    /// A new day makes routes valid and ends others, as a change does: here,
    /// and once more when no node parks with the day before any longer.
    pub fn follow(&self, days: Days) {
        if std::mem::replace(&mut *lock(&self.0.days), days) != days {
            self.change(|| {});
        }
    }

    /// Whether everything that waits was tried with every change.
    #[must_use]
    pub fn has_settled(&self) -> bool {
        lock(&self.0.done).change == self.0.begun.load(Ordering::Acquire)
    }

    /// The same, on `day`, after it had begun on every node.
    #[must_use]
    pub fn is_over(&self, day: Date) -> bool {
        lock(&self.0.done).day >= day && self.has_settled()
    }

    /// Held by whoever works with a configuration, from before it is looked up
    /// until nothing more is written with it.
    pub fn enter(&self) -> TaskTrackerToken {
        lock(&self.0.at_work).token()
    }

    /// Waits for those who may work with what counted before.
    async fn others_ended(&self) {
        let before = std::mem::take(&mut *lock(&self.0.at_work));
        before.close();
        before.wait().await;
    }

    /// The parts that failed time and again, by id, and since when newer
    /// reports of their persons go before them; also those that were discarded
    /// since.
    #[must_use]
    pub fn passed_over(&self) -> BTreeMap<String, Timestamp> {
        lock(&self.0.passed_over).clone()
    }

    fn settle(&self, done: Done) {
        *lock(&self.0.done) = done;
        if self.has_settled() {
            gauge!("sivi_catching_up").set(0.0);
        }
    }

    /// Waits until nobody has a parked part in hand for another message.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Notes that something was parked here.
    pub(super) fn note_parked(&self) {
        self.0.parked.fetch_add(1, Ordering::AcqRel);
    }

    /// False when nothing can wait for a report, as far as this process knows.
    pub(super) fn something_waits(&self) -> bool {
        let parked = self.0.parked.load(Ordering::Acquire);
        parked != self.0.nothing_waited.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values that are replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a walk stands.
#[derive(Default)]
struct Place {
    /// Behind this part.
    after: Option<String>,
    /// The part that failed last, and how often in a row.
    failing: Option<(String, u32)>,
}

/// How it went with one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// It went, waits for something else, or is gone.
    Done,
    /// The configuration or the clock of this node is not the store's: no fault
    /// of the part.
    NotNow,
    /// It could not go.
    Failed,
}

/// How a walk over everything that waits ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walked {
    /// Everything was tried.
    All,
    /// Another change counts meanwhile: begin again.
    Overtaken,
    /// The store cannot go on now, or has a configuration that is not in use
    /// here yet.
    CutShort,
}

impl Intake {
    /// Takes up what waits after every change, until `stop`.
    pub async fn keep_up(self, stop: CancellationToken) {
        // None is the stop.
        let _ = stop.run_until_cancelled(self.follow_changes()).await;
    }

    /// What day it is.
    #[must_use]
    pub fn days(&self) -> Days {
        Days::at(self.clock.now(), self.store.is_shared())
    }

    async fn follow_changes(&self) {
        let mut counts = self.catch_up.0.counts.subscribe();
        let (mut begun, mut place) = (None, Place::default());
        let mut pause = FIRST_PAUSE;
        loop {
            let (change, day) = (*counts.borrow_and_update(), self.days().everywhere);
            let done = *lock(&self.catch_up.0.done);
            if done.change == change && done.day >= day {
                if counts.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if begun != Some((change, day)) {
                (begun, place) = (Some((change, day)), Place::default());
                // What they park now is not missed.
                self.catch_up.others_ended().await;
            }
            match self.walk(change, &mut place).await {
                Walked::All => self.catch_up.settle(Done { change, day }),
                Walked::Overtaken => {}
                Walked::CutShort => {
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                    continue;
                }
            }
            pause = FIRST_PAUSE;
        }
    }

    /// Releases what waits and has a way to go now, oldest first, before
    /// anybody is served. What the store cannot give now is tried later.
    pub async fn release_all_parked(&self) {
        let change = *self.catch_up.0.counts.borrow();
        if self.walk(change, &mut Place::default()).await != Walked::All {
            self.catch_up.change(|| {});
        }
    }

    /// Tries everything that waits behind `place`, which moves along.
    async fn walk(&self, change: u64, place: &mut Place) -> Walked {
        let parked = self.catch_up.0.parked.load(Ordering::Acquire);
        loop {
            let filter = ParkedFilter {
                after: place.after.clone(),
                ..ParkedFilter::default()
            };
            let items = match self.store.parked(&filter).await {
                Ok(items) => items,
                Err(cause) => {
                    tracing::warn!("Parked parts were not looked at: {cause}");
                    return Walked::CutShort;
                }
            };
            let Some(last) = items.last().map(|item| item.id.clone()) else {
                break;
            };
            for item in items.into_iter().map(Arc::new) {
                if *self.catch_up.0.counts.borrow() != change {
                    return Walked::Overtaken;
                }
                match self.let_go_apart(&item).await {
                    Tried::Done => {}
                    Tried::Failed if self.is_beyond(&item, place).await => {}
                    Tried::Failed | Tried::NotNow => return Walked::CutShort,
                }
            }
            place.after = Some(last);
        }
        if place.after.is_none() && self.nothing_is_parked().await {
            let nothing_waited = &self.catch_up.0.nothing_waited;
            nothing_waited.store(parked, Ordering::Release);
        }
        Walked::All
    }

    /// Tries one part. When that panics, it failed: what is behind it must not
    /// wait for a fault of ours.
    async fn let_go_apart(&self, item: &Arc<ParkedItem>) -> Tried {
        let (intake, item) = (self.clone(), Arc::clone(item));
        let tried = async move {
            match intake.let_go(&intake.current.get(), &item).await {
                Ok(()) => Tried::Done,
                Err(UnparkError::Stale | UnparkError::OtherDay) => Tried::NotNow,
                Err(UnparkError::Gone | UnparkError::Conflict | UnparkError::Store(_)) => {
                    Tried::Failed
                }
            }
        };
        unless_it_panics(tried).await.unwrap_or(Tried::Failed)
    }

    /// Not even what does not open now: it may later, with its key.
    async fn nothing_is_parked(&self) -> bool {
        let page = self.store.parked_page(&ParkedFilter::default(), 1).await;
        page.is_ok_and(|page| page.parts.is_empty())
    }

    /// True for a part that failed time and again although the store takes
    /// writes.
    async fn is_beyond(&self, item: &ParkedItem, place: &mut Place) -> bool {
        match &mut place.failing {
            Some((id, times)) if *id == item.id => *times += 1,
            failing => *failing = Some((item.id.clone(), 1)),
        }
        let times = place.failing.as_ref().map_or(0, |(_, times)| *times);
        if times < PATIENCE || self.store.health().await.is_err() {
            return false;
        }
        self.pass_over(item);
        true
    }

    /// Notes a part that fails by a fault. It must not keep the others waiting,
    /// nor every message that is also about its persons, so newer reports go
    /// before it; an alert tells it at once.
    fn pass_over(&self, item: &ParkedItem) {
        let now = self.clock.now();
        let mut passed_over = lock(&self.catch_up.0.passed_over);
        if let Entry::Vacant(place) = passed_over.entry(item.id.clone()) {
            place.insert(now);
            tracing::error!(
                parked.id = %item.id,
                "Parked part {} cannot be released and is passed over: look at it with parked show",
                item.id
            );
        }
    }

    /// Takes up what waits for the persons of a message, before the message,
    /// while not everything that waits was tried.
    ///
    /// # Errors
    ///
    /// `Refusal::Busy` or `Refusal::Stale`: the message would pass what waits.
    pub(super) async fn let_go_before(&self, planner: &Planner<'_>) -> Result<(), Refusal> {
        let day = clock::civil_at(planner.now).date();
        if self.catch_up.is_over(day) {
            return Ok(());
        }
        let persons = persons_anyhow(planner, day);
        match self.let_go_with(planner.setup, &persons, |_| true).await {
            Ok(()) => Ok(()),
            Err(UnparkError::Stale) => Err(Refusal::Stale),
            Err(UnparkError::OtherDay) => Err(Refusal::OtherDay),
            Err(UnparkError::Store(cause)) => Err(refusal(cause)),
            Err(UnparkError::Gone | UnparkError::Conflict) => Err(Refusal::Busy(Vec::new())),
        }
    }

    /// Tries what waits for these persons, and for whoever waits with them:
    /// a part that goes takes nobody's older part over. One by one, since parts
    /// are large; who comes second finds them gone.
    ///
    /// # Errors
    ///
    /// What keeps any part from being released now.
    pub(super) async fn let_go_with(
        &self,
        setup: &Setup,
        persons: &[KeyedHash],
        is_meant: impl Fn(&ParkedItem) -> bool,
    ) -> Result<(), UnparkError> {
        let ids = self.store.parked_with(persons).await;
        for id in ids.map_err(UnparkError::Store)? {
            // For each anew: others with few parts do not wait for all of these.
            let _turn = self.catch_up.turn().await;
            let item = self.store.parked_item(&id).await;
            let Some(item) = item.map_err(UnparkError::Store)? else {
                continue;
            };
            if is_meant(&item) {
                self.let_go(setup, &item).await?;
            }
        }
        Ok(())
    }

    /// Releases a parked part if it has a way to go.
    ///
    /// # Errors
    ///
    /// What keeps any part from being released now.
    pub(super) async fn let_go(&self, setup: &Setup, item: &ParkedItem) -> Result<(), UnparkError> {
        match self.release_one(setup, item).await {
            Ok(Unparked::Released { .. }) => {
                lock(&self.catch_up.0.passed_over).remove(&item.id);
                tracing::info!(parked.id = %item.id, "Released parked part {}", item.id);
                Ok(())
            }
            Ok(Unparked::Unreadable) => {
                // Without the mapping of its party nobody can tell; that has an
                // alert of its own.
                if setup.standing(&item.party).is_some() {
                    self.pass_over(item);
                }
                Ok(())
            }
            // Gone: somebody else released it.
            Ok(Unparked::Waits(_) | Unparked::Gone) | Err(UnparkError::Gone) => Ok(()),
            Err(UnparkError::Stale) => {
                self.look_again.notify_one();
                Err(UnparkError::Stale)
            }
            // Others change the same cases all the time, or the clock is wrong.
            Err(cause @ (UnparkError::Conflict | UnparkError::OtherDay)) => Err(cause),
            Err(UnparkError::Store(cause)) => {
                tracing::warn!(parked.id = %item.id, "Parked part {} stays: {cause}", item.id);
                match cause {
                    Error::Busy | Error::Unavailable(_) => Err(UnparkError::Store(cause)),
                    // This part alone.
                    Error::Conflict
                    | Error::WrongKeys
                    | Error::StoreLost
                    | Error::Moved { .. }
                    | Error::Damaged { .. } => {
                        self.pass_over(item);
                        Ok(())
                    }
                }
            }
        }
    }
}

/// What `work` gives, and none when it panics.
async fn unless_it_panics<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    // Ends with whoever waits for it.
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await?.ok()
}

/// Everybody whom a message is about, also by a former id, as whoever parked
/// something about them may have known them.
fn persons_anyhow(planner: &Planner<'_>, day: Date) -> Vec<KeyedHash> {
    let (setup, model) = (planner.setup, &planner.message.model);
    let employers = model.employers.iter();
    let employees = employers.flat_map(|employer| &employer.employees);
    let employees = employees.chain(model.items.iter().map(|item| &item.employee));
    let ids = employees.flat_map(|employee| [Some(&employee.id), employee.former_id.as_ref()]);
    let ids: BTreeSet<&String> = ids.flatten().collect();
    let tenants = setup.directory.tenants_of_receiver(planner.party, day);
    let sources = tenants.map(|tenant| &tenant.source);
    let sources: BTreeSet<&PartyId> = sources.chain([planner.party]).collect();
    let hashes = sources.into_iter().flat_map(|source| {
        let identity = Identity::of(&setup.keys, source);
        ids.iter().map(move |id| identity.person(id))
    });
    hashes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[tokio::test]
    async fn what_panics_fails_and_takes_nobody_along() {
        assert_eq!(unless_it_panics(async { 1 }).await, Some(1));
        assert_eq!(
            unless_it_panics(async { panic!("on purpose") }).await,
            None::<()>
        );
    }

    #[test]
    fn a_day_has_begun_everywhere_when_no_clock_shows_the_day_before() {
        let at = |time: &str, is_shared| Days::at(time.parse().unwrap(), is_shared);
        let (before, after) = (date(2026, 11, 22), date(2026, 11, 23));
        let days = |here, everywhere| Days { here, everywhere };
        assert_eq!(at("2026-11-22T22:59:59Z", true), days(before, before));
        assert_eq!(at("2026-11-22T23:00:00Z", false), days(after, after));
        assert_eq!(at("2026-11-22T23:00:00Z", true), days(after, before));
        assert_eq!(at("2026-11-22T23:05:59Z", true), days(after, before));
        assert_eq!(at("2026-11-22T23:06:00Z", true), days(after, after));
    }
}

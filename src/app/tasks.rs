//! What the daemon does in the background, until it is stopped. What panics is
//! started again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::receive::Intake;
use crate::store::{Expired, Store, Terms};
use crate::supervise::keep_running;

/// How often the key ring is compared with the one in use. The contract gives
/// five seconds.
const FOLLOW_RING: Duration = Duration::from_secs(1);
/// How often what is out of date is removed.
const SWEEP: Duration = Duration::from_mins(10);
/// How often times of last use are written.
const TOUCH: Duration = Duration::from_secs(20);

/// The tasks of a daemon.
pub(super) struct Tasks {
    running: JoinSet<()>,
    stop: CancellationToken,
}

impl Tasks {
    /// None yet; all of them end after `stop`.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            running: JoinSet::new(),
            stop,
        }
    }

    /// Starts a task, and again whenever it panics.
    pub(super) fn start<T>(
        &mut self,
        name: &'static str,
        task: impl Fn(CancellationToken) -> T + Send + Sync + 'static,
    ) where
        T: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            keep_running(name, &stop, || task(stop.clone())).await;
        });
    }

    /// Starts what looks after its own tasks.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Starts what keeps the store in order.
    pub(super) fn start_housekeeping(
        &mut self,
        store: &Store,
        intake: &Intake,
        used_keys: mpsc::Receiver<String>,
    ) {
        let of_ring = store.clone();
        self.start("key ring", move |stop| follow_ring(of_ring.clone(), stop));
        let (swept, of_sweep) = (store.clone(), intake.clone());
        self.start("retention", move |stop| {
            sweep(swept.clone(), of_sweep.clone(), stop)
        });
        let (touched, clock) = (store.clone(), intake.clock.clone());
        let used = Arc::new(Mutex::new(used_keys));
        self.start("use of API keys", move |stop| {
            touch(touched.clone(), clock.clone(), Arc::clone(&used), stop)
        });
    }

    /// Stops everything when nothing can be written any more; what is given is
    /// cancelled then.
    pub(super) fn stop_with(&mut self, store: &Store) -> CancellationToken {
        let (store, stop, ended) = (store.clone(), self.stop.clone(), CancellationToken::new());
        let told = ended.clone();
        self.running.spawn(async move {
            if stop.run_until_cancelled(store.ended()).await.is_some() {
                told.cancel();
                stop.cancel();
            }
        });
        ended
    }

    /// Waits until all have ended.
    pub(super) async fn ended(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Follows changes of the key ring: new keys, and keys that were destroyed.
async fn follow_ring(store: Store, stop: CancellationToken) {
    let mut failed_before = false;
    while stop
        .run_until_cancelled(tokio::time::sleep(FOLLOW_RING))
        .await
        .is_some()
    {
        let followed = store.follow_ring().await;
        match &followed {
            Ok(true) => tracing::info!("The key ring was read again"),
            Err(cause) if !failed_before => {
                tracing::error!("The key ring cannot be compared; open keys stay: {cause}");
            }
            _ => {}
        }
        failed_before = followed.is_err();
    }
}

/// Removes what is out of date: recovered persons after the window, parked
/// parts, remembered cases.
async fn sweep(store: Store, intake: Intake, stop: CancellationToken) {
    loop {
        let days = intake.current.get().settings.limits.parked_days;
        let days = u32::try_from(days).unwrap_or(u32::MAX);
        if let Err(cause) = store.forget(intake.clock.today()).await {
            tracing::warn!("The ledger was not cleaned: {cause}");
        }
        let limits = &intake.current.get().settings.limits;
        let age = |days: u64| Duration::from_secs(days.saturating_mul(86_400));
        let terms = Terms {
            replay: age(limits.replay_days),
            dead: age(limits.dead_days),
            receipt: age(limits.receipt_days),
        };
        match store.expire(intake.clock.now(), &terms).await {
            Ok(Expired { dead: 0, .. }) => {}
            Ok(Expired { dead: count, .. }) => {
                let days = limits.dead_days;
                tracing::warn!(
                    count,
                    "The content of {count} dead letters was removed after {days} days; they stay listed"
                );
            }
            Err(cause) => tracing::warn!("What is finished was not removed: {cause}"),
        }
        match store.expire_parked(intake.clock.now(), days).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "{count} parked parts were dropped after {days} days");
            }
            Err(cause) => tracing::warn!("Parked parts were not cleaned: {cause}"),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(SWEEP))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Writes when API keys were last used.
async fn touch(
    store: Store,
    clock: Clock,
    used: Arc<Mutex<mpsc::Receiver<String>>>,
    stop: CancellationToken,
) {
    let mut used = used.lock().await;
    let mut seen = BTreeMap::new();
    loop {
        let waited = stop.run_until_cancelled(tokio::time::sleep(TOUCH)).await;
        while let Ok(key) = used.try_recv() {
            seen.insert(key, clock.now());
        }
        let keys = std::mem::take(&mut seen).into_iter().collect::<Vec<_>>();
        if !keys.is_empty()
            && let Err(cause) = store.touch_keys(keys).await
        {
            tracing::warn!("Times of last use were not written: {cause}");
        }
        if waited.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_task_that_panics_runs_again_and_ends_with_the_daemon() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let (fails, works) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        fails.notify_one();
        let told = Arc::clone(&works);
        tasks.start("test", move |stop| {
            let (fails, works) = (Arc::clone(&fails), Arc::clone(&told));
            async move {
                works.notify_one();
                tokio::select! {
                    () = fails.notified() => panic!("on purpose"),
                    () = stop.cancelled() => {}
                }
            }
        });
        works.notified().await;
        works.notified().await;
        stop.cancel();
        tasks.ended().await;
    }
}

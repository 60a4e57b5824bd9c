//! A task that panics is started again: nothing that works in the background
//! may stand still until somebody notices.
//!
//! What a panic says is not repeated: it may name what it met.

use std::future::Future;
use std::io::{self, Write as _};
use std::time::Duration;

use metrics::counter;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Pauses before a task starts again: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// After working so long a task counts as one that works.
const STEADY: Duration = Duration::from_mins(10);

/// Runs the task that `start` gives until it ends by itself, and another one
/// whenever one panics, after a pause that `tell` is told. Ends in a pause at
/// once when `stop` is cancelled; the task itself has to look at it.
pub async fn supervise<T>(
    stop: &CancellationToken,
    start: impl Fn() -> T + Send,
    tell: impl Fn(Duration) + Send,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Pauses(FIRST_PAUSE);
    loop {
        let started = Instant::now();
        // Ends with whoever supervises it.
        let mut task = JoinSet::new();
        task.spawn(start());
        let ended = task.join_next().await;
        if !matches!(ended, Some(Err(cause)) if cause.is_panic()) {
            return;
        }
        let pause = pauses.after(started.elapsed());
        tell(pause);
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// From now on a panic is told by its place alone, in the log or, where there
/// is none, on standard error: what it says may hold what it met, and the hook of
/// the standard library prints that.
pub fn tell_panics_by_place() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location();
        let place = place.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "A fault of ours at {place}");
        } else {
            // A hook that panics ends the process.
            let _ = writeln!(io::stderr(), "sivi-gateway: a fault of ours at {place}");
        }
    }));
}

/// The next pause.
struct Pauses(Duration);

impl Pauses {
    /// The pause after a task that worked so long.
    fn after(&mut self, worked: Duration) -> Duration {
        if worked > STEADY {
            self.0 = FIRST_PAUSE;
        }
        let longer = LONGEST_PAUSE.min(self.0 * 2);
        std::mem::replace(&mut self.0, longer)
    }
}

/// [`supervise`] for a part of the daemon, under the name that the log and
/// `sivi_task_restarts_total` give it.
pub async fn keep_running<T>(
    name: &'static str,
    stop: &CancellationToken,
    start: impl Fn() -> T + Send,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let tell = |pause: Duration| {
        counter!("sivi_task_restarts_total", "task" => name).increment(1);
        tracing::error!(
            task = name,
            "The task \"{name}\" failed by a fault of ours; it starts again in {} s",
            pause.as_secs()
        );
    };
    supervise(stop, start, tell).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// How often a task starts that panics the first `times` times.
    async fn starts_of_panicking(times: u32) -> u32 {
        let starts = Arc::new(AtomicU32::new(0));
        let start = || {
            let starts = Arc::clone(&starts);
            async move {
                let nth = starts.fetch_add(1, Ordering::SeqCst);
                assert!(nth >= times, "on purpose");
            }
        };
        keep_running("test", &CancellationToken::new(), start).await;
        starts.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_again() {
        assert_eq!(starts_of_panicking(1).await, 2);
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_not_started_again() {
        assert_eq!(starts_of_panicking(0).await, 1);
    }

    #[test]
    fn pauses_grow_up_to_a_minute_and_begin_anew_after_steady_work() {
        let mut pauses = Pauses(FIRST_PAUSE);
        let mut after = |worked| pauses.after(worked).as_secs();
        let grown: Vec<u64> = (0..8).map(|_| after(Duration::ZERO)).collect();
        assert_eq!(grown, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(after(STEADY * 2), 1);
        assert_eq!(after(Duration::ZERO), 2);
    }

    #[tokio::test]
    async fn a_task_that_panics_holds_up_no_stop() {
        let stop = CancellationToken::new();
        stop.cancel();
        keep_running("test", &stop, || async { panic!("on purpose") }).await;
    }
}

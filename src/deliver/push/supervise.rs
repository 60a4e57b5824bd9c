//! A worker that panics is started again: its receiver must not go without
//! messages until somebody notices.

use std::future::Future;
use std::time::Duration;

use metrics::counter;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::store::PushInbox;

/// Pauses before a worker starts again: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// After working so long a worker counts as one that works.
const STEADY: Duration = Duration::from_mins(10);

/// Runs the worker of `inbox` that `start` gives until it ends by itself, and
/// another one whenever one panics. What that had on its way comes again when
/// its leases run out.
pub(super) async fn supervise<W>(
    inbox: &PushInbox,
    stop: &CancellationToken,
    start: impl Fn() -> W + Send,
) where
    W: Future<Output = ()> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        // Ends with whoever supervises it.
        let mut worker = JoinSet::new();
        worker.spawn(start());
        let ended = worker.join_next().await;
        if !matches!(ended, Some(Err(cause)) if cause.is_panic()) {
            return;
        }
        if started.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        let (party, test) = (&inbox.party, inbox.test);
        counter!("sivi_push_restarts_total", "party" => party.to_string()).increment(1);
        tracing::error!(
            %party, test,
            "The worker that pushes to {party} failed by a fault of ours; it starts again in {} s",
            pause.as_secs()
        );
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PartyId;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn inbox() -> PushInbox {
        PushInbox {
            party: PartyId::parse("arbo").unwrap(),
            test: false,
            max_in_flight: 1,
            ttl: Duration::from_secs(10),
        }
    }

    #[tokio::test]
    async fn a_worker_that_panics_is_started_again() {
        let starts = Arc::new(AtomicU32::new(0));
        let start = || {
            let starts = Arc::clone(&starts);
            async move {
                let nth = starts.fetch_add(1, Ordering::SeqCst);
                assert!(nth > 0, "on purpose");
            }
        };
        supervise(&inbox(), &CancellationToken::new(), start).await;
        assert_eq!(starts.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_worker_that_panics_holds_up_no_stop() {
        let stop = CancellationToken::new();
        stop.cancel();
        supervise(&inbox(), &stop, || async { panic!("on purpose") }).await;
    }
}

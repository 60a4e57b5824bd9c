//! The long poll: waits for an inbox to have something, without asking the
//! database while nothing happens.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until};

use super::inbox::{Counter, store_problem};
use crate::access::Running;
use crate::domain::PartyId;
use crate::http::Problem;
use crate::store::Leased;

/// How often a waiting poller looks without being woken: for leases that ran
/// out and for messages that another process accepted.
const LOOK: Duration = Duration::from_secs(3);

/// What a poller asks for.
pub(super) struct Request<'a> {
    pub party: &'a PartyId,
    pub test: bool,
    pub limit: usize,
    pub ttl: Duration,
    pub wait: Duration,
}

/// Leases what is there, or waits up to `wait` for the first message, if it
/// `may_wait`. A stop ends the wait, never a lease: what was leased is answered.
pub(super) async fn lease(
    counter: &Counter,
    request: &Request<'_>,
    may_wait: impl FnOnce() -> Result<Running, Problem>,
) -> Result<Vec<Leased>, Problem> {
    let Counter { store, stop, .. } = counter;
    // Subscribed before the first look, so that nothing is missed between.
    let mut bell = store.watch(request.party, request.test);
    let until = Instant::now() + request.wait;
    let mut may_wait = Some(may_wait);
    let mut _waiting = None;
    loop {
        bell.mark_unchanged();
        let leased = store
            .lease(request.party, request.test, request.limit, request.ttl)
            .await
            .map_err(|cause| store_problem(&cause))?;
        if !leased.is_empty() || Instant::now() >= until || stop.is_cancelled() {
            return Ok(leased);
        }
        if let Some(may_wait) = may_wait.take() {
            _waiting = Some(may_wait()?);
        }
        let next = until.min(Instant::now() + LOOK);
        tokio::select! {
            rung = bell.changed() => {
                if rung.is_err() {
                    return Ok(Vec::new());
                }
            }
            () = sleep_until(next) => {}
            () = stop.cancelled() => return Ok(Vec::new()),
        }
    }
}

/// A number of days as the store takes it.
pub(super) fn days(count: u64) -> Duration {
    let hours = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(24);
    SignedDuration::from_hours(hours.min(1_000_000)).unsigned_abs()
}

//! The long poll: waits for an inbox to have something, without asking the
//! database while nothing happens.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until};

use super::answers::Turn;
use super::inbox::{Counter, store_problem};
use crate::access::{Caller, Running};
use crate::http::Problem;
use crate::store::Leased;

/// How often a waiting poller looks without being woken: for leases that ran
/// out and for messages that another process accepted.
const LOOK: Duration = Duration::from_secs(3);

/// What a poller asks for.
pub(super) struct Request<'a> {
    pub caller: &'a Caller,
    pub test: bool,
    pub limit: usize,
    pub ttl: Duration,
    pub wait: Duration,
}

/// What was leased, and the turn in which it becomes an answer.
pub(super) struct Found {
    pub leased: Vec<Leased>,
    pub turn: Turn,
}

/// Leases what is there, or waits up to `wait` for the first message, if it
/// `may_wait`; `None` when there is nothing. A stop ends the wait, never a lease:
/// what was leased is answered.
pub(super) async fn lease(
    counter: &Counter,
    request: &Request<'_>,
    may_wait: impl FnOnce() -> Result<Running, Problem>,
) -> Result<Option<Found>, Problem> {
    let Counter { store, stop, .. } = counter;
    let party = &request.caller.party;
    // Subscribed before the first look, so that nothing is missed between.
    let mut bell = store.watch(party, request.test);
    let until = Instant::now() + request.wait;
    let mut may_wait = Some(may_wait);
    let mut _waiting = None;
    loop {
        bell.mark_unchanged();
        if may_wait.is_none() {
            // Whoever waited gets nothing with a key that was revoked meanwhile.
            request.caller.again(&counter.door)?;
        }
        let turn = counter.answers.turn(request.caller).await?;
        let leased = store
            .lease(party, request.test, request.limit, request.ttl)
            .await
            .map_err(|cause| store_problem(&cause))?;
        if !leased.is_empty() {
            return Ok(Some(Found { leased, turn }));
        }
        drop(turn);
        if Instant::now() >= until || stop.is_cancelled() {
            return Ok(None);
        }
        if let Some(may_wait) = may_wait.take() {
            _waiting = Some(may_wait()?);
        }
        let next = until.min(Instant::now() + LOOK);
        tokio::select! {
            rung = bell.changed() => {
                if rung.is_err() {
                    return Ok(None);
                }
            }
            () = sleep_until(next) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// A number of days as the store takes it.
pub(super) fn days(count: u64) -> Duration {
    let hours = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(24);
    SignedDuration::from_hours(hours.min(1_000_000)).unsigned_abs()
}

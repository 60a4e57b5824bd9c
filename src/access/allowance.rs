//! What one party may do: so much a minute, so many at once.
//!
//! Rates go by the generic cell rate algorithm (ITU-T I.371, annex A): a
//! minute's worth may come at once, after that one by one as time goes by.
//! Unlike counts per minute, no edge of a window lets twice as many in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use metrics::counter;

use super::Caller;
use crate::clock::Clock;
use crate::domain::PartyId;
use crate::http::{Kind, Problem};
use crate::setup::Setup;

const MINUTE: u128 = Duration::from_mins(1).as_nanos();
/// When a party may try again that did too much at once: nobody knows when
/// one of those ends.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// A bound on one party: a setting under `limits`, or the party's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Messages per minute.
    MessagesPerMinute,
    /// Bytes of messages per minute, as they come over the line.
    BytesPerMinute,
    /// Messages being sent at once.
    UploadsPerParty,
    /// Requests per minute other than messages.
    RequestsPerMinute,
    /// Polls that wait at once.
    PollsPerParty,
}

impl Limit {
    /// The name of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessagesPerMinute => "messages_per_minute",
            Self::BytesPerMinute => "bytes_per_minute",
            Self::UploadsPerParty => "uploads_per_party",
            Self::RequestsPerMinute => "requests_per_minute",
            Self::PollsPerParty => "polls_per_party",
        }
    }

    /// What holds for a party; `None` is no limit.
    fn of(self, setup: &Setup, party: &PartyId) -> Option<u64> {
        let all = &setup.settings.limits;
        let own = setup.party(party).map(|party| party.limits);
        let own = own.unwrap_or_default();
        let amount = match self {
            Self::MessagesPerMinute => own.messages_per_minute.map(u64::from),
            Self::BytesPerMinute => own.bytes_per_minute,
            Self::UploadsPerParty => own.uploads_per_party.map(u64::from),
            Self::RequestsPerMinute => own.requests_per_minute.map(u64::from),
            Self::PollsPerParty => own.polls_per_party.map(u64::from),
        };
        let amount = amount.unwrap_or(match self {
            Self::MessagesPerMinute => all.messages_per_minute,
            Self::BytesPerMinute => all.bytes_per_minute,
            Self::UploadsPerParty => all.uploads_per_party,
            Self::RequestsPerMinute => all.requests_per_minute,
            Self::PollsPerParty => all.polls_per_party,
        });
        (amount > 0).then_some(amount)
    }

    fn exceeded(self, amount: u64, pause: Duration) -> Problem {
        counter!("sivi_requests_limited_total", "limit" => self.as_str()).increment(1);
        Problem::new(Kind::RateLimited)
            .detail(format!(
                "limits.{} is {amount} for this party",
                self.as_str()
            ))
            .retry_after(pause)
    }
}

/// What each party did lately, and what it is doing.
#[derive(Clone)]
pub struct Allowances {
    clock: Clock,
    buckets: Arc<Mutex<HashMap<(PartyId, Limit), Bucket>>>,
    running: Arc<Mutex<HashMap<(PartyId, Limit), u64>>>,
}

impl Allowances {
    /// Nobody did anything yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            buckets: Arc::default(),
            running: Arc::default(),
        }
    }

    /// Admits one more of what `limit` counts per minute.
    ///
    /// # Errors
    ///
    /// [`Kind::RateLimited`], which says when there is room again.
    pub fn admit(&self, caller: &Caller, limit: Limit) -> Result<(), Problem> {
        self.ask(caller, limit, Bucket::take)
    }

    /// Whether there is room at all for something of unknown size, which is
    /// charged when it is known.
    ///
    /// # Errors
    ///
    /// As [`Allowances::admit`].
    pub fn check(&self, caller: &Caller, limit: Limit) -> Result<(), Problem> {
        self.ask(caller, limit, |bucket, _| bucket.room())
    }

    /// Charges what came; what goes beyond the bound is paid off first.
    pub fn charge(&self, caller: &Caller, limit: Limit, amount: u64) {
        if let Some(rate) = limit.of(&caller.setup, &caller.party) {
            self.with_bucket(caller, limit, |bucket| bucket.charge(amount, rate));
        }
    }

    /// Begins one more of what `limit` counts at once; it ends when the guard
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`Kind::RateLimited`].
    pub fn begin(&self, caller: &Caller, limit: Limit) -> Result<Running, Problem> {
        let key = (caller.party.clone(), limit);
        let bound = limit.of(&caller.setup, &caller.party);
        let mut running = lock(&self.running);
        let count = running.entry(key.clone()).or_default();
        if let Some(bound) = bound.filter(|bound| *count >= *bound) {
            return Err(limit.exceeded(bound, SOON));
        }
        *count += 1;
        Ok(Running {
            key,
            running: Arc::clone(&self.running),
        })
    }

    fn ask(
        &self,
        caller: &Caller,
        limit: Limit,
        ask: impl FnOnce(&mut Bucket, u64) -> Result<(), Duration>,
    ) -> Result<(), Problem> {
        let Some(rate) = limit.of(&caller.setup, &caller.party) else {
            return Ok(());
        };
        self.with_bucket(caller, limit, |bucket| ask(bucket, rate))
            .map_err(|pause| limit.exceeded(rate, pause))
    }

    fn with_bucket<T>(&self, caller: &Caller, limit: Limit, f: impl FnOnce(&mut Bucket) -> T) -> T {
        let now = self.clock.now();
        let mut buckets = lock(&self.buckets);
        let bucket = buckets
            .entry((caller.party.clone(), limit))
            .or_insert(Bucket { used: 0, at: now });
        bucket.drain(now);
        f(bucket)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Numbers, each right by itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that a party is doing.
pub struct Running {
    key: (PartyId, Limit),
    running: Arc<Mutex<HashMap<(PartyId, Limit), u64>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(count) = running.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A bucket that holds a minute and drains with the time.
struct Bucket {
    /// What is in it, in nanoseconds until it is empty.
    used: u128,
    /// When it was drained last.
    at: Timestamp,
}

impl Bucket {
    fn drain(&mut self, now: Timestamp) {
        // A clock that was set back drains nothing, and fills nothing either.
        let passed = u128::try_from(now.duration_since(self.at).as_nanos()).unwrap_or(0);
        self.used = self.used.saturating_sub(passed);
        self.at = now;
    }

    /// Puts one of `rate` per minute in, or says when it fits.
    fn take(&mut self, rate: u64) -> Result<(), Duration> {
        let drop = MINUTE / u128::from(rate);
        if self.used + drop > MINUTE {
            return Err(nanos(self.used + drop - MINUTE));
        }
        self.used += drop;
        Ok(())
    }

    /// Says when something fits again, if nothing does now.
    fn room(&self) -> Result<(), Duration> {
        if self.used >= MINUTE {
            return Err(nanos(self.used - MINUTE + 1));
        }
        Ok(())
    }

    /// Puts `amount` of `rate` per minute in, also beyond the rim.
    fn charge(&mut self, amount: u64, rate: u64) {
        self.used += u128::from(amount) * MINUTE / u128::from(rate);
    }
}

/// Rounded up to whole seconds, as `Retry-After` has them.
fn nanos(nanos: u128) -> Duration {
    let seconds = nanos.div_ceil(Duration::from_secs(1).as_nanos());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn bucket() -> Bucket {
        Bucket {
            used: 0,
            at: start(),
        }
    }

    #[test]
    fn a_minutes_worth_comes_at_once_and_then_one_by_one() {
        let mut bucket = bucket();
        for _ in 0..3 {
            bucket.take(3).unwrap();
        }
        assert_eq!(bucket.take(3), Err(Duration::from_secs(20)));
        bucket.drain(start() + Duration::from_secs(19));
        assert_eq!(bucket.take(3), Err(Duration::from_secs(1)));
        bucket.drain(start() + Duration::from_secs(20));
        assert_eq!(bucket.take(3), Ok(()));
        assert!(bucket.take(3).is_err());
    }

    #[test]
    fn what_was_charged_too_much_is_paid_off_first() {
        let mut bucket = bucket();
        assert_eq!(bucket.room(), Ok(()));
        bucket.charge(5_000, 1_000);
        assert_eq!(bucket.room(), Err(Duration::from_secs(241)));
        bucket.drain(start() + Duration::from_secs(241));
        assert_eq!(bucket.room(), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut bucket = bucket();
        bucket.take(1).unwrap();
        bucket.drain(start() - Duration::from_hours(5));
        assert_eq!(bucket.take(1), Err(Duration::from_mins(1)));
        bucket.drain(start() - Duration::from_hours(5) + Duration::from_mins(1));
        assert_eq!(bucket.take(1), Ok(()));
    }

    proptest! {
        /// Never twice as many at once, wherever a window would begin.
        #[test]
        fn no_stretch_of_time_admits_more_than_its_share(
            rate in 1_u32..200,
            pauses in proptest::collection::vec(0_u64..5_000, 1..300),
        ) {
            let mut bucket = bucket();
            let mut now = start();
            let mut admitted: Vec<Timestamp> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                bucket.drain(now);
                if bucket.take(u64::from(rate)).is_ok() {
                    admitted.push(now);
                }
            }
            for (n, from) in admitted.iter().enumerate() {
                for (m, to) in admitted.iter().enumerate().skip(n) {
                    let share = to.duration_since(*from).as_secs_f64() / 60.0;
                    let most = f64::from(rate) * (1.0 + share) + 0.001;
                    let count = u32::try_from(m - n + 1).unwrap();
                    prop_assert!(f64::from(count) <= most);
                }
            }
        }
    }
}

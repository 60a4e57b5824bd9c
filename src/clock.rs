//! Time and new ids, passed in so that tests can move them.
//!
//! The rest of the crate never asks the operating system for the time.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use tokio::sync::watch;
use tokio::time::Instant;

/// Where the time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Shown>>),
}

/// What a manual clock shows.
#[derive(Clone, Copy, Debug)]
struct Shown {
    time: Timestamp,
    instant: Instant,
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let shown = Shown {
            time: start,
            instant: Instant::now(),
        };
        Self(Source::Manual(Arc::new(watch::Sender::new(shown))))
    }

    /// This moment, in whole milliseconds: what is told and what is stored
    /// are the same.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
            Source::System => {
                let now = Timestamp::now();
                Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
            }
            Source::Manual(shown) => shown.borrow().time,
        }
    }

    /// A reading for how long something takes: it only goes forward, also when
    /// the time of the machine is set.
    #[must_use]
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(shown) => shown.borrow().instant,
        }
    }

    /// The time of a clock that is moved by hand; none for the machine's own.
    ///
    /// # Panics
    ///
    /// Never: no holder of a manual clock panics.
    #[must_use]
    pub fn by_hand(&self) -> Option<Timestamp> {
        matches!(self.0, Source::Manual(_)).then(|| self.now())
    }

    /// Moves a manual clock; a system clock is left alone.
    ///
    /// # Panics
    ///
    /// When the time would leave the range of a timestamp.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(shown) = &self.0 {
            shown.send_modify(|shown| {
                let time = shown.time.saturating_add(by);
                shown.time = time.expect("a Duration is in range");
                shown.instant += by;
            });
        }
    }

    /// Sets the time of a manual clock forward or back without any passing, as
    /// NTP does; a system clock is left alone.
    ///
    /// # Panics
    ///
    /// As [`Clock::advance`].
    pub fn step(&self, by: SignedDuration) {
        if let Source::Manual(shown) = &self.0 {
            shown.send_modify(|shown| {
                let time = shown.time.saturating_add(by);
                shown.time = time.expect("a SignedDuration is in range");
            });
        }
    }

    /// Waits until this clock shows `at`. Moving a manual clock wakes those
    /// who wait for it.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            Source::System => {
                let wait = Duration::try_from(at.duration_since(self.now()));
                tokio::time::sleep(wait.unwrap_or_default()).await;
            }
            Source::Manual(shown) => {
                // The sender is in hand, so the channel stays open.
                let _ = shown.subscribe().wait_for(|now| now.time >= at).await;
            }
        }
    }

    /// Waits until [`Clock::instant`] is `at`.
    pub async fn sleep_until_instant(&self, at: Instant) {
        match &self.0 {
            Source::System => tokio::time::sleep_until(at).await,
            Source::Manual(shown) => {
                // As above.
                let _ = shown.subscribe().wait_for(|now| now.instant >= at).await;
            }
        }
    }

    /// Today in the Netherlands, the day that routes, windows and rules use.
    #[must_use]
    pub fn today(&self) -> Date {
        self.civil().date()
    }

    /// Date and time on a Dutch wall, as messages carry them (no zone).
    #[must_use]
    pub fn civil(&self) -> DateTime {
        civil_at(self.now())
    }
}

/// What a Dutch wall clock shows at `at`.
///
/// # Panics
///
/// Never: the time zone is built into the binary.
#[must_use]
pub fn civil_at(at: Timestamp) -> DateTime {
    let amsterdam = TimeZone::get("Europe/Amsterdam").expect("the zone is built in");
    Zoned::new(at, amsterdam).datetime()
}

/// A new id that sorts by time: opaque to everybody outside.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// A new id that sorts by `at` (UUID version 7, RFC 9562 section 5.7).
#[must_use]
pub fn new_id_at(at: Timestamp) -> String {
    let random = uuid::Uuid::new_v4().into_bytes();
    let random: [u8; 10] = std::array::from_fn(|n| random.get(n).copied().unwrap_or_default());
    let ms = u64::try_from(at.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(ms, &random)
        .into_uuid()
        .simple()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dutch_day_begins_before_midnight_utc() {
        let clock = Clock::manual("2026-07-01T22:30:00Z".parse().unwrap());
        assert_eq!(clock.today().to_string(), "2026-07-02");
        clock.advance(Duration::from_hours(24));
        assert_eq!(clock.today().to_string(), "2026-07-03");
    }

    #[test]
    fn a_clock_that_is_set_has_no_time_pass() {
        let clock = Clock::manual("2026-07-01T22:30:00Z".parse().unwrap());
        let (time, instant) = (clock.now(), clock.instant());
        clock.step(SignedDuration::from_hours(1));
        assert_eq!(
            clock.now().duration_since(time),
            SignedDuration::from_hours(1)
        );
        assert_eq!(clock.instant(), instant);
        clock.step(SignedDuration::from_hours(-1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            clock.now().duration_since(time),
            SignedDuration::from_secs(1)
        );
        assert_eq!(clock.instant() - instant, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn who_sleeps_by_a_manual_clock_wakes_when_it_is_moved() {
        let clock = Clock::manual("2026-07-01T22:30:00Z".parse().unwrap());
        let at = clock.now() + Duration::from_hours(1);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(at).await }
        });
        clock.advance(Duration::from_mins(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_mins(1));
        sleeper.await.unwrap();
    }
}

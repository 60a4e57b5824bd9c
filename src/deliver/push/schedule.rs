//! When an attempt is made again, and when no more. Pure: the time that
//! passed and the jitter are passed in.
//!
//! A message whose receiver fails is tried for at least 72 hours:
//!
//! ```text
//! attempt   1    2    3    4    5    6    7    8 …            80
//! pause     5s  15s   1m   5m  15m  30m   1h   1h  (the last one repeats)
//! ```
//!
//! The same table paces the probes of a receiver that fails. A message that
//! its receiver cannot read has a shorter one of its own.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// Pauses after the first, second, … failed attempt; the last one repeats.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
];
/// From the first failure on, a message is tried at least this long.
pub(super) const TRIED_FOR: Duration = Duration::from_hours(72);
/// Pauses after the first, second, … answer that says the receiver cannot
/// read the message; after one more it is given up.
const UNPARSEABLE_PAUSES: [Duration; 4] = [
    Duration::from_mins(1),
    Duration::from_mins(4),
    Duration::from_mins(15),
    Duration::from_mins(40),
];
/// Longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// How much a pause may grow by jitter, in percent.
const JITTER_PERCENT: u32 = 20;

/// Spreads the attempts of many messages and receivers: 0 adds nothing, 255
/// the most. It only lengthens, so that 72 hours stay 72 hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter(u8);

impl Jitter {
    /// Any byte will do.
    pub(super) fn random() -> Self {
        let mut byte = [0];
        // Without random numbers attempts are not spread, and still made.
        let _ = aws_lc_rs::rand::fill(&mut byte);
        Self(byte[0])
    }

    /// Adds nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(0)
    }

    fn lengthen(self, pause: Duration) -> Duration {
        pause + pause * JITTER_PERCENT * u32::from(self.0) / (100 * u32::from(u8::MAX))
    }
}

/// The pause after `failures` failed attempts in a row, at least what the
/// receiver asked for.
pub(super) fn pause(failures: u32, jitter: Jitter, asked: Option<Duration>) -> Duration {
    let pause = jitter.lengthen(nth(&PAUSES, failures));
    pause.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// True when a message was tried often and long enough: `failures` attempts,
/// the first one `for_time` ago.
pub(super) fn is_exhausted(failures: u32, for_time: Duration) -> bool {
    // A gateway that stood still for days has not tried for days.
    failures as usize > PAUSES.len() && for_time >= TRIED_FOR
}

/// The pause after `refusals` answers that the message cannot be read; `None`
/// when it is given up.
pub(super) fn unparseable_pause(refusals: u32, jitter: Jitter) -> Option<Duration> {
    let is_over = refusals as usize > UNPARSEABLE_PAUSES.len();
    (!is_over).then(|| jitter.lengthen(nth(&UNPARSEABLE_PAUSES, refusals)))
}

/// The pause after the `count`th time, counted from 1.
fn nth(pauses: &[Duration], count: u32) -> Duration {
    let index = (count.max(1) as usize - 1).min(pauses.len() - 1);
    pauses.get(index).copied().unwrap_or_default()
}

/// What a `Retry-After` header asks for: seconds or a date (RFC 9110 section
/// 10.2.3). `None` when it says nothing, or a moment that is over.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(header).ok()?;
    at.duration_since(SystemTime::from(now)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Jitter = Jitter(0);
    const MOST: Jitter = Jitter(255);

    /// How long a message is tried whose every attempt fails at once, and how
    /// often.
    fn tried(jitter: Jitter) -> (Duration, u32) {
        let (mut time, mut failures) = (Duration::ZERO, 1);
        while !is_exhausted(failures, time) {
            time += pause(failures, jitter, None);
            failures += 1;
        }
        (time, failures)
    }

    #[test]
    fn a_message_is_tried_for_over_72_hours() {
        assert_eq!(tried(NONE), (TRIED_FOR + Duration::from_secs(3080), 79));
        let (time, attempts) = tried(MOST);
        assert!(time > TRIED_FOR && time < TRIED_FOR * 5 / 4, "{time:?}");
        assert!(attempts > 60, "{attempts}");
    }

    #[test]
    fn time_alone_exhausts_nothing() {
        assert!(!is_exhausted(2, TRIED_FOR * 10));
        assert!(!is_exhausted(1000, Duration::from_hours(71)));
    }

    #[test]
    fn what_cannot_be_read_is_given_up_after_an_hour() {
        let pauses: Vec<_> = (1..)
            .map_while(|refusals| unparseable_pause(refusals, NONE))
            .collect();
        assert_eq!(pauses.len(), 4);
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_hours(1));
    }

    #[test]
    fn a_receiver_says_in_seconds_or_by_date_when_to_come_again() {
        let now: Timestamp = "1994-11-06T08:48:37Z".parse().unwrap();
        let minute = Some(Duration::from_mins(1));
        assert_eq!(retry_after("60", now), minute);
        assert_eq!(retry_after(" 60 ", now), minute);
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(retry_after(date, now), minute, "{date}");
        }
        for nothing in ["", "soon", "-5", "Sun, 06 Nov 1994 08:47:37 GMT"] {
            assert_eq!(retry_after(nothing, now), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_asked_lengthens_a_pause_and_is_bounded() {
        let asked = |time| pause(1, NONE, Some(time));
        assert_eq!(asked(Duration::from_secs(1)), Duration::from_secs(5));
        assert_eq!(asked(Duration::from_mins(2)), Duration::from_mins(2));
        assert_eq!(asked(Duration::MAX), RETRY_AFTER_MAX);
    }

    proptest! {
        #[test]
        fn jitter_only_lengthens_and_by_a_fifth_at_most(failures: u32, jitter: u8) {
            let plain = pause(failures, NONE, None);
            let spread = pause(failures, Jitter(jitter), None);
            prop_assert!(plain <= spread && spread <= plain * 6 / 5);
            prop_assert!(plain >= PAUSES[0] && plain <= PAUSES[6]);
        }
    }
}

//! The rate limit per party, off by default.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::domain::PartyId;
use crate::http::{Kind, Problem};

/// Counts messages per party in windows of a minute.
#[derive(Clone)]
pub struct Pace {
    per_minute: u64,
    clock: Clock,
    windows: Arc<Mutex<HashMap<PartyId, (Timestamp, u64)>>>,
}

impl Pace {
    /// At most `per_minute` messages a party; 0 is no limit.
    #[must_use]
    pub fn new(per_minute: u64, clock: Clock) -> Self {
        Self {
            per_minute,
            clock,
            windows: Arc::default(),
        }
    }

    /// Admits one message.
    ///
    /// # Errors
    ///
    /// [`Kind::RateLimited`] with the time until the next window.
    pub fn admit(&self, party: &PartyId) -> Result<(), Problem> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(party.clone()).or_insert((now, 0));
        let age = now.duration_since(window.0);
        let minute = Duration::from_mins(1);
        if age.unsigned_abs() >= minute {
            *window = (now, 0);
        }
        if window.1 >= self.per_minute {
            let pause = minute.saturating_sub(now.duration_since(window.0).unsigned_abs());
            return Err(Problem::new(Kind::RateLimited).retry_after(pause));
        }
        window.1 += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_waits_for_the_next_minute_and_others_do_not() {
        let clock = Clock::manual("2026-11-22T10:00:00Z".parse().unwrap());
        let pace = Pace::new(2, clock.clone());
        let (adp, nmbrs) = (
            PartyId::parse("adp").unwrap(),
            PartyId::parse("nmbrs").unwrap(),
        );
        assert!(pace.admit(&adp).is_ok() && pace.admit(&adp).is_ok());
        assert_eq!(pace.admit(&adp).unwrap_err().kind(), Kind::RateLimited);
        assert!(pace.admit(&nmbrs).is_ok());
        clock.advance(Duration::from_secs(61));
        assert!(pace.admit(&adp).is_ok());
    }
}

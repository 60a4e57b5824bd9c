//! The least pace at which a body comes or goes.

use std::time::Duration;

/// The least that moves of a body, in bytes a second: a bad line does more.
const LEAST: u64 = 4 << 10;

/// Whether a body still moves fast enough to be waited for: in every stretch of
/// time so much of it moves, or all of what is left. Times count from where the
/// body began.
#[derive(Clone, Debug)]
pub struct Pace {
    stretch: Duration,
    /// What has to move in one stretch, in bytes.
    least: u64,
    since: Duration,
    moved: u64,
}

impl Pace {
    /// A body that begins, judged over stretches of this length.
    #[must_use]
    pub fn over(stretch: Duration) -> Self {
        Self {
            stretch,
            least: LEAST.saturating_mul(stretch.as_secs()).max(1),
            since: Duration::ZERO,
            moved: 0,
        }
    }

    /// So many bytes moved, at this time. Who moved enough begins a new stretch.
    pub fn moved(&mut self, bytes: usize, at: Duration) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= self.least {
            self.moved = 0;
            self.since = at;
        }
    }

    /// When it is too slow, unless enough moves before.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.since + self.stretch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trickles_gains_no_time_and_what_flows_does() {
        let second = Duration::from_secs;
        let mut pace = Pace::over(second(30));
        for at in 0..29 {
            pace.moved(1, second(at));
        }
        assert_eq!(pace.until(), second(30));
        pace.moved(30 * 4096 - 29, second(29));
        assert_eq!(pace.until(), second(59));
        pace.moved(30 * 4096 - 1, second(30));
        assert_eq!(pace.until(), second(59));
    }
}

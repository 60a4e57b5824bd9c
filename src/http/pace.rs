//! The least pace at which bodies come or go.
//!
//! It is the pace of a connection: of many bodies that share a thin line none
//! has to move as fast as one alone. What a client holds that takes one and
//! leaves the others standing is bounded elsewhere, by the share of its party.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least that moves over a connection, in bytes a second: a bad line does
/// more.
const LEAST: u64 = 4 << 10;

/// The bodies that go one way over one connection. Clones are the same line.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Bodies>>);

#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    /// By the order in which they began; no more than streams at once.
    paces: BTreeMap<u64, Pace>,
}

impl Line {
    /// A body begins, judged over stretches of this length: in every one so
    /// much moves over the line, or all of what is left of the body.
    #[must_use]
    pub fn begin(&self, stretch: Duration, at: Instant) -> Moving {
        let mut bodies = self.lock();
        let id = bodies.next;
        bodies.next += 1;
        bodies.paces.insert(id, Pace::over(stretch, at));
        drop(bodies);
        Moving {
            line: self.clone(),
            id,
        }
    }

    /// Whether the two are the same line.
    #[cfg(test)]
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        // A few numbers for each, right by themselves.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body on its way, until it is dropped.
#[derive(Debug)]
pub struct Moving {
    line: Line,
    id: u64,
}

impl Moving {
    /// So many bytes of it moved, which counts for every body of the line.
    pub fn moved(&self, bytes: usize, at: Instant) {
        for pace in self.line.lock().paces.values_mut() {
            pace.moved(bytes, at);
        }
    }

    /// When it is too slow, unless enough moves before.
    ///
    /// # Panics
    ///
    /// Never: a body that is not dropped has a pace.
    #[must_use]
    pub fn until(&self) -> Instant {
        let bodies = self.line.lock();
        let pace = bodies.paces.get(&self.id);
        pace.expect("it stands there until it is dropped").until()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.line.lock().paces.remove(&self.id);
    }
}

#[derive(Debug)]
struct Pace {
    stretch: Duration,
    /// What has to move in one stretch, in bytes.
    least: u64,
    since: Instant,
    moved: u64,
}

impl Pace {
    fn over(stretch: Duration, since: Instant) -> Self {
        Self {
            stretch,
            least: LEAST.saturating_mul(stretch.as_secs()).max(1),
            since,
            moved: 0,
        }
    }

    /// What moved enough begins a new stretch.
    fn moved(&mut self, bytes: usize, at: Instant) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= self.least {
            self.moved = 0;
            self.since = at;
        }
    }

    fn until(&self) -> Instant {
        self.since + self.stretch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: Duration = Duration::from_secs(30);

    /// A line, and what its clock shows after so many seconds.
    fn line() -> (Line, impl Fn(u64) -> Instant) {
        let begun = Instant::now();
        (Line::default(), move |seconds| {
            begun + Duration::from_secs(seconds)
        })
    }

    #[test]
    fn what_trickles_gains_no_time_and_what_flows_does() {
        let (line, second) = line();
        let body = line.begin(STRETCH, second(0));
        for at in 0..29 {
            body.moved(1, second(at));
        }
        assert_eq!(body.until(), second(30));
        body.moved(30 * 4096 - 29, second(29));
        assert_eq!(body.until(), second(59));
        body.moved(30 * 4096 - 1, second(30));
        assert_eq!(body.until(), second(59));
    }

    #[test]
    fn many_bodies_on_a_thin_line_move_at_its_pace_together() {
        let (line, second) = line();
        let bodies: Vec<_> = (0..16).map(|_| line.begin(STRETCH, second(0))).collect();
        for at in 1..=120 {
            for body in &bodies {
                body.moved(4096 / bodies.len(), second(at));
            }
        }
        assert!(bodies.iter().all(|body| body.until() == second(150)));
        // Who comes later has its own time, and who ended leaves no trace.
        let late = line.begin(STRETCH, second(140));
        drop(bodies);
        late.moved(30 * 4096 - 1, second(141));
        assert_eq!(late.until(), second(170));
        drop(late);
        assert!(line.lock().paces.is_empty());
    }

    #[test]
    fn another_line_moves_for_itself() {
        let ((line, second), other) = (line(), Line::default());
        let body = line.begin(STRETCH, second(0));
        let elsewhere = other.begin(STRETCH, second(0));
        elsewhere.moved(1 << 20, second(20));
        assert_eq!(body.until(), second(30));
    }
}

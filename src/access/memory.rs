//! The memory that messages hold on their way in or out, with a share for each
//! party: one that sends or reads slowly leaves the others theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;

use super::Caller;
use super::allowance::SOON;
use crate::domain::PartyId;
use crate::http::{Kind, Problem};
use crate::setup::Setup;

/// The part of the memory that is one party's share.
const PARTS: usize = 4;

/// The memory of one kind of traffic. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    together: usize,
    by_party: HashMap<PartyId, usize>,
}

impl Held {
    fn add(&mut self, party: &PartyId, bytes: usize) {
        self.together = self.together.saturating_add(bytes);
        let own = self.by_party.entry(party.clone()).or_default();
        *own = own.saturating_add(bytes);
    }

    fn give_back(&mut self, party: &PartyId, bytes: usize) {
        self.together = self.together.saturating_sub(bytes);
        if let Some(own) = self.by_party.get_mut(party) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.by_party.remove(party);
            }
        }
    }
}

impl Memory {
    /// Something of this party that holds nothing yet.
    #[must_use]
    pub fn hold(&self, caller: &Caller) -> Hold {
        Hold {
            memory: self.clone(),
            party: caller.party.clone(),
            bounds: Bounds::of(&caller.setup),
            bytes: 0,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // Counts that change together, with nothing between that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be held, in bytes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    together: usize,
    share: usize,
}

impl Bounds {
    /// A quarter for each party, and room for one body of full size always.
    fn of(setup: &Setup) -> Self {
        let limits = &setup.settings.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let together = size(limits.in_flight_bytes);
        let share = together.div_ceil(PARTS).max(size(limits.max_body_bytes));
        Self { together, share }
    }

    fn admit(self, held: &Held, party: &PartyId, more: usize) -> Result<(), Full> {
        let own = held.by_party.get(party).copied().unwrap_or_default();
        if own.saturating_add(more) > self.share {
            Err(Full::Share)
        } else if held.together.saturating_add(more) > self.together {
            Err(Full::Together)
        } else {
            Ok(())
        }
    }
}

/// What one body or answer holds; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    memory: Memory,
    party: PartyId,
    bounds: Bounds,
    bytes: usize,
}

impl Hold {
    /// Holds `bytes` from now on, unless it holds as much already.
    ///
    /// # Errors
    ///
    /// [`Full`]; then it holds what it held.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        let mut held = self.memory.lock();
        self.bounds.admit(&held, &self.party, more)?;
        held.add(&self.party, more);
        drop(held);
        self.bytes += more;
        Ok(())
    }

    /// Whether there is room for anything at all.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn check_room(&self) -> Result<(), Full> {
        self.bounds.admit(&self.memory.lock(), &self.party, 1)
    }

    /// Holds `bytes` from now on, also beyond the bounds: for what is there
    /// already. What comes after it waits until there is room again.
    pub fn charge_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.memory.lock().add(&self.party, more);
        self.bytes += more;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.lock().give_back(&self.party, self.bytes);
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The party holds its share.
    Share,
    /// All parties together hold everything.
    Together,
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        match full {
            Full::Share => {
                counter!("sivi_requests_limited_total", "limit" => "in_flight_bytes").increment(1);
                Self::new(Kind::RateLimited)
                    .detail("this party holds its share of limits.in_flight_bytes")
                    .retry_after(SOON)
            }
            Full::Together => Self::new(Kind::Unavailable),
        }
    }
}

#[cfg(test)]
impl Memory {
    /// A hold with these bounds, for tests without a configuration.
    pub(crate) fn hold_within(&self, party: &str, together: usize, share: usize) -> Hold {
        Hold {
            memory: self.clone(),
            party: PartyId::parse(party).unwrap(),
            bounds: Bounds { together, share },
            bytes: 0,
        }
    }

    /// What all hold, in bytes.
    pub(crate) fn together(&self) -> usize {
        self.lock().together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_that_holds_its_share_leaves_the_rest_to_others() {
        let memory = Memory::default();
        let hold = |party: &str| memory.hold_within(party, 100, 40);
        let (mut first, mut second, mut other) = (hold("adp"), hold("adp"), hold("nmbrs"));
        assert_eq!(first.grow_to(30), Ok(()));
        assert_eq!(first.grow_to(20), Ok(()), "it holds as much already");
        assert_eq!(second.grow_to(11), Err(Full::Share));
        assert_eq!(second.grow_to(10), Ok(()));
        assert_eq!(second.check_room(), Err(Full::Share));
        assert_eq!(other.grow_to(40), Ok(()));
        let mut third = hold("visma");
        assert_eq!(third.grow_to(21), Err(Full::Together));
        assert_eq!(third.grow_to(20), Ok(()));
        assert_eq!(hold("afas").check_room(), Err(Full::Together));
        drop(first);
        assert_eq!(second.grow_to(40), Ok(()));
        drop((second, third, other));
        assert_eq!(memory.together(), 0);
        assert!(memory.lock().by_party.is_empty());
    }

    #[test]
    fn what_is_there_already_counts_beyond_the_bounds() {
        let memory = Memory::default();
        let hold = |party: &str| memory.hold_within(party, 100, 40);
        let mut answer = hold("arbo");
        answer.charge_to(70);
        assert_eq!(hold("arbo").check_room(), Err(Full::Share));
        assert_eq!(hold("other").check_room(), Ok(()));
        assert_eq!(hold("other").grow_to(31), Err(Full::Together));
        drop(answer);
        assert_eq!(hold("arbo").check_room(), Ok(()));
    }
}

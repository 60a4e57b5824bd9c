//! Whom this node cannot push to, for whoever shows it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::PartyId;

/// The receivers that cannot be pushed to from this node, because a key, a
/// certificate or an address of theirs cannot be used. Cheap to clone.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<BTreeSet<PartyId>>>);

impl Faults {
    /// True when the last look found that nothing can be sent to this party.
    #[must_use]
    pub fn has(&self, party: &PartyId) -> bool {
        self.parties().contains(party)
    }

    pub(super) fn note(&self, party: &PartyId) {
        self.parties().insert(party.clone());
    }

    pub(super) fn clear(&self, party: &PartyId) {
        self.parties().remove(party);
    }

    fn parties(&self) -> MutexGuard<'_, BTreeSet<PartyId>> {
        // One insertion or removal is never half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Wakes those who wait for an inbox to have something.
//!
//! Rung after COMMIT, so whoever subscribes first and looks second misses
//! nothing. Knows only this process: another node rings its own bells, and a
//! lease that runs out rings none.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// One inbox: a receiving party, and whether it is its test traffic.
type Inbox = (String, bool);

#[derive(Debug)]
struct Bell {
    rung: watch::Sender<u64>,
    /// A lease left something behind that waits for an earlier report.
    held_back: bool,
}

/// The bells of all inboxes that somebody ever waited for.
#[derive(Default)]
pub(super) struct Bells(Mutex<HashMap<Inbox, Bell>>);

impl fmt::Debug for Bells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bells")
    }
}

impl Bells {
    /// A receiver that sees every later ring.
    pub(super) fn subscribe(&self, party: &str, test: bool) -> watch::Receiver<u64> {
        let mut bells = self.lock();
        let bell = bells
            .entry((party.to_owned(), test))
            .or_insert_with(|| Bell {
                rung: watch::Sender::new(0),
                held_back: false,
            });
        bell.rung.subscribe()
    }

    /// Something new is in the inbox.
    pub(super) fn ring(&self, party: &str, test: bool) {
        if let Some(bell) = self.lock().get_mut(&(party.to_owned(), test)) {
            bell.held_back = false;
            bell.rung.send_modify(|count| *count += 1);
        }
    }

    /// Notes that finishing a report may free a later one.
    pub(super) fn hold_back(&self, party: &str, test: bool) {
        if let Some(bell) = self.lock().get_mut(&(party.to_owned(), test)) {
            bell.held_back = true;
        }
    }

    /// A report was finished: rings if something was held back.
    pub(super) fn finished(&self, party: &str, test: bool) {
        let mut bells = self.lock();
        if let Some(bell) = bells.get_mut(&(party.to_owned(), test))
            && bell.held_back
        {
            bell.held_back = false;
            bell.rung.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Inbox, Bell>> {
        // A map of counters is never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Places at which a test can have the process killed, to see what is left.
//!
//! A debug build dies by SIGKILL when it passes the place that it was told of
//! for the nth time. A release build has none of this: [`pass`] is empty there.

#[cfg(debug_assertions)]
use std::sync::{Mutex, PoisonError};

/// A place around one transaction, or on the way of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Jobs were taken from the queue; nothing is written.
    Begun,
    /// Everything is written; COMMIT comes next.
    Written,
    /// The database confirmed COMMIT; nobody was told.
    Committed,
    /// Those who wait were told.
    Answered,
    /// A step of copying a server into the draft of a backup comes next.
    Drafting,
    /// The draft of a backup is complete, and not yet in its place.
    Drafted,
    /// The database of before has a second name, and its place still too.
    Aside,
    /// The file is where it belongs.
    Kept,
}

impl Place {
    #[cfg(debug_assertions)]
    fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Written => "written",
            Self::Committed => "committed",
            Self::Answered => "answered",
            Self::Drafting => "drafting",
            Self::Drafted => "drafted",
            Self::Aside => "aside",
            Self::Kept => "kept",
        }
    }
}

/// The place, and how many passes are left.
#[cfg(debug_assertions)]
static DEATH: Mutex<Option<(String, u64)>> = Mutex::new(None);

/// Dies at `place:n`, the nth time that the place is passed. What is not of
/// this form is left aside.
#[cfg(debug_assertions)]
pub fn die_at(text: &str) {
    let death = text
        .split_once(':')
        .and_then(|(place, nth)| Some((place.to_owned(), nth.parse().ok()?)));
    *DEATH.lock().unwrap_or_else(PoisonError::into_inner) = death;
}

#[cfg(debug_assertions)]
pub(super) fn pass(place: Place) {
    let mut death = DEATH.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((name, left)) = &mut *death else {
        return;
    };
    if name != place.name() {
        return;
    }
    *left = left.saturating_sub(1);
    if *left == 0 {
        let own = std::process::id().to_string();
        drop(
            std::process::Command::new("kill")
                .args(["-KILL", &own])
                .status(),
        );
        // Until the signal comes nothing goes on from here.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn pass(_place: Place) {}

//! The case ledger: what a route was told, as keyed hashes and dates.
//!
//! It answers one question: who is sick, as far as this receiver may know.
//! It holds no name and no readable key.

use jiff::civil::Date;

use crate::domain::KeyedHash;

/// Years after which an open case without any message counts as closed.
const SILENT_YEARS: i64 = 3;

/// Which case of which person on which route. The route's hash covers tenant,
/// receiver, domain and whether it is the test traffic, so that ledgers never
/// mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaseKey {
    /// Hash of the route.
    pub route: KeyedHash,
    /// Hash of sender and employee id.
    pub person: KeyedHash,
    /// Hash of the employment id.
    pub employment: KeyedHash,
    /// Hash of the case id.
    pub case: KeyedHash,
}

/// What one route knows of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseEntry {
    /// Which case.
    pub key: CaseKey,
    /// Hash of the birth date that came with the last report.
    pub birth: KeyedHash,
    /// Where the case stands.
    pub state: CaseState,
    /// Number of times the entry was written; 0 for one that is not stored
    /// yet. Guards against two messages that decide on the same entry at once.
    pub version: i64,
}

/// Dates and numbers of a case. Health data: stored sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseState {
    /// First day of absence.
    pub first_day: Date,
    /// Recovery, once reported.
    pub recovered_on: Option<Date>,
    /// The day on which the recovery or withdrawal was released.
    pub closed_on: Option<Date>,
    /// True after a withdrawal: there was no absence.
    pub withdrawn: bool,
    /// Highest report number so far.
    pub last_number: u32,
    /// Hash of the report with that number.
    pub last_content: KeyedHash,
    /// Day of the last message.
    pub last_message_on: Date,
}

impl CaseState {
    /// True while the person is absent in this case.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed_on.is_none()
    }

    /// True for an open case of which nobody said anything for three years:
    /// then it is no ground to let more of the person pass.
    #[must_use]
    pub fn is_silent_on(&self, today: Date) -> bool {
        let years = jiff::Span::new().years(SILENT_YEARS);
        self.is_open() && self.last_message_on.saturating_add(years) < today
    }

    /// The last day on which the person still counts as recovered: `window`
    /// days after the later of recovery and its release. `None` while open.
    #[must_use]
    pub fn remembered_until(&self, window_days: i32) -> Option<Date> {
        let released = self.closed_on?;
        let later = self.recovered_on.map_or(released, |day| day.max(released));
        Some(later.saturating_add(jiff::Span::new().days(window_days)))
    }
}

/// A change of the ledger, decided by policy and written with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerChange {
    /// Write this entry: insert at version 0, else replace that version.
    Put(CaseEntry),
    /// Remove the entry: its key was replaced by another one.
    Remove {
        /// Which entry.
        key: CaseKey,
        /// The version that was decided on.
        version: i64,
    },
}

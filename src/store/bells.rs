//! Wakes those who wait for an inbox to have something.
//!
//! Rung after COMMIT, so whoever subscribes first and looks second misses
//! nothing. Where several nodes share a database, each tells the others in the
//! same transaction what it rings ([`Rings::news`]). A lease that runs out
//! rings no bell.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// One inbox: a receiving party, and whether it is its test traffic.
type Inbox = (String, bool);

/// Longest text that one notification of `PostgreSQL` takes, with room to spare.
const NEWS_BYTES: usize = 7_000;

/// What happened to an inbox. The greater one wakes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ring {
    /// A lease left something behind that waits for an earlier report.
    HeldBack,
    /// A report was finished: something that was held back may be free.
    Finished,
    /// Something new is in it.
    New,
}

/// What one transaction rings once it is committed.
#[derive(Debug, Default)]
pub(super) struct Rings(BTreeMap<Inbox, Ring>);

impl Rings {
    /// Something new is in the inbox.
    pub(super) fn ring(&mut self, party: &str, test: bool) {
        self.note(party, test, Ring::New);
    }

    /// Finishing a report may free a later one.
    pub(super) fn hold_back(&mut self, party: &str, test: bool) {
        self.note(party, test, Ring::HeldBack);
    }

    /// A report was finished.
    pub(super) fn finished(&mut self, party: &str, test: bool) {
        self.note(party, test, Ring::Finished);
    }

    fn note(&mut self, party: &str, test: bool, ring: Ring) {
        if let Some(noted) = self.0.get_mut(&(party.to_owned(), test)) {
            *noted = ring.max(*noted);
        } else {
            self.0.insert((party.to_owned(), test), ring);
        }
    }

    /// The same as texts for other nodes, signed by `node`: a line an inbox.
    /// What was held back matters only where it was.
    pub(super) fn news(&self, node: &str) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        for ((party, test), ring) in &self.0 {
            let word = match ring {
                Ring::HeldBack => continue,
                Ring::Finished => "finished",
                Ring::New => "new",
            };
            let traffic = if *test { "test" } else { "production" };
            let line = format!("\n{word} {traffic} {party}");
            match texts.last_mut() {
                Some(text) if text.len() + line.len() <= NEWS_BYTES => text.push_str(&line),
                _ => texts.push(format!("{node}{line}")),
            }
        }
        texts
    }

    /// Reads what [`Self::news`] wrote; nothing when `node` wrote it itself.
    /// A line that this version does not know is left out.
    pub(super) fn heard(text: &str, node: &str) -> Self {
        let mut rings = Self::default();
        let mut lines = text.lines();
        if lines.next() == Some(node) {
            return rings;
        }
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let ring = match words.next() {
                Some("finished") => Ring::Finished,
                Some("new") => Ring::New,
                _ => continue,
            };
            if let (Some(traffic), Some(party)) = (words.next(), words.next()) {
                rings.note(party, traffic == "test", ring);
            }
        }
        rings
    }
}

#[derive(Debug)]
struct Bell {
    rung: watch::Sender<u64>,
    /// A lease left something behind that waits for an earlier report.
    held_back: bool,
}

impl Bell {
    fn ring(&mut self) {
        self.held_back = false;
        self.rung.send_modify(|count| *count += 1);
    }
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

    /// Rings what a committed transaction noted.
    pub(super) fn ring(&self, rings: &Rings) {
        let mut bells = self.lock();
        for (inbox, ring) in &rings.0 {
            let Some(bell) = bells.get_mut(inbox) else {
                continue;
            };
            match ring {
                Ring::HeldBack => bell.held_back = true,
                Ring::Finished if bell.held_back => bell.ring(),
                Ring::Finished => {}
                Ring::New => bell.ring(),
            }
        }
    }

    /// Rings every bell, when what was missed is not known.
    pub(super) fn ring_all(&self) {
        self.lock().values_mut().for_each(Bell::ring);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Inbox, Bell>> {
        // A map of counters is never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_hear_what_one_rings_and_itself_does_not() {
        let mut rings = Rings::default();
        rings.finished("arbo-noord", false);
        rings.ring("arbo-noord", false);
        rings.finished("arbo-zuid", true);
        rings.hold_back("arbo-west", false);
        let news = rings.news("here");
        assert_eq!(
            news,
            ["here\nnew production arbo-noord\nfinished test arbo-zuid"]
        );
        let heard = Rings::heard(&news[0], "there");
        assert_eq!(heard.0.len(), 2);
        assert_eq!(heard.0[&("arbo-noord".to_owned(), false)], Ring::New);
        assert_eq!(heard.0[&("arbo-zuid".to_owned(), true)], Ring::Finished);
        assert!(Rings::heard(&news[0], "here").0.is_empty());
        assert!(
            Rings::heard("there\nlater words of a newer node\n", "here")
                .0
                .is_empty()
        );
    }

    #[test]
    fn news_of_many_inboxes_fit_into_several_texts() {
        let mut rings = Rings::default();
        for n in 0..1000 {
            rings.ring(&format!("arbodienst-{n}"), false);
        }
        let news = rings.news("here");
        assert!(news.iter().all(|text| text.len() < 8_000));
        let heard = news.iter().map(|text| Rings::heard(text, "there").0.len());
        assert_eq!(heard.sum::<usize>(), 1000);
    }

    #[test]
    fn finishing_wakes_only_where_something_was_held_back() {
        let bells = Bells::default();
        let bell = bells.subscribe("arbo", false);
        let told = |note: fn(&mut Rings)| {
            let mut rings = Rings::default();
            note(&mut rings);
            bells.ring(&rings);
            *bell.borrow()
        };
        assert_eq!(told(|rings| rings.finished("arbo", false)), 0);
        assert_eq!(told(|rings| rings.hold_back("arbo", false)), 0);
        assert_eq!(told(|rings| rings.finished("arbo", true)), 0);
        assert_eq!(told(|rings| rings.finished("arbo", false)), 1);
        assert_eq!(told(|rings| rings.finished("arbo", false)), 1);
        assert_eq!(told(|rings| rings.ring("arbo", false)), 2);
    }
}

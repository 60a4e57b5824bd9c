//! What came after the dead letters of an inbox: what overtook them, and what
//! has to go behind them.
//!
//! The look may be long, so it happens on a reading connection. It notes up to
//! which number it saw the inbox, so that the writer can tell whether anything
//! moved since.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::backend::{Connection, Row, query};
use super::revive::Overtaken;
use crate::domain::KeyedHash;

/// Rows that one step of a look reads.
const SCAN_ROWS: i64 = 2000;

pub(super) type Case = [u8; KeyedHash::LEN];

/// A dead letter, as its order is decided.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: String,
    inbox: (String, bool),
    pub(super) sequence: i64,
    /// Its first number: the order in which releases were made.
    first: i64,
    cases: Vec<Case>,
}

impl Candidate {
    pub(super) fn read(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.get("id")?,
            inbox: (row.get("party")?, row.get("test")?),
            sequence: row.get("sequence")?,
            first: first(row)?,
            cases: cases(row)?,
        })
    }
}

fn first(row: &Row) -> Result<i64, sqlx::Error> {
    let first: Option<i64> = row.get("first_sequence")?;
    first.map_or_else(|| row.get("sequence"), Ok)
}

pub(super) fn cases(row: &Row) -> Result<Vec<Case>, sqlx::Error> {
    let bytes: &[u8] = row.get("cases")?;
    Ok(bytes.as_chunks().0.to_vec())
}

/// Candidates by inbox, each list in the order in which they were made.
pub(super) fn by_inbox(candidates: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    let mut inboxes: BTreeMap<(String, bool), Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let inbox = inboxes.entry(candidate.inbox.clone()).or_default();
        inbox.push(candidate);
    }
    let mut lists: Vec<_> = inboxes.into_values().collect();
    for list in &mut lists {
        list.sort_by_key(|candidate| candidate.first);
    }
    lists
}

/// An unfinished release that is newer than a candidate.
struct Unfinished {
    id: String,
    sequence: i64,
    first: i64,
    cases: Vec<Case>,
    is_held: bool,
}

/// Dead letters of one inbox, and what came after them.
pub(super) struct Survey {
    /// In the order in which they were made.
    candidates: Vec<Candidate>,
    /// How many newer releases of its cases have left, per candidate.
    counts: Vec<u64>,
    /// In the order in which they were made.
    unfinished: Vec<Unfinished>,
    /// The last number that was given out before the look.
    seen_to: i64,
}

const LAST_SEQUENCE: &str = "SELECT last_sequence FROM inbox WHERE party = $1 AND test = $2";
const UNFINISHED: &str = "SELECT id, sequence, first_sequence, cases, state, lease_until
    FROM delivery WHERE party = $1 AND test = $2 AND finished_at IS NULL
    AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5";
const TAKEN_OVER: &str = "SELECT sequence, first_sequence, cases FROM delivery
    WHERE party = $1 AND test = $2 AND state = 'taken_over'
    AND sequence > $3 AND sequence <= $4 ORDER BY sequence LIMIT $5";

impl Survey {
    /// Looks at what came after `candidates`, which are of one inbox and in
    /// order.
    ///
    /// First the number, then what is unfinished, then what was taken over:
    /// what is finished between two looks is seen by the second, and what
    /// comes in has a higher number.
    pub(super) async fn of(
        connection: &mut Connection,
        candidates: Vec<Candidate>,
        now: i64,
    ) -> Result<Self, sqlx::Error> {
        let mut survey = Self {
            counts: vec![0; candidates.len()],
            unfinished: Vec::new(),
            seen_to: 0,
            candidates,
        };
        let Some(oldest) = survey.candidates.first() else {
            return Ok(survey);
        };
        let (inbox, after) = (oldest.inbox.clone(), oldest.first);
        let last = query(LAST_SEQUENCE)
            .bind(&inbox.0)
            .bind(inbox.1)
            .fetch_one(&mut *connection)
            .await?;
        survey.seen_to = last.get("last_sequence")?;
        let range = (after, survey.seen_to);
        let mut unfinished = Vec::new();
        scan(connection, UNFINISHED, &inbox, range, |row| {
            unfinished.push(Unfinished {
                id: row.get("id")?,
                sequence: row.get("sequence")?,
                first: first(row)?,
                cases: cases(row)?,
                is_held: is_held(row, now)?,
            });
            Ok(())
        })
        .await?;
        unfinished.sort_by_key(|release| release.first);
        survey.unfinished = unfinished;
        survey.count_held();
        let direct = survey.cases_of_candidates();
        scan(connection, TAKEN_OVER, &inbox, range, |row| {
            let first = first(row)?;
            let by = cases(row)?;
            let by = by.iter().filter_map(|case| direct.get(case)).flatten();
            // A release may share several cases with one candidate.
            let by: BTreeSet<&(usize, i64)> = by.filter(|(_, made)| *made < first).collect();
            for (at, _) in by {
                survey.count(*at);
            }
            Ok(())
        })
        .await?;
        Ok(survey)
    }

    /// Each candidate's id with how often it was overtaken.
    pub(super) fn overtaken(&self) -> impl Iterator<Item = (String, u64)> {
        let ids = self.candidates.iter().map(|candidate| candidate.id.clone());
        ids.zip(self.counts.iter().copied())
    }

    /// Them, in the order in which they were made.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.candidates
    }

    /// The candidates that go, by place.
    pub(super) fn going(&self, overtaken: Overtaken) -> BTreeSet<usize> {
        let all = self.counts.iter().enumerate();
        let going = all.filter(|(_, by)| overtaken == Overtaken::Send || **by == 0);
        going.map(|(at, _)| at).collect()
    }

    /// What gets a new number to make these candidates due.
    pub(super) fn moves(&self, going: &BTreeSet<usize>) -> Option<Moves> {
        let inbox = self.candidates.first()?.inbox.clone();
        let mut cases = HashSet::new();
        let mut moves = Vec::new();
        self.in_order(|one| match one {
            InOrder::Candidate(at, candidate) if going.contains(&at) => {
                cases.extend(&candidate.cases);
                moves.push(Move::revive(candidate));
            }
            InOrder::Unfinished(release) if !release.is_held => {
                if release.cases.iter().any(|case| cases.contains(case)) {
                    cases.extend(&release.cases);
                    moves.push(Move::behind(release));
                }
            }
            InOrder::Candidate(..) | InOrder::Unfinished(_) => {}
        });
        Some(Moves {
            inbox,
            releases: moves,
            cases,
            seen_to: self.seen_to,
        })
    }

    /// Counts what its receiver holds right now: of a candidate's cases, or of
    /// the cases of something that would have to go behind the candidate.
    fn count_held(&mut self) {
        let mut chased: HashMap<Case, BTreeSet<usize>> = HashMap::new();
        let mut held = Vec::new();
        self.in_order(|one| match one {
            InOrder::Candidate(at, candidate) => {
                for case in &candidate.cases {
                    chased.entry(*case).or_default().insert(at);
                }
            }
            InOrder::Unfinished(release) => {
                let by = release.cases.iter().filter_map(|case| chased.get(case));
                let by: BTreeSet<usize> = by.flatten().copied().collect();
                if release.is_held {
                    held.extend(by);
                } else if !by.is_empty() {
                    for case in &release.cases {
                        chased.entry(*case).or_default().extend(&by);
                    }
                }
            }
        });
        for at in held {
            self.count(at);
        }
    }

    fn count(&mut self, at: usize) {
        if let Some(by) = self.counts.get_mut(at) {
            *by += 1;
        }
    }

    /// Which candidates a case is of, by place and first number.
    fn cases_of_candidates(&self) -> HashMap<Case, Vec<(usize, i64)>> {
        let mut cases: HashMap<Case, Vec<(usize, i64)>> = HashMap::new();
        for (at, candidate) in self.candidates.iter().enumerate() {
            for case in &candidate.cases {
                cases.entry(*case).or_default().push((at, candidate.first));
            }
        }
        cases
    }

    /// Candidates and unfinished releases, in the order in which they were made.
    fn in_order<'s>(&'s self, mut see: impl FnMut(InOrder<'s>)) {
        let mut unfinished = self.unfinished.iter().peekable();
        for (at, candidate) in self.candidates.iter().enumerate() {
            while let Some(release) = unfinished.next_if(|one| one.first < candidate.first) {
                see(InOrder::Unfinished(release));
            }
            see(InOrder::Candidate(at, candidate));
        }
        unfinished.for_each(|release| see(InOrder::Unfinished(release)));
    }
}

enum InOrder<'s> {
    Candidate(usize, &'s Candidate),
    Unfinished(&'s Unfinished),
}

/// Looks at all rows of a statement, in steps.
pub(super) async fn scan(
    connection: &mut Connection,
    statement: &'static str,
    inbox: &(String, bool),
    (mut after, to): (i64, i64),
    mut see: impl FnMut(&Row) -> Result<(), sqlx::Error>,
) -> Result<(), sqlx::Error> {
    loop {
        let rows = query(statement)
            .bind(&inbox.0)
            .bind(inbox.1)
            .bind(after)
            .bind(to)
            .bind(SCAN_ROWS)
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            see(row)?;
        }
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.get("sequence")?;
    }
}

pub(super) fn is_held(row: &Row, now: i64) -> Result<bool, sqlx::Error> {
    Ok(row.get::<&str>("state")? == "leased" && row.get::<i64>("lease_until")? > now)
}

/// A release that gets a new number.
pub(super) struct Move {
    pub(super) id: String,
    /// The number that it had when it was looked at.
    pub(super) sequence: i64,
    /// True for a dead letter, false for what goes behind one.
    pub(super) is_dead: bool,
}

impl Move {
    fn revive(candidate: &Candidate) -> Self {
        Self {
            id: candidate.id.clone(),
            sequence: candidate.sequence,
            is_dead: true,
        }
    }

    fn behind(release: &Unfinished) -> Self {
        Self {
            id: release.id.clone(),
            sequence: release.sequence,
            is_dead: false,
        }
    }
}

/// Everything that gets a new number, and what must not have changed for it.
pub(super) struct Moves {
    pub(super) inbox: (String, bool),
    /// In the order of the new numbers.
    pub(super) releases: Vec<Move>,
    /// Every case of what moves.
    pub(super) cases: HashSet<Case>,
    pub(super) seen_to: i64,
}

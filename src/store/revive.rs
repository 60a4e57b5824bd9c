//! Makes dead letters due again, without disturbing the order of their cases.
//!
//! A dead letter goes to the end of its inbox with a new number, so that those
//! who follow the numbers see it. What is newer and has not left yet goes
//! behind it, also with a new number. What is newer and has left overtook it:
//! that is for a person to decide.
//!
//! ```text
//!   before    1 dead   2 offered   3 other case   4 taken over (another case)
//!   after     3 other case   4 taken over   5 was 1   6 was 2
//! ```
//!
//! The look over what came later may be long and happens on a reading
//! connection; the writer then checks that nothing moved since, and only that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Store;
use super::backend::{Connection, Row, query};
use super::bells::Rings;
use super::dead::{DeadFilter, DeadLetter};
use super::error::Error;
use super::message::DeliveryState;
use super::sql::{self, Columnar as _, ms};
use super::writer::Change;
use crate::domain::{Domain, KeyedHash, PartyId, TenantId};

/// Dead letters that one transaction makes due again.
const STEP: usize = 300;
/// Rows that one step of a look reads.
const SCAN_ROWS: i64 = 2000;
/// How often a look is repeated when something moved meanwhile.
const ATTEMPTS: u32 = 8;

/// What to do with a dead letter that was overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overtaken {
    /// It stays: an old report would come after a newer one.
    Leave,
    /// It goes all the same.
    Send,
}

/// What came of making one dead letter due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is due, with this number.
    Due {
        /// Its new place in the inbox.
        sequence: i64,
    },
    /// It stays dead: so many newer releases of its cases have left.
    Overtaken {
        /// How many.
        by: u64,
    },
    /// It is not dead, and nothing was changed.
    NotDead(DeliveryState),
    /// There is no such release.
    Unknown,
}

/// What came, or would come, of making many dead letters due again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Dead letters that the filter names.
    pub matched: u64,
    /// How many of them are due again.
    pub due: u64,
    /// How many were overtaken, whether they went or not.
    pub overtaken: u64,
    /// The same by kind.
    pub groups: BTreeMap<ReplayGroup, ReplayCount>,
}

/// What the counts of a replay are added up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayGroup {
    /// Whose inbox.
    pub party: PartyId,
    /// True for test traffic.
    pub test: bool,
    /// Whose employees.
    pub tenant: TenantId,
    /// Domain of the route.
    pub domain: Domain,
    /// Name of the message.
    pub message_type: String,
    /// Code of the rejection, when it can be shown.
    pub code: Option<String>,
}

/// Counts of a [`ReplayGroup`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCount {
    /// Dead letters.
    pub matched: u64,
    /// Due again.
    pub due: u64,
    /// Overtaken.
    pub overtaken: u64,
}

type Case = [u8; KeyedHash::LEN];

/// A dead letter, as its order is decided.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    id: String,
    inbox: (String, bool),
    sequence: i64,
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

fn cases(row: &Row) -> Result<Vec<Case>, sqlx::Error> {
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
    overtaken: Vec<u64>,
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
            overtaken: vec![0; candidates.len()],
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
        ids.zip(self.overtaken.iter().copied())
    }

    /// The candidates that go, by place.
    pub(super) fn going(&self, overtaken: Overtaken) -> BTreeSet<usize> {
        let all = self.overtaken.iter().enumerate();
        let going = all.filter(|(_, by)| overtaken == Overtaken::Send || **by == 0);
        going.map(|(at, _)| at).collect()
    }

    /// What would change to make these candidates due.
    fn revive(&self, going: &BTreeSet<usize>) -> Option<Revive> {
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
        Some(Revive {
            inbox,
            moves,
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
        if let Some(by) = self.overtaken.get_mut(at) {
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
async fn scan(
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

fn is_held(row: &Row, now: i64) -> Result<bool, sqlx::Error> {
    Ok(row.get::<&str>("state")? == "leased" && row.get::<i64>("lease_until")? > now)
}

/// A release that gets a new number.
struct Move {
    id: String,
    /// The number that it had when it was looked at.
    sequence: i64,
    /// True for a dead letter, false for what goes behind one.
    is_dead: bool,
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

/// Gives dead letters, and what goes behind them, new numbers in their order.
struct Revive {
    inbox: (String, bool),
    moves: Vec<Move>,
    /// Every case of what moves.
    cases: HashSet<Case>,
    seen_to: i64,
}

/// The new number of each dead letter; none when something moved since the
/// look, and nothing was changed.
type Revived = Option<HashMap<String, i64>>;

const RESERVE: &str = "UPDATE inbox SET last_sequence = last_sequence + $3
    WHERE party = $1 AND test = $2 RETURNING last_sequence";
const CAME_IN: &str = "SELECT sequence, cases FROM delivery
    WHERE party = $1 AND test = $2 AND sequence > $3 AND sequence <= $4
    ORDER BY sequence LIMIT $5";
const LOOK_AGAIN: &str = "SELECT id, sequence, state, lease_until, finished_at IS NULL AS is_open
    FROM delivery WHERE id IN";
/// As if it had never been handed out: what its receiver said about it goes.
const MAKE_DUE: &str = "UPDATE delivery SET state = 'offered', sequence = $1,
    first_sequence = COALESCE(first_sequence, sequence), offered_at = $2, lease = NULL,
    lease_until = 0, leased_at = NULL, attempt = 0, finished_at = NULL, answered_at = NULL,
    answer_positive = NULL, rejection = NULL WHERE id = $3 AND state = 'dead'";
const MOVE_BEHIND: &str = "UPDATE delivery SET sequence = $1,
    first_sequence = COALESCE(first_sequence, sequence)
    WHERE id = $2 AND finished_at IS NULL";

impl Change for Revive {
    type Output = Revived;

    async fn run(&self, connection: &mut Connection) -> Result<Revived, sqlx::Error> {
        // Locks the counter first, so that nothing comes in meanwhile.
        let last = self.reserve(connection).await?;
        let mut sequence = last - self.count();
        if self.something_came_in(connection, sequence).await?
            || !self.is_as_it_was(connection).await?
        {
            return Ok(None);
        }
        let mut revived = HashMap::new();
        for one in &self.moves {
            sequence += 1;
            if one.is_dead {
                revived.insert(one.id.clone(), sequence);
            }
            self.renumber(connection, one, sequence).await?;
        }
        Ok(Some(revived))
    }

    fn ring(&self, revived: &Revived, rings: &mut Rings) {
        if revived.is_some() {
            rings.ring(&self.inbox.0, self.inbox.1);
        }
    }
}

impl Revive {
    fn count(&self) -> i64 {
        i64::try_from(self.moves.len()).unwrap_or(i64::MAX)
    }

    /// Takes a number for each move; gives the last one.
    async fn reserve(&self, connection: &mut Connection) -> Result<i64, sqlx::Error> {
        let row = query(RESERVE)
            .bind(&self.inbox.0)
            .bind(self.inbox.1)
            .bind(self.count())
            .fetch_one(connection)
            .await?;
        row.get("last_sequence")
    }

    /// True when the inbox got something about the same cases since the look.
    async fn something_came_in(
        &self,
        connection: &mut Connection,
        to: i64,
    ) -> Result<bool, sqlx::Error> {
        let mut found = false;
        let range = (self.seen_to, to);
        scan(connection, CAME_IN, &self.inbox, range, |row| {
            found |= cases(row)?.iter().any(|case| self.cases.contains(case));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// True when what moves is where it was, dead or free.
    async fn is_as_it_was(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let ids: Vec<&str> = self.moves.iter().map(|one| one.id.as_str()).collect();
        let rows = sql::lock_in(connection, LOOK_AGAIN, ids, " ORDER BY id").await?;
        let mut found: HashMap<&str, (i64, bool, bool)> = HashMap::new();
        for row in &rows {
            let is_dead = row.get::<&str>("state")? == "dead";
            let is_over = !row.get::<bool>("is_open")?;
            let is_free = !is_over && !is_held(row, connection.now_ms())?;
            let seen = (row.get("sequence")?, is_dead, is_free);
            found.insert(row.get("id")?, seen);
        }
        Ok(self.moves.iter().all(|one| {
            let expected = (one.sequence, one.is_dead, !one.is_dead);
            found.get(one.id.as_str()) == Some(&expected)
        }))
    }

    async fn renumber(
        &self,
        connection: &mut Connection,
        one: &Move,
        sequence: i64,
    ) -> Result<(), sqlx::Error> {
        let change = if one.is_dead {
            query(MAKE_DUE).bind(sequence).bind(connection.now_ms())
        } else {
            query(MOVE_BEHIND).bind(sequence)
        };
        change.bind(&one.id).execute(connection).await?;
        Ok(())
    }
}

const STATE: &str = "SELECT state, lease_until FROM delivery WHERE id = $1";

impl Store {
    /// Makes a dead letter due again, at the end of its inbox and before what
    /// is newer of its cases. A release that is not dead stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when its inbox does not stand still for long
    /// enough, [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn retry(&self, id: &str, overtaken: Overtaken) -> Result<Retry, Error> {
        for _ in 0..ATTEMPTS {
            let Some(candidate) = self.candidate(id).await? else {
                return self.not_dead(id).await;
            };
            let survey = self.survey(vec![candidate]).await?;
            let going = survey.going(overtaken);
            if going.is_empty() {
                let by = survey.overtaken.first().copied().unwrap_or(0);
                return Ok(Retry::Overtaken { by });
            }
            let revived = self.revive(&survey, &going).await?;
            if let Some(sequence) = revived.as_ref().and_then(|revived| revived.get(id)) {
                return Ok(Retry::Due {
                    sequence: *sequence,
                });
            }
        }
        Err(Error::Conflict)
    }

    /// What [`Self::replay`] would do now.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn preview_replay(
        &self,
        filter: &DeadFilter,
        overtaken: Overtaken,
    ) -> Result<Replay, Error> {
        let mut tally = Tally::default();
        for candidates in tally.start(self.candidates(filter).await?) {
            let survey = self.survey(candidates).await?;
            tally.count(&survey, &survey.going(overtaken));
        }
        Ok(tally.replay)
    }

    /// Makes every dead letter due again that the filter names, in the order
    /// in which they were made, some hundred at a time. What was done stands
    /// when a later step fails; calling again goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::retry`].
    pub async fn replay(&self, filter: &DeadFilter, overtaken: Overtaken) -> Result<Replay, Error> {
        let mut tally = Tally::default();
        for candidates in tally.start(self.candidates(filter).await?) {
            for step in candidates.chunks(STEP) {
                self.replay_step(step, overtaken, &mut tally).await?;
            }
        }
        Ok(tally.replay)
    }

    async fn replay_step(
        &self,
        step: &[Candidate],
        overtaken: Overtaken,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let mut step = step.to_vec();
        for _ in 0..ATTEMPTS {
            let survey = self.survey(step).await?;
            let going = survey.going(overtaken);
            if going.is_empty() || self.revive(&survey, &going).await?.is_some() {
                tally.count(&survey, &going);
                return Ok(());
            }
            step = self.still_dead(survey.candidates).await?;
        }
        Err(Error::Conflict)
    }

    /// Without those that somebody else made due meanwhile.
    async fn still_dead(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        let ids: Vec<String> = candidates.iter().map(|one| one.id.clone()).collect();
        let mut connection = self.reader().await?;
        let rows = sql::select_in(&mut connection, LOOK_AGAIN, &ids, "").await?;
        let mut dead: HashSet<(&str, i64)> = HashSet::new();
        for row in &rows {
            if row.value::<&str>("state")? == "dead" {
                dead.insert((row.value("id")?, row.value("sequence")?));
            }
        }
        let mut still = candidates;
        still.retain(|one| dead.contains(&(one.id.as_str(), one.sequence)));
        Ok(still)
    }

    /// A look at the clock of this node will do: the writer looks at that of
    /// the database, and finds nothing as it was if the two disagree on a lease.
    async fn survey(&self, candidates: Vec<Candidate>) -> Result<Survey, Error> {
        let mut connection = self.reader().await?;
        let now = ms(self.clock().now());
        Ok(Survey::of(&mut connection, candidates, now).await?)
    }

    pub(super) async fn revive(
        &self,
        survey: &Survey,
        going: &BTreeSet<usize>,
    ) -> Result<Revived, Error> {
        match survey.revive(going) {
            Some(revive) => self.writer().write(revive).await,
            None => Ok(Some(HashMap::new())),
        }
    }

    async fn not_dead(&self, id: &str) -> Result<Retry, Error> {
        let mut connection = self.reader().await?;
        let row = query(STATE)
            .bind(id)
            .fetch_optional(&mut connection)
            .await?;
        let Some(row) = row else {
            return Ok(Retry::Unknown);
        };
        Ok(Retry::NotDead(match row.value::<&str>("state")? {
            "taken_over" => DeliveryState::TakenOver,
            "dead" => DeliveryState::Dead,
            _ if is_held(&row, ms(self.clock().now()))? => DeliveryState::Leased,
            _ => DeliveryState::Offered,
        }))
    }
}

/// Counts of a replay while it goes.
#[derive(Default)]
struct Tally {
    replay: Replay,
    groups: HashMap<String, ReplayGroup>,
}

impl Tally {
    /// Notes what each letter is counted under.
    fn start(&mut self, found: Vec<(DeadLetter, Candidate)>) -> Vec<Vec<Candidate>> {
        let (letters, candidates): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        for letter in letters {
            let group = ReplayGroup {
                party: letter.party,
                test: letter.test,
                tenant: letter.tenant,
                domain: letter.domain,
                message_type: letter.message_type,
                code: letter.rejection.code,
            };
            self.groups.insert(letter.id, group);
        }
        by_inbox(candidates)
    }

    fn count(&mut self, survey: &Survey, going: &BTreeSet<usize>) {
        for (at, (id, by)) in survey.overtaken().enumerate() {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            let group = self.replay.groups.entry(group.clone()).or_default();
            let (due, overtaken) = (u64::from(going.contains(&at)), u64::from(by > 0));
            group.matched += 1;
            group.due += due;
            group.overtaken += overtaken;
            self.replay.matched += 1;
            self.replay.due += due;
            self.replay.overtaken += overtaken;
        }
    }
}

//! The changes of an inbox: lease, acknowledge, reject, extend.
//!
//! ```text
//!            lease              ack
//! offered ──────────▶ leased ──────────▶ taken_over
//!    ▲                  │ └──────────▶ dead
//!    └──────────────────┘    reject
//!        time runs out
//! ```
//!
//! Order per case: a release waits while an earlier one that shares a case is
//! unfinished and not in the same answer; what waits holds up what shares a
//! case with it in turn. The scan goes by number, so that is one pass.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use metrics::{counter, histogram};

use super::backend::{Connection, Row, query};
use super::bells::Rings;
use super::sql;
use super::writer::Change;
use crate::domain::KeyedHash;

/// Most rows that one step of the scan reads.
const SCAN_ROWS: usize = 1024;

/// Takes what is due, oldest first.
pub(super) struct Lease {
    pub(super) party: String,
    pub(super) test: bool,
    pub(super) limit: usize,
    pub(super) token: String,
    /// For how long, in milliseconds.
    pub(super) ttl_ms: i64,
    /// What may be taken; the rest waits, as what is leased does.
    pub(super) due: Due,
    /// Whether reports of one case may come together, in order.
    pub(super) reports: Reports,
}

/// Whether reports of one case may come in one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reports {
    /// In order.
    Together,
    /// A later one comes after the earlier one is finished.
    Apart,
}

/// Which releases a lease may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Also those that wait for a retry.
    Any,
    /// Those whose time has come.
    Now,
    /// Those that were never put off.
    NeverLater,
}

impl Due {
    /// A release that is due later than this waits.
    fn by(self, now: i64) -> i64 {
        match self {
            Self::Any => i64::MAX,
            Self::Now => now,
            Self::NeverLater => 0,
        }
    }
}

/// How a receiver gets its messages, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Poll,
    Push,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Push => "push",
        }
    }
}

/// What a lease took.
#[derive(Default)]
pub(super) struct Taken {
    /// Until when, in unix milliseconds of the database.
    pub(super) until: i64,
    /// Columns of the releases, as they were before.
    pub(super) rows: Vec<Row>,
    /// True when something due waits for an earlier report of its case.
    pub(super) held_back: bool,
    /// True when there was no room for something due.
    pub(super) is_full: bool,
    /// When the first of what was passed over comes free by itself, in unix
    /// milliseconds of the database.
    pub(super) next: Option<i64>,
}

impl Taken {
    /// Counts what was leased before and came again because that ran out.
    pub(super) fn count_expiries(&self, party: &str, mode: Mode) {
        let again = self.rows.iter();
        let again = again.filter(|row| row.get::<&str>("state").ok() == Some("leased"));
        let again = again.count() as u64;
        if again > 0 {
            let labels = [
                ("party", party.to_owned()),
                ("mode", mode.as_str().to_owned()),
            ];
            counter!("sivi_lease_expiries_total", &labels).increment(again);
        }
    }
}

/// A release that was taken over, for counting.
pub(super) struct TakenOver {
    domain: String,
    /// How long after the receipt of its message, in milliseconds.
    waited_ms: i64,
}

impl TakenOver {
    /// Of a row with `domain` and `received_at`.
    pub(super) fn read(row: &Row, now: i64) -> Result<Self, sqlx::Error> {
        Ok(Self {
            domain: row.get("domain")?,
            waited_ms: now.saturating_sub(row.get("received_at")?),
        })
    }

    pub(super) fn count(&self, mode: Mode) {
        let waited = Duration::from_millis(u64::try_from(self.waited_ms).unwrap_or(0));
        let labels = [
            ("domain", self.domain.clone()),
            ("mode", mode.as_str().to_owned()),
        ];
        histogram!("sivi_takeover_seconds", &labels).record(waited);
    }
}

const SCAN: &str = "SELECT id, sequence, tenant, message_type, edition, cases, bytes, received_at,
    state, lease_until, attempt, due_at, failures, refusals, first_failed_at FROM delivery
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND sequence > $3
    ORDER BY sequence LIMIT $4";

impl Change for Lease {
    type Output = Taken;

    async fn run(&self, connection: &mut Connection) -> Result<Taken, sqlx::Error> {
        let now = connection.now_ms();
        let until = now.saturating_add(self.ttl_ms);
        let mut pick = Pick::new(self, now);
        let mut taken = Vec::new();
        let mut after = 0_i64;
        // Mostly the oldest rows are due; if not, the steps grow.
        let mut step = self.limit + 16;
        loop {
            let rows = query(SCAN)
                .bind(&self.party)
                .bind(self.test)
                .bind(after)
                .bind(i64::try_from(step).unwrap_or(i64::MAX))
                .fetch_all(&mut *connection)
                .await?;
            let more = rows.len() == step;
            step = (2 * step).min(SCAN_ROWS);
            if let Some(last) = rows.last() {
                after = last.get("sequence")?;
            }
            let mut ours = choose(connection, &mut pick, &rows).await?.into_iter();
            taken.extend(rows.into_iter().filter(|_| ours.next() == Some(true)));
            if pick.is_full || !more {
                break;
            }
        }
        self.mark(connection, &taken, until).await?;
        Ok(Taken {
            until,
            rows: taken,
            held_back: pick.held_back,
            is_full: pick.is_full,
            next: pick.next,
        })
    }

    fn count(&self, taken: &Taken) {
        taken.count_expiries(&self.party, Mode::Poll);
    }

    fn ring(&self, taken: &Taken, rings: &mut Rings) {
        if taken.held_back {
            rings.hold_back(&self.party, self.test);
        }
    }
}

impl Lease {
    async fn mark(
        &self,
        connection: &mut Connection,
        rows: &[Row],
        until: i64,
    ) -> Result<(), sqlx::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut mark = query(MARK)
            .bind(&self.token)
            .bind(until)
            .bind(connection.now_ms());
        sql::push_list(&mut mark, ids::<Vec<_>>(rows)?);
        mark.execute(connection).await?;
        Ok(())
    }
}

const MARK: &str = "UPDATE delivery SET state = 'leased', lease = $1, lease_until = $2,
    leased_at = $3, attempt = attempt + 1 WHERE finished_at IS NULL AND id IN";
/// Looks again at rows that were read without a lock: what another node leases
/// right now, or leased since, is not among them. What got another number
/// since may have to stay behind what was not seen.
const STILL_DUE: &str = "SELECT id, sequence FROM delivery WHERE finished_at IS NULL
    AND (state <> 'leased' OR lease_until <= $1) AND id IN";

/// Picks from the next rows, and keeps the picked ones from other nodes until
/// the transaction ends. True for each row that was picked.
///
/// Rows are read first, without a lock and whatever their state, because an
/// earlier report that another node holds must be seen to hold up later ones:
/// skipping it unseen would hand them out before it. What another node takes
/// meanwhile counts as held, and the rest is picked anew.
async fn choose(
    connection: &mut Connection,
    pick: &mut Pick,
    rows: &[Row],
) -> Result<Vec<bool>, sqlx::Error> {
    let mut lost = HashSet::new();
    loop {
        let mut attempt = pick.clone();
        let picked = attempt.look_at(rows, &lost)?;
        if connection.is_shared() {
            let lost_before = lost.len();
            let wanted = std::iter::zip(rows, &picked).filter(|(_, is_picked)| **is_picked);
            lost.extend(held_by_others(connection, wanted.map(|(row, _)| row), pick.now).await?);
            if lost.len() > lost_before {
                continue;
            }
        }
        *pick = attempt;
        return Ok(picked);
    }
}

/// Locks those of `rows` that are still due, and gives the others.
async fn held_by_others(
    connection: &mut Connection,
    rows: impl Iterator<Item = &Row>,
    now: i64,
) -> Result<HashSet<String>, sqlx::Error> {
    let place = |row: &Row| Ok((row.get("id")?, row.get("sequence")?));
    let mut wanted: HashSet<(String, i64)> = rows.map(place).collect::<Result<_, sqlx::Error>>()?;
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    let lock = connection.free_row_lock();
    let mut still_due = query(STILL_DUE).bind(now);
    sql::push_list(&mut still_due, wanted.iter().map(|(id, _)| id));
    still_due.push(" ORDER BY sequence").push(lock);
    for row in still_due.fetch_all(connection).await? {
        wanted.remove(&place(&row)?);
    }
    Ok(wanted.into_iter().map(|(id, _)| id).collect())
}

fn ids<C: FromIterator<String>>(rows: &[Row]) -> Result<C, sqlx::Error> {
    rows.iter().map(|row| row.get("id")).collect()
}

fn is_leased(row: &Row, now: i64) -> Result<bool, sqlx::Error> {
    Ok(row.get::<&str>("state")? == "leased" && row.get::<i64>("lease_until")? > now)
}

/// The scan so far.
#[derive(Clone)]
struct Pick {
    now: i64,
    /// What is due later waits.
    due_by: i64,
    reports: Reports,
    /// How many more releases the answer takes.
    places: usize,
    /// How many more bytes.
    room: i64,
    is_empty: bool,
    is_full: bool,
    blocked: HashSet<[u8; KeyedHash::LEN]>,
    held_back: bool,
    next: Option<i64>,
}

impl Pick {
    fn new(lease: &Lease, now: i64) -> Self {
        Self {
            now,
            due_by: lease.due.by(now),
            reports: lease.reports,
            places: lease.limit,
            room: sql::ANSWER_BYTES,
            is_empty: true,
            is_full: false,
            blocked: HashSet::new(),
            held_back: false,
            next: None,
        }
    }

    /// Picks from the next rows in order, up to where the answer is full; true
    /// for each row that is picked. What is `lost` counts as held.
    fn look_at(&mut self, rows: &[Row], lost: &HashSet<String>) -> Result<Vec<bool>, sqlx::Error> {
        let mut picked = Vec::with_capacity(rows.len());
        for row in rows {
            let cases: &[u8] = row.get("cases")?;
            let (cases, _) = cases.as_chunks::<{ KeyedHash::LEN }>();
            let free_at = self.free_at(row)?;
            self.next = self.next.into_iter().chain(free_at).min();
            let is_held = free_at.is_some();
            let is_lost = lost.contains(row.get::<&str>("id")?);
            if is_held || is_lost || cases.iter().any(|case| self.blocked.contains(case)) {
                self.blocked.extend(cases);
                self.held_back |= !is_held;
                picked.push(false);
                continue;
            }
            let bytes: i64 = row.get("bytes")?;
            if self.places == 0 || (bytes > self.room && !self.is_empty) {
                self.is_full = true;
                break;
            }
            if self.reports == Reports::Apart {
                self.blocked.extend(cases);
            }
            self.places -= 1;
            self.room -= bytes;
            self.is_empty = false;
            picked.push(true);
        }
        Ok(picked)
    }

    /// When a row comes free that is leased or not due yet.
    fn free_at(&self, row: &Row) -> Result<Option<i64>, sqlx::Error> {
        if is_leased(row, self.now)? {
            return row.get("lease_until").map(Some);
        }
        let due_at: i64 = row.get("due_at")?;
        Ok((due_at > self.due_by).then_some(due_at))
    }
}

/// Takes over what the receiver confirms.
pub(super) struct Acknowledge {
    pub(super) party: String,
    pub(super) items: Vec<(String, Option<String>)>,
}

/// Which ids counted, and which inboxes became emptier.
pub(super) struct Acknowledged {
    pub(super) counted: HashSet<String>,
    finished: HashSet<bool>,
    taken_over: Vec<TakenOver>,
}

const HELD: &str = "SELECT id, party, test, state, lease, attempt, domain, received_at
    FROM delivery WHERE id IN";

impl Change for Acknowledge {
    type Output = Acknowledged;

    async fn run(&self, connection: &mut Connection) -> Result<Acknowledged, sqlx::Error> {
        let ids: Vec<String> = self.items.iter().map(|(id, _)| id.clone()).collect();
        let rows = sql::lock_in(connection, HELD, ids, " ORDER BY id").await?;
        let mut held = HashMap::with_capacity(rows.len());
        for row in &rows {
            let one = Held::read(row)?;
            held.insert(one.id.clone(), one);
        }
        let mut outcome = Acknowledged {
            counted: HashSet::new(),
            finished: HashSet::new(),
            taken_over: Vec::new(),
        };
        let mut taken_over = Vec::new();
        for (id, token) in &self.items {
            let Some(one) = held.get(id).filter(|one| one.party == self.party) else {
                continue;
            };
            let is_done = one.state == "taken_over";
            if !is_done && !one.counts_with(token.as_deref()) {
                continue;
            }
            if outcome.counted.insert(id.clone()) && !is_done {
                taken_over.push(id.clone());
                outcome.finished.insert(one.test);
                outcome.taken_over.push(TakenOver {
                    domain: one.domain.clone(),
                    waited_ms: connection.now_ms().saturating_sub(one.received_at),
                });
            }
        }
        self.take_over(connection, taken_over).await?;
        Ok(outcome)
    }

    fn ring(&self, outcome: &Acknowledged, rings: &mut Rings) {
        for test in &outcome.finished {
            rings.finished(&self.party, *test);
        }
    }

    fn count(&self, outcome: &Acknowledged) {
        for one in &outcome.taken_over {
            one.count(Mode::Poll);
        }
    }
}

impl Acknowledge {
    async fn take_over(
        &self,
        connection: &mut Connection,
        ids: Vec<String>,
    ) -> Result<(), sqlx::Error> {
        for ids in ids.chunks(sql::LIST_MAX) {
            let mut take_over = query(TAKE_OVER).bind(connection.now_ms());
            sql::push_list(&mut take_over, ids);
            take_over.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

const TAKE_OVER: &str = "UPDATE delivery SET state = 'taken_over', lease = NULL, finished_at = $1
    WHERE id IN";

/// A delivery as acknowledging sees it.
struct Held {
    id: String,
    party: String,
    test: bool,
    state: String,
    lease: Option<String>,
    attempt: i64,
    domain: String,
    received_at: i64,
}

impl Held {
    fn read(row: &Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.get("id")?,
            party: row.get("party")?,
            test: row.get("test")?,
            state: row.get("state")?,
            lease: row.get("lease")?,
            attempt: row.get("attempt")?,
            domain: row.get("domain")?,
            received_at: row.get("received_at")?,
        })
    }

    /// With a token only its lease counts, also when it ran out and nobody
    /// took over; without one, that it was ever handed out. What its receiver
    /// rejected stays a dead letter until a person looks at it.
    fn counts_with(&self, token: Option<&str>) -> bool {
        match token {
            _ if self.state == "dead" => false,
            Some(token) => self.lease.as_deref() == Some(token),
            None => self.attempt > 0,
        }
    }
}

/// What became of a change that needs the current lease.
pub(super) enum Fenced {
    /// Made.
    Done {
        /// True for test traffic.
        test: bool,
        /// When the change was made, in unix milliseconds of the database.
        at: i64,
    },
    /// No such release of this party.
    Unknown,
    /// The lease is not the current one.
    LeaseLost,
}

/// A change that needs the current lease of one release.
pub(super) struct WithLease {
    pub(super) party: String,
    pub(super) id: String,
    pub(super) token: String,
    pub(super) then: Then,
}

/// What to do with the leased release.
pub(super) enum Then {
    /// Give it up; the case goes on without it.
    Bury { rejection: Vec<u8> },
    /// Hold it longer, by milliseconds from now.
    Extend { ttl_ms: i64 },
}

const BURY: &str = "UPDATE delivery SET state = 'dead', lease = NULL, finished_at = $1,
    rejection = $2 WHERE id = $3";
const EXTEND: &str = "UPDATE delivery SET lease_until = $1 WHERE id = $2";

impl Change for WithLease {
    type Output = Fenced;

    async fn run(&self, connection: &mut Connection) -> Result<Fenced, sqlx::Error> {
        let rows = sql::lock_in(connection, HELD, vec![&self.id], " ORDER BY id").await?;
        let held = rows.first().map(Held::read).transpose()?;
        let Some(held) = held.filter(|held| held.party == self.party) else {
            return Ok(Fenced::Unknown);
        };
        if !held.counts_with(Some(&self.token)) {
            return Ok(Fenced::LeaseLost);
        }
        let now = connection.now_ms();
        let change = match &self.then {
            Then::Bury { rejection } => query(BURY).bind(now).bind(rejection),
            Then::Extend { ttl_ms } => query(EXTEND).bind(now.saturating_add(*ttl_ms)),
        };
        change.bind(&self.id).execute(connection).await?;
        Ok(Fenced::Done {
            test: held.test,
            at: now,
        })
    }

    fn ring(&self, fenced: &Fenced, rings: &mut Rings) {
        if let (Fenced::Done { test, .. }, Then::Bury { .. }) = (fenced, &self.then) {
            rings.finished(&self.party, *test);
        }
    }
}

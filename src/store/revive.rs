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
//! What came later is looked at before ([`super::survey`]); the writer checks
//! that nothing moved since, and only that.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Store;
use super::backend::{Connection, Row, query};
use super::bells::Rings;
use super::error::Error;
use super::message::DeliveryState;
use super::sql::{self, Columnar as _, ms};
use super::survey::{Candidate, Move, Moves, Survey, cases, is_held, scan};
use super::writer::Change;

/// How often a look is repeated when something moved meanwhile.
pub(super) const ATTEMPTS: u32 = 8;

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
    /// A person discarded it.
    Discarded,
    /// Its content is gone.
    NoContent,
    /// There is no such release.
    Unknown,
}

/// Gives dead letters, and what goes behind them, new numbers in their order.
struct Revive(Moves);

/// The new number of each dead letter; none when something moved since the
/// look, and nothing was changed.
pub(super) type Revived = Option<HashMap<String, i64>>;

const RESERVE: &str = "UPDATE inbox SET last_sequence = last_sequence + $3
    WHERE party = $1 AND test = $2 RETURNING last_sequence";
const CAME_IN: &str = "SELECT sequence, cases FROM delivery
    WHERE party = $1 AND test = $2 AND sequence > $3 AND sequence <= $4
    ORDER BY sequence LIMIT $5";
const LOOK_AGAIN: &str =
    "SELECT id, sequence, state, lease_until, discarded_at, finished_at IS NULL AS is_open
    FROM delivery WHERE id IN";
const CONTENT: &str = "SELECT delivery_id FROM payload WHERE delivery_id IN";
/// As if it had never been handed out: what its receiver said about it goes.
const MAKE_DUE: &str = "UPDATE delivery SET state = 'offered', sequence = $1,
    first_sequence = COALESCE(first_sequence, sequence), offered_at = $2, lease = NULL,
    lease_until = 0, leased_at = NULL, attempt = 0, finished_at = NULL, answered_at = NULL,
    answer_positive = NULL, rejection = NULL, due_at = 0, failures = 0, refusals = 0,
    first_failed_at = NULL WHERE id = $3 AND state = 'dead'";
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
        for one in &self.0.releases {
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
            let (party, test) = &self.0.inbox;
            rings.ring(party, *test);
        }
    }
}

impl Revive {
    fn count(&self) -> i64 {
        i64::try_from(self.0.releases.len()).unwrap_or(i64::MAX)
    }

    /// Takes a number for each move; gives the last one.
    async fn reserve(&self, connection: &mut Connection) -> Result<i64, sqlx::Error> {
        let row = query(RESERVE)
            .bind(&self.0.inbox.0)
            .bind(self.0.inbox.1)
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
        let range = (self.0.seen_to, to);
        scan(connection, CAME_IN, &self.0.inbox, range, |row| {
            found |= cases(row)?.iter().any(|case| self.0.cases.contains(case));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// True when what moves is where it was, dead or free.
    async fn is_as_it_was(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let ids: Vec<&str> = self.0.releases.iter().map(|one| one.id.as_str()).collect();
        let rows = sql::lock_in(connection, LOOK_AGAIN, ids.clone(), " ORDER BY id").await?;
        // Read once the rows are locked: who takes content away locks them too.
        let content = with_content(connection, &ids).await?;
        let mut found: HashMap<&str, (i64, bool, bool)> = HashMap::new();
        for row in &rows {
            let is_dead = waits(row, &content)?;
            let is_over = !row.get::<bool>("is_open")?;
            let is_free = !is_over && !is_held(row, connection.now_ms())?;
            let seen = (row.get("sequence")?, is_dead, is_free);
            found.insert(row.get("id")?, seen);
        }
        Ok(self.0.releases.iter().all(|one| {
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

/// Which of these releases have their content.
async fn with_content(
    connection: &mut Connection,
    ids: &[&str],
) -> Result<HashSet<String>, sqlx::Error> {
    let rows = sql::select_in(connection, CONTENT, ids, "").await?;
    rows.iter().map(|row| row.get("delivery_id")).collect()
}

/// True for a dead letter that can be made due again.
fn waits(row: &Row, content: &HashSet<String>) -> Result<bool, sqlx::Error> {
    Ok(row.get::<&str>("state")? == "dead"
        && row.get::<Option<i64>>("discarded_at")?.is_none()
        && content.contains(row.get::<&str>("id")?))
}

/// Where a release stands, of a row with `state` and `lease_until`.
pub(super) fn state(row: &Row, now: i64) -> Result<DeliveryState, sqlx::Error> {
    Ok(match row.get::<&str>("state")? {
        "taken_over" => DeliveryState::TakenOver,
        "dead" => DeliveryState::Dead,
        _ if is_held(row, now)? => DeliveryState::Leased,
        _ => DeliveryState::Offered,
    })
}

const STATE: &str = "SELECT state, lease_until, discarded_at,
    EXISTS (SELECT 1 FROM payload WHERE delivery_id = delivery.id) AS has_content
    FROM delivery WHERE id = $1";

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
                let by = survey.overtaken().map(|(_, by)| by).next().unwrap_or(0);
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

    /// A look at the clock of this node will do: the writer looks at that of
    /// the database, and finds nothing as it was if the two disagree on a lease.
    pub(super) async fn survey(&self, candidates: Vec<Candidate>) -> Result<Survey, Error> {
        let mut connection = self.reader().await?;
        let now = ms(self.clock().now());
        Ok(Survey::of(&mut connection, candidates, now).await?)
    }

    pub(super) async fn revive(
        &self,
        survey: &Survey,
        going: &BTreeSet<usize>,
    ) -> Result<Revived, Error> {
        match survey.moves(going) {
            Some(moves) => self.writer().write(Revive(moves)).await,
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
        let is_discarded = row.value::<Option<i64>>("discarded_at")?.is_some();
        let has_content: bool = row.value("has_content")?;
        let state = state(&row, ms(self.clock().now()))?;
        let is_dead = state == DeliveryState::Dead;
        Ok(match (is_dead, is_discarded, has_content) {
            (true, true, _) => Retry::Discarded,
            (true, false, false) => Retry::NoContent,
            (true, false, true) | (false, ..) => Retry::NotDead(state),
        })
    }

    /// The numbers of those of these dead letters that still can be made due.
    pub(super) async fn still_dead(&self, ids: &[&str]) -> Result<HashSet<(String, i64)>, Error> {
        let mut connection = self.reader().await?;
        let rows = sql::select_in(&mut connection, LOOK_AGAIN, ids, "").await?;
        let content = with_content(&mut connection, ids).await?;
        let mut still = HashSet::new();
        for row in &rows {
            if waits(row, &content)? {
                still.insert((row.value("id")?, row.value("sequence")?));
            }
        }
        Ok(still)
    }
}

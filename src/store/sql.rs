//! Statements about many rows, and how values look in a column.
//!
//! Lists are padded to powers of two and rows are inserted in round numbers:
//! a few statement texts, which the driver keeps prepared, serve every length.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::{Date, date};

use super::backend::{Connection, MAX_BINDS, Query, Readable, Row, Value, query};
use super::error::Error;
use crate::domain::KeyedHash;

/// Most values of one `IN` list; longer look-ups are cut by their callers.
pub(super) const LIST_MAX: usize = 1024;
/// Most bytes of messages in one answer; a single larger one goes alone.
pub(super) const ANSWER_BYTES: i64 = 16 * 1024 * 1024;
/// Most rows of one INSERT.
const ROWS_MAX: usize = 256;

/// Adds ` ($1, $2, …)`, padded with the last value.
pub(super) fn push_list<V: Into<Value> + Clone>(
    query: &mut Query,
    values: impl IntoIterator<Item = V>,
) {
    let mut values: Vec<V> = values.into_iter().collect();
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    query.push(" (");
    let mut list = Columns::new(query);
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}

/// The rows of `head (values) tail`, in steps of [`LIST_MAX`] values.
pub(super) async fn select_in<V: Into<Value> + Clone>(
    connection: &mut Connection,
    head: &'static str,
    values: &[V],
    tail: &'static str,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut rows = Vec::new();
    for values in values.chunks(LIST_MAX) {
        let mut query = query(head);
        push_list(&mut query, values.iter().cloned());
        query.push(tail);
        rows.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

/// The rows of `head (values)`, which this transaction will change and nobody
/// else until it ends. `order` is an ORDER BY. All transactions lock in the same order, so that two
/// do not wait for each other.
pub(super) async fn lock_in<V: Into<Value> + Ord + Clone>(
    connection: &mut Connection,
    head: &'static str,
    mut values: Vec<V>,
    order: &'static str,
) -> Result<Vec<Row>, sqlx::Error> {
    values.sort_unstable();
    values.dedup();
    let lock = connection.row_lock();
    let mut rows = Vec::new();
    for values in values.chunks(LIST_MAX) {
        let mut query = query(head);
        push_list(&mut query, values.iter().cloned());
        query.push(order).push(lock);
        rows.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

/// Runs `head (values)`, in steps of [`LIST_MAX`] values, and counts rows.
pub(super) async fn change_in<V: Into<Value> + Clone>(
    connection: &mut Connection,
    head: &'static str,
    values: &[V],
) -> Result<u64, sqlx::Error> {
    let mut changed = 0;
    for values in values.chunks(LIST_MAX) {
        let mut query = query(head);
        push_list(&mut query, values.iter().cloned());
        changed += query.execute(&mut *connection).await?;
    }
    Ok(changed)
}

/// Keeps the first rows whose `bytes` fit one answer, at least one.
pub(super) fn cut_to_answer(rows: &mut Vec<Row>) -> Result<(), Error> {
    let mut room = ANSWER_BYTES;
    let mut fit = 0;
    for row in rows.iter() {
        room -= row.value::<i64>("bytes")?;
        if room < 0 && fit > 0 {
            break;
        }
        fit += 1;
    }
    rows.truncate(fit);
    Ok(())
}

/// Where the columns of one row, or the values of a list, are bound.
pub(super) struct Columns<'q> {
    query: &'q mut Query,
    is_first: bool,
}

impl<'q> Columns<'q> {
    fn new(query: &'q mut Query) -> Self {
        Self {
            query,
            is_first: true,
        }
    }

    /// Binds the next column.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        if !self.is_first {
            self.query.push(", ");
        }
        self.is_first = false;
        self.query.push_bind(value);
        self
    }
}

/// An INSERT of many rows.
pub(super) struct Insert {
    /// `INSERT INTO … (…) `, up to the word `VALUES`.
    pub(super) head: &'static str,
    /// How many columns `head` lists.
    pub(super) columns: usize,
    /// What follows the values: ` ON CONFLICT …`, or nothing.
    pub(super) tail: &'static str,
}

impl Insert {
    /// Inserts `rows`, each bound by `bind`.
    pub(super) async fn run<T: Sync>(
        &self,
        connection: &mut Connection,
        rows: &[T],
        bind: impl Fn(&mut Columns<'_>, &T) + Send + Sync,
    ) -> Result<(), sqlx::Error> {
        for range in self.steps(rows.len()) {
            let step = rows.get(range).unwrap_or_default();
            self.query(step, &bind).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// As [`Self::run`], with the rows that `tail` returns.
    pub(super) async fn returning<T: Sync>(
        &self,
        connection: &mut Connection,
        rows: &[T],
        bind: impl Fn(&mut Columns<'_>, &T) + Send + Sync,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut returned = Vec::new();
        for range in self.steps(rows.len()) {
            let step = rows.get(range).unwrap_or_default();
            let insert = self.query(step, &bind);
            returned.extend(insert.fetch_all(&mut *connection).await?);
        }
        Ok(returned)
    }

    fn query<T>(&self, rows: &[T], bind: impl Fn(&mut Columns<'_>, &T)) -> Query {
        let mut insert = query(self.head);
        insert.push("VALUES ");
        for (at, row) in rows.iter().enumerate() {
            insert.push(if at == 0 { "(" } else { ", (" });
            bind(&mut Columns::new(&mut insert), row);
            insert.push(")");
        }
        insert.push(self.tail);
        insert
    }

    /// Cuts `len` rows into round numbers that fit one statement each.
    fn steps(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let most = round_within((MAX_BINDS / self.columns).min(ROWS_MAX));
        let mut at = 0;
        std::iter::from_fn(move || {
            let step = round_within((len - at).min(most));
            at += step;
            (step > 0).then_some(at - step..at)
        })
    }
}

/// The largest number of one octal digit and zeros that is not above `limit`;
/// 0 for 0.
fn round_within(limit: usize) -> usize {
    let zeros = limit.checked_ilog2().map_or(0, |bits| bits / 3 * 3);
    limit >> zeros << zeros
}

/// A keyed hash as a column holds it.
pub(super) fn blob(hash: &KeyedHash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

/// A moment as a column holds it.
pub(super) fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A day as a column holds it: days since 1970-01-01.
pub(super) fn day(day: Date) -> i64 {
    i64::from((day - date(1970, 1, 1)).get_days())
}

/// The day of a number of days since 1970-01-01.
pub(super) fn to_day(number: i64) -> Option<Date> {
    let number = i32::try_from(number).ok()?;
    let days = jiff::Span::new().try_days(number).ok()?;
    date(1970, 1, 1).checked_add(days).ok()
}

/// Reads columns of a row by name.
pub(super) trait Columnar {
    /// Any value that the driver knows.
    fn value<'r, T: Readable<'r>>(&'r self, column: &str) -> Result<T, Error>;

    /// A moment.
    fn moment(&self, column: &str) -> Result<Timestamp, Error> {
        to_moment(self.value(column)?)
    }

    /// A moment, or none.
    fn moment_or_none(&self, column: &str) -> Result<Option<Timestamp>, Error> {
        self.value::<Option<i64>>(column)?
            .map(to_moment)
            .transpose()
    }

    /// A keyed hash.
    fn hash(&self, column: &str) -> Result<KeyedHash, Error> {
        to_hash(self.value(column)?)
    }

    /// A word, number or id that is kept as text.
    fn word<T>(&self, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        parse(self.value(column)?).ok_or(Error::Damaged { what: "word" })
    }
}

impl Columnar for Row {
    fn value<'r, T: Readable<'r>>(&'r self, column: &str) -> Result<T, Error> {
        self.get(column).map_err(Error::from)
    }
}

fn to_moment(ms: i64) -> Result<Timestamp, Error> {
    Timestamp::from_millisecond(ms).map_err(|_| Error::Damaged { what: "time" })
}

/// The hash of a column's bytes.
pub(super) fn to_hash(bytes: &[u8]) -> Result<KeyedHash, Error> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::Damaged { what: "hash" })?;
    Ok(KeyedHash::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn steps_cover_every_row_once(len in 0_usize..3000, columns in 1_usize..40) {
            let insert = Insert { head: "", columns, tail: "" };
            let mut next = 0;
            for step in insert.steps(len) {
                prop_assert_eq!(step.start, next);
                prop_assert_eq!(step.len(), round_within(step.len()));
                prop_assert!(step.len() * columns <= MAX_BINDS);
                next = step.end;
            }
            prop_assert_eq!(next, len);
        }

        #[test]
        fn a_day_reads_back_as_itself(number in -100_000_i64..100_000) {
            prop_assert_eq!(day(to_day(number).unwrap()), number);
        }
    }

    #[test]
    fn few_numbers_are_round() {
        let round: std::collections::BTreeSet<_> = (1..=ROWS_MAX).map(round_within).collect();
        assert_eq!(round.len(), 7 + 7 + 4);
        assert_eq!(round_within(63), 56);
        assert_eq!(round_within(64), 64);
    }

    #[test]
    fn days_count_from_1970() {
        assert_eq!(day(date(1970, 1, 2)), 1);
        assert_eq!(day(date(2018, 1, 1)), 17_532);
        assert_eq!(to_day(i64::MAX), None);
    }
}

//! Rows of any table, in the order of its key, a bounded number at a time.

use aws_lc_rs::digest::{Context, SHA256};

use super::tables::{Column, Kind, Table};
use crate::store::backend::{Connection, Query, Row, Value, query};
use crate::store::error::Error;

/// Most rows of one step.
const STEP_ROWS: usize = 256;
/// Most bytes of one step; a single larger row comes alone.
const STEP_BYTES: i64 = 8 * 1024 * 1024;

/// The values of one row, in the order of the columns of its table.
pub(super) type Record = Vec<Value>;

/// Reads a table from its first row to its last.
pub(super) struct Walk {
    table: &'static Table,
    last: Option<Record>,
}

impl Walk {
    pub(super) fn new(table: &'static Table) -> Self {
        Self { table, last: None }
    }

    /// The next rows; none at the end.
    pub(super) async fn next(&mut self, connection: &mut Connection) -> Result<Vec<Record>, Error> {
        let limit = match self.table.weigh {
            None => STEP_ROWS,
            Some(weigh) => self.rows_that_fit(connection, weigh).await?,
        };
        let step = self.statement(self.table.select, limit);
        let rows = step.fetch_all(connection).await?;
        let records: Result<Vec<_>, Error> = rows.iter().map(|row| self.record(row)).collect();
        let records = records?;
        if let Some(last) = records.last() {
            self.last = Some(self.key(last));
        }
        Ok(records)
    }

    /// How many of the next rows are together no larger than a step; at least
    /// one.
    async fn rows_that_fit(
        &self,
        connection: &mut Connection,
        weigh: &'static str,
    ) -> Result<usize, Error> {
        let rows = self.statement(weigh, STEP_ROWS);
        let mut total = 0_i64;
        let mut fitting = 0;
        for row in rows.fetch_all(connection).await? {
            total = total.saturating_add(row.get("weight")?);
            if total > STEP_BYTES {
                break;
            }
            fitting += 1;
        }
        Ok(fitting.max(1))
    }

    fn statement(&self, head: &'static str, limit: usize) -> Query {
        let mut statement = query(head);
        if let Some(last) = &self.last {
            statement.push(self.table.behind);
            for (at, value) in last.iter().enumerate() {
                statement.push(if at == 0 { "" } else { ", " });
                statement.push_bind(value.clone());
            }
            statement.push(")");
        }
        statement.push(self.table.order).push(" LIMIT ");
        statement.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        statement
    }

    fn record(&self, row: &Row) -> Result<Record, Error> {
        let columns = self.table.columns.iter();
        columns.map(|column| value(row, *column)).collect()
    }

    fn key(&self, record: &Record) -> Record {
        let place = |name: &&str| self.table.columns.iter().position(|c| c.name == *name);
        let places = self.table.key.iter().filter_map(place);
        places.filter_map(|at| record.get(at).cloned()).collect()
    }
}

fn value(row: &Row, column: Column) -> Result<Value, Error> {
    Ok(match column.kind {
        Kind::Bool => Value::Bool(row.get(column.name)?),
        Kind::Int => Value::Int(row.get(column.name)?),
        Kind::Text => Value::Text(row.get(column.name)?),
        Kind::Bytes => Value::Bytes(row.get(column.name)?),
    })
}

/// Writes rows that [`Walk::next`] gave.
pub(super) async fn insert(
    connection: &mut Connection,
    table: &'static Table,
    records: &[Record],
) -> Result<(), Error> {
    let insert = table.insert.run(connection, records, |columns, record| {
        for value in record {
            columns.push_bind(value.clone());
        }
    });
    Ok(insert.await?)
}

/// How many rows a table has.
pub(super) async fn count(connection: &mut Connection, table: &Table) -> Result<u64, Error> {
    let row = query(table.count).fetch_one(connection).await?;
    Ok(u64::try_from(row.get::<i64>("total")?).unwrap_or(0))
}

/// What a whole table comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// As the database counts them.
    pub(super) rows: u64,
    /// As they were read one by one.
    read: u64,
    digest: Vec<u8>,
}

/// Reads a whole table back.
pub(super) async fn sum(connection: &mut Connection, table: &'static Table) -> Result<Sum, Error> {
    let mut walk = Walk::new(table);
    let mut context = Context::new(&SHA256);
    let mut read = 0;
    loop {
        let records = walk.next(connection).await?;
        if records.is_empty() {
            break;
        }
        for value in records.iter().flatten() {
            digest(&mut context, value);
        }
        read += records.len() as u64;
    }
    Ok(Sum {
        rows: count(connection, table).await?,
        read,
        digest: context.finish().as_ref().to_vec(),
    })
}

impl Sum {
    /// True when all rows were read, and they are those of `other`.
    pub(super) fn is_whole_and_as(&self, other: &Self) -> bool {
        self == other && self.read == self.rows
    }
}

/// Adds a value with its kind and length, so that no two rows look the same.
fn digest(context: &mut Context, value: &Value) {
    match value {
        Value::Bool(value) => add(context, 1, value.map(|value| [u8::from(value)])),
        Value::Int(value) => add(context, 2, value.map(i64::to_be_bytes)),
        Value::Text(value) => add(context, 3, value.as_deref()),
        Value::Bytes(value) => add(context, 4, value.as_deref()),
    }
}

fn add(context: &mut Context, kind: u8, bytes: Option<impl AsRef<[u8]>>) {
    context.update(&[kind, u8::from(bytes.is_some())]);
    if let Some(bytes) = bytes {
        let bytes = bytes.as_ref();
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
}

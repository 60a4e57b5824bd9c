//! One statement and its values, and the rows that come back, the same for
//! every database.
//!
//! Texts are constants of this crate and numbered places (`$1`), which all
//! databases read; values are of the four types that the schema uses.

use std::borrow::Cow;
use std::fmt::Write as _;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{
    Arguments as _, AssertSqlSafe, Database, Decode, Encode, IntoArguments, Postgres, Row as _,
    SqlSafeStr as _, Sqlite, Type,
};

use super::{Connection, On};

/// A value of a column. Each kind knows its own NULL, because `PostgreSQL`
/// wants to know the type of what is absent.
#[derive(Clone)]
pub(in crate::store) enum Value {
    Bool(Option<bool>),
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($kind:ident: $($from:ty),+;)+) => { $($(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$kind(Some(value.into()))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$kind(value.map(Into::into))
            }
        }
    )+)+ };
}

value_from! {
    Bool: bool;
    Int: i64;
    Text: String, &str, &String;
    Bytes: Vec<u8>, &[u8];
}

impl From<&Vec<u8>> for Value {
    fn from(value: &Vec<u8>) -> Self {
        Self::Bytes(Some(value.clone()))
    }
}

/// A statement on its way to the database.
pub(in crate::store) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// Starts a statement.
pub(in crate::store) fn query(text: &'static str) -> Query {
    Query {
        text: Cow::Borrowed(text),
        values: Vec::new(),
    }
}

impl Query {
    /// Binds the next numbered place of the text.
    pub(in crate::store) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds text.
    pub(in crate::store) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Adds a place and binds it.
    pub(in crate::store) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let place = self.values.len();
        write!(self.text.to_mut(), "${place}").expect("a String takes everything");
        self
    }

    /// Runs it and counts the rows that it changed.
    pub(in crate::store) async fn execute(
        self,
        connection: &mut Connection,
    ) -> Result<u64, sqlx::Error> {
        match connection.on() {
            On::Sqlite(link) => {
                let done = self.bound::<Sqlite>()?.execute(link);
                Ok(done.await?.rows_affected())
            }
            On::Postgres(link) => {
                let done = self.bound::<Postgres>()?.execute(link);
                Ok(done.await?.rows_affected())
            }
        }
    }

    /// Runs it and gives all rows.
    pub(in crate::store) async fn fetch_all(
        self,
        connection: &mut Connection,
    ) -> Result<Vec<Row>, sqlx::Error> {
        match connection.on() {
            On::Sqlite(link) => {
                let rows = self.bound::<Sqlite>()?.fetch_all(link);
                Ok(rows.await?.into_iter().map(Row::Sqlite).collect())
            }
            On::Postgres(link) => {
                let rows = self.bound::<Postgres>()?.fetch_all(link);
                Ok(rows.await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs it and gives its row, if there is one.
    pub(in crate::store) async fn fetch_optional(
        self,
        connection: &mut Connection,
    ) -> Result<Option<Row>, sqlx::Error> {
        match connection.on() {
            On::Sqlite(link) => {
                let row = self.bound::<Sqlite>()?.fetch_optional(link);
                Ok(row.await?.map(Row::Sqlite))
            }
            On::Postgres(link) => {
                let row = self.bound::<Postgres>()?.fetch_optional(link);
                Ok(row.await?.map(Row::Postgres))
            }
        }
    }

    /// Runs it and gives its row.
    pub(in crate::store) async fn fetch_one(
        self,
        connection: &mut Connection,
    ) -> Result<Row, sqlx::Error> {
        let row = self.fetch_optional(connection).await?;
        row.ok_or(sqlx::Error::RowNotFound)
    }

    fn bound<DB>(self) -> Result<sqlx::query::Query<'static, DB, DB::Arguments>, sqlx::Error>
    where
        DB: Database<Arguments: IntoArguments<DB>>,
        Option<bool>: Storable<DB>,
        Option<i64>: Storable<DB>,
        Option<String>: Storable<DB>,
        Option<Vec<u8>>: Storable<DB>,
    {
        let mut arguments = DB::Arguments::default();
        arguments.reserve(self.values.len(), 0);
        for value in self.values {
            match value {
                Value::Bool(value) => arguments.add(value),
                Value::Int(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value.map(without_nul)),
                Value::Bytes(value) => arguments.add(value),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        let text = match self.text {
            Cow::Borrowed(text) => text.into_sql_str(),
            // Built from constants and places alone: see `push`.
            Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
        };
        Ok(sqlx::query_with(text, arguments))
    }
}

/// `PostgreSQL` keeps a NUL nowhere and ends a transaction that names one. No
/// text of ours holds one or what it becomes here, so an id with a NUL is
/// simply unknown, on every database.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// A type that a database takes.
trait Storable<DB: Database>: for<'t> Encode<'t, DB> + Type<DB> {}
impl<T, DB: Database> Storable<DB> for T where T: for<'t> Encode<'t, DB> + Type<DB> {}

/// A type that every database gives.
pub(in crate::store) trait Readable<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}
impl<'r, T> Readable<'r> for T where
    T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

/// A row of a result.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column.
    pub(in crate::store) fn get<'r, T: Readable<'r>>(
        &'r self,
        column: &str,
    ) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

//! Why the store could not do it. Nothing here repeats a value of a row: a
//! driver's own text may, so only its code and kind are kept.

use std::fmt;

use crate::seal::NoKey;

/// Why a call to the store failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Too much is waiting to be written: try again in a second.
    Busy,
    /// The database cannot be reached or written now. It is tried anew with
    /// every call, so a later one may succeed.
    Unavailable(Cause),
    /// Somebody else changed it first: read again and decide again.
    Conflict,
    /// Master key or key ring are not the ones that this database was made
    /// with, or the ring is an older copy.
    WrongKeys,
    /// The key ring was in use with a store, and this database is new: the
    /// store was lost, or is another one. Nothing was made.
    StoreLost,
    /// `copy-store` moved everything to another database: open that one.
    Moved {
        /// Where to, without user and password.
        to: String,
    },
    /// A row does not hold what this version writes, or was tampered with.
    Damaged {
        /// What is damaged, such as `payload`.
        what: &'static str,
    },
}

/// What the driver said, without its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The database refused, with this code of its own.
    Database {
        /// Result code of `SQLite`, or SQLSTATE of `PostgreSQL`.
        code: String,
    },
    /// The system refused to read or write.
    Io(std::io::ErrorKind),
    /// The schema could not be made, or is of a newer version than this binary.
    Schema,
    /// All connections are taken for too long.
    NoConnection,
    /// The store was closed.
    Closed,
    /// Something else between the driver and us.
    Driver,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { code } => match meaning(code) {
                Some(meaning) => write!(f, "{meaning} (code {code})"),
                None => write!(f, "the database refused (code {code})"),
            },
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Schema => f.write_str("its schema does not fit this version of the gateway"),
            Self::NoConnection => f.write_str("no connection came free in time"),
            Self::Closed => f.write_str("the store was closed"),
            Self::Driver => f.write_str("the connection failed"),
        }
    }
}

/// `SQLite` has numbers, `PostgreSQL` five letters and digits.
fn meaning(code: &str) -> Option<&'static str> {
    if code.len() == 5 {
        return postgres_meaning(code);
    }
    // SQLITE_CONSTRAINT_TRIGGER: only a store that was moved has triggers.
    if code == "1811" {
        return Some("this store was moved to another database");
    }
    // Extended codes hold the primary code in their lowest byte.
    Some(match code.parse::<u32>().ok()? & 0xff {
        5 | 6 => "another process holds the database for too long",
        8 => "the database is read-only",
        10 => "reading or writing the disk failed",
        11 | 26 => "the file is damaged or not a database",
        13 => "the disk is full",
        14 => "the file cannot be opened",
        19 => "a rule of the schema was broken",
        _ => return None,
    })
}

/// By class and code (`PostgreSQL` documentation, appendix A).
fn postgres_meaning(code: &str) -> Option<&'static str> {
    Some(match code {
        "53100" => "the disk of the database server is full",
        "53300" => "the database server has too many connections",
        "55P03" | "57014" => "another node holds the database for too long",
        "25006" => "the database is read-only",
        "57P01" | "57P02" | "57P03" => "the database server stops or starts",
        "3D000" => "there is no such database",
        _ => match code.get(..2)? {
            "08" => "the connection to the database server failed",
            "23" => "a rule of the schema was broken",
            "28" => "the database server refuses this user or password",
            "40" => "another node stood in the way",
            "42" => "the user may not do this, or the schema does not fit",
            "53" => "the database server lacks resources",
            "58" | "XX" => "the database server failed",
            _ => return None,
        },
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too much is waiting to be written"),
            Self::Unavailable(cause) => write!(f, "the database is not available: {cause}"),
            Self::Conflict => f.write_str("it was changed in the meantime"),
            Self::WrongKeys => {
                f.write_str("master key or key ring are not those of this database (docs/keys.md)")
            }
            Self::StoreLost => f.write_str(
                "it is new and empty, but its key ring was in use with a store: put that store \
                 back (restore PATH) or name it in database.url; to begin with an empty one all \
                 the same, run migrate --new-store (docs/keys.md)",
            ),
            Self::Moved { to } => write!(
                f,
                "this store was moved to {to}: name that in database.url \
                 (if copy-store was cut short, run it again)"
            ),
            Self::Damaged { what } => write!(f, "a stored {what} is damaged"),
        }
    }
}

impl std::error::Error for Error {}

impl From<sqlx::Error> for Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver adds variants")]
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_) => Self::Damaged { what: "row" },
            _ => Self::Unavailable(Cause::from(&error)),
        }
    }
}

impl From<&sqlx::Error> for Cause {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver adds variants")]
    fn from(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) => Self::Database {
                code: refusal.code().unwrap_or_default().into_owned(),
            },
            sqlx::Error::Io(cause) => Self::Io(cause.kind()),
            sqlx::Error::Migrate(_) => Self::Schema,
            sqlx::Error::PoolTimedOut => Self::NoConnection,
            sqlx::Error::PoolClosed => Self::Closed,
            _ => Self::Driver,
        }
    }
}

/// The key went between two looks at the ring.
impl From<NoKey> for Error {
    fn from(NoKey: NoKey) -> Self {
        Self::Conflict
    }
}

/// True when another node stood in the way and the same work may well succeed
/// now: a deadlock, a serialization failure.
pub(super) fn is_about_others(error: &sqlx::Error) -> bool {
    has_code(error, &["40P01", "40001"])
}

/// True when somebody else holds a row for too long: whatever does not need
/// that row may well succeed.
pub(super) fn is_about_lock(error: &sqlx::Error) -> bool {
    has_code(error, &["55P03"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    matches!(error, sqlx::Error::Database(refusal)
        if refusal.code().is_some_and(|code| codes.contains(&code.as_ref())))
}

/// True when one row broke a rule of the schema or a value is none that the
/// database takes: its neighbours in the batch may well be fine.
#[expect(clippy::wildcard_enum_match_arm, reason = "the driver adds variants")]
pub(super) fn is_about_data(error: &sqlx::Error) -> bool {
    use sqlx::error::ErrorKind;
    match error {
        sqlx::Error::Database(refusal) => match refusal.kind() {
            ErrorKind::UniqueViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::NotNullViolation
            | ErrorKind::CheckViolation => true,
            _ => refusal.code().is_some_and(|code| is_code_about_data(&code)),
        },
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// `SQLITE_TOOBIG` and `SQLITE_MISMATCH`; of `PostgreSQL` the classes "data
/// exception" and "program limit exceeded".
fn is_code_about_data(code: &str) -> bool {
    match code.len() {
        5 => code.starts_with("22") || code.starts_with("54"),
        _ => matches!(code, "18" | "20"),
    }
}

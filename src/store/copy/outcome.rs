//! What a copy tells: how far it is, how it ended, why it did not.

use std::fmt;

use crate::store::error::Error;

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows of a table were written to the target.
    Copying {
        /// The table.
        table: &'static str,
        /// Its rows so far.
        rows: u64,
    },
    /// Source and target are read back.
    Comparing {
        /// The table.
        table: &'static str,
    },
    /// The source takes nothing from here on.
    Closing,
    /// The target takes over.
    Opening,
}

/// What the command found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Everything was copied now: rows by table, in the order of copying.
    Now(Vec<(&'static str, u64)>),
    /// An earlier run copied everything; nothing was changed.
    Before,
}

/// Rows that stand in the way, by table.
pub type Occupied = Vec<(&'static str, u64)>;

/// Why nothing was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// Only from a file to a server.
    Direction,
    /// The source failed; it is as it was.
    Source(Error),
    /// The target failed; it holds nothing, and the source is as it was.
    Target(Error),
    /// The target holds rows already.
    Occupied(Occupied),
    /// The source was moved to another database than this target.
    MovedElsewhere {
        /// Where to, without user and password.
        to: String,
    },
    /// The source has a table or column that this version does not know.
    Unlisted {
        /// `table.column`.
        what: String,
    },
    /// What was read back from the target is not what the source holds.
    Differs {
        /// The first table that differs.
        table: &'static str,
    },
    /// It was cut short at the last step, and the target does not say whether
    /// it took over. The source takes nothing until that is known: run again.
    Unsettled(Error),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direction => f.write_str("a store is copied from sqlite:PATH to postgres://…"),
            Self::Source(cause) => write!(f, "source: {cause}"),
            Self::Target(cause) => write!(f, "target: {cause}"),
            Self::Occupied(rows) => {
                f.write_str("the target is not empty:")?;
                rows.iter()
                    .try_for_each(|(table, rows)| write!(f, " {rows} in {table},"))?;
                f.write_str(" nothing was changed")
            }
            Self::MovedElsewhere { to } => write!(
                f,
                "the source was moved to {to}, and this target is another database"
            ),
            Self::Unlisted { what } => write!(
                f,
                "the source holds {what}, which this version does not know: nothing was copied"
            ),
            Self::Differs { table } => write!(
                f,
                "table {table} of the target differs from the source: nothing was copied"
            ),
            Self::Unsettled(cause) => write!(
                f,
                "the target does not say whether it took over ({cause}): the source takes \
                 nothing until copy-store ran again"
            ),
        }
    }
}

impl std::error::Error for CopyError {}

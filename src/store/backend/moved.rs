//! A database file of which everything went to another database.
//!
//! The mark stands in the file itself, with triggers that refuse every change
//! of a row: a daemon that still runs on the file, of this version or an older
//! one, cannot write any more.

use sqlx::Error;

use super::{Connection, query};

/// Where a store went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Moved {
    /// Id of the copy, which the target knows too.
    pub(in crate::store) copy: String,
    /// The target, without user and password.
    pub(in crate::store) to: String,
}

const TABLE: &str = "_moved";
const MAKE: &str = "CREATE TABLE _moved (
    copy TEXT NOT NULL, moved_to TEXT NOT NULL, moved_at BIGINT NOT NULL)";
const WRITE: &str = "INSERT INTO _moved (copy, moved_to, moved_at) VALUES ($1, $2, $3)";
const READ: &str = "SELECT copy, moved_to FROM _moved";
const REMOVE: &str = "DROP TABLE _moved";
const CHANGES: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// The mark, if there is one.
pub(in crate::store) async fn mark_of(connection: &mut Connection) -> Result<Option<Moved>, Error> {
    if !connection.has_table(TABLE).await? {
        return Ok(None);
    }
    let row = query(READ).fetch_one(connection).await?;
    Ok(Some(Moved {
        copy: row.get("copy")?,
        to: row.get("moved_to")?,
    }))
}

/// Marks the file, as a part of the current transaction: from COMMIT on no row
/// of `tables` changes any more.
pub(in crate::store) async fn mark(
    connection: &mut Connection,
    moved: &Moved,
    tables: impl Iterator<Item = &'static str>,
) -> Result<(), Error> {
    query(MAKE).execute(connection).await?;
    let at = connection.now_ms();
    let write = query(WRITE).bind(&moved.copy).bind(&moved.to).bind(at);
    write.execute(connection).await?;
    for table in tables {
        for change in CHANGES {
            let mut trigger = query("CREATE TRIGGER _moved_");
            trigger.push(table).push("_").push(change);
            trigger
                .push(" BEFORE ")
                .push(change)
                .push(" ON ")
                .push(table);
            trigger.push(" BEGIN SELECT RAISE(ABORT, 'this store was moved'); END");
            trigger.execute(connection).await?;
        }
    }
    Ok(())
}

/// Takes the mark away, as a part of the current transaction.
pub(in crate::store) async fn unmark(
    connection: &mut Connection,
    tables: impl Iterator<Item = &'static str>,
) -> Result<(), Error> {
    for table in tables {
        for change in CHANGES {
            let mut trigger = query("DROP TRIGGER IF EXISTS _moved_");
            trigger.push(table).push("_").push(change);
            trigger.execute(connection).await?;
        }
    }
    query(REMOVE).execute(connection).await.map(drop)
}

//! Every column that holds sealed values: the one list. A test holds it against
//! the schema, so that a new column is on it or is known to hold no such value.
//!
//! Marks (`key_check`) are not on it: each is of one key and stays with it.

/// How the primary key of a table is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdKind {
    Text,
    Bytes,
}

/// A column of sealed values, and the statements that walk it by the primary
/// key of its table.
pub(super) struct SealedColumn {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) id: IdKind,
    /// The rows behind `$1`, at most `$2`: `id`, `header`, `weight` in bytes,
    /// and `tenant` where the row tells whose it is.
    pub(super) page: &'static str,
    /// `id` and `sealed` of rows; a list of ids follows.
    pub(super) read: &'static str,
    /// `id` of rows; a list of ids follows.
    pub(super) ids: &'static str,
    /// How many values begin with one of a list of headers, which follows.
    pub(super) count: &'static str,
    /// Puts `$1` in the place of `$3` in the row `$2`.
    pub(super) exchange: &'static str,
}

/// `sealed!(TABLE.COLUMN by KEY: KIND of TENANT)`, with the tenant as SQL.
macro_rules! sealed {
    ($table:ident . $column:ident by $id:ident : $kind:ident of $tenant:literal) => {
        SealedColumn {
            table: stringify!($table),
            column: stringify!($column),
            id: IdKind::$kind,
            page: concat!(
                "SELECT ",
                stringify!($id),
                " AS id, SUBSTR(",
                stringify!($column),
                ", 1, 5) AS header, CAST(LENGTH(",
                stringify!($column),
                ") AS BIGINT) AS weight, CAST(",
                $tenant,
                " AS TEXT) AS tenant FROM ",
                stringify!($table),
                " WHERE ",
                stringify!($column),
                " IS NOT NULL AND ",
                stringify!($id),
                " > $1 ORDER BY ",
                stringify!($id),
                " LIMIT $2"
            ),
            read: concat!(
                "SELECT ",
                stringify!($id),
                " AS id, ",
                stringify!($column),
                " AS sealed FROM ",
                stringify!($table),
                " WHERE ",
                stringify!($column),
                " IS NOT NULL AND ",
                stringify!($id),
                " IN"
            ),
            ids: concat!(
                "SELECT ",
                stringify!($id),
                " AS id FROM ",
                stringify!($table),
                " WHERE ",
                stringify!($id),
                " IN"
            ),
            count: concat!(
                "SELECT COUNT(*) AS total FROM ",
                stringify!($table),
                " WHERE SUBSTR(",
                stringify!($column),
                ", 1, 5) IN"
            ),
            exchange: concat!(
                "UPDATE ",
                stringify!($table),
                " SET ",
                stringify!($column),
                " = $1 WHERE ",
                stringify!($id),
                " = $2 AND ",
                stringify!($column),
                " = $3"
            ),
        }
    };
}

/// Receipts.
pub(super) static DETAILS: SealedColumn = sealed!(message.details by id: Text of "NULL");
/// Codes and reasons of rejections.
pub(super) static REJECTIONS: SealedColumn = sealed!(delivery.rejection by id: Text of "NULL");
/// Messages to receivers.
pub(super) static PAYLOADS: SealedColumn = sealed!(payload.sealed by delivery_id: Text of
    "(SELECT tenant FROM delivery WHERE id = delivery_id)");
/// Parked parts.
pub(super) static PARKED: SealedColumn = sealed!(parked.sealed by id: Text of "tenant");
/// Entries of the ledger, which are their key's tenant's.
pub(super) static LEDGER: SealedColumn = sealed!(ledger.sealed by entry: Bytes of "NULL");

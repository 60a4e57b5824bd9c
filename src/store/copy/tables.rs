//! Every table of the schema, with its columns: the one list that a copy goes
//! by. A migration that adds a table or a column adds it here, or a test fails
//! and nothing is copied.

use std::collections::BTreeSet;

use crate::store::backend::Connection;
use crate::store::error::Error;
use crate::store::sql::Insert;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Bool,
    Int,
    Text,
    Bytes,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// A table and the statements that walk it by its primary key.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    /// The primary key, in its order.
    pub(super) key: &'static [&'static str],
    pub(super) select: &'static str,
    pub(super) count: &'static str,
    pub(super) delete: &'static str,
    /// The condition that skips rows, up to the values of the last one.
    pub(super) behind: &'static str,
    pub(super) order: &'static str,
    pub(super) insert: Insert,
    /// Tells how large each row is, where one can be as large as a message.
    pub(super) weigh: Option<&'static str>,
    /// True where a new store has rows already: those are replaced.
    pub(super) is_filled: bool,
}

impl Table {
    /// Rows hold a value of any length.
    const fn heavy(mut self, weigh: &'static str) -> Self {
        self.weigh = Some(weigh);
        self
    }

    /// A new store has rows already: made by a migration or at the first start.
    const fn filled(mut self) -> Self {
        self.is_filled = true;
        self
    }
}

/// `table!(NAME by (KEY, …) { COLUMN: KIND, … })`
macro_rules! table {
    ($name:ident by ($key:ident $(, $keys:ident)*) {
        $column:ident: $kind:ident $(, $columns:ident: $kinds:ident)* $(,)?
    }) => {
        Table {
            name: stringify!($name),
            columns: &[
                Column { name: stringify!($column), kind: Kind::$kind },
                $(Column { name: stringify!($columns), kind: Kind::$kinds },)*
            ],
            key: &[stringify!($key) $(, stringify!($keys))*],
            select: concat!(
                "SELECT ", stringify!($column) $(, ", ", stringify!($columns))*,
                " FROM ", stringify!($name)
            ),
            count: concat!("SELECT COUNT(*) AS total FROM ", stringify!($name)),
            delete: concat!("DELETE FROM ", stringify!($name)),
            behind: concat!(" WHERE (", stringify!($key) $(, ", ", stringify!($keys))*, ") > ("),
            order: concat!(" ORDER BY ", stringify!($key) $(, ", ", stringify!($keys))*),
            insert: Insert {
                head: concat!(
                    "INSERT INTO ", stringify!($name), " (",
                    stringify!($column) $(, ", ", stringify!($columns))*, ") "
                ),
                columns: [stringify!($column) $(, stringify!($columns))*].len(),
                tail: "",
            },
            weigh: None,
            is_filled: false,
        }
    };
}

/// What others refer to comes before those others.
pub(super) static TABLES: &[Table] = &[
    table!(key_check by (number) { number: Int, sealed: Bytes }).filled(),
    table!(revision by (id) { id: Int, directory: Int, api_keys: Int }).filled(),
    table!(directory_record by (kind, id) { kind: Text, id: Text, body: Text }),
    table!(api_key by (id) {
        id: Text, party: Text, hash: Bytes, created_at: Int, expires_at: Int, revoked_at: Int,
        last_used_at: Int,
    }),
    table!(message by (id) {
        id: Text, party: Text, test: Bool, berrefnr: Bytes, body: Bytes, received_at: Int,
        message_type: Text, edition: Text, details: Bytes, shown: Bool, parked: Bool,
        dropped_at: Int, parts: Int,
    }),
    table!(inbox by (party, test) { party: Text, test: Bool, last_sequence: Int }),
    table!(delivery by (id) {
        id: Text, message_id: Text, party: Text, test: Bool, sequence: Int, tenant: Text,
        domain: Text, message_type: Text, edition: Text, berrefnr: Bytes, policy_version: Text,
        cases: Bytes, bytes: Int, received_at: Int, offered_at: Int, state: Text, lease: Text,
        lease_until: Int, leased_at: Int, attempt: Int, finished_at: Int, answered_at: Int,
        answer_positive: Bool, rejection: Bytes, due_at: Int, failures: Int, refusals: Int,
        first_failed_at: Int, first_sequence: Int, discarded_at: Int,
    }),
    table!(payload by (delivery_id) { delivery_id: Text, sealed: Bytes })
        .heavy("SELECT CAST(LENGTH(sealed) AS BIGINT) AS weight FROM payload"),
    table!(ledger by (entry) {
        entry: Bytes, route: Bytes, person: Bytes, case_hash: Bytes, forget_on: Int, version: Int,
        sealed: Bytes,
    }),
    table!(remembered by (case_hash, route) { case_hash: Bytes, route: Bytes, until_day: Int }),
    table!(parked by (id) {
        id: Text, message_id: Text, party: Text, tenant: Text, reason: Text, test: Bool,
        received_at: Int, message_type: Text, edition: Text, bytes: Int, sealed: Bytes,
    })
    .heavy("SELECT CAST(LENGTH(sealed) AS BIGINT) AS weight FROM parked"),
    table!(parked_person by (parked_id, person) { parked_id: Text, person: Bytes }),
    table!(withheld by (on_day, tenant, party, domain, test, message_type, rule) {
        on_day: Int, tenant: Text, party: Text, domain: Text, test: Bool, message_type: Text,
        rule: Text, total: Int,
    }),
    table!(push_receiver by (party, test) {
        party: Text, test: Bool, failures: Int, paused_until: Int, stopped: Bool, reason: Text,
        changed_at: Int,
    }),
    table!(unaccounted by (message_id) { message_id: Text, found_at: Int }),
    table!(alert by (name, subject) {
        name: Text, subject: Text, severity: Text, since: Int, number: Int, raised_at: Int,
        told_to: Int,
    }),
    table!(alert_message by (id) { id: Text, body: Text, due_at: Int, attempt: Int }),
    table!(watcher by (id) { id: Int, node: Text, until: Int }).filled(),
];

/// The first column, in either, that the schema and the list do not share, as
/// `table.column`.
pub(super) async fn unlisted(connection: &mut Connection) -> Result<Option<String>, Error> {
    let mut stored = BTreeSet::new();
    for row in connection.columns().await? {
        let (table, column): (String, String) = (row.get("tab")?, row.get("col")?);
        let kind = kind(row.get("kind")?);
        stored.insert((format!("{table}.{column}"), kind, row.get::<i64>("key")?));
    }
    let mut listed = BTreeSet::new();
    for table in TABLES {
        for column in table.columns {
            let key = table.key.iter().position(|name| *name == column.name);
            let key = key.map_or(0, |at| i64::try_from(at + 1).unwrap_or(i64::MAX));
            let name = format!("{}.{}", table.name, column.name);
            listed.insert((name, Some(column.kind), key));
        }
    }
    let different = stored.symmetric_difference(&listed).next();
    Ok(different.map(|(name, ..)| name.clone()))
}

fn kind(declared: &str) -> Option<Kind> {
    Some(match declared.to_ascii_uppercase().as_str() {
        "BOOLEAN" => Kind::Bool,
        "BIGINT" => Kind::Int,
        "TEXT" => Kind::Text,
        "BLOB" | "BYTEA" => Kind::Bytes,
        _ => return None,
    })
}

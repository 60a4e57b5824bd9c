//! The twins: both databases have the same tables, columns, types, null rules,
//! keys and indexes.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Type and whether it may be NULL, by `table.column`.
type Columns = BTreeMap<String, (String, bool)>;

async fn columns(store: &Store, statement: &'static str) -> Columns {
    let mut connection = store.reader().await.unwrap();
    let rows = query(statement).fetch_all(&mut connection).await.unwrap();
    let column = |row: &backend::Row| {
        let kind = row.get::<String>("kind").unwrap().to_uppercase();
        let kind = kind.replace("BYTEA", "BLOB");
        (
            row.get("name").unwrap(),
            (kind, row.get("required").unwrap()),
        )
    };
    rows.iter().map(column).collect()
}

async fn names(store: &Store, statement: &'static str) -> BTreeSet<String> {
    let mut connection = store.reader().await.unwrap();
    let rows = query(statement).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get("name").unwrap()).collect()
}

#[tokio::test]
async fn the_two_schemas_are_the_same() {
    let place = TestPlace::sqlite();
    let here = place.open().await;
    let there = TestPlace::postgres().await.open().await;
    let ours = columns(
        &here,
        "SELECT m.name || '.' || c.name AS name, c.type AS kind, c.\"notnull\" <> 0 AS required
         FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE '\\_%' ESCAPE '\\'",
    )
    .await;
    let theirs = columns(
        &there,
        "SELECT CAST(table_name || '.' || column_name AS TEXT) AS name,
                CAST(data_type AS TEXT) AS kind, is_nullable = 'NO' AS required
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%'",
    )
    .await;
    assert!(ours.len() > 60, "{ours:?}");
    assert_eq!(ours, theirs);
    let ours = names(
        &here,
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    )
    .await;
    let theirs = names(
        &there,
        "SELECT CAST(indexname AS TEXT) AS name FROM pg_indexes
         WHERE schemaname = 'public' AND indexname NOT LIKE '%\\_pkey' AND indexname NOT LIKE '%\\_key'",
    ).await;
    assert_eq!(ours, theirs);
}

/// Texts sort by their bytes on both: ids begin with their time.
#[tokio::test]
async fn every_text_of_postgres_sorts_by_its_bytes() {
    let there = TestPlace::postgres().await.open().await;
    let others = names(
        &there,
        "SELECT CAST(table_name || '.' || column_name AS TEXT) AS name
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' AND data_type = 'text'
         AND collation_name IS DISTINCT FROM 'C'",
    )
    .await;
    assert_eq!(others, BTreeSet::new());
}

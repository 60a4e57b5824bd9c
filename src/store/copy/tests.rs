//! The list of tables against the schemas, and the sums that are compared.

use super::*;
use crate::policy::testing::release;
use crate::store::tests::{MASTER, TestPlace, accept_releases, to_arbo};

async fn connect(place: &TestPlace) -> Connection {
    Backend::new(&place.url(), PATIENCE, place.clock.clone())
        .writer()
        .await
        .unwrap()
}

/// Fails when a migration adds a table or a column that nobody would copy:
/// add it to `tables.rs`.
#[tokio::test]
async fn the_list_of_tables_is_the_schema_of_both_databases() {
    for place in [TestPlace::sqlite(), TestPlace::postgres().await] {
        place.open().await.close().await;
        let mut connection = connect(&place).await;
        assert!(connection.columns().await.unwrap().len() > 60);
        assert_eq!(
            unlisted(&mut connection).await.unwrap(),
            None,
            "in the schema or in copy/tables.rs, and not in both: copy-store would lose it"
        );
    }
}

#[tokio::test]
async fn a_table_or_column_that_nobody_listed_is_noticed() {
    for (change, what) in [
        (
            "CREATE TABLE later (id BIGINT NOT NULL PRIMARY KEY)",
            "later.id",
        ),
        ("ALTER TABLE message ADD COLUMN later TEXT", "message.later"),
        ("DROP TABLE withheld", "withheld.domain"),
    ] {
        let place = TestPlace::sqlite();
        place.open().await.close().await;
        let mut connection = connect(&place).await;
        query(change).execute(&mut connection).await.unwrap();
        let found = unlisted(&mut connection).await.unwrap();
        assert_eq!(found.as_deref(), Some(what));
    }
}

#[tokio::test]
async fn what_is_referred_to_is_copied_first() {
    let place = TestPlace::sqlite();
    place.open().await.close().await;
    let mut connection = connect(&place).await;
    let references = query(
        "SELECT m.name AS here, f.\"table\" AS there FROM sqlite_master m
         JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
    );
    let references = references.fetch_all(&mut connection).await.unwrap();
    assert!(references.len() >= 4);
    let place = |name: &str| names().position(|known| known == name);
    for reference in references {
        let (here, there) = (reference.get("here"), reference.get("there"));
        assert!(place(there.unwrap()) < place(here.unwrap()));
    }
}

/// A new store has rows in exactly those tables that are replaced.
#[tokio::test]
async fn only_filled_tables_have_rows_in_a_new_store() {
    let place = TestPlace::sqlite();
    place.open().await.close().await;
    let mut connection = connect(&place).await;
    for table in TABLES {
        let rows = count(&mut connection, table).await.unwrap();
        assert_eq!(rows > 0, table.is_filled, "{}", table.name);
    }
}

/// The target waits in its transaction while the source is summed, which can
/// take an hour.
#[tokio::test]
async fn no_time_limit_ends_the_target_while_the_source_is_read() {
    let source = TestPlace::sqlite();
    source.open().await.close().await;
    let (from, to) = (source.url(), TestPlace::postgres().await.url());
    let ring = source.ring(MASTER);
    let sides = Sides::of(&from, &to, &ring, &source.clock).await.unwrap();
    let mut target = sides.lock_target().await.unwrap();
    let ask = "SELECT current_setting('idle_in_transaction_session_timeout') AS idle,
        current_setting('statement_timeout') AS statement,
        current_setting('lock_timeout') AS lock,
        current_setting('tcp_keepalives_idle') AS keepalive";
    let row = query(ask).fetch_one(&mut target).await.unwrap();
    let limit = |name| row.get::<String>(name).unwrap();
    assert_eq!(
        (limit("idle"), limit("statement")),
        ("0".into(), "0".into())
    );
    assert_eq!(limit("lock"), "20s");
    // What ends it instead is that the copy is gone.
    assert_eq!(limit("keepalive"), "60");
}

/// However large the store, memory holds one step of it.
#[tokio::test]
async fn a_step_is_bounded_in_rows_and_in_bytes() {
    const MIB: usize = 1024 * 1024;
    let place = TestPlace::sqlite();
    let mut releases: Vec<_> = (0..300).map(|n| to_arbo(&format!("s{n:03}"), "")).collect();
    for (id, bytes) in [
        ("t1", 5 * MIB),
        ("t2", 2 * MIB),
        ("t3", 9 * MIB),
        ("t4", MIB),
    ] {
        releases.push(release(id, "arbo", false, &[], &vec![b'x'; bytes]));
    }
    accept_releases(&place.open().await, "m", releases).await;
    let mut connection = connect(&place).await;
    for (name, expected) in [
        ("delivery", &[256, 48][..]),
        ("payload", &[256, 46, 1, 1]),
        ("parked", &[]),
    ] {
        let table = TABLES.iter().find(|table| table.name == name).unwrap();
        let mut walk = Walk::new(table);
        let mut steps = Vec::new();
        loop {
            match walk.next(&mut connection).await.unwrap().len() {
                0 => break,
                rows => steps.push(rows),
            }
        }
        assert_eq!(steps, expected, "{name}");
    }
}

#[tokio::test]
async fn a_sum_tells_any_difference() {
    let place = TestPlace::sqlite();
    accept_releases(
        &place.open().await,
        "m",
        vec![to_arbo("r1", "a"), to_arbo("r2", "b")],
    )
    .await;
    let mut connection = connect(&place).await;
    let delivery = TABLES.iter().find(|t| t.name == "delivery").unwrap();
    let before = sum(&mut connection, delivery).await.unwrap();
    assert_eq!((before.rows, before.is_whole_and_as(&before)), (2, true));
    let mut seen = vec![before];
    for change in [
        "UPDATE delivery SET lease = '' WHERE id = 'r2'",
        "UPDATE delivery SET leased_at = 0 WHERE id = 'r2'",
        "UPDATE delivery SET answer_positive = FALSE WHERE id = 'r2'",
        "UPDATE delivery SET answer_positive = TRUE WHERE id = 'r2'",
        "UPDATE delivery SET rejection = x'00' WHERE id = 'r2'",
        "UPDATE delivery SET tenant = tenant || domain, domain = ''",
        "DELETE FROM payload WHERE delivery_id = 'r1'",
        "DELETE FROM delivery WHERE id = 'r1'",
    ] {
        query(change).execute(&mut connection).await.unwrap();
        let now = sum(&mut connection, delivery).await.unwrap();
        let is_new = seen.iter().all(|earlier| !now.is_whole_and_as(earlier));
        assert_eq!(is_new, !change.contains("payload"), "{change}");
        seen.push(now);
    }
}

//! A database of before, and daemons of before beside a newer schema.

use super::watching::{behind, one_of_each, unaccounted};
use super::*;

/// What 0005 changed, undone.
const BACK_TO_0004: [&str; 6] = [
    "ALTER TABLE message DROP COLUMN parts",
    "ALTER TABLE message ADD COLUMN parts BIGINT NOT NULL DEFAULT 0",
    "UPDATE message SET parts = (SELECT COUNT(*) FROM delivery WHERE message_id = message.id)
        + (SELECT COUNT(*) FROM parked WHERE message_id = message.id)",
    "ALTER TABLE delivery DROP COLUMN discarded_at",
    "ALTER TABLE alert DROP COLUMN told_to",
    "DELETE FROM _sqlx_migrations WHERE version = 5",
];
/// As a daemon accepts a message that has never heard of parts.
const ACCEPT_AS_0003: [&str; 2] = [
    "INSERT INTO message (id, party, test, berrefnr, body, received_at, message_type, edition,
        details, shown, parked)
     SELECT 'm9', party, test, body, body, received_at, message_type, edition, details, shown,
        parked FROM message WHERE id = 'm4'",
    "UPDATE delivery SET message_id = 'm9' WHERE id = 'm4'",
];

async fn connect(place: &TestPlace) -> Connection {
    let backend = Backend::new(&place.url(), BUSY, place.clock.clone());
    backend.writer().await.unwrap()
}

async fn execute(place: &TestPlace, statements: &[&'static str]) {
    let mut connection = connect(place).await;
    for statement in statements {
        query(statement).execute(&mut connection).await.unwrap();
    }
}

on_both! {
    async fn what_a_daemon_of_before_did_not_count_is_not_judged(place: Place) {
        one_of_each(&place).await.close().await;
        execute(&place, &BACK_TO_0004).await;
        execute(&place, &ACCEPT_AS_0003).await;
        // Whose parts are known is judged as before.
        execute(&place, &["UPDATE message SET parts = 1 WHERE id = 'm4'"]).await;
        let store = place.open().await;
        assert_eq!(unaccounted(&place, &store).await, 1);
        assert_eq!(store.unaccounted_ids().await.unwrap(), ["m4"]);
        behind(&store, "UPDATE message SET parts = 0 WHERE id = 'm4'").await;
        assert_eq!(unaccounted(&place, &store).await, 0);
        // Nor is its part counted off when it goes.
        behind(&store, "UPDATE message SET parts = NULL WHERE id = 'm5'").await;
        assert!(store.discard_parked("p5", place.now()).await.unwrap());
        assert_eq!(unaccounted(&place, &store).await, 0);
        // What is not in order in another way is seen all the same.
        behind(&store, "UPDATE delivery SET state = 'taken_over' WHERE message_id = 'm9'").await;
        assert_eq!(store.unaccounted().await.unwrap().messages, 0);
        assert_eq!(unaccounted(&place, &store).await, 1);
    }

    async fn a_daemon_of_before_may_accept_beside_the_newest_schema(place: Place) {
        let store = one_of_each(&place).await;
        execute(&place, &ACCEPT_AS_0003).await;
        behind(&store, "UPDATE message SET parts = 0 WHERE id = 'm4'").await;
        assert_eq!(unaccounted(&place, &store).await, 0);
        // Its rows are as bound to each other as ever.
        let mut connection = connect(&place).await;
        let orphan = query("DELETE FROM message WHERE id = 'm9'").execute(&mut connection).await;
        assert!(orphan.is_err());
    }
}

//! What becomes of the neighbours of a job that cannot be written: jobs that
//! wait together are written together.

use super::*;
use crate::store::writer::Change;

/// A statement of which nobody looks at the outcome.
struct Careless(&'static str);

impl Change for Careless {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        let _ = query(self.0).execute(connection).await;
        Ok(())
    }
}

/// A fault of ours.
struct Panicking;

impl Change for Panicking {
    type Output = ();

    async fn run(&self, _connection: &mut Connection) -> Result<(), sqlx::Error> {
        panic!("on purpose")
    }
}

const BROKEN_RULE: &str =
    "INSERT INTO inbox (party, test, last_sequence) VALUES (NULL, NULL, NULL)";

async fn is_there(store: &Store, id: &str) -> bool {
    let message = store.message(&party("adp"), id).await.unwrap();
    message.is_some()
}

on_both! {
    /// `PostgreSQL` undoes the whole transaction then, and answers COMMIT as
    /// if nothing had happened.
    async fn an_error_that_nobody_looks_at_loses_nothing_that_was_answered(place: Place) {
        let store = place.open().await;
        let careless = store.writer().write(Careless(BROKEN_RULE));
        let (_, accepted) = tokio::join!(careless, store.accept(acceptance("m1")));
        assert_eq!(is_there(&store, "m1").await, accepted.is_ok());
        store.accept(acceptance("m2")).await.unwrap();
        assert!(is_there(&store, "m2").await);
    }

    async fn a_writer_that_panics_is_not_mistaken_for_one_that_works(place: Place) {
        let store = place.open().await;
        let ended = tokio::spawn({
            let store = store.clone();
            async move { store.ended().await }
        });
        store.accept(acceptance("m1")).await.unwrap();
        assert!(!ended.is_finished());
        assert!(store.writer().write(Panicking).await.is_err());
        ended.await.unwrap();
        assert!(store.health().await.is_err());
        assert!(store.accept(acceptance("m2")).await.is_err());
    }

    async fn an_id_that_no_database_takes_is_unknown_and_harms_nobody(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m0", vec![to_arbo("r0", "a")]).await;
        let arbo = party("arbo");
        let items = [("\0".to_owned(), None), ("r\0".to_owned(), Some("\0".to_owned()))];
        let mut one = acceptance("m1");
        one.releases = vec![to_arbo("r1", "b")];
        let (acked, rejected, accepted) = tokio::join!(
            store.ack(&arbo, &items),
            store.reject(&arbo, "\0", "\0", "E1", "\0"),
            store.accept(one)
        );
        accepted.unwrap();
        assert_eq!(acked.unwrap().unknown, ["\0", "r\0"]);
        assert!(matches!(rejected, Err(InboxError::Unknown)));
        let replay = SECONDS(60);
        let payload = store.payload(&arbo, "\0", place.now(), replay).await;
        assert!(payload.unwrap().is_none());
        assert!(!is_there(&store, "\0").await);
        assert_eq!(store.retry("\0", Overtaken::Leave).await, Ok(Retry::Unknown));
        assert_eq!(lease_ids(&store, 10).await, ["r0", "r1"]);
    }
}

/// A node that hangs in a transaction holds a row: only what needs that row
/// waits for it.
#[tokio::test]
async fn a_row_that_somebody_holds_stops_only_whom_it_concerns() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    accept_releases(&store, "m0", vec![to_arbo("r0", "a")]).await;
    let mut hung = Backend::new(&place.url(), BUSY, place.clock.clone())
        .writer()
        .await
        .unwrap();
    hung.begin().await.unwrap();
    let held = query("SELECT id FROM delivery WHERE id = 'r0' FOR UPDATE");
    held.fetch_one(&mut hung).await.unwrap();

    let items = [("r0".to_owned(), None)];
    let arbo = party("arbo");
    let (acked, accepted) = tokio::join!(store.ack(&arbo, &items), store.accept(acceptance("m1")));
    accepted.unwrap();
    assert_eq!(
        acked.unwrap_err(),
        Error::Unavailable(Cause::Database {
            code: "55P03".to_owned()
        })
    );
    store.health().await.unwrap();
    hung.rollback().await.unwrap();
    assert_eq!(lease_ids(&store, 10).await, ["r0"]);
    assert_eq!(ack_ids(&store, &["r0"]).await.acknowledged, ["r0"]);
}

/// Nodes that learn of new keys together mark them in one order.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_mark_the_same_new_keys() {
    let place = TestPlace::postgres().await;
    let (a, b) = (place.open().await, place.open().await);
    let names: Vec<TenantId> = (0..40)
        .map(|n| TenantId::parse(&format!("t-{n}")).unwrap())
        .collect();
    a.provide(names.iter()).await.unwrap();
    b.follow_ring().await.unwrap();
    let mut eraser = Backend::new(&place.url(), BUSY, place.clock.clone())
        .writer()
        .await
        .unwrap();
    query("DELETE FROM key_check")
        .execute(&mut eraser)
        .await
        .unwrap();
    for store in [&a, &b] {
        store.ring().marks_failed();
    }
    let (one, two) = tokio::join!(
        tokio::spawn({
            let a = a.clone();
            async move { a.follow_ring().await }
        }),
        tokio::spawn({
            let b = b.clone();
            async move { b.follow_ring().await }
        })
    );
    one.unwrap().unwrap();
    two.unwrap().unwrap();
    let marks = query("SELECT COUNT(*) AS number FROM key_check");
    let marks = marks.fetch_one(&mut eraser).await.unwrap();
    assert_eq!(
        marks.get::<i64>("number").unwrap(),
        i64::try_from(a.keys().numbers().len()).unwrap()
    );
}

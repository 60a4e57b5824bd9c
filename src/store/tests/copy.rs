//! Moving a store from a file to a server: everything goes over, nothing is
//! lost or alive twice, whatever point it is killed at.

use std::panic::resume_unwind;

use super::*;

/// Something of everything that a store can hold.
async fn fill(place: &TestPlace) -> Store {
    let store = place.open().await;
    // Its version stays, so that what the tests accept fits it.
    execute(
        place,
        "INSERT INTO directory_record (kind, id, body) VALUES ('party', 'adp', '{}')",
    )
    .await;
    store.insert_api_key(api_key(place)).await.unwrap();
    let mut first = acceptance("m1");
    first.releases = [
        ("r1", "a"),
        ("r2", "a"),
        ("r3", "b"),
        ("r4", "c"),
        ("r5", ""),
    ]
    .map(|(id, cases)| to_arbo(id, cases))
    .into();
    first.ledger = vec![known(LedgerChange::Put(case_entry(
        case_key("r", "p", "c"),
        0,
        1,
    )))];
    first.remember = vec![Remembered {
        route: hash("r"),
        case: hash("old"),
        until: date(2020, 3, 1),
    }];
    first.parked = vec![parked(
        "p1",
        Code::NoRoute,
        &[hash("x"), hash("y")],
        b"<parked/>",
    )];
    first.withheld = vec![Withheld {
        tenant: TenantId::parse("bakkerij").unwrap(),
        to: party("arbo"),
        domain: Domain::Arbodienst,
        message_type: "Verzuimmeldingen".into(),
        rule: "bsn",
        count: 3,
    }];
    store.accept(first).await.unwrap();
    // r1 taken over, r3 dead, r4 answered, r2 leased, the rest offered.
    assert_eq!(lease_ids(&store, 1).await, ["r1"]);
    ack_ids(&store, &["r1"]).await;
    let arbo = party("arbo");
    let leased = store.lease(&arbo, false, 3, SECONDS(600)).await.unwrap();
    let ids: Vec<&str> = leased.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["r2", "r3", "r4"]);
    let rejected = store.reject(&arbo, "r3", &leased[1].lease, "code", "reason");
    rejected.await.unwrap();
    ack_ids(&store, &["r4"]).await;
    let mut answer = acceptance("answer");
    answer.message.party = arbo;
    answer.answer = Some(Answer {
        release_id: "r4".into(),
        positive: false,
    });
    store.accept(answer).await.unwrap();
    store
}

/// As [`fill`], with more rows and bytes than one step copies.
pub(super) async fn fill_up(place: &TestPlace) -> Store {
    let store = fill(place).await;
    let large = vec![b'x'; 5 * 1024 * 1024];
    for id in ["big1", "big2", "big3"] {
        let releases = vec![release(id, "other", true, &[hash("z")], &large)];
        accept_releases(&store, id, releases).await;
    }
    let many = (0..600).map(|n| release(&format!("s{n:03}"), "other", true, &[], b"<r/>"));
    accept_releases(&store, "many", many.collect()).await;
    store
}

/// A server on which time runs as at `source`, with the same key ring.
pub(super) async fn target_for(source: &TestPlace) -> TestPlace {
    TestPlace {
        clock: source.clock.clone(),
        ring_url: source.ring_url.clone(),
        ..TestPlace::postgres().await
    }
}

async fn copy_with(
    source: &TestPlace,
    target: &TestPlace,
    ring: &RingPlace,
    watch: &mut (dyn FnMut(Step) + Send),
) -> Result<Copied, CopyError> {
    copy_store(&source.url(), &target.url(), ring, &source.clock, watch).await
}

pub(super) async fn copy(source: &TestPlace, target: &TestPlace) -> Result<Copied, CopyError> {
    copy_with(source, target, &source.ring(MASTER), &mut |_| {}).await
}

pub(super) async fn execute(place: &TestPlace, statement: &'static str) {
    let mut connection = connect(place).await;
    query(statement).execute(&mut connection).await.unwrap();
}

pub(super) async fn connect(place: &TestPlace) -> Connection {
    let backend = Backend::new(&place.url(), BUSY, place.clock.clone());
    backend.writer().await.unwrap()
}

/// How many messages a database holds; none where there is no table.
async fn messages(place: &TestPlace) -> i64 {
    let mut connection = connect(place).await;
    if !connection.has_table("message").await.unwrap() {
        return 0;
    }
    let count = query("SELECT COUNT(*) AS number FROM message");
    let row = count.fetch_one(&mut connection).await.unwrap();
    row.get("number").unwrap()
}

/// Everything that a receiver, a sender and an operator can see.
pub(super) async fn view(store: &Store, place: &TestPlace) -> Vec<String> {
    let mut seen = vec![
        format!("{:?}", store.directory().await),
        format!("{:?}", store.changes_version().await),
        format!("{:?}", store.api_keys().await),
        format!("{:?}", store.ledger(&[(hash("r"), hash("p"))]).await),
        format!("{:?}", store.remembered(&[(hash("r"), hash("old"))]).await),
        format!("{:?}", store.parked_bytes(&party("adp")).await),
    ];
    let days = date(2018, 3, 1)..=date(2018, 3, 1);
    seen.push(format!("{:?}", store.withheld_counts(days, None).await));
    for part in store.parked_about(&[hash("y")]).await.unwrap() {
        let item = store.parked_item(&part.id).await.unwrap().unwrap();
        seen.push(format!("{item:?} {:?} {:?}", item.persons, item.xml));
    }
    for id in ["m1", "many", "big2"] {
        let message = store.message(&party("adp"), id).await.unwrap().unwrap();
        let StoredMessage {
            reference,
            deliveries,
            parked,
            ..
        } = message;
        seen.push(format!("{reference} {deliveries:?} {parked:?}"));
    }
    let hour = Duration::from_hours(1);
    for (to, test) in [("arbo", false), ("other", true)] {
        let to = party(to);
        let feed = store.feed(&to, test, 0, 1000, place.now(), hour).await;
        seen.extend(feed.unwrap().iter().map(|item| format!("{item:?}")));
    }
    for id in ["big1", "s599"] {
        let other = party("other");
        let payload = store.payload(&other, id, place.now(), hour).await;
        seen.push(format!("{:?}", payload.unwrap().unwrap().xml.len()));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_over_and_goes_on_where_it_was() {
    let source = TestPlace::sqlite();
    let old = fill_up(&source).await;
    let target = target_for(&source).await;
    let before = view(&old, &source).await;
    assert!(before.len() > 600);
    old.close().await;

    let Ok(Copied::Now(rows)) = copy(&source, &target).await else {
        panic!("not copied");
    };
    let rows = |table: &str| rows.iter().find(|(name, _)| *name == table).unwrap().1;
    for (table, expected) in [
        ("key_check", 2), // of the installation and of the tenant
        ("revision", 1),
        ("directory_record", 1),
        ("api_key", 1),
        ("message", 6),
        ("inbox", 2),
        ("delivery", 608),
        ("payload", 608),
        ("ledger", 1),
        ("remembered", 1),
        ("parked", 1),
        ("parked_person", 2),
        ("withheld", 1),
    ] {
        assert_eq!(rows(table), expected, "{table}");
    }

    let new = target.open().await;
    assert_eq!(view(&new, &source).await, before);
    // The lease holds, and with it what shares its case; the number goes on.
    assert_eq!(lease_ids(&new, 10).await, ["r5"]);
    accept_releases(&new, "m2", vec![to_arbo("r6", "a"), to_arbo("r7", "d")]).await;
    assert_eq!(lease_ids(&new, 10).await, ["r7"]);
    source.clock.advance(SECONDS(601));
    assert_eq!(lease_ids(&new, 10).await, ["r2", "r5", "r6", "r7"]);
    // A message that was accepted by the old one is known to the new one.
    let again = new.accept(acceptance("m1")).await;
    assert!(matches!(again, Err(AcceptError::Duplicate(known)) if known.id == "m1"));
    let conflict = LedgerChange::Put(case_entry(case_key("r", "p", "c"), 0, 1));
    let mut late = acceptance("late");
    late.ledger = vec![known(conflict)];
    assert!(matches!(new.accept(late).await, Err(AcceptError::Conflict)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_moved_takes_nothing_more() {
    let source = TestPlace::sqlite();
    let daemon = fill(&source).await;
    let target = target_for(&source).await;
    copy(&source, &target).await.unwrap();

    let refused = daemon.accept(acceptance("late")).await.unwrap_err();
    let AcceptError::Store(Error::Unavailable(cause)) = refused else {
        panic!("{refused}");
    };
    assert!(cause.to_string().contains("was moved"), "{cause}");
    assert!(
        daemon
            .lease(&party("arbo"), false, 9, SECONDS(60))
            .await
            .is_err()
    );
    assert!(
        daemon
            .ack(&party("arbo"), &[("r2".into(), None)])
            .await
            .is_err()
    );
    assert!(
        daemon
            .expire_parked(source.now() + SECONDS(9_999_999), 1)
            .await
            .is_err()
    );
    assert!(daemon.change_directory(0, vec![]).await.is_err());
    assert!(
        daemon
            .touch_keys(vec![("k1".into(), source.now())])
            .await
            .is_err()
    );
    assert!(daemon.forget(date(2030, 1, 1)).await.is_err());
    // What it accepted before it still knows, as the new one does.
    let again = daemon.accept(acceptance("m1")).await;
    assert!(matches!(again, Err(AcceptError::Duplicate(_))));

    let moved = Error::Moved {
        to: target.url().to_string(),
    };
    // What succeeds without a change does not make it healthy again.
    assert_eq!(daemon.health().await, Err(moved.clone()));
    let opened = source.try_open(MASTER).await;
    assert_eq!(opened.unwrap_err(), moved);
    let migrated = migrate(&source.url(), source.clock.clone()).await;
    assert_eq!(migrated, Err(moved.clone()));
    let said = moved.to_string();
    assert!(said.contains("postgres://127.0.0.1:"), "{said}");
    assert!(!said.contains("sivi:"), "{said}");

    accept_releases(&target.open().await, "late", vec![]).await;
    assert_eq!((messages(&source).await, messages(&target).await), (2, 3));
}

/// Not even a statement that goes around the gateway's own code, and so
/// neither an older version of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_of_a_store_that_moved_can_be_changed() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    copy(&source, &target_for(&source).await).await.unwrap();
    let mut connection = connect(&source).await;
    let tables = query(
        "SELECT DISTINCT tbl_name AS name FROM sqlite_master
        WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'",
    );
    let tables = tables.fetch_all(&mut connection).await.unwrap();
    assert!(tables.len() >= 13);
    for table in tables {
        let name = table.get::<String>("name").unwrap();
        // A name of the schema, and a text that lives as long as the test.
        let name: &'static str = Box::leak(name.into_boxed_str());
        for start in ["INSERT INTO ", "INSERT OR REPLACE INTO "] {
            let mut change = query(start);
            change.push(name).push(" DEFAULT VALUES");
            let refused = change.execute(&mut connection).await.unwrap_err();
            let code = refused
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code);
            assert_eq!(code.as_deref(), Some("1811"), "{start}{name}: {refused}");
        }
        // Of an empty table there is nothing to refuse.
        let mut delete = query("DELETE FROM ");
        delete.push(name);
        let deleted = delete.execute(&mut connection).await;
        assert!(matches!(deleted, Ok(0) | Err(_)), "{name}: {deleted:?}");
    }
    for change in [
        "UPDATE delivery SET attempt = attempt + 1",
        "DELETE FROM delivery WHERE id = 'r5'",
    ] {
        assert!(query(change).execute(&mut connection).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_says_so_and_changes_nothing() {
    let source = TestPlace::sqlite();
    fill_up(&source).await.close().await;
    let target = target_for(&source).await;
    assert!(matches!(copy(&source, &target).await, Ok(Copied::Now(_))));
    let new = target.open().await;
    accept_releases(&new, "since", vec![to_arbo("since", "a")]).await;
    let before = view(&new, &source).await;
    assert_eq!(copy(&source, &target).await, Ok(Copied::Before));
    assert_eq!(view(&new, &source).await, before);

    // Another empty database is not the one that it went to.
    let other = target_for(&source).await;
    let moved = CopyError::MovedElsewhere {
        to: target.url().to_string(),
    };
    assert_eq!(copy(&source, &other).await, Err(moved));
    assert!(source.try_open(MASTER).await.is_err());
}

/// Killed before each step in turn; between two runs the daemon goes on. At no
/// time do both take messages, and in the end none is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_loses_nothing_and_leaves_one_store() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let target = target_for(&source).await;
    let mut accepted = 2;
    let mut kills = 0;
    let rows = loop {
        let (mut left, mut last) = (kills, None);
        let (from, to, clock) = (source.url(), target.url(), source.clock.clone());
        let ring = source.ring(MASTER);
        let run = tokio::spawn(async move {
            let mut watch = |step| {
                if left == 0 {
                    resume_unwind(Box::new(step));
                }
                left -= 1;
            };
            copy_store(&from, &to, &ring, &clock, &mut watch).await
        });
        match run.await {
            Ok(copied) => break copied.unwrap(),
            Err(killed) => last = last.or(killed.into_panic().downcast_ref::<Step>().copied()),
        }
        kills += 1;
        let id = format!("kill-{kills}");
        let daemon = source.try_open(MASTER).await;
        if last == Some(Step::Opening) {
            assert!(matches!(daemon, Err(Error::Moved { .. })));
        } else {
            let daemon = daemon.unwrap();
            accept_releases(&daemon, &id, vec![to_arbo(&id, "k")]).await;
            daemon.close().await;
            accepted += 1;
        }
        assert_eq!(messages(&target).await, 0, "after {last:?}");
        assert_eq!(messages(&source).await, accepted);
    };
    let Copied::Now(rows) = rows else {
        panic!("{rows:?}")
    };
    let copied = rows
        .iter()
        .find(|(table, _)| *table == "message")
        .unwrap()
        .1;
    assert_eq!(i64::try_from(copied).unwrap(), accepted);
    assert_eq!(messages(&target).await, accepted);
    assert!(kills >= 28, "only {kills} steps");
    let new = target.open().await;
    for n in 1..kills {
        let id = format!("kill-{n}");
        assert!(
            new.message(&party("adp"), &id).await.unwrap().is_some(),
            "{id}"
        );
    }
}

/// The server throws the copy out at the moment of its COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_at_the_last_moment_leaves_the_source_in_use() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let target = target_for(&source).await;
    let url = target.url();
    let mut watch = |step| {
        if step == Step::Opening {
            let (url, clock) = (url.clone(), Clock::system());
            let throw_out = async move {
                let backend = Backend::new(&url, BUSY, clock);
                let mut other = backend.writer().await.unwrap();
                let terminate = query(
                    "SELECT pg_terminate_backend(pid) AS done FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                let rows = terminate.fetch_all(&mut other).await.unwrap();
                assert_eq!(rows.len(), 1);
            };
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(throw_out));
        }
    };
    let failed = copy_with(&source, &target, &source.ring(MASTER), &mut watch).await;
    assert!(matches!(failed, Err(CopyError::Target(_))), "{failed:?}");
    assert_eq!(messages(&target).await, 0);
    accept_releases(&source.open().await, "later", vec![]).await;
    assert!(matches!(copy(&source, &target).await, Ok(Copied::Now(_))));
    assert_eq!(messages(&target).await, 3);
}

/// A server that stores something else than it was given.
#[tokio::test]
async fn a_copy_that_differs_is_not_kept() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let target = target_for(&source).await;
    begin_anew_at(&target, MASTER).await.unwrap();
    execute(
        &target,
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN NEW.until_day := NEW.until_day + 1; RETURN NEW; END'",
    )
    .await;
    execute(
        &target,
        "CREATE TRIGGER later BEFORE INSERT ON remembered FOR EACH ROW EXECUTE FUNCTION later()",
    )
    .await;
    let table = "remembered";
    assert_eq!(
        copy(&source, &target).await,
        Err(CopyError::Differs { table })
    );
    assert_eq!(messages(&target).await, 0);
    accept_releases(&source.open().await, "later", vec![]).await;
}

/// While it runs, nothing is accepted behind its back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_on_the_file_waits_while_it_is_copied() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let busy = Duration::from_millis(50);
    let backend = Backend::new(&source.url(), busy, source.clock.clone());
    let daemon = Store::start(backend, &source.ring(MASTER), source.clock.clone()).await;
    let daemon = daemon.unwrap();
    let mut refused = 0;
    let mut watch = |step| {
        if matches!(step, Step::Comparing { .. }) {
            let attempt = daemon.accept(acceptance("meanwhile"));
            let runtime = tokio::runtime::Handle::current();
            let answer = tokio::task::block_in_place(|| runtime.block_on(attempt));
            assert!(matches!(
                answer,
                Err(AcceptError::Store(Error::Unavailable(_)))
            ));
            refused += 1;
        }
    };
    let target = target_for(&source).await;
    let copied = copy_with(&source, &target, &source.ring(MASTER), &mut watch).await;
    assert!(matches!(copied, Ok(Copied::Now(_))), "{copied:?}");
    assert!(refused >= 13);
    let new = target.open().await;
    assert!(
        new.message(&party("adp"), "meanwhile")
            .await
            .unwrap()
            .is_none()
    );
    new.accept(acceptance("meanwhile")).await.unwrap();
}

#[tokio::test]
async fn keys_that_open_neither_side_are_refused_before_anything_is_written() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let target = target_for(&source).await;
    let others = TestPlace::sqlite();
    let refused = copy_with(&source, &target, &source.ring(MASTER + 1), &mut |_| {}).await;
    assert_eq!(refused, Err(CopyError::Source(Error::WrongKeys)));
    assert!(!connect(&target).await.has_table("key_check").await.unwrap());

    let stranger = Store::open(&target.url(), &others.ring(MASTER), source.clock.clone()).await;
    stranger.unwrap().close().await;
    let refused = copy(&source, &target).await;
    assert_eq!(refused, Err(CopyError::Target(Error::WrongKeys)));
    source.open().await;
}

#[tokio::test]
async fn a_target_with_anything_in_it_is_refused() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    let target = target_for(&source).await;
    begin_anew_at(&target, MASTER).await.unwrap();
    let live = target.open().await;
    accept_releases(&live, "own", vec![to_arbo("own", "a")]).await;
    let refused = copy(&source, &target).await;
    let there = ["message", "inbox", "delivery", "payload"].map(|table| (table, 1));
    assert_eq!(refused, Err(CopyError::Occupied(there.into())));
    assert_eq!(lease_ids(&live, 10).await, ["own"]);
    accept_releases(&source.open().await, "later", vec![]).await;

    // One that was only opened, as `check` of before did, is empty.
    let opened = target_for(&source).await;
    begin_anew_at(&opened, MASTER).await.unwrap();
    opened.open().await.close().await;
    assert!(matches!(copy(&source, &opened).await, Ok(Copied::Now(_))));
}

#[tokio::test]
async fn a_copy_goes_from_a_store_in_a_file_to_a_server() {
    let source = TestPlace::sqlite();
    let target = target_for(&source).await;
    for (from, to) in [(&target, &source), (&source, &source), (&target, &target)] {
        assert_eq!(copy(from, to).await, Err(CopyError::Direction));
    }
    // No file, and none is made; then a database of somebody else.
    assert!(matches!(
        copy(&source, &target).await,
        Err(CopyError::Source(_))
    ));
    assert!(!source.url().file().unwrap().exists());
    source.open().await.close().await;
    execute(&source, "DROP TABLE key_check").await;
    let strange = Error::Unavailable(Cause::Schema);
    assert_eq!(
        copy(&source, &target).await,
        Err(CopyError::Source(strange))
    );
    assert!(!connect(&target).await.has_table("key_check").await.unwrap());
}

#[tokio::test]
async fn a_column_that_this_version_does_not_know_is_not_left_behind() {
    let source = TestPlace::sqlite();
    fill(&source).await.close().await;
    execute(&source, "ALTER TABLE message ADD COLUMN later TEXT").await;
    let target = target_for(&source).await;
    let what = "message.later".to_owned();
    assert_eq!(
        copy(&source, &target).await,
        Err(CopyError::Unlisted { what })
    );
    source.open().await;
}

on_both! {
    async fn migrating_says_from_where_to_where(place: Place) {
        let first = migrate(&place.url(), place.clock.clone()).await.unwrap();
        assert_eq!(first.from, 0);
        assert!(first.to >= 1);
        let store = place.open().await;
        let second = migrate(&place.url(), place.clock.clone()).await.unwrap();
        assert_eq!((second.from, second.to), (first.to, first.to));
        // A daemon beside it does not notice.
        store.accept(acceptance("m")).await.unwrap();
    }

    async fn several_may_migrate_at_once(place: Place) {
        let migrating = (0..4).map(|_| {
            let (url, clock) = (place.url(), place.clock.clone());
            tokio::spawn(async move { migrate(&url, clock).await })
        });
        for one in migrating.collect::<Vec<_>>() {
            assert!(one.await.unwrap().unwrap().to >= 1);
        }
    }
}

//! Faults on purpose: kill, full disk, locked file, wrong keys, tampering,
//! and what a thief of the files would read.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "store::tests::faults::a_child_that_accepts_until_it_is_killed";
const CHILD_FOLDER: &str = "SIVI_TEST_CHILD_FOLDER";

/// A second connection to the same file, as another process has it.
async fn stranger(place: &TestPlace) -> Connection {
    Backend::new(&place.url(), BUSY, place.clock.clone())
        .writer()
        .await
        .unwrap()
}

async fn execute(connection: &mut Connection, statement: &'static str) {
    query(statement).execute(connection).await.unwrap();
}

async fn number(connection: &mut Connection, statement: &'static str) -> i64 {
    let row = query(statement).fetch_one(connection).await.unwrap();
    row.get("number").unwrap()
}

async fn pragma(connection: &mut Connection, name: &'static str) -> i64 {
    let mut pragma = query("PRAGMA ");
    pragma.push(name);
    let row = pragma.fetch_one(connection).await.unwrap();
    row.get(name).unwrap()
}

/// Not a test: [`what_was_answered_survives_a_kill`] runs it as a process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, which is killed"]
async fn a_child_that_accepts_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let url = DatabaseUrl::sqlite(format!("{folder}/data/gateway.db"));
    let clock = Clock::manual(start());
    let ring = RingPlace {
        url: DatabaseUrl::sqlite(format!("{folder}/data/ring.db")),
        masters: Master::from_secret([MASTER; SECRET_LEN]).into(),
    };
    let store = Store::open(&url, &ring, clock).await.unwrap();
    let writers: Vec<_> = (0..16)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let id = format!("{worker}-{n}");
                    accept_releases(&store, &id, vec![to_arbo(&format!("r{id}"), "ab")]).await;
                    println!("accepted {id}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let place = TestPlace::sqlite();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, place.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = Vec::new();
    while answered.len() < 300 {
        let line = lines.next().expect("the child goes on").unwrap();
        // The first line also carries the name of the test.
        if let Some((_, id)) = line.split_once("accepted ") {
            answered.push(id.to_owned());
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    answered.extend(lines.filter_map(|line| {
        let line = line.ok()?;
        // A half line was not an answer; ids may be cut, so only whole ones count.
        Some(line.strip_prefix("accepted ")?.to_owned())
    }));
    let cut = answered.pop();

    let store = place.open().await;
    for id in &answered {
        let receipt = store.message(&party("adp"), id).await.unwrap();
        assert_eq!(receipt.unwrap().deliveries.len(), 1, "{id} of {cut:?}");
    }
    let mut connection = stranger(&place).await;
    let check = query("PRAGMA integrity_check").fetch_one(&mut connection);
    assert_eq!(
        check.await.unwrap().get::<&str>("integrity_check").unwrap(),
        "ok"
    );
    let messages = number(&mut connection, "SELECT COUNT(*) AS number FROM message").await;
    let payloads = number(&mut connection, "SELECT COUNT(*) AS number FROM payload").await;
    assert_eq!(messages, payloads, "half a message was written");
    let deliveries = "SELECT COUNT(DISTINCT sequence) AS number FROM delivery";
    assert_eq!(messages, number(&mut connection, deliveries).await);
}

/// A caller that goes away, and a store that is dropped, lose nothing that
/// was taken in.
#[tokio::test]
async fn what_was_taken_in_is_written_although_nobody_waits() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.accept(acceptance(&format!("m{n}"))).await })
        })
        .collect();
    tokio::task::yield_now().await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    store.close().await;
    let closed = store.accept(acceptance("late")).await;
    let Err(AcceptError::Store(Error::Unavailable(Cause::Closed))) = closed else {
        panic!("{closed:?}");
    };
    let again = place.open().await;
    for n in 0..50 {
        let id = format!("m{n}");
        assert!(again.message(&party("adp"), &id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let place = TestPlace::sqlite();
    let backend = Backend::new(&place.url(), BUSY, place.clock.clone()).with_pages_at_most(300);
    let store = Store::start(backend, &place.ring(MASTER), place.clock.clone())
        .await
        .unwrap();
    let large = vec![b'x'; 50_000];
    let mut accepted = 0;
    let refused = loop {
        let mut one = acceptance(&format!("m{accepted}"));
        let id = format!("r{accepted}");
        one.releases = vec![release(&id, "arbo", false, &[], &large)];
        match store.accept(one).await {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
        assert!(accepted < 100, "the disk never filled");
    };
    let AcceptError::Store(Error::Unavailable(cause)) = refused else {
        panic!("{refused}");
    };
    assert!(cause.to_string().contains("full"), "{cause}");
    assert_eq!(lease_ids(&store, 100).await.len(), accepted);

    let mut connection = stranger(&place).await;
    execute(&mut connection, "DELETE FROM payload").await;
    let mut again = acceptance(&format!("m{accepted}"));
    again.releases = vec![release("again", "arbo", false, &[], &large)];
    store.accept(again).await.unwrap();
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_locked_database_refuses_and_recovers() {
    let place = TestPlace::sqlite();
    let backend = Backend::new(&place.url(), Duration::from_millis(50), place.clock.clone());
    let store = Store::start(backend, &place.ring(MASTER), place.clock.clone())
        .await
        .unwrap();
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    let mut other = stranger(&place).await;
    execute(&mut other, BEGIN_EXCLUSIVELY).await;

    let refused = store.accept(acceptance("m2")).await.unwrap_err();
    let AcceptError::Store(Error::Unavailable(cause)) = refused else {
        panic!("{refused}");
    };
    assert!(cause.to_string().contains("another process"), "{cause}");
    assert!(store.health().await.is_err());
    // Reading goes on.
    assert!(store.message(&party("adp"), "m1").await.unwrap().is_some());

    execute(&mut other, "ROLLBACK").await;
    store.health().await.unwrap();
    store.accept(acceptance("m2")).await.unwrap();
}

const BEGIN_EXCLUSIVELY: &str = "BEGIN IMMEDIATE";

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_took() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let mut other = stranger(&place).await;
    execute(&mut other, BEGIN_EXCLUSIVELY).await;
    let tasks: Vec<_> = (0..6000)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { (n, store.accept(acceptance(&format!("m{n}"))).await) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    execute(&mut other, "ROLLBACK").await;
    let mut busy = 0;
    for task in tasks {
        let (n, result) = task.await.unwrap();
        let receipt = store
            .message(&party("adp"), &format!("m{n}"))
            .await
            .unwrap();
        assert_eq!(receipt.is_some(), result.is_ok());
        match result {
            Ok(()) => {}
            Err(AcceptError::Store(Error::Busy)) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..=6000 - 4096).contains(&busy), "{busy}");
}

#[tokio::test]
async fn another_key_file_is_refused_before_anything_is_written() {
    let place = TestPlace::sqlite();
    place.open().await.close().await;
    let opened = place.try_open(9).await;
    assert_eq!(opened.unwrap_err(), Error::WrongKeys);
    place.open().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = TestPlace::sqlite();
    place.open().await.close().await;
    let mut connection = stranger(&place).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum,
        execution_time) VALUES (9999, 'newer', TRUE, x'00', 0)";
    execute(&mut connection, newer).await;
    let opened = place.try_open(MASTER).await;
    assert_eq!(opened.unwrap_err(), Error::Unavailable(Cause::Schema));
}

#[tokio::test]
async fn two_processes_may_open_a_new_database_at_once() {
    let place = TestPlace::sqlite();
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let (url, ring) = (place.url(), place.ring(MASTER));
            let clock = place.clock.clone();
            tokio::spawn(async move { Store::open(&url, &ring, clock).await })
        })
        .collect();
    for one in opening {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_exchanged_payload_is_given_up_and_holds_up_nobody() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    for id in ["r1", "r2", "r3"] {
        accept_releases(&store, id, vec![to_arbo(id, "a")]).await;
    }
    let mut connection = stranger(&place).await;
    let exchange = "UPDATE payload SET sealed =
        (SELECT sealed FROM payload WHERE delivery_id = 'r2') WHERE delivery_id = 'r1'";
    execute(&mut connection, exchange).await;
    assert_eq!(lease_ids(&store, 10).await, ["r2", "r3"]);
    let waiting = store.waiting(place.now(), SECONDS(0)).await.unwrap();
    assert_eq!(waiting[0].leased, 2);
    assert_eq!(store.dead_counts().await.unwrap()[0].count, 1);
    let hour = Duration::from_hours(1);
    let replay = store.payload(&party("arbo"), "r1", place.now(), hour).await;
    assert_eq!(replay.unwrap_err(), Error::Damaged { what: "payload" });
}

/// Errors are shown and logged: none may repeat what a row held.
#[tokio::test]
async fn an_error_repeats_no_value() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "m1", vec![to_arbo("Jansen", "a")]).await;
    let mut again = acceptance("m2");
    again.releases = vec![to_arbo("Jansen", "a")];
    let error = store.accept(again).await.unwrap_err();
    let mut shown = vec![format!("{error} {error:?}")];
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        shown.push(format!("{inner} {inner:?}"));
        cause = inner.source();
    }
    let shown = shown.join("\n");
    assert!(shown.contains("rule of the schema"), "{shown}");
    assert!(!shown.contains("Jansen"), "{shown}");
}

/// Plants values everywhere that takes personal data, and looks for them in
/// every file that the database leaves.
#[tokio::test]
async fn the_files_hold_no_readable_value() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    plant(&store).await;
    assert_no_trace(&place);
    store.close().await;
    assert_no_trace(&place);
}

const PLANTED: [&str; 7] = [
    "111222333",
    "VandenBerg",
    "GEHEIM-REFERENTIE",
    "DatEerstVerz",
    "geparkeerde-tekst",
    "afgewezen-omdat",
    "Wrknmr[17]",
];

async fn plant(store: &Store) {
    for n in 0..200 {
        let mut one = acceptance(&format!("m{n}"));
        one.message.reference = "GEHEIM-REFERENTIE".into();
        one.message.findings = vec![Finding {
            path: "Wrkgvr[1]/Wrknmr[17]".into(),
            ..Finding::new(Code::ElementMissing)
        }];
        let xml = b"<r><Naam>VandenBerg</Naam><SofiNr>111222333</SofiNr><DatEerstVerz/></r>";
        one.releases = vec![release(&format!("r{n}"), "arbo", false, &[hash("a")], xml)];
        let entry = case_entry(case_key("r", &format!("p{n}"), "111222333"), 0, 1);
        one.ledger = vec![known(LedgerChange::Put(entry))];
        one.parked = vec![parked(
            &format!("p{n}"),
            Code::NoRoute,
            &[hash("x")],
            b"geparkeerde-tekst",
        )];
        store.accept(one).await.unwrap();
    }
    let arbo = party("arbo");
    let leased = store.lease(&arbo, false, 100, SECONDS(60)).await;
    for one in leased.unwrap().into_iter().take(50) {
        let reason = "afgewezen-omdat VandenBerg";
        let rejected = store.reject(&arbo, &one.id, &one.lease, "c", reason).await;
        rejected.unwrap();
    }
}

fn assert_no_trace(place: &TestPlace) {
    let mut files = 0;
    for file in fs::read_dir(place.folder.path().join("data")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        files += 1;
        for value in PLANTED {
            let found = bytes.windows(value.len()).any(|w| w == value.as_bytes());
            assert!(!found, "{value} in {}", path.display());
        }
    }
    assert!(files > 0);
}

/// The scan above is worth something only if it would find what is there.
#[tokio::test]
#[should_panic(expected = "in ")]
async fn the_scan_finds_what_is_readable() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "VandenBerg", vec![]).await;
    assert_no_trace(&place);
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = TestPlace::sqlite();
    let store = place.open().await;
    store.accept(acceptance("m1")).await.unwrap();
    for file in fs::read_dir(place.folder.path().join("data")).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_writer_syncs_and_wipes() {
    let place = TestPlace::sqlite();
    place.open().await;
    let mut connection = stranger(&place).await;
    assert_eq!(pragma(&mut connection, "synchronous").await, 2);
    assert_eq!(pragma(&mut connection, "secure_delete").await, 1);
    assert_eq!(pragma(&mut connection, "foreign_keys").await, 1);
    connection.close().await.unwrap();
}

//! A disk that is full, the own one and that of a database server.

use sqlx::Connection as _;

use super::*;

async fn can_still_be_read(client: &reqwest::Client, url: &str, key: &str) {
    let feed = client.get(format!("{url}/v1/inbox/feed")).bearer_auth(key);
    assert_eq!(feed.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_503_and_heals_by_itself() {
    let installation = installed("");
    let (adp, noord) = (
        key_of(&installation, "adp", &[]),
        key_of(&installation, "arbo-noord", &[]),
    );
    let daemon = installation.serve_bounded();
    let client = installation.client();
    let post = async |case: &str| {
        let request = client
            .post(format!("{}/v1/messages", daemon.url))
            .bearer_auth(&adp)
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(Absence::of(case, case).xml());
        request.send().await.unwrap()
    };
    let ready = async || {
        let response = client.get(format!("{}/readyz", daemon.url)).send().await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(post("A").await.status(), 202);
    assert_eq!(ready().await, 200);
    let journal = std::fs::metadata(installation.path("data/gateway.db-wal")).unwrap();
    daemon.let_files_grow(Some(journal.len()));
    for case in ["B", "C", "D"] {
        let response = post(case).await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503).await;
    }
    assert_eq!(ready().await, 503);
    can_still_be_read(&client, &daemon.url, &noord).await;
    daemon.let_files_grow(None);
    assert_eq!(post("B").await.status(), 202);
    assert_eq!(ready().await, 200);
    let lease = client
        .post(format!("{}/v1/inbox/lease", daemon.url))
        .bearer_auth(&noord);
    let leased: Value = lease.send().await.unwrap().json().await.unwrap();
    assert_eq!(leased["messages"].as_array().unwrap().len(), 2, "A and B");
    let (code, _) = daemon.stop();
    assert_eq!(code, 0);
}

/// What PostgreSQL says when it cannot make a file larger: at the statement, or
/// not before COMMIT.
const FULL: &str = "CREATE OR REPLACE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$";
const AT_ONCE: [&str; 2] = [
    "CREATE TRIGGER no_room BEFORE INSERT ON message EXECUTE FUNCTION no_room()",
    "CREATE TRIGGER no_room BEFORE UPDATE ON revision EXECUTE FUNCTION no_room()",
];
const AT_COMMIT: [&str; 2] = [
    "CREATE CONSTRAINT TRIGGER no_room AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION no_room()",
    "CREATE CONSTRAINT TRIGGER no_room AFTER UPDATE ON revision DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION no_room()",
];
const ROOM: [&str; 2] = [
    "DROP TRIGGER no_room ON message",
    "DROP TRIGGER no_room ON revision",
];

/// The error code is that of a full disk, by a trigger: a small file system
/// would need root. Here no row has room. Where one still fits that replaces
/// another, readiness does not see it: its probe is such a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_without_room_is_503_and_heals_by_itself() {
    let url = binary::test_database().await;
    let installation = installed(&format!("database.url = {url:?}"));
    let (adp, noord) = (
        key_of(&installation, "adp", &[]),
        key_of(&installation, "arbo-noord", &[]),
    );
    let daemon = installation.serve();
    let client = installation.client();
    let post = async |case: &Absence| {
        let request = client
            .post(format!("{}/v1/messages", daemon.url))
            .bearer_auth(&adp)
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(case.xml());
        request.send().await.unwrap()
    };
    let ready = async || {
        let response = client.get(format!("{}/readyz", daemon.url)).send().await;
        response.unwrap().status().as_u16()
    };
    let mut server = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut run = async |statements: &[&'static str]| {
        for statement in statements {
            sqlx::query(*statement).execute(&mut server).await.unwrap();
        }
    };
    let reports = ["A", "B", "C", "D", "E"].map(|case| Absence::of(case, case));
    assert_eq!(post(&reports[0]).await.status(), 202);
    assert_eq!(ready().await, 200);
    run(&[FULL]).await;
    for (full, refused) in [(AT_ONCE, &reports[1..3]), (AT_COMMIT, &reports[3..])] {
        run(&full).await;
        for report in refused {
            let response = post(report).await;
            assert!(response.headers().contains_key("retry-after"));
            problem(response, 503).await;
        }
        assert_eq!(ready().await, 503);
        can_still_be_read(&client, &daemon.url, &noord).await;
        run(&ROOM).await;
        // The sender tries again with the same message.
        for report in refused {
            assert_eq!(post(report).await.status(), 202);
        }
        assert_eq!(ready().await, 200);
    }
    let lease = client
        .post(format!("{}/v1/inbox/lease", daemon.url))
        .bearer_auth(&noord);
    let leased: Value = lease.send().await.unwrap().json().await.unwrap();
    let leased = leased["messages"].as_array().unwrap();
    let case = |message: &Value| {
        let (_, rest) = message["xml"].as_str()?.split_once("<VrzmgvlId>")?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let cases: Option<Vec<String>> = leased.iter().map(case).collect();
    assert_eq!(cases.unwrap(), ["A", "B", "C", "D", "E"]);
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    assert!(
        log.concat()
            .contains("the disk of the database server is full")
    );
}

//! The configuration changes under a running gateway: what counts at once,
//! what goes on meanwhile, and what a node does that cannot follow.

mod binary;
mod support;

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use sivi_gateway::app::Base;
use sivi_gateway::command::apply_file;
use sivi_gateway::directory::DirectoryFile;
use sivi_gateway::store::{DirectoryChange, ParkedFilter, Record};
use sivi_gateway::toml_file::TomlFile;
use sqlx::Connection as _;
use support::{Absence, DIRECTORY, Gateway, absences, header, problem, reference, settings};

/// A mapping of an operator.
const OWN: &str = "editions = [\"2017\"]\nfree_text = \"policy\"\n";
const FOLDER: &str = "[paths]\nmappings = \"mappings\"\n[alerts]\nlook_seconds = 1\n";

/// Looks every 20 ms until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn boot() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mappings")).unwrap();
    let clock = sivi_gateway::clock::Clock::manual(support::START.parse().unwrap());
    Box::pin(Gateway::boot_in(folder, clock, DIRECTORY, FOLDER)).await
}

/// Applies as a command does whose mappings are in this folder, on another
/// node perhaps.
async fn apply_with(gateway: &Gateway, mappings: &str, directory: &str) {
    let paths = format!("paths.mappings = \"{mappings}\"\n");
    let settings = settings(gateway.folder.path(), &paths);
    let base = Base::open(settings, gateway.clock.clone()).await.unwrap();
    let file = TomlFile::parse("directory.toml", directory.to_owned()).unwrap();
    let file = DirectoryFile::read(vec![file]).unwrap();
    apply_file(&base, &file).await.unwrap();
    base.store.close().await;
}

/// The directory with a mapping of our own for one party.
fn with_own_mapping(party: &str) -> String {
    let line = format!("mapping = \"{party}\"");
    let changed = DIRECTORY.replace(&line, "mapping = \"own\"");
    assert_ne!(changed, DIRECTORY);
    changed
}

async fn ready(gateway: &Gateway) -> reqwest::Response {
    let request = gateway.client.get(format!("{}/readyz", gateway.url));
    request.send().await.unwrap()
}

async fn feed(gateway: &Gateway, party: &str) -> StatusCode {
    gateway.get(party, "/v1/inbox/feed").await.status()
}

async fn revoke(gateway: &Gateway, party: &str) {
    let keys = gateway.base.store.api_keys().await.unwrap().readable;
    let key = keys.iter().find(|key| key.party.as_str() == party).unwrap();
    let now = gateway.clock.now();
    assert!(
        gateway
            .base
            .store
            .revoke_api_key(&key.id, now)
            .await
            .unwrap()
    );
}

async fn alerts(gateway: &Gateway) -> Vec<Value> {
    let kept = gateway.base.store.alerts().await.unwrap();
    let kept = kept.iter();
    let ours = kept.filter(|alert| alert.name == "configuration_unusable");
    ours.map(|alert| json!({ "severity": alert.severity, "number": alert.number }))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mapping_needs_no_signal() {
    let gateway = boot().await;
    std::fs::write(gateway.folder.path().join("mappings/own.toml"), OWN).unwrap();
    apply_with(&gateway, "mappings", &with_own_mapping("adp")).await;
    // At once: the message waits for the new directory, or is read with it.
    gateway.accept("adp", Absence::default().xml()).await;
    assert_eq!(ready(&gateway).await.status(), 200);
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_mapping_silences_its_party_alone_until_the_file_is_there() {
    let gateway = boot().await;
    let other = gateway.folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("own.toml"), OWN).unwrap();
    apply_with(&gateway, "other", &with_own_mapping("nmbrs")).await;

    let nmbrs = |number| Absence {
        sender: "Nmbrs",
        employer: ("300", "1"),
        ..Absence::of("W-N", &format!("VG-N{number}"))
    };
    until("503", async || ready(&gateway).await.status() == 503).await;
    let reason = problem(ready(&gateway).await, 503).await["detail"].clone();
    assert_eq!(
        reason,
        "a mapping or edition that the directory names is not on this node"
    );
    let refused = gateway.post("nmbrs", nmbrs(1).xml()).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503).await;
    gateway.accept("adp", Absence::default().xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    until("alert", async || !alerts(&gateway).await.is_empty()).await;
    assert_eq!(
        alerts(&gateway).await,
        [json!({ "severity": "critical", "number": 1 })]
    );

    // A revocation does not wait for it.
    assert_eq!(feed(&gateway, "arbo-zuid").await, 200);
    revoke(&gateway, "arbo-zuid").await;
    until("401", async || feed(&gateway, "arbo-zuid").await == 401).await;

    std::fs::copy(
        other.join("own.toml"),
        gateway.folder.path().join("mappings/own.toml"),
    )
    .unwrap();
    until("200", async || ready(&gateway).await.status() == 200).await;
    until("over", async || alerts(&gateway).await.is_empty()).await;
    // Of an employer that nobody configured: parked, so it was read.
    gateway.accept("nmbrs", nmbrs(2).xml()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_version_takes_away_and_gives_nothing() {
    let gateway = boot().await;
    gateway.accept("adp", Absence::default().xml()).await;
    let store = &gateway.base.store;
    let before = store.directory().await.unwrap();
    let body_of = |id: &str| {
        let mut records = before.records.iter();
        let record = records.find(|record| record.kind == "party" && record.id == id);
        record.unwrap().body.clone()
    };
    let changes = |body: String| {
        vec![
            DirectoryChange::Put(Record {
                kind: "party".to_owned(),
                id: "adp".to_owned(),
                body,
            }),
            DirectoryChange::Delete {
                kind: "party".to_owned(),
                id: "arbo-zuid".to_owned(),
            },
        ]
    };
    assert_eq!(feed(&gateway, "arbo-zuid").await, 200);
    let newer = body_of("adp").replacen('{', "{\"colour\":\"red\",", 1);
    let version = store.change_directory(before.version, changes(newer)).await;

    // Gone for everybody, whatever else cannot be read.
    until("401", async || feed(&gateway, "arbo-zuid").await == 401).await;
    let reason = problem(ready(&gateway).await, 503).await["detail"].clone();
    assert_eq!(reason, "the stored directory cannot be read by this node");
    revoke(&gateway, "nmbrs").await;
    until("401", async || feed(&gateway, "nmbrs").await == 401).await;
    // What was taken in is handed out; nothing is decided.
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    let started = Instant::now();
    let report = Absence::of("W-2", "VG-2");
    problem(gateway.post("adp", report.xml()).await, 503).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "it waited for nothing"
    );
    until("alert", async || !alerts(&gateway).await.is_empty()).await;

    let again = changes(body_of("adp"));
    store
        .change_directory(version.unwrap(), again)
        .await
        .unwrap();
    until("200", async || ready(&gateway).await.status() == 200).await;
    gateway.accept("adp", report.xml()).await;
    gateway.stop().await;
}

/// The directory with another employer key.
fn with_employer() -> String {
    let key = "{ IdWrkgvrArbdnst = \"105\", AansltnrGeguitwlngArbdnst = \"6431\" }]";
    let more = key.replace(
        ']',
        ", { IdWrkgvrArbdnst = \"777\", AansltnrGeguitwlngArbdnst = \"1\" }]",
    );
    let changed = DIRECTORY.replace(key, &more);
    assert_ne!(changed, DIRECTORY);
    changed
}

/// Corrections of cases that nobody knows: each waits apart, and goes on
/// waiting when its employer is known.
async fn park_corrections(gateway: &Gateway, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let employees = chunk.iter().map(|n| {
            let correction = Absence {
                action: "03",
                ..Absence::of(&format!("W-P{n}"), &format!("VG-P{n}"))
            };
            correction.employee()
        });
        let header = header("00100", "00006", "ADP", "ARBONOORD", &reference(), "N");
        let xml = absences(&header, &[(("777", "1"), employees.collect())]);
        gateway.accept("adp", xml).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_and_newer_reports_do_not_wait_for_what_is_parked() {
    const PARKED: usize = 2_500;
    let gateway = boot().await;
    park_corrections(&gateway, PARKED).await;
    let stranger = |number| Absence {
        employer: ("777", "1"),
        number,
        ..Absence::of("W-LAST", "VG-LAST")
    };
    // Behind all of them on the walk. Two persons: no report of one of them
    // alone takes it along.
    let both = ["W-LAST", "W-OTHER"].map(|person| Absence::of(person, "VG-LAST").employee());
    let header = header("00100", "00006", "ADP", "ARBONOORD", &reference(), "N");
    let both = absences(&header, &[(("777", "1"), both.to_vec())]);
    gateway.accept("adp", both).await;
    let waiting = async || {
        let filter = ParkedFilter::default();
        let page = gateway.base.store.parked_page(&filter, PARKED + 1).await;
        page.unwrap().parts.len()
    };
    assert_eq!(waiting().await, PARKED + 1);

    assert_eq!(feed(&gateway, "arbo-zuid").await, 200);
    apply_with(&gateway, "mappings", &with_employer()).await;
    // A newer report takes along what is older, though the walk has not come
    // so far.
    gateway.accept("adp", stranger(2).xml()).await;
    assert!(is_walking(&gateway).await, "the walk was over before");
    revoke(&gateway, "arbo-zuid").await;
    until("401", async || feed(&gateway, "arbo-zuid").await == 401).await;
    assert!(is_walking(&gateway).await, "the key counted until the end");
    let taken = gateway.take("arbo-noord").await;
    let number = |xml: &String| {
        let (_, rest) = xml.split_once("<VrzmgvlVnrMld>").unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    assert_eq!(taken.iter().map(number).collect::<Vec<_>>(), ["1", "2"]);

    until("the end", async || !is_walking(&gateway).await).await;
    assert_eq!(waiting().await, PARKED);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_of_the_ledger_ends_no_walk() {
    let gateway = boot().await;
    gateway
        .accept("adp", Absence::of("W-D", "VG-D").xml())
        .await;
    gateway.take("arbo-noord").await;
    for person in ["W-D", "W-E"] {
        let stranger = Absence {
            employer: ("777", "1"),
            ..Absence::of(person, "VG-E")
        };
        gateway.accept("adp", stranger.xml()).await;
    }
    let url = format!(
        "sqlite:{}",
        gateway.folder.path().join("gateway.db").display()
    );
    let mut raw = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let damage = sqlx::query("UPDATE ledger SET sealed = route");
    assert_eq!(damage.execute(&mut raw).await.unwrap().rows_affected(), 1);
    apply_with(&gateway, "mappings", &with_employer()).await;
    let mut taken = Vec::new();
    until("released", async || {
        taken.extend(gateway.take("arbo-noord").await);
        !taken.is_empty()
    })
    .await;
    assert!(taken[0].contains("<IdWrknmr>W-E</IdWrknmr>"), "{taken:?}");
    until("the end", async || !is_walking(&gateway).await).await;
    gateway.stop().await;
}

/// Whether what is parked is being tried.
async fn is_walking(gateway: &Gateway) -> bool {
    let request = gateway.client.get(format!("{}/metrics", gateway.admin));
    let page = request.send().await.unwrap().text().await.unwrap();
    page.contains("sivi_catching_up 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_follows_a_signal() {
    let installation = binary::Installation::new("");
    let daemon = installation.serve();
    let settings = std::fs::read_to_string(installation.path("gateway.toml")).unwrap();
    for level in ["error", "error", "info"] {
        // A key of the top level may not stand behind a table.
        installation.write(
            "gateway.toml",
            format!("log.level = \"{level}\"\n{settings}"),
        );
        let id = daemon.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &id])
            .status();
        assert!(sent.unwrap().success());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    let reloads = log.iter().filter(|line| line.contains("were reloaded"));
    assert_eq!(reloads.count(), 1, "{log:?}");
    assert!(!log.concat().contains("log changed"), "{log:?}");
}

/// An editor that empties a file and writes, or a copy on its way.
#[test]
fn a_half_written_file_of_settings_is_not_taken_over() {
    let installation = binary::Installation::new("limits.receipt_days = 700\n");
    let daemon = installation.serve();
    let settings = std::fs::read_to_string(installation.path("gateway.toml")).unwrap();
    let reload = |text: &str, answers: usize| {
        installation.write("gateway.toml", text);
        let id = daemon.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &id])
            .status();
        assert!(sent.unwrap().success());
        let said = daemon.says("reloaded", answers);
        let last: Value = serde_json::from_str(said.last().unwrap()).unwrap();
        last["fields"]["message"].as_str().unwrap().to_owned()
    };
    let more = format!("{settings}limits.replay_days = 20\n");
    let half = &settings[..=settings.find('\n').unwrap()];
    let cut = more.strip_suffix("0\n").unwrap();
    for (answers, (text, key)) in [
        ("", "admin: was set and is gone"),
        (half, "admin: was set and is gone"),
        (cut, "limits.replay_days: the file ends"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = reload(text, answers + 1);
        assert!(said.starts_with("Nothing was reloaded"), "{said}");
        assert!(said.contains(key), "{said}");
    }
    assert!(reload(&more, 4).starts_with("Settings and certificates"));
    // What it took over counts from then on.
    let said = reload(&settings, 5);
    assert!(
        said.contains("limits.replay_days: was set and is gone"),
        "{said}"
    );
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    assert!(!log.concat().contains("until a restart"), "{log:?}");
    // Who means it restarts.
    assert_eq!(installation.serve().stop().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_nothing_with_a_key_that_was_revoked_meanwhile() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.polls_per_party = 1\n").await;
    let lease = async {
        loop {
            let path = "/v1/inbox/lease?wait=20";
            let answer = gateway.post_json("arbo-noord", path, json!({})).await;
            // The one that looks whether this one waits may have been faster.
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let and_then = async {
        until("it waits, and nobody beside it", async || {
            let path = "/v1/inbox/lease?wait=1";
            let second = gateway.post_json("arbo-noord", path, json!({})).await;
            second.status() == StatusCode::TOO_MANY_REQUESTS
        })
        .await;
        revoke(&gateway, "arbo-noord").await;
        until("the key is refused", async || {
            feed(&gateway, "arbo-noord").await == StatusCode::UNAUTHORIZED
        })
        .await;
        gateway.accept("adp", Absence::default().xml()).await;
    };
    let (answer, ()) = tokio::join!(lease, and_then);
    problem(answer, 401).await;
    gateway.stop().await;
}

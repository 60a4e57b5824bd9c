//! Keys of an installation: rotated under load, destroyed in every copy,
//! wrapped by a new master; backups taken and put back; receipts signed. With
//! the real binary, but for the receipts.

#[path = "../binary/mod.rs"]
mod binary;
mod receipts;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use binary::{Daemon, Installation};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use sqlx::Connection as _;
use support::{Absence, DIRECTORY};

/// A second tenant of the same sender and receiver.
const BUTCHER: &str = r#"
[[tenant]]
id = "slager"
name = "Slager De Wit B.V."
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2" }
employer_keys = [{ IdWrkgvrArbdnst = "200", AansltnrGeguitwlngArbdnst = "7777" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
"#;

/// An installation with two tenants, and who talks to it.
struct Site {
    at: Installation,
    sender: String,
    receiver: String,
}

impl Site {
    fn new() -> Self {
        let at = Installation::new("");
        at.write("directory.toml", format!("{DIRECTORY}{BUTCHER}"));
        at.yes(&["apply", "directory.toml"]);
        let issue = |party| {
            at.yes(&["key", "issue", "--party", party])
                .trim()
                .to_owned()
        };
        let (sender, receiver) = (issue("adp"), issue("arbo-noord"));
        Self {
            at,
            sender,
            receiver,
        }
    }

    /// Another place with the same keys for its parties, master key and ring.
    fn elsewhere(&self) -> Self {
        let at = Installation::new("");
        fs::create_dir(at.path("data")).unwrap();
        let ring = self.at.path("ring-export.db");
        let _ = fs::remove_file(&ring);
        self.at.yes(&["keys", "export", ring.to_str().unwrap()]);
        fs::copy(&ring, at.path("data/ring.db")).unwrap();
        fs::copy(self.at.path("data/data.key"), at.path("data/data.key")).unwrap();
        Self {
            at,
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
        }
    }

    async fn post(&self, client: &Client, daemon: &Daemon, absence: &Absence) -> Response {
        post(client, &daemon.url, &self.sender, absence).await
    }

    async fn accept(&self, client: &Client, daemon: &Daemon, absence: &Absence) -> Value {
        let response = self.post(client, daemon, absence).await;
        assert_eq!(response.status(), 202);
        response.json().await.unwrap()
    }

    /// Cases of what the receiver gets now.
    async fn lease(&self, client: &Client, daemon: &Daemon) -> Vec<String> {
        let url = format!("{}/v1/inbox/lease?limit=1000&ttl=10", daemon.url);
        let response = client.post(url).bearer_auth(&self.receiver).send().await;
        let answer: Value = response.unwrap().json().await.unwrap();
        let messages = answer["messages"].as_array().unwrap().iter();
        messages
            .map(|message| case_of(message["xml"].as_str().unwrap()))
            .collect()
    }

    async fn status(&self, client: &Client, daemon: &Daemon, id: &Value) -> Value {
        let url = format!("{}/v1/messages/{}", daemon.url, id.as_str().unwrap());
        let response = client.get(url).bearer_auth(&self.sender).send().await;
        response.unwrap().json().await.unwrap()
    }
}

async fn post(client: &Client, url: &str, key: &str, absence: &Absence) -> Response {
    let request = client
        .post(format!("{url}/v1/messages"))
        .bearer_auth(key)
        .header("content-type", "application/xml")
        .header("accept", "application/json")
        .body(absence.xml());
    request.send().await.unwrap()
}

fn case_of(xml: &str) -> String {
    let after = xml.split("<VrzmgvlId>").nth(1).unwrap();
    after.split('<').next().unwrap().to_owned()
}

fn of_butcher(person: &str, case: &str) -> Absence {
    Absence {
        employer: ("200", "7777"),
        ..Absence::of(person, case)
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_under_load_without_a_failed_request() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    let over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (client, url) = (client.clone(), daemon.url.clone());
            let (key, over) = (site.sender.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut sent = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let case = format!("VG-{sender}-{}", sent.len());
                    let absence = Absence::of(&format!("W-{case}"), &case);
                    let answer = post(&client, &url, &key, &absence).await;
                    assert_eq!(answer.status(), 202);
                    sent.push(case);
                }
                sent
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for which in [
        &[][..],
        &["--tenant", "bakkerij"],
        &["--all"],
        &["--receipts"],
    ] {
        let arguments = [&["keys", "rotate", "--format", "json"], which].concat();
        let made = json_lines(&site.at.yes(&arguments));
        assert!(!made[0]["made"].as_array().unwrap().is_empty());
        // Long enough for the daemon to follow.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    let mut taken = Vec::new();
    loop {
        match site.lease(&client, &daemon).await {
            leased if leased.is_empty() => break,
            leased => taken.extend(leased),
        }
    }
    sent.sort();
    taken.sort();
    assert_eq!(sent, taken);
    assert!(sent.len() > 20, "{}", sent.len());

    // The daemon sealed with the last key, not with an older one.
    let keys = json_lines(&site.at.yes(&["keys", "list", "--format", "json"]));
    let in_use = keys
        .iter()
        .filter(|key| key["tenant"] == "bakkerij" && key["replaced"].is_null());
    let in_use = in_use.map(|key| key["number"].as_u64().unwrap());
    let in_use: Vec<u64> = in_use.collect();
    assert_eq!(in_use.len(), 1);
    assert_eq!(
        keys.iter()
            .filter(|key| key["tenant"] == "bakkerij")
            .count(),
        3
    );
    let text = site.at.yes(&["keys", "list"]);
    assert!(
        text.contains("in use") && text.contains("replaced"),
        "{text}"
    );
    let nobody = site.at.run(&["keys", "rotate", "--tenant", "nobody"]);
    assert_eq!(nobody.code, 1);
}

/// As if the keys that were replaced had been so an hour earlier.
async fn long_ago(site: &Site) {
    let url = format!("sqlite:{}", site.at.path("data/ring.db").display());
    let mut ring = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let earlier = "UPDATE ring_key SET replaced_at = replaced_at - 3600000";
    sqlx::query(earlier).execute(&mut ring).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_is_destroyed_and_nothing_is_lost() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    site.accept(&client, &daemon, &Absence::of("W-1", "VG-1"))
        .await;
    let rotate = ["keys", "rotate", "--all", "--reseal", "--format", "json"];
    let told = json_lines(&site.at.yes(&rotate));
    assert_eq!(told[0]["made"].as_array().unwrap().len(), 2, "{told:?}");
    let expected = json!({ "messages": 1, "parked": 0, "ledger_entries": 1, "receipts": 1,
        "rejections": 0, "unopened": 0 });
    assert_eq!(told[1]["resealed"], expected);
    let again = site.at.yes(&["keys", "reseal", "--all"]);
    assert!(again.contains("0 messages"), "{again}");

    let destroy = ["keys", "destroy", "--tenant", "bakkerij", "--replaced"];
    assert_eq!(site.at.run(&destroy).code, 1);
    let destroy = [&destroy[..], &["--yes", "--format", "json"]].concat();
    let young = site.at.run(&destroy);
    assert_eq!(young.code, 1);
    assert!(young.out.contains("may be destroyed from"), "{}", young.out);
    long_ago(&site).await;
    site.at.yes(&["keys", "rotate", "--tenant", "bakkerij"]);
    let told = json_lines(&site.at.yes(&destroy));
    assert_eq!(
        (&told[1]["keys"], &told[1]["messages"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        told[1]["too_young"].as_array().unwrap().len(),
        1,
        "{told:?}"
    );
    site.accept(&client, &daemon, &Absence::of("W-2", "VG-2"))
        .await;
    assert_eq!(site.lease(&client, &daemon).await, ["VG-1", "VG-2"]);
}

/// Copies the database as it lies there, log and all.
fn copy_database(from: &Path, to: &Path) {
    for end in ["", "-wal"] {
        let from = format!("{}{end}", from.display());
        if Path::new(&from).exists() {
            fs::copy(from, format!("{}{end}", to.display())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_tenant_is_unreadable_in_every_copy() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    site.accept(&client, &daemon, &Absence::of("W-1", "VG-bread"))
        .await;
    let lost = site
        .accept(&client, &daemon, &of_butcher("W-1", "VG-meat"))
        .await;
    let before = site.elsewhere();
    copy_database(
        &site.at.path("data/gateway.db"),
        &before.at.path("data/gateway.db"),
    );
    site.at.yes(&["backup", "backup.db"]);

    // Not while it is in the directory, and not without a word.
    let destroy = ["keys", "destroy", "--tenant", "slager", "--format", "json"];
    let refused = site.at.run(&destroy);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("directory"), "{}", refused.out);
    site.at.write("directory.toml", DIRECTORY);
    site.at.yes(&["apply", "directory.toml", "--prune"]);
    let refused = site.at.run(&destroy);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("1 messages"), "{}", refused.out);
    let done = site.at.yes(&[&destroy[..], &["--yes"]].concat());
    let done = &json_lines(&done)[0];
    assert_eq!((&done["keys"], &done["messages"]), (&json!(1), &json!(1)));
    assert_eq!(done["ledger_entries"], 1);
    tokio::time::sleep(Duration::from_secs(2)).await;

    // Here: the other tenant's comes, this one's is given up and said so.
    assert_eq!(site.lease(&client, &daemon).await, ["VG-bread"]);
    let status = site.status(&client, &daemon, &lost["id"]).await;
    assert_eq!(status["state"], "dead", "{status}");
    let list = site.at.yes(&["keys", "list"]);
    assert!(list.contains("destroyed"), "{list}");

    // In a copy that was made before, with the ring of now.
    let copied = site.elsewhere();
    let made_before = before.at.path("data/gateway.db");
    copy_database(&made_before, &copied.at.path("data/gateway.db"));
    let there = copied.at.serve();
    let to_there = copied.at.client();
    assert_eq!(copied.lease(&to_there, &there).await, ["VG-bread"]);

    // In a backup, with the ring of now.
    let restored = site.elsewhere();
    let backup = site.at.path("backup.db");
    restored.at.yes(&["restore", backup.to_str().unwrap()]);
    let there = restored.at.serve();
    let to_there = restored.at.client();
    assert_eq!(restored.lease(&to_there, &there).await, ["VG-bread"]);

    // It is the ring that matters: with the one of before, all of it opens.
    let there = before.at.serve();
    let to_there = before.at.client();
    let mut leased = before.lease(&to_there, &there).await;
    leased.sort();
    assert_eq!(leased, ["VG-bread", "VG-meat"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_destruction_spares_what_comes_in_meanwhile() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    site.accept(&client, &daemon, &of_butcher("W-1", "VG-old"))
        .await;
    let destroy = ["keys", "destroy", "--tenant", "slager", "--yes", "--force"];
    let command = site.at.command(&destroy).output();
    let command = tokio::task::spawn_blocking(move || command);
    let mut sent = Vec::new();
    for n in 0..10 {
        let case = format!("VG-new-{n}");
        site.accept(&client, &daemon, &of_butcher(&format!("W-{n}"), &case))
            .await;
        sent.push(case);
    }
    assert!(command.await.unwrap().unwrap().status.success());
    site.accept(&client, &daemon, &of_butcher("W-1", "VG-after"))
        .await;
    sent.push("VG-after".to_owned());
    let mut leased = site.lease(&client, &daemon).await;
    leased.retain(|case| case != "VG-old");
    assert_eq!(leased, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_takes_over_while_the_daemon_runs() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    site.accept(&client, &daemon, &Absence::of("W-1", "VG-1"))
        .await;
    let (key, old) = (site.at.path("data/data.key"), site.at.path("data/old.key"));

    // A wrong key is refused, and nothing is written with it.
    fs::rename(&key, &old).unwrap();
    let ring = fs::read(site.at.path("data/ring.db")).unwrap();
    let wrong = site.at.run(&["keys", "rotate", "--all"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("master key"), "{}", wrong.err);
    assert_eq!(site.at.run(&["check"]).code, 1);
    assert_eq!(site.at.run(&["keys", "rewrap"]).code, 2);
    let nowhere = site.at.run(&["keys", "rewrap", "--from", "file:nowhere"]);
    assert_eq!(nowhere.code, 2);
    assert_eq!(fs::read(site.at.path("data/ring.db")).unwrap(), ring);

    // The new one was made on the way; the ring goes over to it.
    let from = format!("file:{}", old.display());
    let wrapped = site
        .at
        .yes(&["keys", "rewrap", "--from", &from, "--format", "json"]);
    assert_eq!(json_lines(&wrapped)[0]["wrapped"], 4);
    site.at.yes(&["check"]);
    site.accept(&client, &daemon, &Absence::of("W-2", "VG-2"))
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    site.accept(&client, &daemon, &Absence::of("W-3", "VG-3"))
        .await;
    assert_eq!(daemon.stop().0, 0);

    let daemon = site.at.serve();
    assert_eq!(site.lease(&client, &daemon).await, ["VG-1", "VG-2", "VG-3"]);
    assert_eq!(daemon.stop().0, 0);
    fs::rename(&old, &key).unwrap();
    assert_eq!(site.at.run(&["check"]).code, 1);
}

#[expect(clippy::too_many_lines, reason = "one story from start to end")]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_daemon_comes_back_whole() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    let mut receipts = Vec::new();
    for n in 0..5 {
        let absence = Absence::of(&format!("W-{n}"), &format!("VG-{n}"));
        receipts.push((
            absence.clone(),
            site.accept(&client, &daemon, &absence).await,
        ));
    }
    // Two are leased, and one of these is taken over.
    let url = format!("{}/v1/inbox/lease?limit=2&ttl=900", daemon.url);
    let leased = client.post(url).bearer_auth(&site.receiver).send().await;
    let leased: Value = leased.unwrap().json().await.unwrap();
    let first = &leased["messages"][0];
    let ack = client
        .post(format!("{}/v1/inbox/ack", daemon.url))
        .bearer_auth(&site.receiver)
        .json(&json!({ "ids": [first["id"]] }));
    assert!(ack.send().await.unwrap().status().is_success());

    let over = Arc::new(AtomicBool::new(false));
    let sending = {
        let (client, url) = (client.clone(), daemon.url.clone());
        let (key, over) = (site.sender.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let case = format!("VG-later-{count}");
                let absence = Absence::of(&format!("W-later-{count}"), &case);
                assert_eq!(post(&client, &url, &key, &absence).await.status(), 202);
                count += 1;
            }
            count
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let backup = site.at.path("backup.db");
    let backup = backup.to_str().unwrap();
    let report = site.at.yes(&["backup", backup, "--format", "json"]);
    let report = json_lines(&report).remove(0);
    over.store(true, Ordering::Relaxed);
    let later: u64 = sending.await.unwrap();
    let messages = report["messages"].as_u64().unwrap();
    assert!((5..=5 + later).contains(&messages), "{report}");
    assert_eq!(report["undelivered"].as_u64().unwrap(), messages - 1);
    let mode = fs::metadata(backup).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let bytes = fs::read(backup).unwrap();
    for secret in ["VG-1", "Vries", &site.sender] {
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret} is readable in the backup");
    }
    // A file is never overwritten.
    let again = site.at.run(&["backup", backup]);
    assert_eq!(again.code, 1);
    assert_eq!(fs::read(backup).unwrap(), bytes);

    // Not over a database, and never under a running daemon.
    assert_eq!(site.at.run(&["restore", backup]).code, 1);
    let under = site.at.run(&["restore", backup, "--replace"]);
    assert_eq!(under.code, 1);
    assert!(under.err.contains("stop the daemon"), "{}", under.err);
    assert_eq!(
        site.post(&client, &daemon, &Absence::of("W-x", "VG-x"))
            .await
            .status(),
        202
    );
    // Nor what is no backup, or with other keys.
    let stranger = Site::new();
    let other = stranger.at.run(&["restore", backup, "--replace"]);
    assert_eq!(other.code, 1);
    assert!(other.err.contains("key"), "{}", other.err);
    let nonsense = site.at.write("nonsense.db", "no database at all");
    let restored = site.elsewhere();
    let ran = restored.at.run(&["restore", nonsense.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(!restored.at.path("data/gateway.db").exists());

    let put_back = restored.at.yes(&["restore", backup, "--format", "json"]);
    let put_back = json_lines(&put_back).remove(0);
    assert_eq!(put_back["messages"], report["messages"]);
    assert_eq!(put_back["leases_void"], 1);
    assert_eq!(put_back["newest_received_at"], report["newest_received_at"]);
    let there = restored.at.serve();
    let to_there = restored.at.client();
    for (absence, receipt) in &receipts {
        let again = restored.post(&to_there, &there, absence).await;
        assert_eq!(again.status(), 200);
        assert_eq!(&again.json::<Value>().await.unwrap(), receipt);
        let here = site.status(&client, &daemon, &receipt["id"]).await;
        let there = restored.status(&to_there, &there, &receipt["id"]).await;
        assert_eq!(here["received_at"], there["received_at"]);
    }
    let leased = restored.lease(&to_there, &there).await;
    let count = u64::try_from(leased.len()).unwrap();
    assert_eq!(count, messages - 1);
    assert_eq!(leased[..4], ["VG-1", "VG-2", "VG-3", "VG-4"]);
    // What comes next comes behind everything that was ever read.
    let newest = restored
        .accept(&to_there, &there, &Absence::of("W-y", "VG-y"))
        .await;
    assert!(newest["id"].is_string());
    let feed = format!("{}/v1/inbox/feed?after=100000000", there.url);
    let feed = to_there.get(feed).bearer_auth(&site.receiver).send().await;
    let feed: Value = feed.unwrap().json().await.unwrap();
    assert_eq!(feed["messages"].as_array().unwrap().len(), 1);

    // In the place of the database of before, which is kept.
    assert_eq!(daemon.stop().0, 0);
    let put_back = site
        .at
        .yes(&["restore", backup, "--replace", "--format", "json"]);
    let aside = json_lines(&put_back).remove(0)["aside"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(Path::new(&aside).exists());
    let daemon = site.at.serve();
    let again = site.post(&client, &daemon, &receipts[0].0).await;
    assert_eq!(again.status(), 200);
}

/// Removes the database of the messages, log and all.
fn lose_store(site: &Site) {
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(site.at.path(&format!("data/gateway.db{end}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_lost_is_not_begun_anew_without_a_word() {
    let site = Site::new();
    let daemon = site.at.serve();
    let client = site.at.client();
    let absence = Absence::of("W-1", "VG-1");
    site.accept(&client, &daemon, &absence).await;
    site.at.yes(&["backup", "backup.db"]);
    assert_eq!(daemon.stop().0, 0);

    lose_store(&site);
    for (arguments, code) in [(&["serve"][..], 2), (&["check"], 1), (&["key", "list"], 2)] {
        let refused = site.at.run(arguments);
        assert_eq!(refused.code, code, "{arguments:?}");
        let said = refused.out + &refused.err;
        for way in ["restore PATH", "migrate --new-store"] {
            assert!(said.contains(way), "{said}");
        }
    }
    // Nothing was made, so that the backup finds its place free.
    assert!(!site.at.path("data/gateway.db").exists());
    site.at.yes(&["restore", "backup.db"]);
    let daemon = site.at.serve();
    assert_eq!(site.post(&client, &daemon, &absence).await.status(), 200);
    assert_eq!(daemon.stop().0, 0);

    lose_store(&site);
    site.at.yes(&["migrate"]);
    assert_eq!(site.at.run(&["serve"]).code, 2);
    let begin = ["migrate", "--new-store", "--format", "json"];
    for is_new in [true, false] {
        let told = json_lines(&site.at.yes(&begin)).remove(0);
        assert_eq!(told["new_store"], is_new, "{told}");
    }
    site.at.yes(&["apply", "directory.toml"]);
    let key = site.at.yes(&["key", "issue", "--party", "adp"]);
    let daemon = site.at.serve();
    let sent = post(&client, &daemon.url, key.trim(), &absence).await;
    assert_eq!(sent.status(), 202);
}

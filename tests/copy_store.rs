//! `migrate`, `copy-store` and `backup` with the real binary, real daemons and a
//! real `PostgreSQL`: a site grows out of one machine while its senders go on,
//! and comes back from a backup.

mod binary;
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use binary::{Daemon, Installation};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use support::{Absence, DIRECTORY, new_database};

const FROM: &str = "sqlite:data/gateway.db";

/// What must never be shown.
fn password(url: &str) -> &str {
    let (_, rest) = url.split_once("//sivi:").unwrap();
    rest.split_once('@').unwrap().0
}

/// A site on a file, and the address of the database that it will go to, in a
/// file of its folder.
struct Site {
    installation: Installation,
    to: String,
    sender: String,
    receiver: String,
}

impl Site {
    async fn new() -> Self {
        let installation = Installation::new("");
        installation.write("directory.toml", DIRECTORY);
        installation.yes(&["apply", "directory.toml"]);
        let issue = |party: &str| {
            let key = installation.yes(&["key", "issue", "--party", party]);
            key.trim().to_owned()
        };
        let (sender, receiver) = (issue("adp"), issue("arbo-noord"));
        let to = new_database().await;
        installation.write("target", format!("{to}\n"));
        Self {
            installation,
            to,
            sender,
            receiver,
        }
    }

    fn copy(&self) -> binary::Ran {
        let copy = ["copy-store", "--from", FROM, "--to", "file:target"];
        self.installation
            .run(&[&copy[..], &["--format", "json"]].concat())
    }

    /// The settings name the database that took over.
    fn switch_over(&self) {
        self.set("database.url = \"file:target\"");
    }

    /// Adds a line to the settings.
    fn set(&self, line: &str) {
        let path = self.installation.path("gateway.toml");
        let settings = std::fs::read_to_string(path).unwrap();
        let settings = settings.replace("log.format", &format!("{line}\nlog.format"));
        self.installation.write("gateway.toml", settings);
    }

    async fn post(&self, client: &Client, daemon: &Daemon, xml: &str) -> reqwest::Response {
        let request = client
            .post(format!("{}/v1/messages", daemon.url))
            .bearer_auth(&self.sender)
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(xml.to_owned());
        request.send().await.unwrap()
    }

    async fn receive(&self, client: &Client, daemon: &Daemon, path: &str, body: Value) -> Value {
        let request = client
            .post(format!("{}/v1/inbox/{path}", daemon.url))
            .bearer_auth(&self.receiver)
            .json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}

fn ids(answer: &Value) -> Vec<String> {
    let messages = answer["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect()
}

#[expect(clippy::too_many_lines, reason = "one story from start to end")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_moves_to_postgres_and_every_message_arrives_once() {
    let site = Site::new().await;
    let old = site.installation.serve();
    let client = site.installation.client();
    let report = |n: u32| Absence::of(&format!("W-{n}"), &format!("VG-{n}")).xml();
    let (first, second, third) = (report(1), report(2), report(3));
    let mut receipts = Vec::new();
    for xml in [&first, &second] {
        let response = site.post(&client, &old, xml).await;
        assert_eq!(response.status(), 202);
        receipts.push(response.json::<Value>().await.unwrap());
    }
    let leased = site
        .receive(&client, &old, "lease?limit=1&ttl=900", json!({}))
        .await;
    let lease = leased["messages"][0]["lease"].clone();
    let held = ids(&leased);
    assert_eq!(held.len(), 1);

    // The old daemon runs on all the while.
    let ran = site.copy();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(line["status"], "copied");
    assert!(
        line["to"]
            .as_str()
            .unwrap()
            .starts_with("postgres://127.0.0.1:")
    );
    let rows = |table: &str| {
        let mut tables = line["tables"].as_array().unwrap().iter();
        tables.find(|one| one["table"] == table).unwrap()["rows"].clone()
    };
    assert_eq!(
        (rows("message"), rows("delivery"), rows("api_key")),
        (json!(2), json!(2), json!(2))
    );
    for step in [
        "copying message: 2 rows",
        "comparing withheld",
        "handing over",
    ] {
        assert!(ran.err.contains(step), "{}", ran.err);
    }

    // It refuses what is new, and says come back; what it knows it knows.
    let refused = site.post(&client, &old, &third).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(site.post(&client, &old, &first).await.status(), 200);
    let ready = client
        .get(format!("{}/readyz", old.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    let (_, log) = old.stop();
    let log = log.join("\n");
    assert!(log.contains("was moved to another database"), "{log}");

    // No command works on the old file, and each says where it went.
    for arguments in [&["serve"][..], &["check"], &["key", "list"], &["migrate"]] {
        let ran = site.installation.run(arguments);
        assert!(ran.code > 0, "{arguments:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(
            said.contains("this store was moved to postgres://127.0.0.1:"),
            "{said}"
        );
        assert!(!said.contains(password(&site.to)), "{said}");
    }

    site.switch_over();
    assert!(
        site.installation
            .yes(&["migrate"])
            .contains("nothing to do")
    );
    site.installation.yes(&["check"]);
    let nodes = [site.installation.serve(), site.installation.serve()];
    // Sent again: the receipt of before. What was refused is taken now, once.
    for (xml, receipt) in [&first, &second].into_iter().zip(&receipts) {
        let again = site.post(&client, &nodes[0], xml).await;
        assert_eq!(again.status(), 200);
        assert_eq!(again.json::<Value>().await.unwrap(), *receipt);
    }
    assert_eq!(site.post(&client, &nodes[0], &third).await.status(), 202);
    assert_eq!(site.post(&client, &nodes[1], &third).await.status(), 200);
    // The lease of before holds on both nodes; its token counts.
    let next = site
        .receive(&client, &nodes[1], "lease?limit=100", json!({}))
        .await;
    assert_eq!(next["messages"].as_array().unwrap().len(), 2);
    assert!(!ids(&next).contains(&held[0]));
    let items = json!({ "items": [{ "id": held[0], "lease": lease }] });
    let acked = site.receive(&client, &nodes[0], "ack", items).await;
    assert_eq!(acked["acknowledged"], json!(held));
    let none = site
        .receive(&client, &nodes[0], "lease?limit=100", json!({}))
        .await;
    assert_eq!(none["messages"], json!([]));

    let again = site.copy();
    assert_eq!(again.code, 0, "{}", again.err);
    let line: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(line["status"], "copied_before");
    let logs: String = nodes
        .into_iter()
        .map(|node| node.stop().1.concat())
        .collect();
    for shown in [&ran.out, &ran.err, &again.out, &again.err, &log, &logs] {
        assert!(!shown.contains(password(&site.to)), "{shown}");
    }
}

/// Two nodes take messages while they are backed up. The way back is a file,
/// and from there a new database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_on_postgres_comes_back_from_a_backup() {
    let site = Site::new().await;
    assert_eq!(site.copy().code, 0);
    site.switch_over();
    site.installation.write("ring", new_database().await);
    site.installation
        .yes(&["keys", "copy", "--to", "file:ring"]);
    site.set("keys.ring = \"file:ring\"");
    let nodes = [site.installation.serve(), site.installation.serve()];
    let client = site.installation.client();
    let reports: Vec<String> = (0..60)
        .map(|n| Absence::of(&format!("W-{n}"), &format!("VG-{n}")).xml())
        .collect();
    let mut backup = None;
    let mut receipts = Vec::new();
    for (n, report) in reports.iter().enumerate() {
        if n == 10 {
            let mut command = site.installation.command(&["backup", "backup.db"]);
            backup = Some(command.stdout(Stdio::piped()).spawn().unwrap());
        }
        let response = site.post(&client, &nodes[n % 2], report).await;
        assert_eq!(response.status(), 202);
        receipts.push(response.json::<Value>().await.unwrap());
    }
    let ran = backup.unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(said.starts_with("wrote backup.db: "), "{said}");
    site.installation.yes(&["keys", "export", "ring.db"]);
    for node in nodes {
        assert_eq!(node.stop().0, 0);
    }
    let refused = site.installation.run(&["restore", "backup.db"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("restore to a file"), "{}", refused.err);

    // Of the site nothing is left but backup, ring and master key.
    let back = Site {
        installation: Installation::new(""),
        to: new_database().await,
        sender: site.sender.clone(),
        receiver: site.receiver.clone(),
    };
    let data = back.installation.path("data");
    std::fs::create_dir(&data).unwrap();
    for (from, to) in [("data/data.key", "data.key"), ("ring.db", "ring.db")] {
        std::fs::copy(site.installation.path(from), data.join(to)).unwrap();
    }
    let backup = site.installation.path("backup.db");
    back.installation
        .yes(&["restore", backup.to_str().unwrap()]);
    back.installation.write("target", &back.to);
    assert_eq!(back.copy().code, 0);
    back.switch_over();
    back.installation.write("ring", new_database().await);
    back.installation
        .yes(&["keys", "copy", "--to", "file:ring"]);
    back.set("keys.ring = \"file:ring\"");
    let node = back.installation.serve();
    let client = back.installation.client();
    let mut known = 0;
    for (n, (report, receipt)) in reports.iter().zip(&receipts).enumerate() {
        let again = back.post(&client, &node, report).await;
        if again.status() == 200 {
            assert_eq!(n, known, "one before it is missing");
            assert_eq!(&again.json::<Value>().await.unwrap(), receipt);
            known += 1;
        } else {
            assert_eq!(again.status(), 202);
        }
    }
    assert!((10..=60).contains(&known));
    assert!(said.contains(&format!(": {known} messages, ")), "{said}");
    let leased = back
        .receive(&client, &node, "lease?limit=100", json!({}))
        .await;
    assert_eq!(ids(&leased).len(), 60);
}

/// SIGKILL in the middle: the source goes on, the target is empty, and the next
/// run succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_leaves_the_source_in_use() {
    let site = Site::new().await;
    for moment in ["copying api_key", "comparing inbox"] {
        let copy = ["copy-store", "--from", FROM, "--to", "file:target"];
        let mut child = site
            .installation
            .command(&copy)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().starts_with(moment));
        assert!(found, "{moment} was never shown");
        child.kill().unwrap();
        child.wait().unwrap();
        site.installation.yes(&["check"]);
        site.installation.yes(&["key", "issue", "--party", "adp"]);
        let mut link = PgConnection::connect(&site.to).await.unwrap();
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM api_key");
        assert_eq!(count.fetch_one(&mut link).await.unwrap(), 0);
    }
    let ran = site.copy();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(line["tables"][3], json!({ "table": "api_key", "rows": 4 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_copied_is_refused_with_a_reason() {
    let site = Site::new().await;
    let run = |from: &str, to: &str| {
        let ran = site
            .installation
            .run(&["copy-store", "--from", from, "--to", to]);
        assert!(!ran.err.contains(password(&site.to)), "{}", ran.err);
        assert_eq!(ran.out, "");
        (ran.code, ran.err)
    };
    for (from, to, code, why) in [
        (FROM, "file:nowhere", 2, "--to: the file cannot be read"),
        (
            FROM,
            "env:SIVI_NOWHERE",
            2,
            "--to: the environment has no variable",
        ),
        (
            FROM,
            "mysql://sivi:geheim@host/db",
            2,
            "--to: must be sqlite:PATH or postgres://",
        ),
        (FROM, FROM, 2, "from sqlite:PATH to postgres://"),
        (
            "file:target",
            "file:target",
            2,
            "from sqlite:PATH to postgres://",
        ),
        (
            "sqlite:data/other.db",
            "file:target",
            2,
            "source: the database is not available",
        ),
        (
            FROM,
            "postgres://sivi:geheim@127.0.0.1:1/x",
            2,
            "target: the database is not available",
        ),
    ] {
        let (got, err) = run(from, to);
        assert_eq!(got, code, "{from} {to}: {err}");
        assert!(err.contains(why), "{from} {to}: {err}");
        assert!(!err.contains("geheim"), "{err}");
    }

    // Keys of another installation, or none at all.
    let key = site.installation.path("data/data.key");
    let kept = site.installation.path("data/kept.key");
    std::fs::rename(&key, &kept).unwrap();
    assert_eq!(run(FROM, "file:target").0, 2);
    assert!(!key.exists(), "a key was made for a store that has one");
    let other = Installation::new("");
    other.yes(&["key", "list"]);
    std::fs::copy(other.path("data/data.key"), &key).unwrap();
    let (code, err) = run(FROM, "file:target");
    assert_eq!(code, 2);
    assert!(
        err.contains("source: master key or key ring are not those"),
        "{err}"
    );
    std::fs::rename(&kept, &key).unwrap();

    // A site that is there already.
    let other = Site::new().await;
    other.switch_over();
    other.installation.yes(&["migrate", "--new-store"]);
    other.installation.yes(&["apply", "directory.toml"]);
    std::fs::copy(
        other.installation.path("target"),
        site.installation.path("other"),
    )
    .unwrap();
    std::fs::copy(&key, other.installation.path("data/data.key")).unwrap();
    let (code, err) = run(FROM, "file:other");
    assert_eq!(code, 2, "other keys: {err}");
    assert!(
        err.contains("target: master key or key ring are not those"),
        "{err}"
    );
    let same = site
        .installation
        .run(&["copy-store", "--from", FROM, "--to", "file:target"]);
    assert_eq!(same.code, 0, "{}", same.err);
    assert!(
        same.out.contains("everything was copied to postgres://"),
        "{}",
        same.out
    );
    // Another file with the same keys finds it taken.
    let ring = site.installation.path("data/ring.db");
    let second = Installation::new(&format!("keys.ring = \"sqlite:{}\"", ring.display()));
    std::fs::create_dir(second.path("data")).unwrap();
    std::fs::copy(&key, second.path("data/data.key")).unwrap();
    second.yes(&["migrate", "--new-store"]);
    second.write("target", &site.to);
    let ran = second.run(&["copy-store", "--from", FROM, "--to", "file:target"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("the target is not empty:"), "{}", ran.err);
    assert!(ran.err.contains("2 in api_key"), "{}", ran.err);
    second.yes(&["key", "list"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_says_what_it_did() {
    let url = new_database().await;
    for database in ["", "database.url = \"file:target\"\n"] {
        let installation = Installation::new("");
        installation.write("target", &url);
        let settings = std::fs::read_to_string(installation.path("gateway.toml")).unwrap();
        installation.write("gateway.toml", format!("{database}{settings}"));
        let first = installation.yes(&["migrate", "--format", "json"]);
        let first: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(first["from"], 0);
        let to = first["to"].as_i64().unwrap();
        assert!(to >= 1);
        let again = installation.yes(&["migrate"]);
        assert_eq!(
            again.trim(),
            format!("nothing to do: the schema has version {to}")
        );
        let daemon = installation.serve();
        installation.yes(&["migrate", "--format", "json"]);
        assert_eq!(daemon.stop().0, 0);
        // No key was needed and none was made before the daemon started.
        assert!(installation.path("data/data.key").exists());
    }
}

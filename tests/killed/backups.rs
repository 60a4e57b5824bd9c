//! Backups and restores, killed at each of their steps: a file is complete or
//! absent, and where a database was, one is.

use std::os::unix::process::ExitStatusExt as _;

use reqwest::Client;

use crate::binary::{Daemon, Installation, test_database};
use crate::support::{Absence, DIRECTORY};

/// An installation, the key of its sender, and what it reports.
struct Site {
    at: Installation,
    sender: String,
    reports: [String; 3],
}

impl Site {
    fn new(settings: &str) -> Self {
        let at = Installation::new(settings);
        at.write("directory.toml", DIRECTORY);
        at.yes(&["apply", "directory.toml"]);
        let key = at.yes(&["key", "issue", "--party", "adp"]);
        let sender = key.trim().to_owned();
        let report = |n: u32| Absence::of(&format!("W-{n}"), &format!("VG-{n}")).xml();
        Self {
            at,
            sender,
            reports: [0, 1, 2].map(report),
        }
    }

    async fn post(&self, client: &Client, daemon: &Daemon, n: usize) -> u16 {
        let request = client
            .post(format!("{}/v1/messages", daemon.url))
            .bearer_auth(&self.sender)
            .header("content-type", "application/xml")
            .body(self.reports[n].clone());
        request.send().await.unwrap().status().as_u16()
    }

    /// Whether the daemon starts and knows report `n`; it does afterwards.
    async fn knows(&self, n: usize) -> bool {
        let daemon = self.at.serve();
        let status = self.post(&self.at.client(), &daemon, n).await;
        assert!(matches!(status, 200 | 202), "{status}");
        assert_eq!(daemon.stop().0, 0);
        status == 200
    }

    fn die(&self, arguments: &[&str], place: &str) {
        let mut command = self.at.command(arguments);
        let ran = command.env("SIVI_DIE_AT", place).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(
            ran.status.signal(),
            Some(9),
            "{arguments:?} at {place}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_postgres_that_is_killed_leaves_no_half_file() {
    let url = test_database().await;
    let site = Site::new(&format!("database.url = {url:?}"));
    assert!(!site.knows(1).await);
    let backup = site.at.path("backup.db");
    for place in ["drafting:1", "drafting:6", "drafting:20", "drafted:1"] {
        site.die(&["backup", "backup.db"], place);
        assert!(!backup.exists(), "{place}");
    }
    site.die(&["backup", "backup.db"], "kept:1");
    // It is whole.
    let settings = format!(
        "keys.ring = \"sqlite:{}\"",
        site.at.path("data/ring.db").display()
    );
    let elsewhere = Site {
        at: Installation::new(&settings),
        sender: site.sender.clone(),
        reports: site.reports.clone(),
    };
    std::fs::create_dir(elsewhere.at.path("data")).unwrap();
    std::fs::copy(
        site.at.path("data/data.key"),
        elsewhere.at.path("data/data.key"),
    )
    .unwrap();
    elsewhere.at.yes(&["restore", backup.to_str().unwrap()]);
    assert!(elsewhere.knows(1).await);
    assert!(site.knows(1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_leaves_the_old_store_or_the_new_one() {
    let site = Site::new("");
    assert!(!site.knows(1).await);
    site.at.yes(&["backup", "backup.db"]);
    assert!(!site.knows(2).await);
    let restore = ["restore", "backup.db", "--replace"];
    for place in ["drafted:1", "aside:1"] {
        site.die(&restore, place);
        assert!(site.knows(2).await, "{place}: the store of before is gone");
    }
    site.die(&restore, "kept:1");
    assert!(!site.knows(2).await);
    assert!(site.knows(1).await);
    // It needs no cleaning up before it is done again.
    site.at.yes(&restore);
    assert!(!site.knows(2).await);
}

/// Without a database before it there is none, or the whole one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_restore_that_is_killed_leaves_nothing_or_all_of_it() {
    let site = Site::new("");
    assert!(!site.knows(1).await);
    site.at.yes(&["backup", "backup.db"]);
    let database = site.at.path("data/gateway.db");
    std::fs::remove_file(&database).unwrap();
    for beside in ["data/gateway.db-wal", "data/gateway.db-shm"] {
        // A command that ended in a hurry left them.
        let _ = std::fs::remove_file(site.at.path(beside));
    }
    site.die(&["restore", "backup.db"], "drafted:1");
    assert!(!database.exists());
    site.die(&["restore", "backup.db"], "kept:1");
    assert!(site.knows(1).await);
}

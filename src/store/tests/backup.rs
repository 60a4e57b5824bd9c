//! Backups of a server: one moment, in the form that a backup of a file has,
//! and the whole way back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::copy::{copy, execute, fill_up, target_for, view};
use super::*;

/// An installation on a file, with the ring that `path` holds.
fn on_a_file(of: &TestPlace, ring: PathBuf) -> TestPlace {
    TestPlace {
        clock: of.clock.clone(),
        ring_url: DatabaseUrl::sqlite(ring),
        ..TestPlace::sqlite()
    }
}

async fn put_back(backup: &Path, to: &TestPlace) -> Result<Restored, BackupError> {
    replace(backup, to, None).await
}

async fn replace(
    backup: &Path,
    to: &TestPlace,
    aside: Option<&Path>,
) -> Result<Restored, BackupError> {
    let (ring, clock) = (to.ring(MASTER), to.clock.clone());
    restore(backup, &to.url(), aside, &ring, clock).await
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// As a restored store shows it: nobody holds a release any more.
fn without_leases(view: Vec<String>) -> Vec<String> {
    let offered = |line: String| line.replace("state: Leased", "state: Offered");
    view.into_iter().map(offered).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_comes_back_by_way_of_a_file() {
    let place = TestPlace::postgres().await;
    let store = fill_up(&place).await;
    let before = view(&store, &place).await;
    let folder = place.folder.path();
    let (backup, ring) = (folder.join("backup.db"), folder.join("ring.db"));
    let held = store.backup(&backup).await.unwrap();
    let counted = (held.messages, held.undelivered, held.dead, held.parked);
    assert_eq!(counted, (6, 605, 1, 1));
    let keys = store.ring_keys().await.unwrap();
    let exported = store.export_ring(&ring).await.unwrap();
    assert_eq!(usize::try_from(exported).unwrap(), keys.len());
    // Each is one file, and nothing is beside it.
    assert_eq!(names(folder), ["backup.db", "ring.db"]);
    store.close().await;

    let file = on_a_file(&place, ring);
    let restored = put_back(&backup, &file).await.unwrap();
    assert_eq!((restored.contents, restored.leases), (held, 1));
    let on_file = file.open().await;
    assert_eq!(on_file.ring_keys().await.unwrap(), keys);
    let expected = without_leases(before);
    assert!(view(&on_file, &place).await == expected);
    on_file.close().await;

    let server = target_for(&file).await;
    assert!(matches!(copy(&file, &server).await, Ok(Copied::Now(_))));
    let back = server.open().await;
    assert!(view(&back, &place).await == expected);
    assert_eq!(lease_ids(&back, 10).await, ["r2", "r5"]);
    accept_releases(&back, "next", vec![to_arbo("next", "")]).await;
    let hour = Duration::from_hours(1);
    let arbo = party("arbo");
    let next = back.feed(&arbo, false, 1_000_000_000, 10, place.now(), hour);
    assert_eq!(next.await.unwrap()[0].id, "next");
}

/// Two nodes take messages and hand them over all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_server_is_one_moment() {
    let place = TestPlace::postgres().await;
    let store = fill_up(&place).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut nodes = Vec::new();
    for node in ["a", "b"] {
        let (store, over) = (place.open().await, Arc::clone(&over));
        nodes.push(tokio::spawn(async move {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let id = format!("{node}{sent}");
                accept_releases(&store, &id, vec![to_arbo(&id, node)]).await;
                let ids = lease_ids(&store, 2).await;
                ack_ids(&store, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
                sent += 1;
            }
            sent
        }));
    }
    let backup = place.folder.path().join("backup.db");
    let held = store.backup(&backup).await.unwrap();
    over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for node in nodes {
        sent.push(node.await.unwrap());
    }
    let total: u64 = sent.iter().sum();
    assert!(held.messages < total + 6, "nothing came in meanwhile");

    let file = on_a_file(&place, place.folder.path().join("ring.db"));
    store
        .export_ring(file.ring_url.file().unwrap())
        .await
        .unwrap();
    put_back(&backup, &file).await.unwrap();
    let restored = file.open().await;
    // Of each node the first so many messages, and everything of each.
    let mut known = 0;
    for (node, sent) in ["a", "b"].into_iter().zip(sent) {
        let mut missing = None;
        for n in 0..sent {
            let id = format!("{node}{n}");
            match restored.message(&party("adp"), &id).await.unwrap() {
                Some(message) => {
                    assert_eq!(missing, None, "{id} came after it");
                    assert_eq!(message.deliveries.len(), 1, "{id}");
                    known += 1;
                }
                None => missing = missing.or(Some(id)),
            }
        }
    }
    assert_eq!(known + 6, held.messages);
    let all = Walk::default();
    restored
        .check_messages(&all, u32::MAX, place.now())
        .await
        .unwrap();
    assert_eq!(
        restored.unaccounted_ids().await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn what_was_not_copied_whole_leaves_no_file() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    let backup = place.folder.path().join("backup.db");
    execute(&place, "ALTER TABLE message ADD COLUMN later TEXT").await;
    let failed = store.backup(&backup).await;
    assert!(
        matches!(&failed, Err(BackupError::Copy(CopyError::Unlisted { what })) if what == "message.later"),
        "{failed:?}"
    );
    assert!(names(place.folder.path()).is_empty());
    execute(&place, "ALTER TABLE message DROP COLUMN later").await;
    store.backup(&backup).await.unwrap();
    let again = store.backup(&backup).await;
    assert!(matches!(again, Err(BackupError::Exists(path)) if path == backup));
    assert_eq!(names(place.folder.path()), ["backup.db"]);
}

/// The way back goes to a file.
#[tokio::test]
async fn a_server_is_not_restored_to() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    let backup = place.folder.path().join("backup.db");
    store.backup(&backup).await.unwrap();
    let refused = put_back(&backup, &place).await.unwrap_err();
    assert!(matches!(refused, BackupError::Shared));
    assert!(refused.to_string().contains("copy-store"), "{refused}");
}

/// Whatever is beside a database that is damaged or gone goes aside with it:
/// `SQLite` would read a log that it finds into the next one.
#[tokio::test]
async fn a_log_is_not_read_into_the_database_that_was_restored() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "kept", vec![to_arbo("kept", "")]).await;
    let backup = place.folder.path().join("backup.db");
    store.backup(&backup).await.unwrap();
    accept_releases(&store, "later", vec![to_arbo("later", "")]).await;
    let data = place.folder.path().join("data");
    let (database, log) = (data.join("gateway.db"), data.join("gateway.db-wal"));
    let stale = std::fs::read(&log).unwrap();
    assert!(stale.len() > 4096);
    store.close().await;

    for (damaged, log_there) in [(None, &stale[..]), (Some("no database"), b"no log")] {
        std::fs::remove_file(&database).unwrap();
        std::fs::write(&log, log_there).unwrap();
        if let Some(text) = damaged {
            std::fs::write(&database, text).unwrap();
        }
        let refused = put_back(&backup, &place).await;
        assert!(
            matches!(refused, Err(BackupError::Exists(_))),
            "{refused:?}"
        );
        let aside = data.join(format!("aside-{}", damaged.is_some()));
        let restored = replace(&backup, &place, Some(&aside)).await.unwrap();
        assert_eq!(restored.aside.as_ref(), Some(&aside));
        let kept = std::fs::read_to_string(&aside).ok();
        assert_eq!(kept.as_deref(), damaged);
        if damaged.is_none() {
            assert_eq!(std::fs::read(data.join("aside-false-wal")).unwrap(), stale);
        }
        assert!(!log.exists());
        let store = place.open().await;
        assert_eq!(lease_ids(&store, 10).await, ["kept"]);
        store.close().await;
    }
}

//! Several nodes on one `PostgreSQL`.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::*;
use crate::store::lease::Lease;
use crate::store::writer::Change as _;

fn take(limit: usize) -> Lease {
    Lease {
        party: "arbo".to_owned(),
        test: false,
        limit,
        token: clock::new_id(),
        ttl_ms: 60_000,
        due: lease::Due::Any,
        reports: lease::Reports::Together,
    }
}

async fn begin(place: &TestPlace) -> Connection {
    let backend = Backend::new(&place.url(), BUSY, place.clock.clone());
    let mut connection = backend.writer().await.unwrap();
    connection.begin().await.unwrap();
    connection
}

async fn taken(connection: &mut Connection, limit: usize) -> Vec<String> {
    let lease = take(limit);
    let taken = tokio::time::timeout(SECONDS(5), lease.run(connection)).await;
    let rows = taken.expect("it waited for another node").unwrap().rows;
    rows.iter().map(|row| row.get("id").unwrap()).collect()
}

/// Holds both transactions open, so that the answer does not depend on luck.
#[tokio::test]
async fn what_another_node_is_leasing_is_stepped_over_with_its_case() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    let releases = [("r1", "a"), ("r2", "a"), ("r3", "b"), ("r4", "ab")];
    let releases = releases.map(|(id, cases)| to_arbo(id, cases));
    accept_releases(&store, "m", releases.into()).await;

    let mut here = begin(&place).await;
    assert_eq!(taken(&mut here, 1).await, ["r1"]);
    let mut there = begin(&place).await;
    assert_eq!(taken(&mut there, 10).await, ["r3"]);
    here.commit().await.unwrap();
    there.commit().await.unwrap();
    assert!(lease_ids(&store, 10).await.is_empty());
    ack_ids(&store, &["r1", "r3"]).await;
    assert_eq!(lease_ids(&store, 10).await, ["r2", "r4"]);
}

/// What another node leased between the look and the lock is not taken.
#[tokio::test]
async fn a_lease_that_commits_between_look_and_lock_counts() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    let releases = ["r1", "r2"].map(|id| to_arbo(id, "a"));
    accept_releases(&store, "m", releases.into()).await;
    let nodes = [place.open().await, place.open().await];
    for _ in 0..40 {
        let (one, other) = tokio::join!(lease_ids(&nodes[0], 1), lease_ids(&nodes[1], 1));
        let both = [one, other].concat();
        assert_eq!(both, ["r1"]);
        place.clock.advance(SECONDS(61));
    }
}

/// What receivers on all nodes saw and did.
#[derive(Default)]
struct Seen {
    /// Cases by release, in the order of the inbox.
    order: Vec<(String, HashSet<char>)>,
    /// Releases whose acknowledgement was at least on its way.
    done: HashSet<String>,
    times: HashMap<String, u32>,
}

impl Seen {
    /// Nothing came twice, and nothing before an earlier report of its case.
    fn check(&mut self, answer: &[String]) {
        let mut together = HashSet::new();
        for id in answer {
            *self.times.entry(id.clone()).or_default() += 1;
            assert_eq!(self.times[id], 1, "{id} was handed out twice");
            let at = self.order.iter().position(|(known, _)| known == id);
            let at = at.expect("it was accepted before it was handed out");
            for (earlier, cases) in &self.order[..at] {
                let is_shared = !cases.is_disjoint(&self.order[at].1);
                let is_behind = self.done.contains(earlier) || together.contains(earlier);
                assert!(!is_shared || is_behind, "{id} overtook {earlier}");
            }
            together.insert(id.clone());
        }
    }
}

/// Leases and acknowledges on one node until everything is done.
async fn receive(node: Store, seen: std::sync::Arc<Mutex<Seen>>, all: usize, nth: u64) {
    let mut limit = 1;
    while seen.lock().unwrap().done.len() < all {
        limit = limit % 7 + 1;
        let leased = node.lease(&party("arbo"), false, limit, SECONDS(60)).await;
        let leased = leased.unwrap();
        let ids: Vec<String> = leased.iter().map(|one| one.id.clone()).collect();
        seen.lock().unwrap().check(&ids);
        if ids.is_empty() {
            tokio::time::sleep(Duration::from_millis(nth + 1)).await;
        }
        // In two halves, the later one first: an early end must not free more.
        let (front, back) = ids.split_at(ids.len() / 2);
        for part in [back, front] {
            seen.lock().unwrap().done.extend(part.iter().cloned());
            let part: Vec<&str> = part.iter().map(String::as_str).collect();
            ack_ids(&node, &part).await;
        }
    }
}

/// Six receivers on two nodes at once, while both nodes accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_hand_out_each_release_once_and_in_order_per_case() {
    const RELEASES: usize = 300;
    let place = TestPlace::postgres().await;
    let nodes = [place.open().await, place.open().await];
    let seen = std::sync::Arc::new(Mutex::new(Seen::default()));
    let mut receivers = tokio::task::JoinSet::new();
    for nth in 0..6 {
        let node = nodes[usize::try_from(nth % 2).unwrap()].clone();
        receivers.spawn(receive(node, std::sync::Arc::clone(&seen), RELEASES, nth));
    }
    for n in 0..RELEASES {
        let id = format!("r{n:03}");
        let cases: String = ["a", "b", "ab", "bc", "", "c", "d"][n % 7].to_owned();
        let order = (id.clone(), cases.chars().collect());
        seen.lock().unwrap().order.push(order);
        accept_releases(&nodes[n % 2], &id, vec![to_arbo(&id, &cases)]).await;
    }
    while let Some(received) = tokio::time::timeout(SECONDS(60), receivers.join_next())
        .await
        .expect("something was never handed out")
    {
        received.unwrap();
    }
    assert_eq!(seen.lock().unwrap().times.len(), RELEASES);
}

#[tokio::test]
async fn a_receiver_on_one_node_wakes_for_what_another_accepts() {
    let place = TestPlace::postgres().await;
    let (here, there) = (place.open().await, place.open().await);
    let mut bell = there.watch(&party("arbo"), false);
    bell.mark_unchanged();
    accept_releases(&here, "m1", vec![to_arbo("r1", "a"), to_arbo("r2", "a")]).await;
    let woken = tokio::time::timeout(SECONDS(2), bell.changed()).await;
    woken.expect("not woken").unwrap();
    assert_eq!(lease_ids(&there, 1).await, ["r1"]);
    assert!(lease_ids(&there, 1).await.is_empty());
    // Finished on the other node: what was held back here is free.
    bell.mark_unchanged();
    ack_ids(&here, &["r1"]).await;
    let woken = tokio::time::timeout(SECONDS(2), bell.changed()).await;
    woken.expect("not woken").unwrap();
    assert_eq!(lease_ids(&there, 1).await, ["r2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_make_one_schema() {
    let place = TestPlace::postgres().await;
    let opening = (0..4).map(|_| {
        let (url, ring) = (place.url(), place.ring(MASTER));
        let clock = place.clock.clone();
        tokio::spawn(async move { Store::open(&url, &ring, clock).await })
    });
    let opening: Vec<_> = opening.collect();
    for one in opening {
        one.await.unwrap().unwrap();
    }
}

/// Two nodes decide on the same case and the same reference at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_decisions_on_two_nodes_one_is_written() {
    let place = TestPlace::postgres().await;
    let nodes = [place.open().await, place.open().await];
    for round in 0..20 {
        let attempt = |node: &Store, id: String| {
            let node = node.clone();
            let key = case_key("route", "person", &format!("case-{round}"));
            let mut one = acceptance(&id);
            one.ledger = vec![known(LedgerChange::Put(case_entry(key, 0, 1)))];
            tokio::spawn(async move { node.accept(one).await })
        };
        let one = attempt(&nodes[0], format!("m{round}-0"));
        let other = attempt(&nodes[1], format!("m{round}-1"));
        let verdicts = [one.await.unwrap(), other.await.unwrap()];
        let written = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
        assert_eq!(written, 1, "{verdicts:?}");
        let conflict = |v: &Result<(), AcceptError>| matches!(v, Err(AcceptError::Conflict));
        assert!(verdicts.iter().any(conflict), "{verdicts:?}");

        let again = |node: &Store| {
            let (node, one) = (node.clone(), acceptance(&format!("same-{round}")));
            tokio::spawn(async move { node.accept(one).await })
        };
        let verdicts = [
            again(&nodes[0]).await.unwrap(),
            again(&nodes[1]).await.unwrap(),
        ];
        let written = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
        assert_eq!(written, 1, "{verdicts:?}");
    }
}

/// Transactions that lock the same rows in another order wait for each other;
/// the loser is written again and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_between_nodes_is_nobodys_error() {
    let place = TestPlace::postgres().await;
    let store = place.open().await;
    accept_releases(&store, "m", vec![to_arbo("r1", "a"), to_arbo("r2", "b")]).await;
    assert_eq!(lease_ids(&store, 10).await.len(), 2);
    let mut stranger = begin(&place).await;
    lock(&mut stranger, "r2").await;
    let both = {
        let store = store.clone();
        tokio::spawn(async move { ack_ids(&store, &["r1", "r2"]).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Our writer holds r1 and waits for r2. Who loses is the server's choice.
    let crossed = query("SELECT id FROM delivery WHERE id = 'r1' FOR UPDATE");
    drop(crossed.fetch_all(&mut stranger).await);
    drop(stranger.close_hard().await);
    let acked = tokio::time::timeout(SECONDS(20), both).await.unwrap();
    assert_eq!(acked.unwrap().acknowledged, ["r1", "r2"]);
}

async fn lock(connection: &mut Connection, id: &str) {
    let lock = query("SELECT id FROM delivery WHERE id = $1 FOR UPDATE").bind(id);
    lock.fetch_one(connection).await.unwrap();
}

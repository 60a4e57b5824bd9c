//! The real daemon under load, killed at random and at every place around a
//! commit, on SQLite and as two nodes on PostgreSQL; and PostgreSQL itself cut
//! off and started again. What was answered with 202 is delivered as one
//! message: nothing is lost, nothing comes twice, and the reports of a case
//! keep their order.
//!
//! `SIVI_KILLS` sets the number of random kills per database.

#[path = "../binary/mod.rs"]
mod binary;
mod fleet;
mod load;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use binary::{Server, test_database};
use fleet::Fleet;
use load::Load;

/// Places around one transaction, as `store::failpoint` names them.
const PLACES: [&str; 4] = ["begun", "written", "committed", "answered"];
/// Deaths at each of them, per database.
const DEATHS: usize = 4;

fn kills() -> u32 {
    let asked = std::env::var("SIVI_KILLS").ok();
    asked.and_then(|kills| kills.parse().ok()).unwrap_or(40)
}

fn postgres(url: &str) -> String {
    format!("database.url = {url:?}")
}

fn random(below: u64) -> u64 {
    let random = uuid::Uuid::new_v4().as_u128() % u128::from(below);
    u64::try_from(random).unwrap()
}

/// Kills one node after another, anything from just started to well under way.
async fn kill_at_random(mut fleet: Fleet, nodes: usize, what: &str) {
    let load = Load::start(&fleet);
    for nth in 0..kills() {
        tokio::time::sleep(Duration::from_millis(random(500))).await;
        let node = usize::try_from(nth).unwrap() % nodes;
        tokio::task::block_in_place(|| fleet.kill(node));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.check(&fleet, what).await;
    fleet.stop();
}

async fn kill_at_every_place(mut fleet: Fleet, nodes: usize, what: &str) {
    let load = Load::start(&fleet);
    for nth in 0..DEATHS {
        let places = PLACES.map(|place| format!("{place}:{}", 3 + random(30)));
        tokio::task::block_in_place(|| fleet.kill_at(nth % nodes, &places));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.check(&fleet, what).await;
    fleet.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_on_sqlite_lose_and_double_nothing() {
    kill_at_random(Fleet::start("", 1), 1, "SQLite, at random").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_of_two_nodes_on_postgres_lose_and_double_nothing() {
    let settings = postgres(&test_database().await);
    let what = "two nodes on PostgreSQL, at random";
    kill_at_random(Fleet::start(&settings, 2), 2, what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_every_place_on_sqlite_lose_and_double_nothing() {
    kill_at_every_place(Fleet::start("", 1), 1, "SQLite, around commits").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_every_place_of_two_nodes_on_postgres_lose_and_double_nothing() {
    let settings = postgres(&test_database().await);
    let what = "two nodes on PostgreSQL, around commits";
    kill_at_every_place(Fleet::start(&settings, 2), 2, what).await;
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "not within 20 s: {what}");
}

/// The server goes as in a power cut, and comes back: senders are told to come
/// back meanwhile, and nobody has to start the gateway again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_and_comes_back_loses_and_doubles_nothing() {
    let server = tokio::task::block_in_place(Server::start);
    let settings = postgres(&server.database().await);
    let fleet = Fleet::start(&settings, 2);
    let load = Load::start(&fleet);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (told, accepted) = (load.unavailable(), load.accepted());
        tokio::task::block_in_place(|| server.cut());
        until("somebody is told to come back", || {
            load.unavailable() > told
        })
        .await;
        tokio::task::block_in_place(|| server.restart());
        until("it recovered by itself", || load.accepted() > accepted + 50).await;
    }
    load.check(&fleet, "PostgreSQL cut off three times").await;
    fleet.stop();
}

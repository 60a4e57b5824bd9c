//! The real daemon under load, killed at random and at every place around a
//! commit, on SQLite and as two nodes on PostgreSQL; and PostgreSQL itself cut
//! off and started again, and a disk that fills up. What was answered with 202 is delivered as one
//! message: nothing is lost, nothing comes twice, and the reports of a case
//! keep their order.
//!
//! Backups and restores are killed at each of their steps.
//!
//! `SIVI_KILLS` sets the number of random kills per database.

mod backups;
#[path = "../binary/mod.rs"]
mod binary;
mod fleet;
mod load;
#[expect(dead_code, reason = "the tests of pushing use the rest")]
#[path = "../push/receiver.rs"]
mod receiver;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use binary::{Installation, Server, test_database};
use fleet::Fleet;
use load::{Load, Seen};
use receiver::{Receiver, Reply};
use support::DIRECTORY;

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
async fn kill_at_random(fleet: Fleet, nodes: usize, what: &str) {
    let load = Load::start(&fleet);
    kill_under(fleet, load, nodes, kills(), what).await;
}

async fn kill_under(mut fleet: Fleet, load: Load, nodes: usize, kills: u32, what: &str) {
    for nth in 0..kills {
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

/// What is pushed when its node is killed comes again with the same id, and
/// what comes after it in its case waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_kills_of_two_nodes_that_push_lose_and_double_nothing() {
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    let receiver = Receiver::start(move |one| {
        noted.note(one.id(), &one.body);
        Reply::from(204)
    })
    .await;
    let installation = Installation::new(&postgres(&test_database().await));
    receiver.write_ca(installation.folder.path());
    installation.write("push.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let delivery = format!(
        "sender_ids = [\"ARBONOORD\"]\ndelivery = {{ mode = \"push\", \
         url = \"https://localhost:{}/in\", secret = \"file:push.secret\", \
         ca = \"file:receiver-ca.pem\", allow_private = [\"localhost\"], \
         timeout_seconds = 3, max_in_flight = 50 }}\n",
        receiver.port
    );
    let directory = DIRECTORY.replace("sender_ids = [\"ARBONOORD\"]\n", &delivery);
    let fleet = Fleet::in_place(installation, 2, &directory);
    let load = Load::sending(&fleet, seen);
    let what = "two nodes that push, at random";
    kill_under(fleet, load, 2, kills() / 2, what).await;
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

/// A full disk stops nobody but those who send: they are told to come back, and
/// what is there goes out. A node that dies meanwhile lost nothing either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_and_kills_meanwhile_lose_and_double_nothing() {
    let mut fleet = Fleet::bounded();
    let load = Load::start(&fleet);
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (told, accepted) = (load.unavailable(), load.accepted());
        fleet.fill_disk(0);
        until("somebody is told to come back", || {
            load.unavailable() > told
        })
        .await;
        if round % 2 == 0 {
            fleet.make_room(0);
        } else {
            tokio::task::block_in_place(|| fleet.kill(0));
        }
        until("it recovered by itself", || load.accepted() > accepted + 50).await;
    }
    load.check(&fleet, "SQLite, the disk full six times").await;
    fleet.stop();
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

//! From the sender's first byte to the receiver's last, over TLS on loopback;
//! `benches/push.sh` runs it.
//!
//! Messages are sent at a fixed rate, whether or not earlier ones arrived.
//! The second run has a receiver that takes 5 s to answer, and sends it as
//! many messages as the first one gets.

#[expect(dead_code, reason = "the bench uses a part of it")]
#[path = "../tests/push/receiver.rs"]
mod receiver;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use receiver::{Receiver, Reply};
use sivi_gateway::clock::Clock;
use support::{Absence, DIRECTORY, Gateway};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

const SECRET: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const SLOW: Duration = Duration::from_secs(5);

/// When each case was sent, and how long it took to arrive, by case.
type Times = Arc<Mutex<HashMap<String, Instant>>>;

fn number(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn delivery(id: &str, port: u16, ca: &str) -> (String, String) {
    let line = format!("sender_ids = [\"{id}\"]\n");
    let push = format!(
        "{line}delivery = {{ mode = \"push\", url = \"https://localhost:{port}/in\", \
         secret = \"file:push.secret\", ca = \"file:{ca}\", allow_private = [\"localhost\"] }}\n"
    );
    (line, push)
}

const CAFE: &str = r#"
[[tenant]]
id = "cafe"
name = "Cafe"
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2" }
employer_keys = [{ IdWrkgvrArbdnst = "106", AansltnrGeguitwlngArbdnst = "6432" }]

[[tenant.route]]
to = "arbo-zuid"
domain = "arbodienst"
from = 2018-01-01
"#;

struct Scene {
    gateway: Gateway,
    quick: Receiver,
    _slow: Receiver,
    sent: Times,
    took: Arc<Mutex<Vec<Duration>>>,
}

async fn scene() -> Scene {
    let sent: Times = Arc::default();
    let took: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (starts, times) = (Arc::clone(&sent), Arc::clone(&took));
    let quick = Receiver::start(move |seen| {
        let now = Instant::now();
        if let Some(start) = starts
            .lock()
            .expect("nobody panics")
            .remove(seen.text("VrzmgvlId"))
        {
            times.lock().expect("nobody panics").push(now - start);
        }
        204.into()
    });
    let quick = quick.await;
    let slow = Receiver::start(|_| {
        let (open, gate) = watch::channel(false);
        tokio::spawn(async move {
            tokio::time::sleep(SLOW).await;
            open.send_replace(true);
        });
        Reply::Hold(gate)
    });
    let slow = slow.await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a folder of ours");
    };
    write("push.secret", SECRET);
    write("quick.pem", &quick.ca);
    write("slow.pem", &slow.ca);
    let (line, push) = delivery("ARBONOORD", quick.port, "quick.pem");
    let directory = DIRECTORY.replace(&line, &push);
    let (line, push) = delivery("ARBOZUID", slow.port, "slow.pem");
    let directory = directory.replace(&line, &push) + CAFE;
    let gateway = Gateway::boot_in(folder, Clock::system(), &directory, "").await;
    Scene {
        gateway,
        quick,
        _slow: slow,
        sent,
        took,
    }
}

/// Sends for `time` at `rate` a second to the quick receiver, and as many to
/// the slow one if asked; gives the sorted times of the quick one.
async fn run(
    scene: &Scene,
    name: &str,
    rate: u64,
    time: Duration,
    slow_too: bool,
) -> Vec<Duration> {
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (started, mut count) = (Instant::now(), 0_usize);
    let before = scene.quick.seen().len();
    let mut posts = tokio::task::JoinSet::new();
    while started.elapsed() < time {
        tick.tick().await;
        let case = format!("VG-{name}-{count}");
        let absence = Absence::of(&format!("W-{name}-{count}"), &case);
        let request = scene.gateway.posting("adp", absence.xml());
        scene
            .sent
            .lock()
            .expect("nobody panics")
            .insert(case, Instant::now());
        posts.spawn(async move { request.send().await.expect("it answers").status() });
        if slow_too {
            let absence = Absence {
                employer: ("106", "6432"),
                receiver: "ARBOZUID",
                berrefnr: support::reference(),
                ..absence
            };
            let request = scene.gateway.posting("adp", absence.xml());
            posts.spawn(async move { request.send().await.expect("it answers").status() });
        }
        count += 1;
    }
    while let Some(status) = posts.join_next().await {
        assert_eq!(status.expect("it does not panic"), 202);
    }
    scene.quick.wait_for(before + count).await;
    let mut took = std::mem::take(&mut *scene.took.lock().expect("nobody panics"));
    took.sort_unstable();
    took
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[index].as_secs_f64() * 1000.0
}

fn main() {
    let (rate, time) = (number("RATE", 200), number("RUN_SECONDS", 20));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let scene = Box::pin(scene()).await;
        let time = Duration::from_secs(time);
        // Connections, statements and caches.
        run(&scene, "warm", rate, Duration::from_secs(2), false).await;
        let alone = run(&scene, "alone", rate, time, false).await;
        println!(
            "send to sink at {rate}/s       p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms ({} messages)",
            at(&alone, 50),
            at(&alone, 95),
            at(&alone, 99),
            alone.len()
        );
        let half = rate / 2;
        let calm = run(&scene, "calm", half, time, false).await;
        let beside = run(&scene, "beside", half, time, true).await;
        println!(
            "at {half}/s alone               p95 {:.1} ms",
            at(&calm, 95)
        );
        println!(
            "beside {half}/s to one of 5 s   p95 {:.1} ms: {:.2} times",
            at(&beside, 95),
            at(&beside, 95) / at(&calm, 95)
        );
        scene.gateway.kill().await;
    });
}

//! The real daemon, killed again and again under load: what it answered with
//! 202 is delivered as one message, nothing is lost, nothing comes twice, and
//! the reports of a case keep their order.

mod binary;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use binary::{Daemon, Installation};
use reqwest::Client;
use serde_json::{Value, json};
use support::{Absence, DIRECTORY};
use tokio::sync::watch;

const KILLS: u32 = 20;
const SENDERS: u32 = 8;
const RECEIVERS: u32 = 2;
/// Reports of one case before a sender begins another.
const REPORTS: u32 = 6;
/// All kills together, at most.
const LONGEST: Duration = Duration::from_secs(50);

/// Where the daemon listens now; `None` when the test is over.
type Address = watch::Receiver<Option<String>>;

#[derive(Default)]
struct Tally {
    accepted: AtomicU32,
    replayed: AtomicU32,
    broken: AtomicU32,
    handed_out: AtomicU32,
}

/// Sends reports of case after case; sends again what got no answer, until it
/// is known to be accepted. Gives the cases and how many reports of each.
async fn send(
    number: u32,
    client: Client,
    key: String,
    address: Address,
    tally: Arc<Tally>,
) -> BTreeMap<String, u32> {
    let mut sent = BTreeMap::new();
    for case_number in 0.. {
        let case = format!("VG-{number}-{case_number}");
        for report in 1..=REPORTS {
            let absence = Absence {
                number: report,
                action: if report == 1 { "01" } else { "02" },
                ..Absence::of(&format!("W-{number}-{case_number}"), &case)
            };
            let xml = absence.xml();
            loop {
                let Some(url) = address.borrow().clone() else {
                    return sent;
                };
                let request = client
                    .post(format!("{url}/v1/messages"))
                    .bearer_auth(&key)
                    .header("content-type", "application/xml")
                    .header("accept", "application/json")
                    .body(xml.clone());
                let Ok(response) = request.send().await else {
                    tally.broken.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                match response.status().as_u16() {
                    202 => tally.accepted.fetch_add(1, Ordering::Relaxed),
                    200 => tally.replayed.fetch_add(1, Ordering::Relaxed),
                    503 => continue,
                    other => panic!("{other}: {}", response.text().await.unwrap()),
                };
                sent.insert(case.clone(), report);
                break;
            }
        }
    }
    sent
}

/// `case/number` of a message.
fn name(xml: &str) -> (String, u32) {
    let text = |tag: &str| {
        let after = xml.split(&format!("<{tag}>")).nth(1).unwrap();
        after.split('<').next().unwrap().to_owned()
    };
    (text("VrzmgvlId"), text("VrzmgvlVnrMld").parse().unwrap())
}

/// One message, with its place among all first hand-outs.
#[derive(Clone)]
struct Seen {
    id: String,
    order: u32,
    case: String,
    number: u32,
}

/// Leases and acknowledges until nothing comes after the end. Short leases
/// and lost answers make it see messages again; it keeps every id once.
async fn receive(
    client: Client,
    key: String,
    mut address: Address,
    idle: bool,
    tally: Arc<Tally>,
) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut known = BTreeSet::new();
    loop {
        let Some(url) = address.borrow_and_update().clone() else {
            return seen;
        };
        let request = client
            .post(format!("{url}/v1/inbox/lease?limit=20&wait=1&ttl=10"))
            .bearer_auth(&key);
        let Ok(response) = request.send().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let Ok(answer) = response.json::<Value>().await else {
            continue;
        };
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() && idle {
            return seen;
        }
        let mut items = Vec::new();
        for message in &messages {
            let id = message["id"].as_str().unwrap().to_owned();
            items.push(json!({"id": id, "lease": message["lease"]}));
            let (case, number) = name(message["xml"].as_str().unwrap());
            if known.insert(id.clone()) {
                seen.push(Seen {
                    id,
                    order: tally.handed_out.fetch_add(1, Ordering::Relaxed),
                    case,
                    number,
                });
            }
        }
        let request = client
            .post(format!("{url}/v1/inbox/ack"))
            .bearer_auth(&key)
            .json(&json!({ "items": items }));
        // A lost answer is no matter: the messages come again, or do not.
        let _ = request.send().await;
    }
}

#[expect(clippy::too_many_lines, reason = "one story from start to end")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_by_kills_under_load() {
    let installation = Installation::new("");
    installation.write("directory.toml", DIRECTORY);
    installation.yes(&["apply", "directory.toml"]);
    let issue = |party: &str| {
        let key = installation.yes(&["key", "issue", "--party", party]);
        key.trim().to_owned()
    };
    let (sending_key, receiving_key) = (issue("adp"), issue("arbo-noord"));
    let mut daemon: Daemon = installation.serve();
    let (told, address) = watch::channel(Some(daemon.url.clone()));
    let (told_end, receiving) = watch::channel(Some(daemon.url.clone()));
    let tally = Arc::new(Tally::default());
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..SENDERS {
        let client = installation.client();
        let (key, tally) = (sending_key.clone(), Arc::clone(&tally));
        senders.spawn(send(number, client, key, address.clone(), tally));
    }
    let mut receivers = tokio::task::JoinSet::new();
    for _ in 0..RECEIVERS {
        let client = installation.client();
        receivers.spawn(receive(
            client,
            receiving_key.clone(),
            receiving.clone(),
            false,
            Arc::clone(&tally),
        ));
    }

    let started = Instant::now();
    let mut kills = 0;
    while kills < KILLS && started.elapsed() < LONGEST {
        // Anything from just started to well under way.
        let pause = uuid::Uuid::new_v4().as_u128() % 900;
        tokio::time::sleep(Duration::from_millis(u64::try_from(pause).unwrap())).await;
        tokio::task::block_in_place(|| {
            daemon.kill();
            daemon = installation.serve();
        });
        kills += 1;
        told.send_replace(Some(daemon.url.clone()));
        told_end.send_replace(Some(daemon.url.clone()));
    }
    // The senders end between two messages, so each knows what was accepted.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut sent = BTreeMap::new();
    told.send_replace(None);
    while let Some(done) = senders.join_next().await {
        sent.extend(done.unwrap());
    }
    // Leases of the killed run out after ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    told_end.send_replace(None);
    let mut seen = Vec::new();
    while let Some(done) = receivers.join_next().await {
        seen.extend(done.unwrap());
    }
    let (_still, last) = watch::channel(Some(daemon.url.clone()));
    seen.extend(
        receive(
            installation.client(),
            receiving_key,
            last,
            true,
            Arc::clone(&tally),
        )
        .await,
    );

    let accepted = tally.accepted.load(Ordering::Relaxed);
    let replayed = tally.replayed.load(Ordering::Relaxed);
    let mut by_id: BTreeMap<String, Seen> = BTreeMap::new();
    for one in seen {
        // Handed out to both, one after the other: the first time counts.
        let first = by_id.entry(one.id.clone()).or_insert_with(|| one.clone());
        first.order = first.order.min(one.order);
    }
    println!(
        "{kills} kills in {:.1} s: {accepted} messages answered 202, {replayed} answered 200 when \
         sent again, {} requests broken off, {} messages delivered",
        started.elapsed().as_secs_f64(),
        tally.broken.load(Ordering::Relaxed),
        by_id.len()
    );
    let mut cases: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
    for one in by_id.into_values() {
        let reports = cases.entry(one.case).or_default();
        reports.push((one.order, one.number));
    }
    for (case, reports) in &mut cases {
        reports.sort_unstable();
        let numbers: Vec<u32> = reports.iter().map(|(_, number)| *number).collect();
        // The last one may be durable although its sender never heard of it.
        let known = sent.get(case).copied().unwrap_or(0);
        let expected: Vec<u32> = (1..=known).collect();
        let with_last: Vec<u32> = (1..=known + 1).collect();
        assert!(
            numbers == expected || numbers == with_last,
            "{case}: {numbers:?}, accepted up to {known}"
        );
    }
    for (case, known) in &sent {
        assert!(cases.contains_key(case), "{case}: {known} reports lost");
    }
    assert!(kills >= KILLS, "only {kills} kills in the time");
    assert!(accepted > 100, "only {accepted} messages");
    daemon.stop();
}

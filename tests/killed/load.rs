//! Senders and receivers that go on whatever happens, and what must be true of
//! what they saw.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::support::Absence;

const SENDERS: u32 = 8;
const RECEIVERS: u32 = 3;
/// Reports of one case before a sender begins another.
const REPORTS: u32 = 6;

type Addresses = watch::Receiver<Vec<String>>;

/// What came in and went out, as senders and receivers know it.
#[derive(Default)]
pub struct Seen {
    /// Reports per case that were answered with 202 or 200.
    sent: Mutex<BTreeMap<String, u32>>,
    arrivals: Mutex<Arrivals>,
    accepted: AtomicU32,
    replayed: AtomicU32,
    unavailable: AtomicU32,
    broken: AtomicU32,
}

#[derive(Default)]
struct Arrivals {
    ids: HashSet<String>,
    /// Numbers of reports per case, in the order of their first arrival.
    cases: BTreeMap<String, Vec<u32>>,
}

impl Seen {
    /// A message arrived; it may not be the first time.
    pub fn note(&self, id: &str, xml: &str) {
        let text = |tag: &str| {
            let after = xml.split(&format!("<{tag}>")).nth(1).unwrap();
            after.split('<').next().unwrap().to_owned()
        };
        let mut arrivals = self.arrivals.lock().unwrap();
        if arrivals.ids.insert(id.to_owned()) {
            let numbers = arrivals.cases.entry(text("VrzmgvlId")).or_default();
            numbers.push(text("VrzmgvlVnrMld").parse().unwrap());
        }
    }

    /// Everything that was sent has arrived.
    fn is_complete(&self) -> bool {
        let arrivals = self.arrivals.lock().unwrap();
        let sent = self.sent.lock().unwrap();
        sent.iter().all(|(case, last)| {
            let arrived = arrivals.cases.get(case);
            arrived.is_some_and(|numbers| numbers.contains(last))
        })
    }
}

/// A load that runs.
pub struct Load {
    seen: Arc<Seen>,
    senders: JoinSet<()>,
    receivers: JoinSet<()>,
    stop_sending: CancellationToken,
    stop_receiving: CancellationToken,
    started: Instant,
}

impl Load {
    /// Sends, and polls for what comes out.
    pub fn start(fleet: &Fleet) -> Self {
        let load = Self::sending(fleet, Arc::default());
        load.with_receivers(fleet)
    }

    /// Sends alone: what comes out is noted by somebody else.
    pub fn sending(fleet: &Fleet, seen: Arc<Seen>) -> Self {
        let load = Self {
            seen,
            senders: JoinSet::new(),
            receivers: JoinSet::new(),
            stop_sending: CancellationToken::new(),
            stop_receiving: CancellationToken::new(),
            started: Instant::now(),
        };
        load.with_senders(fleet)
    }

    fn with_senders(mut self, fleet: &Fleet) -> Self {
        for number in 0..SENDERS {
            let sender = Worker {
                client: fleet.installation.client(),
                key: fleet.sending_key.clone(),
                addresses: fleet.addresses(),
                seen: Arc::clone(&self.seen),
                stop: self.stop_sending.clone(),
                turn: number as usize,
            };
            self.senders.spawn(sender.send(number));
        }
        self
    }

    fn with_receivers(mut self, fleet: &Fleet) -> Self {
        for number in 0..RECEIVERS {
            let receiver = Worker {
                client: fleet.installation.client(),
                key: fleet.receiving_key.clone(),
                addresses: fleet.addresses(),
                seen: Arc::clone(&self.seen),
                stop: self.stop_receiving.clone(),
                turn: number as usize,
            };
            self.receivers.spawn(receiver.receive());
        }
        self
    }

    /// How many messages were accepted so far.
    pub fn accepted(&self) -> u32 {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    /// How many times a sender was told to come back.
    pub fn unavailable(&self) -> u32 {
        self.seen.unavailable.load(Ordering::Relaxed)
    }

    /// Ends the load and holds what arrived against what was sent: every
    /// accepted report once, the reports of a case in order.
    pub async fn check(mut self, fleet: &Fleet, what: &str) {
        self.stop_sending.cancel();
        while let Some(sender) = self.senders.join_next().await {
            sender.unwrap();
        }
        // Leases that a killed node gave run out after ten seconds.
        let until = Instant::now() + Duration::from_secs(45);
        while !self.seen.is_complete() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.stop_receiving.cancel();
        while let Some(receiver) = self.receivers.join_next().await {
            receiver.unwrap();
        }
        let seen = &self.seen;
        let arrivals = seen.arrivals.lock().unwrap();
        let sent = seen.sent.lock().unwrap();
        println!(
            "{what}: {} kills in {:.1} s; {} messages answered 202, {} answered 200 when sent \
             again, {} told to come back, {} requests broken off, {} messages delivered",
            fleet.kills,
            self.started.elapsed().as_secs_f64(),
            seen.accepted.load(Ordering::Relaxed),
            seen.replayed.load(Ordering::Relaxed),
            seen.unavailable.load(Ordering::Relaxed),
            seen.broken.load(Ordering::Relaxed),
            arrivals.ids.len(),
        );
        for (case, known) in sent.iter() {
            let numbers = arrivals.cases.get(case).cloned().unwrap_or_default();
            // The last one may be durable although its sender never heard of it.
            let expected: Vec<u32> = (1..=*known).collect();
            let with_last: Vec<u32> = (1..=known + 1).collect();
            assert!(
                numbers == expected || numbers == with_last,
                "{case}: arrived {numbers:?}, accepted up to {known}"
            );
        }
        assert!(
            seen.accepted.load(Ordering::Relaxed) > 100,
            "too few messages for a test"
        );
    }
}

/// One sender or receiver.
struct Worker {
    client: Client,
    key: String,
    addresses: Addresses,
    seen: Arc<Seen>,
    stop: CancellationToken,
    turn: usize,
}

impl Worker {
    /// A request to the nodes in turn, so that a case meets all of them.
    fn post(&mut self, path: &str) -> RequestBuilder {
        self.turn += 1;
        let addresses = self.addresses.borrow();
        let url = format!("{}{path}", addresses[self.turn % addresses.len()]);
        self.client.post(url).bearer_auth(&self.key)
    }

    /// Sends reports of case after case; sends again what got no answer, until
    /// it is known to be accepted.
    async fn send(mut self, number: u32) {
        for case_number in 0.. {
            let case = format!("VG-{number}-{case_number}");
            for report in 1..=REPORTS {
                if self.stop.is_cancelled() {
                    return;
                }
                let absence = Absence {
                    number: report,
                    action: if report == 1 { "01" } else { "02" },
                    ..Absence::of(&format!("W-{number}-{case_number}"), &case)
                };
                self.send_until_accepted(absence.xml()).await;
                self.seen.sent.lock().unwrap().insert(case.clone(), report);
            }
        }
    }

    async fn send_until_accepted(&mut self, xml: String) {
        loop {
            let request = self
                .post("/v1/messages")
                .header("content-type", "application/xml")
                .header("accept", "application/json")
                .body(xml.clone());
            let Ok(response) = request.send().await else {
                self.seen.broken.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match response.status().as_u16() {
                202 => self.seen.accepted.fetch_add(1, Ordering::Relaxed),
                200 => self.seen.replayed.fetch_add(1, Ordering::Relaxed),
                503 => {
                    assert!(response.headers().contains_key("retry-after"));
                    self.seen.unavailable.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                other => panic!("{other}: {}", response.text().await.unwrap_or_default()),
            };
            return;
        }
    }

    /// Leases and acknowledges. Short leases and lost answers make it see
    /// messages again; it keeps every id once.
    async fn receive(mut self) {
        while !self.stop.is_cancelled() {
            let request = self.post("/v1/inbox/lease?limit=20&wait=1&ttl=10");
            let Ok(response) = request.send().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let Ok(answer) = response.json::<Value>().await else {
                continue;
            };
            let messages = answer["messages"].as_array().cloned().unwrap_or_default();
            let mut items = Vec::new();
            for message in &messages {
                items.push(json!({"id": message["id"], "lease": message["lease"]}));
                let (id, xml) = (message["id"].as_str(), message["xml"].as_str());
                self.seen.note(id.unwrap(), xml.unwrap());
            }
            if items.is_empty() {
                continue;
            }
            let request = self.post("/v1/inbox/ack").json(&json!({ "items": items }));
            // A lost answer is no matter: the messages come again, or do not.
            drop(request.send().await);
        }
    }
}

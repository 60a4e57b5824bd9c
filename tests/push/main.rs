//! Pushing, from the sender's 202 to a receiver with TLS on loopback. Time is
//! moved by hand.

mod receiver;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use receiver::{Receiver, Reply, Seen};
use serde_json::{Value, json};
use sivi_gateway::clock::Clock;
use sivi_gateway::domain::PartyId;
use sivi_gateway::store::{PushReceiver, PushState};
use support::{Absence, DIRECTORY, Gateway, START};
use tempfile::TempDir;
use tokio::sync::watch;

const SECRET: [u8; 32] = [7; 32];
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn whsec() -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(SECRET))
}

/// The directory of the other tests, with a receiver that is pushed to.
fn directory(port: u16, more: &str) -> String {
    let delivery = format!(
        "sender_ids = [\"ARBONOORD\"]\ndelivery = {{ mode = \"push\", url = \"https://localhost:{port}/in\", \
         secret = \"file:push.secret\", ca = \"file:receiver-ca.pem\"{more} }}\n"
    );
    DIRECTORY.replace("sender_ids = [\"ARBONOORD\"]\n", &delivery)
}

const LOCAL: &str = ", allow_private = [\"localhost\"]";

/// A folder with the key and the authority of a receiver.
fn folder_for(receiver: &Receiver) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("push.secret"), whsec() + "\n").unwrap();
    receiver.write_ca(folder.path());
    folder
}

fn start() -> Clock {
    Clock::manual(START.parse().unwrap())
}

async fn boot(receiver: &Receiver, more: &str) -> Gateway {
    let directory = directory(receiver.port, &format!("{LOCAL}{more}"));
    Box::pin(Gateway::boot_in(
        folder_for(receiver),
        start(),
        &directory,
        "",
    ))
    .await
}

fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

async fn receiver_of(gateway: &Gateway, id: &str) -> PushReceiver {
    let store = &gateway.base.store;
    store.push_receiver(&party(id), false).await.unwrap()
}

/// Waits until what is read fulfils a condition.
async fn until<T, F: Future<Output = T>>(read: impl Fn() -> F, is_so: impl Fn(&T) -> bool) -> T {
    for _ in 0..2000 {
        let found = read().await;
        if is_so(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never became so");
}

async fn until_failed(gateway: &Gateway, failures: u32) -> PushReceiver {
    let read = || receiver_of(gateway, "arbo-noord");
    until(read, |found| found.failures == failures).await
}

/// The steps of the only delivery of a message, as its sender sees them.
async fn until_state(gateway: &Gateway, receipt: &Value, state: &str) -> Value {
    let read = || gateway.status("adp", receipt);
    until(read, |status| status["deliveries"][0]["state"] == state).await
}

async fn metrics(gateway: &Gateway) -> String {
    let request = gateway.client.get(format!("{}/metrics", gateway.admin));
    request.send().await.unwrap().text().await.unwrap()
}

/// What the gauge of paused receivers shows of `arbo-noord`: production and
/// test traffic.
async fn paused(gateway: &Gateway) -> Vec<String> {
    let page = metrics(gateway).await;
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("sivi_push_paused{party=\"arbo-noord\",test=\"")?;
        Some(rest.split_once("} ")?.1.to_owned())
    });
    lines.collect()
}

fn signed(seen: &Seen) -> Vec<u8> {
    let timestamp = &seen.headers["webhook-timestamp"];
    format!("{}.{timestamp}.{}", seen.id(), seen.body).into_bytes()
}

fn signature(text: &str, version: &str) -> Vec<u8> {
    let base64 = text.strip_prefix(version).unwrap();
    BASE64_STANDARD.decode(base64).unwrap()
}

#[tokio::test]
async fn a_release_is_pushed_and_signed_by_both_keys() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let seed = [9; 32];
    let folder = folder_for(&receiver);
    let private = format!("whsk_{}", BASE64_STANDARD.encode(seed));
    std::fs::write(folder.path().join("new.secret"), private).unwrap();
    let directory = directory(receiver.port, LOCAL).replace(
        "secret = \"file:push.secret\"",
        "secret = \"file:new.secret\", previous_secret = \"file:push.secret\"",
    );
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    let seen = receiver.wait_for(1).await.remove(0);

    let header = &seen.headers["webhook-signature"];
    let (new, previous) = header.split_once(' ').unwrap();
    let public = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, public.public_key().as_ref().to_vec());
    public
        .verify(&signed(&seen), &signature(new, "v1a,"))
        .unwrap();
    let shared = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    hmac::verify(&shared, &signed(&seen), &signature(previous, "v1,")).unwrap();
    let now = gateway.clock.now().as_second().to_string();
    assert_eq!(seen.headers["webhook-timestamp"], now);

    assert_eq!(seen.path, "/in");
    assert_eq!(
        seen.headers["content-type"],
        "application/xml; charset=utf-8"
    );
    assert_eq!(seen.headers["message-type"], "Verzuimmeldingen");
    assert_eq!(seen.headers["message-tenant"], "bakkerij");
    assert_eq!(seen.headers["message-test"], "false");
    assert_eq!(seen.headers["message-attempt"], "1");
    assert_eq!(seen.text("IdOntvngr"), "ARBONOORD");
    let status = until_state(&gateway, &receipt, "taken_over").await;
    let steps = status["steps"].as_array().unwrap();
    let steps: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["step"].as_str())
        .collect();
    assert!(
        steps.ends_with(&["offered", "leased", "taken_over"]),
        "{steps:?}"
    );
    // The receiver may read again what it was sent, by the same id.
    let again = gateway
        .get("arbo-noord", &format!("/v1/inbox/{}", seen.id()))
        .await;
    assert_eq!(again.text().await.unwrap(), seen.body);
    gateway.stop().await;
    receiver.assert_no_more_than(1).await;
}

#[tokio::test]
async fn test_traffic_is_pushed_as_such() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let gateway = boot(&receiver, "").await;
    let test = Absence {
        test: "J",
        ..Absence::default()
    };
    gateway.accept("adp", test.xml()).await;
    let seen = receiver.wait_for(1).await.remove(0);
    assert_eq!(seen.headers["message-test"], "true");
    assert_eq!(seen.text("TestJN"), "J");
    gateway.stop().await;
}

#[tokio::test]
async fn a_failing_receiver_is_probed_with_one_message_and_gets_all() {
    let failing = Arc::new(AtomicUsize::new(3));
    let script = Arc::clone(&failing);
    let receiver = Receiver::start(move |_| {
        let left = script.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() { 503.into() } else { 200.into() }
    })
    .await;
    // One at a time, so that the first failure is the only one.
    let gateway = boot(&receiver, ", max_in_flight = 1").await;
    let mut receipts = Vec::new();
    for n in 0..4 {
        let absence = Absence::of(&format!("W-{n}"), &format!("VG-{n}"));
        receipts.push(gateway.accept("adp", absence.xml()).await);
    }
    let paused = until_failed(&gateway, 1).await;
    assert_eq!(paused.reason.as_deref(), Some("status_503"));
    let PushState::PausedUntil(first) = paused.state else {
        panic!("{paused:?}");
    };
    let wait = Duration::try_from(first.duration_since(gateway.clock.now())).unwrap();
    assert!((5..=6).contains(&wait.as_secs()), "{wait:?}");
    gateway.clock.advance(SECONDS(4));
    receiver.assert_no_more_than(1).await;

    gateway.clock.advance(SECONDS(3));
    until_failed(&gateway, 2).await;
    receiver.assert_no_more_than(2).await;
    gateway.clock.advance(SECONDS(19));
    until_failed(&gateway, 3).await;
    receiver.assert_no_more_than(3).await;
    gateway.clock.advance(SECONDS(73));
    let seen = receiver.wait_for(7).await;
    for receipt in &receipts {
        until_state(&gateway, receipt, "taken_over").await;
    }
    assert_eq!(
        receiver_of(&gateway, "arbo-noord").await.state,
        PushState::Works
    );
    // Two of the four were probes: no message was tried more than three times.
    let mut times: HashMap<&str, usize> = HashMap::new();
    for one in &seen {
        *times.entry(one.id()).or_default() += 1;
    }
    assert_eq!(times.len(), 4);
    assert!(times.values().all(|count| *count <= 3), "{times:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_receiver_says_when_it_wants_to_be_asked_again() {
    let first = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Status(429, vec![("retry-after", "120".to_owned())]),
        1 => Reply::Status(
            503,
            vec![("retry-after", "Sun, 22 Nov 2026 10:00:00 GMT".to_owned())],
        ),
        _ => 202.into(),
    })
    .await;
    let gateway = boot(&receiver, "").await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    until_failed(&gateway, 1).await;
    gateway.clock.advance(SECONDS(119));
    receiver.assert_no_more_than(1).await;
    gateway.clock.advance(SECONDS(1));
    // By date: the tests begin at nine o'clock.
    let paused = until_failed(&gateway, 2).await;
    let ten = "2026-11-22T10:00:00Z".parse().unwrap();
    assert_eq!(paused.state, PushState::PausedUntil(ten));
    gateway.clock.advance(SECONDS(3600));
    receiver.wait_for(3).await;
    until_state(&gateway, &receipt, "taken_over").await;
    gateway.stop().await;
}

#[tokio::test]
async fn gone_stops_the_route_until_a_person_resumes_it() {
    let first = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => 410.into(),
        _ => 200.into(),
    })
    .await;
    let gateway = boot(&receiver, "").await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    let read = || receiver_of(&gateway, "arbo-noord");
    let stopped = until(read, |found| found.state == PushState::Stopped).await;
    assert_eq!(stopped.reason.as_deref(), Some("status_410"));
    let second = Absence::of("W-2", "VG-2").xml();
    gateway.accept("adp", second).await;
    for _ in 0..5 {
        gateway.clock.advance(Duration::from_hours(24));
    }
    receiver.assert_no_more_than(1).await;
    // Another process resumes it; the daemon sees that within five seconds.
    let arbo = party("arbo-noord");
    let resumed = gateway.base.store.resume_push(&arbo, false).await;
    assert_eq!(resumed, Ok(true));
    receiver.wait_for(3).await;
    until_state(&gateway, &receipt, "taken_over").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let receiver = Receiver::start(|seen| match seen.path.as_str() {
        "/in" => Reply::Status(307, vec![("location", "/elsewhere".to_owned())]),
        _ => 200.into(),
    })
    .await;
    let gateway = boot(&receiver, "").await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    let failed = until_failed(&gateway, 1).await;
    assert_eq!(failed.reason.as_deref(), Some("status_307"));
    receiver.assert_no_more_than(1).await;
    until_state(&gateway, &receipt, "offered").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_has_failed() {
    let (_open, gate) = watch::channel(false);
    let receiver = Receiver::start(move |_| Reply::Hold(gate.clone())).await;
    let gateway = boot(&receiver, ", timeout_seconds = 1").await;
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    receiver.wait_for(1).await;
    let failed = until_failed(&gateway, 1).await;
    assert_eq!(failed.reason.as_deref(), Some("timed_out"));
    // Sooner than its lease ran out: the gateway's clock never moved.
    until_state(&gateway, &receipt, "offered").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_private_address_is_refused_unless_its_name_is_allowed() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let folder = folder_for(&receiver);
    let allowed = ", allow_private = [\"arbo.example\"]";
    let directory = directory(receiver.port, allowed);
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    gateway.accept("adp", Absence::default().xml()).await;
    let failed = until_failed(&gateway, 1).await;
    assert_eq!(failed.reason.as_deref(), Some("private_address"));
    receiver.assert_no_more_than(0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let stranger = Receiver::start(|_| 200.into()).await;
    let folder = folder_for(&receiver);
    stranger.write_ca(folder.path());
    let directory = directory(receiver.port, LOCAL);
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    gateway.accept("adp", Absence::default().xml()).await;
    let failed = until_failed(&gateway, 1).await;
    assert_eq!(failed.reason.as_deref(), Some("unreachable"));
    receiver.assert_no_more_than(0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_gateway_shows_its_client_certificate() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let folder = folder_for(&receiver);
    std::fs::write(folder.path().join("client.pem"), &receiver.client.0).unwrap();
    std::fs::write(folder.path().join("client.key"), &receiver.client.1).unwrap();
    let more =
        format!("{LOCAL}, client_cert = \"file:client.pem\", client_key = \"file:client.key\"");
    let directory = directory(receiver.port, &more);
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    gateway.accept("adp", Absence::default().xml()).await;
    let seen = receiver.wait_for(1).await.remove(0);
    let shown = BASE64_STANDARD.encode(seen.client.expect("a certificate was shown"));
    let pem: String = receiver
        .client
        .0
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    assert_eq!(shown, pem);
    gateway.stop().await;
}

/// Case and number of a report.
fn report(seen: &Seen) -> (String, u32) {
    let number = seen.text("VrzmgvlVnrMld").parse().unwrap();
    (seen.text("VrzmgvlId").to_owned(), number)
}

#[tokio::test]
async fn reports_of_a_case_arrive_in_order_whatever_fails() {
    const CASES: u32 = 4;
    const REPORTS: u32 = 5;
    let taken: Arc<Mutex<Vec<(String, u32)>>> = Arc::default();
    let (noted, count) = (Arc::clone(&taken), AtomicUsize::new(0));
    let receiver = Receiver::start(move |seen| {
        let answer = match count.fetch_add(1, Ordering::SeqCst) % 7 {
            1 => 503,
            3 => 422,
            5 => 302,
            _ => 200,
        };
        if answer == 200 {
            noted.lock().unwrap().push(report(seen));
        }
        answer.into()
    })
    .await;
    let gateway = boot(&receiver, "").await;
    for number in 1..=REPORTS {
        for case in 0..CASES {
            let absence = Absence {
                number,
                action: if number == 1 { "01" } else { "02" },
                ..Absence::of(&format!("W-{case}"), &format!("VG-{case}"))
            };
            gateway.accept("adp", absence.xml()).await;
        }
    }
    let all = (CASES * REPORTS) as usize;
    let mut steps = 0;
    let distinct = || taken.lock().unwrap().iter().collect::<HashSet<_>>().len();
    while distinct() < all {
        gateway.clock.advance(SECONDS(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
        steps += 1;
        assert!(steps < 1000, "{:?}", taken.lock().unwrap());
    }
    let taken = taken.lock().unwrap().clone();
    let mut last: HashMap<String, u32> = HashMap::new();
    for (case, number) in &taken {
        let before = last.insert(case.clone(), *number).unwrap_or(0);
        // At least once: the clock runs ahead of the leases here.
        let is_next = *number == before + 1 || *number == before;
        assert!(is_next, "{case} in {taken:?}");
    }
    gateway.stop().await;
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

#[tokio::test]
async fn a_slow_receiver_keeps_nothing_from_another() {
    const MESSAGES: usize = 12;
    let (open, gate) = watch::channel(false);
    let slow = Receiver::start(move |_| Reply::Hold(gate.clone())).await;
    let quick = Receiver::start(|_| 200.into()).await;
    let folder = folder_for(&slow);
    std::fs::write(folder.path().join("quick-ca.pem"), &quick.ca).unwrap();
    let delivery = format!(
        "sender_ids = [\"ARBOZUID\"]\ndelivery = {{ mode = \"push\", url = \"https://localhost:{}/zuid\", \
         secret = \"file:push.secret\", ca = \"file:quick-ca.pem\"{LOCAL} }}\n",
        quick.port
    );
    let directory = directory(slow.port, &format!("{LOCAL}, max_in_flight = 2"))
        .replace("sender_ids = [\"ARBOZUID\"]\n", &delivery)
        + CAFE;
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    for n in 0..MESSAGES {
        let to_slow = Absence::of(&format!("W-{n}"), &format!("VG-{n}"));
        let to_quick = Absence {
            employer: ("106", "6432"),
            receiver: "ARBOZUID",
            ..to_slow.clone()
        };
        let to_quick = Absence {
            berrefnr: support::reference(),
            ..to_quick
        };
        gateway.accept("adp", to_slow.xml()).await;
        gateway.accept("adp", to_quick.xml()).await;
    }
    quick.wait_for(MESSAGES).await;
    // All of that while the slow one held what it may hold, and no more.
    slow.assert_no_more_than(2).await;
    open.send_replace(true);
    slow.wait_for(MESSAGES).await;
    gateway.stop().await;
}

#[tokio::test]
async fn killed_before_it_is_settled_it_comes_again_with_the_same_id() {
    let (open, gate) = watch::channel(false);
    let receiver = Receiver::start(move |_| Reply::Hold(gate.clone())).await;
    let gateway = boot(&receiver, "").await;
    let clock = gateway.clock.clone();
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    let first = receiver.wait_for(1).await.remove(0);
    let folder = gateway.kill().await;
    open.send_replace(true);

    let gateway = Box::pin(Gateway::boot_in(folder, clock, "", "")).await;
    gateway.clock.advance(SECONDS(29));
    receiver.assert_no_more_than(1).await;
    gateway.clock.advance(SECONDS(1));
    let second = receiver.wait_for(2).await.remove(1);
    assert_eq!(second.id(), first.id());
    assert_eq!(second.body, first.body);
    assert_eq!(second.headers["message-attempt"], "2");
    until_state(&gateway, &receipt, "taken_over").await;
    // Counted as polling is.
    let page = metrics(&gateway).await;
    for line in [
        "sivi_lease_expiries_total{party=\"arbo-noord\",mode=\"push\"} 1",
        "sivi_takeover_seconds_count{domain=\"arbodienst\",mode=\"push\"} 1",
        "sivi_takeover_seconds_sum{domain=\"arbodienst\",mode=\"push\"} 30",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    gateway.stop().await;
    receiver.assert_no_more_than(2).await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_on_its_way() {
    let (open, gate) = watch::channel(false);
    let receiver = Receiver::start(move |_| Reply::Hold(gate.clone())).await;
    let gateway = boot(&receiver, "").await;
    let clock = gateway.clock.clone();
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    receiver.wait_for(1).await;
    gateway.begin_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    open.send_replace(true);
    let folder = gateway.stop().await;
    let gateway = Box::pin(Gateway::boot_in(folder, clock, "", "")).await;
    until_state(&gateway, &receipt, "taken_over").await;
    receiver.assert_no_more_than(1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_gives_back_what_takes_too_long() {
    let (_open, gate) = watch::channel(false);
    let receiver = Receiver::start(move |_| Reply::Hold(gate.clone())).await;
    let folder = folder_for(&receiver);
    let directory = directory(receiver.port, LOCAL);
    let settings = "limits.stop_seconds = 0\n";
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, settings)).await;
    let clock = gateway.clock.clone();
    gateway.accept("adp", Absence::default().xml()).await;
    receiver.wait_for(1).await;
    let folder = gateway.stop().await;
    // Time stood still, so its lease would hold on for half a minute.
    let gateway = Box::pin(Gateway::boot_in(folder, clock, "", settings)).await;
    receiver.wait_for(2).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_receiver_cannot_read_is_a_dead_letter_after_an_hour() {
    let receiver = Receiver::start(|seen| match seen.text("VrzmgvlId") {
        "VG-bad" => 422.into(),
        _ => 200.into(),
    })
    .await;
    let gateway = boot(&receiver, "").await;
    let bad = gateway
        .accept("adp", Absence::of("W-1", "VG-bad").xml())
        .await;
    receiver.wait_for(1).await;
    for attempt in 2..=5 {
        // It holds up nobody else.
        let other = Absence::of(&format!("W-{attempt}"), &format!("VG-{attempt}"));
        let other = gateway.accept("adp", other.xml()).await;
        until_state(&gateway, &other, "taken_over").await;
        until_state(&gateway, &bad, "offered").await;
        gateway.clock.advance(Duration::from_mins(49));
        let count = |seen: &[Seen]| seen.iter().filter(|one| report(one).0 == "VG-bad").count();
        let read = async || count(&receiver.seen());
        until(read, |count| *count == attempt).await;
    }
    until_state(&gateway, &bad, "dead").await;
    let state = receiver_of(&gateway, "arbo-noord").await;
    assert_eq!((state.state, state.failures), (PushState::Works, 0));
    gateway.clock.advance(Duration::from_hours(24));
    receiver.assert_no_more_than(9).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_for_days_loses_one_message_at_most() {
    let receiver = Receiver::start(|_| 500.into()).await;
    let gateway = boot(&receiver, ", max_in_flight = 1").await;
    let first = gateway
        .accept("adp", Absence::of("W-1", "VG-1").xml())
        .await;
    let began = gateway.clock.now();
    let mut failures = 0;
    let mut state = Value::Null;
    while state != "dead" {
        failures += 1;
        until_failed(&gateway, failures).await;
        let status = gateway.status("adp", &first).await;
        state = status["deliveries"][0]["state"].clone();
        gateway.clock.advance(SECONDS(4400));
        assert!(failures < 200, "it never ends");
    }
    let tried_for = gateway.clock.now().duration_since(began);
    assert!(tried_for.as_hours() >= 72, "{tried_for}");
    // The next one has its own 72 hours.
    let second = gateway
        .accept("adp", Absence::of("W-2", "VG-2").xml())
        .await;
    receiver.wait_for(failures as usize + 1).await;
    until_failed(&gateway, failures + 1).await;
    until_state(&gateway, &second, "offered").await;
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_is_claimed_while_the_key_is_missing() {
    let receiver = Receiver::start(|_| 200.into()).await;
    let folder = folder_for(&receiver);
    let secret = folder.path().join("push.secret");
    std::fs::remove_file(&secret).unwrap();
    let directory = directory(receiver.port, LOCAL);
    let gateway = Box::pin(Gateway::boot_in(folder, start(), &directory, "")).await;
    let setup = gateway.base.setup().await.unwrap();
    let faults = sivi_gateway::app::push_faults(&setup);
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].starts_with("party arbo-noord: delivery.secret: the file cannot be read"),
        "{faults:?}"
    );
    let receipt = gateway.accept("adp", Absence::default().xml()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    until_state(&gateway, &receipt, "offered").await;
    assert_eq!(receiver_of(&gateway, "arbo-noord").await.failures, 0);
    assert_eq!(paused(&gateway).await, ["1", "1"]);
    std::fs::write(secret, whsec()).unwrap();
    assert_eq!(sivi_gateway::app::push_faults(&setup), [""; 0]);
    receiver.wait_for(1).await;
    until_state(&gateway, &receipt, "taken_over").await;
    until(|| paused(&gateway), |lines| lines == &["0", "0"]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn who_changes_from_push_to_poll_and_back_loses_nothing() {
    let first = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => 503.into(),
        _ => 200.into(),
    })
    .await;
    let gateway = boot(&receiver, "").await;
    gateway
        .accept("adp", Absence::of("W-1", "VG-1").xml())
        .await;
    until_failed(&gateway, 1).await;
    assert_eq!(paused(&gateway).await, ["1", "0"]);
    // It may also fetch what it could not be sent.
    let leased = gateway.lease("arbo-noord").await;
    assert_eq!(leased.len(), 1);
    let body = json!({ "lease": leased[0]["lease"], "ttl": 900 });
    let path = format!("/v1/inbox/{}/extend", leased[0]["id"].as_str().unwrap());
    assert_eq!(
        gateway.post_json("arbo-noord", &path, body).await.status(),
        200
    );

    gateway.apply(DIRECTORY).await;
    // Nobody pushes to it, so nothing of it is paused.
    until(|| paused(&gateway), Vec::is_empty).await;
    gateway.clock.advance(Duration::from_hours(1));
    gateway
        .accept("adp", Absence::of("W-2", "VG-2").xml())
        .await;
    receiver.assert_no_more_than(1).await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 2);

    gateway
        .accept("adp", Absence::of("W-3", "VG-3").xml())
        .await;
    gateway.apply(&directory(receiver.port, LOCAL)).await;
    let seen = receiver.wait_for(2).await;
    assert_eq!(report(&seen[1]).0, "VG-3");
    gateway.stop().await;
}

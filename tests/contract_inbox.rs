//! The contract of `/v1/inbox`, over real TLS.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Absence, DIRECTORY, Gateway, problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LEASE: &str = "/v1/inbox/lease";
const ACK: &str = "/v1/inbox/ack";

fn report(case: &str, number: u32) -> String {
    let action = if number == 1 { "01" } else { "02" };
    let absence = Absence {
        action,
        number,
        ..Absence::of(&format!("W-{case}"), case)
    };
    absence.xml()
}

/// `case/number` of a message.
fn name(message: &Value) -> String {
    let xml = message["xml"].as_str().unwrap();
    let text = |tag: &str| {
        let after = xml.split(&format!("<{tag}>")).nth(1).unwrap();
        after.split('<').next().unwrap().to_owned()
    };
    format!("{}/{}", text("VrzmgvlId"), text("VrzmgvlVnrMld"))
}

fn names(messages: &[Value]) -> Vec<String> {
    messages.iter().map(name).collect()
}

fn text<'v>(message: &'v Value, key: &str) -> &'v str {
    message[key].as_str().unwrap()
}

async fn ack(gateway: &Gateway, party: &str, body: Value) -> Value {
    let response = gateway.post_json(party, ACK, body).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_outside_their_bounds_are_refused() {
    let gateway = Gateway::boot().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "wait=61",
        "wait=-1",
        "ttl=9",
        "ttl=901",
        "test=perhaps",
        "limit=99999999999999999999999",
    ] {
        let response = gateway
            .post_json("arbo-noord", &format!("{LEASE}?{query}"), json!({}))
            .await;
        problem(response, 400).await;
    }
    for query in [
        "limit=1",
        "limit=1000",
        "wait=0",
        "ttl=10",
        "ttl=900",
        "test=false",
        "",
    ] {
        assert!(gateway.lease_with("arbo-noord", query).await.is_empty());
    }
    for query in ["limit=0", "limit=1001", "after=x"] {
        let path = format!("/v1/inbox/feed?{query}");
        problem(gateway.get("arbo-noord", &path).await, 400).await;
    }
    // No body at all is needed to lease.
    let bare = gateway
        .client
        .post(format!("{}{LEASE}", gateway.url))
        .bearer_auth(&gateway.keys["arbo-noord"]);
    let answer: Value = bare.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({ "messages": [] }));
    for body in [json!({"id": "x"}), json!({"ids": "x"}), json!([])] {
        problem(gateway.post_json("arbo-noord", ACK, body).await, 400).await;
    }
    for path in ["/v1/inbox/x/reject", "/v1/inbox/x/extend"] {
        let response = gateway.post_json("arbo-noord", path, json!({})).await;
        problem(response, 400).await;
    }
    let nobody = gateway.client.post(format!("{}{LEASE}", gateway.url));
    problem(nobody.send().await.unwrap(), 401).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_message_has_every_field_and_is_hidden() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", report("VG-1", 1)).await;
    let leased = gateway.lease_with("arbo-noord", "ttl=30").await;
    let mut keys: Vec<&String> = leased[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "attempt",
            "edition",
            "id",
            "lease",
            "lease_until",
            "message_type",
            "received_at",
            "sequence",
            "tenant",
            "test",
            "xml"
        ]
    );
    assert_eq!(leased[0]["attempt"], 1);
    assert_eq!(leased[0]["tenant"], "bakkerij");
    assert_eq!(leased[0]["test"], false);
    assert_eq!(leased[0]["received_at"], support::START);
    assert_eq!(leased[0]["lease_until"], "2026-11-22T09:00:30Z");
    assert!(leased[0]["sequence"].is_i64());
    assert!(gateway.lease("arbo-noord").await.is_empty());
    assert!(gateway.lease("arbo-zuid").await.is_empty());
    gateway.clock.advance(Duration::from_secs(29));
    assert!(gateway.lease("arbo-noord").await.is_empty());
    gateway.clock.advance(Duration::from_secs(2));
    let again = gateway.lease("arbo-noord").await;
    assert_eq!(again[0]["attempt"], 2);
    assert_eq!(again[0]["id"], leased[0]["id"]);
    assert_ne!(again[0]["lease"], leased[0]["lease"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_traffic_is_an_inbox_of_its_own() {
    let gateway = Gateway::boot().await;
    let trial = Absence {
        test: "J",
        ..Absence::default()
    };
    gateway.accept("adp", trial.xml()).await;
    assert!(gateway.lease("arbo-noord").await.is_empty());
    let leased = gateway.lease_with("arbo-noord", "test=true").await;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0]["test"], true);
    assert!(text(&leased[0], "xml").contains("<TestJN>J</TestJN>"));
    gateway.accept("adp", report("VG-9", 1)).await;
    gateway.clock.advance(Duration::from_secs(100));
    assert_eq!(names(&gateway.lease("arbo-noord").await), ["VG-9/1"]);
    let leased = gateway.lease_with("arbo-noord", "test=true").await;
    assert_eq!(names(&leased), ["VG-1/1"]);
    let feed: Value = gateway
        .get("arbo-noord", "/v1/inbox/feed?test=true")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(names(feed["messages"].as_array().unwrap()), ["VG-1/1"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_xml_comes_one_at_a_time() {
    let gateway = Gateway::boot().await;
    let raw = async |query: &str| {
        gateway
            .client
            .post(format!("{}{LEASE}?{query}", gateway.url))
            .bearer_auth(&gateway.keys["arbo-noord"])
            .header("accept", "application/xml")
            .send()
            .await
            .unwrap()
    };
    let empty = raw("limit=1").await;
    assert_eq!(empty.status(), 204);
    assert_eq!(empty.text().await.unwrap(), "");
    problem(raw("limit=2").await, 400).await;
    problem(raw("").await, 400).await;
    gateway.accept("adp", report("VG-1", 1)).await;
    let response = raw("limit=1&ttl=60").await;
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/xml; charset=utf-8");
    assert_eq!(headers["message-type"], "Verzuimmeldingen");
    assert_eq!(headers["lease-until"], "2026-11-22T09:01:00Z");
    let xml = response.text().await.unwrap();
    assert!(xml.starts_with("<?xml") && xml.contains("VG-1"), "{xml}");
    let (id, lease) = (
        headers["message-id"].to_str().unwrap(),
        headers["message-lease"].to_str().unwrap(),
    );
    let acked = ack(
        &gateway,
        "arbo-noord",
        json!({"items": [{"id": id, "lease": lease}]}),
    )
    .await;
    assert_eq!(acked, json!({"acknowledged": [id], "unknown": []}));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_twice_late_or_as_another_does_no_harm() {
    let gateway = Gateway::boot().await;
    for case in ["VG-1", "VG-2", "VG-3"] {
        gateway.accept("adp", report(case, 1)).await;
    }
    let never_leased = {
        let feed: Value = gateway
            .get("arbo-noord", "/v1/inbox/feed")
            .await
            .json()
            .await
            .unwrap();
        feed["messages"][2]["id"].clone()
    };
    let first = gateway.lease_with("arbo-noord", "limit=2&ttl=10").await;
    let (a, b) = (text(&first[0], "id"), text(&first[1], "id"));
    let old = text(&first[0], "lease");
    let acked = ack(
        &gateway,
        "arbo-noord",
        json!({"ids": [never_leased, "nonsense"]}),
    )
    .await;
    assert_eq!(
        acked["acknowledged"],
        json!([]),
        "never handed out: {acked}"
    );
    let acked = ack(&gateway, "arbo-zuid", json!({"ids": [a, b]})).await;
    assert_eq!(acked, json!({"acknowledged": [], "unknown": [a, b]}));

    gateway.clock.advance(Duration::from_secs(11));
    let second = gateway.lease_with("arbo-noord", "limit=1").await;
    assert_eq!(text(&second[0], "id"), a);
    let new = text(&second[0], "lease");
    let with = |lease: &str| json!({"items": [{"id": a, "lease": lease}]});
    let acked = ack(&gateway, "arbo-noord", with(old)).await;
    assert_eq!(acked, json!({"acknowledged": [], "unknown": [a]}));
    let acked = ack(&gateway, "arbo-noord", with(new)).await;
    assert_eq!(acked, json!({"acknowledged": [a], "unknown": []}));
    // Again, with the current lease, the old one, and the id alone.
    for body in [with(new), json!({"ids": [a, a]})] {
        let acked = ack(&gateway, "arbo-noord", body).await;
        assert_eq!(acked["unknown"], json!([]));
    }
    // Late, by id alone: its lease ran out and nobody else took it.
    let acked = ack(
        &gateway,
        "arbo-noord",
        json!({"ids": [b], "items": [{"id": "none"}]}),
    )
    .await;
    assert_eq!(acked, json!({"acknowledged": [b], "unknown": ["none"]}));
    gateway.clock.advance(Duration::from_secs(1000));
    assert_eq!(names(&gateway.lease("arbo-noord").await), ["VG-3/1"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_dead_and_its_case_goes_on() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", report("VG-1", 1)).await;
    let leased = gateway.lease("arbo-noord").await;
    gateway.accept("adp", report("VG-1", 2)).await;
    assert!(gateway.lease("arbo-noord").await.is_empty());
    let path = format!("/v1/inbox/{}/reject", text(&leased[0], "id"));
    let body = |lease: &str| json!({"lease": lease, "code": "E1", "reason": "onbekende werkgever"});
    let wrong = gateway
        .post_json("arbo-noord", &path, body("nonsense"))
        .await;
    problem(wrong, 409).await;
    let lease = text(&leased[0], "lease");
    let other = gateway.post_json("arbo-zuid", &path, body(lease)).await;
    problem(other, 404).await;
    let long = json!({"lease": lease, "reason": "x".repeat(2001)});
    problem(gateway.post_json("arbo-noord", &path, long).await, 400).await;
    // A rejection wakes a poller that waits for what comes after it.
    let waiting = gateway.lease_with("arbo-noord", "wait=20");
    let rejecting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gateway.post_json("arbo-noord", &path, body(lease)).await
    };
    let started = Instant::now();
    let (next, rejected) = tokio::join!(waiting, rejecting);
    assert_eq!(rejected.status(), 200);
    assert_eq!(names(&next), ["VG-1/2"]);
    assert!(started.elapsed() < Duration::from_secs(2));
    gateway.clock.advance(Duration::from_secs(1000));
    assert_eq!(names(&gateway.lease("arbo-noord").await), ["VG-1/2"]);
    // Dead stays dead; what died can still be read for a while.
    let again = gateway.post_json("arbo-noord", &path, body(lease)).await;
    problem(again, 409).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_hides_for_longer() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", report("VG-1", 1)).await;
    let leased = gateway.lease_with("arbo-noord", "ttl=10").await;
    let path = format!("/v1/inbox/{}/extend", text(&leased[0], "id"));
    let lease = text(&leased[0], "lease");
    for ttl in [9, 901] {
        let body = json!({"lease": lease, "ttl": ttl});
        problem(gateway.post_json("arbo-noord", &path, body).await, 400).await;
    }
    let body = json!({"lease": lease, "ttl": 600});
    problem(
        gateway.post_json("arbo-zuid", &path, body.clone()).await,
        404,
    )
    .await;
    let wrong = json!({"lease": "x", "ttl": 600});
    problem(gateway.post_json("arbo-noord", &path, wrong).await, 409).await;
    let extended = gateway.post_json("arbo-noord", &path, body).await;
    assert_eq!(extended.status(), 200);
    let extended: Value = extended.json().await.unwrap();
    assert_eq!(extended["lease_until"], "2026-11-22T09:10:00Z");
    gateway.clock.advance(Duration::from_secs(599));
    assert!(gateway.lease("arbo-noord").await.is_empty());
    gateway.clock.advance(Duration::from_secs(2));
    assert_eq!(gateway.lease("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_be_read_again_for_seven_days() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", report("VG-1", 1)).await;
    let leased = gateway.lease("arbo-noord").await;
    let path = format!("/v1/inbox/{}", text(&leased[0], "id"));
    let read = async || gateway.get("arbo-noord", &path).await;
    problem(gateway.get("arbo-zuid", &path).await, 404).await;
    problem(gateway.get("arbo-noord", "/v1/inbox/%ff").await, 404).await;
    let response = read().await;
    assert_eq!(
        response.headers()["content-type"],
        "application/xml; charset=utf-8"
    );
    assert_eq!(response.text().await.unwrap(), text(&leased[0], "xml"));
    gateway.clock.advance(Duration::from_hours(24 * 30));
    assert_eq!(read().await.status(), 200, "not acknowledged yet");
    ack(&gateway, "arbo-noord", json!({"ids": [leased[0]["id"]]})).await;
    gateway.clock.advance(Duration::from_hours(24 * 7 - 1));
    assert_eq!(read().await.status(), 200);
    gateway.clock.advance(Duration::from_hours(2));
    problem(read().await, 404).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_shows_the_same_messages_in_the_same_order() {
    let gateway = Gateway::boot().await;
    for number in 1..=5 {
        gateway.accept("adp", report("VG-1", number)).await;
        gateway
            .accept("adp", report(&format!("VG-1{number}"), 1))
            .await;
    }
    let feed = async |party: &str, query: &str| -> Vec<Value> {
        let path = format!("/v1/inbox/feed?{query}");
        let page: Value = gateway.get(party, &path).await.json().await.unwrap();
        page["messages"].as_array().unwrap().clone()
    };
    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let page = feed("arbo-noord", &format!("after={after}&limit=3")).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3);
        after = last["sequence"].as_i64().unwrap();
        paged.extend(page);
    }
    assert!(feed("arbo-zuid", "").await.is_empty());
    // Reading the feed took nothing.
    let leased = gateway.lease("arbo-noord").await;
    assert_eq!(names(&leased), names(&paged));
    let ids = |messages: &[Value]| messages.iter().map(|m| m["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&leased), ids(&paged));
    assert!(paged[0]["lease"].is_null());
    ack(&gateway, "arbo-noord", json!({"ids": ids(&leased)})).await;
    assert_eq!(feed("arbo-noord", "").await.len(), 10);
    gateway.clock.advance(Duration::from_hours(24 * 7 + 1));
    assert!(feed("arbo-noord", "").await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_a_case_keep_their_order_over_all_answers() {
    let gateway = Gateway::boot().await;
    for (case, number) in [
        ("VG-1", 1),
        ("VG-1", 2),
        ("VG-2", 1),
        ("VG-1", 3),
        ("VG-2", 2),
    ] {
        gateway.accept("adp", report(case, number)).await;
    }
    let first = gateway.lease_with("arbo-noord", "limit=1&ttl=20").await;
    assert_eq!(names(&first), ["VG-1/1"]);
    // Another poller gets no later report of that case, and all of another.
    let second = gateway.lease_with("arbo-noord", "ttl=60").await;
    assert_eq!(names(&second), ["VG-2/1", "VG-2/2"]);
    assert!(gateway.lease("arbo-noord").await.is_empty());
    // The first lease runs out: all of the case, in order, in one answer.
    gateway.clock.advance(Duration::from_secs(21));
    let third = gateway.lease_with("arbo-noord", "").await;
    assert_eq!(names(&third), ["VG-1/1", "VG-1/2", "VG-1/3"]);
    assert_eq!(third[0]["attempt"], 2);
    assert_eq!(third[1]["attempt"], 1);
    ack(&gateway, "arbo-noord", json!({"ids": [third[1]["id"]]})).await;
    gateway.accept("adp", report("VG-1", 4)).await;
    assert!(gateway.lease("arbo-noord").await.is_empty());
    ack(
        &gateway,
        "arbo-noord",
        json!({"ids": [third[0]["id"], third[2]["id"]]}),
    )
    .await;
    assert_eq!(names(&gateway.lease("arbo-noord").await), ["VG-1/4"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_wakes_on_arrival_acknowledgement_and_expiry() {
    let gateway = Gateway::boot().await;
    let later = async |pause: u64| tokio::time::sleep(Duration::from_millis(pause)).await;
    // Arrival.
    let started = Instant::now();
    let (leased, ()) = tokio::join!(gateway.lease_with("arbo-noord", "wait=20"), async {
        later(300).await;
        gateway.accept("adp", report("VG-1", 1)).await;
    });
    assert_eq!(names(&leased), ["VG-1/1"]);
    assert!(started.elapsed() < Duration::from_secs(2));
    // What waits behind a leased report, when that is acknowledged.
    gateway.accept("adp", report("VG-1", 2)).await;
    let started = Instant::now();
    let (next, _) = tokio::join!(gateway.lease_with("arbo-noord", "wait=20&ttl=10"), async {
        later(300).await;
        ack(&gateway, "arbo-noord", json!({"ids": [leased[0]["id"]]})).await
    });
    assert_eq!(names(&next), ["VG-1/2"]);
    assert!(started.elapsed() < Duration::from_secs(2));
    // A lease that runs out.
    let started = Instant::now();
    let (again, ()) = tokio::join!(gateway.lease_with("arbo-noord", "wait=20"), async {
        later(300).await;
        gateway.clock.advance(Duration::from_secs(11));
    });
    assert_eq!(names(&again), ["VG-1/2"]);
    assert!(started.elapsed() < Duration::from_secs(6));
    // Nothing at all.
    let started = Instant::now();
    assert!(gateway.lease_with("arbo-zuid", "wait=1").await.is_empty());
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(3));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_that_went_away_takes_nothing_with_it() {
    let gateway = Gateway::boot().await;
    let head = format!(
        "POST {LEASE}?wait=30&ttl=900 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 0\r\n\r\n",
        gateway.keys["arbo-noord"]
    );
    for _ in 0..10 {
        let mut stream = gateway.raw().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.accept("adp", report("VG-1", 1)).await;
    assert_eq!(gateway.lease("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pollers_share_an_inbox_without_doubles() {
    let gateway = Gateway::boot().await;
    for case in 0..40 {
        gateway
            .accept("adp", report(&format!("VG-{case}"), 1))
            .await;
    }
    let polls: Vec<_> = (0..8)
        .map(|_| {
            let request = gateway
                .client
                .post(format!("{}{LEASE}?limit=5", gateway.url))
                .bearer_auth(&gateway.keys["arbo-noord"]);
            tokio::spawn(async move {
                let answer: Value = request.send().await.unwrap().json().await.unwrap();
                names(answer["messages"].as_array().unwrap())
            })
        })
        .collect();
    let mut all = Vec::new();
    for poll in polls {
        all.extend(poll.await.unwrap());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_long_polls_and_finishes_uploads() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.stop_seconds = 10").await;
    let poll = gateway
        .client
        .post(format!("{}{LEASE}?wait=60", gateway.url))
        .bearer_auth(&gateway.keys["arbo-noord"]);
    let poll = tokio::spawn(async move { poll.send().await.unwrap() });
    let mut upload = gateway.raw().await;
    let xml = report("VG-1", 1);
    let head = gateway.raw_head("adp", &format!("Content-Length: {}\r\n", xml.len()));
    let (first, second) = xml.split_at(500);
    upload
        .write_all(format!("{head}{first}").as_bytes())
        .await
        .unwrap();
    // One that has only connected, and one that never finishes its head.
    let silent = gateway.raw().await;
    let mut half = gateway.raw().await;
    half.write_all(b"GET /healthz HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;

    let started = Instant::now();
    let clock = gateway.clock.clone();
    let stopping = tokio::spawn(gateway.stop());
    let answer = poll.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({ "messages": [] })
    );
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(!stopping.is_finished());
    upload.write_all(second.as_bytes()).await.unwrap();
    let mut answer = vec![0; 2000];
    let count = upload.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 202"));
    drop((upload, silent, half));
    let folder = stopping.await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    let gateway = Gateway::boot_in(folder, clock, "", "").await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

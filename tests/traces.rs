//! Traces of a real gateway: what is told of a request, and what is not.

mod binary;
mod support;

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use binary::Installation;
use support::receiver::{Got, Receiver, SECRET, canary, names_nobody};
use support::{Absence, DIRECTORY};

/// The spans in what a collector got.
fn spans(got: &[Got]) -> Vec<Value> {
    let mut spans = Vec::new();
    for one in got {
        for resource in one.json()["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_be_followed_in_traces_that_name_nobody() {
    let collector = Receiver::start(false).await;
    let endpoint = format!("http://{}", collector.address);
    let installation = Installation::new(&format!("[trace]\nendpoint = \"{endpoint}\"\n"));
    installation.write("directory.toml", DIRECTORY);
    installation.yes(&["apply", "directory.toml"]);
    let key = |party: &str| installation.yes(&["key", "issue", "--party", party]);
    let (adp, noord) = (key("adp"), key("arbo-noord"));
    let daemon = installation.serve();
    let client = installation.client();
    let absence = canary();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sent = client
        .post(format!("{}/v1/messages", daemon.url))
        .bearer_auth(adp.trim())
        .header("content-type", "application/xml")
        .header("accept", "application/json")
        // It would rather not be recorded, and it says too much.
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-00"))
        .header("tracestate", "hr=Zonderling")
        .header("baggage", "hr=Zonderling")
        .body(absence.xml())
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 202);
    let unknown = "0af7651916cd43dd8448eb211c80319c";
    let sent_by_nobody = client
        .post(format!("{}/v1/messages", daemon.url))
        .header("traceparent", format!("00-{unknown}-00f067aa0ba902b7-01"))
        .header("tracestate", "hr=Zonderling")
        .body(absence.xml());
    assert_eq!(sent_by_nobody.send().await.unwrap().status(), 401);
    let receipt: Value = sent.json().await.unwrap();
    let post = |path: &str| {
        client
            .post(format!("{}{path}", daemon.url))
            .bearer_auth(noord.trim())
    };
    let leased = post("/v1/inbox/lease?limit=10").send().await.unwrap();
    let leased: Value = leased.json().await.unwrap();
    let release = leased["messages"][0]["id"].as_str().unwrap();
    let acked = post("/v1/inbox/ack").json(&json!({ "ids": [release] }));
    assert_eq!(acked.send().await.unwrap().status(), 200);
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);

    let got = collector.got();
    let spans = spans(&got);
    let (nobodys, spans): (Vec<Value>, Vec<Value>) = spans
        .into_iter()
        .partition(|span| span["name"] == "receive" && span["traceId"] != trace);
    assert_eq!(nobodys.len(), 1, "{nobodys:?}");
    assert_ne!(nobodys[0]["traceId"], unknown);
    assert_ne!(nobodys[0]["parentSpanId"], "00f067aa0ba902b7");
    let of = |name: &str| {
        let mut of = spans.iter().filter(|span| span["name"] == name);
        let span = of
            .next()
            .unwrap_or_else(|| panic!("no {name} in {spans:?}"));
        assert!(of.next().is_none(), "one {name}");
        span.clone()
    };
    let attributes = |name: &str| of(name)["attributes"].to_string();
    let receive = of("receive");
    assert_eq!(receive["traceId"], trace);
    assert_eq!(receive["parentSpanId"], "00f067aa0ba902b7");
    for name in ["prepare", "plan", "store"] {
        assert_eq!(of(name)["parentSpanId"], receive["spanId"], "{name}");
    }
    let id = receipt["id"].as_str().unwrap();
    assert!(attributes("receive").contains(id) && attributes("store").contains(id));
    assert!(attributes("receive").contains("202"));
    assert!(attributes("lease").contains(release));
    assert!(attributes("ack").contains("acknowledged"));
    let known = ["receive", "prepare", "plan", "store", "lease", "ack"];
    for span in &spans {
        assert!(known.contains(&span["name"].as_str().unwrap()), "{span}");
    }
    for one in &got {
        names_nobody(&one.body, &absence.berrefnr);
        assert!(!one.body.contains(unknown), "{}", one.body);
    }
    for line in log {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(
            line.get("span").is_none(),
            "a line reads well alone: {line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_is_spoken_of_once() {
    let collector = Receiver::start(false).await;
    let endpoint = format!("http://{}", collector.address);
    drop(collector);
    let installation = Installation::new(&format!("[trace]\nendpoint = \"{endpoint}\"\n"));
    let daemon = installation.serve();
    let client = installation.client();
    // Spans go every five seconds: these make two batches and the last one.
    for _ in 0..11 {
        let sent = client
            .post(format!("{}/v1/messages", daemon.url))
            .body(Absence::default().xml());
        assert_eq!(sent.send().await.unwrap().status(), 401);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    let told = log.iter().filter(|line| line.contains("takes no spans"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

/// Waits until a receiver got so many requests.
async fn got(receiver: &Receiver, number: usize) {
    let started = Instant::now();
    while receiver.got().len() < number {
        assert!(started.elapsed() < Duration::from_mins(1), "{number}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_to_push_is_a_trace_that_names_nobody() {
    let (collector, receiver) = (Receiver::start(false).await, Receiver::start(true).await);
    let endpoint = format!("http://{}", collector.address);
    let installation = Installation::new(&format!("[trace]\nendpoint = \"{endpoint}\"\n"));
    installation.write("push.secret", SECRET);
    installation.write("receiver-ca.pem", receiver.ca());
    let delivery = format!(
        "sender_ids = [\"ARBONOORD\"]\ndelivery = {{ mode = \"push\", \
         url = \"https://localhost:{}/hook?pad=Zonderling\", secret = \"file:push.secret\", \
         ca = \"file:receiver-ca.pem\", allow_private = [\"localhost\"] }}\n",
        receiver.address.port()
    );
    let directory = DIRECTORY.replace("sender_ids = [\"ARBONOORD\"]\n", &delivery);
    installation.write("directory.toml", directory);
    installation.yes(&["apply", "directory.toml"]);
    let key = installation.yes(&["key", "issue", "--party", "adp"]);
    let daemon = installation.serve();
    let client = installation.client();
    let absence = canary();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let post = async |absence: &Absence| {
        let sent = client
            .post(format!("{}/v1/messages", daemon.url))
            .bearer_auth(key.trim())
            .header("content-type", "application/xml")
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .body(absence.xml());
        assert_eq!(sent.send().await.unwrap().status(), 202);
    };
    post(&absence).await;
    got(&receiver, 1).await;
    receiver.answer(StatusCode::GONE);
    post(&Absence::of("W-2", "VG-2")).await;
    got(&receiver, 2).await;
    let (code, _) = daemon.stop();
    assert_eq!(code, 0);

    let got = collector.got();
    let spans = spans(&got);
    let pushes: Vec<&Value> = spans.iter().filter(|span| span["name"] == "push").collect();
    let outcomes = ["taken_over", "gone"];
    assert_eq!(pushes.len(), outcomes.len(), "{pushes:?}");
    for (outcome, pushed) in outcomes.into_iter().zip(receiver.got()) {
        let id = pushed.headers["webhook-id"].to_str().unwrap();
        let of_it = |span: &&&Value| span["attributes"].to_string().contains(id);
        let span = pushes.iter().find(of_it).unwrap();
        let parent = span["parentSpanId"].as_str().unwrap_or_default();
        assert_eq!(parent, "", "it is a root");
        assert_ne!(span["traceId"], trace);
        let mut names = Vec::new();
        for attribute in span["attributes"].as_array().unwrap() {
            names.push(attribute["key"].as_str().unwrap());
        }
        names.retain(|name| !["busy_ns", "idle_ns"].contains(name));
        names.sort_unstable();
        let known = [
            "attempt",
            "outcome",
            "party",
            "release.id",
            "tenant",
            "test",
        ];
        assert_eq!(names, known);
        let attributes = span["attributes"].to_string();
        for value in [outcome, "arbo-noord", "bakkerij", id] {
            assert!(attributes.contains(&format!("\"{value}\"")), "{attributes}");
        }
        assert!(!pushed.headers.contains_key("traceparent"));
    }
    for one in &got {
        names_nobody(&one.body, &absence.berrefnr);
        for part in ["hook", "localhost", "W-2"] {
            assert!(!one.body.contains(part), "{part} in {}", one.body);
        }
    }
}

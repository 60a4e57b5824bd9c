//! Traces of a real gateway: what is told of a request, and what is not.

mod binary;
mod support;

use std::time::Duration;

use serde_json::{Value, json};

use binary::Installation;
use support::receiver::{Got, Receiver, canary, names_nobody};
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

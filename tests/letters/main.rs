//! What waits for a person: dead letters and parked parts, by command and over
//! the operators' API, with the real server and the real binary.

#[path = "../binary/mod.rs"]
mod binary;
mod operators;
mod parked;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use binary::{Daemon, Installation};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::{Absence, DIRECTORY, Gateway, problem, reference};

/// A daemon with one payroll party and one arbodienst.
struct Site {
    installation: Installation,
    daemon: Daemon,
    client: Client,
    adp: String,
    noord: String,
}

impl Site {
    fn start() -> Self {
        let installation = Installation::new("");
        installation.write("directory.toml", DIRECTORY);
        installation.yes(&["apply", "directory.toml"]);
        let key = |party| {
            let issued = installation.yes(&["key", "issue", "--party", party, "--format", "json"]);
            let issued: Value = serde_json::from_str(&issued).unwrap();
            issued["key"].as_str().unwrap().to_owned()
        };
        let (adp, noord) = (key("adp"), key("arbo-noord"));
        let daemon = installation.serve();
        let client = installation.client();
        Self {
            installation,
            daemon,
            client,
            adp,
            noord,
        }
    }

    async fn send(&self, report: &Absence) -> Value {
        let request = self
            .client
            .post(format!("{}/v1/messages", self.daemon.url))
            .bearer_auth(&self.adp)
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(report.xml());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        response.json().await.unwrap()
    }

    async fn lease(&self, query: &str) -> Vec<Value> {
        let url = format!("{}/v1/inbox/lease?{query}", self.daemon.url);
        let request = self.client.post(url).bearer_auth(&self.noord);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["messages"].as_array().unwrap().clone()
    }

    async fn reject(&self, leased: &Value, code: &str, reason: &str) {
        let id = leased["id"].as_str().unwrap();
        let request = self
            .client
            .post(format!("{}/v1/inbox/{id}/reject", self.daemon.url))
            .bearer_auth(&self.noord)
            .json(&json!({ "lease": leased["lease"], "code": code, "reason": reason }));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    async fn ack(&self, ids: &[&str]) {
        let request = self
            .client
            .post(format!("{}/v1/inbox/ack", self.daemon.url))
            .bearer_auth(&self.noord)
            .json(&json!({ "ids": ids }));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["unknown"], json!([]));
    }

    /// Runs a command with `--format json`: every line of its output is JSON.
    fn json(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        lines_of(&self.installation, arguments)
    }
}

fn lines_of(installation: &Installation, arguments: &[&str]) -> (i32, Vec<Value>) {
    let ran = installation.run(&[arguments, &["--format", "json"]].concat());
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    (ran.code, ran.out.lines().map(parse).collect())
}

/// The operators' API of a gateway.
struct Operators<'g> {
    gateway: &'g Gateway,
    token: String,
}

impl<'g> Operators<'g> {
    fn of(gateway: &'g Gateway) -> Self {
        let file = gateway.folder.path().join("admin.token");
        let token = std::fs::read_to_string(file).unwrap().trim().to_owned();
        Self { gateway, token }
    }

    async fn call(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let request = self
            .gateway
            .client
            .request(method, format!("{}/admin/v1{path}", self.gateway.admin))
            .bearer_auth(&self.token)
            .body(body.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, &body.to_string()).await
    }
}

/// A report of one case, told apart by its number.
fn report(case: &str, number: u32) -> Absence {
    Absence {
        number,
        action: if number == 1 { "01" } else { "02" },
        ..Absence::of(&format!("W-{case}"), case)
    }
}

/// Which report of its case a message holds.
fn number_of(leased: &Value) -> u32 {
    let xml = leased["xml"].as_str().unwrap();
    let (_, rest) = xml.split_once("<VrzmgvlVnrMld>").unwrap();
    rest.split_once('<').unwrap().0.parse().unwrap()
}

async fn reject_all(gateway: &Gateway, query: &str, code: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for leased in gateway.lease_with("arbo-noord", query).await {
        let id = leased["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/inbox/{id}/reject");
        let body = json!({ "lease": leased["lease"], "code": code, "reason": "x" });
        let answer = gateway.post_json("arbo-noord", &path, body).await;
        assert_eq!(answer.status(), 200);
        ids.push(id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_report_comes_again_and_nothing_says_whose_it_is() {
    let site = Site::start();
    let canaries = [
        "Kanarie",
        "W-90210",
        "VG-Kanarie",
        "geel-en-ziek",
        "19800229",
    ];
    let report = Absence {
        surname: "Kanarie".to_owned(),
        person: "W-90210".to_owned(),
        case: "VG-Kanarie".to_owned(),
        berrefnr: format!("geel-en-ziek{}", reference()),
        ..Absence::default()
    };
    let receipt = site.send(&report).await;
    let leased = site.lease("limit=1").await.pop().unwrap();
    let id = leased["id"].as_str().unwrap();
    let reason = "Kanarie W-90210 (geel-en-ziek, 19800229) hoort bij VG-Kanarie";
    site.reject(&leased, "W-90210.19800229", reason).await;

    let mut outputs = Vec::new();
    let mut run = |arguments: &[&str], code: i32| {
        for format in ["text", "json"] {
            let ran = site
                .installation
                .run(&[arguments, &["--format", format]].concat());
            assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
            outputs.extend([ran.out, ran.err]);
        }
    };
    run(&["dead", "list"], 0);
    run(&["dead", "show", id], 0);
    run(&["dead", "replay", "--party", "arbo-noord", "--dry-run"], 0);
    let (_, listed) = site.json(&[
        "dead",
        "list",
        "--tenant",
        "bakkerij",
        "--domain",
        "arbodienst",
    ]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["message_id"], receipt["id"]);
    assert_eq!(listed[0]["sender"], "adp");
    assert_eq!(listed[0]["code"], Value::Null);
    assert_eq!(listed[0]["reason_length"], reason.chars().count());
    assert_eq!(listed[0]["overtaken"], 0);

    // A receiver that waits is woken by a command of another process.
    let wait = site.lease("wait=20");
    let retry = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let retried = Instant::now();
        let (code, lines) = site.json(&["dead", "retry", id]);
        assert_eq!(code, 0);
        assert_eq!(
            lines,
            [json!({ "id": id, "result": "due", "state": "offered", "sequence": 2 })]
        );
        retried
    };
    let (again, retried) = tokio::join!(wait, retry);
    assert!(retried.elapsed() < Duration::from_secs(5));
    assert_eq!(
        (again[0]["id"].as_str().unwrap(), &again[0]["attempt"]),
        (id, &json!(1))
    );
    assert_eq!(again[0]["xml"], leased["xml"]);
    site.ack(&[id]).await;

    // Again: nothing happens, and it says what the message is now.
    run(&["dead", "retry", id], 0);
    let (code, lines) = site.json(&["dead", "retry", id]);
    assert_eq!(code, 0);
    assert_eq!(
        lines,
        [json!({ "id": id, "result": "unchanged", "state": "taken_over" })]
    );
    run(&["dead", "show", id], 1);
    run(&["dead", "retry", "nothing"], 1);
    assert!(site.json(&["dead", "list"]).1.is_empty());
    run(&["dead", "replay"], 2);
    run(&["dead", "list", "--party", "Kan arie"], 2);

    let (_, log) = site.daemon.stop();
    outputs.extend(log);
    for output in &outputs {
        for canary in canaries {
            assert!(!output.contains(canary), "{canary} in {output}");
        }
    }
    assert!(outputs.iter().any(|output| output.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_discarded_once_and_leaves_its_row() {
    let site = Site::start();
    site.send(&report("VG-1", 1)).await;
    let leased = site.lease("limit=1").await.pop().unwrap();
    let id = leased["id"].as_str().unwrap();
    let unchanged = json!({ "id": id, "result": "unchanged", "state": "leased" });
    assert_eq!(site.json(&["dead", "discard", id]), (1, vec![unchanged]));

    site.reject(&leased, "schema.v2", "Mevrouw Kanarie").await;
    let discarded = json!({ "id": id, "result": "discarded", "state": "dead" });
    for _ in 0..2 {
        let said = site.json(&["dead", "discard", id]);
        assert_eq!(said, (0, vec![discarded.clone()]));
    }
    assert_eq!(site.json(&["dead", "retry", id]), (1, vec![discarded]));
    assert!(site.json(&["dead", "list"]).1.is_empty());
    let (_, shown) = site.json(&["dead", "show", id]);
    assert_eq!(
        (&shown[0]["code"], &shown[0]["content"]),
        (&json!("schema.v2"), &json!(false))
    );
    assert!(shown[0]["discarded_at"].is_string());
    assert_eq!(site.json(&["dead", "discard", "nothing"]).0, 1);
    assert!(site.lease("limit=1").await.is_empty());
    site.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_a_case_keep_their_order_and_an_overtaken_one_stays() {
    let gateway = Gateway::boot().await;
    let operators = Operators::of(&gateway);
    for number in 1..=4 {
        gateway.accept("adp", report("VG-1", number).xml()).await;
    }
    let first = reject_all(&gateway, "limit=1&ttl=10", "a")
        .await
        .pop()
        .unwrap();
    let second = reject_all(&gateway, "limit=1&ttl=10", "b")
        .await
        .pop()
        .unwrap();

    // Later first, so that the order of the operator is not the order of the case.
    for id in [&second, &first] {
        let (status, body) = operators
            .call(Method::POST, &format!("/dead/{id}/retry"), "")
            .await;
        assert_eq!((status, &body["result"]), (200, &json!("due")), "{body}");
    }
    let leased = gateway.lease("arbo-noord").await;
    let numbers: Vec<u32> = leased.iter().map(number_of).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    // All of it is in its receiver's hands, so the first, rejected again, is late.
    let path = format!("/v1/inbox/{first}/reject");
    let body = json!({ "lease": leased[0]["lease"], "code": "a", "reason": "" });
    gateway.post_json("arbo-noord", &path, body).await;
    let shown = operators.get(&format!("/dead/{first}")).await;
    assert_eq!(
        (&shown["overtaken"], &shown["attempts"], &shown["code"]),
        (&json!(3), &json!(1), &json!("a"))
    );
    let retry = format!("/dead/{first}/retry");
    let (status, body) = operators.post(&retry, &json!({})).await;
    assert_eq!(
        (status, &body["type"]),
        (409, &json!("urn:sivi-gateway:problem:overtaken"))
    );
    let (_, preview) = operators
        .post("/dead/replay", &json!({ "filter": {}, "dry_run": true }))
        .await;
    assert_eq!(
        (&preview["matched"], &preview["due"], &preview["overtaken"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let (_, done) = operators
        .post("/dead/replay", &json!({ "filter": {} }))
        .await;
    assert_eq!(done["due"], 0);
    assert!(operators.get("/dead").await["dead"][0]["id"] == first.as_str());

    let (status, body) = operators.post(&retry, &json!({ "overtaken": true })).await;
    assert_eq!((status, &body["state"]), (200, &json!("offered")));
    let (status, body) = operators.post(&retry, &json!({ "overtaken": true })).await;
    assert_eq!(
        (status, &body["result"], &body["state"]),
        (200, &json!("unchanged"), &json!("offered"))
    );
    // Nor can it be discarded, until it is dead again.
    let discard = format!("/dead/{first}/discard");
    let (status, body) = operators.call(Method::POST, &discard, "").await;
    assert_eq!(
        (status, &body["result"], &body["state"]),
        (200, &json!("unchanged"), &json!("offered"))
    );
    let newer: Vec<&Value> = leased[1..].iter().map(|one| &one["id"]).collect();
    let body = json!({ "ids": newer });
    gateway.post_json("arbo-noord", "/v1/inbox/ack", body).await;
    assert_eq!(
        reject_all(&gateway, "limit=1&ttl=10", "a").await,
        std::slice::from_ref(&first)
    );
    for _ in 0..2 {
        let (status, body) = operators.call(Method::POST, &discard, "").await;
        assert_eq!((status, &body["result"]), (200, &json!("discarded")));
    }
    let (status, body) = operators.post(&retry, &json!({ "overtaken": true })).await;
    assert_eq!(
        (status, &body["type"]),
        (410, &json!("urn:sivi-gateway:problem:erased"))
    );
    let (status, _) = operators.call(Method::POST, "/dead/none/discard", "").await;
    assert_eq!(status, 404);
    assert!(
        operators.get("/dead").await["dead"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_what_its_preview_says() {
    let gateway = Gateway::boot().await;
    let operators = Operators::of(&gateway);
    for case in 0..6 {
        gateway
            .accept("adp", report(&format!("VG-{case}"), 1).xml())
            .await;
    }
    let mut ids = reject_all(&gateway, "limit=2", "schema").await;
    ids.extend(reject_all(&gateway, "limit=4", "system").await);

    let replay = |body: Value| {
        let operators = &operators;
        async move {
            let (status, body) = operators.post("/dead/replay", &body).await;
            assert_eq!(status, 200, "{body}");
            body
        }
    };
    let filter = json!({ "code": "system", "party": "arbo-noord", "test": false });
    let preview = replay(json!({ "filter": filter, "dry_run": true })).await;
    assert_eq!(
        (&preview["matched"], &preview["due"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(preview["groups"][0]["code"], "system");
    assert!(gateway.lease("arbo-noord").await.is_empty());
    let mut done = replay(json!({ "filter": filter })).await;
    done["dry_run"] = json!(true);
    assert_eq!(done, preview);
    assert_eq!(replay(json!({ "filter": filter })).await["matched"], 0);
    let leased = gateway.lease("arbo-noord").await;
    let again: Vec<&str> = leased
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(again, ids[2..]);

    // Pages, and filters that are refused rather than ignored.
    let page = operators.get("/dead?limit=1&code=schema").await;
    assert_eq!(page["dead"][0]["id"], ids[0].as_str());
    let next = page["next"].as_str().unwrap();
    let page = operators
        .get(&format!("/dead?limit=1&code=schema&after={next}"))
        .await;
    assert_eq!(
        (&page["dead"][0]["id"], &page["next"]),
        (&json!(ids[1]), &Value::Null)
    );
    for (path, body) in [
        ("/dead/replay", json!({})),
        ("/dead/replay", json!({ "filter": { "codes": "x" } })),
        ("/dead/replay", json!({ "filter": { "domain": "x" } })),
        ("/dead/replay", json!({ "filter": {}, "dry-run": true })),
        ("/parked/retry", json!({ "filter": { "reason": "x" } })),
        ("/parked/retry", json!(null)),
    ] {
        let (status, answer) = operators.post(path, &body).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
    }
    for query in [
        "codes=x",
        "limit=0",
        "limit=1001",
        "test=maybe",
        "since=yesterday",
        "party=A",
    ] {
        let (status, _) = operators
            .call(Method::GET, &format!("/dead?{query}"), "")
            .await;
        assert_eq!(status, 400, "{query}");
    }
    let (status, _) = operators
        .call(Method::POST, "/dead/replay", &" ".repeat(70_000))
        .await;
    assert_eq!(status, 413);
    assert_eq!(
        operators.get("/dead").await["dead"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

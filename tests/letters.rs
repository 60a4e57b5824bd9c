//! What waits for a person: dead letters and parked parts, by command and over
//! the operators' API, with the real server and the real binary.

mod binary;
mod support;

use std::os::unix::fs::PermissionsExt as _;
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

#[tokio::test(flavor = "multi_thread")]
async fn parked_parts_go_when_they_can_and_only_then() {
    let site = Site::start();
    let unknown = |person: &str| Absence {
        employer: ("777", "1"),
        surname: "Kanarie".to_owned(),
        ..Absence::of(person, &format!("VG-{person}"))
    };
    let receipt = site.send(&unknown("W-90211")).await;
    let other = site.send(&unknown("W-90212")).await;
    let (code, listed) = site.json(&[
        "parked",
        "list",
        "--reason",
        "employer_unknown",
        "--party",
        "adp",
    ]);
    assert_eq!((code, listed.len()), (0, 2));
    let id = listed[0]["id"].as_str().unwrap();
    let second = listed[1]["id"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["message_id"], &listed[0]["persons"]),
        (&receipt["id"], &json!(1))
    );
    assert_eq!(listed[0]["tenant"], Value::Null);
    assert!(
        site.json(&["parked", "list", "--older-than-hours", "1"])
            .1
            .is_empty()
    );
    let (code, shown) = site.json(&["parked", "show", id]);
    assert_eq!((code, &shown[0]["reason"]), (0, &json!("employer_unknown")));

    // Nothing has changed, so it waits on, whoever asks and however often.
    for _ in 0..2 {
        let (code, lines) = site.json(&["parked", "retry", id]);
        let waits = json!({ "id": id, "result": "waiting", "reasons": ["employer_unknown"] });
        assert_eq!((code, lines), (1, vec![waits]));
    }
    let (code, lines) = site.json(&["parked", "retry", "--all"]);
    let counts = json!({ "released": 0, "waiting": 2, "reasons": { "employer_unknown": 2 } });
    assert_eq!((code, lines), (0, vec![counts]));
    let token = std::fs::read_to_string(site.installation.path("data/admin.token")).unwrap();
    let url = format!("{}/admin/v1/parked/{id}/retry", site.daemon.admin);
    let request = site.client.post(url).bearer_auth(token.trim());
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["result"], "waiting");

    // Dropped once, and gone ever after.
    assert_eq!(site.json(&["parked", "discard", second]).0, 0);
    for action in ["discard", "retry", "show"] {
        assert_eq!(site.json(&["parked", action, second]).0, 1, "{action}");
    }
    let status = site
        .client
        .get(format!(
            "{}/v1/messages/{}",
            site.daemon.url,
            other["id"].as_str().unwrap()
        ))
        .bearer_auth(&site.adp);
    let status: Value = status.send().await.unwrap().json().await.unwrap();
    assert_eq!(status["state"], "routed");

    // With a way to go, it goes. The daemon is stopped, or it would be first.
    let Site {
        installation,
        daemon,
        ..
    } = site;
    let (_, log) = daemon.stop();
    let text = installation.yes(&["parked", "list"]);
    assert!(!log.concat().contains("Kanarie") && !text.contains("W-90211"));
    let tenant = DIRECTORY.replace("id = \"bakkerij\"", "id = \"slagerij\"");
    let (_, tenant) = tenant.split_once("[[tenant]]").unwrap();
    let tenant = tenant
        .replace("\"105\"", "\"777\"")
        .replace("\"6431\"", "\"1\"");
    installation.write("more.toml", format!("[[tenant]]{tenant}"));
    installation.yes(&["apply", "more.toml"]);
    let (code, lines) = lines_of(&installation, &["parked", "retry", id]);
    let released = json!({ "id": id, "result": "released", "releases": 1 });
    assert_eq!((code, lines), (0, vec![released]));
    assert_eq!(lines_of(&installation, &["parked", "retry", id]).0, 1);
    assert!(lines_of(&installation, &["parked", "list"]).1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_longer_for_a_person_goes_first() {
    let gateway = Gateway::boot().await;
    let operators = Operators::of(&gateway);
    let stray = |number| Absence {
        employer: ("777", "1"),
        ..report("VG-9", number)
    };
    for number in 1..=2 {
        gateway.accept("adp", stray(number).xml()).await;
        gateway.clock.advance(Duration::from_mins(1));
    }
    let listed = operators.get("/parked").await;
    let ids: Vec<&str> = listed["parked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    // As if the daemon had not looked yet: the operator's process has the new
    // configuration, and asks for the newer part.
    let tenant = DIRECTORY.replace("{ IdWrkgvrArbdnst = \"105\", AansltnrGeguitwlngArbdnst = \"6431\" }]", "{ IdWrkgvrArbdnst = \"105\", AansltnrGeguitwlngArbdnst = \"6431\" }, { IdWrkgvrArbdnst = \"777\", AansltnrGeguitwlngArbdnst = \"1\" }]");
    let file = sivi_gateway::toml_file::TomlFile::parse("directory.toml", tenant).unwrap();
    let file = sivi_gateway::directory::DirectoryFile::read(vec![file]).unwrap();
    sivi_gateway::command::apply_file(&gateway.base, &file)
        .await
        .unwrap();
    let (_replace, current) =
        sivi_gateway::setup::Current::new(gateway.base.setup().await.unwrap());
    let became = gateway
        .base
        .intake(current)
        .retry_parked(ids[1])
        .await
        .unwrap();
    assert!(matches!(
        became,
        sivi_gateway::receive::Unparked::Released { releases: 1 }
            | sivi_gateway::receive::Unparked::Gone
    ));
    let leased = gateway.lease("arbo-noord").await;
    let numbers: Vec<u32> = leased.iter().map(number_of).collect();
    assert_eq!(numbers, [1, 2]);
}

/// A directory that knows the employer of strays, applied as on another node:
/// the configuration that its process has, while the gateway waits for a sign.
async fn with_a_way_to_go(gateway: &Gateway) -> sivi_gateway::receive::Intake {
    let keys = "{ IdWrkgvrArbdnst = \"105\", AansltnrGeguitwlngArbdnst = \"6431\" }]";
    let more = "{ IdWrkgvrArbdnst = \"777\", AansltnrGeguitwlngArbdnst = \"1\" }]";
    let directory = DIRECTORY.replace(keys, &keys.replace(']', &format!(", {more}")));
    let file = sivi_gateway::toml_file::TomlFile::parse("directory.toml", directory).unwrap();
    let file = sivi_gateway::directory::DirectoryFile::read(vec![file]).unwrap();
    sivi_gateway::command::apply_file(&gateway.base, &file)
        .await
        .unwrap();
    let setup = gateway.base.setup().await.unwrap();
    let (_replace, current) = sivi_gateway::setup::Current::new(setup);
    gateway.base.intake(current)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_gone_is_not_tried_again_and_again() {
    use sivi_gateway::receive::Unparked;

    let mut gateway = Gateway::boot().await;
    for person in ["W-1", "W-2"] {
        let stray = Absence {
            employer: ("777", "1"),
            ..Absence::of(person, &format!("VG-{person}"))
        };
        gateway.accept("adp", stray.xml()).await;
    }
    // Or it would be first.
    gateway.halt().await;
    let intake = with_a_way_to_go(&gateway).await;
    let store = gateway.base.store.clone();
    let now = gateway.clock.now();
    let mut became = Vec::new();
    let see = |item: &sivi_gateway::store::ParkedItem, unparked: &Unparked| {
        became.push(unparked.clone());
        // The second is in hand by now.
        let drop_all = async {
            let filter = sivi_gateway::store::ParkedFilter::default();
            for other in store.parked(&filter).await.unwrap() {
                assert_ne!(other.id, item.id);
                assert!(store.discard_parked(&other.id, now).await.unwrap());
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(drop_all));
    };
    let everything = sivi_gateway::store::ParkedFilter::default();
    intake.retry_all_parked(&everything, see).await.unwrap();
    assert_eq!(became, [Unparked::Released { releases: 1 }, Unparked::Gone]);
}

/// The work on it gets a thread of its own, which a runtime of one thread
/// refuses: so it is seen where it is done.
#[test]
fn a_large_parked_part_is_worked_on_off_the_road() {
    let several = tokio::runtime::Runtime::new().unwrap();
    let (gateway, intake) = several.block_on(async {
        let mut gateway = Gateway::boot().await;
        let employees: Vec<String> = (0..1_000)
            .map(|n| Absence::of(&format!("W-{n}"), &format!("VG-{n}")).employee())
            .collect();
        let header = support::header("00100", "00006", "ADP", "ARBONOORD", &reference(), "N");
        let xml = support::absences(&header, &[(("777", "1"), employees)]);
        assert!(xml.len() > 1 << 18, "{}", xml.len());
        gateway.accept("adp", xml).await;
        gateway.halt().await;
        let intake = with_a_way_to_go(&gateway).await;
        (gateway, intake)
    });
    let everything = sivi_gateway::store::ParkedFilter::default();
    let item = several.block_on(gateway.base.store.parked(&everything));
    let id = item.unwrap()[0].id.clone();
    let one = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tried = std::panic::AssertUnwindSafe(|| one.block_on(intake.retry_parked(&id)));
    let panicked = std::panic::catch_unwind(tried).unwrap_err();
    let said = panicked
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let said = said.or_else(|| panicked.downcast_ref::<String>().cloned());
    assert!(said.unwrap().contains("multi-threaded runtime"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_opens_the_operators_side() {
    let gateway = Gateway::boot().await;
    let operators = Operators::of(&gateway);
    let file = gateway.folder.path().join("admin.token");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(operators.token.len(), 64);

    let contract = gateway
        .client
        .get(format!("{}/admin/openapi.json", gateway.admin));
    let contract: Value = contract.send().await.unwrap().json().await.unwrap();
    let mut other = operators.token.clone();
    let last = if other.ends_with('0') { "1" } else { "0" };
    other.replace_range(63.., last);
    let wrong = [
        None,
        Some(String::new()),
        Some(other),
        Some(operators.token[..62].to_owned()),
        Some(gateway.keys["adp"].clone()),
    ];
    let mut asked = 0;
    for (path, methods) in contract["paths"].as_object().unwrap() {
        if path == "/admin/openapi.json" {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let url = format!("{}{}", gateway.admin, path.replace("{id}", "none"));
            for token in &wrong {
                let mut request = gateway.client.request(method.clone(), &url);
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                problem(request.send().await.unwrap(), 401).await;
                asked += 1;
            }
            // With the token it is something that the contract names.
            let request = gateway
                .client
                .request(method.clone(), &url)
                .bearer_auth(&operators.token);
            let status = request.send().await.unwrap().status().as_u16();
            let responses = &methods[method.as_str().to_lowercase()]["responses"];
            assert!(
                responses[status.to_string()].is_object(),
                "{method} {path}: {status}"
            );
            assert_ne!(status, 401);
            // And it is not on the parties' side at all.
            let url = url.replace(&gateway.admin, &gateway.url);
            let request = gateway
                .client
                .request(method.clone(), &url)
                .bearer_auth(&operators.token);
            assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
        }
    }
    assert_eq!(asked, 11 * wrong.len());
    for open in ["/healthz", "/readyz", "/metrics"] {
        let request = gateway.client.get(format!("{}{open}", gateway.admin));
        assert_eq!(request.send().await.unwrap().status(), 200, "{open}");
    }
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    let installation = Installation::new("");
    installation.yes(&["check"]);
    let file = installation.path("data/admin.token");
    let token = std::fs::read_to_string(&file).unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    permissions.set_mode(0o640);
    std::fs::set_permissions(&file, permissions).unwrap();
    let (code, lines) = lines_of(&installation, &["check"]);
    assert_eq!(code, 1);
    let message = lines.last().unwrap()["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("admin.token") && message.contains("640"),
        "{message}"
    );
    let ran = installation.run(&["serve"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("admin.token") && !ran.err.contains(token.trim()));
}

#[test]
fn every_command_answers_in_json() {
    let installation = Installation::new("");
    installation.write("directory.toml", DIRECTORY);
    installation.write("report.xml", Absence::default().xml());
    let commands: [(&[&str], i32); 16] = [
        (&["check"], 0),
        (&["apply", "directory.toml", "--dry-run"], 0),
        (&["apply", "directory.toml"], 0),
        (&["apply", "none.toml"], 2),
        (&["key", "issue", "--party", "adp"], 0),
        (&["key", "issue", "--party", "nobody"], 1),
        (&["key", "list"], 0),
        (&["key", "revoke", "none"], 1),
        (&["validate", "report.xml"], 0),
        (&["validate", "report.xml", "--edition", "1900"], 2),
        (&["explain", "report.xml", "--party", "adp"], 0),
        (&["explain", "report.xml", "--party", "nobody"], 1),
        (&["dead", "list"], 0),
        (&["dead", "replay", "--all"], 0),
        (&["parked", "retry", "--all"], 0),
        (&["demo", "--once"], 2),
    ];
    for (arguments, expected) in commands {
        let (code, lines) = lines_of(&installation, arguments);
        assert_eq!(code, expected, "{arguments:?}: {lines:?}");
        let error = lines.last().map(|line| line["error"].clone());
        let kind = ["no", "environment"].get(usize::try_from(code - 1).unwrap_or(9));
        match kind {
            Some(kind) => assert_eq!(error.unwrap()["kind"], *kind, "{arguments:?}"),
            None => assert!(error.is_none_or(|error| error.is_null()), "{arguments:?}"),
        }
    }
    let (_, lines) = lines_of(&installation, &["apply", "directory.toml", "--dry-run"]);
    assert_eq!(
        lines,
        [json!({ "dry_run": true, "applied": false, "changes": [] })]
    );
    let (_, lines) = lines_of(&installation, &["key", "list"]);
    let id = lines[0]["id"].as_str().unwrap();
    let (_, lines) = lines_of(&installation, &["key", "revoke", id]);
    assert_eq!(lines, [json!({ "id": id, "revoked": true })]);
}

/// What a command says of a receiver that cannot be pushed to, or no longer is.
#[test]
fn a_receiver_that_cannot_be_pushed_to_does_not_seem_to_work() {
    let installation = Installation::new("");
    let pushed = DIRECTORY.replace(
        "sender_ids = [\"ARBONOORD\"]\n",
        "sender_ids = [\"ARBONOORD\"]\ndelivery = { mode = \"push\", \
         url = \"https://arbo.example.nl/in\", secret = \"file:push.secret\" }\n",
    );
    let applied = |text: &str| {
        installation.write("directory.toml", text);
        installation.yes(&["apply", "directory.toml"]);
    };
    applied(&pushed);
    let (code, lines) = lines_of(&installation, &["push", "list"]);
    assert_eq!(code, 0);
    let fault = "delivery.secret: the file cannot be read";
    for (line, test) in lines.iter().zip([false, true]) {
        assert_eq!(
            (&line["state"], &line["test"]),
            (&json!("unusable"), &json!(test))
        );
        assert!(line["fault"].as_str().unwrap().starts_with(fault), "{line}");
    }
    let text = installation.yes(&["push", "list"]);
    assert!(text.contains("unusable") && text.contains(fault), "{text}");

    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    installation.write("push.secret", secret);
    let (_, lines) = lines_of(&installation, &["push", "list"]);
    assert_eq!(
        (&lines[0]["state"], &lines[0]["fault"]),
        (&json!("works"), &Value::Null)
    );

    // What stopped it can be undone after it changed to polling.
    let arbo = ["--party", "arbo-noord"];
    let push = |action| lines_of(&installation, &[&["push", action], &arbo[..]].concat());
    assert_eq!(push("pause").0, 0);
    applied(DIRECTORY);
    assert!(lines_of(&installation, &["push", "list"]).1.is_empty());
    assert_eq!(push("pause").0, 1, "there is nothing to stop");
    let resumed =
        json!({ "party": "arbo-noord", "test": false, "state": "works", "changed": true });
    assert_eq!(push("resume"), (0, vec![resumed]));
    let nobody = ["push", "resume", "--party", "arbo-zuid"];
    assert_eq!(lines_of(&installation, &nobody).0, 1);
    let untold = ["push", "resume", "--party", "arbo-noord", "--test"];
    assert_eq!(lines_of(&installation, &untold).0, 1);
}

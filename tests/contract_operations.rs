//! The contract of commands, configuration and monitoring, with the real
//! binary.

mod binary;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use binary::{Installation, sample};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Absence, DIRECTORY, Gateway, problem};

fn installed() -> Installation {
    let installation = Installation::new("");
    installation.write("directory.toml", DIRECTORY);
    installation.yes(&["apply", "directory.toml"]);
    installation
}

fn key_of(installation: &Installation, more: &[&str]) -> String {
    let arguments = [&["key", "issue", "--party", "adp"], more].concat();
    let out = installation.yes(&arguments);
    assert_eq!(out.lines().count(), 1, "the key stands alone");
    out.trim().to_owned()
}

/// Asks until the answer is `status`; the contract gives five seconds.
async fn becomes(client: &reqwest::Client, url: &str, key: &str, status: u16) {
    let started = Instant::now();
    loop {
        let request = client.get(format!("{url}/v1/inbox/feed")).bearer_auth(key);
        let found = request.send().await.unwrap().status();
        if found == StatusCode::from_u16(status).unwrap() {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "still {found} after five seconds"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_issued_listed_and_revoked_while_the_daemon_runs() {
    let installation = installed();
    let daemon = installation.serve();
    let client = installation.client();
    let key = key_of(&installation, &[]);
    becomes(&client, &daemon.url, &key, 200).await;

    // The secret matters, and only whole.
    let (head, _) = key.rsplit_once('_').unwrap();
    for wrong in [
        format!("{key}x"),
        format!("{head}_"),
        head.to_owned(),
        key.replace("sgw", "SGW"),
        key.chars().rev().collect(),
    ] {
        let request = client
            .get(format!("{}/v1/inbox/feed", daemon.url))
            .bearer_auth(&wrong);
        problem(request.send().await.unwrap(), 401).await;
    }
    let basic = client
        .get(format!("{}/v1/inbox/feed", daemon.url))
        .basic_auth("adp", Some(&key));
    problem(basic.send().await.unwrap(), 401).await;

    let dated = key_of(&installation, &["--days", "2"]);
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let listed = installation.yes(&["key", "list", "--format", "json"]);
    let listed: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len(), 2);
    let find = |wanted: &str| listed.iter().find(|line| line["id"] == wanted).unwrap();
    assert!(find(&id(&key))["expires"].is_null());
    assert!(find(&id(&dated))["expires"].is_string());
    assert_eq!(find(&id(&dated))["party"], "adp");
    let text = installation.yes(&["key", "list"]);
    assert!(text.contains(&id(&key)) && text.contains("never"));
    let secret = key.split_once('_').unwrap().1.split_once('_').unwrap().1;
    assert!(!text.contains(secret), "the list shows a secret");

    installation.yes(&["key", "revoke", &id(&key)]);
    becomes(&client, &daemon.url, &key, 401).await;
    becomes(&client, &daemon.url, &dated, 200).await;
    assert!(installation.yes(&["key", "list"]).contains("revoked"));
    assert_eq!(installation.run(&["key", "revoke", "nonsense"]).code, 1);
    for (arguments, code) in [
        (["--party", "nobody"], 1),
        (["--party", "NO BODY"], 1),
        (["--days", "3"], 2),
    ] {
        let arguments = [&["key", "issue"], &arguments[..]].concat();
        let ran = installation.run(&arguments);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{}", ran.err);
    }
    let ran = installation.run(&["key", "issue", "--party", "adp", "--days", "0"]);
    assert_eq!(ran.code, 2);
    // The secret is nowhere in the data folder.
    for entry in std::fs::read_dir(installation.path("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found);
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    assert!(!log.concat().contains(secret));
    let last_used = installation.yes(&["key", "list", "--format", "json"]);
    assert!(
        last_used
            .lines()
            .any(|line| !serde_json::from_str::<Value>(line).unwrap()["last_used"].is_null()),
        "{last_used}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_no_key() {
    let gateway = Gateway::boot().await;
    let base = &gateway.base;
    let key = sivi_gateway::access::NewKey::generate(&base.keys);
    let stored = sivi_gateway::store::ApiKey {
        id: key.id.clone(),
        party: sivi_gateway::domain::PartyId::parse("adp").unwrap(),
        hash: key.hash,
        created_at: gateway.clock.now(),
        expires_at: Some(gateway.clock.now() + jiff::SignedDuration::from_hours(24)),
        revoked_at: None,
        last_used_at: None,
    };
    base.store.insert_api_key(stored).await.unwrap();
    becomes(&gateway.client, &gateway.url, key.text(), 200).await;
    gateway.clock.advance(Duration::from_hours(25));
    becomes(&gateway.client, &gateway.url, key.text(), 401).await;
    gateway.stop().await;
}

#[test]
fn a_directory_is_shown_applied_and_pruned() {
    let installation = Installation::new("");
    installation.write("directory.toml", DIRECTORY);
    let dry = installation.yes(&["apply", "directory.toml", "--dry-run"]);
    assert!(dry.contains("bakkerij") && dry.contains("dry run"), "{dry}");
    let applied = installation.yes(&["apply", "directory.toml"]);
    assert!(applied.contains("arbo-noord") && applied.contains("applied"));
    let again = installation.yes(&["apply", "directory.toml"]);
    assert_eq!(again, "nothing to change\n");

    // Without --prune, what is not named stays.
    let half = DIRECTORY.replace(
        r#"[[party]]
id = "arbo-zuid"
name = "Arbo Zuid"
kind = "arbodienst"
receiver_id = "ARBOZUID"
sender_ids = ["ARBOZUID"]
"#,
        "",
    );
    assert_ne!(half, DIRECTORY);
    installation.write("half.toml", half.replace("Arbo Noord", "Arbo Noordoost"));
    let diff = installation.yes(&["apply", "half.toml", "--dry-run", "--prune"]);
    assert!(
        diff.contains("arbo-zuid") && diff.contains("Noordoost"),
        "{diff}"
    );
    let changed = installation.yes(&["apply", "half.toml"]);
    assert!(!changed.contains("arbo-zuid"), "{changed}");
    let pruned = installation.yes(&["apply", "half.toml", "--prune"]);
    assert!(pruned.contains("arbo-zuid"), "{pruned}");
    let check = installation.yes(&["check"]);
    assert!(check.contains("3 parties, 1 tenants"), "{check}");

    // Refused: overlapping employers of one source, an unknown party, a typing error.
    let tenant = DIRECTORY.split("[[tenant]]").nth(1).unwrap();
    let twin = format!(
        "{DIRECTORY}\n[[tenant]]{}",
        tenant.replace("bakkerij", "tweede")
    );
    installation.write("twin.toml", twin);
    let ran = installation.run(&["apply", "twin.toml"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("twin.toml"), "{}", ran.err);
    installation.write(
        "typo.toml",
        DIRECTORY.replace("sender_ids = [\"ADP\"]", "sendr_ids = [\"ADP\"]"),
    );
    let ran = installation.run(&["apply", "typo.toml"]);
    assert!(ran.code != 0 && ran.out.is_empty());
    assert!(
        ran.err.contains("typo.toml:6") && ran.err.contains("sendr_ids"),
        "{}",
        ran.err
    );
    let ran = installation.run(&["apply", "none.toml"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("none.toml"), "{}", ran.err);
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    for (more, key, line) in [
        ("lissten = \"x\"", "lissten", 5),
        ("[limits]\nmax_body_byte = 1", "max_body_byte", 6),
        ("[limits]\nmax_body_bytes = 0", "max_body_bytes", 6),
        ("[tls]\ncert = \"a.pem\"", "tls.cert", 6),
        ("[policy]\nwindow_days = \"x\"", "window_days", 6),
    ] {
        let installation = Installation::new(more);
        for command in [&["check"][..], &["serve"], &["key", "list"]] {
            let ran = installation.run(command);
            assert_eq!(ran.code, 2, "{command:?} {more}: {}{}", ran.out, ran.err);
            assert!(ran.err.contains(key), "{more}: {}", ran.err);
            let place = format!("gateway.toml:{line}");
            assert!(ran.err.contains(&place), "{more}: {}", ran.err);
        }
    }
    let installation = Installation::new("");
    std::fs::remove_file(installation.path("gateway.toml")).unwrap();
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 2, "a named file that is missing: {}", ran.out);
    assert_eq!(installation.run(&["nonsense"]).code, 2);
    assert_eq!(installation.run(&[]).code, 2);
}

#[test]
fn check_says_no_to_what_would_make_serve_fail() {
    let installation = Installation::new("");
    let out = installation.yes(&["check"]);
    for word in [
        "configuration",
        "certificate",
        "alerts",
        "traces",
        "schemas",
        "mappings",
        "policy",
        "database",
        "directory",
    ] {
        assert!(out.contains(&format!("ok  {word}")), "{out}");
    }
    let broken = |more: &str, files: &[(&str, &str)]| {
        let installation = Installation::new(more);
        for (name, text) in files {
            let path = installation.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let ran = installation.run(&["check"]);
        assert_eq!(ran.code, 1, "{more}: {}{}", ran.out, ran.err);
        let serve = installation.run(&["serve"]);
        assert_eq!(serve.code, 2, "{more}: {}", serve.err);
        ran.err
    };
    let err = broken("tls.cert = \"a.pem\"\ntls.key = \"a.key\"", &[]);
    assert!(err.contains("a.pem"), "{err}");
    let files = [("a.pem", "nonsense"), ("a.key", "nonsense")];
    broken("tls.cert = \"a.pem\"\ntls.key = \"a.key\"", &files);
    let err = broken(
        "paths.mappings = \"m\"",
        &[("m/adp.toml", "nonsense = true\n")],
    );
    assert!(err.contains("adp.toml"), "{err}");
    broken("", &[("data/gateway.db", &"nonsense ".repeat(1000))]);
    broken("", &[("data", "a file in place of the folder")]);

    // A data key that does not fit the database.
    let installation = installed();
    std::fs::remove_file(installation.path("data/data.key")).unwrap();
    assert_eq!(installation.run(&["check"]).code, 1);
}

#[test]
fn validate_answers_in_text_json_and_exit_code() {
    let installation = Installation::new("");
    let good = sample("tests/samples/valid/Verzuimmeldingen.minimal.xml");
    let good_text = std::fs::read_to_string(&good).unwrap();
    let good = good.to_str().unwrap();
    installation.write(
        "bad.xml",
        good_text.replace("<Gebdat>1984-02-29", "<Gebdat>1983-02-29"),
    );
    installation.write("broken.xml", "<a>");
    installation.write("other.xml", "<Loonaangifte/>");
    assert_eq!(installation.run(&["validate", good]).code, 0);
    for (file, code) in [
        ("bad.xml", 1),
        ("broken.xml", 1),
        ("other.xml", 1),
        ("none.xml", 2),
    ] {
        let ran = installation.run(&["validate", good, file]);
        assert_eq!(ran.code, code, "{file}: {}{}", ran.out, ran.err);
        let ran = installation.run(&["validate", "--schema-only", good, file]);
        assert_eq!(ran.code, code, "{file}: {}{}", ran.out, ran.err);
    }
    let line = 1 + good_text[..good_text.find("<Gebdat>").unwrap()]
        .matches('\n')
        .count();
    let text = installation.run(&["validate", "bad.xml"]).out;
    assert!(text.contains(&format!("bad.xml:{line}:7: error")), "{text}");
    assert!(text.lines().any(|line| line.trim() == "^"), "{text}");
    let ran = installation.run(&["validate", "--format", "json", good, "bad.xml"]);
    let lines: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["file"], good);
    assert_eq!(lines[0]["valid"], true);
    assert_eq!(lines[1]["valid"], false);
    assert_eq!(lines[1]["file"], "bad.xml");
    assert_eq!(lines[1]["message_type"], "Verzuimmeldingen");
    assert_eq!(lines[1]["edition"], "2017");
    assert_eq!(lines[1]["findings"][0]["line"], line);
    assert_eq!(
        installation
            .run(&["validate", good, "--edition", "1999"])
            .code,
        2
    );
    assert_eq!(installation.run(&["validate"]).code, 2);
    // Not even a data folder is made for it.
    assert!(!installation.path("data").exists());
}

#[test]
fn explain_names_rules_and_no_persons() {
    let installation = installed();
    let report = Absence {
        bsn: Some("111222333".to_owned()),
        surname: "Vries".to_owned(),
        free_text: Some("Vries is bij de dokter".to_owned()),
        ..Absence::default()
    };
    installation.write("report.xml", report.xml());
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "report.xml", "--party", "adp"], more].concat();
        installation.yes(&arguments)
    };
    let report_json: Value =
        serde_json::from_str(&explain(&["--format", "json", "--as-of", "2026-11-22"])).unwrap();
    let route = &report_json["routes"][0];
    assert_eq!(route["to"], "arbo-noord");
    assert_eq!(route["domain"], "arbodienst");
    assert_eq!(route["persons_passed"], 1);
    assert_eq!(route["persons_withheld"], 0);
    assert_eq!(route["valid"], true);
    assert!(route["elements_stripped"].as_u64().unwrap() >= 1);
    assert!(route["rules"][0]["rule"].is_string() && route["rules"][0]["count"].is_u64());
    assert!(report_json["parked"].is_array() && report_json["findings"].is_array());
    let text = explain(&[]);
    for output in [text, report_json.to_string()] {
        for secret in ["111222333", "Vries", "W-1", "VG-1", "1980-02-29", "dokter"] {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
    let before = explain(&["--as-of", "2018-01-31"]);
    assert!(before.contains("would be refused") && before.contains("no_agreement"));
    for (arguments, code) in [
        (["report.xml", "--party", "nobody"], 1),
        (["none.xml", "--party", "adp"], 2),
        (["report.xml", "--as-of", "2026-11-22"], 2),
    ] {
        let arguments = [&["explain"], &arguments[..]].concat();
        assert_eq!(installation.run(&arguments).code, code, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_sees_health_and_metrics_and_parties_only_health() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", Absence::default().xml()).await;
    let get = async |url: String| gateway.client.get(url).send().await.unwrap();
    for base in [&gateway.url, &gateway.admin] {
        let alive = get(format!("{base}/healthz")).await;
        assert_eq!(
            alive.json::<Value>().await.unwrap(),
            json!({"status": "alive"})
        );
        let ready: Value = get(format!("{base}/readyz")).await.json().await.unwrap();
        assert_eq!(ready["status"], "ready");
    }
    problem(get(format!("{}/metrics", gateway.url)).await, 404).await;
    problem(get(format!("{}/v1/messages", gateway.admin)).await, 404).await;
    let wrong = gateway.client.post(format!("{}/metrics", gateway.admin));
    problem(wrong.send().await.unwrap(), 405).await;
    let metrics = get(format!("{}/metrics", gateway.admin)).await;
    assert_eq!(metrics.status(), 200);
    let metrics = metrics.text().await.unwrap();
    for line in [
        "sivi_messages_accepted_total",
        "sivi_queue_due{party=\"arbo-noord\",test=\"false\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} not in {metrics}");
    }
    for secret in ["W-1", "VG-1", "Vries"] {
        assert!(!metrics.contains(secret));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_in_the_openapi_document() {
    let gateway = Gateway::boot().await;
    let response = gateway
        .client
        .get(format!("{}/openapi.json", gateway.url))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.clone()))
        })
        .collect();
    // What the sources route on the parties' side.
    let mut routed = BTreeSet::new();
    for source in [
        "src/receive/routes.rs",
        "src/deliver/inbox.rs",
        "src/admin.rs",
        "src/http/mod.rs",
    ] {
        let text = std::fs::read_to_string(sample(source)).unwrap();
        let text: String = text.split_whitespace().collect();
        for route in text.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once("\",").unwrap();
            let end = rest.find(';').unwrap_or(rest.len());
            let calls = rest[..end].split(".route(").next().unwrap();
            for method in ["get", "post", "put", "delete", "patch"] {
                if calls.starts_with(&format!("{method}("))
                    || calls.contains(&format!(").{method}("))
                {
                    routed.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
    }
    assert_eq!(routed, documented);
    // Every reference leads somewhere, and every path really answers.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1) {
        let path = reference.split('"').next().unwrap();
        assert!(document.pointer(&format!("/{path}")).is_some(), "{path}");
    }
    for (path, method) in documented {
        let side = if path == "/metrics" {
            &gateway.admin
        } else {
            &gateway.url
        };
        let url = format!("{side}{}", path.replace("{id}", "none"));
        let request = gateway
            .client
            .request(method.to_uppercase().parse().unwrap(), url)
            .bearer_auth(&gateway.keys["adp"]);
        let status = request.send().await.unwrap().status().as_u16();
        let responses = &document["paths"][&path][&method]["responses"];
        assert!(
            responses[status.to_string()].is_object(),
            "{method} {path}: {status}"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_change_reaches_the_running_daemon() {
    let installation = installed();
    let daemon = installation.serve();
    let client = installation.client();
    let key = key_of(&installation, &[]);
    becomes(&client, &daemon.url, &key, 200).await;
    let post = async |xml: String| {
        let request = client.post(format!("{}/v1/messages", daemon.url));
        request
            .bearer_auth(&key)
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(xml)
            .send()
            .await
            .unwrap()
    };
    let from_new_id = || Absence {
        sender: "ADP2",
        ..Absence::default()
    };
    problem(post(from_new_id().xml()).await, 403).await;
    installation.write(
        "directory.toml",
        DIRECTORY.replace("sender_ids = [\"ADP\"]", "sender_ids = [\"ADP\", \"ADP2\"]"),
    );
    installation.yes(&["apply", "directory.toml"]);
    let started = Instant::now();
    while post(from_new_id().xml()).await.status() != 202 {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    let log = log.concat();
    assert!(log.contains("Stopped"), "{log}");
    for secret in ["W-1", "VG-1", "Vries"] {
        assert!(!log.contains(secret));
    }
}

#[test]
fn a_signing_key_is_made_for_its_owner_and_only_its_public_half_is_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    let installation = Installation::new("");
    let path = installation.path("arbo.secret");
    let file = path.to_str().unwrap();
    let public = installation.yes(&["push", "make-key", file]);
    assert!(public.starts_with("whpk_") && public.lines().count() == 1);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(installation.yes(&["push", "public-key", file]), public);
    let json = installation.yes(&["--format", "json", "push", "public-key", file]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, json!({ "file": file, "public_key": public.trim() }));
    // Never over a key that is there; a secret that both sides have is no pair.
    assert_eq!(installation.run(&["push", "make-key", file]).code, 2);
    std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let shared = installation.run(&["push", "public-key", file]);
    assert_eq!(shared.code, 1);
    assert!(shared.err.contains("whsec_") && !shared.err.contains("Mf"));
}

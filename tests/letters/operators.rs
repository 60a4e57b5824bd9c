//! The operators' side: its token, and what commands say about what waits.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

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

//! Metrics, alerts and traces of a real gateway: what is told, how often, and
//! what is not in it.

mod binary;
mod support;

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use sivi_gateway::app::App;
use sivi_gateway::watch::sign;
use sqlx::Connection as _;

use binary::Installation;
use support::receiver::{Receiver, SECRET, canary, names_nobody};
use support::{Absence, DIRECTORY, Gateway, START, employments, problem, settings};

/// Several looks.
async fn looks() {
    tokio::time::sleep(Duration::from_millis(3_500)).await;
}

async fn metrics(gateway: &Gateway) -> String {
    let request = gateway.client.get(format!("{}/metrics", gateway.admin));
    request.send().await.unwrap().text().await.unwrap()
}

/// The value of the line that begins with `series`.
#[track_caller]
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("{series} not in {metrics}"));
    line.trim().parse().unwrap()
}

/// The alerts of this name that an operator sees.
async fn shown(gateway: &Gateway, name: &str) -> Vec<Value> {
    let token = std::fs::read_to_string(gateway.folder.path().join("admin.token")).unwrap();
    let request = reqwest::Client::builder().build().unwrap();
    let request = request.get(format!("{}/admin/v1/alerts", gateway.admin));
    let answer = request.bearer_auth(token.trim()).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let alerts = answer["alerts"].as_array().unwrap().iter();
    alerts.filter(|one| one["name"] == name).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_age_alarm_is_told_once_and_not_again_after_a_restart() {
    let receiver = Receiver::start(true).await;
    let gateway = Gateway::boot_with(DIRECTORY, &receiver.settings()).await;
    let absence = canary();
    gateway.accept("adp", absence.xml()).await;
    gateway.clock.advance(Duration::from_hours(24));
    looks().await;
    assert_eq!(
        receiver.about("undelivered").len(),
        0,
        "24 hours are allowed"
    );
    gateway.clock.advance(Duration::from_secs(1));
    let raised = receiver.wait_for("undelivered", 1).await;
    let told = raised[0].json();
    assert_eq!(told["type"], "sivi-gateway.alert.raised");
    assert_eq!(told["severity"], "critical");
    assert_eq!(
        (&told["number"], &told["since"]),
        (&json!(1), &json!(START))
    );
    let subject = json!({
        "tenant": "bakkerij", "party": "arbo-noord", "domain": "arbodienst",
        "message_type": "Verzuimmeldingen",
    });
    assert_eq!(told["subject"], subject);

    let header = |name: &str| raised[0].headers[name].to_str().unwrap();
    let at: i64 = header("webhook-timestamp").parse().unwrap();
    let signature = sign(SECRET, header("webhook-id"), at, raised[0].body.as_bytes());
    assert_eq!(header("webhook-signature"), signature.unwrap());

    let alerts = shown(&gateway, "undelivered").await;
    assert_eq!((alerts.len(), &alerts[0]["subject"]), (1, &subject));

    let page = metrics(&gateway).await;
    let line = "sivi_alert_active{alert=\"undelivered\",severity=\"critical\",domain=\"arbodienst\",\
                message_type=\"Verzuimmeldingen\",party=\"arbo-noord\",tenant=\"bakkerij\"} 1";
    assert!(page.contains(line), "{page}");

    looks().await;
    let clock = gateway.clock.clone();
    let folder = gateway.stop().await;
    let settings = receiver.settings();
    let gateway = Box::pin(Gateway::boot_in(folder, clock, "", &settings)).await;
    looks().await;
    // A port of its own made it another node: the turn of the old one ends.
    gateway.clock.advance(Duration::from_secs(5));
    looks().await;
    assert_eq!(receiver.about("undelivered").len(), 1, "told again");
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    let told = receiver.wait_for("undelivered", 2).await;
    assert_eq!(told[1].json()["type"], "sivi-gateway.alert.cleared");
    looks().await;
    assert_eq!(receiver.about("undelivered").len(), 2);
    assert!(!metrics(&gateway).await.contains("alert=\"undelivered\""));
    assert!(shown(&gateway, "undelivered").await.is_empty());
    for got in receiver.got() {
        names_nobody(&got.body, &absence.berrefnr);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_hours_of_its_own_and_test_traffic_has_none() {
    let receiver = Receiver::start(true).await;
    let directory = DIRECTORY.replacen(
        "from = 2018-01-01\n",
        "from = 2018-01-01\nalarm_hours = 2\n",
        1,
    );
    let gateway = Gateway::boot_with(&directory, &receiver.settings()).await;
    let mut test = Absence::of("W-2", "VG-2");
    test.test = "J";
    gateway.accept("adp", test.xml()).await;
    gateway.clock.advance(Duration::from_hours(30));
    looks().await;
    assert_eq!(receiver.about("undelivered").len(), 0);
    gateway.accept("adp", canary().xml()).await;
    gateway.clock.advance(Duration::from_mins(121));
    assert_eq!(receiver.wait_for("undelivered", 1).await.len(), 1);
    // The clock was moved by a day and by two hours: one alert, kept up.
    assert_eq!(receiver.about("clock_jump").len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_tell_once_and_a_failing_webhook_is_told_later() {
    let receiver = Receiver::start(true).await;
    receiver.answer(StatusCode::INTERNAL_SERVER_ERROR);
    let gateway = Gateway::boot_with(DIRECTORY, &receiver.settings()).await;
    let more = settings(gateway.folder.path(), &receiver.settings());
    let other = App::bind(more, gateway.clock.clone()).await.unwrap();
    let stop = other.stop_token();
    let other = tokio::spawn(other.run());

    gateway.accept("adp", canary().xml()).await;
    let leased = gateway.lease("arbo-noord").await;
    let path = format!("/v1/inbox/{}/reject", leased[0]["id"].as_str().unwrap());
    let body = json!({ "lease": leased[0]["lease"], "code": "W-KANARIE", "reason": "Zonderling" });
    let rejected = gateway.post_json("arbo-noord", &path, body).await;
    assert_eq!(rejected.status(), 200);

    let first = receiver.wait_for("dead_letter", 1).await;
    looks().await;
    assert_eq!(
        receiver.about("dead_letter").len(),
        1,
        "it waits five seconds"
    );
    receiver.answer(StatusCode::NO_CONTENT);
    gateway.clock.advance(Duration::from_secs(6));
    let second = receiver.wait_for("dead_letter", 2).await;
    assert_eq!(
        first[0].headers["webhook-id"],
        second[1].headers["webhook-id"]
    );
    assert_eq!(first[0].body, second[1].body);
    looks().await;
    assert_eq!(
        receiver.about("dead_letter").len(),
        2,
        "one alert, one retry"
    );
    // Another one is told, once.
    gateway
        .accept("adp", Absence::of("W-7", "VG-7").xml())
        .await;
    let leased = gateway.lease("arbo-noord").await;
    let path = format!("/v1/inbox/{}/reject", leased[0]["id"].as_str().unwrap());
    let body = json!({ "lease": leased[0]["lease"], "code": "W-KANARIE", "reason": "Zonderling" });
    let rejected = gateway.post_json("arbo-noord", &path, body).await;
    assert_eq!(rejected.status(), 200);
    let third = receiver.wait_for("dead_letter", 3).await.remove(2).json();
    assert_eq!(
        (&third["transition"], &third["again"], &third["number"]),
        (&json!("raised"), &json!(true), &json!(2))
    );
    looks().await;
    assert_eq!(receiver.about("dead_letter").len(), 3);
    for got in receiver.got() {
        names_nobody(&got.body, "no reference");
    }
    stop.cancel();
    other.await.unwrap().unwrap();
    gateway.stop().await;
}

async fn behind(gateway: &Gateway, statements: &[&'static str]) {
    let path = gateway.folder.path().join("gateway.db");
    let url = format!("sqlite:{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for statement in statements {
        sqlx::query(*statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_behind_its_back_is_unaccounted_and_an_alarm() {
    let receiver = Receiver::start(true).await;
    let gateway = Gateway::boot_with(DIRECTORY, &receiver.settings()).await;
    for person in ["W-1", "W-2", "W-3"] {
        let absence = Absence::of(person, &format!("VG-{person}"));
        gateway.accept("adp", absence.xml()).await;
    }
    looks().await;
    assert_eq!(receiver.about("unaccounted").len(), 0);
    let page = metrics(&gateway).await;
    shows(&page, &[("sivi_messages_unaccounted ", 0.0)]);

    behind(
        &gateway,
        &[
            "DELETE FROM delivery WHERE sequence = 2",
            "UPDATE delivery SET state = 'taken_over', finished_at = 1 WHERE sequence = 3",
            // What cannot be read hides nothing else.
            "INSERT INTO api_key (id, party, hash, created_at) VALUES ('k', '!', x'00', 0)",
        ],
    )
    .await;
    let raised = receiver.wait_for("unaccounted", 1).await;
    assert_eq!(raised[0].json()["number"], 2);
    assert_eq!(raised[0].json()["severity"], "critical");
    let page = metrics(&gateway).await;
    shows(&page, &[("sivi_messages_unaccounted ", 2.0)]);

    behind(
        &gateway,
        &[
            "UPDATE delivery SET state = 'offered', finished_at = NULL WHERE sequence = 3",
            "UPDATE message SET parts = 0 WHERE id NOT IN (SELECT message_id FROM delivery)",
        ],
    )
    .await;
    let cleared = receiver.wait_for("unaccounted", 2).await;
    assert_eq!(cleared[1].json()["transition"], "cleared");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_told_without_it() {
    let receiver = Receiver::start(true).await;
    let gateway = Gateway::boot_with(DIRECTORY, &receiver.settings()).await;
    let path = gateway.folder.path().join("gateway.db");
    let url = format!("sqlite:{}", path.display());
    let mut locker = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut locker)
        .await
        .unwrap();
    let raised = receiver.wait_for("database_failing", 1).await;
    assert_eq!(raised[0].json()["transition"], "raised");
    assert!(
        metrics(&gateway)
            .await
            .contains("alert=\"database_failing\"")
    );
    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    let cleared = receiver.wait_for("database_failing", 2).await;
    assert_eq!(cleared[1].json()["transition"], "cleared");
    assert!(
        !metrics(&gateway)
            .await
            .contains("alert=\"database_failing\"")
    );
    gateway.stop().await;
}

/// Asserts the values of series.
#[track_caller]
fn shows(metrics: &str, expected: &[(&str, f64)]) {
    for (series, expected) in expected {
        let found = value(metrics, series);
        let is_same = (found - expected).abs() < 1e-9;
        assert!(is_same, "{series} is {found}, not {expected}: {metrics}");
    }
}

/// Two reports, one of them again, two persons who are not sick, an employer
/// that nobody knows, and three that are refused. Gives a reference, and the
/// code of what was invalid.
async fn known_run(gateway: &Gateway) -> (String, String) {
    let absence = canary();
    gateway.accept("adp", absence.xml()).await;
    let again = gateway.post("adp", absence.xml()).await;
    assert_eq!(again.status(), 200);
    let well = [("W-9", "1990-01-01", "D-9"), ("W-8", "1991-01-01", "D-8")];
    gateway.accept("adp", employments("ADP", &well)).await;
    let mut lost = Absence::of("W-3", "VG-3");
    lost.employer = ("999", "1");
    gateway.accept("adp", lost.xml()).await;
    let wrong = canary().xml().replace("2026-11-20", "never");
    let invalid = problem(gateway.post("adp", wrong).await, 422).await;
    let code = invalid["findings"][0]["code"].as_str().unwrap().to_owned();
    problem(gateway.post("adp", "<a>").await, 400).await;
    let nobody = gateway.client.post(format!("{}/v1/messages", gateway.url));
    problem(nobody.send().await.unwrap(), 401).await;
    (absence.berrefnr, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_a_known_run() {
    let gateway = Gateway::boot().await;
    let (berrefnr, code) = known_run(&gateway).await;
    let leased = gateway.lease_with("arbo-noord", "ttl=10").await;
    assert_eq!(leased.len(), 1);
    gateway.clock.advance(Duration::from_secs(611));
    let page = metrics(&gateway).await;
    let route = "{tenant=\"bakkerij\",party=\"arbo-noord\",domain=\"arbodienst\",test=\"false\"}";
    shows(
        &page,
        &[
            ("sivi_queue_due{party=\"arbo-noord\",test=\"false\"}", 1.0),
            (
                "sivi_queue_oldest_seconds{party=\"arbo-noord\",test=\"false\"}",
                611.0,
            ),
            (&format!("sivi_route_due{route}"), 1.0),
            (&format!("sivi_route_oldest_seconds{route}"), 611.0),
        ],
    );
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);

    let page = metrics(&gateway).await;
    let accepted = |replay: &str, kind: &str| {
        format!(
            "sivi_messages_accepted_total\
             {{replay=\"{replay}\",party=\"adp\",message_type=\"{kind}\",test=\"false\"}}"
        )
    };
    shows(
        &page,
        &[
            (&accepted("false", "Verzuimmeldingen"), 2.0),
            (&accepted("true", "Verzuimmeldingen"), 1.0),
            (&accepted("false", "Dienstverbanden"), 1.0),
        ],
    );
    let refused = format!("sivi_messages_refused_total{{code=\"{code}\",status=\"422\"}}");
    assert!(value(&page, &refused) >= 1.0);
    shows(&page, AFTER_THE_RUN);
    assert!(!page.contains("sivi_route_due{"), "nothing waits: {page}");
    assert!(value(&page, "sivi_commit_seconds_count") > 3.0);
    assert!(value(&page, "sivi_commit_jobs_bucket{le=\"512\"}") > 3.0);
    assert!(value(&page, "sivi_database_bytes ") > 4_096.0);
    assert!(value(&page, "process_resident_memory_bytes ") > 1e6);
    for (name, kind) in [
        ("sivi_commit_seconds", "histogram"),
        ("sivi_queue_due", "gauge"),
        ("sivi_withheld_total", "counter"),
    ] {
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{page}");
        assert!(page.contains(&format!("# HELP {name} ")), "{page}");
    }
    names_nobody(&page, &berrefnr);
    gateway.stop().await;
}

const AFTER_THE_RUN: &[(&str, f64)] = &[
    (
        "sivi_requests_refused_total{status=\"422\",kind=\"invalid\"}",
        1.0,
    ),
    (
        "sivi_requests_refused_total{status=\"400\",kind=\"malformed\"}",
        1.0,
    ),
    (
        "sivi_requests_refused_total{status=\"401\",kind=\"unauthorized\"}",
        1.0,
    ),
    (
        "sivi_withheld_total{domain=\"arbodienst\",rule=\"person_not_sick\"}",
        2.0,
    ),
    ("sivi_parked_total{reason=\"employer_unknown\"}", 1.0),
    (
        "sivi_parked{party=\"adp\",reason=\"employer_unknown\"}",
        1.0,
    ),
    (
        "sivi_lease_expiries_total{party=\"arbo-noord\",mode=\"poll\"}",
        1.0,
    ),
    ("sivi_messages_leased_total", 2.0),
    ("sivi_messages_acknowledged_total", 1.0),
    (
        "sivi_takeover_seconds_count{domain=\"arbodienst\",mode=\"poll\"}",
        1.0,
    ),
    (
        "sivi_takeover_seconds_sum{domain=\"arbodienst\",mode=\"poll\"}",
        611.0,
    ),
    (
        "sivi_takeover_seconds_bucket{domain=\"arbodienst\",mode=\"poll\",le=\"300\"}",
        0.0,
    ),
    (
        "sivi_takeover_seconds_bucket{domain=\"arbodienst\",mode=\"poll\",le=\"1800\"}",
        1.0,
    ),
    ("sivi_queue_due{party=\"arbo-noord\",test=\"false\"}", 0.0),
    ("sivi_queue_due{party=\"adp\",test=\"false\"}", 0.0),
    ("sivi_messages_unaccounted ", 0.0),
    ("sivi_routes_not_shown ", 0.0),
];

#[test]
fn settings_that_speak_in_the_clear_or_cannot_sign_are_refused() {
    let installation = Installation::new("[alerts]\nurl = \"http://example.nl/hook\"\n");
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("alerts.url: must be https"), "{}", ran.err);
    // The host is what stands behind the @.
    let elsewhere = "http://127.0.0.1:80@192.0.2.1/hush";
    for (section, key) in [("alerts", "url"), ("trace", "endpoint")] {
        for address in [elsewhere, "https://:443/hush", "https://hush@example.nl/"] {
            let installation = Installation::new(&format!("[{section}]\n{key} = \"{address}\"\n"));
            for command in ["check", "serve"] {
                let ran = installation.run(&[command]);
                assert_eq!(ran.code, 2, "{command} {address}: {}", ran.err);
                let wrong = format!("{section}.{key}: must be https");
                assert!(ran.err.contains(&wrong), "{}", ran.err);
                assert!(!ran.err.contains("hush"), "{}", ran.err);
            }
        }
    }
    let installation = Installation::new("[alerts]\nsecret = \"hush\"\n");
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("alerts.secret") && !ran.err.contains("hush"),
        "{}",
        ran.err
    );
}

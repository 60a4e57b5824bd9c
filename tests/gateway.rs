//! The main road, over real TLS: a report goes in, its receiver gets it.

mod support;

use serde_json::{Value, json};
use sivi_gateway::store::{Expired, Terms};
use support::{Absence, Gateway, employments};

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_report_reaches_its_receiver_without_the_number() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        bsn: Some("111222333".to_owned()),
        ..Absence::default()
    };
    let receipt = gateway.accept("adp", report.xml()).await;
    assert_eq!(receipt["message_type"], "Verzuimmeldingen");
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 1);
    assert!(
        taken[0].contains("<IdWrknmr>W-1</IdWrknmr>"),
        "{}",
        taken[0]
    );
    assert!(
        taken[0].contains("<IdWrkgvrArbdnst>N-105</IdWrkgvrArbdnst>"),
        "{}",
        taken[0]
    );
    assert!(
        taken[0].contains("<IdOntvngr>ARBONOORD</IdOntvngr>"),
        "{}",
        taken[0]
    );
    assert!(!taken[0].contains("111222333"));
    let id = receipt["id"].as_str().unwrap();
    let status: Value = gateway
        .get("adp", &format!("/v1/messages/{id}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(status["state"], "taken_over", "{status}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn employments_pass_for_the_sick_and_for_nobody_else() {
    let gateway = Gateway::boot().await;
    gateway
        .accept("adp", Absence::of("W-1", "VG-1").xml())
        .await;
    gateway.take("arbo-noord").await;
    let change = employments(
        "ADP",
        &[
            ("W-1", "1980-02-29", "D-1"),
            ("W-2", "1990-01-01", "D-2"),
            ("W-1", "1980-02-29", "D-9"),
        ],
    );
    gateway.accept("adp", change).await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(taken[0].contains("D-1"), "{}", taken[0]);
    assert!(
        !taken[0].contains("W-2") && !taken[0].contains("D-9"),
        "{}",
        taken[0]
    );
    gateway
        .accept("adp", employments("ADP", &[("W-1", "1981-01-01", "D-1")]))
        .await;
    assert!(
        gateway.take("arbo-noord").await.is_empty(),
        "a key used again by somebody else"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_gets_the_same_receipt() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    let first = gateway.accept("adp", report.xml()).await;
    let again = gateway.post("adp", report.xml()).await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.headers()["idempotent-replay"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    let other = Absence {
        surname: "Bakker".to_owned(),
        ..report
    };
    assert_eq!(gateway.post("adp", other.xml()).await.status(), 409);
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_goes_when_it_gets_a_route_and_before_newer_reports() {
    let gateway = Gateway::boot().await;
    let new_employer = ("200", "7000");
    let report = Absence {
        employer: new_employer,
        bsn: Some("111222333".to_owned()),
        ..Absence::of("W-7", "VG-7")
    };
    let receipt = gateway.accept("adp", report.xml()).await;
    assert_eq!(
        receipt["findings"][0]["code"], "employer_unknown",
        "{receipt}"
    );
    assert!(gateway.lease("arbo-noord").await.is_empty());
    gateway
        .apply(
            r#"
[[tenant]]
id = "garage"
name = "Garage"
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2" }
employer_keys = [{ IdWrkgvrArbdnst = "200", AansltnrGeguitwlngArbdnst = "7000" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
"#,
        )
        .await;
    let next = Absence {
        employer: new_employer,
        number: 2,
        action: "02",
        ..Absence::of("W-7", "VG-7")
    };
    gateway.accept("adp", next.xml()).await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(taken[0].contains("<VrzmgvlVnrMld>1</VrzmgvlVnrMld>"));
    assert!(taken[1].contains("<VrzmgvlVnrMld>2</VrzmgvlVnrMld>"));
    assert!(!taken[0].contains("111222333"));
    let id = receipt["id"].as_str().unwrap();
    let status: Value = gateway
        .get("adp", &format!("/v1/messages/{id}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(status["state"], "taken_over", "{status}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_waits_for_the_report_that_it_corrects() {
    let gateway = Gateway::boot().await;
    let correction = Absence {
        action: "03",
        first_day: "2026-11-19".to_owned(),
        ..Absence::default()
    };
    let receipt = gateway.accept("adp", correction.xml()).await;
    assert_eq!(receipt["findings"][0]["code"], "case_unknown", "{receipt}");
    assert!(gateway.lease("arbo-noord").await.is_empty());
    gateway.accept("adp", Absence::default().xml()).await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(
        taken[1].contains("<VrwrkCd>03</VrwrkCd><IngdatMutVrzm>2026-11-19"),
        "{}",
        taken[1]
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_poller_is_woken_by_a_report() {
    let gateway = Gateway::boot().await;
    let waiting = gateway.lease_with("arbo-noord", "wait=20");
    let sending = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        gateway.accept("adp", Absence::default().xml()).await;
        std::time::Instant::now()
    };
    let (leased, sent) = tokio::join!(waiting, sending);
    assert_eq!(leased.len(), 1);
    assert!(sent.elapsed() < std::time::Duration::from_secs(2));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retourmelding_is_matched_and_shown_to_the_sender() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    let receipt = gateway.accept("adp", report.xml()).await;
    let taken = gateway.take("arbo-noord").await;
    let reference = taken[0]
        .split("<Berrefnr>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    let answer = |answered: &str| {
        let header = support::header(
            "99999",
            "00001",
            "ARBONOORD",
            "ADP",
            &uuid::Uuid::new_v4().to_string(),
            "N",
        );
        let header = header
            .replace(
                "<TestJN>",
                &format!("<BerrefnrIngzndnBer>{answered}</BerrefnrIngzndnBer><TestJN>"),
            )
            .replace("</BrAlg>", "<SrtRetmldngCd>03</SrtRetmldngCd></BrAlg>");
        format!(
            "<Retourmelding1 xmlns=\"http://www.sivi.org/Verzuimmanagement/Retourmelding1/2017\">{header}\
             <Foutmldng><SrtFoutCd>99</SrtFoutCd><Toelchtng>Jansen is onbekend</Toelchtng></Foutmldng></Retourmelding1>"
        )
    };
    assert_eq!(
        gateway
            .post("arbo-noord", answer("SGW-unknown"))
            .await
            .status(),
        422
    );
    gateway.accept("arbo-noord", answer(reference)).await;
    let id = receipt["id"].as_str().unwrap();
    let status: Value = gateway
        .get("adp", &format!("/v1/messages/{id}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(status["state"], "refused", "{status}");
    let shown = gateway.take("adp").await;
    assert_eq!(shown.len(), 1);
    assert!(
        shown[0].contains(&format!(
            "<BerrefnrIngzndnBer>{}</BerrefnrIngzndnBer>",
            report.berrefnr
        )),
        "{}",
        shown[0]
    );
    assert!(
        !shown[0].contains("Jansen"),
        "explanations quote names: {}",
        shown[0]
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateway_goes_on_where_it_was() {
    let gateway = Gateway::boot().await;
    gateway.accept("adp", Absence::default().xml()).await;
    let clock = gateway.clock.clone();
    let folder = gateway.stop().await;
    let gateway = Gateway::boot_in(folder, clock, "", "").await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway
        .accept("adp", employments("ADP", &[("W-1", "1980-02-29", "D-1")]))
        .await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    let health: Value = gateway
        .client
        .get(format!("{}/readyz", gateway.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["status"], json!("ready"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_over_is_removed_after_its_time() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    gateway.accept("adp", report.xml()).await;
    gateway
        .accept("adp", Absence::of("W-2", "VG-2").xml())
        .await;
    let leased = gateway.lease_with("arbo-noord", "limit=1").await;
    let id = leased[0]["id"].as_str().unwrap().to_owned();
    gateway
        .post_json("arbo-noord", "/v1/inbox/ack", json!({ "ids": [id] }))
        .await;
    let day = std::time::Duration::from_hours(24);
    let terms = Terms {
        replay: 7 * day,
        dead: 90 * day,
        receipt: 730 * day,
    };
    let expire = || gateway.base.store.expire(gateway.clock.now(), &terms);
    assert_eq!(expire().await.unwrap(), Expired::default());
    gateway.clock.advance(8 * day);
    assert_eq!(
        expire().await.unwrap(),
        Expired {
            payloads: 1,
            ..Expired::default()
        }
    );
    assert_eq!(
        gateway
            .get("arbo-noord", &format!("/v1/inbox/{id}"))
            .await
            .status(),
        404
    );
    gateway.clock.advance(730 * day);
    assert_eq!(
        expire().await.unwrap(),
        Expired {
            receipts: 1,
            ..Expired::default()
        },
        "the unread one stays"
    );
    assert_eq!(gateway.lease("arbo-noord").await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_withdrawal_goes_before_the_newer_report_that_makes_its_case_known() {
    let gateway = Gateway::boot().await;
    let withdrawal = Absence {
        action: "04",
        ..Absence::default()
    };
    let receipt = gateway.accept("adp", withdrawal.xml()).await;
    assert_eq!(receipt["findings"][0]["code"], "case_unknown", "{receipt}");
    let running = Absence {
        action: "02",
        number: 5,
        ..Absence::default()
    };
    gateway.accept("adp", running.xml()).await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(
        taken[0].contains("<VrzmgvlVnrMld>1</VrzmgvlVnrMld>"),
        "{}",
        taken[0]
    );
    assert!(
        taken[1].contains("<VrzmgvlVnrMld>5</VrzmgvlVnrMld>"),
        "{}",
        taken[1]
    );
    let change = employments("ADP", &[("W-1", "1980-02-29", "D-1")]);
    gateway.accept("adp", change).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1, "she is sick");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_without_a_key_is_refused() {
    let gateway = Gateway::boot().await;
    for empty in [
        Absence {
            person: String::new(),
            ..Absence::default()
        },
        Absence {
            employment: String::new(),
            ..Absence::default()
        },
        Absence {
            case: String::new(),
            ..Absence::default()
        },
    ] {
        let refused = gateway.post("adp", empty.xml()).await;
        assert_eq!(refused.status(), 422);
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["findings"][0]["code"], "key_empty", "{problem}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_text_stays_behind_and_is_counted() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        free_text: Some("rugklachten".to_owned()),
        ..Absence::default()
    };
    gateway.accept("adp", report.xml()).await;
    let taken = gateway.take("arbo-noord").await;
    assert!(!taken[0].contains("rugklachten"), "{}", taken[0]);
    let today = gateway.clock.today();
    let counts = gateway.base.store.withheld_counts(today..=today, None);
    let counts = counts.await.unwrap();
    assert!(
        counts.iter().any(|count| count.rule == "strip"),
        "{counts:?}"
    );
    gateway.stop().await;
}

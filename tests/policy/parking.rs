//! What waits, in which pieces, without what no domain may have, and how long.

use std::time::{Duration, Instant};

use sivi_gateway::validate::{Editions, Element};
use sqlx::Connection as _;

use super::sample::full;
use super::support::{Absence, DIRECTORY, Gateway, absences, header};
use super::{DAY, codes, parked};

const GARAGE: &str = r#"
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
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_holds_no_number_account_or_free_text() {
    let gateway = Gateway::boot().await;
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let planted = |sender: &'static str| {
        move |element: &Element| match element.tag.as_str() {
            "IdInzndr" => Some(sender.to_owned()),
            "IdWrkgvrArbdnst" => Some("999".to_owned()),
            "IdWrknmr" if !element.path.contains("Cntprsn") => Some("W-404".to_owned()),
            "Iban" => Some("NL91ABNA0417164300".to_owned()),
            "VrijeTekst" | "Toelchtng" | "OmsSrtAfspraak" | "NmFnct" => Some("Geheim".to_owned()),
            "SignNm" | "StraatLang" | "HndlsnmOrg" => Some("Jan 111222333".to_owned()),
            _ => None,
        }
    };
    let schema = edition.message("Verzuimmeldingen").unwrap();
    gateway
        .accept(
            "adp",
            full(schema, &planted("ADP")).replace("<NmFnct>Geheim", "<NmFnct>Bakker"),
        )
        .await;
    let schema = edition.message("Afspraken").unwrap();
    gateway
        .accept("arbo-noord", full(schema, &planted("ARBONOORD")))
        .await;
    let waiting = parked(&gateway).await;
    assert_eq!(waiting.len(), 2);
    for part in &waiting {
        let xml = String::from_utf8(part.xml.to_vec()).unwrap();
        assert!(xml.contains("W-404"), "{xml}");
        for never in [
            "111222333",
            "SofiNr",
            "NL91ABNA",
            "Geheim",
            "VrTkst",
            "Roepnaam>q",
            "BnkGiro",
            "Kostenplaats",
        ] {
            assert!(!xml.contains(never), "{never} in {xml}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_is_dropped_and_its_sender_sees_it() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        employer: ("200", "7000"),
        ..Absence::default()
    };
    gateway.accept("adp", report.xml()).await;
    gateway.clock.advance(DAY * 14);
    let store = &gateway.base.store;
    store.expire_parked(gateway.clock.now(), 14).await.unwrap();
    assert_eq!(parked(&gateway).await.len(), 1);
    gateway.clock.advance(std::time::Duration::from_secs(1));
    store.expire_parked(gateway.clock.now(), 14).await.unwrap();
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

/// A correction that waits on must not hold the sick reports of its message
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn sick_reports_go_when_they_can_and_corrections_wait_on() {
    let gateway = Gateway::boot().await;
    let sick = Absence::of("W-1", "VG-1");
    let other = Absence::of("W-2", "VG-2");
    let correction = Absence {
        action: "03",
        ..Absence::of("W-3", "VG-3")
    };
    let moved = Absence {
        former_person: Some("W-0".to_owned()),
        ..Absence::of("W-4", "VG-4")
    };
    let head = header("00100", "00006", "ADP", "ARBONOORD", "b-1", "N");
    let persons = [&sick, &correction, &other, &moved]
        .map(Absence::employee)
        .to_vec();
    gateway
        .accept("adp", absences(&head, &[(("200", "7000"), persons)]))
        .await;
    assert_eq!(parked(&gateway).await.len(), 3);
    gateway.apply(GARAGE).await;
    let taken = gateway.take("arbo-noord").await.concat();
    for (person, passes) in [("W-1", true), ("W-2", true), ("W-3", false), ("W-4", true)] {
        assert_eq!(
            taken.contains(&format!("<IdWrknmr>{person}</IdWrknmr>")),
            passes,
            "{taken}"
        );
    }
    let waiting = parked(&gateway).await;
    assert_eq!(waiting.len(), 1);
    // Its report frees it.
    let report = Absence {
        employer: ("200", "7000"),
        ..Absence::of("W-3", "VG-3")
    };
    gateway.accept("adp", report.xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 2);
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

/// One person's unknown correction must not hold another's back.
#[tokio::test(flavor = "multi_thread")]
async fn corrections_of_several_persons_wait_apart() {
    let gateway = Gateway::boot().await;
    let head = header("00100", "00006", "ADP", "ARBONOORD", "b-1", "N");
    let persons = ["W-1", "W-2"].map(|id| {
        Absence {
            action: "03",
            ..Absence::of(id, &format!("V{id}"))
        }
        .employee()
    });
    let receipt = gateway
        .accept(
            "adp",
            absences(&head, &[(("105", "6431"), persons.to_vec())]),
        )
        .await;
    assert!(codes(&receipt).contains(&"case_unknown".to_owned()));
    gateway
        .accept("adp", Absence::of("W-1", "VW-1").xml())
        .await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(!taken.concat().contains("W-2"));
    assert_eq!(parked(&gateway).await.len(), 1);
    gateway.stop().await;
}

/// Dates and source are checked again when a part is released.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_waited_is_decided_on_anew() {
    let gateway = Gateway::boot().await;
    let over = Absence {
        employer: ("200", "7000"),
        ended: true,
        recovered: Some("2026-10-20".to_owned()),
        first_day: "2026-10-01".to_owned(),
        ..Absence::default()
    };
    gateway.accept("adp", over.xml()).await;
    gateway.clock.advance(DAY * 5);
    let no_agreement = GARAGE.replace("signed_on = 2018-02-01", "signed_on = 2027-02-01");
    gateway.apply(&no_agreement).await;
    assert!(
        gateway.lease("arbo-noord").await.is_empty(),
        "no agreement yet"
    );
    gateway.apply(GARAGE).await;
    assert!(
        gateway.lease("arbo-noord").await.is_empty(),
        "out of the window by now"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_cannot_pile_up_without_bound() {
    let gateway = Gateway::boot_with(DIRECTORY, "limits.parked_per_party = 2\n").await;
    for person in ["W-1", "W-2"] {
        let report = Absence {
            employer: ("200", "7000"),
            ..Absence::of(person, "VG")
        };
        gateway.accept("adp", report.xml()).await;
    }
    let report = Absence {
        employer: ("200", "7000"),
        ..Absence::of("W-3", "VG")
    };
    assert_eq!(gateway.post("adp", report.xml()).await.status(), 503);
    gateway.accept("adp", Absence::default().xml()).await;
    gateway.stop().await;
}

/// A sender that waits no longer may have been heard all the same, and what
/// follows from its message follows.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_goes_on_although_its_sender_hung_up() {
    let gateway = Gateway::boot().await;
    // After it the tenant has its key.
    gateway
        .accept("adp", Absence::of("W-2", "VG-2").xml())
        .await;
    let url = format!(
        "sqlite:{}",
        gateway.folder.path().join("gateway.db").display()
    );
    let mut lock = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let mut say = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut lock).await.unwrap();
    };
    say("BEGIN IMMEDIATE").await;
    let correction = Absence {
        action: "03",
        number: 2,
        ..Absence::of("W-1", "VG-1")
    };
    let hasty = gateway
        .posting("adp", correction.xml())
        .timeout(Duration::from_millis(500));
    assert!(hasty.send().await.unwrap_err().is_timeout());
    say("COMMIT").await;
    let until = Instant::now() + Duration::from_secs(20);
    while parked(&gateway).await.is_empty() {
        assert!(Instant::now() < until, "it was not taken in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway
        .accept("adp", Absence::of("W-1", "VG-1").xml())
        .await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 3, "{taken:?} {:?}", parked(&gateway).await);
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

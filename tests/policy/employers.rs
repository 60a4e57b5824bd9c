//! For whom: several employers, foreign and unknown ones, routes and their
//! time, agreements, and whom `IdOntvngr` names.

use super::support::{Absence, DIRECTORY, Gateway, absences, employments, envelope, header};
use super::{COPIES, DAY, accepted_nothing, codes, parked, refused};

/// A second tenant of ADP, and one of Nmbrs.
const MORE: &str = r#"
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

[[tenant]]
id = "kapper"
name = "Kapper"
source = "nmbrs"
agreement = { signed_on = 2018-02-01, reference = "VO-3" }
employer_keys = [{ IdWrkgvrArbdnst = "300", AansltnrGeguitwlngArbdnst = "8000" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
"#;

const BAKERY: (&str, &str) = ("105", "6431");
const GARAGE: (&str, &str) = ("200", "7000");
const BARBER: (&str, &str) = ("300", "8000");
const NOBODY: (&str, &str) = ("999", "9999");

fn of_employers(berrefnr: &str, employers: &[((&'static str, &'static str), &str)]) -> String {
    let head = header("00100", "00006", "ADP", "ARBONOORD", berrefnr, "N");
    let parts: Vec<_> = employers
        .iter()
        .map(|(employer, person)| {
            (
                *employer,
                vec![Absence::of(person, &format!("V{person}")).employee()],
            )
        })
        .collect();
    absences(&head, &parts)
}

async fn two_sources() -> Gateway {
    Gateway::boot_with(&format!("{DIRECTORY}{MORE}"), "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_employers_of_one_message_are_released_apart() {
    let gateway = two_sources().await;
    gateway
        .accept(
            "adp",
            of_employers("b-1", &[(BAKERY, "W-1"), (GARAGE, "W-2")]),
        )
        .await;
    let leased = gateway.lease("arbo-noord").await;
    assert_eq!(leased.len(), 2);
    for message in leased {
        let (own, other) = match message["tenant"].as_str().unwrap() {
            "bakkerij" => ("W-1", "W-2"),
            "garage" => ("W-2", "W-1"),
            tenant => panic!("{tenant}"),
        };
        let xml = message["xml"].as_str().unwrap();
        assert!(xml.contains(own) && !xml.contains(other), "{xml}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_employer_refuses_the_whole_message() {
    let gateway = two_sources().await;
    let xml = of_employers("b-1", &[(BAKERY, "W-1"), (BARBER, "W-2"), (NOBODY, "W-3")]);
    let (status, problem) = refused(&gateway, "adp", xml).await;
    assert_eq!(
        (status, codes(&problem)),
        (403, vec!["employer_foreign".to_owned()])
    );
    accepted_nothing(&gateway, "adp", "b-1").await;
    assert!(gateway.lease("arbo-noord").await.is_empty());
    // The reference is not used up.
    gateway
        .accept("adp", of_employers("b-1", &[(BAKERY, "W-1")]))
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_employer_waits_and_the_others_go() {
    let gateway = two_sources().await;
    let xml = of_employers("b-1", &[(BAKERY, "W-1"), (NOBODY, "W-3")]);
    let receipt = gateway.accept("adp", xml).await;
    assert!(
        codes(&receipt).contains(&"employer_unknown".to_owned()),
        "{receipt}"
    );
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 1);
    assert!(!taken[0].contains("W-3"), "{}", taken[0]);
    let waiting = parked(&gateway).await;
    assert_eq!(waiting.len(), 1);
    let xml = String::from_utf8(waiting[0].xml.to_vec()).unwrap();
    assert!(xml.contains("W-3") && !xml.contains("W-1"), "{xml}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_of_one_source_keep_their_own_ledgers() {
    let gateway = two_sources().await;
    gateway
        .accept("adp", of_employers("b-1", &[(BAKERY, "W-1")]))
        .await;
    gateway.take("arbo-noord").await;
    let change = employments("ADP", &[("W-1", "1980-02-29", "D-1")]);
    let at_the_garage = change.replace(">105<", ">200<").replace(">6431<", ">7000<");
    gateway.accept("adp", at_the_garage).await;
    assert!(
        gateway.take("arbo-noord").await.is_empty(),
        "sick elsewhere"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn employments_of_an_unknown_employer_are_dropped_with_a_finding() {
    let gateway = two_sources().await;
    let xml = employments("ADP", &[("W-1", "1980-02-29", "D-1")]).replace(">105<", ">999<");
    let receipt = gateway.accept("adp", xml).await;
    assert_eq!(codes(&receipt), ["employer_unknown"]);
    assert!(parked(&gateway).await.is_empty());
    let mismatch =
        employments("ADP", &[("W-1", "1980-02-29", "D-1")]).replace("ARBONOORD", "ELSEWHERE");
    let receipt = gateway.accept("adp", mismatch).await;
    assert_eq!(codes(&receipt), ["receiver_mismatch"]);
    // Nor are documents of the employer's side: only cases and return messages.
    let editions = sivi_gateway::validate::Editions::load(None).unwrap();
    let schema = editions.get("2017").unwrap().message("Documenten").unwrap();
    let documents = super::sample::full(schema, &|_| None).replace(">105<", ">999<");
    let receipt = gateway.accept("adp", documents).await;
    assert!(codes(&receipt).contains(&"employer_unknown".to_owned()));
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_receiver_gets_it_and_others_only_copies() {
    for (copy, named, arbo, doctor) in [
        ("copy = true\n", "ARBONOORD", 1, 1),
        ("", "ARBONOORD", 1, 0),
        ("", "DOKTER", 0, 1),
        ("copy = true\n", "DOKTER", 0, 1),
        ("", "SIVI-GATEWAY", 1, 1),
    ] {
        let gateway = Gateway::boot_with(&COPIES.replace("copy = true\n", copy), "").await;
        let report = Absence {
            receiver: named,
            ..Absence::default()
        };
        gateway.accept("adp", report.xml()).await;
        assert_eq!(
            gateway.take("arbo-noord").await.len(),
            arbo,
            "{copy} {named}"
        );
        assert_eq!(gateway.take("dokter").await.len(), doctor, "{copy} {named}");
        assert!(gateway.take("verzekeraar").await.is_empty());
        assert!(parked(&gateway).await.is_empty());
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmeant_receiver_parks_and_an_insurer_gets_nothing() {
    let gateway = Gateway::boot_with(COPIES, "").await;
    for named in ["ELSEWHERE", "VERZEKERAAR", "ADP"] {
        let report = Absence {
            receiver: named,
            ..Absence::default()
        };
        let receipt = gateway.accept("adp", report.xml()).await;
        assert_eq!(codes(&receipt), ["receiver_mismatch"], "{named}");
    }
    for party in ["arbo-noord", "dokter", "verzekeraar", "adp"] {
        assert!(gateway.lease(party).await.is_empty(), "{party}");
    }
    assert_eq!(parked(&gateway).await.len(), 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_counts_only_in_its_time() {
    for dates in ["from = 2026-11-23", "from = 2018-01-01\nuntil = 2026-11-21"] {
        let directory = DIRECTORY.replacen("from = 2018-01-01", dates, 1);
        let gateway = Gateway::boot_with(&directory, "").await;
        let receipt = gateway.accept("adp", Absence::default().xml()).await;
        assert_eq!(codes(&receipt), ["no_route"], "{dates}");
        assert!(gateway.lease("arbo-noord").await.is_empty());
        assert_eq!(parked(&gateway).await.len(), 1);
        gateway.clock.advance(DAY);
        let next = Absence::of("W-2", "VG-2");
        gateway.accept("adp", next.xml()).await;
        let expected = usize::from(dates == "from = 2026-11-23");
        assert_eq!(gateway.take("arbo-noord").await.len(), expected, "{dates}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agreement_nothing_is_stored() {
    let line = "agreement = { signed_on = 2018-02-01, reference = \"VO-1\" }\n";
    for agreement in [
        "",
        "agreement = { signed_on = 2026-11-23, reference = \"VO-1\" }\n",
        "agreement = { signed_on = 2018-02-01, until = 2026-11-21, reference = \"VO-1\" }\n",
    ] {
        let gateway = Gateway::boot_with(&DIRECTORY.replace(line, agreement), "").await;
        let employments = employments("ADP", &[("W-1", "1980-02-29", "D-1")]);
        let employer = envelope(
            "Verzuimmeldingen",
            "Verzuimmeldingen",
            &header("00100", "00006", "ADP", "ELSEWHERE", "b-2", "N"),
            &[
                (BAKERY, vec![Absence::default().employee()]),
                (NOBODY, vec![Absence::default().employee()]),
            ],
        );
        for xml in [Absence::default().xml(), employments, employer] {
            let (status, problem) = refused(&gateway, "adp", xml).await;
            assert_eq!(
                (status, codes(&problem)),
                (403, vec!["no_agreement".to_owned()]),
                "{agreement}"
            );
        }
        accepted_nothing(&gateway, "adp", "b-2").await;
        assert!(gateway.lease("arbo-noord").await.is_empty());
        gateway.stop().await;
    }
}

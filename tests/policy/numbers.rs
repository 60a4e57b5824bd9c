//! The citizen service number outside its element: as a key, in texts of a
//! person and in texts of nobody.

use super::support::{Absence, Gateway, header};
use super::{accepted_nothing, codes, parked, refused};

/// The number, and spellings that are certainly it.
const SPELLINGS: [(&str, &[&str]); 2] = [
    (
        "111222333",
        &[
            "111222333",
            "111.222.333",
            "111 222 333",
            "1112 22 333",
            "111-222-333",
            "000111222333",
            "0000000000000000111222333",
            "BSN111222333",
            "P-111222333/1",
        ],
    ),
    (
        "012345672",
        &[
            "012345672",
            "12345672",
            "0123.45.672",
            "12 345 672",
            "00012345672",
        ],
    ),
];

const KEYS: [&str; 5] = ["IdWrknmr", "PersNr", "IdDnstvbnd", "VrzmgvlId", "Berrefnr"];

fn with_key(report: &Absence, key: &str, text: &str) -> String {
    let mut report = report.clone();
    match key {
        "IdWrknmr" => text.clone_into(&mut report.person),
        "IdDnstvbnd" => text.clone_into(&mut report.employment),
        "VrzmgvlId" => text.clone_into(&mut report.case),
        "Berrefnr" => text.clone_into(&mut report.berrefnr),
        _ => {
            let number = format!("<PersNr>{text}</PersNr><OrgeenhCd>");
            return report.xml().replace("<OrgeenhCd>", &number);
        }
    }
    report.xml()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_as_a_key_refuses_the_message() {
    let gateway = Gateway::boot().await;
    let mut tried = 0;
    for (number, spellings) in SPELLINGS {
        let report = Absence {
            bsn: Some(number.to_owned()),
            berrefnr: format!("ref-{}", &number[..2]),
            ..Absence::default()
        };
        for key in KEYS {
            for spelling in spellings {
                let (status, problem) =
                    refused(&gateway, "adp", with_key(&report, key, spelling)).await;
                assert_eq!(status, 422, "{key} {spelling}: {problem}");
                assert_eq!(codes(&problem), ["bsn_as_key"], "{key} {spelling}");
                let shown = problem.to_string();
                for part in [*spelling, number, &number[1..]] {
                    assert!(!shown.contains(part), "{key} {spelling}: {shown}");
                }
                tried += 1;
            }
        }
        accepted_nothing(&gateway, "adp", &report.berrefnr).await;
    }
    println!("{tried} keys with a number were refused");
    assert!(gateway.lease("arbo-noord").await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_only_looks_like_a_number_is_a_warning() {
    let gateway = Gateway::boot().await;
    for key in KEYS {
        let report = Absence {
            bsn: Some("012345672".to_owned()),
            ..Absence::of("W-1", key)
        };
        let receipt = gateway
            .accept("adp", with_key(&report, key, "111222333"))
            .await;
        assert_eq!(codes(&receipt), ["bsn_suspect"], "{key}: {receipt}");
        let taken = gateway.take("arbo-noord").await;
        assert_eq!(taken.len(), 1, "a sick report is never refused for it");
        assert_eq!(
            taken[0].contains("111222333"),
            key != "Berrefnr",
            "{key}: {}",
            taken[0]
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_another_person_in_a_key_is_a_warning() {
    let gateway = Gateway::boot().await;
    let head = header("00100", "00006", "ADP", "ARBONOORD", "b-1", "N");
    let one = Absence {
        bsn: Some("111222333".to_owned()),
        ..Absence::of("W-1", "VG-1")
    };
    let two = Absence {
        bsn: Some("012345672".to_owned()),
        ..Absence::of("111222333", "VG-2")
    };
    let persons = vec![one.employee(), two.employee()];
    let xml = super::support::absences(&head, &[(("105", "6431"), persons)]);
    let receipt = gateway.accept("adp", xml).await;
    assert_eq!(codes(&receipt), ["bsn_suspect"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_in_texts_are_masked_in_persons_and_in_the_frame() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        bsn: Some("111222333".to_owned()),
        surname: "Vries 111.222.333 en 012345672".to_owned(),
        ..Absence::default()
    };
    let contact = "<Cntprsn><Achternaam>Baas 111222333</Achternaam><RolCntprsnCd>04</RolCntprsnCd>\
         <Com><SrtComCd>01</SrtComCd><NrCom>111222333</NrCom></Com></Cntprsn>";
    let xml = report
        .xml()
        .replace("Voorbeeld B.V.", "111222333 B.V.")
        .replace("<StraatLang>Kade", "<StraatLang>Kade 012345672 1-11222333")
        .replace("<OrgeenhCd>OE-1", "<OrgeenhCd>111222333")
        .replacen("<Wrknmr>", &format!("{contact}<Wrknmr>"), 1);
    let response = gateway.post("adp", xml).await;
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, 202, "{body}");
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 1);
    let digits: String = taken[0].chars().filter(char::is_ascii_digit).collect();
    for number in ["111222333", "012345672", "11222333"] {
        assert!(!digits.contains(number), "{number}: {}", taken[0]);
    }
    assert!(
        taken[0].contains("<SignNm>Vries ***.***.*** en *********</SignNm>"),
        "{}",
        taken[0]
    );
    assert!(taken[0].contains("********* B.V."), "{}", taken[0]);
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_number_goes_as_well_and_is_a_warning() {
    let gateway = Gateway::boot().await;
    let report = Absence {
        bsn: Some("111222334".to_owned()),
        surname: "Vries 111222334".to_owned(),
        ..Absence::default()
    };
    let receipt = gateway.accept("adp", report.xml()).await;
    assert_eq!(codes(&receipt), ["bsn_invalid"]);
    let taken = gateway.take("arbo-noord").await;
    assert!(!taken[0].contains("111222334"), "{}", taken[0]);
    gateway.stop().await;
}

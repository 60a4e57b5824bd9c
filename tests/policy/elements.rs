//! Every element of every message to every domain, against the table as the
//! operator reads it: parsed here once more, on its own.

use std::collections::BTreeMap;

use sivi_gateway::domain::Domain;
use sivi_gateway::policy::{Cell, Policy};
use sivi_gateway::validate::{Editions, Element, MessageSchema};

use super::sample::{full, leaves};
use super::support::Gateway;
use super::{COPIES, text};

const TABLE: &str = include_str!("../../config/policy.tsv");
const ELEMENTS: &str = include_str!("../../schemas/2017/elements.tsv");

/// The cells of one message to one domain, by path.
fn cells(message: &str, domain: &str) -> BTreeMap<&'static str, &'static str> {
    let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let column = lines
        .next()
        .unwrap()
        .split('\t')
        .position(|name| name == domain);
    let rows = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[0] == "2017" && row[1] == message)
        .map(|row| (row[2], row[column.unwrap()]))
        .collect()
}

fn is_doubtful(message: &str, path: &str) -> bool {
    let mut rows = ELEMENTS
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.any(|row| row[0] == message && row[1] == path && row[3] == "yes")
}

/// Compares a release with what was sent. Gives how many elements passed and
/// how many stayed behind.
fn compare(schema: &MessageSchema, domain: &str, sent: &str, released: &str) -> (u32, u32) {
    let cells = cells(&schema.name, domain);
    let (sent, released) = (leaves(sent), leaves(released));
    let (mut passed, mut stayed) = (0, 0);
    for (path, texts) in &sent {
        let got = released.get(path);
        let cell = cells[path.as_str()].split('?').next().unwrap();
        let here = format!("{path} to {domain}: {cell}, sent {texts:?}, got {got:?}");
        if is_doubtful(&schema.name, path) {
            assert_eq!(got, None, "doubtful {here}");
        }
        match cell {
            "P" | "DOC" => assert_eq!(got, Some(texts), "{here}"),
            "S" | "BSN" | "-" => assert_eq!(got, None, "{here}"),
            "W" => assert!(got.is_some(), "{here}"),
            constant => {
                let constant = constant.strip_prefix("T:constant=").unwrap().to_owned();
                assert_eq!(got, Some(&vec![constant]), "{here}");
            }
        }
        if got.is_some() {
            passed += 1;
        } else {
            stayed += 1;
        }
    }
    for path in released.keys() {
        assert!(sent.contains_key(path), "{path} came from nowhere");
    }
    (passed, stayed)
}

fn check_header(sent: &str, released: &str, receiver: &str) {
    assert_eq!(text(released, "IdInzndr"), Some("SIVI-GATEWAY"));
    assert_eq!(text(released, "IdOntvngr"), Some(receiver));
    assert_eq!(text(released, "TestJN"), Some("N"));
    assert_eq!(text(released, "OntvngstbevJN"), Some("N"));
    assert_eq!(text(released, "AandatBr"), Some("2026-11-22"));
    assert_ne!(text(released, "Berrefnr"), text(sent, "Berrefnr"));
    assert_eq!(text(released, "VnrBrCd"), text(sent, "VnrBrCd"));
    assert!(!released.contains("111222333"), "{released}");
}

/// Sends `xml` and compares what each receiver gets; an empty list of
/// receivers means that nobody gets anything.
async fn send(
    gateway: &Gateway,
    schema: &MessageSchema,
    from: &str,
    xml: &str,
    to: &[(&str, &str, &str)],
) {
    gateway.accept(from, xml.to_owned()).await;
    for (party, domain, receiver) in to {
        let taken = gateway.take(party).await;
        assert_eq!(taken.len(), 1, "{} to {party}", schema.name);
        check_header(xml, &taken[0], receiver);
        let (passed, stayed) = compare(schema, domain, xml, &taken[0]);
        println!(
            "{} to {domain}: {passed} elements passed, {stayed} stayed",
            schema.name
        );
        assert!(passed > 10 || schema.name == "Retourmelding1");
    }
    for party in ["adp", "arbo-noord", "dokter", "verzekeraar"] {
        assert!(
            gateway.take(party).await.is_empty(),
            "{} to {party}",
            schema.name
        );
    }
}

const RECEIVERS: [(&str, &str, &str); 2] = [
    ("arbo-noord", "arbodienst", "ARBONOORD"),
    ("dokter", "bedrijfsarts", "DOKTER"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_element_of_every_message_follows_the_table() {
    let gateway = Gateway::boot_with(COPIES, "").await;
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let message = |name: &str| edition.message(name).unwrap();
    let nothing = |_: &Element| None;

    for name in [
        "Verzuimmeldingen",
        "Dienstverbanden",
        "WerknemersGegevens",
        "WerkgeversGegevensBasisregistratie",
        "Documenten",
    ] {
        let schema = message(name);
        send(&gateway, schema, "adp", &full(schema, &nothing), &RECEIVERS).await;
    }

    let employer = [("adp", "werkgever", "ADP")];
    let from_arbo = |element: &Element| match element.tag.as_str() {
        "IdInzndr" => Some("ARBONOORD".to_owned()),
        "IdOntvngr" => Some("ADP".to_owned()),
        _ => None,
    };
    for name in ["Documenten", "Afspraken"] {
        let schema = message(name);
        send(
            &gateway,
            schema,
            "arbo-noord",
            &full(schema, &from_arbo),
            &employer,
        )
        .await;
    }

    let report = super::support::Absence::of("W-9", "VG-9");
    gateway.accept("adp", report.xml()).await;
    let taken = gateway.take("arbo-noord").await;
    gateway.take("dokter").await;
    let reference = text(&taken[0], "Berrefnr").unwrap().to_owned();
    let answer = |element: &Element| match element.tag.as_str() {
        "BerrefnrIngzndnBer" => Some(reference.clone()),
        _ => from_arbo(element),
    };
    let schema = message("Retourmelding1");
    send(
        &gateway,
        schema,
        "arbo-noord",
        &full(schema, &answer),
        &employer,
    )
    .await;
    gateway.stop().await;
}

#[test]
fn a_deleted_row_is_a_denied_element() {
    let editions = Editions::load(None).unwrap();
    let schema = editions
        .get("2017")
        .unwrap()
        .message("Verzuimmeldingen")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "Verzuimmeldingen",
        "Verzuimmeldingen/Wrkgvr/Wrknmr/SignNm",
        "Verzuimmeldingen/Wrkgvr/Wrknmr/Dnstvbnd/Vrzm/PrcVrzm",
    ] {
        let row = format!("2017\tVerzuimmeldingen\t{path}\t");
        assert_eq!(
            TABLE.lines().filter(|line| line.starts_with(&row)).count(),
            1
        );
        let without: Vec<&str> = TABLE
            .lines()
            .filter(|line| !line.starts_with(&row))
            .collect();
        std::fs::write(folder.path().join("policy.tsv"), without.join("\n")).unwrap();
        let policy = Policy::load(Some(folder.path()), &editions, 35).unwrap();
        let at = schema
            .elements
            .iter()
            .position(|element| element.path == path)
            .unwrap();
        for domain in Domain::ALL {
            let sheet = policy.sheet(schema, "2017", *domain).unwrap();
            assert_eq!(sheet.rule(at).cell, Cell::Strip, "{path} to {domain}");
            assert_eq!(sheet.admits_message(), at != 0 && cells_admit(*domain));
        }
    }
}

fn cells_admit(domain: Domain) -> bool {
    cells("Verzuimmeldingen", domain.as_str())["Verzuimmeldingen"] == "P"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_operator_deletes_stays_behind() {
    let folder = tempfile::tempdir().unwrap();
    let row = "2017\tVerzuimmeldingen\tVerzuimmeldingen/Wrkgvr/Wrknmr/StrAdrNl\t";
    let without: Vec<&str> = TABLE
        .lines()
        .filter(|line| !line.starts_with(row))
        .collect();
    std::fs::write(folder.path().join("policy.tsv"), without.join("\n")).unwrap();
    let more = format!("paths.policy = \"{}\"\n", folder.path().display());
    let gateway = Gateway::boot_with(super::support::DIRECTORY, &more).await;
    gateway
        .accept("adp", super::support::Absence::default().xml())
        .await;
    let taken = gateway.take("arbo-noord").await;
    assert_eq!(taken.len(), 1);
    assert!(
        !taken[0].contains("Kade") && !taken[0].contains("StrAdrNl"),
        "{}",
        taken[0]
    );
    gateway.stop().await;
}

/// No mandatory part of what a decision is about is ever kept back: else a
/// report that passes would be dropped with nobody told.
#[test]
fn the_table_keeps_back_nothing_that_a_report_needs() {
    let editions = Editions::load(None).unwrap();
    for schema in editions.get("2017").unwrap().messages() {
        for (domain, column) in [("arbodienst", 4), ("bedrijfsarts", 5), ("werkgever", 3)] {
            let cells = cells(&schema.name, domain);
            if cells[schema.elements[0].path.as_str()] != "P" {
                continue;
            }
            let mut needed = vec![0];
            while let Some(at) = needed.pop() {
                let element = &schema.elements[at];
                let cell = cells[element.path.as_str()].split('?').next().unwrap();
                let passes = cell == "P" || cell == "W" || cell == "DOC" || cell.starts_with("T:");
                assert!(passes, "{} to {domain} (column {column})", element.path);
                let needs = |child: &&usize| {
                    let child = &schema.elements[**child];
                    child.min > 0
                        || ["Wrkgvr", "Document", "Afspraak"].contains(&child.tag.as_str())
                };
                needed.extend(element.children.iter().filter(needs));
            }
        }
    }
}

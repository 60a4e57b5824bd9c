//! From the arbodienst to the employer: only about persons that were
//! reported, only documents of listed kinds, only to the right tenant.

use super::support::{Absence, DIRECTORY, Gateway, header};
use super::{DAY, codes, parked, refused, text};

const GARAGE: &str = r#"
[[tenant]]
id = "garage"
name = "Garage"
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2" }
employer_keys = [{ IdWrkgvrArbdnst = "200", AansltnrGeguitwlngArbdnst = "7000" }]
document_codes = ["100"]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01

[[tenant.route]]
to = "adp"
domain = "werkgever"
edition = "2017"
from = 2018-01-01
"#;

struct Document {
    employer: Option<(&'static str, &'static str)>,
    kind: &'static str,
    person: &'static str,
    born: Option<&'static str>,
    case: Option<&'static str>,
}

const DOCUMENT: Document = Document {
    employer: None,
    kind: "100",
    person: "W-1",
    born: None,
    case: None,
};

fn employer(tag: &str, keys: Option<(&'static str, &'static str)>) -> String {
    keys.map(|(id, number)| {
        format!(
            "<{tag}><HndlsnmOrg>Voorbeeld</HndlsnmOrg><IdWrkgvrArbdnst>{id}</IdWrkgvrArbdnst>\
             <AansltnrGeguitwlngArbdnst>{number}</AansltnrGeguitwlngArbdnst><Lhnr>123456789L01</Lhnr></{tag}>"
        )
    })
    .unwrap_or_default()
}

impl Document {
    fn xml(&self) -> String {
        let editions = sivi_gateway::validate::Editions::load(None).unwrap();
        let schema = editions
            .get("2017")
            .unwrap()
            .message("Documenten")
            .unwrap()
            .clone();
        let element = |element: &sivi_gateway::validate::Element| {
            Some(match element.tag.as_str() {
                "IdInzndr" => "ARBONOORD".to_owned(),
                "IdOntvngr" => "ADP".to_owned(),
                "SrtDocumentCd" => self.kind.to_owned(),
                "IdWrknmr" => self.person.to_owned(),
                "Gebdat" => self.born.unwrap_or("1980-02-29").to_owned(),
                "VrzmgvlId" => self.case.unwrap_or("VG-1").to_owned(),
                "IdWrkgvrArbdnst" => self.employer.map_or("", |(id, _)| id).to_owned(),
                "AansltnrGeguitwlngArbdnst" => self.employer.map_or("", |(_, n)| n).to_owned(),
                _ => return None,
            })
        };
        let mut xml = super::sample::full(&schema, &element);
        if self.employer.is_none() {
            cut(&mut xml, "Wrkgvr");
        }
        if self.born.is_none() {
            cut(&mut xml, "Gebdat");
        }
        if self.case.is_none() {
            cut(&mut xml, "Vrzm");
        }
        xml
    }
}

/// Cuts the first element with this tag out.
fn cut(xml: &mut String, tag: &str) {
    let from = xml.find(&format!("<{tag}>")).unwrap();
    let to = xml.find(&format!("</{tag}>")).unwrap() + tag.len() + 3;
    xml.replace_range(from..to, "");
}

fn appointment(keys: Option<(&'static str, &'static str)>, person: &str) -> String {
    format!(
        "<Afspraken xmlns=\"http://www.sivi.org/Verzuimmanagement/Afspraken/2017\">{}{}<Afspraak>\
         <IdAfspraak>A-1</IdAfspraak><DatAfspraak>2026-11-30</DatAfspraak><TijdAfspraak>10:00:00</TijdAfspraak>\
         <OmsSrtAfspraak>Psycholoog</OmsSrtAfspraak><Wrknmr><Achternaam>Vries</Achternaam>\
         <IdWrknmr>{person}</IdWrknmr></Wrknmr><UitvoerderAfspraak><Achternaam>Freud</Achternaam>\
         <NmFnct>Psychiater</NmFnct></UitvoerderAfspraak></Afspraak></Afspraken>",
        header(
            "00105",
            "00002",
            "ARBONOORD",
            "ADP",
            &super::support::reference(),
            "N"
        ),
        employer("Werkgever", keys),
    )
}

async fn with_a_sick_person(directory: &str) -> Gateway {
    let gateway = Gateway::boot_with(directory, "").await;
    gateway.accept("adp", Absence::default().xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_find_their_employer_by_keys_person_or_case() {
    let gateway = with_a_sick_person(DIRECTORY).await;
    for document in [
        // The keys that the route writes, the employer's own keys, and none.
        Document {
            employer: Some(("N-105", "N-6431")),
            ..DOCUMENT
        },
        Document {
            employer: Some(("105", "6431")),
            ..DOCUMENT
        },
        DOCUMENT,
        Document {
            born: Some("1980-02-29"),
            ..DOCUMENT
        },
    ] {
        let receipt = gateway.accept("arbo-noord", document.xml()).await;
        assert_eq!(codes(&receipt), [""; 0], "{receipt}");
        let taken = gateway.take("adp").await;
        assert_eq!(taken.len(), 1);
        assert_eq!(text(&taken[0], "IdWrknmr"), Some("W-1"));
    }
    // The ledger forgets the person; the case id is recognised for two years.
    let end = Absence {
        ended: true,
        number: 2,
        recovered: Some("2026-11-22".to_owned()),
        ..Absence::default()
    };
    gateway.accept("adp", end.xml()).await;
    gateway.clock.advance(DAY * 40);
    gateway
        .base
        .store
        .forget(gateway.clock.today())
        .await
        .unwrap();
    gateway.accept("arbo-noord", DOCUMENT.xml()).await;
    assert!(
        gateway.take("adp").await.is_empty(),
        "nobody knows this person any more"
    );
    let by_case = Document {
        case: Some("VG-1"),
        ..DOCUMENT
    };
    gateway.accept("arbo-noord", by_case.xml()).await;
    assert_eq!(gateway.take("adp").await.len(), 1);
    let other_person = Document {
        person: "W-2",
        ..by_case
    };
    gateway.accept("arbo-noord", other_person.xml()).await;
    assert!(
        gateway.take("adp").await.is_empty(),
        "a case of somebody else"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_about_a_stranger_or_of_an_unlisted_kind_waits() {
    let gateway = with_a_sick_person(DIRECTORY).await;
    let keys = Some(("N-105", "N-6431"));
    for (document, code) in [
        (
            Document {
                employer: keys,
                person: "W-2",
                ..DOCUMENT
            },
            "person_unknown",
        ),
        (
            Document {
                employer: keys,
                born: Some("1990-01-01"),
                ..DOCUMENT
            },
            "person_unknown",
        ),
        (
            Document {
                employer: keys,
                kind: "104",
                ..DOCUMENT
            },
            "document_kind",
        ),
        (
            Document {
                person: "W-2",
                ..DOCUMENT
            },
            "employer_unknown",
        ),
        (
            Document {
                person: "W-2",
                case: Some("VG-1"),
                ..DOCUMENT
            },
            "employer_unknown",
        ),
        (
            Document {
                kind: "104",
                ..DOCUMENT
            },
            "document_kind",
        ),
    ] {
        let before = parked(&gateway).await.len();
        let receipt = gateway.accept("arbo-noord", document.xml()).await;
        assert_eq!(codes(&receipt), [code], "{receipt}");
        assert_eq!(parked(&gateway).await.len(), before + 1);
        assert!(gateway.take("adp").await.is_empty());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appointments_show_neither_kind_nor_executor() {
    let gateway = with_a_sick_person(DIRECTORY).await;
    for keys in [Some(("N-105", "N-6431")), None] {
        gateway.accept("arbo-noord", appointment(keys, "W-1")).await;
        let taken = gateway.take("adp").await;
        assert_eq!(taken.len(), 1);
        for never in ["Psych", "Freud"] {
            assert!(!taken[0].contains(never), "{}", taken[0]);
        }
        assert_eq!(text(&taken[0], "OmsSrtAfspraak"), Some("Afspraak"));
        assert_eq!(text(&taken[0], "IdAfspraak"), Some("A-1"));
    }
    gateway.accept("arbo-noord", appointment(None, "W-2")).await;
    gateway
        .accept("arbo-noord", appointment(Some(("N-105", "N-6431")), "W-2"))
        .await;
    assert!(gateway.take("adp").await.is_empty());
    assert_eq!(parked(&gateway).await.len(), 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_employee_id_at_two_tenants_needs_keys() {
    let gateway = with_a_sick_person(&format!("{DIRECTORY}{GARAGE}")).await;
    let at_the_garage = Absence {
        employer: ("200", "7000"),
        ..Absence::of("W-1", "VG-1")
    };
    gateway.accept("adp", at_the_garage.xml()).await;
    gateway.take("arbo-noord").await;
    let receipt = gateway.accept("arbo-noord", DOCUMENT.xml()).await;
    assert_eq!(codes(&receipt), ["employer_unknown"]);
    assert!(gateway.take("adp").await.is_empty());
    let with_keys = Document {
        employer: Some(("200", "7000")),
        ..DOCUMENT
    };
    gateway.accept("arbo-noord", with_keys.xml()).await;
    let leased = gateway.lease("adp").await;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0]["tenant"], "garage");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_arbodienst_can_say_nothing_about_them() {
    let gateway = with_a_sick_person(DIRECTORY).await;
    for document in [
        DOCUMENT,
        Document {
            employer: Some(("105", "6431")),
            case: Some("VG-1"),
            ..DOCUMENT
        },
    ] {
        let xml = document.xml().replace("ARBONOORD", "ARBOZUID");
        gateway.accept("arbo-zuid", xml).await;
        assert!(gateway.take("adp").await.is_empty());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agreement_nothing_comes_back_either() {
    let until = DIRECTORY.replace(
        "reference = \"VO-1\"",
        "until = 2026-11-30, reference = \"VO-1\"",
    );
    let gateway = with_a_sick_person(&until).await;
    gateway.clock.advance(DAY * 10);
    for document in [
        DOCUMENT,
        Document {
            employer: Some(("105", "6431")),
            ..DOCUMENT
        },
    ] {
        let (status, problem) = refused(&gateway, "arbo-noord", document.xml()).await;
        assert_eq!(
            (status, codes(&problem)),
            (403, vec!["no_agreement".to_owned()])
        );
    }
    assert!(parked(&gateway).await.is_empty());
    assert!(gateway.take("adp").await.is_empty());
    gateway.stop().await;
}

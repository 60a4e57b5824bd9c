//! Parked parts: released when they can go, in order, or discarded.

use super::*;

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

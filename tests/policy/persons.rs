//! Who passes: sick, recovered and everybody else, per route.

use super::support::{Absence, DIRECTORY, Gateway, absences, employments, header};
use super::{COPIES, DAY, codes, parked, refused, text};

const RECOVERY: &str = "2026-11-22";

fn recovery(report: &Absence, number: u32, day: &str) -> Absence {
    Absence {
        berrefnr: super::support::reference(),
        action: "02",
        number,
        ended: true,
        recovered: Some(day.to_owned()),
        percentage: "0.00",
        ..report.clone()
    }
}

fn again(report: &Absence) -> Absence {
    Absence {
        berrefnr: super::support::reference(),
        ..report.clone()
    }
}

/// Posts and takes what comes of it at Arbo Noord.
async fn pass(gateway: &Gateway, xml: String) -> Vec<String> {
    gateway.accept("adp", xml).await;
    gateway.take("arbo-noord").await
}

/// Employment data of this person reach Arbo Noord.
async fn employment_passes(gateway: &Gateway, id: &str, born: &str, employment: &str) -> bool {
    let taken = pass(gateway, employments("ADP", &[(id, born, employment)])).await;
    assert!(taken.len() <= 1);
    !taken.is_empty()
}

async fn is_sick(gateway: &Gateway) -> bool {
    employment_passes(gateway, "W-1", "1980-02-29", "D-1").await
}

async fn forget(gateway: &Gateway) {
    gateway
        .base
        .store
        .forget(gateway.clock.today())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_sick_then_recovered_then_nobody() {
    let gateway = Gateway::boot().await;
    assert!(!is_sick(&gateway).await);
    let report = Absence::default();
    assert_eq!(pass(&gateway, report.xml()).await.len(), 1);
    assert!(is_sick(&gateway).await);
    let end = recovery(&report, 2, RECOVERY);
    assert_eq!(pass(&gateway, end.xml()).await.len(), 1);
    assert!(!is_sick(&gateway).await, "recovered, and no leavers");

    // Inside the window a correction passes with the minimal fields.
    gateway.clock.advance(DAY * 35);
    let correction = Absence {
        action: "03",
        ..again(&end)
    };
    let taken = pass(&gateway, correction.xml()).await;
    assert_eq!(taken.len(), 1);
    for tag in ["StrAdrNl", "Com", "NmFnct"] {
        assert_eq!(text(&taken[0], tag), None, "{tag} of {}", taken[0]);
    }
    for (tag, expected) in [
        ("SignNm", "Vries"),
        ("IdWrknmr", "W-1"),
        ("VrzmgvlId", "VG-1"),
        ("DatHrstld", RECOVERY),
    ] {
        assert_eq!(text(&taken[0], tag), Some(expected), "{}", taken[0]);
    }
    // A change that ends the case is no correction: it passes in the window.
    assert_eq!(pass(&gateway, again(&end).xml()).await.len(), 1);
    gateway.clock.advance(DAY);
    assert!(
        pass(&gateway, again(&end).xml()).await.is_empty(),
        "after the window"
    );
    forget(&gateway).await;
    assert!(
        pass(&gateway, again(&end).xml()).await.is_empty(),
        "forgotten"
    );
    assert!(!is_sick(&gateway).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_passes_also_when_the_person_is_forgotten() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    let end = recovery(&report, 2, RECOVERY);
    pass(&gateway, report.xml()).await;
    pass(&gateway, end.xml()).await;
    gateway.clock.advance(DAY * 400);
    forget(&gateway).await;
    for action in ["03", "04"] {
        let repair = Absence {
            action,
            ..again(&end)
        };
        let taken = pass(&gateway, repair.xml()).await;
        assert_eq!(taken.len(), 1, "{action}");
        assert_eq!(text(&taken[0], "StrAdrNl"), None, "minimal: {}", taken[0]);
        assert!(!is_sick(&gateway).await);
    }
    // Nobody else's, and no other case.
    for stranger in [
        Absence {
            action: "03",
            person: "W-2".to_owned(),
            ..again(&end)
        },
        Absence {
            action: "03",
            case: "VG-2".to_owned(),
            ..again(&end)
        },
        Absence {
            action: "04",
            person: "W-2".to_owned(),
            ..again(&end)
        },
    ] {
        let receipt = gateway.accept("adp", stranger.xml()).await;
        assert!(
            codes(&receipt).contains(&"case_unknown".to_owned()),
            "{receipt}"
        );
        assert!(gateway.take("arbo-noord").await.is_empty());
    }
    assert_eq!(parked(&gateway).await.len(), 3);
    // After two years, to the end of the month, nobody recognises it.
    gateway.clock.advance(DAY * 762);
    forget(&gateway).await;
    let late = Absence {
        action: "03",
        ..again(&end)
    };
    assert!(pass(&gateway, late.xml()).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_ends_the_case() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    let withdrawal = Absence {
        action: "04",
        ..again(&report)
    };
    assert_eq!(pass(&gateway, withdrawal.xml()).await.len(), 1);
    assert!(!is_sick(&gateway).await);
    assert_eq!(
        pass(&gateway, again(&withdrawal).xml()).await.len(),
        1,
        "known"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leavers_pass_where_the_route_says_so() {
    let directory = DIRECTORY.replacen(
        "from = 2018-01-01\n",
        "from = 2018-01-01\nleavers = true\n",
        1,
    );
    let gateway = Gateway::boot_with(&directory, "").await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    pass(&gateway, recovery(&report, 2, RECOVERY).xml()).await;
    gateway.clock.advance(DAY * 35);
    assert!(is_sick(&gateway).await, "recovered, in the window");
    assert!(!employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await);
    gateway.clock.advance(DAY);
    assert!(!is_sick(&gateway).await, "after the window");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_case_is_no_recovery_for_leavers() {
    let directory = DIRECTORY.replacen(
        "from = 2018-01-01\n",
        "from = 2018-01-01\nleavers = true\n",
        1,
    );
    let gateway = Gateway::boot_with(&directory, "").await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    pass(
        &gateway,
        Absence {
            action: "04",
            ..again(&report)
        }
        .xml(),
    )
    .await;
    assert!(!is_sick(&gateway).await, "there was no absence");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_counts_from_the_later_of_recovery_and_release() {
    let directory = DIRECTORY.replacen(
        "from = 2018-01-01\n",
        "from = 2018-01-01\nleavers = true\n",
        1,
    );
    let gateway = Gateway::boot_with(&directory, "").await;
    let report = Absence {
        first_day: "2026-09-01".to_owned(),
        ..Absence::default()
    };
    pass(&gateway, report.xml()).await;
    pass(&gateway, recovery(&report, 2, "2026-10-01").xml()).await;
    gateway.clock.advance(DAY * 35);
    assert!(is_sick(&gateway).await, "35 days after the release");
    let other = Absence {
        first_day: "2026-09-01".to_owned(),
        ..Absence::of("W-2", "VG-2")
    };
    pass(&gateway, other.xml()).await;
    pass(&gateway, recovery(&other, 2, "2027-01-06").xml()).await;
    gateway.clock.advance(DAY * 45);
    assert!(
        employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await,
        "35 days after the recovery"
    );
    gateway.clock.advance(DAY);
    assert!(!employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_receivers_know_different_persons() {
    let gateway = Gateway::boot_with(&COPIES.replace("copy = true\n", ""), "").await;
    let both = Absence {
        receiver: "SIVI-GATEWAY",
        ..Absence::of("W-1", "VG-1")
    };
    let arbo_only = Absence {
        receiver: "ARBONOORD",
        ..Absence::of("W-2", "VG-2")
    };
    gateway.accept("adp", both.xml()).await;
    gateway.accept("adp", arbo_only.xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 2);
    assert_eq!(gateway.take("dokter").await.len(), 1);
    let change = employments(
        "ADP",
        &[("W-1", "1980-02-29", "D-1"), ("W-2", "1980-02-29", "D-1")],
    );
    gateway
        .accept("adp", change.replace("ARBONOORD", "SIVI-GATEWAY"))
        .await;
    let arbo = gateway.take("arbo-noord").await.concat();
    let doctor = gateway.take("dokter").await.concat();
    assert!(arbo.contains("W-1") && arbo.contains("W-2"), "{arbo}");
    assert!(
        doctor.contains("W-1") && !doctor.contains("W-2"),
        "{doctor}"
    );
    // A correction goes to the one that knows the case, and is not parked.
    let correction = Absence {
        action: "03",
        receiver: "SIVI-GATEWAY",
        ..again(&arbo_only)
    };
    gateway.accept("adp", correction.xml()).await;
    assert_eq!(gateway.take("arbo-noord").await.len(), 1);
    assert!(gateway.take("dokter").await.is_empty());
    assert!(parked(&gateway).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_case_is_taken_at_go_live_and_a_whole_one_after_it() {
    let gateway = Gateway::boot().await;
    let running = Absence {
        number: 7,
        action: "02",
        ..Absence::default()
    };
    assert_eq!(pass(&gateway, running.xml()).await.len(), 1);
    assert!(is_sick(&gateway).await);
    let whole = recovery(&Absence::of("W-2", "VG-2"), 1, "2026-11-21");
    assert_eq!(pass(&gateway, whole.xml()).await.len(), 1);
    assert!(!employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await);
    let long_over = Absence {
        first_day: "2026-01-01".to_owned(),
        ..recovery(&Absence::of("W-3", "VG-3"), 1, "2026-02-01")
    };
    assert!(
        pass(&gateway, long_over.xml()).await.is_empty(),
        "recovered before the window"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_report_does_not_open_a_case_again() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    pass(&gateway, recovery(&report, 3, RECOVERY).xml()).await;
    // Report 2 is late; report 1 is corrected after the recovery.
    let late = Absence {
        number: 2,
        action: "02",
        ..again(&report)
    };
    assert_eq!(
        pass(&gateway, late.xml()).await.len(),
        1,
        "no report is lost"
    );
    assert!(!is_sick(&gateway).await);
    let corrected = Absence {
        action: "03",
        ..again(&report)
    };
    let taken = pass(&gateway, corrected.xml()).await;
    assert_eq!(text(&taken[0], "StrAdrNl"), None, "minimal: {}", taken[0]);
    assert!(!is_sick(&gateway).await);
    // A relapse in the same case does, whatever its number.
    let relapse = Absence {
        first_day: "2026-11-25".to_owned(),
        ..again(&report)
    };
    assert_eq!(pass(&gateway, relapse.xml()).await.len(), 1);
    assert!(is_sick(&gateway).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_person_key_is_followed_with_the_right_birth_date_only() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    let rekeyed = |born: &str| Absence {
        former_person: Some("W-1".to_owned()),
        born: born.to_owned(),
        number: 2,
        action: "02",
        berrefnr: super::support::reference(),
        ..Absence::of("W-10", "VG-1")
    };
    // Not outside an absence report.
    assert!(!employment_passes(&gateway, "W-10", "1980-02-29", "D-1").await);
    let receipt = gateway.accept("adp", rekeyed("1981-01-01").xml()).await;
    assert!(
        codes(&receipt).contains(&"key_change_unconfirmed".to_owned()),
        "{receipt}"
    );
    assert!(gateway.take("arbo-noord").await.is_empty());
    assert_eq!(parked(&gateway).await.len(), 1);
    assert!(is_sick(&gateway).await, "the old key still holds");
    let other_case = Absence {
        case: "VG-77".to_owned(),
        ..rekeyed("1981-01-01")
    };
    let receipt = gateway.accept("adp", other_case.xml()).await;
    assert!(codes(&receipt).contains(&"key_change_unconfirmed".to_owned()));
    assert!(
        is_sick(&gateway).await,
        "nobody takes a case over by its key"
    );
    assert_eq!(pass(&gateway, rekeyed("1980-02-29").xml()).await.len(), 1);
    assert!(employment_passes(&gateway, "W-10", "1980-02-29", "D-1").await);
    assert!(!is_sick(&gateway).await, "the old key is nobody's");
    let receipt = gateway.accept("adp", rekeyed("1981-01-01").xml()).await;
    assert!(
        codes(&receipt).contains(&"key_change_unconfirmed".to_owned()),
        "followed before, for somebody else: {receipt}"
    );
    assert!(gateway.take("arbo-noord").await.is_empty());
    // The recovery under the new key ends it.
    pass(
        &gateway,
        recovery(&rekeyed("1980-02-29"), 3, RECOVERY).xml(),
    )
    .await;
    assert!(!employment_passes(&gateway, "W-10", "1980-02-29", "D-1").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_case_and_employment_keys_are_followed() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    let next = Absence {
        number: 2,
        action: "02",
        ..again(&report)
    };
    let case_changed = |born: &str| {
        let report = Absence {
            born: born.to_owned(),
            case: "VG-8".to_owned(),
            ..again(&next)
        };
        report.xml().replace(
            "</VrzmgvlId>",
            "</VrzmgvlId><VrzmgvlIdOud>VG-1</VrzmgvlIdOud>",
        )
    };
    let receipt = gateway.accept("adp", case_changed("1990-01-01")).await;
    assert!(
        codes(&receipt).contains(&"key_change_unconfirmed".to_owned()),
        "{receipt}"
    );
    assert_eq!(pass(&gateway, case_changed("1980-02-29")).await.len(), 1);
    let end = Absence {
        case: "VG-8".to_owned(),
        ..recovery(&report, 3, RECOVERY)
    };
    assert_eq!(pass(&gateway, end.xml()).await.len(), 1);
    assert!(
        !is_sick(&gateway).await,
        "one case under two ids is one case"
    );

    let report = Absence::of("W-2", "VG-2");
    pass(&gateway, report.xml()).await;
    let moved = |born: &str| {
        let report = Absence {
            born: born.to_owned(),
            employment: "D-7".to_owned(),
            number: 2,
            ..again(&report)
        };
        report.xml().replace(
            "</IdDnstvbnd>",
            "</IdDnstvbnd><IdDnstvbndOud>D-1</IdDnstvbndOud>",
        )
    };
    let receipt = gateway.accept("adp", moved("1990-01-01")).await;
    assert!(
        codes(&receipt).contains(&"key_change_unconfirmed".to_owned()),
        "{receipt}"
    );
    assert_eq!(pass(&gateway, moved("1980-02-29")).await.len(), 1);
    assert!(employment_passes(&gateway, "W-2", "1980-02-29", "D-7").await);
    assert!(!employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personnel_number_used_again_is_somebody_else() {
    let gateway = Gateway::boot().await;
    pass(&gateway, Absence::default().xml()).await;
    assert!(!employment_passes(&gateway, "W-1", "1999-01-01", "D-1").await);
    let newcomer = Absence {
        born: "1999-01-01".to_owned(),
        employment: "D-5".to_owned(),
        ..Absence::of("W-1", "VG-5")
    };
    assert_eq!(
        pass(&gateway, newcomer.xml()).await.len(),
        1,
        "a report is never lost"
    );
    assert!(employment_passes(&gateway, "W-1", "1999-01-01", "D-5").await);
    assert!(!employment_passes(&gateway, "W-1", "1999-01-01", "D-1").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_id_used_again_lets_no_stranger_pass() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    pass(&gateway, report.xml()).await;
    let stranger = Absence {
        action: "03",
        person: "W-2".to_owned(),
        surname: "Geheim".to_owned(),
        ..again(&report)
    };
    let receipt = gateway.accept("adp", stranger.xml()).await;
    assert!(
        codes(&receipt).contains(&"case_unknown".to_owned()),
        "{receipt}"
    );
    assert!(gateway.take("arbo-noord").await.is_empty());
    assert!(!employment_passes(&gateway, "W-2", "1980-02-29", "D-1").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_employments_of_the_case_pass() {
    let gateway = Gateway::boot().await;
    // One person, two employments in one group; sick in both, recovered in the other.
    let first = Absence::of("W-1", "VG-1");
    let second = Absence {
        employment: "D-2".to_owned(),
        ..recovery(&Absence::of("W-1", "VG-2"), 1, "2026-01-01")
    };
    let group = second.employee();
    let employment = &group[group.find("<Dnstvbnd>").unwrap()..group.find("</Wrknmr>").unwrap()];
    let xml = first
        .xml()
        .replace("</Wrknmr>", &format!("{employment}</Wrknmr>"));
    let taken = pass(&gateway, xml).await;
    assert!(
        taken[0].contains("D-1") && !taken[0].contains("D-2"),
        "{}",
        taken[0]
    );
    assert!(is_sick(&gateway).await);
    assert!(!employment_passes(&gateway, "W-1", "1980-02-29", "D-2").await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_in_several_groups_of_one_message_is_one_person() {
    let gateway = Gateway::boot().await;
    let first = Absence::default();
    let end = recovery(&first, 2, RECOVERY);
    let correction = Absence {
        action: "03",
        ..again(&end)
    };
    for _ in 0..2 {
        // Twice: for a new case, and for one that the ledger knows.
        let head = header(
            "00100",
            "00006",
            "ADP",
            "ARBONOORD",
            &super::support::reference(),
            "N",
        );
        let persons = vec![first.employee(), end.employee(), correction.employee()];
        let taken = pass(&gateway, absences(&head, &[(("105", "6431"), persons)])).await;
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].matches("<VrzmgvlId>").count(), 3, "{}", taken[0]);
        assert!(
            !is_sick(&gateway).await,
            "the last report of the message counts"
        );
        assert!(parked(&gateway).await.is_empty());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_under_another_employment_ends_the_case() {
    let gateway = Gateway::boot().await;
    let report = Absence::default();
    for (action, ended) in [("02", true), ("04", false)] {
        pass(&gateway, again(&report).xml()).await;
        assert!(is_sick(&gateway).await);
        let end = Absence {
            employment: "D-3".to_owned(),
            action,
            ended,
            ..recovery(&report, 2, RECOVERY)
        };
        assert_eq!(pass(&gateway, end.xml()).await.len(), 1);
        assert!(!is_sick(&gateway).await, "{action}");
        gateway.clock.advance(DAY * 40);
        forget(&gateway).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_messages_have_their_own_ledger_and_inbox() {
    let gateway = Gateway::boot().await;
    let test = Absence {
        test: "J",
        ..Absence::default()
    };
    assert!(pass(&gateway, test.xml()).await.is_empty());
    assert!(!is_sick(&gateway).await);
    let leased = gateway.lease_with("arbo-noord", "test=true").await;
    assert_eq!(leased.len(), 1);
    assert_eq!(
        text(leased[0]["xml"].as_str().unwrap(), "TestJN"),
        Some("J")
    );
    assert_eq!(leased[0]["sequence"], 1);
    assert_eq!(pass(&gateway, Absence::default().xml()).await.len(), 1);
    // A correction of the test case is unknown in production, and the other way round.
    let correction = Absence {
        action: "03",
        ..Absence::of("W-9", "VG-9")
    };
    pass(
        &gateway,
        Absence {
            test: "J",
            ..Absence::of("W-9", "VG-9")
        }
        .xml(),
    )
    .await;
    let receipt = gateway.accept("adp", correction.xml()).await;
    assert!(codes(&receipt).contains(&"case_unknown".to_owned()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_cannot_tell_who_was_withheld() {
    let gateway = Gateway::boot().await;
    pass(&gateway, Absence::default().xml()).await;
    let mut seen = Vec::new();
    for id in ["W-1", "W-2"] {
        let receipt = gateway
            .accept("adp", employments("ADP", &[(id, "1980-02-29", "D-1")]))
            .await;
        let path = format!("/v1/messages/{}", receipt["id"].as_str().unwrap());
        let mut views = vec![receipt.clone()];
        for step in 0..3 {
            if step == 1 {
                gateway.lease("arbo-noord").await;
            }
            if step == 2 {
                gateway.clock.advance(std::time::Duration::from_secs(61));
                gateway.take("arbo-noord").await;
            }
            views.push(gateway.get("adp", &path).await.json().await.unwrap());
        }
        for view in &mut views {
            blank(view);
        }
        seen.push(views);
    }
    assert_eq!(seen[0], seen[1]);
    gateway.stop().await;
}

/// Blanks what differs from message to message: ids, digests and moments.
fn blank(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                if ["id", "digest", "received_at", "at"].contains(&key.as_str()) {
                    *value = serde_json::Value::Null;
                }
                blank(value);
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(blank),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_answered_employment_release_does_not_show_either() {
    let gateway = Gateway::boot().await;
    pass(&gateway, Absence::default().xml()).await;
    let mut seen = Vec::new();
    for id in ["W-1", "W-2"] {
        let receipt = gateway
            .accept("adp", employments("ADP", &[(id, "1980-02-29", "D-1")]))
            .await;
        for message in gateway.lease("arbo-noord").await {
            let path = format!("/v1/inbox/{}/reject", message["id"].as_str().unwrap());
            let body = serde_json::json!({ "lease": message["lease"], "code": "x", "reason": "y" });
            assert!(
                gateway
                    .post_json("arbo-noord", &path, body)
                    .await
                    .status()
                    .is_success()
            );
        }
        let path = format!("/v1/messages/{}", receipt["id"].as_str().unwrap());
        let mut view: serde_json::Value = gateway.get("adp", &path).await.json().await.unwrap();
        blank(&mut view);
        seen.push(view);
    }
    assert_eq!(seen[0], seen[1]);
    let missing = refused(&gateway, "adp", "<x".to_owned()).await;
    assert_eq!(missing.0, 400);
    gateway.stop().await;
}

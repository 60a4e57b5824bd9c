//! Conditions at the edge of their bounds.

use super::*;
use crate::directory::{Delivery, PartyLimits, Push};
use crate::domain::{Domain, PartyId, PartyKind, TenantId};

const HOUR: Duration = Duration::from_hours(1);
const BOUNDS: Bounds = Bounds {
    parked_percent: 80,
    parked_per_party: 10,
    parked_bytes_per_party: 1_000,
    parked_days: 10,
    dead_days: 90,
};

fn now() -> Timestamp {
    "2026-11-24T09:00:00Z".parse().unwrap()
}

fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

fn waiting(age: Duration, test: bool) -> Waiting {
    Waiting {
        tenant: TenantId::parse("bakkerij").unwrap(),
        party: party("arbo"),
        domain: Domain::Arbodienst,
        message_type: "Verzuimmeldingen".to_owned(),
        test,
        due: 2,
        leased: 1,
        oldest: now() - age,
        oldest_offered: Some(now() - age),
    }
}

fn parked(parts: u64, bytes: u64, age: Duration) -> ParkedCount {
    ParkedCount {
        party: party("adp"),
        reason: "no_route".to_owned(),
        parts,
        bytes,
        oldest: now() - age,
    }
}

fn push() -> Delivery {
    Delivery::Push(Box::new(Push {
        url: "https://arbo.example.nl/in".to_owned(),
        secret: Some("file:push.secret".to_owned()),
        previous_secret: None,
        client: None,
        ca: None,
        allow_private: Vec::new(),
        timeout: Duration::from_secs(20),
        max_in_flight: 8,
    }))
}

/// With the party `arbo`, if it gets its messages in some way.
fn directory_of(delivery: Option<Delivery>) -> Directory {
    let arbo = delivery.map(|delivery| Party {
        id: party("arbo"),
        name: "Arbo".to_owned(),
        kind: PartyKind::Arbodienst,
        sender_ids: Vec::new(),
        receiver_id: None,
        mapping: "adp".to_owned(),
        edition: "2017".to_owned(),
        delivery,
        certificates: Vec::new(),
        require_certificate: false,
        limits: PartyLimits::default(),
    });
    Directory {
        parties: arbo
            .into_iter()
            .map(|arbo| (arbo.id.clone(), arbo))
            .collect(),
        ..Directory::default()
    }
}

fn hold(observed: &Observed) -> Vec<Condition> {
    conditions(observed, &Directory::default(), BOUNDS, "n", now())
}

#[test]
fn a_report_is_late_after_its_hours_and_not_before() {
    let of = |one: Waiting| {
        hold(&Observed {
            waiting: Some(vec![one]),
            ..Observed::default()
        })
    };
    assert_eq!(of(waiting(24 * HOUR, false)), []);
    let late = of(waiting(24 * HOUR + Duration::from_millis(1), false));
    assert_eq!(late[0].name, AlertName::Undelivered);
    assert_eq!(late[0].number, 3);
    let subject = r#"{"domain":"arbodienst","message_type":"Verzuimmeldingen","party":"arbo","tenant":"bakkerij"}"#;
    assert_eq!(late[0].subject.to_json(), subject);
    assert_eq!(of(waiting(400 * HOUR, true)), [], "no term runs for tests");
    let mut fresh = waiting(400 * HOUR, false);
    fresh.oldest_offered = None;
    assert_eq!(of(fresh), [], "it was parked until now");
}

#[test]
fn parking_is_near_its_bound_by_number_bytes_or_age() {
    let of = |parked: Vec<ParkedCount>| {
        hold(&Observed {
            parked: Some(parked),
            ..Observed::default()
        })
        .len()
    };
    assert_eq!(of(vec![parked(7, 799, 191 * HOUR)]), 0);
    assert_eq!(of(vec![parked(8, 1, HOUR)]), 1);
    assert_eq!(of(vec![parked(1, 800, HOUR)]), 1);
    assert_eq!(of(vec![parked(1, 1, 192 * HOUR)]), 1);
    assert_eq!(of(vec![parked(4, 1, HOUR), parked(4, 1, HOUR)]), 1);
}

#[test]
fn what_ends_within_two_weeks_is_told() {
    let of = |hours: i64| {
        hold(&Observed {
            endings: Some(vec![Ending {
                subject: Subject::default().with("certificate", "server"),
                ends_at: now() + jiff::SignedDuration::from_hours(hours),
            }]),
            ..Observed::default()
        })
    };
    assert_eq!(of(14 * 24)[0].number, 14);
    assert_eq!(of(14 * 24 + 1), []);
    assert_eq!(of(-1)[0].number, 0);
}

#[test]
fn a_node_that_cannot_use_its_configuration_says_so_for_itself() {
    let of = |unusable| {
        hold(&Observed {
            unusable: Some(unusable),
            ..Observed::default()
        })
    };
    let held = of(Some((now(), 2)));
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].name, AlertName::ConfigurationUnusable);
    assert_eq!(held[0].subject.to_json(), r#"{"node":"n"}"#);
    assert_eq!((held[0].since, held[0].number), (now(), 2));
    assert_eq!(of(None), []);
}

#[test]
fn parked_parts_that_fail_are_told_by_the_node_that_tried_them() {
    let held = hold(&Observed {
        parked_failing: Some(Some((now(), 3))),
        ..Observed::default()
    });
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].name, AlertName::ParkedFailing);
    assert_eq!(held[0].subject.to_json(), r#"{"node":"n"}"#);
    assert_eq!((held[0].since, held[0].number), (now(), 3));
}

#[test]
fn a_paused_receiver_is_told_once_per_party_and_not_for_tests() {
    let paused = |test| PausedReceiver {
        party: party("arbo"),
        test,
        since: Some(now()),
        failures: 7,
    };
    let observed = Observed {
        paused: Some(vec![paused(false), paused(true)]),
        ..Observed::default()
    };
    let hold_with = |delivery| {
        let directory = directory_of(delivery);
        conditions(&observed, &directory, BOUNDS, "n", now())
    };
    assert_eq!(hold_with(None), [], "it is gone from the directory");
    assert_eq!(hold_with(Some(Delivery::Poll)), [], "it polls since");
    let held = hold_with(Some(push()));
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].name, held[0].number),
        (AlertName::ReceiverPaused, 7)
    );
}

#[test]
fn the_end_of_the_content_of_a_dead_letter_is_told_two_weeks_before() {
    assert_eq!(BOUNDS.dead_ending_before(now()), now() - 76 * 24 * HOUR);
    let letters = |test| DeadLetters {
        tenant: TenantId::parse("bakkerij").unwrap(),
        party: party("arbo"),
        domain: Domain::Arbodienst,
        test,
        count: 2,
        since: Some(now() - 80 * 24 * HOUR),
        latest: Some(now() - 77 * 24 * HOUR),
    };
    let held = hold(&Observed {
        dead_ending: Some(vec![letters(false), letters(true)]),
        ..Observed::default()
    });
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].name, held[0].number),
        (AlertName::DeadLetterEnding, 2)
    );
    assert_eq!(held[0].since, now() - 4 * 24 * HOUR);
    assert_eq!(
        held[0].latest,
        letters(false).latest,
        "another one is told again"
    );
}

/// Every alert has its row in the page for operators.
#[test]
fn every_alert_is_in_the_page_for_operators() {
    let page = include_str!("../../../docs/watching.md");
    for name in AlertName::ALL {
        let row = format!("| `{}` | {} |", name.as_str(), name.severity().as_str());
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn what_was_not_observed_stays_as_it_is() {
    let raised = |name: &str, subject: &str| Alert {
        name: name.to_owned(),
        subject: subject.to_owned(),
        severity: "warning".to_owned(),
        since: now(),
        number: 1,
        raised_at: now(),
        told_to: None,
    };
    let observed = Observed {
        dead: Some(Vec::new()),
        clock_jump: Some(None),
        ..Observed::default()
    };
    let seen = observed.names();
    let may = |raised: &Alert, at| may_clear(raised, &seen, "n", at);
    let mine = raised("clock_jump", r#"{"node":"n"}"#);
    let other = raised("clock_jump", r#"{"node":"m"}"#);
    assert!(may(&raised("dead_letter", "{}"), now()));
    assert!(!may(&raised("undelivered", "{}"), now()));
    assert!(may(&mine, now()));
    assert!(!may(&other, now() + 2 * HOUR));
    assert!(may(&other, now() + 3 * HOUR), "that node is gone");
}

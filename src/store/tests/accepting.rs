//! Accepting: once, whole, and against what is true now.

use proptest::prelude::*;

use super::*;

on_both! {
    async fn a_receipt_reads_back_as_it_was_written(place: Place) {
        let store = place.open().await;
        let mut accepted = acceptance("m1");
        accepted.message.findings = vec![Finding {
            path: "Wrkgvr[1]".into(),
            line: 3,
            column: 7,
            expected: Some("Gebdat".into()),
            ..Finding::new(Code::ElementMissing)
        }];
        accepted.releases = vec![to_arbo("r1", "a")];
        let message = accepted.message.clone();
        store.accept(accepted).await.unwrap();

        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert_eq!(stored.body, message.body);
        assert_eq!(stored.reference, "REF-m1");
        assert_eq!(stored.findings, message.findings);
        assert_eq!(stored.routed, message.routed);
        assert_eq!(stored.received_at, message.received_at);
        assert_eq!(stored.deliveries.len(), 1);
        assert_eq!(stored.deliveries[0].state, DeliveryState::Offered);
        assert_eq!(stored.parked, None);
        let same = store.find_message(&party("adp"), &hash("m1")).await.unwrap();
        assert_eq!(same.unwrap().id, "m1");
    }

    async fn another_party_sees_no_receipt(place: Place) {
        let store = place.open().await;
        store.accept(acceptance("m1")).await.unwrap();
        assert!(store.message(&party("nmbrs"), "m1").await.unwrap().is_none());
        let found = store.find_message(&party("nmbrs"), &hash("m1")).await;
        assert!(found.unwrap().is_none());
    }

    async fn a_hidden_receipt_shows_no_deliveries(place: Place) {
        let store = place.open().await;
        let mut hidden = acceptance("m1");
        hidden.message.shown = false;
        hidden.releases = vec![to_arbo("r1", "a")];
        store.accept(hidden).await.unwrap();
        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert!(!stored.shown && stored.deliveries.is_empty());
    }

    async fn a_reference_is_accepted_once_test_or_not(place: Place) {
        let store = place.open().await;
        store.accept(acceptance("m1")).await.unwrap();
        let mut again = acceptance("m2");
        again.message.berrefnr = hash("m1");
        again.message.test = true;
        again.releases = vec![to_arbo("r2", "a")];
        again.ledger = vec![known(LedgerChange::Put(case_entry(case_key("r", "p", "c"), 0, 1)))];
        let Err(AcceptError::Duplicate(earlier)) = store.accept(again).await else {
            panic!("accepted twice");
        };
        assert_eq!((earlier.id.as_str(), earlier.body), ("m1", hash("body of m1")));
        // Nothing of the second one was written.
        assert!(store.message(&party("adp"), "m2").await.unwrap().is_none());
        assert!(lease_ids(&store, 10).await.is_empty());
        let ledger = store.ledger(&[(hash("r"), hash("p"))]).await.unwrap();
        assert!(ledger.is_empty());

        let mut other_party = acceptance("m3");
        other_party.message.berrefnr = hash("m1");
        other_party.message.party = party("nmbrs");
        store.accept(other_party).await.unwrap();
    }

    async fn of_many_repeats_at_once_one_is_accepted(place: Place) {
        let store = place.open().await;
        let tries: Vec<_> = (0..64)
            .map(|n| {
                let store = store.clone();
                let mut repeat = acceptance(&format!("m{n}"));
                repeat.message.berrefnr = hash("same");
                repeat.releases = vec![to_arbo(&format!("r{n}"), "a")];
                tokio::spawn(async move { store.accept(repeat).await })
            })
            .collect();
        let mut accepted = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(()) => accepted += 1,
                Err(AcceptError::Duplicate(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(accepted, 1);
        assert_eq!(lease_ids(&store, 100).await.len(), 1);
    }

    async fn a_ledger_entry_is_written_on_the_version_it_was_read(place: Place) {
        let store = place.open().await;
        let key = case_key("route", "person", "case");
        let put = |id: &str, version, number| {
            let mut one = acceptance(id);
            one.ledger = vec![known(LedgerChange::Put(case_entry(key, version, number)))];
            store.accept(one)
        };
        put("m1", 0, 1).await.unwrap();
        assert!(matches!(put("m2", 0, 2).await, Err(AcceptError::Conflict)));
        put("m3", 1, 3).await.unwrap();
        assert!(matches!(put("m4", 1, 4).await, Err(AcceptError::Conflict)));

        let mut stored = store.ledger(&[(hash("route"), hash("person"))]).await.unwrap();
        assert_eq!(stored.pop().unwrap(), case_entry(key, 2, 3));
        let of_case = store.ledger_cases(&[(hash("route"), hash("case"))]).await.unwrap();
        assert_eq!(of_case, [case_entry(key, 2, 3)]);
        let elsewhere = store.ledger(&[(hash("other"), hash("person"))]).await.unwrap();
        assert!(elsewhere.is_empty());
        // A refused one does not use up its reference.
        put("m4", 2, 4).await.unwrap();

        let mut gone = acceptance("m5");
        gone.ledger = vec![known(LedgerChange::Remove { key, version: 3 })];
        store.accept(gone).await.unwrap();
        assert!(store.ledger(&[(hash("route"), hash("person"))]).await.unwrap().is_empty());
        let mut gone = acceptance("m6");
        gone.ledger = vec![known(LedgerChange::Remove { key, version: 3 })];
        assert!(matches!(store.accept(gone).await, Err(AcceptError::Conflict)));
    }

    async fn of_many_decisions_on_one_version_one_is_written(place: Place) {
        let store = place.open().await;
        let key = case_key("route", "person", "case");
        for version in 0..4_i64 {
            let tries: Vec<_> = (0..16)
                .map(|n| {
                    let store = store.clone();
                    let mut one = acceptance(&format!("m{version}-{n}"));
                    one.ledger = vec![known(LedgerChange::Put(case_entry(key, version, n)))];
                    tokio::spawn(async move { store.accept(one).await })
                })
                .collect();
            let mut accepted = 0;
            for one in tries {
                match one.await.unwrap() {
                    Ok(()) => accepted += 1,
                    Err(AcceptError::Conflict) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(accepted, 1);
        }
        let stored = store.ledger(&[(hash("route"), hash("person"))]).await.unwrap();
        assert_eq!(stored[0].version, 4);
    }

    async fn a_broken_row_takes_no_neighbour_down(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m0", vec![to_arbo("taken", "a")]).await;
        let tries: Vec<_> = (1..40)
            .map(|n| {
                let store = store.clone();
                let mut one = acceptance(&format!("m{n}"));
                // Every seventh brings a release whose id is taken.
                let id = if n % 7 == 0 { "taken".into() } else { format!("r{n}") };
                one.releases = vec![to_arbo(&id, "")];
                tokio::spawn(async move { (n, store.accept(one).await) })
            })
            .collect();
        for one in tries {
            let (n, result) = one.await.unwrap();
            assert_eq!(result.is_err(), n % 7 == 0, "{n}: {result:?}");
        }
        let count = lease_ids(&store, 100).await.len();
        assert_eq!(count, 1 + (1..40).filter(|n| n % 7 != 0).count());
        store.health().await.unwrap();
    }

    async fn many_rows_of_one_message_are_written_whole(place: Place) {
        let store = place.open().await;
        let mut big = acceptance("big");
        big.releases = (0..700).map(|n| to_arbo(&format!("r{n:04}"), "ab")).collect();
        big.ledger = (0..3000)
            .map(|n| case_key("route", &format!("p{n}"), "case"))
            .map(|key| known(LedgerChange::Put(case_entry(key, 0, 1))))
            .collect();
        store.accept(big).await.unwrap();
        let persons: Vec<_> = (0..3000).map(|n| (hash("route"), hash(&format!("p{n}")))).collect();
        assert_eq!(store.ledger(&persons).await.unwrap().len(), 3000);
        let ids = lease_ids(&store, 1000).await;
        assert_eq!(ids.len(), 700);
        assert!(ids.is_sorted());
    }

    async fn withheld_counts_add_up_per_day_and_rule(place: Place) {
        let store = place.open().await;
        let withheld = |rule, count| Withheld {
            tenant: TenantId::parse("bakkerij").unwrap(),
            to: party("arbo"),
            domain: Domain::Arbodienst,
            message_type: "Verzuimmeldingen".into(),
            rule,
            count,
        };
        for id in ["m1", "m2"] {
            let mut one = acceptance(id);
            one.withheld = vec![withheld("bsn", 2), withheld("person_not_sick", 1), withheld("bsn", 3)];
            store.accept(one).await.unwrap();
        }
        place.clock.advance(Duration::from_hours(24));
        let mut next_day = acceptance("m3");
        next_day.decided_on = date(2018, 3, 2);
        next_day.withheld = vec![withheld("bsn", 1)];
        store.accept(next_day).await.unwrap();

        let days = date(2018, 3, 1)..=date(2018, 3, 1);
        let counts = store.withheld_counts(days, None).await.unwrap();
        let counts: Vec<_> = counts.iter().map(|c| (c.rule.as_str(), c.count)).collect();
        assert_eq!(counts, [("bsn", 10), ("person_not_sick", 2)]);
        let days = || date(2018, 3, 1)..=date(2018, 3, 2);
        let tenant = TenantId::parse("bakkerij").unwrap();
        assert_eq!(store.withheld_counts(days(), Some(&tenant)).await.unwrap().len(), 3);
        let other = TenantId::parse("slagerij").unwrap();
        assert!(store.withheld_counts(days(), Some(&other)).await.unwrap().is_empty());
    }

    async fn an_answer_is_shown_only_for_its_own_receiver(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let found = store
            .release_by_berrefnr(&party("arbo"), &KeyedHash::from_bytes([7; 32]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.id.as_str(), found.message_id.as_str()), ("r1", "m1"));
        assert_eq!((found.sender, found.reference.as_str()), (party("adp"), "REF-m1"));
        let stranger = store
            .release_by_berrefnr(&party("verz"), &KeyedHash::from_bytes([7; 32]))
            .await;
        assert!(stranger.unwrap().is_none());

        for (id, sender, refused) in [("a1", "verz", false), ("a2", "arbo", true)] {
            let mut answer = acceptance(id);
            answer.message.party = party(sender);
            answer.answer = Some(Answer { release_id: "r1".into(), positive: false });
            store.accept(answer).await.unwrap();
            let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
            assert_eq!(stored.deliveries[0].state == DeliveryState::Refused, refused);
        }
    }
}

/// What one try of the property below brings along.
#[derive(Clone, Debug)]
struct Try {
    reference: u8,
    body: u8,
    entry: u8,
    version: i64,
}

fn tries() -> impl Strategy<Value = Vec<Vec<Try>>> {
    let one =
        (0_u8..6, 0_u8..2, 0_u8..3, 0_i64..3).prop_map(|(reference, body, entry, version)| Try {
            reference,
            body,
            entry,
            version,
        });
    proptest::collection::vec(proptest::collection::vec(one, 1..8), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However tries race, each reference and each ledger version is used
    /// once, and exactly what was answered is there.
    #[test]
    fn what_was_answered_is_what_is_there(rounds in tries()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(race(rounds));
    }
}

async fn race(rounds: Vec<Vec<Try>>) {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let mut owners = std::collections::HashMap::new();
    let mut versions = [0_i64; 3];
    for (round, tries) in rounds.into_iter().enumerate() {
        let running: Vec<_> = tries
            .into_iter()
            .enumerate()
            .map(|(n, one)| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut acceptance = acceptance(&format!("m{round}-{n}"));
                    acceptance.message.berrefnr = hash(&one.reference.to_string());
                    acceptance.message.body = hash(&format!("body {}", one.body));
                    let key = case_key("route", &one.entry.to_string(), "case");
                    let entry = case_entry(key, one.version, 1);
                    acceptance.ledger = vec![known(LedgerChange::Put(entry))];
                    (
                        one,
                        acceptance.message.id.clone(),
                        store.accept(acceptance).await,
                    )
                })
            })
            .collect();
        for task in running {
            let (one, id, result) = task.await.unwrap();
            match result {
                Ok(()) => {
                    assert_eq!(owners.insert(one.reference, (id, one.body)), None);
                    versions[usize::from(one.entry)] += 1;
                }
                Err(AcceptError::Duplicate(earlier)) => {
                    assert_eq!(earlier.party, party("adp"));
                }
                Err(AcceptError::Conflict) => {}
                Err(
                    cause @ (AcceptError::Stale | AcceptError::OtherDay | AcceptError::Store(_)),
                ) => panic!("{cause}"),
            }
        }
    }
    for (reference, (id, body)) in owners {
        let reference = hash(&reference.to_string());
        let found = store.find_message(&party("adp"), &reference).await;
        let found = found.unwrap().unwrap();
        assert_eq!((found.id, found.body), (id, hash(&format!("body {body}"))));
    }
    for (entry, version) in versions.into_iter().enumerate() {
        let pair = (hash("route"), hash(&entry.to_string()));
        let stored = store.ledger(&[pair]).await.unwrap();
        assert_eq!(stored.first().map_or(0, |entry| entry.version), version);
    }
}

//! Directory, keys, parked parts, forgetting.

use super::*;

fn record(id: &str, body: &str) -> Record {
    Record {
        kind: "party".into(),
        id: id.into(),
        body: body.into(),
    }
}

fn parking(id: &str, part: &str, persons: &[KeyedHash]) -> Acceptance {
    let mut acceptance = acceptance(id);
    acceptance.parked = vec![parked(part, Code::NoRoute, persons, b"<parked/>")];
    acceptance
}

on_both! {
    /// What was decided with a directory that is not there any more is not
    /// written, and leaves the reference free.
    async fn a_decision_of_another_directory_is_stale(place: Place) {
        let store = place.open().await;
        let put = DirectoryChange::Put(Record {
            kind: "party".into(),
            id: "adp".into(),
            body: "{}".into(),
        });
        assert_eq!(store.change_directory(0, vec![put]).await.unwrap(), 1);
        let stale = store.accept(acceptance("m1")).await;
        assert!(matches!(stale, Err(AcceptError::Stale)), "{stale:?}");
        let mut again = acceptance("m1");
        again.directory_version = 1;
        store.accept(again).await.unwrap();
        // A repeat gets its receipt, whatever it was decided with.
        let repeat = store.accept(acceptance("m1")).await;
        assert!(matches!(repeat, Err(AcceptError::Duplicate(_))), "{repeat:?}");
    }

    async fn the_directory_changes_only_on_the_version_it_was_read(place: Place) {
        let store = place.open().await;
        assert_eq!(store.directory().await.unwrap(), Directory { version: 0, records: vec![] });
        let put = |id: &str, body: &str| DirectoryChange::Put(record(id, body));
        let version = store.change_directory(0, vec![put("b", "{}"), put("a", "{}")]).await;
        assert_eq!(version, Ok(1));
        let late = store.change_directory(0, vec![put("c", "{}")]).await;
        assert_eq!(late, Err(Error::Conflict));
        let delete = DirectoryChange::Delete { kind: "party".into(), id: "b".into() };
        let version = store.change_directory(1, vec![put("a", "[]"), delete]).await;
        assert_eq!(version, Ok(2));
        let directory = store.directory().await.unwrap();
        assert_eq!(directory, Directory { version: 2, records: vec![record("a", "[]")] });
        assert_eq!(store.directory_version().await, Ok(2));
    }

    async fn another_process_sees_changes_and_may_make_them(place: Place) {
        let daemon = place.open().await;
        let command = place.open().await;
        let before = daemon.changes_version().await.unwrap();
        command.change_directory(0, vec![]).await.unwrap();
        assert_eq!(daemon.changes_version().await.unwrap(), before + 1);
        let writes: Vec<_> = (0..40)
            .map(|n| {
                let store = if n % 2 == 0 { daemon.clone() } else { command.clone() };
                let mut one = acceptance(&format!("m{n}"));
                one.directory_version = 1;
                tokio::spawn(async move { store.accept(one).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
    }

    async fn an_api_key_is_listed_touched_and_revoked(place: Place) {
        let store = place.open().await;
        let key = api_key(&place);
        let before = store.changes_version().await.unwrap();
        store.insert_api_key(key.clone()).await.unwrap();
        assert_eq!(store.api_keys().await.unwrap().readable, std::slice::from_ref(&key));
        assert_eq!(store.changes_version().await.unwrap(), before + 1);
        assert!(store.insert_api_key(key).await.is_err());

        let later = place.now() + SECONDS(5);
        let used = vec![("k1".into(), later), ("none".into(), later), ("k1".into(), place.now())];
        store.touch_keys(used).await.unwrap();
        assert_eq!(store.api_keys().await.unwrap().readable[0].last_used_at, Some(later));
        assert_eq!(store.changes_version().await.unwrap(), before + 1);

        assert_eq!(store.revoke_api_key("none", later).await, Ok(false));
        assert_eq!(store.revoke_api_key("k1", later).await, Ok(true));
        assert_eq!(store.revoke_api_key("k1", place.now()).await, Ok(true));
        assert_eq!(store.api_keys().await.unwrap().readable[0].revoked_at, Some(later));
        assert_eq!(store.changes_version().await.unwrap(), before + 2);
    }

    async fn a_parked_part_is_found_and_released_once(place: Place) {
        let store = place.open().await;
        store.accept(parking("m1", "p1", &[hash("x"), hash("y"), hash("x")])).await.unwrap();
        store.accept(parking("m2", "p2", &[hash("z")])).await.unwrap();
        let adp = ParkedFilter { party: Some(party("adp")), ..ParkedFilter::default() };
        assert_eq!(store.parked(&adp).await.unwrap().len(), 2);
        let nobody = ParkedFilter { tenant: TenantId::parse("t").ok(), ..ParkedFilter::default() };
        assert!(store.parked(&nobody).await.unwrap().is_empty());
        assert_eq!(store.parked_bytes(&party("adp")).await, Ok((2, 18)));
        let about = store.parked_about(&[hash("y"), hash("x")]).await.unwrap();
        assert_eq!((about.len(), about[0].id.as_str(), about[0].persons), (1, "p1", 2));
        let item = store.parked_item("p1").await.unwrap().unwrap();
        assert_eq!((item.reason, &**item.xml), (Code::NoRoute, b"<parked/>".as_slice()));
        assert_eq!(item.persons.len(), 2);
        let state = async |id| store.message(&party("adp"), id).await.unwrap().unwrap().parked;
        assert_eq!(state("m1").await, Some(ParkedState::Waiting));

        let unpark = |release: &str| {
            store.unpark(Unparking {
                item: &item,
                directory_version: 0,
                decided_on: date(2018, 3, 1),
                releases: vec![to_arbo(release, "a")],
                ledger: vec![],
                window_days: 35,
                remember: vec![],
                withheld: vec![],
            })
        };
        unpark("r1").await.unwrap();
        assert!(matches!(unpark("r2").await, Err(UnparkError::Gone)));
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
        let receipt = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert_eq!((receipt.parked, receipt.deliveries.len()), (Some(ParkedState::Resolved), 1));

        // A newer message resolves the other part with its own.
        let mut newer = acceptance("m3");
        newer.unparked = vec!["p2".into()];
        store.accept(newer).await.unwrap();
        let mut late = acceptance("m4");
        late.unparked = vec!["p2".into()];
        assert!(matches!(store.accept(late).await, Err(AcceptError::Conflict)));
        assert_eq!(store.parked_bytes(&party("adp")).await, Ok((0, 0)));
    }

    async fn a_parked_part_is_dropped_by_age_or_by_hand(place: Place) {
        let store = place.open().await;
        for n in 0..450 {
            let (id, part) = (format!("m{n:03}"), format!("p{n:03}"));
            store.accept(parking(&id, &part, &[hash("x")])).await.unwrap();
        }
        assert_eq!(store.discard_parked("p000", place.now()).await, Ok(true));
        assert_eq!(store.discard_parked("p000", place.now()).await, Ok(false));
        assert_eq!(store.expire_parked(place.now(), 14).await, Ok(0));
        place.clock.advance(Duration::from_hours(14 * 24 + 1));
        assert_eq!(store.expire_parked(place.now(), 14).await, Ok(449));
        let receipt = store.message(&party("adp"), "m001").await.unwrap().unwrap();
        assert_eq!(receipt.parked, Some(ParkedState::Dropped(place.now())));
        assert!(store.parked_about(&[hash("x")]).await.unwrap().is_empty());
    }

    async fn a_closed_case_is_forgotten_after_its_window(place: Place) {
        let store = place.open().await;
        let (open, closed) = (case_key("r", "p1", "c1"), case_key("r", "p2", "c2"));
        let mut one = acceptance("m1");
        let mut entry = case_entry(closed, 0, 1);
        entry.state.recovered_on = Some(date(2018, 3, 1));
        entry.state.closed_on = Some(date(2018, 3, 3));
        one.ledger = vec![known(LedgerChange::Put(case_entry(open, 0, 1))), known(LedgerChange::Put(entry.clone()))];
        let remember = |until| Remembered { route: hash("r"), case: hash("c2"), until };
        one.remember = vec![remember(date(2020, 3, 1)), remember(date(2019, 3, 1))];
        store.accept(one).await.unwrap();
        let persons = [(hash("r"), hash("p1")), (hash("r"), hash("p2"))];
        let pairs = [(hash("r"), hash("c1")), (hash("r"), hash("c2")), (hash("s"), hash("c2"))];

        // The window is 35 days after 3 March: 7 April is the last day.
        assert_eq!(store.forget(date(2018, 4, 7)).await, Ok(Forgotten::default()));
        entry.version = 1;
        assert!(store.ledger(&persons).await.unwrap().contains(&entry));
        assert_eq!(store.forget(date(2018, 4, 8)).await.unwrap().cases, 1);
        assert_eq!(store.ledger(&persons).await.unwrap().len(), 1);
        let known = store.remembered(&pairs).await.unwrap();
        assert_eq!(known, [(hash("r"), hash("c2"))].into());
        assert_eq!(store.forget(date(2020, 3, 1)).await.unwrap().remembered, 0);
        assert_eq!(store.forget(date(2020, 3, 2)).await.unwrap().remembered, 1);
        assert!(store.remembered(&pairs).await.unwrap().is_empty());
    }

    /// A part that goes must take along what is older about anybody in it.
    async fn what_waits_is_found_with_all_that_hangs_together(place: Place) {
        let store = place.open().await;
        let (a, b, c, d) = (hash("a"), hash("b"), hash("c"), hash("d"));
        let parts: [(&str, &[KeyedHash]); 5] =
            [("p1", &[c]), ("p2", &[b, c]), ("p3", &[d]), ("p4", &[a, b]), ("p5", &[a])];
        for (part, persons) in parts {
            store.accept(parking(&format!("m-{part}"), part, persons)).await.unwrap();
        }
        assert_eq!(store.parked_with(&[a]).await.unwrap(), ["p1", "p2", "p4", "p5"]);
        assert_eq!(store.parked_with(&[d]).await.unwrap(), ["p3"]);
        let about = store.parked_about(&[b, a]).await.unwrap();
        let about: Vec<_> = about.iter().map(|part| part.id.as_str()).collect();
        assert_eq!(about, ["p2", "p4", "p5"]);
        assert!(store.parked_with(&[hash("e")]).await.unwrap().is_empty());
        assert!(store.parked_with(&[]).await.unwrap().is_empty());
    }

    async fn empty_look_ups_are_empty(place: Place) {
        let store = place.open().await;
        assert!(store.ledger(&[]).await.unwrap().is_empty());
        assert!(store.remembered(&[]).await.unwrap().is_empty());
        assert!(store.parked_about(&[]).await.unwrap().is_empty());
        assert!(store.waiting(place.now(), SECONDS(0)).await.unwrap().is_empty());
        assert!(store.lease(&party("arbo"), false, 0, SECONDS(10)).await.unwrap().is_empty());
        assert_eq!(store.ack(&party("arbo"), &[]).await, Ok(Acked::default()));
    }
}

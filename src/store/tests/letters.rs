//! Dead letters: what is shown of them, their order when they are due again,
//! and parked parts as operators see them.

use super::super::sql::ms;
use super::super::survey::{Survey, by_inbox};
use super::*;

fn arbo() -> PartyId {
    party("arbo")
}

/// Accepts one release to `arbo` in a message of its own.
async fn offer(store: &Store, id: &str, cases: &str) {
    accept_releases(store, &format!("m-{id}"), vec![to_arbo(id, cases)]).await;
}

/// Leases what is due and rejects these of it; the rest is free at once.
async fn bury(store: &Store, place: &super::TestPlace, ids: &[&str], code: &str) {
    let arbo = arbo();
    let leased = store.lease(&arbo, false, 1000, SECONDS(10));
    let leased = leased.await.unwrap();
    for one in &leased {
        if ids.contains(&one.id.as_str()) {
            let reason = "Mevrouw Jansen is al beter";
            let reject = store.reject(&arbo, &one.id, &one.lease, code, reason);
            reject.await.unwrap();
        }
    }
    place.clock.advance(SECONDS(10));
}

async fn dead_ids(store: &Store, filter: &DeadFilter) -> Vec<String> {
    let page = store.dead_letters(filter, None, 100).await.unwrap();
    page.letters.into_iter().map(|letter| letter.id).collect()
}

/// Due, leased and dead in the inbox of `arbo`.
async fn counts(store: &Store, now: Timestamp) -> (u64, u64, u64) {
    let waiting = store.waiting(now, Duration::ZERO).await.unwrap();
    let waiting = waiting
        .iter()
        .filter(|one| one.party == arbo() && !one.test);
    let (due, leased) = waiting.fold((0, 0), |sum, one| (sum.0 + one.due, sum.1 + one.leased));
    let dead = store.dead_counts().await.unwrap();
    let dead = dead.iter().filter(|one| one.party == arbo() && !one.test);
    (due, leased, dead.map(|one| one.count).sum())
}

async fn retry(store: &Store, id: &str) -> Retry {
    store.retry(id, Overtaken::Leave).await.unwrap()
}

on_both! {
    async fn a_dead_letter_is_shown_without_what_was_said(place: Place) {
        let store = place.open().await;
        for (id, code) in [("r1", "schema.v2"), ("r2", "111222333"), ("r3", "al beter"), ("r4", "")] {
            offer(&store, id, id).await;
            bury(&store, &place, &[id], code).await;
        }
        let page = store.dead_letters(&DeadFilter::default(), None, 100).await.unwrap();
        let codes: Vec<_> = page.letters.iter().map(|one| one.rejection.code.as_deref()).collect();
        assert_eq!(codes, [Some("schema.v2"), None, None, None]);
        assert!(page.letters.iter().all(|one| one.rejection.reason_length == 26));
        assert!(!format!("{page:?}").contains("Jansen"));
        assert_eq!(page.next, None);

        let letter = store.dead_letter("r1").await.unwrap().unwrap();
        assert_eq!(letter, page.letters[0]);
        assert_eq!((letter.sender.as_str(), letter.party.as_str()), ("adp", "arbo"));
        assert_eq!((letter.attempts, letter.bytes, letter.overtaken), (1, 9, 0));
        assert_eq!((letter.received_at, letter.died_at), (start(), start()));
        assert!(store.dead_letter("none").await.unwrap().is_none());
        offer(&store, "r5", "").await;
        assert!(store.dead_letter("r5").await.unwrap().is_none());
    }

    async fn dead_letters_are_found_by_filter_and_page(place: Place) {
        let store = place.open().await;
        for (id, code) in [("r1", "a"), ("r2", "b"), ("r3", "a")] {
            offer(&store, id, id).await;
            bury(&store, &place, &[id], code).await;
        }
        let all = DeadFilter::default();
        let page = store.dead_letters(&all, None, 2).await.unwrap();
        assert_eq!((page.letters.len(), page.next.as_deref()), (2, Some("r2")));
        let rest = store.dead_letters(&all, Some("r2"), 2).await.unwrap();
        assert_eq!((rest.letters.len(), rest.next), (1, None));
        let exact = store.dead_letters(&all, None, 3).await.unwrap();
        assert_eq!((exact.letters.len(), exact.next), (3, None));

        let second = start() + SECONDS(10);
        let cases: [(DeadFilter, &[&str]); 10] = [
            (DeadFilter { party: Some(arbo()), ..all.clone() }, &["r1", "r2", "r3"]),
            (DeadFilter { party: Some(party("adp")), ..all.clone() }, &[]),
            (DeadFilter { tenant: TenantId::parse("bakkerij").ok(), ..all.clone() }, &["r1", "r2", "r3"]),
            (DeadFilter { tenant: TenantId::parse("other").ok(), ..all.clone() }, &[]),
            (DeadFilter { domain: Some(Domain::Werkgever), ..all.clone() }, &[]),
            (DeadFilter { message_type: Some("Afspraken".into()), ..all.clone() }, &[]),
            (DeadFilter { code: Some("a".into()), ..all.clone() }, &["r1", "r3"]),
            (DeadFilter { since: Some(second), ..all.clone() }, &["r2", "r3"]),
            (DeadFilter { until: Some(second), ..all.clone() }, &["r1"]),
            (DeadFilter { test: Some(true), ..all.clone() }, &[]),
        ];
        for (filter, ids) in cases {
            assert_eq!(dead_ids(&store, &filter).await, ids, "{filter:?}");
        }
        assert_eq!(dead_ids(&store, &DeadFilter { test: Some(false), ..all }).await.len(), 3);
    }

    async fn a_retried_letter_is_due_once_with_a_new_number(place: Place) {
        let store = place.open().await;
        offer(&store, "r1", "a").await;
        bury(&store, &place, &["r1"], "x").await;
        offer(&store, "r2", "b").await;
        assert_eq!(counts(&store, place.now()).await, (1, 0, 1));
        let mut bell = store.watch(&arbo(), false);
        bell.mark_unchanged();
        assert_eq!(retry(&store, "r1").await, Retry::Due { sequence: 3 });
        assert!(bell.has_changed().unwrap());
        assert_eq!(counts(&store, place.now()).await, (2, 0, 0));
        assert!(store.dead_letter("r1").await.unwrap().is_none());

        // Again: nothing more happens, whatever it is now.
        let offered = Retry::NotDead(DeliveryState::Offered);
        assert_eq!(retry(&store, "r1").await, offered);
        // Whoever follows the numbers sees it behind what was there.
        let feed = store.feed(&arbo(), false, 2, 10, place.now(), SECONDS(60)).await.unwrap();
        assert_eq!(feed.iter().map(|one| (one.id.as_str(), one.sequence)).collect::<Vec<_>>(), [("r1", 3)]);

        let arbo = arbo();
        // An acknowledgement of the time before does not count for this time.
        assert_eq!(ack_ids(&store, &["r1"]).await.unknown, ["r1"]);
        let leased = store.lease(&arbo, false, 10, SECONDS(60)).await.unwrap();
        let seen: Vec<_> = leased.iter().map(|one| (one.id.as_str(), one.attempt)).collect();
        assert_eq!(seen, [("r2", 1), ("r1", 1)]);
        assert_eq!(retry(&store, "r1").await, Retry::NotDead(DeliveryState::Leased));
        ack_ids(&store, &["r1"]).await;
        assert_eq!(retry(&store, "r1").await, Retry::NotDead(DeliveryState::TakenOver));
        assert_eq!(retry(&store, "none").await, Retry::Unknown);
        assert_eq!(counts(&store, place.now()).await, (0, 1, 0));
        // What comes in later has a later number.
        offer(&store, "r9", "z").await;
        let feed = store.feed(&arbo, false, 3, 10, place.now(), SECONDS(60)).await.unwrap();
        assert_eq!((feed[0].id.as_str(), feed[0].sequence), ("r9", 4));
    }

    async fn a_sender_sees_a_retried_letter_as_offered_again(place: Place) {
        let store = place.open().await;
        offer(&store, "r1", "a").await;
        bury(&store, &place, &["r1"], "x").await;
        let mut answer = acceptance("m-answer");
        answer.message.party = arbo();
        answer.answer = Some(Answer { release_id: "r1".into(), positive: false });
        store.accept(answer).await.unwrap();
        retry(&store, "r1").await;
        let stored = store.message(&party("adp"), "m-r1").await.unwrap().unwrap();
        assert_eq!(stored.deliveries[0].steps, [(DeliveryState::Offered, place.now())]);
        assert_eq!(stored.deliveries[0].state, DeliveryState::Offered);
    }

    async fn what_is_newer_and_has_not_left_goes_behind(place: Place) {
        let store = place.open().await;
        for (id, cases) in [("r1", "a"), ("r2", "ab"), ("r3", "c"), ("r4", "b"), ("r5", "")] {
            offer(&store, id, cases).await;
        }
        // They were all handed out once; that lease has run out.
        bury(&store, &place, &["r1"], "x").await;
        assert_eq!(retry(&store, "r1").await, Retry::Due { sequence: 6 });
        let feed = store.feed(&arbo(), false, 0, 10, place.now(), SECONDS(60)).await.unwrap();
        let order: Vec<_> = feed.iter().map(|one| (one.id.as_str(), one.sequence)).collect();
        assert_eq!(order, [("r3", 3), ("r5", 5), ("r1", 6), ("r2", 7), ("r4", 8)]);
        assert_eq!(lease_ids(&store, 3).await, ["r3", "r5", "r1"]);
        // The case is out: nothing of it in another answer.
        assert!(lease_ids(&store, 10).await.is_empty());
    }

    async fn dead_letters_of_one_case_keep_their_order(place: Place) {
        let store = place.open().await;
        for id in ["r1", "r2", "r3"] {
            offer(&store, id, "a").await;
        }
        bury(&store, &place, &["r1", "r2", "r3"], "x").await;
        // In the wrong order, one by one.
        for id in ["r3", "r1", "r2"] {
            assert!(matches!(retry(&store, id).await, Retry::Due { .. }));
        }
        for id in ["r1", "r2", "r3"] {
            assert_eq!(lease_ids(&store, 1).await, [id]);
            ack_ids(&store, &[id]).await;
        }
    }

    async fn an_overtaken_letter_stays_unless_it_is_meant(place: Place) {
        let store = place.open().await;
        for (id, cases) in [("r1", "a"), ("r2", "a"), ("r3", "b"), ("r4", "a")] {
            offer(&store, id, cases).await;
        }
        bury(&store, &place, &["r1"], "x").await;
        // In its receiver's hands counts as much as taken over.
        assert_eq!(lease_ids(&store, 1).await, ["r2"]);
        assert_eq!(retry(&store, "r1").await, Retry::Overtaken { by: 1 });
        ack_ids(&store, &["r2"]).await;
        assert_eq!(lease_ids(&store, 9).await, ["r3", "r4"]);
        ack_ids(&store, &["r3", "r4"]).await;
        assert_eq!(retry(&store, "r1").await, Retry::Overtaken { by: 2 });
        assert_eq!(store.dead_letter("r1").await.unwrap().unwrap().overtaken, 2);
        assert_eq!(counts(&store, place.now()).await, (0, 0, 1));

        let sent = store.retry("r1", Overtaken::Send).await.unwrap();
        assert_eq!(sent, Retry::Due { sequence: 5 });
        // A new number makes nothing new of it: dead again, it is as old as it was.
        bury(&store, &place, &["r1"], "x").await;
        assert_eq!(retry(&store, "r1").await, Retry::Overtaken { by: 2 });
    }

    async fn what_is_held_behind_a_case_counts_as_overtaking(place: Place) {
        let store = place.open().await;
        for (id, cases) in [("r1", "a"), ("r2", "ab"), ("r3", "b")] {
            offer(&store, id, cases).await;
        }
        bury(&store, &place, &["r1"], "x").await;
        // r2 and r3 go out together; only r3 is held on to.
        let leased = store.lease(&arbo(), false, 9, SECONDS(10)).await.unwrap();
        let token = &leased[1].lease;
        store.extend(&arbo(), "r3", token, SECONDS(100)).await.unwrap();
        place.clock.advance(SECONDS(10));
        // r2 would have to go behind r1, and so behind r3, which is newer.
        assert_eq!(retry(&store, "r1").await, Retry::Overtaken { by: 1 });
        place.clock.advance(SECONDS(90));
        assert!(matches!(retry(&store, "r1").await, Retry::Due { .. }));
        assert_eq!(lease_ids(&store, 9).await, ["r1", "r2", "r3"]);
    }

    async fn a_replay_does_what_its_preview_said_and_then_nothing(place: Place) {
        const LETTERS: usize = 700;
        let store = place.open().await;
        let ids: Vec<String> = (0..LETTERS).map(|n| format!("r{n:04}")).collect();
        // Ten cases, so that every step has many letters of each.
        let case = |n: usize| char::from(b'a' + u8::try_from(n % 10).unwrap()).to_string();
        let releases = ids.iter().enumerate().map(|(n, id)| to_arbo(id, &case(n)));
        accept_releases(&store, "m1", releases.collect()).await;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        bury(&store, &place, &ids, "x").await;
        // One case goes on and overtakes its seventy letters.
        offer(&store, "s1", "a").await;
        assert_eq!(lease_ids(&store, 9).await, ["s1"]);
        ack_ids(&store, &["s1"]).await;

        let filter = DeadFilter { code: Some("x".into()), ..DeadFilter::default() };
        let preview = store.preview_replay(&filter, Overtaken::Leave).await.unwrap();
        assert_eq!((preview.matched, preview.due, preview.overtaken), (700, 630, 70));
        assert_eq!(preview.groups.len(), 1);
        assert_eq!(counts(&store, place.now()).await, (0, 0, 700));
        let replay = store.replay(&filter, Overtaken::Leave).await.unwrap();
        assert_eq!(replay, preview);
        assert_eq!(counts(&store, place.now()).await, (630, 0, 70));

        let again = store.replay(&filter, Overtaken::Leave).await.unwrap();
        assert_eq!((again.matched, again.due, again.overtaken), (70, 0, 70));
        assert_eq!(counts(&store, place.now()).await, (630, 0, 70));
        let went: Vec<String> = lease_ids(&store, 1000).await;
        let expected: Vec<&str> = ids.iter().copied().enumerate().filter(|(n, _)| n % 10 != 0).map(|(_, id)| id).collect();
        assert_eq!(went, expected);

        let preview = store.preview_replay(&filter, Overtaken::Send).await.unwrap();
        assert_eq!((preview.matched, preview.due, preview.overtaken), (70, 70, 70));
        assert_eq!(store.replay(&filter, Overtaken::Send).await.unwrap(), preview);
        let nothing = store.replay(&filter, Overtaken::Send).await.unwrap();
        assert_eq!(nothing, Replay::default());
    }

    async fn a_look_that_is_out_of_date_changes_nothing(place: Place) {
        let store = place.open().await;
        offer(&store, "r1", "a").await;
        offer(&store, "r2", "a").await;
        bury(&store, &place, &["r1"], "x").await;
        let look = async || {
            let mut connection = store.reader().await.unwrap();
            let candidate = store.candidate("r1").await.unwrap().unwrap();
            let candidates = by_inbox(vec![candidate]).pop().unwrap();
            let survey = Survey::of(&mut connection, candidates, ms(place.now())).await.unwrap();
            let going = survey.going(Overtaken::Leave);
            (survey, going)
        };
        let (survey, going) = look().await;
        assert_eq!(going.len(), 1);
        // What was to go behind is handed out meanwhile.
        assert_eq!(lease_ids(&store, 1).await, ["r2"]);
        assert_eq!(store.revive(&survey, &going).await, Ok(None));
        place.clock.advance(SECONDS(60));
        // Something newer of the case comes in meanwhile.
        let (survey, going) = look().await;
        offer(&store, "r3", "a").await;
        assert_eq!(store.revive(&survey, &going).await, Ok(None));
        // Somebody else was first.
        let (survey, going) = look().await;
        assert!(matches!(retry(&store, "r1").await, Retry::Due { .. }));
        assert_eq!(store.revive(&survey, &going).await, Ok(None));
        assert_eq!(lease_ids(&store, 9).await, ["r1", "r2", "r3"]);
    }

    async fn retries_beside_a_busy_receiver_keep_every_case_in_order(place: Place) {
        const LETTERS: usize = 60;
        let store = place.open().await;
        let ids: Vec<String> = (0..LETTERS).map(|n| format!("r{n:03}")).collect();
        for (n, id) in ids.iter().enumerate() {
            offer(&store, id, &char::from(b'a' + u8::try_from(n % 3).unwrap()).to_string()).await;
        }
        // The first of each case and every seventh after it.
        let dead: Vec<&str> = ids.iter().enumerate().filter(|(n, _)| n / 3 % 7 == 0).map(|(_, id)| id.as_str()).collect();
        bury(&store, &place, &dead, "x").await;
        let receiver = {
            // Another process, or another node.
            let store = place.open().await;
            tokio::spawn(async move {
                let mut got = Vec::new();
                while got.len() < 40 {
                    let ids = lease_ids(&store, 2).await;
                    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
                    ack_ids(&store, &refs).await;
                    got.extend(ids);
                    tokio::task::yield_now().await;
                }
                got
            })
        };
        let mut due = 0;
        for id in dead.iter().rev() {
            due += usize::from(matches!(retry(&store, id).await, Retry::Due { .. }));
            tokio::task::yield_now().await;
        }
        let mut got = receiver.await.unwrap();
        loop {
            let ids = lease_ids(&store, 100).await;
            if ids.is_empty() {
                break;
            }
            let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
            ack_ids(&store, &refs).await;
            got.extend(ids);
        }
        assert_eq!(got.len(), LETTERS - dead.len() + due);
        for case in 0..3 {
            let number = |id: &String| id[1..].parse::<usize>().unwrap();
            let of_case: Vec<usize> = got.iter().map(number).filter(|n| n % 3 == case).collect();
            assert!(of_case.is_sorted(), "{of_case:?}");
        }
    }

    async fn parked_parts_are_shown_without_content(place: Place) {
        let store = place.open().await;
        for (id, reason, persons) in [("p1", Code::NoRoute, 2), ("p2", Code::EmployerUnknown, 1)] {
            let persons: Vec<KeyedHash> = (0..persons).map(|n| hash(&format!("{id}{n}"))).collect();
            let mut one = acceptance(&format!("m-{id}"));
            one.message.received_at = place.now();
            one.parked = vec![parked(id, reason, &persons, b"<parked/>")];
            store.accept(one).await.unwrap();
            place.clock.advance(SECONDS(60));
        }
        let all = ParkedFilter::default();
        let page = store.parked_page(&all, 1).await.unwrap();
        assert_eq!((page.parts.len(), page.next.as_deref()), (1, Some("p1")));
        let first = &page.parts[0];
        assert_eq!((first.persons, first.bytes, first.message_id.as_str()), (2, 9, "m-p1"));
        assert_eq!(store.parked_summary("p1").await.unwrap().as_ref(), Some(first));
        let rest = ParkedFilter { after: page.next, ..all.clone() };
        let rest = store.parked_page(&rest, 1).await.unwrap();
        assert_eq!((rest.parts[0].id.as_str(), rest.next), ("p2", None));
        let ids = async |filter: ParkedFilter| {
            let page = store.parked_page(&filter, 9).await.unwrap();
            page.parts.into_iter().map(|part| part.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(ParkedFilter { reason: Some(Code::NoRoute), ..all.clone() }).await, ["p1"]);
        let second = start() + SECONDS(60);
        assert_eq!(ids(ParkedFilter { before: Some(second), ..all.clone() }).await, ["p1"]);
        assert_eq!(store.parked(&ParkedFilter { before: Some(second), ..all }).await.unwrap().len(), 1);
        assert!(store.parked_item("p1").await.unwrap().is_some());
        assert!(store.parked_item("none").await.unwrap().is_none());
        assert!(store.parked_summary("none").await.unwrap().is_none());
    }
}

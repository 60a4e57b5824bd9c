//! Leases, order per case, acknowledgement, replay, bells.

use super::copy::{connect, execute};
use super::*;

fn arbo() -> PartyId {
    party("arbo")
}

async fn lease(store: &Store, limit: usize) -> Vec<Leased> {
    let arbo = arbo();
    let leased = store.lease(&arbo, false, limit, SECONDS(60)).await;
    leased.unwrap()
}

/// Ids of one page.
async fn feed(
    store: &Store,
    after: i64,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<String>, Error> {
    let hour = Duration::from_hours(1);
    let items = store.feed(&arbo(), false, after, limit, now, hour).await?;
    Ok(items.into_iter().map(|item| item.id).collect())
}

on_both! {
    async fn a_leased_message_is_hidden_until_its_time_runs_out(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let first = lease(&store, 10).await.pop().unwrap();
        assert_eq!((first.attempt, &**first.xml), (1, b"<r>r1</r>".as_slice()));
        assert_eq!(first.lease_until, place.now() + SECONDS(60));
        assert_eq!(first.tenant.as_str(), "bakkerij");

        place.clock.advance(Duration::from_millis(59_999));
        assert!(lease(&store, 10).await.is_empty());
        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert_eq!(stored.deliveries[0].state, DeliveryState::Leased);
        place.clock.advance(Duration::from_millis(1));
        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert_eq!(stored.deliveries[0].state, DeliveryState::Offered);
        let second = lease(&store, 10).await.pop().unwrap();
        assert_eq!((second.attempt, second.id.as_str()), (2, "r1"));
        assert_ne!(first.lease, second.lease);
    }

    async fn reports_of_one_case_come_in_order_and_in_one_answer_at_a_time(place: Place) {
        let store = place.open().await;
        for (id, cases) in [("r1", "a"), ("r2", "b"), ("r3", "a"), ("r4", "")] {
            accept_releases(&store, id, vec![to_arbo(id, cases)]).await;
        }
        assert_eq!(lease_ids(&store, 1).await, ["r1"]);
        // r3 shares its case with r1, which is out.
        assert_eq!(lease_ids(&store, 10).await, ["r2", "r4"]);
        ack_ids(&store, &["r1"]).await;
        assert_eq!(lease_ids(&store, 10).await, ["r3"]);
    }

    async fn several_reports_of_one_case_may_come_together(place: Place) {
        let store = place.open().await;
        for id in ["r1", "r2", "r3"] {
            accept_releases(&store, id, vec![to_arbo(id, "a")]).await;
        }
        assert_eq!(lease_ids(&store, 2).await, ["r1", "r2"]);
        assert!(lease_ids(&store, 2).await.is_empty());
    }

    async fn what_waits_holds_up_what_shares_a_case_with_it(place: Place) {
        let store = place.open().await;
        // r1 (a) is out; r2 (a, b) waits for it; r3 (b) has to wait for r2.
        for (id, cases) in [("r1", "a"), ("r2", "ab"), ("r3", "bc"), ("r4", "c"), ("r5", "d")] {
            accept_releases(&store, id, vec![to_arbo(id, cases)]).await;
        }
        assert_eq!(lease_ids(&store, 1).await, ["r1"]);
        assert_eq!(lease_ids(&store, 10).await, ["r5"]);
        ack_ids(&store, &["r1"]).await;
        assert_eq!(lease_ids(&store, 10).await, ["r2", "r3", "r4"]);
    }

    async fn an_earlier_report_is_not_held_up_by_a_later_one(place: Place) {
        let store = place.open().await;
        for id in ["r1", "r2"] {
            accept_releases(&store, id, vec![to_arbo(id, "a")]).await;
        }
        let both = lease(&store, 10).await;
        place.clock.advance(SECONDS(30));
        let extended = store
            .extend(&arbo(), "r2", &both[1].lease, SECONDS(60))
            .await;
        assert_eq!(extended, Ok(place.now() + SECONDS(60)));
        place.clock.advance(SECONDS(30));
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
    }

    async fn parties_and_kinds_of_traffic_have_inboxes_of_their_own(place: Place) {
        let store = place.open().await;
        let other = release("r3", "bedrijfsarts-1", false, &[hash("a")], b"<r/>");
        let test = release("r2", "arbo", true, &[hash("a")], b"<r/>");
        accept_releases(&store, "m1", vec![to_arbo("r1", "a"), test, other]).await;
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
        let test = store.lease(&arbo(), true, 10, SECONDS(60)).await.unwrap();
        assert_eq!((test.len(), test[0].id.as_str(), test[0].test), (1, "r2", true));
        // Handed out, but to somebody else.
        let doctor = party("bedrijfsarts-1");
        let theirs = store.lease(&doctor, false, 1, SECONDS(60)).await.unwrap();
        assert_eq!(theirs[0].id, "r3");
        let acked = ack_ids(&store, &["r1", "r3", "none"]).await;
        assert_eq!(acked.acknowledged, ["r1"]);
        assert_eq!(acked.unknown, ["r3", "none"]);
        let token = &theirs[0].lease;
        let with_token = [("r3".to_owned(), Some(token.clone()))];
        let acked = store.ack(&arbo(), &with_token).await.unwrap();
        assert_eq!(acked.unknown, ["r3"]);
        let rejected = store.reject(&arbo(), "r3", token, "c", "").await;
        assert_eq!(rejected, Err(InboxError::Unknown));
        let extended = store.extend(&arbo(), "r3", token, SECONDS(60)).await;
        assert_eq!(extended, Err(InboxError::Unknown));
        let replay = store.payload(&arbo(), "r3", place.now(), SECONDS(60)).await;
        assert!(replay.unwrap().is_none());
    }

    async fn an_acknowledgement_counts_once_and_also_late(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a"), to_arbo("r2", "b")]).await;
        // Never handed out: cannot have been taken over.
        assert_eq!(ack_ids(&store, &["r1"]).await.unknown, ["r1"]);
        let old = lease(&store, 10).await;
        place.clock.advance(SECONDS(61));
        let new = lease(&store, 10).await;
        let with = |id: &str, lease: &Leased| vec![(id.to_owned(), Some(lease.lease.clone()))];

        // The old lease was taken over by a new one; the bare id still counts.
        let acked = store.ack(&arbo(), &with("r1", &old[0])).await.unwrap();
        assert_eq!(acked.unknown, ["r1"]);
        assert_eq!(ack_ids(&store, &["r1"]).await.acknowledged, ["r1"]);
        assert_eq!(ack_ids(&store, &["r1"]).await.acknowledged, ["r1"]);

        // A lease that ran out is the current one until somebody takes over.
        place.clock.advance(SECONDS(61));
        let acked = store.ack(&arbo(), &with("r2", &new[1])).await.unwrap();
        assert_eq!(acked.acknowledged, ["r2"]);
        assert!(lease_ids(&store, 10).await.is_empty());
        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        assert!(stored.deliveries.iter().all(|d| d.state == DeliveryState::TakenOver));
    }

    async fn a_rejected_message_is_dead_and_its_case_goes_on(place: Place) {
        let store = place.open().await;
        for id in ["r1", "r2"] {
            accept_releases(&store, id, vec![to_arbo(id, "a")]).await;
        }
        let first = lease(&store, 1).await.pop().unwrap();
        let wrong = store.reject(&arbo(), "r1", "wrong", "c", "").await;
        assert_eq!(wrong, Err(InboxError::LeaseLost));
        let arbo = arbo();
        let bury = || store.reject(&arbo, "r1", &first.lease, "who", "wie?");
        assert_eq!(bury().await, Ok(()));
        assert_eq!(bury().await, Err(InboxError::LeaseLost));
        assert_eq!(lease_ids(&store, 10).await, ["r2"]);
        let stored = store.message(&party("adp"), "r1").await.unwrap().unwrap();
        assert_eq!(stored.deliveries[0].state, DeliveryState::Dead);
        let waiting = store.waiting(place.now(), SECONDS(0)).await.unwrap();
        assert_eq!((waiting[0].due, waiting[0].leased), (0, 1));
        assert_eq!(store.dead_counts().await.unwrap()[0].count, 1);
        let late = ack_ids(&store, &["r1"]).await;
        assert_eq!(late.unknown, ["r1"], "a dead letter waits for a person");
    }

    async fn every_step_is_shown_with_its_time(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let mut times = vec![place.now()];
        place.clock.advance(SECONDS(1));
        lease(&store, 1).await;
        times.push(place.now());
        place.clock.advance(SECONDS(1));
        ack_ids(&store, &["r1"]).await;
        times.push(place.now());
        let stored = store.message(&party("adp"), "m1").await.unwrap().unwrap();
        let states = [DeliveryState::Offered, DeliveryState::Leased, DeliveryState::TakenOver];
        let delivery = &stored.deliveries[0];
        assert_eq!(delivery.steps, std::iter::zip(states, times).collect::<Vec<_>>());
        assert_eq!((delivery.state, delivery.at), (DeliveryState::TakenOver, place.now()));
        assert_eq!(delivery.domain, Domain::Arbodienst);
    }

    async fn extending_needs_the_current_lease(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let old = lease(&store, 1).await.pop().unwrap();
        let extend = |token: String| {
            let store = store.clone();
            async move { store.extend(&arbo(), "r1", &token, SECONDS(100)).await }
        };
        assert_eq!(extend("wrong".into()).await, Err(InboxError::LeaseLost));
        assert!(extend(old.lease.clone()).await.is_ok());
        place.clock.advance(SECONDS(99));
        assert!(lease(&store, 1).await.is_empty());
        place.clock.advance(SECONDS(1));
        let new = lease(&store, 1).await.pop().unwrap();
        assert_eq!(extend(old.lease).await, Err(InboxError::LeaseLost));
        ack_ids(&store, &["r1"]).await;
        assert_eq!(extend(new.lease).await, Err(InboxError::LeaseLost));
    }

    async fn a_message_can_be_had_again_for_a_while(place: Place) {
        let store = place.open().await;
        let week = Duration::from_hours(7 * 24);
        accept_releases(&store, "m1", vec![to_arbo("r1", "a"), to_arbo("r2", "a")]).await;
        lease(&store, 1).await;
        ack_ids(&store, &["r1"]).await;
        place.clock.advance(week);
        let again = store.payload(&arbo(), "r1", place.now(), week).await.unwrap();
        assert_eq!(&**again.unwrap().xml, b"<r>r1</r>".as_slice());
        let feed = store.feed(&arbo(), false, 0, 10, place.now(), week).await.unwrap();
        let ids: Vec<_> = feed.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["r1", "r2"]);
        let rest = store.feed(&arbo(), false, feed[0].sequence, 10, place.now(), week).await;
        assert_eq!(rest.unwrap().len(), 1);

        place.clock.advance(Duration::from_millis(1));
        assert!(store.payload(&arbo(), "r1", place.now(), week).await.unwrap().is_none());
        let feed = store.feed(&arbo(), false, 0, 10, place.now(), week).await.unwrap();
        assert_eq!(feed.len(), 1);
        // The feed hands nothing out.
        assert_eq!(lease_ids(&store, 10).await, ["r2"]);
    }

    async fn an_answer_stays_within_its_bytes(place: Place) {
        let store = place.open().await;
        let large = vec![b'x'; 9 * 1024 * 1024];
        for id in ["r1", "r2", "r3"] {
            let one = release(id, "arbo", false, &[hash("a")], &large);
            accept_releases(&store, id, vec![one]).await;
        }
        let week = Duration::from_hours(1);
        let feed = store.feed(&arbo(), false, 0, 10, place.now(), week).await.unwrap();
        assert_eq!(feed.len(), 1);
        for id in ["r1", "r2", "r3"] {
            assert_eq!(lease_ids(&store, 10).await, [id]);
            ack_ids(&store, &[id]).await;
        }
    }

    /// An empty page would tell a reader that it has seen everything.
    async fn a_page_of_the_feed_is_empty_at_the_end_only(place: Place) {
        let store = place.open().await;
        let releases = (0..300).map(|n| to_arbo(&format!("r{n:03}"), "")).collect();
        accept_releases(&store, "gone", releases).await;
        store.rotate_keys(Rotation::All).await.unwrap();
        let releases = (300..400).map(|n| to_arbo(&format!("r{n:03}"), "")).collect();
        accept_releases(&store, "damaged", releases).await;
        accept_releases(&store, "whole", vec![to_arbo("r400", ""), to_arbo("r401", "")]).await;
        assert_eq!(destroy_replaced(&store).await.removed.payloads, 300);
        execute(&place, "UPDATE payload SET sealed = SUBSTR(sealed, 1, 30)
            WHERE delivery_id < 'r400'").await;
        assert_eq!(feed(&store, 0, 1, place.now()).await.unwrap(), ["r400"]);
        assert_eq!(feed(&store, 0, 10, place.now()).await.unwrap(), ["r400", "r401"]);
        assert_eq!(feed(&store, 401, 10, place.now()).await.unwrap(), ["r401"]);
        assert!(feed(&store, 402, 10, place.now()).await.unwrap().is_empty());
    }

    /// One call does not read the whole inbox.
    async fn a_feed_of_nothing_that_opens_says_so(place: Place) {
        let store = place.open().await;
        let releases = (0..1100).map(|n| to_arbo(&format!("r{n:04}"), "")).collect();
        accept_releases(&store, "damaged", releases).await;
        execute(&place, "UPDATE payload SET sealed = SUBSTR(sealed, 1, 30)").await;
        accept_releases(&store, "whole", vec![to_arbo("whole", "")]).await;
        let damaged = Err(Error::Damaged { what: "payload" });
        assert_eq!(feed(&store, 0, 1, place.now()).await, damaged);
        assert_eq!(feed(&store, 0, 1000, place.now()).await.unwrap(), ["whole"]);
    }

    /// The right ring will have its key: a reader waits in front of it.
    async fn a_feed_does_not_pass_a_release_whose_key_is_missing(place: Place) {
        let store = place.open().await;
        for id in ["r1", "r2", "r3"] {
            accept_releases(&store, id, vec![to_arbo(id, "")]).await;
        }
        let mut lose = query("UPDATE payload SET sealed = ");
        lose.push_bind(vec![2, 0, 0, 0, 99]).push(" || SUBSTR(sealed, 6) WHERE delivery_id = 'r2'");
        lose.execute(&mut connect(&place).await).await.unwrap();
        assert_eq!(feed(&store, 0, 10, place.now()).await.unwrap(), ["r1"]);
        assert_eq!(feed(&store, 1, 10, place.now()).await, Err(Error::WrongKeys));
        assert_eq!(feed(&store, 2, 10, place.now()).await.unwrap(), ["r3"]);
    }

    async fn a_long_queue_is_leased_whole_and_in_order(place: Place) {
        let store = place.open().await;
        let ids: Vec<String> = (0..1500).map(|n| format!("r{n:04}")).collect();
        let releases = ids.iter().map(|id| to_arbo(id, "")).collect();
        accept_releases(&store, "m1", releases).await;
        let mut got = Vec::new();
        for _ in 0..4 {
            got.extend(lease_ids(&store, 400).await);
        }
        assert_eq!(got, ids);
    }

    async fn a_bell_rings_for_what_is_new_and_for_what_came_free(place: Place) {
        let store = place.open().await;
        let mut bell = store.watch(&arbo(), false);
        let other = store.watch(&arbo(), true);
        assert!(lease_ids(&store, 1).await.is_empty());
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        tokio::time::timeout(SECONDS(5), bell.changed()).await.unwrap().unwrap();
        accept_releases(&store, "m2", vec![to_arbo("r2", "a")]).await;
        bell.mark_unchanged();
        assert_eq!(lease_ids(&store, 1).await, ["r1"]);

        // Somebody else finds r2 held back, and is woken when r1 is done.
        assert!(lease_ids(&store, 1).await.is_empty());
        assert!(!bell.has_changed().unwrap());
        ack_ids(&store, &["r1"]).await;
        assert!(bell.has_changed().unwrap());
        bell.mark_unchanged();
        assert_eq!(lease_ids(&store, 1).await, ["r2"]);
        ack_ids(&store, &["r2"]).await;
        assert!(!bell.has_changed().unwrap());
        assert!(!other.has_changed().unwrap());
    }

    async fn no_wake_up_is_lost(place: Place) {
        const MESSAGES: usize = 200;
        let store = place.open().await;
        let reader = {
            let store = store.clone();
            tokio::spawn(async move {
                let mut bell = store.watch(&arbo(), false);
                let mut got = 0;
                while got < MESSAGES {
                    let count = lease_ids(&store, 10).await.len();
                    got += count;
                    if count == 0 {
                        bell.changed().await.unwrap();
                    }
                }
            })
        };
        for n in 0..MESSAGES {
            accept_releases(&store, &format!("m{n}"), vec![to_arbo(&format!("r{n}"), "")]).await;
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::timeout(SECONDS(20), reader).await.unwrap().unwrap();
    }
}

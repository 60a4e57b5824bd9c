//! Pushing: the bound, the pause, the probe, settling against a lease.

use super::*;

const BOUND: u32 = 3;

fn inbox() -> PushInbox {
    PushInbox {
        party: party("arbo"),
        test: false,
        max_in_flight: BOUND,
        ttl: SECONDS(30),
    }
}

async fn claim(store: &Store) -> PushClaim {
    store.claim_push(&inbox(), 100).await.unwrap()
}

fn ids(claim: &PushClaim) -> Vec<&str> {
    let ids = claim.taken.iter().map(|one| one.message.id.as_str());
    ids.collect()
}

async fn settle(store: &Store, one: &Pushed, what: Settlement) -> Settled {
    let about = PushedRef::from(one);
    let arbo = party("arbo");
    store.settle_push(&arbo, &about, &what).await.unwrap()
}

/// Again for both after these seconds.
fn failed(seconds: u64) -> Settlement {
    Settlement::Failed {
        again: Again::After(SECONDS(seconds)),
        pause: SECONDS(seconds),
        reason: "status_503".to_owned(),
    }
}

fn dead(code: &'static str) -> Again {
    Again::Never {
        code,
        reason: "status_503".to_owned(),
    }
}

async fn state(store: &Store) -> PushReceiver {
    store.push_receiver(&party("arbo"), false).await.unwrap()
}

async fn with_releases(place: &TestPlace, releases: &[(&str, &str)]) -> Store {
    let store = place.open().await;
    for (id, cases) in releases {
        accept_releases(&store, id, vec![to_arbo(id, cases)]).await;
    }
    store
}

on_both! {
    async fn a_receiver_holds_no_more_than_its_bound(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b"), ("r3", "c"), ("r4", "d")]).await;
        let first = claim(&store).await;
        assert_eq!(ids(&first), ["r1", "r2", "r3"]);
        assert!(first.more);
        // Another node claims for the same receiver.
        let other = place.open().await;
        let none = claim(&other).await;
        assert!(none.taken.is_empty() && none.more);
        assert_eq!(none.next, Some(SECONDS(30)));
        let settled = settle(&store, &first.taken[1], Settlement::TakenOver).await;
        assert_eq!(settled, Settled::Done(None));
        assert_eq!(ids(&claim(&other).await), ["r4"]);
        // What a node held that died comes back when its time is over.
        place.clock.advance(SECONDS(30));
        assert_eq!(ids(&claim(&store).await), ["r1", "r3", "r4"]);
    }

    async fn two_reports_of_a_case_are_never_on_their_way_together(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "ab"), ("r3", "b"), ("r4", "")]).await;
        let first = claim(&store).await;
        assert_eq!(ids(&first), ["r1", "r4"]);
        assert!(first.more);
        settle(&store, &first.taken[0], Settlement::TakenOver).await;
        let second = claim(&store).await;
        assert_eq!(ids(&second), ["r2"]);
        // A retry holds up its case, and nothing else.
        settle(&store, &second.taken[0], Settlement::Unparseable(Again::After(SECONDS(60)))).await;
        accept_releases(&store, "r5", vec![to_arbo("r5", "c")]).await;
        let third = claim(&store).await;
        assert_eq!(ids(&third), ["r5"]);
        // The leases of r4 and r5 run out before r2 is due.
        assert_eq!(third.next, Some(SECONDS(30)));
        place.clock.advance(SECONDS(60));
        assert_eq!(ids(&claim(&store).await), ["r2", "r4", "r5"]);
    }

    async fn of_many_failures_together_one_counts(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b"), ("r3", "c")]).await;
        let first = claim(&store).await;
        let now = place.now();
        assert_eq!(settle(&store, &first.taken[0], failed(5)).await, Settled::Done(Some(Turn::Paused)));
        assert_eq!(settle(&store, &first.taken[1], failed(5)).await, Settled::GivenBack);
        // Taken over before it failed: no sign that it works again.
        assert_eq!(settle(&store, &first.taken[2], Settlement::TakenOver).await, Settled::Done(None));
        let receiver = state(&store).await;
        assert_eq!((receiver.failures, receiver.reason.as_deref()), (1, Some("status_503")));
        assert_eq!(receiver.state, PushState::PausedUntil(now + SECONDS(5)));

        place.clock.advance(Duration::from_millis(4999));
        let none = claim(&store).await;
        assert!(none.taken.is_empty());
        assert_eq!(none.next, Some(Duration::from_millis(1)));
        place.clock.advance(Duration::from_millis(1));
        let probe = claim(&store).await;
        // One, and not the one that failed.
        assert_eq!(ids(&probe), ["r2"]);
        assert_eq!((probe.taken[0].failures, probe.taken[0].message.attempt), (0, 2));
        assert!(claim(&store).await.taken.is_empty());
    }

    async fn a_probe_that_is_taken_over_frees_the_queue(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b"), ("r3", "c"), ("r4", "d")]).await;
        let first = claim(&store).await;
        for one in &first.taken {
            settle(&store, one, failed(5)).await;
        }
        place.clock.advance(SECONDS(5));
        let probe = claim(&store).await;
        assert_eq!(settle(&store, &probe.taken[0], failed(100)).await, Settled::Done(Some(Turn::PausedLonger)));
        place.clock.advance(SECONDS(100));
        let probe = claim(&store).await;
        assert_eq!(ids(&probe), ["r1"], "every second probe goes with the oldest");
        assert_eq!(settle(&store, &probe.taken[0], Settlement::TakenOver).await, Settled::Done(Some(Turn::Works)));
        let receiver = state(&store).await;
        assert_eq!((receiver.state, receiver.failures), (PushState::Works, 0));
        assert_eq!(ids(&claim(&store).await), ["r2", "r3", "r4"]);
    }

    async fn a_message_that_its_receiver_chokes_on_holds_up_nothing_else(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b")]).await;
        let mut choked = 0;
        for _ in 0..3 {
            let claimed = claim(&store).await;
            for one in &claimed.taken {
                if one.message.id == "r1" {
                    choked += 1;
                    settle(&store, one, failed(5 * u64::from(one.failures + 1))).await;
                } else {
                    settle(&store, one, Settlement::TakenOver).await;
                }
            }
            place.clock.advance(SECONDS(5));
        }
        assert!(choked >= 1);
        let stored = store.message(&party("adp"), "r2").await.unwrap().unwrap();
        assert_eq!(stored.deliveries[0].state, DeliveryState::TakenOver);
    }

    async fn what_failed_with_its_receiver_goes_when_it_works(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b"), ("r3", "c")]).await;
        let first = claim(&store).await;
        let long = Settlement::Failed {
            again: Again::After(SECONDS(3600)),
            pause: SECONDS(5),
            reason: "timed_out".to_owned(),
        };
        settle(&store, &first.taken[0], long).await;
        settle(&store, &first.taken[1], Settlement::Unparseable(Again::After(SECONDS(3600)))).await;
        settle(&store, &first.taken[2], Settlement::GivenBack).await;
        place.clock.advance(SECONDS(5));
        let probe = claim(&store).await;
        assert_eq!(ids(&probe), ["r3"]);
        settle(&store, &probe.taken[0], Settlement::TakenOver).await;
        // r1 failed no more often than its receiver; r2 cannot be read anyway.
        assert_eq!(ids(&claim(&store).await), ["r1"]);
    }

    async fn gone_stops_a_receiver_until_a_person_resumes_it(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b")]).await;
        let first = claim(&store).await;
        let gone = || Settlement::Gone { reason: "status_410".to_owned() };
        assert_eq!(settle(&store, &first.taken[0], gone()).await, Settled::Done(Some(Turn::Stopped)));
        assert_eq!(settle(&store, &first.taken[1], gone()).await, Settled::GivenBack);
        place.clock.advance(Duration::from_hours(1000));
        let none = claim(&store).await;
        assert!(none.taken.is_empty() && none.next.is_none());
        assert_eq!(none.receiver.state, PushState::Stopped);
        let arbo = party("arbo");
        assert_eq!(store.resume_push(&arbo, false).await, Ok(true));
        assert_eq!(store.resume_push(&arbo, false).await, Ok(false));
        assert_eq!(ids(&claim(&store).await), ["r1", "r2"]);
    }

    async fn a_late_word_that_it_is_gone_stops_nobody(place: Place) {
        let store = with_releases(&place, &[("r1", "a")]).await;
        let late = claim(&store).await;
        place.clock.advance(SECONDS(31));
        let next = claim(&store).await;
        assert_eq!(ids(&next), ["r1"]);
        let gone = Settlement::Gone { reason: "status_410".to_owned() };
        assert_eq!(settle(&store, &late.taken[0], gone).await, Settled::LeaseLost);
        assert_eq!(state(&store).await.state, PushState::Works);
        let taken_over = settle(&store, &next.taken[0], Settlement::TakenOver).await;
        assert_eq!(taken_over, Settled::Done(None));
    }

    async fn a_person_stops_a_receiver_and_resumes_it_at_once(place: Place) {
        let store = with_releases(&place, &[("r1", "a")]).await;
        let arbo = party("arbo");
        let first = claim(&store).await;
        settle(&store, &first.taken[0], failed(3600)).await;
        assert_eq!(store.stop_push(&arbo, false, "by_hand").await, Ok(true));
        assert_eq!(store.stop_push(&arbo, false, "by_hand").await, Ok(false));
        assert_eq!(state(&store).await.reason.as_deref(), Some("by_hand"));
        assert!(claim(&store).await.taken.is_empty());
        assert_eq!(store.push_receiver(&arbo, true).await.unwrap().state, PushState::Works);
        assert_eq!(store.resume_push(&arbo, false).await, Ok(true));
        assert_eq!(ids(&claim(&store).await), ["r1"]);
    }

    async fn given_up_is_dead_and_its_case_goes_on(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "a"), ("r3", "b"), ("r4", "b")]).await;
        let first = claim(&store).await;
        settle(&store, &first.taken[0], Settlement::Unparseable(dead("receiver_unparseable"))).await;
        let exhausted = Settlement::Failed {
            again: dead("push_exhausted"),
            pause: SECONDS(0),
            reason: "status_503".to_owned(),
        };
        settle(&store, &first.taken[1], exhausted).await;
        for id in ["r1", "r3"] {
            let stored = store.message(&party("adp"), id).await.unwrap().unwrap();
            assert_eq!(stored.deliveries[0].state, DeliveryState::Dead);
        }
        assert_eq!(ids(&claim(&store).await), ["r2"]);
    }

    async fn a_late_worker_settles_nothing(place: Place) {
        let store = with_releases(&place, &[("r1", "a")]).await;
        let late = claim(&store).await;
        place.clock.advance(SECONDS(30));
        let current = claim(&store).await;
        assert_eq!(ids(&current), ["r1"]);
        for what in [
            Settlement::TakenOver,
            Settlement::GivenBack,
            Settlement::Unparseable(dead("receiver_unparseable")),
            failed(5),
        ] {
            assert_eq!(settle(&store, &late.taken[0], what).await, Settled::LeaseLost);
        }
        assert_eq!(state(&store).await.failures, 0);
        let taken = settle(&store, &current.taken[0], Settlement::TakenOver).await;
        assert_eq!(taken, Settled::Done(None));
        // Settling again is fine.
        let again = settle(&store, &current.taken[0], Settlement::TakenOver).await;
        assert_eq!(again, Settled::LeaseLost);
    }

    async fn who_polls_what_is_pushed_gets_what_nobody_holds(place: Place) {
        let store = with_releases(&place, &[("r1", "a"), ("r2", "b"), ("r3", "c"), ("r4", "d")]).await;
        let claimed = claim(&store).await;
        settle(&store, &claimed.taken[0], failed(3600)).await;
        // A retry that waits for its time may be fetched at once.
        assert_eq!(lease_ids(&store, 10).await, ["r1", "r4"]);
        assert_eq!(ack_ids(&store, &["r1", "r4"]).await.unknown, [""; 0]);
    }

    async fn what_is_due_is_seen_without_the_writer(place: Place) {
        let store = with_releases(&place, &[("r1", "a")]).await;
        let arbo = party("arbo");
        let has_due = async |test| store.has_due(&arbo, test).await.unwrap();
        assert!(has_due(false).await && !has_due(true).await);
        let claimed = claim(&store).await;
        assert!(!has_due(false).await);
        settle(&store, &claimed.taken[0], failed(60)).await;
        assert!(!has_due(false).await);
        place.clock.advance(SECONDS(60));
        assert!(has_due(false).await);
    }
}

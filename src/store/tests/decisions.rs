//! What becomes of dead letters: discarded by a person, or without content
//! because nobody decided in time.

use super::super::sql::ms;
use super::super::survey::{Survey, by_inbox};
use super::watching::unaccounted;
use super::*;

const DAY: Duration = Duration::from_hours(24);
const TERMS: Terms = Terms {
    replay: DAY,
    dead: DAY.saturating_mul(90),
    receipt: DAY.saturating_mul(100),
};

/// Accepts a message with these releases and rejects them all.
async fn bury(store: &Store, message: &str, ids: &[&str]) {
    let releases = ids.iter().map(|id| to_arbo(id, "a"));
    accept_releases(store, message, releases.collect()).await;
    let arbo = party("arbo");
    let leased = store.lease(&arbo, false, 1_000, SECONDS(60)).await.unwrap();
    assert_eq!(leased.len(), ids.len());
    for one in leased {
        let reject = store.reject(&arbo, &one.id, &one.lease, "x", "");
        reject.await.unwrap();
    }
}

async fn listed(store: &Store) -> Vec<(String, bool)> {
    let page = store
        .dead_letters(&DeadFilter::default(), None, 1_000)
        .await
        .unwrap();
    let letters = page.letters.into_iter();
    letters
        .map(|letter| (letter.id, letter.has_content))
        .collect()
}

async fn counted(store: &Store) -> u64 {
    store
        .dead_counts()
        .await
        .unwrap()
        .iter()
        .map(|one| one.count)
        .sum()
}

on_both! {
    async fn a_decision_of_another_day_is_not_written(place: Place) {
        let store = place.open().await;
        let decided = |id: &str, day| Acceptance { decided_on: day, ..acceptance(id) };
        let (first, second) = (date(2018, 3, 1), date(2018, 3, 2));
        let other_day = async |id, day| {
            let written = store.accept(decided(id, day)).await;
            matches!(written, Err(AcceptError::OtherDay))
        };
        assert!(other_day("m1", second).await);
        // 23:59 in Amsterdam, then 0:01: either day counts.
        place.clock.advance(SECONDS(13 * 3600 + 59 * 60));
        assert!(!other_day("m2", first).await);
        assert!(!other_day("m3", second).await);
        place.clock.advance(SECONDS(120));
        assert!(!other_day("m4", first).await);
        place.clock.advance(SECONDS(120));
        assert!(other_day("m5", first).await);
        assert!(!other_day("m6", second).await);
    }

    async fn of_a_discarded_letter_the_row_stays_and_nothing_waits(place: Place) {
        let store = place.open().await;
        // Its message is old enough to be forgotten once nothing keeps it.
        let old = "000000000001m";
        bury(&store, old, &["r1", "r2"]).await;
        accept_releases(&store, "m2", vec![to_arbo("r3", "b")]).await;
        assert_eq!(store.discard_dead("r1").await, Ok(Discard::Done));
        place.clock.advance(SECONDS(1));
        assert_eq!(store.discard_dead("r1").await, Ok(Discard::Already));
        assert_eq!(store.discard_dead("r3").await, Ok(Discard::NotDead(DeliveryState::Offered)));
        assert_eq!(store.discard_dead("none").await, Ok(Discard::Unknown));

        assert_eq!(listed(&store).await, [("r2".to_owned(), true)]);
        assert_eq!(counted(&store).await, 1);
        let letter = store.dead_letter("r1").await.unwrap().unwrap();
        assert_eq!((letter.discarded_at, letter.has_content), (Some(start()), false));
        let read = store.payload(&party("arbo"), "r1", place.now(), DAY).await.unwrap();
        assert!(read.is_none());
        let stored = store.message(&party("adp"), old).await.unwrap().unwrap();
        assert!(stored.deliveries.iter().all(|one| one.state == DeliveryState::Dead));
        assert_eq!(unaccounted(&place, &store).await, 0);

        // No way back for it, and none of the others has to wait for it.
        for overtaken in [Overtaken::Leave, Overtaken::Send] {
            assert_eq!(store.retry("r1", overtaken).await, Ok(Retry::Discarded));
        }
        let replay = store.replay(&DeadFilter::default(), Overtaken::Leave).await.unwrap();
        assert_eq!((replay.matched, replay.due), (1, 1));
        assert_eq!(lease_ids(&store, 9).await, ["r3", "r2"]);

        // Its receipt goes when that of a finished message would.
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap(), Expired::default());
        ack_ids(&store, &["r2"]).await;
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap().receipts, 1);
        assert!(store.dead_letter("r1").await.unwrap().is_none());
    }

    async fn the_content_of_dead_letters_ends_and_the_letters_stay(place: Place) {
        const LETTERS: usize = 250;
        let store = place.open().await;
        let ids: Vec<String> = (0..LETTERS).map(|n| format!("r{n:03}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let old = "000000000001m";
        bury(&store, old, &ids).await;
        place.clock.advance(TERMS.dead);
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap(), Expired::default());
        let ending = store.dead_ending(start() + SECONDS(1)).await.unwrap();
        assert_eq!((ending[0].count, ending[0].since), (LETTERS as u64, Some(start())));
        assert_eq!(store.dead_ending(start()).await.unwrap(), []);

        place.clock.advance(Duration::from_millis(1));
        let expired = store.expire(place.now(), &TERMS).await.unwrap();
        assert_eq!(expired, Expired { dead: LETTERS as u64, ..Expired::default() });
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap(), Expired::default());
        let expected: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), false)).collect();
        assert_eq!(listed(&store).await, expected);
        assert_eq!(counted(&store).await, LETTERS as u64);
        assert_eq!(store.dead_ending(place.now()).await.unwrap(), []);
        assert_eq!(unaccounted(&place, &store).await, 0);

        assert_eq!(store.retry("r000", Overtaken::Send).await, Ok(Retry::NoContent));
        let replay = store.replay(&DeadFilter::default(), Overtaken::Send).await.unwrap();
        assert_eq!(replay, Replay::default());
        // Until a person says so its receipt stays, however old.
        place.clock.advance(TERMS.receipt);
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap(), Expired::default());
        for id in ids {
            assert_eq!(store.discard_dead(id).await, Ok(Discard::Done));
        }
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap().receipts, 1);
    }

    async fn what_loses_its_content_meanwhile_is_not_made_due(place: Place) {
        let store = place.open().await;
        bury(&store, "m1", &["r1", "r2"]).await;
        let look = async |id: &str| {
            let mut connection = store.reader().await.unwrap();
            let candidate = store.candidate(id).await.unwrap().unwrap();
            let candidates = by_inbox(vec![candidate]).pop().unwrap();
            let survey = Survey::of(&mut connection, candidates, ms(place.now())).await.unwrap();
            let going = survey.going(Overtaken::Leave);
            (survey, going)
        };
        let (survey, going) = look("r1").await;
        store.discard_dead("r1").await.unwrap();
        assert_eq!(store.revive(&survey, &going).await, Ok(None));
        let (survey, going) = look("r2").await;
        place.clock.advance(TERMS.dead + SECONDS(1));
        assert_eq!(store.expire(place.now(), &TERMS).await.unwrap().dead, 1);
        assert_eq!(store.revive(&survey, &going).await, Ok(None));
        assert!(lease_ids(&store, 9).await.is_empty());
    }
}

//! What operators watch: the law of conservation, alerts, numbers.

use proptest::prelude::*;

use super::super::alerts::{Alert, AlertChanges};
use super::super::backend::{Connection, query};
use super::super::conservation::Walk;
use super::super::watching::LedgerWalk;
use super::super::writer::Change;
use super::*;

/// Something that is done behind the back of the store.
struct Behind(&'static str);

impl Change for Behind {
    type Output = ();

    async fn run(&self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        query(self.0).execute(connection).await.map(drop)
    }
}

pub(super) async fn behind(store: &Store, statement: &'static str) {
    store.writer().write(Behind(statement)).await.unwrap();
}

/// Walks over everything in small steps, and says how much breaks the law.
pub(super) async fn unaccounted(place: &TestPlace, store: &Store) -> u64 {
    let mut walk = Some(Walk::default());
    while let Some(at) = walk {
        walk = store.check_messages(&at, 3, place.now()).await.unwrap();
    }
    store.settle_unaccounted().await.unwrap().messages
}

fn parking(id: &str, part: &str) -> Acceptance {
    let mut acceptance = acceptance(id);
    acceptance.parked = vec![parked(part, Code::NoRoute, &[hash("x")], b"<parked/>")];
    acceptance
}

/// Five messages: one offered, one leased, one taken over, one dead, one
/// parked.
pub(super) async fn one_of_each(place: &TestPlace) -> Store {
    let store = place.open().await;
    for id in ["m1", "m2", "m3"] {
        accept_releases(&store, id, vec![to_arbo(id, "")]).await;
    }
    let leased = store
        .lease(&party("arbo"), false, 3, SECONDS(60))
        .await
        .unwrap();
    ack_ids(&store, &["m1"]).await;
    let lease = &leased[1].lease;
    store
        .reject(&party("arbo"), "m2", lease, "c", "")
        .await
        .unwrap();
    accept_releases(&store, "m4", vec![to_arbo("m4", "")]).await;
    store.accept(parking("m5", "p5")).await.unwrap();
    store
}

on_both! {
    async fn nothing_is_unaccounted_in_any_state(place: Place) {
        let store = one_of_each(&place).await;
        assert_eq!(unaccounted(&place, &store).await, 0);
        assert_eq!(store.unaccounted_ids().await.unwrap(), Vec::<String>::new());
    }

    async fn what_is_taken_away_or_changed_behind_its_back_is_seen(place: Place) {
        let store = one_of_each(&place).await;
        for (statement, back, id) in [
            ("DELETE FROM payload WHERE delivery_id = 'm4'",
             "INSERT INTO payload (delivery_id, sealed) SELECT 'm4', sealed FROM payload WHERE delivery_id = 'm3'", "m4"),
            ("UPDATE delivery SET state = 'taken_over' WHERE id = 'm4'",
             "UPDATE delivery SET state = 'offered' WHERE id = 'm4'", "m4"),
            ("UPDATE delivery SET state = 'taken_over', finished_at = 1 WHERE id = 'm4'",
             "UPDATE delivery SET state = 'offered', finished_at = NULL WHERE id = 'm4'", "m4"),
            ("UPDATE delivery SET finished_at = 1 WHERE id = 'm4'",
             "UPDATE delivery SET finished_at = NULL WHERE id = 'm4'", "m4"),
            ("UPDATE delivery SET state = 'dead', finished_at = 1 WHERE id = 'm3'",
             "UPDATE delivery SET state = 'leased', finished_at = NULL WHERE id = 'm3'", "m3"),
            ("UPDATE delivery SET state = 'offered' WHERE id = 'm1'",
             "UPDATE delivery SET state = 'taken_over' WHERE id = 'm1'", "m1"),
            ("UPDATE delivery SET lease = NULL WHERE id = 'm3'",
             "UPDATE delivery SET lease = 'x' WHERE id = 'm3'", "m3"),
            ("UPDATE delivery SET message_id = 'm1' WHERE id = 'm2'",
             "UPDATE delivery SET message_id = 'm2' WHERE id = 'm2'", "m1"),
        ] {
            behind(&store, statement).await;
            assert!(unaccounted(&place, &store).await > 0, "{statement}");
            assert!(store.unaccounted_ids().await.unwrap().contains(&id.to_owned()), "{statement}");
            behind(&store, back).await;
            assert_eq!(unaccounted(&place, &store).await, 0, "{back}");
        }
        behind(&store, "DELETE FROM parked WHERE id = 'p5'").await;
        behind(&store, "DELETE FROM payload WHERE delivery_id = 'm2'").await;
        behind(&store, "DELETE FROM delivery WHERE id = 'm2'").await;
        assert_eq!(unaccounted(&place, &store).await, 2);
        assert_eq!(store.unaccounted_ids().await.unwrap(), ["m2", "m5"]);
        // It stays known over a restart, and is found once.
        store.close().await;
        let store = place.open().await;
        let found = store.unaccounted().await.unwrap();
        assert_eq!((found.messages, found.since), (2, Some(place.now())));
    }

    async fn an_alert_is_raised_and_cleared_once(place: Place) {
        let (store, other) = (place.open().await, place.open().await);
        let alert = Alert {
            name: "dead_letter".to_owned(),
            subject: "{}".to_owned(),
            severity: "warning".to_owned(),
            since: place.now(),
            number: 1,
            raised_at: place.now(),
            told_to: None,
        };
        let raise = || AlertChanges {
            raised: vec![(alert.clone(), "raised".to_owned())],
            ..AlertChanges::default()
        };
        let clear = || AlertChanges {
            cleared: vec![(alert.clone(), "cleared".to_owned())],
            ..AlertChanges::default()
        };
        let now = place.now();
        let (first, second) = tokio::join!(
            store.settle_alerts(raise(), now, Some(10)),
            other.settle_alerts(raise(), now, Some(10)),
        );
        assert_eq!(first.unwrap().raised + second.unwrap().raised, 1);
        assert_eq!(store.alerts().await.unwrap(), std::slice::from_ref(&alert));
        let more = AlertChanges {
            renumbered: vec![Alert { number: 5, ..alert.clone() }],
            ..AlertChanges::default()
        };
        store.settle_alerts(more, now, Some(10)).await.unwrap();
        assert_eq!(store.alerts().await.unwrap()[0].number, 5);

        let message = store.next_alert_message(now, SECONDS(60)).await.unwrap().unwrap();
        assert_eq!((message.body.as_str(), message.attempt), ("raised", 1));
        assert_eq!(other.next_alert_message(now, SECONDS(60)).await.unwrap(), None);
        store.put_off_alert_message(&message.id, now + SECONDS(5)).await.unwrap();
        place.clock.advance(SECONDS(5));
        let now = place.now();
        // What comes later waits behind it.
        let (first, second) = tokio::join!(
            store.settle_alerts(clear(), now, Some(10)),
            other.settle_alerts(clear(), now, Some(10)),
        );
        assert_eq!(first.unwrap().cleared + second.unwrap().cleared, 1);
        let again = other.next_alert_message(now, SECONDS(60)).await.unwrap().unwrap();
        assert_eq!((again.id.as_str(), again.attempt), (message.id.as_str(), 2));
        other.alert_message_sent(&again.id).await.unwrap();
        let last = store.next_alert_message(now, SECONDS(60)).await.unwrap().unwrap();
        assert_eq!(last.body, "cleared");
        store.alert_message_sent(&last.id).await.unwrap();
        assert_eq!(store.next_alert_message(now, SECONDS(60)).await.unwrap(), None);
        assert!(store.alerts().await.unwrap().is_empty());
    }

    async fn more_of_an_alert_is_told_by_one_node(place: Place) {
        let (store, other) = (place.open().await, place.open().await);
        let alert = |number, told_to| Alert {
            name: "dead_letter".to_owned(),
            subject: "{}".to_owned(),
            severity: "warning".to_owned(),
            since: start(),
            number,
            raised_at: start(),
            told_to: Some(start() + SECONDS(told_to)),
        };
        let raised = AlertChanges {
            raised: vec![(alert(1, 0), "raised".to_owned())],
            ..AlertChanges::default()
        };
        store.settle_alerts(raised, start(), Some(10)).await.unwrap();
        let grown = |alert: Alert| AlertChanges {
            grown: vec![(alert, "again".to_owned())],
            ..AlertChanges::default()
        };
        // More of them, and as many but a later one.
        for more in [alert(2, 0), alert(2, 5)] {
            place.clock.advance(SECONDS(1));
            let now = place.now();
            let (first, second) = tokio::join!(
                store.settle_alerts(grown(more.clone()), now, Some(10)),
                other.settle_alerts(grown(more.clone()), now, Some(10)),
            );
            assert_eq!(first.unwrap().grown + second.unwrap().grown, 1);
            assert_eq!(store.alerts().await.unwrap(), [more]);
        }
        for body in ["raised", "again", "again"] {
            let next = store.next_alert_message(place.now(), SECONDS(60)).await.unwrap().unwrap();
            assert_eq!(next.body, body);
            store.alert_message_sent(&next.id).await.unwrap();
        }
        assert_eq!(store.next_alert_message(place.now(), SECONDS(60)).await.unwrap(), None);
    }

    async fn the_queue_of_alerts_is_bounded(place: Place) {
        let store = place.open().await;
        let alert = |n: u64| Alert {
            name: "dead_letter".to_owned(),
            subject: format!("{{\"party\":\"p{n}\"}}"),
            severity: "warning".to_owned(),
            since: place.now(),
            number: 1,
            raised_at: place.now(),
            told_to: None,
        };
        let mut dropped = 0;
        for n in 0..5 {
            let changes = AlertChanges {
                raised: vec![(alert(n), format!("body {n}"))],
                ..AlertChanges::default()
            };
            place.clock.advance(SECONDS(1));
            dropped += store.settle_alerts(changes, place.now(), Some(3)).await.unwrap().dropped;
        }
        assert_eq!(dropped, 2);
        let next = store.next_alert_message(place.now(), SECONDS(60)).await.unwrap().unwrap();
        assert_eq!(next.body, "body 2", "the oldest go first");
        assert_eq!(store.alerts().await.unwrap().len(), 5);
    }

    async fn one_node_looks_until_it_is_late(place: Place) {
        let store = place.open().await;
        let turn = |node: &'static str| store.take_turn(node, place.now(), SECONDS(45));
        assert_eq!(turn("a").await, Ok(true));
        assert_eq!(turn("b").await, Ok(false));
        assert_eq!(turn("a").await, Ok(true));
        place.clock.advance(SECONDS(44));
        assert_eq!(turn("b").await, Ok(false));
        place.clock.advance(SECONDS(1));
        assert_eq!(turn("b").await, Ok(true));
        assert_eq!(turn("a").await, Ok(false));
        // A clock that ran ahead keeps nobody out for long.
        store.take_turn("b", place.now() + SECONDS(9_999), SECONDS(45)).await.unwrap();
        assert_eq!(turn("a").await, Ok(true));
    }

    async fn what_waits_and_what_is_parked_is_counted_per_route(place: Place) {
        let store = one_of_each(&place).await;
        place.clock.advance(SECONDS(61));
        let waiting = store.waiting(place.now(), SECONDS(62)).await.unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!((waiting[0].due, waiting[0].leased), (2, 0), "the lease ran out");
        assert_eq!(waiting[0].oldest, start());
        assert_eq!(waiting[0].oldest_offered, None, "on offer for too short");
        let offered = store.waiting(place.now(), SECONDS(61)).await.unwrap();
        assert_eq!(offered[0].oldest_offered, Some(start()));
        let dead = store.dead_counts().await.unwrap();
        assert_eq!((dead.len(), dead[0].count, dead[0].since), (1, 1, Some(start())));
        let parked = store.parked_counts().await.unwrap();
        assert_eq!((parked[0].reason.as_str(), parked[0].parts, parked[0].bytes), ("no_route", 1, 9));
        assert!(store.database_bytes().await.unwrap() > 4_096);
    }

    async fn a_receiver_that_fails_again_and_again_or_is_stopped_is_paused(place: Place) {
        let store = place.open().await;
        behind(&store, "INSERT INTO push_receiver (party, test, failures, stopped, changed_at) VALUES
            ('hiccup', FALSE, 2, FALSE, 1), ('down', FALSE, 3, FALSE, 2), ('gone', TRUE, 0, TRUE, NULL)").await;
        let paused = store.paused_receivers().await.unwrap();
        let paused: Vec<_> = paused.iter().map(|one| (one.party.as_str(), one.test, one.failures)).collect();
        assert_eq!(paused, [("down", false, 3), ("gone", true, 0)]);

        let known = store.push_receivers().await.unwrap();
        let states: Vec<_> = known.iter().map(|((party, test), one)| (party.as_str(), *test, one.state)).collect();
        let expected = [("down", false, PushState::Works), ("gone", true, PushState::Stopped), ("hiccup", false, PushState::Works)];
        assert_eq!(states, expected);
        assert!(store.resume_push(&party("gone"), true).await.unwrap());
        assert!(store.resume_push(&party("down"), false).await.unwrap());
        assert_eq!(store.paused_receivers().await.unwrap(), []);
    }

    async fn a_case_without_a_word_for_three_years_is_silent(place: Place) {
        let store = place.open().await;
        let mut message = acceptance("m1");
        message.ledger = ["c1", "c2", "c3"]
            .map(|case| {
                let mut entry = case_entry(case_key("route", "person", case), 0, 1);
                if case == "c3" {
                    entry.state.closed_on = Some(date(2018, 3, 1));
                }
                known(LedgerChange::Put(entry))
            })
            .to_vec();
        store.accept(message).await.unwrap();
        let silent = async |today| {
            let (mut walk, mut silent, mut steps) = (Some(LedgerWalk::default()), 0, 0);
            while let Some(at) = walk {
                let step = store.silent_cases(&at, 2, today).await.unwrap();
                silent += step.silent;
                steps += 1;
                walk = step.next;
            }
            (silent, steps)
        };
        assert_eq!(silent(date(2021, 3, 1)).await, (0, 2));
        assert_eq!(silent(date(2021, 3, 2)).await, (2, 2));
    }
}

/// One thing that happens to messages; `nth` picks one of what is there.
#[derive(Clone, Debug)]
enum Act {
    Accept { releases: usize, parked: usize },
    Resolve { nth: usize, releases: usize },
    Unpark { nth: usize, releases: usize },
    Discard { nth: usize },
    Lease { limit: usize },
    Ack { nth: usize },
    Reject { nth: usize },
    RetryDead { nth: usize },
    DiscardDead { nth: usize },
    Pass { hours: u64 },
    ExpireParked,
    ExpireReceipts,
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let nth = 0_usize..6;
    let act = prop_oneof![
        4 => (0_usize..3, 0_usize..3)
            .prop_map(|(releases, parked)| Act::Accept { releases, parked }),
        2 => (nth.clone(), 0_usize..2).prop_map(|(nth, releases)| Act::Resolve { nth, releases }),
        2 => (nth.clone(), 0_usize..3).prop_map(|(nth, releases)| Act::Unpark { nth, releases }),
        1 => nth.clone().prop_map(|nth| Act::Discard { nth }),
        3 => (1_usize..5).prop_map(|limit| Act::Lease { limit }),
        2 => nth.clone().prop_map(|nth| Act::Ack { nth }),
        1 => nth.clone().prop_map(|nth| Act::Reject { nth }),
        1 => nth.clone().prop_map(|nth| Act::RetryDead { nth }),
        1 => nth.prop_map(|nth| Act::DiscardDead { nth }),
        2 => (1_u64..200).prop_map(|hours| Act::Pass { hours }),
        1 => Just(Act::ExpireParked),
        1 => Just(Act::ExpireReceipts),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..40)
}

/// A walk, and what of it is known.
struct Stroll {
    place: TestPlace,
    store: Store,
    /// Numbers for ids, so that none comes twice.
    made: usize,
    /// Ids of leased releases with their tokens.
    leased: Vec<(String, String)>,
}

impl Stroll {
    fn id(&mut self, kind: &str) -> String {
        self.made += 1;
        // Ids of messages begin with their time, as retention expects.
        let at = u64::try_from(self.place.now().as_millisecond()).unwrap();
        format!("{at:012x}{kind}{:04}", self.made)
    }

    fn releases(&mut self, count: usize) -> Vec<Release> {
        (0..count).map(|_| to_arbo(&self.id("r"), "")).collect()
    }

    fn message(&mut self) -> Acceptance {
        let id = self.id("m");
        let mut acceptance = acceptance(&id);
        acceptance.message.received_at = self.place.now();
        acceptance.decided_on = self.place.clock.today();
        acceptance
    }

    async fn nth_parked(&self, nth: usize) -> Option<ParkedItem> {
        let parked = self.store.parked(&ParkedFilter::default()).await.unwrap();
        parked.into_iter().nth(nth)
    }

    async fn nth_dead(&self, nth: usize) -> Option<String> {
        let page = self
            .store
            .dead_letters(&DeadFilter::default(), None, 6)
            .await;
        let letters = page.unwrap().letters;
        letters.into_iter().nth(nth).map(|letter| letter.id)
    }

    async fn act(&mut self, act: Act) {
        let now = self.place.now();
        match act {
            Act::Accept {
                releases,
                parked: parts,
            } => {
                let mut message = self.message();
                message.releases = self.releases(releases);
                message.parked = (0..parts)
                    .map(|_| parked(&self.id("p"), Code::NoRoute, &[hash("x")], b"<p/>"))
                    .collect();
                self.store.accept(message).await.unwrap();
            }
            Act::Resolve { nth, releases } => {
                let Some(item) = self.nth_parked(nth).await else {
                    return;
                };
                let mut message = self.message();
                message.releases = self.releases(releases);
                message.unparked = vec![item.id];
                self.store.accept(message).await.unwrap();
            }
            Act::Unpark { nth, releases } => {
                let Some(item) = self.nth_parked(nth).await else {
                    return;
                };
                let releases = self.releases(releases);
                let unparking = Unparking {
                    directory_version: 0,
                    decided_on: self.place.clock.today(),
                    item: &item,
                    releases,
                    ledger: vec![],
                    window_days: 35,
                    remember: vec![],
                    withheld: vec![],
                };
                self.store.unpark(unparking).await.unwrap();
            }
            Act::Discard { nth } => {
                let Some(item) = self.nth_parked(nth).await else {
                    return;
                };
                assert!(self.store.discard_parked(&item.id, now).await.unwrap());
            }
            Act::Lease { limit } => {
                let arbo = party("arbo");
                let leased = self.store.lease(&arbo, false, limit, SECONDS(60)).await;
                let leased = leased.unwrap().into_iter();
                self.leased.extend(leased.map(|one| (one.id, one.lease)));
            }
            Act::Ack { nth } => {
                let Some((id, lease)) = self.leased.get(nth) else {
                    return;
                };
                let item = [(id.clone(), Some(lease.clone()))];
                self.store.ack(&party("arbo"), &item).await.unwrap();
            }
            Act::Reject { nth } => {
                let Some((id, lease)) = self.leased.get(nth) else {
                    return;
                };
                let rejected = self.store.reject(&party("arbo"), id, lease, "c", "").await;
                assert!(!matches!(rejected, Err(InboxError::Store(_))));
            }
            Act::RetryDead { nth } => {
                let Some(id) = self.nth_dead(nth).await else {
                    return;
                };
                self.store.retry(&id, Overtaken::Send).await.unwrap();
            }
            Act::DiscardDead { nth } => {
                let Some(id) = self.nth_dead(nth).await else {
                    return;
                };
                assert_eq!(self.store.discard_dead(&id).await, Ok(Discard::Done));
            }
            Act::Pass { hours } => self.place.clock.advance(Duration::from_hours(hours)),
            Act::ExpireParked => drop(self.store.expire_parked(now, 14).await.unwrap()),
            Act::ExpireReceipts => {
                let terms = Terms {
                    replay: SECONDS(60),
                    dead: Duration::from_hours(200),
                    receipt: Duration::from_hours(300),
                };
                self.store.expire(now, &terms).await.unwrap();
            }
            Act::Restart => {
                self.store.close().await;
                self.store = self.place.open().await;
            }
        }
    }
}

async fn walk(place: TestPlace, acts: Vec<Act>) {
    let store = place.open().await;
    let mut stroll = Stroll {
        place,
        store,
        made: 0,
        leased: Vec::new(),
    };
    for act in acts {
        stroll.act(act.clone()).await;
        let found = unaccounted(&stroll.place, &stroll.store).await;
        assert_eq!(found, 0, "{act:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_nothing_is_unaccounted(acts in acts()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(walk(TestPlace::sqlite(), acts));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn whatever_happens_nothing_is_unaccounted_on_a_server(acts in acts()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { walk(TestPlace::postgres().await, acts).await });
    }
}

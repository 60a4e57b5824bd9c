//! Leases against a model: random interleavings, one rule of order.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// One thing that somebody does to an inbox. `nth` picks a release, `stale`
/// uses the token before the current one.
#[derive(Clone, Debug)]
enum Act {
    Accept { cases: Vec<u8> },
    Lease { limit: usize, ttl: u64 },
    Pass { seconds: u64 },
    AckById { nth: usize },
    AckByLease { nth: usize, stale: bool },
    Reject { nth: usize, stale: bool },
    Extend { nth: usize, stale: bool, ttl: u64 },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let cases = proptest::collection::btree_set(0_u8..4, 0..3);
    let act = prop_oneof![
        6 => cases.prop_map(|cases| Act::Accept { cases: cases.into_iter().collect() }),
        6 => (1_usize..5, 10_u64..40).prop_map(|(limit, ttl)| Act::Lease { limit, ttl }),
        3 => (1_u64..30).prop_map(|seconds| Act::Pass { seconds }),
        2 => (0_usize..12).prop_map(|nth| Act::AckById { nth }),
        4 => (0_usize..12, any::<bool>()).prop_map(|(nth, stale)| Act::AckByLease { nth, stale }),
        1 => (0_usize..12, any::<bool>()).prop_map(|(nth, stale)| Act::Reject { nth, stale }),
        1 => (0_usize..12, any::<bool>(), 10_u64..40)
            .prop_map(|(nth, stale, ttl)| Act::Extend { nth, stale, ttl }),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..60)
}

/// What the model knows of one release.
#[derive(Clone, Debug, Default)]
struct Known {
    id: String,
    cases: Vec<u8>,
    /// Every token it was handed out with, newest last.
    tokens: Vec<String>,
    until: Option<Timestamp>,
    taken_over: bool,
    dead: bool,
}

impl Known {
    fn is_finished(&self) -> bool {
        self.taken_over || self.dead
    }

    fn is_held(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// A token that was used, and whether it is the current one.
    fn token(&self, stale: bool) -> (String, bool) {
        let older = self.tokens.iter().rev().nth(usize::from(stale));
        let is_current = !stale && !self.is_finished() && older.is_some();
        (older.cloned().unwrap_or("none".into()), is_current)
    }
}

/// The rule, said plainly: take what is due in order, but a release only when
/// every earlier unfinished one that shares a case with it is taken too.
fn expected(known: &[Known], limit: usize, now: Timestamp) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    for (at, one) in known.iter().enumerate() {
        if taken.len() == limit || one.is_finished() || one.is_held(now) {
            continue;
        }
        let ahead = known.iter().enumerate().take(at);
        let mut ahead = ahead.filter(|(_, other)| {
            !other.is_finished() && other.cases.iter().any(|case| one.cases.contains(case))
        });
        if ahead.all(|(other, _)| taken.contains(&other)) {
            taken.push(at);
        }
    }
    taken
}

struct Run {
    place: TestPlace,
    /// The nodes that share the database, asked in turn.
    nodes: Vec<Store>,
    turn: usize,
    known: Vec<Known>,
}

impl Run {
    async fn new(place: TestPlace, nodes: usize) -> Self {
        let mut run = Self {
            place,
            nodes: Vec::new(),
            turn: 0,
            known: Vec::new(),
        };
        for _ in 0..nodes {
            run.nodes.push(run.place.open().await);
        }
        run
    }

    /// The node whose turn it is.
    fn node(&mut self) -> Store {
        self.turn = (self.turn + 1) % self.nodes.len();
        self.nodes[self.turn].clone()
    }

    async fn act(&mut self, act: Act) {
        let store = self.node();
        match act {
            Act::Accept { cases } => self.accept(cases).await,
            Act::Lease { limit, ttl } => self.lease(limit, ttl).await,
            Act::Pass { seconds } => self.place.clock.advance(SECONDS(seconds)),
            Act::AckById { nth } => self.ack_by_id(nth).await,
            Act::AckByLease { nth, stale } => self.ack_by_lease(nth, stale).await,
            Act::Reject { nth, stale } => {
                let Some(one) = self.known.get_mut(nth) else {
                    return;
                };
                let (token, is_current) = one.token(stale);
                let rejected = store.reject(&party("arbo"), &one.id, &token, "c", "").await;
                assert_eq!(rejected.is_ok(), is_current);
                one.dead |= is_current;
            }
            Act::Extend { nth, stale, ttl } => {
                let Some(one) = self.known.get_mut(nth) else {
                    return;
                };
                let (token, is_current) = one.token(stale);
                let extended = store
                    .extend(&party("arbo"), &one.id, &token, SECONDS(ttl))
                    .await;
                assert_eq!(extended.is_ok(), is_current);
                if let Ok(until) = extended {
                    one.until = Some(until);
                }
            }
            Act::Restart => {
                store.close().await;
                self.nodes[self.turn] = self.place.open().await;
            }
        }
    }

    async fn accept(&mut self, cases: Vec<u8>) {
        let id = format!("r{:03}", self.known.len());
        let letters: String = cases.iter().map(|case| char::from(b'a' + case)).collect();
        accept_releases(&self.node(), &id, vec![to_arbo(&id, &letters)]).await;
        self.known.push(Known {
            id,
            cases,
            ..Known::default()
        });
    }

    async fn lease(&mut self, limit: usize, ttl: u64) {
        let now = self.place.now();
        let wanted = expected(&self.known, limit, now);
        let leased = self
            .node()
            .lease(&party("arbo"), false, limit, SECONDS(ttl))
            .await
            .unwrap();
        let ids: Vec<_> = leased.iter().map(|one| one.id.as_str()).collect();
        let wanted_ids: Vec<_> = wanted
            .iter()
            .map(|at| self.known[*at].id.as_str())
            .collect();
        assert_eq!(ids, wanted_ids);
        for (at, one) in wanted.into_iter().zip(leased) {
            let known = &mut self.known[at];
            assert!(!known.is_held(now), "handed out twice");
            assert_eq!(one.attempt as usize, known.tokens.len() + 1);
            assert_eq!(**one.xml, *format!("<r>{}</r>", known.id).as_bytes());
            known.tokens.push(one.lease);
            known.until = Some(one.lease_until);
        }
    }

    async fn ack_by_id(&mut self, nth: usize) {
        let store = self.node();
        let Some(one) = self.known.get_mut(nth) else {
            return;
        };
        let acked = ack_ids(&store, &[&one.id]).await;
        let counts = !one.tokens.is_empty() && !one.dead;
        assert_eq!(!acked.acknowledged.is_empty(), counts);
        one.taken_over |= counts;
    }

    async fn ack_by_lease(&mut self, nth: usize, stale: bool) {
        let store = self.node();
        let Some(one) = self.known.get_mut(nth) else {
            return;
        };
        let (token, is_current) = one.token(stale);
        let item = [(one.id.clone(), Some(token))];
        let acked = store.ack(&party("arbo"), &item).await.unwrap();
        assert_eq!(
            acked.unknown.is_empty(),
            (is_current && !one.dead) || one.taken_over,
            "{one:?}"
        );
        one.taken_over |= is_current && !one.dead;
    }

    /// Everything that is left comes out, in order per case.
    async fn drain(mut self) {
        self.place.clock.advance(Duration::from_hours(1));
        let mut left: HashSet<String> = HashSet::new();
        left.extend(
            self.known
                .iter()
                .filter(|k| !k.is_finished())
                .map(|k| k.id.clone()),
        );
        while !left.is_empty() {
            let now = self.place.now();
            let wanted = expected(&self.known, 3, now);
            let ids = lease_ids(&self.node(), 3).await;
            assert!(!ids.is_empty(), "lost: {left:?}");
            for (at, id) in wanted.into_iter().zip(ids) {
                assert_eq!(self.known[at].id, id);
                ack_ids(&self.node(), &[&id]).await;
                self.known[at].taken_over = true;
                left.remove(&id);
            }
        }
        assert!(lease_ids(&self.node(), 3).await.is_empty());
    }
}

/// Walks through `acts` on a new database that `nodes` share.
fn walk(place: impl Future<Output = TestPlace>, nodes: usize, acts: Vec<Act>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(place.await, nodes).await;
        for act in acts {
            run.act(act).await;
        }
        run.drain().await;
    });
}

/// How many walks: `standard`, or what the environment says for a long run.
fn walks(standard: u32) -> ProptestConfig {
    let asked = std::env::var("SIVI_WALKS").ok();
    ProptestConfig::with_cases(asked.and_then(|n| n.parse().ok()).unwrap_or(standard))
}

proptest! {
    #![proptest_config(walks(64))]

    #[test]
    fn an_inbox_does_what_the_model_says(acts in acts()) {
        walk(async { TestPlace::sqlite() }, 1, acts);
    }
}

proptest! {
    #![proptest_config(walks(16))]

    #[test]
    fn an_inbox_of_two_nodes_does_what_the_model_says(acts in acts()) {
        walk(TestPlace::postgres(), 2, acts);
    }
}

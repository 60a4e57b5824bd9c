//! How fast, on this machine: `cargo test --release --lib store::tests::speed
//! -- --ignored --nocapture`. Figures, not promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

const MESSAGES: usize = 30_000;
const SENDERS: usize = 64;

/// A message as a payroll provider sends it: one release of 4 KB, a new case.
fn message(n: usize, xml: &[u8]) -> Acceptance {
    let mut one = acceptance(&crate::clock::new_id());
    let name = n.to_string();
    one.releases = vec![release(
        &crate::clock::new_id(),
        "arbo",
        false,
        &[hash(&name)],
        xml,
    )];
    let entry = case_entry(case_key("route", &name, &name), 0, 1);
    one.ledger = vec![known(LedgerChange::Put(entry))];
    one.remember = vec![Remembered {
        route: hash("route"),
        case: hash(&name),
        until: date(2020, 3, 1),
    }];
    one.withheld = ["bsn", "free_text"]
        .map(|rule| Withheld {
            tenant: TenantId::parse("bakkerij").unwrap(),
            to: party("arbo"),
            domain: Domain::Arbodienst,
            message_type: "Verzuimmeldingen".into(),
            rule,
            count: 1,
        })
        .to_vec();
    one
}

fn rate(count: usize, since: Instant) -> usize {
    count * 1000 / usize::try_from(since.elapsed().as_millis()).unwrap().max(1)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, proves nothing"]
async fn accept_then_lease_and_acknowledge() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let xml = Arc::new(vec![b'x'; 4200]);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (store, next, xml) = (store.clone(), Arc::clone(&next), Arc::clone(&xml));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= MESSAGES {
                        break;
                    }
                    store.accept(message(n, &xml)).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    println!("accepted {}/s", rate(MESSAGES, start));

    let arbo = party("arbo");
    let start = Instant::now();
    let mut got = 0;
    while got < MESSAGES {
        let leased = store.lease(&arbo, false, 100, SECONDS(60)).await;
        let leased = leased.unwrap();
        got += leased.len();
        let items: Vec<_> = leased
            .into_iter()
            .map(|one| (one.id, Some(one.lease)))
            .collect();
        store.ack(&arbo, &items).await.unwrap();
    }
    println!("leased and acknowledged {}/s", rate(MESSAGES, start));

    let start = Instant::now();
    for _ in 0..2000 {
        assert!(lease_ids(&store, 100).await.is_empty());
    }
    println!("empty polls {}/s", rate(2000, start));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, proves nothing"]
async fn look_at_what_came_after_a_dead_letter() {
    const LATER: usize = 100_000;
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let arbo = party("arbo");
    accept_releases(&store, "m", vec![to_arbo("r", "a")]).await;
    let first = store.lease(&arbo, false, 1, SECONDS(60)).await.unwrap();
    let reject = store.reject(&arbo, "r", &first[0].lease, "x", "");
    reject.await.unwrap();
    for n in 0..LATER / 1000 {
        let of = |m: usize| {
            let (id, case) = (format!("r{n}-{m}"), hash(&format!("{n}-{m}")));
            release(&id, "arbo", false, &[case], b"<r/>")
        };
        accept_releases(&store, &format!("m{n}"), (0..1000).map(of).collect()).await;
        if n % 2 == 0 {
            let ids = lease_ids(&store, 1000).await;
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            ack_ids(&store, &ids).await;
        }
    }
    let start = Instant::now();
    let page = store.dead_letters(&DeadFilter::default(), None, 100).await;
    assert_eq!(page.unwrap().letters.len(), 1);
    println!("listed behind {LATER}: {:?}", start.elapsed());
    let start = Instant::now();
    let retry = store.retry("r", Overtaken::Leave).await.unwrap();
    assert!(matches!(retry, Retry::Due { .. }));
    println!("retried behind {LATER}: {:?}", start.elapsed());
}

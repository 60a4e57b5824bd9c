//! Values that do not open, damaged or of a destroyed key: they concern
//! nobody but their own person, part or release.

use super::*;
use crate::policy::testing::parked_of;
use crate::store::writer::Change;

/// What a broken disk or a careless hand does.
struct Damage(&'static str);

impl Change for Damage {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        query(self.0).execute(connection).await
    }
}

async fn damage(store: &Store, statement: &'static str) {
    assert!(store.writer().write(Damage(statement)).await.unwrap() > 0);
}

async fn put(store: &Store, id: &str, key: CaseKey) -> Result<(), AcceptError> {
    let mut one = acceptance(id);
    one.ledger = vec![known(LedgerChange::Put(case_entry(key, 0, 1)))];
    store.accept(one).await.map(drop)
}

fn bakkerij() -> TenantId {
    TenantId::parse("bakkerij").unwrap()
}

on_both! {
    async fn a_damaged_entry_concerns_only_its_person(place: Place) {
        let store = place.open().await;
        put(&store, "m1", case_key("route", "ill", "case")).await.unwrap();
        damage(&store, "UPDATE ledger SET sealed = route").await;
        put(&store, "m2", case_key("route", "well", "case")).await.unwrap();

        let asked = |person| [(hash("route"), hash(person))];
        let (ill, well) = (asked("ill"), asked("well"));
        let (ill, well) = tokio::join!(store.ledger(&ill), store.ledger(&well));
        assert_eq!(ill, Err(Error::Damaged { what: "ledger entry" }));
        assert_eq!(well.unwrap().len(), 1);

        let today = date(2021, 6, 1);
        let mut at = LedgerWalk::default();
        let (mut silent, mut damaged) = (0, 0);
        loop {
            let step = store.silent_cases(&at, 1, today).await.unwrap();
            (silent, damaged) = (silent + step.silent, damaged + step.damaged);
            let Some(next) = step.next else { break };
            at = next;
        }
        assert_eq!((silent, damaged), (1, 1));
    }

    async fn a_damaged_api_key_is_named_and_silences_no_other(place: Place) {
        let store = place.open().await;
        let mut other = api_key(&place);
        (other.id, other.hash) = ("k2".to_owned(), hash("other"));
        for key in [api_key(&place), other.clone()] {
            store.insert_api_key(key).await.unwrap();
        }
        for damaging in [
            "UPDATE api_key SET party = 'NO PARTY' WHERE id = 'k1'",
            "UPDATE api_key SET hash = substr(hash, 1, 5), party = 'adp' WHERE id = 'k1'",
        ] {
            damage(&store, damaging).await;
            let keys = store.api_keys().await.unwrap();
            assert_eq!((keys.readable, keys.unreadable), (vec![other.clone()], vec!["k1".to_owned()]));
        }
    }

    async fn a_damaged_parked_part_holds_up_no_other(place: Place) {
        let store = place.open().await;
        for (message, part) in [("m1", "p1"), ("m2", "p2")] {
            let mut one = acceptance(message);
            one.parked = vec![parked(part, Code::NoRoute, &[hash("p")], b"<parked/>")];
            store.accept(one).await.unwrap();
        }
        damage(
            &store,
            "UPDATE parked SET sealed = (SELECT sealed FROM parked WHERE id = 'p2') WHERE id = 'p1'",
        )
        .await;
        let ids = |items: Vec<ParkedItem>| -> Vec<String> {
            items.into_iter().map(|item| item.id).collect()
        };
        let all = store.parked(&ParkedFilter::default()).await.unwrap();
        assert_eq!(ids(all), ["p2"]);
        assert_eq!(store.parked_about(&[hash("p")]).await.unwrap().len(), 2);
        assert!(store.parked_item("p1").await.unwrap().is_none());
        assert!(store.parked_item("p2").await.unwrap().is_some());
        // It stays where operators see it.
        let page = store.parked_page(&ParkedFilter::default(), 10).await.unwrap();
        assert_eq!(page.parts.len(), 2);
    }

    /// A daemon that has not heard that a key is gone seals with it once more.
    async fn a_late_value_of_a_destroyed_key_is_removed_when_it_is_met(place: Place) {
        let daemon = place.open().await;
        accept_releases(&daemon, "m0", vec![to_arbo("r0", "z")]).await;
        let command = place.open().await;
        command.rotate_keys(Rotation::Tenant(bakkerij())).await.unwrap();
        destroy_replaced(&command).await;
        let key = case_key("route", "person", "case");
        put(&daemon, "m1", key).await.unwrap();
        daemon.follow_ring().await.unwrap();

        let asked = [(key.route, key.person)];
        assert_eq!(daemon.ledger(&asked).await, Ok(Vec::new()));
        // It stands in the way only until the ring is looked at again.
        assert!(put(&daemon, "m2", key).await.is_err());
        daemon.follow_ring().await.unwrap();
        put(&daemon, "m2", key).await.unwrap();
        assert_eq!(daemon.ledger(&asked).await.unwrap().len(), 1);
    }

    async fn what_a_destroyed_key_sealed_goes_in_steps_and_goes_all(place: Place) {
        let store = place.open().await;
        let mut one = acceptance("m1");
        let many = 0..450;
        one.ledger = many
            .clone()
            .map(|n| case_key("route", "person", &format!("case {n}")))
            .map(|key| known(LedgerChange::Put(case_entry(key, 0, 1))))
            .collect();
        one.releases = many.clone().map(|n| to_arbo(&format!("r{n}"), "a")).collect();
        one.parked = many
            .map(|n| parked_of(bakkerij(), &format!("p{n:03}"), Code::NoRoute))
            .collect();
        store.accept(one).await.unwrap();
        let destroyed = store.destroy_keys(&bakkerij()).await.unwrap();
        let Removed { payloads, parked, entries } = destroyed.removed;
        assert_eq!((payloads, parked, entries), (450, 450, 450));
        let again = store.destroy_keys(&bakkerij()).await.unwrap();
        assert_eq!(again.removed, Removed::default());
    }
}

//! Replaced keys go and nothing goes with them, whoever rotates, seals late or
//! is in a hurry meanwhile.

use super::watching::behind;
use super::*;

/// How long a key must have been replaced.
const REST: Duration = Duration::from_mins(15);

fn bakkerij() -> TenantId {
    TenantId::parse("bakkerij").unwrap()
}

/// Puts a new key in the place of the tenant's.
async fn rotate(store: &Store) -> u32 {
    let made = store
        .rotate_keys(Rotation::Tenant(bakkerij()))
        .await
        .unwrap();
    made[0]
}

/// The number of the tenant's key in use.
async fn in_use(store: &Store) -> u32 {
    let mut keys = store.ring_keys().await.unwrap().into_iter();
    let key = keys.find(|key| key.tenant.is_some() && key.replaced_at.is_none());
    key.unwrap().number
}

/// The tenant's keys that were destroyed.
async fn destroyed(store: &Store) -> Vec<u32> {
    let keys = store.ring_keys().await.unwrap().into_iter();
    keys.filter(|key| key.destroyed_at.is_some())
        .map(|key| key.number)
        .collect()
}

async fn reseal(store: &Store) -> u64 {
    let sealed = store.reseal(&Rotation::Tenant(bakkerij())).await.unwrap();
    assert_eq!(sealed.unopened, 0);
    sealed.payloads
}

/// Accepts a release and an entry of the ledger.
async fn accept(store: &Store, id: &str) {
    let mut one = acceptance(id);
    one.releases = vec![to_arbo(id, "")];
    let key = case_key("route", "person", id);
    one.ledger = vec![known(LedgerChange::Put(case_entry(key, 0, 1)))];
    store.accept(one).await.unwrap();
}

async fn entries(store: &Store) -> usize {
    let pairs = [(hash("route"), hash("person"))];
    store.ledger(&pairs).await.unwrap().len()
}

on_both! {
    /// By the time the others go it is replaced itself, and old enough.
    async fn the_key_that_everything_was_just_sealed_with_stays(place: Place) {
        let store = place.open().await;
        accept(&store, "r1").await;
        let first = in_use(&store).await;
        rotate(&store).await;
        place.clock.advance(REST);
        let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
        assert_eq!((replaced.rested(), replaced.young()), (&[first][..], &[][..]));
        assert_eq!(reseal(&store).await, 1);
        rotate(&store).await;
        place.clock.advance(REST);

        let gone = store.retire_keys(&replaced).await.unwrap();
        assert_eq!((gone.keys, gone.removed), (1, Removed::default()));
        assert_eq!(destroyed(&store).await, [first]);
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
        assert_eq!(entries(&store).await, 1);
    }

    /// A node that has not heard of the rotation goes on sealing.
    async fn a_key_that_a_value_is_sealed_with_stays(place: Place) {
        let (store, slow) = (place.open().await, place.open().await);
        accept(&slow, "r1").await;
        store.follow_ring().await.unwrap();
        let first = in_use(&store).await;
        rotate(&store).await;
        place.clock.advance(REST);
        let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
        assert_eq!(reseal(&store).await, 1);
        accept(&slow, "r2").await;

        let refused = store.retire_keys(&replaced).await;
        assert_eq!(refused, Err(RetireError::InUse(2)));
        assert!(destroyed(&store).await.is_empty());
        assert_eq!(reseal(&store).await, 1);
        let gone = store.retire_keys(&replaced).await.unwrap();
        assert_eq!((gone.keys, gone.removed), (1, Removed::default()));
        assert_eq!(destroyed(&store).await, [first]);
        assert_eq!(lease_ids(&store, 10).await, ["r1", "r2"]);
        assert_eq!(entries(&store).await, 2);
    }

    /// A node that is slow to follow the ring may seal with it still.
    async fn a_key_that_was_replaced_a_short_time_ago_stays(place: Place) {
        let store = place.open().await;
        accept(&store, "r1").await;
        let first = in_use(&store).await;
        let second = rotate(&store).await;
        let young = |number| YoungKey { number, from: place.now() + REST };
        let expected = [young(first)];
        reseal(&store).await;

        place.clock.advance(SECONDS(15 * 60 - 1));
        let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
        assert_eq!((replaced.rested(), replaced.young()), (&[][..], &expected[..]));
        assert_eq!(store.retire_keys(&replaced).await, Ok(Destroyed::default()));
        assert!(destroyed(&store).await.is_empty());

        place.clock.advance(SECONDS(1));
        let expected = [YoungKey { number: second, from: place.now() + REST }];
        rotate(&store).await;
        reseal(&store).await;
        let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
        assert_eq!((replaced.rested(), replaced.young()), (&[first][..], &expected[..]));
        assert_eq!(store.retire_keys(&replaced).await.unwrap().keys, 1);
        assert_eq!(destroyed(&store).await, [first]);
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
    }

    /// Also when that key is replaced before the older ones go.
    async fn a_forced_destruction_spares_what_newer_keys_sealed(place: Place) {
        let store = place.open().await;
        accept(&store, "old").await;
        let first = in_use(&store).await;
        let second = rotate(&store).await;
        accept(&store, "new").await;
        rotate(&store).await;
        let all = store.replaced_keys(&bakkerij()).await.unwrap();
        let gone = store.destroy_replaced_keys(&all.older_than(second)).await.unwrap();
        assert_eq!((gone.keys, gone.removed.payloads), (1, 1));
        assert_eq!(destroyed(&store).await, [first]);
        assert_eq!(lease_ids(&store, 10).await, ["new"]);
        assert_eq!(entries(&store).await, 1);
    }

    /// It matters more that the keys go than how much goes with them.
    async fn keys_are_erased_also_when_nobody_can_count_what_they_sealed(place: Place) {
        let store = place.open().await;
        accept(&store, "r1").await;
        let keys = [in_use(&store).await, rotate(&store).await];
        behind(&store, "ALTER TABLE ledger RENAME TO elsewhere").await;
        let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
        store.destroy_replaced_keys(&replaced).await.unwrap_err();
        assert_eq!(destroyed(&store).await, keys[..1]);
        store.destroy_keys(&bakkerij()).await.unwrap_err();
        assert_eq!(destroyed(&store).await, keys);

        behind(&store, "ALTER TABLE elsewhere RENAME TO ledger").await;
        store.destroy_keys(&bakkerij()).await.unwrap();
        assert_eq!(entries(&store).await, 0);
    }
}

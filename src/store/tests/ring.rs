//! The key ring: races between nodes, rotation, a new master, destruction.

use std::fs;

use super::watching::{behind, unaccounted};
use super::*;
use crate::seal::{Masters, Purpose, Scope};

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

fn master(number: u8) -> Master {
    Master::from_secret([number; SECRET_LEN])
}

/// A place with the same ring and no store yet.
async fn beside(place: &TestPlace) -> TestPlace {
    let other = if place.url().is_shared() {
        TestPlace::postgres().await
    } else {
        TestPlace::sqlite()
    };
    TestPlace {
        ring_url: place.ring_url.clone(),
        ..other
    }
}

/// Makes the ring one that does not know yet whether it is in use.
async fn ring_of_before(place: &TestPlace) {
    let ring = Backend::new(&place.ring_url, BUSY, place.clock.clone());
    let mut connection = ring.writer().await.unwrap();
    for statement in [
        "ALTER TABLE ring DROP COLUMN in_use_since",
        "DELETE FROM _sqlx_migrations WHERE version = 2",
    ] {
        query(statement).execute(&mut connection).await.unwrap();
    }
}

/// The keys in use, by purpose, tenant and number.
async fn in_use(store: &Store) -> Vec<(Purpose, Option<TenantId>, u32)> {
    let keys = store.ring_keys().await.unwrap().into_iter();
    keys.filter(|key| key.replaced_at.is_none())
        .map(|key| (key.purpose, key.tenant, key.number))
        .collect()
}

async fn payload(store: &Store, id: &str, now: Timestamp) -> Result<Option<Vec<u8>>, Error> {
    let hour = Duration::from_hours(1);
    let found = store.payload(&party("arbo"), id, now, hour).await?;
    Ok(found.map(|payload| payload.xml.to_vec()))
}

on_both! {
    /// Two nodes that need a key of the same tenants at once make one.
    async fn nodes_that_make_a_key_at_once_end_with_the_same(place: Place) {
        let (one, other) = (place.open().await, place.open().await);
        let names: Vec<TenantId> = (0..5).map(|n| tenant(&format!("t-{n}"))).collect();
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let store = if n % 2 == 0 { one.clone() } else { other.clone() };
                let names = names.clone();
                tokio::spawn(async move { store.provide(names.iter()).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let keys = one.ring_keys().await.unwrap();
        assert_eq!(keys.len(), 3 + names.len());
        let mut numbers: Vec<u32> = keys.iter().map(|key| key.number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), keys.len());
        other.follow_ring().await.unwrap();
        let here = crate::seal::Place { table: "payload", row: b"1", column: "sealed" };
        for name in &names {
            let sealed = one.keys().seal(Scope::Tenant(name), here, b"x").unwrap();
            assert_eq!(other.keys().open(here, &sealed).unwrap().as_slice(), b"x");
        }
    }

    /// A node that was not told of a key looks at the ring before it fails.
    async fn a_value_of_an_unknown_key_opens_after_a_look_at_the_ring(place: Place) {
        let (one, other) = (place.open().await, place.open().await);
        accept_releases(&one, "m1", vec![to_arbo("r1", "a")]).await;
        let found = payload(&other, "r1", place.now()).await.unwrap();
        assert_eq!(found.as_deref(), Some(&b"<r>r1</r>"[..]));
        one.rotate_keys(Rotation::All).await.unwrap();
        accept_releases(&one, "m2", vec![to_arbo("r2", "b")]).await;
        assert_eq!(lease_ids(&other, 10).await, ["r1", "r2"]);
        let receipt = other.message(&party("adp"), "m2").await.unwrap().unwrap();
        assert_eq!(receipt.reference, "REF-m2");
    }

    async fn a_rotated_key_seals_what_is_new_and_opens_what_is_old(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let before = in_use(&store).await;
        let made = store.rotate_keys(Rotation::Tenant(tenant("bakkerij"))).await.unwrap();
        assert_eq!(made.len(), 1);
        assert!(store.rotate_keys(Rotation::Tenant(tenant("nobody"))).await.unwrap().is_empty());
        let after = in_use(&store).await;
        assert_eq!(before.len(), after.len());
        assert_eq!(before.iter().filter(|key| !after.contains(key)).count(), 1);
        assert_eq!(store.rotate_keys(Rotation::All).await.unwrap().len(), 2);
        assert_eq!(store.rotate_keys(Rotation::Installation).await.unwrap().len(), 1);
        accept_releases(&store, "m2", vec![to_arbo("r2", "b")]).await;
        store.close().await;
        let again = place.open().await;
        assert_eq!(lease_ids(&again, 10).await, ["r1", "r2"]);
    }

    async fn old_receipt_keys_stay_public(place: Place) {
        let store = place.open().await;
        let first = store.keys().public_keys();
        let other = place.open().await;
        assert_eq!(other.keys().public_keys(), first);
        store.rotate_keys(Rotation::Receipts).await.unwrap();
        let now = store.keys().public_keys();
        assert_eq!(now["keys"].as_array().unwrap().len(), 2);
        assert_eq!(now["keys"][0], first["keys"][0]);
        other.follow_ring().await.unwrap();
        assert_eq!(other.keys().public_keys(), now);
        let signed = |store: &Store| store.keys().sign_detached(serde_json::Map::new(), b"x");
        assert_eq!(signed(&store), signed(&other));
    }

    /// The ring is wrapped anew while a node has both masters and one only
    /// the old one.
    async fn a_new_master_takes_over_while_nodes_run(place: Place) {
        let old_only = place.open().await;
        accept_releases(&old_only, "m1", vec![to_arbo("r1", "a")]).await;
        let masters = Masters { current: master(9), previous: Some(master(MASTER)) };
        let ring = RingPlace { masters, ..place.ring(MASTER) };
        let both = Store::open(&place.url(), &ring, place.clock.clone()).await.unwrap();
        // Before it is done, new keys are for both.
        both.provide([&tenant("t")].into_iter()).await.unwrap();
        old_only.follow_ring().await.unwrap();
        assert!(old_only.keys().has_key_for(Scope::Tenant(&tenant("t"))));
        assert_eq!(place.try_open(9).await.unwrap_err(), Error::WrongKeys);

        assert_eq!(both.rewrap_keys().await.unwrap(), 5);
        for (id, store) in [("m2", &old_only), ("m3", &both)] {
            store.follow_ring().await.unwrap();
            accept_releases(store, id, vec![]).await;
        }
        assert_eq!(lease_ids(&old_only, 10).await, ["r1"]);
        assert_eq!(place.try_open(MASTER).await.unwrap_err(), Error::WrongKeys);
        let new_only = place.try_open(9).await.unwrap();
        let found = payload(&new_only, "r1", place.now()).await.unwrap();
        assert!(found.is_some());
    }

    async fn a_destroyed_tenant_is_unreadable_and_stands_in_nobody_s_way(place: Place) {
        let store = place.open().await;
        let other = place.open().await;
        let key = case_key("route", "person", "case");
        let mut one = acceptance("m1");
        one.releases = vec![to_arbo("r1", "a")];
        one.ledger = vec![known(LedgerChange::Put(case_entry(key, 0, 1)))];
        store.accept(one).await.unwrap();
        other.follow_ring().await.unwrap();
        let sealed = {
            let here = crate::seal::Place { table: "payload", row: b"1", column: "sealed" };
            other.keys().seal(Scope::Tenant(&tenant("bakkerij")), here, b"x").unwrap()
        };

        let done = store.destroy_keys(&tenant("bakkerij")).await.unwrap();
        assert_eq!((done.keys, done.removed.payloads, done.removed.entries), (1, 1, 1));
        let again = store.destroy_keys(&tenant("bakkerij")).await.unwrap();
        assert_eq!(again, Destroyed::default());
        assert!(other.follow_ring().await.unwrap());
        let here = crate::seal::Place { table: "payload", row: b"1", column: "sealed" };
        let opened = other.keys().open(here, &sealed);
        assert_eq!(opened.unwrap_err(), crate::seal::SealError::Destroyed);
        let pairs = [(hash("route"), hash("person"))];
        assert!(other.ledger(&pairs).await.unwrap().is_empty());
        assert_eq!(payload(&other, "r1", place.now()).await, Ok(None));
        assert!(lease_ids(&other, 10).await.is_empty());
        assert_eq!(other.dead_counts().await.unwrap()[0].count, 1);
        // The receipt is not the tenant's, and stays.
        assert!(other.message(&party("adp"), "m1").await.unwrap().is_some());

        // The same case again: a new key, and a new entry.
        let mut one = acceptance("m2");
        one.releases = vec![to_arbo("r2", "a")];
        one.ledger = vec![known(LedgerChange::Put(case_entry(key, 0, 1)))];
        other.accept(one).await.unwrap();
        assert_eq!(lease_ids(&store, 10).await, ["r2"]);
        assert_eq!(store.ledger(&pairs).await.unwrap().len(), 1);
        store.close().await;
        place.open().await;
    }

    /// However many releases go at once: each is a dead letter that says why,
    /// also one that a version of before gave up without a word.
    async fn what_a_destroyed_key_buries_says_why_and_is_accounted_for(place: Place) {
        const RELEASES: usize = 450;
        let store = place.open().await;
        let releases = (0..RELEASES).map(|n| to_arbo(&format!("r{n:03}"), "a"));
        accept_releases(&store, "m1", releases.collect()).await;
        let leased = store.lease(&party("arbo"), false, 1, SECONDS(60)).await.unwrap();
        let lease = &leased[0].lease;
        store.reject(&party("arbo"), "r000", lease, "schema", "").await.unwrap();

        let done = store.destroy_keys(&tenant("bakkerij")).await.unwrap();
        assert_eq!(done.removed.payloads, u64::try_from(RELEASES).unwrap());
        let codes = async || {
            let page = store.dead_letters(&DeadFilter::default(), None, 1_000).await.unwrap();
            let codes = page.letters.into_iter().map(|letter| letter.rejection.code.unwrap());
            codes.collect::<Vec<String>>()
        };
        let mut expected = vec!["schema"];
        expected.resize(RELEASES, UNREADABLE);
        assert_eq!(codes().await, expected);
        assert_eq!(unaccounted(&place, &store).await, 0);

        behind(&store, "UPDATE delivery SET rejection = NULL WHERE id = 'r007'").await;
        assert_eq!(unaccounted(&place, &store).await, 1);
        store.destroy_keys(&tenant("bakkerij")).await.unwrap();
        assert_eq!(codes().await, expected);
        assert_eq!(unaccounted(&place, &store).await, 0);
    }

    /// The database of the messages is gone, its ring is not.
    async fn a_new_store_beside_a_ring_in_use_is_refused(place: Place) {
        place.open().await.close().await;
        let lost = beside(&place).await;
        assert_eq!(lost.try_open(MASTER).await.unwrap_err(), Error::StoreLost);
        // Nothing was made there, and a schema alone makes it no store.
        assert_eq!(migrate(&lost.url(), lost.clock.clone()).await.unwrap().from, 0);
        assert_eq!(lost.try_open(MASTER).await.unwrap_err(), Error::StoreLost);

        let anew = async |number| begin_anew_at(&lost, number).await;
        assert_eq!(anew(9).await.unwrap_err(), Error::WrongKeys);
        assert_eq!(lost.try_open(MASTER).await.unwrap_err(), Error::StoreLost);
        assert!(anew(MASTER).await.unwrap());
        assert!(!anew(MASTER).await.unwrap(), "it is new once");
        let store = lost.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
        place.open().await;
    }

    /// A start that was cut short left a ring and no mark: it begins again.
    async fn a_ring_that_no_store_used_yet_is_not_in_use(place: Place) {
        let ring = Ring::open(&place.ring(MASTER), &[], place.clock.clone()).await.unwrap();
        assert!(!ring.is_in_use().await.unwrap());
        ring.close().await;
        place.open().await;
    }

    /// Copies know it, and so does a ring of before that has a tenant's key.
    async fn every_copy_of_a_ring_in_use_knows_it(place: Place) {
        let store = place.open().await;
        let file = place.folder.path().join("exported.db");
        store.export_ring(&file).await.unwrap();
        let copied: DatabaseUrl = new_database().await.parse().unwrap();
        store.copy_ring(&copied).await.unwrap();
        for ring_url in [DatabaseUrl::sqlite(file), copied] {
            let lost = TestPlace { ring_url, ..beside(&place).await };
            assert_eq!(lost.try_open(MASTER).await.unwrap_err(), Error::StoreLost);
        }
        ring_of_before(&place).await;
        let lost = beside(&place).await;
        lost.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        ring_of_before(&place).await;
        let lost = beside(&place).await;
        assert_eq!(lost.try_open(MASTER).await.unwrap_err(), Error::StoreLost);
    }

    async fn a_destroyed_key_of_before_leaves_the_one_in_use(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
        let which = Rotation::Tenant(tenant("bakkerij"));
        store.rotate_keys(which).await.unwrap();
        accept_releases(&store, "m2", vec![to_arbo("r2", "b")]).await;
        let done = destroy_replaced(&store).await;
        assert_eq!((done.keys, done.removed.payloads), (1, 1));
        assert_eq!(lease_ids(&store, 10).await, ["r2"]);
    }
}

/// What an installation wrote before there were rings still opens, and its
/// hashes stay; a wrong master is refused before a ring is made.
#[tokio::test]
async fn an_installation_of_before_goes_on() {
    let place = TestPlace::sqlite();
    place.open().await.close().await;
    let old = keys();
    fs::remove_file(place.folder.path().join("data/ring.db")).unwrap();
    let mut connection = Backend::new(&place.url(), BUSY, place.clock.clone())
        .writer()
        .await
        .unwrap();
    // In the first format, made by another implementation.
    query(
        "UPDATE key_check SET sealed = x'0101000102030405060708090a0b8825eee0e9a9\
         6e5e163cb78a1333161682b128ccfc545e62eaec2e67'",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();

    assert_eq!(place.try_open(9).await.unwrap_err(), Error::WrongKeys);
    let store = place.open().await;
    let hash = |keys: &Keys| keys.keyed_hash("case", &["1"]);
    assert_eq!(hash(store.keys()), hash(&old));
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    assert_eq!(lease_ids(&store, 10).await, ["r1"]);
}

/// Every file of the data folder, with its name.
fn files(place: &TestPlace) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(place.folder.path().join("data")).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn holders(place: &TestPlace, value: &[u8]) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(value.len()).any(|part| part == value);
    let files = files(place).into_iter();
    files
        .filter_map(|(name, bytes)| holds(&bytes).then_some(name))
        .collect()
}

/// No key lies in the open in any file, and a destroyed one not even wrapped;
/// the files of the messages hold no key at all.
#[tokio::test]
async fn the_files_hold_no_key_in_the_open() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    store.rotate_keys(Rotation::All).await.unwrap();
    accept_releases(&store, "m2", vec![to_arbo("r2", "b")]).await;
    let records = store.ring().records().await.unwrap();
    assert_eq!(records.len(), 6);
    let masters = place.ring(MASTER).masters;
    for record in &records {
        let key = masters.reveal(record).unwrap();
        assert!(holders(&place, &key).is_empty(), "{record:?}");
        let wrapped = record.wrapped.as_deref().unwrap();
        let holders = holders(&place, wrapped);
        assert!(!holders.is_empty(), "the search finds nothing");
        assert!(
            holders.iter().all(|name| name.starts_with("ring.db")),
            "{holders:?}"
        );
    }
    store.destroy_keys(&tenant("bakkerij")).await.unwrap();
    let theirs = records.iter().filter(|record| record.tenant.is_some());
    for record in theirs {
        let wrapped = record.wrapped.as_deref().unwrap();
        assert!(holders(&place, wrapped).is_empty(), "{record:?}");
    }
}

/// A ring of before the last key was made is known for what it is.
#[tokio::test]
async fn an_older_copy_of_the_ring_is_refused() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    let older = place.folder.path().join("older.db");
    store.export_ring(&older).await.unwrap();
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    store.close().await;
    let ring = place.folder.path().join("data/ring.db");
    let newer = place.folder.path().join("newer.db");
    fs::rename(&ring, &newer).unwrap();
    fs::copy(&older, &ring).unwrap();
    assert_eq!(place.try_open(MASTER).await.unwrap_err(), Error::WrongKeys);
    fs::rename(&newer, &ring).unwrap();
    let store = place.open().await;
    assert_eq!(lease_ids(&store, 10).await, ["r1"]);
}

/// A release whose key the ring does not hold waits for the right ring; one
/// that was changed is given up.
/// The ring of one machine becomes one that nodes share.
#[tokio::test]
async fn a_copied_ring_opens_what_the_first_one_sealed() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    store.rotate_keys(Rotation::All).await.unwrap();
    accept_releases(&store, "m2", vec![to_arbo("r2", "b")]).await;
    let to: DatabaseUrl = new_database().await.parse().unwrap();
    let keys = store.copy_ring(&to).await.unwrap();
    assert_eq!(keys, store.ring_keys().await.unwrap().len());
    assert_eq!(store.copy_ring(&to).await.unwrap(), keys, "the same again");
    store.close().await;

    let shared = TestPlace {
        ring_url: to.clone(),
        ..place
    };
    let store = shared.open().await;
    assert_eq!(lease_ids(&store, 10).await, ["r1", "r2"]);
    // Another ring does not take its place, nor does it take another's.
    store.rotate_keys(Rotation::All).await.unwrap();
    let other = TestPlace::sqlite().open().await;
    let refused = other.copy_ring(&to).await;
    assert!(
        matches!(refused, Err(RingCopyError::Occupied)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_release_of_an_unknown_key_waits_and_is_not_given_up() {
    let place = TestPlace::sqlite();
    let store = place.open().await;
    accept_releases(&store, "m1", vec![to_arbo("r1", "a")]).await;
    accept_releases(&store, "m2", vec![to_arbo("r2", "b")]).await;
    let mut connection = Backend::new(&place.url(), BUSY, place.clock.clone())
        .writer()
        .await
        .unwrap();
    let exchange = "UPDATE payload SET sealed = x'0200000063' || SUBSTR(sealed, 6)
        WHERE delivery_id = 'r1'";
    query(exchange).execute(&mut connection).await.unwrap();
    assert_eq!(lease_ids(&store, 10).await, ["r2"]);
    let waiting = store.waiting(place.now(), Duration::ZERO).await.unwrap();
    assert_eq!(waiting.iter().map(|one| one.leased).sum::<u64>(), 2);
    assert!(store.dead_counts().await.unwrap().is_empty());
}

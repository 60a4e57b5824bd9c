//! Values are sealed anew while everything goes on, and nothing is lost.

use std::collections::BTreeSet;

use super::watching::{one_of_each, unaccounted};
use super::*;
use crate::seal::{Place as SealedAt, Purpose, Scope, header_of};
use crate::store::reseal::{Exchange, ExchangeAll, RowId};
use crate::store::sealed::{LEDGER, PAYLOADS};

/// Columns of bytes that hold keyed hashes, and the marks.
const NOT_RESEALED: [&str; 13] = [
    "api_key.hash",
    "delivery.berrefnr",
    "delivery.cases",
    "key_check.sealed",
    "ledger.case_hash",
    "ledger.entry",
    "ledger.person",
    "ledger.route",
    "message.berrefnr",
    "message.body",
    "parked_person.person",
    "remembered.case_hash",
    "remembered.route",
];

fn bakkerij() -> TenantId {
    TenantId::parse("bakkerij").unwrap()
}

/// Every column of bytes but the marks, as table and column.
async fn columns_of_bytes(store: &Store) -> Vec<(String, String)> {
    let mut connection = store.reader().await.unwrap();
    let mut found = Vec::new();
    for row in connection.columns().await.unwrap() {
        let kind = row.get::<&str>("kind").unwrap().to_ascii_uppercase();
        if ["BLOB", "BYTEA"].contains(&kind.as_str()) {
            found.push((row.get("tab").unwrap(), row.get("col").unwrap()));
        }
    }
    found
}

/// How many values these keys sealed, anywhere but the marks.
async fn sealed_with(store: &Store, keys: &[u32]) -> i64 {
    let mut total = 0;
    for (table, column) in columns_of_bytes(store).await {
        if table == "key_check" {
            continue;
        }
        let text =
            format!("SELECT COUNT(*) AS total FROM {table} WHERE SUBSTR({column}, 1, 5) = $1");
        for key in keys {
            let count = query(text.clone().leak()).bind(header_of(*key).to_vec());
            let row = count
                .fetch_one(&mut store.reader().await.unwrap())
                .await
                .unwrap();
            total += row.get::<i64>("total").unwrap();
        }
    }
    total
}

/// The keys that were replaced.
async fn replaced(store: &Store) -> Vec<u32> {
    let keys = store.ring_keys().await.unwrap().into_iter();
    keys.filter(|key| key.replaced_at.is_some())
        .map(|key| key.number)
        .collect()
}

/// Destroys the keys of the tenant that were replaced, once they are old enough.
async fn retire(place: &TestPlace, store: &Store) -> Destroyed {
    place.clock.advance(SECONDS(15 * 60));
    let replaced = store.replaced_keys(&bakkerij()).await.unwrap();
    store.retire_keys(&replaced).await.unwrap()
}

async fn put_case(store: &Store, id: &str, version: i64, number: u32) {
    let key = case_key("route", "person", "case");
    let mut one = acceptance(id);
    one.ledger = vec![known(LedgerChange::Put(case_entry(key, version, number)))];
    store.accept(one).await.unwrap();
}

on_both! {
    async fn every_column_of_bytes_is_sealed_anew_or_known_to_hold_no_sealed_value(place: Place) {
        let store = place.open().await;
        let there = columns_of_bytes(&store).await.into_iter();
        let there: BTreeSet<String> = there.map(|(table, column)| format!("{table}.{column}")).collect();
        let mut listed: BTreeSet<String> = NOT_RESEALED.map(str::to_owned).into();
        for (column, _) in Resealed::default().columns() {
            assert!(listed.insert(format!("{}.{}", column.table, column.column)));
        }
        assert_eq!(there, listed);
    }

    async fn what_replaced_keys_sealed_is_sealed_anew(place: Place) {
        let store = one_of_each(&place).await;
        put_case(&store, "m6", 0, 1).await;
        store.rotate_keys(Rotation::All).await.unwrap();
        let old = replaced(&store).await;
        assert_eq!(old.len(), 2);
        assert_eq!(store.reseal(&Rotation::Receipts).await.unwrap(), Resealed::default());
        let theirs = store.reseal(&Rotation::Tenant(bakkerij())).await.unwrap();
        let expected = Resealed { payloads: 4, entries: 1, ..Resealed::default() };
        assert_eq!(Resealed { parked: 0, ..theirs }, expected);
        let all = store.reseal(&Rotation::All).await.unwrap();
        let rest = Resealed { receipts: 6, rejections: 1, ..Resealed::default() };
        assert_eq!(Resealed { parked: 0, ..all }, rest);
        assert_eq!(theirs.parked + all.parked, 1);
        assert_eq!(store.reseal(&Rotation::All).await.unwrap(), Resealed::default());
        assert_eq!(sealed_with(&store, &old).await, 0);

        // Without the old key everything opens.
        let gone = retire(&place, &store).await;
        assert_eq!((gone.keys, gone.removed), (1, Removed::default()));
        store.close().await;
        let store = place.open().await;
        // The lease of m3 ran out meanwhile.
        assert_eq!(lease_ids(&store, 10).await, ["m3", "m4"]);
        assert!(store.message(&party("adp"), "m1").await.unwrap().is_some());
        let letters = store.dead_letters(&DeadFilter::default(), None, 10).await.unwrap();
        assert_eq!(letters.letters[0].rejection.code.as_deref(), Some("c"));
        let pairs = [(hash("route"), hash("person"))];
        assert_eq!(store.ledger(&pairs).await.unwrap().len(), 1);
        assert_eq!(unaccounted(&place, &store).await, 0);
    }

    /// As versions did before tenants had keys of their own.
    async fn what_the_installation_sealed_of_a_tenant_becomes_the_tenants(place: Place) {
        let store = place.open().await;
        accept_releases(&store, "m1", vec![to_arbo("r1", "")]).await;
        let keys = store.ring_keys().await.unwrap().into_iter();
        let mut general = keys.filter(|key| key.tenant.is_none() && key.purpose == Purpose::Data);
        let general = general.next().unwrap().number;
        let read = query("SELECT sealed FROM payload");
        let row = read.fetch_one(&mut store.reader().await.unwrap()).await.unwrap();
        let old: Vec<u8> = row.get("sealed").unwrap();
        let at = SealedAt { table: "payload", row: b"r1", column: "sealed" };
        let plain = store.keys().open(at, &old).unwrap();
        let new = store.keys().seal_with(general, at, &plain).unwrap();
        let exchange = Exchange { id: RowId::Text("r1".to_owned()), old, new };
        let before = ExchangeAll { column: &PAYLOADS, exchanges: vec![exchange] };
        assert_eq!(store.writer().write(before).await, Ok(1));

        let none = store.reseal(&Rotation::Installation).await.unwrap();
        assert_eq!(none, Resealed::default());
        let theirs = store.reseal(&Rotation::Tenant(bakkerij())).await.unwrap();
        assert_eq!(theirs, Resealed { payloads: 1, ..Resealed::default() });
        let gone = retire(&place, &store).await;
        assert_eq!(gone, Destroyed::default());
        assert_eq!(lease_ids(&store, 10).await, ["r1"]);
    }

    async fn a_row_that_changed_in_between_is_not_overwritten(place: Place) {
        let store = place.open().await;
        put_case(&store, "m1", 0, 1).await;
        let read = query("SELECT entry, sealed FROM ledger");
        let row = read.fetch_one(&mut store.reader().await.unwrap()).await.unwrap();
        let (entry, old): (Vec<u8>, Vec<u8>) = (row.get("entry").unwrap(), row.get("sealed").unwrap());
        store.rotate_keys(Rotation::All).await.unwrap();
        let at = SealedAt { table: "ledger", row: &entry, column: "sealed" };
        let plain = store.keys().open(at, &old).unwrap();
        let new = store.keys().seal(Scope::Tenant(&bakkerij()), at, &plain).unwrap();
        let exchange = || ExchangeAll {
            column: &LEDGER,
            exchanges: vec![Exchange {
                id: RowId::Bytes(entry.clone()),
                old: old.clone(),
                new: new.clone(),
            }],
        };
        put_case(&store, "m2", 1, 2).await;
        assert_eq!(store.writer().write(exchange()).await, Ok(0));
        let pairs = [(hash("route"), hash("person"))];
        let known = store.ledger(&pairs).await.unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].version, known[0].state.last_number), (2, 2));
    }

    /// Another node seals with the old key, hands out and accepts meanwhile;
    /// the run is cut short and begun again.
    async fn everything_goes_on_while_values_are_sealed_anew(place: Place) {
        const RELEASES: usize = 450;
        let (store, other) = (place.open().await, place.open().await);
        let ids: Vec<String> = (0..RELEASES).map(|n| format!("r{n:03}")).collect();
        let releases = ids.iter().map(|id| to_arbo(id, ""));
        accept_releases(&store, "m1", releases.collect()).await;
        store.rotate_keys(Rotation::All).await.unwrap();
        let old = replaced(&store).await;
        let receiving = tokio::spawn(async move {
            let mut taken = Vec::new();
            for n in 0..30 {
                let id = format!("s{n:02}");
                accept_releases(&other, &id, vec![to_arbo(&id, "")]).await;
                let leased = lease_ids(&other, 16).await;
                let acked: Vec<&str> = leased.iter().map(String::as_str).collect();
                ack_ids(&other, &acked).await;
                taken.extend(leased);
            }
            (other, taken)
        });
        let before = sealed_with(&store, &old).await;
        let begun = async {
            while sealed_with(&store, &old).await >= before {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = store.reseal(&Rotation::All) => drop(done.unwrap()),
            () = begun => {}
        }
        let (other, mut taken) = receiving.await.unwrap();
        other.follow_ring().await.unwrap();
        let sealed = store.reseal(&Rotation::All).await.unwrap();
        assert_eq!(sealed.unopened, 0);
        assert_eq!(sealed_with(&store, &old).await, 0);
        let gone = retire(&place, &store).await;
        assert_eq!((gone.keys, gone.removed), (1, Removed::default()));
        other.follow_ring().await.unwrap();
        taken.extend(lease_ids(&other, 1_000).await);
        let mut expected = ids;
        expected.extend((0..30).map(|n| format!("s{n:02}")));
        taken.sort();
        assert_eq!(taken, expected);
    }
}

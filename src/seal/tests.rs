//! What a seal promises, and what the key file refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;
use crate::domain::TenantId;

fn keys() -> Keys {
    Keys::from_secret([7; SECRET_LEN])
}

fn seal(keys: &Keys, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
    keys.seal(Scope::Installation, place, plain).unwrap()
}

/// The look-up hash that an installation with this secret began with.
fn hash_of(master: Master) -> KeyedHash {
    let records = Seed::derived(&master).wrap(&master);
    let keys = Keys::open_ring(&master.into(), &records).unwrap();
    keys.keyed_hash("case", &["1"])
}

fn place<'a>(table: &'static str, row: &'a [u8], column: &'static str) -> Place<'a> {
    Place { table, row, column }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_at_its_place(plain in any::<Vec<u8>>(), row in any::<Vec<u8>>()) {
        let here = place("payload", &row, "xml");
        let sealed = seal(&keys(), here, &plain);
        prop_assert_eq!(sealed.len(), plain.len() + 33);
        prop_assert_eq!(&*keys().open(here, &sealed).unwrap(), &plain);
    }

    #[test]
    fn what_is_sealed_opens_nowhere_else(
        plain in any::<Vec<u8>>(), row in any::<Vec<u8>>(), other in any::<Vec<u8>>(),
    ) {
        prop_assume!(row != other);
        let sealed = seal(&keys(), place("payload", &row, "xml"), &plain);
        for elsewhere in [
            place("payload", &other, "xml"),
            place("payload", &row, "reference"),
            place("parked", &row, "xml"),
        ] {
            prop_assert_eq!(keys().open(elsewhere, &sealed), Err(SealError::Refused));
        }
        let stranger = Keys::from_secret([8; SECRET_LEN]);
        prop_assert_eq!(
            stranger.open(place("payload", &row, "xml"), &sealed),
            Err(SealError::Refused)
        );
    }

    #[test]
    fn one_flipped_bit_is_always_refused(
        plain in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let here = place("payload", b"1", "xml");
        let mut sealed = seal(&keys(), here, &plain);
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(keys().open(here, &sealed).is_err());
    }

    #[test]
    fn a_cut_value_is_refused(plain in any::<Vec<u8>>(), keep in any::<prop::sample::Index>()) {
        let here = place("payload", b"1", "xml");
        let sealed = seal(&keys(), here, &plain);
        let keep = keep.index(sealed.len());
        prop_assert!(keys().open(here, &sealed[..keep]).is_err());
    }

    #[test]
    fn lists_with_other_borders_hash_differently(text in "[a-c]{2,8}", one in 1_usize..7, two in 1_usize..7) {
        let (one, two) = (one % text.len(), two % text.len());
        prop_assume!(one != two);
        let (a, b) = text.split_at(one);
        let (c, d) = text.split_at(two);
        prop_assert_ne!(keys().keyed_hash("case", &[a, b]), keys().keyed_hash("case", &[c, d]));
    }
}

#[test]
fn a_hash_depends_on_purpose_and_secret_only() {
    let hash = keys().keyed_hash("case", &["1"]);
    assert_eq!(hash, keys().keyed_hash("case", &["1"]));
    assert_eq!(hash, keys().keyed_hash_bytes("case", b"1"));
    assert_eq!(hash, keys().keyed_hash_parts("case", &[b"1"]));
    assert_ne!(hash, keys().keyed_hash("person", &["1"]));
    assert_ne!(hash, Keys::ephemeral().keyed_hash("case", &["1"]));
}

/// A stored hash has to mean the same after an upgrade: this value, computed
/// by hand with another implementation of HKDF and HMAC, may never
/// change.
#[test]
fn hashes_stay_the_same_for_ever() {
    let hash = keys().keyed_hash("case", &["105", "6431"]);
    let hex = "7af3a2ea0ad10555b81f020f81cc883e6c7a55bfdea1835fe55da322d2ab8980";
    for (byte, digits) in hash.as_bytes().iter().zip(hex.as_bytes().chunks(2)) {
        assert_eq!(format!("{byte:02x}").as_bytes(), digits);
    }
}

#[test]
fn equal_values_seal_differently() {
    let here = place("payload", b"1", "xml");
    assert_ne!(seal(&keys(), here, b"x"), seal(&keys(), here, b"x"));
}

#[test]
fn another_format_or_key_is_named() {
    let here = place("payload", b"1", "xml");
    let mut sealed = seal(&keys(), here, b"x");
    sealed[4] = 9;
    assert_eq!(
        keys().open(here, &sealed),
        Err(SealError::KeyUnknown { number: 9 })
    );
    assert_eq!(
        keys().open(here, &[1, 9, 0]),
        Err(SealError::KeyUnknown { number: 9 })
    );
    sealed[0] = 9;
    assert_eq!(keys().open(here, &sealed), Err(SealError::Format));
    assert_eq!(keys().open(here, b""), Err(SealError::Format));
}

#[test]
fn keys_never_show_themselves() {
    assert_eq!(format!("{:?}", keys()), "Keys(hidden)");
    let master = Master::from_secret([7; SECRET_LEN]);
    assert_eq!(format!("{master:?}"), "Master(hidden)");
    let seed = Seed::random();
    assert_eq!(format!("{seed:?}"), "Seed(hidden)");
    let record = &seed.wrap(&master)[0];
    assert_eq!(format!("{record:?}"), "KeyRecord(1 data)");
}

/// Made by another implementation of HKDF, HMAC and AES-GCM, in the layout
/// that was written before there were rings.
#[test]
fn what_was_sealed_before_there_were_rings_opens() {
    let hex = "0101000102030405060708090a0bb9e302994ac92c16074b90e34ee2c306\
               47f1afb6e2bcf3de44dec38fda8531b5";
    let old: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect();
    let opened = keys().open(place("payload", b"1", "sealed"), &old).unwrap();
    assert_eq!(opened.as_slice(), b"<r>yesterday</r>");
}

fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

/// A ring of a random seed, with one key of each of two tenants.
fn ring(master: &Master) -> Vec<KeyRecord> {
    let mut records = Seed::random().wrap(master);
    for (number, name) in [(4, "a"), (5, "b")] {
        let tenant = tenant(name);
        records.push(KeyRecord {
            number,
            purpose: Purpose::Data,
            wrapped: Some(new_key(master, number, Purpose::Data, Some(&tenant))),
            tenant: Some(tenant),
            current: true,
        });
    }
    records
}

#[test]
fn a_destroyed_key_takes_its_values_with_it_and_no_others() {
    let master = Master::from_secret([1; SECRET_LEN]);
    let masters = Masters::from(master.clone());
    let mut records = ring(&master);
    let keys = Keys::open_ring(&masters, &records).unwrap();
    let here = place("payload", b"1", "sealed");
    let (a, b) = (tenant("a"), tenant("b"));
    let of_a = keys.seal(Scope::Tenant(&a), here, b"x").unwrap();
    let of_b = keys.seal(Scope::Tenant(&b), here, b"x").unwrap();
    assert_eq!(of_a[..5], header_of(4));
    records[3].wrapped = None;
    records[3].current = false;
    let clone = keys.clone();
    keys.follow(&masters, &records);
    for keys in [keys, clone, Keys::open_ring(&masters, &records).unwrap()] {
        assert_eq!(keys.open(here, &of_a), Err(SealError::Destroyed));
        assert_eq!(keys.open(here, &of_b).unwrap().as_slice(), b"x");
        assert_eq!(keys.seal(Scope::Tenant(&a), here, b"x"), Err(NoKey));
        assert!(!keys.has_key_for(Scope::Tenant(&a)) && keys.has_key_for(Scope::Tenant(&b)));
        assert_eq!(keys.destroyed(), [4]);
    }
}

/// Somebody who can write the ring gives one tenant the key of another, or a
/// destroyed key its wrap of before under another number.
#[test]
fn a_wrapped_key_opens_in_its_own_row_only() {
    let master = Master::from_secret([1; SECRET_LEN]);
    let masters = Masters::from(master.clone());
    let records = ring(&master);
    let moved = |change: &dyn Fn(&mut KeyRecord)| {
        let mut records = records.clone();
        change(&mut records[3]);
        Keys::open_ring(&masters, &records).map(drop)
    };
    assert_eq!(moved(&|_| {}), Ok(()));
    let wrong = Err(RingError::WrongMaster);
    assert_eq!(moved(&|record| record.tenant = Some(tenant("c"))), wrong);
    assert_eq!(moved(&|record| record.tenant = None), wrong);
    assert_eq!(moved(&|record| record.number = 9), wrong);
    assert_eq!(moved(&|record| record.purpose = Purpose::Receipts), wrong);
    assert_eq!(moved(&|record| record.wrapped = Some(vec![1; 60])), wrong);
    assert_eq!(moved(&|record| record.wrapped = Some(Vec::new())), wrong);
}

#[test]
fn a_new_master_wraps_the_same_keys() {
    let (old, new) = (
        Master::from_secret([1; SECRET_LEN]),
        Master::from_secret([2; SECRET_LEN]),
    );
    let mut records = ring(&old);
    let keys = Keys::open_ring(&old.clone().into(), &records).unwrap();
    let here = place("message", b"1", "details");
    let sealed = seal(&keys, here, b"x");
    let only_new = Masters::from(new.clone());
    assert_eq!(only_new.rewrap(&records), Err(WrongMaster));
    let both = Masters {
        current: new.clone(),
        previous: Some(old.clone()),
    };
    // Until it is done, new keys are wrapped as the others are.
    let wraps = |masters: &Masters, records: &[KeyRecord]| {
        masters.of_ring(records).map(|master| master.derive(b"x"))
    };
    assert_eq!(wraps(&both, &records), Some(old.derive(b"x")));
    for (number, wrapped) in both.rewrap(&records).unwrap() {
        let record = records.iter_mut().find(|record| record.number == number);
        record.unwrap().wrapped = Some(wrapped);
    }
    assert_eq!(wraps(&both, &records), Some(new.derive(b"x")));
    for masters in [both, only_new] {
        let again = Keys::open_ring(&masters, &records).unwrap();
        assert_eq!(again.open(here, &sealed).unwrap().as_slice(), b"x");
        assert_eq!(
            again.keyed_hash("case", &["1"]),
            keys.keyed_hash("case", &["1"])
        );
    }
    let old = Masters::from(old);
    assert_eq!(
        Keys::open_ring(&old, &records).unwrap_err(),
        RingError::WrongMaster
    );
    // A daemon that has only the old master keeps what it has open.
    keys.follow(&old, &records);
    assert_eq!(keys.open(here, &sealed).unwrap().as_slice(), b"x");
}

/// Checked by another road than the one that signs.
#[test]
fn a_detached_signature_holds_for_these_bytes_only() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    let keys = Keys::ephemeral();
    let claims = || Map::from_iter([("id".to_owned(), json!("m1"))]);
    let jws = keys.sign_detached(claims(), b"body").unwrap();
    assert_eq!(jws, keys.sign_detached(claims(), b"body").unwrap());
    let [header, "", signature] = jws.split('.').collect::<Vec<_>>()[..] else {
        panic!("not detached");
    };
    let jwk = &keys.public_keys()["keys"][0];
    let x = BASE64_URL_SAFE_NO_PAD
        .decode(jwk["x"].as_str().unwrap())
        .unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let holds = |body: &str| {
        let input = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(body));
        UnparsedPublicKey::new(&ED25519, &x)
            .verify(input.as_bytes(), &signature)
            .is_ok()
    };
    assert!(holds("body") && !holds("bodY"));
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(
        header,
        json!({"alg": "EdDSA", "kid": jwk["kid"], "id": "m1"})
    );
}

#[test]
fn a_new_file_is_private_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/secret.key");
    let first = Master::open_or_create(&path).unwrap();
    let again = Master::open_or_create(&path).unwrap();
    assert_eq!(hash_of(first), hash_of(again));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn processes_that_start_at_once_agree_on_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || hash_of(Master::open_or_create(&path).unwrap()))
        })
        .collect();
    let hashes: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn hexadecimal_and_base64_are_the_same_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut hashes = Vec::new();
    for text in [
        "07".repeat(32),
        "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n".into(),
    ] {
        let path = folder.path().join("secret.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        hashes.push(hash_of(Master::open_or_create(&path).unwrap()));
    }
    assert_eq!(hashes, [keys().keyed_hash("case", &["1"]); 2]);
}

#[test]
fn an_exposed_or_broken_file_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    fs::write(&path, "07".repeat(32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Master::open_or_create(&path),
        Err(KeyError::Exposed { mode: 0o640 })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for broken in ["", "07", "no secret at all", "é"] {
        fs::write(&path, broken).unwrap();
        assert!(matches!(
            Master::open_or_create(&path),
            Err(KeyError::Malformed)
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    }
}

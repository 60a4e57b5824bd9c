//! What a seal promises, and what the key file refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn keys() -> Keys {
    Keys::from_secret([7; SECRET_LEN])
}

fn place<'a>(table: &'static str, row: &'a [u8], column: &'static str) -> Place<'a> {
    Place { table, row, column }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_at_its_place(plain in any::<Vec<u8>>(), row in any::<Vec<u8>>()) {
        let here = place("payload", &row, "xml");
        let sealed = keys().seal(here, &plain);
        prop_assert_eq!(sealed.len(), plain.len() + 30);
        prop_assert_eq!(&*keys().open(here, &sealed).unwrap(), &plain);
    }

    #[test]
    fn what_is_sealed_opens_nowhere_else(
        plain in any::<Vec<u8>>(), row in any::<Vec<u8>>(), other in any::<Vec<u8>>(),
    ) {
        prop_assume!(row != other);
        let sealed = keys().seal(place("payload", &row, "xml"), &plain);
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
        let mut sealed = keys().seal(here, &plain);
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(keys().open(here, &sealed).is_err());
    }

    #[test]
    fn a_cut_value_is_refused(plain in any::<Vec<u8>>(), keep in any::<prop::sample::Index>()) {
        let here = place("payload", b"1", "xml");
        let sealed = keys().seal(here, &plain);
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
    assert_ne!(keys().seal(here, b"x"), keys().seal(here, b"x"));
}

#[test]
fn another_format_or_key_is_named() {
    let here = place("payload", b"1", "xml");
    let mut sealed = keys().seal(here, b"x");
    sealed[1] = 9;
    assert_eq!(
        keys().open(here, &sealed),
        Err(SealError::KeyUnknown { number: 9 })
    );
    sealed[0] = 9;
    assert_eq!(keys().open(here, &sealed), Err(SealError::Format));
    assert_eq!(keys().open(here, b""), Err(SealError::Format));
}

#[test]
fn keys_never_show_themselves() {
    assert_eq!(format!("{:?}", keys()), "Keys(hidden)");
}

#[test]
fn a_new_file_is_private_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/secret.key");
    let first = Keys::open_or_create(&path).unwrap();
    let again = Keys::open_or_create(&path).unwrap();
    assert_eq!(
        first.keyed_hash("case", &["1"]),
        again.keyed_hash("case", &["1"])
    );
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
            std::thread::spawn(move || {
                let keys = Keys::open_or_create(&path).unwrap();
                keys.keyed_hash("case", &["1"])
            })
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
        let keys = Keys::open_or_create(&path).unwrap();
        hashes.push(keys.keyed_hash("case", &["1"]));
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
        Keys::open_or_create(&path),
        Err(KeyError::Exposed { mode: 0o640 })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for broken in ["", "07", "no secret at all", "é"] {
        fs::write(&path, broken).unwrap();
        assert!(matches!(
            Keys::open_or_create(&path),
            Err(KeyError::Malformed)
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    }
}

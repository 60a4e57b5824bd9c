//! Signatures of Standard Webhooks 1.0 (section "Webhook scheme"): over
//! `id.timestamp.body`, one per key, in one header.
//!
//! `v1` is HMAC-SHA-256 with a shared secret (`whsec_`), `v1a` is Ed25519 with
//! a private key (`whsk_`), whose public half the receiver has. Pure: knows
//! neither files nor HTTP.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// Bytes of a shared secret, as the specification bounds them.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of a private Ed25519 key (RFC 8032 section 5.1.5).
pub(super) const SEED_LEN: usize = 32;

/// A key that signs what is pushed.
pub(super) enum Key {
    /// Both sides have it. Boxed, as it is the larger by far.
    Shared(Box<hmac::Key>),
    /// The receiver has the public half.
    Private(Ed25519KeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// Reads a key from its text: `whsec_` or `whsk_` and base64. A private
    /// key is its 32 bytes, or those followed by its public half.
    ///
    /// # Errors
    ///
    /// [`KeyFault`], which never repeats the text.
    pub(super) fn read(text: &str) -> Result<Self, KeyFault> {
        let bytes = |base64: &str| {
            let decoded = BASE64_STANDARD.decode(base64.trim());
            decoded.map(Zeroizing::new).map_err(|_| KeyFault::Base64)
        };
        if let Some(base64) = text.strip_prefix("whsec_") {
            let secret = bytes(base64)?;
            if !SECRET_LEN.contains(&secret.len()) {
                return Err(KeyFault::Length);
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            return Ok(Self::Shared(Box::new(key)));
        }
        let base64 = text.strip_prefix("whsk_").ok_or(KeyFault::Prefix)?;
        let pair = bytes(base64)?;
        let (seed, public) = pair.split_at_checked(SEED_LEN).ok_or(KeyFault::Length)?;
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyFault::Length)?;
        if !public.is_empty() && key.public_key().as_ref() != public {
            return Err(KeyFault::PublicHalf);
        }
        Ok(Self::Private(key))
    }

    /// What the receiver of a private key has: `whpk_` and base64. A shared
    /// secret has none.
    pub(super) fn public_half(&self) -> Option<String> {
        match self {
            Self::Shared(_) => None,
            Self::Private(key) => {
                let base64 = BASE64_STANDARD.encode(key.public_key().as_ref());
                Some(format!("whpk_{base64}"))
            }
        }
    }

    fn sign(&self, signed: &[u8]) -> String {
        match self {
            Self::Shared(key) => {
                format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, signed)))
            }
            Self::Private(key) => format!("v1a,{}", BASE64_STANDARD.encode(key.sign(signed))),
        }
    }
}

/// The value of `webhook-signature`: one signature per key, separated by a
/// space. `unix_seconds` is the value of `webhook-timestamp`.
pub(super) fn signatures(keys: &[Key], id: &str, unix_seconds: i64, body: &[u8]) -> String {
    let mut signed = Zeroizing::new(format!("{id}.{unix_seconds}.").into_bytes());
    signed.extend_from_slice(body);
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&signed)).collect();
    signatures.join(" ")
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// It starts with neither `whsec_` nor `whsk_`.
    Prefix,
    /// What follows the prefix is not base64.
    Base64,
    /// A secret of less than 24 or more than 64 bytes, or a private key of
    /// another length than 32 or 64.
    Length,
    /// The public half belongs to another private key.
    PublicHalf,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "must start with whsec_ or whsk_",
            Self::Base64 => "holds no base64 after its prefix",
            Self::Length => "holds the wrong number of bytes: whsec_ 24 to 64, whsk_ 32 or 64",
            Self::PublicHalf => "holds a public half that belongs to another private key",
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    // Made with Python's hmac and with the `cryptography` package. The private
    // key is test 1 of RFC 8032 section 7.1.
    const SECRET: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    const PRIVATE: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const PAIR: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
    const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const ID: &str = "0190d6f2a1b27c3d8e4f5a6b7c8d9e0f";
    const AT: i64 = 1_795_338_000;
    const BODY: &str = "<r>één</r>";
    const V1: &str = "v1,l8jat/1chczNn/BpxJLdGDVZnhqPP0+7+rg5wro12TM=";
    const V1A: &str = "v1a,+FJIwbiQlw5HFq0cP9N8wdwpZs7NkbBmed1QcUTtPiT1tIGleukLJs8gk8X48Ikr+KDitjMAwQPDbWCRha/MCA==";

    fn signed_with(keys: &[&str]) -> String {
        let keys: Vec<Key> = keys.iter().map(|key| Key::read(key).unwrap()).collect();
        signatures(&keys, ID, AT, BODY.as_bytes())
    }

    #[test]
    fn signatures_are_those_of_other_implementations() {
        assert_eq!(signed_with(&[SECRET]), V1);
        assert_eq!(signed_with(&[PRIVATE]), V1A);
        assert_eq!(signed_with(&[PAIR]), V1A);
        // The example of the specification itself.
        let key = Key::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = b"{\"test\": 2432232314}";
        assert_eq!(
            signatures(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn during_a_rotation_both_keys_sign() {
        assert_eq!(signed_with(&[PRIVATE, SECRET]), format!("{V1A} {V1}"));
    }

    #[test]
    fn the_public_key_verifies_and_one_changed_byte_does_not() {
        let public = BASE64_STANDARD.decode(PUBLIC).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, public);
        let header = signed_with(&[PRIVATE]);
        let signature = BASE64_STANDARD.decode(header.strip_prefix("v1a,").unwrap());
        let signature = signature.unwrap();
        let mut signed = format!("{ID}.{AT}.{BODY}").into_bytes();
        assert!(public.verify(&signed, &signature).is_ok());
        for at in [0, ID.len() + 1, signed.len() - 1] {
            signed[at] ^= 1;
            assert!(public.verify(&signed, &signature).is_err());
            signed[at] ^= 1;
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
        let other = PAIR.replace("DXWpgB", "DXWpgC");
        for (text, fault) in [
            ("hush", KeyFault::Prefix),
            ("", KeyFault::Prefix),
            ("whpk_AAAA", KeyFault::Prefix),
            ("whsec_hush!", KeyFault::Base64),
            (short.as_str(), KeyFault::Length),
            ("whsk_AAAA", KeyFault::Length),
            (other.as_str(), KeyFault::PublicHalf),
        ] {
            let found = Key::read(text).unwrap_err();
            assert_eq!(found, fault, "{text}");
            assert!(!found.to_string().contains("hush"));
        }
        assert_eq!(format!("{:?}", Key::read(SECRET).unwrap()), "Key(redacted)");
    }
}

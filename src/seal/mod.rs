//! Keys: what is written to disk is sealed, what is looked up is a keyed hash.
//!
//! A sealed value is bound to the place where it was written: moved to another
//! row, column or table it does not open, and neither does one with a single
//! changed bit. Equal values seal to different bytes.
//!
//! Values are sealed with *data keys*: one or more of the installation, and
//! one or more of each tenant, so that those of a tenant can be destroyed.
//! Data keys live in a *ring*, apart from the values, wrapped by a *master
//! key*: 32 bytes in a file that only its owner can read. Each place gets a
//! key of its own (HMAC of the place), so a random nonce is used a handful of
//! times per key, not billions of times.
//!
//! This module does not know what it seals, nor where values and ring are
//! kept. Losing master key or ring means losing every sealed value.

mod file;
mod master;
mod ring;
mod signing;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

pub use master::{Master, Masters, WrongMaster};
pub use ring::{KeyRecord, Purpose, RingError, Scope, Seed, UnknownPurpose, new_key};

use crate::domain::KeyedHash;
use ring::{DataKey, Opened};

/// Length of a key in bytes.
pub const SECRET_LEN: usize = 32;

/// A key in the open, overwritten when it is dropped.
type Secret = Zeroizing<[u8; SECRET_LEN]>;

/// First byte of a value that was sealed before there were rings; it is
/// followed by the byte 1, the only key there was.
const FORMAT_1: u8 = 1;
/// First byte of a sealed value; it is followed by the number of the key.
const FORMAT_2: u8 = 2;
/// Format, key number and nonce.
const HEADER_LEN: usize = 1 + NUMBER_LEN + NONCE_LEN;
/// Length of a key number, high byte first.
const NUMBER_LEN: usize = 4;
/// Length of the tag that ends a sealed value.
const TAG_LEN: usize = 16;

/// Where a sealed value is kept. It opens nowhere else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of the table.
    pub table: &'static str,
    /// Primary key of the row.
    pub row: &'a [u8],
    /// Name of the column.
    pub column: &'static str,
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The row may be a keyed hash, which is not for logs.
        write!(f, "{}.{}", self.table, self.column)
    }
}

/// The keys of an installation, opened. Cheap to clone; all clones follow the
/// ring together.
#[derive(Clone)]
pub struct Keys {
    lookup: hmac::Key,
    /// Read for every value, replaced when the ring changes.
    ring: Arc<RwLock<Arc<Opened>>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl Keys {
    /// Opens a ring.
    ///
    /// # Errors
    ///
    /// [`RingError`]: one key that does not open is enough.
    pub fn open_ring(masters: &Masters, records: &[KeyRecord]) -> Result<Self, RingError> {
        let lookup = records
            .iter()
            .find(|record| record.purpose == Purpose::LookUp)
            .ok_or(RingError::Incomplete)?;
        let secret = masters.unwrap(lookup).ok_or(RingError::WrongMaster)?;
        let opened = Opened::of(masters, records, None)?;
        Ok(Self {
            lookup: hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice()),
            ring: Arc::new(RwLock::new(Arc::new(opened))),
        })
    }

    /// Follows a ring that changed: takes new keys in and lets destroyed ones
    /// go. Keys that are open stay so, also when the ring has got a master
    /// that is not known here; a new key that does not open is left out.
    pub fn follow(&self, masters: &Masters, records: &[KeyRecord]) {
        let before = self.opened();
        if let Ok(opened) = Opened::of(masters, records, Some(&before)) {
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(opened);
        }
    }

    /// The keys that were derived from a secret before there were rings; none
    /// of a tenant. For tests, and for reading what was written then.
    ///
    /// # Panics
    ///
    /// Never: a seed opens with its master.
    #[must_use]
    pub fn from_secret(secret: [u8; SECRET_LEN]) -> Self {
        let master = Master::from_secret(secret);
        let records = Seed::derived(&master).wrap(&master);
        Self::open_ring(&master.into(), &records).expect("a seed opens with its master")
    }

    /// Random keys that die with the process: for tests.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::from_secret(random())
    }

    /// True when values of this scope can be sealed.
    #[must_use]
    pub fn has_key_for(&self, scope: Scope<'_>) -> bool {
        self.opened().current(scope).is_some()
    }

    /// The numbers of all data keys that open.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.opened().numbers()
    }

    /// The numbers of all keys that were destroyed.
    #[must_use]
    pub fn destroyed(&self) -> Vec<u32> {
        self.opened().destroyed()
    }

    fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs `payload` with the receipt key: a detached JWS (RFC 7515 appendix
    /// F, `alg` `EdDSA` of RFC 8037) with `claims` in its protected header. The
    /// same key, claims and payload give the same signature.
    #[must_use]
    pub fn sign_detached(&self, claims: Map<String, Value>, payload: &[u8]) -> Option<String> {
        let opened = self.opened();
        let key = opened.signs()?;
        Some(key.sign_detached(claims, payload))
    }

    /// The public halves of all keys that ever signed, as a JWK set (RFC 7517
    /// section 5).
    #[must_use]
    pub fn public_keys(&self) -> Value {
        let keys: Vec<Value> = self.opened().signing().map(|key| key.to_jwk()).collect();
        json!({ "keys": keys })
    }

    /// The keyed hash of a list of texts, for one purpose.
    ///
    /// Hashes of different purposes never match, and neither do lists that
    /// only read the same when written behind each other.
    #[must_use]
    pub fn keyed_hash(&self, purpose: &'static str, parts: &[&str]) -> KeyedHash {
        self.hash(purpose, parts.iter().map(|part| part.as_bytes()))
    }

    /// The keyed hash of bytes; equal to [`Self::keyed_hash`] of one text.
    #[must_use]
    pub fn keyed_hash_bytes(&self, purpose: &'static str, bytes: &[u8]) -> KeyedHash {
        self.hash(purpose, std::iter::once(bytes))
    }

    /// The keyed hash of several hashes or other byte strings.
    #[must_use]
    pub fn keyed_hash_parts(&self, purpose: &'static str, parts: &[&[u8]]) -> KeyedHash {
        self.hash(purpose, parts.iter().copied())
    }

    fn hash<'a>(&self, purpose: &str, parts: impl Iterator<Item = &'a [u8]>) -> KeyedHash {
        let mut context = hmac::Context::with_key(&self.lookup);
        put_part(&mut |bytes| context.update(bytes), purpose.as_bytes());
        for part in parts {
            put_part(&mut |bytes| context.update(bytes), part);
        }
        KeyedHash::from_bytes(tag_bytes(&context.sign()))
    }

    /// Seals `plain` for one place, with the current key of a scope: format
    /// byte, key number, random nonce of 96 bits, ciphertext and tag; 33 bytes
    /// longer than `plain`.
    ///
    /// # Errors
    ///
    /// [`NoKey`]; never for [`Scope::Installation`].
    ///
    /// # Panics
    ///
    /// Above 64 GiB, which no column takes.
    pub fn seal(&self, scope: Scope<'_>, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, NoKey> {
        let opened = self.opened();
        let key = opened.current(scope).ok_or(NoKey)?;
        Ok(key.seal(place, plain))
    }

    /// Seals `plain` with one key, current or not.
    ///
    /// # Errors
    ///
    /// [`NoKey`] when there is no such key, or not any more.
    pub fn seal_with(&self, number: u32, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, NoKey> {
        let opened = self.opened();
        let key = opened.data(number).ok_or(NoKey)?;
        Ok(key.seal(place, plain))
    }

    /// Opens what [`Self::seal`] made for the same place, whatever its scope.
    ///
    /// # Errors
    ///
    /// [`SealError`]: the value was made elsewhere, with other keys, or was
    /// changed.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, number, rest) = read_header(sealed)?;
        let opened = self.opened();
        let key = match opened.data(number) {
            Some(key) => key,
            None if opened.is_destroyed(number) => return Err(SealError::Destroyed),
            None => return Err(SealError::KeyUnknown { number }),
        };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Format)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Format)?;
        let bound = bound_to(header, place);
        let mut plain = Zeroizing::new(body.to_vec());
        let len = key
            .place_key(&bound)
            .open_in_place(nonce, Aad::from(&bound), &mut plain)
            .map_err(|_| SealError::Refused)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }
}

impl DataKey {
    fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let header = header_of(self.number);
        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let (_, body) = sealed.split_at_mut(HEADER_LEN);
        let bound = bound_to(&header, place);
        let tag = self
            .place_key(&bound)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&bound),
                body,
            )
            .expect("a column takes less than the cipher does");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    fn place_key(&self, bound: &[u8]) -> LessSafeKey {
        let bytes = Zeroizing::new(tag_bytes(&hmac::sign(&self.root, bound)));
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice());
        LessSafeKey::new(key.expect("the key of AES-256 has 32 bytes"))
    }
}

/// A secret in a file of its own, with the rules of [`Master::open_or_create`].
///
/// # Errors
///
/// [`KeyError`]; a file that others can read is refused.
pub fn open_or_create_secret(path: &Path) -> Result<Zeroizing<[u8; SECRET_LEN]>, KeyError> {
    file::read_or_create(path)
}

/// A secret as its file spells it, 64 hexadecimal digits or base64.
#[must_use]
pub fn secret_from_text(text: &str) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
    file::decode(text)
}

/// How every value begins that the key of this number seals.
#[must_use]
pub fn header_of(number: u32) -> [u8; 1 + NUMBER_LEN] {
    let [a, b, c, d] = number.to_be_bytes();
    [FORMAT_2, a, b, c, d]
}

/// The number of the key that sealed this value; none for what is no sealed
/// value.
#[must_use]
pub fn number_of(sealed: &[u8]) -> Option<u32> {
    read_header(sealed).ok().map(|(_, number, _)| number)
}

/// The header as it is bound, the key number, and what follows.
fn read_header(sealed: &[u8]) -> Result<(&[u8], u32, &[u8]), SealError> {
    match sealed {
        [FORMAT_1, 1, rest @ ..] => Ok((&[FORMAT_1, 1], 1, rest)),
        [FORMAT_1, number, ..] => Err(SealError::KeyUnknown {
            number: u32::from(*number),
        }),
        [FORMAT_2, a, b, c, d, rest @ ..] => {
            let header = sealed.get(..=NUMBER_LEN).ok_or(SealError::Format)?;
            Ok((header, u32::from_be_bytes([*a, *b, *c, *d]), rest))
        }
        _ => Err(SealError::Format),
    }
}

/// Everything that a sealed value is bound to, unambiguous.
fn bound_to(header: &[u8], place: Place<'_>) -> Vec<u8> {
    let mut bound = header.to_vec();
    for part in [place.table.as_bytes(), place.row, place.column.as_bytes()] {
        put_part(&mut |bytes| bound.extend_from_slice(bytes), part);
    }
    bound
}

/// Length first, so that no two lists of parts have the same bytes.
fn put_part(put: &mut impl FnMut(&[u8]), part: &[u8]) {
    put(&(part.len() as u64).to_be_bytes());
    put(part);
}

fn tag_bytes(tag: &hmac::Tag) -> [u8; KeyedHash::LEN] {
    let mut bytes = [0; KeyedHash::LEN];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// Bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has a source of randomness");
    bytes
}

/// Why a sealed value did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// Not a sealed value, or of a layout that this version does not know.
    Format,
    /// Sealed with a key that this installation does not have.
    KeyUnknown {
        /// Number of that key.
        number: u32,
    },
    /// Sealed with a key that was destroyed: nobody can open it any more.
    Destroyed,
    /// Changed, moved to another place, or sealed with another secret.
    Refused,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the value is not in a known sealed form"),
            Self::KeyUnknown { number } => write!(f, "the value needs data key {number}"),
            Self::Destroyed => f.write_str("the key of the value was destroyed"),
            Self::Refused => f.write_str("the value was changed, moved or sealed with another key"),
        }
    }
}

impl std::error::Error for SealError {}

/// A scope has no key, not yet or not any more: one has to be made first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKey;

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring has no key for this scope")
    }
}

impl std::error::Error for NoKey {}

/// Why there are no keys.
#[derive(Debug)]
pub enum KeyError {
    /// The file or its folder cannot be read or made.
    File(std::io::Error),
    /// Group or others may read or write the file: `chmod 600` it, and think
    /// about who has read it.
    Exposed {
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file holds neither 64 hexadecimal digits nor 32 bytes in base64.
    Malformed,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(cause) => write!(f, "the key file cannot be used: {cause}"),
            Self::Exposed { mode } => write!(
                f,
                "the key file has mode {mode:03o}: only its owner may read it (600)"
            ),
            Self::Malformed => {
                f.write_str("the key file must hold 64 hexadecimal digits, or 32 bytes in base64")
            }
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(cause) => Some(cause),
            Self::Exposed { .. } | Self::Malformed => None,
        }
    }
}

#[cfg(test)]
mod tests;

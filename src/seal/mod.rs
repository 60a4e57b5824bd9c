//! Keys: what is written to disk is sealed, what is looked up is a keyed hash.
//!
//! One secret of 32 bytes, in a file that only the owner can read, is the root
//! of both keys. A sealed value is bound to the place where it was written:
//! moved to another row, column or table it does not open, and neither does
//! one with a single changed bit. Equal values seal to different bytes.
//!
//! Each place gets a data key of its own (HMAC of the place), so a random
//! nonce is used a handful of times per key, not billions of times.
//!
//! This module does not know what it seals, nor where it is kept. Losing the
//! file means losing every sealed value: back it up apart from the database.

mod file;

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};
use zeroize::{Zeroize, Zeroizing};

use crate::domain::KeyedHash;

/// Length of the master secret in bytes.
pub const SECRET_LEN: usize = 32;

/// First byte of a sealed value: how the rest is laid out.
const FORMAT: u8 = 1;
/// The only key so far; the byte leaves room for changing keys later.
const KEY_NUMBER: u8 = 1;
/// Format, key number and nonce.
const HEADER_LEN: usize = 2 + NONCE_LEN;
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

/// The keys of an installation.
#[derive(Clone)]
pub struct Keys {
    data: hmac::Key,
    lookup: hmac::Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

impl Keys {
    /// Reads the master secret from `path`, 64 hexadecimal digits or base64;
    /// makes the file (mode 0600) and a random secret when there is none.
    ///
    /// Two processes that start at once end with the same secret: the file is
    /// put in place complete, and only if there is none yet.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; a file that others can read is refused.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyError> {
        file::read_or_create(path).map(|secret| Self::derive(&secret))
    }

    /// Takes a secret as its file spells it, 64 hexadecimal digits or base64.
    ///
    /// # Errors
    ///
    /// [`KeyError::Malformed`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let secret = file::decode(text.trim()).ok_or(KeyError::Malformed)?;
        Ok(Self::derive(&secret))
    }

    /// Takes a secret that came from elsewhere.
    #[must_use]
    pub fn from_secret(mut secret: [u8; SECRET_LEN]) -> Self {
        let keys = Self::derive(&secret);
        secret.zeroize();
        keys
    }

    /// Random keys that die with the process: for tests, demonstrations, and
    /// for what is spooled only while it is read.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::derive(&random())
    }

    fn derive(secret: &[u8; SECRET_LEN]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sivi-gateway");
        let root = salt.extract(secret);
        let key = |purpose: &[u8]| {
            let mut bytes = Zeroizing::new([0; 32]);
            root.expand(&[purpose], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(bytes.as_mut_slice()))
                .expect("32 bytes are within what HKDF gives");
            hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice())
        };
        Self {
            data: key(b"data key 1"),
            lookup: key(b"look-up key"),
        }
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

    /// Seals `plain` for one place: format byte, key number, random nonce of
    /// 96 bits, ciphertext and tag; 30 bytes longer than `plain`.
    ///
    /// # Panics
    ///
    /// Above 64 GiB, which no column takes.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let bound = bound_to(place);
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        sealed.extend_from_slice(&[FORMAT, KEY_NUMBER]);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let (_, body) = sealed.split_at_mut(HEADER_LEN);
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

    /// Opens what [`Self::seal`] made for the same place.
    ///
    /// # Errors
    ///
    /// [`SealError`]: the value was made elsewhere, with other keys, or was
    /// changed.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, body) = sealed
            .split_at_checked(HEADER_LEN)
            .ok_or(SealError::Format)?;
        let (kind, nonce) = header.split_at(2);
        match kind {
            [FORMAT, KEY_NUMBER] => {}
            [FORMAT, number] => return Err(SealError::KeyUnknown { number: *number }),
            _ => return Err(SealError::Format),
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Format)?;
        let bound = bound_to(place);
        let mut plain = Zeroizing::new(body.to_vec());
        let len = self
            .place_key(&bound)
            .open_in_place(nonce, Aad::from(&bound), &mut plain)
            .map_err(|_| SealError::Refused)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }

    fn place_key(&self, bound: &[u8]) -> LessSafeKey {
        let bytes = Zeroizing::new(tag_bytes(&hmac::sign(&self.data, bound)));
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice());
        LessSafeKey::new(key.expect("the key of AES-256 has 32 bytes"))
    }
}

/// A secret in a file of its own, with the rules of [`Keys::open_or_create`].
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

/// Everything that a sealed value is bound to, unambiguous.
fn bound_to(place: Place<'_>) -> Vec<u8> {
    let mut bound = vec![FORMAT, KEY_NUMBER];
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
        number: u8,
    },
    /// Changed, moved to another place, or sealed with another secret.
    Refused,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the value is not in a known sealed form"),
            Self::KeyUnknown { number } => write!(f, "the value needs data key {number}"),
            Self::Refused => f.write_str("the value was changed, moved or sealed with another key"),
        }
    }
}

impl std::error::Error for SealError {}

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

//! The master key: it wraps the keys of the ring, and seals nothing itself.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::ring::{KeyRecord, Purpose};
use super::{KeyError, SECRET_LEN, Secret, TAG_LEN, file, put_part, random};
use crate::domain::TenantId;

/// First byte of a wrapped key: how the rest is laid out.
const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + NONCE_LEN;

/// A master key: 32 bytes from a file that only its owner can read, or from
/// the environment.
#[derive(Clone)]
pub struct Master {
    secret: Secret,
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master(hidden)")
    }
}

impl Master {
    /// Reads the secret from `path`, 64 hexadecimal digits or base64; makes
    /// the file (mode 0600) and a random secret when there is none.
    ///
    /// Two processes that start at once end with the same secret: the file is
    /// put in place complete, and only if there is none yet.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; a file that others can read is refused.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyError> {
        file::read_or_create(path).map(|secret| Self { secret })
    }

    /// Reads the secret from a file that must be there.
    ///
    /// # Errors
    ///
    /// As [`Self::open_or_create`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        file::read(path).map(|secret| Self { secret })
    }

    /// Takes a secret as its file spells it, 64 hexadecimal digits or base64.
    ///
    /// # Errors
    ///
    /// [`KeyError::Malformed`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let secret = file::decode(text.trim()).ok_or(KeyError::Malformed)?;
        Ok(Self { secret })
    }

    /// Takes a secret that came from elsewhere.
    #[must_use]
    pub fn from_secret(secret: [u8; SECRET_LEN]) -> Self {
        Self {
            secret: Zeroizing::new(secret),
        }
    }

    /// A key for one purpose, always the same (HKDF-SHA-256, RFC 5869).
    pub(super) fn derive(&self, purpose: &[u8]) -> Secret {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sivi-gateway");
        let root = salt.extract(self.secret.as_slice());
        let mut bytes = Secret::default();
        root.expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .expect("32 bytes are within what HKDF gives");
        bytes
    }

    /// Wraps a key for its place in the ring: AES-256-GCM, bound to number,
    /// purpose and tenant, so that it opens in no other row.
    pub(super) fn wrap(
        &self,
        number: u32,
        purpose: Purpose,
        tenant: Option<&TenantId>,
        secret: &Secret,
    ) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut wrapped = Vec::with_capacity(HEADER_LEN + SECRET_LEN + TAG_LEN);
        wrapped.push(FORMAT);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(secret.as_slice());
        let (_, body) = wrapped.split_at_mut(HEADER_LEN);
        let tag = self
            .wrapping_key()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&bound_to(number, purpose, tenant)),
                body,
            )
            .expect("the cipher takes 32 bytes");
        wrapped.extend_from_slice(tag.as_ref());
        wrapped
    }

    /// Opens a wrapped key; none when this master did not wrap it for this
    /// place, or when it was destroyed.
    pub(super) fn unwrap(&self, record: &KeyRecord) -> Option<Secret> {
        let (header, body) = record.wrapped.as_deref()?.split_at_checked(HEADER_LEN)?;
        let ([FORMAT], nonce) = header.split_first_chunk::<1>()? else {
            return None;
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let bound = bound_to(record.number, record.purpose, record.tenant.as_ref());
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self
            .wrapping_key()
            .open_in_place(nonce, Aad::from(&bound), &mut body)
            .ok()?;
        let mut secret = Secret::default();
        secret.copy_from_slice(Some(&*plain).filter(|bytes| bytes.len() == SECRET_LEN)?);
        Some(secret)
    }

    fn wrapping_key(&self) -> LessSafeKey {
        let bytes = self.derive(b"key wrapping");
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice());
        LessSafeKey::new(key.expect("the key of AES-256 has 32 bytes"))
    }
}

fn bound_to(number: u32, purpose: Purpose, tenant: Option<&TenantId>) -> Vec<u8> {
    let mut bound = vec![FORMAT];
    bound.extend_from_slice(&number.to_be_bytes());
    for part in [purpose.as_str(), tenant.map_or("", TenantId::as_str)] {
        put_part(&mut |bytes| bound.extend_from_slice(bytes), part.as_bytes());
    }
    bound
}

/// The master key in use and, while it is being replaced, the one before it.
#[derive(Clone, Debug)]
pub struct Masters {
    /// The one that shall wrap the ring.
    pub current: Master,
    /// The one that wraps it until `keys rewrap` has run.
    pub previous: Option<Master>,
}

impl From<Master> for Masters {
    fn from(current: Master) -> Self {
        Self {
            current,
            previous: None,
        }
    }
}

impl Masters {
    /// The master that wraps the ring now; none when it is neither.
    ///
    /// New keys are wrapped by the same one, so that a node that does not
    /// know the next master yet can still read them.
    #[must_use]
    pub fn of_ring(&self, records: &[KeyRecord]) -> Option<&Master> {
        let living = records.iter().find(|record| record.wrapped.is_some())?;
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|master| master.unwrap(living).is_some())
    }

    /// The key of a record in the open, for tests that look for it in files.
    #[cfg(test)]
    pub(crate) fn reveal(&self, record: &KeyRecord) -> Option<Vec<u8>> {
        self.unwrap(record).map(|secret| secret.to_vec())
    }

    pub(super) fn unwrap(&self, record: &KeyRecord) -> Option<Secret> {
        let previous = || self.previous.as_ref()?.unwrap(record);
        self.current.unwrap(record).or_else(previous)
    }

    /// Wraps every living key with the current master: pairs of number and
    /// wrapped key.
    ///
    /// # Errors
    ///
    /// [`WrongMaster`] when a key does not open; then nothing may be written.
    pub fn rewrap(&self, records: &[KeyRecord]) -> Result<Vec<(u32, Vec<u8>)>, WrongMaster> {
        let living = records.iter().filter(|record| record.wrapped.is_some());
        let again = living.map(|record| {
            let secret = self.unwrap(record).ok_or(WrongMaster)?;
            let tenant = record.tenant.as_ref();
            let master = &self.current;
            let wrapped = master.wrap(record.number, record.purpose, tenant, &secret);
            Ok((record.number, wrapped))
        });
        again.collect()
    }
}

/// The master key is not the one that wraps this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongMaster;

impl fmt::Display for WrongMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the master key is not the one that wraps this key ring")
    }
}

impl std::error::Error for WrongMaster {}

//! What a key ring holds, as rows and opened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::master::{Master, Masters};
use super::signing::SigningKey;
use super::{Secret, random};
use crate::domain::TenantId;

/// Whose values a data key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// What is nobody's in particular: receipts, rejections, parked parts
    /// without a tenant.
    Installation,
    /// What is about the employees of one tenant. Its keys can be destroyed.
    Tenant(&'a TenantId),
}

impl<'a> From<Option<&'a TenantId>> for Scope<'a> {
    fn from(tenant: Option<&'a TenantId>) -> Self {
        tenant.map_or(Self::Installation, Self::Tenant)
    }
}

/// What a key of the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Seals values.
    Data,
    /// Makes keyed hashes. There is one, for ever: hashes are compared.
    LookUp,
    /// Signs receipts (Ed25519).
    Receipts,
}

impl Purpose {
    /// The word in the ring.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::LookUp => "look-up",
            Self::Receipts => "receipts",
        }
    }
}

/// A word that is no purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPurpose;

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        [Self::Data, Self::LookUp, Self::Receipts]
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or(UnknownPurpose)
    }
}

/// One key as the ring keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its number, from 1, never used again.
    pub number: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// Whose values it seals; none for the installation.
    pub tenant: Option<TenantId>,
    /// True for the one that new values are sealed with.
    pub current: bool,
    /// The wrapped key; none once it was destroyed.
    pub wrapped: Option<Vec<u8>>,
}

impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRecord({} {})", self.number, self.purpose.as_str())
    }
}

/// The first keys of a ring, before they are wrapped: data key 1, the look-up
/// key and the one that signs.
pub struct Seed {
    keys: [(u32, Purpose, Secret); 3],
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

impl Seed {
    /// For a new installation.
    #[must_use]
    pub fn random() -> Self {
        Self::of(Secret::new(random()), Secret::new(random()))
    }

    /// For an installation that sealed before there were rings: the keys that
    /// it derived from its secret.
    #[must_use]
    pub fn derived(master: &Master) -> Self {
        Self::of(master.derive(b"data key 1"), master.derive(b"look-up key"))
    }

    fn of(data: Secret, lookup: Secret) -> Self {
        Self {
            keys: [
                (1, Purpose::Data, data),
                (2, Purpose::LookUp, lookup),
                (3, Purpose::Receipts, Secret::new(random())),
            ],
        }
    }

    /// The seed as records.
    #[must_use]
    pub fn wrap(&self, master: &Master) -> Vec<KeyRecord> {
        let keys = self.keys.iter();
        keys.map(|(number, purpose, secret)| KeyRecord {
            number: *number,
            purpose: *purpose,
            tenant: None,
            current: true,
            wrapped: Some(master.wrap(*number, *purpose, None, secret)),
        })
        .collect()
    }
}

/// A random key, wrapped for a row of the ring.
#[must_use]
pub fn new_key(
    master: &Master,
    number: u32,
    purpose: Purpose,
    tenant: Option<&TenantId>,
) -> Vec<u8> {
    master.wrap(number, purpose, tenant, &Secret::new(random()))
}

/// A data key that is opened.
pub(super) struct DataKey {
    pub(super) number: u32,
    pub(super) root: hmac::Key,
}

/// The keys of a ring, opened. Replaced as a whole when the ring changes.
pub(super) struct Opened {
    data: HashMap<u32, Arc<DataKey>>,
    destroyed: HashSet<u32>,
    installation: Arc<DataKey>,
    tenants: HashMap<TenantId, Arc<DataKey>>,
    /// By number; the last one is in use.
    signing: BTreeMap<u32, Arc<SigningKey>>,
}

/// Why a ring cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// A key does not open with this master.
    WrongMaster,
    /// A key that every ring has is not there.
    Incomplete,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongMaster => "the master key is not the one that wraps this key ring",
            Self::Incomplete => "the key ring lacks a key that every ring has",
        })
    }
}

impl std::error::Error for RingError {}

impl Opened {
    /// Opens the records. Keys that `before` holds are taken from there, and
    /// a key that does not open is left out when there is a `before`.
    pub(super) fn of(
        masters: &Masters,
        records: &[KeyRecord],
        before: Option<&Self>,
    ) -> Result<Self, RingError> {
        let (living, gone): (Vec<&KeyRecord>, Vec<&KeyRecord>) =
            records.iter().partition(|record| record.wrapped.is_some());
        let mut data = HashMap::new();
        let mut signing = BTreeMap::new();
        let mut tenants = HashMap::new();
        let mut installation = before.map(|before| Arc::clone(&before.installation));
        for record in living {
            let number = record.number;
            match record.purpose {
                Purpose::LookUp => {}
                Purpose::Receipts => {
                    let known = before.and_then(|before| before.signing.get(&number));
                    let made = |secret: &Secret| Arc::new(SigningKey::new(secret));
                    if let Some(key) = known_or_made(masters, record, before, known, made)? {
                        signing.insert(number, key);
                    }
                }
                Purpose::Data => {
                    let known = before.and_then(|before| before.data.get(&number));
                    let made = |secret: &Secret| data_key(number, secret);
                    let key = known_or_made(masters, record, before, known, made)?;
                    let Some(key) = key else { continue };
                    match &record.tenant {
                        _ if !record.current => {}
                        Some(tenant) => {
                            tenants.insert(tenant.clone(), Arc::clone(&key));
                        }
                        None => installation = Some(Arc::clone(&key)),
                    }
                    data.insert(number, key);
                }
            }
        }
        if signing.is_empty() {
            return Err(RingError::Incomplete);
        }
        Ok(Self {
            data,
            destroyed: gone.iter().map(|record| record.number).collect(),
            installation: installation.ok_or(RingError::Incomplete)?,
            tenants,
            signing,
        })
    }

    /// The key that new values of a scope are sealed with.
    pub(super) fn current(&self, scope: Scope<'_>) -> Option<&Arc<DataKey>> {
        match scope {
            Scope::Installation => Some(&self.installation),
            Scope::Tenant(tenant) => self.tenants.get(tenant),
        }
    }

    pub(super) fn data(&self, number: u32) -> Option<&Arc<DataKey>> {
        self.data.get(&number)
    }

    pub(super) fn is_destroyed(&self, number: u32) -> bool {
        self.destroyed.contains(&number)
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.data.keys().copied().collect()
    }

    pub(super) fn destroyed(&self) -> Vec<u32> {
        self.destroyed.iter().copied().collect()
    }

    /// The key that signs now.
    pub(super) fn signs(&self) -> Option<&Arc<SigningKey>> {
        self.signing.values().next_back()
    }

    /// Every key that ever signed, oldest first.
    pub(super) fn signing(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.signing.values()
    }
}

/// A key that is open already, or the one of the record. None for one that
/// does not open now, although the ring opened before.
fn known_or_made<K>(
    masters: &Masters,
    record: &KeyRecord,
    before: Option<&Opened>,
    known: Option<&Arc<K>>,
    made: impl FnOnce(&Secret) -> Arc<K>,
) -> Result<Option<Arc<K>>, RingError> {
    if let Some(known) = known {
        return Ok(Some(Arc::clone(known)));
    }
    match masters.unwrap(record) {
        Some(secret) => Ok(Some(made(&secret))),
        None if before.is_some() => Ok(None),
        None => Err(RingError::WrongMaster),
    }
}

fn data_key(number: u32, secret: &Secret) -> Arc<DataKey> {
    Arc::new(DataKey {
        number,
        root: hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice()),
    })
}

//! Destroys replaced keys so that nothing is lost.
//!
//! Which keys may go is read before anything is sealed anew, so that a key that
//! is replaced meanwhile, with which everything was just sealed, is not among
//! them. None goes that was replaced a short time ago: a node that is slow to
//! follow the ring may seal with it still. And none goes while a value is
//! sealed with any of them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::Store;
use super::error::Error;
use super::reseal::Resealed;
use super::ring_change::{Going, Look};
use super::sql::{self, Columnar as _, ms};
use super::vault::{Destroyed, is_of};
use crate::domain::TenantId;
use crate::seal::header_of;

/// How long a key must have been replaced before it may go without loss. Nodes
/// follow the ring within seconds; this is for one that was frozen, or cut off
/// from the ring alone, and accepts meanwhile.
const REST: Duration = Duration::from_mins(15);

/// The keys of one tenant that others took the place of, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedKeys {
    pub(super) tenant: TenantId,
    /// Numbers of those that were replaced long enough ago.
    rested: Vec<u32>,
    young: Vec<YoungKey>,
}

/// A key that was replaced a short time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YoungKey {
    /// Its number.
    pub number: u32,
    /// When it may be destroyed, by the clock of the ring.
    pub from: Timestamp,
}

impl ReplacedKeys {
    /// Numbers of the keys that [`Store::retire_keys`] destroys.
    #[must_use]
    pub fn rested(&self) -> &[u32] {
        &self.rested
    }

    /// The keys that it leaves.
    #[must_use]
    pub fn young(&self) -> &[YoungKey] {
        &self.young
    }

    /// These without the ones that were made with or after key `number`.
    #[must_use]
    pub fn older_than(mut self, number: u32) -> Self {
        self.rested.retain(|key| *key < number);
        self.young.retain(|key| key.number < number);
        self
    }

    /// All of them.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let young = self.young.iter().map(|key| key.number);
        self.rested.iter().copied().chain(young).collect()
    }
}

/// Why keys were not retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetireError {
    /// So many values are sealed with them: nothing was destroyed. Seal them
    /// anew and begin again.
    InUse(u64),
    /// A database failed.
    Store(Error),
}

impl fmt::Display for RetireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(values) => write!(
                f,
                "{values} values are sealed with them still: nothing was destroyed, run it again"
            ),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for RetireError {}

impl From<Error> for RetireError {
    fn from(cause: Error) -> Self {
        Self::Store(cause)
    }
}

impl Store {
    /// The keys of a tenant that were replaced and are not destroyed. Ask
    /// before sealing anew.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`].
    pub async fn replaced_keys(&self, tenant: &TenantId) -> Result<ReplacedKeys, Error> {
        let (keys, now) = self.ring().change(Look).await?;
        let mut replaced = ReplacedKeys {
            tenant: tenant.clone(),
            rested: Vec::new(),
            young: Vec::new(),
        };
        let theirs = keys.iter().filter(|key| is_of(key, tenant));
        for key in theirs.filter(|key| key.destroyed_at.is_none()) {
            let Some(at) = key.replaced_at else { continue };
            let from = at.saturating_add(REST).unwrap_or(Timestamp::MAX);
            let number = key.number;
            if ms(from) <= now {
                replaced.rested.push(number);
            } else {
                replaced.young.push(YoungKey { number, from });
            }
        }
        Ok(replaced)
    }

    /// Destroys those of these keys that were replaced long enough ago, if
    /// nothing is sealed with them; see [`Self::reseal`]. Says what went with
    /// them all the same: what a node sealed after the last look.
    ///
    /// # Errors
    ///
    /// [`RetireError`].
    pub async fn retire_keys(&self, replaced: &ReplacedKeys) -> Result<Destroyed, RetireError> {
        match self.values_of(&replaced.rested).await? {
            0 => {}
            values => return Err(RetireError::InUse(values)),
        }
        let going = Going::Replaced(replaced.rested.clone());
        let keys = self.erase(&replaced.tenant, going).await?;
        let mut gone = self.ring_keys().await?;
        gone.retain(|key| key.destroyed_at.is_some() && replaced.rested.contains(&key.number));
        let gone = gone.iter().map(|key| key.number).collect();
        let removed = self.remove_sealed(gone).await?;
        Ok(Destroyed { keys, removed })
    }

    /// How many values are sealed with these keys, in any column.
    async fn values_of(&self, keys: &[u32]) -> Result<u64, Error> {
        let headers: Vec<Vec<u8>> = keys.iter().map(|key| header_of(*key).to_vec()).collect();
        let mut total = 0;
        for (column, _) in Resealed::default().columns() {
            let mut connection = self.reader().await?;
            for row in sql::select_in(&mut connection, column.count, &headers, "").await? {
                total += row.value::<i64>("total")?.unsigned_abs();
            }
        }
        Ok(total)
    }
}

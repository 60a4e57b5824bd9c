//! Keys for operators: list, rotate, wrap anew, destroy; and what goes with a
//! destroyed key.

use std::time::Duration;

use super::Store;
use super::backend::query;
use super::error::Error;
use super::marks::{WriteMarks, marked};
use super::retire::ReplacedKeys;
use super::ring::RingKey;
use super::ring_change::{Destroy, Going, Rewrap, Rotate, Rotation};
use super::sql::Columnar as _;
use super::unreadable::{Kept, Removed};
use crate::domain::TenantId;
use crate::seal::{Purpose, header_of};

/// What [`Store::destroy_keys`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Keys that were erased.
    pub keys: u64,
    /// What went with them.
    pub removed: Removed,
}

/// How long an erasure waits to know what goes with it.
const COUNTING: Duration = Duration::from_secs(10);

const UNDELIVERED: &str = "SELECT COUNT(*) AS total FROM delivery
    WHERE tenant = $1 AND finished_at IS NULL";

/// True for a key that seals what is this tenant's.
pub(super) fn is_of(key: &RingKey, tenant: &TenantId) -> bool {
    key.purpose == Purpose::Data && key.tenant.as_ref() == Some(tenant)
}

impl Store {
    /// Looks whether the key ring changed, and follows it; true when it did.
    /// What a key that was destroyed meanwhile sealed is removed here too.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`]; keys that are open stay so.
    pub async fn follow_ring(&self) -> Result<bool, Error> {
        let changed = self.ring().follow().await?;
        self.mark_new_keys().await?;
        self.remove_destroyed().await?;
        Ok(changed)
    }

    /// Every key of the ring, without the keys.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn ring_keys(&self) -> Result<Vec<RingKey>, Error> {
        self.ring().list().await
    }

    /// Releases about a tenant's employees that nobody has taken over or given
    /// up.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn undelivered_of(&self, tenant: &TenantId) -> Result<u64, Error> {
        let mut connection = self.reader().await?;
        let row = query(UNDELIVERED)
            .bind(tenant.as_str())
            .fetch_one(&mut connection)
            .await?;
        Ok(u64::try_from(row.value::<i64>("total")?).unwrap_or(0))
    }

    /// Makes sure that values of these tenants can be sealed.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] or [`Error::Unavailable`]; [`Error::WrongKeys`] when
    /// the ring has got a master key that is not known here.
    pub(super) async fn provide(
        &self,
        tenants: impl Iterator<Item = &TenantId>,
    ) -> Result<(), Error> {
        if self.ring().provide(tenants).await? {
            self.mark_new_keys().await?;
        }
        Ok(())
    }

    /// Puts new keys in the place of those in use; old values still open.
    /// Gives the numbers of the new ones; none for a tenant without a key.
    ///
    /// # Errors
    ///
    /// As for a write: [`Error::Busy`], [`Error::Unavailable`]; or
    /// [`Error::WrongKeys`].
    pub async fn rotate_keys(&self, which: Rotation) -> Result<Vec<u32>, Error> {
        let change = Rotate {
            which,
            masters: self.ring().masters(),
        };
        let made = self.ring().change(change).await??;
        self.mark_new_keys().await?;
        Ok(made)
    }

    /// Wraps every key of the ring with the current master key; gives their
    /// number.
    ///
    /// # Errors
    ///
    /// As [`Self::rotate_keys`].
    pub async fn rewrap_keys(&self) -> Result<usize, Error> {
        let masters = self.ring().masters();
        let count = self.ring().change(Rewrap { masters }).await??;
        self.ring().scrub().await?;
        Ok(count)
    }

    /// Destroys every key of a tenant, and removes what they sealed here.
    /// Copies of the database keep values that nobody can open.
    ///
    /// # Errors
    ///
    /// As [`Self::rotate_keys`]. Calling again finishes what was begun.
    pub async fn destroy_keys(&self, tenant: &TenantId) -> Result<Destroyed, Error> {
        let keys = self.ring_keys().await?.into_iter();
        let theirs = keys.filter(|key| is_of(key, tenant));
        let numbers: Vec<u32> = theirs.map(|key| key.number).collect();
        let there = self.count_sealed(&numbers).await;
        self.destroy(tenant, Going::All, there).await
    }

    /// Destroys these keys, whatever their age, and removes what they sealed
    /// here; the tenant's other keys and what they sealed stay.
    /// [`Self::retire_keys`] is the way that loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::destroy_keys`].
    pub async fn destroy_replaced_keys(&self, replaced: &ReplacedKeys) -> Result<Destroyed, Error> {
        let numbers = replaced.numbers();
        let there = self.count_sealed(&numbers).await;
        self.destroy(&replaced.tenant, Going::Replaced(numbers), there)
            .await
    }

    async fn destroy(
        &self,
        tenant: &TenantId,
        going: Going,
        there: Removed,
    ) -> Result<Destroyed, Error> {
        let keys = self.erase(tenant, going).await?;
        let all = self.ring_keys().await?;
        let newest = all.iter().map(|key| key.number).max().unwrap_or(0);
        let (gone, left): (Vec<RingKey>, Vec<RingKey>) = all
            .into_iter()
            .filter(|key| is_of(key, tenant))
            .partition(|key| key.destroyed_at.is_some());
        let numbers: Vec<u32> = gone.iter().map(|key| key.number).collect();
        let removed = self.remove_sealed(numbers).await?;
        // Also what was sealed before the tenant had a key of its own.
        let keep = Kept {
            headers: left.iter().map(|key| header_of(key.number)).collect(),
            newest,
        };
        let more = self.remove_others(tenant, keep).await?;
        Ok(Destroyed {
            keys,
            removed: (removed + more).at_least(there),
        })
    }

    /// Erases keys from the ring and its files, and says how many.
    pub(super) async fn erase(&self, tenant: &TenantId, going: Going) -> Result<u64, Error> {
        let change = Destroy {
            tenant: tenant.clone(),
            going,
            now: self.ring().now(),
        };
        let keys = self.ring().change(change).await?;
        self.ring().scrub().await?;
        Ok(keys)
    }

    /// What these keys sealed, for the operator to read; counted before they
    /// go, because a daemon of this store may remove it sooner than this. It
    /// is better to erase and not know than to know and not erase: what cannot
    /// be counted, or not soon, counts as nothing.
    async fn count_sealed(&self, keys: &[u32]) -> Removed {
        let counted = tokio::time::timeout(COUNTING, self.sealed_by(keys)).await;
        let why = match counted {
            Ok(Ok(there)) => return there,
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => format!("it takes longer than {COUNTING:?}"),
        };
        tracing::warn!("Could not count what goes with the destroyed keys: {why}");
        Removed::default()
    }

    /// Removes what destroyed keys sealed and is still here: in a copy of
    /// before, because somebody else destroyed them, or because a node wrote
    /// on that had not heard of it.
    pub(super) async fn remove_destroyed(&self) -> Result<(), Error> {
        let destroyed = self.keys().destroyed();
        if destroyed.is_empty() {
            return Ok(());
        }
        let mut left = self.ring().take_met();
        left.extend(marked(&mut self.reader().await?, &destroyed).await?);
        if left.is_empty() {
            return Ok(());
        }
        let removed = self.remove_sealed(left.iter().copied().collect()).await;
        if removed.is_err() {
            self.ring().put_met(left);
        }
        removed.map(drop)
    }

    /// Marks what was not marked since the ring changed.
    async fn mark_new_keys(&self) -> Result<(), Error> {
        if !self.ring().take_unmarked() {
            return Ok(());
        }
        let keys = self.keys().clone();
        let marked = self.writer().write(WriteMarks { keys }).await;
        if marked.is_err() {
            self.ring().marks_failed();
        }
        marked
    }
}

//! Keys for operators: list, rotate, wrap anew, destroy; and what goes with a
//! destroyed key.

use super::Store;
use super::backend::query;
use super::error::Error;
use super::marks::{WriteMarks, marked};
use super::ring::RingKey;
use super::ring_change::{Destroy, Rewrap, Rotate, Rotation};
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

const UNDELIVERED: &str = "SELECT COUNT(*) AS total FROM delivery
    WHERE tenant = $1 AND finished_at IS NULL";

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
            now: self.ring().now(),
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
        self.destroy(tenant, true).await
    }

    /// Destroys the keys of a tenant that were replaced, and removes what they
    /// sealed here; the key in use stays.
    ///
    /// # Errors
    ///
    /// As [`Self::destroy_keys`].
    pub async fn destroy_replaced_keys(&self, tenant: &TenantId) -> Result<Destroyed, Error> {
        self.destroy(tenant, false).await
    }

    async fn destroy(&self, tenant: &TenantId, current_too: bool) -> Result<Destroyed, Error> {
        // Counted before: a daemon of this store may remove it sooner than this.
        let there = self
            .sealed_by(&self.keys_that_go(tenant, current_too).await?)
            .await?;
        let change = Destroy {
            tenant: tenant.clone(),
            current_too,
            now: self.ring().now(),
        };
        let keys = self.ring().change(change).await?;
        self.ring().scrub().await?;
        let all = self.ring_keys().await?;
        let newest = all.iter().map(|key| key.number).max().unwrap_or(0);
        let theirs: Vec<RingKey> = all
            .into_iter()
            .filter(|key| key.purpose == Purpose::Data && key.tenant.as_ref() == Some(tenant))
            .collect();
        let (gone, left): (Vec<RingKey>, Vec<RingKey>) = theirs
            .into_iter()
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

    async fn keys_that_go(&self, tenant: &TenantId, current_too: bool) -> Result<Vec<u32>, Error> {
        let all = self.ring_keys().await?;
        let going = all.iter().filter(|key| {
            key.purpose == Purpose::Data
                && key.tenant.as_ref() == Some(tenant)
                && (current_too || key.replaced_at.is_some())
        });
        Ok(going.map(|key| key.number).collect())
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

//! Copies what a server holds at one moment into a file that is nobody's yet,
//! while the nodes of the server go on.

use super::tables::unlisted;
use super::{CopyError, empty_filled, from_source, from_target, transfer};
use crate::store::backend::{Backend, Connection};
use crate::store::failpoint::{self, Place};

/// Copies all rows into `target`, a new store, and compares both sides.
///
/// # Errors
///
/// [`CopyError`]; then `target` is worth nothing.
pub(in crate::store) async fn copy_moment(
    source: &Backend,
    target: &mut Connection,
) -> Result<(), CopyError> {
    // A connection of its own: whatever happens, the transaction ends with it.
    let mut source = source.writer().await.map_err(from_source)?;
    source.begin_moment().await.map_err(from_source)?;
    let unlisted = unlisted(&mut source).await;
    if let Some(what) = unlisted.map_err(CopyError::Source)? {
        return Err(CopyError::Unlisted { what });
    }
    target.begin().await.map_err(from_target)?;
    empty_filled(target).await.map_err(from_target)?;
    let mut watch = |_| failpoint::pass(Place::Drafting);
    transfer(&mut source, target, &mut watch).await?;
    target.commit().await.map_err(from_target)?;
    source.rollback().await.map_err(from_source)?;
    source.close().await.map_err(from_source)
}

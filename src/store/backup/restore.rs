//! The way back: a backup in the place of the database.
//!
//! Leases are void, because whoever held one no longer does, and the numbers
//! of inboxes move far on, so that no receiver of the feed has read past what
//! comes next.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::draft::{COMPANIONS, Draft, folder, sync_folder, with_end};
use super::{BackupError, Contents, check, contents, count};
use crate::clock::Clock;
use crate::store::backend::{Alone, Backend, Connection, DatabaseUrl, query};
use crate::store::failpoint::{self, Place};
use crate::store::ring::RingPlace;
use crate::store::writer::Change;
use crate::store::{BUSY, Store};

/// What [`restore`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What is in the database now.
    pub contents: Contents,
    /// Leases that were void.
    pub leases: u64,
    /// Where the database of before is, if there was one.
    pub aside: Option<PathBuf>,
}

/// Puts the backup at `from` in the place of the database at `to`. With
/// `aside` the one that is there is kept under that name; without, it must not
/// be there.
///
/// # Errors
///
/// [`BackupError`]; then what was there is there still.
pub async fn restore(
    from: &Path,
    to: &DatabaseUrl,
    aside: Option<&Path>,
    ring: &RingPlace,
    clock: Clock,
) -> Result<Restored, BackupError> {
    let file = Backend::new(to, BUSY, clock.clone()).file();
    let file = file.ok_or(BackupError::Shared)?;
    let place = &file.path();
    let in_the_way = names_there(place)?.into_iter().next();
    if let (Some(name), None) = (&in_the_way, aside) {
        return Err(BackupError::Exists(name.clone()));
    }
    let taken = if place.try_exists()? {
        file.take_alone().await?
    } else {
        Alone::Nothing
    };
    if let Alone::InUse = taken {
        return Err(BackupError::InUse);
    }
    fs::create_dir_all(folder(place))?;
    let draft = Draft::beside(place, &clock)?;
    copy_in(from, draft.path())?;
    let (contents, leases) = ready(&draft, ring, clock).await?;
    failpoint::pass(Place::Drafted);
    let aside = aside.filter(|_| in_the_way.is_some());
    match aside {
        Some(aside) => replace(draft, place, aside)?,
        None => draft.keep(place)?,
    }
    failpoint::pass(Place::Kept);
    if let Alone::Taken(former) = taken {
        // It is the file that was put aside, and nothing was changed in it.
        drop(former.close().await);
    }
    Ok(Restored {
        contents,
        leases,
        aside: aside.map(Path::to_owned),
    })
}

/// Which of the names of a database are taken, its own first. A log that lost
/// its database counts: it would be read into the next one.
fn names_there(place: &Path) -> io::Result<Vec<PathBuf>> {
    let mut there = Vec::new();
    for end in [""].into_iter().chain(COMPANIONS) {
        let name = with_end(place, end);
        if name.try_exists()? {
            there.push(name);
        }
    }
    Ok(there)
}

/// Gives the place to the draft in one step, so that at every moment one of
/// the two is there: a daemon that found neither would begin anew.
fn replace(draft: Draft, place: &Path, aside: &Path) -> Result<(), BackupError> {
    for end in [""].into_iter().chain(COMPANIONS) {
        match fs::hard_link(with_end(place, end), with_end(aside, end)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    sync_folder(place)?;
    failpoint::pass(Place::Aside);
    // Only a damaged one has any left, and stays damaged without.
    for end in COMPANIONS {
        match fs::remove_file(with_end(place, end)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    draft.replace(place)
}

/// Copies the file, and its log when it was copied from a running database.
fn copy_in(from: &Path, draft: &Path) -> Result<(), BackupError> {
    for end in ["", "-wal"] {
        let mut source = match File::open(with_end(from, end)) {
            Err(cause) if !end.is_empty() && cause.kind() == io::ErrorKind::NotFound => continue,
            source => source?,
        };
        let mut target = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(with_end(draft, end))?;
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

/// Brings a copy up to date and checks that the keys open it.
async fn ready(
    draft: &Draft,
    ring: &RingPlace,
    clock: Clock,
) -> Result<(Contents, u64), BackupError> {
    let copy = draft.file().open_as_is().await;
    let mut copy = copy.map_err(|_| BackupError::Unsound)?;
    check(&mut copy).await?;
    let is_ours = "SELECT COUNT(*) AS total FROM key_check";
    let marks = query(is_ours).fetch_one(&mut copy).await;
    if count(&marks.map_err(|_| BackupError::Unsound)?, "total")? == 0 {
        return Err(BackupError::Unsound);
    }
    copy.close().await?;

    let store = Store::open(&draft.url(), ring, clock).await?;
    let ready = async {
        let leases = store.writer().write(VoidLeases).await?;
        let mut connection = store.reader().await?;
        Ok::<_, BackupError>((contents(&mut connection).await?, leases))
    }
    .await;
    store.close().await;
    // One file again, without a log beside it.
    let mut last = draft.file().open_as_is().await?;
    draft.file().fold(&mut last).await?;
    last.close().await?;
    ready
}

const VOID_LEASES: &str = "UPDATE delivery SET state = 'offered', lease = NULL, lease_until = 0
    WHERE state = 'leased'";
/// Numbers may have been given out after the backup.
const MOVE_ON: &str = "UPDATE inbox SET last_sequence = last_sequence + 1000000000";

struct VoidLeases;

impl Change for VoidLeases {
    type Output = u64;

    async fn run(&self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        query(MOVE_ON).execute(&mut *connection).await?;
        let voided = query(VOID_LEASES).execute(connection).await?;
        Ok(voided)
    }
}

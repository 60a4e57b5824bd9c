//! A file that is written beside its place, and gets there when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::BackupError;
use crate::clock::Clock;
use crate::seal;
use crate::store::backend::{DatabaseFile, DatabaseUrl};

/// What `SQLite` may keep beside a database, by the end of its name.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file of our own, in the folder of the one that it will be.
pub(super) struct Draft {
    path: PathBuf,
    file: DatabaseFile,
}

impl Draft {
    pub(super) fn beside(path: &Path, clock: &Clock) -> io::Result<Self> {
        let name = format!(".sivi-{:016x}", u64::from_be_bytes(seal::random()));
        let path = folder(path).join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let file = DatabaseFile::at(&path, clock);
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn url(&self) -> DatabaseUrl {
        DatabaseUrl::sqlite(&self.path)
    }

    pub(super) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Puts it in place, unless there is a file already.
    pub(super) fn keep(self, path: &Path) -> Result<(), BackupError> {
        File::open(&self.path)?.sync_all()?;
        match fs::hard_link(&self.path, path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(path.to_owned()));
            }
            linked => linked?,
        }
        Ok(sync_folder(path)?)
    }

    /// Puts it in the place of whatever is there.
    pub(super) fn replace(self, path: &Path) -> Result<(), BackupError> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, path)?;
        Ok(sync_folder(path)?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for end in [""].into_iter().chain(COMPANIONS) {
            // Most of them were never there.
            drop(fs::remove_file(with_end(&self.path, end)));
        }
    }
}

pub(super) fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes what was done to names in the folder of `path` last.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

//! The directory file: one file, or a folder of `*.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::check::{Inconsistency, Known};
use super::diff::Diff;
use super::model::{Directory, RecordKind};
use super::record::{WrittenDirectory, Wrong};
use crate::toml_file::{Fault, TomlFile};

/// Why a directory file is not applied.
#[derive(Debug)]
pub enum DirectoryError {
    /// The files themselves are wrong: repair them.
    Files(Vec<Fault>),
    /// The directory would contradict itself: the faults stand in the files,
    /// the rest in what was applied before.
    Inconsistent {
        /// Contradictions at a place in the files.
        faults: Vec<Fault>,
        /// Contradictions of records that the files do not name.
        elsewhere: Vec<Inconsistency>,
    },
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faults, elsewhere) = match self {
            Self::Files(faults) => (faults, &[][..]),
            Self::Inconsistent { faults, elsewhere } => (faults, elsewhere.as_slice()),
        };
        let faults = faults.iter().map(ToString::to_string);
        let lines: Vec<String> = faults
            .chain(
                elsewhere
                    .iter()
                    .map(|known| format!("already applied: {known}")),
            )
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for DirectoryError {}

/// What the files at a path say. It may name what only the present directory
/// holds, so it is checked when it is laid [`onto`](DirectoryFile::onto) that.
#[derive(Debug)]
pub struct DirectoryFile {
    directory: Directory,
    files: Vec<TomlFile>,
    places: Places,
}

/// For each record the file it stands in and the key of its table there.
type Places = BTreeMap<(RecordKind, String), (usize, String)>;

/// Reads the file at `path`, or all `*.toml` of the folder at `path`.
///
/// # Errors
///
/// [`DirectoryError::Files`] with all faults found, each with file, line and
/// key: unreadable, unknown key, wrong word, an id that is used twice.
pub fn load(path: &Path) -> Result<DirectoryFile, DirectoryError> {
    let fail = |fault| DirectoryError::Files(vec![fault]);
    let mut files = Vec::new();
    for path in paths(path).map_err(fail)? {
        files.push(TomlFile::open(&path).map_err(fail)?);
    }
    DirectoryFile::read(files)
}

fn paths(path: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let name = path.display().to_string();
    let unreadable = |cause| Fault::of_file(&name, format!("cannot be read: {cause}"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Fault::of_file(&name, "holds no *.toml"));
    }
    found.sort();
    Ok(found)
}

impl DirectoryFile {
    /// Reads files that are in hand already.
    ///
    /// # Errors
    ///
    /// As [`load`].
    pub fn read(files: Vec<TomlFile>) -> Result<Self, DirectoryError> {
        let mut read = Self {
            directory: Directory::default(),
            files: Vec::new(),
            places: Places::new(),
        };
        let mut faults = Vec::new();
        for file in files {
            match file.read::<WrittenDirectory>() {
                Ok(written) => read.take(file, written, &mut faults),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() {
            Ok(read)
        } else {
            Err(DirectoryError::Files(faults))
        }
    }

    /// Adds what one file says.
    fn take(&mut self, file: TomlFile, written: WrittenDirectory, faults: &mut Vec<Fault>) {
        let number = self.files.len();
        let mut place = |kind, id: &str, index: usize| {
            place(
                &mut self.places,
                &self.files,
                (number, &file),
                kind,
                id,
                index,
            )
        };
        for (index, party) in written.party.into_iter().enumerate() {
            let id = party.id.clone();
            match place(RecordKind::Party, &id, index)
                .and_then(|at| named(&file, &at, party.read()))
            {
                Ok(party) => drop(self.directory.parties.insert(party.id.clone(), party)),
                Err(fault) => faults.push(fault),
            }
        }
        for (index, tenant) in written.tenant.into_iter().enumerate() {
            let id = tenant.id.clone();
            match place(RecordKind::Tenant, &id, index)
                .and_then(|at| named(&file, &at, tenant.read()))
            {
                Ok(tenant) => drop(self.directory.tenants.insert(tenant.id.clone(), tenant)),
                Err(fault) => faults.push(fault),
            }
        }
        for (index, basis) in written.legal_basis.into_iter().enumerate() {
            let id = basis.id.clone();
            match place(RecordKind::LegalBasis, &id, index)
                .and_then(|at| named(&file, &at, basis.read()))
            {
                Ok(basis) => drop(self.directory.legal_bases.insert(basis.id.clone(), basis)),
                Err(fault) => faults.push(fault),
            }
        }
        self.files.push(file);
    }

    /// What the files say, unchecked.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Lays the files onto the present directory `old`: a record that they
    /// name replaces the one that is there as a whole; with `prune`, what
    /// they do not name goes. Writes nothing.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Inconsistent`] when the result contradicts itself.
    pub fn onto(
        &self,
        old: &Directory,
        prune: bool,
        known: &Known,
    ) -> Result<Diff, DirectoryError> {
        let diff = Diff::between(old, &self.directory, prune);
        let (mut faults, mut elsewhere) = (Vec::new(), Vec::new());
        for found in diff.merged.check(known) {
            match self.places.get(&(found.kind, found.id.clone())) {
                Some((number, table)) => {
                    let file = self.files.get(*number);
                    let key = joined(table, &found.key);
                    faults.extend(file.map(|file| file.fault(&key, found.problem)));
                }
                None => elsewhere.push(found),
            }
        }
        if faults.is_empty() && elsewhere.is_empty() {
            return Ok(diff);
        }
        Err(DirectoryError::Inconsistent { faults, elsewhere })
    }
}

/// Notes where a record stands; refuses an id that stands there already.
fn place(
    places: &mut Places,
    before: &[TomlFile],
    (number, file): (usize, &TomlFile),
    kind: RecordKind,
    id: &str,
    index: usize,
) -> Result<String, Fault> {
    let table = format!("{kind}[{}]", index + 1);
    if let Some((other, other_table)) = places.get(&(kind, id.to_owned())) {
        let other = before.get(*other).unwrap_or(file);
        let line = other.line_of(other_table).unwrap_or_default();
        let problem = format!("is also the id at {}:{line}", other.name());
        return Err(file.fault(&format!("{table}.id"), problem));
    }
    places.insert((kind, id.to_owned()), (number, table.clone()));
    Ok(table)
}

fn named<T>(file: &TomlFile, table: &str, read: Result<T, Wrong>) -> Result<T, Fault> {
    read.map_err(|(key, problem)| file.fault(&joined(table, &key), problem))
}

fn joined(table: &str, key: &str) -> String {
    if key.is_empty() {
        table.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

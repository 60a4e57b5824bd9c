//! `apply`: parties, tenants and routes from a file into the store.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::{ApplyArguments, Failure, Format, on_runtime, open};
use crate::app::Base;
use crate::clock::Clock;
use crate::directory::{self, Change, Diff, Directory, DirectoryError, Known};
use crate::store::{DirectoryChange, Error, Record};

/// How often the change is tried again when somebody else changed first.
const ATTEMPTS: u32 = 5;

pub(super) fn apply(
    config: Option<&Path>,
    asked: &ApplyArguments,
    format: Format,
) -> Result<(), Failure> {
    std::fs::metadata(&asked.path)
        .map_err(|cause| Failure::environment(format!("{}: {cause}", asked.path.display())))?;
    let file = directory::load(&asked.path).map_err(|cause| refused(&cause))?;
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        for _ in 0..ATTEMPTS {
            let (version, old) = stored(&base).await?;
            let diff = file
                .onto(&old, asked.prune, &known(&base))
                .map_err(|cause| refused(&cause))?;
            if diff.is_empty() || asked.dry_run {
                report(&diff, asked.dry_run, format);
                return Ok(());
            }
            match base.store.change_directory(version, changes(&diff)).await {
                Ok(_) => {
                    report(&diff, false, format);
                    return Ok(());
                }
                Err(Error::Conflict) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(Failure::environment(
            "somebody else keeps changing the directory: try again",
        ))
    })
}

fn report(diff: &Diff, dry_run: bool, format: Format) {
    let text = match (diff.is_empty(), dry_run) {
        (true, _) => "nothing to change".to_owned(),
        (false, true) => format!("{diff}dry run: nothing was changed"),
        (false, false) => format!("{diff}applied"),
    };
    let changes: Vec<Value> = diff.changes.iter().map(change_json).collect();
    format.print(
        text,
        &json!({ "dry_run": dry_run, "applied": !dry_run, "changes": changes }),
    );
}

fn change_json(change: &Change) -> Value {
    let (what, kind, id, details) = match change {
        Change::Add { kind, id } => ("add", kind, id, &[][..]),
        Change::Change { kind, id, details } => ("change", kind, id, details.as_slice()),
        Change::Remove { kind, id } => ("remove", kind, id, &[][..]),
    };
    json!({ "change": what, "kind": kind.as_str(), "id": id, "details": details })
}

/// Applies `file` to the store of `base`, for the demo and for tests.
///
/// # Errors
///
/// What is wrong, with file, line and key.
pub async fn apply_file(base: &Base, file: &directory::DirectoryFile) -> Result<(), String> {
    let (version, old) = stored(base).await.map_err(|cause| format!("{cause:?}"))?;
    let diff = file
        .onto(&old, false, &known(base))
        .map_err(|cause| cause.to_string())?;
    let changed = base.store.change_directory(version, changes(&diff)).await;
    changed.map(|_| ()).map_err(|cause| cause.to_string())
}

async fn stored(base: &Base) -> Result<(i64, Directory), Failure> {
    let stored = base.store.directory().await?;
    let records = stored
        .records
        .iter()
        .map(|record| (&record.kind, &record.id, &record.body));
    let directory = Directory::from_records(records).map_err(Failure::environment)?;
    Ok((stored.version, directory))
}

fn known(base: &Base) -> Known {
    let names = |names: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> {
        names.map(str::to_owned).collect()
    };
    Known {
        mappings: names(&mut base.foundation.mappings.names()),
        editions: names(&mut base.foundation.editions.names()),
    }
}

/// A file that contradicts itself is a no; one that cannot be read is not.
fn refused(cause: &DirectoryError) -> Failure {
    Failure::No(cause.to_string())
}

fn changes(diff: &Diff) -> Vec<DirectoryChange> {
    let bodies = diff.merged.to_records();
    let put = |kind: &str, id: &str| {
        let found = bodies.iter().find(|(k, i, _)| *k == kind && i == id);
        found.map(|(kind, id, body)| {
            DirectoryChange::Put(Record {
                kind: (*kind).to_owned(),
                id: id.clone(),
                body: body.clone(),
            })
        })
    };
    let change = |change: &Change| match change {
        Change::Add { kind, id } | Change::Change { kind, id, .. } => put(kind.as_str(), id),
        Change::Remove { kind, id } => Some(DirectoryChange::Delete {
            kind: kind.as_str().to_owned(),
            id: id.clone(),
        }),
    };
    diff.changes.iter().filter_map(change).collect()
}

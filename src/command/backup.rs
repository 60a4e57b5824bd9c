//! `backup` and `restore`: all messages in one file, without the keys to them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Format, on_runtime, open, settings};
use crate::app;
use crate::clock::Clock;
use crate::store::{self, BackupError, Contents, Restored};

#[derive(Debug, Args)]
pub(super) struct BackupArguments {
    /// The file, which must not exist.
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// A file that `backup` wrote.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Puts the database that is there aside, and keeps it.
    #[arg(long)]
    replace: bool,
}

/// A refusal that protects data is a no; the rest is the environment.
pub(super) fn failure(cause: BackupError) -> Failure {
    match cause {
        BackupError::Shared
        | BackupError::Exists(_)
        | BackupError::InUse
        | BackupError::Unsound
        | BackupError::Store(store::Error::WrongKeys) => Failure::No(cause.to_string()),
        BackupError::File(_) | BackupError::Copy(_) | BackupError::Store(_) => {
            Failure::environment(cause)
        }
    }
}

pub(super) fn backup(
    config: Option<&Path>,
    asked: &BackupArguments,
    format: Format,
) -> Result<(), Failure> {
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        let contents = base.store.backup(&asked.path).await.map_err(failure)?;
        match format {
            Format::Json => {
                let path = json!(asked.path.display().to_string());
                println!("{}", report(&contents, [("path", path)]));
            }
            Format::Text => {
                println!("wrote {}: {}", asked.path.display(), in_words(&contents));
                println!(
                    "Master key and key ring are not in it, and without them it cannot be read. \
                     Keep them apart from it: keys export PATH, and a copy of the master key"
                );
            }
        }
        Ok(())
    })
}

pub(super) fn restore(
    config: Option<&Path>,
    asked: &RestoreArguments,
    format: Format,
) -> Result<(), Failure> {
    let settings = settings(config)?;
    on_runtime(async {
        let clock = Clock::system();
        let url = app::database_url(&settings.database)?;
        let ring = app::ring_place(&settings)?;
        let aside = url.file().filter(|_| asked.replace).map(|path| {
            let mut aside = path.as_os_str().to_owned();
            aside.push(format!(".before-{}", clock.now().as_millisecond()));
            PathBuf::from(aside)
        });
        let restored = store::restore(&asked.path, &url, aside.as_deref(), &ring, clock).await;
        let restored = restored.map_err(|cause| {
            if let BackupError::Exists(path) = &cause {
                let path = path.display();
                return Failure::No(format!("{path} exists: say --replace to put it aside"));
            }
            failure(cause)
        })?;
        match format {
            Format::Json => println!("{}", restored_json(&restored)),
            Format::Text => print_restored(&restored),
        }
        Ok(())
    })
}

fn restored_json(restored: &Restored) -> Value {
    let aside = restored.aside.as_ref();
    let more = [
        ("leases_void", json!(restored.leases)),
        ("aside", json!(aside.map(|path| path.display().to_string()))),
    ];
    report(&restored.contents, more)
}

fn print_restored(restored: &Restored) {
    println!("restored: {}", in_words(&restored.contents));
    println!("{} leases were void and are due again", restored.leases);
    if let Some(aside) = &restored.aside {
        println!("the database of before is {}", aside.display());
    }
    println!(
        "What was accepted, taken over, revoked or applied after the backup is not known any \
         more: see docs/backup.md before you serve"
    );
}

/// What a backup holds, and more.
fn report<const N: usize>(contents: &Contents, more: [(&str, Value); N]) -> Value {
    let newest = contents.newest_received_at.map(|at| at.to_string());
    let contents = [
        ("messages", json!(contents.messages)),
        ("undelivered", json!(contents.undelivered)),
        ("dead", json!(contents.dead)),
        ("parked", json!(contents.parked)),
        ("newest_received_at", json!(newest)),
    ];
    let all = contents.into_iter().chain(more);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn in_words(contents: &Contents) -> String {
    let newest = contents
        .newest_received_at
        .map_or_else(|| "none".to_owned(), |at| at.to_string());
    format!(
        "{} messages, {} undelivered, {} dead, {} parked parts, newest message received {newest}",
        contents.messages, contents.undelivered, contents.dead, contents.parked
    )
}

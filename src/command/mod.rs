//! The commands of the binary: each turns arguments into calls and results
//! into text and an exit code.
//!
//! Exit codes: 0 fine, 1 the answer is no, 2 usage or environment. With
//! `--format json` standard output holds JSON objects and nothing else, one a
//! line; a failure is the last of them, `{"error": …}`.

mod apply;
mod backup;
mod check;
mod copy_store;
mod dead;
mod explain;
mod key;
mod keys;
mod migrate;
mod parked;
mod push;
mod serve;
mod validate;

pub use apply::apply_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::app::{Base, StartError};
use crate::clock::Clock;
use crate::config::Settings;
use crate::supervise::tell_panics_by_place;

/// Receives, validates, filters and hands out SIVI absence messages.
#[derive(Debug, Parser)]
#[command(name = "sivi-gateway", version)]
pub struct Arguments {
    /// The settings file. Default: config/gateway.toml, which may be absent.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// How results and errors are written: text, or JSON with one object a line.
    #[arg(long, global = true, value_enum, default_value_t)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon.
    Serve,
    /// Shows the main job on built-in samples: real HTTPS, real store, no set-up.
    Demo(DemoArguments),
    /// Checks messages against schema and rules.
    Validate(ValidateArguments),
    /// Shows what would become of a message, without sending anything.
    Explain(ExplainArguments),
    /// Applies a directory file: parties, tenants, routes.
    Apply(ApplyArguments),
    /// Issues, lists and revokes API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Shows, stops and resumes pushing to receivers, and makes its keys.
    #[command(subcommand)]
    Push(push::PushCommand),
    /// Lists dead letters, shows one, makes them due again, discards one.
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Lists what has no way to go yet, lets it go, or drops it.
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// The keys that seal what is stored: lists, rotates, destroys them.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Writes all messages to one file, also while the daemon runs.
    Backup(backup::BackupArguments),
    /// Puts a backup in the place of the database, while no daemon runs.
    Restore(backup::RestoreArguments),
    /// Checks everything that would make `serve` fail, without serving.
    Check,
    /// Brings the schema of the database up to date. `serve` does so too.
    Migrate(migrate::MigrateArguments),
    /// Moves everything from a database file to an empty PostgreSQL database.
    CopyStore(CopyStoreArguments),
}

/// How results and errors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: results on standard output, errors on standard error.
    #[default]
    Text,
    /// For programs: one object a line on standard output, also for an error.
    Json,
}

impl Format {
    /// Writes one result.
    fn print(self, text: impl fmt::Display, json: &Value) {
        match self {
            Self::Text => println!("{text}"),
            Self::Json => println!("{json}"),
        }
    }

    /// Says why there is no result, and gives the exit code.
    fn fail(self, failure: &Failure) -> ExitCode {
        let (kind, why, code) = match failure {
            Failure::Said => return ExitCode::from(1),
            Failure::No(why) => ("no", why, 1),
            Failure::Environment(why) => ("environment", why, 2),
        };
        match self {
            Self::Text => eprintln!("{why}"),
            Self::Json => println!("{}", json!({ "error": { "kind": kind, "message": why } })),
        }
        ExitCode::from(code)
    }
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Ends after one run instead of serving on.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
struct ValidateArguments {
    /// The messages.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The edition of the standard.
    #[arg(long, default_value = "2017")]
    edition: String,
    /// Only the bare verdict of the schema, without tolerance and rules.
    #[arg(long)]
    schema_only: bool,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The message.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Who would send it.
    #[arg(long, value_name = "ID")]
    party: String,
    /// As if sent on this day, YYYY-MM-DD.
    #[arg(long, value_name = "DATE")]
    as_of: Option<jiff::civil::Date>,
}

#[derive(Debug, Args)]
struct ApplyArguments {
    /// A directory file, or a folder of them.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Shows the changes and makes none.
    #[arg(long)]
    dry_run: bool,
    /// Also removes what the file does not name.
    #[arg(long)]
    prune: bool,
}

#[derive(Args)]
struct CopyStoreArguments {
    /// The database file: sqlite:PATH. Daemons on it answer 503 meanwhile, and
    /// ever after.
    #[arg(long, value_name = "URL")]
    from: String,
    /// The database that takes over: postgres://…, or where its address stands,
    /// env:NAME or `file:PATH`, so that its password stays off the command line.
    #[arg(long, value_name = "URL")]
    to: String,
}

/// An address can hold a password.
impl fmt::Debug for CopyStoreArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyStoreArguments").finish_non_exhaustive()
    }
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key and prints it, once, alone on a line.
    Issue {
        /// Whose key.
        #[arg(long, value_name = "ID")]
        party: String,
        /// Days until it expires; never without.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        days: Option<u32>,
    },
    /// Lists keys, never the keys themselves.
    List,
    /// Ends a key at once.
    Revoke {
        /// Its id, as `key list` shows it.
        id: String,
    },
}

/// Why a command gives no answer.
#[derive(Debug)]
pub enum Failure {
    /// Exit 1: the answer is no.
    No(String),
    /// Exit 1: the answer is no, and what was written says why.
    Said,
    /// Exit 2: usage or environment.
    Environment(String),
}

impl Failure {
    fn environment(cause: impl fmt::Display) -> Self {
        Self::Environment(cause.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(cause: StartError) -> Self {
        Self::environment(cause)
    }
}

impl From<crate::store::Error> for Failure {
    fn from(cause: crate::store::Error) -> Self {
        Self::environment(format!("database: {cause}"))
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let Arguments {
        config,
        format,
        command,
    } = arguments;
    let config = config.as_deref();
    tell_panics_by_place();
    #[cfg(debug_assertions)]
    if let Some(place) = crate::config::die_at() {
        crate::store::die_at(&place);
    }
    let outcome = match command {
        Command::Validate(asked) => return validate::validate(config, &asked, format),
        Command::Serve => serve::serve(config),
        Command::Demo(asked) => demo(&asked, format),
        Command::Explain(asked) => explain::explain(config, &asked, format),
        Command::Apply(asked) => apply::apply(config, &asked, format),
        Command::Key(asked) => key::key(config, &asked, format),
        Command::Dead(asked) => dead::dead(config, &asked, format),
        Command::Parked(asked) => parked::parked(config, &asked, format),
        Command::Push(asked) => push::push(config, &asked, format),
        Command::Keys(asked) => keys::keys(config, &asked, format),
        Command::Backup(asked) => backup::backup(config, &asked, format),
        Command::Restore(asked) => backup::restore(config, &asked, format),
        Command::Check => check::check(config, format),
        Command::Migrate(asked) => migrate::migrate(config, &asked, format),
        Command::CopyStore(asked) => copy_store::copy_store(config, &asked, format),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => format.fail(&failure),
    }
}

/// The demo is a story for people; a program that asks for JSON is told so.
fn demo(asked: &DemoArguments, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return Err(Failure::environment("the demo is written as text only"));
    }
    crate::demo::run(asked.once).map_err(Failure::Environment)
}

/// An object for people, one entry a line.
fn lines(json: &Value) -> String {
    let entries = json.as_object().into_iter().flatten();
    let line = |(key, value): (&String, &Value)| {
        let text = value.as_str().map(str::to_owned);
        format!("{key}: {}", text.unwrap_or_else(|| value.to_string()))
    };
    entries.map(line).collect::<Vec<_>>().join("\n")
}

fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    Settings::load(config).map_err(Failure::environment)
}

/// Runs a short command on one thread.
fn on_runtime<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
    runtime.block_on(future)
}

async fn open(config: Option<&Path>, clock: Clock) -> Result<Base, Failure> {
    Ok(Base::open(settings(config)?, clock).await?)
}

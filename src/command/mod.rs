//! The commands of the binary: each turns arguments into calls and results
//! into text and an exit code.
//!
//! Exit codes: 0 fine, 1 the answer is no, 2 usage or environment.

mod apply;
mod backup;
mod check;
mod explain;
mod key;
mod keys;
mod serve;
mod validate;

pub use apply::apply_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app::{Base, StartError};
use crate::clock::Clock;
use crate::config::Settings;

/// Receives, validates, filters and hands out SIVI absence messages.
#[derive(Debug, Parser)]
#[command(name = "sivi-gateway", version)]
pub struct Arguments {
    /// The settings file. Default: config/gateway.toml, which may be absent.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
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
    /// The keys that seal what is stored: lists, rotates, destroys them.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Writes all messages to one file, also while the daemon runs.
    Backup(backup::BackupArguments),
    /// Puts a backup in the place of the database, while no daemon runs.
    Restore(backup::RestoreArguments),
    /// Checks everything that would make `serve` fail, without serving.
    Check,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
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
    /// Text shows the place in the file; JSON holds one line a file.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
    /// How the plan is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
    List {
        /// How the list is written.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
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
    let Arguments { config, command } = arguments;
    let outcome = match command {
        Command::Validate(asked) => return validate::validate(config.as_deref(), &asked),
        Command::Serve => serve::serve(config.as_deref()),
        Command::Demo(asked) => crate::demo::run(asked.once).map_err(Failure::Environment),
        Command::Explain(asked) => explain::explain(config.as_deref(), &asked),
        Command::Apply(asked) => apply::apply(config.as_deref(), &asked),
        Command::Key(asked) => key::key(config.as_deref(), &asked),
        Command::Keys(asked) => keys::keys(config.as_deref(), &asked),
        Command::Backup(asked) => backup::backup(config.as_deref(), &asked),
        Command::Restore(asked) => backup::restore(config.as_deref(), &asked),
        Command::Check => check::check(config.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::No(why)) => {
            eprintln!("{why}");
            ExitCode::from(1)
        }
        Err(Failure::Environment(why)) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
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

//! `push`: how receivers that are pushed to do, stopping and resuming them, and
//! the keys that sign what they get. No private key is ever shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Format, on_runtime, open};
use crate::app::{self, Base};
use crate::clock::Clock;
use crate::deliver::push::{PairError, make_pair, public_half};
use crate::directory::Party;
use crate::domain::PartyId;
use crate::setup::Setup;
use crate::store::{PushReceiver, PushState, Waiting};

/// Reason of a receiver that a person stopped.
const BY_HAND: &str = "by_hand";

/// What to do with receivers that are pushed to.
#[derive(Debug, Subcommand)]
pub(super) enum PushCommand {
    /// Lists the receivers that are pushed to, and how they do.
    List,
    /// Sends nothing more to a receiver until it is resumed; its queue stays.
    Pause(PushTarget),
    /// Sends to a receiver again, at once, whatever stopped it.
    Resume(PushTarget),
    /// Makes a pair of signing keys: the private half goes to a file, the
    /// public half, alone on a line, is for the receiver.
    MakeKey {
        /// The file, which must not exist. The `secret` of the receiver is `file:PATH`.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Prints the public half of a private signing key.
    PublicKey {
        /// The file of the private half.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// One inbox of a receiver.
#[derive(Debug, Args)]
pub(super) struct PushTarget {
    /// The receiver.
    #[arg(long, value_name = "ID")]
    party: String,
    /// Its test traffic, in place of production.
    #[arg(long)]
    test: bool,
}

pub(super) fn push(
    config: Option<&Path>,
    asked: &PushCommand,
    format: Format,
) -> Result<(), Failure> {
    match asked {
        PushCommand::List => with_store(config, async |base| list(base, format).await),
        PushCommand::Pause(target) => {
            with_store(config, async |base| pause(base, target, format).await)
        }
        PushCommand::Resume(target) => {
            with_store(config, async |base| resume(base, target, format).await)
        }
        PushCommand::MakeKey { path } => show_public(path, make_pair(path), format),
        PushCommand::PublicKey { path } => show_public(path, public_half(path), format),
    }
}

fn with_store(
    config: Option<&Path>,
    work: impl AsyncFnOnce(&Base) -> Result<(), Failure>,
) -> Result<(), Failure> {
    on_runtime(async { work(&open(config, Clock::system()).await?).await })
}

/// The public half of a pair whose private half is in a file.
fn show_public(
    path: &Path,
    public: Result<String, PairError>,
    format: Format,
) -> Result<(), Failure> {
    let public = public.map_err(|cause| match cause {
        PairError::File(_) | PairError::Random => Failure::environment(cause),
        PairError::Key(_) | PairError::Shared => Failure::No(cause.to_string()),
    })?;
    let json = json!({ "file": path.display().to_string(), "public_key": public });
    format.print(&public, &json);
    Ok(())
}

async fn list(base: &Base, format: Format) -> Result<(), Failure> {
    let backlog = base.store.waiting(base.clock.now(), Duration::ZERO).await?;
    if format == Format::Text {
        println!(
            "{:<20} {:<5} {:<8} {:>8} {:>8} {:>8} since and why",
            "party", "test", "state", "failures", "waiting", "held"
        );
    }
    let setup = base.setup().await?;
    for party in pushed_to(&setup) {
        let fault = app::push_fault(party, &setup.settings);
        let party = &party.id;
        for test in [false, true] {
            let one = Shown {
                party,
                test,
                receiver: base.store.push_receiver(party, test).await?,
                fault: fault.as_deref(),
            };
            let is_its = |line: &&Waiting| line.party == *party && line.test == test;
            let its = backlog.iter().filter(is_its);
            let (waiting, held) = its.fold((0, 0), |(due, leased), line| {
                (due + line.due, leased + line.leased)
            });
            match format {
                Format::Json => println!("{}", one.json(waiting, held)),
                Format::Text => {
                    println!(
                        "{:<20} {test:<5} {:<8} {:>8} {waiting:>8} {held:>8} {}",
                        party.as_str(),
                        one.word(),
                        one.receiver.failures,
                        one.since_and_why()
                    );
                }
            }
        }
    }
    Ok(())
}

/// One inbox as it is listed.
struct Shown<'l> {
    party: &'l PartyId,
    test: bool,
    receiver: PushReceiver,
    /// What keeps everything from being sent, as this machine sees it.
    fault: Option<&'l str>,
}

impl Shown<'_> {
    fn word(&self) -> &'static str {
        match (self.receiver.state, self.fault) {
            (PushState::Works, None) => "works",
            (PushState::Works, Some(_)) => "unusable",
            (PushState::PausedUntil(_), _) => "paused",
            (PushState::Stopped, _) => "stopped",
        }
    }

    fn next_probe(&self) -> Option<String> {
        match self.receiver.state {
            PushState::PausedUntil(until) => Some(until.to_string()),
            PushState::Works | PushState::Stopped => None,
        }
    }

    fn json(&self, waiting: u64, held: u64) -> serde_json::Value {
        json!({
            "party": self.party.as_str(),
            "test": self.test,
            "state": self.word(),
            "failures": self.receiver.failures,
            "reason": self.receiver.reason,
            "fault": self.fault,
            "since": self.receiver.changed_at.map(|at| at.to_string()),
            "next_probe": self.next_probe(),
            "waiting": waiting,
            "held": held,
        })
    }

    fn since_and_why(&self) -> String {
        let parts = [
            self.receiver.changed_at.map(|at| at.to_string()),
            self.receiver.reason.clone(),
            self.fault.map(str::to_owned),
            self.next_probe().map(|at| format!("next probe {at}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }
}

async fn pause(base: &Base, target: &PushTarget, format: Format) -> Result<(), Failure> {
    let party = receiver(base, target).await?;
    let changed = base.store.stop_push(&party, target.test, BY_HAND);
    say(target, format, "stopped", changed.await?);
    Ok(())
}

async fn resume(base: &Base, target: &PushTarget, format: Format) -> Result<(), Failure> {
    let party = known(base, target).await?;
    let changed = base.store.resume_push(&party, target.test);
    say(target, format, "works", changed.await?);
    Ok(())
}

fn say(target: &PushTarget, format: Format, state: &str, changed: bool) {
    let PushTarget { party, test } = target;
    let already = if changed { "" } else { " already" };
    let json = json!({ "party": party, "test": test, "state": state, "changed": changed });
    format.print(format_args!("{party}: {state}{already}"), &json);
}

/// The receiver that is meant, if it is pushed to.
async fn receiver(base: &Base, target: &PushTarget) -> Result<PartyId, Failure> {
    let setup = base.setup().await?;
    let found = pushed_to(&setup).find(|party| party.id.as_str() == target.party);
    found.map(|party| party.id.clone()).ok_or_else(|| {
        let party = &target.party;
        Failure::No(format!("there is no party {party:?} that is pushed to"))
    })
}

/// The receiver that is meant: also one that polls since or is gone, as long as
/// something was noted of it.
async fn known(base: &Base, target: &PushTarget) -> Result<PartyId, Failure> {
    let noted = base.store.push_receivers().await?.into_keys();
    let is_meant =
        |(id, test): &(PartyId, bool)| id.as_str() == target.party && *test == target.test;
    match noted.into_iter().find(is_meant) {
        Some((party, _)) => Ok(party),
        None => receiver(base, target).await,
    }
}

fn pushed_to(setup: &Setup) -> impl Iterator<Item = &Party> {
    let parties = setup.directory.directory().parties.values();
    parties.filter(|party| party.is_pushed_to())
}

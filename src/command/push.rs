//! `push`: how receivers that are pushed to do, stopping and resuming them.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Format, on_runtime, open};
use crate::app::Base;
use crate::clock::Clock;
use crate::directory::Delivery;
use crate::domain::PartyId;
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
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        match asked {
            PushCommand::List => list(&base, format).await,
            PushCommand::Pause(target) => pause(&base, target, format).await,
            PushCommand::Resume(target) => resume(&base, target, format).await,
        }
    })
}

async fn list(base: &Base, format: Format) -> Result<(), Failure> {
    let backlog = base.store.waiting(base.clock.now(), Duration::ZERO).await?;
    if format == Format::Text {
        println!(
            "{:<20} {:<5} {:<8} {:>8} {:>8} {:>8} since and why",
            "party", "test", "state", "failures", "waiting", "held"
        );
    }
    for party in receivers(base).await? {
        for test in [false, true] {
            let receiver = base.store.push_receiver(&party, test).await?;
            let is_its = |line: &&Waiting| line.party == party && line.test == test;
            let its = backlog.iter().filter(is_its);
            let (waiting, held) = its.fold((0, 0), |(due, leased), line| {
                (due + line.due, leased + line.leased)
            });
            match format {
                Format::Json => println!("{}", as_json(&party, test, &receiver, waiting, held)),
                Format::Text => {
                    println!(
                        "{:<20} {test:<5} {:<8} {:>8} {waiting:>8} {held:>8} {}",
                        party.as_str(),
                        word(receiver.state),
                        receiver.failures,
                        since(&receiver)
                    );
                }
            }
        }
    }
    Ok(())
}

fn as_json(
    party: &PartyId,
    test: bool,
    receiver: &PushReceiver,
    waiting: u64,
    held: u64,
) -> serde_json::Value {
    let until = match receiver.state {
        PushState::PausedUntil(until) => Some(until.to_string()),
        PushState::Works | PushState::Stopped => None,
    };
    json!({
        "party": party.as_str(),
        "test": test,
        "state": word(receiver.state),
        "failures": receiver.failures,
        "reason": receiver.reason,
        "since": receiver.changed_at.map(|at| at.to_string()),
        "next_probe": until,
        "waiting": waiting,
        "held": held,
    })
}

fn word(state: PushState) -> &'static str {
    match state {
        PushState::Works => "works",
        PushState::PausedUntil(_) => "paused",
        PushState::Stopped => "stopped",
    }
}

fn since(receiver: &PushReceiver) -> String {
    let since = receiver.changed_at.map(|at| at.to_string());
    let next = match receiver.state {
        PushState::PausedUntil(until) => Some(format!("next probe {until}")),
        PushState::Works | PushState::Stopped => None,
    };
    let parts = [since, receiver.reason.clone(), next];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

async fn pause(base: &Base, target: &PushTarget, format: Format) -> Result<(), Failure> {
    let party = receiver(base, target).await?;
    let changed = base.store.stop_push(&party, target.test, BY_HAND);
    say(target, format, "stopped", changed.await?);
    Ok(())
}

async fn resume(base: &Base, target: &PushTarget, format: Format) -> Result<(), Failure> {
    let party = receiver(base, target).await?;
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
    let known = receivers(base).await?;
    let found = known.into_iter().find(|id| id.as_str() == target.party);
    found.ok_or_else(|| {
        let party = &target.party;
        Failure::No(format!("there is no party {party:?} that is pushed to"))
    })
}

async fn receivers(base: &Base) -> Result<Vec<PartyId>, Failure> {
    let setup = base.setup().await?;
    let parties = setup.directory.directory().parties.values();
    let pushed = parties.filter(|party| matches!(party.delivery, Delivery::Push(_)));
    Ok(pushed.map(|party| party.id.clone()).collect())
}

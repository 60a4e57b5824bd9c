//! `push`: how receivers that are pushed to do, stopping and resuming them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Failure, Format, PushCommand, PushTarget, on_runtime, open};
use crate::app::Base;
use crate::clock::Clock;
use crate::directory::Delivery;
use crate::domain::PartyId;
use crate::store::{PushReceiver, PushState, Waiting};

/// Reason of a receiver that a person stopped.
const BY_HAND: &str = "by_hand";

pub(super) fn push(config: Option<&Path>, asked: &PushCommand) -> Result<(), Failure> {
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        match asked {
            PushCommand::List { format } => list(&base, *format).await,
            PushCommand::Pause(target) => pause(&base, target).await,
            PushCommand::Resume(target) => resume(&base, target).await,
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

async fn pause(base: &Base, target: &PushTarget) -> Result<(), Failure> {
    let party = receiver(base, target).await?;
    let changed = base.store.stop_push(&party, target.test, BY_HAND);
    say(target, "stopped", changed.await?);
    Ok(())
}

async fn resume(base: &Base, target: &PushTarget) -> Result<(), Failure> {
    let party = receiver(base, target).await?;
    let changed = base.store.resume_push(&party, target.test);
    say(target, "works", changed.await?);
    Ok(())
}

fn say(target: &PushTarget, state: &str, changed: bool) {
    let PushTarget {
        party,
        test,
        format,
    } = target;
    match format {
        Format::Json => println!(
            "{}",
            json!({ "party": party, "test": test, "state": state, "changed": changed })
        ),
        Format::Text if changed => println!("{party}: {state}"),
        Format::Text => println!("{party}: {state} already"),
    }
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

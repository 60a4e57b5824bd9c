//! `parked`: lists what has no way to go yet, lets it go, or drops it.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Format, lines, on_runtime, open, serve};
use crate::app::Base;
use crate::clock::Clock;
use crate::letters::PAGE_MAX;
use crate::letters::parked::{self, ParkedAsked};
use crate::receive::{Intake, Unparked};
use crate::setup::Current;
use crate::store::ParkedSummary;

/// What to do with parked parts.
#[derive(Debug, Subcommand)]
pub(super) enum ParkedCommand {
    /// Lists them, oldest first.
    List(ListArguments),
    /// Shows one, without anything about persons.
    Show {
        /// Its id, as `parked list` shows it.
        id: String,
    },
    /// Runs parts through the stages again, as the daemon does by itself when
    /// the configuration changes: what has a way to go, goes.
    Retry(RetryArguments),
    /// Drops one. It is gone; its sender sees it.
    Discard {
        /// Its id, as `parked list` shows it.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: ParkedAsked,
    /// Only behind the one with this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// At most so many; all without.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct RetryArguments {
    /// One part, as `parked list` shows it.
    id: Option<String>,
    #[command(flatten)]
    filter: ParkedAsked,
    /// Every parked part.
    #[arg(long)]
    all: bool,
}

pub(super) fn parked(
    config: Option<&Path>,
    asked: &ParkedCommand,
    format: Format,
) -> Result<(), Failure> {
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        match asked {
            ParkedCommand::List(asked) => list(&base, asked, format).await,
            ParkedCommand::Show { id } => show(&base, id, format).await,
            ParkedCommand::Retry(asked) => retry(&base, asked, format).await,
            ParkedCommand::Discard { id } => discard(&base, id, format).await,
        }
    })
}

async fn list(base: &Base, asked: &ListArguments, format: Format) -> Result<(), Failure> {
    let now = base.clock.now();
    let mut filter = asked.filter.filter(now).map_err(Failure::environment)?;
    filter.after.clone_from(&asked.after);
    if format == Format::Text {
        println!(
            "{:<36} {:<20} {:<20} {:<24} {:<24} {:>7} {:>9}",
            "id", "party", "tenant", "reason", "received", "persons", "bytes"
        );
    }
    let mut left = asked.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = base.store.parked_page(&filter, left.min(PAGE_MAX)).await?;
        for part in &page.parts {
            format.print(row(part), &parked::part_json(part, now));
        }
        left -= page.parts.len();
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn row(part: &ParkedSummary) -> String {
    format!(
        "{:<36} {:<20} {:<20} {:<24} {:<24} {:>7} {:>9}",
        part.id,
        part.party.as_str(),
        part.tenant.as_ref().map_or("(unknown)", |id| id.as_str()),
        part.reason.as_str(),
        part.received_at.to_string(),
        part.persons,
        part.bytes,
    )
}

async fn show(base: &Base, id: &str, format: Format) -> Result<(), Failure> {
    let part = base.store.parked_summary(id).await?.ok_or_else(gone)?;
    let json = parked::part_json(&part, base.clock.now());
    format.print(lines(&json), &json);
    Ok(())
}

fn gone() -> Failure {
    Failure::No(
        "there is no such parked part: it was released or dropped, or it never was".to_owned(),
    )
}

async fn retry(base: &Base, asked: &RetryArguments, format: Format) -> Result<(), Failure> {
    let named = asked.id.is_some();
    let filtered = asked.all || !asked.filter.is_everything();
    if named == filtered {
        return Err(Failure::environment(
            "say which parked part, or which of them by a filter or --all",
        ));
    }
    serve::start_log(&base.foundation.settings, None);
    let (_replace, current) = Current::new(base.setup().await?);
    let intake = base.intake(current);
    match &asked.id {
        Some(id) => retry_one(&intake, id, format).await,
        None => retry_all(&intake, &asked.filter, format).await,
    }
}

async fn retry_one(intake: &Intake, id: &str, format: Format) -> Result<(), Failure> {
    let became = parked::retry(intake, id).await?;
    let text = match &became {
        Unparked::Released { releases } => format!("released: {releases} messages are due"),
        Unparked::Waits(reasons) => {
            let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
            format!("still waiting: {}", reasons.join(", "))
        }
        Unparked::Unreadable => "still waiting: it cannot be read any more".to_owned(),
        Unparked::Gone => return Err(gone()),
    };
    format.print(text, &parked::retry_json(id, &became));
    match became {
        Unparked::Released { .. } | Unparked::Gone => Ok(()),
        Unparked::Waits(_) | Unparked::Unreadable => Err(Failure::Said),
    }
}

async fn retry_all(intake: &Intake, asked: &ParkedAsked, format: Format) -> Result<(), Failure> {
    let filter = asked.filter(intake.clock.now());
    let filter = filter.map_err(Failure::environment)?;
    let retried = parked::retry_all(intake, &filter).await?;
    let mut text = format!(
        "{} released, {} still waiting",
        retried.released, retried.waiting
    );
    for (reason, count) in &retried.reasons {
        text.push_str(&format!("\n{count} × {}", reason.as_str()));
    }
    format.print(text, &parked::retried_json(&retried));
    Ok(())
}

async fn discard(base: &Base, id: &str, format: Format) -> Result<(), Failure> {
    serve::start_log(&base.foundation.settings, None);
    if !parked::discard(&base.store, id, base.clock.now()).await? {
        return Err(gone());
    }
    format.print(
        format_args!("discarded {id}"),
        &json!({ "id": id, "result": "discarded" }),
    );
    Ok(())
}

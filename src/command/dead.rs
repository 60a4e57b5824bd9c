//! `dead`: lists dead letters, shows one, makes them due again, discards one.
//!
//! Works on the store, with and without a running daemon: a waiting receiver
//! looks by itself every few seconds.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Failure, Format, lines, on_runtime, open, serve};
use crate::app::Base;
use crate::clock::Clock;
use crate::letters::PAGE_MAX;
use crate::letters::dead::{self, DeadAsked};
use crate::store::{DeadLetter, Discard, Replay, Retry};

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// Lists them, oldest first.
    List(ListArguments),
    /// Shows one, without anything about persons.
    Show {
        /// Its id, as `dead list` shows it.
        id: String,
    },
    /// Makes one due again, at the end of its inbox.
    Retry {
        /// Its id, as `dead list` shows it.
        id: String,
        /// Also when its receiver has newer messages about its cases.
        #[arg(long)]
        overtaken: bool,
    },
    /// Makes all due again that the filter names, in their order.
    Replay(ReplayArguments),
    /// Gives one up for good. Its content is gone; its sender sees it as dead.
    Discard {
        /// Its id, as `dead list` shows it.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: DeadAsked,
    /// Only behind the one with this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// At most so many; all without.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    filter: DeadAsked,
    /// Every dead letter; needed when there is no filter.
    #[arg(long)]
    all: bool,
    /// Shows the counts and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also those whose receiver has newer messages about their cases.
    #[arg(long)]
    overtaken: bool,
}

pub(super) fn dead(
    config: Option<&Path>,
    asked: &DeadCommand,
    format: Format,
) -> Result<(), Failure> {
    on_runtime(async {
        let base = open(config, Clock::system()).await?;
        match asked {
            DeadCommand::List(asked) => list(&base, asked, format).await,
            DeadCommand::Show { id } => show(&base, id, format).await,
            DeadCommand::Retry { id, overtaken } => retry(&base, id, *overtaken, format).await,
            DeadCommand::Replay(asked) => replay(&base, asked, format).await,
            DeadCommand::Discard { id } => discard(&base, id, format).await,
        }
    })
}

async fn list(base: &Base, asked: &ListArguments, format: Format) -> Result<(), Failure> {
    let filter = asked.filter.filter().map_err(Failure::environment)?;
    if format == Format::Text {
        println!(
            "{:<36} {:<20} {:<20} {:<24} {:<24} {:>8} {:>9} code",
            "id", "party", "tenant", "message", "died", "attempts", "overtaken"
        );
    }
    let mut after = asked.after.clone();
    let mut left = asked.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let limit = left.min(PAGE_MAX);
        let page = base.store.dead_letters(&filter, after.as_deref(), limit);
        let page = page.await?;
        for letter in &page.letters {
            format.print(row(letter), &dead::letter_json(letter));
        }
        left -= page.letters.len();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn row(letter: &DeadLetter) -> String {
    let gone = if letter.has_content {
        ""
    } else {
        ", content gone"
    };
    format!(
        "{:<36} {:<20} {:<20} {:<24} {:<24} {:>8} {:>9} {}{gone}",
        letter.id,
        letter.party.as_str(),
        letter.tenant.as_str(),
        letter.message_type,
        letter.died_at.to_string(),
        letter.attempts,
        letter.overtaken,
        letter.rejection.code.as_deref().unwrap_or("(not shown)"),
    )
}

async fn show(base: &Base, id: &str, format: Format) -> Result<(), Failure> {
    let letter = base.store.dead_letter(id).await?;
    let letter = letter.ok_or_else(unknown)?;
    let json = dead::letter_json(&letter);
    format.print(lines(&json), &json);
    Ok(())
}

fn unknown() -> Failure {
    Failure::No("there is no dead letter with this id".to_owned())
}

async fn retry(base: &Base, id: &str, overtaken: bool, format: Format) -> Result<(), Failure> {
    serve::start_log(&base.foundation.settings, None);
    let overtaken = dead::overtaken(overtaken);
    let retry = dead::retry(&base.store, id, overtaken).await?;
    let text = match retry {
        Retry::Due { sequence } => format!("due again as number {sequence}"),
        Retry::NotDead(state) => format!("not dead but {}: nothing was changed", state.as_str()),
        Retry::Overtaken { by } => {
            format!(
                "its receiver has {by} newer messages about its cases: say --overtaken to send it all the same"
            )
        }
        Retry::Discarded => "it was discarded: ask its sender for it again".to_owned(),
        Retry::NoContent => "its content is gone: ask its sender for it again".to_owned(),
        Retry::Unknown => return Err(unknown()),
    };
    format.print(text, &dead::retry_json(id, retry));
    match retry {
        Retry::Overtaken { .. } | Retry::Discarded | Retry::NoContent => Err(Failure::Said),
        Retry::Due { .. } | Retry::NotDead(_) | Retry::Unknown => Ok(()),
    }
}

async fn discard(base: &Base, id: &str, format: Format) -> Result<(), Failure> {
    serve::start_log(&base.foundation.settings, None);
    let discard = dead::discard(&base.store, id).await?;
    let text = match discard {
        Discard::Done => format!("discarded {id}"),
        Discard::Already => format!("{id} is discarded already"),
        Discard::NotDead(state) => format!("not dead but {}: nothing was changed", state.as_str()),
        Discard::Unknown => return Err(unknown()),
    };
    format.print(text, &dead::discard_json(id, discard));
    match discard {
        Discard::NotDead(_) => Err(Failure::Said),
        Discard::Done | Discard::Already | Discard::Unknown => Ok(()),
    }
}

async fn replay(base: &Base, asked: &ReplayArguments, format: Format) -> Result<(), Failure> {
    if asked.filter.is_everything() && !asked.all {
        return Err(Failure::environment(
            "say which dead letters, or --all for every one",
        ));
    }
    let filter = asked.filter.filter().map_err(Failure::environment)?;
    let overtaken = dead::overtaken(asked.overtaken);
    let replay = if asked.dry_run {
        base.store.preview_replay(&filter, overtaken).await?
    } else {
        serve::start_log(&base.foundation.settings, None);
        dead::replay(&base.store, &filter, overtaken).await?
    };
    let json = dead::replay_json(&replay, asked.dry_run);
    format.print(counts(&replay, asked.dry_run, &json), &json);
    Ok(())
}

fn counts(replay: &Replay, dry_run: bool, json: &Value) -> String {
    let mut text = String::new();
    for group in json
        .get("groups")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let word = |key: &str| match group.get(key) {
            Some(Value::Null) | None => "(not shown)".to_owned(),
            Some(value) => value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        };
        text.push_str(&format!(
            "{} {} {} {} {}: {} dead, {} due, {} overtaken\n",
            word("party"),
            word("tenant"),
            word("domain"),
            word("message_type"),
            word("code"),
            word("matched"),
            word("due"),
            word("overtaken"),
        ));
    }
    let end = if dry_run {
        "would be due again; dry run: nothing was changed"
    } else {
        "are due again"
    };
    text.push_str(&format!("{} of {} {end}", replay.due, replay.matched));
    text
}

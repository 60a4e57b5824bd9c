//! `migrate`: the schema of the configured database up to date.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{Failure, Format, on_runtime, settings};
use crate::app;
use crate::clock::Clock;
use crate::store::{self, Migrated};

#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    /// Also begins with an empty store where the key ring was in use with
    /// another one. What that one held is not known any more.
    #[arg(long)]
    new_store: bool,
}

pub(super) fn migrate(
    config: Option<&Path>,
    asked: &MigrateArguments,
    format: Format,
) -> Result<(), Failure> {
    let settings = settings(config)?;
    let url = app::database_url(&settings.database)?;
    let (Migrated { from, to }, is_new) = on_runtime(async {
        let migrated = store::migrate(&url, Clock::system()).await?;
        if !asked.new_store {
            return Ok((migrated, None));
        }
        let ring = app::ring_place(&settings)?;
        let is_new = store::begin_anew(&url, &ring, Clock::system()).await?;
        Ok((migrated, Some(is_new)))
    })?;
    let mut text = if from == to {
        format!("nothing to do: the schema has version {to}")
    } else {
        format!("the schema went from version {from} to version {to}")
    };
    let object = match is_new {
        None => json!({ "from": from, "to": to }),
        Some(is_new) => {
            text.push_str(if is_new {
                "; it is a new store, in use from now on"
            } else {
                "; it was in use as a store already, and stays as it is"
            });
            json!({ "from": from, "to": to, "new_store": is_new })
        }
    };
    format.print(text, &object);
    Ok(())
}

//! `migrate`: the schema of the configured database up to date.

use std::path::Path;

use serde_json::json;

use super::{Failure, Format, on_runtime, settings};
use crate::app;
use crate::clock::Clock;
use crate::store::{self, Migrated};

pub(super) fn migrate(config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let settings = settings(config)?;
    let url = app::database_url(&settings.database)?;
    let Migrated { from, to } = on_runtime(async {
        let migrated = store::migrate(&url, Clock::system()).await;
        Ok(migrated?)
    })?;
    let text = if from == to {
        format!("nothing to do: the schema has version {to}")
    } else {
        format!("the schema went from version {from} to version {to}")
    };
    format.print(text, &json!({ "from": from, "to": to }));
    Ok(())
}

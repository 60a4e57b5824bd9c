//! `copy-store`: a site grows out of one machine without loss.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CopyStoreArguments, Failure, Format, on_runtime, settings};
use crate::app;
use crate::clock::Clock;
use crate::config;
use crate::store::{self, Copied, CopyError, DatabaseUrl, Step};

/// Pause between two lines about the same table.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn copy_store(
    config: Option<&Path>,
    asked: &CopyStoreArguments,
    format: Format,
) -> Result<(), Failure> {
    let settings = settings(config)?;
    let from = named("--from", &asked.from)?;
    let to = named("--to", &asked.to)?;
    let ring = app::ring_in_use(&settings)?;
    let mut progress = Progress::new();
    let copied = on_runtime(async {
        let mut watch = |step| progress.show(step);
        store::copy_store(&from, &to, &ring, &Clock::system(), &mut watch)
            .await
            .map_err(Failure::from)
    })?;
    format.print(text(&copied, &to), &object(&copied, &to));
    Ok(())
}

/// Nothing of the text is repeated: it may hold a password.
pub(super) fn named(argument: &str, address: &str) -> Result<DatabaseUrl, Failure> {
    let fault =
        |cause: &dyn std::fmt::Display| Failure::environment(format!("{argument}: {cause}"));
    let database = config::database_named(address).map_err(|cause| fault(&cause))?;
    app::database_url(&database).map_err(|_| fault(&store::UnknownDatabase))
}

impl From<CopyError> for Failure {
    fn from(cause: CopyError) -> Self {
        let why = format!("copy-store: {cause}");
        match cause {
            CopyError::Occupied(_) | CopyError::MovedElsewhere { .. } => Self::No(why),
            CopyError::Direction
            | CopyError::Source(_)
            | CopyError::Target(_)
            | CopyError::Unlisted { .. }
            | CopyError::Differs { .. }
            | CopyError::Unsettled(_) => Self::Environment(why),
        }
    }
}

fn object(copied: &Copied, to: &DatabaseUrl) -> Value {
    let (status, rows) = match copied {
        Copied::Now(rows) => ("copied", rows.as_slice()),
        Copied::Before => ("copied_before", [].as_slice()),
    };
    let tables: Vec<_> = rows
        .iter()
        .map(|(table, rows)| json!({ "table": table, "rows": rows }))
        .collect();
    json!({ "status": status, "to": to.to_string(), "tables": tables })
}

fn text(copied: &Copied, to: &DatabaseUrl) -> String {
    let done = match copied {
        Copied::Now(rows) => {
            let line = |(table, rows): &(_, u64)| format!("{table:<20} {rows:>12}\n");
            let lines: String = rows.iter().map(line).collect();
            format!(
                "{lines}everything was copied to {to} and compared; the old file takes nothing more"
            )
        }
        Copied::Before => format!("everything was copied to {to} before: nothing was changed"),
    };
    format!("{done}\nset database.url to it and start the daemons")
}

/// Tells a person who waits how far it came.
struct Progress {
    table: &'static str,
    shown: Instant,
}

impl Progress {
    fn new() -> Self {
        Self {
            table: "",
            shown: Instant::now(),
        }
    }

    fn show(&mut self, step: Step) {
        match step {
            Step::Copying { table, rows } => {
                if table != self.table || self.shown.elapsed() > QUIET {
                    eprintln!("copying {table}: {rows} rows");
                    self.table = table;
                    self.shown = Instant::now();
                }
            }
            Step::Comparing { table } => eprintln!("comparing {table}"),
            Step::Closing => eprintln!("closing the old file"),
            Step::Opening => eprintln!("handing over"),
        }
    }
}

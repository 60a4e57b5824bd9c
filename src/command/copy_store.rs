//! `copy-store`: a site grows out of one machine without loss.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{CopyStoreArguments, Failure, Format, on_runtime, settings};
use crate::app;
use crate::clock::Clock;
use crate::config;
use crate::store::{self, Copied, CopyError, DatabaseUrl, Step};

/// Pause between two lines about the same table.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn copy_store(config: Option<&Path>, asked: &CopyStoreArguments) -> Result<(), Failure> {
    let settings = settings(config)?;
    let from = named("--from", &asked.from)?;
    let to = named("--to", &asked.to)?;
    let keys = app::keys_in_use(&settings)?;
    let mut progress = Progress::new();
    let copied = on_runtime(async {
        let mut watch = |step| progress.show(step);
        store::copy_store(&from, &to, &keys, &Clock::system(), &mut watch)
            .await
            .map_err(Failure::from)
    })?;
    match format {
        Format::Json => print_json(&copied, &to),
        Format::Text => print_text(&copied, &to),
    }
    Ok(())
}

/// Nothing of the text is repeated: it may hold a password.
fn named(argument: &str, text: &str) -> Result<DatabaseUrl, Failure> {
    let fault =
        |cause: &dyn std::fmt::Display| Failure::environment(format!("{argument}: {cause}"));
    let database = config::database_named(text).map_err(|cause| fault(&cause))?;
    app::database_url(&database).map_err(|_| fault(&store::UnknownDatabase))
}

impl From<CopyError> for Failure {
    fn from(cause: CopyError) -> Self {
        let text = format!("copy-store: {cause}");
        match cause {
            CopyError::Occupied(_) | CopyError::MovedElsewhere { .. } => Self::No(text),
            CopyError::Direction
            | CopyError::Source(_)
            | CopyError::Target(_)
            | CopyError::Unlisted { .. }
            | CopyError::Differs { .. }
            | CopyError::Unsettled(_) => Self::Environment(text),
        }
    }
}

fn print_json(copied: &Copied, to: &DatabaseUrl) {
    let (status, rows) = match copied {
        Copied::Now(rows) => ("copied", rows.as_slice()),
        Copied::Before => ("copied_before", [].as_slice()),
    };
    let tables: Vec<_> = rows
        .iter()
        .map(|(table, rows)| json!({ "table": table, "rows": rows }))
        .collect();
    let line = json!({ "status": status, "to": to.to_string(), "tables": tables });
    println!("{line}");
}

fn print_text(copied: &Copied, to: &DatabaseUrl) {
    match copied {
        Copied::Now(rows) => {
            for (table, rows) in rows {
                println!("{table:<20} {rows:>12}");
            }
            println!("everything was copied to {to} and compared; the old file takes nothing more");
        }
        Copied::Before => println!("everything was copied to {to} before: nothing was changed"),
    }
    println!("set database.url to it and start the daemons");
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

//! `validate`: findings of files, as on receipt or by the bare schema.

use std::io::{BufWriter, stdout};
use std::path::Path;
use std::process::ExitCode;

use super::{Failure, Format, ValidateArguments, settings};
use crate::clock::Clock;
use crate::receive::examine;
use crate::setup::{Foundation, Standing};
use crate::validate::command::{self, Receipt, UNREADABLE};

/// Judges files as a party with the default mapping would be judged.
pub(super) fn validate(
    config: Option<&Path>,
    asked: &ValidateArguments,
    format: Format,
) -> ExitCode {
    match prepared(config, asked) {
        Ok((foundation, standing)) => judge(&foundation, &standing, asked, format),
        Err(failure) => format.fail(&failure),
    }
}

fn prepared(
    config: Option<&Path>,
    asked: &ValidateArguments,
) -> Result<(Foundation, Standing), Failure> {
    let foundation = Foundation::load(settings(config)?).map_err(Failure::environment)?;
    let standing = foundation
        .standing(&asked.edition, "default")
        .map_err(Failure::environment)?;
    Ok((foundation, standing))
}

fn judge(
    foundation: &Foundation,
    standing: &Standing,
    asked: &ValidateArguments,
    format: Format,
) -> ExitCode {
    let today = Clock::system().today();
    let rules = |body: &[u8]| examine(standing, &foundation.policy, body, today);
    let receipt = Receipt {
        tolerance: &standing.tolerance,
        rules: &rules,
    };
    let receipt = (!asked.schema_only).then_some(receipt);
    let format = match format {
        Format::Text => command::Format::Text,
        Format::Json => command::Format::Json,
    };
    let mut out = BufWriter::new(stdout().lock());
    let judged = command::run(&asked.files, &standing.edition, format, receipt, &mut out);
    ExitCode::from(judged.unwrap_or(UNREADABLE))
}

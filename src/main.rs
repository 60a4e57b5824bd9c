//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use sivi_gateway::command::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::parse())
}

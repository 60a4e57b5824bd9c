//! Judges the files named as arguments with the bare verdict, for
//! `benches/validate.sh`. Not a harness: the shell script takes the time.

use sivi_gateway::validate::{Editions, command};
use std::io::{BufWriter, stdout};
use std::path::PathBuf;

fn main() {
    // Cargo adds `--bench` to what it is given.
    let files: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .map(PathBuf::from)
        .collect();
    let editions = Editions::load(None).expect("the built-in editions are tested");
    let edition = editions.get("2017").expect("2017 is built in");
    let mut out = BufWriter::new(stdout().lock());
    let code = command::run(&files, edition, command::Format::Json, None, &mut out);
    assert_eq!(code.expect("standard output takes it"), command::VALID);
}

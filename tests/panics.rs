//! What a panic says is told to nobody: it may hold what it met.

use std::process::Command;

use sivi_gateway::supervise::tell_panics_by_place;

/// Set for the process that panics.
const PANICS: &str = "SIVI_TEST_PANICS";

#[test]
fn a_panic_is_told_by_its_place_alone() {
    let value = "Zonderling";
    if std::env::var(PANICS).is_ok() {
        tell_panics_by_place();
        panic!("cannot read {value}");
    }
    let name = "a_panic_is_told_by_its_place_alone";
    let panicking = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(PANICS, "1")
        .output()
        .unwrap();
    assert!(!panicking.status.success());
    let said = String::from_utf8([panicking.stdout, panicking.stderr].concat()).unwrap();
    assert!(
        said.contains("a fault of ours at tests/panics.rs:"),
        "{said}"
    );
    assert!(!said.contains(value), "{said}");
}

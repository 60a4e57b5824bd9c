//! Every input that once broke something stays harmless.

use sivi_gateway::validate::{Editions, Mode, Tolerance, read, validate};

#[test]
fn what_the_fuzzer_found_is_judged_without_a_panic() {
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/fuzz");
    for entry in std::fs::read_dir(folder).unwrap() {
        let body = std::fs::read(entry.unwrap().path()).unwrap();
        let bare = validate(edition, body.as_slice(), Mode::SchemaOnly).unwrap();
        let receipt = read(edition, &body, &Tolerance::default());
        assert!(!bare.is_valid() || receipt.is_ok());
    }
}

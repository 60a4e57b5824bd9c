//! No input makes the reader or the validator panic, and what the bare
//! verdict of the schema accepts is accepted on receipt.
//!
//! `cargo fuzz run validate fuzz/corpus/validate tests/samples/valid`; keep
//! every finding in `tests/samples/fuzz/`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sivi_gateway::domain::Code;
use sivi_gateway::validate::{Edition, Editions, Keep, Mode, Tolerance, read, validate};
use std::sync::{Arc, LazyLock};

static EDITION: LazyLock<Arc<Edition>> = LazyLock::new(|| {
    let editions = Editions::load(None).expect("the built-in editions are tested");
    Arc::clone(editions.get("2017").expect("2017 is built in"))
});

fuzz_target!(|body: &[u8]| {
    let tolerance = Tolerance {
        empty_is_absent: true,
        ..Tolerance::default()
    };
    let bare = validate(&EDITION, body, Mode::SchemaOnly).expect("a slice can be read");
    match read(&EDITION, body, &tolerance) {
        Ok(read) => {
            let mut written = Vec::new();
            read.document.write_xml(&mut written, |_| Keep::AsIs);
            assert!(validate(&EDITION, body, Mode::Tolerant(&tolerance)).is_ok());
        }
        Err(rejected) => {
            // Receipt takes no processing instruction and no declaration of a
            // namespace that the recommendation forbids.
            let stricter = [Code::InstructionForbidden, Code::NotWellFormed];
            let forgiven = rejected.findings.iter().any(|finding| stricter.contains(&finding.code));
            assert!(!bare.is_valid() || forgiven);
        }
    }
});

//! The bare verdict against libxml2's, on thousands of mutated messages.
//!
//! Deterministic: the same seed makes the same mutants. `SIVI_MUTANTS` sets
//! the number per kind of message, `SIVI_MUTANT_SEED` another seed.
//!
//! Left out, because our answer differs on purpose: a DOCTYPE, encodings that
//! are refused, limits on attributes and names, and a NUL behind the root,
//! where libxml2 stops reading.

mod mutant;

use mutant::Random;
use sivi_gateway::domain::Code;
use sivi_gateway::validate::{Edition, Editions, Mode, Tolerance, validate};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mutants per kind unless the environment says otherwise.
const MUTANTS: usize = 1_500;
/// Files that one xmllint judges.
const BATCH: usize = 500;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn samples(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/valid");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&format!("{kind}."))
        })
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// The documents of a batch that xmllint finds valid.
fn oracle(schema: &Path, folder: &Path, count: usize) -> HashSet<usize> {
    let names: Vec<String> = (0..count).map(|at| format!("{at}.xml")).collect();
    let output = Command::new("xmllint")
        .arg("--nonet")
        .arg("--noout")
        .arg("--schema")
        .arg(schema)
        .args(&names)
        .current_dir(folder)
        .output()
        .expect("this test compares with xmllint: apt-get install libxml2-utils");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_suffix(".xml validates")?.parse().ok())
        .collect()
}

fn valid(edition: &Edition, document: &[u8], mode: Mode<'_>) -> bool {
    validate(edition, document, mode).unwrap().is_valid()
}

#[test]
fn the_bare_verdict_is_that_of_libxml2() {
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let count = number("SIVI_MUTANTS", MUTANTS);
    let seed = number("SIVI_MUTANT_SEED", 2017);
    let tolerance = Tolerance {
        empty_is_absent: true,
        ..Tolerance::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut accepted, mut refused, mut differing) = (0_usize, 0_usize, Vec::new());
    for (kind_number, message) in edition.messages().enumerate() {
        let schema = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("schemas/2017/{}.xsd", message.name));
        let samples = samples(&message.name);
        assert!(!samples.is_empty(), "no samples of {}", message.name);
        let mut random = Random::new((seed * 1_000 + kind_number) as u64);
        let mut left = count;
        while left > 0 {
            let batch: Vec<Vec<u8>> = (0..left.min(BATCH))
                .map(|_| {
                    let sample = random.pick(&samples).as_slice();
                    mutant::mutate(sample, &mut random)
                })
                .collect();
            for (at, document) in batch.iter().enumerate() {
                std::fs::write(folder.path().join(format!("{at}.xml")), document).unwrap();
            }
            let expected = oracle(&schema, folder.path(), batch.len());
            for (at, document) in batch.iter().enumerate() {
                let verdict = validate(edition, document.as_slice(), Mode::SchemaOnly).unwrap();
                let ours = verdict.is_valid();
                // libxml2 knows encodings that we refuse, `UTF--8` among them.
                if verdict
                    .findings
                    .iter()
                    .any(|finding| finding.code == Code::EncodingUnsupported)
                {
                    continue;
                }
                if ours == expected.contains(&at) {
                    accepted += usize::from(ours);
                    refused += usize::from(!ours);
                } else {
                    differing.push((message.name.clone(), ours, document.clone()));
                }
                // Processing instructions and odd namespaces are forgiven
                // in the bare verdict only.
                let forgiven = mutant::has_forgiven(document);
                if ours && !forgiven {
                    assert!(
                        valid(edition, document, Mode::Tolerant(&tolerance)),
                        "receipt is stricter than the schema:\n{}",
                        String::from_utf8_lossy(document)
                    );
                }
            }
            left -= batch.len();
        }
    }
    println!(
        "{accepted} accepted by both, {refused} refused by both, {} differences",
        differing.len()
    );
    if let Ok(keep) = std::env::var("SIVI_KEEP_DIFFERENCES") {
        for (at, (kind, ours, document)) in differing.iter().enumerate() {
            std::fs::write(
                Path::new(&keep).join(format!("{at}.{kind}.{ours}.xml")),
                document,
            )
            .unwrap();
        }
    }
    for (kind, ours, document) in differing.iter().take(3) {
        println!(
            "--- {kind}: we say {ours}\n{}",
            String::from_utf8_lossy(document)
        );
    }
    assert!(differing.is_empty(), "{} differences", differing.len());
    assert!(
        accepted * 20 > refused,
        "too few mutants are valid to say anything"
    );
}

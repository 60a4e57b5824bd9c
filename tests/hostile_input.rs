//! Input that is meant to hurt: it has to cost little and be answered clearly.

use sivi_gateway::domain::Code;
use sivi_gateway::validate::{Edition, Editions, Mode, RejectKind, Tolerance, read, validate};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Far more than any of these needs, far less than quadratic work takes.
const PATIENCE: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "http://www.sivi.org/Verzuimmanagement/Documenten/2017";

fn edition() -> Arc<Edition> {
    Arc::clone(Editions::load(None).unwrap().get("2017").unwrap())
}

/// The last finding, which is the one that ended the pass, on both ways in.
fn ending(document: &[u8]) -> Code {
    let (edition, tolerance) = (edition(), Tolerance::default());
    let start = Instant::now();
    let rejected = read(&edition, document, &tolerance).unwrap_err();
    let verdict = validate(&edition, document, Mode::Tolerant(&tolerance)).unwrap();
    assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
    assert_eq!(rejected.kind, RejectKind::Malformed);
    assert!(verdict.refused && !verdict.is_valid());
    assert_eq!(
        verdict.findings.last().unwrap().code,
        rejected.findings.last().unwrap().code
    );
    rejected.findings.last().unwrap().code
}

/// A document made while it is read.
struct Generated {
    before: Vec<u8>,
    unit: &'static [u8],
    left: u64,
    after: Vec<u8>,
    at: usize,
}

impl Read for Generated {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.before.is_empty() && self.left > 0 {
            self.before = self.unit.repeat(64);
            self.left = self.left.saturating_sub(64);
        }
        let source = if self.before.is_empty() {
            &mut self.after
        } else {
            &mut self.before
        };
        let count = (&source[self.at..]).read(out)?;
        self.at += count;
        if self.at == source.len() {
            source.clear();
            self.at = 0;
        }
        Ok(count)
    }
}

fn generated(before: &str, unit: &'static [u8], times: u64, after: &str) -> impl BufRead {
    BufReader::new(Generated {
        before: before.into(),
        unit,
        left: times,
        after: after.into(),
        at: 0,
    })
}

#[test]
fn sixty_thousand_attributes_are_refused_at_once() {
    let attributes: String = (0..60_000).map(|at| format!(" a{at}=\"\"")).collect();
    assert_eq!(
        ending(format!("<Documenten{attributes}/>").as_bytes()),
        Code::LimitExceeded
    );
}

#[test]
fn sixty_thousand_namespaces_are_refused_at_once() {
    let attributes: String = (0..60_000)
        .map(|at| format!(" xmlns:a{at}=\"u:{at}\""))
        .collect();
    assert_eq!(
        ending(format!("<Documenten{attributes}/>").as_bytes()),
        Code::LimitExceeded
    );
}

#[test]
fn two_hundred_thousand_levels_are_refused_at_once() {
    assert_eq!(
        ending("<a>".repeat(200_000).as_bytes()),
        Code::LimitExceeded
    );
}

#[test]
fn namespaces_that_pile_up_over_the_levels_are_refused() {
    let tag: String = (0..30)
        .map(|at| format!(" xmlns:p{at}=\"u:{at}\""))
        .collect();
    let document = format!("<a{tag}>").repeat(10);
    assert_eq!(ending(document.as_bytes()), Code::LimitExceeded);
}

#[test]
fn long_names_are_refused() {
    let name = "n".repeat(257);
    assert_eq!(ending(format!("<{name}/>").as_bytes()), Code::LimitExceeded);
}

#[test]
fn entities_are_not_expanded() {
    let laughs = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;&x;\">]><a>&y;</a>";
    assert_eq!(ending(laughs.as_bytes()), Code::DoctypeForbidden);
    assert_eq!(
        ending(b"<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>"),
        Code::DoctypeForbidden
    );
    assert_eq!(ending(b"<!doctype a [<!ENTITY"), Code::DoctypeForbidden);
    assert_eq!(ending(b"<a>&y;</a>"), Code::EntityUnknown);
}

#[test]
fn a_text_of_a_hundred_megabytes_is_not_gathered() {
    let (edition, tolerance) = (edition(), Tolerance::default());
    for before in [
        "<a>",
        "<!-- ",
        "<a b=\"",
        "<",
        "<a><![CDATA[",
        "<?p ",
        "</",
        "<!DOCTYPE a [",
        "<a>&",
    ] {
        let before = format!("{before}x");
        let verdict = validate(
            &edition,
            generated(&before, b"xxxxxxxxxxxxxxxx", 6_500_000, ""),
            Mode::Tolerant(&tolerance),
        )
        .unwrap();
        let last = verdict.findings.last().unwrap().code;
        assert!(
            verdict.refused && last == Code::LimitExceeded,
            "{before}: {last}"
        );
    }
}

#[test]
fn a_value_in_many_pieces_is_not_gathered_either() {
    let (edition, tolerance) = (edition(), Tolerance::default());
    let before = format!("<Documenten xmlns=\"{NAMESPACE}\"><BrAlg><BrCd>00500</BrCd><IdInzndr>");
    let verdict = validate(
        &edition,
        generated(&before, b"xxxx<!-- -->&#120;", 6_000_000, ""),
        Mode::Tolerant(&tolerance),
    )
    .unwrap();
    assert_eq!(verdict.findings.last().unwrap().code, Code::LimitExceeded);
}

#[test]
fn two_hundred_thousand_wrong_elements_make_a_hundred_findings() {
    let (edition, tolerance) = (edition(), Tolerance::default());
    let before = format!("<Documenten xmlns=\"{NAMESPACE}\">");
    let start = Instant::now();
    let verdict = validate(
        &edition,
        generated(&before, b"<x/>", 200_000, "</Documenten>"),
        Mode::Tolerant(&tolerance),
    )
    .unwrap();
    assert!(start.elapsed() < PATIENCE * 2);
    assert_eq!(verdict.findings.len(), 101);
    assert_eq!(verdict.findings.last().unwrap().code, Code::TooManyFindings);
    assert!(!verdict.is_valid());
}

#[test]
fn a_document_that_stops_anywhere_is_refused() {
    let sample = include_str!("samples/valid/Documenten.minimal.xml");
    let (edition, tolerance) = (edition(), Tolerance::default());
    let end = sample.rfind('>').unwrap();
    for at in (0..=end).filter(|at| sample.is_char_boundary(*at)) {
        let rejected = read(&edition, &sample.as_bytes()[..at], &tolerance).unwrap_err();
        assert_eq!(rejected.kind, RejectKind::Malformed, "at {at}");
    }
}

#[test]
fn broken_bytes_are_refused() {
    assert_eq!(ending(b"<a>\0</a>"), Code::NotWellFormed);
    assert_eq!(
        ending(b"\0"),
        Code::EncodingUnsupported.min(Code::NotWellFormed)
    );
    assert_eq!(ending(b"<a>\xFF</a>"), Code::EncodingBroken);
    assert_eq!(ending(b"<a \xC3=\"1\"/>"), Code::EncodingBroken);
    assert_eq!(
        ending(b"\xEF\xBB\xBF<?xml version='1.0' encoding='ISO-8859-1'?><a/>"),
        Code::EncodingUnsupported
    );
    assert_eq!(
        ending(b"<?xml version='1.0' encoding='UTF-16'?><a/>"),
        Code::EncodingUnsupported
    );
    assert_eq!(ending(b"\xFF\xFE<\0a\0/\0>\0"), Code::EncodingUnsupported);
    assert_eq!(ending(b"<a/>\0"), Code::NotWellFormed);
    assert_eq!(ending(b"<a><?p?></a>"), Code::InstructionForbidden);
    assert_eq!(ending(b""), Code::NotWellFormed);
}

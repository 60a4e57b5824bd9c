//! What a message is on receipt: findings with their places, what is
//! forgiven, and the tree that comes of it.

use sivi_gateway::domain::{Code, Severity};
use sivi_gateway::parse::places;
use sivi_gateway::validate::{
    Editions, Keep, Mode, Read, RejectKind, Rejected, Term, Tolerance, command, read, validate,
};
use std::borrow::Cow;

const FULL: &str = include_str!("samples/valid/Verzuimmeldingen.full.xml");
const SMALL: &str = include_str!("samples/valid/Verzuimmeldingen.minimal.xml");

fn judge(message: &str, tolerance: &Tolerance) -> Result<Read, Box<Rejected>> {
    let editions = Editions::load(None).unwrap();
    read(editions.get("2017").unwrap(), message.as_bytes(), tolerance)
}

fn forgiving() -> Tolerance {
    Tolerance {
        empty_is_absent: true,
        ..Tolerance::default()
    }
}

/// `code severity path line:column expected` of each finding.
fn findings(message: &str, tolerance: &Tolerance) -> Vec<String> {
    let found = match judge(message, tolerance) {
        Ok(read) => read.findings,
        Err(rejected) => rejected.findings,
    };
    let line = |finding: &sivi_gateway::domain::Finding| {
        let expected = finding.expected.clone().unwrap_or_default();
        let (line, column) = (finding.line, finding.column);
        format!(
            "{} {} {} {line}:{column} {expected}",
            finding.code,
            finding.severity.as_str(),
            finding.path
        )
    };
    found.iter().map(line).collect()
}

/// The sample with one text in place of another, which has to be there.
fn with(sample: &str, old: &str, new: &str) -> String {
    assert!(sample.contains(old), "{old}");
    sample.replacen(old, new, 1)
}

fn line_of(text: &str, needle: &str) -> usize {
    1 + text[..text.find(needle).unwrap()].matches('\n').count()
}

#[test]
fn every_sample_is_read_without_findings() {
    for sample in [FULL, SMALL] {
        let read = judge(sample, &forgiving()).unwrap();
        assert!(read.findings.is_empty());
    }
}

#[test]
fn all_faults_are_reported_in_one_pass_with_their_places() {
    let mut message = with(
        SMALL,
        "<Gebdat>1984-02-29</Gebdat>",
        "<Gebdat>1983-02-29</Gebdat>",
    );
    message = with(
        &message,
        "<HndlsnmOrg>",
        "<Geheim>x</Geheim>é<HndlsnmOrg a=\"1\">",
    );
    let found = findings(&message, &forgiving());
    let (employer, birth) = (line_of(&message, "<Geheim>"), line_of(&message, "<Gebdat>"));
    assert_eq!(
        found,
        [
            format!("element_unknown error Wrkgvr[1]/*[1] {employer}:5 "),
            format!("text_unexpected error Wrkgvr[1] {employer}:23 "),
            format!("attribute_unknown error Wrkgvr[1]/HndlsnmOrg[1] {employer}:24 "),
            format!("value_type error Wrkgvr[1]/Wrknmr[1]/Gebdat[1] {birth}:7 xsd:date"),
        ]
    );
}

#[test]
fn no_finding_repeats_what_the_sender_wrote() {
    for (old, new) in [
        ("<Gebdat>1984-02-29", "<Gebdat>GEHEIM"),
        ("<HndlsnmOrg>", "<GEHEIM/><HndlsnmOrg>"),
        ("<Wrkgvr>", "<Wrkgvr GEHEIM=\"GEHEIM\">"),
        ("<HndlsnmOrg>", "GEHEIM<HndlsnmOrg>"),
        ("<HndlsnmOrg>", "<HndlsnmOrg>&GEHEIM;"),
    ] {
        let message = with(SMALL, old, new);
        let rejected = judge(&message, &forgiving()).unwrap_err();
        assert!(!format!("{rejected:?}").contains("GEHEIM"));
    }
}

#[test]
fn order_and_number_are_judged_with_recovery() {
    let gebdat = "      <Gebdat>1984-02-29</Gebdat>\n";
    let missing = findings(&with(SMALL, gebdat, ""), &forgiving());
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].starts_with("element_missing error Wrkgvr[1]/Wrknmr[1] ")
            && missing[0].ends_with(" Gebdat"),
        "{missing:?}"
    );

    let moved = with(
        &with(SMALL, gebdat, ""),
        "      <IdWrknmr>",
        "      <Gebdat>1984-02-29</Gebdat>\n      <IdWrknmr>",
    );
    let found = findings(&moved, &forgiving());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("element_misplaced error Wrkgvr[1]/Wrknmr[1]/Gebdat[1] "));

    let twice = with(SMALL, gebdat, &gebdat.repeat(2));
    let found = findings(&twice, &forgiving());
    assert!(
        found.len() == 1
            && found[0].starts_with("element_repeated error Wrkgvr[1]/Wrknmr[1]/Gebdat[2] ")
    );
    assert!(found[0].ends_with("at most 1"));
}

#[test]
fn empty_optional_elements_count_as_absent() {
    let empty = with(SMALL, "      <SignNm>", "      <Overldat/>\n      <SignNm>");
    let empty = with(
        &empty,
        "<Wrkgvr>",
        "<AdmKantoor><HndlsnmOrg> </HndlsnmOrg><InschrijvingsnrKvK/></AdmKantoor><Wrkgvr>",
    );
    let read = judge(&empty, &forgiving()).unwrap();
    assert!(read.findings.is_empty());
    let document = read.document;
    assert!(
        document
            .descendants(document.root())
            .all(|node| document.term(node) != Some(Term::Office))
    );
    assert_eq!(findings(&empty, &Tolerance::default()).len(), 2);
    let mandatory = with(SMALL, "<Gebdat>1984-02-29</Gebdat>", "<Gebdat/>");
    assert_eq!(
        judge(&mandatory, &forgiving()).unwrap_err().kind,
        RejectKind::Invalid
    );
    let filled = with(
        SMALL,
        "<Wrkgvr>",
        "<AdmKantoor><HndlsnmOrg>x</HndlsnmOrg><InschrijvingsnrKvK/></AdmKantoor><Wrkgvr>",
    );
    assert!(judge(&filled, &forgiving()).unwrap().findings.is_empty());
}

#[test]
fn roots_namespaces_and_versions_are_forgiven_as_the_mapping_says() {
    let renamed = SMALL
        .replace("Verzuimmeldingen>", "Message>")
        .replace("<Verzuimmeldingen ", "<Message ");
    let alias = Tolerance {
        root_aliases: vec!["Message".to_owned()],
        ..forgiving()
    };
    assert_eq!(
        findings(&renamed, &forgiving()),
        ["root_unexpected error  2:1 Verzuimmeldingen"]
    );
    assert_eq!(
        findings(&renamed, &alias),
        ["root_unexpected warning  2:1 Verzuimmeldingen"]
    );
    assert!(judge(&renamed, &alias).is_ok());

    let nameless = SMALL.replace(
        " xmlns=\"http://www.sivi.org/Verzuimmanagement/Verzuimmeldingen/2017\"",
        "",
    );
    let accepts = Tolerance {
        missing_namespace: true,
        ..forgiving()
    };
    assert!(judge(&nameless, &forgiving()).is_err());
    assert!(judge(&nameless, &accepts).unwrap().findings[0].severity == Severity::Warning);
    let other = SMALL.replace("Verzuimmeldingen/2017", "Verzuimmeldingen/2018");
    assert_eq!(
        judge(&other, &forgiving()).unwrap().findings[0].code,
        Code::NamespaceUnexpected
    );

    let version = with(SMALL, "<VnrBrCd>00006", "<VnrBrCd>00007");
    assert_eq!(
        judge(&version, &forgiving()).unwrap().findings[0].code,
        Code::VersionUnexpected
    );
    let known = Tolerance {
        versions: vec!["00007".to_owned()],
        ..forgiving()
    };
    assert!(judge(&version, &known).unwrap().findings.is_empty());
}

#[test]
fn severities_follow_the_mapping_but_not_for_broken_xml() {
    let mut tolerance = forgiving();
    tolerance
        .severity
        .insert(Code::AttributeUnknown, Some(Severity::Warning));
    tolerance.severity.insert(Code::VersionUnexpected, None);
    tolerance.severity.insert(Code::NotWellFormed, None);
    let message = with(
        &with(SMALL, "<Wrkgvr>", "<Wrkgvr a=\"1\">"),
        "<VnrBrCd>00006",
        "<VnrBrCd>00009",
    );
    assert_eq!(judge(&message, &tolerance).unwrap().findings.len(), 1);
    assert_eq!(
        judge(&with(SMALL, "</Wrkgvr>", ""), &tolerance)
            .unwrap_err()
            .kind,
        RejectKind::Malformed
    );
}

#[test]
fn uncertain_codes_are_warnings_and_others_are_not() {
    let document = include_str!("samples/valid/Documenten.minimal.xml");
    let kind = document
        .split("<SrtDocumentCd>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    let message = with(
        document,
        &format!("<SrtDocumentCd>{kind}"),
        &format!("<SrtDocumentCd>{}", "z".repeat(kind.len())),
    );
    assert_eq!(
        judge(&message, &forgiving()).unwrap().findings[0].code,
        Code::CodeUnknown
    );
    let test = with(SMALL, "<TestJN>N", "<TestJN>X");
    assert_eq!(
        judge(&test, &forgiving()).unwrap_err().findings[0].code,
        Code::ValueCode
    );
}

#[test]
fn a_rejected_message_still_says_whom_to_answer() {
    let message = with(SMALL, "</Wrkgvr>", "</Wrkgvrr>");
    let rejected = judge(&message, &forgiving()).unwrap_err();
    assert_eq!(rejected.berrefnr(), Some("REF-0001"));
    assert!(rejected.receipt_wanted().is_some());
    assert_eq!(rejected.message.as_ref().unwrap().name, "Verzuimmeldingen");
    assert!(!format!("{rejected:?}").contains("REF-0001"));
    let unknown = judge("<Loonaangifte/>", &forgiving()).unwrap_err();
    assert_eq!(
        (unknown.kind, unknown.findings[0].code),
        (RejectKind::Invalid, Code::MessageUnknown)
    );
}

#[test]
fn a_document_is_walked_changed_and_written() {
    let mut document = judge(FULL, &forgiving()).unwrap().document;
    let find = |document: &sivi_gateway::validate::Document, term| {
        document
            .descendants(document.root())
            .find(|node| document.term(*node) == Some(term))
            .unwrap()
    };
    let employee = find(&document, Term::Employee);
    assert_eq!(document.path(employee), "Wrkgvr[1]/Wrknmr[1]");
    assert_eq!(document.child_text(employee, Term::Bsn), Some("111222333"));
    let place = places(FULL.as_bytes(), &[document.offset(employee)]).unwrap()[0];
    assert_eq!(
        usize::try_from(place.line).unwrap(),
        line_of(FULL, "<Wrknmr>")
    );
    assert_eq!(place.column, 5);

    let bsn = document.child(employee, Term::Bsn).unwrap();
    document.remove(bsn);
    assert_eq!(document.child(employee, Term::Bsn), None);
    let id = document.child(employee, Term::EmployeeId).unwrap();
    document.set_text(id, "a longer <key> & more than it was before");
    document.set_text(id, "k&k");
    let mut out = Vec::new();
    document.write_xml(&mut out, |node| match document.term(node) {
        Some(Term::Contact) => Keep::Drop,
        Some(Term::Berrefnr) => Keep::Text(Cow::Borrowed("NEW")),
        _ => Keep::AsIs,
    });
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("<IdWrknmr>k&amp;k</IdWrknmr>") && text.contains("<Berrefnr>NEW</Berrefnr>")
    );
    assert!(!text.contains("<Cntprsn>") && !text.contains('\n'));
    assert_eq!(
        text.matches("<SofiNr>").count() + 1,
        FULL.matches("<SofiNr>").count()
    );
    let again = judge(&text, &forgiving()).unwrap();
    assert!(again.findings.is_empty());
}

#[test]
fn what_is_written_reads_the_same() {
    let document = judge(FULL, &forgiving()).unwrap().document;
    let mut out = Vec::new();
    document.write_xml(&mut out, |_| Keep::AsIs);
    let again = judge(std::str::from_utf8(&out).unwrap(), &forgiving())
        .unwrap()
        .document;
    let rows = |document: &sivi_gateway::validate::Document| {
        let below = document.descendants(document.root());
        below
            .map(|node| (document.path(node), document.text(node).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&document), rows(&again));
}

#[test]
fn the_command_shows_people_the_source_and_programs_none() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (
        folder.path().join("good.xml"),
        folder.path().join("bad.xml"),
    );
    std::fs::write(&good, SMALL).unwrap();
    std::fs::write(&bad, with(SMALL, "1984-02-29", "GEHEIM")).unwrap();
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let run = |files: &[std::path::PathBuf], format| {
        let mut out = Vec::new();
        let code = command::run(files, edition, format, None, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    let (code, text) = run(&[good.clone(), bad.clone()], command::Format::Text);
    assert_eq!(code, 1);
    let line = line_of(SMALL, "<Gebdat>");
    assert!(
        text.contains(&format!("bad.xml:{line}:7: error: value_type: ")),
        "{text}"
    );
    assert!(
        text.contains("          <Gebdat>GEHEIM</Gebdat>\n          ^\n"),
        "{text}"
    );
    let (code, json) = run(&[good.clone(), bad], command::Format::Json);
    assert!(code == 1 && !json.contains("GEHEIM") && json.lines().count() == 2);
    assert!(json.contains(
        "\"valid\":true,\"message_type\":\"Verzuimmeldingen\",\"edition\":\"2017\",\"findings\":[]"
    ));
    assert_eq!(run(&[good.clone()], command::Format::Json).0, 0);
    assert_eq!(
        run(
            &[good, folder.path().join("none.xml")],
            command::Format::Text
        )
        .0,
        2
    );
}

#[test]
fn the_bare_verdict_goes_by_the_root() {
    let editions = Editions::load(None).unwrap();
    let edition = editions.get("2017").unwrap();
    let message = with(SMALL, "<BrCd>00100", "<BrCd>00101");
    let verdict = validate(edition, message.as_bytes(), Mode::SchemaOnly).unwrap();
    assert_eq!(verdict.message.unwrap().name, "Verzuimmeldingen");
    assert_eq!(verdict.findings[0].code, Code::ValueCode);
}

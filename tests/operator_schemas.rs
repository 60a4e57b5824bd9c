//! An operator's own schemas: they replace ours, or say clearly why not.

use sivi_gateway::domain::Code;
use sivi_gateway::validate::{Editions, Mode, SchemaError, Term, validate};
use std::fs;
use std::path::Path;

const RETURN: &str = include_str!("../schemas/2017/Retourmelding1.xsd");
const MESSAGE: &str = include_str!("samples/valid/Retourmelding1.minimal.xml");

fn load(schema: &str) -> Result<Editions, SchemaError> {
    let extra = tempfile::tempdir().unwrap();
    let folder = extra.path().join("2017");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("any name.xsd"), schema).unwrap();
    Editions::load(Some(extra.path()))
}

fn findings(editions: &Editions, message: &str) -> Vec<Code> {
    let edition = editions.get("2017").unwrap();
    let verdict = validate(edition, message.as_bytes(), Mode::SchemaOnly).unwrap();
    verdict
        .findings
        .iter()
        .map(|finding| finding.code)
        .collect()
}

#[test]
fn an_operator_s_schema_replaces_ours() {
    assert!(RETURN.contains("<xsd:maxLength value=\"512\"/>"));
    let stricter = RETURN.replace(
        "<xsd:maxLength value=\"512\"/>",
        "<xsd:maxLength value=\"2\"/>",
    );
    let editions = load(&stricter).unwrap();
    assert!(findings(&editions, MESSAGE).contains(&Code::ValueLength));
    assert_eq!(editions.get("2017").unwrap().messages().count(), 7);
    assert!(findings(&Editions::load(None).unwrap(), MESSAGE).is_empty());
}

#[test]
fn another_namespace_and_root_are_matched_by_the_code_of_the_message() {
    let other = RETURN
        .replace(
            "http://www.sivi.org/Verzuimmanagement/Retourmelding1/2017",
            "urn:other",
        )
        .replace("name=\"Retourmelding1\"", "name=\"Message\"");
    let editions = load(&other).unwrap();
    let schema = editions
        .get("2017")
        .unwrap()
        .message("Retourmelding1")
        .unwrap();
    assert_eq!(
        (schema.root.as_str(), schema.namespace.as_str()),
        ("Message", "urn:other")
    );
    let berrefnr = schema.at_path("Message/BrAlg/Berrefnr").unwrap();
    assert_eq!(berrefnr.term, Some(Term::Berrefnr));
}

#[test]
fn named_types_and_references_are_followed() {
    let schema = r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="urn:x" targetNamespace="urn:x" elementFormDefault="qualified">
        <xs:annotation><xs:documentation>Any <b xmlns="">text</b>.</xs:documentation></xs:annotation>
        <xs:simpleType name="Short"><xs:restriction base="Long"><xs:maxLength value="5"/></xs:restriction></xs:simpleType>
        <xs:simpleType name="Long"><xs:restriction base="xs:string"><xs:minLength value="2"/></xs:restriction></xs:simpleType>
        <xs:complexType name="Head"><xs:sequence><xs:element name="BrCd" type="Short"/></xs:sequence></xs:complexType>
        <xs:element name="BrAlg" type="Head"/>
        <xs:element name="Retourmelding1"><xs:complexType><xs:sequence><xs:element ref="BrAlg" maxOccurs="2"/></xs:sequence></xs:complexType></xs:element>
    </xs:schema>"#;
    let editions = load(schema).unwrap();
    let document = |code: &str| {
        format!("<Retourmelding1 xmlns='urn:x'><BrAlg><BrCd>{code}</BrCd></BrAlg></Retourmelding1>")
    };
    assert!(findings(&editions, &document("12345")).is_empty());
    assert_eq!(findings(&editions, &document("1")), [Code::ValueLength]);
    assert_eq!(
        findings(&editions, &document("123456")),
        [Code::ValueLength]
    );
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let leaf = "<xsd:element name=\"SrtFoutCd\">";
    let line = |text: &str| 1 + RETURN[..RETURN.find(text).unwrap()].matches('\n').count() as u64;
    let choice = RETURN.replace("xsd:sequence>", "xsd:choice>");
    let cases = [
        (choice, 3, "xsd:choice"),
        (
            RETURN.replace(leaf, "<xsd:any/><xsd:element name=\"SrtFoutCd\">"),
            line(leaf),
            "xsd:any",
        ),
        (
            RETURN.replace(leaf, "<xsd:element default=\"x\" name=\"SrtFoutCd\">"),
            line(leaf),
            "default",
        ),
        (
            RETURN.replace(leaf, "<xsd:element nillable=\"true\" name=\"SrtFoutCd\">"),
            line(leaf),
            "nillable",
        ),
        (
            RETURN.replace("type=\"xsd:date\"", "type=\"xsd:gYear\""),
            line("type=\"xsd:date\""),
            "type",
        ),
        (
            RETURN.replace("xsd:pattern value=\"\\D*\"", "xsd:pattern value=\"\\i*\""),
            line("xsd:pattern"),
            "\\i",
        ),
        (
            RETURN.replace("xsd:length ", "xsd:assertion "),
            line("xsd:length "),
            "xsd:assertion",
        ),
        (
            RETURN.replace("elementFormDefault=\"qualified\"", ""),
            2,
            "elementFormDefault",
        ),
        (
            RETURN.replace("</xsd:schema>", "<xsd:import/></xsd:schema>"),
            1 + RETURN.matches('\n').count() as u64 - 1,
            "xsd:import",
        ),
        (RETURN.replace("</xsd:schema>", ""), 0, "well_formed"),
    ];
    for (schema, line, construct) in cases {
        assert_ne!(schema, RETURN, "{construct}");
        let error = load(&schema).unwrap_err();
        assert!(
            error.to_string().contains(construct),
            "{construct}: {error}"
        );
        assert!(
            error.file.ends_with(Path::new("2017/any name.xsd")),
            "{error}"
        );
        if line > 0 {
            assert_eq!(error.line, line, "{error}");
        }
    }
}

#[test]
fn a_new_edition_is_a_folder() {
    let extra = tempfile::tempdir().unwrap();
    let folder = extra.path().join("2031");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("r.xsd"), RETURN.replace("/2017", "/2031")).unwrap();
    let missing = Editions::load(Some(extra.path())).unwrap_err();
    assert!(missing.to_string().contains("edition.toml"));
    let description = r#"
        [terms]
        header = ["BrAlg"]
        message_code = ["BrAlg/BrCd"]
        [[message]]
        name = "Retourmelding1"
        root = "Retourmelding1"
        namespace = "http://www.sivi.org/Verzuimmanagement/Retourmelding1/2031"
        code = "99999"
        version = "00001"
    "#;
    fs::write(folder.join("edition.toml"), description).unwrap();
    let editions = Editions::load(Some(extra.path())).unwrap();
    assert_eq!(editions.names().collect::<Vec<_>>(), ["2017", "2031"]);
    assert!(
        editions
            .get("2031")
            .unwrap()
            .message_by_code("99999")
            .is_some()
    );
}

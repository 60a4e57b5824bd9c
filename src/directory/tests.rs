//! What the directory promises, on the example of the documentation.

use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::*;
use crate::domain::{Domain, PartyId, TenantId};
use crate::toml_file::TomlFile;

const EXAMPLE: &str = r#"
[[party]]
id = "adp"
name = "ADP Nederland"
kind = "payroll"
sender_ids = ["ADP"]
receiver_id = "ADP"
mapping = "adp"
edition = "2017"

[[party]]
id = "arbo-noord"
name = "Arbo Noord"
kind = "arbodienst"
receiver_id = "ARBONOORD"
sender_ids = ["ARBONOORD"]
delivery = { mode = "push", url = "https://arbo.example/in", secret = "file:arbo.secret" }

[[tenant]]
id = "bakkerij-jansen"
name = "Bakkerij Jansen B.V."
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2018-001" }
employer_keys = [{ IdWrkgvrArbdnst = "105", AansltnrGeguitwlngArbdnst = "6431" }]
document_codes = []

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
bsn = "never"
write = { IdWrkgvrArbdnst = "9105" }

[[tenant.route]]
to = "adp"
domain = "werkgever"
from = 2018-01-01
until = 2019-12-31

[[legal_basis]]
id = "lb-1"
tenant = "bakkerij-jansen"
statute = "Arbowet art. 14 lid 5"
purpose = "re-integration of the individual employee"
evidence = "contract 2018-17, annex 3"
requested_by = "operator-1"
from = 2018-01-01
"#;

fn known() -> Known {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    Known {
        mappings: words(&["adp", "default"]),
        editions: words(&["2017"]),
    }
}

fn file(text: &str) -> Result<DirectoryFile, DirectoryError> {
    DirectoryFile::read(vec![TomlFile::parse("d.toml", text.to_owned()).unwrap()])
}

fn applied(text: &str) -> Result<Diff, DirectoryError> {
    file(text)?.onto(&Directory::default(), false, &known())
}

fn directory(text: &str) -> Directory {
    applied(text).unwrap().merged
}

/// A second tenant with these employer keys.
fn with_tenant(keys: &str) -> String {
    format!(
        "{EXAMPLE}\n[[tenant]]\nid = \"cafe\"\nname = \"Café\"\nsource = \"adp\"\nemployer_keys = {keys}\n"
    )
}

fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

fn texts<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
    |tag| {
        pairs
            .iter()
            .find(|(known, _)| *known == tag)
            .map(|(_, text)| *text)
    }
}

const JANSEN: &[(&str, &str)] = &[
    ("HndlsnmOrg", "Bakkerij Jansen"),
    ("IdWrkgvrArbdnst", "105"),
    ("AansltnrGeguitwlngArbdnst", "6431"),
];

#[test]
fn the_documented_example_is_read_with_its_defaults() {
    let directory = directory(EXAMPLE);
    let noord = directory.party(&party("arbo-noord")).unwrap();
    assert_eq!(
        (noord.mapping.as_str(), noord.edition.as_str()),
        ("default", "2017")
    );
    let tenant = directory.tenants.values().next().unwrap();
    assert!(!tenant.executor_name && !tenant.document_names);
    let route = &tenant.routes[1];
    assert_eq!(route.domain, Domain::Werkgever);
    assert_eq!(route.bsn, BsnMode::Never);
    assert!(!route.copy && !route.leavers && !route.receipt);
}

#[test]
fn records_give_the_directory_back() {
    let directory = directory(EXAMPLE);
    let records = directory.to_records();
    let kinds: Vec<&str> = records.iter().map(|record| record.0).collect();
    assert_eq!(kinds, ["party", "party", "tenant", "legal_basis"]);
    assert_eq!(Directory::from_records(records), Ok(directory));
    let broken = Directory::from_records([("party", "adp", "{\"id\":\"adp\"}")]).unwrap_err();
    assert_eq!(
        broken.to_string(),
        "party adp: missing field `name` at line 1 column 12"
    );
}

#[test]
fn a_record_of_an_older_version_takes_the_defaults() {
    let body = r#"{"id":"adp","name":"ADP","kind":"payroll"}"#;
    let directory = Directory::from_records([("party", "adp", body)]).unwrap();
    assert_eq!(directory.parties[&party("adp")].delivery, Delivery::Poll);
}

/// Each row: a text of the example, what takes its place, what that leads to.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "kind = \"payroll\"",
        "kind = \"bank\"",
        "d.toml:5: party[1].kind: unknown kind: expected one of payroll",
    ),
    (
        "kind = \"payroll\"",
        "kind = \"payroll\"\ncolour = 1",
        "d.toml:6: party[1].colour: unknown field",
    ),
    (
        "id = \"adp\"",
        "id = \"ADP\"",
        "d.toml:3: party[1].id: unknown id: expected one of 1 to 64",
    ),
    (
        "id = \"arbo-noord\"",
        "id = \"adp\"",
        "d.toml:12: party[2].id: is also the id at d.toml:2",
    ),
    (
        "mapping = \"adp\"",
        "mapping = \"adpp\"",
        "d.toml:8: party[1].mapping: there is no mapping adpp",
    ),
    (
        "edition = \"2017\"",
        "edition = \"2016\"",
        "d.toml:9: party[1].edition: unknown edition: expected one of 2017",
    ),
    (
        "\"push\"",
        "\"fax\"",
        "d.toml:17: party[2].delivery.mode: must be poll or push",
    ),
    (
        "\"push\"",
        "\"poll\"",
        "d.toml:17: party[2].delivery: a party that polls has no url",
    ),
    (
        "https://arbo",
        "http://arbo",
        "d.toml:17: party[2].delivery.url: must start with https://",
    ),
    (
        "https://arbo",
        "https://me:hush@arbo",
        "d.toml:17: party[2].delivery.url: must not hold a user or password",
    ),
    (
        ", secret = \"file:arbo.secret\"",
        "",
        "d.toml:17: party[2].delivery: push needs a secret",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", previous_secret = \"hush\"",
        "d.toml:17: party[2].delivery.previous_secret: must be file:PATH or env:NAME",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", client_cert = \"file:hush\"",
        "d.toml:17: party[2].delivery: client_cert and client_key go together",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", ca = \"-----BEGIN hush\"",
        "d.toml:17: party[2].delivery.ca: must be file:PATH or env:NAME",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", allow_private = [\"a\", \"hush/\"]",
        "d.toml:17: party[2].delivery.allow_private[2]: must be a host",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", timeout_seconds = 61",
        "d.toml:17: party[2].delivery.timeout_seconds: must be 1 to 60",
    ),
    (
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", max_in_flight = 0",
        "d.toml:17: party[2].delivery.max_in_flight: must be 1 to 100",
    ),
    (
        "https://arbo.example/in",
        "https://:443/hush",
        "d.toml:17: party[2].delivery.url: is no address",
    ),
    (
        "https://arbo.example/in",
        "https://arbo.example/#hush",
        "d.toml:17: party[2].delivery.url: must not hold a fragment",
    ),
    (
        "file:arbo.secret",
        "hush",
        "d.toml:17: party[2].delivery.secret: must be file:PATH or env:NAME",
    ),
    (
        "source = \"adp\"",
        "source = \"sap\"",
        "d.toml:22: tenant[1].source: there is no party sap",
    ),
    (
        "source = \"adp\"",
        "source = \"arbo-noord\"",
        "d.toml:22: tenant[1].source: arbo-noord is a party of kind arbodienst",
    ),
    (
        "sender_ids = [\"ADP\"]",
        "",
        "d.toml:22: tenant[1].source: adp has no sender_ids",
    ),
    (
        "2018-02-01",
        "2018-02-01T10:00:00",
        "d.toml:23: tenant[1].agreement.signed_on: is not a date",
    ),
    (
        "2018-02-01",
        "2018-02-01, until = 2017-01-01",
        "d.toml:23: tenant[1].agreement.until: lies before signed_on",
    ),
    (
        "{ IdWrkgvrArbdnst = \"105\"",
        "{ IdWrkgvr = \"105\"",
        "d.toml:24: tenant[1].employer_keys[1].IdWrkgvr: is no tag of an employer",
    ),
    (
        "\"6431\"",
        "\"\"",
        "d.toml:24: tenant[1].employer_keys[1].AansltnrGeguitwlngArbdnst: is empty",
    ),
    (
        "document_codes = []",
        "document_codes = [\"x\"]",
        "d.toml:25: tenant[1].document_codes[1]: must be a code",
    ),
    (
        "to = \"arbo-noord\"",
        "to = \"arbo-zuid\"",
        "d.toml:28: tenant[1].route[1].to: there is no party arbo-zuid",
    ),
    (
        "receiver_id = \"ARBONOORD\"",
        "",
        "d.toml:28: tenant[1].route[1].to: arbo-noord has no receiver_id",
    ),
    (
        "receiver_id = \"ARBONOORD\"",
        "receiver_id = \"ADP\"",
        "d.toml:28: tenant[1].route[1].to: arbo-noord has the receiver_id of adp in route[2]",
    ),
    (
        "domain = \"arbodienst\"",
        "domain = \"garage\"",
        "d.toml:29: tenant[1].route[1].domain: unknown domain",
    ),
    (
        "domain = \"arbodienst\"",
        "domain = \"verzekeraar\"",
        "d.toml:29: tenant[1].route[1].domain: verzekeraar goes to a party of kind verzekeraar, and arbo-noord is arbodienst",
    ),
    (
        "bsn = \"never\"",
        "bsn = \"always\"",
        "d.toml:32: tenant[1].route[1].bsn: unknown mode: expected one of never, on_request, with_report",
    ),
    (
        "bsn = \"never\"",
        "bsn = \"with_report\"",
        "d.toml:32: tenant[1].route[1].bsn: needs a legal_basis",
    ),
    (
        "bsn = \"never\"",
        "legal_basis = \"lb-2\"",
        "d.toml:32: tenant[1].route[1].legal_basis: there is no legal basis lb-2",
    ),
    (
        "bsn = \"never\"",
        "receipt = \"yes\"",
        "d.toml:32: tenant[1].route[1].receipt: must be J or N",
    ),
    (
        "bsn = \"never\"",
        "versions = { Verzuimmeldingen = \"6\" }",
        "d.toml:32: tenant[1].route[1].versions.Verzuimmeldingen: must be five digits",
    ),
    (
        "write = { IdWrkgvrArbdnst",
        "write = { IdWrknmr",
        "d.toml:33: tenant[1].route[1].write.IdWrknmr: is no tag of an employer",
    ),
    (
        "until = 2019-12-31",
        "until = 2017-12-31",
        "d.toml:39: tenant[1].route[2].until: lies before from",
    ),
    (
        "tenant = \"bakkerij-jansen\"",
        "tenant = \"cafe\"",
        "d.toml:43: legal_basis[1].tenant: there is no tenant cafe",
    ),
];

#[test]
fn a_mistake_is_named_with_file_line_and_key() {
    for (from, to, expected) in MISTAKES.iter().copied() {
        assert!(EXAMPLE.contains(from), "{from}");
        let shown = applied(&EXAMPLE.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(shown.contains(expected), "{shown}\nlacks\n{expected}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[test]
fn keys_that_no_tag_tells_apart_are_refused() {
    for keys in [
        // The same, a part of it, and one that shares no tag.
        r#"[{ IdWrkgvrArbdnst = "105", AansltnrGeguitwlngArbdnst = "6431" }]"#,
        r#"[{ IdWrkgvrArbdnst = "105" }]"#,
        r#"[{ Lhnr = "1" }]"#,
        // One of several alternatives is enough.
        r#"[{ IdWrkgvrArbdnst = "106" }, { AansltnrGeguitwlngArbdnst = "6431", Lhnr = "1" }]"#,
    ] {
        let shown = applied(&with_tenant(keys)).unwrap_err().to_string();
        assert!(shown.contains("tenant[2].employer_keys["), "{shown}");
        assert!(
            shown.contains("overlaps with employer_keys[1] of tenant bakkerij-jansen"),
            "{shown}"
        );
    }
    for keys in [
        r#"[{ IdWrkgvrArbdnst = "106", AansltnrGeguitwlngArbdnst = "6431" }]"#,
        r#"[{ AansltnrGeguitwlngArbdnst = "6432" }]"#,
    ] {
        assert!(applied(&with_tenant(keys)).is_ok(), "{keys}");
    }
}

#[test]
fn two_sources_may_report_the_same_employer() {
    let keys = r#"[{ IdWrkgvrArbdnst = "105" }]"#;
    let text = with_tenant(keys).replace(
        "name = \"Café\"\nsource = \"adp\"",
        "name = \"Café\"\nsource = \"sap\"",
    ) + "\n[[party]]\nid = \"sap\"\nname = \"SAP\"\nkind = \"payroll\"\nsender_ids = [\"ADP\"]\n";
    let lookup = directory(&text).index();
    let Match::Mine(tenant) = lookup.tenant_for(&party("sap"), &texts(JANSEN)) else {
        panic!("the source's own tenant wins");
    };
    assert_eq!(tenant.id.as_str(), "cafe");
}

#[test]
fn two_routes_to_one_receiver_may_follow_but_not_meet() {
    let second = |from: &str| {
        let route = format!(
            "until = 2019-12-31\n\n[[tenant.route]]\nto = \"adp\"\ndomain = \"werkgever\"\nfrom = {from}\n"
        );
        applied(&EXAMPLE.replace("until = 2019-12-31", &route))
    };
    assert!(second("2020-01-01").is_ok());
    let shown = second("2019-12-31").unwrap_err().to_string();
    assert!(
        shown.contains("tenant[1].route[2].to: the same receiver and domain"),
        "{shown}"
    );
}

#[test]
fn an_employer_is_found_by_all_texts_of_a_key() {
    let lookup = directory(EXAMPLE).index();
    let of = |source: &str, pairs: &[(&str, &str)]| match lookup
        .tenant_for(&party(source), &texts(pairs))
    {
        Match::Mine(tenant) => format!("mine {}", tenant.id),
        Match::Foreign(party) => format!("foreign {party}"),
        Match::Unknown => "unknown".to_owned(),
    };
    assert_eq!(of("adp", JANSEN), "mine bakkerij-jansen");
    assert_eq!(of("arbo-noord", JANSEN), "foreign adp");
    assert_eq!(of("adp", &JANSEN[..2]), "unknown");
    assert_eq!(of("adp", &[]), "unknown");
}

#[test]
fn an_answer_is_found_by_what_its_route_wrote_or_by_the_key() {
    let lookup = directory(EXAMPLE).index();
    let found = |receiver: &str, day: Date, pairs: &[(&str, &str)]| {
        lookup
            .tenants_for_return(&party(receiver), day, &texts(pairs))
            .len()
    };
    let day = date(2019, 1, 1);
    assert_eq!(found("arbo-noord", day, &[("IdWrkgvrArbdnst", "9105")]), 1);
    assert_eq!(found("arbo-noord", day, JANSEN), 1);
    assert_eq!(found("arbo-noord", day, &[("IdWrkgvrArbdnst", "105")]), 0);
    assert_eq!(found("arbo-noord", date(2017, 12, 31), JANSEN), 0);
    assert_eq!(found("adp", day, &[("IdWrkgvrArbdnst", "9105")]), 0);
    assert_eq!(
        lookup
            .tenants_of_receiver(&party("arbo-noord"), day)
            .count(),
        1
    );
}

#[test]
fn first_and_last_day_belong_to_a_period() {
    let directory = directory(EXAMPLE);
    let tenant = directory.tenants.values().next().unwrap();
    let routes = |day| tenant.routes_on(day).count();
    assert_eq!(routes(date(2017, 12, 31)), 0);
    assert_eq!(routes(date(2018, 1, 1)), 2);
    assert_eq!(routes(date(2019, 12, 31)), 2);
    assert_eq!(routes(date(2020, 1, 1)), 1);
    assert!(!tenant.has_agreement_on(date(2018, 1, 31)));
    assert!(tenant.has_agreement_on(date(2018, 2, 1)));
}

const CHANGED: &str = r#"
[[party]]
id = "adp"
name = "ADP"
kind = "payroll"
sender_ids = ["ADP", "ADP2"]
receiver_id = "ADP"

[[party]]
id = "arbo-zuid"
name = "Arbo Zuid"
kind = "arbodienst"
receiver_id = "ARBOZUID"

[[tenant]]
id = "bakkerij-jansen"
name = "Bakkerij Jansen B.V."
source = "adp"
employer_keys = [{ IdWrkgvrArbdnst = "105", AansltnrGeguitwlngArbdnst = "6431" }]

[[tenant.route]]
to = "arbo-zuid"
domain = "arbodienst"
from = 2020-01-01

[[tenant.route]]
to = "adp"
domain = "werkgever"
from = 2018-01-01
copy = true
"#;

#[test]
fn the_diff_names_each_changed_key() {
    let old = directory(EXAMPLE);
    let diff = file(CHANGED).unwrap().onto(&old, true, &known()).unwrap();
    assert_eq!(
        diff.to_string(),
        r#"~ party adp: mapping "adp" → "default"
~ party adp: name "ADP Nederland" → "ADP"
~ party adp: sender_ids ["ADP"] → ["ADP","ADP2"]
- party arbo-noord
+ party arbo-zuid
~ tenant bakkerij-jansen: agreement {"reference":"VO-2018-001","signed_on":"2018-02-01"} → (none)
~ tenant bakkerij-jansen: route adp werkgever from 2018-01-01: copy false → true
~ tenant bakkerij-jansen: route adp werkgever from 2018-01-01: until "2019-12-31" → (none)
~ tenant bakkerij-jansen: - route arbo-noord arbodienst from 2018-01-01
~ tenant bakkerij-jansen: + route arbo-zuid arbodienst from 2020-01-01
- legal_basis lb-1
1 added, 2 changed, 2 removed
"#
    );
    assert_eq!(diff.merged, directory(CHANGED));
}

#[test]
fn without_prune_what_is_not_named_stays() {
    let old = directory(EXAMPLE);
    let part = "[[party]]\nid = \"arbo-zuid\"\nname = \"Arbo Zuid\"\nkind = \"arbodienst\"\n";
    let diff = file(part).unwrap().onto(&old, false, &known()).unwrap();
    assert_eq!(
        diff.to_string(),
        "+ party arbo-zuid\n1 added, 0 changed, 0 removed\n"
    );
    assert_eq!(diff.merged.parties.len(), 3);
    // The same part alone would take away a party that a route leads to.
    let pruned = file(part).unwrap().onto(&old, true, &known()).unwrap();
    assert!(pruned.merged.tenants.is_empty());
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let old = directory(EXAMPLE);
    let diff = file(EXAMPLE).unwrap().onto(&old, true, &known()).unwrap();
    assert!(diff.is_empty());
    assert_eq!(diff.to_string(), "no changes\n");
}

#[test]
fn a_contradiction_outside_the_file_is_named_by_its_record() {
    let old = directory(EXAMPLE);
    let part = "[[party]]\nid = \"arbo-noord\"\nname = \"Noord\"\nkind = \"verzekeraar\"\n";
    let shown = file(part)
        .unwrap()
        .onto(&old, false, &known())
        .unwrap_err()
        .to_string();
    assert_eq!(
        shown,
        "already applied: tenant bakkerij-jansen: route[1].to: arbo-noord has no receiver_id, so it cannot receive\n\
         already applied: tenant bakkerij-jansen: route[1].domain: arbodienst goes to a party of kind arbodienst, and arbo-noord is verzekeraar"
    );
}

#[test]
fn everything_of_push_is_kept_in_its_record() {
    let text = EXAMPLE.replace(
        "secret = \"file:arbo.secret\"",
        "secret = \"file:a\", previous_secret = \"env:B\", client_cert = \"file:c\", \
         client_key = \"file:d\", ca = \"file:e\", allow_private = [\"arbo.lan\"], \
         timeout_seconds = 5, max_in_flight = 2",
    );
    let applied = directory(&text);
    let Delivery::Push(push) = &applied.parties[&party("arbo-noord")].delivery else {
        panic!("it is pushed to");
    };
    assert_eq!((push.timeout.as_secs(), push.max_in_flight), (5, 2));
    assert_eq!(Directory::from_records(applied.to_records()), Ok(applied));
}

#[test]
fn a_record_of_an_older_version_is_read() {
    let body = r#"{"id":"a","name":"A","kind":"arbodienst","delivery":{"mode":"push","url":"https://a.example/"}}"#;
    let read = Directory::from_records([("party", "a", body)]).unwrap();
    let Delivery::Push(push) = &read.parties[&party("a")].delivery else {
        panic!("it is pushed to");
    };
    assert_eq!((push.timeout.as_secs(), push.max_in_flight), (20, 8));
    assert_eq!(push.secret, None);
}

#[test]
fn a_secret_stays_a_reference() {
    let directory = directory(EXAMPLE);
    let all = format!("{:?}", directory.to_records());
    assert!(all.contains("file:arbo.secret"));
}

#[test]
fn a_folder_is_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    assert!(load(folder.path()).is_err());
    let (parties, rest) = EXAMPLE.split_at(EXAMPLE.find("[[tenant]]").unwrap());
    std::fs::write(folder.path().join("b.toml"), parties).unwrap();
    std::fs::write(folder.path().join("a.toml"), rest).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not TOML").unwrap();
    let read = load(folder.path()).unwrap();
    assert_eq!(*read.directory(), directory(EXAMPLE));
    let twice = folder.path().join("c.toml");
    std::fs::write(
        &twice,
        "[[party]]\nid = \"adp\"\nname = \"A\"\nkind = \"payroll\"\n",
    )
    .unwrap();
    let shown = load(folder.path()).unwrap_err().to_string();
    assert!(
        shown.contains("c.toml:2: party[1].id: is also the id at"),
        "{shown}"
    );
    assert!(shown.contains("b.toml:2"), "{shown}");
}

#[test]
fn thousands_of_employers_are_checked_at_once() {
    use std::fmt::Write as _;
    let mut text = EXAMPLE.to_owned();
    for n in 0..3_000 {
        write!(
            text,
            "\n[[tenant]]\nid = \"t{n}\"\nname = \"T\"\nsource = \"adp\"\nemployer_keys = [{{ IdWrkgvrArbdnst = \"{}\" }}]\n",
            1_000 + n
        )
        .unwrap();
    }
    assert_eq!(directory(&text).tenants.len(), 3_001);
}

proptest! {
    /// The check groups keys by their tags; comparing each pair says the same.
    #[test]
    fn overlaps_are_found_exactly(tenants in proptest::collection::vec(keys(), 1..6)) {
        let mut directory = directory(EXAMPLE);
        let template = directory.tenants.pop_first().unwrap().1;
        directory.legal_bases.clear();
        for (n, employer_keys) in tenants.iter().enumerate() {
            let id = TenantId::parse(&format!("t{n}")).unwrap();
            let tenant = Tenant { id: id.clone(), employer_keys: employer_keys.clone(), ..template.clone() };
            directory.tenants.insert(id, tenant);
        }
        let found = directory.check(&known()).into_iter();
        let found: Vec<(String, String)> = found.map(|found| (found.id, found.key)).collect();
        let mut expected = Vec::new();
        for (n, keys) in tenants.iter().enumerate() {
            for (index, key) in keys.iter().enumerate() {
                let earlier = tenants.iter().take(n).flatten();
                if earlier.into_iter().any(|other| other.overlaps(key)) {
                    expected.push((format!("t{n}"), format!("employer_keys[{}]", index + 1)));
                }
            }
        }
        prop_assert_eq!(found, expected);
    }
}

/// One to three alternatives of few tags and few texts, so that many overlap.
fn keys() -> impl Strategy<Value = Vec<EmployerKey>> {
    let tag = proptest::sample::select(&EMPLOYER_TAGS[..3]).prop_map(str::to_owned);
    let key = proptest::collection::btree_map(tag, "[12]", 1..3).prop_map(EmployerKey);
    proptest::collection::vec(key, 1..3)
}

/// The example, with more keys for party adp.
fn adp_with(more: &str) -> String {
    EXAMPLE.replacen(
        "mapping = \"adp\"\n",
        &format!("mapping = \"adp\"\n{more}\n"),
        1,
    )
}

#[test]
fn certificates_and_limits_of_a_party_are_read_and_written_back() {
    let hex = "0a".repeat(32);
    let text = adp_with(&format!(
        "require_certificate = true\n\
         certificates = [{{ fingerprint = \"sha-256:{hex}\" }}, \
         {{ issuer = \"CN=CA,C=NL\", subject = \"CN=adp.example, C=nl\" }}]\n\
         limits = {{ messages_per_minute = 60, polls_per_party = 0 }}"
    ));
    let directory = directory(&text);
    let adp = &directory.parties[&PartyId::parse("adp").unwrap()];
    assert!(adp.require_certificate);
    assert_eq!(adp.limits.messages_per_minute, Some(60));
    assert_eq!(adp.limits.polls_per_party, Some(0));
    assert_eq!(adp.limits.bytes_per_minute, None);
    assert_eq!(
        Directory::from_records(directory.to_records()).unwrap(),
        directory
    );
    let pins = adp.certificates.clone();
    let lookup = directory.index();
    for pin in pins {
        assert_eq!(lookup.holder(&pin).unwrap().as_str(), "adp");
    }
}

#[test]
fn a_wrong_or_shared_certificate_is_refused() {
    let hex = "0a".repeat(32);
    for (more, expected) in [
        (
            "certificates = [{ fingerprint = \"sha-256:0a\" }]",
            "d.toml:9: party[1].certificates[1].fingerprint: must be sha-256:",
        ),
        (
            "certificates = [{ issuer = \"CN=CA\" }]",
            "d.toml:9: party[1].certificates[1]: names either a fingerprint",
        ),
        (
            "certificates = [{ issuer = \"CN=CA\", subject = \"hush\" }]",
            "d.toml:9: party[1].certificates[1].subject: must be a name",
        ),
        (
            "require_certificate = true",
            "d.toml:9: party[1].require_certificate: needs certificates",
        ),
        (
            "limits = { colour = 1 }",
            "d.toml:9: party[1].limits.colour: unknown field",
        ),
    ] {
        let refused = applied(&adp_with(more)).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
        assert!(!refused.contains("hush"));
    }
    let names = ["CN=a,O=CA", "cn=A, o=ca"];
    for (one, same) in [
        (
            format!("fingerprint = \"sha-256:{hex}\""),
            format!("fingerprint = \"sha-256:{hex}\""),
        ),
        (
            format!("issuer = \"{0}\", subject = \"{0}\"", names[0]),
            format!("issuer = \"{0}\", subject = \"{0}\"", names[1]),
        ),
    ] {
        let text = adp_with(&format!("certificates = [{{ {one} }}]")).replacen(
            "sender_ids = [\"ARBONOORD\"]",
            &format!("sender_ids = [\"ARBONOORD\"]\ncertificates = [{{ {same} }}]"),
            1,
        );
        let refused = applied(&text).unwrap_err().to_string();
        let expected = "party[2].certificates[1]: is a certificate of party adp already";
        assert!(refused.contains(expected), "{refused}");
    }
}

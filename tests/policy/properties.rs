//! What holds for any input: nothing that the table keeps back appears, every
//! release is valid, and a message counts once.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use proptest::prelude::*;
use sivi_gateway::domain::{Domain, PartyId, TenantId};
use sivi_gateway::policy::{
    self, Decision, Destination, Occasion, Outcome, Policy, Stripped, strip,
};
use sivi_gateway::seal::Keys;
use sivi_gateway::validate::{
    Builtin, Edition, Editions, Element, MessageSchema, Mode, Term, Tolerance, read, validate,
};

use super::sample::leaves;
use super::support::{Absence, Gateway, START};

/// Splitmix64: the same message for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

const NUMBERS: [&str; 3] = ["111222333", "012345672", "123456782"];

fn element_at(schema: &MessageSchema, at: usize, random: &mut Random, out: &mut String) {
    let element = &schema.elements[at];
    write!(out, "<{}>", element.tag).unwrap();
    if element.is_leaf() {
        out.push_str(&value(schema, element, random));
    }
    for child in &element.children {
        let child_element = &schema.elements[*child];
        let most = child_element.max.unwrap_or(2).min(2);
        let least = child_element.min;
        let count = u64::from(least) + random.below(u64::from(most.max(least) - least) + 1);
        for _ in 0..count {
            element_at(schema, *child, random, out);
        }
    }
    write!(out, "</{}>", element.tag).unwrap();
}

fn value(schema: &MessageSchema, element: &Element, random: &mut Random) -> String {
    let leaf = element.leaf.as_ref().unwrap();
    if element.term == Some(Term::MessageVersion) {
        return schema.version.clone();
    }
    if !leaf.codes.is_empty() {
        let at = random.below(leaf.codes.len() as u64);
        return leaf.codes[usize::try_from(at).unwrap()].clone();
    }
    match leaf.base {
        Builtin::Date => format!(
            "2026-{:02}-{:02}",
            random.below(12) + 1,
            random.below(28) + 1
        ),
        Builtin::Time => format!("{:02}:00:00", random.below(24)),
        Builtin::DateTime => "2026-01-01T00:00:00".to_owned(),
        Builtin::Decimal => format!("{}.00", random.below(100)),
        Builtin::Integer | Builtin::NonNegativeInteger | Builtin::PositiveInteger => {
            if element.term == Some(Term::Bsn) {
                NUMBERS[usize::try_from(random.below(3)).unwrap()].to_owned()
            } else {
                (random.below(9) + 1).to_string()
            }
        }
        Builtin::Boolean => "true".to_owned(),
        Builtin::String | Builtin::NormalizedString | Builtin::Token => string(element, random),
    }
}

fn string(element: &Element, random: &mut Random) -> String {
    let leaf = element.leaf.as_ref().unwrap();
    let most = leaf.max_length.unwrap_or(40);
    let least = leaf.min_length.unwrap_or(1);
    let number = NUMBERS[usize::try_from(random.below(3)).unwrap()];
    // Keys hold no number here: that would refuse the message.
    let is_key = element.tag.starts_with("Id") || element.tag.starts_with("Pers");
    match random.below(4) {
        0 if most >= 12 && leaf.patterns.is_empty() && !is_key => format!("Jan{number}"),
        1 if most >= 9 && leaf.patterns.is_empty() => "a&amp;b &lt;c&gt;".to_owned(),
        _ => "abcdefghijklmnopqrstuvwxyz"[..most.min(6).max(least)].to_owned(),
    }
}

fn message(schema: &MessageSchema, seed: u64) -> String {
    let mut out = String::new();
    element_at(schema, 0, &mut Random(seed), &mut out);
    out.replacen(
        &format!("<{}>", schema.root),
        &format!("<{} xmlns=\"{}\">", schema.root, schema.namespace),
        1,
    )
}

/// Everything kept, so that only the table stands between input and release.
fn release(
    edition: &Edition,
    policy: &Policy,
    keys: &Keys,
    stripped: &Stripped,
    domain: Domain,
    minimal: bool,
) -> Option<String> {
    let document = stripped.document();
    let kept: HashSet<_> = document.descendants(document.root()).collect();
    let employers = kept.clone();
    let persons = kept
        .iter()
        .filter(|node| document.term(**node) == Some(Term::Employee));
    let decision = Decision {
        minimal: if minimal {
            persons.copied().collect()
        } else {
            HashSet::new()
        },
        kept: kept.clone(),
        ..Decision::default()
    };
    let nothing = BTreeMap::new();
    let (tenant, to) = (TenantId::parse("t").unwrap(), PartyId::parse("p").unwrap());
    let to = Destination {
        tenant: &tenant,
        to: &to,
        domain,
        receiver_id: "R",
        sender_id: "S",
        version: None,
        receipt: false,
        write: &nothing,
        executor_name: false,
        document_names: false,
    };
    let at: jiff::Timestamp = START.parse().unwrap();
    let occasion = Occasion {
        policy,
        edition,
        keys,
        test: false,
        at: sivi_gateway::clock::civil_at(at),
        answered: Some("x"),
    };
    let (outcome, _) = policy::release("id", stripped, &employers, &decision, &to, &occasion);
    match outcome {
        Outcome::Release(release) => Some(String::from_utf8(release.xml().to_vec()).unwrap()),
        Outcome::Nothing => None,
        Outcome::Invalid => panic!("{} would be invalid to {domain:?}", document.schema().name),
    }
}

/// Paths that may stand in a release: all others must not.
fn allowed(message: &str, domain: Domain) -> HashSet<&'static str> {
    let table = include_str!("../../config/policy.tsv");
    let column = match domain {
        Domain::Werkgever => 3,
        Domain::Arbodienst => 4,
        Domain::Bedrijfsarts => 5,
        Domain::Verzekeraar => 6,
    };
    let rows = table
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row.len() == 8 && row[1] == message)
        .filter(|row| !matches!(row[column].split('?').next(), Some("S" | "BSN" | "-")))
        .map(|row| row[2])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_input_makes_a_stripped_element_appear_and_every_release_validates(seed: u64) {
        let editions = Editions::load(None).unwrap();
        let edition = editions.get("2017").unwrap();
        let policy = Policy::load(None, &editions, 35).unwrap();
        let keys = Keys::ephemeral();
        for schema in edition.messages() {
            let xml = message(schema, seed);
            let document = match read(edition, xml.as_bytes(), &Tolerance::default()) {
                Ok(read) => read.document,
                Err(rejected) => panic!("{:?} in {xml}", rejected.findings),
            };
            let (stripped, _) = strip(document, &policy.parts().bsn);
            for (domain, minimal) in [
                (Domain::Werkgever, false), (Domain::Arbodienst, false), (Domain::Arbodienst, true),
                (Domain::Bedrijfsarts, false), (Domain::Verzekeraar, false),
            ] {
                let allowed = allowed(&schema.name, domain);
                let Some(out) = release(edition, &policy, &keys, &stripped, domain, minimal) else {
                    continue;
                };
                prop_assert!(domain != Domain::Verzekeraar);
                let verdict = validate(edition, out.as_bytes(), Mode::SchemaOnly).unwrap();
                prop_assert!(verdict.is_valid(), "{out}");
                for (path, texts) in leaves(&out) {
                    prop_assert!(allowed.contains(path.as_str()), "{path} in {out}");
                    // A document's content is outside the guarantee.
                    let tag = path.rsplit('/').next().unwrap();
                    let bsn = &policy.parts().bsn;
                    if bsn.unscanned.contains(tag) || bsn.keys.contains(tag) {
                        continue;
                    }
                    for number in NUMBERS {
                        let found = texts.iter().any(|text| text.contains(number));
                        let certain = xml.contains(&format!("<SofiNr>{number}<"));
                        let agreed = policy.parts().bsn.agreed.contains(tag);
                        prop_assert!(!found || (agreed && !certain), "{number} in {path}: {texts:?}");
                    }
                }
            }
        }
    }
}

/// The same messages again and again, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_counts_once_however_often_and_whenever_it_comes() {
    let gateway = Gateway::boot().await;
    let messages: Vec<String> = (0..8)
        .map(|n| Absence::of(&format!("W-{n}"), &format!("VG-{n}")).xml())
        .collect();
    let mut random = Random(7);
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let at = usize::try_from(random.below(8)).unwrap();
        let request = gateway.posting("adp", messages[at].clone());
        sending.spawn(async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (
                at,
                status,
                response.json::<serde_json::Value>().await.unwrap(),
            )
        });
    }
    let mut receipts: BTreeMap<usize, Vec<(u16, serde_json::Value)>> = BTreeMap::new();
    while let Some(done) = sending.join_next().await {
        let (at, status, receipt) = done.unwrap();
        receipts.entry(at).or_default().push((status, receipt));
    }
    for (at, answers) in &receipts {
        let accepted = answers.iter().filter(|(status, _)| *status == 202).count();
        let replayed = answers.iter().filter(|(status, _)| *status == 200).count();
        assert_eq!(
            (accepted, replayed),
            (1, answers.len() - 1),
            "{at}: {answers:?}"
        );
        assert!(answers.iter().all(|(_, receipt)| *receipt == answers[0].1));
    }
    assert_eq!(gateway.take("arbo-noord").await.len(), receipts.len());
    gateway.stop().await;
}

//! Plants citizen service numbers, free text, accounts and names wherever a
//! message can hold them, lets the messages through every road that the
//! gateway has, and searches everything that comes out or stays behind.

#[path = "policy/sample.rs"]
#[expect(dead_code, reason = "no leaves are compared here")]
mod sample;
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use reqwest::Response;
use serde_json::{Value, json};
use sivi_gateway::domain::PartyId;
use sivi_gateway::setup::Current;
use sivi_gateway::store::ParkedFilter;
use sivi_gateway::validate::{Editions, Element, MessageSchema, Term};
use support::{Absence, DIRECTORY, Gateway, header};

/// Where a find is a leak.
#[derive(Clone, Copy, PartialEq)]
enum Secret {
    /// Numbers, accounts, free text, names of persons who are not sick.
    Nowhere,
    /// Names and ids of the sick: in their releases only.
    OnlyInReleases,
}

/// Everything that was planted, and everything that came out.
struct Canary {
    gateway: Gateway,
    random: u64,
    planted: BTreeMap<String, Secret>,
    places: u32,
    answers: Vec<String>,
    releases: Vec<String>,
}

impl Canary {
    async fn boot() -> Self {
        let directory =
            DIRECTORY.replace("to = \"arbo-noord\"", "leavers = true\nto = \"arbo-noord\"");
        Self {
            gateway: Gateway::boot_with(&directory, "").await,
            random: 20_171_122,
            planted: BTreeMap::new(),
            places: 0,
            answers: Vec::new(),
            releases: Vec::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A new number of nine digits that passes the eleven-test, or does not.
    fn number(&mut self, valid: bool) -> String {
        loop {
            let digits: Vec<u64> = (0..8).map(|_| self.next() % 10).collect();
            let weights = digits.iter().zip([9, 8, 7, 6, 5, 4, 3, 2]);
            let check = weights.map(|(digit, weight)| digit * weight).sum::<u64>() % 11;
            let last = if valid { check } else { (check + 1) % 10 };
            let number: String = digits.iter().chain([&last]).map(u64::to_string).collect();
            if last > 9 || (!valid && check == last) || number.starts_with("00") {
                continue;
            }
            self.plant(&number, Secret::Nowhere);
            return number;
        }
    }

    fn plant(&mut self, secret: &str, kind: Secret) {
        self.planted.insert(secret.to_owned(), kind);
    }

    async fn answer(&mut self, response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let headers = format!("{:?}", response.headers());
        let body = response.text().await.unwrap();
        self.answers.push(headers);
        self.answers.push(body.clone());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn post(&mut self, party: &str, xml: &str) -> (u16, Value) {
        let response = self.gateway.post(party, xml.to_owned()).await;
        self.answer(response).await
    }

    async fn accepted(&mut self, party: &str, xml: &str) {
        let (status, body) = self.post(party, xml).await;
        assert_eq!(status, 202, "{body}");
    }

    async fn refused(&mut self, party: &str, xml: &str, expected: u16) {
        let (status, body) = self.post(party, xml).await;
        assert_eq!(status, expected, "{body} for {xml}");
        let as_xml = self
            .gateway
            .posting(party, xml.to_owned())
            .header("accept", "application/xml");
        let response = as_xml.send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        self.answer(response).await;
    }

    async fn take(&mut self, party: &str) -> usize {
        let taken = self.gateway.take(party).await;
        let count = taken.len();
        self.releases.extend(taken);
        count
    }

    /// A message with the number of its person in every text that may hold
    /// it, spelled in another way each time.
    fn planted(&mut self, schema: &MessageSchema, person: &str, valid: bool) -> String {
        // Without SofiNr in the message only a likely number is recognised, and
        // not in codes that partners agreed on.
        let certain = schema
            .elements
            .iter()
            .any(|element| element.term == Some(Term::Bsn));
        let own = self.number(valid || !certain);
        let other = self.number(true);
        let marker = format!("Geheim{}", self.next());
        self.plant(&marker, Secret::Nowhere);
        let iban = format!("NL91ABNA{:010}", self.next() % 10_000_000_000);
        self.plant(&iban, Secret::Nowhere);
        let free = format!("Rug{}", self.next());
        self.plant(&free, Secret::Nowhere);
        let places = std::cell::Cell::new(0_usize);
        let text_of = |element: &Element| {
            let at = places.get();
            let text = plant_in(element, person, &own, &other, at, certain);
            let text = match (text, element.tag.as_str()) {
                (_, "Iban") => Some(iban.clone()),
                (_, "VrijeTekst" | "Toelchtng") => Some(format!("{free} {own}")),
                (_, "Roepnaam" | "TitVNm") => None,
                (_, "Kostenplaats" | "NmKostenplaats" | "SrtDocumentOms") => Some(marker.clone()),
                (text, _) => text,
            };
            places.set(at + usize::from(text.is_some()));
            text
        };
        let xml = sample::full(schema, &text_of);
        self.places += u32::try_from(places.get()).unwrap();
        // A comment and an attribute of another namespace hold it as well.
        xml.replacen("<Wrknmr>", &format!("<!-- BSN {own} --><Wrknmr>"), 1)
    }
}

/// The text to plant in an element, if it may hold one.
fn plant_in(
    element: &Element,
    person: &str,
    own: &str,
    other: &str,
    at: usize,
    certain: bool,
) -> Option<String> {
    let is_person = !element.path.contains("Cntprsn");
    match element.tag.as_str() {
        "SofiNr" => return Some(own.to_owned()),
        "IdWrknmr" if is_person => return Some(person.to_owned()),
        "IdDnstvbnd" => return Some(format!("D-{person}")),
        "VrzmgvlId" => return Some(format!("V-{person}")),
        "Berrefnr" | "IdInzndr" | "IdOntvngr" | "IdWrkgvrArbdnst" | "AansltnrGeguitwlngArbdnst" => {
            return None;
        }
        // Keys are refused and tried one by one; these are outside the guarantee.
        "IdWrknmr" | "PersNr" | "Persnr" | "Lhnr" | "Datastring" => return None,
        tag if tag.ends_with("Oud") => return None,
        _ => {}
    }
    let leaf = element.leaf.as_ref()?;
    if !element.is_text() || !leaf.patterns.is_empty() || element.term == Some(Term::DocumentKind) {
        return None;
    }
    let room = leaf.max_length.unwrap_or(512);
    let tag = element.tag.as_str();
    let agreed = tag == "NrCom" || tag.starts_with("Id") || tag.starts_with("Cntrnr");
    if agreed && !certain {
        return None;
    }
    let number = if at % 5 == 4 && !agreed { other } else { own };
    spell(number, at, room)
}

/// A number as XML text that reads as at most `room` characters.
fn spell(number: &str, at: usize, room: usize) -> Option<String> {
    let (a, b, c) = (&number[..3], &number[3..6], &number[6..]);
    let references = || {
        number
            .bytes()
            .map(|digit| format!("&#{digit};"))
            .collect::<String>()
    };
    let in_hex = || {
        number
            .bytes()
            .map(|digit| format!("&#x{digit:x};"))
            .collect::<String>()
    };
    let mut spellings = vec![
        (9, number.to_owned()),
        (9, references()),
        (9, format!("<![CDATA[{number}]]>")),
        (9, format!("{a}<!-- x -->{b}<![CDATA[{c}]]>")),
        (9, in_hex()),
        (11, format!("{a}.{b}.{c}")),
        (11, format!("{a} {b} {c}")),
        (14, format!("BSN: {number}")),
        (14, format!("(&#49;){a}{b}{c};").replace("(&#49;)", "nr. ")),
    ];
    spellings.retain(|(length, _)| *length <= room);
    let count = spellings.len();
    (count > 0).then(|| spellings.swap_remove(at % count).1)
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Ways to write a secret; a number can stand there with dots or spaces.
fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    if secret.len() == 9 && secret.bytes().all(|byte| byte.is_ascii_digit()) {
        let (a, b, c) = (&secret[..3], &secret[3..6], &secret[6..]);
        all.extend([
            format!("{a}.{b}.{c}"),
            format!("{a} {b} {c}"),
            format!("{}.{}.{c}", &secret[..4], &secret[4..6]),
            secret.bytes().map(|digit| format!("&#{digit};")).collect(),
        ]);
        if let Some(short) = secret.strip_prefix('0') {
            all.push(short.to_owned());
        }
    }
    all
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_of(&path));
        } else {
            files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    files
}

async fn through_the_main_road(canary: &mut Canary, editions: &Editions) {
    let edition = editions.get("2017").unwrap();
    for (n, valid) in [(1, true), (2, false), (3, true)] {
        let person = format!("W-sick-{n}");
        for name in ["Verzuimmeldingen", "Dienstverbanden", "WerknemersGegevens"] {
            let schema = edition.message(name).unwrap();
            let xml = canary.planted(schema, &person, valid);
            canary.accepted("adp", &xml).await;
            // The same again, and the receipt.
            let (status, receipt) = canary.post("adp", &xml).await;
            assert_eq!(status, 200);
            let path = format!("/v1/messages/{}", receipt["id"].as_str().unwrap());
            let response = canary.gateway.get("adp", &path).await;
            canary.answer(response).await;
            // The same reference with other content.
            canary
                .refused("adp", &xml.replacen("<!-- BSN", "<!-- BSN:", 1), 409)
                .await;
        }
        canary.plant(&person, Secret::OnlyInReleases);
        assert_eq!(canary.take("arbo-noord").await, 3, "{person}");
    }
    let schema = edition
        .message("WerkgeversGegevensBasisregistratie")
        .unwrap();
    let xml = canary.planted(schema, "W-none", true);
    canary.accepted("adp", &xml).await;
    assert_eq!(canary.take("arbo-noord").await, 1);
}

/// Persons who are not sick, by name.
async fn of_the_healthy(canary: &mut Canary, editions: &Editions) {
    let schema = editions
        .get("2017")
        .unwrap()
        .message("WerknemersGegevens")
        .unwrap();
    for n in 0..5 {
        let person = format!("W-healthy-{n}");
        let name = format!("Gezond{}", canary.next());
        canary.plant(&name, Secret::Nowhere);
        canary.plant(&person, Secret::Nowhere);
        let xml = canary.planted(schema, &person, true);
        let from = xml.find("<SignNm>").unwrap();
        let to = xml.find("</SignNm>").unwrap();
        let xml = format!("{}<SignNm>{name}{}", &xml[..from], &xml[to..]);
        canary.accepted("adp", &xml).await;
    }
    assert_eq!(canary.take("arbo-noord").await, 0);
}

async fn through_refusals(canary: &mut Canary, editions: &Editions) {
    let schema = editions
        .get("2017")
        .unwrap()
        .message("Verzuimmeldingen")
        .unwrap();
    let xml = canary.planted(schema, "W-refused", true);
    canary.plant("W-refused", Secret::Nowhere);
    let n = canary.number(true);
    // 400: cut off, entities, processing instructions, wrong bytes.
    canary.refused("adp", &xml[..xml.len() / 2], 400).await;
    let doctype = format!("<!DOCTYPE x [<!ENTITY e \"{n}\">]>");
    let declared = xml.replacen("?>\n", &format!("?>\n{doctype}"), 1);
    canary.refused("adp", &declared, 400).await;
    canary
        .refused(
            "adp",
            &xml.replacen("<Wrkgvr>", &format!("<?bsn {n}?><Wrkgvr>"), 1),
            400,
        )
        .await;
    canary
        .refused(
            "adp",
            &xml.replacen("<Wrkgvr>", &format!("<Wrkgvr>&b{n};"), 1),
            400,
        )
        .await;
    canary
        .refused(
            "adp",
            &xml.replacen("<Wrkgvr>", &format!("<Wrkgvr a=\"{n}\" a=\"{n}\">"), 1),
            400,
        )
        .await;
    canary
        .refused(
            "adp",
            &xml.replacen("</Wrkgvr>", &format!("</W{n}>"), 1),
            400,
        )
        .await;
    canary
        .refused(
            "adp",
            &xml.replacen("encoding=\"UTF-8\"", &format!("encoding=\"x{n}\""), 1),
            400,
        )
        .await;
    // 403: another's sender id, another's employer.
    canary
        .refused("adp", &xml.replace(">ADP<", &format!(">{n}<")), 403)
        .await;
    canary
        .refused("nmbrs", &xml.replace(">ADP<", ">Nmbrs<"), 403)
        .await;
    // 422: unknown tags and attributes, codes, dates, lengths, message types.
    for (from, to) in [
        ("<Wrkgvr>", format!("<Wrkgvr><N{n}/>")),
        ("<Wrkgvr>", format!("<N{n}>{n}</N{n}><Wrkgvr>")),
        ("<Wrkgvr>", format!("<Wrkgvr>{n}")),
        ("<GslchtCd>", format!("<GslchtCd>{n}")),
        ("<Gebdat>", format!("<Gebdat>{n}x")),
        ("<SofiNr>", format!("<SofiNr>{n}")),
        ("<EndVrzmJN>", format!("<EndVrzmJN>{n}")),
        ("<BrCd>", format!("<BrCd>{n}")),
    ] {
        canary
            .refused("adp", &xml.replacen(from, &to, 1), 422)
            .await;
    }
    let (status, _) = canary
        .post(
            "adp",
            &xml.replacen("<Wrkgvr>", &format!("<Wrkgvr x{n}=\"{n}\">"), 1),
        )
        .await;
    assert_ne!(status, 202);
    through_keys(canary).await;
    through_other_requests(canary, &n, xml).await;
    assert_eq!(canary.take("arbo-noord").await, 0);
}

/// The number as each key, in each spelling.
async fn through_keys(canary: &mut Canary) {
    for key in ["IdWrknmr", "PersNr", "IdDnstvbnd", "VrzmgvlId", "Berrefnr"] {
        let own = canary.number(true);
        let report = Absence {
            bsn: Some(own.clone()),
            ..Absence::default()
        };
        let base = report
            .xml()
            .replacen("<OrgeenhCd>", "<PersNr>P</PersNr><OrgeenhCd>", 1);
        for at in 0..9 {
            let spelled = spell(&own, at, 35).unwrap();
            let from = base.find(&format!("<{key}>")).unwrap() + key.len() + 2;
            let to = base.find(&format!("</{key}>")).unwrap();
            let xml = format!("{}{spelled}{}", &base[..from], &base[to..]);
            canary.refused("adp", &xml, 422).await;
            canary.places += 1;
        }
    }
}

/// Paths, queries, headers, broken compression.
async fn through_other_requests(canary: &mut Canary, n: &str, xml: String) {
    for path in [
        format!("/v1/messages/{n}"),
        format!("/v1/messages?berrefnr={n}"),
        format!("/v1/{n}"),
        format!("/v1/inbox/{n}"),
    ] {
        let response = canary.gateway.get("adp", &path).await;
        canary.answer(response).await;
    }
    let request = canary
        .gateway
        .posting("adp", n.to_owned())
        .header("content-encoding", "gzip");
    let response = request.send().await.unwrap();
    canary.answer(response).await;
    let request = canary
        .gateway
        .client
        .post(format!("{}/v1/messages", canary.gateway.url));
    let response = request
        .bearer_auth(n)
        .header("x-bsn", n)
        .body(xml)
        .send()
        .await
        .unwrap();
    assert_eq!(canary.answer(response).await.0, 401);
}

async fn through_parking(canary: &mut Canary, editions: &Editions) {
    let schema = editions
        .get("2017")
        .unwrap()
        .message("Verzuimmeldingen")
        .unwrap();
    for person in ["W-parked-1", "W-parked-2"] {
        let xml = canary.planted(schema, person, true);
        let xml = xml.replace(">105<", ">200<").replace(">6431<", ">7000<");
        canary.accepted("adp", &xml).await;
        canary.plant(person, Secret::OnlyInReleases);
    }
    // One that stays.
    let xml = canary.planted(schema, "W-parked-3", true);
    canary.accepted("adp", &xml.replace(">105<", ">201<")).await;
    canary.plant("W-parked-3", Secret::Nowhere);
    let waiting = canary
        .gateway
        .base
        .store
        .parked(&ParkedFilter::default())
        .await
        .unwrap();
    assert_eq!(waiting.len(), 3);
    let open: Vec<String> = waiting
        .iter()
        .map(|part| String::from_utf8(part.xml.to_vec()).unwrap())
        .collect();
    for (secret, kind) in &canary.planted {
        let found = open
            .iter()
            .any(|xml| spellings(secret).iter().any(|s| xml.contains(s)));
        assert!(
            !found || *kind == Secret::OnlyInReleases || secret == "W-parked-3",
            "{secret} is parked: {open:?}"
        );
    }
    canary
        .gateway
        .apply(
            r#"
[[tenant]]
id = "garage"
name = "Garage"
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-2" }
employer_keys = [{ IdWrkgvrArbdnst = "200", AansltnrGeguitwlngArbdnst = "7000" }]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
"#,
        )
        .await;
    assert_eq!(canary.take("arbo-noord").await, 2);
}

async fn through_the_return_direction(canary: &mut Canary, editions: &Editions) {
    let edition = editions.get("2017").unwrap();
    for name in ["Documenten", "Afspraken"] {
        for (person, passes) in [("W-sick-1", 1), ("W-stranger", 0)] {
            let schema = edition.message(name).unwrap();
            let xml = canary.planted(schema, person, true);
            let xml = xml.replace("<IdInzndr>ADP<", "<IdInzndr>ARBONOORD<");
            let xml = xml.replace("<IdOntvngr>ARBONOORD<", "<IdOntvngr>ADP<");
            canary.accepted("arbo-noord", &xml).await;
            assert_eq!(canary.take("adp").await, passes, "{name} {person}");
        }
    }
    canary.plant("W-stranger", Secret::Nowhere);
}

/// Rejected, fetched again, fed, answered.
async fn through_the_inbox(canary: &mut Canary) {
    let n = canary.number(true);
    for person in ["W-dead", "W-answered"] {
        let report = Absence {
            bsn: Some(canary.number(true)),
            ..Absence::of(person, &format!("V-{person}"))
        };
        canary.accepted("adp", &report.xml()).await;
    }
    let leased = canary.gateway.lease("arbo-noord").await;
    assert_eq!(leased.len(), 2);
    let path = format!("/v1/inbox/{}/reject", leased[0]["id"].as_str().unwrap());
    let body = json!({ "lease": leased[0]["lease"], "code": n, "reason": format!("BSN {n}") });
    let response = canary.gateway.post_json("arbo-noord", &path, body).await;
    assert!(canary.answer(response).await.0 < 300);
    let id = leased[1]["id"].as_str().unwrap().to_owned();
    let ack = canary
        .gateway
        .post_json("arbo-noord", "/v1/inbox/ack", json!({ "ids": [id, n] }))
        .await;
    assert!(ack.status().is_success());
    for path in [
        format!("/v1/inbox/{id}"),
        "/v1/inbox/feed?after=0&limit=1000".to_owned(),
    ] {
        let again = canary.gateway.get("arbo-noord", &path).await;
        assert!(again.status().is_success());
        let text = again.text().await.unwrap();
        canary.releases.push(text);
    }
    let xml = leased[1]["xml"].as_str().unwrap();
    let reference = xml
        .split("<Berrefnr>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    for answered in [reference, n.as_str()] {
        let header = header(
            "99999",
            "00001",
            "ARBONOORD",
            "ADP",
            &support::reference(),
            "N",
        )
        .replace(
            "<TestJN>",
            &format!("<BerrefnrIngzndnBer>{answered}</BerrefnrIngzndnBer><TestJN>"),
        )
        .replace("</BrAlg>", "<SrtRetmldngCd>03</SrtRetmldngCd></BrAlg>");
        let xml = format!(
            "<Retourmelding1 xmlns=\"http://www.sivi.org/Verzuimmanagement/Retourmelding1/2017\">{header}\
             <Foutmldng><SrtFoutCd>99</SrtFoutCd><Toelchtng>BSN {n}</Toelchtng></Foutmldng></Retourmelding1>"
        );
        let (status, _) = canary.post("arbo-noord", &xml).await;
        assert_eq!(status, if answered == reference { 202 } else { 422 });
    }
    assert_eq!(canary.take("adp").await, 1);
}

async fn through_explain(canary: &mut Canary, editions: &Editions) {
    let setup = canary.gateway.base.setup().await.unwrap();
    let (_replace, current) = Current::new(canary.gateway.base.setup().await.unwrap());
    let intake = canary.gateway.base.intake(current);
    let adp = PartyId::parse("adp").unwrap();
    for name in ["Verzuimmeldingen", "Dienstverbanden", "WerknemersGegevens"] {
        let schema = editions.get("2017").unwrap().message(name).unwrap();
        for person in ["W-sick-1", "W-explained"] {
            let xml = canary.planted(schema, person, true);
            let shown = sivi_gateway::receive::explain(&intake, &setup, &adp, xml.as_bytes()).await;
            canary.answers.push(shown.unwrap().to_string());
        }
    }
    canary.plant("W-explained", Secret::Nowhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_planted_is_found_where_it_must_not_be() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let editions = Editions::load(None).unwrap();
    let mut canary = Canary::boot().await;
    through_the_main_road(&mut canary, &editions).await;
    of_the_healthy(&mut canary, &editions).await;
    through_refusals(&mut canary, &editions).await;
    through_parking(&mut canary, &editions).await;
    through_the_return_direction(&mut canary, &editions).await;
    through_the_inbox(&mut canary).await;
    through_explain(&mut canary, &editions).await;

    let metrics = canary
        .gateway
        .client
        .get(format!("{}/metrics", canary.gateway.admin));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("sivi_messages"), "{metrics}");
    let mut files = files_of(canary.gateway.folder.path());
    let Canary {
        gateway,
        planted,
        places,
        answers,
        releases,
        ..
    } = canary;
    let folder = gateway.stop().await;
    files.extend(files_of(folder.path()));
    let log = lines.0.lock().unwrap().clone();
    assert!(
        contains(&log, "TRACE") || contains(&log, "DEBUG"),
        "nothing was logged"
    );

    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    println!(
        "planted {} secrets in {places} places and more; searched {} releases, {} answers, {} bytes of log, {bytes} bytes in {} files",
        planted.len(),
        releases.len(),
        answers.len(),
        log.len(),
        files.len()
    );
    let mut found = Vec::new();
    let mut in_releases = 0;
    for (secret, kind) in &planted {
        for spelling in spellings(secret) {
            for release in releases
                .iter()
                .filter(|release| release.contains(&spelling))
            {
                if *kind == Secret::OnlyInReleases {
                    in_releases += 1;
                } else {
                    found.push(format!("{spelling} in {release}"));
                }
            }
            let answers = answers.iter().chain([&metrics]);
            for answer in answers.filter(|answer| answer.contains(&spelling)) {
                found.push(format!("{spelling} in the answer {answer}"));
            }
            if contains(&log, &spelling) {
                let log = String::from_utf8_lossy(&log);
                let line = log.lines().find(|line| line.contains(&spelling));
                found.push(format!("{spelling} in the log: {line:?}"));
            }
            for (name, bytes) in &files {
                if contains(bytes, &spelling) {
                    found.push(format!("{spelling} in {name}"));
                }
            }
        }
    }
    println!(
        "found {} where they may not be; ids of the sick {in_releases} times in their releases",
        found.len()
    );
    assert!(in_releases > 5, "the releases hold what they should");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

//! A real gateway on a free port with TLS, its own database, and a clock that
//! tests move.
#![expect(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::format_push_string,
    reason = "XML of tests is built for reading"
)]

pub mod receiver;
pub mod streams;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sivi_gateway::access::NewKey;
use sivi_gateway::app::{App, Base, Reloader, WriterEnded};
use sivi_gateway::clock::Clock;
use sivi_gateway::command::apply_file;
use sivi_gateway::config::Settings;
use sivi_gateway::directory::DirectoryFile;
use sivi_gateway::store::ApiKey;
use sivi_gateway::toml_file::TomlFile;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The moment at which tests begin: a Sunday morning in Amsterdam.
pub const START: &str = "2026-11-22T09:00:00Z";

/// One payroll party, one arbodienst, one tenant; add to it for more.
pub const DIRECTORY: &str = r#"
[[party]]
id = "adp"
name = "ADP"
kind = "payroll"
sender_ids = ["ADP"]
receiver_id = "ADP"
mapping = "adp"

[[party]]
id = "nmbrs"
name = "Nmbrs"
kind = "payroll"
sender_ids = ["Nmbrs"]
mapping = "nmbrs"

[[party]]
id = "arbo-noord"
name = "Arbo Noord"
kind = "arbodienst"
receiver_id = "ARBONOORD"
sender_ids = ["ARBONOORD"]

[[party]]
id = "arbo-zuid"
name = "Arbo Zuid"
kind = "arbodienst"
receiver_id = "ARBOZUID"
sender_ids = ["ARBOZUID"]

[[tenant]]
id = "bakkerij"
name = "Bakkerij Jansen B.V."
source = "adp"
agreement = { signed_on = 2018-02-01, reference = "VO-1" }
employer_keys = [{ IdWrkgvrArbdnst = "105", AansltnrGeguitwlngArbdnst = "6431" }]
document_codes = ["100"]

[[tenant.route]]
to = "arbo-noord"
domain = "arbodienst"
edition = "2017"
from = 2018-01-01
write = { IdWrkgvrArbdnst = "N-105", AansltnrGeguitwlngArbdnst = "N-6431" }

[[tenant.route]]
to = "adp"
domain = "werkgever"
edition = "2017"
from = 2018-01-01
"#;

/// A running gateway.
pub struct Gateway {
    /// `https://localhost:PORT`.
    pub url: String,
    /// `http://127.0.0.1:PORT` of the operators' side.
    pub admin: String,
    /// Trusts the gateway's certificate.
    pub client: Client,
    /// API keys by party.
    pub keys: HashMap<String, String>,
    /// The gateway's time.
    pub clock: Clock,
    /// The data folder.
    pub folder: TempDir,
    /// The store and its keys, as a command would open them.
    pub base: Base,
    /// Reloads it, as SIGHUP does.
    pub reloader: Reloader,
    stop: CancellationToken,
    served: Option<JoinHandle<Result<(), WriterEnded>>>,
}

impl Gateway {
    /// Boots with [`DIRECTORY`] and default settings.
    pub async fn boot() -> Self {
        Box::pin(Self::boot_with(DIRECTORY, "")).await
    }

    /// Boots with a directory and more lines of settings.
    pub async fn boot_with(directory: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START.parse().unwrap());
        Box::pin(Self::boot_in(folder, clock, directory, settings)).await
    }

    /// Boots on a data folder that may hold the state of an earlier gateway.
    pub async fn boot_in(folder: TempDir, clock: Clock, directory: &str, more: &str) -> Self {
        let settings = settings(folder.path(), more);
        let base = Base::open(settings.clone(), clock.clone()).await.unwrap();
        if !directory.is_empty() {
            apply_file(&base, &read_directory(directory)).await.unwrap();
        }
        let mut keys = HashMap::new();
        let setup = base.setup().await.unwrap();
        for party in setup.directory.directory().parties.keys() {
            let key = NewKey::generate(&base.keys);
            let stored = ApiKey {
                id: key.id.clone(),
                party: party.clone(),
                hash: key.hash,
                created_at: clock.now(),
                expires_at: None,
                revoked_at: None,
                last_used_at: None,
            };
            base.store.insert_api_key(stored).await.unwrap();
            keys.insert(party.to_string(), key.text().to_owned());
        }
        let app = App::bind(settings, clock.clone()).await.unwrap();
        let url = format!("https://localhost:{}", app.address().unwrap().port());
        let admin = format!("http://{}", app.admin_address().unwrap());
        let (stop, reloader) = (app.stop_token(), app.reloader());
        let pem = std::fs::read(folder.path().join("self-signed.crt")).unwrap();
        let client = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let served = Some(tokio::spawn(app.run()));
        Self {
            url,
            admin,
            client,
            keys,
            clock,
            folder,
            base,
            reloader,
            stop,
            served,
        }
    }

    /// Applies more directory lines and waits until the daemon uses them.
    pub async fn apply(&self, directory: &str) {
        let before = self.base.store.changes_version().await.unwrap();
        apply_file(&self.base, &read_directory(directory))
            .await
            .unwrap();
        assert_ne!(before, self.base.store.changes_version().await.unwrap());
        // The daemon looks every second; the contract gives five.
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }

    /// A POST of a message, not sent yet.
    pub fn posting(&self, party: &str, xml: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client
            .post(format!("{}/v1/messages", self.url))
            .bearer_auth(&self.keys[party])
            .header("content-type", "application/xml")
            .header("accept", "application/json")
            .body(xml)
    }

    /// Posts a message.
    pub async fn post(&self, party: &str, xml: impl Into<reqwest::Body>) -> Response {
        self.posting(party, xml).send().await.unwrap()
    }

    /// Posts a message that must be accepted; gives the receipt.
    pub async fn accept(&self, party: &str, xml: impl Into<reqwest::Body>) -> Value {
        let response = self.post(party, xml).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, 202, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// GETs a path as a party.
    pub async fn get(&self, party: &str, path: &str) -> Response {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.keys[party]);
        request.send().await.unwrap()
    }

    /// POSTs JSON to a path as a party.
    pub async fn post_json(&self, party: &str, path: &str, body: Value) -> Response {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.keys[party])
            .json(&body);
        request.send().await.unwrap()
    }

    /// Leases up to 100 messages without waiting.
    pub async fn lease(&self, party: &str) -> Vec<Value> {
        self.lease_with(party, "limit=100").await
    }

    /// Leases with a query.
    pub async fn lease_with(&self, party: &str, query: &str) -> Vec<Value> {
        let path = format!("/v1/inbox/lease?{query}");
        let response = self.post_json(party, &path, json!({})).await;
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()["messages"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Leases and acknowledges everything; gives the XML in order.
    pub async fn take(&self, party: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let leased = self.lease(party).await;
            if leased.is_empty() {
                return all;
            }
            let ids: Vec<&str> = leased.iter().map(|m| m["id"].as_str().unwrap()).collect();
            let acked = self
                .post_json(party, "/v1/inbox/ack", json!({ "ids": ids }))
                .await;
            assert_eq!(acked.json::<Value>().await.unwrap()["unknown"], json!([]));
            all.extend(leased.iter().map(|m| m["xml"].as_str().unwrap().to_owned()));
        }
    }

    /// Ends everything where it is, as a kill does; gives the data folder back.
    pub async fn kill(mut self) -> TempDir {
        let served = self.served.take().unwrap();
        served.abort();
        let _ = served.await;
        self.base.store.close().await;
        self.folder
    }

    /// Begins to stop, without waiting for the end.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops gracefully; what is stored is still at hand.
    pub async fn halt(&mut self) {
        self.stop.cancel();
        self.served.take().unwrap().await.unwrap().unwrap();
    }

    /// Stops gracefully; gives the data folder back.
    pub async fn stop(mut self) -> TempDir {
        self.halt().await;
        self.base.store.close().await;
        self.folder
    }
}

/// Settings on free ports with all data in `folder`.
pub fn settings(folder: &Path, more: &str) -> Settings {
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = \".\"\nadmin.listen = \"127.0.0.1:0\"\n{more}"
    );
    let file = TomlFile::parse("gateway.toml", text).unwrap();
    Settings::read(&file, folder, &|_| None).unwrap()
}

fn read_directory(text: &str) -> DirectoryFile {
    let file = TomlFile::parse("directory.toml", text.to_owned()).unwrap();
    DirectoryFile::read(vec![file]).unwrap()
}

/// A reference of its own for each message, without digits: nine of them in a
/// row look like a citizen service number now and then.
pub fn reference() -> String {
    let hex = uuid::Uuid::new_v4().simple().to_string();
    hex.bytes()
        .map(|byte| {
            char::from(if byte.is_ascii_digit() {
                byte + 55
            } else {
                byte
            })
        })
        .collect()
}

/// An absence message with one person and one report; fields can be changed.
#[derive(Clone)]
pub struct Absence {
    pub sender: &'static str,
    pub receiver: &'static str,
    pub berrefnr: String,
    pub test: &'static str,
    pub employer: (&'static str, &'static str),
    pub person: String,
    pub former_person: Option<String>,
    pub bsn: Option<String>,
    pub born: String,
    pub surname: String,
    pub employment: String,
    pub action: &'static str,
    pub case: String,
    pub number: u32,
    pub ended: bool,
    pub first_day: String,
    pub recovered: Option<String>,
    pub percentage: &'static str,
    pub free_text: Option<String>,
}

impl Default for Absence {
    fn default() -> Self {
        Self {
            sender: "ADP",
            receiver: "ARBONOORD",
            berrefnr: reference(),
            test: "N",
            employer: ("105", "6431"),
            person: "W-1".to_owned(),
            former_person: None,
            bsn: None,
            born: "1980-02-29".to_owned(),
            surname: "Vries".to_owned(),
            employment: "D-1".to_owned(),
            action: "01",
            case: "VG-1".to_owned(),
            number: 1,
            ended: false,
            first_day: "2026-11-20".to_owned(),
            recovered: None,
            percentage: "100.00",
            free_text: None,
        }
    }
}

fn element(tag: &str, text: Option<&String>) -> String {
    text.map(|text| format!("<{tag}>{text}</{tag}>"))
        .unwrap_or_default()
}

/// `BrAlg` of a message.
pub fn header(
    code: &str,
    version: &str,
    sender: &str,
    receiver: &str,
    berrefnr: &str,
    test: &str,
) -> String {
    format!(
        "<BrAlg><BrCd>{code}</BrCd><VnrBrCd>{version}</VnrBrCd><AandatBr>2026-11-22</AandatBr>\
         <AantijdBr>10:00:00</AantijdBr><IdInzndr>{sender}</IdInzndr><IdOntvngr>{receiver}</IdOntvngr>\
         <Berrefnr>{berrefnr}</Berrefnr><TestJN>{test}</TestJN><OntvngstbevJN>N</OntvngstbevJN></BrAlg>"
    )
}

impl Absence {
    /// A new report of this person and case.
    pub fn of(person: &str, case: &str) -> Self {
        Self {
            person: person.to_owned(),
            case: case.to_owned(),
            ..Self::default()
        }
    }

    /// The employee group.
    pub fn employee(&self) -> String {
        let free_text = self
            .free_text
            .as_ref()
            .map(|text| format!("<VrTkst><VrijeTekst>{text}</VrijeTekst></VrTkst>"))
            .unwrap_or_default();
        format!(
            "<Wrknmr><VrwrkCd>01</VrwrkCd>{bsn}<Gebdat>{born}</Gebdat><SignNm>{surname}</SignNm>\
             <Voorl>A.</Voorl><NmvrkrCd>01</NmvrkrCd><GslchtCd>V</GslchtCd><IdWrknmr>{person}</IdWrknmr>{former}\
             <StrAdrNl><SrtAdrsCd>01</SrtAdrsCd><Pc>1011AC</Pc><Wnpl>Amsterdam</Wnpl><StraatLang>Kade</StraatLang>\
             <Huisnr>1</Huisnr></StrAdrNl>\
             <Dnstvbnd><VrwrkCd>01</VrwrkCd><IdDnstvbnd>{employment}</IdDnstvbnd><Ingdat>2015-01-01</Ingdat>\
             <OrgeenhCd>OE-1</OrgeenhCd>\
             <Vrzm><VrwrkCd>{action}</VrwrkCd><IngdatMutVrzm>{first_day}</IngdatMutVrzm><VrzmgvlId>{case}</VrzmgvlId>\
             <VrzmgvlVnrMld>{number}</VrzmgvlVnrMld><EndVrzmJN>{ended}</EndVrzmJN>\
             <DatEerstVrzmdg>{first_day}</DatEerstVrzmdg>{recovered}<PrcVrzm>{percentage}</PrcVrzm>\
             <OorzkVrzmCd>99</OorzkVrzmCd><VngntJN>N</VngntJN>{free_text}</Vrzm></Dnstvbnd></Wrknmr>",
            bsn = element("SofiNr", self.bsn.as_ref()),
            born = self.born,
            surname = self.surname,
            person = self.person,
            former = element("IdWrknmrOud", self.former_person.as_ref()),
            employment = self.employment,
            action = self.action,
            first_day = self.first_day,
            case = self.case,
            number = self.number,
            ended = if self.ended { "J" } else { "N" },
            recovered = element("DatHrstld", self.recovered.as_ref()),
            percentage = self.percentage,
        )
    }

    /// The message.
    pub fn xml(&self) -> String {
        absences(
            &header(
                "00100",
                "00006",
                self.sender,
                self.receiver,
                &self.berrefnr,
                self.test,
            ),
            &[(self.employer, vec![self.employee()])],
        )
    }
}

/// One employer of a message with its employee groups.
pub type EmployerPart = ((&'static str, &'static str), Vec<String>);

/// An absence message of several employers.
pub fn absences(header: &str, employers: &[EmployerPart]) -> String {
    envelope("Verzuimmeldingen", "Verzuimmeldingen", header, employers)
}

/// A message with employers, in the namespace of `name`.
pub fn envelope(root: &str, name: &str, header: &str, employers: &[EmployerPart]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"http://www.sivi.org/Verzuimmanagement/{name}/2017\">{header}"
    );
    for ((id, number), employees) in employers {
        out.push_str(&format!(
            "<Wrkgvr><HndlsnmOrg>Voorbeeld B.V.</HndlsnmOrg><IdWrkgvrArbdnst>{id}</IdWrkgvrArbdnst>\
             <AansltnrGeguitwlngArbdnst>{number}</AansltnrGeguitwlngArbdnst><Lhnr>123456789L01</Lhnr>{}</Wrkgvr>",
            employees.concat()
        ));
    }
    out.push_str(&format!("</{root}>"));
    out
}

/// A Dienstverbanden message about persons: (id, birth date, employment id).
pub fn employments(sender: &str, persons: &[(&str, &str, &str)]) -> String {
    let berrefnr = reference();
    let employees = persons
        .iter()
        .map(|(id, born, employment)| {
            format!(
                "<Wrknmr><VrwrkCd>02</VrwrkCd><Gebdat>{born}</Gebdat><GslchtCd>V</GslchtCd><IdWrknmr>{id}</IdWrknmr>\
                 <Dnstvbnd><VrwrkCd>02</VrwrkCd><IdDnstvbnd>{employment}</IdDnstvbnd><Ingdat>2015-01-01</Ingdat>\
                 <OrgeenhCd>OE-2</OrgeenhCd></Dnstvbnd></Wrknmr>"
            )
        })
        .collect();
    envelope(
        "Dienstverbanden",
        "Dienstverbanden",
        &header("00106", "00002", sender, "ARBONOORD", &berrefnr, "N"),
        &[(("105", "6431"), employees)],
    )
}

impl Gateway {
    /// A TLS connection for requests that no HTTP client would send.
    pub async fn raw(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, ServerName};
        let pem = std::fs::read(self.folder.path().join("self-signed.crt")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let address = self.url.trim_start_matches("https://");
        let address = address.replace("localhost", "127.0.0.1");
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, tcp).await.unwrap()
    }

    /// The head of a POST of a message, with more header lines.
    pub fn raw_head(&self, party: &str, more: &str) -> String {
        format!(
            "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/xml\r\nAccept: application/json\r\n{more}\r\n",
            self.keys[party]
        )
    }

    /// The status of a message as its sender sees it.
    pub async fn status(&self, party: &str, receipt: &Value) -> Value {
        let path = format!("/v1/messages/{}", receipt["id"].as_str().unwrap());
        let response = self.get(party, &path).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}

/// Asserts that an answer is a problem with this status, and gives it.
pub async fn problem(response: Response, status: u16) -> Value {
    let found = response.status();
    let kind = response.headers()["content-type"].clone();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    assert_eq!(kind, "application/problem+json", "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], status);
    assert!(
        problem["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:sivi-gateway:problem:"),
        "{problem}"
    );
    assert!(problem["title"].is_string() && problem["error_id"].is_string());
    for finding in problem["findings"].as_array().unwrap() {
        for key in ["code", "severity", "path", "message"] {
            assert!(finding[key].is_string(), "{finding}");
        }
        assert!(finding["line"].is_u64() && finding["column"].is_u64());
    }
    problem
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `sha-256:` and the digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha-256:{hex}")
}

/// The address of a new database of the server that tests share.
pub async fn new_database() -> String {
    use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
    let server = std::env::var("SIVI_TEST_POSTGRES").expect(
        "these tests need PostgreSQL: run .ci/test, or start a server with \
         `.ci/postgres start FOLDER` and set SIVI_TEST_POSTGRES to what it prints",
    );
    let name = format!("sivi_{}", uuid::Uuid::new_v4().simple());
    let mut link = PgConnection::connect(&format!("{server}/postgres"))
        .await
        .unwrap();
    let create = sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")));
    create.execute(&mut link).await.unwrap();
    format!("{server}/{name}")
}

//! Client certificates: every way in and every way to stay out; and that
//! certificates and settings change while requests go on.

mod binary;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use binary::{Daemon, Installation};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use reqwest::{Client, Identity, StatusCode};
use sivi_gateway::certificate::Certificate;
use support::{Absence, DIRECTORY, Gateway, problem};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The years in which the certificates of a test count.
type Years = (i32, i32);
const NOW: Years = (2020, 2040);

fn params(name: &str, years: Years) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "NL");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

fn authority(name: &str, years: Years) -> Authority {
    let mut params = params(name, years);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn below(parent: &Authority, name: &str) -> Authority {
    let mut params = params(name, NOW);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), parent).unwrap()
}

/// A certificate with its key, as a client or server holds it.
struct Held {
    chain: String,
    key: String,
}

impl Held {
    fn self_signed(name: &str, years: Years) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = params(name, years).self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        Self { chain, key }
    }

    fn issued(authority: &Authority, name: &str, years: Years) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = params(name, years)
            .signed_by(&key, authority)
            .unwrap()
            .pem();
        let key = key.serialize_pem();
        Self { chain, key }
    }

    fn with_intermediate(mut self, authority: &Authority) -> Self {
        self.chain += &authority.pem();
        self
    }

    fn by_fingerprint(&self) -> String {
        let read = Certificate::read_pem(&self.chain).unwrap();
        format!("{{ fingerprint = \"{}\" }}", read[0].fingerprint)
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(format!("{}{}", self.key, self.chain).as_bytes()).unwrap()
    }
}

fn by_name(issuer: &str, subject: &str) -> String {
    format!("{{ issuer = \"CN={issuer}, C=NL\", subject = \"CN={subject}, C=NL\" }}")
}

/// [`DIRECTORY`] with certificates of adp and, where given, of nmbrs.
fn directory(adp: &[String], more_adp: &str, nmbrs: &[String]) -> String {
    DIRECTORY
        .replacen(
            "mapping = \"adp\"",
            &format!(
                "mapping = \"adp\"\ncertificates = [{}]\n{more_adp}",
                adp.join(", ")
            ),
            1,
        )
        .replacen(
            "mapping = \"nmbrs\"",
            &format!("mapping = \"nmbrs\"\ncertificates = [{}]", nmbrs.join(", ")),
            1,
        )
}

/// A client with this certificate, a new connection for each request.
fn client(server: &str, held: Option<&Held>) -> Client {
    let builder = Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(server.as_bytes()).unwrap()])
        .timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(0);
    let builder = match held {
        Some(held) => builder.identity(held.identity()),
        None => builder,
    };
    builder.build().unwrap()
}

fn server_certificate(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.folder.path().join("self-signed.crt")).unwrap()
}

/// Asks with a certificate and the key of a party; gives the answer as text.
async fn ask(gateway: &Gateway, held: Option<&Held>, party: Option<&str>) -> Result<(), String> {
    let client = client(&server_certificate(gateway), held);
    answer(gateway, &client, party).await
}

async fn answer(gateway: &Gateway, client: &Client, party: Option<&str>) -> Result<(), String> {
    let mut request = client.get(format!("{}/v1/inbox/feed", gateway.url));
    if let Some(party) = party {
        let key = gateway.keys.get(party).map_or(party, String::as_str);
        request = request.bearer_auth(key);
    }
    // A refused certificate is an answer, not a broken handshake.
    let response = request.send().await.unwrap();
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    let problem = problem(response, 401).await;
    Err(problem["detail"].as_str().unwrap_or_default().to_owned())
}

const UNKNOWN: &str = "the client certificate is not one of this party, or not valid now";
const MISSING: &str = "this party needs its client certificate";
const DIFFERENT: &str = "the API key and the client certificate are of different parties";

fn no(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_a_way_in_and_agrees_with_the_key() {
    let adp = Held::self_signed("adp", NOW);
    let nmbrs = Held::self_signed("nmbrs", NOW);
    let stranger = Held::self_signed("adp", NOW);
    let text = directory(&[adp.by_fingerprint()], "", &[nmbrs.by_fingerprint()]);
    let gateway = Gateway::boot_with(&text, "").await;
    for (held, key, expected) in [
        (Some(&adp), None, Ok(())),
        (Some(&adp), Some("adp"), Ok(())),
        (None, Some("adp"), Ok(())),
        (Some(&nmbrs), Some("nmbrs"), Ok(())),
        (None, None, no("")),
        (Some(&stranger), None, no("")),
        // A wrong key is not made good by a certificate.
        (Some(&adp), Some("sgw_0_wrong"), no("")),
        (Some(&nmbrs), Some("adp"), no(DIFFERENT)),
        (Some(&adp), Some("nmbrs"), no(DIFFERENT)),
        (Some(&adp), Some("arbo-noord"), no(DIFFERENT)),
        (Some(&stranger), Some("adp"), no(UNKNOWN)),
        // Who never named certificates may send whatever it has.
        (Some(&stranger), Some("arbo-noord"), Ok(())),
    ] {
        assert_eq!(ask(&gateway, held, key).await, expected, "{key:?}");
    }
    // The message is the certificate's party's.
    let client = client(&server_certificate(&gateway), Some(&adp));
    let post = |xml: String| {
        let request = client.post(format!("{}/v1/messages", gateway.url));
        let request = request.header("content-type", "application/xml").body(xml);
        request.header("accept", "application/json").send()
    };
    assert_eq!(post(Absence::default().xml()).await.unwrap().status(), 202);
    let foreign = Absence {
        sender: "Nmbrs",
        ..Absence::default()
    };
    problem(post(foreign.xml()).await.unwrap(), 403).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_must_show_its_certificate_cannot_do_without() {
    let adp = Held::self_signed("adp", NOW);
    let text = directory(&[adp.by_fingerprint()], "require_certificate = true", &[]);
    let gateway = Gateway::boot_with(&text, "").await;
    for (held, key, expected) in [
        (None, Some("adp"), no(MISSING)),
        (Some(&adp), None, Ok(())),
        (Some(&adp), Some("adp"), Ok(())),
        (
            Some(&Held::self_signed("adp", NOW)),
            Some("adp"),
            no(UNKNOWN),
        ),
        (None, Some("nmbrs"), Ok(())),
    ] {
        assert_eq!(ask(&gateway, held, key).await, expected, "{key:?}");
    }
    // The way in for messages is the same door.
    let response = gateway.post("adp", Absence::default().xml()).await;
    problem(response, 401).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_counts_only_when_an_authority_vouches_for_it() {
    let ours = authority("CA", NOW);
    let between = below(&ours, "Sub CA");
    let impostor = authority("CA", NOW);
    let pinned = Held::self_signed("pinned", NOW);
    let pins = [
        by_name("CA", "adp"),
        by_name("Sub CA", "adp"),
        pinned.by_fingerprint(),
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).unwrap();
    let clock = sivi_gateway::clock::Clock::manual(support::START.parse().unwrap());
    let text = directory(&pins, "", &[by_name("CA", "nmbrs")]);
    let settings = "tls.client_ca = \"ca.pem\"";
    let gateway = Box::pin(Gateway::boot_in(folder, clock, &text, settings)).await;
    let adp = Held::issued(&ours, "ADP", NOW);
    for (held, key, expected) in [
        (&adp, None, Ok(())),
        (&Held::issued(&ours, "nmbrs", NOW), Some("nmbrs"), Ok(())),
        (
            &Held::issued(&ours, "nmbrs", NOW),
            Some("adp"),
            no(DIFFERENT),
        ),
        (&Held::issued(&ours, "other", NOW), None, no("")),
        (&Held::issued(&ours, "other", NOW), Some("adp"), no(UNKNOWN)),
        // The right names of the wrong hand.
        (&Held::issued(&impostor, "adp", NOW), None, no("")),
        (&Held::self_signed("adp", NOW), None, no("")),
        (
            &Held::issued(&between, "adp", NOW).with_intermediate(&between),
            None,
            Ok(()),
        ),
        // A chain with a gap.
        (&Held::issued(&between, "adp", NOW), None, no("")),
        // A fingerprint needs no authority.
        (&pinned, None, Ok(())),
    ] {
        assert_eq!(ask(&gateway, Some(held), key).await, expected, "{key:?}");
    }
    // TLS 1.2 comes the same way, and so does a session that is taken up again.
    let builder = Client::builder()
        .tls_certs_only([
            reqwest::Certificate::from_pem(server_certificate(&gateway).as_bytes()).unwrap(),
        ])
        .identity(adp.identity())
        .pool_max_idle_per_host(0)
        .tls_version_max(reqwest::tls::Version::TLS_1_2);
    let client = builder.build().unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&gateway, &client, None).await, Ok(()));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authority_a_name_is_nobodys() {
    let ours = authority("CA", NOW);
    let text = directory(&[by_name("CA", "adp")], "", &[]);
    let gateway = Gateway::boot_with(&text, "").await;
    let adp = Held::issued(&ours, "adp", NOW);
    assert_eq!(ask(&gateway, Some(&adp), None).await, no(""));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_two_parties_could_claim_is_nobodys() {
    let ours = authority("CA", NOW);
    let held = Held::issued(&ours, "adp", NOW);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).unwrap();
    let clock = sivi_gateway::clock::Clock::manual(support::START.parse().unwrap());
    let text = directory(&[by_name("CA", "adp")], "", &[held.by_fingerprint()]);
    let settings = "tls.client_ca = \"ca.pem\"";
    let gateway = Box::pin(Gateway::boot_in(folder, clock, &text, settings)).await;
    assert_eq!(ask(&gateway, Some(&held), None).await, no(""));
    let other = Held::issued(&ours, "adp", NOW);
    assert_eq!(ask(&gateway, Some(&other), None).await, Ok(()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_within_its_dates_also_on_an_open_connection() {
    let ours = authority("CA", (2020, 2028));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).unwrap();
    let clock = sivi_gateway::clock::Clock::manual("2026-12-31T12:00:00Z".parse().unwrap());
    let ending = Held::self_signed("ending", (2020, 2027));
    let beginning = Held::self_signed("beginning", (2027, 2040));
    let pins = [
        ending.by_fingerprint(),
        beginning.by_fingerprint(),
        by_name("CA", "adp"),
    ];
    let text = directory(&pins, "", &[]);
    let settings = "tls.client_ca = \"ca.pem\"";
    let gateway = Box::pin(Gateway::boot_in(folder, clock, &text, settings)).await;
    let ending_by_name = Held::issued(&ours, "adp", (2020, 2027));
    let long = Held::issued(&ours, "adp", (2020, 2040));
    let builder = Client::builder()
        .tls_certs_only([
            reqwest::Certificate::from_pem(server_certificate(&gateway).as_bytes()).unwrap(),
        ])
        .identity(ending.identity());
    let open = builder.build().unwrap();
    for (held, expected) in [
        (&ending, Ok(())),
        (&ending_by_name, Ok(())),
        (&long, Ok(())),
        (&beginning, no("")),
    ] {
        assert_eq!(ask(&gateway, Some(held), None).await, expected);
    }
    assert_eq!(answer(&gateway, &open, None).await, Ok(()));
    gateway.clock.advance(Duration::from_hours(24));
    for (held, expected) in [
        (&ending, no("")),
        (&ending_by_name, no("")),
        (&long, Ok(())),
        (&beginning, Ok(())),
    ] {
        assert_eq!(ask(&gateway, Some(held), None).await, expected);
    }
    assert_eq!(answer(&gateway, &open, None).await, no(""));
    assert_eq!(answer(&gateway, &open, Some("adp")).await, no(UNKNOWN));
    // The authority ends before what it issued.
    gateway.clock.advance(Duration::from_hours(24 * 366));
    assert_eq!(ask(&gateway, Some(&long), None).await, no(""));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_taken_over_without_a_signal() {
    let old = authority("Old", NOW);
    let new = authority("New", NOW);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, old.pem()).unwrap();
    let clock = sivi_gateway::clock::Clock::manual(support::START.parse().unwrap());
    let pins = [by_name("Old", "adp"), by_name("New", "adp")];
    let text = directory(&pins, "", &[]);
    let settings = "tls.client_ca = \"ca.pem\"";
    let gateway = Box::pin(Gateway::boot_in(folder, clock, &text, settings)).await;
    let before = Held::issued(&old, "adp", NOW);
    let after = Held::issued(&new, "adp", NOW);
    assert_eq!(ask(&gateway, Some(&before), None).await, Ok(()));
    assert_eq!(ask(&gateway, Some(&after), None).await, no(""));
    // Half a file is none; what was there goes on.
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert_eq!(gateway.reloader.renew_certificates().await.len(), 1);
    assert_eq!(ask(&gateway, Some(&before), None).await, Ok(()));
    // What is withdrawn is gone, also while our own certificate cannot be read.
    let key = gateway.folder.path().join("self-signed.key");
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    std::fs::write(&ca, new.pem()).unwrap();
    assert_eq!(gateway.reloader.renew_certificates().await.len(), 1);
    assert_eq!(ask(&gateway, Some(&before), None).await, no(""));
    assert_eq!(ask(&gateway, Some(&after), None).await, Ok(()));
    let same = || support::settings(gateway.folder.path(), settings);
    std::fs::write(&ca, old.pem()).unwrap();
    let reloaded = gateway.reloader.reload(same()).await.unwrap();
    assert!(reloaded.certificate.is_some());
    assert_eq!(ask(&gateway, Some(&after), None).await, no(""));
    std::fs::write(&key, good).unwrap();
    let reloaded = gateway.reloader.reload(same()).await.unwrap();
    assert!(reloaded.certificate.is_none());

    // The self-signed certificate ends in ten years, and is made anew before.
    let first = server_certificate(&gateway);
    assert!(gateway.reloader.renew_certificates().await.is_empty());
    assert_eq!(server_certificate(&gateway), first);
    gateway.clock.advance(Duration::from_hours(24 * 3640));
    assert!(gateway.reloader.renew_certificates().await.is_empty());
    let second = server_certificate(&gateway);
    assert_ne!(first, second);
    let alive = |root: &str| {
        client(root, None)
            .get(format!("{}/healthz", gateway.url))
            .send()
    };
    assert_eq!(alive(&second).await.unwrap().status(), 200);
    assert!(alive(&first).await.is_err());
    gateway.stop().await;
}

/// Sends SIGHUP.
fn hang_up(daemon: &Daemon) {
    let id = daemon.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-HUP", &id])
        .status();
    assert!(sent.unwrap().success());
}

/// The certificate that the daemon shows to a new connection.
async fn shown(daemon: &Daemon, roots: &str) -> Certificate {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let address = daemon.url.replace("https://localhost", "127.0.0.1");
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, tcp).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    Certificate::read(&chain[0]).unwrap()
}

/// Waits until a new connection sees this certificate.
async fn becomes(daemon: &Daemon, roots: &str, held: &Held) {
    let expected = Certificate::read_pem(&held.chain).unwrap();
    let started = Instant::now();
    while shown(daemon, roots).await != expected[0] {
        assert!(started.elapsed() < Duration::from_secs(10), "it stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the look at the start. It takes certificates over as a signal
/// does, and a second signal would find the first one not heard yet.
async fn first_look(daemon: &Daemon) {
    let page = async || {
        let page = reqwest::get(format!("{}/metrics", daemon.admin)).await;
        page.unwrap().text().await.unwrap()
    };
    while !page().await.contains("sivi_certificate_expires_seconds{") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn installed(ca: &Authority, more: &str) -> (Installation, String) {
    let installation = Installation::new(&format!(
        "tls.cert = \"server.pem\"\ntls.key = \"server.key\"\n{more}"
    ));
    put(&installation, &Held::issued(ca, "gateway", NOW));
    installation.write("directory.toml", DIRECTORY);
    installation.yes(&["apply", "directory.toml"]);
    let key = installation.yes(&["key", "issue", "--party", "adp"]);
    (installation, key.trim().to_owned())
}

fn put(installation: &Installation, held: &Held) {
    installation.write("server.pem", &held.chain);
    installation.write("server.key", &held.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_everything_is_reloaded_twenty_times() {
    let ca = authority("Server CA", NOW);
    let (installation, key) = installed(&ca, "");
    let daemon = installation.serve();
    let (stop, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let (url, key, root) = (daemon.url.clone(), key.clone(), ca.pem());
            tokio::spawn(async move {
                let mut client = client(&root, None);
                if sender == 0 {
                    // One connection for all of it.
                    let root = reqwest::Certificate::from_pem(root.as_bytes()).unwrap();
                    client = Client::builder().tls_certs_only([root]).build().unwrap();
                }
                while !stop.load(Ordering::Relaxed) {
                    let case = format!("VG-{sender}-{}", sent.load(Ordering::Relaxed));
                    let request = client
                        .post(format!("{url}/v1/messages"))
                        .bearer_auth(&key)
                        .header("content-type", "application/xml")
                        .body(Absence::of(&format!("W-{sender}"), &case).xml());
                    let response = request.send().await.unwrap();
                    assert_eq!(response.status(), 202);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    first_look(&daemon).await;
    for _ in 0..20 {
        let held = Held::issued(&ca, "gateway", NOW);
        put(&installation, &held);
        hang_up(&daemon);
        becomes(&daemon, &ca.pem(), &held).await;
    }
    let sent_meanwhile = sent.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    assert!(sent_meanwhile > 20, "only {sent_meanwhile} were sent");
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    let reloads = log.iter().filter(|line| line.contains("were reloaded"));
    assert_eq!(reloads.count(), 20, "{log:#?}");
    assert!(!log.concat().contains("ERROR"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_limits_and_authorities_or_nothing_at_all() {
    let ca = authority("Server CA", NOW);
    let clients = authority("Clients", NOW);
    let (installation, key) = installed(&ca, "");
    let text = directory(&[by_name("Clients", "adp")], "", &[]);
    installation.write("directory.toml", text);
    installation.yes(&["apply", "directory.toml"]);
    let check = installation.yes(&["check"]);
    assert!(check.contains("tls.client_ca is not set"), "{check}");
    let daemon = installation.serve();
    let before = shown(&daemon, &ca.pem()).await;
    let settings = std::fs::read_to_string(installation.path("gateway.toml")).unwrap();
    let held = Held::issued(&clients, "adp", NOW);
    let status = |client: Client, key: Option<String>| {
        let mut request = client.get(format!("{}/v1/inbox/feed", daemon.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let with_key = || status(client(&ca.pem(), None), Some(key.clone()));
    let with_certificate = || status(client(&ca.pem(), Some(&held)), None);
    assert_eq!((with_key().await, with_certificate().await), (200, 401));

    // Everything in it would change something, and one thing is wrong.
    installation.write("clients.pem", "no certificate");
    let more = "tls.client_ca = \"clients.pem\"\nlimits.requests_per_minute = 2\n";
    installation.write("gateway.toml", format!("{settings}{more}"));
    let checked = installation.run(&["check"]);
    assert_eq!(checked.code, 1);
    let expected = "tls.client_ca: holds no certificate in PEM";
    assert!(checked.err.contains(expected), "{}", checked.err);
    put(&installation, &Held::issued(&ca, "gateway", NOW));
    hang_up(&daemon);
    // Not while it reads: half a file of settings is another file.
    tokio::time::sleep(Duration::from_millis(500)).await;
    installation.write("gateway.toml", format!("{settings}colour = 1\n"));
    hang_up(&daemon);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shown(&daemon, &ca.pem()).await, before);
    for _ in 0..3 {
        assert_eq!((with_key().await, with_certificate().await), (200, 401));
    }

    installation.write("clients.pem", clients.pem());
    let moved = settings.replacen("127.0.0.1:0", "127.0.0.1:1", 1);
    assert_ne!(moved, settings);
    installation.write("gateway.toml", format!("{moved}{more}"));
    let renewed = Held::issued(&ca, "gateway", NOW);
    put(&installation, &renewed);
    hang_up(&daemon);
    becomes(&daemon, &ca.pem(), &renewed).await;
    assert_eq!(with_certificate().await, 200);
    assert_eq!(with_key().await, 200);
    assert_eq!(with_key().await, 429);
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    let log = log.concat();
    for expected in [
        "Nothing was reloaded: tls.client_ca: holds no certificate in PEM",
        "colour",
        "listen changed: it stays as it was until a restart",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert_eq!(log.matches("\"ERROR\"").count(), 2, "{log}");
}

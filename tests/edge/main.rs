//! The edge under pressure: parties that do too much, clients that are slow
//! or never say anything, a disk that is full.

#[path = "../binary/mod.rs"]
mod binary;
mod disk;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use binary::{Daemon, Installation};
use reqwest::Response;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use support::streams::{Came, Streams};
use support::{Absence, DIRECTORY, Gateway, problem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to reach a gateway without an HTTP client.
#[derive(Clone)]
struct Reach {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Reach {
    fn new(url: &str, pem: &[u8], protocol: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pem).unwrap())
            .unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let address = url.replace("https://localhost", "127.0.0.1");
        Self {
            address: address.parse().unwrap(),
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    fn gateway(gateway: &Gateway, protocol: &str) -> Self {
        let pem = std::fs::read(gateway.folder.path().join("self-signed.crt")).unwrap();
        Self::new(&gateway.url, &pem, protocol)
    }

    async fn tls_from(&self, source: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{source}:0").parse().unwrap())?;
        let tcp = socket.connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, tcp).await
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_from("127.0.0.1").await.unwrap()
    }
}

/// Sends the pieces with a pause after each; gives what was answered until
/// the connection ended, and how long that took.
async fn trickle<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    pieces: impl IntoIterator<Item = Vec<u8>>,
    pause: Duration,
) -> (String, Duration) {
    let started = Instant::now();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    for piece in pieces {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
        match tokio::time::timeout(pause, stream.read(&mut buffer)).await {
            Err(_) => {}
            Ok(Ok(count)) if count > 0 => answer.extend(&buffer[..count]),
            Ok(_) => break,
        }
        assert!(started.elapsed() < Duration::from_secs(15), "never let go");
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text, started.elapsed())
}

/// The same byte for ever.
fn bytes(byte: u8) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_with(move || vec![byte])
}

async fn limited(response: Response, detail: &str) {
    let pause = response.headers()["retry-after"].to_str().unwrap();
    let pause: u64 = pause.parse().unwrap();
    assert!((1..=60).contains(&pause), "{pause}");
    assert_eq!(problem(response, 429).await["detail"], detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_does_too_much_is_told_which_bound_it_met() {
    let text = DIRECTORY.replacen(
        "mapping = \"nmbrs\"",
        "mapping = \"nmbrs\"\nlimits = { messages_per_minute = 1, requests_per_minute = 0 }",
        1,
    );
    let size = Absence::default().xml().len();
    let settings = format!(
        "limits.requests_per_minute = 3\nlimits.bytes_per_minute = {}\n\
         limits.uploads_per_party = 2\nlimits.polls_per_party = 2",
        size * 3 + size / 2
    );
    let gateway = Gateway::boot_with(&text, &settings).await;
    let reach = Reach::gateway(&gateway, "http/1.1");

    // Its own bound instead of everybody's; what others do does not count.
    let nmbrs = || Absence {
        sender: "Nmbrs",
        employer: ("300", "1"),
        ..Absence::default()
    };
    assert_eq!(gateway.post("nmbrs", nmbrs().xml()).await.status(), 202);
    let refused = gateway.post("nmbrs", nmbrs().xml()).await;
    limited(refused, "limits.messages_per_minute is 1 for this party").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("nmbrs", "/v1/inbox/feed").await.status(), 200);
    }

    // So many uploads at once. A connection that breaks off is over.
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let mut upload = reach.tls().await;
        let head = gateway.raw_head("adp", "Content-Length: 1000\r\n");
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.flush().await.unwrap();
        uploads.push(upload);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = gateway.post("adp", Absence::default().xml()).await;
    limited(refused, "limits.uploads_per_party is 2 for this party").await;
    drop(uploads);
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Bytes: the fourth still begins below the bound, and is paid off.
    for _ in 0..4 {
        gateway.accept("adp", Absence::default().xml()).await;
    }
    let refused = gateway.post("adp", Absence::default().xml()).await;
    let detail = format!(
        "limits.bytes_per_minute is {} for this party",
        size * 3 + size / 2
    );
    limited(refused, &detail).await;
    gateway.clock.advance(Duration::from_secs(20));
    gateway.accept("adp", Absence::default().xml()).await;

    // So many polls that wait; who does not wait needs no place.
    let poll = |wait: u64| {
        let path = format!("/v1/inbox/lease?wait={wait}");
        let gateway = &gateway;
        async move { gateway.post_json("arbo-zuid", &path, json!({})).await }
    };
    let (first, second, third) = tokio::join!(poll(2), poll(2), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        poll(2).await
    });
    assert_eq!(
        (first.status(), second.status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    limited(third, "limits.polls_per_party is 2 for this party").await;
    limited(
        poll(0).await,
        "limits.requests_per_minute is 3 for this party",
    )
    .await;
    gateway.clock.advance(Duration::from_secs(20));
    assert_eq!(poll(0).await.status(), 200);
    limited(
        poll(0).await,
        "limits.requests_per_minute is 3 for this party",
    )
    .await;

    let metrics = reqwest::get(format!("{}/metrics", gateway.admin))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    for (limit, count) in [
        ("messages_per_minute", 1),
        ("uploads_per_party", 1),
        ("bytes_per_minute", 1),
        ("polls_per_party", 1),
        ("requests_per_minute", 2),
    ] {
        let line = format!("sivi_requests_limited_total{{limit=\"{limit}\"}} {count}");
        assert!(metrics.contains(&line), "{line}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trickles_is_let_go_wherever_it_does_so() {
    let settings = "limits.header_seconds = 1\nlimits.idle_seconds = 2\n\
                    limits.body_idle_seconds = 1";
    let gateway = Gateway::boot_with(DIRECTORY, settings).await;
    let reach = Reach::gateway(&gateway, "http/1.1");
    let pause = Duration::from_millis(150);

    let handshake = async {
        let tcp = TcpStream::connect(reach.address).await.unwrap();
        // A record of 512 bytes, as far as its head goes.
        let first = vec![0x16, 3, 1, 2, 0, 1];
        trickle(tcp, std::iter::once(first).chain(bytes(0)), pause).await
    };
    let head = async {
        let first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
        let pieces = std::iter::once(first).chain(bytes(b'x'));
        trickle(reach.tls().await, pieces, pause).await
    };
    let second_head = async {
        let first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /".to_vec();
        let pieces = std::iter::once(first).chain(bytes(b'x'));
        trickle(reach.tls().await, pieces, pause).await
    };
    let body = async {
        let first = gateway.raw_head("adp", "Content-Length: 100000\r\n");
        let pieces = std::iter::once(first.into_bytes()).chain(bytes(b'<'));
        trickle(reach.tls().await, pieces, pause).await
    };
    let small_body = async {
        let first = format!(
            "POST /v1/inbox/ack HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
            gateway.keys["arbo-noord"]
        );
        let pieces = std::iter::once(first.into_bytes()).chain(bytes(b' '));
        trickle(reach.tls().await, pieces, pause).await
    };
    let pings = async {
        let stream = Reach::gateway(&gateway, "h2").tls().await;
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        first.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let ping = [[0, 0, 8, 6, 0, 0, 0, 0, 0].as_slice(), &[1; 8]].concat();
        let pieces = std::iter::once(first).chain(std::iter::repeat(ping));
        trickle(stream, pieces, pause).await
    };
    let (handshake, head, second_head, body, small_body, pings) =
        tokio::join!(handshake, head, second_head, body, small_body, pings);
    for (what, (answer, took), starts, most) in [
        ("handshake", handshake, "", 4),
        ("head", head, "", 4),
        ("second head", second_head, "HTTP/1.1 200", 6),
        ("body", body, "HTTP/1.1 408", 7),
        ("small body", small_body, "HTTP/1.1 408", 6),
        ("pings", pings, "", 4),
    ] {
        assert!(answer.starts_with(starts), "{what}: {answer}");
        assert!(took < Duration::from_secs(most), "{what}: {took:?}");
    }
    gateway.accept("adp", Absence::default().xml()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_connections() {
    let settings = "limits.max_connections = 8\nlimits.connections_per_address = 3";
    let gateway = Gateway::boot_with(DIRECTORY, settings).await;
    let reach = Reach::gateway(&gateway, "http/1.1");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(reach.tls_from("127.0.0.2").await.unwrap());
    }
    for _ in 0..20 {
        assert!(reach.tls_from("127.0.0.2").await.is_err());
    }
    gateway.accept("adp", Absence::default().xml()).await;
    held.pop();
    let started = Instant::now();
    while reach.tls_from("127.0.0.2").await.is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "its place does not come back"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let metrics = reqwest::get(format!("{}/metrics", gateway.admin))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("sivi_connections_refused_total 2"),
        "{metrics}"
    );
    gateway.stop().await;
}

fn installed(more: &str) -> Installation {
    let installation = Installation::new(more);
    installation.write("directory.toml", DIRECTORY);
    installation.yes(&["apply", "directory.toml"]);
    installation
}

fn key_of(installation: &Installation, party: &str, more: &[&str]) -> String {
    let arguments = [&["key", "issue", "--party", party], more].concat();
    installation.yes(&arguments).trim().to_owned()
}

/// Resident memory of a process, in KiB.
fn resident(daemon: &Daemon) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_waiting_pollers_cost_little_and_are_woken() {
    const POLLERS: usize = 1000;
    let most = getrlimit(Resource::Nofile).maximum;
    let files = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, files).unwrap();
    let installation = installed("limits.polls_per_party = 0");
    let keys = [
        key_of(&installation, "adp", &[]),
        key_of(&installation, "arbo-noord", &[]),
        key_of(&installation, "arbo-zuid", &[]),
    ];
    let daemon = installation.serve();
    let client = installation.client();
    let pem = std::fs::read(installation.path("data/self-signed.crt")).unwrap();
    let reach = Reach::new(&daemon.url, &pem, "http/1.1");
    let poll = |key: &str| {
        format!(
            "POST /v1/inbox/lease?wait=60 HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    // What the first ones make is there for all.
    let begin = async |key: &str, count: usize| {
        let mut waiting = Vec::new();
        for _ in 0..count {
            let mut stream = reach.tls().await;
            stream.write_all(poll(key).as_bytes()).await.unwrap();
            waiting.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        waiting
    };
    let _first = begin(&keys[2], 20).await;
    let before = resident(&daemon);
    let _waiting = begin(&keys[2], POLLERS - 24).await;
    let mut noord = begin(&keys[1], 4).await;
    let each = (resident(&daemon) - before) / i64::try_from(POLLERS - 20).unwrap();
    println!("{each} KiB for each of {POLLERS} waiting pollers");
    assert!(each <= 40, "{each} KiB each");

    let started = Instant::now();
    let posted = client
        .post(format!("{}/v1/messages", daemon.url))
        .bearer_auth(&keys[0])
        .header("content-type", "application/xml")
        .body(Absence::default().xml());
    assert_eq!(posted.send().await.unwrap().status(), 202);
    // One of the four has it.
    let answered = first_answer(&mut noord).await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

async fn first_answer(streams: &mut [TlsStream<TcpStream>]) -> String {
    loop {
        for stream in &mut *streams {
            let mut buffer = [0; 100];
            let read = stream.read(&mut buffer);
            if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), read).await {
                return String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_soon_is_spoken_of_and_measured() {
    let installation = installed("");
    let key = key_of(&installation, "adp", &["--days", "2"]);
    key_of(&installation, "nmbrs", &["--days", "90"]);
    let daemon = installation.serve();
    let started = Instant::now();
    let metrics = loop {
        let found = reqwest::get(format!("{}/metrics", daemon.admin))
            .await
            .unwrap();
        let found = found.text().await.unwrap();
        if found.contains("sivi_api_key_expires_seconds") {
            break found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let day = 86_400.0;
    let adp = value("sivi_api_key_expires_seconds{party=\"adp\"}");
    assert!((1.9 * day..=2.0 * day).contains(&adp), "{adp}");
    assert!(value("sivi_api_key_expires_seconds{party=\"nmbrs\"}") > 89.0 * day);
    assert!(value("sivi_certificate_expires_seconds{which=\"server\"}") > 1000.0 * day);
    let (_, log) = daemon.stop();
    let id = key.split('_').nth(1).unwrap();
    let said: Vec<_> = log.iter().filter(|line| line.contains("ends at")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains(&format!("API key {id} of party adp ends at")),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_one_party_leave_memory_for_the_others() {
    let settings = "limits.max_body_bytes = 65536\nlimits.in_flight_bytes = 262144\n\
                    limits.body_idle_seconds = 2";
    let gateway = Gateway::boot_with(DIRECTORY, settings).await;
    let reach = Reach::gateway(&gateway, "http/1.1");
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut upload = reach.tls().await;
        let head = gateway.raw_head("adp", "Content-Length: 65000\r\n");
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.write_all(&vec![b' '; 60_000]).await.unwrap();
        upload.flush().await.unwrap();
        slow.push(upload);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let own = gateway.post("adp", Absence::default().xml()).await;
    limited(own, "this party holds its share of limits.in_flight_bytes").await;
    let other = Absence {
        sender: "Nmbrs",
        employer: ("300", "1"),
        ..Absence::default()
    };
    gateway.accept("nmbrs", other.xml()).await;
    // Those that were let in are too slow, and what they held is free again.
    let mut answers = Vec::new();
    for upload in &mut slow {
        let mut answer = [0; 12];
        let read = upload.read_exact(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(9), read).await;
        read.expect("never let go").unwrap();
        answers.push(String::from_utf8_lossy(&answer).into_owned());
    }
    answers.sort();
    let refused = std::iter::repeat_n("HTTP/1.1 429", 4);
    let expected: Vec<_> = std::iter::once("HTTP/1.1 408").chain(refused).collect();
    assert_eq!(answers, expected);
    gateway.accept("adp", Absence::default().xml()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answer_is_reset_and_holds_no_more_than_its_share() {
    let settings = "limits.max_body_bytes = 8192\nlimits.in_flight_bytes = 32768";
    let gateway = Gateway::boot_with(DIRECTORY, settings).await;
    for case in [
        "VG-1", "VG-2", "VG-3", "VG-4", "VG-5", "VG-6", "VG-7", "VG-8",
    ] {
        let absence = Absence {
            case: case.to_owned(),
            ..Absence::default()
        };
        gateway.accept("adp", absence.xml()).await;
    }
    let (soon, late) = (Duration::from_millis(300), Duration::from_secs(5));
    let tls = Reach::gateway(&gateway, "h2").tls().await;
    let mut shut = Streams::begin(tls, 0).await;
    let path = "/v1/inbox/lease?limit=1&ttl=60";
    let key = gateway.keys["arbo-noord"].clone();
    let mut stuck = Vec::new();
    // One more than its share is let through, what comes after is not.
    while gateway
        .get("arbo-noord", "/v1/inbox/feed?after=99")
        .await
        .status()
        != 429
    {
        let id = shut.request("POST", path, &key).await;
        assert_eq!(shut.next(late).await, Some(Came::Headers(id)));
        stuck.push(id);
        assert!(stuck.len() < 8, "its share has no end");
    }
    assert!(stuck.len() > 1, "{stuck:?}");
    let refused = gateway.post_json("arbo-noord", path, json!({})).await;
    limited(
        refused,
        "this party holds its share of limits.in_flight_bytes",
    )
    .await;
    assert!(gateway.lease("arbo-zuid").await.is_empty());

    gateway.clock.advance(Duration::from_secs(59));
    assert_eq!(shut.next(soon).await, None);
    gateway.clock.advance(Duration::from_secs(2));
    for _ in 0..stuck.len() {
        let came = shut.next(late).await;
        let Some(Came::Reset(id)) = came else {
            panic!("{came:?}")
        };
        stuck.retain(|other| *other != id);
    }
    assert!(stuck.is_empty(), "{stuck:?}");
    // The connection goes on, and the leases of what was dropped are over.
    let id = shut.request("GET", "/healthz", &key).await;
    assert_eq!(shut.next(late).await, Some(Came::Headers(id)));
    let again = gateway.lease("arbo-noord").await;
    assert_eq!(again[0]["attempt"], 2);
    assert_eq!(again.len(), 8);
    drop(shut);
    gateway.stop().await;
}

//! How many messages a second the release binary accepts over TLS, and how
//! many are leased and acknowledged; `benches/throughput.sh` runs it.
//!
//! 64 connections that stay open, 4 KB messages that all differ, the
//! generator on the same cores. Peers in the same run: `GET /healthz` over the
//! same connections, and single rows committed by SQLite with fsync.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const MESSAGE: &str = include_str!("absence.xml");
const DIRECTORY: &str = include_str!("directory.toml");
const CONNECTIONS: usize = 64;
const POLLERS: usize = 1_000;

/// One connection that is used again and again.
struct Line {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    async fn open(connector: &TlsConnector, address: &str) -> Self {
        let tcp = TcpStream::connect(address)
            .await
            .expect("the daemon listens");
        tcp.set_nodelay(true).expect("a socket takes this");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector.connect(name, tcp).await.expect("TLS");
        Self {
            stream,
            buffer: Vec::with_capacity(1 << 16),
        }
    }

    /// Sends a request and reads the whole answer: its status and body.
    async fn ask(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.expect("it takes it");
        self.stream.flush().await.expect("it takes it");
        self.buffer.clear();
        loop {
            let count = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .expect("it answers");
            assert!(count > 0, "the daemon hung up");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("a head is text");
            let status = head[9..12].parse().expect("a status");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse::<usize>().expect("a length"));
            let whole = end + 4 + length;
            while self.buffer.len() < whole {
                let count = self
                    .stream
                    .read_buf(&mut self.buffer)
                    .await
                    .expect("it answers");
                assert!(count > 0, "the daemon hung up");
            }
            return (status, &self.buffer[end + 4..whole]);
        }
    }
}

/// The daemon, killed at the end.
struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn start(folder: &Path) -> (Self, Duration) {
        let started = Instant::now();
        let log = std::fs::File::create(folder.join("log")).expect("a folder of ours");
        let mut child = command(folder, &["serve"])
            .stderr(log)
            .spawn()
            .expect("it starts");
        loop {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            for line in log.lines() {
                let event: Value = serde_json::from_str(line).unwrap_or_default();
                if let Some(address) = event["fields"]["address"].as_str() {
                    let address = address.to_owned();
                    return (Self { child, address }, started.elapsed());
                }
            }
            assert!(child.try_wait().expect("ours").is_none(), "it ended: {log}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resident memory in KiB and processor time in milliseconds.
    fn usage(&self) -> (u64, u64) {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
        };
        let status = read("status");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let stat = read("stat");
        let fields: Vec<&str> = stat.split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        (resident, (ticks(13) + ticks(14)) * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sivi-gateway"));
    command
        .args(arguments)
        .arg("--config")
        .arg(folder.join("gateway.toml"));
    command
}

fn yes(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments).stderr(Stdio::inherit()).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

fn connector(folder: &Path) -> TlsConnector {
    let pem = std::fs::read(folder.join("data/self-signed.crt")).expect("its certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("PEM"))
        .expect("a certificate");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn post(key: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: {kind}\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn message(number: u64) -> String {
    MESSAGE.replace("NUMBER", &format!("{number:09}"))
}

/// What one run saw.
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
}

/// Runs `CONNECTIONS` lines for `time`; `request` makes the next request.
async fn run(
    connector: &TlsConnector,
    address: &str,
    time: Duration,
    expected: u16,
    request: impl Fn() -> Vec<u8> + Clone + Send + 'static,
) -> Run {
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        lines.push(Line::open(connector, address).await);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut line in lines {
        let request = request.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < time {
                let request = request();
                let asked = Instant::now();
                let (status, body) = line.ask(&request).await;
                assert_eq!(status, expected, "{}", String::from_utf8_lossy(body));
                times.push(asked.elapsed());
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.expect("no line fails"));
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    Run {
        rate: per_second(times.len(), took),
        p50: at(50),
        p99: at(99),
    }
}

fn per_second(count: usize, seconds: f64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from) / seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Leases and acknowledges by four pollers until `time` is over or nothing is
/// left; messages a second.
async fn take(connector: &TlsConnector, address: &str, key: &str, time: Duration) -> f64 {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut line = Line::open(connector, address).await;
        let lease = post(key, "/v1/inbox/lease?limit=100", "application/json", "");
        let key = key.to_owned();
        tasks.spawn(async move {
            let mut count = 0;
            while started.elapsed() < time {
                let (status, body) = line.ask(&lease).await;
                assert_eq!(status, 200);
                let answer: Value = serde_json::from_slice(body).expect("JSON");
                let messages = answer["messages"].as_array().expect("a list");
                if messages.is_empty() {
                    break;
                }
                let item = |m: &Value| json!({"id": m["id"], "lease": m["lease"]});
                let items: Vec<Value> = messages.iter().map(item).collect();
                let taken = items.len();
                let body = json!({ "items": items }).to_string();
                let ack = post(&key, "/v1/inbox/ack", "application/json", &body);
                assert_eq!(line.ask(&ack).await.0, 200);
                count += taken;
            }
            count
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done.expect("no line fails");
    }
    per_second(count, started.elapsed().as_secs_f64())
}

/// Rows of 4 KB a second, each in a transaction of its own.
async fn commits(folder: &Path) -> f64 {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.join("peer.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .disable_statement_logging();
    let mut connection = options.connect().await.expect("a new file");
    let table = "CREATE TABLE message (id INTEGER PRIMARY KEY, body BLOB)";
    sqlx::query(table)
        .execute(&mut connection)
        .await
        .expect("a table");
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(2) {
        let insert = sqlx::query("INSERT INTO message (body) VALUES ($1)");
        insert
            .bind(MESSAGE)
            .execute(&mut connection)
            .await
            .expect("room");
        count += 1;
    }
    drop(connection.close().await);
    per_second(count, started.elapsed().as_secs_f64())
}

/// A thousand pollers that wait: memory and processor time.
async fn wait(connector: &TlsConnector, daemon: &Daemon, key: &str) {
    let before = daemon.usage().0;
    let mut lines = Vec::new();
    for _ in 0..POLLERS {
        lines.push(Line::open(connector, &daemon.address).await);
    }
    let lease = post(key, "/v1/inbox/lease?wait=25", "application/json", "");
    for line in &mut lines {
        line.stream.write_all(&lease).await.expect("it takes it");
        line.stream.flush().await.expect("it takes it");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (memory, spent) = daemon.usage();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let steady = daemon.usage().1 - spent;
    println!(
        "{POLLERS} pollers waiting   {} KiB each, {:.1} % of a core",
        memory.saturating_sub(before) / POLLERS as u64,
        per_second(usize::try_from(steady).unwrap_or(0), 10_000.0) * 100.0
    );
}

fn main() {
    let number = |name: &str, otherwise: u64| {
        let set = std::env::var(name).ok();
        set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (runs, seconds) = (number("RUNS", 5), number("RUN_SECONDS", 6));
    // One thread: the generator shares the cores with the daemon.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(bench(runs, Duration::from_secs(seconds)));
}

async fn bench(runs: u64, time: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let settings = "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\nadmin.listen = \"127.0.0.1:0\"\n\
                    limits.max_connections = 2000\nlog.format = \"json\"\n";
    std::fs::write(folder.join("gateway.toml"), settings).expect("a folder of ours");
    std::fs::write(folder.join("directory.toml"), DIRECTORY).expect("a folder of ours");
    let directory = folder.join("directory.toml");
    yes(folder, &["apply", directory.to_str().expect("UTF-8")]);
    let sending = yes(folder, &["key", "issue", "--party", "adp"]);
    let receiving = yes(folder, &["key", "issue", "--party", "arbo-noord"]);
    drop(Daemon::start(folder));
    let starts = (0..5).map(|_| Daemon::start(folder).1.as_secs_f64() * 1000.0);
    println!("start to listening     {:.0} ms", median(starts.collect()));
    let (daemon, _) = Daemon::start(folder);
    println!("resident when idle     {} MiB", daemon.usage().0 / 1024);
    println!("message                {} bytes", message(1).len());
    let connector = connector(folder);
    let counter = Arc::new(std::sync::atomic::AtomicU64::new(0));

    let health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let (mut accepted, mut taken, mut peers, mut synced) = (vec![], vec![], vec![], vec![]);
    let (mut p50, mut p99) = (vec![], vec![]);
    for _ in 0..runs {
        synced.push(commits(folder).await);
        std::fs::remove_file(folder.join("peer.db")).expect("it was made");
        let request = health.clone();
        let peer = run(&connector, &daemon.address, time / 3, 200, move || {
            request.clone()
        });
        peers.push(peer.await.rate);
        let (counter, key) = (Arc::clone(&counter), sending.clone());
        let (_, before) = daemon.usage();
        let next = move || {
            let number = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            post(&key, "/v1/messages", "application/xml", &message(number))
        };
        let done = run(&connector, &daemon.address, time, 202, next).await;
        let spent = daemon.usage().1 - before;
        accepted.push(done.rate);
        p50.push(done.p50);
        p99.push(done.p99);
        taken.push(take(&connector, &daemon.address, &receiving, time / 2).await);
        print!(
            "  {:.0} accepted/s, p50 {:.1} ms, p99 {:.1} ms, {:.0} taken/s; daemon {spent} ms CPU",
            done.rate,
            done.p50,
            done.p99,
            taken.last().copied().unwrap_or_default()
        );
        println!(", {} MiB", daemon.usage().0 / 1024);
        std::io::stdout().flush().expect("a terminal");
    }
    let (accepted, taken) = (median(accepted), median(taken));
    println!(
        "accepted               {accepted:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        median(p50),
        median(p99)
    );
    println!("leased and acknowledged {taken:.0}/s");
    let (peer, synced) = (median(peers), median(synced));
    println!(
        "GET /healthz           {peer:.0}/s: accepting runs at {:.2} of it",
        accepted / peer
    );
    println!(
        "SQLite commits         {synced:.0}/s: accepting runs at {:.2} of it",
        accepted / synced
    );
    // Empty the inbox, so that nobody has to wait for nothing.
    while take(&connector, &daemon.address, &receiving, time).await > 0.0 {}
    wait(&connector, &daemon, &receiving).await;
}

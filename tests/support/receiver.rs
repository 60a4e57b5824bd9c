//! A receiver of alerts or traces on loopback, and a person that must appear in
//! none of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use sivi_gateway::clock::Clock;
use sivi_gateway::http::{Limits, SelfSigned, Server, server_config};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Absence;

/// Signs the alerts.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Values of a person that must appear nowhere.
const PERSONAL: [&str; 5] = [
    "Zonderling",
    "W-KANARIE",
    "VG-KANARIE",
    "D-KANARIE",
    "1980-02-29",
];

/// A report about somebody who must appear nowhere.
pub fn canary() -> Absence {
    Absence {
        surname: "Zonderling".to_owned(),
        employment: "D-KANARIE".to_owned(),
        ..Absence::of("W-KANARIE", "VG-KANARIE")
    }
}

/// Asserts that a text holds nothing of [`canary`].
#[track_caller]
pub fn names_nobody(text: &str, berrefnr: &str) {
    for value in PERSONAL.iter().copied().chain([berrefnr]) {
        assert!(!text.contains(value), "{value} in {text}");
    }
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
struct Heard {
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<Mutex<StatusCode>>,
}

async fn hear(State(heard): State<Heard>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = String::from_utf8(body.to_vec()).unwrap();
    // Before anybody can see the request, and change what the next is answered.
    let status = *heard.status.lock().unwrap();
    heard.got.lock().unwrap().push(Got { headers, body });
    status
}

/// A receiver of alerts or traces on loopback.
pub struct Receiver {
    heard: Heard,
    pub address: SocketAddr,
    folder: TempDir,
    stop: CancellationToken,
}

impl Receiver {
    pub async fn start(with_tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let heard = Heard {
            got: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::NO_CONTENT)),
        };
        let tls = with_tls.then(|| {
            let now = Clock::system().now();
            let (made, _) = SelfSigned::in_folder(folder.path(), now).unwrap();
            let read = |path| std::fs::read_to_string(path).unwrap();
            let config = server_config(&read(made.chain), &read(made.key)).unwrap();
            watch::Sender::new(config).subscribe()
        });
        let limits = Limits {
            connections: 64,
            per_address: 64,
            header: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            stop: Duration::from_secs(1),
        };
        let router = Router::new()
            .route("/hook", post(hear))
            .route("/v1/traces", post(hear))
            .with_state(heard.clone());
        let free = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(
            free,
            tls,
            router,
            watch::Sender::new(limits).subscribe(),
            Clock::system(),
        )
        .await
        .unwrap();
        let address = server.address().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        Self {
            heard,
            address,
            folder,
            stop,
        }
    }

    /// Settings that send alerts here, with a look every second.
    pub fn settings(&self) -> String {
        format!(
            "[alerts]\nurl = \"https://localhost:{}/hook\"\nsecret = \"{SECRET}\"\nca = \"{}\"\n\
             look_seconds = 1\n",
            self.address.port(),
            self.folder.path().join("self-signed.crt").display(),
        )
    }

    /// The authority of its certificate, PEM; with TLS.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("self-signed.crt")).unwrap()
    }

    pub fn got(&self) -> Vec<Got> {
        self.heard.got.lock().unwrap().clone()
    }

    pub fn answer(&self, status: StatusCode) {
        *self.heard.status.lock().unwrap() = status;
    }

    /// Messages about one alert.
    pub fn about(&self, alert: &str) -> Vec<Got> {
        let mut got = self.got();
        got.retain(|one| one.json()["alert"] == alert);
        got
    }

    /// Waits until there are `count` messages about an alert.
    pub async fn wait_for(&self, alert: &str, count: usize) -> Vec<Got> {
        let started = Instant::now();
        loop {
            let about = self.about(alert);
            if about.len() >= count {
                return about;
            }
            let waited = started.elapsed();
            assert!(
                waited < Duration::from_secs(40),
                "{alert}: {:?}",
                self.got()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

//! A receiver of webhooks on loopback, with TLS of a private authority, that
//! notes what it is sent and answers what the test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
    /// The certificate that the gateway showed.
    pub client: Option<CertificateDer<'static>>,
}

impl Seen {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// The text of the first element with this tag.
    pub fn text(&self, tag: &str) -> &str {
        let start = self.body.find(&format!("<{tag}>")).unwrap() + tag.len() + 2;
        let end = self.body[start..].find('<').unwrap();
        &self.body[start..start + end]
    }
}

/// What the receiver answers.
#[derive(Clone)]
pub enum Reply {
    /// A status with header lines.
    Status(u16, Vec<(&'static str, String)>),
    /// 204, once the gate is open.
    Hold(watch::Receiver<bool>),
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self::Status(status, Vec::new())
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    count: Arc<watch::Sender<usize>>,
    script: Script,
}

/// A receiver that listens until it is dropped.
pub struct Receiver {
    pub port: u16,
    /// Its authority, PEM, also of client certificates.
    pub ca: String,
    /// A client certificate and its key, PEM.
    pub client: (String, String),
    shared: Shared,
    served: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Receiver {
    /// Answers every request by `script`.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = issue("localhost");
        let (client, client_key) = issue("gateway");
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared {
            seen: Arc::default(),
            count: Arc::new(watch::Sender::new(0)),
            script: Arc::new(script),
        };
        let acceptor = acceptor(issuer.der().clone(), server.der().clone(), &server_key);
        let served = tokio::spawn(serve(listener, acceptor, shared.clone()));
        Self {
            port,
            ca: issuer.pem(),
            client: (client.pem(), client_key.serialize_pem()),
            shared,
            served,
        }
    }

    /// Puts what the directory refers to into the folder of the settings.
    pub fn write_ca(&self, folder: &Path) {
        std::fs::write(folder.join("receiver-ca.pem"), &self.ca).unwrap();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits for this many requests, and gives all there are.
    pub async fn wait_for(&self, count: usize) -> Vec<Seen> {
        let mut counted = self.shared.count.subscribe();
        let came = counted.wait_for(|seen| *seen >= count);
        let came = tokio::time::timeout(Duration::from_secs(20), came).await;
        assert!(
            came.is_ok(),
            "{} of {count} requests came",
            self.seen().len()
        );
        self.seen()
    }

    /// Gives what comes a moment, and asserts that nothing more does.
    pub async fn assert_no_more_than(&self, count: usize) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(self.seen().len(), count);
    }
}

fn acceptor(
    ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, shared: Shared) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            // A handshake that fails is the gateway's to report.
            let Ok(stream) = acceptor.accept(tcp).await else {
                return;
            };
            let shown = stream.get_ref().1.peer_certificates();
            let client = shown.and_then(|chain| chain.first()).cloned();
            let client = client.map(CertificateDer::into_owned);
            let router = Router::new().fallback(take).with_state((shared, client));
            let service = TowerToHyperService::new(
                router.map_request(|request: Request<_>| request.map(Body::new)),
            );
            let served = auto::Builder::new(TokioExecutor::new());
            let _ = served.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn take(
    State((shared, client)): State<(Shared, Option<CertificateDer<'static>>)>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)));
    let seen = Seen {
        path: uri.path().to_owned(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        client,
    };
    let reply = {
        // Noted and answered in one order.
        let mut all = shared.seen.lock().unwrap();
        all.push(seen.clone());
        (shared.script)(&seen)
    };
    shared.count.send_modify(|count| *count += 1);
    match reply {
        Reply::Status(status, lines) => {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            let mut response = (status, "an answer that nobody keeps").into_response();
            for (name, value) in lines {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Reply::Hold(mut gate) => {
            let _ = gate.wait_for(|open| *open).await;
            axum::http::StatusCode::NO_CONTENT.into_response()
        }
    }
}

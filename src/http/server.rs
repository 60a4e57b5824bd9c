//! The accept loop: TLS handshakes, connection limits, graceful stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::outgoing::{Outgoing, Progress, Streams};
use super::pace::Line;
use super::peer::PeerCertificate;
use super::places::Places;
use super::stream::{Activity, Stream};
use crate::clock::Clock;

/// Largest head of an HTTP/1 request, and what is read at once of its body.
const HEAD_BYTES: usize = 128 << 10;
/// How a peer is noticed that vanished without a word: asked after a minute
/// of silence, given up after three answers that did not come.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Bounds on connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one address at once, or of one /64 of IPv6; more are
    /// closed. 0 is no limit.
    pub per_address: usize,
    /// How long the TLS handshake may take, and the first request after it to
    /// begin.
    pub header: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long running requests may take after a stop was asked for.
    pub stop: Duration,
}

/// A listening socket and what answers on it.
pub struct Server {
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    router: Router,
    limits: watch::Receiver<Limits>,
    clock: Clock,
}

impl Server {
    /// Binds `address`; port 0 takes a free one. Without `tls` the server
    /// speaks plain HTTP, for listeners on loopback. What `tls` and `limits`
    /// hold when a connection comes is what counts for it. Answers that are
    /// not taken are given up by `clock`.
    ///
    /// # Errors
    ///
    /// The address is taken or not ours.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        router: Router,
        limits: watch::Receiver<Limits>,
        clock: Clock,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            tls,
            router,
            limits,
            clock,
        })
    }

    /// The address that was bound.
    ///
    /// # Errors
    ///
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets running requests finish.
    pub async fn run(mut self, stop: CancellationToken) {
        let places = Arc::new(Places::default());
        let graceful = GracefulShutdown::new();
        loop {
            let accepting = async {
                places.free(&mut self.limits).await;
                self.listener.accept().await
            };
            let Some(accepted) = stop.run_until_cancelled(accepting).await else {
                break;
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Out of file descriptors, most likely: give others time to close.
                    tracing::warn!("Cannot accept a connection: {cause}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let limits = *self.limits.borrow();
            let Some(place) = places.take(address.ip(), limits.per_address) else {
                counter!("sivi_connections_refused_total").increment(1);
                continue;
            };
            let connection = Connection {
                tls: self.tls.as_ref().map(|tls| Arc::clone(&tls.borrow())),
                router: self.router.clone(),
                limits,
                clock: self.clock.clone(),
                watcher: graceful.watcher(),
                stop: stop.clone(),
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop(place);
            });
        }
        let limits = *self.limits.borrow();
        drop(self.listener);
        if tokio::time::timeout(limits.stop, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("Some requests were still running and were cut off");
        }
    }
}

struct Connection {
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    clock: Clock,
    watcher: hyper_util::server::graceful::Watcher,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        if prepare(&stream).is_err() {
            return;
        }
        let Some(tls) = self.tls.clone() else {
            return self.speak(stream, false, None).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let handshake = tokio::time::timeout(self.limits.header, handshake);
        // Nobody waits at a stop for a client that has not said anything yet.
        let Some(Ok(Ok(stream))) = self.stop.run_until_cancelled(handshake).await else {
            return;
        };
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let peer = session.peer_certificates().and_then(PeerCertificate::of);
        self.speak(stream, is_http2, peer).await;
    }

    async fn speak<S>(self, stream: S, is_http2: bool, peer: Option<PeerCertificate>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // The protocol is known: waiting for the first bytes to guess it from
        // would have no time limit.
        let outbound = Line::default();
        let streams = Streams::on(outbound.clone(), self.clock.clone());
        let builder = auto::Builder::new(streams);
        let mut builder = if is_http2 {
            builder.http2_only()
        } else {
            builder.http1_only()
        };
        builder
            .http1()
            .timer(TokioTimer::new())
            // `Activity` tells a silent connection from a busy one; hyper's
            // own limit would end unused connections as early as slow heads.
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .keep_alive_interval(Duration::from_secs(30));
        // HTTP/2 writes without being asked, to answer a ping.
        let activity = if is_http2 {
            Activity::of_requests()
        } else {
            Activity::of_requests_and_writes()
        };
        let progress = Progress::new(self.clock, outbound);
        let inbound = Line::default();
        let service = TowerToHyperService::new(self.router);
        let counted = service_fn({
            let (activity, progress) = (Arc::clone(&activity), Arc::clone(&progress));
            move |mut request: hyper::Request<Incoming>| {
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(peer.clone());
                }
                request.extensions_mut().insert(inbound.clone());
                let running = activity.begin();
                let answering = service.call(request);
                let progress = Arc::clone(&progress);
                async move {
                    let response: axum::response::Response = answering.await?;
                    let progress = Progress::of_task(&progress);
                    let outgoing = |body| Outgoing::new(body, progress, running);
                    Ok::<_, std::convert::Infallible>(response.map(outgoing))
                }
            }
        });
        let stream = Stream::new(stream, Arc::clone(&activity));
        let connection = builder.serve_connection(TokioIo::new(stream), counted);
        let connection = pin!(self.watcher.watch(connection.into_owned()));
        // A client that goes away in the middle is not an event for the log.
        tokio::select! {
            _ = connection => {}
            () = progress.stalls() => {}
            () = activity.idle(self.limits.header, self.limits.idle) => {}
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // An answer above one segment would wait 40 ms for an acknowledgement.
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn the_requests_of_a_connection_share_its_line() {
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let seen = Arc::clone(&lines);
        let note = async move |Extension(line): Extension<Line>| seen.lock().unwrap().push(line);
        let limits = Limits {
            connections: 9,
            header: Duration::from_mins(1),
            idle: Duration::from_mins(1),
            ..Limits::default()
        };
        let server = Server::bind(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            None,
            Router::new().route("/", get(note)),
            watch::Sender::new(limits).subscribe(),
            Clock::system(),
        );
        let server = server.await.unwrap();
        let address = server.address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        for requests in [2, 1] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..requests {
                let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"));
            }
        }
        let same = {
            let lines = lines.lock().unwrap();
            [lines[0].is(&lines[1]), lines[1].is(&lines[2])]
        };
        assert_eq!(same, [true, false]);
        stop.cancel();
        running.await.unwrap();
    }

    /// A peer cannot be made to vanish here; what would notice it can be seen.
    #[tokio::test]
    async fn a_peer_that_vanishes_is_noticed_within_two_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let rounds = socket.tcp_keepalive_retries().unwrap();
        let noticed = socket.tcp_keepalive_time().unwrap()
            + socket.tcp_keepalive_interval().unwrap() * rounds;
        assert!(noticed < Duration::from_mins(2), "{noticed:?}");
    }
}

//! The accept loop: TLS handshakes, connection limits, graceful stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::stream::{Activity, Stream};

/// Largest head of an HTTP/1 request, and what is read at once of its body.
const HEAD_BYTES: usize = 128 << 10;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
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
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
}

impl Server {
    /// Binds `address`; port 0 takes a free one. Without `tls` the server
    /// speaks plain HTTP, for listeners on loopback.
    ///
    /// # Errors
    ///
    /// The address is taken or not ours.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        router: Router,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            tls,
            router,
            limits,
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
    pub async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let Some(Ok(place)) = stop.run_until_cancelled(place).await else {
                break;
            };
            let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await else {
                break;
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(cause) => {
                    // Out of file descriptors, most likely: give others time to close.
                    tracing::warn!("Cannot accept a connection: {cause}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = Connection {
                tls: self.tls.clone(),
                router: self.router.clone(),
                limits: self.limits,
                watcher: graceful.watcher(),
                stop: stop.clone(),
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop(place);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(self.limits.stop, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("Some requests were still running and were cut off");
        }
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // An answer above one segment would wait 40 ms for an acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = self.tls.clone() else {
            return self.speak(stream, false).await;
        };
        let handshake = tokio::time::timeout(self.limits.header, tls.accept(stream));
        // Nobody waits at a stop for a client that has not said anything yet.
        let Some(Ok(Ok(stream))) = self.stop.run_until_cancelled(handshake).await else {
            return;
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        self.speak(stream, is_http2).await;
    }

    async fn speak<S>(self, stream: S, is_http2: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // The protocol is known: waiting for the first bytes to guess it from
        // would have no time limit.
        let builder = auto::Builder::new(TokioExecutor::new());
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
        let activity = Activity::new();
        let service = TowerToHyperService::new(self.router);
        let counted = service_fn({
            let activity = Arc::clone(&activity);
            move |request: hyper::Request<Incoming>| {
                let running = activity.begin();
                let answering = service.call(request);
                async move {
                    let response: axum::response::Response = answering.await?;
                    Ok::<_, std::convert::Infallible>(response.map(|body| {
                        Body::new(body.map_frame(move |frame| {
                            let _until_the_body_is_sent = &running;
                            frame
                        }))
                    }))
                }
            }
        });
        let stream = Stream::new(stream, Arc::clone(&activity));
        let connection = builder.serve_connection(TokioIo::new(stream), counted);
        let connection = pin!(self.watcher.watch(connection.into_owned()));
        // A client that goes away in the middle is not an event for the log.
        tokio::select! {
            _ = connection => {}
            () = activity.idle(self.limits.header, self.limits.idle) => {}
        }
    }
}

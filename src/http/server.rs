//! The accept loop: TLS handshakes, connection limits, graceful stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long the head of a request may take.
    pub header: Duration,
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
                header: self.limits.header,
                watcher: graceful.watcher(),
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
    header: Duration,
    watcher: hyper_util::server::graceful::Watcher,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // An answer above one segment would wait 40 ms for an acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .keep_alive_interval(Duration::from_secs(30));
        let service = TowerToHyperService::new(self.router);
        match self.tls {
            None => {
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let connection = pin!(self.watcher.watch(connection.into_owned()));
                let _ = connection.await;
            }
            Some(tls) => {
                let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
                let Ok(Ok(stream)) = handshake.await else {
                    return;
                };
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let connection = pin!(self.watcher.watch(connection.into_owned()));
                // A client that goes away in the middle is not an event for the log.
                let _ = connection.await;
            }
        }
    }
}

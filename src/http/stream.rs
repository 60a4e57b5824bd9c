//! What a connection does beyond HTTP: notices that nothing happens, gives up
//! on a client that does not read, and closes so that the last answer is read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

/// How long an answer may wait for a client that does not read.
const STALL: Duration = Duration::from_mins(1);
/// How long a closed connection is read on: closing with bytes unread would
/// make the kernel throw the answer away that is on its way.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read on.
const LINGER_BYTES: usize = 1 << 20;

/// What happens on one connection.
pub(super) struct Activity {
    writes_count: bool,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    running: usize,
    served: bool,
    since: Instant,
}

impl Activity {
    /// Only requests keep the connection open.
    pub(super) fn of_requests() -> Arc<Self> {
        Self::new(false)
    }

    /// Also the bytes of an answer that is still on its way do.
    pub(super) fn of_requests_and_writes() -> Arc<Self> {
        Self::new(true)
    }

    fn new(writes_count: bool) -> Arc<Self> {
        Arc::new(Self {
            writes_count,
            state: Mutex::new(State {
                running: 0,
                served: false,
                since: Instant::now(),
            }),
            changed: Notify::new(),
        })
    }

    /// A request runs until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        let mut state = self.lock();
        state.running += 1;
        state.served = true;
        drop(state);
        Running(Arc::clone(self))
    }

    /// Ends when no request came within `first`, or none for `idle` after the
    /// last one.
    pub(super) async fn idle(&self, first: Duration, idle: Duration) {
        loop {
            let (running, until) = {
                let state = self.lock();
                let pause = if state.served { idle } else { first };
                (state.running > 0, state.since + pause)
            };
            if running {
                self.changed.notified().await;
            } else if until <= Instant::now() {
                return;
            } else {
                tokio::time::sleep_until(until).await;
            }
        }
    }

    fn wrote(&self) {
        if self.writes_count {
            self.lock().since = Instant::now();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A few numbers, each right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in hand.
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        state.since = Instant::now();
        drop(state);
        self.0.changed.notify_one();
    }
}

/// The bytes of one connection.
pub(super) struct Stream<S> {
    inner: S,
    activity: Arc<Activity>,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: Option<Closing>,
}

struct Closing {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Stream<S> {
    pub(super) fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self {
            inner,
            activity,
            stalled: None,
            closing: None,
        }
    }

    /// An error instead of `Pending` for ever.
    fn or_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(_)) = &polled {
            self.activity.wrote();
        }
        self.or_stalled(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.or_stalled(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closing = this.closing.get_or_insert_with(|| Closing {
            until: Box::pin(sleep(LINGER)),
            left: LINGER_BYTES,
        });
        if closing.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        let mut waste = [0_u8; 4096];
        while closing.left > 0 {
            let mut buffer = ReadBuf::new(&mut waste);
            // The client closed or broke off: nothing to wait for.
            if ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            closing.left = closing.left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

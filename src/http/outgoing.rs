//! Answers on their way: sent in small pieces, and given up when the client
//! does not take them.
//!
//! What counts is what the client takes over its connection: of many answers on
//! a thin line each is slow. An answer of which it takes nothing while it takes
//! others is waited for as well, but not for ever.
//!
//! On HTTP/1 such a client loses its connection. On HTTP/2, where it can shut
//! the window of one stream and go on with others, the stream is reset: what
//! hyper runs for a stream is dropped, and with it the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::rt::Executor;
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pace::{Line, Moving};
use super::stream::Running;
use crate::clock::Clock;

/// The stretch of time in which answers move at their least pace. One that is
/// small has to be taken whole in it, or others move.
const STRETCH: Duration = Duration::from_mins(1);
/// How long one answer may stand while others of its connection move: as the
/// longest lease, after which the messages in it come again anyway.
const STANDING: Duration = Duration::from_mins(15);
/// The largest piece of an answer: what a client that shuts its window can keep
/// of each.
const PIECE: usize = 8 << 10;

tokio::task_local! {
    /// The progress of the stream that this task answers.
    static STREAM: Arc<Progress>;
}

/// How the answer of a connection or a stream gets on.
pub(super) struct Progress {
    clock: Clock,
    line: Line,
    answer: Mutex<Option<Answer>>,
    begun: Notify,
}

struct Answer {
    moving: Moving,
    moved_at: Instant,
}

impl Progress {
    /// That of an answer on `line`.
    pub(super) fn new(clock: Clock, line: Line) -> Arc<Self> {
        Arc::new(Self {
            clock,
            line,
            answer: Mutex::default(),
            begun: Notify::new(),
        })
    }

    /// That of the stream of this task, or `of_connection` where there are no
    /// streams.
    pub(super) fn of_task(of_connection: &Arc<Self>) -> Arc<Self> {
        STREAM
            .try_with(Arc::clone)
            .unwrap_or_else(|_| Arc::clone(of_connection))
    }

    /// Ends when an answer is too slow, and not before.
    pub(super) async fn stalls(&self) {
        loop {
            match self.until() {
                None => self.begun.notified().await,
                Some(until) if until <= self.clock.instant() => break,
                Some(until) => self.clock.sleep_until_instant(until).await,
            }
        }
        counter!("sivi_answers_given_up_total").increment(1);
    }

    fn until(&self) -> Option<Instant> {
        let answer = self.lock();
        let answer = answer.as_ref()?;
        Some(answer.moving.until().min(answer.moved_at + STANDING))
    }

    fn begin(&self) {
        let now = self.clock.instant();
        *self.lock() = Some(Answer {
            moving: self.line.begin(STRETCH, now),
            moved_at: now,
        });
        self.begun.notify_one();
    }

    fn moved(&self, bytes: usize) {
        if let Some(answer) = self.lock().as_mut() {
            answer.moved_at = self.clock.instant();
            answer.moving.moved(bytes, answer.moved_at);
        }
    }

    fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Answer>> {
        // Replaced as a whole, or a few numbers.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer on its way.
pub(super) struct Outgoing {
    body: Body,
    /// What was taken of the body and did not go yet.
    rest: Bytes,
    progress: Arc<Progress>,
    _running: Running,
}

impl Outgoing {
    /// `running` ends when the body was sent.
    pub(super) fn new(body: Body, progress: Arc<Progress>, running: Running) -> Self {
        progress.begin();
        Self {
            body,
            rest: Bytes::new(),
            progress,
            _running: running,
        }
    }

    /// The next piece of what is in hand. A copy: a piece that waits in the
    /// buffer of a stream must not keep the whole.
    fn piece(&mut self) -> Bytes {
        if self.rest.len() <= PIECE {
            return std::mem::take(&mut self.rest);
        }
        Bytes::copy_from_slice(&self.rest.split_to(PIECE))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame?.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let piece = self.piece();
        self.progress.moved(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Runs the streams of one connection, each until its answer is too slow.
#[derive(Clone)]
pub(super) struct Streams {
    clock: Clock,
    line: Line,
}

impl Streams {
    /// Those whose answers go over `line`.
    pub(super) fn on(line: Line, clock: Clock) -> Self {
        Self { clock, line }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let progress = Progress::new(self.clock.clone(), self.line.clone());
        let stream = STREAM.scope(Arc::clone(&progress), stream);
        tokio::spawn(async move {
            tokio::select! {
                () = stream => {}
                () = progress.stalls() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;
    use jiff::SignedDuration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::super::stream::Activity;
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(30);
    /// A second less than [`STRETCH`].
    const ALMOST: Duration = Duration::from_secs(59);

    fn clock() -> Clock {
        Clock::manual("2026-11-22T10:00:00Z".parse().unwrap())
    }

    fn outgoing(progress: &Arc<Progress>, bytes: usize) -> Outgoing {
        let body = Body::from(vec![b'x'; bytes]);
        Outgoing::new(body, Arc::clone(progress), Activity::of_requests().begin())
    }

    #[tokio::test]
    async fn an_answer_goes_in_small_pieces_and_whole() {
        let progress = Progress::new(clock(), Line::default());
        for size in [0, 1, PIECE, PIECE + 1, 5 * PIECE - 1] {
            let mut body = outgoing(&progress, size);
            assert_eq!(body.size_hint().exact(), Some(size as u64));
            let mut came = 0;
            while !body.is_end_stream() {
                let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE && piece.iter().all(|byte| *byte == b'x'));
                came += piece.len();
                assert_eq!(body.size_hint().exact(), Some((size - came) as u64));
            }
            assert_eq!(came, size);
        }
    }

    #[tokio::test]
    async fn an_answer_that_moves_is_waited_for_and_one_that_stands_is_not() {
        let clock = clock();
        let progress = Progress::new(clock.clone(), Line::default());
        let stalls = async || timeout(SOON, progress.stalls()).await.is_ok();
        clock.advance(9 * STRETCH);
        assert!(!stalls().await, "nothing is on its way");
        let mut body = outgoing(&progress, 100 * PIECE);
        clock.advance(ALMOST);
        assert!(!stalls().await);
        for _ in 0..40 {
            body.frame().await.unwrap().unwrap();
        }
        clock.advance(ALMOST);
        assert!(!stalls().await, "it moves");
        body.frame().await.unwrap().unwrap();
        clock.advance(Duration::from_secs(1));
        assert!(stalls().await, "one piece a minute is no pace");
        drop(body);
        assert!(!stalls().await, "nothing is on its way any more");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_gives_no_answer_up() {
        let clock = clock();
        let progress = Progress::new(clock.clone(), Line::default());
        let _body = outgoing(&progress, PIECE);
        for hours in [9, -18] {
            clock.step(SignedDuration::from_hours(hours));
            assert!(timeout(SOON, progress.stalls()).await.is_err());
        }
        clock.advance(STRETCH);
        progress.stalls().await;
    }

    /// The answers of two streams of one connection, as its executor runs
    /// them; the second tells when its stream ends.
    async fn two_streams(clock: &Clock) -> (Outgoing, oneshot::Receiver<()>) {
        let streams = Streams::on(Line::default(), clock.clone());
        let elsewhere = Progress::new(clock.clone(), Line::default());
        let (send, receive) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        streams.execute({
            let elsewhere = Arc::clone(&elsewhere);
            async move {
                let progress = Progress::of_task(&elsewhere);
                assert!(send.send(outgoing(&progress, 1000 * PIECE)).is_ok());
                std::future::pending::<()>().await;
            }
        });
        let moving = receive.await.unwrap();
        let (begins, begun) = oneshot::channel();
        streams.execute(async move {
            let _ends: oneshot::Sender<()> = ends;
            let _standing = outgoing(&Progress::of_task(&elsewhere), PIECE);
            begins.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        begun.await.unwrap();
        (moving, ended)
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_while_others_of_its_connection_move() {
        let clock = clock();
        let (mut moving, mut ended) = two_streams(&clock).await;
        for minute in 1..15 {
            clock.advance(ALMOST);
            for _ in 0..30 {
                moving.frame().await.unwrap().unwrap();
            }
            clock.advance(Duration::from_secs(1));
            let waited = timeout(SOON, &mut ended).await;
            assert!(waited.is_err(), "given up after {minute} minutes");
        }
        clock.advance(ALMOST);
        for _ in 0..30 {
            moving.frame().await.unwrap().unwrap();
        }
        clock.advance(Duration::from_secs(1));
        let waited = timeout(LATE, ended).await;
        assert!(waited.is_ok(), "none of it in a quarter of an hour");
    }

    #[tokio::test]
    async fn an_answer_is_given_up_when_its_connection_stands() {
        let clock = clock();
        let (mut moving, ended) = two_streams(&clock).await;
        moving.frame().await.unwrap().unwrap();
        clock.advance(STRETCH);
        assert!(ended.await.is_err());
    }
}

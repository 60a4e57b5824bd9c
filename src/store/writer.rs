//! The one task that writes: takes what waits, writes it in one transaction,
//! and answers after COMMIT.
//!
//! A batch is what came in during the last commit, at most [`BATCH_JOBS`], so
//! a slow disk makes batches larger, not senders slower. A full queue refuses
//! at once. A job whose row breaks a rule of the schema, or is held by another
//! node for too long, takes no neighbour down: its batch is written again, each
//! job by itself, which also judges it anew when another node was first. After
//! any other failure every job of the batch is told so, and the next one
//! connects anew.
//!
//! This module does not know what the jobs do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::accept;
use super::acceptance::Prepared;
use super::backend::{Backend, Connection};
use super::bells::{Bells, Rings};
use super::error::{Cause, Error, is_about_data, is_about_lock, is_about_others};
use super::failpoint;

/// Most jobs of one transaction.
const BATCH_JOBS: usize = 512;
/// Most jobs that wait.
const QUEUE_JOBS: usize = 4096;
/// How much may wait, in KiB. A larger job goes only when nothing else waits.
const QUEUE_KIB: usize = 512 * 1024;

/// How often a batch is written again that another node stood in the way of.
const AGAIN: u32 = 5;
/// How long one transaction may take before its connection counts as dead.
const LONGEST: Duration = Duration::from_secs(45);
/// How long to wait for a dead connection to go.
const GOODBYE: Duration = Duration::from_secs(1);

/// One change of the database, with what it found as output.
///
/// Outcomes such as "somebody was first" belong in the output and leave
/// nothing written; an `Err` undoes the whole batch. A change may run twice,
/// the first time undone.
pub(super) trait Change: Send + Sync + 'static {
    /// What the caller is told after COMMIT.
    type Output: Send + 'static;

    /// Makes the change inside the transaction of the batch.
    fn run(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send;

    /// Notes who is to be woken after COMMIT.
    fn ring(&self, _output: &Self::Output, _rings: &mut Rings) {}

    /// Counts what was done, for operators. Called after COMMIT, once.
    fn count(&self, _output: &Self::Output) {}
}

type Ran<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// A [`Change`] with its type hidden.
trait Step: Send {
    fn run<'a>(&'a mut self, connection: &'a mut Connection) -> Ran<'a>;
    fn ring(&self, rings: &mut Rings);
    fn settle(self: Box<Self>, written: Result<(), Error>);
    fn is_awaited(&self) -> bool;
}

struct Request<C: Change> {
    change: C,
    output: Option<C::Output>,
    answer: oneshot::Sender<Result<C::Output, Error>>,
}

impl<C: Change> Step for Request<C> {
    fn run<'a>(&'a mut self, connection: &'a mut Connection) -> Ran<'a> {
        Box::pin(async move {
            self.output = Some(self.change.run(connection).await?);
            Ok(())
        })
    }

    fn ring(&self, rings: &mut Rings) {
        if let Some(output) = &self.output {
            self.change.ring(output, rings);
        }
    }

    fn settle(self: Box<Self>, written: Result<(), Error>) {
        let Request {
            change,
            output,
            answer,
        } = *self;
        if let (Ok(()), Some(output)) = (&written, &output) {
            change.count(output);
        }
        let output = output.ok_or(Error::Unavailable(Cause::Driver));
        // Whoever asked may have gone; the change stands.
        drop(answer.send(written.and(output)));
    }

    fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }
}

enum Job {
    Accept(Box<accept::Job>),
    Change(Box<dyn Step>),
    Close(oneshot::Sender<()>),
}

/// A job and the room that it takes while it waits.
type Queued = (Job, OwnedSemaphorePermit);

/// The way to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    failing: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the task on the current runtime. It ends when the last handle
    /// is gone and everything that waits is written.
    /// `node` signs what it tells other nodes.
    pub(super) fn start(
        backend: Backend,
        connection: Connection,
        bells: Arc<Bells>,
        node: Arc<str>,
    ) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let failing = Arc::new(AtomicBool::new(false));
        let task = Task {
            backend,
            connection: Some(connection),
            bells,
            failing: Arc::clone(&failing),
            node,
        };
        tokio::spawn(task.serve(jobs));
        Self {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
            failing,
        }
    }

    /// Writes one change and waits for COMMIT.
    pub(super) async fn write<C: Change>(&self, change: C) -> Result<C::Output, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            change,
            output: None,
            answer,
        };
        self.enqueue(Job::Change(Box::new(request)), 0)?;
        answered.await.unwrap_or(Err(closed()))
    }

    /// Writes one acceptance of `bytes` and waits for COMMIT.
    pub(super) async fn accept(
        &self,
        prepared: Prepared,
        bytes: usize,
    ) -> Result<accept::Verdict, Error> {
        let (job, answered) = accept::Job::new(prepared);
        self.enqueue(Job::Accept(Box::new(job)), bytes)?;
        answered.await.unwrap_or(Err(closed()))
    }

    /// Writes what waits, refuses what comes later, and lets the file go.
    pub(super) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        let room = Arc::clone(&self.room).acquire_many_owned(1).await;
        if let Ok(room) = room
            && self.queue.send((Job::Close(answer), room)).await.is_ok()
        {
            drop(answered.await);
        }
    }

    /// True when the last batch failed, or nobody takes jobs any more.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.queue.is_closed()
    }

    /// Completes when nobody takes jobs any more: after [`Self::close`], or
    /// because the task ended by a fault of ours.
    pub(super) async fn ended(&self) {
        self.queue.closed().await;
    }

    fn enqueue(&self, job: Job, bytes: usize) -> Result<(), Error> {
        let queued = self.try_enqueue(job, bytes);
        if queued == Err(Error::Busy) {
            counter!("sivi_writer_refused_total").increment(1);
        }
        queued
    }

    fn try_enqueue(&self, job: Job, bytes: usize) -> Result<(), Error> {
        let kib = u32::try_from((bytes / 1024 + 1).min(QUEUE_KIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(kib)
            .map_err(|_| Error::Busy)?;
        self.queue
            .try_send((job, room))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => Error::Busy,
                mpsc::error::TrySendError::Closed(_) => closed(),
            })
    }
}

/// True when the neighbours of a job may well be written.
fn is_about_one(cause: &sqlx::Error) -> bool {
    is_about_data(cause) || is_about_lock(cause)
}

/// True when a rollback makes the connection as good as new.
fn leaves_connection(cause: &sqlx::Error) -> bool {
    is_about_one(cause) || is_about_others(cause)
}

/// Jobs of a batch are few.
fn as_f64(jobs: usize) -> f64 {
    u32::try_from(jobs).map_or(f64::MAX, f64::from)
}

fn closed() -> Error {
    Error::Unavailable(Cause::Closed)
}

/// What goes into one transaction, and the room it takes.
#[derive(Default)]
struct Batch {
    accepts: Vec<accept::Job>,
    steps: Vec<Box<dyn Step>>,
    room: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    fn len(&self) -> usize {
        self.accepts.len() + self.steps.len()
    }

    /// Writes all of it in one transaction, and gives what to ring.
    async fn write(
        &mut self,
        connection: &mut Connection,
        node: &str,
    ) -> Result<Rings, sqlx::Error> {
        failpoint::pass(failpoint::Place::Begun);
        connection.begin().await?;
        let written = self.run(connection, node).await;
        match written {
            Ok(rings) => {
                failpoint::pass(failpoint::Place::Written);
                let started = Instant::now();
                connection.commit().await?;
                histogram!("sivi_commit_seconds").record(started.elapsed());
                histogram!("sivi_commit_jobs").record(as_f64(self.len()));
                failpoint::pass(failpoint::Place::Committed);
                Ok(rings)
            }
            Err(cause) if leaves_connection(&cause) => {
                connection.rollback().await?;
                Err(cause)
            }
            // The database may have rolled back by itself. Its connection is
            // closed in any case, which undoes what is left.
            Err(cause) => Err(cause),
        }
    }

    async fn run(&mut self, connection: &mut Connection, node: &str) -> Result<Rings, sqlx::Error> {
        accept::write(connection, &mut self.accepts).await?;
        for step in &mut self.steps {
            step.run(connection).await?;
        }
        let mut rings = Rings::default();
        self.accepts.iter().for_each(|job| job.ring(&mut rings));
        self.steps.iter().for_each(|step| step.ring(&mut rings));
        for news in rings.news(node) {
            connection.notify(news).await?;
        }
        Ok(rings)
    }

    /// The same jobs, each in a batch of its own.
    fn apart(self) -> impl Iterator<Item = Self> {
        let accepts = self.accepts.into_iter().map(|job| Self {
            accepts: vec![job],
            ..Self::default()
        });
        let steps = self.steps.into_iter().map(|step| Self {
            steps: vec![step],
            ..Self::default()
        });
        accepts.chain(steps)
    }

    fn settle(self, written: &Result<(), Error>) {
        for job in self.accepts {
            job.settle(written.clone());
        }
        for step in self.steps {
            step.settle(written.clone());
        }
    }
}

struct Task {
    backend: Backend,
    connection: Option<Connection>,
    bells: Arc<Bells>,
    failing: Arc<AtomicBool>,
    /// Signs what other nodes are told.
    node: Arc<str>,
}

impl Task {
    async fn serve(mut self, mut jobs: mpsc::Receiver<Queued>) {
        let mut taken = Vec::with_capacity(BATCH_JOBS);
        let mut closing = Vec::new();
        while jobs.recv_many(&mut taken, BATCH_JOBS).await > 0 {
            let mut batch = Batch::default();
            for (job, room) in taken.drain(..) {
                match job {
                    Job::Accept(job) => batch.accepts.push(*job),
                    // A lease that nobody waits for would only hide messages.
                    Job::Change(step) if step.is_awaited() => batch.steps.push(step),
                    Job::Change(_) => {}
                    Job::Close(answer) => {
                        jobs.close();
                        closing.push(answer);
                    }
                }
                batch.room.push(room);
            }
            if batch.len() > 0 {
                self.write(batch).await;
            }
        }
        if let Some(connection) = self.connection.take() {
            drop(connection.close().await);
        }
        for answer in closing {
            answer.send(()).unwrap_or_default();
        }
    }

    async fn write(&mut self, mut batch: Batch) {
        let written = self.attempt(&mut batch).await;
        match written {
            // Alone, too: what another node wrote first is judged anew.
            Err(cause) if is_about_data(&cause) || (is_about_lock(&cause) && batch.len() > 1) => {
                for mut single in batch.apart() {
                    let written = self.attempt(&mut single).await;
                    self.settle(single, written);
                }
            }
            written => self.settle(batch, written),
        }
    }

    /// Writes a batch, again when another node stood in its way, and rings.
    async fn attempt(&mut self, batch: &mut Batch) -> Result<(), sqlx::Error> {
        let mut written = self.attempt_once(batch).await;
        for _ in 0..AGAIN {
            match &written {
                Err(cause) if is_about_others(cause) => written = self.attempt_once(batch).await,
                _ => break,
            }
        }
        written.map(|rings| self.bells.ring(&rings))
    }

    async fn attempt_once(&mut self, batch: &mut Batch) -> Result<Rings, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.backend.writer().await?),
        };
        let written = tokio::time::timeout(LONGEST, batch.write(connection, &self.node)).await;
        let written = written.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        if let Err(cause) = &written
            && !leaves_connection(cause)
        {
            // Whatever state it is in, the next batch starts on a new one.
            if let Some(connection) = self.connection.take() {
                let goodbye = connection.close_hard();
                drop(tokio::time::timeout(GOODBYE, goodbye).await);
            }
        }
        written
    }

    fn settle(&self, batch: Batch, written: Result<(), sqlx::Error>) {
        if written.as_ref().is_err_and(is_about_lock) {
            tracing::warn!("A change was put off: somebody else holds its rows for too long");
        }
        let failing = written.as_ref().is_err_and(|cause| !is_about_one(cause));
        let failed_before = self.failing.swap(failing, Ordering::Relaxed);
        let written = written.map_err(Error::from);
        match &written {
            Err(cause) if !failed_before => {
                tracing::error!(
                    jobs = batch.len(),
                    "Could not write to the database: {cause}"
                );
            }
            Ok(()) if failed_before => tracing::info!("The database takes writes again"),
            _ => {}
        }
        batch.settle(&written);
        failpoint::pass(failpoint::Place::Answered);
    }
}

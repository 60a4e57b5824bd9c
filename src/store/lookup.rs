//! Look-ups of persons, many at once.
//!
//! Every absence message asks the ledger about its persons. While one query
//! runs, the questions of other messages gather; the next query answers all of
//! them. Alone, a question waits for nothing.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::backend::Pool;
use super::error::Error;
use super::ledger::{Known, entries_of_persons};
use super::ring::Ring;
use crate::domain::KeyedHash;
use crate::policy::CaseEntry;
use crate::supervise::keep_running;

/// Questions that one query answers at most.
const TOGETHER: usize = 64;
/// Questions that may wait before the next one is refused.
const WAITING: usize = 4096;

/// What a message wants to know, and where the answer goes.
struct Question {
    persons: Vec<KeyedHash>,
    answer: oneshot::Sender<Result<Vec<CaseEntry>, Error>>,
}

/// Asks about persons. Ends with its last clone.
#[derive(Clone)]
pub(super) struct Lookups(mpsc::Sender<Question>);

impl Lookups {
    pub(super) fn start(pool: Pool, ring: Arc<Ring>) -> Self {
        let (sender, questions) = mpsc::channel(WAITING);
        let questions = Arc::new(Mutex::new(questions));
        tokio::spawn(async move {
            // It ends with the last who can ask.
            let unstopped = CancellationToken::new();
            let start = || answer_all(pool.clone(), Arc::clone(&ring), Arc::clone(&questions));
            keep_running("ledger look-ups", &unstopped, start).await;
        });
        Self(sender)
    }

    /// Everything known of these persons, on any route.
    pub(super) async fn ask(&self, persons: Vec<KeyedHash>) -> Result<Vec<CaseEntry>, Error> {
        let (answer, answered) = oneshot::channel();
        let question = Question { persons, answer };
        self.0.try_send(question).map_err(|_| Error::Busy)?;
        answered.await.unwrap_or(Err(Error::Busy))
    }
}

async fn answer_all(pool: Pool, ring: Arc<Ring>, questions: Arc<Mutex<mpsc::Receiver<Question>>>) {
    let mut questions = questions.lock().await;
    let mut gathered = Vec::with_capacity(TOGETHER);
    while questions.recv_many(&mut gathered, TOGETHER).await > 0 {
        let persons: HashSet<KeyedHash> = gathered
            .iter()
            .flat_map(|question| &question.persons)
            .copied()
            .collect();
        let known = find(&pool, &ring, persons).await;
        for Question { persons, answer } in gathered.drain(..) {
            let entries = known.as_ref().map_err(Clone::clone);
            // Whoever asked may have gone away.
            let _ = answer.send(entries.and_then(|known| entries_of(&persons, known)));
        }
    }
}

async fn find(pool: &Pool, ring: &Ring, persons: HashSet<KeyedHash>) -> Result<Known, Error> {
    let mut connection = pool.acquire().await?;
    entries_of_persons(&mut connection, ring, persons).await
}

fn entries_of(persons: &[KeyedHash], known: &Known) -> Result<Vec<CaseEntry>, Error> {
    let mut entries = Vec::new();
    for of in persons.iter().filter_map(|person| known.get(person)) {
        entries.extend(of.clone()?);
    }
    Ok(entries)
}

//! Answers that hold messages: how many are read at once, and the memory that
//! they hold until their receiver has taken them.
//!
//! An answer that is given up on its way changes nothing in the store: what it
//! leased comes again when the lease is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::access::{Caller, Hold, Memory};
use crate::domain::PartyId;
use crate::http::Problem;

/// Answers of all parties that are read at once, from the store until they are
/// ready to go; more wait for their turn.
const TURNS: usize = 16;
/// Those of one party.
const TURNS_OF_ONE: usize = 4;

/// The answers of all parties. Clones are the same answers.
#[derive(Clone)]
pub struct Answers {
    memory: Memory,
    turns: Arc<Semaphore>,
    of_one: Arc<Mutex<HashMap<PartyId, Arc<Semaphore>>>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            memory: Memory::default(),
            turns: Arc::new(Semaphore::new(TURNS)),
            of_one: Arc::default(),
        }
    }
}

impl Answers {
    /// Waits for a turn to read an answer. How long one takes is up to the
    /// store, not to the receiver.
    ///
    /// # Errors
    ///
    /// What [`crate::access::Full`] becomes, when answers on their way hold all
    /// the memory that this party can have.
    pub(super) async fn turn(&self, caller: &Caller) -> Result<Turn, Problem> {
        let of_one = permit(self.of_one(&caller.party)).await;
        let of_all = permit(Arc::clone(&self.turns)).await;
        let hold = self.memory.hold(caller);
        hold.check_room()?;
        Ok(Turn {
            hold,
            _permits: [of_one, of_all],
        })
    }

    fn of_one(&self, party: &PartyId) -> Arc<Semaphore> {
        // Entries are added whole.
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = of_one.entry(party.clone());
        Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(TURNS_OF_ONE))))
    }
}

async fn permit(turns: Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = turns.acquire_owned().await;
    permit.expect("nobody closes the turns")
}

/// The turn to read one answer; it ends when the answer is ready or dropped.
pub(super) struct Turn {
    hold: Hold,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Turn {
    /// What was read as an answer, which holds its memory until it is sent.
    pub(super) fn answer(
        mut self,
        content_type: &'static str,
        bytes: Zeroizing<Vec<u8>>,
    ) -> Response {
        self.hold.charge_to(bytes.capacity());
        let kept = Kept {
            bytes,
            _hold: self.hold,
        };
        let mut response = Response::new(Body::from(Bytes::from_owner(kept)));
        let content_type = HeaderValue::from_static(content_type);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// The bytes of an answer, overwritten when it is sent.
struct Kept {
    bytes: Zeroizing<Vec<u8>>,
    _hold: Hold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

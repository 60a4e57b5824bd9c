//! `/v1/messages`: messages come in, senders ask what became of them.
//!
//! The stages in order: `body` bounds, `unpack` unpacks, `prepare` parses,
//! validates, strips and normalises, `plan` routes and asks policy, `intake`
//! stores. `routes` turns HTTP into calls and results into HTTP.

mod answer;
mod body;
mod catch_up;
mod explain;
mod intake;
mod plan;
mod prepare;
mod record;
mod routes;
mod signature;
mod status;
mod unpack;
mod waiting;

pub use catch_up::{CatchUp, Days};
pub use explain::{ExplainError, explain};
pub use intake::{Intake, Refusal};
pub use prepare::examine;
pub use routes::{Reception, routes};
pub use waiting::Unparked;

use crate::http::{Kind, Problem};
use crate::store::Error;

/// What a client may know of a failure of the store.
pub(crate) fn store_problem(cause: &Error) -> Problem {
    match cause {
        Error::Busy | Error::Unavailable(_) => {
            tracing::warn!("The store cannot answer now: {cause}");
            Problem::new(Kind::Unavailable)
        }
        Error::Conflict
        | Error::WrongKeys
        | Error::StoreLost
        | Error::Moved { .. }
        | Error::Damaged { .. } => Problem::internal(cause),
    }
}

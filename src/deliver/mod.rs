//! `/v1/inbox`: receivers take their messages, or are sent them, at least once
//! and in order per case, until they acknowledge them.
//!
//! Every answer concerns the caller's own inbox only; another party's message
//! does not exist. This module does not look into messages.

mod answers;
mod inbox;
pub mod push;
mod shown;
mod wait;

pub use answers::Answers;
pub use inbox::{Counter, routes};

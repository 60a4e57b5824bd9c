//! `/v1/inbox`: receivers take their messages, at least once and in order per
//! case, until they acknowledge them.
//!
//! Every answer concerns the caller's own inbox only; another party's message
//! does not exist. This module does not look into messages.

mod inbox;
mod wait;

pub use inbox::{Counter, routes};

//! sivi-gateway: receives, validates, filters and hands out SIVI absence
//! messages.
//!
//! Data flows one way: receive, parse, validate, map, policy, store, deliver.
//! `ARCHITECTURE.md` follows one message; `tests/layers.rs` keeps the rules.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod clock;
pub mod domain;
pub mod parse;
pub mod policy;
pub mod validate;

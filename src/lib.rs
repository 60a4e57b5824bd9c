//! sivi-gateway: receives, validates, filters and hands out SIVI absence
//! messages.
//!
//! Data flows one way: receive, parse, validate, map, policy, store, deliver.
//! `ARCHITECTURE.md` follows one message; `tests/layers.rs` keeps the rules.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod access;
pub mod admin;
pub mod app;
pub mod certificate;
pub mod clock;
pub mod command;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod directory;
pub mod domain;
pub mod expiry;
pub mod http;
pub mod letters;
pub mod parse;
pub mod policy;
pub mod receive;
pub mod seal;
pub mod setup;
pub mod store;
pub mod supervise;
pub mod toml_file;
pub mod trace;
pub mod translate;
pub mod validate;
pub mod watch;

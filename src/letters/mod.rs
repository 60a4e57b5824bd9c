//! What waits for a person: dead letters and parked parts.
//!
//! Finds them, shows them and acts on them, for the commands and for the
//! operators' API alike, so that both speak of the same things with the same
//! words. Nothing here holds personal data: neither what is shown nor what is
//! logged. Every action may be repeated and then changes nothing more.

pub mod dead;
pub mod parked;

use std::fmt;

use crate::domain::{PartyId, TenantId};

/// Most items of one page.
pub const PAGE_MAX: usize = 1000;
/// Items of a page when nobody says how many.
pub const PAGE: usize = 100;

/// A filter that cannot be used. Repeats no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which part of the filter.
    pub key: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.key, self.expected)
    }
}

impl std::error::Error for Unfit {}

const ID: &str = "1 to 64 of a-z 0-9 -";

fn party(text: Option<&str>) -> Result<Option<PartyId>, Unfit> {
    let unfit = |_| Unfit {
        key: "party",
        expected: ID,
    };
    text.map(PartyId::parse).transpose().map_err(unfit)
}

fn tenant(text: Option<&str>) -> Result<Option<TenantId>, Unfit> {
    let unfit = |_| Unfit {
        key: "tenant",
        expected: ID,
    };
    text.map(TenantId::parse).transpose().map_err(unfit)
}

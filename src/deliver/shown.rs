//! Messages of an inbox as JSON, written straight into the bytes of an answer.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::store::{FeedItem, Leased};

/// What a message takes in an answer beside its XML, in bytes, at most about.
const AROUND: usize = 512;

/// `{"messages": […]}` with what was leased.
pub(super) fn leased(messages: &[Leased]) -> Zeroizing<Vec<u8>> {
    let shown = messages.iter().map(|one| Shown {
        id: &one.id,
        sequence: one.sequence,
        message_type: &one.message_type,
        edition: &one.edition,
        tenant: one.tenant.as_str(),
        test: one.test,
        received_at: one.received_at,
        xml: String::from_utf8_lossy(&one.xml),
        lease: Some(Terms {
            lease: &one.lease,
            attempt: one.attempt,
            lease_until: one.lease_until,
        }),
    });
    written(shown.collect())
}

/// `{"messages": […]}` with a page of the feed.
pub(super) fn feed(items: &[FeedItem]) -> Zeroizing<Vec<u8>> {
    let shown = items.iter().map(|one| Shown {
        id: &one.id,
        sequence: one.sequence,
        message_type: &one.message_type,
        edition: &one.edition,
        tenant: one.tenant.as_str(),
        test: one.test,
        received_at: one.received_at,
        xml: String::from_utf8_lossy(&one.xml),
        lease: None,
    });
    written(shown.collect())
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    sequence: i64,
    message_type: &'a str,
    edition: &'a str,
    tenant: &'a str,
    test: bool,
    received_at: Timestamp,
    xml: Cow<'a, str>,
    #[serde(flatten)]
    lease: Option<Terms<'a>>,
}

#[derive(Serialize)]
struct Terms<'a> {
    lease: &'a str,
    attempt: u32,
    lease_until: Timestamp,
}

fn written(messages: Vec<Shown<'_>>) -> Zeroizing<Vec<u8>> {
    // Escaped quotes of XML make it a little longer.
    let size = |one: &Shown<'_>| one.xml.len() + one.xml.len() / 8 + AROUND;
    let mut bytes = Zeroizing::new(Vec::with_capacity(messages.iter().map(size).sum()));
    serde_json::to_writer(&mut *bytes, &Messages { messages })
        .expect("texts, numbers and times are JSON, and a Vec takes every byte");
    bytes
}

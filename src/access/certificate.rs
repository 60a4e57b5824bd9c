//! Client certificates: whose they are, and which were seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::directory::Pin;
use crate::domain::{Fingerprint, PartyId};
use crate::http::PeerCertificate;
use crate::setup::Setup;

/// How long a certificate counts as in use after it was seen.
const IN_USE: Duration = Duration::from_hours(48);

/// The party that a client certificate belongs to, if it is valid now. One
/// that two parties could claim belongs to neither.
pub(super) fn holder<'s>(
    peer: &PeerCertificate,
    setup: &'s Setup,
    now: Timestamp,
) -> Option<&'s PartyId> {
    let certificate = peer.certificate().filter(|leaf| leaf.is_current(now))?;
    let by_fingerprint = setup
        .directory
        .holder(&Pin::Fingerprint(certificate.fingerprint));
    let by_name = certificate.names.clone().and_then(|names| {
        let (issuer, subject) = (names.issuer, names.subject);
        let holder = setup.directory.holder(&Pin::Name { issuer, subject })?;
        let authorities = setup.client_ca.as_ref()?;
        authorities.vouch_for(peer.chain(), now).then_some(holder)
    });
    match (by_fingerprint, by_name) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => one.or(other),
    }
}

/// Until when the certificates count that parties came with lately. They are
/// known only from their use: the directory holds names and fingerprints.
#[derive(Clone, Default)]
pub struct SeenCertificates(Arc<Mutex<Seen>>);

type Seen = BTreeMap<(PartyId, Fingerprint), (Timestamp, Timestamp)>;

impl SeenCertificates {
    pub(super) fn note(&self, party: &PartyId, peer: &PeerCertificate, now: Timestamp) {
        if let Some(leaf) = peer.certificate() {
            let key = (party.clone(), leaf.fingerprint);
            self.lock().insert(key, (leaf.not_after, now));
        }
    }

    /// The parties whose certificates were seen lately, and when each of
    /// those ends.
    #[must_use]
    pub fn in_use(&self, now: Timestamp) -> Vec<(PartyId, Timestamp)> {
        let mut seen = self.lock();
        seen.retain(|_, (_, last)| now.duration_since(*last).unsigned_abs() < IN_USE);
        let ends = seen.iter();
        ends.map(|((party, _), (until, _))| (party.clone(), *until))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Dates, each right by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

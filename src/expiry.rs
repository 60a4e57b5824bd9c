//! What ends by itself: certificates and API keys, and when to say so.
//!
//! Pure: who asks brings what is known and the moment. The daemon logs it and
//! shows it as metrics; an alert can be made of the same list.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::certificate::Certificate;
use crate::domain::PartyId;
use crate::store::ApiKey;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Days before an end at which the matter grows more urgent, after the first
/// warning of the settings.
const STAGES: [u64; 5] = [0, 1, 3, 7, 14];
/// How long a key that ended is still spoken of.
const AFTERWARDS: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The gateway's own certificate.
    ServerCertificate,
    /// One of the authorities in `tls.client_ca`.
    ClientAuthority,
    /// A client certificate of this party.
    PartyCertificate(PartyId),
    /// An API key.
    ApiKey {
        /// Whose it is.
        party: PartyId,
        /// Its id, which is no secret.
        id: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerCertificate => f.write_str("The certificate of the gateway"),
            Self::ClientAuthority => f.write_str("An authority of tls.client_ca"),
            Self::PartyCertificate(party) => write!(f, "The client certificate of party {party}"),
            Self::ApiKey { party, id } => write!(f, "API key {id} of party {party}"),
        }
    }
}

/// Something that ends, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What ends.
    pub subject: Subject,
    /// When it no longer counts.
    pub ends_at: Timestamp,
}

impl Expiry {
    /// How long it still counts; negative when it ended.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        self.ends_at.duration_since(now)
    }

    /// How urgent it is: the lowest of `first`, 14, 7, 3, 1 and 0 days that
    /// it is within, 0 being over; `None` when there is time. An alert is due
    /// when this changes.
    #[must_use]
    pub fn stage(&self, now: Timestamp, first: u64) -> Option<u64> {
        let left = self.left(now);
        let within = |days: &u64| left <= DAY * i32::try_from(*days).unwrap_or(i32::MAX);
        let mut stages = STAGES.into_iter().filter(|days| *days < first);
        stages.find(within).or_else(|| Some(first).filter(within))
    }
}

/// What is known to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// End of the gateway's own certificate.
    pub server: Option<Timestamp>,
    /// Authorities of client certificates.
    pub authorities: &'a [Certificate],
    /// Ends of the client certificates that parties came with lately.
    pub party_certificates: &'a [(PartyId, Timestamp)],
    /// All API keys.
    pub api_keys: &'a [ApiKey],
}

/// Everything that ends, the next one first. An API key of which the party
/// uses a later one already is left out: it may end.
#[must_use]
pub fn expiring(known: &Known<'_>, now: Timestamp) -> Vec<Expiry> {
    let server = known.server.map(|at| (Subject::ServerCertificate, at));
    let authorities = known.authorities.iter();
    let authorities = authorities.map(|one| (Subject::ClientAuthority, one.not_after));
    let parties = known.party_certificates.iter();
    let parties = parties.map(|(party, at)| (Subject::PartyCertificate(party.clone()), *at));
    let keys = known.api_keys.iter().filter_map(|key| {
        let ends_at = key.expires_at?;
        let is_past = now.duration_since(ends_at) > AFTERWARDS;
        if key.revoked_at.is_some() || is_past || is_succeeded(key, known.api_keys) {
            return None;
        }
        let (party, id) = (key.party.clone(), key.id.clone());
        Some((Subject::ApiKey { party, id }, ends_at))
    });
    let mut all: Vec<Expiry> = server
        .into_iter()
        .chain(authorities)
        .chain(parties)
        .chain(keys)
        .map(|(subject, ends_at)| Expiry { subject, ends_at })
        .collect();
    all.sort_by(|a, b| (a.ends_at, &a.subject).cmp(&(b.ends_at, &b.subject)));
    all
}

/// True when the party uses another key that ends later, and used it last.
fn is_succeeded(key: &ApiKey, all: &[ApiKey]) -> bool {
    all.iter().any(|other| {
        other.party == key.party
            && other.revoked_at.is_none()
            && other
                .expires_at
                .is_none_or(|end| Some(end) > key.expires_at)
            && other.last_used_at > key.last_used_at
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyedHash;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn key(id: &str, expires_at: Option<&str>, last_used_at: Option<&str>) -> ApiKey {
        ApiKey {
            id: id.to_owned(),
            party: PartyId::parse("adp").unwrap(),
            hash: KeyedHash::from_bytes([0; 32]),
            created_at: at("2026-01-01T00:00:00Z"),
            expires_at: expires_at.map(at),
            revoked_at: None,
            last_used_at: last_used_at.map(at),
        }
    }

    fn ids(keys: &[ApiKey], now: &str) -> Vec<String> {
        let known = Known {
            api_keys: keys,
            ..Known::default()
        };
        let found = expiring(&known, at(now)).into_iter();
        let text = |one: Expiry| one.subject.to_string();
        let id = |text: String| text.split(' ').nth(2).unwrap().to_owned();
        found.map(text).map(id).collect()
    }

    #[test]
    fn it_grows_more_urgent_towards_the_end() {
        let one = Expiry {
            subject: Subject::ServerCertificate,
            ends_at: at("2026-12-31T00:00:00Z"),
        };
        for (now, stage) in [
            ("2026-11-30T00:00:00Z", None),
            ("2026-12-01T00:00:00Z", Some(30)),
            ("2026-12-16T23:59:59Z", Some(30)),
            ("2026-12-17T00:00:00Z", Some(14)),
            ("2026-12-24T12:00:00Z", Some(7)),
            ("2026-12-29T23:00:00Z", Some(3)),
            ("2026-12-30T00:00:00Z", Some(1)),
            ("2026-12-31T00:00:00Z", Some(0)),
            ("2027-02-01T00:00:00Z", Some(0)),
        ] {
            assert_eq!(one.stage(at(now), 30), stage, "{now}");
        }
        assert_eq!(one.stage(at("2026-12-20T00:00:00Z"), 7), None);
        assert_eq!(one.stage(at("2026-12-24T00:00:00Z"), 7), Some(7));
        assert_eq!(one.stage(at("2026-11-30T00:00:00Z"), 60), Some(60));
    }

    #[test]
    fn a_key_that_the_party_left_behind_may_end() {
        let old = key(
            "old",
            Some("2026-12-31T00:00:00Z"),
            Some("2026-11-01T00:00:00Z"),
        );
        let mut new = key("new", Some("2027-12-31T00:00:00Z"), None);
        let now = "2026-12-20T00:00:00Z";
        assert_eq!(ids(&[new.clone(), old.clone()], now), ["old", "new"]);
        new.last_used_at = Some(at("2026-11-02T00:00:00Z"));
        assert_eq!(ids(&[new.clone(), old.clone()], now), ["new"]);
        new.revoked_at = Some(at("2026-11-03T00:00:00Z"));
        assert_eq!(ids(&[new, old.clone()], now), ["old"]);
        assert_eq!(ids(&[key("ever", None, None)], now), [""; 0]);
        assert_eq!(
            ids(std::slice::from_ref(&old), "2027-01-06T00:00:00Z"),
            ["old"]
        );
        assert_eq!(ids(&[old], "2027-01-08T00:00:00Z"), [""; 0]);
    }
}

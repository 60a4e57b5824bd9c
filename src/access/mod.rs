//! Who calls, and how much of it a party may do: API keys, client
//! certificates, allowances, shares of memory.
//!
//! A handler takes a [`Caller`]; how the party showed who it is does not
//! concern it.

mod allowance;
mod certificate;
mod key;
mod memory;

pub use allowance::{Allowances, Limit, Running};
pub use certificate::SeenCertificates;
pub use key::{NewKey, party_of};
pub use memory::{Full, Hold, Memory};

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header;
use axum::http::request::Parts;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::domain::PartyId;
use crate::http::{Kind, PeerCertificate, Problem};
use crate::setup::{Current, Setup};

/// What every way in needs to know who calls.
#[derive(Clone)]
pub struct Door {
    /// The current configuration.
    pub current: Current,
    /// The time.
    pub clock: Clock,
    /// Told which API key was used.
    pub used_keys: tokio::sync::mpsc::Sender<String>,
    /// Told which certificates were used.
    pub seen: SeenCertificates,
    /// What each party may still do.
    pub allowances: Allowances,
}

/// What an extractor of [`Caller`] needs from the state of its router.
pub trait Doorkeeper: Send + Sync {
    /// The door.
    fn door(&self) -> &Door;
}

/// The party behind a request. A handler that takes one needs no check of its
/// own and cannot forget it.
#[derive(Clone)]
pub struct Caller {
    /// The party.
    pub party: PartyId,
    /// The configuration that the whole request uses.
    pub setup: Arc<Setup>,
    shown: Shown,
}

/// What a request showed of who calls.
#[derive(Clone)]
struct Shown {
    authorization: Option<HeaderValue>,
    peer: Option<PeerCertificate>,
}

impl Caller {
    /// The party behind a request, whatever it asks for.
    ///
    /// # Errors
    ///
    /// [`Kind::Unauthorized`].
    pub fn identify(parts: &Parts, door: &Door) -> Result<Self, Problem> {
        let shown = Shown {
            authorization: parts.headers.get(header::AUTHORIZATION).cloned(),
            peer: parts.extensions.get::<PeerCertificate>().cloned(),
        };
        shown.identify(door)
    }

    /// The same party with the configuration of now, for a request that waited:
    /// its key may have been revoked since.
    ///
    /// # Errors
    ///
    /// [`Kind::Unauthorized`].
    pub fn again(&self, door: &Door) -> Result<Self, Problem> {
        let caller = self.shown.clone().identify(door)?;
        if caller.party != self.party {
            return Err(refused(""));
        }
        Ok(caller)
    }
}

impl Shown {
    fn identify(self, door: &Door) -> Result<Caller, Problem> {
        let setup = door.current.get();
        let now = door.clock.now();
        let key = presented_key(self.authorization.as_ref(), &setup, now)?;
        let peer = self.peer.as_ref();
        let holder = peer.and_then(|peer| certificate::holder(peer, &setup, now));
        let party = match (&key, holder) {
            (None, None) => return Err(refused("")),
            (Some((party, _)), None) => {
                check_without_certificate(&setup, party, peer.is_some())?;
                party.clone()
            }
            (None, Some(holder)) => holder.clone(),
            (Some((party, _)), Some(holder)) if party == holder => holder.clone(),
            (Some(_), Some(_)) => {
                return Err(refused(
                    "the API key and the client certificate are of different parties",
                ));
            }
        };
        if let (Some(peer), Some(_)) = (peer, holder) {
            door.seen.note(&party, peer, now);
        }
        if let Some((_, id)) = key {
            // A full queue loses a time of last use, nothing else.
            let _ = door.used_keys.try_send(id);
        }
        Ok(Caller {
            party,
            setup,
            shown: self,
        })
    }
}

impl<S: Doorkeeper> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Self::identify(parts, state.door())?;
        let allowances = &state.door().allowances;
        allowances.admit(&caller, Limit::RequestsPerMinute)?;
        Ok(caller)
    }
}

/// The party and the id of the key in the head, if there is one.
fn presented_key(
    authorization: Option<&HeaderValue>,
    setup: &Setup,
    now: Timestamp,
) -> Result<Option<(PartyId, String)>, Problem> {
    let Some(value) = authorization else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let found = token.and_then(|token| party_of(setup, token, now));
    found.map(Some).ok_or_else(|| refused(""))
}

/// A key that comes without a certificate of its party. One of nobody says
/// nothing about a party that never named certificates: some clients send the
/// one they have to everybody.
fn check_without_certificate(
    setup: &Setup,
    party: &PartyId,
    unknown_one: bool,
) -> Result<(), Problem> {
    let Some(party) = setup.party(party) else {
        return Err(refused(""));
    };
    if unknown_one && !party.certificates.is_empty() {
        return Err(refused(
            "the client certificate is not one of this party, or not valid now",
        ));
    }
    if party.require_certificate {
        return Err(refused("this party needs its client certificate"));
    }
    Ok(())
}

fn refused(detail: &str) -> Problem {
    let problem = Problem::new(Kind::Unauthorized);
    if detail.is_empty() {
        return problem;
    }
    problem.detail(detail)
}

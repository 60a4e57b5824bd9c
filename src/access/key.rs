//! API keys: `sgw_ID_SECRET`. The store holds a keyed hash; the id is no
//! secret and names the key in lists and logs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::domain::{KeyedHash, PartyId};
use crate::seal::Keys;
use crate::setup::Setup;

const PREFIX: &str = "sgw";
/// Length of an id in bytes of randomness.
const ID: usize = 6;
/// Length of a secret in bytes of randomness.
const SECRET: usize = 32;

/// A new API key: what is stored of it, and the text that is shown once.
pub struct NewKey {
    /// Names the key.
    pub id: String,
    /// What the store keeps.
    pub hash: KeyedHash,
    text: Zeroizing<String>,
}

impl NewKey {
    /// A key from the system's random numbers.
    ///
    /// # Panics
    ///
    /// When the system has no random numbers to give.
    #[must_use]
    pub fn generate(keys: &Keys) -> Self {
        let mut random = Zeroizing::new([0_u8; ID + SECRET]);
        aws_lc_rs::rand::fill(&mut random[..]).expect("the system has random numbers");
        let (id, secret) = random.split_at(ID);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret));
        let hash = hash_of(keys, &id, &secret);
        let text = Zeroizing::new(format!("{PREFIX}_{id}_{}", secret.as_str()));
        Self { id, hash, text }
    }

    /// The key itself, for the one moment in which it is shown.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewKey({})", self.id)
    }
}

fn hash_of(keys: &Keys, id: &str, secret: &str) -> KeyedHash {
    keys.keyed_hash("api-key", &[id, secret])
}

/// Which party a bearer token belongs to, and the id of its key.
#[must_use]
pub fn party_of(setup: &Setup, token: &str, now: Timestamp) -> Option<(PartyId, String)> {
    let (prefix, rest) = token.split_once('_')?;
    let (id, secret) = rest.split_once('_')?;
    let key = setup.api_key(id).filter(|_| prefix == PREFIX)?;
    let hash = hash_of(&setup.keys, id, secret);
    let is_right: bool = hash.as_bytes().ct_eq(key.hash.as_bytes()).into();
    let is_current =
        key.revoked_at.is_none() && key.expires_at.is_none_or(|expires_at| now < expires_at);
    let is_known = setup.party(&key.party).is_some();
    (is_right && is_current && is_known).then(|| (key.party.clone(), id.to_owned()))
}

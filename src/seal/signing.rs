//! The signature under a receipt: a detached JWS (RFC 7515 appendix F) with
//! Ed25519 (RFC 8037), and the public keys as a JWK set (RFC 7517).

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::Secret;

/// An Ed25519 key and the name of its public half.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    kid: String,
}

impl SigningKey {
    /// The pair of a seed of 32 bytes (RFC 8032 section 5.1.5).
    pub(super) fn new(seed: &Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice());
        let pair = pair.expect("every 32 bytes are the seed of a pair");
        let kid = thumbprint(&public(&pair));
        Self { pair, kid }
    }

    /// Signs `payload`. The protected header holds `claims`, the algorithm and
    /// the name of the key; the payload itself is left out of the result.
    pub(super) fn sign_detached(&self, mut claims: Map<String, Value>, payload: &[u8]) -> String {
        claims.insert("alg".to_owned(), json!("EdDSA"));
        claims.insert("kid".to_owned(), json!(self.kid));
        let header = BASE64_URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let signature = self.pair.sign(format!("{header}.{payload}").as_bytes());
        format!(
            "{header}..{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())
        )
    }

    /// The public key (RFC 8037 section 2).
    pub(super) fn to_jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": public(&self.pair),
            "kid": self.kid,
            "alg": "EdDSA",
            "use": "sig",
        })
    }
}

fn public(pair: &Ed25519KeyPair) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())
}

/// RFC 7638: the digest of the required members in alphabetical order.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8037 appendices A.1 to A.3.
    #[test]
    fn the_name_of_a_key_is_that_of_the_standard() {
        let seed = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
        let seed = BASE64_URL_SAFE_NO_PAD.decode(seed).unwrap();
        let key = SigningKey::new(&Secret::new(seed.try_into().unwrap()));
        let jwk = key.to_jwk();
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(jwk["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}

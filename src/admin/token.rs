//! Who is an operator: whoever holds the token of this installation.
//!
//! The token lies in the data folder, 256 bits in a file that only its owner
//! can read. It also keeps web pages out: one that runs in an operator's
//! browser and reaches this address (DNS rebinding, or plain guessing) has no
//! token to send, and a browser adds no `Authorization: Bearer` of its own, as
//! it would add a cookie. So the `Host` header needs no check.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::api::Desk;
use crate::http::{Kind, Problem, bearer};
use crate::seal::{self, KeyError, SECRET_LEN};

/// Name of the file in the data folder.
pub const TOKEN_FILE: &str = "admin.token";

/// The token of the operators' API.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<[u8; SECRET_LEN]>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// Reads the token of a data folder; makes one (mode 0600) when there is
    /// none. A new one holds from the next start.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; a file that others can read is refused.
    pub fn open_or_create(data_dir: &Path) -> Result<Self, KeyError> {
        let secret = seal::open_or_create_secret(&data_dir.join(TOKEN_FILE))?;
        Ok(Self(Arc::new(secret)))
    }

    /// Compares in a time that tells nothing about the token.
    fn is(&self, text: &str) -> bool {
        let given = seal::secret_from_text(text);
        given.is_some_and(|given| given.as_slice().ct_eq(self.0.as_slice()).into())
    }
}

/// Somebody with the token. A handler that takes one cannot forget to ask.
pub(super) struct Operator;

impl FromRequestParts<Desk> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Problem> {
        if bearer(&parts.headers).is_some_and(|text| desk.token.is(text)) {
            return Ok(Self);
        }
        let detail = format!("send the token of {TOKEN_FILE} in the data folder as a bearer token");
        Err(Problem::new(Kind::Unauthorized).detail(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::open_or_create(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(TOKEN_FILE)).unwrap();
        assert!(token.is(text.trim()));
        assert!(token.is(&text.trim().to_uppercase()));
        let mut other = text.trim().to_owned();
        let last = if other.ends_with('0') { "1" } else { "0" };
        other.replace_range(63.., last);
        for wrong in ["", "x", &text[..63], &format!("{}0", text.trim()), &other] {
            assert!(!token.is(wrong), "{} characters", wrong.len());
        }
        assert_eq!(format!("{token:?}"), "Token(hidden)");
        // Another start finds the same one.
        assert!(
            Token::open_or_create(folder.path())
                .unwrap()
                .is(text.trim())
        );
    }
}

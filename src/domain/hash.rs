//! Keyed hashes: how the gateway remembers a value without holding it.

use std::fmt;

/// HMAC-SHA-256 of a value, with a key that never leaves the installation.
///
/// Employee ids, case ids, birth dates and message references are remembered
/// only in this form. Made by [`crate::seal::Keys::keyed_hash`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyedHash([u8; Self::LEN]);

impl KeyedHash {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Takes the bytes of a hash that was made or stored before.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, as a database column holds them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Linkable within one installation, so not for logs.
        f.write_str("KeyedHash(…)")
    }
}

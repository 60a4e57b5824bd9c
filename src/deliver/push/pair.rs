//! Pairs of Ed25519 keys (Standard Webhooks, `whsk_` and `whpk_`): the private
//! half stays in its file, the receiver gets the public one.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::sign::{Key, KeyFault, SEED_LEN};

/// Makes a pair, writes the private half to a new file that only its owner can
/// read, and gives the public half.
///
/// # Errors
///
/// [`PairError::File`], also when there is something in its place already.
pub fn make_pair(path: &Path) -> Result<String, PairError> {
    let text = new_private_half()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(PairError::File)?;
    let written = writeln!(file, "{}", text.as_str()).and_then(|()| file.sync_all());
    if let Err(cause) = written {
        // Half a key is none.
        drop(fs::remove_file(path));
        return Err(PairError::File(cause));
    }
    public_half_of(&text)
}

/// The public half of the private key in a file.
///
/// # Errors
///
/// [`PairError`].
pub fn public_half(path: &Path) -> Result<String, PairError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(PairError::File)?);
    public_half_of(text.trim())
}

fn public_half_of(text: &str) -> Result<String, PairError> {
    let key = Key::read(text).map_err(PairError::Key)?;
    key.public_half().ok_or(PairError::Shared)
}

/// `whsk_` and base64 of both halves, so that a damaged one is noticed.
fn new_private_half() -> Result<Zeroizing<String>, PairError> {
    let mut pair = Zeroizing::new([0_u8; 2 * SEED_LEN]);
    let (seed, public) = pair.split_at_mut(SEED_LEN);
    aws_lc_rs::rand::fill(seed).map_err(|_| PairError::Random)?;
    let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| PairError::Random)?;
    public.copy_from_slice(key.public_key().as_ref());
    let base64 = Zeroizing::new(BASE64_STANDARD.encode(&pair[..]));
    Ok(Zeroizing::new(format!("whsk_{}", base64.as_str())))
}

/// Why there is no pair.
#[derive(Debug)]
pub enum PairError {
    /// The file cannot be written or read.
    File(io::Error),
    /// What the file holds is no key.
    Key(KeyFault),
    /// It is a shared secret, which has no public half.
    Shared,
    /// The system has no random numbers.
    Random,
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(cause) => write!(f, "the file of the key: {cause}"),
            Self::Key(fault) => write!(f, "the key {fault}"),
            Self::Shared => f.write_str("whsec_ is shared and has no public half"),
            Self::Random => f.write_str("the system has no random numbers"),
        }
    }
}

impl std::error::Error for PairError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::super::sign::signatures;
    use super::*;

    #[test]
    fn the_public_half_verifies_what_the_file_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arbo.secret");
        let public = make_pair(&path).unwrap();
        assert_eq!(public_half(&path).unwrap(), public);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        let key = Key::read(text.trim()).unwrap();
        let signed = signatures(&[key], "id", 1, b"<r/>");
        let bytes = |text: &str, prefix| {
            let text = text.strip_prefix(prefix).unwrap().to_owned();
            BASE64_STANDARD.decode(text).unwrap()
        };
        let public = UnparsedPublicKey::new(&ED25519, bytes(&public, "whpk_"));
        let signature = bytes(&signed, "v1a,");
        public.verify(b"id.1.<r/>", &signature).unwrap();
        // Never over what is there, and another one each time.
        assert!(matches!(make_pair(&path), Err(PairError::File(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let other = make_pair(&folder.path().join("other.secret")).unwrap();
        assert_ne!(other, public_half(&path).unwrap());
    }

    #[test]
    fn the_public_half_is_that_of_rfc_8032() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let half = |text: &str| {
            fs::write(&path, text).unwrap();
            public_half(&path)
        };
        // Test 1 of section 7.1.
        let public = half("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n").unwrap();
        assert_eq!(public, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let shared = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
        assert!(matches!(half(&shared), Err(PairError::Shared)));
        let wrong = half("hush").unwrap_err();
        assert!(matches!(wrong, PairError::Key(_)) && !wrong.to_string().contains("hush"));
    }
}

//! The file with the master secret: complete or absent, for its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::{KeyError, SECRET_LEN, Secret};

/// More than any spelling of a secret needs; a longer file is something else.
const MAX_FILE_BYTES: u64 = 256;

pub(super) fn read_or_create(path: &Path) -> Result<Secret, KeyError> {
    match read(path) {
        Err(KeyError::File(cause)) if cause.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(KeyError::File)?;
            read(path)
        }
        result => result,
    }
}

pub(super) fn read(path: &Path) -> Result<Secret, KeyError> {
    let file = File::open(path).map_err(KeyError::File)?;
    // Asked of the open file, so that it cannot be exchanged in between.
    let mode = file
        .metadata()
        .map_err(KeyError::File)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { mode: mode & 0o777 });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|cause| {
            if cause.kind() == io::ErrorKind::InvalidData {
                return KeyError::Malformed; // not UTF-8
            }
            KeyError::File(cause)
        })?;
    decode(text.trim()).ok_or(KeyError::Malformed)
}

pub(super) fn decode(text: &str) -> Option<Secret> {
    let mut secret = Secret::default();
    if text.len() == 2 * SECRET_LEN && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        return Some(secret);
    }
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    secret.copy_from_slice(bytes.get(..).filter(|b| b.len() == SECRET_LEN)?);
    Some(secret)
}

/// Writes a complete file beside the place and links it there: a crash leaves
/// no half secret, and a second process cannot overwrite the first one's.
fn create(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let suffix = u64::from_be_bytes(super::random());
    let draft = folder.join(format!(".key-{suffix:016x}"));
    let made = write_draft(&draft).and_then(|()| link_if_absent(&draft, path));
    let removed = fs::remove_file(&draft);
    made.and(removed)?;
    File::open(folder)?.sync_all()
}

fn write_draft(draft: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    let secret: Secret = Zeroizing::new(super::random());
    let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_LEN + 1));
    for byte in secret.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn link_if_absent(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

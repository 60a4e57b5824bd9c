//! Bytes in, safe XML events out.
//!
//! Promises: what comes out of [`Reader`] is a well-formed, namespace-aware
//! document in UTF-8 without a DOCTYPE, without entities other than the five
//! of XML, and within the structural limits below; memory stays bounded
//! whatever the input is. One code path serves slices and files.
//!
//! Knows nothing of SIVI: no tag, no schema, no party. It tokenizes with
//! quick-xml and adds the checks that quick-xml leaves to its caller.
//!
//! Source: XML 1.0 (fifth edition), Namespaces in XML 1.0 (third edition).

mod attributes;
mod chars;
mod declaration;
mod decode;
mod meter;
mod place;
mod reader;
mod scope;

pub use attributes::Attribute;
pub use place::{Place, excerpts, places};
pub use reader::{Event, Instructions, Reader, Start};
pub use scope::NamespaceId;

use crate::domain::Code;
use std::fmt;
use std::io::{self, BufRead, Cursor, Read};

/// Deepest nesting of elements.
pub const MAX_DEPTH: usize = 64;
/// Most attributes (namespace declarations included) on one tag.
pub const MAX_ATTRIBUTES: usize = 32;
/// Longest name in bytes, prefix included.
pub const MAX_NAME_BYTES: usize = 256;
/// Most namespace declarations in force at one place.
pub const MAX_BINDINGS: usize = 128;
/// Bytes that one tag, comment or run of text may take, unless the caller
/// allows more for a leaf that may be long.
pub const EVENT_BYTES: usize = 1024 * 1024;
/// Bytes at the beginning in which the XML declaration and the code of the
/// message must stand.
pub const HEAD_BYTES: usize = 16 * 1024;

/// Why and where the bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that was broken.
    pub code: Code,
    /// Byte offset in the decoded text.
    pub offset: u64,
}

/// Why reading stopped.
#[derive(Debug)]
pub enum ParseError {
    /// The document is at fault.
    Refused(Refusal),
    /// The source of the bytes failed.
    Io(io::Error),
}

impl ParseError {
    fn refused(code: Code, offset: u64) -> Self {
        Self::Refused(Refusal { code, offset })
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => {
                write!(f, "refused at byte {}: {}", refusal.offset, refusal.code)
            }
            Self::Io(cause) => write!(f, "the source could not be read: {cause}"),
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Io(cause) => Some(cause),
        }
    }
}

/// The first [`HEAD_BYTES`] of a source, and the source as if nothing had
/// been read.
///
/// # Errors
///
/// Those of the source.
pub fn peek<R: BufRead>(mut input: R) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut head = Vec::new();
    input
        .by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(input)))
}

//! From the bytes of a document to UTF-8.

use super::{Refusal, declaration};
use crate::domain::Code;
use encoding_rs::{CoderResult, Decoder, WINDOWS_1252};
use std::io::{self, BufRead, Read};

/// Bytes transcoded at a time.
const CHUNK: usize = 8 * 1024;

/// How the bytes of a document become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, behind a byte order mark of so many bytes.
    Utf8 {
        /// 0 or 3.
        mark: usize,
    },
    /// ISO-8859-1 or Windows-1252: the second gives the first 32 codes above
    /// 127, which the first leaves to control codes, a printable character.
    SingleByte,
}

/// Finds the encoding from the beginning of a document.
///
/// # Errors
///
/// [`Code::EncodingUnsupported`] for any other encoding,
/// [`Code::NotWellFormed`] for a second byte order mark.
pub fn sniff(head: &[u8]) -> Result<Encoding, Refusal> {
    let refuse = |offset: usize| Refusal {
        code: Code::EncodingUnsupported,
        offset: offset as u64,
    };
    // UTF-16 and UTF-32, with or without a mark: refused with the name of the
    // rule rather than as "not well-formed".
    if matches!(
        head,
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'<' | 0, ..] | [b'<', 0, ..]
    ) {
        return Err(refuse(0));
    }
    let mark = if head.starts_with(&[0xEF, 0xBB, 0xBF]) {
        3
    } else {
        0
    };
    let text = head.get(mark..).unwrap_or_default();
    if text.starts_with(&[0xEF, 0xBB, 0xBF]) {
        // quick-xml would drop a mark, so a second one has to be caught here.
        return Err(Refusal {
            code: Code::NotWellFormed,
            offset: 0,
        });
    }
    let Some((name, offset)) = declaration::encoding(text) else {
        return Ok(Encoding::Utf8 { mark });
    };
    let name = name.to_ascii_lowercase();
    match name.as_slice() {
        b"utf-8" | b"utf8" => Ok(Encoding::Utf8 { mark }),
        b"iso-8859-1" | b"iso8859-1" | b"iso_8859-1" | b"latin1" | b"latin-1" | b"windows-1252"
        | b"cp1252"
            if mark == 0 =>
        {
            Ok(Encoding::SingleByte)
        }
        _ => Err(refuse(offset)),
    }
}

/// A document as UTF-8, without its byte order mark.
pub enum Decoded<R> {
    Utf8 { inner: R, skip: usize },
    SingleByte(Box<Transcoder<R>>),
}

impl<R: BufRead> Decoded<R> {
    /// `head` is the beginning of `inner`.
    pub fn new(encoding: Encoding, inner: R) -> Self {
        match encoding {
            Encoding::Utf8 { mark } => Self::Utf8 { inner, skip: mark },
            Encoding::SingleByte => Self::SingleByte(Box::new(Transcoder {
                inner,
                decoder: WINDOWS_1252.new_decoder_without_bom_handling(),
                text: vec![0; CHUNK * 3],
                start: 0,
                end: 0,
            })),
        }
    }
}

impl<R: BufRead> BufRead for Decoded<R> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Utf8 { inner, skip } => {
                while *skip > 0 {
                    let available = inner.fill_buf()?.len().min(*skip);
                    if available == 0 {
                        break;
                    }
                    inner.consume(available);
                    *skip -= available;
                }
                inner.fill_buf()
            }
            Self::SingleByte(transcoder) => transcoder.fill(),
        }
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        match self {
            Self::Utf8 { inner, .. } => inner.consume(amount),
            Self::SingleByte(transcoder) => {
                transcoder.start = (transcoder.start + amount).min(transcoder.end);
            }
        }
    }
}

impl<R: BufRead> Read for Decoded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

/// Transcodes a single-byte encoding, a chunk at a time.
pub struct Transcoder<R> {
    inner: R,
    decoder: Decoder,
    text: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: BufRead> Transcoder<R> {
    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let bytes = self.inner.fill_buf()?;
            let bytes = bytes.get(..bytes.len().min(CHUNK)).unwrap_or(bytes);
            let (result, read, written, _) =
                self.decoder.decode_to_utf8(bytes, &mut self.text, false);
            debug_assert_eq!(
                result,
                CoderResult::InputEmpty,
                "one byte becomes at most three"
            );
            self.inner.consume(read);
            (self.start, self.end) = (0, written);
        }
        Ok(self.text.get(self.start..self.end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<String, Refusal> {
        let mut text = String::new();
        Decoded::new(sniff(bytes)?, bytes)
            .read_to_string(&mut text)
            .unwrap();
        Ok(text)
    }

    #[test]
    fn a_byte_order_mark_of_utf_8_is_dropped() {
        assert_eq!(decode("\u{FEFF}<a>é</a>".as_bytes()).unwrap(), "<a>é</a>");
        assert_eq!(decode("<a>é</a>".as_bytes()).unwrap(), "<a>é</a>");
    }

    #[test]
    fn declared_single_byte_encodings_are_transcoded() {
        for name in ["ISO-8859-1", "windows-1252", "latin1"] {
            let mut bytes = format!("<?xml version=\"1.0\" encoding='{name}'?><a>").into_bytes();
            bytes.extend(std::iter::repeat_n(0xE9, 20_000));
            let text = decode(&bytes).unwrap();
            assert!(text.ends_with(&"é".repeat(20_000)), "{name}");
        }
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        let utf16: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked: Vec<u8> = "\u{FEFF}<a/>"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        for bytes in [
            utf16.as_slice(),
            &marked,
            b"<?xml version='1.0' encoding='UTF-16'?><a/>",
            b"<?xml version='1.0' encoding='ISO-8859-15'?><a/>",
            b"\xEF\xBB\xBF<?xml version='1.0' encoding='ISO-8859-1'?><a/>",
        ] {
            assert_eq!(decode(bytes).unwrap_err().code, Code::EncodingUnsupported);
        }
    }
}

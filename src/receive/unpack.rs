//! The bytes of a body as they come, unpacked and turned into UTF-8 on the way:
//! only the text is held, and all of it is counted.

use std::fmt;
use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};
use encoding_rs::{Decoder, DecoderResult};
use flate2::write::MultiGzDecoder;
use zeroize::Zeroizing;

use crate::access::{Full, Hold};
use crate::domain::{Code, Finding};
use crate::http::{Kind, Problem};

/// What the memory of a text grows by at least, in bytes.
const UNIT: usize = 1 << 14;
/// What is decoded at once, in bytes.
const STEP: usize = 1 << 12;
/// A bomb is told by its ratio only above this size.
const RATIO_FROM: usize = 1 << 20;

/// Bounds on the text of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Largest text, in bytes: decompressed, and in UTF-8.
    pub(super) max_bytes: usize,
    /// Largest ratio of decompressed to compressed size.
    pub(super) max_ratio: usize,
}

/// A text that is complete.
pub(super) struct Unpacked {
    /// In UTF-8 where the charset was named.
    pub(super) text: Zeroizing<Vec<u8>>,
    /// SHA-256 of what was decompressed, where a charset was named.
    pub(super) sent: Option<[u8; 32]>,
    /// The memory of the text.
    pub(super) hold: Hold,
}

/// Takes a body piece by piece.
pub(super) enum Unpacker {
    Plain(Text),
    Gzip {
        decoder: Box<MultiGzDecoder<Text>>,
        compressed: usize,
        max_ratio: usize,
    },
}

impl Unpacker {
    /// For a body that is packed so; `hold` holds its memory.
    ///
    /// # Errors
    ///
    /// [`Kind::Malformed`] for a charset that is none of ours.
    pub(super) fn new(
        gzip: bool,
        charset: Option<&str>,
        bounds: Bounds,
        hold: Hold,
    ) -> Result<Self, Problem> {
        let text = Text {
            decoding: charset.map(Decoding::of).transpose()?,
            came: 0,
            bytes: Zeroizing::default(),
            max: bounds.max_bytes,
            hold,
        };
        if !gzip {
            return Ok(Self::Plain(text));
        }
        Ok(Self::Gzip {
            decoder: Box::new(MultiGzDecoder::new(text)),
            compressed: 0,
            max_ratio: bounds.max_ratio,
        })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`Kind::TooLarge`], [`Kind::Malformed`], and what [`Full`] becomes.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Plain(text) => text.write_all(piece).map_err(refusal),
            Self::Gzip {
                decoder,
                compressed,
                max_ratio,
            } => {
                // Small steps, so that a bomb is seen before it has gone off.
                for step in piece.chunks(1 << 10) {
                    decoder.write_all(step).map_err(refusal)?;
                    *compressed += step.len();
                    let size = decoder.get_ref().came;
                    if size > RATIO_FROM && size / (*compressed).max(1) > *max_ratio {
                        return Err(Problem::new(Kind::TooLarge)
                            .detail("the compression ratio is above the limit")
                            .closing());
                    }
                }
                Ok(())
            }
        }
    }

    /// The whole text, when everything came.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::write`].
    pub(super) fn finish(self) -> Result<Unpacked, Problem> {
        let text = match self {
            Self::Plain(text) => text,
            // No member at all is no gzip stream either.
            Self::Gzip { compressed: 0, .. } => return Err(malformed(Code::CompressionBroken)),
            Self::Gzip { decoder, .. } => decoder.finish().map_err(refusal)?,
        };
        text.finish().map_err(refusal)
    }
}

/// What is wrong with a body while it is unpacked.
#[derive(Debug)]
enum Fault {
    TooLarge,
    Encoding,
    Full(Full),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "larger than allowed",
            Self::Encoding => "not in its charset",
            Self::Full(_) => "no memory left",
        })
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// An error that is no [`Fault`] of ours is one of the gzip stream.
fn refusal(cause: io::Error) -> Problem {
    match cause.downcast::<Fault>() {
        Ok(Fault::TooLarge) => Problem::new(Kind::TooLarge).closing(),
        Ok(Fault::Full(full)) => Problem::from(full).closing(),
        Ok(Fault::Encoding) => malformed(Code::EncodingBroken).closing(),
        Err(_) => malformed(Code::CompressionBroken).closing(),
    }
}

fn malformed(code: Code) -> Problem {
    Problem::new(Kind::Malformed).findings(vec![Finding::new(code)])
}

/// A text that grows within its bound, and only where there is memory for it.
pub(super) struct Text {
    decoding: Option<Box<Decoding>>,
    /// How much came, before it was decoded.
    came: usize,
    bytes: Zeroizing<Vec<u8>>,
    max: usize,
    hold: Hold,
}

impl Text {
    fn push(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let length = self.bytes.len() + piece.len();
        if length > self.max {
            return Err(Fault::TooLarge);
        }
        if length > self.bytes.capacity() {
            self.make_room(length)?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Moves into a larger buffer; the old one is overwritten.
    fn make_room(&mut self, length: usize) -> Result<(), Fault> {
        let least = length.next_multiple_of(UNIT).min(self.max);
        let ample = least.max(2 * self.bytes.capacity()).min(self.max);
        let capacity = match self.hold.grow_to(ample) {
            Ok(()) => ample,
            Err(_) => self
                .hold
                .grow_to(least)
                .map(|()| least)
                .map_err(Fault::Full)?,
        };
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
        Ok(())
    }

    /// Turns the next piece into UTF-8; the last one may not end within a
    /// character.
    fn decode(&mut self, piece: &[u8], is_last: bool) -> Result<(), Fault> {
        let Some(mut decoding) = self.decoding.take() else {
            return self.push(piece);
        };
        decoding.sent.update(piece);
        let mut left = piece;
        loop {
            let (result, read, written) = decoding.decoder.decode_to_utf8_without_replacement(
                left,
                &mut decoding.scratch,
                is_last,
            );
            self.push(decoding.scratch.get(..written).unwrap_or_default())?;
            left = left.get(read..).unwrap_or_default();
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => return Err(Fault::Encoding),
            }
        }
        self.decoding = Some(decoding);
        Ok(())
    }

    fn finish(mut self) -> io::Result<Unpacked> {
        if self.decoding.is_some() {
            self.decode(&[], true)?;
        }
        let sent = self.decoding.map(|decoding| {
            blank_encoding(&mut self.bytes);
            let mut hash = [0; 32];
            hash.copy_from_slice(decoding.sent.finish().as_ref());
            hash
        });
        Ok(Unpacked {
            text: self.bytes,
            sent,
            hold: self.hold,
        })
    }
}

impl Write for Text {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.decode(piece, false)?;
        self.came += piece.len();
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns the charset of the content type into UTF-8. It outranks the XML
/// declaration (RFC 7303, section 3).
struct Decoding {
    decoder: Decoder,
    scratch: Zeroizing<Vec<u8>>,
    /// The digest of what was sent: the text is another one.
    sent: Context,
}

impl Decoding {
    fn of(charset: &str) -> Result<Box<Self>, Problem> {
        let encoding = match charset.to_ascii_lowercase().as_str() {
            "utf-8" | "us-ascii" => encoding_rs::UTF_8,
            "iso-8859-1" | "windows-1252" => encoding_rs::WINDOWS_1252,
            _ => return Err(malformed(Code::EncodingUnsupported)),
        };
        Ok(Box::new(Self {
            decoder: encoding.new_decoder_without_bom_handling(),
            scratch: Zeroizing::new(vec![0; STEP]),
            sent: Context::new(&SHA256),
        }))
    }
}

/// Overwrites `encoding="…"` in the XML declaration with spaces, so that lines
/// and columns stay where they were.
fn blank_encoding(text: &mut [u8]) {
    let Some(end) = text.windows(2).take(256).position(|pair| pair == b"?>") else {
        return;
    };
    let Some(head) = text
        .get_mut(..end)
        .filter(|head| head.starts_with(b"<?xml"))
    else {
        return;
    };
    let Some(from) = head.windows(9).position(|word| word == b" encoding") else {
        return;
    };
    let quotes: Vec<usize> = (from..head.len())
        .filter(|at| matches!(head.get(*at), Some(b'"' | b'\'')))
        .take(2)
        .collect();
    if let [_, close] = quotes.as_slice()
        && let Some(declared) = head.get_mut(from..=*close)
    {
        declared.fill(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Memory;

    const MAX: usize = 1 << 22;

    fn unpack(
        memory: &Memory,
        gzip: bool,
        charset: Option<&str>,
        pieces: &[&[u8]],
    ) -> Result<Unpacked, Problem> {
        let bounds = Bounds {
            max_bytes: MAX,
            max_ratio: 200,
        };
        let hold = memory.hold_within("adp", 4 * MAX, MAX);
        let mut unpacker = Unpacker::new(gzip, charset, bounds, hold)?;
        for piece in pieces {
            unpacker.write(piece)?;
        }
        unpacker.finish()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_unpacked_and_a_bomb_is_not() {
        let memory = Memory::default();
        let read = |packed: &[u8]| unpack(&memory, true, None, &[packed]);
        let refused = |packed: &[u8]| read(packed).err().unwrap().kind();
        assert_eq!(&**read(&gzip(b"<a/>")).unwrap().text, b"<a/>");
        assert_eq!(refused(&gzip(&vec![b' '; 100 << 20])), Kind::TooLarge);
        assert_eq!(refused(b"\x1f\x8b\x08 nonsense"), Kind::Malformed);
        let mut truncated = gzip(b"<a>some text that is long enough</a>");
        truncated.truncate(truncated.len() - 9);
        assert_eq!(refused(&truncated), Kind::Malformed);
        assert_eq!(memory.together(), 0);
    }

    #[test]
    fn the_charset_of_the_content_type_outranks_the_declaration() {
        let memory = Memory::default();
        let body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>\xe9</a>";
        let read = unpack(&memory, false, Some("ISO-8859-1"), &[body]).unwrap();
        let text = std::str::from_utf8(&read.text).unwrap();
        assert_eq!(text, "<?xml version=\"1.0\"                 ?>\n<a>é</a>");
        assert_eq!(read.sent, Some(super::super::body::sha256(body)));
        assert!(unpack(&memory, false, Some("utf-16"), &[b"<a/>"]).is_err());
    }

    #[test]
    fn a_character_may_come_in_two_pieces_and_must_come_whole() {
        let memory = Memory::default();
        let read = |pieces: &[&[u8]]| unpack(&memory, false, Some("utf-8"), pieces);
        assert_eq!(&**read(&[b"\xc3", b"\xa9"]).unwrap().text, "é".as_bytes());
        for broken in [&[b"\xc3".as_slice()][..], &[b"\xc3", b"a"], &[b"\xff"]] {
            let problem = read(broken).err().unwrap();
            assert_eq!(problem.all_findings()[0].code, Code::EncodingBroken);
        }
    }

    #[test]
    fn what_unpacks_or_decodes_to_more_is_counted_as_that() {
        let memory = Memory::default();
        let text = vec![0xe9; MAX / 4];
        for packed in [false, true] {
            let body = if packed { gzip(&text) } else { text.clone() };
            let pieces: Vec<&[u8]> = body.chunks(100).collect();
            let read = unpack(&memory, packed, Some("windows-1252"), &pieces).unwrap();
            assert_eq!(read.text.len(), MAX / 2);
            assert!(memory.together() >= read.text.capacity());
            drop(read);
            assert_eq!(memory.together(), 0);
        }
    }

    #[test]
    fn one_body_of_full_size_always_has_room_and_a_second_waits() {
        let memory = Memory::default();
        let full = vec![b' '; MAX];
        let read = |charset| unpack(&memory, false, charset, &[&full]);
        let held = read(None).unwrap();
        let second = read(None).err().unwrap();
        assert_eq!(second.kind(), Kind::RateLimited);
        drop(held);
        assert!(read(Some("iso-8859-1")).is_ok());
        let larger = unpack(&memory, false, None, &[&full, b" "]).err().unwrap();
        assert_eq!(larger.kind(), Kind::TooLarge);
    }
}

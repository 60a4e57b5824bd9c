//! The body of a message: bounded, decompressed, decoded.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::domain::{Code, Finding};
use crate::http::{Kind, Problem};
use crate::setup::Setup;

/// How much of a refused body is read on, so that the client gets to read the
/// answer.
const DRAIN_BYTES: usize = 1 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long the answer to a refused body may be on its way over HTTP/2.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// What the budget of all bodies is counted in.
const UNIT: usize = 1 << 14;
/// A bomb is told by its ratio only above this size.
const RATIO_FROM: usize = 1 << 20;

/// Bounds on one body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body after decompression, in bytes.
    pub max_bytes: usize,
    /// Largest ratio of decompressed to compressed size.
    pub max_ratio: usize,
    /// Longest pause between two pieces of a body.
    pub pause: Duration,
    /// Longest time for a whole body.
    pub whole: Duration,
    /// What all bodies may hold together, in bytes.
    pub in_flight: usize,
}

impl BodyLimits {
    /// The bounds in a configuration.
    #[must_use]
    pub fn of(setup: &Setup) -> Self {
        let limits = &setup.settings.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            max_bytes: size(limits.max_body_bytes),
            max_ratio: size(limits.max_gzip_ratio),
            pause: Duration::from_secs(limits.body_idle_seconds),
            whole: Duration::from_secs(limits.body_seconds),
            in_flight: size(limits.in_flight_bytes),
        }
    }
}

/// The memory that all bodies hold together, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Takes a share, unless that is more than `most` together.
    fn take(&self, bytes: usize, most: usize) -> Option<Share> {
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Share {
            budget: self.clone(),
            bytes,
        })
    }
}

/// A share of the memory of all bodies; given back when dropped.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A body that arrived, and its share of the budget.
pub struct Received {
    /// The decompressed bytes, in UTF-8 when the content type named another
    /// charset. Overwritten when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// SHA-256 of what was decompressed, where `bytes` is another text.
    pub sent: Option<Sha256>,
    _share: Vec<Share>,
}

/// A SHA-256.
pub type Sha256 = [u8; 32];

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Checks the head of a request before its body is read.
///
/// # Errors
///
/// [`Kind::UnsupportedType`] and [`Kind::TooLarge`].
pub fn check_head(headers: &HeaderMap, limits: &BodyLimits) -> Result<Encoding, Problem> {
    let content_type = text(headers, header::CONTENT_TYPE.as_str());
    let charset = xml_charset(content_type)?;
    let coding = text(headers, header::CONTENT_ENCODING.as_str());
    let gzip = match coding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => false,
        "gzip" | "x-gzip" => true,
        _ => {
            return Err(Problem::new(Kind::UnsupportedType)
                .detail("Content-Encoding must be gzip or absent"));
        }
    };
    let length = text(headers, header::CONTENT_LENGTH.as_str())
        .parse::<usize>()
        .unwrap_or(0);
    if length > limits.max_bytes {
        return Err(Problem::new(Kind::TooLarge));
    }
    Ok(Encoding { gzip, charset })
}

/// How a body is packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    gzip: bool,
    charset: Option<String>,
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The charset of an XML content type, if it names one.
fn xml_charset(content_type: &str) -> Result<Option<String>, Problem> {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    if essence != "application/xml" && essence != "text/xml" {
        return Err(Problem::new(Kind::UnsupportedType));
    }
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_owned())
    });
    Ok(charset)
}

/// Reads a whole body within the limits, and tells `came` of the bytes of each
/// piece. When it fails, the rest is unread.
///
/// # Errors
///
/// [`Kind::TooLarge`], [`Kind::Malformed`] for a broken gzip stream or
/// charset, [`Kind::Timeout`], and [`Kind::Unavailable`] when all bodies
/// together hold too much.
pub async fn read(
    body: &mut Body,
    encoding: &Encoding,
    limits: &BodyLimits,
    budget: &Budget,
    came: &(dyn Fn(usize) + Sync),
) -> Result<Received, Problem> {
    let mut share = Vec::new();
    let mut sink = Sink::new(encoding.gzip, limits);
    let mut room = 0;
    let until = Instant::now() + limits.whole;
    while let Some(piece) = next_piece(body, limits.pause, until).await? {
        came(piece.len());
        sink.write(&piece)?;
        while room < sink.len() {
            let more = (sink.len() - room).next_multiple_of(UNIT);
            let taken = budget.take(more, limits.in_flight);
            share.push(taken.ok_or_else(|| Problem::new(Kind::Unavailable).closing())?);
            room += more;
        }
    }
    let bytes = sink.finish()?;
    let Some(charset) = &encoding.charset else {
        return Ok(Received {
            bytes,
            sent: None,
            _share: share,
        });
    };
    let sent = Some(sha256(&bytes));
    let bytes = decode(&bytes, charset)?;
    Ok(Received {
        bytes,
        sent,
        _share: share,
    })
}

async fn next_piece(
    body: &mut Body,
    pause: Duration,
    until: Instant,
) -> Result<Option<Bytes>, Problem> {
    loop {
        let deadline = until.min(Instant::now() + pause);
        let frame = tokio::time::timeout_at(deadline, body.frame())
            .await
            .map_err(|_| Problem::new(Kind::Timeout).closing())?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(Problem::new(Kind::BadRequest)
                    .detail("the body broke off")
                    .closing());
            }
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Reads on for a while and throws away, so that the client sees the answer.
pub async fn drain(body: &mut Body) {
    let mut left = DRAIN_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// Holds on to the rest of a body, unread, while its answer is on its way.
pub async fn linger(rest: Body) {
    tokio::time::sleep(LINGER_TIME).await;
    drop(rest);
}

/// Collects a body, through the decompressor where there is one.
enum Sink {
    Plain(Bounded),
    Gzip {
        decoder: Box<MultiGzDecoder<Bounded>>,
        compressed: usize,
        max_ratio: usize,
    },
}

impl Sink {
    fn new(gzip: bool, limits: &BodyLimits) -> Self {
        let bounded = Bounded {
            bytes: Zeroizing::new(Vec::new()),
            max: limits.max_bytes,
        };
        if gzip {
            let decoder = Box::new(MultiGzDecoder::new(bounded));
            Self::Gzip {
                decoder,
                compressed: 0,
                max_ratio: limits.max_ratio,
            }
        } else {
            Self::Plain(bounded)
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(bounded) => bounded.bytes.len(),
            Self::Gzip { decoder, .. } => decoder.get_ref().bytes.len(),
        }
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Plain(bounded) => bounded.write_all(piece).map_err(|cause| refusal(&cause)),
            Self::Gzip {
                decoder,
                compressed,
                max_ratio,
            } => {
                // Small steps, so that a bomb is seen before it has gone off.
                for step in piece.chunks(1 << 10) {
                    decoder.write_all(step).map_err(|cause| refusal(&cause))?;
                    *compressed += step.len();
                    let size = decoder.get_ref().bytes.len();
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

    fn finish(self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        match self {
            Self::Plain(bounded) => Ok(bounded.bytes),
            // No member at all is no gzip stream either.
            Self::Gzip { compressed: 0, .. } => Err(malformed(Code::CompressionBroken)),
            Self::Gzip { decoder, .. } => decoder
                .finish()
                .map(|bounded| bounded.bytes)
                .map_err(|cause| refusal(&cause)),
        }
    }
}

/// A buffer that refuses to grow beyond its bound.
struct Bounded {
    bytes: Zeroizing<Vec<u8>>,
    max: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + piece.len() > self.max {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn refusal(cause: &std::io::Error) -> Problem {
    if cause.kind() == std::io::ErrorKind::FileTooLarge {
        Problem::new(Kind::TooLarge).closing()
    } else {
        malformed(Code::CompressionBroken).closing()
    }
}

fn malformed(code: Code) -> Problem {
    Problem::new(Kind::Malformed).findings(vec![Finding::new(code)])
}

/// Turns the charset of the content type into UTF-8. It outranks the XML
/// declaration (RFC 7303, section 3), which is then blanked, so that lines and
/// columns stay where they were.
fn decode(bytes: &[u8], charset: &str) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let encoding = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => encoding_rs::UTF_8,
        "iso-8859-1" | "windows-1252" => encoding_rs::WINDOWS_1252,
        _ => return Err(malformed(Code::EncodingUnsupported)),
    };
    let text = encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| malformed(Code::EncodingBroken))?;
    let mut text = Zeroizing::new(text.into_owned().into_bytes());
    blank_encoding(&mut text);
    Ok(text)
}

/// Overwrites `encoding="…"` in the XML declaration with spaces.
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

    fn limits() -> BodyLimits {
        BodyLimits {
            max_bytes: 1 << 22,
            max_ratio: 200,
            pause: Duration::from_secs(1),
            whole: Duration::from_secs(9),
            in_flight: 1 << 23,
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_gzip(bytes: Vec<u8>) -> Result<Received, Problem> {
        let encoding = Encoding {
            gzip: true,
            charset: None,
        };
        let budget = Budget::default();
        read(
            &mut Body::from(bytes),
            &encoding,
            &limits(),
            &budget,
            &|_| (),
        )
        .await
    }

    #[tokio::test]
    async fn gzip_is_unpacked_and_a_bomb_is_not() {
        assert_eq!(&**read_gzip(gzip(b"<a/>")).await.unwrap().bytes, b"<a/>");
        let bomb = read_gzip(gzip(&vec![b' '; 100 << 20])).await.err().unwrap();
        assert_eq!(bomb.kind(), Kind::TooLarge);
        let broken = read_gzip(b"\x1f\x8b\x08 nonsense".to_vec())
            .await
            .err()
            .unwrap();
        assert_eq!(broken.kind(), Kind::Malformed);
        let mut truncated = gzip(b"<a>some text that is long enough</a>");
        truncated.truncate(truncated.len() - 9);
        assert_eq!(
            read_gzip(truncated).await.err().unwrap().kind(),
            Kind::Malformed
        );
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_bound() {
        let limits = BodyLimits {
            in_flight: 1 << 20,
            ..limits()
        };
        let budget = Budget::default();
        let encoding = Encoding {
            gzip: false,
            charset: None,
        };
        let came = AtomicUsize::new(0);
        let note = |bytes| {
            came.fetch_add(bytes, Ordering::Relaxed);
        };
        let size = 900 << 10;
        let try_one = async || {
            let mut body = Body::from(vec![b' '; size]);
            read(&mut body, &encoding, &limits, &budget, &note).await
        };
        let held = try_one().await.unwrap();
        let refused = try_one().await;
        assert_eq!(refused.err().unwrap().kind(), Kind::Unavailable);
        drop(held);
        assert!(try_one().await.is_ok());
        assert_eq!(came.into_inner(), 3 * size);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_charset_of_the_content_type_outranks_the_declaration() {
        let body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>\xe9</a>".to_vec();
        let text = decode(&body, "ISO-8859-1").unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text, "<?xml version=\"1.0\"                 ?>\n<a>é</a>");
        assert!(decode(b"<a/>", "utf-16").is_err());
    }

    #[test]
    fn only_xml_types_are_taken() {
        assert_eq!(xml_charset("application/xml").unwrap(), None);
        let charset = xml_charset("text/xml; charset=\"utf-8\"").unwrap();
        assert_eq!(charset.as_deref(), Some("utf-8"));
        for other in ["application/json", ""] {
            assert_eq!(
                xml_charset(other).unwrap_err().kind(),
                Kind::UnsupportedType
            );
        }
    }
}

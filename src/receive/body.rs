//! The body of a message: bounded, and read no slower than at its least pace.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::unpack::{Bounds, Unpacker};
use crate::access::Hold;
use crate::http::{Kind, Line, Problem};
use crate::setup::Setup;

/// How much of a refused body is read on, so that the client gets to read the
/// answer.
const DRAIN_BYTES: usize = 1 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long the answer to a refused body may be on its way over HTTP/2.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bounds on one body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest text of a body.
    text: Bounds,
    /// Longest pause between two pieces of a body. In every such stretch of
    /// time bodies come over its [`Line`] at the least pace.
    pause: Duration,
    /// Longest time for a whole body.
    whole: Duration,
}

impl BodyLimits {
    /// The bounds in a configuration.
    #[must_use]
    pub fn of(setup: &Setup) -> Self {
        let limits = &setup.settings.limits;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            text: Bounds {
                max_bytes: size(limits.max_body_bytes),
                max_ratio: size(limits.max_gzip_ratio),
            },
            pause: Duration::from_secs(limits.body_idle_seconds),
            whole: Duration::from_secs(limits.body_seconds),
        }
    }
}

/// A body that arrived, and the memory that it holds.
pub struct Received {
    /// The decompressed bytes, in UTF-8 when the content type named another
    /// charset. Overwritten when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// SHA-256 of what was decompressed, where `bytes` is another text.
    pub sent: Option<Sha256>,
    _hold: Hold,
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
    if length > limits.text.max_bytes {
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

/// Reads a whole body that comes over `line`, within the limits, into the
/// memory of `hold`, and tells `came` of the bytes of each piece. When it fails, the rest is unread and the
/// memory is free again.
///
/// # Errors
///
/// [`Kind::TooLarge`], [`Kind::Malformed`] for a broken gzip stream or
/// charset, [`Kind::Timeout`] for a body that is too slow, and, when there is no
/// memory for it, [`Kind::RateLimited`] for a party that holds its share and
/// [`Kind::Unavailable`] when all parties together hold everything.
pub async fn read(
    body: &mut Body,
    encoding: &Encoding,
    limits: &BodyLimits,
    line: &Line,
    hold: Hold,
    came: &(dyn Fn(usize) + Sync),
) -> Result<Received, Problem> {
    let charset = encoding.charset.as_deref();
    let mut unpacker = Unpacker::new(encoding.gzip, charset, limits.text, hold)?;
    let begun = Instant::now();
    let moving = line.begin(limits.pause, begun);
    let last = begun + limits.whole;
    while let Some(piece) = next_piece(body, || moving.until().min(last)).await? {
        came(piece.len());
        moving.moved(piece.len(), Instant::now());
        unpacker.write(&piece)?;
    }
    let unpacked = unpacker.finish()?;
    Ok(Received {
        bytes: unpacked.text,
        sent: unpacked.sent,
        _hold: unpacked.hold,
    })
}

/// The next piece that is not empty, if it comes before the deadline, which
/// others may put off.
async fn next_piece(
    body: &mut Body,
    deadline: impl Fn() -> Instant,
) -> Result<Option<Bytes>, Problem> {
    loop {
        let until = deadline();
        let frame = match tokio::time::timeout_at(until, body.frame()).await {
            Ok(frame) => frame,
            Err(_) if deadline() > until => continue,
            Err(_) => return Err(Problem::new(Kind::Timeout).closing()),
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(Problem::new(Kind::BadRequest)
                    .detail("the body broke off")
                    .closing());
            }
            Some(Ok(frame)) => {
                if let Some(piece) = frame.into_data().ok().filter(|piece| !piece.is_empty()) {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, ready};

    use hyper::body::Frame;
    use tokio::time::{Sleep, sleep};

    use super::*;
    use crate::access::Memory;

    const PAUSE: Duration = Duration::from_secs(1);

    fn limits() -> BodyLimits {
        BodyLimits {
            text: Bounds {
                max_bytes: 1 << 22,
                max_ratio: 200,
            },
            pause: PAUSE,
            whole: Duration::from_secs(9),
        }
    }

    const PLAIN: Encoding = Encoding {
        gzip: false,
        charset: None,
    };

    /// The same byte again and again, with a pause before each.
    struct Trickle {
        left: usize,
        pause: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl Trickle {
        fn body(left: usize, pause: Duration) -> Body {
            let next = Box::pin(sleep(pause));
            Body::new(Self { left, pause, next })
        }
    }

    impl hyper::body::Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            ready!(self.next.as_mut().poll(cx));
            let pause = self.pause;
            self.next.set(sleep(pause));
            self.left = self.left.saturating_sub(1);
            let piece = (self.left > 0).then(|| Ok(Frame::data(Bytes::from_static(b"<"))));
            Poll::Ready(piece)
        }
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_and_its_memory_is_free() {
        let memory = Memory::default();
        let read = async |mut body: Body| {
            let came = AtomicUsize::new(0);
            let note = |bytes| {
                came.fetch_add(bytes, Ordering::Relaxed);
            };
            let hold = memory.hold_within("adp", 1 << 22, 1 << 22);
            let begun = Instant::now();
            let line = Line::default();
            let read = super::read(&mut body, &PLAIN, &limits(), &line, hold, &note).await;
            (
                read.map_err(|problem| problem.kind()),
                begun.elapsed(),
                came.into_inner(),
            )
        };
        // Never silent for long, and yet too slow.
        let (read_slowly, took, came) = read(Trickle::body(1_000, PAUSE / 10)).await;
        assert_eq!(read_slowly.err(), Some(Kind::Timeout));
        assert!(
            took >= PAUSE && took < 3 * PAUSE && came > 2,
            "{took:?} {came}"
        );
        assert_eq!(memory.together(), 0);
        // As slow, and short.
        let (short, _, came) = read(Trickle::body(4, PAUSE / 10)).await;
        assert_eq!((&**short.unwrap().bytes, came), (&b"<<<"[..], 3));
        // Silent.
        let (silent, took, _) = read(Trickle::body(3, 9 * PAUSE)).await;
        assert_eq!(silent.err(), Some(Kind::Timeout));
        assert!(took < 3 * PAUSE, "{took:?}");
    }

    #[tokio::test]
    async fn a_slow_body_is_waited_for_while_others_of_its_connection_come() {
        let (memory, line) = (Memory::default(), Line::default());
        let neighbour = line.begin(PAUSE, Instant::now());
        // While this one stands for longer than it may, the other comes.
        let came = |_| neighbour.moved(1 << 20, Instant::now() + Duration::from_hours(1));
        let mut body = Trickle::body(12, PAUSE / 10);
        let hold = memory.hold_within("adp", 1 << 22, 1 << 22);
        let limits = BodyLimits {
            whole: Duration::from_hours(1),
            ..limits()
        };
        let read = super::read(&mut body, &PLAIN, &limits, &line, hold, &came).await;
        assert!(
            read.is_ok(),
            "{:?}",
            read.err().map(|problem| problem.kind())
        );
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

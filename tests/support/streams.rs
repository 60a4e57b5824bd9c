//! HTTP/2 frame by frame (RFC 9113), for clients that behave badly.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const INITIAL_WINDOW_SIZE: u8 = 4;

/// A connection whose streams let so many bytes of an answer come.
pub struct Streams {
    stream: TlsStream<TcpStream>,
    last: u32,
}

/// What came on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    Headers(u32),
    Data(u32),
    Reset(u32),
}

impl Streams {
    /// Begins on a connection that agreed on `h2`.
    pub async fn begin(stream: TlsStream<TcpStream>, window: u32) -> Self {
        let mut streams = Self { stream, last: 0 };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        streams.stream.write_all(preface).await.unwrap();
        let mut setting = vec![0, INITIAL_WINDOW_SIZE];
        setting.extend(window.to_be_bytes());
        streams.send(SETTINGS, 0, 0, &setting).await;
        streams
    }

    async fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends a request without a body; gives the number of its stream.
    pub async fn request(&mut self, method: &str, path: &str, key: &str) -> u32 {
        self.last += if self.last == 0 { 1 } else { 2 };
        let bearer = format!("Bearer {key}");
        let fields = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
            ("authorization", bearer.as_str()),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // Literal, not indexed, without Huffman code (RFC 7541, 6.2.2).
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                assert!(text.len() < 127);
                block.extend(text.as_bytes());
            }
        }
        let end_of_stream_and_headers = 0x5;
        let id = self.last;
        self.send(HEADERS, end_of_stream_and_headers, id, &block)
            .await;
        id
    }

    /// What comes next of an answer, if anything comes `within` this time.
    pub async fn next(&mut self, within: Duration) -> Option<Came> {
        let next = tokio::time::timeout(within, async {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.unwrap();
                let [a, b, c, kind, _, id @ ..] = head;
                let length = u32::from_be_bytes([0, a, b, c]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.stream.read_exact(&mut payload).await.unwrap();
                let id = u32::from_be_bytes(id);
                match kind {
                    0 => return Came::Data(id),
                    HEADERS => return Came::Headers(id),
                    RST_STREAM => return Came::Reset(id),
                    _ => {}
                }
            }
        });
        next.await.ok()
    }
}

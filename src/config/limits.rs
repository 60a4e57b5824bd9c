//! Bounds, each with its unit, default and range.

use serde::Deserialize;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $min:literal..=$max:literal;)+) => {
        /// Bounds on what one party or one request can cost.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[cfg_attr(test, derive(serde::Serialize))]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Limits {
            /// The first key whose value is outside its range.
            pub(super) fn outside(&self) -> Option<(&'static str, String)> {
                $(let range: std::ops::RangeInclusive<u64> = $min..=$max;
                if !range.contains(&self.$name) {
                    let key = concat!("limits.", stringify!($name));
                    return Some((key, format!("must be {} to {}", range.start(), range.end())));
                })+
                None
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $value,)+ }
            }
        }
    };
}

limits! {
    /// Largest body after decompression, in UTF-8, in bytes. Default 256 MiB.
    max_body_bytes = 268_435_456, 1_024..=4_294_967_296;
    /// Largest ratio of a gzip body to what it unpacks to. Default 200.
    max_gzip_ratio = 200, 2..=2_000;
    /// Memory of all bodies being read and worked on at once, in bytes, and as
    /// much again of all answers of inboxes on their way; beyond it 503. One
    /// party has a quarter of each, and at least `max_body_bytes`; beyond it
    /// 429. Default 512 MiB.
    in_flight_bytes = 536_870_912, 1_024..=68_719_476_736;
    /// Connections of all parties at once. Default 4096.
    max_connections = 4_096, 1..=100_000;
    /// Connections of one address at once, or of one /64 of IPv6; 0 is no
    /// limit. Default 1024.
    connections_per_address = 1_024, 0..=100_000;
    /// Seconds for the TLS handshake, and for the first request after it to
    /// begin. Default 10.
    header_seconds = 10, 1..=300;
    /// Seconds without a byte before a body is given up. It is given up too
    /// when less than 4 KiB a second comes in so many seconds. Default 30.
    body_idle_seconds = 30, 1..=600;
    /// Seconds for a whole body. Default 900.
    body_seconds = 900, 1..=86_400;
    /// Seconds that a connection stays open without a request. Default 75.
    idle_seconds = 75, 1..=3_600;
    /// Seconds that requests in hand get when the daemon stops. Default 30.
    stop_seconds = 30, 0..=600;
    /// Messages per minute and party; 0 is no limit. Default 0.
    messages_per_minute = 0, 0..=1_000_000;
    /// Bytes of messages per minute and party, as they come over the line; 0
    /// is no limit. Default 0.
    bytes_per_minute = 0, 0..=68_719_476_736;
    /// Messages that one party sends at once; 0 is no limit. Default 256.
    uploads_per_party = 256, 0..=100_000;
    /// Requests per minute and party other than messages; 0 is no limit.
    /// Default 0.
    requests_per_minute = 0, 0..=1_000_000;
    /// Polls of one party that wait at once; 0 is no limit. Default 256.
    polls_per_party = 256, 0..=100_000;
    /// Days before its end from which a certificate or an API key is warned
    /// about. Default 30.
    expiry_warning_days = 30, 1..=365;
    /// Days that a part without a route is parked. Default 14, at most 14.
    parked_days = 14, 1..=14;
    /// Parked parts of one party. Default 10000.
    parked_per_party = 10_000, 1..=1_000_000;
    /// Bytes of the parked parts of one party. Default 1 GiB.
    parked_bytes_per_party = 1_073_741_824, 1_024..=68_719_476_736;
    /// Days that a receipt is remembered, so that a message sent again is
    /// recognised. Default 730.
    receipt_days = 730, 1..=3_660;
    /// Days that the content of a dead letter is kept after it was given up.
    /// Operators are told 14 days before its end. Default 90.
    dead_days = 90, 30..=730;
    /// Days after acknowledgement in which a message can be read again. Default 7.
    replay_days = 7, 0..=31;
}

//! Every bound of the proxy, with its unit; what happens past it stands beside it.
//!
//! Values follow Istio's behaviour where a user could see the difference, and are stricter where nobody should.
//! Never here: limits that a resource sets (timeouts of routes, breakers of clusters). Read by every module.

use std::time::Duration;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Request head on HTTP/1; over: 431.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header lines of a request or reply on HTTP/1; over: 431, 502.
pub(crate) const HEADERS_MAX: usize = 100;
/// Request head on HTTP/2, decoded; over: the stream is reset.
pub(crate) const H2_HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Streams of one downstream HTTP/2 connection at once; over: refused by the codec.
pub(crate) const H2_STREAMS_MAX: u32 = 1024;
/// HTTP/2 window of a stream, both sides of the proxy.
pub(crate) const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 window of a connection, both sides of the proxy.
pub(crate) const H2_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest HTTP/2 frame taken.
pub(crate) const H2_FRAME_BYTES: u32 = 64 * 1024;
/// Bytes of one HTTP/2 stream waiting to be written.
pub(crate) const H2_SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// From connection (or previous request) to a whole request head on HTTP/1; over: closed.
pub(crate) const HEAD_TIMEOUT: Duration = secs(60);
/// TLS handshakes, both sides; over: closed, or `upstream connect error`.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = secs(15);
/// Bytes looked at to tell the protocol; a ClientHello that is longer is taken as it stands.
pub(crate) const SNIFF_BYTES_MAX: usize = 16 * 1024;
/// Pause after an accept that failed (file descriptors used up), so that the loop does not spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pending connections of a listening socket.
pub(crate) const LISTEN_BACKLOG: i32 = 4096;
/// Buffer of each direction of a TCP connection.
pub(crate) const TCP_BUFFER_BYTES: usize = 64 * 1024;
/// Idle HTTP/1 connections kept per endpoint and worker; over: closed instead of kept.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 128;
/// Pause between looks at idle upstream connections.
pub(crate) const IDLE_SWEEP: Duration = secs(5);
/// Unused HTTP/1 upstream connections live no longer than this, whatever the cluster says: below the 75 s after which
/// common servers close theirs.
pub(crate) const IDLE_H1_MAX: Duration = secs(60);
/// HTTP/2 keep-alive pings towards upstreams: pause, and patience for the answer.
pub(crate) const H2_PING: (Duration, Duration) = (secs(30), secs(10));
/// Tries that find a dead pooled connection and go on without counting as a retry.
pub(crate) const STALE_TRIES_MAX: u32 = 3;
/// Body of a scrape of the application's metrics; over: cut off and counted as a failed scrape.
pub(crate) const SCRAPE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A scrape of the application's metrics; over: left out.
pub(crate) const SCRAPE_TIMEOUT: Duration = secs(5);
/// Distinct label sets of one metric; over: counted under the labels of the overflow series.
pub(crate) const SERIES_MAX: usize = 20_000;
/// Pauses between attempts to reach pilot: first and longest.
pub(crate) const XDS_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), secs(10));
/// How long names of DNS clusters are kept after a failed look-up.
pub(crate) const DNS_STALE: Duration = secs(600);

const _: () = assert!(H2_STREAM_WINDOW_BYTES < H2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(H2_FRAME_BYTES < H2_STREAM_WINDOW_BYTES);
const _: () = assert!(HEAD_BYTES_MAX >= 8 * 1024, "hyper's own minimum");

//! Every bound of the proxy, with its unit; what happens past it stands beside it.
//!
//! Values follow Istio's behaviour where a user could see the difference, and are stricter where nobody should.
//! Never here: limits that a resource sets (timeouts of routes, breakers of clusters). Read by every module.

use std::time::Duration;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Request head: target, names and values of all header lines; over: 431.
pub(crate) const HEAD_BYTES_MAX: usize = 60 * 1024;
/// Request heads under way on one connection, but for members of the mesh; over: 431.
pub(crate) const HEADS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Header lines of a request or reply; over: 431, 502.
pub(crate) const HEADERS_MAX: usize = 100;
/// Request target; over: 414.
pub(crate) const TARGET_BYTES_MAX: usize = 32 * 1024;
/// Head of a message on HTTP/2, decoded, as SETTINGS_MAX_HEADER_LIST_SIZE counts; over: 431, four times as much: GOAWAY.
pub(crate) const H2_HEADER_LIST_BYTES_MAX: u32 = 60 * 1024;
/// Names that are not all lower-case, as they ride HTTP/2 in one header; over: the rest of them is in lower case.
pub(crate) const NAMES_BYTES_MAX: usize = 8 * 1024;
/// Head of a message of HTTP/1 that rides HTTP/2: what HTTP/1 allows, and what is counted besides; over: 431.
pub(crate) const H2_RIDDEN_LIST_BYTES_MAX: u32 = 72 * 1024;
/// Header block on HTTP/2 as it comes, in all its frames; over: GOAWAY, `header_block_bytes`.
pub(crate) const H2_BLOCK_BYTES_MAX: u32 = 128 * 1024;
/// Fields of a header block on HTTP/2, before anything is decoded; over: GOAWAY, `header_fields`. Up to here the answer is
/// 431.
pub(crate) const H2_FIELDS_MAX: u32 = 400;
/// CONTINUATION frames of a header block; over: GOAWAY, `continuations` (the codec may end it earlier).
pub(crate) const H2_CONTINUATIONS_MAX: u32 = 100;
/// Entries of one SETTINGS frame; over: GOAWAY, `settings`.
pub(crate) const H2_SETTINGS_MAX: u32 = 32;
/// Streams of one HTTP/2 connection at once; over: refused by the codec. Upstream: another connection is opened.
pub(crate) const H2_STREAMS_MAX: u32 = 1024;
/// HTTP/2 connections of a worker to one endpoint; over: requests wait, and count as pending.
pub(crate) const H2_CONNECTIONS_MAX: usize = 1024;
/// Idle HTTP/2 connections live no longer than this where there is another one; over: closed.
pub(crate) const H2_SPARE_IDLE: Duration = secs(10);
/// Bytes of one HTTP/2 stream waiting to be written.
pub(crate) const H2_SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// Streams that the codec ends by an error or refuses, in a connection's whole life; over: GOAWAY by the codec. The glitch
/// budget ends misuse much earlier, but only sees an end that was written.
pub(crate) const H2_ERROR_RESETS_MAX: usize = 1_000;
/// What a stream that breaks a rule costs of the glitch budget; other glitches cost 1.
pub(crate) const GLITCH_STREAM_ERROR: u32 = 10;
/// A stream that is given up sooner was never meant.
pub(crate) const EARLY_RESET: Duration = secs(1);
/// Pause between looks at an HTTP/2 connection's clock.
pub(crate) const H2_LOOK: Duration = secs(5);
/// A peer that takes nothing of what it asked for; over: on HTTP/1 reset, flag `SI`, on HTTP/2 GOAWAY, `stalled`.
pub(crate) const FLUSH_TIMEOUT: Duration = secs(60);
/// How long, and how many bytes, a peer that was told to leave is still listened to, so that it can read why.
pub(crate) const FAREWELL_TIMEOUT: Duration = secs(1);
pub(crate) const FAREWELL_BYTES_MAX: u64 = 1024 * 1024;

/// What an HTTP/2 peer may do that is legal and of no use; over: GOAWAY and a counter of that name.
#[derive(Debug)]
pub(crate) struct H2Budget {
    /// Glitches at once, and how many wear off in a second: `glitches`.
    pub(crate) glitches: (u32, u32),
    /// Streams given up at once, and how many more in a second: `resets`.
    pub(crate) resets: (u32, u32),
    /// After so many streams most must not have been given up early: `early_resets`.
    pub(crate) early_resets_after: Option<u64>,
    /// Whether a stream without room is the peer's own doing, and `stalled` counts it. A member's streams are its clients',
    /// each of whom may stop reading; it is stalled where its connection is.
    pub(crate) streams_stall: bool,
}

/// A peer that nobody vouches for.
pub(crate) static H2_STRANGER: H2Budget =
    H2Budget { glitches: (1_000, 100), resets: (200, 33), early_resets_after: Some(100), streams_stall: true };
/// A proven member of the mesh, whose connection carries the requests, and the change of mind, of many clients.
pub(crate) static H2_MEMBER: H2Budget =
    H2Budget { glitches: (10_000, 1_000), resets: (20_000, 10_000), early_resets_after: None, streams_stall: false };

/// Room that an HTTP/2 connection gets: bytes that may wait in us, and streams. What all its streams may hold together, the
/// connection may hold: streams that nobody reads, however many, leave the others their own room.
#[derive(Debug)]
pub(crate) struct H2Room {
    /// Window of a stream.
    pub(crate) stream_bytes: u32,
    /// Window of a connection.
    pub(crate) connection_bytes: u32,
    /// Largest frame taken.
    pub(crate) frame_bytes: u32,
    /// Streams at once.
    pub(crate) streams: u32,
}

impl H2Room {
    const fn new(streams: u32, stream_bytes: u32, frame_bytes: u32) -> Self {
        Self { stream_bytes, connection_bytes: streams * stream_bytes, frame_bytes, streams }
    }

    /// Whether no stream can take another's room, and HTTP/2 allows the numbers (RFC 9113, 6.5.2 and 6.9.1).
    const fn is_sound(&self) -> bool {
        self.stream_bytes as u64 * self.streams as u64 <= self.connection_bytes as u64
            && self.connection_bytes <= i32::MAX as u32
            && self.streams <= H2_STREAMS_MAX
            && self.frame_bytes >= 16 * KIB
            && self.frame_bytes <= self.stream_bytes
    }
}

const KIB: u32 = 1024;
/// A client from outside: 6.25 MiB.
pub(crate) static H2_EDGE: H2Room = H2Room::new(100, 64 * KIB, 16 * KIB);
/// A client beside us, or one that nobody vouches for: 64 MiB, what as many connections of HTTP/1 may hold.
pub(crate) static H2_NEAR: H2Room = H2Room::new(H2_STREAMS_MAX, 64 * KIB, 16 * KIB);
/// Another proxy of the mesh, and upstreams: 256 MiB. Many streams, because a peer may be told to keep to one connection.
pub(crate) static H2_MESH: H2Room = H2Room::new(H2_STREAMS_MAX, 256 * KIB, 64 * KIB);
/// Both ends of a connection between two of our proxies on which HTTP/1 rides: 16 MiB. What finds no stream free opens
/// another connection.
pub(crate) static H2_RIDDEN: H2Room = H2Room::new(128, 128 * KIB, 64 * KIB);

/// From a head's first byte to its last; over: 408, on HTTP/2 GOAWAY, `late`.
pub(crate) const HEAD_TIMEOUT: Duration = secs(10);
/// A connection that has not said a byte, where the listener waits without limit for one; over: closed.
pub(crate) const SILENCE_MAX: Duration = secs(3600);
/// The first bytes of a TLS connection on which HTTP/1 and HTTP/2 are told apart; over: closed.
pub(crate) const FIRST_BYTES_TIMEOUT: Duration = secs(60);
/// Between two pieces of a request's body on HTTP/1, while someone waits for it; over: 408.
pub(crate) const BODY_TIMEOUT: Duration = secs(300);
/// Pieces of a request's body that are kept for another try, whose bytes the route bounds; over: the request is final. A
/// piece may be a single byte.
pub(crate) const KEPT_PIECES_MAX: usize = 1024;
/// First read of an HTTP/1 message, on the stack.
pub(crate) const READ_FIRST_BYTES: usize = 8 * 1024;
/// Largest single read of an HTTP/1 body.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;
/// Pieces of a body up to this size are copied next to the head: one write, and a copy costs less than a second piece.
pub(crate) const SMALL_PIECE_BYTES: usize = 4 * 1024;
/// Copied bytes that wait to be written on HTTP/1; over: no more are taken.
pub(crate) const GATHERED_BYTES_MAX: usize = 16 * 1024;
/// One chunk's extension; over: the body is malformed.
pub(crate) const CHUNK_EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// All chunks' extensions of a body; over: the body is malformed.
pub(crate) const CHUNK_EXTENSIONS_BYTES_MAX: usize = 16 * 1024;
/// Trailers of a body; over: the body is malformed.
pub(crate) const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Interim replies to one request; over: 502.
pub(crate) const INTERIM_REPLIES_MAX: u32 = 16;
/// Rest of a request's body that is read and dropped after its reply; over: the connection ends.
pub(crate) const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// The same, in time.
pub(crate) const DRAIN_TIMEOUT: Duration = secs(5);
/// What is read and dropped after a connection's last reply, so that the client can read it; over: reset.
pub(crate) const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The same, in time.
pub(crate) const LINGER_TIMEOUT: Duration = secs(5);
/// TLS handshakes, both sides, and an upstream's HTTP/2 settings; over: closed, or `upstream connect error`.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = secs(10);
/// Bytes looked at to tell the protocol; a ClientHello that is longer is taken as it stands.
pub(crate) const SNIFF_BYTES_MAX: usize = 16 * 1024;
/// A header of the PROXY protocol; over: closed.
pub(crate) const PROXY_HEADER_BYTES_MAX: usize = 4096;
/// From connection to a whole header of the PROXY protocol, where one must come; over: closed.
pub(crate) const PROXY_HEADER_TIMEOUT: Duration = secs(10);
/// Pause after an accept that failed (file descriptors used up), so that the loop does not spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pending connections of a listening socket.
pub(crate) const LISTEN_BACKLOG: i32 = 4096;
/// Bytes that one way of a TCP connection reads at a time, growing as reads fill them. The buffer is the worker's; a
/// connection keeps only what the other side did not take.
pub(crate) const TCP_READ_BYTES: [usize; 3] = [1024, 16 * 1024, 256 * 1024];
/// Bytes that a way copies before its next large read goes by a pipe: short connections are spared the trouble.
pub(crate) const TCP_PIPE_AFTER_BYTES: usize = 512 * 1024;
/// Asked-for size of a pipe between two sockets; less where the system allows less.
pub(crate) const TCP_PIPE_BYTES: usize = 1024 * 1024;
/// Pipes of a worker; over: bytes are copied.
pub(crate) const TCP_PIPES_MAX: usize = 256;
/// Pause between the times that the bytes of an open TCP connection are counted (Istio's `tcp_reporting_duration`).
pub(crate) const TCP_REPORT: Duration = secs(15);
/// Idle HTTP/1 connections kept per endpoint and worker; over: closed instead of kept.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 128;
/// Pause between looks at idle upstream connections.
pub(crate) const IDLE_SWEEP: Duration = secs(5);
/// Unused HTTP/1 upstream connections live no longer than this, whatever the cluster says: below the 75 s after which
/// common servers close theirs.
pub(crate) const IDLE_H1_MAX: Duration = secs(60);
/// HTTP/2 keep-alive pings, both sides: pause, and patience for the answer; over: closed.
pub(crate) const H2_PING: (Duration, Duration) = (secs(30), secs(10));
/// Copies of requests that a worker has under way; over: not copied, `upstream_rq_pending_overflow`.
pub(crate) const MIRRORS_MAX: usize = 1024;
/// A copy of a request, to the end of its reply; over: given up.
pub(crate) const MIRROR_TIMEOUT: Duration = secs(60);
/// Tries that find a dead pooled connection and go on without counting as a retry.
pub(crate) const STALE_TRIES_MAX: u32 = 3;
/// Body of a scrape of the application's metrics; over: cut off and counted as a failed scrape.
pub(crate) const SCRAPE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A scrape of the application's metrics; over: left out.
pub(crate) const SCRAPE_TIMEOUT: Duration = secs(5);
/// Memory used, in percent of the limit, at which steps are taken: idle connections end soon; connections end after the
/// request under way; requests are refused (503 `overload`); connections are closed.
pub(crate) const OVERLOAD_STEPS: [u64; 4] = [85, 92, 95, 98];
/// So many percent below it a step is taken back.
pub(crate) const OVERLOAD_BACK: u64 = 2;
/// Pause between looks at memory.
pub(crate) const OVERLOAD_LOOK: Duration = Duration::from_millis(250);
/// Looks between which free memory is given back, and the limit read again.
pub(crate) const OVERLOAD_SHRINK_EVERY: u32 = 40;
/// Idle connections live no longer than this where memory is short.
pub(crate) const OVERLOAD_IDLE: Duration = secs(10);
/// Connections that are taken, in percent of the files that may be open; over: closed, `downstream_cx_overflow`. Each may
/// need another one upstream, and the pages that show it need a few.
pub(crate) const CONNECTIONS_SHARE: u64 = 40;
/// What a client is told to wait when memory is short.
pub(crate) const OVERLOAD_RETRY: Duration = secs(1);
/// Compiled formats of header values that a worker keeps; over: all are forgotten, and compiled again when needed.
pub(crate) const FORMATS_MAX: usize = 256;
/// Distinct label sets of one metric; over: counted under the labels of the overflow series.
pub(crate) const SERIES_MAX: usize = 20_000;
/// Pauses between attempts to reach pilot: first and longest.
pub(crate) const XDS_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), secs(10));
/// How long names of DNS clusters are kept after a failed look-up.
pub(crate) const DNS_STALE: Duration = secs(600);

const _: () = assert!(H2_EDGE.is_sound() && H2_NEAR.is_sound() && H2_MESH.is_sound() && H2_RIDDEN.is_sound());
const _: () = assert!(H2_RIDDEN_LIST_BYTES_MAX < H2_BLOCK_BYTES_MAX);
const _: () = assert!(H2_RIDDEN_LIST_BYTES_MAX as usize > HEAD_BYTES_MAX + NAMES_BYTES_MAX + HEADERS_MAX * 32);
const _: () = assert!(HEADERS_MAX < H2_FIELDS_MAX as usize);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(CONNECTIONS_SHARE < 50);
const _: () = assert!(READ_FIRST_BYTES < READ_BYTES_MAX);

//! The bounds of the API server, with their units.
//!
//! Never here: what Kubernetes lets an object set; how long things live (beside what makes them). Read by every module.

use std::time::Duration;

// Requests and connections.

/// A client that does not finish its handshake in this time is dropped.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to send a request's head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; over: the next wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// After `accept` fails (no file descriptors).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests at once on one connection of HTTP/2.
pub(crate) const H2_STREAMS_MAX: u32 = 250;
/// Largest body of a request.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Largest token that is looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Messages of protobuf within messages.
pub(crate) const PROTOBUF_DEPTH_MAX: usize = 64;
/// Operations that one patch may have, as in the real server.
pub(crate) const PATCH_OPERATIONS_MAX: usize = 10_000;
/// Largest answer of a webhook that is read.
pub(crate) const WEBHOOK_ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Characters of all warnings of a response, as in the real server: clients read no head of any size.
pub(crate) const WARNINGS_CHARS_MAX: usize = 4 * 1024;
/// One warning, where all are more than that.
pub(crate) const WARNING_CHARS_MAX: usize = 256;
/// Tries to find a free generated name.
pub(crate) const GENERATE_ATTEMPTS_MAX: usize = 8;
/// Lost races before giving up.
pub(crate) const UPDATE_ATTEMPTS_MAX: usize = 16;
/// Between bookmarks of a watch.
pub(crate) const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without its own limit ends between this and twice this, as the real server's do.
pub(crate) const WATCH_SECONDS: u64 = 1_800;
/// Events that wait for a slow client before the watch stops reading the history.
pub(crate) const WATCH_EVENTS_WAITING_MAX: usize = 16;

// Objects.

/// Largest object.
pub(crate) const OBJECT_BYTES_MAX: usize = 1_572_864;
/// Writes that one transaction takes at most.
pub(crate) const BATCH_WRITES_MAX: usize = 1024;
/// redb's own page cache; the index in memory answers all reads.
pub(crate) const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Changes kept for a resource.
pub(crate) const CHANGES_MAX: usize = 8_192;
/// Bytes of objects kept alive by them.
pub(crate) const CHANGES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Annotations of one object, keys and values.
pub(crate) const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
/// Managers that update which are kept apart; the oldest beyond are counted as one.
pub(crate) const UPDATERS_MAX: usize = 10;
/// Objects of a new cluster made at once.
pub(crate) const FIRST_OBJECTS_AT_ONCE: usize = 32;

// Streams of a Pod.

/// Bytes read at once of what a stream carries.
pub(crate) const COPY_BYTES: usize = 32 * 1024;
/// The client has read the status, and closes, in this time.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes between the client and the program, each way.
pub(crate) const PROGRAM_PIPE_BYTES: usize = 64 * 1024;
/// The client must open its streams in this time.
pub(crate) const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// Sizes of a terminal that wait for the program.
pub(crate) const SIZES_WAITING_MAX: usize = 8;
/// Bytes between a WebSocket and the byte stream over it.
pub(crate) const SOCKET_PIPE_BYTES: usize = 64 * 1024;
/// Connections that one port-forward carries at once.
pub(crate) const FORWARDED_MAX: usize = 256;
/// Messages that wait for a slow connection.
pub(crate) const FORWARDED_MESSAGES_MAX: usize = 64;
/// The other stream of a connection must come in this time, as in the real server.
pub(crate) const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// A Pod that reads nothing for so long, while that holds up other connections, loses its own.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest frame that is read.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest header block, unpacked.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Streams open at once.
pub(crate) const STREAMS_MAX: usize = 256;
/// Frames that wait for a slow reader of a stream. `kubectl` minds no windows: when they are full, every stream of the
/// connection waits, so a reader must not stay away for long.
pub(crate) const STREAM_FRAMES_MAX: usize = 64;
/// Frames that wait to be written.
pub(crate) const WRITE_FRAMES_MAX: usize = 64;
/// New streams that wait to be taken.
pub(crate) const OPEN_STREAMS_MAX: usize = 32;

// Controllers.

/// Uids remembered as gone, so that late news cannot bring them back.
pub(crate) const GONE_UIDS_MAX: usize = 16_384;
/// Tasks at once: enough that a webhook that does not answer holds up only those that need it.
pub(crate) const TASKS_MAX: usize = 64;
/// Between a failed try and the next; it doubles.
pub(crate) const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest of those pauses.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How many objects are made at once.
pub(crate) const CREATES_AT_ONCE: usize = 16;
/// Reports that may wait to be written; more are dropped.
pub(crate) const EVENTS_WAITING_MAX: usize = 1024;
/// Events remembered to raise their count.
pub(crate) const EVENTS_REMEMBERED_MAX: usize = 1024;
/// Events deleted at once.
pub(crate) const EVENTS_DELETED_AT_ONCE: usize = 16;
/// Endpoints of one slice at most.
pub(crate) const SLICE_ENDPOINTS_MAX: usize = 100;
/// Pods made or deleted in one go; the rest follows.
pub(crate) const PODS_AT_ONCE: usize = 500;
/// Changes of CRDs that may wait; watching waits with them.
pub(crate) const DEFINITIONS_WAITING_MAX: usize = 64;

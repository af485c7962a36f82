//! The bounds of the node, with their units.
//!
//! Never here: what Kubernetes lets an object set; rhythms of trying again (beside what tries). Read by every module.

use std::time::Duration;

// The network.

/// A DNS answer to a client that says it takes more than the plain size; over: truncated.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1232;
/// A DNS answer to any other client; over: truncated.
pub(crate) const PLAIN_DATAGRAM_BYTES_MAX: usize = 512;
/// DNS connections over TCP at once.
pub(crate) const DNS_CONNECTIONS_MAX: usize = 256;
/// A DNS connection without a query for so long is closed.
pub(crate) const DNS_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Names that lead to names, one after the other.
pub(crate) const ALIASES_MAX: usize = 8;
/// The most relayed connections at once.
pub(crate) const RELAYED_MAX: usize = 16_384;
/// The most elements in one transaction: nft's socket buffer takes no more (EMSGSIZE).
pub(crate) const ELEMENTS_MAX: usize = 400;
/// Sockets fetched ahead for outgoing connections.
pub(crate) const SOCKETS_AHEAD: usize = 32;
/// Datagrams that wait while the daemon is busy: a query that finds no room costs its sender five seconds. The kernel
/// gives at the most what `net.core.rmem_max` allows.
pub(crate) const DATAGRAMS_WAITING_BYTES: usize = 4 * 1024 * 1024;

// Messages to and from the keeper.

/// The longest body that travels inside a datagram, in bytes.
pub(crate) const INLINE_BYTES_MAX: usize = 60 * 1024;
/// The longest body at all, in bytes.
pub(crate) const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most descriptors in one message.
pub(crate) const DESCRIPTORS_MAX: usize = 64;
/// The most a failed start may say, in bytes.
pub(crate) const COMPLAINT_BYTES_MAX: u64 = 8 * 1024;

// Pods.

/// Pods of the node.
pub(crate) const PODS_MAX: u32 = 1_000;
/// The most events waiting to be written; more are dropped and logged.
pub(crate) const EVENTS_WAITING_MAX: usize = 1024;
/// The most different events remembered for counting.
pub(crate) const EVENTS_REMEMBERED_MAX: usize = 4096;
/// Bytes between a log and its reader.
pub(crate) const COPY_BYTES: usize = 16 * 1024;
/// Bytes read at once of what a container says.
pub(crate) const OUTPUT_READ_BYTES: usize = 32 * 1024;
/// Longest line of a log that is one; a longer one is split.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// A log is rotated at this size, in bytes; one older part is kept.
pub(crate) const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Pieces of output that wait for the log.
pub(crate) const OUTPUT_PIECES_MAX: usize = 256;
/// The longest reason that a container may leave, in bytes.
pub(crate) const LAST_WORDS_BYTES_MAX: u64 = 4096;
/// Of a probe's reply, what a message shows.
pub(crate) const PROBE_SHOWN_BYTES_MAX: usize = 1024;
/// An `emptyDir`.
pub(crate) const EMPTY_BYTES_MAX: u64 = 1 << 30;
/// An `emptyDir` in memory.
pub(crate) const MEMORY_BYTES_MAX: u64 = 256 << 20;

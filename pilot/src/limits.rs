//! Every limit of pilot, with its unit and what happens when it is full.
//!
//! Never here: limits of others (`api-rt` bounds handshakes, `discovery` bounds messages). Read by all of pilot.

use std::time::Duration;

/// Names one client may ask for, of one type; over: the stream ends with `resource_exhausted`.
pub(crate) const NAMES_MAX: usize = 100_000;
/// Open streams; over: a new one is answered `resource_exhausted`, and the client tries again elsewhere or later.
pub(crate) const STREAMS_MAX: usize = 20_000;
/// Connections that wait to be taken; over: the kernel lets the client try again, or refuses it. A whole mesh comes at once
/// when pilot is restarted.
pub(crate) const WAITING_CONNECTIONS: u32 = 4096;
/// Streams that are told much at once; over: a stream waits for a place, oldest first.
pub(crate) const PLACES: usize = 24;
/// Bytes of a response from which on it is much.
pub(crate) const MUCH_BYTES: usize = 64 * 1024;
/// Names to look at from which on it is much to do.
pub(crate) const MUCH_NAMES: usize = 64;
/// How long a stream that has taken all and asks nothing more keeps its place.
pub(crate) const PLACE_QUIET: Duration = Duration::from_millis(100);
/// How long a stream keeps its place at most; over: it goes on without, and the next one is told.
pub(crate) const PLACE_LIMIT: Duration = Duration::from_secs(5);
/// How long a stream may stay silent at first; over: it ends with `deadline_exceeded`.
pub(crate) const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Age at which a stream is asked to come again (give or take a tenth), so that new replicas get their share.
pub(crate) const STREAM_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Groups of proxies that are told different things (by namespace, labels that rules ask for, and dialect), those without
/// clients not counted; over: a stream that would be a new one is answered `resource_exhausted`.
pub(crate) const AUDIENCES_MAX: usize = 8_192;
/// The same, where the client did not prove who it is: it may name any namespace.
pub(crate) const AUDIENCES_UNPROVEN_MAX: usize = 512;
/// Snapshots after which what a group saw is forgotten where none of it asks; over: it is worked out from nothing.
pub(crate) const PAST_SNAPSHOTS_MAX: usize = 16;
/// Parts of the cache, each with its own lock; more of them wait less for each other.
pub(crate) const CACHE_SHARDS: usize = 16;
/// How long an answer about a gateway's right to read Secrets holds; then it is asked for again (Istio's: one minute).
pub(crate) const RIGHTS_HOLD: Duration = Duration::from_secs(60);
/// Answers about rights that are kept; over: those that are too old go, then what is asked is not kept.
pub(crate) const RIGHTS_MAX: usize = 10_000;
/// How long the API server may take to answer about a right; over: nothing is granted that was not before.
pub(crate) const RIGHT_LIMIT: Duration = Duration::from_secs(5);
/// How often the cache is swept of what no client holds; what is dropped is made again when asked for.
pub(crate) const CACHE_SWEEP: Duration = Duration::from_secs(60);
/// How long new routes wait for the endpoints of new clusters to be asked for; over: they are sent all the same.
pub(crate) const WARMING_LIMIT: Duration = Duration::from_millis(300);
/// Events taken from the source at once; over: they wait, and the source stops reading.
pub(crate) const EVENTS_AT_ONCE: usize = 1024;
/// Quiet time after a change before the mesh is resolved again.
pub(crate) const QUIET: Duration = Duration::from_millis(100);
/// Longest time that further changes put it off.
pub(crate) const QUIET_MAX: Duration = Duration::from_millis(1000);
/// How long changes of endpoints alone are gathered.
pub(crate) const QUIET_ENDPOINTS: Duration = Duration::from_millis(10);
/// How long streams under way may take to end at shutdown; over: they are cut.
pub(crate) const STREAM_GRACE: Duration = Duration::from_secs(2);
/// Admission reviews being tried out at once; over: they wait, up to the API server's own limit.
pub(crate) const REVIEWS_AT_ONCE: usize = 2;
/// Changes of objects' status a second; over: they wait, and only the newest of an object is written.
pub(crate) const STATUS_WRITES_PER_SECOND: u32 = 10;

/// How soon a status is written again after the API server did not answer.
pub(crate) const STATUS_RETRY: Duration = Duration::from_secs(2);

const _: () = assert!(AUDIENCES_UNPROVEN_MAX < AUDIENCES_MAX);
const _: () = assert!(QUIET.as_millis() <= QUIET_MAX.as_millis());

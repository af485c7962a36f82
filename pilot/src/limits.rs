//! Every limit of pilot, with its unit and what happens when it is full.
//!
//! Never here: limits of others (`api-rt` bounds handshakes, `discovery` bounds messages). Read by all of pilot.

use std::time::Duration;

/// Names one client may ask for, of one type; over: the stream ends with `resource_exhausted`.
pub(crate) const NAMES_MAX: usize = 100_000;
/// Open streams; over: a new one is answered `resource_exhausted`, and the client tries again elsewhere or later.
pub(crate) const STREAMS_MAX: usize = 20_000;
/// Streams whose next response is being worked out at once; over: a stream waits its turn, oldest first.
pub(crate) const ADMITTED_AT_ONCE: usize = 4;
/// How long a stream may stay silent at first; over: it ends with `deadline_exceeded`.
pub(crate) const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Age at which a stream is asked to come again (give or take a tenth), so that new replicas get their share.
pub(crate) const STREAM_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Encoded bytes kept for resources that no client has asked for lately; over: the oldest are dropped and made again when
/// asked for.
pub(crate) const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How often the cache is swept of what was not asked for since the sweep before the last.
pub(crate) const CACHE_SWEEP: Duration = Duration::from_secs(60);
/// How long new routes wait for the endpoints of new clusters to be asked for; over: they are sent all the same.
pub(crate) const WARMING_LIMIT: Duration = Duration::from_millis(300);
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

const _: () = assert!(QUIET.as_millis() <= QUIET_MAX.as_millis());

//! Every limit of pilot, with its unit and what happens when it is full.
//!
//! Never here: limits of others (`api-rt` bounds handshakes, `discovery` bounds messages). Read by all of pilot.

use std::time::Duration;

/// Names one client may ask for, of one type; over: the stream ends with `resource_exhausted`.
pub(crate) const NAMES_MAX: usize = 100_000;
/// Open streams; over: a new one is answered `resource_exhausted`, and the client tries again elsewhere or later.
pub(crate) const STREAMS_MAX: usize = 20_000;
/// Streams that are being told everything at once; over: a new one waits its turn, oldest first.
pub(crate) const ADMITTED_AT_ONCE: usize = 32;
/// Encoded bytes kept for resources that no client has asked for lately; over: the oldest are dropped and made again when
/// asked for.
pub(crate) const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;
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
/// Changes of objects' status a second; over: they wait, and only the newest of an object is written.
pub(crate) const STATUS_WRITES_PER_SECOND: u32 = 10;

const _: () = assert!(QUIET.as_millis() <= QUIET_MAX.as_millis());

//! What time it is.
//!
//! The one place that asks the machine's clock. Never here: arithmetic. Called by handlers, which pass the time on.

use jiff::Timestamp;

/// Now.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// As `metadata` and `status` have it: RFC 3339, whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

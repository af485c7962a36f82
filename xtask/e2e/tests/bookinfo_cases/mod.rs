//! Tests over one running Bookinfo, a file a subject.
//!
//! Never here: their order; the suite has it. Called by the suite `bookinfo`.

pub(crate) mod forged;
pub(crate) mod input;
pub(crate) mod policies;
pub(crate) mod samples;
pub(crate) mod traffic;
pub(crate) mod wire;

use std::time::Duration;

/// How long a change may take to be seen.
const LIMIT: Duration = Duration::from_secs(60);

//! What stands between HTTP/2's codec and the bytes: a meter that knows when a peer asks for more work than it gives.
//!
//! The codec reads and writes frames; this counts them as they pass, both ways, and ends connections that misuse what
//! the protocol allows: resets, control frames, header blocks, windows that never open.
//! Never here: requests, but for exchanges with upstreams (`client`). Used by `codec` for clients and by `upstream` for
//! upstreams.

mod block;
pub(crate) mod client;
mod excess;
mod frame;
pub(crate) mod guard;
pub(crate) mod incoming;
#[cfg(test)]
pub(crate) mod laws;
pub(crate) mod meter;

use std::error::Error;

pub(crate) use excess::Excess;

use crate::metrics::proxy::ProxyStats;

/// Whether it was the codec that told the peer to be calm.
fn calmed(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        cause = error.source();
    }
    false
}

/// Counts it, and tells it at the first, second, fourth, eighth … time, so that an attack fills no log.
fn tell(stats: &ProxyStats, excess: Excess, side: &'static str) {
    let count = stats.http2_excess.add(excess);
    if count.is_power_of_two() {
        tracing::warn!(excess = excess.name(), side, count, "HTTP/2 connection ended: the peer asked for too much");
    } else {
        tracing::debug!(excess = excess.name(), side, count, "HTTP/2 connection ended: the peer asked for too much");
    }
}

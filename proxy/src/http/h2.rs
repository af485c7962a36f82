//! What stands between HTTP/2's codec and the bytes: a meter that knows when a peer asks for more work than it gives.
//!
//! The codec reads and writes frames; this counts them as they pass, both ways, and ends connections that misuse what
//! the protocol allows: resets, control frames, header blocks, windows that never open.
//! Never here: requests. Used by `codec` for clients and by `upstream::open` for upstreams.

mod block;
mod frame;
pub(crate) mod guard;
pub(crate) mod meter;

use std::error::Error;

use crate::metrics::proxy::ProxyStats;

/// What a peer did too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Streams opened and given up.
    Resets,
    /// Most streams given up at once after they were opened.
    EarlyResets,
    /// What is legal and of no use: control frames, empty frames, streams that break rules.
    Glitches,
    /// Settings in one frame.
    Settings,
    /// CONTINUATION frames of one header block.
    Continuations,
    /// Bytes of one header block.
    BlockBytes,
    /// Fields of one header block.
    Fields,
    /// Pseudo-headers where trailers are.
    Trailers,
    /// Streams at once, far beyond the limit it was told.
    Streams,
    /// Time for a header block, a control frame or the preface.
    Late,
    /// Time without room for the replies that it asked for.
    Stalled,
    /// What the codec counts itself: resets that it has not read yet, errors, empty data.
    Codec,
}

impl Excess {
    /// All of them, for counting.
    pub(crate) const ALL: [Self; 12] = [
        Self::Resets,
        Self::EarlyResets,
        Self::Glitches,
        Self::Settings,
        Self::Continuations,
        Self::BlockBytes,
        Self::Fields,
        Self::Trailers,
        Self::Streams,
        Self::Late,
        Self::Stalled,
        Self::Codec,
    ];

    /// Its name in counters and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::EarlyResets => "early_resets",
            Self::Glitches => "glitches",
            Self::Settings => "settings",
            Self::Continuations => "continuations",
            Self::BlockBytes => "header_block_bytes",
            Self::Fields => "header_fields",
            Self::Trailers => "trailers",
            Self::Streams => "streams",
            Self::Late => "late",
            Self::Stalled => "stalled",
            Self::Codec => "codec",
        }
    }

    /// The code of the GOAWAY (RFC 9113, 7): PROTOCOL_ERROR or ENHANCE_YOUR_CALM.
    fn code(self) -> u32 {
        match self {
            Self::Trailers => 0x1,
            Self::Resets
            | Self::EarlyResets
            | Self::Glitches
            | Self::Settings
            | Self::Continuations
            | Self::BlockBytes
            | Self::Fields
            | Self::Streams
            | Self::Late
            | Self::Stalled
            | Self::Codec => 0xb,
        }
    }
}

/// Whether it was the codec that told the peer to be calm.
fn calmed(error: &hyper::Error) -> bool {
    let mut cause = error.source();
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

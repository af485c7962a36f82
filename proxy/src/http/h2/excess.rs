//! What a peer can do too much of: its name in counters, and the code that it is told.
//!
//! Never here: how much is too much (`limits`) or who counts (`meter`). Used by `meter` and `guard`.

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
    pub(super) fn code(self) -> u32 {
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

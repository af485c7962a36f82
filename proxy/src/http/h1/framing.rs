//! Cuts a body out of the bytes of a connection: by length, by chunks, or until the end (RFC 9112, 6 and 7).
//!
//! Given bytes, gives the next piece; the whole that comes out does not depend on how the bytes were split.
//! Never here: sockets. Used by `wire`.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::chunk::{Chunks, Piece};

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why a body cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("the connection ended before the body did")]
    Ended,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("chunk extensions are too long")]
    Extensions,
    #[error("the trailers are malformed or too large")]
    Trailers,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    End,
}

/// A body on its way in.
#[derive(Debug)]
pub(crate) enum Cutter {
    Length(u64),
    Chunked(Box<Chunks>),
    UntilClose,
    Done,
}

impl Cutter {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunks::new())),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many bytes are to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes what comes next from `bytes`; `ended`: no more will come.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut, ended: bool) -> Result<Next, FramingError> {
        let next = match self {
            Self::Done => Next::End,
            Self::Length(left) if !bytes.is_empty() => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                let data = bytes.split_to(count).freeze();
                if *left == 0 {
                    *self = Self::Done;
                }
                Next::Data(data)
            }
            Self::UntilClose if !bytes.is_empty() => Next::Data(bytes.split().freeze()),
            Self::UntilClose if ended => {
                *self = Self::Done;
                Next::End
            }
            Self::Length(_) | Self::UntilClose => Next::More,
            Self::Chunked(chunks) => match chunks.next(bytes)? {
                Piece::Data(data) => Next::Data(data),
                Piece::More => Next::More,
                Piece::End(trailers) => {
                    *self = Self::Done;
                    trailers.map_or(Next::End, Next::Trailers)
                }
            },
        };
        if next == Next::More && ended { Err(FramingError::Ended) } else { Ok(next) }
    }
}

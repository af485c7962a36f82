//! Reads the chunked coding (RFC 9112, 7.1).
//!
//! Sizes are hexadecimal digits and nothing else, lines end with CRLF and nothing else, extensions are dropped and
//! bounded, and trailers that have a meaning before the body are dropped (RFC 9110, 6.5.1).
//! Never here: sockets. Used by `framing`; `pump` asks which trailers pass.

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        COOKIE, EXPECT, HOST, MAX_FORWARDS, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
};

use super::{
    framing::FramingError,
    head::{Scan, fields},
};
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, HEADERS_MAX, TRAILER_BYTES_MAX};

/// What comes next.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    More,
    End(Option<HeaderMap>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size; how many there were.
    Size(u8),
    /// Blanks after a size: an extension or the line end follows.
    Blank,
    Extension,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// A chunked body on its way in.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    size: u64,
    /// Bytes between this size and its line end.
    extension: usize,
    /// The same for all chunks.
    extensions: usize,
    trailers: Scan,
}

/// Sixteen digits are all that 64 bits hold.
const DIGITS_MAX: u8 = 16;

/// Fields that frame, route, authenticate or describe: a trailer must not change what was decided by the head.
pub(super) fn forbidden(name: &HeaderName) -> bool {
    static NAMES: [HeaderName; 18] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        MAX_FORWARDS,
        PROXY_AUTHORIZATION,
        RANGE,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    NAMES.contains(name) || name.as_str().starts_with("x-forwarded-") || name.as_str().starts_with("x-envoy-")
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Size(0),
            size: 0,
            extension: 0,
            extensions: 0,
            trailers: Scan::new(TRAILER_BYTES_MAX, TRAILER_BYTES_MAX),
        }
    }

    /// Takes what comes next from `bytes`.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, FramingError> {
        loop {
            match self.state {
                State::Data(left) => {
                    if bytes.is_empty() {
                        return Ok(Piece::More);
                    }
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    return Ok(Piece::Data(bytes.split_to(count).freeze()));
                }
                State::Trailers => return self.trailers(bytes),
                State::Done => return Ok(Piece::End(None)),
                State::Size(_) | State::Blank | State::Extension | State::SizeLf | State::DataCr | State::DataLf => {
                    let Some(byte) = bytes.first().copied() else { return Ok(Piece::More) };
                    bytes.advance(1);
                    self.state = self.after(byte)?;
                }
            }
        }
    }

    /// Where one byte of a line leads.
    fn after(&mut self, byte: u8) -> Result<State, FramingError> {
        match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.size = (self.size << 4) | digit;
                Ok(State::Size(digits + 1))
            }
            (State::Size(1..) | State::Blank | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size(1..) | State::Blank, b' ' | b'\t') => self.skipped(State::Blank),
            (State::Size(1..) | State::Blank, b';') => self.skipped(State::Extension),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.skipped(State::Extension),
            (State::SizeLf, b'\n') => {
                let size = std::mem::take(&mut self.size);
                self.extension = 0;
                Ok(if size == 0 { State::Trailers } else { State::Data(size) })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            _ => Err(FramingError::Chunk),
        }
    }

    fn skipped(&mut self, next: State) -> Result<State, FramingError> {
        self.extension += 1;
        self.extensions += 1;
        let bounded = self.extension <= CHUNK_EXTENSION_BYTES_MAX && self.extensions <= CHUNK_EXTENSIONS_BYTES_MAX;
        if bounded { Ok(next) } else { Err(FramingError::Extensions) }
    }

    fn trailers(&mut self, bytes: &mut BytesMut) -> Result<Piece, FramingError> {
        let Some(end) = self.trailers.end(bytes).map_err(|_| FramingError::Trailers)? else {
            return Ok(Piece::More);
        };
        let section = bytes.split_to(end).freeze();
        self.state = State::Done;
        if end == 2 {
            return Ok(Piece::End(None));
        }
        let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&section, &mut room) else {
            return Err(FramingError::Trailers);
        };
        let kept: Vec<_> = parsed
            .iter()
            .filter(|field| HeaderName::from_bytes(field.name.as_bytes()).is_ok_and(|name| !forbidden(&name)))
            .copied()
            .collect();
        let trailers = fields(&kept, &section).map_err(|_| FramingError::Trailers)?.headers;
        Ok(Piece::End((!trailers.is_empty()).then_some(trailers)))
    }
}

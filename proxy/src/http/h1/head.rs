//! What heads of requests and replies have in common: where they end, and their fields.
//!
//! Lines end with CRLF and nothing else; `httparse` reads names and values; framing fields are judged here, once, for both
//! directions (RFC 9112, 2.2, 5 and 6).
//! Never here: first lines, sockets. Called by `request`, `response` and, for trailers, `chunk`.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING},
};

use super::spelling::Spelling;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("a line does not end with CRLF")]
    LineEnd,
    #[error("the first line is malformed")]
    FirstLine,
    #[error("the version of HTTP is not offered")]
    Version,
    #[error("HTTP/1.0 is not offered")]
    OldVersion,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("a field's name is malformed")]
    Name,
    #[error("a field's value holds a character that no value may hold")]
    Value,
    #[error("there are too many fields")]
    TooMany,
    #[error("the head is too large")]
    TooLarge,
    #[error("content-length is not one number")]
    ContentLength,
    #[error("transfer-encoding is not chunked alone")]
    TransferEncoding,
    #[error("the transfer coding is not known")]
    TransferCoding,
    #[error("both content-length and transfer-encoding say where the body ends")]
    TwoLengths,
    #[error("the expectation cannot be met")]
    Expect,
}

/// Finds the end of a head while its bytes come in.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Bytes that were looked at.
    seen: usize,
    line: usize,
    most: usize,
    first_line_most: usize,
}

impl Scan {
    /// A head of at most so many bytes, its first line of at most so many.
    pub(crate) fn new(most: usize, first_line_most: usize) -> Self {
        Self { seen: 0, line: 0, most, first_line_most }
    }

    /// How long the head is, with the empty line after it; none: not all of it is there.
    ///
    /// # Errors
    /// A line that ends otherwise, or too much of it. The answer does not depend on how the bytes were split.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        let window = &bytes[..bytes.len().min(self.most)];
        while let Some(found) = memchr::memchr(b'\n', window.get(self.seen..).unwrap_or_default()) {
            let at = self.seen + found;
            if self.line == 0 && at > self.first_line_most {
                return Err(HeadError::TargetTooLong);
            }
            if at == 0 || window[at - 1] != b'\r' {
                return Err(HeadError::LineEnd);
            }
            if at == self.line + 1 {
                return Ok(Some(at + 1));
            }
            self.seen = at + 1;
            self.line = at + 1;
        }
        self.seen = window.len();
        if self.line == 0 && window.len() > self.first_line_most {
            return Err(HeadError::TargetTooLong);
        }
        if bytes.len() >= self.most { Err(HeadError::TooLarge) } else { Ok(None) }
    }
}

/// Where a body ends, as the head says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    Nothing,
    Length(u64),
    Chunked,
}

/// The fields of a head.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) headers: HeaderMap,
    pub(crate) spelling: Spelling,
    pub(crate) body: Announced,
    /// `connection: close`
    pub(crate) close: bool,
    /// `connection: keep-alive`
    pub(crate) keep_alive: bool,
    /// `expect`; false: another expectation than `100-continue`.
    pub(crate) expect: Option<bool>,
    /// `te: trailers`
    pub(crate) trailers: bool,
}

/// Turns the parser's complaint about fields or first lines into ours.
pub(crate) fn refused(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::Name,
        httparse::Error::HeaderValue => HeadError::Value,
        httparse::Error::NewLine => HeadError::LineEnd,
        httparse::Error::TooManyHeaders => HeadError::TooMany,
        httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => HeadError::FirstLine,
    }
}

/// Reads the fields; values are slices of `head`.
///
/// # Errors
/// What two readers could frame differently.
pub(crate) fn fields(parsed: &[httparse::Header<'_>], head: &Bytes) -> Result<Fields, HeadError> {
    let mut fields = Fields {
        headers: HeaderMap::with_capacity(parsed.len() + SPARE),
        spelling: Spelling::default(),
        body: Announced::Nothing,
        close: false,
        keep_alive: false,
        expect: None,
        trailers: false,
    };
    let (mut length, mut chunked) = (None, false);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Name)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| HeadError::Value)?;
        if name == CONTENT_LENGTH {
            if length.is_some() {
                return Err(HeadError::ContentLength);
            }
            length = Some(content_length(value.as_bytes()).ok_or(HeadError::ContentLength)?);
        } else if name == TRANSFER_ENCODING {
            if chunked {
                return Err(HeadError::TransferEncoding);
            }
            transfer_encoding(value.as_bytes())?;
            chunked = true;
        } else if name == CONNECTION {
            for token in tokens(value.as_bytes()) {
                fields.close |= token.eq_ignore_ascii_case(b"close");
                fields.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == EXPECT {
            let known = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            fields.expect = Some(known && fields.expect.unwrap_or(true));
        } else if name == TE {
            fields.trailers |= tokens(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers"));
        }
        fields.spelling.note(&name, field.name.as_bytes());
        if fields.headers.try_append(name, value).is_err() {
            return Err(HeadError::TooMany);
        }
    }
    fields.body = match (length, chunked) {
        (Some(_), true) => return Err(HeadError::TwoLengths),
        (Some(length), false) => Announced::Length(length),
        (None, true) => Announced::Chunked,
        (None, false) => Announced::Nothing,
    };
    Ok(fields)
}

/// Room for what the proxy adds to a head.
const SPARE: usize = 8;

/// Digits and nothing else (RFC 9112, 6.3: a list of equal numbers may be refused, and is).
fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Exactly `chunked`: every other list could be read in two ways, or not at all.
fn transfer_encoding(text: &[u8]) -> Result<(), HeadError> {
    if text.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let one = !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    Err(if one { HeadError::TransferCoding } else { HeadError::TransferEncoding })
}

/// The members of a list of tokens.
fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

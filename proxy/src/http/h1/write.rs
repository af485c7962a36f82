//! Writes heads, from the canonical head alone.
//!
//! Method, target, names and values are of types that cannot hold a line end; where a body ends is said by this file and
//! by nobody else: `content-length` and `transfer-encoding` of the map are not written.
//! Never here: bytes that a peer sent, as they came. Used by `answer`, `client`, `pump` and `wire`.

use std::io::Write;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING},
    request, response,
};

use super::spelling::Spelling;
use crate::limits::SMALL_PIECE_BYTES;

/// How a body is framed on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framed {
    /// There is none, and the head need not say so.
    Nothing,
    Length(u64),
    /// With trailers where the reader wants them.
    Chunked {
        trailers: bool,
    },
    UntilClose,
}

/// A head that cannot be written so that every reader reads the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's target cannot be written")]
pub(crate) struct Unwritable;

/// Room for a first line and for the fields that are written here, beside those of the map.
const OTHERS_BYTES: usize = 256;

/// Makes room for a head and a small body after it, so that writing them allocates once.
fn reserve(out: &mut Vec<u8>, target: &str, headers: &HeaderMap, framed: Framed) {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    let body = match framed {
        Framed::Length(length) => {
            usize::try_from(length).ok().filter(|length| *length <= SMALL_PIECE_BYTES).unwrap_or(0)
        }
        Framed::Nothing | Framed::Chunked { .. } | Framed::UntilClose => 0,
    };
    out.reserve(OTHERS_BYTES + target.len() + fields + body);
}

/// Writes one field.
pub(super) fn put_field(
    out: &mut Vec<u8>,
    name: &HeaderName,
    value: &HeaderValue,
    spelling: &Spelling,
    next: &mut usize,
) {
    spelling.put(name, next, out);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_framing(out: &mut Vec<u8>, framed: Framed) {
    match framed {
        Framed::Nothing | Framed::UntilClose => {}
        Framed::Length(length) => put_length(out, length),
        Framed::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    let written = write!(out, "content-length: {length}\r\n");
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

fn put_fields(out: &mut Vec<u8>, headers: &HeaderMap, spelling: &Spelling, skip: impl Fn(&HeaderName) -> bool) {
    let mut next = 0;
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING && !skip(name) {
            put_field(out, name, value, spelling, &mut next);
        }
    }
}

/// Writes the head of a request; `host` comes first (RFC 9110, 7.2).
///
/// # Errors
/// The target is not one word of visible characters.
pub(crate) fn request(
    out: &mut Vec<u8>,
    head: &request::Parts,
    spelling: &Spelling,
    framed: Framed,
) -> Result<(), Unwritable> {
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if !(target.starts_with('/') || target == "*") || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(Unwritable);
    }
    reserve(out, target, &head.headers, framed);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for value in head.headers.get_all(HOST) {
        put_field(out, &HOST, value, spelling, &mut 0);
    }
    put_fields(out, &head.headers, spelling, |name| name == HOST);
    put_framing(out, framed);
    // Some servers answer 411 to these without a length.
    let without = framed == Framed::Nothing
        && (matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
            || head.headers.contains_key(CONTENT_LENGTH));
    if without {
        put_length(out, 0);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// What a reply says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persists {
    /// It goes on, which HTTP/1.1 need not say.
    Yes,
    /// It goes on, which HTTP/1.0 must be told.
    Said,
    No,
    /// It changes to another protocol; the head's own words say to which.
    Changes,
}

/// What the head of a reply says that is not in its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) framed: Framed,
    /// The length of a body that is not sent because of the method or the status.
    pub(crate) unsent: Option<u64>,
    pub(crate) persists: Persists,
}

/// Writes the head of a reply; the date is for one that has none.
pub(crate) fn response(out: &mut Vec<u8>, head: &response::Parts, spelling: &Spelling, form: Form, date: &[u8]) {
    reserve(out, "", &head.headers, form.framed);
    put_status(out, head.status);
    let own_words = form.persists == Persists::Changes;
    put_fields(out, &head.headers, spelling, |name| name == CONNECTION && !own_words);
    if !head.headers.contains_key(DATE) {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    put_framing(out, form.framed);
    if let Some(length) = form.unsent {
        put_length(out, length);
    }
    match form.persists {
        Persists::Yes | Persists::Changes => {}
        Persists::Said => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persists::No => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn put_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an interim reply.
pub(crate) fn interim(out: &mut Vec<u8>, head: &response::Parts, spelling: &Spelling) {
    put_status(out, head.status);
    put_fields(out, &head.headers, spelling, |name| name == CONNECTION);
    out.extend_from_slice(b"\r\n");
}

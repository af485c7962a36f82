//! Reads the head of a request (RFC 9112, 2, 3 and 6).
//!
//! Given bytes, says what is asked, where the body ends and what becomes of the connection; the answer does not depend on
//! how the bytes were split.
//! Never here: sockets, and whether the request is acceptable (`gate`). Called by `waiting`.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Uri, Version, request::Parts, uri::PathAndQuery};

use super::{
    head::{Announced, HeadError, Scan, fields, refused},
    spelling::Spelling,
};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) parts: Parts,
    pub(crate) spelling: Spelling,
    pub(crate) body: Announced,
    /// Whether the client wants the connection to go on.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects: bool,
    /// Whether the client reads trailers.
    pub(crate) trailers: bool,
}

/// Empty lines taken before a request (RFC 9112, 2.2: at least one).
const EMPTY_LINES_MAX: u8 = 4;
/// The rest of a first line: method, version, blanks and line end.
const FIRST_LINE_REST: usize = 64;

/// The oldest version that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oldest {
    Http10,
    Http11,
}

/// Reads one head.
#[derive(Debug)]
pub(crate) struct Reader {
    scan: Scan,
    empty_lines: u8,
    oldest: Oldest,
}

impl Reader {
    pub(crate) fn new(oldest: Oldest) -> Self {
        Self { scan: Scan::new(HEAD_BYTES_MAX, TARGET_BYTES_MAX + FIRST_LINE_REST), empty_lines: 0, oldest }
    }

    /// Takes a whole head from `bytes`; none: not all of it is there.
    pub(crate) fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<Request>, HeadError> {
        loop {
            match bytes.as_ref() {
                [b'\r', b'\n', ..] if self.empty_lines < EMPTY_LINES_MAX => {
                    self.empty_lines += 1;
                    bytes.advance(2);
                }
                [b'\r', b'\n', ..] => return Err(HeadError::FirstLine),
                [] | [b'\r'] => return Ok(None),
                _ => break,
            }
        }
        let Some(end) = self.scan.end(bytes)? else { return Ok(None) };
        let head = bytes.split_to(end).freeze();
        parse(&head, self.oldest).map(Some)
    }
}

fn parse(head: &Bytes, oldest: Oldest) -> Result<Request, HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut room) {
        Ok(httparse::Status::Complete(count)) if count == head.len() => {}
        Ok(_) => return Err(HeadError::FirstLine),
        Err(httparse::Error::Version) => return Err(other_version(head)),
        Err(error) => return Err(refused(error)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::FirstLine);
    };
    if version == 0 && oldest == Oldest::Http11 {
        return Err(HeadError::OldVersion);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::FirstLine)?;
    let uri = read_target(&method, target, head)?;
    let fields = fields(parsed.headers, head)?;
    // A coding that HTTP/1.0 does not know: its readers would take the chunks for the body (RFC 9112, 6.1).
    if version == 0 && fields.body == Announced::Chunked {
        return Err(HeadError::TransferEncoding);
    }
    let expects = match fields.expect {
        Some(false) => return Err(HeadError::Expect),
        Some(true) => version == 1 && !matches!(fields.body, Announced::Nothing | Announced::Length(0)),
        None => false,
    };
    let mut parts = http::Request::new(()).into_parts().0;
    // What follows a request for a tunnel is not HTTP, whether or not there will be one.
    let keep_alive = !fields.close && (version == 1 || fields.keep_alive) && method != Method::CONNECT;
    parts.method = method;
    parts.uri = uri;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = fields.headers;
    Ok(Request { parts, spelling: fields.spelling, body: fields.body, keep_alive, expects, trailers: fields.trailers })
}

/// A version that is one, but not ours, gets an answer of its own.
fn other_version(head: &[u8]) -> HeadError {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        _ => HeadError::FirstLine,
    }
}

/// The four forms of a target (RFC 9112, 3.2); a fragment, which is none of any, is cut off before anyone sees it.
fn read_target(method: &Method, target: &str, head: &Bytes) -> Result<Uri, HeadError> {
    let bytes = head.slice_ref(target.as_bytes());
    if target.len() > TARGET_BYTES_MAX {
        return Err(HeadError::TargetTooLong);
    }
    if method == Method::CONNECT {
        let uri = Uri::from_maybe_shared(bytes).map_err(|_| HeadError::Target)?;
        let only_authority = uri.scheme().is_none() && uri.path_and_query().is_none() && uri.port_u16().is_some();
        return if only_authority { Ok(uri) } else { Err(HeadError::Target) };
    }
    if target.starts_with('/') {
        return PathAndQuery::from_maybe_shared(bytes).map(Uri::from).map_err(|_| HeadError::Target);
    }
    if target == "*" {
        return if method == Method::OPTIONS { Ok(Uri::from_static("*")) } else { Err(HeadError::Target) };
    }
    let uri = Uri::from_maybe_shared(bytes).map_err(|_| HeadError::Target)?;
    let http = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
    if http && uri.authority().is_some() { Ok(uri) } else { Err(HeadError::Target) }
}

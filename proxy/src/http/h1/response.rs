//! Reads the head of a reply (RFC 9112, 4 and 6.3).
//!
//! Given bytes and what was asked, says what was replied, where the body ends and whether the connection goes on.
//! Never here: sockets. Called by `client`.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version, response::Parts};

use super::{
    framing::Framing,
    head::{Announced, HeadError, Scan, fields, refused},
    spelling::Spelling,
};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// A reply without its body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) parts: Parts,
    pub(crate) spelling: Spelling,
    pub(crate) framing: Framing,
    /// Whether the upstream wants the connection to go on.
    pub(crate) keep_alive: bool,
}

/// What of a request its reply is read by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// HEAD: no body, whatever the head says.
    pub(crate) bodiless: bool,
    /// Whether 101 was asked for.
    pub(crate) upgrade: bool,
}

/// Reads one head.
#[derive(Debug)]
pub(crate) struct Reader {
    scan: Scan,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { scan: Scan::new(HEAD_BYTES_MAX, HEAD_BYTES_MAX) }
    }

    /// Takes a whole head from `bytes`; none: not all of it is there.
    pub(crate) fn read(&mut self, bytes: &mut BytesMut, expected: Expected) -> Result<Option<Response>, HeadError> {
        let Some(end) = self.scan.end(bytes)? else { return Ok(None) };
        let head = bytes.split_to(end).freeze();
        parse(&head, expected).map(Some)
    }
}

fn parse(head: &Bytes, expected: Expected) -> Result<Response, HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut room) {
        Ok(httparse::Status::Complete(count)) if count == head.len() => {}
        Ok(_) => return Err(HeadError::FirstLine),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(error) => return Err(refused(error)),
    }
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else { return Err(HeadError::FirstLine) };
    let status = StatusCode::from_u16(code).ok().filter(|_| code < 600).ok_or(HeadError::FirstLine)?;
    if status == StatusCode::SWITCHING_PROTOCOLS && !expected.upgrade {
        return Err(HeadError::FirstLine);
    }
    let fields = fields(parsed.headers, head)?;
    if version == 0 && fields.body == Announced::Chunked {
        return Err(HeadError::TransferEncoding);
    }
    let empty = expected.bodiless
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match fields.body {
        _ if empty => Framing::Length(0),
        Announced::Length(length) => Framing::Length(length),
        Announced::Chunked => Framing::Chunked,
        Announced::Nothing => Framing::UntilClose,
    };
    let keep_alive = !fields.close && (version == 1 || fields.keep_alive) && framing != Framing::UntilClose;
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = fields.headers;
    Ok(Response { parts, spelling: fields.spelling, framing, keep_alive })
}

//! The canonical head of a request: read once, strictly, and then the only thing anyone looks at.
//!
//! Router, authorization, log and upstream writer all see the same method, host, path and headers, so that no two of them
//! can disagree about what was asked. Borrowed from the request; memory is taken only where the text had to change.
//! Never here: framing (the codec's), or what the answer to a bad head is. Made by the proxy, `meshctl why` and tests.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{HeaderMap, HeaderValue, Method};

use crate::spec::PathNormalization;

/// Longest authority that is read, in bytes: a full DNS name and a port.
pub const AUTHORITY_BYTES_MAX: usize = 253 + 1 + 5;

/// Why a head is refused; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A method that is in no registry, or not in capitals.
    #[error("the method is not known")]
    Method,
    /// No `host` and no `:authority`, or an empty one.
    #[error("the request names no host")]
    NoAuthority,
    /// Not a host, or longer than one can be.
    #[error("the host is not a DNS name or an address")]
    Authority,
    /// A port that is not 1 to 65535.
    #[error("the port of the host is not 1 to 65535")]
    Port,
    /// Not `http` or `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// Neither starts with `/` nor is the `*` of OPTIONS.
    #[error("the path does not start with a slash")]
    Path,
    /// A control character, a space, or NUL as it is or as an escape.
    #[error("the path holds a character that no path may hold")]
    PathCharacter,
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Reads a scheme in any case.
    ///
    /// # Errors
    /// Not one of the two.
    pub fn read(raw: &str) -> Result<Self, HeadError> {
        if raw.eq_ignore_ascii_case("http") {
            Ok(Self::Http)
        } else if raw.eq_ignore_ascii_case("https") {
            Ok(Self::Https)
        } else {
            Err(HeadError::Scheme)
        }
    }
}

/// What a request asks for, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Scheme.
    pub scheme: Scheme,
    /// `:authority`, or the host of an absolute target, or the `host` header: exactly one of them, chosen by the codec.
    pub authority: &'a str,
    /// Path with query, without scheme and host.
    pub path: &'a str,
}

/// The canonical head of a request.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    method: &'a Method,
    scheme: Scheme,
    authority: Cow<'a, str>,
    host_len: usize,
    port: Option<u16>,
    path: Cow<'a, str>,
    raw_path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// Reads a head.
    ///
    /// # Errors
    /// What two programs could read differently is refused.
    pub fn read(
        method: &'a Method,
        target: Target<'a>,
        headers: &'a HeaderMap,
        normalize: PathNormalization,
    ) -> Result<Self, HeadError> {
        if !METHODS.contains(&method.as_str()) {
            return Err(HeadError::Method);
        }
        let (authority, host_len, port) = authority(target.authority)?;
        let raw = target.path.split_once('#').map_or(target.path, |(before, _)| before);
        let (raw_path, query) = match raw.split_once('?') {
            None => (raw, None),
            Some((path, query)) => (path, Some(query)),
        };
        if !(raw_path.starts_with('/') || (raw_path == "*" && *method == Method::OPTIONS)) {
            return Err(HeadError::Path);
        }
        if raw.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(HeadError::PathCharacter);
        }
        let path = normal_path(raw_path, normalize)?;
        Ok(Self { method, scheme: target.scheme, authority, host_len, port, path, raw_path, query, headers })
    }

    /// The method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port, lower case, without the dot at the host's end.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, lower case, without the dot at its end; IPv6 addresses in brackets.
    pub fn host(&self) -> &str {
        self.authority.get(..self.host_len).unwrap_or_default()
    }

    /// The port, where the request names one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The normalised path, without the query: what is matched, authorized, logged and sent on.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path as it came, without query and fragment.
    pub fn raw_path(&self) -> &'a str {
        self.raw_path
    }

    /// The query, without the question mark.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The value of a header, or of `:method`, `:authority`, `:scheme`, `:path` (with query); several lines of one name
    /// read as one, joined by commas.
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match name {
            ":method" => Some(Cow::Borrowed(self.method.as_str().as_bytes())),
            ":authority" | "host" => Some(Cow::Borrowed(self.authority.as_bytes())),
            ":scheme" => Some(Cow::Borrowed(self.scheme.as_str().as_bytes())),
            ":path" => Some(match self.query {
                None => Cow::Borrowed(self.path.as_bytes()),
                Some(query) => Cow::Owned([self.path.as_bytes(), b"?", query.as_bytes()].concat()),
            }),
            _ => {
                let mut lines = self.headers.get_all(name).iter();
                let first = lines.next()?;
                let Some(second) = lines.next() else { return Some(Cow::Borrowed(first.as_bytes())) };
                let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).map(HeaderValue::as_bytes).collect();
                // HTTP/2 may cut a cookie into crumbs (RFC 9113, 8.2.3).
                let between: &[u8] = if name == "cookie" { b"; " } else { b"," };
                Some(Cow::Owned(all.join(between)))
            }
        }
    }

    /// The first value of a query parameter, as it came: escapes are not decoded.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}

/// The methods of the HTTP registry (RFC 9110, 16.1.1), and those that were common before it. What is none of them is a
/// typing error, or a request that was smuggled in behind another one.
const METHODS: &[&str] = &[
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "QUERY",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "M-SEARCH",
    "NOTIFY",
    "PURGE",
    "SOURCE",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
];

/// Checks an authority; gives it in canonical form, with the length of its host and its port.
fn authority(raw: &str) -> Result<(Cow<'_, str>, usize, Option<u16>), HeadError> {
    if raw.is_empty() {
        return Err(HeadError::NoAuthority);
    }
    if raw.len() > AUTHORITY_BYTES_MAX {
        return Err(HeadError::Authority);
    }
    let (host, port) = if let Some(rest) = raw.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(HeadError::Authority)?;
        address.parse::<Ipv6Addr>().map_err(|_| HeadError::Authority)?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err(HeadError::Authority),
        };
        (raw.get(..address.len() + 2).ok_or(HeadError::Authority)?, port)
    } else {
        match raw.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (raw, None),
        }
    };
    let number = match port {
        None => None,
        Some(text) if text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(text.parse::<u16>().ok().filter(|port| *port != 0).ok_or(HeadError::Port)?)
        }
        Some(_) => return Err(HeadError::Port),
    };
    let bare = host.strip_suffix('.').unwrap_or(host);
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if bare.is_empty() || bare.len() > 253 || !(host.starts_with('[') || bare.bytes().all(known)) {
        return Err(HeadError::Authority);
    }
    if bare.len() == host.len() && !raw.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok((Cow::Borrowed(raw), bare.len(), number));
    }
    let mut text = bare.to_ascii_lowercase();
    if let Some(port) = port {
        text.push(':');
        text.push_str(port);
    }
    Ok((Cow::Owned(text), bare.len(), number))
}

/// Applies a path normalization, and refuses NUL in any disguise.
fn normal_path(raw: &str, mode: PathNormalization) -> Result<Cow<'_, str>, HeadError> {
    if raw.contains("%00") {
        return Err(HeadError::PathCharacter);
    }
    let merge = matches!(mode, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    let bytes = raw.as_bytes();
    let clean = mode == PathNormalization::None
        || !bytes.iter().any(|b| matches!(b, b'%' | b'\\'))
            && !bytes.windows(2).any(|pair| pair == b"/." || (merge && pair == b"//"));
    if clean {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = unescape(raw, mode == PathNormalization::DecodeAndMergeSlashes);
    Ok(Cow::Owned(without_dots(&decoded, merge)))
}

/// Decodes the escapes of unreserved characters (and of both slashes, where asked), turns backslashes into slashes.
/// What an escape stands for is never decoded a second time.
fn unescape(raw: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['%', '\\']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let byte = from.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (taken, put) = match byte {
            _ if from.starts_with('\\') => (1, Some('/')),
            Some(b) if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => (3, Some(char::from(b))),
            Some(b'/' | b'\\') if slashes => (3, Some('/')),
            _ => (1, None),
        };
        out.push(put.unwrap_or('%'));
        rest = from.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Removes dot segments (RFC 3986, 5.2.4), those with parameters (`..;x`) among them, and empty segments where asked.
fn without_dots(path: &str, merge: bool) -> String {
    let mut kept: Vec<&str> = Vec::with_capacity(16);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    let mut ends_open = false;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let name = segment.split_once(';').map_or(segment, |(name, _)| name);
        match name {
            "." => ends_open = last,
            ".." => {
                kept.pop();
                ends_open = last;
            }
            _ if segment.is_empty() && merge && !last => {}
            _ if segment.is_empty() && last => ends_open = true,
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_open || kept.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests;

//! Reads a request's head strictly, and takes away what must not pass.
//!
//! What two programs could read differently is refused here, before anything decides; hop-by-hop headers end here; what
//! clients may not claim is removed at the edge.
//! Never here: policy. Called first by `http::handle`.

pub(crate) mod ids;
pub(crate) mod refusal;
mod trust;

use std::rc::Rc;

use api::{
    head::{Head, Scheme, Target},
    spec::HttpServer,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

use super::{
    Conn,
    failure::Failure,
    headers::{KEEP_ALIVE, PROXY_CONNECTION},
};
use crate::{
    access::{Asked as Kept, Record, line},
    limits::{HEAD_BYTES_MAX, HEADERS_MAX, HEADS_BYTES_MAX, TARGET_BYTES_MAX},
    metrics::Protocol,
    overload::Step,
};
use refusal::Refusal;

/// Counts the bytes of a head for as long as its request is under way.
#[derive(Debug)]
pub(crate) struct Weight {
    conn: Rc<Conn>,
    bytes: usize,
}

impl Weight {
    /// Compression lets a peer name a large head with a few bytes, and HTTP/2 lets it do so a thousand times at once.
    fn take(conn: &Rc<Conn>, bytes: usize) -> Result<Self, Refusal> {
        let sum = conn.heads.get() + bytes;
        // A member's connection carries many clients' requests, each of which has passed a gate.
        if sum > HEADS_BYTES_MAX && conn.downstream.principal.is_none() {
            return Err(Refusal::HeadTooLarge);
        }
        conn.heads.set(sum);
        Ok(Self { conn: Rc::clone(conn), bytes })
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.conn.heads.set(self.conn.heads.get() - self.bytes);
    }
}

/// What the steps need to know of a request besides its head.
#[derive(Debug)]
pub(crate) struct Asked {
    _weight: Weight,
    /// The protocol the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether asking twice does no harm (RFC 9110, 9.2.2).
    pub(crate) idempotent: bool,
}

/// Whether it is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// Checks and cleans a request's head; from here on it is what everyone sees.
pub(super) fn admit(
    conn: &Rc<Conn>,
    server: &HttpServer,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<Asked, Failure> {
    let admitted = if conn.worker.shared.overload.step() >= Step::Refusing {
        conn.worker.shared.stats.requests_shed.add(1);
        Err(Refusal::Overload.into())
    } else {
        check(conn, server, parts)
    };
    if admitted.is_err() {
        // The line that says why is the only trace of it.
        keep_for_log(parts, record);
    }
    let (upgrade, weight) = admitted?;
    trust::clean(conn, server, &mut parts.headers, record);
    if is_grpc(&parts.headers) {
        record.protocol = Protocol::Grpc;
    }
    keep_for_log(parts, record);
    let idempotent = parts.method.is_idempotent() && upgrade.is_none();
    Ok(Asked { _weight: weight, upgrade, idempotent })
}

/// What any two programs could read differently is refused; gives the upgrade that is wanted and offered.
fn check(conn: &Rc<Conn>, server: &HttpServer, parts: &mut Parts) -> Result<(Option<HeaderValue>, Weight), Failure> {
    if parts.version < Version::HTTP_11 && !server.http10 {
        return Err(Refusal::Version.into());
    }
    if parts.method == Method::CONNECT {
        return Err(Refusal::Tunnel.into());
    }
    target(parts)?;
    let framed = parts.version == Version::HTTP_2 || conn.downstream.ridden;
    let weight = Weight::take(conn, fields(server, parts, framed)?)?;
    one_authority(conn, parts)?;
    expectation(&mut parts.headers)?;
    Ok((hop_by_hop(server, parts)?, weight))
}

/// The target is a path, with scheme and host where the protocol or an absolute form has them.
fn target(parts: &Parts) -> Result<(), Failure> {
    let path = parts.uri.path_and_query();
    if path.is_some_and(|path| path.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Refusal::TargetTooLong.into());
    }
    match parts.uri.scheme_str() {
        Some(scheme) => Scheme::read(scheme).map(drop).map_err(Failure::from),
        // A host alone, which only CONNECT may ask for.
        None if parts.uri.authority().is_some() && parts.version != Version::HTTP_2 => Err(Refusal::Target.into()),
        None => Ok(()),
    }
}

/// Counts header lines, and makes values that came in HTTP/2's frames what HTTP/1 would make them; gives the bytes of the
/// head.
fn fields(server: &HttpServer, parts: &mut Parts, framed: bool) -> Result<usize, Failure> {
    let headers = &mut parts.headers;
    if headers.len() > HEADERS_MAX {
        return Err(Refusal::HeadTooLarge.into());
    }
    let mut bytes = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    for (name, value) in headers.iter_mut() {
        bytes += name.as_str().len() + value.len() + ": \r\n".len();
        if server.edge {
            trust::twin(name)?;
        }
        if framed {
            trim(value);
        }
    }
    if bytes > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge.into());
    }
    // Two equal ones are one too many: the next program may add them up.
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::Length.into());
    }
    Ok(bytes)
}

/// Blanks around a value are no part of it (RFC 9110, 5.5); HTTP/2's codec leaves them.
fn trim(value: &mut HeaderValue) {
    let bytes = value.as_bytes();
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if (blank(bytes.first()) || blank(bytes.last()))
        && let Ok(trimmed) = HeaderValue::from_bytes(bytes.trim_ascii())
    {
        *value = trimmed;
    }
}

/// Only `100-continue` may be expected; the codec answers it.
fn expectation(headers: &mut HeaderMap) -> Result<(), Failure> {
    match headers.remove(EXPECT) {
        Some(other) if !other.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Refusal::Expectation.into()),
        Some(_) | None => Ok(()),
    }
}

/// Makes `host` the one place where the authority is, whichever way it came.
fn one_authority(conn: &Conn, parts: &mut Parts) -> Result<(), Failure> {
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Refusal::Hosts.into());
    }
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    match parts.headers.get(HOST) {
        Some(host) if same(host) => return Ok(()),
        // HTTP/2's `:authority` must not differ from `host` (RFC 9113, 8.3.1); an absolute target replaces it.
        Some(_) if parts.version == Version::HTTP_2 => return Err(Refusal::Hosts.into()),
        Some(_) | None => {}
    }
    let value = conn.host.value(authority.as_str()).ok_or(Refusal::Host)?;
    parts.headers.insert(HOST, value);
    Ok(())
}

/// Takes `connection` out, all of its lines as one (RFC 9110, 5.3).
fn one_line(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Failure> {
    if headers.get_all(CONNECTION).iter().nth(1).is_none() {
        return Ok(headers.remove(CONNECTION));
    }
    let lines: Vec<&[u8]> = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&lines.join(&b","[..])).map_err(|_| Refusal::Connection)?;
    headers.remove(CONNECTION);
    Ok(Some(joined))
}

/// Removes what concerns this connection alone; gives the upgrade that is wanted and offered.
fn hop_by_hop(server: &HttpServer, parts: &mut Parts) -> Result<Option<HeaderValue>, Failure> {
    let headers = &mut parts.headers;
    let named = one_line(headers)?;
    let mut upgrading = false;
    if let Some(named) = &named {
        let text = named.to_str().map_err(|_| Refusal::Connection)?;
        for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case("upgrade") {
                upgrading = true;
            } else if !token.eq_ignore_ascii_case("close")
                && !token.eq_ignore_ascii_case("keep-alive")
                && let Ok(name) = HeaderName::from_bytes(token.as_bytes())
                // Naming what the mesh itself relies on would take it away before anyone looked.
                && name != HOST
                && !name.as_str().starts_with("x-")
                && name != http::header::AUTHORIZATION
                && name != CONTENT_LENGTH
                && name != http::header::COOKIE
            {
                headers.remove(name);
            }
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if headers.get_all(TE).iter().any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
    let wanted = headers.remove(UPGRADE).filter(|_| upgrading && parts.version == Version::HTTP_11);
    match wanted {
        // `h2c` is not offered: the client goes on with HTTP/1.1, as RFC 9110, 7.8 allows.
        Some(protocol) if protocol.as_bytes().eq_ignore_ascii_case(b"h2c") => Ok(None),
        Some(_) if !server.upgrades => Err(Failure::NotOffered),
        other => Ok(other),
    }
}

fn keep_for_log(parts: &Parts, record: &mut Record) {
    let Some(log) = &record.log else { return };
    let headers = log.asked.iter().map(|wanted| line::keep(wanted, &parts.headers)).collect();
    record.asked = Some(Box::new(Kept {
        method: parts.method.clone(),
        path: parts.uri.path_and_query().cloned(),
        original_path: None,
        authority: parts.headers.get(HOST).cloned(),
        https: record.downstream.tls,
        headers,
    }));
}

/// The canonical head.
pub(super) fn head<'p>(parts: &'p Parts, conn: &Conn, server: &HttpServer) -> Result<Head<'p>, Failure> {
    let authority = parts.headers.get(HOST).map(HeaderValue::to_str);
    let authority = match authority {
        Some(Ok(authority)) => authority,
        Some(Err(_)) => return Err(Refusal::Host.into()),
        None => "",
    };
    let scheme = if conn.downstream.tls { Scheme::Https } else { Scheme::Http };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let target = Target { scheme, authority, path };
    Ok(Head::read(&parts.method, target, &parts.headers, server.normalize)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let check = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            is_grpc(&headers)
        };
        assert!(check("application/grpc") && check("application/grpc+proto") && check("application/grpc;x=y"));
        assert!(!check("application/grpc-web") && !check("application/json"));
    }
}

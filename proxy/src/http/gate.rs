//! Reads a request's head strictly, and takes away what must not pass.
//!
//! What two programs could read differently is refused here, before anything decides; hop-by-hop headers end here; what
//! clients may not claim is removed at the edge.
//! Never here: policy. Called first by `http::handle`.

use api::{
    head::{Head, Scheme, Target},
    spec::{ClientCertHeader, Direction, HttpServer},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

use super::{
    Conn,
    headers::{
        ATTEMPT_COUNT, CLIENT_CERT, EDGE_ONLY, EXTERNAL_ADDRESS, FORWARDED_FOR, FORWARDED_PROTO, INTERNAL, KEEP_ALIVE,
        NOT_DELIVERED, PROXY_CONNECTION, REQUEST_ID,
    },
    reply::Failure,
};
use crate::{
    access::{Asked as Kept, Record, line},
    metrics::{PartyId, Protocol},
    peers,
};

/// What the steps need to know of a request besides its head.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) version: Version,
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
    conn: &Conn,
    server: &HttpServer,
    parts: &mut Parts,
    record: &mut Record,
) -> Result<Asked, Failure> {
    let worker = &conn.worker;
    if parts.method == Method::CONNECT {
        return Err(Failure::NotOffered);
    }
    one_authority(parts)?;
    let upgrade = hop_by_hop(server, parts)?;
    let headers = &mut parts.headers;
    headers.remove(NOT_DELIVERED);
    if conn.direction == Direction::Inbound {
        let principal = conn.downstream.principal.as_ref();
        record.source = worker.peers.read(headers, principal, worker.shard.metrics());
    } else {
        headers.remove(peers::METADATA);
        headers.remove(peers::METADATA_ID);
    }
    if record.source == PartyId::default() && conn.direction != Direction::Inbound {
        record.source = worker.shared.own.party;
    }
    if server.edge {
        for name in &EDGE_ONLY {
            headers.remove(name);
        }
        from_outside(conn, headers);
    }
    let proto = if conn.downstream.tls { "https" } else { "http" };
    if server.edge || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    client_cert(conn, server, headers);
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, request_id(worker.roll(), worker.roll()));
    }
    headers.remove(ATTEMPT_COUNT);
    if is_grpc(headers) {
        record.protocol = Protocol::Grpc;
    }
    keep_for_log(parts, record);
    let idempotent = parts.method.is_idempotent() && upgrade.is_none();
    Ok(Asked { version: parts.version, upgrade, idempotent })
}

/// Makes `host` the one place where the authority is, whichever way it came.
fn one_authority(parts: &mut Parts) -> Result<(), Failure> {
    let bad = Failure::BadRequest("the request names more than one host");
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(bad);
    }
    if let Some(authority) = parts.uri.authority() {
        // HTTP/2's `:authority` must not differ from `host` (RFC 9113, 8.3.1); an absolute target replaces it.
        if parts.version == Version::HTTP_2
            && parts
                .headers
                .get(HOST)
                .is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()))
        {
            return Err(bad);
        }
        if parts.headers.get(HOST).is_none_or(|host| host.as_bytes() != authority.as_str().as_bytes()) {
            let value = HeaderValue::from_str(authority.as_str())
                .map_err(|_| Failure::BadRequest("the host is not a DNS name or an address"))?;
            parts.headers.insert(HOST, value);
        }
    }
    Ok(())
}

/// Removes what concerns this connection alone; gives the upgrade that is wanted and offered.
fn hop_by_hop(server: &HttpServer, parts: &mut Parts) -> Result<Option<HeaderValue>, Failure> {
    let headers = &mut parts.headers;
    let named = headers.remove(CONNECTION);
    let mut upgrading = false;
    if let Some(named) = &named {
        let text = named.to_str().map_err(|_| Failure::BadRequest("the connection header is no text"))?;
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
                && name != http::header::CONTENT_LENGTH
            {
                headers.remove(name);
            }
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(EXPECT);
    if headers.get(TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
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

/// At the edge the peer's address is the client's.
fn from_outside(conn: &Conn, headers: &mut HeaderMap) {
    let address = conn.downstream.remote.ip();
    let Ok(text) = HeaderValue::from_str(&address.to_string()) else { return };
    let before = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let chain = before.and_then(|before| HeaderValue::from_str(&format!("{before},{address}")).ok());
    headers.insert(FORWARDED_FOR, chain.unwrap_or_else(|| text.clone()));
    let internal = match address {
        std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    };
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else {
        headers.insert(EXTERNAL_ADDRESS, text);
    }
}

fn client_cert(conn: &Conn, server: &HttpServer, headers: &mut HeaderMap) {
    let own = conn.downstream.client_cert.as_ref();
    match (server.client_cert, own) {
        (ClientCertHeader::Forward, _) | (ClientCertHeader::AppendForward, None) => {}
        (ClientCertHeader::Sanitize, _) | (ClientCertHeader::SanitizeSet, None) => {
            headers.remove(CLIENT_CERT);
        }
        (ClientCertHeader::SanitizeSet, Some(own)) => {
            headers.insert(CLIENT_CERT, own.clone());
        }
        (ClientCertHeader::AppendForward, Some(own)) => {
            let joined = headers
                .get(CLIENT_CERT)
                .and_then(|before| HeaderValue::from_bytes(&[before.as_bytes(), b",", own.as_bytes()].concat()).ok());
            headers.insert(CLIENT_CERT, joined.unwrap_or_else(|| own.clone()));
        }
    }
}

/// A random UUID (version 4).
fn request_id(high: u64, low: u64) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut nibble = 32;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            nibble -= 1;
            *byte = HEX[usize::try_from(bits >> (nibble * 4) & 0xf).unwrap_or(0)];
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("00000000-0000-4000-8000-000000000000"))
}

fn keep_for_log(parts: &Parts, record: &mut Record) {
    let Some(log) = &record.log else { return };
    let headers = log.format.request_headers().map(|wanted| line::keep(wanted, &parts.headers)).collect();
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
        Some(Err(_)) => return Err(Failure::BadRequest("the host is not a DNS name or an address")),
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
    fn a_request_id_is_a_version_4_uuid() {
        let id = request_id(u64::MAX, 0);
        assert_eq!(id.to_str().unwrap(), "ffffffff-ffff-4fff-8000-000000000000");
        assert_eq!(request_id(0, u64::MAX).to_str().unwrap(), "00000000-0000-4000-bfff-ffffffffffff");
    }

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

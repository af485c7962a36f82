//! What a client may say of itself: headers that the mesh sets are taken from those who may not set them.
//!
//! At the edge nobody may; inside, only a proven member of the mesh speaks for what its own proxy did.
//! Never here: hop-by-hop headers, or refusing for any other reason. Called by `gate::admit`.

use std::{net::IpAddr, rc::Rc};

use api::spec::{ClientCertHeader, Direction, HttpServer};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    super::{
        Conn,
        headers::{
            ATTEMPT_COUNT, CLIENT_CERT, EDGE_ONLY, EXTERNAL_ADDRESS, FORWARDED_FOR, FORWARDED_PROTO, INTERNAL,
            NOT_DELIVERED, ORIGINAL_PATH, REQUEST_ID,
        },
        ride,
    },
    refusal::Refusal,
};
use crate::{access::Record, metrics::PartyId, peers, worker::Worker};

/// Takes away what the client may not say, and says what is true.
pub(super) fn clean(conn: &Conn, server: &HttpServer, headers: &mut HeaderMap, record: &mut Record) {
    let worker: &Rc<Worker> = &conn.worker;
    headers.remove(NOT_DELIVERED);
    headers.remove(ATTEMPT_COUNT);
    ride::strip(headers);
    let principal = conn.downstream.principal.as_ref();
    if conn.direction == Direction::Inbound {
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
    } else if conn.direction != Direction::Inbound || principal.is_none() {
        // Only another proxy knows which path was there before a rewrite.
        headers.remove(ORIGINAL_PATH);
    }
    let proto = if conn.downstream.tls { "https" } else { "http" };
    if server.edge || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    client_cert(conn, server, headers);
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, worker.ids.write(worker.roll(), worker.roll()));
    }
}

/// Whether a name with underscores is, to an application that takes them for dashes, one that the mesh or HTTP relies on.
pub(super) fn twin(name: &HeaderName) -> Result<(), Refusal> {
    let text = name.as_str();
    if !text.contains('_') {
        return Ok(());
    }
    let dashed = text.replace('_', "-");
    let relied_on =
        ["x-forwarded-", "x-envoy-", "x-request-id", "x-b3-", "x-real-ip", "transfer-encoding", "content-length"];
    if relied_on.iter().any(|start| dashed.starts_with(start)) { Err(Refusal::Twin) } else { Ok(()) }
}

/// At the edge the peer's address is the client's.
fn from_outside(conn: &Conn, headers: &mut HeaderMap) {
    let address = conn.downstream.remote.ip();
    let Ok(text) = HeaderValue::from_str(&address.to_string()) else { return };
    // All lines count: an application may read any of them.
    let mut chain: Vec<u8> = Vec::new();
    for line in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.push(b',');
    }
    chain.extend_from_slice(text.as_bytes());
    headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(&chain).unwrap_or_else(|_| text.clone()));
    let internal = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_told_by_what_they_pass_for() {
        let check = |name: &'static str| twin(&HeaderName::from_static(name)).is_ok();
        assert!(check("x-api-key") && check("x_api_key") && check("my_header"));
        assert!(!check("x_forwarded_client_cert") && !check("x-forwarded_for") && !check("content_length"));
    }
}

//! The sandbox's name server: UDP and TCP on one address inside.
//!
//! Puts answers of `names` on the wire; names of the outside do not exist here. Never here: which names exist.
//! Run by `node`.

use std::io;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names::{Found, Names};
use crate::limits::{ALIASES_MAX, DATAGRAM_BYTES_MAX, DNS_CONNECTIONS_MAX, DNS_IDLE_TIMEOUT, PLAIN_DATAGRAM_BYTES_MAX};

const TTL_SECONDS: u32 = 5;
/// After `accept` fails (no file descriptors).
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The answer to a query as it came; `None` where it cannot be answered at all.
pub(crate) fn answer(names: &Names, query: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    match query.queries.first() {
        Some(question) if query.metadata.op_code == OpCode::Query && query.queries.len() == 1 => {
            let (records, code) = records(names, question.name(), question.query_type());
            reply.metadata.response_code = code;
            reply.metadata.authoritative = true;
            reply.add_answers(records);
        }
        _ => reply.metadata.response_code = ResponseCode::NotImp,
    }
    // Connections give the whole message its room; a datagram without EDNS has the old limit.
    let old = query.edns.is_none() && bytes_max == DATAGRAM_BYTES_MAX;
    let room = if old { PLAIN_DATAGRAM_BYTES_MAX } else { bytes_max };
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= room { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

fn records(names: &Names, asked: &Name, kind: RecordType) -> (Vec<Record>, ResponseCode) {
    let mut records = Vec::new();
    let mut name = asked.clone();
    for _ in 0..ALIASES_MAX {
        let text = name.to_ascii();
        let plain = text.trim_end_matches('.').to_ascii_lowercase();
        let put = |data: RData| Record::from_rdata(name.clone(), TTL_SECONDS, data);
        match names.find(&plain) {
            Some(Found::Alias(target)) => {
                let Ok(target) = Name::from_ascii(format!("{target}.")) else {
                    return (records, ResponseCode::ServFail);
                };
                records.push(put(RData::CNAME(CNAME(target.clone()))));
                if kind == RecordType::CNAME || !Names::ours(target.to_ascii().trim_end_matches('.')) {
                    return (records, ResponseCode::NoError);
                }
                name = target;
                continue;
            }
            Some(Found::Addresses(addresses)) if kind == RecordType::A || kind == RecordType::ANY => {
                records.extend(addresses.into_iter().map(|address| put(RData::A(A(address)))));
            }
            Some(Found::Ports(ports)) if kind == RecordType::SRV || kind == RecordType::ANY => {
                let ports = ports.into_iter().filter_map(|(port, host)| {
                    Some(put(RData::SRV(SRV::new(0, 100, port, Name::from_ascii(format!("{host}.")).ok()?))))
                });
                records.extend(ports);
            }
            Some(Found::Pointer(host)) if kind == RecordType::PTR || kind == RecordType::ANY => {
                if let Ok(host) = Name::from_ascii(format!("{host}.")) {
                    records.push(put(RData::PTR(PTR(host))));
                }
            }
            Some(_) => {}
            None if records.is_empty() => return (records, ResponseCode::NXDomain),
            None => {}
        }
        return (records, ResponseCode::NoError);
    }
    (records, ResponseCode::ServFail)
}

/// Answers datagrams until told to stop.
pub(crate) async fn serve_datagrams(
    socket: UdpSocket,
    names: watch::Receiver<Arc<Names>>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, peer) = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => { tracing::debug!(%error, "DNS datagram"); continue }
            },
        };
        let now = Arc::clone(&names.borrow());
        if let Some(reply) = answer(&now, buffer.get(..length).unwrap_or_default(), DATAGRAM_BYTES_MAX)
            && let Err(error) = socket.send_to(&reply, peer).await
        {
            tracing::debug!(%error, %peer, "DNS answer");
        }
    }
}

/// Answers connections until told to stop.
pub(crate) async fn serve_connections(
    listener: TcpListener,
    names: watch::Receiver<Arc<Names>>,
    stop: CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(DNS_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let names = names.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve_one(stream, names).await {
                            tracing::debug!(%error, "DNS connection");
                        }
                        drop(place);
                    });
                },
                Err(error) => {
                    tracing::debug!(%error, "DNS connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Ends when the client does, or takes longer than it may for a question.
async fn serve_one(mut stream: TcpStream, names: watch::Receiver<Arc<Names>>) -> io::Result<()> {
    loop {
        let query = async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await.map(|_| query)
        };
        let Ok(query) = tokio::time::timeout(DNS_IDLE_TIMEOUT, query).await else { return Ok(()) };
        let now = Arc::clone(&names.borrow());
        let Some(reply) = answer(&now, &query?, usize::from(u16::MAX)) else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let reply = [&length.to_be_bytes(), reply.as_slice()].concat();
        let Ok(written) = tokio::time::timeout(DNS_IDLE_TIMEOUT, stream.write_all(&reply)).await else { return Ok(()) };
        written?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{objects, service, slice};
    use super::*;
    use hickory_proto::op::Query;
    use serde_json::json;

    fn check(name: &str, kind: RecordType, code: ResponseCode, answers: usize) {
        let spec = json!({"clusterIP": "198.19.0.7", "ports": [{"name": "http", "port": 80}]});
        let names = Names::new(&objects(service(spec), &[slice(json!([]))]).entries());
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let reply = Message::from_vec(&answer(&names, &query.to_vec().unwrap(), 1232).unwrap()).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, answers));
    }

    #[test]
    fn a_service_is_answered() {
        check("Web.shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError, 1);
    }

    #[test]
    fn a_known_name_has_no_ipv6() {
        check("web.shop.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, 0);
    }

    #[test]
    fn the_outside_does_not_exist() {
        check("example.com.", RecordType::A, ResponseCode::NXDomain, 0);
    }
}

//! One connection, from accept to its codec: original destination, detection, chain, TLS.
//!
//! Never here: what is done with requests (`http`) or bytes (`tcp`). Spawned by `listen` for each connection.

use std::{error::Error, net::SocketAddr, rc::Rc, sync::Arc};

use api::{
    route,
    spec::{Codec, Detect, Network, PRIVATE_ALPN, Transport},
    table::{Arrival, Listener},
};
use api_rt::tls::peer_identity;
use bytes::BytesMut;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    detect::{Hello, Spoken, Verdict, judge},
    original,
    sniff::{self, Sniffed},
};
use crate::{
    access::Downstream,
    http::{Conn, View, codec},
    io::{Io, Raw, Socket},
    limits::HANDSHAKE_TIMEOUT,
    metrics::proxy::ProxyStats,
    table::{Tables, chain::Acceptor},
    tcp,
    worker::Worker,
};

/// Counts a connection for as long as it is open.
struct Open(Arc<ProxyStats>);

impl Open {
    fn begin(stats: &Arc<ProxyStats>) -> Self {
        stats.downstream_connections.up();
        stats.downstream_connections_total.add(1);
        Self(Arc::clone(stats))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.downstream_connections.down();
    }
}

/// A connection of which its first bytes have told who serves it.
struct Arrived {
    original: SocketAddr,
    /// Who the client is: the peer, or whom its PROXY header names.
    source: SocketAddr,
    sniffed: Sniffed,
    hello: Option<Hello>,
    view: View,
}

/// Serves one connection.
pub(crate) async fn serve(worker: Rc<Worker>, name: Arc<str>, mut stream: TcpStream, remote: SocketAddr) {
    let _open = Open::begin(&worker.shared.stats);
    let remote = original::unmapped(remote);
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::trace!(%remote, %error, "connection has gone");
    }
    // What is left of the table that it came to is the view: a connection that lives long must not hold an old one.
    let Some(arrived) = arrive(&worker, &name, &mut stream, remote).await else { return };
    let Arrived { original, source, sniffed, hello, view } = arrived;
    let raw = Raw::new(Socket::Tcp(stream), sniffed.early);
    let io = match &view.extra.tls {
        None => Io::plain(raw),
        Some(acceptor) => match handshake(acceptor, raw, hello.as_ref()).await {
            Ok(io) => io,
            Err(error) => {
                worker.shared.stats.handshakes_failed.add(1);
                return tracing::debug!(%remote, %original, error = &error as &dyn Error, "handshake failed");
            }
        },
    };
    let downstream = Downstream { remote: source, ..downstream(&worker, &io, remote, original, hello) };
    match &view.chain.spec().network {
        Network::Tcp(_) => tcp::serve(worker, io, downstream, original, view).await,
        Network::Http(_) => {
            if let Err(error) = requests(worker, io, downstream, original, view, &sniffed.spoken).await {
                tracing::debug!(%remote, error = &error as &dyn Error, "connection ended early");
            }
        }
    }
}

/// Reads as much of a connection as the choice of its chain needs; none: nobody serves it.
async fn arrive(worker: &Worker, name: &str, stream: &mut TcpStream, remote: SocketAddr) -> Option<Arrived> {
    let tables = worker.shared.tables.load_full();
    let listener = tables.table.listener(name)?;
    let original = original::destination(stream).ok()?;
    let Some(listener) = owner(&tables, listener, original) else {
        tracing::debug!(%remote, %original, "connection to the capture port itself closed");
        return None;
    };
    let detect = listener.detect(original);
    let mut early = BytesMut::new();
    let mut ends = None;
    if detect.proxy_header {
        match sniff::proxy_header(stream, &mut early).await {
            Ok(told) => ends = told,
            Err(reason) => {
                tracing::debug!(%remote, reason, "connection without a good PROXY header closed");
                return None;
            }
        }
    }
    let sniffed = sniff::sniff(stream, detect, early).await?;
    let hello = match &sniffed.spoken {
        Spoken::Tls(hello) => Some(hello.clone()),
        Spoken::Http1 { .. } | Spoken::Http2 | Spoken::Raw => None,
    };
    // The wait for the first bytes may have been long: a newer table decides.
    let newest = worker.shared.tables.load_full();
    let (tables, listener) = match newest.table.listener(name).and_then(|l| owner(&newest, l, original)) {
        Some(found) if newest.version != tables.version => (&newest, found),
        _ => (&tables, listener),
    };
    // Where a PROXY header tells who the client is, it is from there that the connection comes (as in Envoy).
    let source = ends.map_or(remote, |ends| original::unmapped(ends.from));
    let Some(chain) = find_chain(listener, original, source, &sniffed.spoken) else {
        tracing::debug!(%remote, %original, listener = %listener.spec.name, "no chain takes the connection");
        return None;
    };
    let Some(extra) = tables.extra(chain) else {
        tracing::debug!(%remote, chain = chain.name(), "the chain cannot serve");
        return None;
    };
    let view = View { chain: Arc::clone(chain), extra: Arc::clone(extra), current: true, tables: Arc::clone(tables) };
    Some(Arrived { original, source, sniffed, hello, view })
}

/// The listener that serves connections to this destination; none: it would lead back to us.
fn owner<'t>(tables: &'t Tables, listener: &'t Arc<Listener>, original: SocketAddr) -> Option<&'t Arc<Listener>> {
    if !listener.spec.use_original_destination {
        return Some(listener);
    }
    match tables.table.listener_for(original) {
        Some(found) => Some(found),
        None => (original.port() != listener.spec.address.port()).then_some(listener),
    }
}

fn find_chain<'l>(
    listener: &'l Arc<Listener>,
    destination: SocketAddr,
    source: SocketAddr,
    spoken: &Spoken,
) -> Option<&'l Arc<api::table::Chain>> {
    let (transport, server_name) = match spoken {
        Spoken::Tls(hello) => (Transport::Tls, hello.server_name.as_deref()),
        Spoken::Http1 { .. } | Spoken::Http2 | Spoken::Raw => (Transport::Raw, None),
    };
    let offered: Vec<&str> = match spoken {
        Spoken::Tls(hello) => hello.alpn.iter().map(String::as_str).collect(),
        Spoken::Http1 { old: true } => vec!["http/1.0"],
        Spoken::Http1 { old: false } => vec!["http/1.1"],
        Spoken::Http2 => vec!["h2c"],
        Spoken::Raw => Vec::new(),
    };
    let arrival = Arrival { destination, source: source.ip(), transport, server_name, protocols: &offered };
    route::chain(listener, &arrival)
}

async fn handshake(acceptor: &Acceptor, raw: Raw, hello: Option<&Hello>) -> std::io::Result<Io> {
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let stream = match hello {
        Some(hello) => {
            let config = Arc::clone(acceptor.config(&hello.alpn));
            let accepting = TlsAcceptor::from(config).accept(raw);
            tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await.map_err(|_| late())??
        }
        // Nothing was sniffed: the configuration is chosen from the ClientHello as rustls reads it.
        None => {
            let accepting = async {
                let start = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), raw).await?;
                let offered: Vec<String> = start
                    .client_hello()
                    .alpn()
                    .map(|names| names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
                    .unwrap_or_default();
                start.into_stream(Arc::clone(acceptor.config(&offered))).await
            };
            tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await.map_err(|_| late())??
        }
    };
    Ok(Io::secured(stream.into()))
}

fn downstream(worker: &Worker, io: &Io, remote: SocketAddr, local: SocketAddr, hello: Option<Hello>) -> Downstream {
    let session = io.tls();
    let certificates = session.and_then(rustls::CommonState::peer_certificates);
    let identity = peer_identity(certificates);
    let client_cert = certificates.and_then(|chain| chain.first()).and_then(|leaf| {
        let hash: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        let own = worker.shared.identity.certificate().get();
        let by = own.as_ref().and_then(|own| own.identity()).map(|id| format!("By={id};")).unwrap_or_default();
        let uri = identity.as_ref().map(|id| format!("URI={id}")).unwrap_or_default();
        HeaderValue::from_str(&format!("{by}Hash={hash};Subject=\"\";{uri}")).ok()
    });
    Downstream {
        remote,
        direct: remote,
        local,
        server_name: hello.and_then(|hello| hello.server_name),
        principal: identity.as_ref().map(api::name::SpiffeId::principal),
        identity,
        tls: session.is_some(),
        ridden: session.and_then(|session| session.alpn_protocol()) == Some(PRIVATE_ALPN.as_bytes()),
        client_cert,
    }
}

/// Serves requests with the codec that the connection speaks.
async fn requests(
    worker: Rc<Worker>,
    mut io: Io,
    downstream: Downstream,
    original: SocketAddr,
    view: View,
    spoken: &Spoken,
) -> Result<(), codec::ServeError> {
    let Some(server) = view.chain.http() else { return Ok(()) };
    let (wanted, idle) = (server.codec, server.idle_timeout);
    let negotiated = io.tls().and_then(|session| session.alpn_protocol()).map(|name| name.ends_with(b"h2"));
    let http2 = match (wanted, negotiated, spoken) {
        _ if downstream.ridden => true,
        (Codec::Http1, _, _) => false,
        (Codec::Http2, _, _) | (Codec::Auto, Some(true), _) | (Codec::Auto, None, Spoken::Http2) => true,
        (Codec::Auto, Some(false), _) | (Codec::Auto, None, Spoken::Http1 { .. }) => false,
        (Codec::Auto, None, Spoken::Raw | Spoken::Tls(_)) => match speaks_http2(&mut io).await {
            Some(http2) => http2,
            None => return Ok(()),
        },
    };
    let conn = Rc::new(Conn::new(worker, downstream, original, view));
    if http2 { codec::serve_http2(conn, io, idle).await } else { codec::serve_http1(conn, io, idle).await }
}

/// Reads until it is clear which HTTP it is; what is neither is left to the HTTP/1 codec to refuse.
async fn speaks_http2(io: &mut Io) -> Option<bool> {
    let mut buf = BytesMut::with_capacity(1024);
    let detect = Detect { http: true, timeout: crate::limits::FIRST_BYTES_TIMEOUT, ..Detect::default() };
    let reading = async {
        loop {
            match io.read_buf(&mut buf).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            match judge(&buf, detect.tls, detect.http) {
                Verdict::Is(spoken) => return Some(spoken == Spoken::Http2),
                // A preface is told by its first bytes; HTTP/1 need not be read to the end of its line.
                Verdict::More if !buf.starts_with(b"PRI") && buf.len() >= 3 => return Some(false),
                Verdict::More => {}
            }
        }
    };
    let http2 = tokio::time::timeout(detect.timeout, reading).await.ok()??;
    io.give_back(buf.freeze());
    Some(http2)
}

//! gRPC over the mesh's own TLS: serving with the caller's identity at hand, and calling with keep-alive.
//!
//! Handshakes run beside each other, bounded in number and time; a handler finds [`Peer`] among the request's extensions.
//! Never here: services themselves. Used by pilot, citadel and everyone who calls them.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::name::SpiffeId;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint, Server, server::Connected},
};

use crate::tls::{peer_identity, plainly};

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Most handshakes at once; more wait in the listener's queue.
const MOST_HANDSHAKES: usize = 512;
/// Silence before an HTTP/2 ping.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a ping may stay unanswered.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity it proved by certificate; none without one.
    pub identity: Option<SpiffeId>,
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct Connection {
    wire: Wire,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

async fn handshake(socket: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Connection> {
    socket.set_nodelay(true)?;
    let Some(acceptor) = tls else {
        return Ok(Connection { wire: Wire::Plain(socket), peer: Peer { identity: None, address, secure: false } });
    };
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))?
        .map_err(plainly)?;
    let identity = peer_identity(stream.get_ref().1.peer_certificates());
    let peer = Peer { identity, address, secure: true };
    Ok(Connection { wire: Wire::Tls(Box::new(stream.into())), peer })
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept(), if handshakes.len() < MOST_HANDSHAKES => match accepted {
                Ok((socket, address)) => {
                    let (tls, ready) = (tls.clone(), ready.clone());
                    handshakes.spawn(async move {
                        match handshake(socket, address, tls).await {
                            Ok(connection) => {
                                if ready.send(Ok(connection)).await.is_err() {
                                    tracing::debug!(%address, "the server ended during a handshake");
                                }
                            }
                            Err(error) => tracing::info!(%address, %error, "refused a connection"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Serves these routes until stopped; streams under way are then ended by their handlers, or after `grace`.
///
/// # Errors
/// The HTTP/2 server failed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    mut routes: Routes,
    grace: Duration,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (ready, connections) = mpsc::channel(64);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_LIMIT))
        .http2_max_header_list_size(64 * 1024)
        .add_routes(std::mem::take(&mut routes))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.clone().cancelled_owned());
    let accepting = accept(listener, tls.map(TlsAcceptor::from), ready, stop.clone());
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::pin!(server);
    let serving = async {
        // Accepting ends first, when stopped; then the server finishes what it has.
        tokio::select! {
            ended = server.as_mut() => ended,
            () = accepting => server.as_mut().await,
        }
    };
    tokio::select! {
        ended = serving => ended,
        () = deadline => Ok(()),
    }
}

/// Whom to call.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// How to encrypt, and the name sent (SNI) and, where the configuration says so, checked.
    pub tls: Option<(Arc<rustls::ClientConfig>, String)>,
    /// Packet mark of the connection, where the process may set one: a sidecar's own connections are told from the
    /// application's by it where user ids cannot tell them.
    pub mark: Option<u32>,
}

/// Why a channel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The address is not `host:port`.
    #[error("{address:?} is not an address: expected host:port")]
    Address {
        /// The address.
        address: String,
        /// What the reader says.
        source: tonic::transport::Error,
    },
    /// The name cannot be sent.
    #[error("{0:?} is not a server name")]
    Name(String),
}

async fn open(address: &str, mark: Option<u32>) -> io::Result<TcpStream> {
    let mut last = None;
    for place in tokio::net::lookup_host(address).await? {
        let socket = if place.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = mark
            && let Err(error) = socket2::SockRef::from(&socket).set_mark(mark)
        {
            tracing::debug!(%error, "connection not marked; capture must go by user id");
        }
        match socket.connect(place).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

async fn connect(
    address: String,
    mark: Option<u32>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> io::Result<TokioIo<Connection>> {
    let socket = open(&address, mark).await?;
    socket.set_nodelay(true)?;
    let remote = socket.peer_addr()?;
    let connection = match tls {
        None => Connection { wire: Wire::Plain(socket), peer: Peer { identity: None, address: remote, secure: false } },
        Some((connector, name)) => {
            let stream = connector.connect(name, socket).await.map_err(plainly)?;
            let identity = peer_identity(stream.get_ref().1.peer_certificates());
            let peer = Peer { identity, address: remote, secure: true };
            Connection { wire: Wire::Tls(Box::new(stream.into())), peer }
        }
    };
    Ok(TokioIo::new(connection))
}

/// A channel that connects when first used, and again after a loss.
///
/// # Errors
/// The address or name cannot be read.
pub fn channel(target: &Target) -> Result<Channel, TargetError> {
    let address = target.address.clone();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|source| TargetError::Address { address: address.clone(), source })?
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .keep_alive_while_idle(true);
    let tls = match &target.tls {
        None => None,
        Some((config, name)) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| TargetError::Name(name.clone()))?;
            Some((TlsConnector::from(Arc::clone(config)), name))
        }
    };
    let mark = target.mark;
    let connector = tower::service_fn(move |_: http::Uri| connect(address.clone(), mark, tls.clone()));
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// What a status says, with its causes: tonic's own text hides why a connection failed.
pub fn reason(status: &tonic::Status) -> String {
    let mut text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let mut cause = std::error::Error::source(status);
    while let Some(next) = cause {
        let says = next.to_string();
        if !text.contains(&says) {
            text = format!("{text}: {says}");
        }
        cause = next.source();
    }
    text
}

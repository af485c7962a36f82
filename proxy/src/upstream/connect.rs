//! Makes one connection to an endpoint: socket options, then TLS where the cluster says so.
//!
//! Never here: pools or HTTP. Called by `open` and `tcp`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use api::spec::{Keepalive, ProxyVersion};
use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::live::Place;
use crate::{
    capture::MARK,
    io::{Io, Raw, Socket},
    limits::HANDSHAKE_TIMEOUT,
    proxy_header::{self, Ends},
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no answer from {place} within {limit:?}")]
    TimedOut { place: Place, limit: Duration },
    #[error("could not connect to {place}: {source}")]
    Refused { place: Place, source: io::Error },
    #[error("{place} is no endpoint any more")]
    Gone { place: Place },
    #[error("TLS with {place} failed: {source}")]
    Tls { place: Place, source: io::Error },
}

impl ConnectError {
    /// What Envoy calls `%UPSTREAM_TRANSPORT_FAILURE_REASON%`: only TLS has one worth telling.
    pub(crate) fn transport_failure(&self) -> Option<String> {
        match self {
            Self::Tls { source, .. } => Some(format!("TLS_error:{source}").replace([' ', '\n'], "_")),
            Self::Refused { source, .. } => {
                let code = source.raw_os_error().unwrap_or(0);
                Some(format!("delayed_connect_error:_{code}"))
            }
            Self::TimedOut { .. } | Self::Gone { .. } => None,
        }
    }
}

/// How a connection is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) timeout: Duration,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) keepalive: Option<Keepalive>,
    /// Header of the PROXY protocol, sent before all else.
    pub(crate) header: Option<(ProxyVersion, Ends)>,
}

/// TLS for one connection.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    pub(crate) config: Arc<rustls::ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Whether this process may mark packets; asked once, by trying.
static MAY_MARK: AtomicBool = AtomicBool::new(true);

/// Marks a socket as ours, so that capture lets it pass; without the right to do so capture goes by user id.
pub(crate) fn mark(socket: &impl std::os::fd::AsFd) {
    if MAY_MARK.load(Relaxed)
        && let Err(error) = SockRef::from(socket).set_mark(MARK)
    {
        MAY_MARK.store(false, Relaxed);
        tracing::debug!(%error, "connections are not marked; capture must go by user id");
    }
}

/// Makes a connection.
pub(crate) async fn connect(
    place: &Place,
    options: Options,
    secured: Option<&Secured>,
) -> Result<(Io, Option<SocketAddr>), ConnectError> {
    let refused = |source| ConnectError::Refused { place: place.clone(), source };
    let timed_out = || ConnectError::TimedOut { place: place.clone(), limit: options.timeout };
    let opening = open(place, options);
    let (socket, local) =
        tokio::time::timeout(options.timeout, opening).await.map_err(|_| timed_out())?.map_err(refused)?;
    let mut raw = Raw::new(socket, Bytes::new());
    if let Some((version, ends)) = options.header {
        // A new connection has room for so few bytes: this does not wait.
        let writing = async {
            raw.write_all(&proxy_header::write(version, ends)).await?;
            raw.flush().await
        };
        tokio::time::timeout(options.timeout, writing).await.map_err(|_| timed_out())?.map_err(refused)?;
    }
    let Some(Secured { config, name }) = secured else { return Ok((Io::plain(raw), local)) };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), raw);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Ok((Io::secured(stream.into()), local)),
        Ok(Err(source)) => Err(ConnectError::Tls { place: place.clone(), source }),
        Err(_) => Err(ConnectError::TimedOut { place: place.clone(), limit: HANDSHAKE_TIMEOUT }),
    }
}

async fn open(place: &Place, options: Options) -> io::Result<(Socket, Option<SocketAddr>)> {
    let address = match place {
        Place::Unix(path) => {
            let stream = match path.strip_prefix('@') {
                // Abstract names have no file; std connects to them by address.
                Some(name) => {
                    use std::os::linux::net::SocketAddrExt;
                    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream)?
                }
                None => UnixStream::connect(&**path).await?,
            };
            return Ok((Socket::Unix(stream), None));
        }
        Place::Socket(address) => *address,
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    mark(&socket);
    socket.set_nodelay(true)?;
    if let Some(bind) = options.bind.filter(|bind| bind.is_ipv4() == address.is_ipv4()) {
        // Leaves the choice of port to connect(), which may then use one port for many destinations.
        if let Err(error) = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true) {
            tracing::trace!(%error, "ports are chosen at bind");
        }
        socket.bind(SocketAddr::new(bind, 0))?;
    }
    if let Some(keepalive) = options.keepalive {
        let mut wanted = TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            wanted = wanted.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            wanted = wanted.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            wanted = wanted.with_retries(probes);
        }
        SockRef::from(&socket).set_tcp_keepalive(&wanted)?;
    }
    let stream = socket.connect(address).await?;
    let local = stream.local_addr().ok();
    Ok((Socket::Tcp(stream), local))
}

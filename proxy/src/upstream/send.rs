//! Sends one request to one endpoint: over a pooled connection, or a new one within the cluster's limits.
//!
//! A pooled connection that turns out to be dead before anything was written costs nothing: the next one is taken.
//! Never here: trying another endpoint. Called by `http::retry` and `mirror`.

use std::{cell::Cell, error::Error, rc::Rc, sync::Arc};

use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    connect::{ConnectError, Options, Secured, connect},
    lease::{Busy, Carrier, Lease, Stream},
    live::{LiveCluster, LiveEndpoint},
    pool::{Host, Http1, Http2, Key, Wear},
    tls::{Carries, Tls},
};
use crate::{
    http::{
        body::{Outgoing, Upload},
        h1::{
            client::{ClientError, exchange},
            wire::Wire,
            write::Unwritable,
        },
        h2::{
            guard::Guard,
            meter::{Meter, Side},
        },
        incoming::Incoming,
    },
    io::Io,
    limits::{
        H2_HEADER_LIST_BYTES_MAX, H2_MEMBER, H2_MESH, H2_PING, H2_SEND_BUFFER_BYTES, H2_STRANGER, STALE_TRIES_MAX,
    },
    table::Cluster,
    worker::{Here, Worker},
};

/// Where one try goes.
#[derive(Debug)]
pub(crate) struct Target<'t> {
    pub(crate) cluster: &'t Cluster,
    pub(crate) options: Options,
    pub(crate) endpoint: &'t Arc<LiveEndpoint>,
    pub(crate) http2: bool,
    pub(crate) tls: Option<&'t Tls>,
    /// The request's host, for the server name where the cluster names none.
    pub(crate) host: &'t str,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The cluster has as many requests or connections as it may.
    #[error("the cluster is at its limit")]
    Overflow,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// TLS needs a name, and the request's host is none.
    #[error("the host is no name that TLS can ask for")]
    NoServerName,
    /// The upstream refused the stream before it worked on it.
    #[error("the upstream refused the request")]
    Refused,
    /// The connection broke before the reply's head.
    #[error("the upstream ended the connection: {source}")]
    Reset {
        /// Whether the connection had carried a request before.
        reused: bool,
        /// What broke.
        source: Broken,
    },
    /// What the upstream sent is no reply.
    #[error("{0}")]
    Protocol(ClientError),
    /// The request cannot be written so that every reader reads the same.
    #[error(transparent)]
    Unwritable(Unwritable),
}

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Http1(ClientError),
    #[error(transparent)]
    Http2(hyper::Error),
}

impl SendError {
    fn of_http1(error: ClientError, reused: bool) -> Self {
        match error {
            ClientError::Malformed(_) | ClientError::Interim => Self::Protocol(error),
            ClientError::Unwritable(error) => Self::Unwritable(error),
            ClientError::Upload(_) | ClientError::Length | ClientError::Broken(_) | ClientError::Closed => {
                Self::Reset { reused, source: Broken::Http1(error) }
            }
        }
    }
}

/// Sends a request. On an error the request is lost unless it is returned: it is, where nothing of it was sent. `from` is
/// its body as it comes, where it comes from a client.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    request: Request<Outgoing>,
    from: Option<&Upload>,
) -> Result<(Response<Incoming>, Lease), (SendError, Option<Request<Outgoing>>)> {
    let spec = &target.cluster.spec;
    let Some(busy) = Busy::begin(&target.cluster.live, target.endpoint, spec.breakers.requests) else {
        return Err((SendError::Overflow, Some(request)));
    };
    let server_name = target.tls.filter(|tls| tls.name_from_host()).map(|_| Rc::from(target.host));
    let key = Key {
        endpoint: target.endpoint.id,
        tls: target.tls.map_or(0, |tls| tls.id),
        http2: target.http2,
        server_name,
        header: target.options.header,
    };
    let wear = Wear {
        idle_timeout: spec.http.idle_timeout,
        uses_max: spec.http.max_requests_per_connection,
        streams_max: spec.http.max_concurrent_streams,
    };
    let host = worker.pools.host(&key, &target.cluster.live, wear);
    if target.http2 {
        over_http2(worker, target, &host, request, busy).await
    } else {
        over_http1(worker, target, &host, request, busy, from).await
    }
}

async fn over_http1(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    host: &Rc<Host>,
    mut request: Request<Outgoing>,
    busy: Busy,
    from: Option<&Upload>,
) -> Result<(Response<Incoming>, Lease), (SendError, Option<Request<Outgoing>>)> {
    let mut stale = 0;
    loop {
        let (mut connection, reused) = match host.take_http1() {
            Some(connection) => (connection, true),
            None => match open_http1(worker, target, host).await {
                Ok(opened) => opened,
                Err(error) => return Err((error, Some(request))),
            },
        };
        connection.used += 1;
        match exchange(&connection.wire, request, from).await {
            Ok(response) => {
                let local = connection.local;
                return Ok((response, Lease::new(Carrier::Http1(Rc::clone(host), connection), local, busy)));
            }
            Err(failed) => match failed.unsent {
                Some(unsent) if stale < STALE_TRIES_MAX && matches!(failed.error, ClientError::Broken(_)) => {
                    stale += 1;
                    request = unsent;
                }
                unsent => return Err((SendError::of_http1(failed.error, reused), unsent)),
            },
        }
    }
}

async fn over_http2(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    host: &Rc<Host>,
    mut request: Request<Outgoing>,
    busy: Busy,
) -> Result<(Response<Incoming>, Lease), (SendError, Option<Request<Outgoing>>)> {
    let mut stale = 0;
    loop {
        let (mut connection, reused) = match host.find_http2() {
            Some(connection) => (connection, true),
            None => {
                let _opening = host.opening.lock().await;
                // Whoever was first may have opened one that serves us too.
                match host.find_http2() {
                    Some(connection) => (connection, true),
                    None => match open_http2(worker, target, host).await {
                        Ok(connection) => (connection, false),
                        Err(error) => return Err((error, Some(request))),
                    },
                }
            }
        };
        connection.used.set(connection.used.get().saturating_add(1));
        let stream = Stream::begin(&connection.streams);
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let lease = Lease::new(Carrier::Http2(stream), connection.local, busy);
                return Ok((response.map(Incoming::http2), lease));
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if stale < STALE_TRIES_MAX => {
                    stale += 1;
                    request = unsent;
                }
                unsent => {
                    let source = failed.into_error();
                    if was_refused(&source) {
                        return Err((SendError::Refused, unsent));
                    }
                    return Err((SendError::Reset { reused, source: Broken::Http2(source) }, unsent));
                }
            },
        }
    }
}

/// Whether the peer said that it did not work on the stream.
fn was_refused(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR));
        }
        cause = error.source();
    }
    false
}

/// Counts a request that waits for a connection.
struct Pending<'c>(&'c LiveCluster);

impl<'c> Pending<'c> {
    fn begin(cluster: &'c LiveCluster, most: u32) -> Result<Self, SendError> {
        if cluster.stats.pending.up() > u64::from(most) {
            cluster.stats.pending.down();
            cluster.stats.overflow.add(1);
            return Err(SendError::Overflow);
        }
        Ok(Self(cluster))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.stats.pending.down();
    }
}

/// Counts a connection for as long as it is open.
#[derive(Debug)]
pub(super) struct Open(Arc<LiveCluster>);

impl Open {
    fn begin(cluster: &Arc<LiveCluster>, most: u32) -> Option<Self> {
        if cluster.stats.connections.up() > u64::from(most) {
            cluster.stats.connections.down();
            return None;
        }
        Some(Self(Arc::clone(cluster)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.connections.down();
        if self.0.stats.pending.get() > 0 {
            self.0.freed.notify_one();
        }
    }
}

async fn open_http1(worker: &Rc<Worker>, target: &Target<'_>, host: &Rc<Host>) -> Result<(Http1, bool), SendError> {
    let live = &target.cluster.live;
    let breakers = target.cluster.spec.breakers;
    let _pending = Pending::begin(live, breakers.pending)?;
    let open = loop {
        let freed = live.freed.notified();
        tokio::pin!(freed);
        // Told before looking, so that a connection freed in between is not missed.
        freed.as_mut().enable();
        if let Some(connection) = host.take_http1() {
            return Ok((connection, true));
        }
        match Open::begin(live, breakers.connections) {
            Some(open) => break open,
            None => freed.await,
        }
    };
    let (io, local) = dial(target, Carries::Http1, worker).await?;
    let wire = Wire::shared(io, None);
    Ok((Http1 { wire, local, used: 0, idle_since: Instant::now(), _open: open }, false))
}

async fn open_http2(worker: &Rc<Worker>, target: &Target<'_>, host: &Rc<Host>) -> Result<Http2, SendError> {
    let live = &target.cluster.live;
    let breakers = target.cluster.spec.breakers;
    let _pending = Pending::begin(live, breakers.pending)?;
    let open = loop {
        let freed = live.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if let Some(connection) = host.find_http2() {
            return Ok(connection);
        }
        match Open::begin(live, breakers.connections) {
            Some(open) => break open,
            None => freed.await,
        }
    };
    let (io, local) = dial(target, Carries::Http2, worker).await?;
    let budget = if target.cluster.is_mesh() { &H2_MEMBER } else { &H2_STRANGER };
    let (guard, guarded) = Guard::new(io, Meter::new(Side::Client, budget, Instant::now()));
    let (sender, connection) = http2::Builder::new(Here)
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_MESH.stream_bytes)
        .initial_connection_window_size(H2_MESH.connection_bytes)
        .max_frame_size(H2_MESH.frame_bytes)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .handshake(TokioIo::new(guarded))
        .await
        .map_err(|source| SendError::Reset { reused: false, source: Broken::Http2(source) })?;
    let stats = Arc::clone(&worker.shared.stats);
    tokio::task::spawn_local(async move {
        let ended = connection.await;
        if let Err(error) = &ended {
            tracing::trace!(%error, "upstream connection ended");
        }
        drop(open);
        guard.farewell(ended.as_ref().copied(), &stats, "upstream").await;
    });
    let opened = Http2 {
        sender,
        local,
        used: Rc::new(Cell::new(0)),
        streams: Rc::new(Cell::new(0)),
        idle_since: Rc::new(Cell::new(Instant::now())),
    };
    host.add_http2(opened.clone());
    Ok(opened)
}

async fn dial(
    target: &Target<'_>,
    carries: Carries,
    worker: &Worker,
) -> Result<(Io, Option<std::net::SocketAddr>), SendError> {
    let secured: Option<Secured> = match target.tls {
        None => None,
        Some(tls) => Some(tls.secured(carries, Some(target.host)).ok_or(SendError::NoServerName)?),
    };
    let stats = &target.cluster.live.stats;
    let place = &target.endpoint.place;
    let connected = tokio::select! {
        biased;
        connected = connect(place, target.options, secured.as_ref()) => connected,
        () = target.endpoint.gone.cancelled() => Err(ConnectError::Gone { place: place.clone() }),
    };
    match connected {
        Ok(connected) => {
            stats.connections_total.add(1);
            target.endpoint.release();
            Ok(connected)
        }
        Err(error) => {
            stats.connect_failed.add(1);
            target.endpoint.quarantine(worker.shared.now_ms());
            Err(error.into())
        }
    }
}

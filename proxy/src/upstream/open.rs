//! Opens one connection for a request, within the cluster's limits, and finds out what it speaks.
//!
//! Where a connection may carry the requests of many, the first of them opens it and the others wait: the handshake says
//! whether they may ride it too.
//! Never here: requests. Called by `send` where no pooled connection is free.

use std::{cell::Cell, net::SocketAddr, pin::pin, rc::Rc, sync::Arc};

use api::spec::PRIVATE_ALPN;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::MutexGuard, time::Instant};

use super::{
    connect::{ConnectError, Secured, connect},
    live::LiveCluster,
    pool::{Connection, Host, Http1, Http2, Speaks},
    send::{Broken, SendError, Target},
    tls::Carries,
};
use crate::{
    http::{
        h1::wire::Wire,
        h2::{
            guard::Guard,
            meter::{Look, Meter, Side},
        },
    },
    io::Io,
    limits::{
        H2_HEADER_LIST_BYTES_MAX, H2_LOOK, H2_MEMBER, H2_MESH, H2_PING, H2_RIDDEN_LIST_BYTES_MAX, H2_SEND_BUFFER_BYTES,
        H2_STRANGER,
    },
    worker::{Here, Worker},
};

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
            self.0.freed.notify_waiters();
        }
    }
}

/// A connection for a request, and whether it has carried one before: a new one, or one that becomes free meanwhile.
///
/// # Errors
/// The cluster is at its limit, or no connection can be made.
pub(super) async fn open(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    host: &Rc<Host>,
) -> Result<(Connection, bool), SendError> {
    let live = &target.cluster.live;
    let breakers = target.cluster.spec.breakers;
    let _pending = Pending::begin(live, breakers.pending)?;
    let _turn = turn(host).await;
    let open = loop {
        let freed = live.freed.notified();
        tokio::pin!(freed);
        // Told before looking, so that a connection freed in between is not missed.
        freed.as_mut().enable();
        if let Some(connection) = host.find() {
            return Ok((connection, true));
        }
        match Open::begin(live, breakers.connections) {
            Some(open) => break open,
            None => freed.await,
        }
    };
    let made = make(worker, target, open).await;
    match &made {
        Ok(Connection::Http1(_)) => host.speaks.set(Speaks::Http1),
        Ok(Connection::Http2(made)) => {
            host.speaks.set(Speaks::Http2);
            host.add_http2(made.clone());
        }
        Err(_) => host.failures.set(host.failures.get().wrapping_add(1)),
    }
    Ok((made?, false))
}

/// Waits for whoever opens a connection that may carry this request too. Where it carries one at a time, or could not be
/// made, everyone goes for himself.
async fn turn(host: &Host) -> Option<MutexGuard<'_, ()>> {
    let failures = host.failures.get();
    if host.speaks.get() == Speaks::Http1 {
        return None;
    }
    let turn = host.opening.lock().await;
    (host.speaks.get() != Speaks::Http1 && host.failures.get() == failures).then_some(turn)
}

async fn make(worker: &Rc<Worker>, target: &Target<'_>, open: Open) -> Result<Connection, SendError> {
    let (io, local) = dial(target, worker).await?;
    let agreed = || io.tls().and_then(|session| session.alpn_protocol()) == Some(PRIVATE_ALPN.as_bytes());
    let http2 = match target.carries {
        Carries::Http2 => true,
        Carries::Ridden => agreed(),
        Carries::Http1 | Carries::Bytes => false,
    };
    if http2 {
        return Ok(Connection::Http2(http2_over(worker, target, io, local, open).await?));
    }
    let wire = Wire::shared(io, None);
    Ok(Connection::Http1(Http1 { wire, local, used: 0, idle_since: Instant::now(), _open: open }))
}

async fn http2_over(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    io: Io,
    local: Option<SocketAddr>,
    open: Open,
) -> Result<Http2, SendError> {
    target.cluster.live.stats.http2_connections_total.add(1);
    let budget = if target.cluster.is_mesh() { &H2_MEMBER } else { &H2_STRANGER };
    let ridden = target.carries == Carries::Ridden;
    let head_bytes = if ridden { H2_RIDDEN_LIST_BYTES_MAX } else { H2_HEADER_LIST_BYTES_MAX };
    let (guard, guarded) = Guard::new(io, Meter::new(Side::Client, budget, Instant::now()));
    let (sender, connection) = http2::Builder::new(Here)
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_MESH.stream_bytes)
        .initial_connection_window_size(H2_MESH.connection_bytes)
        .max_frame_size(H2_MESH.frame_bytes)
        .max_header_list_size(head_bytes)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .handshake(TokioIo::new(guarded))
        .await
        .map_err(|source| SendError::Reset { reused: false, source: Broken::Http2(source), fields: None })?;
    let stats = Arc::clone(&worker.shared.stats);
    worker.spawn_connection(async move {
        let ended = watched(connection, &guard).await;
        if let Err(error) = &ended {
            tracing::trace!(%error, "upstream connection ended");
        }
        drop(open);
        guard.farewell(ended.as_ref().copied(), &stats, "upstream").await;
    });
    Ok(Http2 {
        sender,
        local,
        used: Rc::new(Cell::new(0)),
        streams: Rc::new(Cell::new(0)),
        idle_since: Rc::new(Cell::new(Instant::now())),
    })
}

/// Drives a connection to its end, which comes early where the meter says so.
async fn watched<E>(connection: impl Future<Output = Result<(), E>>, guard: &Guard) -> Result<(), E> {
    let mut connection = pin!(connection);
    let mut looks = tokio::time::interval(H2_LOOK);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = looks.tick() => match guard.look() {
                Look::Over(_) => guard.cut(),
                Look::Busy | Look::Idle(_) => {}
            },
        }
    }
}

async fn dial(target: &Target<'_>, worker: &Worker) -> Result<(Io, Option<SocketAddr>), SendError> {
    let secured: Option<Secured> = match target.tls {
        None => None,
        Some(tls) => Some(tls.secured(target.carries, Some(target.host)).ok_or(SendError::NoServerName)?),
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

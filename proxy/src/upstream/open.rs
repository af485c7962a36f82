//! Opens one connection for a request, within the cluster's limits, and finds out what it speaks.
//!
//! Where a connection may carry the requests of many, the first of them opens it and the others wait: the handshake says
//! whether they may ride it too.
//! Never here: requests. Called by `send` where no pooled connection is free.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use api::spec::PRIVATE_ALPN;
use tokio::{sync::MutexGuard, time::Instant};

use super::{
    connect::{ConnectError, Secured, connect},
    http2::handshake,
    live::LiveCluster,
    pool::{Connection, Host, Http1, Speaks},
    send::{SendError, Target},
    tls::Carries,
};
use crate::{http::h1::wire::Wire, io::Io, worker::Worker};

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
        let room = !host.is_full();
        match room.then(|| Open::begin(live, breakers.connections)).flatten() {
            Some(open) => break open,
            None => freed.await,
        }
    };
    let made = make(worker, target, host, open).await;
    if made.is_err() {
        host.failures.set(host.failures.get().wrapping_add(1));
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

async fn make(worker: &Rc<Worker>, target: &Target<'_>, host: &Host, open: Open) -> Result<Connection, SendError> {
    let (io, local) = dial(target, worker).await?;
    let agreed = || io.tls().and_then(|session| session.alpn_protocol()) == Some(PRIVATE_ALPN.as_bytes());
    let http2 = match target.carries {
        Carries::Http2 => true,
        Carries::Ridden => agreed(),
        Carries::Http1 | Carries::Bytes => false,
    };
    if http2 {
        let made = handshake(worker, target, io, local, open).await?;
        host.speaks.set(Speaks::Http2);
        return host.add_http2(made).ok_or(SendError::Refused);
    }
    host.speaks.set(Speaks::Http1);
    let wire = Wire::shared(io, None);
    Ok(Connection::Http1(Http1 { wire, local, used: 0, idle_since: Instant::now(), _open: open }))
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

//! One use of an upstream connection: what is counted while it lasts, and where the connection goes afterwards.
//!
//! Given back when the reply's last byte is out; dropped otherwise, and then an HTTP/1 connection is closed with it.
//! Never here: sending. Made by `send`; held by the reply's body.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    http2::Stream,
    live::{LiveCluster, LiveEndpoint},
    pool::{Host, Http1},
};

/// Counts one request at an endpoint.
#[derive(Debug)]
pub(crate) struct Busy {
    cluster: Arc<LiveCluster>,
    endpoint: Arc<LiveEndpoint>,
}

impl Busy {
    /// Begins to count; none: the cluster has as many as it may.
    pub(crate) fn begin(cluster: &Arc<LiveCluster>, endpoint: &Arc<LiveEndpoint>, requests_max: u32) -> Option<Self> {
        if cluster.stats.requests.up() > u64::from(requests_max) {
            cluster.stats.requests.down();
            cluster.stats.overflow.add(1);
            return None;
        }
        cluster.stats.requests_total.add(1);
        endpoint.busy.fetch_add(1, Relaxed);
        Some(Self { cluster: Arc::clone(cluster), endpoint: Arc::clone(endpoint) })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.endpoint.busy.fetch_sub(1, Relaxed);
        self.cluster.stats.requests.down();
        // Its connection has gone back by now, or has room for another stream.
        if self.cluster.stats.pending.get() > 0 {
            self.cluster.freed.notify_waiters();
        }
    }
}

/// The connection that carries the request.
#[derive(Debug)]
pub(super) enum Carrier {
    Http1(Rc<Host>, Http1),
    Http2(Stream),
}

/// One use of a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(super) carrier: Option<Carrier>,
    pub(crate) local: Option<SocketAddr>,
    /// Goes last: who waits for a connection is told by it.
    _busy: Busy,
}

impl Lease {
    pub(super) fn new(carrier: Carrier, local: Option<SocketAddr>, busy: Busy) -> Self {
        Self { carrier: Some(carrier), local, _busy: busy }
    }

    /// The exchange is over: the connection may carry another.
    pub(crate) fn give_back(mut self) {
        match self.carrier.take() {
            Some(Carrier::Http1(host, connection)) => host.give_back(connection),
            Some(Carrier::Http2(stream)) => drop(stream),
            None => {}
        }
    }
}

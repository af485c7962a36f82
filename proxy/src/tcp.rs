//! Passes the bytes of a connection on: to a weighted cluster, over TLS where it says so, until both sides are done.
//!
//! One side's end is passed on and the other may go on (half-close); a connection that is silent for too long ends.
//! Never here: reading what the bytes mean. Called by `listen::serve`.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use api::{
    authz::{self, Verdict},
    balance::Observed,
    spec::{Direction, TcpServer},
    table::Work,
};
use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    access::{Denied, Downstream, Record},
    http::{View, authorize},
    io::Io,
    limits::TCP_BUFFER_BYTES,
    metrics::{Flags, Reporter},
    table::{Cluster, cluster::Chosen},
    upstream::{connect::connect, lease::Busy, tls::Carries},
    worker::{Phase, Worker},
};

/// Endpoints tried before the connection is given up.
const TRIES: usize = 3;

/// A stream whose bytes are counted.
struct Counted<'c> {
    io: Io,
    read: &'c Cell<u64>,
    active: &'c Cell<Instant>,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.read.set(self.read.get() + (buf.filled().len() - before) as u64);
            self.active.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Serves one connection.
pub(crate) async fn serve(worker: Rc<Worker>, io: Io, downstream: Downstream, original: SocketAddr, view: View) {
    let Some(server) = view.chain.tcp() else { return };
    let downstream = Rc::new(downstream);
    let reporter = match view.chain.listener().direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound | Direction::Gateway => Reporter::Source,
    };
    let log = view.extra.log.as_ref();
    let mut record = Record::begin_tcp(&worker, &downstream, log, server.metrics, reporter);
    if reporter == Reporter::Destination {
        record.source = worker.peers.of_principal(downstream.principal.as_ref(), worker.shard.metrics());
    }
    let policies = &view.chain.authorization;
    if !policies.is_empty() {
        let peer = authorize::peer(&downstream, original);
        if let Verdict::Denied { rule } = authz::check(policies, &peer, None, &mut ()) {
            tracing::debug!(rule = rule.map(|rule| &**rule), peer = %downstream.remote, "connection denied");
            record.denied = Some(Denied { rule: rule.cloned() });
            return record.finish();
        }
    }
    match forward(&worker, io, &downstream, original, &view, server, &mut record).await {
        Ok(()) => {}
        Err(flags) => record.flag(flags),
    }
    record.finish();
}

async fn forward(
    worker: &Rc<Worker>,
    io: Io,
    downstream: &Downstream,
    original: SocketAddr,
    view: &View,
    server: &TcpServer,
    record: &mut Record,
) -> Result<(), Flags> {
    let Work::Tcp(targets) = &view.chain.work else { return Err(Flags::NO_ROUTE) };
    let target = targets.pick(worker.roll()).ok_or(Flags::NO_CLUSTER)?;
    record.cluster = Some(target.name.as_ref().into());
    let cluster = target.cluster.and_then(|id| view.tables.cluster(id)).ok_or(Flags::NO_CLUSTER)?;
    record.service = cluster.service;
    let mut tried = Vec::new();
    let (upstream, chosen) = loop {
        let chosen = cluster.choose(worker, original, &tried).ok_or(Flags::NO_HEALTHY_UPSTREAM)?;
        record.upstream = chosen.endpoint.place.address();
        if record.reporter == Reporter::Source {
            record.destination = chosen.party;
        }
        match open(worker, cluster, &chosen, downstream, record).await {
            Ok(upstream) => break (upstream, chosen),
            Err(()) if tried.len() + 1 < TRIES && cluster.members.len() > tried.len() + 1 => {
                tried.push(chosen.endpoint.id);
            }
            Err(()) => return Err(Flags::UPSTREAM_FAILED),
        }
    };
    let Some(_busy) = Busy::begin(&cluster.live, &chosen.endpoint, cluster.spec.breakers.connections) else {
        return Err(Flags::UPSTREAM_OVERFLOW);
    };
    record.opened();
    let active = Cell::new(Instant::now());
    let (received, sent) = (Cell::new(0), Cell::new(0));
    let mut client = Counted { io, read: &received, active: &active };
    let mut upstream = Counted { io: upstream, read: &sent, active: &active };
    let size = TCP_BUFFER_BYTES;
    let mut phase = worker.shared.phase.subscribe();
    let result = tokio::select! {
        copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size) => {
            copied.map(drop).map_err(|_| Flags::NONE)
        }
        () = silent(&active, server.idle_timeout) => Err(Flags::IDLE),
        // An error means that the process ends, too.
        _ = phase.wait_for(|phase| *phase > Phase::Closing) => Ok(()),
    };
    record.received.set(received.get());
    record.sent = sent.get();
    result
}

/// Opens the connection to an endpoint.
async fn open(
    worker: &Worker,
    cluster: &Cluster,
    chosen: &Chosen,
    downstream: &Downstream,
    record: &mut Record,
) -> Result<Io, ()> {
    let Ok(tls) = cluster.tls(chosen.mtls) else {
        record.transport_failure = Some("TLS_error:the_cluster's_TLS_cannot_be_set_up".into());
        return Err(());
    };
    let secured = match tls {
        None => None,
        Some(tls) => Some(tls.secured(Carries::Bytes, downstream.server_name.as_deref()).ok_or(())?),
    };
    let now = worker.shared.now_ms();
    match connect(&chosen.endpoint.place, cluster.options, secured.as_ref()).await {
        Ok((io, local)) => {
            cluster.live.stats.connections_total.add(1);
            chosen.endpoint.release();
            record.upstream_local = local;
            Ok(io)
        }
        Err(error) => {
            tracing::debug!(cluster = %cluster.name, %error, "no connection");
            cluster.live.stats.connect_failed.add(1);
            chosen.endpoint.quarantine(now);
            cluster.live.observe(&chosen.endpoint, Observed::ConnectionError, cluster.spec.outlier.as_ref(), now);
            record.transport_failure = error.transport_failure().map(Into::into);
            Err(())
        }
    }
}

/// Waits until nothing has passed for this long; for ever where there is no limit.
async fn silent(active: &Cell<Instant>, limit: Duration) {
    if limit.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let until = active.get() + limit;
        tokio::time::sleep_until(until).await;
        if active.get() + limit <= Instant::now() {
            return;
        }
    }
}

/// The version that the log shows for connections without requests.
pub(crate) const NO_VERSION: Version = Version::HTTP_09;

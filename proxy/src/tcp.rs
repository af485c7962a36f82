//! Passes the bytes of a connection on: to a weighted cluster, over TLS where it says so, until both sides are done.
//!
//! A connection that is silent for too long ends, and so does one at its longest; what a long one has passed is counted
//! on the way. Where one side breaks, the other is reset: a stream that was cut is never a stream that ended.
//! Never here: reading what the bytes mean, or moving them (`relay`). Called by `listen::serve`.

mod pipe;
pub(crate) mod relay;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use api::{
    authz::{self, Verdict},
    balance::Observed,
    spec::{Direction, TcpServer},
    table::Work,
};
use http::Version;
use tokio::time::Instant;

use crate::{
    access::{Denied, Downstream, Record, Recording},
    http::{View, authorize},
    io::Io,
    limits::TCP_REPORT,
    metrics::{Flags, Reporter},
    table::{Cluster, cluster::Chosen},
    upstream::{connect::connect, lease::Busy, tls::Carries},
    worker::Worker,
};
use relay::{Passed, relay};

/// Endpoints tried before the connection is given up.
const TRIES: usize = 3;

/// Serves one connection.
pub(crate) async fn serve(worker: Rc<Worker>, io: Io, downstream: Downstream, original: SocketAddr, view: View) {
    let Some(server) = view.chain.tcp() else { return };
    let downstream = Rc::new(downstream);
    let reporter = match view.chain.listener().direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound | Direction::Gateway => Reporter::Source,
    };
    let recording = Recording { log: view.extra.log.as_ref(), counted: server.metrics, reporter };
    let mut record = Record::begin_tcp(&worker, &downstream, recording);
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
    let passed = Passed::new();
    let (mut client, mut upstream) = (io, upstream);
    let result = tokio::select! {
        ended = relay(&mut client, &mut upstream, &worker.room, &passed) => ended.map_err(|_| Flags::NONE),
        flags = watch(&passed, record, server.idle_timeout, server.max_duration) => Err(flags),
    };
    record.passed(&passed);
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
    match connect(&chosen.endpoint.place, cluster.options(downstream), secured.as_ref()).await {
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

/// Waits until nothing has passed for `idle`, or the connection is `longest` old (zero: no limit), and says which; counts
/// meanwhile what has passed.
async fn watch(passed: &Passed, record: &mut Record, idle: Duration, longest: Duration) -> Flags {
    let after = |from: Instant, limit: Duration| if limit.is_zero() { None } else { from.checked_add(limit) };
    let ends = after(Instant::now(), longest);
    loop {
        let now = Instant::now();
        let silent = after(passed.active.get(), idle);
        if ends.is_some_and(|at| at <= now) {
            return Flags::DURATION;
        }
        if silent.is_some_and(|at| at <= now) {
            return Flags::IDLE;
        }
        let next = [ends, silent].into_iter().flatten().fold(now + TCP_REPORT, Instant::min);
        tokio::time::sleep_until(next).await;
        record.passed(passed);
    }
}

/// The version that the log shows for connections without requests.
pub(crate) const NO_VERSION: Version = Version::HTTP_09;

//! A serving proxy from start to end: threads, tasks, and the order in which they begin and stop.
//!
//! One control thread (configuration, identity, pages) and the workers. Asked to end, it first tells peers to go
//! elsewhere and serves on, then takes nothing new and waits for what is under way.
//! Never here: what a request does. Called by `main`.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use ::http::HeaderValue;
use anyhow::Context;
use api::spec::{Node, ProxyKind};
use api_rt::{admin::Admin, clock::Clock, drain::on_signal, identity::Identity, log, ready::Readiness};
use arc_swap::ArcSwap;
use rand::Rng as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::writer::Writer,
    admin,
    control::Control,
    ending::Ending,
    env::{Config, NodeConfig, Source, flags::ProxyFlags},
    identity,
    listen::{self, Opened, Sockets},
    metrics::{Metrics, proxy::ProxyStats},
    overload::{self, Overload, system},
    peers, pod,
    table::{Builder, Tables, secrets::SecretStore},
    upstream::{live::Live, pool},
    worker::{Own, Phase, Shared, Worker},
    xds,
};

/// Pause between looks at ejections.
const SWEEP: Duration = Duration::from_millis(250);

/// The address that this machine uses to reach others, as far as it can be told without asking anyone.
pub(crate) fn machine_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket sends nothing; it only chooses a route.
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// The node as pilot is told.
pub(crate) fn node(config: &NodeConfig, ours: bool) -> Node {
    let kind = match config.kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Gateway => "router",
    };
    let NodeConfig { name, namespace, address, domain, .. } = config;
    Node {
        kind: config.kind,
        id: format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.{domain}"),
        name: name.clone(),
        namespace: namespace.clone(),
        service_account: config.service_account.clone(),
        address: *address,
        labels: config.labels.clone(),
        domain: domain.clone(),
        cluster_id: config.cluster_id.clone(),
        workload: config.workload.clone(),
        on_demand_hosts: ours,
        ours,
        proxy_header: config.proxy_header,
        proxyless: false,
    }
}

/// Runs until told to end.
pub(crate) fn run(config: Config, flags: &ProxyFlags) -> anyhow::Result<()> {
    api_rt::tls::install();
    let format = if config.log_json { log::Format::Json } else { log::Format::Text };
    let log = log::init(&config.log_level, format)?;
    if !flags.foreign.is_empty() {
        tracing::info!(flags = flags.foreign.join(" "), "flags of another agent have no meaning here");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(control_thread(config, log))
}

async fn control_thread(config: Config, log: log::Log) -> anyhow::Result<()> {
    let stop = on_signal().context("no signal handlers")?;
    let ready = Readiness::new();
    let first = ready.blocked_by("first configuration");
    let node = node(&config.node, true);
    // What keeps serving to the end has a token of its own.
    let done = CancellationToken::new();
    let (own_identity, keeping) =
        identity::keep(&config.identity, &config.trust_domain, &config.node, &ready, done.clone())?;

    let shared = shared(&config, &node.id, &own_identity)?;
    let (workers, senders) = start_workers(config.workers, &shared)?;
    let live = Arc::new(Live::default());
    let builder = Builder {
        identity: own_identity.clone(),
        metrics: Arc::clone(&shared.metrics),
        live: Arc::clone(&live),
        secrets: SecretStore::default(),
    };
    let (control, resolving) = Control::new(builder, Arc::clone(&shared), Sockets::new(senders), first, done.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(keeping);
    tasks.spawn(resolving);
    let ending = Arc::new(Ending::new(shared.phase.clone(), ready.clone()));
    let ends = pod::Ends { stop: stop.clone(), ending: Arc::clone(&ending) };
    serve(pages(&config, &ready, &shared, &node.id, log, &ends), &done, &mut tasks).await?;
    match config.source.clone() {
        Source::File(path) => {
            let done = done.clone();
            tasks.spawn(async move { xds::file::run(&path, control, done).await });
        }
        Source::Pilot { address, tls, name } => {
            let node = api_xds::node::write(&node, env!("CARGO_PKG_VERSION"));
            let pilot = xds::stream::Pilot { address, tls, name, node };
            tasks.spawn(xds::stream::run(pilot, own_identity, control, Arc::clone(&shared.stats), done.clone()));
        }
    }
    let (sweeping, ended) = (Arc::clone(&shared), done.clone());
    tasks.spawn(async move {
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP).await;
                live.sweep(sweeping.now_ms());
            }
        };
        ended.run_until_cancelled(sweep).await;
    });
    let (watching, ended) = (overload::watch(Arc::clone(&shared), system::System::default()), done.clone());
    tasks.spawn(async move {
        ended.run_until_cancelled(watching).await;
    });
    tracing::info!(node = node.id, workers = config.workers, "started");

    tokio::select! {
        () = stop.cancelled() => {}
        Some(task) = tasks.join_next() => {
            task.context("a task of the proxy died")?;
            anyhow::ensure!(stop.is_cancelled(), "a task of the proxy ended early");
        }
    }
    let connections = || shared.stats.downstream_connections.get();
    ending.run(config.drain, connections, || workers.iter().all(JoinHandle::is_finished)).await;
    done.cancel();
    while tasks.join_next().await.is_some() {}
    tracing::info!("ended");
    Ok(())
}

/// What the workers and the control thread share, before anything serves.
fn shared(config: &Config, id: &str, identity: &Identity) -> anyhow::Result<Arc<Shared>> {
    let stats = Arc::new(ProxyStats::default());
    let metrics = Arc::new(Metrics::default());
    let principal = identity::principal(&config.trust_domain, &config.node);
    let own = Own {
        name: config.node.name.clone(),
        party: metrics.party(&peers::own(&config.node, &principal)),
        metadata_id: HeaderValue::from_str(id).context("node id")?,
        metadata: HeaderValue::from_str(&peers::encode(&config.node)).context("node metadata")?,
    };
    Ok(Arc::new(Shared {
        tables: ArcSwap::from_pointee(Tables::default()),
        log: Writer::start(Arc::clone(&stats)).context("access log")?,
        stats,
        metrics,
        clock: Clock::system(),
        identity: identity.clone(),
        own,
        phase: watch::Sender::new(Phase::Serving),
        overload: Overload::new(system::connections_max()),
        epoch: tokio::time::Instant::now(),
    }))
}

/// The workers' threads, and the way to hand each its sockets.
type Started = (Vec<JoinHandle<()>>, Vec<mpsc::UnboundedSender<Opened>>);

/// Starts the workers.
fn start_workers(count: usize, shared: &Arc<Shared>) -> anyhow::Result<Started> {
    let mut threads = Vec::with_capacity(count);
    let mut senders = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, opened) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        let seed = rand::rng().next_u64();
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            work(shared, seed, opened);
        });
        threads.push(thread.context("no thread for a worker")?);
        senders.push(sender);
    }
    Ok((threads, senders))
}

/// One worker's thread.
fn work(shared: Arc<Shared>, seed: u64, opened: mpsc::UnboundedReceiver<Opened>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for a worker"),
    };
    runtime.block_on(async move {
        let worker = Worker::new(shared, seed);
        let sweeping = tokio::task::spawn_local(pool::sweep(Rc::clone(&worker)));
        listen::work(Rc::clone(&worker), opened).await;
        worker.finish().await;
        sweeping.abort();
        worker.lines.flush(&worker);
    });
}

/// The pod's and the admin's pages, and where they are served; port 0: nowhere.
fn pages(
    config: &Config,
    ready: &Readiness,
    shared: &Arc<Shared>,
    id: &str,
    log: log::Log,
    ends: &pod::Ends,
) -> [(SocketAddr, Admin); 4] {
    let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let ports = config.ports;
    let status =
        pod::status(ready, shared, config.probers.clone(), config.app_metrics.clone(), config.node.address, ends);
    [
        (loopback(ports.admin), admin::pages(ready, shared, &config.node, id, log, ends)),
        (everywhere(ports.status), status),
        (everywhere(ports.ready), pod::readiness(ready)),
        (everywhere(ports.metrics), pod::metrics(ready, shared)),
    ]
}

/// Serves pages until `done`.
async fn serve(
    pages: [(SocketAddr, Admin); 4],
    done: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    for (address, pages) in pages.into_iter().filter(|(address, _)| address.port() != 0) {
        let listener = TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))?;
        tasks.spawn(pages.serve(listener, done.clone()));
    }
    Ok(())
}

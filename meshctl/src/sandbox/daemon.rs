//! The sandbox's daemon: keeper first, then API server, controllers and node.
//!
//! Forked by `up`; tells it by lines on standard output how far it is, then leaves it. Never here: Kubernetes.
//! Runs until SIGTERM, or until a part of it fails.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use sandbox_node::{Agent, Keeper, Link, NodeOptions};
use sandbox_server::{Options, Server, User};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::place::{LOG_BYTES_MAX, Place, Record};

const READY_WITHIN: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(60);
const API_PORT: u16 = 443;

/// What `up` passes on.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) place: Place,
    /// The user's table of images.
    pub(crate) images: PathBuf,
    /// Where our programs are.
    pub(crate) programs: PathBuf,
    /// The machine's folders of programs.
    pub(crate) path: Vec<PathBuf>,
}

/// Says a line to the waiting `up`.
fn tell(line: &str) {
    let mut out = std::io::stdout();
    // It may have been interrupted; the daemon goes on.
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).ok();
}

/// Becomes the daemon. The process must have one thread.
pub(crate) fn run(start: &Start) -> anyhow::Result<()> {
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "already a session of its own");
    }
    let Some(held) = start.place.begin()? else { bail!("sandbox {} runs already", start.place.name) };
    let levels = "info,kube=warn,hyper=warn,tower=warn";
    api_rt::log::init(levels, api_rt::log::Format::default()).context("could not start the log")?;
    tell("namespaces");
    let keeper = sandbox_node::start_keeper(&start.place.name)?;
    // From here on there are threads.
    api_rt::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pid = keeper.pid;
    let served = runtime.block_on(serve(start, keeper));
    runtime.shutdown_timeout(Duration::from_secs(1));
    end(pid);
    drop(held);
    served
}

/// Ends the sandbox's processes and waits until they are gone.
fn end(keeper: i32) {
    use nix::sys::signal::{Signal, kill};
    let keeper = nix::unistd::Pid::from_raw(keeper);
    kill(keeper, Signal::SIGKILL).ok();
    nix::sys::wait::waitpid(keeper, None).ok();
}

async fn serve(start: &Start, keeper: Keeper) -> anyhow::Result<()> {
    let place = &start.place;
    let (users, keeper_pid) = (keeper.users, keeper.pid);
    let stop = CancellationToken::new();
    let mut ends = Ends(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (link, reader) = Link::new(keeper)?;
    let folder = place.folder.join("server");
    let first_node_port = first_node_port(&place.name);
    let server = Server::open(Options { first_node_port, ..Options::new(folder) })?;
    server.bootstrap().await?;
    tell("api");
    let options = NodeOptions {
        name: place.name.clone(),
        folder: place.folder.clone(),
        programs: start.programs.clone(),
        images: start.images.clone(),
        path: start.path.clone(),
        users,
    };
    let agent = Agent::new(server.client(User::system("node")), link.clone(), options);
    server.set_kubelet(agent.kubelet());
    server.set_dial(agent.dial());
    let port = place.record().map_or(0, |record| record.port);
    let host = listen(port).await?;
    let address = host.local_addr()?;
    let mut parts = Parts::new();
    let inside = [
        link.listen(Ipv4Addr::LOCALHOST, address.port()).await?,
        link.listen(sandbox_node::net::API_ADDRESS, API_PORT).await?,
    ];
    for listener in [host].into_iter().chain(inside) {
        let (server, stop) = (server.clone(), stop.clone());
        parts.spawn(async move {
            server.serve(listener, stop).await?;
            Ok("API server")
        });
    }
    let (controllers, end) = (server.client(User::system("controller-manager")), stop.clone());
    parts.spawn(async move {
        sandbox_server::controllers::run(controllers, end).await;
        Ok("controllers")
    });
    let end = stop.clone();
    parts.spawn(async move {
        agent.run(end).await?;
        Ok("node")
    });
    parts.spawn(async move {
        reader.await?;
        Ok("first process")
    });
    parts.spawn(keep_log_short(place.clone()));
    let kubeconfig = server.kubeconfig(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())))?;
    place.write_private("kubeconfig", kubeconfig.as_bytes())?;
    let record =
        Record { pid: std::process::id().cast_signed(), keeper: keeper_pid, port: address.port(), ready: false };
    place.write_record(&record)?;
    tell("node");
    let nodes: Api<Node> = Api::all(server.client(User::admin()));
    let ended = attend(&mut parts, &mut ends, &nodes, place, &record).await;
    stop.cancel();
    if let Err(error) = &ended {
        tracing::error!(error = format!("{error:#}"), "sandbox ends");
    }
    parts.shutdown().await;
    ended
}

type Parts = JoinSet<anyhow::Result<&'static str>>;

/// The signals that end a sandbox.
struct Ends(Signal, Signal);

impl Ends {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Says when the node is ready, and stays until a signal ends the sandbox or a part of it fails.
async fn attend(
    parts: &mut Parts,
    ends: &mut Ends,
    nodes: &Api<Node>,
    place: &Place,
    record: &Record,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        ready = wait_ready(nodes, &place.name) => { ready?; None }
        ended = parts.join_next() => ended,
        () = ends.told() => return Ok(()),
    };
    if ended.is_none() {
        place.write_record(&Record { ready: true, ..record.clone() })?;
        tell("ready");
        leave_up()?;
        tracing::info!(name = place.name, port = record.port, "sandbox ready");
    }
    let ended = match ended {
        Some(ended) => Some(ended),
        None => tokio::select! {
            ended = parts.join_next() => ended,
            () = ends.told() => None,
        },
    };
    match ended {
        None => Ok(()),
        Some(Ok(Ok(part))) => Err(anyhow::anyhow!("the {part} ended")),
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(error.into()),
    }
}

async fn keep_log_short(place: Place) -> anyhow::Result<&'static str> {
    loop {
        tokio::time::sleep(LOOK_AT_LOG_EVERY).await;
        if let Err(error) = place.trim_log(LOG_BYTES_MAX) {
            tracing::warn!(%error, "the log was not put aside");
        }
    }
}

/// Sandboxes of one machine share 127.0.0.1, so each begins elsewhere in the range of NodePorts.
fn first_node_port(name: &str) -> u16 {
    const STEP: u16 = 32;
    const STEPS: u16 = 80;
    let number = name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)));
    let own = nix::unistd::getuid().as_raw() % u32::from(STEPS);
    30_000 + (number % STEPS + u16::try_from(own).unwrap_or(0)) % STEPS * STEP
}

/// The port of the last life if it is free, else any.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if port != 0 => {
            tracing::info!(port, %error, "the API server's port is taken; another one is used");
            Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
        }
        Err(error) => Err(error).context("could not listen on 127.0.0.1"),
    }
}

async fn wait_ready(nodes: &Api<Node>, name: &str) -> anyhow::Result<()> {
    let ready = async {
        loop {
            let node = nodes.get_opt(name).await.ok().flatten();
            let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, ready).await.with_context(|| format!("node not ready within {READY_WITHIN:?}"))
}

/// Lets go of the pipe that `up` reads.
fn leave_up() -> anyhow::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null)?;
    Ok(())
}

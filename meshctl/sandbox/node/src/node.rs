//! The agent: registers the node, keeps its Lease, gives every bound Pod a worker, runs the network.
//!
//! A plain client of the API. Never here: how a Pod runs, what a rule says.
//! Called by `meshctl up`'s daemon.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use sandbox_server::{Dial, Kubelet};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::event::Events;
use crate::image::Images;
use crate::keeper::birth::Users;
use crate::kubelet::Streaming;
use crate::limits::PODS_MAX;
use crate::link::{Link, LinkError};
use crate::net::names::Names;
use crate::net::services::Network;
use crate::net::{DNS_ADDRESS, GATEWAY_ADDRESS, dns};
use crate::pod::kit::{Addresses, Kit};
use crate::pod::live::Live;
use crate::pod::worker::{self, Seen};

const LEASE_SECONDS: i32 = 40;
const LEASE_RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
const DNS_PORT: u16 = 53;

/// How a node is to run.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The sandbox's name, which is the node's too.
    pub name: String,
    /// Where logs go.
    pub folder: PathBuf,
    /// Our own programs: where meshctl is.
    pub programs: PathBuf,
    /// The user's table of images.
    pub images: PathBuf,
    /// The machine's folders of programs.
    pub path: Vec<PathBuf>,
    /// How user ids are mapped in the sandbox.
    pub users: Users,
}

/// Why the node stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The keeper failed.
    #[error("the sandbox's network could not be set up")]
    Link(#[from] LinkError),
    /// The API refused the node itself.
    #[error("the node could not be registered")]
    Register(#[source] kube::Error),
    /// One of its tasks ended.
    #[error("the node's {0} ended")]
    Ended(&'static str),
}

/// A node that is ready to run.
pub struct Agent {
    kit: Arc<Kit>,
    options: NodeOptions,
    network: Network,
    names: watch::Receiver<Arc<Names>>,
    streaming: Arc<Streaming>,
}

impl Agent {
    /// Prepares a node. Needs a tokio runtime.
    pub fn new(client: Client, link: Link, options: NodeOptions) -> Self {
        let (events, writer) = Events::new(client.clone(), &options.name);
        // Writes until the last `Events` is gone; it is inside the kit and the network.
        drop(writer);
        let (addresses, pods) = Addresses::new();
        let (names_sender, names) = watch::channel(Arc::new(Names::default()));
        let (services_sender, services) = watch::channel(Arc::new(Vec::new()));
        let live = Live::default();
        let network = Network {
            link: link.clone(),
            client: client.clone(),
            events: events.clone(),
            // Two users' sandboxes of one name do not share addresses.
            name: format!("{}/{}", nix::unistd::getuid(), options.name),
            names: names_sender,
            services: services_sender,
            pods,
        };
        let kit = Kit {
            client,
            link: link.clone(),
            events,
            images: Images { own: options.programs.clone(), file: options.images.clone(), path: options.path.clone() },
            users: options.users,
            live: live.clone(),
            logs: options.folder.join("logs"),
            services,
            addresses,
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory_bytes: memory_bytes(),
        };
        let streaming = Arc::new(Streaming { live, link });
        Self { kit: Arc::new(kit), options, network, names, streaming }
    }

    /// What serves logs, exec, attach and port-forward.
    pub fn kubelet(&self) -> Arc<dyn Kubelet> {
        Arc::clone(&self.streaming) as Arc<dyn Kubelet>
    }

    /// What connects to addresses inside.
    pub fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.streaming) as Arc<dyn Dial>
    }

    /// Runs until told to stop, or until the sandbox fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), NodeError> {
        let Self { kit, options, network, names, .. } = self;
        let datagrams = kit.link.datagrams(DNS_ADDRESS, DNS_PORT).await?;
        let connections = kit.link.listen(DNS_ADDRESS, DNS_PORT).await?;
        let mut parts: JoinSet<Result<&'static str, NodeError>> = JoinSet::new();
        let end = stop.clone();
        parts.spawn(async move { Ok(network.run(end).await.map(|()| "network")?) });
        let (end, known) = (stop.clone(), names.clone());
        parts.spawn(async move {
            dns::serve_datagrams(datagrams, known, end).await.map_err(LinkError::Io)?;
            Ok("name server")
        });
        let end = stop.clone();
        parts.spawn(async move {
            dns::serve_connections(connections, names, end).await.map_err(LinkError::Io)?;
            Ok("name server")
        });
        parts.spawn(register(Arc::clone(&kit), options, stop.clone()));
        parts.spawn(run_pods(Arc::clone(&kit), stop.clone()));
        let gone = kit.link.gone();
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = gone.cancelled() => Err(LinkError::Gone.into()),
            Some(ended) = parts.join_next() => match ended {
                Ok(Ok(part)) => if stop.is_cancelled() { Ok(()) } else { Err(NodeError::Ended(part)) },
                Ok(Err(error)) => Err(error),
                Err(_panicked) => Err(NodeError::Ended("task")),
            },
        };
        parts.shutdown().await;
        result
    }
}

fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(1 << 30, |kib| kib * 1024)
}

/// Registers the node, then renews its Lease and status.
async fn register(kit: Arc<Kit>, options: NodeOptions, stop: CancellationToken) -> Result<&'static str, NodeError> {
    let nodes: Api<Node> = Api::all(kit.client.clone());
    let leases: Api<Lease> = Api::namespaced(kit.client.clone(), "kube-node-lease");
    let name = &options.name;
    let node: Node = from_json(node_object(name, options.users))?;
    loop {
        match nodes.create(&PostParams::default(), &node).await {
            Ok(_) => break,
            Err(kube::Error::Api(answer)) if answer.code == 409 => break,
            Err(error) => tracing::warn!(%error, "node not registered yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok("registration"),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    let mut since = None;
    loop {
        let now = Timestamp::now();
        let since = *since.get_or_insert(now);
        let status = node_status(&kit, name, since, now);
        if let Err(error) =
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await
        {
            tracing::warn!(%error, "node status not written");
        }
        if let Err(error) = renew(&leases, name, now).await {
            tracing::warn!(%error, "node lease not renewed");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok("registration"),
            () = tokio::time::sleep(LEASE_RENEW) => {}
        }
    }
}

fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, NodeError> {
    serde_json::from_value(value).map_err(|error| NodeError::Register(kube::Error::SerdeError(error)))
}

async fn renew(leases: &Api<Lease>, name: &str, now: Timestamp) -> Result<(), kube::Error> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    };
    let patch = json!({"spec": spec});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_object(name: &str, users: Users) -> serde_json::Value {
    let users = match users {
        Users::One => "one user: runAsUser is not honoured",
        Users::Subordinate | Users::High => "0 to 65535",
    };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
                "node-role.kubernetes.io/control-plane": "",
            },
            "annotations": {
                "sandbox/resources": "CPU and memory limits are accepted and not enforced",
                "sandbox/users": users,
            },
        },
        "spec": {"podCIDR": "198.18.0.0/16", "podCIDRs": ["198.18.0.0/16"], "providerID": format!("sandbox://{name}")},
    })
}

fn node_status(kit: &Kit, name: &str, since: Timestamp, now: Timestamp) -> serde_json::Value {
    let (since, now) = (Time(since), Time(now));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since})
    };
    let size = json!({"cpu": kit.cpus.to_string(), "memory": format!("{}Ki", kit.memory_bytes / 1024),
        "pods": PODS_MAX.to_string(), "ephemeral-storage": "100Gi"});
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system =
        release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    json!({
        "addresses": [{"type": "InternalIP", "address": GATEWAY_ADDRESS.to_string()}, {"type": "Hostname", "address": name}],
        "capacity": size, "allocatable": size,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "the sandbox runs Pods; CPU and memory limits are not enforced"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": arch(), "operatingSystem": "linux", "osImage": system, "kernelVersion": kernel.trim(),
            "kubeletVersion": "v1.33.0", "kubeProxyVersion": "v1.33.0",
            "containerRuntimeVersion": concat!("sandbox://", env!("CARGO_PKG_VERSION")),
            "machineID": name, "systemUUID": name, "bootID": name,
        },
    })
}

/// Gives each Pod of this node a worker, and tells it of changes.
async fn run_pods(kit: Arc<Kit>, stop: CancellationToken) -> Result<&'static str, NodeError> {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", kit.events.node()));
    let pods = watcher::watcher(Api::<Pod>::all(kit.client.clone()), config).default_backoff();
    let mut pods = std::pin::pin!(pods);
    let mut known: HashMap<String, watch::Sender<Seen>> = HashMap::new();
    let mut listed: Vec<String> = Vec::new();
    let mut workers: JoinSet<String> = JoinSet::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok("Pods"),
            Some(ended) = workers.join_next() => {
                match ended {
                    Ok(uid) => { known.remove(&uid); }
                    Err(error) => tracing::error!(%error, "a Pod's task failed"),
                }
                continue;
            }
            Some(event) = pods.next() => match event {
                Ok(event) => event,
                Err(error) => { tracing::warn!(%error, "watch of Pods"); continue }
            },
        };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.clone());
                see(&kit, pod, &mut known, &mut workers);
            }
            Event::InitDone => {
                kit.sweep_logs(&listed);
                for (_, seen) in known.iter().filter(|(uid, _)| !listed.contains(uid)) {
                    seen.send_modify(|seen| seen.gone = true);
                }
            }
            Event::Apply(pod) => see(&kit, pod, &mut known, &mut workers),
            Event::Delete(pod) => {
                if let Some(seen) = pod.metadata.uid.as_ref().and_then(|uid| known.get(uid)) {
                    seen.send_modify(|seen| seen.gone = true);
                }
            }
        }
    }
}

fn see(kit: &Arc<Kit>, pod: Pod, known: &mut HashMap<String, watch::Sender<Seen>>, workers: &mut JoinSet<String>) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let pod = Arc::new(pod);
    if let Some(seen) = known.get(&uid) {
        seen.send_modify(|seen| seen.pod = pod);
        return;
    }
    let (sender, seen) = watch::channel(Seen { pod, gone: false });
    known.insert(uid.clone(), sender);
    let kit = Arc::clone(kit);
    workers.spawn(async move {
        worker::run(kit, seen).await;
        uid
    });
}

//! Begins a Pod: the board of its containers, its network and volumes.
//!
//! What fails is said in an event and tried again, ever more slowly, until it stands or the Pod has to go.
//! Never here: its containers' lives. Called by `worker`, which drops the future when the Pod is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::board::Board;
use super::env::Place;
use super::files::{hosts, resolv};
use super::kit::{Kit, Lease};
use super::status::{self, Cell, Cells, Circumstances};
use super::volumes::Volumes;
use crate::event::Tone;
use crate::keeper::wire::{PodUp, Request};
use crate::net::GATEWAY_ADDRESS;

const RETRY: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// What a Pod's containers stand on.
pub(super) struct Ground {
    pub(super) lease: Lease,
    pub(super) volumes: Volumes,
    pub(super) place: Place,
    pub(super) hostname: String,
    pub(super) hosts: String,
    pub(super) resolv: String,
}

/// All containers of a Pod, in the order they begin.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(spec.containers.iter()))
}

/// Begins a board; what ran in an earlier life of the daemon has ended with it.
pub(super) fn board(kit: &Kit, pod: &Arc<Pod>) -> Board {
    let status = pod.status.clone().unwrap_or_default();
    let old = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let old: BTreeMap<&str, _> = old.map(|found| (found.name.as_str(), found)).collect();
    let now = Timestamp::now();
    let cells: Cells = containers(pod)
        .map(|container| {
            let init = pod
                .spec
                .iter()
                .any(|spec| spec.init_containers.iter().flatten().any(|found| found.name == container.name));
            let has_inits = pod.spec.iter().any(|spec| spec.init_containers.is_some());
            let mut cell = Cell::waiting(if has_inits || init { "PodInitializing" } else { "ContainerCreating" });
            if let Some(found) = old.get(container.name.as_str()) {
                cell.restarts = found.restart_count;
                let begun = found.state.as_ref().and_then(|state| {
                    state
                        .running
                        .as_ref()
                        .and_then(|running| running.started_at.clone())
                        .or_else(|| state.terminated.as_ref().and_then(|ended| ended.started_at.clone()))
                });
                if let Some(begun) = begun {
                    cell.restarts += 1;
                    cell.last = Some(status::Ended {
                        code: 137,
                        signal: None,
                        reason: "ContainerStatusUnknown".to_owned(),
                        message: Some("the sandbox ended while the container ran".to_owned()),
                        started: Some(begun.0),
                        finished: now,
                        id: found.container_id.clone().unwrap_or_default(),
                    });
                }
            }
            (container.name.clone(), cell)
        })
        .collect();
    let around = Circumstances {
        host_ip: GATEWAY_ADDRESS.to_string(),
        start_time: Some(status.start_time.map_or(now, |time| time.0)),
        ..Circumstances::default()
    };
    tracing::debug!(node = kit.events.node(), uid = pod.metadata.uid, "Pod bound");
    Board::new(Arc::clone(pod), cells, around)
}

/// Network and volumes, tried until they stand.
pub(super) async fn ground(kit: &Kit, board: &Board) -> Ground {
    let mut wait = RETRY;
    let lease = loop {
        if let Some(lease) = kit.addresses.take() {
            break lease;
        }
        tokio::time::sleep(RETRY_LONGEST).await;
    };
    let pod = board.pod();
    let spec = pod.spec.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let address = if host_network { GATEWAY_ADDRESS } else { lease.address };
    let hostname: String = spec.hostname.clone().unwrap_or(name).chars().take(63).collect();
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let up = PodUp {
        pod: board.uid().to_owned(),
        index: lease.number,
        address,
        hostname: hostname.clone(),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        host_network,
    };
    while let Err(error) = kit.link.ask(Request::PodUp(up.clone()), Vec::new()).await {
        let text = format!("Failed to create pod sandbox: {error}");
        kit.events.say(&board.reference(None), Tone::Warning, "FailedCreatePodSandBox", &text);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LONGEST);
    }
    board.around(|around| around.pod_ip = Some(address.to_string()));
    let place = Place {
        node: kit.events.node().to_owned(),
        host_ip: GATEWAY_ADDRESS.to_string(),
        pod_ip: address.to_string(),
        cpus: kit.cpus,
        memory_bytes: kit.memory_bytes,
    };
    for field in not_honoured(&spec) {
        let text = format!("{field} has no meaning in the sandbox and is not honoured");
        kit.events.say(&board.reference(None), Tone::Warning, "NotHonoured", &text);
    }
    let mut volumes = Volumes::new(kit.client.clone(), kit.link.clone(), &pod);
    wait = RETRY;
    let mut told = String::new();
    while let Err(error) = volumes.fill(&board.pod(), &place).await {
        let text = error.to_string();
        if text != told {
            kit.events.say(&board.reference(None), Tone::Warning, "FailedMount", &text);
            told = text;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LONGEST);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (hosts, resolv) = (hosts(&spec, address, &hostname, namespace), resolv(&spec, namespace));
    Ground { lease, volumes, place, hostname, hosts, resolv }
}

/// What the Pod asks for and does not get.
fn not_honoured(spec: &PodSpec) -> Vec<&'static str> {
    let mains = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let host_port = mains().flat_map(|container| container.ports.iter().flatten()).any(|port| port.host_port.is_some());
    let devices = mains().any(|container| container.volume_devices.as_ref().is_some_and(|all| !all.is_empty()));
    [
        ("spec.hostPID", spec.host_pid == Some(true)),
        ("spec.hostIPC", spec.host_ipc == Some(true)),
        ("spec.shareProcessNamespace", spec.share_process_namespace == Some(true)),
        ("spec.runtimeClassName", spec.runtime_class_name.is_some()),
        ("hostPort", host_port && spec.host_network != Some(true)),
        ("volumeDevices", devices),
    ]
    .into_iter()
    .filter_map(|(field, asked)| asked.then_some(field))
    .collect()
}

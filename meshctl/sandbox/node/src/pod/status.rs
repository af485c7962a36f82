//! A Pod's status from what its containers do.
//!
//! Pure: phases, conditions and container statuses as the kubelet computes them. Never here: writing it.
//! Called by `worker` whenever something changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::qos;

/// How a container's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Timestamp,
    pub(crate) id: String,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Waiting { reason: String, message: Option<String> },
    Running { since: Timestamp },
    Ended(Ended),
}

/// A container as its Pod's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) state: State,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) id: String,
    pub(crate) image_id: String,
    /// It will not be started again.
    pub(crate) done: bool,
}

impl Cell {
    /// Not begun.
    pub(crate) fn waiting(reason: &str) -> Self {
        Self {
            state: State::Waiting { reason: reason.to_owned(), message: None },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: String::new(),
            image_id: String::new(),
            done: false,
        }
    }

    /// The last run's end, where nothing runs now.
    fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Waiting { .. } => self.last.as_ref(),
            State::Running { .. } => None,
        }
    }

    /// Now, as a run's end.
    pub(crate) fn fail(&mut self, reason: &str, code: i32, now: Timestamp) {
        let started = match self.state {
            State::Running { since } => Some(since),
            State::Waiting { .. } | State::Ended(_) => None,
        };
        let ended = Ended {
            code,
            signal: None,
            reason: reason.to_owned(),
            message: None,
            started,
            finished: now,
            id: self.id.clone(),
        };
        self.state = State::Ended(ended);
        self.ready = false;
        self.started = false;
    }
}

/// All containers of a Pod, by name.
pub(crate) type Cells = BTreeMap<String, Cell>;

/// What else the status says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: String,
    pub(crate) start_time: Option<Timestamp>,
    /// Why the Pod failed as a whole.
    pub(crate) failure: Option<(String, String)>,
}

/// Whether an init container stays beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A container's state for the API.
fn state(state: &State) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
            ..ContainerState::default()
        },
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        State::Ended(end) => ContainerState { terminated: Some(terminated(end)), ..ContainerState::default() },
    }
}

fn terminated(end: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(end.id.clone()).filter(|id| !id.is_empty()),
        exit_code: end.code,
        finished_at: Some(Time(end.finished)),
        message: end.message.clone(),
        reason: Some(end.reason.clone()),
        signal: end.signal,
        started_at: end.started.map(Time),
    }
}

fn container_status(container: &Container, cell: &Cell, init: bool) -> ContainerStatus {
    let last = cell.last.as_ref().map(|end| ContainerState { terminated: Some(terminated(end)), ..Default::default() });
    let done_init = init && matches!(&cell.state, State::Ended(end) if end.code == 0);
    ContainerStatus {
        container_id: Some(cell.id.clone()).filter(|id| !id.is_empty()),
        image: container.image.clone().unwrap_or_default(),
        image_id: cell.image_id.clone(),
        last_state: last,
        name: container.name.clone(),
        ready: if init && !is_sidecar(container) { done_init } else { cell.ready },
        restart_count: cell.restarts,
        started: Some(cell.started),
        state: Some(state(&cell.state)),
        ..ContainerStatus::default()
    }
}

/// Whether all init containers have done their part.
fn initialized(pod: &Pod, cells: &Cells) -> bool {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten()).all(|container| {
        cells.get(&container.name).is_some_and(|cell| {
            if is_sidecar(container) {
                cell.started || cell.done
            } else {
                matches!(&cell.state, State::Ended(end) if end.code == 0)
            }
        })
    })
}

/// The phase, as the kubelet decides it.
pub(crate) fn phase(pod: &Pod, cells: &Cells) -> &'static str {
    let Some(spec) = pod.spec.as_ref() else { return "Pending" };
    let never = spec.restart_policy.as_deref() == Some("Never");
    let on_failure = spec.restart_policy.as_deref() == Some("OnFailure");
    let mains: Vec<&Cell> = spec.containers.iter().filter_map(|container| cells.get(&container.name)).collect();
    let failed_init =
        spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container)).any(|container| {
            cells.get(&container.name).is_some_and(|cell| cell.done && cell.ended().is_some_and(|end| end.code != 0))
        });
    if failed_init && never {
        return "Failed";
    }
    if mains.iter().all(|cell| cell.done && cell.ended().is_some()) && !mains.is_empty() {
        let well = mains.iter().all(|cell| cell.ended().is_some_and(|end| end.code == 0));
        if never || on_failure || mains.iter().all(|cell| cell.done) {
            return if well { "Succeeded" } else { "Failed" };
        }
    }
    let begun = |cell: &Cell| matches!(cell.state, State::Running { .. }) || cell.ended().is_some();
    if initialized(pod, cells) && mains.iter().all(|cell| begun(cell)) { "Running" } else { "Pending" }
}

fn condition(old: &[PodCondition], kind: &str, why_not: Option<(&str, String)>, now: Timestamp) -> PodCondition {
    let status = if why_not.is_none() { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
    let since = before.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(Time(now));
    let (reason, message) = match why_not {
        Some((reason, message)) => (Some(reason.to_owned()), Some(message).filter(|text| !text.is_empty())),
        None => (None, None),
    };
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since),
        reason,
        message,
        ..PodCondition::default()
    }
}

const OURS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The kubelet's own conditions, and those of others as they were.
fn conditions(pod: &Pod, cells: &Cells, around: &Circumstances, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let spec = pod.spec.clone().unwrap_or_default();
    let old_conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let old_conditions: Vec<PodCondition> = old_conditions.cloned().collect();
    let inits: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let cell = |container: &Container| cells.get(&container.name);
    let names = |pick: &dyn Fn(&Container) -> bool, of: &[&Container]| {
        of.iter()
            .filter(|container| pick(container))
            .map(|container| container.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let counted: Vec<&Container> =
        spec.containers.iter().chain(inits.iter().copied().filter(|container| is_sidecar(container))).collect();
    let unready = names(&|container| !cell(container).is_some_and(|cell| cell.ready), &counted);
    let uninit = names(
        &|container| {
            !cell(container)
                .is_some_and(|cell| cell.started || matches!(&cell.state, State::Ended(end) if end.code == 0))
        },
        &inits,
    );
    let not_ready = if phase == "Succeeded" {
        Some(("PodCompleted", String::new()))
    } else if phase == "Failed" {
        Some(("PodFailed", String::new()))
    } else if unready.is_empty() {
        None
    } else {
        Some(("ContainersNotReady", format!("containers with unready status: [{unready}]")))
    };
    let gates = spec.readiness_gates.iter().flatten();
    let shut = gates
        .filter(|gate| !old_conditions.iter().any(|found| found.type_ == gate.condition_type && found.status == "True"))
        .map(|gate| gate.condition_type.clone())
        .collect::<Vec<_>>();
    let ready = not_ready.clone().or_else(|| {
        (!shut.is_empty()).then(|| ("ReadinessGatesNotReady", format!("conditions not true: {}", shut.join(", "))))
    });
    let uninitialized = if phase == "Succeeded" || initialized(pod, cells) {
        None
    } else {
        Some(("ContainersNotInitialized", format!("containers with incomplete status: [{uninit}]")))
    };
    let over = phase == "Succeeded" || phase == "Failed";
    let network = if around.pod_ip.is_some() && !over { None } else { Some(("", String::new())) };
    let mut network = condition(&old_conditions, OURS[0], network, now);
    network.reason = None;
    let mut conditions = vec![
        network,
        condition(&old_conditions, OURS[1], uninitialized, now),
        condition(&old_conditions, OURS[2], ready, now),
        condition(&old_conditions, OURS[3], not_ready, now),
        condition(&old_conditions, OURS[4], None, now),
    ];
    conditions.extend(old_conditions.iter().filter(|condition| !OURS.contains(&condition.type_.as_str())).cloned());
    conditions
}

/// The whole status. `old` is the last one written, for transition times and others' conditions.
pub(crate) fn compute(pod: &Pod, cells: &Cells, around: &Circumstances, now: Timestamp) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let old = pod.status.clone().unwrap_or_default();
    let phase = if around.failure.is_some() { "Failed" } else { phase(pod, cells) };
    let inits: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let cell = |container: &Container| cells.get(&container.name);
    let statuses = |of: &[&Container], init: bool| -> Option<Vec<ContainerStatus>> {
        let all: Vec<_> =
            of.iter().filter_map(|container| Some(container_status(container, cell(container)?, init))).collect();
        (!all.is_empty()).then_some(all)
    };
    PodStatus {
        conditions: Some(conditions(pod, cells, around, phase, now)),
        container_statuses: statuses(&spec.containers.iter().collect::<Vec<_>>(), false),
        init_container_statuses: statuses(&inits, true),
        host_ip: Some(around.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: around.host_ip.clone() }]),
        phase: Some(phase.to_owned()),
        pod_ip: around.pod_ip.clone(),
        pod_ips: around.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        qos_class: old.qos_class.or_else(|| Some(qos::class(&spec.containers, &inits).to_owned())),
        start_time: around.start_time.map(Time),
        reason: around.failure.as_ref().map(|(reason, _)| reason.clone()),
        message: around.failure.as_ref().map(|(_, message)| message.clone()),
        ..PodStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": policy,
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}]}}))
        .unwrap()
    }

    fn running() -> Cell {
        Cell {
            state: State::Running { since: Timestamp::UNIX_EPOCH },
            ready: true,
            started: true,
            ..Cell::waiting("x")
        }
    }

    fn ended(code: i32, done: bool) -> Cell {
        let mut cell = Cell { done, ..running() };
        cell.fail(if code == 0 { "Completed" } else { "Error" }, code, Timestamp::UNIX_EPOCH);
        cell
    }

    fn check(policy: &str, cells: [Cell; 4], expected: &str, ready: bool) {
        let cells: Cells = ["i", "s", "a", "b"].iter().map(|name| (*name).to_owned()).zip(cells).collect();
        let around = Circumstances { pod_ip: Some("198.18.0.2".to_owned()), ..Circumstances::default() };
        let status = compute(&pod(policy), &cells, &around, Timestamp::UNIX_EPOCH);
        let found = status.conditions.unwrap().iter().find(|found| found.type_ == "Ready").unwrap().status == "True";
        assert_eq!((status.phase.as_deref(), found), (Some(expected), ready));
    }

    #[test]
    fn a_pod_is_pending_until_initialized() {
        check(
            "Always",
            [running(), Cell::waiting("PodInitializing"), Cell::waiting("x"), Cell::waiting("x")],
            "Pending",
            false,
        );
    }

    #[test]
    fn a_pod_runs_when_all_have_begun() {
        check("Always", [ended(0, true), running(), running(), running()], "Running", true);
    }

    #[test]
    fn an_unready_sidecar_makes_the_pod_unready() {
        let sidecar = Cell { ready: false, ..running() };
        check("Always", [ended(0, true), sidecar, running(), running()], "Running", false);
    }

    #[test]
    fn a_crash_does_not_end_a_pod_that_restarts() {
        check("Always", [ended(0, true), running(), running(), ended(1, false)], "Running", false);
    }

    #[test]
    fn a_pod_ends_as_its_containers_do() {
        check("Never", [ended(0, true), running(), ended(0, true), ended(0, true)], "Succeeded", false);
        check("Never", [ended(0, true), running(), ended(0, true), ended(3, true)], "Failed", false);
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_never_restarts() {
        check("Never", [ended(1, true), Cell::waiting("x"), Cell::waiting("x"), Cell::waiting("x")], "Failed", false);
    }
}

//! One Pod from binding to deletion: namespaces, volumes, containers in order, status, end.
//!
//! One task a Pod; it owns all of the Pod's other tasks. Never here: how one container runs.
//! Spawned by `node`, which tells it of changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::begin::{self, Ground, containers};
use super::board::Board;
use super::container::{Outcome, Supervised};
use super::env::Place;
use super::kit::{Kit, Lease};
use super::report::{remove, write_once, write_status};
use super::status::{State, is_sidecar};
use super::volumes::{self, Volumes};
use crate::keeper::wire::Request;

/// What a Pod that vanished from the API gets, whatever its own grace.
const GONE_GRACE: Duration = Duration::from_secs(2);
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// What the agent knows of a Pod.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) pod: Arc<Pod>,
    /// No longer in the API.
    pub(crate) gone: bool,
}

/// A container's task and how it is told to stop.
struct Child {
    name: String,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<Outcome>,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    kit: Arc<Kit>,
    board: Arc<Board>,
    place: Place,
    hostname: String,
    hosts: String,
    resolv: String,
    sidecars: Vec<Child>,
    mains: Vec<Child>,
}

/// Runs the Pod until it is gone.
pub(crate) async fn run(kit: Arc<Kit>, mut seen: watch::Receiver<Seen>) {
    let first = seen.borrow_and_update().clone();
    let uid = first.pod.metadata.uid.clone().unwrap_or_default();
    kit.live.begin(&uid, containers(&first.pod).map(|container| container.name.clone()));
    for container in containers(&first.pod) {
        let logs = kit.old_logs(&first.pod, &container.name);
        kit.live.update(&uid, &container.name, |runs| runs.logs = logs.into_iter().map(|path| (None, path)).collect());
    }
    let over = matches!(phase_of(&first.pod), "Succeeded" | "Failed");
    if over || first.gone {
        wait_for_deletion(&mut seen).await;
        kit.live.end(&uid);
        let pod = Arc::clone(&seen.borrow().pod);
        remove(&kit, &pod).await;
        return;
    }
    let board = Arc::new(begin::board(&kit, &first.pod));
    let mut tasks = JoinSet::new();
    tasks.spawn(write_status(Arc::clone(&kit), Arc::clone(&board)));
    tasks.spawn(follow(Arc::clone(&board), seen.clone()));
    let lease = lead(&kit, &board, &mut seen, &mut tasks).await;
    tasks.shutdown().await;
    if let Err(error) = kit.link.ask(Request::PodDown { pod: uid.clone() }, Vec::new()).await {
        tracing::warn!(pod = board.title(), %error, "Pod's network not removed");
    }
    drop(lease);
    let gone = seen.borrow().gone;
    if !gone {
        board.around(|around| around.pod_ip = None);
        write_once(&kit, &board).await;
        wait_for_deletion(&mut seen).await;
    }
    kit.live.end(&uid);
    remove(&kit, &board.pod()).await;
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn spec(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// Keeps the board's object up to date.
async fn follow(board: Arc<Board>, mut seen: watch::Receiver<Seen>) {
    while seen.changed().await.is_ok() {
        let now = seen.borrow_and_update().clone();
        if !now.gone {
            board.set_pod(now.pod);
        }
    }
}

/// When the Pod has to go: its grace, once it is asked to.
async fn deletion(seen: &mut watch::Receiver<Seen>) -> Duration {
    loop {
        {
            let now = seen.borrow_and_update();
            if now.gone {
                return GONE_GRACE;
            }
            let meta = &now.pod.metadata;
            if meta.deletion_timestamp.is_some() {
                let seconds = meta.deletion_grace_period_seconds.unwrap_or(30);
                return Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            }
        }
        if seen.changed().await.is_err() {
            // The agent ends, and the keeper with it.
            return Duration::ZERO;
        }
    }
}

async fn wait_for_deletion(seen: &mut watch::Receiver<Seen>) {
    deletion(seen).await;
}

/// Sets the Pod up and sees its containers through; ends when nothing of it runs any more.
async fn lead(
    kit: &Arc<Kit>,
    board: &Arc<Board>,
    seen: &mut watch::Receiver<Seen>,
    tasks: &mut JoinSet<()>,
) -> Option<Lease> {
    let ground = tokio::select! {
        ground = begin::ground(kit, board) => Some(ground),
        _ = deletion(seen) => None,
    };
    let Ground { lease, volumes, place, hostname, hosts, resolv } = ground?;
    let (kit, board) = (Arc::clone(kit), Arc::clone(board));
    let mut worker = Worker { kit, board, place, hostname, hosts, resolv, sidecars: Vec::new(), mains: Vec::new() };
    tasks.spawn(refresh(volumes, Arc::clone(&worker.board), worker.place.clone()));
    let grace = tokio::select! {
        () = worker.see_through() => None,
        grace = deletion(seen) => Some(grace),
    };
    if let Some(grace) = grace {
        worker.bring_down(Instant::now() + grace, seen).await;
    }
    Some(lease)
}

impl Worker {
    fn child(&self, container: &Container, init: bool) -> Child {
        let (stop, told) = watch::channel(None);
        let supervised = Supervised {
            kit: Arc::clone(&self.kit),
            board: Arc::clone(&self.board),
            container: container.clone(),
            init,
            place: self.place.clone(),
            hosts: self.hosts.clone(),
            resolv: self.resolv.clone(),
            hostname: self.hostname.clone(),
        };
        Child { name: container.name.clone(), stop, task: tokio::spawn(supervised.run(told)) }
    }

    /// Init containers one after the other, then the others together, until all have ended.
    async fn see_through(&mut self) {
        let spec = spec(&self.board.pod());
        for container in spec.init_containers.iter().flatten() {
            if is_sidecar(container) {
                let child = self.child(container, false);
                self.sidecars.push(child);
                self.started(&container.name).await;
                continue;
            }
            // Kept where a deletion finds it, and can tell it to stop.
            self.mains = vec![self.child(container, true)];
            let outcome = self.ended().await;
            if outcome != Outcome::Succeeded {
                self.stop_sidecars(Instant::now() + SIDECAR_GRACE).await;
                return;
            }
        }
        self.mains = spec.containers.iter().map(|container| self.child(container, false)).collect();
        for name in spec.containers.iter().map(|container| &container.name) {
            self.board.cell(name, |cell| {
                if let State::Waiting { reason, .. } = &mut cell.state
                    && reason == "PodInitializing"
                {
                    "ContainerCreating".clone_into(reason);
                }
            });
        }
        self.ended().await;
        self.stop_sidecars(Instant::now() + self.grace()).await;
    }

    fn grace(&self) -> Duration {
        let seconds = spec(&self.board.pod()).termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    async fn started(&self, name: &str) {
        let mut changes = self.board.changes();
        while !self.board.read(name, |cell| cell.started || cell.done).unwrap_or(true) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for all main containers; the worst outcome.
    async fn ended(&mut self) -> Outcome {
        let mut worst = Outcome::Succeeded;
        for child in &mut self.mains {
            match (&mut child.task).await {
                Ok(Outcome::Succeeded) => {}
                Ok(outcome) => worst = outcome,
                Err(error) => {
                    tracing::error!(container = child.name, %error, "container task");
                    worst = Outcome::Failed;
                }
            }
        }
        worst
    }

    async fn stop_sidecars(&mut self, deadline: Instant) {
        while let Some(mut child) = self.sidecars.pop() {
            child.stop.send_replace(Some(deadline));
            if let Err(error) = (&mut child.task).await {
                tracing::error!(container = child.name, %error, "sidecar task");
            }
        }
    }

    /// Main containers first, then sidecars in reverse; a second deletion with less grace shortens it.
    async fn bring_down(&mut self, deadline: Instant, seen: &mut watch::Receiver<Seen>) {
        let mut deadline = deadline;
        loop {
            for child in self.mains.iter().chain(&self.sidecars) {
                let main = self.mains.iter().any(|found| found.name == child.name);
                if main || child.stop.borrow().is_some() {
                    child.stop.send_replace(Some(deadline));
                }
            }
            let down = async {
                for child in &mut self.mains {
                    if !child.task.is_finished()
                        && let Err(error) = (&mut child.task).await
                    {
                        tracing::error!(container = child.name, %error, "container task");
                    }
                }
                while let Some(child) = self.sidecars.last_mut() {
                    child.stop.send_replace(Some(deadline.max(Instant::now() + SIDECAR_GRACE)));
                    if !child.task.is_finished()
                        && let Err(error) = (&mut child.task).await
                    {
                        tracing::error!(container = child.name, %error, "sidecar task");
                    }
                    self.sidecars.pop();
                }
            };
            tokio::select! {
                () = down => return,
                nearer = sooner(seen, deadline) => deadline = nearer,
            }
        }
    }
}

/// A deadline before the present one, once there is one.
async fn sooner(seen: &mut watch::Receiver<Seen>, deadline: Instant) -> Instant {
    loop {
        if seen.changed().await.is_err() {
            return std::future::pending().await;
        }
        let grace = deletion(seen).await;
        let wanted = Instant::now() + grace;
        if wanted < deadline {
            return wanted;
        }
    }
}

/// Files are fetched again now and then, and when the Pod changes.
async fn refresh(mut volumes: Volumes, board: Arc<Board>, place: Place) {
    let mut meta = board.pod().metadata.clone();
    let mut changes = board.changes();
    let mut due = Instant::now() + volumes::REFRESH;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            changed = changes.changed() => {
                if changed.is_err() { return; }
                let pod = board.pod();
                if pod.metadata.labels == meta.labels && pod.metadata.annotations == meta.annotations {
                    continue;
                }
                meta = pod.metadata.clone();
            }
        }
        due = Instant::now() + volumes::REFRESH;
        if let Err(error) = volumes.fill(&board.pod(), &place).await {
            tracing::debug!(pod = board.title(), %error, "volume not refreshed");
        }
    }
}

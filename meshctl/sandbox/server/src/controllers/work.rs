//! Takes tasks from the queue, gathers what each is about, asks its controller and carries out the answer.
//!
//! Several tasks at once, never two about one object. Never here: what a controller decides. Called by `run`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::queue::Task;
use super::resource::Key;
use super::world::World;
use super::write::{Write, WriteError, Writer};
use super::{daemon_set, deployment, endpoints, garbage, job, namespace, replica_set, scheduler};
use crate::limits::TASKS_MAX;

/// What a controller wants.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) writes: Vec<Write>,
    /// Look again after this, whether or not anything changes.
    pub(crate) again_after: Option<Duration>,
}

impl Outcome {
    /// Asks for another look, if none is due earlier.
    pub(crate) fn again(&mut self, after: Duration) {
        self.again_after = Some(self.again_after.map_or(after, |known| known.min(after)));
    }
}

/// Works until told to stop.
pub(crate) async fn run(world: Arc<World>, writer: Writer, stop: CancellationToken) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(error = &error as &dyn std::error::Error, "a controller failed");
                }
            }
            task = world.queue().next(), if running.len() < TASKS_MAX => {
                running.spawn(one(world.clone(), writer.clone(), task));
            }
        }
    }
    running.shutdown().await;
}

async fn one(world: Arc<World>, writer: Writer, task: Task) {
    let done = reconcile(&world, &writer, &task).await;
    match &done {
        Ok(Some(after)) => world.queue().push_after(task.clone(), *after),
        Ok(None) => {}
        // Someone else was quicker, or it went meanwhile: the next look knows.
        Err(error) if matches!(error.code(), Some(404 | 409)) => {}
        Err(error) => {
            tracing::info!(error = error as &dyn std::error::Error, ?task, "a controller's change was refused");
        }
    }
    world.queue().done(task, done.is_ok());
}

async fn reconcile(world: &World, writer: &Writer, task: &Task) -> Result<Option<Duration>, WriteError> {
    let now = Timestamp::now();
    let outcome = match task {
        Task::Deployment(key) => deployment(world, key, now),
        Task::ReplicaSet(key) => replica_set(world, key, now),
        Task::DaemonSet(key) => daemon_set(world, key, now),
        Task::Job(key) => job(world, key, now),
        Task::Endpoints(key) => service(world, key),
        Task::Schedule(key) => schedule(world, key),
        Task::Namespace(name) => return namespace::look(world, writer, name).await.map(|()| None),
        Task::Garbage(uid) => return garbage::look(world, writer, uid).await.map(|()| None),
    };
    writer.all(outcome.writes).await?;
    Ok(outcome.again_after)
}

fn deployment(world: &World, key: &Key, now: Timestamp) -> Outcome {
    let state = world.state();
    let Some(deployment) = state.deployments.get(key) else { return Outcome::default() };
    let sets: Vec<_> = state.replica_sets.within(&key.namespace).cloned().collect();
    let uids = sets.iter().filter_map(|set| set.metadata.uid.as_deref());
    let pods: Vec<_> = uids.flat_map(|uid| state.pods.indexed(uid)).collect();
    drop(state);
    deployment::reconcile(&deployment, &sets, &pods, now)
}

fn replica_set(world: &World, key: &Key, now: Timestamp) -> Outcome {
    let state = world.state();
    let Some(set) = state.replica_sets.get(key) else { return Outcome::default() };
    let own = state.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let orphans = state.pods.within(&key.namespace).filter(|pod| super::pods::controller(&pod.metadata).is_none());
    let orphans: Vec<_> = orphans.cloned().collect();
    drop(state);
    replica_set::reconcile(&set, &own, &orphans, now)
}

fn daemon_set(world: &World, key: &Key, now: Timestamp) -> Outcome {
    let state = world.state();
    let Some(set) = state.daemon_sets.get(key) else { return Outcome::default() };
    let own = state.pods.indexed(set.metadata.uid.as_deref().unwrap_or_default());
    let nodes: Vec<_> = state.nodes.all().cloned().collect();
    drop(state);
    daemon_set::reconcile(&set, &own, &nodes, now)
}

fn job(world: &World, key: &Key, now: Timestamp) -> Outcome {
    let state = world.state();
    let Some(job) = state.jobs.get(key) else { return Outcome::default() };
    let own = state.pods.indexed(job.metadata.uid.as_deref().unwrap_or_default());
    drop(state);
    job::reconcile(&job, &own, now)
}

fn service(world: &World, key: &Key) -> Outcome {
    let state = world.state();
    let service = state.services.get(key);
    let selector = service.as_ref().and_then(|service| service.spec.as_ref()?.selector.clone()).unwrap_or_default();
    let pods: Vec<_> = if selector.is_empty() {
        Vec::new()
    } else {
        let all = state.pods.within(&key.namespace);
        all.filter(|pod| super::world::has_all(pod.metadata.labels.as_ref(), &selector)).cloned().collect()
    };
    let own = endpoints::Own { endpoints: state.endpoints.get(key), slices: state.slices.indexed(&key.to_string()) };
    let nodes: Vec<_> = state.nodes.all().cloned().collect();
    drop(state);
    let writes = endpoints::reconcile(key, service.as_deref(), &pods, &own, &nodes);
    Outcome { writes, again_after: None }
}

fn schedule(world: &World, key: &Key) -> Outcome {
    let state = world.state();
    let Some(pod) = state.pods.get(key) else { return Outcome::default() };
    let nodes: Vec<_> = state.nodes.all().cloned().collect();
    drop(state);
    Outcome { writes: scheduler::reconcile(&pod, &nodes), again_after: None }
}

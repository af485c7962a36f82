//! What keeps a cluster's promises: Deployments get ReplicaSets, those get Pods, Services get endpoints, garbage goes.
//!
//! Plain clients of the API: each controller is a function from what is to what to write, and one queue runs them all.
//! Never here: the server's inside, processes, the mesh. Watch events and the answers to own writes feed one picture of
//! the cluster, so that a reconcile never acts on less than it has itself done. Called by `meshctl up`.

mod daemon_set;
mod deployment;
mod endpoints;
mod event;
mod expire;
mod garbage;
mod inventory;
mod job;
mod namespace;
mod pods;
mod queue;
mod replica_set;
mod resource;
mod scheduler;
mod slices;
mod table;
mod watch;
mod work;
mod world;
mod write;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::queue::Queue;
use self::world::World;
use self::write::Writer;

/// Runs all controllers until told to stop.
pub async fn run(client: kube::Client, stop: CancellationToken) {
    let world = Arc::new(World::new(Arc::new(Queue::new())));
    let (recorder, events) = event::recorder(client.clone());
    let writer = Writer::new(client.clone(), world.clone(), recorder);
    let mut tasks = JoinSet::new();
    tasks.spawn(events);
    tasks.spawn(expire::run(client.clone()));
    tasks.spawn(watch::run(client, world.clone(), stop.clone()));
    tasks.spawn(work::run(world, writer, stop.clone()));
    stop.cancelled().await;
    tasks.shutdown().await;
}

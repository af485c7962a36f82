//! Watches every kind that the server has, those of CRDs as they come, and feeds the picture of the cluster.
//!
//! Never here: what follows from a change (`world` knows). Called by `run`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::discovery::verbs;
use kube::discovery::Discovery;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::resource::{Key, Resource, text};
use super::world::World;
use crate::limits::DEFINITIONS_WAITING_MAX;

/// Watches until told to stop.
pub(crate) async fn run(client: kube::Client, world: Arc<World>, stop: CancellationToken) {
    let (definitions, mut defined) = mpsc::channel(DEFINITIONS_WAITING_MAX);
    let mut watches = JoinSet::new();
    let mut by_kind = Watches::new();
    for resource in served(&client, &stop).await {
        if by_kind.contains_key(&(resource.group.clone(), resource.kind.clone())) {
            continue;
        }
        start(&mut by_kind, &mut watches, &client, &world, &definitions, resource);
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(definition) = defined.recv() => match definition {
                Definition::There(resource) => {
                    start(&mut by_kind, &mut watches, &client, &world, &definitions, resource);
                }
                Definition::Gone { group, kind } => {
                    if let Some((resource, watch)) = by_kind.remove(&(group, kind)) {
                        watch.abort();
                        world.unwatched(&resource);
                    }
                }
            },
            Some(ended) = watches.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(error = &error as &dyn std::error::Error, "a watch failed");
                }
            }
        }
    }
    watches.shutdown().await;
}

/// What a CRD says.
enum Definition {
    There(Resource),
    Gone { group: String, kind: String },
}

type Watches = BTreeMap<(String, String), (Resource, tokio::task::AbortHandle)>;

fn start(
    by_kind: &mut Watches,
    watches: &mut JoinSet<()>,
    client: &kube::Client,
    world: &Arc<World>,
    definitions: &mpsc::Sender<Definition>,
    resource: Resource,
) {
    let name = (resource.group.clone(), resource.kind.clone());
    if by_kind.get(&name).is_some_and(|(known, _)| *known == resource) {
        return;
    }
    if let Some((_, earlier)) = by_kind.remove(&name) {
        earlier.abort();
    }
    let shared = Arc::new(resource.clone());
    world.watched(shared.clone());
    let watch = watches.spawn(watch(client.clone(), world.clone(), definitions.clone(), shared));
    by_kind.insert(name, (resource, watch));
}

/// The kinds that can be listed, watched and deleted; asked until the server answers.
async fn served(client: &kube::Client, stop: &CancellationToken) -> Vec<Resource> {
    loop {
        match Discovery::new(client.clone()).run().await {
            Ok(discovery) => {
                let groups = discovery.groups();
                let kinds = groups.flat_map(|group| group.recommended_resources());
                return kinds
                    .filter(|(_, can)| can.supports_operation(verbs::LIST) && can.supports_operation(verbs::WATCH))
                    .map(|(api, can)| {
                        let namespaced = can.scope == kube::discovery::Scope::Namespaced;
                        Resource::new(&api.api_version, &api.kind, &api.plural, namespaced)
                    })
                    .collect();
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the server's kinds are not known yet");
                tokio::select! {
                    () = stop.cancelled() => return Vec::new(),
                    () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
                }
            }
        }
    }
}

async fn watch(
    client: kube::Client,
    world: Arc<World>,
    definitions: mpsc::Sender<Definition>,
    resource: Arc<Resource>,
) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource.to_api_resource());
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    let is_definition = resource.kind == "CustomResourceDefinition";
    let mut unseen = BTreeSet::new(); // what was known before a list and is not in it
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => unseen = world.known(&resource),
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                unseen.remove(object.metadata.uid.as_deref().unwrap_or_default());
                let object = match serde_json::to_value(object) {
                    Ok(object) => object,
                    Err(_) => continue, // what was read as JSON can be written as JSON
                };
                if is_definition {
                    tell(&definitions, defines(&object)).await;
                }
                world.apply(&resource, object);
            }
            Ok(Event::InitDone) => world.missed(&resource, std::mem::take(&mut unseen).into_iter()),
            Ok(Event::Delete(object)) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                let key = Key::of_meta(&object.metadata);
                if is_definition && let Some(Definition::There(gone)) = defines(&object.data) {
                    tell(&definitions, Some(Definition::Gone { group: gone.group, kind: gone.kind })).await;
                }
                world.forget(&resource, &key, &uid);
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, kind = resource.kind, "a watch begins again");
            }
        }
    }
}

async fn tell(definitions: &mpsc::Sender<Definition>, definition: Option<Definition>) {
    if let Some(definition) = definition
        && definitions.send(definition).await.is_err()
    {
        tracing::debug!("nobody watches new kinds any more");
    }
}

/// The kind a CRD defines, in the version it is stored in.
fn defines(definition: &Value) -> Option<Definition> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let version = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))?;
    let api_version = format!("{}/{}", text(definition, "/spec/group"), text(version, "/name"));
    let (kind, plural) = (text(definition, "/spec/names/kind"), text(definition, "/spec/names/plural"));
    let namespaced = text(definition, "/spec/scope") == "Namespaced";
    Some(Definition::There(Resource::new(&api_version, kind, plural, namespaced)))
}

//! Watches kinds in a cluster: one list and watch per kind, bookmarks on, begun again after every failure.
//!
//! After a new list, what is no longer there is told as deleted, and what did not change is not told again.
//! Never here: which kinds matter. Run by [`super::Source`].

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use api::note::{Note, ObjectRef, Severity};
use api_mesh::object::{Kind, Strictness, from_json};
use api_rt::retry::BackOff;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::watcher::{self, watcher},
};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{Event, Problem, path_and_text};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Which objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only these labels, as a selector.
    pub labels: Option<String>,
    /// Only these fields, as a selector.
    pub fields: Option<String>,
}

impl Selection {
    /// All objects of a kind.
    pub fn of(kind: Kind) -> Self {
        Self { kind, namespace: None, labels: None, fields: None }
    }

    /// Those in one namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Those with these labels.
    #[must_use]
    pub fn labelled(mut self, selector: &str) -> Self {
        self.labels = Some(selector.to_owned());
        self
    }

    /// Those with these fields, for example `metadata.name=istio`.
    #[must_use]
    pub fn with_fields(mut self, selector: &str) -> Self {
        self.fields = Some(selector.to_owned());
        self
    }
}

pub(super) fn watch(client: &Client, selections: Vec<Selection>, events: &mpsc::Sender<Event>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let count = u32::try_from(selections.len()).unwrap_or(u32::MAX);
    let told = Arc::new(Semaphore::new(0));
    for selection in selections {
        let watched = Watched { selection, events: events.clone(), known: HashMap::new(), broken: HashSet::new() };
        tasks.spawn(watched.run(client.clone(), Arc::clone(&told)));
    }
    let events = events.clone();
    tasks.spawn(async move {
        // One permit for each kind of which everything was told.
        let Ok(_all) = told.acquire_many(count).await else { return };
        if events.send(Event::Synced).await.is_err() {
            tracing::debug!("nobody reads the source any more");
        }
    });
    tasks
}

/// Namespace and name.
type Key = (String, String);

struct Watched {
    selection: Selection,
    events: mpsc::Sender<Event>,
    /// Version of each object that was told last.
    known: HashMap<Key, String>,
    /// Objects that cannot be read.
    broken: HashSet<Key>,
}

/// The reader of events has gone.
struct Ended;

impl Watched {
    async fn run(mut self, client: Client, told: Arc<Semaphore>) {
        let kind = self.selection.kind;
        let version = kind.versions().first().copied().unwrap_or_default();
        let gvk = GroupVersionKind::gvk(kind.group(), version, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let api: Api<DynamicObject> = match &self.selection.namespace {
            Some(namespace) if kind.namespaced() => Api::namespaced_with(client, namespace, &resource),
            Some(_) | None => Api::all_with(client, &resource),
        };
        let mut config = watcher::Config::default().page_size(PAGE);
        if let Some(labels) = &self.selection.labels {
            config = config.labels(labels);
        }
        if let Some(fields) = &self.selection.fields {
            config = config.fields(fields);
        }
        let mut stream = watcher(api, config).boxed();
        let mut back_off = BackOff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut listed: Option<HashMap<Key, String>> = None;
        let mut first = Some(told);
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    let wait = back_off.next_wait();
                    if is_absent(&error) {
                        tracing::debug!(kind = kind.name(), again_in = ?wait, "the cluster does not have this kind yet");
                        // Nothing of a kind that does not exist is a complete answer.
                        if let Some(told) = first.take() {
                            told.add_permits(1);
                        }
                    } else {
                        tracing::warn!(kind = kind.name(), %error, again_in = ?wait, "could not watch");
                    }
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            back_off.reset();
            let told = match event {
                watcher::Event::Init => {
                    listed = Some(HashMap::new());
                    Ok(())
                }
                watcher::Event::InitApply(object) => {
                    if let Some(seen) = &mut listed {
                        seen.insert(key(&object), String::new());
                    }
                    self.apply(object).await
                }
                watcher::Event::InitDone => {
                    let told = self.forget_all_but(listed.take().unwrap_or_default()).await;
                    if let Some(first) = first.take() {
                        first.add_permits(1);
                    }
                    told
                }
                watcher::Event::Apply(object) => self.apply(object).await,
                watcher::Event::Delete(object) => self.delete(key(&object)).await,
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended)
    }

    fn reference(&self, key: &Key) -> ObjectRef {
        ObjectRef::new(self.selection.kind.name(), key.0.as_str(), key.1.as_str())
    }

    async fn apply(&mut self, object: DynamicObject) -> Result<(), Ended> {
        let key = key(&object);
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        if self.known.get(&key) == Some(&version) && !version.is_empty() {
            return Ok(());
        }
        self.known.insert(key.clone(), version);
        match from_json(value(self.selection.kind, object), Strictness::Report) {
            Ok((stored, _unknown)) => {
                if self.broken.remove(&key) {
                    self.tell(Event::Mended(self.reference(&key))).await?;
                }
                self.tell(Event::Apply(stored)).await
            }
            Err(error) => {
                self.broken.insert(key.clone());
                let (path, text) = path_and_text(&error);
                let note = Note { severity: Severity::Error, object: self.reference(&key), path, text, code: None };
                self.tell(Event::Broken(Problem { place: None, note })).await
            }
        }
    }

    async fn delete(&mut self, key: Key) -> Result<(), Ended> {
        self.known.remove(&key);
        self.broken.remove(&key);
        self.tell(Event::Delete(self.reference(&key))).await
    }

    async fn forget_all_but(&mut self, listed: HashMap<Key, String>) -> Result<(), Ended> {
        let gone: Vec<Key> = self.known.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
        for key in gone {
            self.delete(key).await?;
        }
        Ok(())
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default())
}

/// The object as JSON, without what only the API server needs.
fn value(kind: Kind, object: DynamicObject) -> Value {
    let DynamicObject { types: _, mut metadata, data } = object;
    metadata.managed_fields = None;
    let mut whole = if let Value::Object(fields) = data { fields } else { serde_json::Map::new() };
    whole.insert("apiVersion".into(), kind.api_version().into());
    whole.insert("kind".into(), kind.name().into());
    whole.insert("metadata".into(), serde_json::to_value(metadata).unwrap_or_default());
    Value::Object(whole)
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            crate::client::is_not_found(error)
        }
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::WatchFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

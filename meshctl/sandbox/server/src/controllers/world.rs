//! The cluster as the controllers see it, and who must look when something changes.
//!
//! Fed by watches and by the answers to own writes; older news never replaces newer.
//! Never here: decisions; each change only names the tasks it concerns. Called by `watch`, `write` and `work`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::inventory::{Inventory, Thing};
use super::pods;
use super::queue::{Queue, Task};
use super::resource::{Key, Resource, text};
use super::table::Table;

/// The label that names the Service of a slice.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The ConfigMap with the cluster's root certificate; the one in `kube-system` is copied everywhere.
pub(crate) const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
/// The namespace of the cluster's own things.
pub(crate) const SYSTEM: &str = "kube-system";

pub(crate) struct World {
    state: Mutex<State>,
    queue: Arc<Queue>,
}

/// Everything known.
pub(crate) struct State {
    pub(crate) deployments: Table<Deployment>,
    /// By uid of the owner that manages them.
    pub(crate) replica_sets: Table<ReplicaSet>,
    pub(crate) daemon_sets: Table<DaemonSet>,
    pub(crate) jobs: Table<Job>,
    /// By uid of the owner that manages them.
    pub(crate) pods: Table<Pod>,
    pub(crate) services: Table<Service>,
    pub(crate) endpoints: Table<Endpoints>,
    /// By `namespace/service`.
    pub(crate) slices: Table<EndpointSlice>,
    pub(crate) namespaces: Table<Namespace>,
    pub(crate) nodes: Table<Node>,
    pub(crate) inventory: Inventory,
    /// Kinds that are watched, by group and kind.
    pub(crate) resources: BTreeMap<(String, String), Arc<Resource>>,
    /// What `kube-root-ca.crt` is to hold, and in which namespaces it does.
    pub(crate) root_certificate: Option<String>,
    pub(crate) certified: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        let state = State {
            deployments: Table::new(|_| None),
            replica_sets: Table::new(|set: &ReplicaSet| manager(&set.metadata)),
            daemon_sets: Table::new(|_| None),
            jobs: Table::new(|_| None),
            pods: Table::new(|pod: &Pod| manager(&pod.metadata)),
            services: Table::new(|_| None),
            endpoints: Table::new(|_| None),
            slices: Table::new(|slice: &EndpointSlice| service_of(slice).map(|key| key.to_string())),
            namespaces: Table::new(|_| None),
            nodes: Table::new(|_| None),
            inventory: Inventory::default(),
            resources: BTreeMap::new(),
            root_certificate: None,
            certified: BTreeSet::new(),
        };
        Self { state: Mutex::new(state), queue }
    }

    /// The picture; held for a moment, never across a wait.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// A kind is watched from now on.
    pub(crate) fn watched(&self, resource: Arc<Resource>) {
        let name = (resource.group.clone(), resource.kind.clone());
        self.state().resources.insert(name, resource);
    }

    /// A kind is served no more, and its objects are gone with it.
    pub(crate) fn unwatched(&self, resource: &Resource) {
        self.state().resources.remove(&(resource.group.clone(), resource.kind.clone()));
        self.missed(resource, self.known(resource).into_iter());
    }

    /// An object is like this now.
    pub(crate) fn apply(&self, resource: &Arc<Resource>, object: Value) {
        let Some(meta) = object.get("metadata").and_then(|meta| ObjectMeta::deserialize(meta).ok()) else { return };
        let Some(thing) = Thing::of(resource.clone(), &meta) else { return };
        let mut tasks = Vec::new();
        let mut state = self.state();
        if state.inventory.is_gone(&thing.uid) {
            return;
        }
        let uid = thing.uid.clone();
        if state.inventory.put(thing) {
            tasks.push(Task::Garbage(uid));
        }
        state.apply_typed(resource, object, &mut tasks);
        drop(state);
        tasks.into_iter().for_each(|task| self.queue.push(task));
    }

    /// An object is gone.
    pub(crate) fn forget(&self, resource: &Resource, key: &Key, uid: &str) {
        let mut tasks = Vec::new();
        let mut state = self.state();
        if let Some(thing) = state.inventory.remove(uid) {
            tasks.extend(state.inventory.dependents(uid).map(|thing| Task::Garbage(thing.uid.clone())));
            tasks.extend(thing.owners.into_iter().map(|owner| Task::Garbage(owner.uid)));
        }
        state.forget_typed(resource, key, uid, &mut tasks);
        drop(state);
        tasks.into_iter().for_each(|task| self.queue.push(task));
    }

    /// The uids of a kind that are known now.
    pub(crate) fn known(&self, resource: &Resource) -> BTreeSet<String> {
        self.state().inventory.of_kind(resource)
    }

    /// These went while nobody watched.
    pub(crate) fn missed(&self, resource: &Resource, uids: impl Iterator<Item = String>) {
        for uid in uids {
            let key = self.state().inventory.get(&uid).map(|thing| thing.key.clone());
            if let Some(key) = key {
                self.forget(resource, &key, &uid);
            }
        }
    }
}

fn manager(meta: &ObjectMeta) -> Option<String> {
    pods::controller(meta).map(|owner| owner.uid.clone())
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// Takes an object into its table; its earlier form, and itself where it is news.
fn put<K>(table: &mut Table<K>, object: Value) -> Option<(Option<Arc<K>>, Arc<K>)>
where
    K: DeserializeOwned + kube::Resource,
{
    let object: Arc<K> = match serde_json::from_value(object) {
        Ok(object) => Arc::new(object),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an object of a built-in kind could not be read");
            return None;
        }
    };
    let before = table.get(&Key::of(&*object));
    table.put(object.clone()).then_some((before, object))
}

/// Takes an object out if it is the one of that uid.
fn take<K: kube::Resource>(table: &mut Table<K>, key: &Key, uid: &str) -> Option<Arc<K>> {
    let known = table.get(key)?;
    (known.meta().uid.as_deref() == Some(uid)).then(|| table.remove(key)).flatten()
}

impl State {
    /// A kind that is watched, whichever of its versions is named.
    pub(crate) fn resource(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.resources.get(&(group.to_owned(), kind.to_owned())).cloned()
    }

    fn apply_typed(&mut self, resource: &Resource, object: Value, tasks: &mut Vec<Task>) {
        let key = Key::new(text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("apps", "Deployment") => tasks.extend(put(&mut self.deployments, object).map(|_| Task::Deployment(key))),
            ("apps", "DaemonSet") => tasks.extend(put(&mut self.daemon_sets, object).map(|_| Task::DaemonSet(key))),
            ("batch", "Job") => tasks.extend(put(&mut self.jobs, object).map(|_| Task::Job(key))),
            ("apps", "ReplicaSet") => {
                if let Some((_, set)) = put(&mut self.replica_sets, object) {
                    tasks.push(Task::ReplicaSet(key));
                    self.tell_deployments(&set, tasks);
                }
            }
            ("", "Pod") => {
                if let Some((before, pod)) = put(&mut self.pods, object) {
                    self.pod_changed(before.as_deref(), tasks);
                    self.pod_changed(Some(&pod), tasks);
                    if waits_for_node(&pod) {
                        tasks.push(Task::Schedule(key));
                    }
                }
            }
            ("", "Service") => tasks.extend(put(&mut self.services, object).map(|_| Task::Endpoints(key))),
            ("", "Endpoints") => tasks.extend(put(&mut self.endpoints, object).map(|_| Task::Endpoints(key))),
            ("discovery.k8s.io", "EndpointSlice") => {
                if let Some((before, slice)) = put(&mut self.slices, object) {
                    tasks.extend(before.as_deref().and_then(service_of).map(Task::Endpoints));
                    tasks.extend(service_of(&slice).map(Task::Endpoints));
                }
            }
            ("", "Namespace") => tasks.extend(put(&mut self.namespaces, object).map(|_| Task::Namespace(key.name))),
            ("", "Node") => {
                let news = put(&mut self.nodes, object);
                news.into_iter().for_each(|_| self.node_changed(tasks));
            }
            ("", "ConfigMap") if key.name == ROOT_CERTIFICATE => self.certificate_changed(&key, &object, tasks),
            _ => {}
        }
    }

    fn forget_typed(&mut self, resource: &Resource, key: &Key, uid: &str, tasks: &mut Vec<Task>) {
        let ending = |state: &Self| {
            let namespace = state.namespaces.get(&Key::new("", key.namespace.as_str()));
            namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        };
        if !key.namespace.is_empty() && ending(self) {
            tasks.push(Task::Namespace(key.namespace.clone()));
        }
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("apps", "Deployment") => drop(take(&mut self.deployments, key, uid)),
            ("apps", "DaemonSet") => drop(take(&mut self.daemon_sets, key, uid)),
            ("batch", "Job") => drop(take(&mut self.jobs, key, uid)),
            ("apps", "ReplicaSet") => {
                if let Some(set) = take(&mut self.replica_sets, key, uid) {
                    self.tell_deployments(&set, tasks);
                }
            }
            ("", "Pod") => {
                let pod = take(&mut self.pods, key, uid);
                self.pod_changed(pod.as_deref(), tasks);
            }
            ("", "Service") => {
                take(&mut self.services, key, uid);
                tasks.push(Task::Endpoints(key.clone()));
            }
            ("", "Endpoints") => {
                take(&mut self.endpoints, key, uid);
                tasks.push(Task::Endpoints(key.clone()));
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                let slice = take(&mut self.slices, key, uid);
                tasks.extend(slice.as_deref().and_then(service_of).map(Task::Endpoints));
            }
            ("", "Namespace") => drop(take(&mut self.namespaces, &Key::new("", key.name.as_str()), uid)),
            ("", "Node") => {
                take(&mut self.nodes, key, uid);
                self.node_changed(tasks);
            }
            ("", "ConfigMap") if key.name == ROOT_CERTIFICATE => {
                self.certified.remove(&key.namespace);
                tasks.push(Task::Namespace(key.namespace.clone()));
            }
            ("", "ServiceAccount") if key.name == "default" => tasks.push(Task::Namespace(key.namespace.clone())),
            _ => {}
        }
    }

    fn tell_deployments(&self, set: &ReplicaSet, tasks: &mut Vec<Task>) {
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        if let Some(owner) = pods::controller(&set.metadata) {
            tasks.push(Task::Deployment(Key::new(namespace, owner.name.clone())));
            return;
        }
        let matching = self
            .deployments
            .within(&namespace)
            .filter(|d| d.spec.as_ref().is_some_and(|s| pods::selects(&s.selector, set.metadata.labels.as_ref())));
        tasks.extend(matching.map(|deployment| Task::Deployment(Key::of(&**deployment))));
    }

    fn pod_changed(&self, pod: Option<&Pod>, tasks: &mut Vec<Task>) {
        let Some(pod) = pod else { return };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref();
        if let Some(owner) = pods::controller(&pod.metadata) {
            let key = Key::new(namespace.as_str(), owner.name.as_str());
            match owner.kind.as_str() {
                "ReplicaSet" => tasks.push(Task::ReplicaSet(key)),
                "DaemonSet" => tasks.push(Task::DaemonSet(key)),
                "Job" => tasks.push(Task::Job(key)),
                _ => {}
            }
        } else {
            let matching = self
                .replica_sets
                .within(&namespace)
                .filter(|set| set.spec.as_ref().is_some_and(|spec| pods::selects(&spec.selector, labels)));
            tasks.extend(matching.map(|set| Task::ReplicaSet(Key::of(&**set))));
        }
        let selecting = self.services.within(&namespace).filter(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| has_all(labels, selector))
        });
        tasks.extend(selecting.map(|service| Task::Endpoints(Key::of(&**service))));
    }

    fn node_changed(&self, tasks: &mut Vec<Task>) {
        tasks.extend(self.daemon_sets.all().map(|set| Task::DaemonSet(Key::of(&**set))));
        let waiting = self.pods.all().filter(|pod| waits_for_node(pod));
        tasks.extend(waiting.map(|pod| Task::Schedule(Key::of(&**pod))));
    }

    fn certificate_changed(&mut self, key: &Key, object: &Value, tasks: &mut Vec<Task>) {
        let certificate = text(object, "/data/ca.crt").to_owned();
        if key.namespace == SYSTEM && self.root_certificate.as_ref() != Some(&certificate) {
            self.root_certificate = Some(certificate.clone());
            self.certified.clear();
            tasks.extend(self.namespaces.all().map(|namespace| Task::Namespace(Key::of(&**namespace).name)));
        }
        if self.root_certificate.as_ref() == Some(&certificate) {
            self.certified.insert(key.namespace.clone());
        } else {
            self.certified.remove(&key.namespace);
            tasks.push(Task::Namespace(key.namespace.clone()));
        }
    }
}

/// Whether it still has to be bound to a node.
fn waits_for_node(pod: &Pod) -> bool {
    let unbound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().is_none_or(str::is_empty));
    unbound && pods::active(pod)
}

/// Whether labels have all these values.
pub(crate) fn has_all(labels: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> bool {
    !wanted.is_empty()
        && labels.is_some_and(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

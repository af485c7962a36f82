//! All models of a mesh, kept up to date one object at a time.
//!
//! A routing object that turns bad keeps its last good version; a note says so. Guards (security kinds) take effect
//! even where they are bad: what they select denies.
//! Never here: what the objects mean together. Filled by pilot's store and by `meshctl`, read by `mesh::resolve`.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use api::note::{Notes, ObjectRef};

use super::{
    AuthorizationPolicy, Model, WorkloadEntry,
    base::{Shared, selects},
    mesh_config::MeshConfig,
    parse,
    rule::{DestinationRule, Gateway, Guard, PeerAuthentication, ServiceEntry, TlsSecret, VirtualService},
    service::Service,
    workload::{Place, Pod, Slice},
};
use crate::object::Stored;

/// What the mesh is told once, when the control plane starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Namespace whose policies hold everywhere: `istio-system` (MeshConfig `rootNamespace` beats it).
    pub root_namespace: String,
    /// Domain of the cluster's services: `cluster.local`.
    pub domain: String,
    /// Id of this cluster: `Kubernetes`.
    pub cluster_id: String,
    /// Name of the ConfigMap in the root namespace that holds MeshConfig: `istio`.
    pub mesh_config_map: String,
    /// Whether proxies serve HTTP/1.0: no (Istio's `PILOT_HTTP10`).
    pub http10: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            domain: "cluster.local".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            mesh_config_map: "istio".to_owned(),
            http10: false,
        }
    }
}

/// Names one service: its host and the namespace of the object that declares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Full host: `reviews.default.svc.cluster.local`.
    pub host: Arc<str>,
    /// Namespace of the Service or ServiceEntry.
    pub namespace: Arc<str>,
}

/// What applying an object changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing a proxy could see.
    Nothing,
    /// Only addresses of these services (maybe none of them yet): `Mesh::with_endpoints` is enough.
    Endpoints(BTreeSet<ServiceId>),
    /// Something else: resolve again.
    Everything,
}

/// All models of a mesh.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub(crate) settings: Settings,
    pub(crate) mesh_config: Shared<MeshConfig>,
    pub(crate) virtual_services: BTreeMap<ObjectRef, Shared<VirtualService>>,
    pub(crate) destination_rules: BTreeMap<ObjectRef, Shared<DestinationRule>>,
    pub(crate) gateways: BTreeMap<ObjectRef, Shared<Gateway>>,
    pub(crate) service_entries: BTreeMap<ObjectRef, Shared<ServiceEntry>>,
    pub(crate) workload_entries: BTreeMap<ObjectRef, Shared<WorkloadEntry>>,
    pub(crate) peer_authentications: BTreeMap<ObjectRef, Shared<PeerAuthentication>>,
    pub(crate) authorization_policies: BTreeMap<ObjectRef, Shared<AuthorizationPolicy>>,
    pub(crate) guards: BTreeMap<ObjectRef, Shared<Guard>>,
    pub(crate) services: BTreeMap<ObjectRef, Shared<Service>>,
    pub(crate) pods: Arc<BTreeMap<ObjectRef, Arc<Pod>>>,
    pub(crate) nodes: BTreeMap<String, Arc<Place>>,
    pub(crate) secrets: BTreeMap<ObjectRef, Shared<TlsSecret>>,
    slices: BTreeMap<ObjectRef, BTreeMap<String, Shared<Slice>>>,
    old_endpoints: BTreeMap<ObjectRef, Shared<Vec<Slice>>>,
    slice_owner: BTreeMap<ObjectRef, ObjectRef>,
    /// Services whose slices name an address: who is touched when its Pod changes.
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectRef>>,
    pods_by_address: BTreeMap<IpAddr, Arc<Pod>>,
    notes: BTreeMap<ObjectRef, Notes>,
}

/// Puts a model in place; tells whether anything changed.
fn put<T: Hash + PartialEq>(table: &mut BTreeMap<ObjectRef, Shared<T>>, object: ObjectRef, model: T) -> Change {
    let new = Shared::new(model);
    match table.get(&object) {
        Some(old) if *old == new => Change::Nothing,
        _ => {
            table.insert(object, new);
            Change::Everything
        }
    }
}

fn gone<T>(removed: Option<T>) -> Change {
    removed.map_or(Change::Nothing, |_| Change::Everything)
}

impl Catalog {
    /// Nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// What the mesh was told at start.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes an object that was created or changed.
    pub fn apply(&mut self, stored: &Stored) -> Change {
        let object = stored.reference();
        let mut notes = Notes::new();
        let model = parse(stored, &self.settings, &mut notes);
        let change = match model {
            Some(model) => self.put(&object, model),
            None => {
                if self.holds(&object) {
                    notes.warn(&object, "", "its last good version stays in force");
                }
                Change::Nothing
            }
        };
        if notes.is_empty() {
            self.notes.remove(&object);
        } else {
            self.notes.insert(object, notes);
        }
        change
    }

    /// Forgets an object.
    pub fn delete(&mut self, object: &ObjectRef) -> Change {
        self.notes.remove(object);
        match object.kind.as_str() {
            "VirtualService" => gone(self.virtual_services.remove(object)),
            "DestinationRule" => gone(self.destination_rules.remove(object)),
            "Gateway" => gone(self.gateways.remove(object)),
            "ServiceEntry" => gone(self.service_entries.remove(object)),
            "PeerAuthentication" => gone(self.peer_authentications.remove(object)),
            "AuthorizationPolicy" => gone(self.authorization_policies.remove(object)),
            "Service" => gone(self.services.remove(object)),
            "Secret" => gone(self.secrets.remove(object)),
            "Node" => gone(self.nodes.remove(&object.name)),
            "WorkloadEntry" => match self.workload_entries.remove(object) {
                Some(old) => self.selected_by_entries(&object.namespace, &[&old.outside.labels]),
                None => Change::Nothing,
            },
            "Pod" => self.put_pod(object, None),
            "EndpointSlice" => self.put_slice(object, None),
            "Endpoints" => self.put_old_endpoints(object, Vec::new()),
            "ConfigMap" if self.is_mesh_config(object) => self.put_mesh_config(MeshConfig::default()),
            _ => gone(self.guards.remove(object)),
        }
    }

    /// What there is to say about single objects; `mesh::resolve` adds what they say about each other.
    pub fn notes(&self) -> Notes {
        let mut all = Notes::new();
        for notes in self.notes.values() {
            all.extend(notes.clone());
        }
        all
    }

    /// What there is to say about one object alone.
    pub fn notes_of(&self, object: &ObjectRef) -> Option<&Notes> {
        self.notes.get(object)
    }

    fn is_mesh_config(&self, object: &ObjectRef) -> bool {
        object.namespace == self.settings.root_namespace && object.name == self.settings.mesh_config_map
    }

    fn holds(&self, object: &ObjectRef) -> bool {
        self.virtual_services.contains_key(object)
            || self.destination_rules.contains_key(object)
            || self.gateways.contains_key(object)
            || self.service_entries.contains_key(object)
            || self.workload_entries.contains_key(object)
            || self.is_mesh_config(object)
    }

    fn put(&mut self, object: &ObjectRef, model: Model) -> Change {
        let name = object.clone();
        match model {
            Model::VirtualService(model) => put(&mut self.virtual_services, name, model),
            Model::DestinationRule(model) => put(&mut self.destination_rules, name, model),
            Model::Gateway(model) => put(&mut self.gateways, name, model),
            Model::ServiceEntry(model) => put(&mut self.service_entries, name, model),
            Model::PeerAuthentication(model) => put(&mut self.peer_authentications, name, model),
            Model::AuthorizationPolicy(model) => put(&mut self.authorization_policies, name, model),
            Model::Guard(model) => put(&mut self.guards, name, model),
            Model::Unguarded => match self.authorization_policies.remove(object) {
                None => gone(self.guards.remove(object)),
                known => gone(known),
            },
            Model::Service(model) => put(&mut self.services, name, model),
            Model::Secret(Some(model)) => put(&mut self.secrets, name, model),
            Model::Secret(None) => gone(self.secrets.remove(object)),
            Model::WorkloadEntry(model) => self.put_workload_entry(object, model),
            Model::Pod(model) => self.put_pod(object, Some(model)),
            Model::Node(place) => {
                let place = Arc::new(place);
                let same = self.nodes.get(&object.name) == Some(&place);
                let empty = *place == Place::default() && !self.nodes.contains_key(&object.name);
                self.nodes.insert(name.name, place);
                if same || empty { Change::Nothing } else { Change::Everything }
            }
            Model::Slice(service, model) => self.put_slice(object, Some((service, model))),
            Model::Endpoints(model) => self.put_old_endpoints(object, model),
            Model::MeshConfig(model) => self.put_mesh_config(*model),
            Model::Nothing => Change::Nothing,
        }
    }

    fn put_mesh_config(&mut self, model: MeshConfig) -> Change {
        let new = Shared::new(model);
        if self.mesh_config == new {
            return Change::Nothing;
        }
        self.mesh_config = new;
        Change::Everything
    }

    fn put_workload_entry(&mut self, object: &ObjectRef, model: WorkloadEntry) -> Change {
        let old = self.workload_entries.get(object).cloned();
        let new_labels = Arc::clone(&model.outside.labels);
        match put(&mut self.workload_entries, object.clone(), model) {
            Change::Nothing => Change::Nothing,
            Change::Endpoints(_) | Change::Everything => {
                let old_labels = old.map(|old| Arc::clone(&old.outside.labels));
                let labels: Vec<_> = old_labels.iter().chain([&new_labels]).collect();
                self.selected_by_entries(&object.namespace, &labels)
            }
        }
    }

    /// Services of the ServiceEntries that select workloads with any of these labels.
    fn selected_by_entries(&self, namespace: &str, labels: &[&Arc<super::base::Labels>]) -> Change {
        let mut touched = BTreeSet::new();
        for entry in self.service_entries.values().filter(|entry| entry.meta.namespace() == namespace) {
            let Some(selector) = &entry.selector else { continue };
            if labels.iter().any(|labels| selects(selector, labels)) {
                touched.extend(entry.services.iter().map(|service| service.id.clone()));
            }
        }
        Change::Endpoints(touched)
    }

    fn put_pod(&mut self, object: &ObjectRef, new: Option<Pod>) -> Change {
        let old = self.pods.get(object).cloned();
        let new = new.map(Arc::new);
        if old == new {
            return Change::Nothing;
        }
        let pods = Arc::make_mut(&mut self.pods);
        for address in old.iter().flat_map(|pod| &pod.addresses) {
            if self.pods_by_address.get(address) == old.as_ref() {
                self.pods_by_address.remove(address);
            }
        }
        match &new {
            Some(pod) => {
                for address in pod.addresses.iter().filter(|_| !pod.host_network) {
                    self.pods_by_address.insert(*address, Arc::clone(pod));
                }
                pods.insert(object.clone(), Arc::clone(pod));
            }
            None => {
                pods.remove(object);
            }
        }
        let both: Vec<&Arc<Pod>> = old.iter().chain(&new).collect();
        let labels: Vec<_> = both.iter().map(|pod| &pod.labels).collect();
        let mut touched = match self.selected_by_entries(&object.namespace, &labels) {
            Change::Endpoints(touched) => touched,
            Change::Nothing | Change::Everything => BTreeSet::new(),
        };
        for address in both.iter().flat_map(|pod| &pod.addresses) {
            for service in self.by_address.get(address).into_iter().flatten() {
                touched.extend(self.services.get(service).map(|service| service.id.clone()));
            }
        }
        Change::Endpoints(touched)
    }

    fn put_slice(&mut self, object: &ObjectRef, new: Option<(String, Slice)>) -> Change {
        let mut touched = BTreeSet::new();
        let owner =
            new.as_ref().map(|(service, _)| ObjectRef::new("Service", object.namespace.clone(), service.clone()));
        if let Some(before) = self.slice_owner.get(object).cloned()
            && owner.as_ref() != Some(&before)
        {
            self.unindex_addresses(&before);
            self.slice_owner.remove(object);
            if let Some(slices) = self.slices.get_mut(&before) {
                slices.remove(&object.name);
                if slices.is_empty() {
                    self.slices.remove(&before);
                }
            }
            self.index_addresses(&before);
            touched.insert(before);
        }
        if let (Some(owner), Some((_, slice))) = (owner, new) {
            let slice = Shared::new(slice);
            let known = self.slices.get(&owner).and_then(|slices| slices.get(&object.name));
            if known != Some(&slice) {
                self.unindex_addresses(&owner);
                self.slices.entry(owner.clone()).or_default().insert(object.name.clone(), slice);
                self.slice_owner.insert(object.clone(), owner.clone());
                self.index_addresses(&owner);
                touched.insert(owner);
            }
        }
        self.endpoints_of(&touched)
    }

    fn put_old_endpoints(&mut self, object: &ObjectRef, new: Vec<Slice>) -> Change {
        let owner = ObjectRef::new("Service", object.namespace.clone(), object.name.clone());
        let before = self.old_endpoints.get(&owner).cloned();
        self.unindex_addresses(&owner);
        if new.is_empty() {
            self.old_endpoints.remove(&owner);
        } else {
            self.old_endpoints.insert(owner.clone(), Shared::new(new));
        }
        self.index_addresses(&owner);
        if before.as_ref() == self.old_endpoints.get(&owner) {
            return Change::Nothing;
        }
        self.endpoints_of(&BTreeSet::from([owner]))
    }

    fn endpoints_of(&self, services: &BTreeSet<ObjectRef>) -> Change {
        let known: BTreeSet<ServiceId> =
            services.iter().filter_map(|object| Some(self.services.get(object)?.id.clone())).collect();
        if known.is_empty() { Change::Nothing } else { Change::Endpoints(known) }
    }

    fn addresses_of(&self, service: &ObjectRef) -> Vec<IpAddr> {
        self.slices_of(service).flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.ip).collect()
    }

    fn unindex_addresses(&mut self, service: &ObjectRef) {
        for address in self.addresses_of(service) {
            if let Some(services) = self.by_address.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    fn index_addresses(&mut self, service: &ObjectRef) {
        for address in self.addresses_of(service) {
            self.by_address.entry(address).or_default().insert(service.clone());
        }
    }

    /// Endpoints of a Service; slices beat the old form.
    pub(crate) fn slices_of(&self, service: &ObjectRef) -> impl Iterator<Item = &Slice> {
        let slices = self.slices.get(service);
        let old = if slices.is_some() { None } else { self.old_endpoints.get(service) };
        slices.into_iter().flat_map(BTreeMap::values).map(|s| &**s).chain(old.into_iter().flat_map(|s| s.iter()))
    }

    /// The Pod behind an address of a slice.
    pub(crate) fn pod_behind(&self, namespace: &str, name: Option<&str>, address: IpAddr) -> Option<&Arc<Pod>> {
        let by_address = self.pods_by_address.get(&address);
        match (by_address, name) {
            (Some(pod), None) => Some(pod),
            (Some(pod), Some(name)) if pod.name == name && pod.namespace == namespace => Some(pod),
            (_, Some(name)) => self.pods.get(&ObjectRef::new("Pod", namespace, name)).or(by_address),
            (None, None) => None,
        }
    }
}

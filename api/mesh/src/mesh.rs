//! What the objects of a mesh mean together, and what each proxy is told of it.
//!
//! `resolve` makes an immutable snapshot; `view` names what one proxy gets; `build` makes one resource, from the snapshot
//! and the key alone, so that proxies with equal keys share it.
//! Never here: parsing of single objects, wire formats. Called by pilot and `meshctl`.

mod analysis;
mod authorization;
mod build;
mod cluster;
mod difference;
mod endpoint;
mod gateway;
mod http_route;
mod inbound;
mod key;
mod outbound;
mod peer;
mod routes;
mod routing;
mod rules;
mod services;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    note::{Notes, ObjectRef},
    spec::{HostName, Node, Resource, ResourceKind, Spec, VirtualHost},
};

use authorization::Policies;
pub use build::build;
pub use difference::Difference;
use endpoint::ServiceEndpoints;
pub use key::{Key, KeySet, Keys, Scope};
use peer::Peers;
use routing::Routing;
use rules::Rules;
use services::Services;
pub use view::{outbound, own, scope, view, view_with};

use crate::model::{Catalog, Gateway, Labels, MeshConfig, Pod, Resolution, ServiceId, Settings, Shared, TlsSecret};

/// An immutable snapshot of the mesh; cheap to clone: each part is shared with the snapshots before and after it where
/// nothing changed.
#[derive(Debug, Clone)]
pub struct Mesh {
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: Shared<MeshConfig>,
    /// Namespace whose policies hold everywhere.
    pub(crate) root: Arc<str>,
    pub(crate) services: Arc<Services>,
    endpoints: Arc<BTreeMap<ServiceId, Arc<ServiceEndpoints>>>,
    pub(crate) pods: Arc<BTreeMap<ObjectRef, Arc<Pod>>>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) gateways: Arc<Vec<Shared<Gateway>>>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) secrets: Arc<BTreeMap<ObjectRef, Shared<TlsSecret>>>,
    /// Labels that rules ask of clients: what of a client's labels matters at all.
    pub(crate) client_selectors: Arc<BTreeSet<Arc<Labels>>>,
}

/// Makes a snapshot of all models, and says what does not fit together. The notes hold those of single objects too.
pub fn resolve(catalog: &Catalog) -> (Mesh, Notes) {
    let config = catalog.mesh_config.clone();
    let root: Arc<str> = config.root_namespace.as_deref().unwrap_or(&catalog.settings.root_namespace).into();
    let services = Services::of(catalog);
    let endpoints =
        services.iter().map(|service| (service.id.clone(), Arc::new(endpoint::gather(catalog, service)))).collect();
    let routing = Routing::of(catalog);
    let rules = Rules::of(catalog);
    let mut gateways: Vec<Shared<Gateway>> = catalog.gateways.values().cloned().collect();
    gateways.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    let client_selectors = routing.client_selectors().chain(rules.client_selectors()).collect();
    let mesh = Mesh {
        settings: Arc::new(catalog.settings.clone()),
        peers: Arc::new(Peers::of(catalog, &root)),
        policies: Arc::new(Policies::of(catalog)),
        config,
        root,
        services: Arc::new(services),
        endpoints: Arc::new(endpoints),
        pods: Arc::clone(&catalog.pods),
        routing: Arc::new(routing),
        rules: Arc::new(rules),
        gateways: Arc::new(gateways),
        secrets: Arc::new(catalog.secrets.clone()),
        client_selectors: Arc::new(client_selectors),
    };
    let mut notes = catalog.notes();
    notes.extend(analysis::notes(&mesh, catalog));
    (mesh, notes)
}

impl Mesh {
    /// The same mesh with the addresses of these services taken anew: the short lane for endpoint changes.
    #[must_use]
    pub fn with_endpoints(&self, catalog: &Catalog, services: &BTreeSet<ServiceId>) -> Self {
        let mut mesh = self.clone();
        let known = Arc::make_mut(&mut mesh.endpoints);
        for id in services {
            if let Some(service) = self.services.get(id) {
                known.insert(id.clone(), Arc::new(endpoint::gather(catalog, service)));
            }
        }
        mesh.pods = Arc::clone(&catalog.pods);
        mesh
    }

    /// Whether clusters of these services differ too, and not only their endpoints: who answers has changed, or addresses
    /// that clusters hold themselves. The short lane does not lead there.
    pub fn clusters_differ(&self, after: &Self, services: &BTreeSet<ServiceId>) -> bool {
        services.iter().any(|id| {
            let held = self
                .services
                .get(id)
                .is_some_and(|service| matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin));
            let identity = |mesh: &Self| mesh.endpoints.get(id).map(|known| known.identity_version());
            let addresses = |mesh: &Self| mesh.endpoints.get(id).map(|known| known.version);
            identity(self) != identity(after) || held && addresses(self) != addresses(after)
        })
    }

    /// Hash of everything that `build` of this key depends on: equal versions build equal resources.
    pub fn version_of(&self, key: &Key) -> u64 {
        build::version_of(self, key)
    }

    /// Settings of the whole mesh.
    pub fn config(&self) -> &MeshConfig {
        &self.config
    }

    /// Addresses of a service.
    pub(crate) fn endpoints_of(&self, id: &ServiceId) -> Option<&Arc<ServiceEndpoints>> {
        self.endpoints.get(id)
    }
}

/// Everything that one proxy is told, built at once: for tools and tests.
pub fn spec(mesh: &Mesh, node: &Node) -> Spec {
    let mut spec = Spec::default();
    let mut hosts: BTreeMap<String, Vec<Arc<VirtualHost>>> = BTreeMap::new();
    for key in view(mesh, node).iter() {
        let name = key.name().to_string();
        match build(mesh, key) {
            Some(Resource::Cluster(it)) => drop(spec.clusters.insert(name, it)),
            Some(Resource::Endpoints(it)) => drop(spec.endpoints.insert(name, it)),
            Some(Resource::Listener(it)) => drop(spec.listeners.insert(name, it)),
            Some(Resource::Routes(it)) => drop(spec.routes.insert(name, it)),
            Some(Resource::Secret(it)) => drop(spec.secrets.insert(name, it)),
            Some(Resource::VirtualHost(it)) => {
                if let Some(name) = HostName::read(&name) {
                    hosts.entry(name.table.to_owned()).or_default().push(it);
                }
            }
            None => {}
        }
    }
    for (table, hosts) in &hosts {
        if let Some(routes) = spec.routes.get_mut(table) {
            *routes = Arc::new(routes.with_hosts(hosts));
        }
    }
    spec
}

/// The types of resource in the order in which a proxy must learn them.
pub const ORDER: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Listener,
    ResourceKind::Routes,
    ResourceKind::VirtualHost,
    ResourceKind::Secret,
];

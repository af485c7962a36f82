//! All models of a mesh, kept up to date one object at a time.
//!
//! A routing object that turns bad keeps its last good version; a note says so. Guards (security kinds) take effect
//! even where they are bad: what they select denies.
//! Never here: what the objects mean together. Filled by pilot's store and by `meshctl`, read by `mesh::resolve`.

use std::{collections::BTreeSet, sync::Arc};

/// What the mesh is told once, when the control plane starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Namespace whose policies hold everywhere: `istio-system` (MeshConfig `rootNamespace` beats it).
    pub root_namespace: String,
    /// Domain of the cluster's services: `cluster.local`.
    pub domain: String,
    /// Id of this cluster: `Kubernetes`.
    pub cluster_id: String,
    /// Name of the ConfigMap in the root namespace that holds MeshConfig: `istio`.
    pub mesh_config_map: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            domain: "cluster.local".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            mesh_config_map: "istio".to_owned(),
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
    /// Only addresses of these services: `Mesh::with_endpoints` is enough.
    Endpoints(BTreeSet<ServiceId>),
    /// Something else: resolve again.
    Everything,
}

/// All models of a mesh.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub(crate) settings: Settings,
}

impl Catalog {
    /// Nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }
}

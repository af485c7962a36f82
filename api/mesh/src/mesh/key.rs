//! Names of resources together with all that building them depends on besides the mesh.
//!
//! Two proxies with an equal key share one resource, its bytes and its version.
//! Never here: building. Made by `view`, kept and compared by pilot.

use std::{collections::BTreeMap, sync::Arc};

use api::spec::{Node, ResourceKind};

/// The inputs that proxies share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Namespace of the workload.
    pub(crate) namespace: Arc<str>,
}

impl Scope {
    pub(crate) fn of(node: &Node) -> Self {
        Self { namespace: node.namespace.as_str().into() }
    }
}

/// One resource and all that its content depends on besides the mesh. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    kind: ResourceKind,
    name: Arc<str>,
}

impl Key {
    /// Type of the resource.
    pub fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// Name the resource is subscribed to under.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// Keys by type and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<ResourceKind, BTreeMap<Arc<str>, Key>>,
}

impl KeySet {
    /// The key of a resource.
    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Key> {
        self.keys.get(&kind)?.get(name)
    }

    /// All keys of a type, in order of name.
    pub fn of(&self, kind: ResourceKind) -> impl Iterator<Item = &Key> {
        self.keys.get(&kind).into_iter().flat_map(BTreeMap::values)
    }
}

/// Which resources one proxy gets: those of its scope, and its own. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    outbound: Arc<KeySet>,
    own: Arc<KeySet>,
}

impl Keys {
    pub(crate) fn new(outbound: Arc<KeySet>) -> Self {
        Self { outbound, own: Arc::default() }
    }

    /// The keys it shares with the proxies of its scope.
    pub fn outbound(&self) -> &Arc<KeySet> {
        &self.outbound
    }

    /// The keys of this proxy only.
    pub fn own(&self) -> &Arc<KeySet> {
        &self.own
    }

    /// The key of a resource.
    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Key> {
        self.own.get(kind, name).or_else(|| self.outbound.get(kind, name))
    }

    /// All keys of a type.
    pub fn of(&self, kind: ResourceKind) -> impl Iterator<Item = &Key> {
        self.outbound.of(kind).chain(self.own.of(kind))
    }
}

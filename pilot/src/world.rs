//! One published snapshot of the mesh, and what the proxies of each scope see of it.
//!
//! What a scope sees is worked out once, by whoever asks first, together with what changed since the snapshot before;
//! a session then looks at those names only.
//! Never here: how a mesh is resolved (`api-mesh`), or a client's conversation. Published by `push`, read by `serve`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use api::spec::{Node, ResourceKind};
use api_mesh::{
    mesh::{self, Key, KeySet, Keys, Mesh, Scope},
    model::Catalog,
};
use api_xds::Dialect;
use tokio::time::Instant;

use crate::{
    cache::Cache,
    session::{Changes, Encoded, Offer},
};

/// All types a client may be told of.
pub(crate) const KINDS: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Listener,
    ResourceKind::Routes,
    ResourceKind::VirtualHost,
    ResourceKind::Secret,
];

/// Names and versions of resources, by type.
type Versions = BTreeMap<ResourceKind, BTreeMap<Arc<str>, u64>>;

fn versions(mesh: &Mesh, keys: &KeySet, kinds: &[ResourceKind]) -> Versions {
    let of = |kind| keys.of(kind).map(|key| (Arc::clone(key.name()), mesh.version_of(key))).collect();
    kinds.iter().map(|kind| (*kind, of(*kind))).collect()
}

fn differences(old: &Versions, new: &Versions) -> BTreeMap<ResourceKind, BTreeSet<Arc<str>>> {
    let none = BTreeMap::new();
    let mut changed = BTreeMap::new();
    for kind in KINDS {
        let (old, new) = (old.get(&kind).unwrap_or(&none), new.get(&kind).unwrap_or(&none));
        let mut names: BTreeSet<Arc<str>> = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
        names.extend(
            new.iter().filter(|(name, version)| old.get(*name) != Some(version)).map(|(name, _)| Arc::clone(name)),
        );
        if !names.is_empty() {
            changed.insert(kind, names);
        }
    }
    changed
}

/// What the proxies of one scope see besides what is their own.
pub(crate) struct Outbound {
    keys: Arc<KeySet>,
    versions: Arc<Versions>,
    /// What differs from the snapshot before; none: that one was not worked out for this scope.
    changes: Option<BTreeMap<ResourceKind, BTreeSet<Arc<str>>>>,
}

type Cell = Arc<OnceLock<Arc<Outbound>>>;

/// Why there is a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only addresses changed: which resources there are is as before.
    Endpoints,
    /// Anything may have changed.
    Everything,
}

/// One published snapshot.
pub(crate) struct World {
    /// Grows by one with each snapshot.
    pub(crate) edition: u64,
    /// The mesh.
    pub(crate) mesh: Mesh,
    /// All models it was made from; the admission webhook tries objects out on it.
    pub(crate) catalog: Arc<Catalog>,
    /// When the first change in it was seen.
    pub(crate) since: Instant,
    reach: Reach,
    scopes: Mutex<HashMap<Scope, Cell>>,
    before: Mutex<HashMap<Scope, Arc<Outbound>>>,
}

impl World {
    /// The first snapshot.
    pub(crate) fn first(mesh: Mesh, catalog: Arc<Catalog>, since: Instant) -> Self {
        Self {
            edition: 1,
            mesh,
            catalog,
            since,
            reach: Reach::Everything,
            scopes: Mutex::default(),
            before: Mutex::default(),
        }
    }

    /// The snapshot after this one.
    pub(crate) fn then(&self, mesh: Mesh, catalog: Arc<Catalog>, since: Instant, reach: Reach) -> Self {
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = scopes.iter().filter_map(|(scope, cell)| Some((scope.clone(), Arc::clone(cell.get()?)))).collect();
        Self {
            edition: self.edition + 1,
            mesh,
            catalog,
            since,
            reach,
            scopes: Mutex::default(),
            before: Mutex::new(before),
        }
    }

    fn outbound(&self, scope: &Scope) -> Arc<Outbound> {
        let cell = {
            let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(scopes.entry(scope.clone()).or_default())
        };
        Arc::clone(cell.get_or_init(|| {
            let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
            Arc::new(self.work_out(scope, before.as_deref()))
        }))
    }

    fn work_out(&self, scope: &Scope, before: Option<&Outbound>) -> Outbound {
        let (keys, versions) = match (self.reach, before) {
            (Reach::Endpoints, Some(before)) => {
                let mut all = Versions::clone(&before.versions);
                all.extend(versions(&self.mesh, &before.keys, &[ResourceKind::Endpoints]));
                (Arc::clone(&before.keys), all)
            }
            (Reach::Endpoints | Reach::Everything, _) => {
                let keys = mesh::outbound(&self.mesh, scope);
                let versions = versions(&self.mesh, &keys, &KINDS);
                (keys, versions)
            }
        };
        let changes = before.map(|before| differences(&before.versions, &versions));
        Outbound { keys, versions: Arc::new(versions), changes }
    }
}

/// What one client sees of the newest snapshot it has looked at.
pub(crate) struct Sight {
    world: Arc<World>,
    cache: Arc<Cache>,
    dialect: Dialect,
    /// Whether certificates may be sent: only to gateways that proved who they are.
    secrets: bool,
    keys: Keys,
    own: Versions,
    before: Option<Keys>,
}

/// How resources are written for this node.
pub(crate) fn dialect(node: &Node) -> Dialect {
    if node.proxyless {
        Dialect::Grpc
    } else if node.ours {
        Dialect::Ours
    } else {
        Dialect::Envoy
    }
}

impl Sight {
    /// What this node sees now.
    pub(crate) fn new(world: Arc<World>, cache: Arc<Cache>, node: &Node, secrets: bool) -> Self {
        let outbound = world.outbound(&mesh::scope(&world.mesh, node));
        let keys = mesh::view_with(&world.mesh, node, Arc::clone(&outbound.keys));
        let own = versions(&world.mesh, keys.own(), &KINDS);
        Self { world, cache, dialect: dialect(node), secrets, keys, own, before: None }
    }

    /// Looks at a newer snapshot; returns what may differ.
    pub(crate) fn look(&mut self, world: Arc<World>, node: &Node) -> Changes {
        let outbound = world.outbound(&mesh::scope(&world.mesh, node));
        let next = world.edition == self.world.edition + 1;
        let mut changes = if next { outbound.changes.clone() } else { None };
        if world.reach == Reach::Everything || !next {
            let keys = mesh::view_with(&world.mesh, node, Arc::clone(&outbound.keys));
            let own = versions(&world.mesh, keys.own(), &KINDS);
            if let Some(changes) = &mut changes {
                for (kind, names) in differences(&self.own, &own) {
                    changes.entry(kind).or_default().extend(names);
                }
            }
            self.own = own;
            self.before = Some(std::mem::replace(&mut self.keys, keys));
        }
        self.world = world;
        changes.map_or(Changes::All, Changes::Names)
    }

    fn key(&self, kind: ResourceKind, name: &str) -> Option<&Key> {
        if kind == ResourceKind::Secret && !self.secrets { None } else { self.keys.get(kind, name) }
    }
}

impl Offer for Sight {
    fn edition(&self) -> u64 {
        self.world.edition
    }

    fn names(&self, kind: ResourceKind) -> Vec<Arc<str>> {
        if kind == ResourceKind::Secret && !self.secrets {
            return Vec::new();
        }
        self.keys.of(kind).map(|key| Arc::clone(key.name())).collect()
    }

    fn known(&self, kind: ResourceKind, name: &str) -> Option<Arc<str>> {
        self.key(kind, name).map(|key| Arc::clone(key.name()))
    }

    fn encoded(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        self.cache.get(&self.world.mesh, self.world.edition, self.key(kind, name)?, self.dialect)
    }

    fn last_known(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        self.cache.last_known(self.before.as_ref()?.get(kind, name)?, self.dialect)
    }
}

//! One published snapshot of the mesh, and what the proxies of each scope see of it.
//!
//! What a scope sees is worked out once, by whoever asks first, from what it saw of the snapshot before: only rows that the
//! difference touches are looked at, all others are shared with it. Sessions then look at what differs only.
//! Never here: how a mesh is resolved (`api-mesh`), or a client's conversation. Published by `push`, read by `serve`.

mod rows;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use api::spec::{Node, ResourceKind};
use api_mesh::{
    mesh::{self, Difference, Mesh, Scope},
    model::Catalog,
};
use api_xds::Dialect;
use tokio::time::Instant;

use crate::{
    cache::Cache,
    session::{Encoded, Names, Offer},
};
use rows::{Row, Table};

/// All types a client may be told of.
pub(crate) const KINDS: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Listener,
    ResourceKind::Routes,
    ResourceKind::VirtualHost,
    ResourceKind::Secret,
];

/// What the proxies of one scope and dialect see besides what is their own.
struct Outbound {
    table: Table,
    /// What it was made from, and under which names they differ.
    changes: Option<(Weak<Self>, Arc<Names>)>,
}

/// Proxies that are told the same, in the same words.
type Audience = (Scope, Dialect);
type Cell = Arc<OnceLock<Arc<Outbound>>>;

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
    /// From the snapshot before.
    difference: Option<Arc<Difference>>,
    audiences: Mutex<HashMap<Audience, Cell>>,
    past: Mutex<HashMap<Audience, Past>>,
}

/// What an audience saw when it was last worked out, and all that has come to differ since.
struct Past {
    outbound: Arc<Outbound>,
    differences: Vec<Arc<Difference>>,
}

/// Snapshots after which what nobody asks for is forgotten.
const PAST_MAX: usize = 16;

impl World {
    /// The first snapshot.
    pub(crate) fn first(mesh: Mesh, catalog: Arc<Catalog>, since: Instant) -> Self {
        Self { edition: 1, mesh, catalog, since, difference: None, audiences: Mutex::default(), past: Mutex::default() }
    }

    /// The snapshot after this one.
    pub(crate) fn then(&self, mesh: Mesh, catalog: Arc<Catalog>, since: Instant, difference: Difference) -> Self {
        let difference = Arc::new(difference);
        let mut past = HashMap::new();
        for (audience, known) in self.past.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            if known.differences.len() < PAST_MAX {
                let differences = known.differences.into_iter().chain([Arc::clone(&difference)]).collect();
                past.insert(audience, Past { differences, ..known });
            }
        }
        for (audience, cell) in &*self.audiences.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(outbound) = cell.get() {
                let known = Past { outbound: Arc::clone(outbound), differences: vec![Arc::clone(&difference)] };
                past.insert(audience.clone(), known);
            }
        }
        Self {
            edition: self.edition + 1,
            mesh,
            catalog,
            since,
            difference: Some(difference),
            audiences: Mutex::default(),
            past: Mutex::new(past),
        }
    }

    fn outbound(&self, audience: &Audience) -> Arc<Outbound> {
        let cell = {
            let mut audiences = self.audiences.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(audiences.entry(audience.clone()).or_default())
        };
        Arc::clone(cell.get_or_init(|| {
            let past = self.past.lock().unwrap_or_else(PoisonError::into_inner).remove(audience);
            Arc::new(self.work_out(&audience.0, past.as_ref()))
        }))
    }

    fn work_out(&self, scope: &Scope, past: Option<&Past>) -> Outbound {
        let keys = || mesh::outbound(&self.mesh, scope);
        let Some(Past { outbound: before, differences }) = past else {
            return Outbound { table: Table::of(&self.mesh, &keys(), None), changes: None };
        };
        let (table, changes) = if differences.iter().all(|difference| difference.keys_stay()) {
            before.table.touched(&self.mesh, differences)
        } else {
            let table = Table::of(&self.mesh, &keys(), Some(&before.table));
            let changes = table.differences(&before.table);
            (table, changes)
        };
        Outbound { table, changes: Some((Arc::downgrade(before), Arc::new(changes))) }
    }
}

/// What one client sees of the newest snapshot it has looked at.
pub(crate) struct Sight {
    world: Arc<World>,
    cache: Arc<Cache>,
    dialect: Dialect,
    /// Whether certificates may be sent: only to gateways that proved who they are.
    secrets: bool,
    outbound: Arc<Outbound>,
    own: Arc<Table>,
    /// What was seen before the last look.
    before: Option<(Arc<Outbound>, Arc<Table>)>,
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
        let dialect = dialect(node);
        let outbound = world.outbound(&(mesh::scope(&world.mesh, node), dialect));
        let own = Arc::new(Table::of(&world.mesh, &mesh::own(&world.mesh, node), None));
        Self { world, cache, dialect, secrets, outbound, own, before: None }
    }

    /// Looks at a newer snapshot; tells under which names something differs: of the scope, and of its own.
    pub(crate) fn look(&mut self, world: Arc<World>, node: &Node) -> [Arc<Names>; 2] {
        let outbound = world.outbound(&(mesh::scope(&world.mesh, node), self.dialect));
        let next = world.edition == self.world.edition + 1;
        let shared = match &outbound.changes {
            Some((before, changes)) if before.ptr_eq(&Arc::downgrade(&self.outbound)) => Arc::clone(changes),
            Some(_) | None => Arc::new(outbound.table.differences(&self.outbound.table)),
        };
        let own_stays = next && world.difference.as_ref().is_some_and(|difference| difference.own_stays(node));
        let (own, changes) = if own_stays {
            (Arc::clone(&self.own), Arc::default())
        } else {
            let own = Table::of(&world.mesh, &mesh::own(&world.mesh, node), Some(&self.own));
            let changes = own.differences(&self.own);
            (Arc::new(own), Arc::new(changes))
        };
        self.before = Some((std::mem::replace(&mut self.outbound, outbound), std::mem::replace(&mut self.own, own)));
        self.world = world;
        [shared, changes]
    }

    /// Lets go of what was seen before: nothing of it will be told again.
    pub(crate) fn forget_before(&mut self) {
        self.before = None;
    }

    fn row(&self, kind: ResourceKind, name: &str) -> Option<&Arc<Row>> {
        if kind == ResourceKind::Secret && !self.secrets {
            return None;
        }
        self.own.get(kind, name).or_else(|| self.outbound.table.get(kind, name))
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
        self.outbound.table.of_kind(kind).chain(self.own.of_kind(kind)).map(|row| Arc::clone(row.name())).collect()
    }

    fn known(&self, kind: ResourceKind, name: &str) -> Option<Arc<str>> {
        self.row(kind, name).map(|row| Arc::clone(row.name()))
    }

    fn encoded(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        self.row(kind, name)?.encoded(&self.world.mesh, self.dialect, &self.cache)
    }

    fn last_known(&self, kind: ResourceKind, name: &str) -> Option<Arc<Encoded>> {
        let (outbound, own) = self.before.as_ref()?;
        own.get(kind, name).or_else(|| outbound.table.get(kind, name))?.made()
    }
}

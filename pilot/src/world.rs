//! One published snapshot of the mesh, and what the proxies of each scope see of it.
//!
//! What a scope sees is worked out once, by whoever asks first, from what it saw of the snapshot before: only rows that the
//! difference touches are looked at, all others are shared with it. Sessions then look at what differs only.
//! Never here: how a mesh is resolved (`api-mesh`), or a client's conversation. Published by `push`, read by `serve`.

mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
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
    limits::PAST_SNAPSHOTS_MAX,
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

/// What one audience sees.
#[derive(Default)]
struct Seat {
    /// What it saw when that was last worked out, until it is anew.
    past: Mutex<Option<Past>>,
    seen: OnceLock<Arc<Outbound>>,
}

/// What an audience saw when it was last worked out, and all that has come to differ since.
#[derive(Clone)]
struct Past {
    outbound: Arc<Outbound>,
    differences: Vec<Arc<Difference>>,
}

impl Past {
    /// With one difference more; none where nobody has asked for too long.
    fn then(mut self, difference: &Arc<Difference>) -> Option<Self> {
        self.differences.push(Arc::clone(difference));
        (self.differences.len() <= PAST_SNAPSHOTS_MAX).then_some(self)
    }
}

impl Seat {
    /// What it saw last.
    fn last(&self) -> Option<Past> {
        match self.seen.get() {
            Some(seen) => Some(Past { outbound: Arc::clone(seen), differences: Vec::new() }),
            None => lock(&self.past).clone(),
        }
    }

    /// Whether no client looks at what it saw.
    fn idle(self: &Arc<Self>) -> bool {
        let watched = |outbound: &Arc<Outbound>| Arc::strong_count(outbound) > 1;
        Arc::strong_count(self) == 1
            && !self.seen.get().is_some_and(watched)
            && !lock(&self.past).as_ref().is_some_and(|past| watched(&past.outbound))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// There is no room for one more group of proxies that is told something of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} groups of proxies (by namespace and labels) are told different things")]
pub(crate) struct Crowded(usize);

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
    seats: Mutex<HashMap<Audience, Arc<Seat>>>,
}

impl World {
    /// The first snapshot.
    pub(crate) fn first(mesh: Mesh, catalog: Arc<Catalog>, since: Instant) -> Self {
        Self { edition: 1, mesh, catalog, since, difference: None, seats: Mutex::default() }
    }

    /// The snapshot after this one.
    pub(crate) fn then(&self, mesh: Mesh, catalog: Arc<Catalog>, since: Instant, difference: Difference) -> Self {
        let difference = Arc::new(difference);
        let kept = |(audience, seat): (&Audience, &Arc<Seat>)| {
            let past = Mutex::new(Some(seat.last()?.then(&difference)?));
            Some((audience.clone(), Arc::new(Seat { past, seen: OnceLock::new() })))
        };
        let seats = lock(&self.seats).iter().filter_map(kept).collect();
        let difference = Some(difference);
        Self { edition: self.edition + 1, mesh, catalog, since, difference, seats: Mutex::new(seats) }
    }

    /// What an audience sees. A new one has a seat while there are fewer than `most`, not counting those that nobody is in.
    fn outbound(&self, audience: &Audience, most: usize) -> Result<Arc<Outbound>, Crowded> {
        let seat = {
            let mut seats = lock(&self.seats);
            if let Some(seat) = seats.get(audience) {
                Arc::clone(seat)
            } else {
                if seats.len() >= most {
                    seats.retain(|_, seat| !seat.idle());
                }
                if seats.len() >= most {
                    return Err(Crowded(most));
                }
                Arc::clone(seats.entry(audience.clone()).or_default())
            }
        };
        Ok(Arc::clone(seat.seen.get_or_init(|| {
            let past = lock(&seat.past).take();
            Arc::new(self.work_out(&audience.0, past.as_ref()))
        })))
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
    /// Whether certificates may be sent.
    secrets: bool,
    /// Most audiences that there may be for this one to be a new one.
    audiences: usize,
    outbound: Arc<Outbound>,
    own: Arc<Table>,
    /// Clusters as they were last made, where a newer snapshot has others or none of that name.
    before: BTreeMap<Arc<str>, Arc<Encoded>>,
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
    /// What this node sees now, without certificates.
    pub(crate) fn new(world: Arc<World>, cache: Arc<Cache>, node: &Node, audiences: usize) -> Result<Self, Crowded> {
        let dialect = dialect(node);
        let outbound = world.outbound(&(mesh::scope(&world.mesh, node), dialect), audiences)?;
        let own = Arc::new(Table::of(&world.mesh, &mesh::own(&world.mesh, node), None));
        Ok(Self { world, cache, dialect, secrets: false, audiences, outbound, own, before: BTreeMap::new() })
    }

    /// Looks at a newer snapshot; tells under which names something differs: of the scope, and of its own.
    pub(crate) fn look(&mut self, world: Arc<World>, node: &Node) -> Result<[Arc<Names>; 2], Crowded> {
        let outbound = world.outbound(&(mesh::scope(&world.mesh, node), self.dialect), self.audiences)?;
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
        let changes = [shared, changes];
        for name in changes.iter().filter_map(|names| names.get(&ResourceKind::Cluster)).flatten() {
            if let Some(made) = self.row(ResourceKind::Cluster, name).and_then(|row| row.made()) {
                self.before.insert(Arc::clone(name), made);
            }
        }
        (self.outbound, self.own, self.world) = (outbound, own, world);
        Ok(changes)
    }

    /// Says whether certificates may be sent; tells the names of those that come or go by it.
    pub(crate) fn may_see_secrets(&mut self, secrets: bool) -> Names {
        if std::mem::replace(&mut self.secrets, secrets) == secrets {
            return Names::new();
        }
        let names = self.own.of_kind(ResourceKind::Secret).map(|row| Arc::clone(row.name())).collect();
        Names::from([(ResourceKind::Secret, names)])
    }

    /// Lets go of what was seen before: nothing of it will be told again.
    pub(crate) fn forget_before(&mut self) {
        self.before.clear();
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
        // Only clusters are kept for others that still refer to them.
        self.before.get(name).filter(|_| kind == ResourceKind::Cluster).cloned()
    }
}

#[cfg(test)]
mod tests {
    use api_mesh::model::Settings;
    use api_xds::{discovery, node};

    use super::*;

    fn world() -> World {
        let catalog = Catalog::new(Settings::default());
        World::first(mesh::resolve(&catalog).0, Arc::new(catalog), Instant::now())
    }

    fn node(namespace: &str) -> Node {
        let id = format!("sidecar~198.18.0.7~web-1.{namespace}~{namespace}.svc.cluster.local");
        node::read(&discovery::Node { id, ..discovery::Node::default() }).unwrap()
    }

    fn sight(world: &Arc<World>, namespace: &str, most: usize) -> Result<Sight, Crowded> {
        Sight::new(Arc::clone(world), Arc::default(), &node(namespace), most)
    }

    /// The next snapshot, in which nothing differs.
    fn next(world: &World) -> Arc<World> {
        let difference = Difference::between(&world.mesh, &world.mesh);
        Arc::new(world.then(world.mesh.clone(), Arc::clone(&world.catalog), Instant::now(), difference))
    }

    #[test]
    fn there_is_a_limit_to_audiences_and_those_that_left_do_not_count() {
        let world = Arc::new(world());
        let mut sights: Vec<Sight> = ["a", "b"].map(|namespace| sight(&world, namespace, 2).unwrap()).into();
        assert_eq!(sight(&world, "c", 2).err(), Some(Crowded(2)));
        assert!(sight(&world, "a", 2).is_ok(), "it is there already");
        assert!(sight(&world, "c", 3).is_ok(), "others may be more");
        sights.pop();
        assert!(sight(&world, "d", 2).is_ok());
        assert_eq!(lock(&world.seats).len(), 2);
    }

    #[test]
    fn an_audience_that_is_there_keeps_its_seat_in_the_next_snapshot() {
        let first = Arc::new(world());
        let mut old = sight(&first, "a", 1).unwrap();
        let second = next(&first);
        assert_eq!(sight(&second, "b", 1).err(), Some(Crowded(1)), "a newcomer does not take it");
        assert!(old.look(second, &node("a")).is_ok());
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_after_some_snapshots() {
        let mut world = Arc::new(world());
        drop(sight(&world, "a", 1));
        for _ in 0..PAST_SNAPSHOTS_MAX {
            world = next(&world);
            assert_eq!(lock(&world.seats).len(), 1);
        }
        assert_eq!(lock(&next(&world).seats).len(), 0);
    }
}

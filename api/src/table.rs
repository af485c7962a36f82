//! A proxy's whole specification, compiled for requests: listeners to chains, hosts to rules, names to places.
//!
//! [`Table::compile`] takes over from the table before it whatever has not changed, so that one changed resource costs one
//! compilation. Clusters keep their place from table to table as long as they live; the proxy puts pools and metric
//! handles beside them. What is wrong is told in notes and matches nothing.
//! Never here: choosing (that is `route`), pools, sockets. Built by the proxy and `meshctl why`.

mod chains;
mod edits;
mod hosts;
mod listener;
mod paths;
mod rule;

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use hashbrown::HashMap;

pub use chains::Arrival;
pub use edits::{Changes, Edits, Value};
pub use listener::{Chain, Listener, Work};
pub use rule::{Forwarding, Host, Rule, RuleName, Target, Targets};

use crate::{
    balance::Layout,
    note::{Notes, ObjectRef},
    spec::{self, Discovery, Spec},
};
use hosts::Hosts;

type Map<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// The place of a cluster in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u32);

impl ClusterId {
    /// The place as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A cluster with the endpoints known for it.
#[derive(Debug)]
pub struct Cluster {
    /// What it was made from.
    pub spec: Arc<spec::Cluster>,
    /// Its endpoints, where they are subscribed to and have come.
    pub endpoints: Option<Arc<spec::Endpoints>>,
    /// The order and shares of its endpoints (given here or subscribed to).
    pub layout: Layout,
}

impl Cluster {
    /// Its endpoints by place; names among them are still to be resolved.
    pub fn localities(&self) -> &[spec::Locality] {
        match &self.spec.discovery {
            Discovery::Eds => self.endpoints.as_ref().map_or(&[], |endpoints| &endpoints.localities),
            Discovery::Static(localities)
            | Discovery::StrictDns { localities, .. }
            | Discovery::LogicalDns { localities, .. } => localities,
            Discovery::OriginalDestination => &[],
        }
    }

    /// Whether it can serve already: its endpoints are known or need not be.
    pub fn is_warm(&self) -> bool {
        self.spec.discovery != Discovery::Eds || self.endpoints.is_some()
    }
}

/// A route table, compiled.
#[derive(Debug)]
pub struct Routes {
    /// What it was made from.
    pub spec: Arc<spec::RouteTable>,
    index: Arc<Hosts>,
    hosts: Box<[Arc<Host>]>,
}

impl Routes {
    /// The virtual host that serves an authority (`host` or `host:port`, lower case).
    pub fn host(&self, authority: &str, host: &str) -> Option<&Host> {
        let key = if self.spec.ignore_port { host } else { authority };
        let at = self.index.find(key)?;
        self.hosts.get(at as usize).map(|host| &**host)
    }

    /// Its virtual hosts in order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|host| &**host)
    }
}

/// Everything, compiled.
#[derive(Debug, Default)]
pub struct Table {
    listeners: Map<Arc<Listener>>,
    handed: HashMap<SocketAddr, Arc<Listener>, foldhash::fast::RandomState>,
    clusters: Vec<Option<Arc<Cluster>>>,
    cluster_ids: Map<ClusterId>,
    routes: Map<Arc<Routes>>,
    secrets: Map<Arc<spec::Secret>>,
}

/// The object that notes about a resource name.
fn resource(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "", name)
}

impl Table {
    /// Compiles a specification, taking over from `previous` what has not changed.
    pub fn compile(spec: &Spec, previous: Option<&Self>) -> (Self, Notes) {
        let mut notes = Notes::new();
        let empty = Self::default();
        let previous = previous.unwrap_or(&empty);
        let (clusters, cluster_ids) = compile_clusters(spec, previous);
        let find = |name: &str| cluster_ids.get(name).copied();
        let mut routes = Map::default();
        for (name, table) in &spec.routes {
            let old = previous.routes.get(name.as_str());
            routes.insert(name.as_str().into(), compile_routes(table, old, find, &mut notes));
        }
        let mut listeners = Map::default();
        let mut handed = HashMap::default();
        for (name, listener) in &spec.listeners {
            let old = previous.listeners.get(name.as_str());
            let compiled = Listener::compile(listener, old, &find, &|name: &str| routes.get(name).cloned(), &mut notes);
            if !listener.bind {
                handed.insert(listener.address, Arc::clone(&compiled));
            }
            listeners.insert(name.as_str().into(), compiled);
        }
        let secrets = spec.secrets.iter().map(|(name, secret)| (name.as_str().into(), Arc::clone(secret))).collect();
        (Self { listeners, handed, clusters, cluster_ids, routes, secrets }, notes)
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    /// The listener of a name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// The listener that serves redirected connections to this destination: of this very address, else of its port on
    /// every address.
    pub fn listener_for(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        let every: IpAddr = match destination.ip() {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.handed.get(&destination).or_else(|| self.handed.get(&SocketAddr::new(every, destination.port())))
    }

    /// The chain that took the place of one from an older table: same listener, same name. None: it is gone, and the
    /// connections it serves are to be drained.
    pub fn successor(&self, chain: &Chain) -> Option<&Arc<Chain>> {
        self.listener(chain.listener_name())?.chain_named(chain.name())
    }

    /// The cluster at a place.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(id.index()).and_then(Option::as_ref)
    }

    /// The place of a cluster.
    pub fn cluster_id(&self, name: &str) -> Option<ClusterId> {
        self.cluster_ids.get(name).copied()
    }

    /// All clusters with their places.
    pub fn clusters(&self) -> impl Iterator<Item = (ClusterId, &Arc<Cluster>)> {
        (0..).map(ClusterId).zip(&self.clusters).filter_map(|(id, cluster)| Some((id, cluster.as_ref()?)))
    }

    /// How many places there are; some may be empty.
    pub fn cluster_places(&self) -> usize {
        self.clusters.len()
    }

    /// The route table of a name.
    pub fn routes(&self, name: &str) -> Option<&Arc<Routes>> {
        self.routes.get(name)
    }

    /// All route tables.
    pub fn all_routes(&self) -> impl Iterator<Item = &Arc<Routes>> {
        self.routes.values()
    }

    /// The secret of a name.
    pub fn secret(&self, name: &str) -> Option<&Arc<spec::Secret>> {
        self.secrets.get(name)
    }
}

/// Gives every cluster its place: the one it had, else the lowest that is free.
fn compile_clusters(spec: &Spec, previous: &Table) -> (Vec<Option<Arc<Cluster>>>, Map<ClusterId>) {
    let mut places: Vec<Option<Arc<Cluster>>> = Vec::with_capacity(spec.clusters.len());
    let mut ids = Map::default();
    let mut fresh = Vec::new();
    for (name, cluster) in &spec.clusters {
        let endpoints = spec.endpoints.get(name);
        let old = previous.cluster_ids.get(name.as_str()).copied();
        let kept = old.and_then(|id| previous.cluster(id)).filter(|old| {
            let same = match (&old.endpoints, endpoints) {
                (None, None) => true,
                (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
                (None, Some(_)) | (Some(_), None) => false,
            };
            same && (Arc::ptr_eq(&old.spec, cluster) || old.spec == *cluster)
        });
        let compiled = kept.cloned().unwrap_or_else(|| {
            let mut compiled =
                Cluster { spec: Arc::clone(cluster), endpoints: endpoints.cloned(), layout: Layout::default() };
            compiled.layout = Layout::of(compiled.localities());
            Arc::new(compiled)
        });
        match old {
            Some(id) => {
                if places.len() <= id.index() {
                    places.resize(id.index() + 1, None);
                }
                if let Some(place) = places.get_mut(id.index()) {
                    *place = Some(compiled);
                }
                ids.insert(name.as_str().into(), id);
            }
            None => fresh.push((name, compiled)),
        }
    }
    let mut free = 0;
    for (name, compiled) in fresh {
        while places.get(free).is_some_and(Option::is_some) {
            free += 1;
        }
        match places.get_mut(free) {
            Some(place) => *place = Some(compiled),
            None => places.push(Some(compiled)),
        }
        if let Ok(id) = u32::try_from(free) {
            ids.insert(name.as_str().into(), ClusterId(id));
        }
    }
    (places, ids)
}

/// Compiles a route table, host by host.
fn compile_routes(
    spec: &Arc<spec::RouteTable>,
    previous: Option<&Arc<Routes>>,
    find: impl Fn(&str) -> Option<ClusterId> + Copy,
    notes: &mut Notes,
) -> Arc<Routes> {
    let unchanged = previous.filter(|old| {
        (Arc::ptr_eq(&old.spec, spec) || old.spec == *spec) && old.hosts.iter().all(|host| host.still(&host.spec, find))
    });
    if let Some(old) = unchanged {
        return Arc::clone(old);
    }
    let object = resource("RouteConfiguration", &spec.name);
    let old: Map<&Arc<Host>> = previous
        .into_iter()
        .flat_map(|routes| routes.hosts.iter())
        .map(|host| (host.spec.name.as_str().into(), host))
        .collect();
    let hosts: Box<[Arc<Host>]> = spec
        .virtual_hosts
        .iter()
        .map(|host| match old.get(host.name.as_str()).filter(|old| old.still(host, find)) {
            Some(old) => Arc::clone(old),
            None => Arc::new(Host::compile(host, find, |index, text| {
                notes.error(&object, format!("virtual_hosts[{}].routes[{index}]", host.name), text);
            })),
        })
        .collect();
    let same_domains = |old: &&Arc<Routes>| {
        old.hosts.len() == hosts.len() && old.hosts.iter().zip(&hosts).all(|(a, b)| a.spec.domains == b.spec.domains)
    };
    let index = match previous.filter(same_domains) {
        Some(old) => Arc::clone(&old.index),
        None => {
            let domains = (0..)
                .zip(&hosts)
                .flat_map(|(at, host)| host.spec.domains.iter().map(move |domain| (at, domain.as_str())));
            Arc::new(Hosts::build(domains, |at, domain| {
                let name = hosts.get(at as usize).map_or("", |host| &host.spec.name);
                let text = format!("domain {domain:?} belongs to an earlier virtual host already");
                notes.warn(&object, format!("virtual_hosts[{name}].domains"), text);
            }))
        }
    };
    Arc::new(Routes { spec: Arc::clone(spec), index, hosts })
}

#[cfg(test)]
mod tests;

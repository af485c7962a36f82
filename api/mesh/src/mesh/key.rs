//! Names of resources together with all that building them depends on besides the mesh.
//!
//! Two proxies with an equal key share one resource, its bytes and its version.
//! Never here: building. Made by `view`, kept and compared by pilot.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use api::{note::ObjectRef, spec::ResourceKind};

use super::{authorization::Guarded, peer::Modes};
use crate::model::{Labels, Protocol, ServiceId};

/// What kind of client a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientKind {
    /// Beside a workload.
    Sidecar,
    /// At the edge.
    Gateway,
    /// Inside a gRPC program.
    Proxyless,
}

/// Where a client wants the virtual hosts of a port's route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HostsStand {
    /// In the table.
    Inside,
    /// As resources of their own (VHDS).
    Apart,
}

/// The inputs that proxies share: all proxies of one scope have the same outbound keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// What kind of client.
    pub(crate) kind: ClientKind,
    /// Namespace of the workload.
    pub(crate) namespace: Arc<str>,
    /// Those of the mesh's client selectors that select the workload.
    pub(crate) selectors: Arc<BTreeSet<Arc<Labels>>>,
    /// Where it wants virtual hosts.
    pub(crate) hosts: HostsStand,
}

/// One resource and all that its content depends on besides the mesh. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub(crate) name: Arc<str>,
    pub(crate) recipe: Recipe,
}

/// How a resource is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Recipe {
    /// A cluster that every proxy has.
    Fixed(Fixed),
    /// A service's port, or a part of it.
    Cluster(ClusterKey),
    /// The workload's own port.
    InboundCluster(InboundCluster),
    /// Addresses of a service's port, or of a part of it.
    Endpoints(ClusterKey),
    /// Where captured outbound connections arrive.
    VirtualOutbound,
    /// Where captured inbound connections arrive.
    VirtualInbound(Arc<Inbound>),
    /// Connections to a port, whatever the address.
    WildcardListener(Arc<Scope>, u16),
    /// Connections to an address of a service.
    ServiceListener(Arc<Scope>, ServiceId, IpAddr, u16),
    /// Requests to a service's port, for a gRPC program.
    ApiListener(Arc<Scope>, ServiceId, u16),
    /// Routes of all services on a port.
    PortRoutes(Arc<Scope>, u16),
    /// The same table without its hosts, which stand apart: what happens to requests that none of them takes.
    PortRest(u16),
    /// The virtual host of a service in a port's table.
    ServiceHost(Arc<Scope>, ServiceId, u16),
    /// The virtual host of a host in a port's table that VirtualServices name and no service has.
    OtherHost(Arc<Scope>, Arc<str>, u16),
    /// Routes of one service's port.
    ServiceRoutes(Arc<Scope>, ServiceId, u16),
    /// Connections to a port of a gateway.
    GatewayListener(Arc<Selection>, Option<IpAddr>, u16),
    /// Routes of a port (or a TLS server) of a gateway.
    GatewayRoutes(Arc<Selection>, GatewayTable),
    /// A certificate of a gateway.
    Secret(ObjectRef),
    /// The roots that a gateway's clients are checked against, by the Secret of its certificate.
    Roots(ObjectRef),
}

/// A cluster that every proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fixed {
    /// To where the client wanted.
    Passthrough,
    /// To nowhere.
    BlackHole,
    /// To the workload's own port.
    InboundPassthrough,
}

/// A service's port, or a part of it, as one kind of client uses it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClusterKey {
    pub(crate) kind: ClientKind,
    pub(crate) service: ServiceId,
    pub(crate) port: u16,
    pub(crate) subset: Option<Arc<str>>,
    /// The rule that shapes it.
    pub(crate) rule: Option<Arc<ObjectRef>>,
}

/// The workload's own port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InboundCluster {
    /// Port of the workload.
    pub(crate) port: u16,
    /// The service it serves.
    pub(crate) service: ServiceId,
    /// Port of the service.
    pub(crate) service_port: u16,
    /// The rule that shapes it.
    pub(crate) rule: Option<Arc<ObjectRef>>,
    /// The workload's address, where connections go to it and not to the loopback.
    pub(crate) loopback: bool,
}

/// All that a workload's inbound side depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Inbound {
    /// Its ports that services lead to.
    pub(crate) ports: Vec<InboundPort>,
    /// What it takes.
    pub(crate) modes: Modes,
    /// What guards it.
    pub(crate) guarded: Guarded,
}

/// One port of a workload that a service leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InboundPort {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) service: ServiceId,
    pub(crate) service_port: u16,
}

/// All that a gateway's listeners and routes depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Selection {
    pub(crate) scope: Scope,
    /// Gateways that select the workload.
    pub(crate) gateways: Vec<ObjectRef>,
    /// Port of the workload for each port of its Services.
    pub(crate) ports: BTreeMap<u16, BTreeSet<u16>>,
    /// What guards it.
    pub(crate) guarded: Guarded,
    /// Connections begin with a header of the PROXY protocol.
    pub(crate) proxy_header: bool,
}

/// A route table of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum GatewayTable {
    /// Of all plain HTTP servers on an address and port of the workload.
    Http(Option<IpAddr>, u16),
    /// Of one TLS server: its gateway and where it stands there.
    Https(ObjectRef, usize),
}

impl Key {
    pub(crate) fn new(name: impl Into<Arc<str>>, recipe: Recipe) -> Self {
        Self { name: name.into(), recipe }
    }

    /// Type of the resource.
    pub fn kind(&self) -> ResourceKind {
        match &self.recipe {
            Recipe::Fixed(_) | Recipe::Cluster(_) | Recipe::InboundCluster(_) => ResourceKind::Cluster,
            Recipe::Endpoints(_) => ResourceKind::Endpoints,
            Recipe::VirtualOutbound
            | Recipe::VirtualInbound(_)
            | Recipe::WildcardListener(..)
            | Recipe::ServiceListener(..)
            | Recipe::ApiListener(..)
            | Recipe::GatewayListener(..) => ResourceKind::Listener,
            Recipe::PortRoutes(..) | Recipe::PortRest(_) | Recipe::ServiceRoutes(..) | Recipe::GatewayRoutes(..) => {
                ResourceKind::Routes
            }
            Recipe::ServiceHost(..) | Recipe::OtherHost(..) => ResourceKind::VirtualHost,
            Recipe::Secret(_) | Recipe::Roots(_) => ResourceKind::Secret,
        }
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
    /// Adds a key; one of the same type and name stays as it is.
    pub(crate) fn add(&mut self, key: Key) {
        self.keys.entry(key.kind()).or_default().entry(Arc::clone(&key.name)).or_insert(key);
    }

    /// The key of a resource.
    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Key> {
        self.keys.get(&kind)?.get(name)
    }

    /// All keys of a type, in order of name.
    pub fn of(&self, kind: ResourceKind) -> impl Iterator<Item = &Key> {
        self.keys.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.values().flat_map(BTreeMap::values)
    }
}

/// Which resources one proxy gets: those of its scope, and its own. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    outbound: Arc<KeySet>,
    own: Arc<KeySet>,
}

impl Keys {
    pub(crate) fn new(outbound: Arc<KeySet>, own: KeySet) -> Self {
        Self { outbound, own: Arc::new(own) }
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

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.outbound.iter().chain(self.own.iter())
    }
}

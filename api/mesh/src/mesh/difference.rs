//! What differs between two snapshots, told by what resources are made from.
//!
//! A control plane with many proxies looks only at the keys that a difference touches. It may touch more than truly
//! differs, never less: versions of the keys say the rest.
//! Never here: versions (`build`) or which keys there are (`view`). Used by pilot.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use api::{
    note::ObjectRef,
    spec::{Node, ProxyKind},
};

use super::{
    Mesh,
    endpoint::ServiceEndpoint,
    key::{Key, Recipe},
    view,
};
use crate::model::{Location, Pod, ServiceId, Shared, VirtualService};

/// What differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(Extent);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extent {
    /// Addresses of these services, and what is behind them.
    Endpoints(Short),
    /// Rules of VirtualServices for these hosts, each a service's in every namespace; which resources there are stays.
    Routing(BTreeSet<Arc<str>>),
    /// Anything.
    Anything,
}

/// What the short lane leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Short {
    services: BTreeSet<ServiceId>,
    /// Addresses, with their namespace, that came to or left those that find their workloads by address: a proxy there
    /// serves them now, or not any more.
    addresses: BTreeSet<(Arc<str>, IpAddr)>,
    /// Pods that came, went, or have other ports: ports by name are theirs.
    pods: BTreeSet<ObjectRef>,
}

impl Difference {
    /// Only the addresses of these services and the Pods differ ([`Mesh::with_endpoints`]).
    pub fn of_endpoints(before: &Mesh, after: &Mesh, services: BTreeSet<ServiceId>) -> Self {
        let mut addresses = BTreeSet::new();
        for id in services.iter().filter(|id| after.services.get(id).is_some_and(|it| it.selector.is_empty())) {
            let (old, new) = (addresses_of(before, id), addresses_of(after, id));
            addresses.extend(old.symmetric_difference(&new).map(|ip| (Arc::clone(&id.namespace), *ip)));
        }
        Self(Extent::Endpoints(Short { services, addresses, pods: pods_with_other_ports(before, after) }))
    }

    /// Compares two snapshots.
    pub fn between(before: &Mesh, after: &Mesh) -> Self {
        let hosts = if same_but_routing(before, after) { hosts_of_changed_rules(before, after) } else { None };
        Self(hosts.map_or(Extent::Anything, Extent::Routing))
    }

    /// Whether each scope has the same keys in both.
    pub fn keys_stay(&self) -> bool {
        self.0 != Extent::Anything
    }

    /// Whether the keys of one proxy, and their versions, are the same in both.
    pub fn own_stays(&self, node: &Node) -> bool {
        match &self.0 {
            Extent::Endpoints(short) => {
                let here = |(namespace, ip): &(Arc<str>, IpAddr)| **namespace == *node.namespace && *ip == node.address;
                !short.addresses.iter().any(here)
                    && (short.pods.is_empty() || !short.pods.contains(&view::pod_name(node)))
            }
            Extent::Routing(_) => node.kind == ProxyKind::Sidecar,
            Extent::Anything => false,
        }
    }

    /// Whether the version of a key may differ.
    pub fn touches(&self, key: &Key) -> bool {
        match &self.0 {
            Extent::Anything => true,
            Extent::Endpoints(short) => {
                matches!(&key.recipe, Recipe::Endpoints(key) if short.services.contains(&key.service))
            }
            Extent::Routing(hosts) => match &key.recipe {
                Recipe::ServiceListener(_, id, ..)
                | Recipe::ServiceRoutes(_, id, _)
                | Recipe::ServiceHost(_, id, _) => hosts.contains(&id.host),
                Recipe::WildcardListener(..)
                | Recipe::PortRoutes(..)
                | Recipe::GatewayListener(..)
                | Recipe::GatewayRoutes(..) => true,
                Recipe::Fixed(_)
                | Recipe::Cluster(_)
                | Recipe::InboundCluster(_)
                | Recipe::Endpoints(_)
                | Recipe::VirtualOutbound
                | Recipe::VirtualInbound(_)
                | Recipe::ApiListener(..)
                | Recipe::PortRest(_)
                | Recipe::OtherHost(..)
                | Recipe::Secret(_)
                | Recipe::Roots(_) => false,
            },
        }
    }
}

fn addresses_of(mesh: &Mesh, service: &ServiceId) -> BTreeSet<IpAddr> {
    let ip = |endpoint: &ServiceEndpoint| match &endpoint.location {
        Location::Ip(ip) => Some(*ip),
        Location::Name(_) | Location::Unix(_) => None,
    };
    mesh.endpoints_of(service).into_iter().flat_map(|known| &known.endpoints).filter_map(ip).collect()
}

/// Pods whose ports are not the same in both.
fn pods_with_other_ports(before: &Mesh, after: &Mesh) -> BTreeSet<ObjectRef> {
    if Arc::ptr_eq(&before.pods, &after.pods) {
        return BTreeSet::new();
    }
    let differs = |mesh: &Mesh, (name, pod): &(&ObjectRef, &Arc<Pod>)| {
        mesh.pods.get(*name).is_none_or(|other| !Arc::ptr_eq(other, pod) && other.ports != pod.ports)
    };
    let gone = before.pods.iter().filter(|one| differs(after, one));
    let new = after.pods.iter().filter(|one| differs(before, one));
    gone.chain(new).map(|(name, _)| name.clone()).collect()
}

fn versions<'m, T: 'm>(all: impl Iterator<Item = &'m Shared<T>>) -> Vec<u64> {
    all.map(Shared::version).collect()
}

/// Whether nothing but VirtualServices differs.
fn same_but_routing(before: &Mesh, after: &Mesh) -> bool {
    let Mesh {
        settings,
        config,
        root,
        services,
        endpoints,
        pods,
        routing: _,
        rules,
        gateways,
        peers,
        policies,
        secrets,
        client_selectors,
    } = after;
    before.settings == *settings
        && before.config == *config
        && before.root == *root
        && versions(before.services.iter()) == versions(services.iter())
        && before.endpoints == *endpoints
        && (Arc::ptr_eq(&before.pods, pods) || before.pods == *pods)
        && versions(before.rules.iter()) == versions(rules.iter())
        && versions(before.gateways.iter()) == versions(gateways.iter())
        && before.peers == *peers
        && before.policies == *policies
        && before.secrets == *secrets
        && before.client_selectors == *client_selectors
}

/// The hosts of all VirtualServices that differ; none where a host among them is a wildcard, which rules of other services may
/// fall back to, or is no service's in some namespace: then there may be other resources.
fn hosts_of_changed_rules(before: &Mesh, after: &Mesh) -> Option<BTreeSet<Arc<str>>> {
    let known = |mesh: &Mesh| -> BTreeSet<(u64, Arc<str>)> {
        let named = |rule: &Shared<VirtualService>| (rule.version(), Arc::from(rule.meta.object.to_string()));
        mesh.routing.iter().map(named).collect()
    };
    let (old, new) = (known(before), known(after));
    let differs = |rule: &&Shared<VirtualService>| {
        let name = (rule.version(), Arc::from(rule.meta.object.to_string()));
        !(old.contains(&name) && new.contains(&name))
    };
    let changed = before.routing.iter().filter(differs).chain(after.routing.iter().filter(differs));
    let hosts: BTreeSet<Arc<str>> = changed.flat_map(|rule| &rule.hosts).map(|host| Arc::from(host.as_str())).collect();
    hosts.iter().all(|host| !host.starts_with('*') && after.services.seen_by_all(host)).then_some(hosts)
}

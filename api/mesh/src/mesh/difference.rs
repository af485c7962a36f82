//! What differs between two snapshots, told by what resources are made from.
//!
//! A control plane with many proxies looks only at the keys that a difference touches. It may touch more than truly
//! differs, never less: versions of the keys say the rest.
//! Never here: versions (`build`) or which keys there are (`view`). Used by pilot.

use std::{collections::BTreeSet, sync::Arc};

use api::spec::{Node, ProxyKind};

use super::{
    Mesh,
    key::{Key, Recipe},
};
use crate::model::{ServiceId, Shared, VirtualService};

/// What differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(Extent);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extent {
    /// Addresses of these services.
    Endpoints(BTreeSet<ServiceId>),
    /// Rules of VirtualServices for these hosts, each a service's in every namespace; which resources there are stays.
    Routing(BTreeSet<Arc<str>>),
    /// Anything.
    Anything,
}

impl Difference {
    /// Only the addresses of these services differ ([`Mesh::with_endpoints`]).
    pub fn of_endpoints(services: BTreeSet<ServiceId>) -> Self {
        Self(Extent::Endpoints(services))
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
            Extent::Endpoints(_) => true,
            Extent::Routing(_) => node.kind == ProxyKind::Sidecar,
            Extent::Anything => false,
        }
    }

    /// Whether the version of a key may differ.
    pub fn touches(&self, key: &Key) -> bool {
        match &self.0 {
            Extent::Anything => true,
            Extent::Endpoints(services) => {
                matches!(&key.recipe, Recipe::Endpoints(key) if services.contains(&key.service))
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

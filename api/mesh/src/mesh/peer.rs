//! Which connections a workload takes, and what a client may expect it to take (PeerAuthentication).
//!
//! Port beats workload beats namespace beats mesh; of equals the oldest wins; nothing said means PERMISSIVE, or STRICT
//! where MeshConfig says `authPolicy: MUTUAL_TLS` (Istio 1.0's way to say it, kept so that one manifest can).
//! Never here: certificates, chains. Used by `inbound` (servers) and `cluster` (clients).

use std::collections::BTreeMap;

use api::note::ObjectRef;

use crate::model::{Catalog, Guard, Labels, MtlsMode, PeerAuthentication, Shared, base::selects};

/// What a workload takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Modes {
    pub(crate) default: MtlsMode,
    pub(crate) ports: BTreeMap<u16, MtlsMode>,
}

impl Modes {
    pub(crate) fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

/// All policies about peers, and all that denies.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Peers {
    mesh: Option<MtlsMode>,
    namespaces: BTreeMap<String, MtlsMode>,
    workloads: BTreeMap<String, Vec<Shared<PeerAuthentication>>>,
    guards: Vec<Shared<Guard>>,
    root: String,
}

impl Peers {
    pub(crate) fn of(catalog: &Catalog, root: &str) -> Self {
        let mut policies: Vec<_> = catalog.peer_authentications.values().collect();
        policies.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
        let mut peers = Self { root: root.to_owned(), ..Self::default() };
        let mut settled = BTreeMap::new();
        for policy in policies {
            let namespace = policy.meta.namespace();
            if policy.selector.is_some() {
                if namespace != root {
                    peers.workloads.entry(namespace.to_owned()).or_default().push(policy.clone());
                }
            } else {
                settled.entry(namespace.to_owned()).or_insert(policy.mode);
            }
        }
        let unsaid = catalog.mesh_config.strict.then_some(MtlsMode::Strict);
        peers.mesh = settled.remove(root).flatten().or(unsaid);
        peers.namespaces = settled.into_iter().filter_map(|(namespace, mode)| Some((namespace, mode?))).collect();
        peers.guards = catalog.guards.values().cloned().collect();
        peers
    }

    /// What clients may expect of a namespace's workloads: single workloads and ports do not count.
    pub(crate) fn expected(&self, namespace: &str) -> MtlsMode {
        self.namespaces.get(namespace).copied().or(self.mesh).unwrap_or(MtlsMode::Permissive)
    }

    /// What a workload takes.
    pub(crate) fn modes(&self, namespace: &str, labels: &Labels) -> Modes {
        let wider = self.expected(namespace);
        let own = self.workloads.get(namespace).and_then(|policies| {
            policies.iter().find(|policy| policy.selector.as_ref().is_some_and(|s| selects(s, labels)))
        });
        let default = own.and_then(|policy| policy.mode).unwrap_or(wider);
        let ports = own
            .map(|policy| policy.ports.iter().map(|(port, mode)| (*port, mode.unwrap_or(default))).collect())
            .unwrap_or_default();
        Modes { default, ports }
    }

    /// What denies everything to a workload.
    pub(crate) fn guards(&self, namespace: &str, labels: &Labels) -> Vec<ObjectRef> {
        let applies = |guard: &Guard| {
            (guard.meta.namespace() == self.root || guard.meta.namespace() == namespace)
                && selects(&guard.selector, labels)
        };
        self.guards.iter().filter(|guard| applies(guard)).map(|guard| guard.meta.object.clone()).collect()
    }
}

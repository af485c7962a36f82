//! One conversation with pilot, as a pure state machine (delta ADS).
//!
//! Takes responses, gives requests: what to subscribe to, what to acknowledge, what to refuse and why. Holds the
//! resources received so far, so that they outlive a lost stream and a new one resumes where the old one ended.
//! A response is acknowledged only after the table that holds it serves: the caller says so with [`Session::served`].
//! Never here: sockets, protobuf, clocks. Driven by `xds::stream`.

mod hosts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::spec::{
    CertificateRef, ClientTls, Discovery, HostName, Network, Resource, ResourceKind, RootsRef, RoutesRef, Spec,
    UpstreamTls,
};
use hosts::Hosts;

/// The types we subscribe to, in the order in which they are asked for.
pub(crate) const KINDS: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::Endpoints,
    ResourceKind::Listener,
    ResourceKind::Routes,
    ResourceKind::VirtualHost,
    ResourceKind::Secret,
];

/// What we say to pilot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: ResourceKind,
    pub(crate) subscribe: Vec<String>,
    pub(crate) unsubscribe: Vec<String>,
    /// Versions held already; only in the first request for a type on a stream.
    pub(crate) held: BTreeMap<String, String>,
    /// The response this answers; empty when it answers none.
    pub(crate) nonce: String,
    /// Why that response was refused.
    pub(crate) refused: Option<String>,
}

/// One resource of a response, decoded or not decodable.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) resource: Result<Resource, String>,
}

/// What pilot says.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) kind: ResourceKind,
    pub(crate) nonce: String,
    pub(crate) resources: Vec<Received>,
    pub(crate) removed: Vec<String>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// Names asked for (types without wildcard).
    names: BTreeSet<String>,
    /// Names asked for and not answered yet.
    awaited: BTreeSet<String>,
    /// Versions of what is held.
    versions: BTreeMap<String, String>,
    /// Whether this type has been answered at all.
    answered: bool,
}

/// Answers of a response that waits for its table to serve.
#[derive(Debug)]
struct Held {
    kind: ResourceKind,
    nonce: String,
    /// What it brought.
    names: BTreeSet<String>,
    refused: Vec<String>,
}

/// The conversation.
#[derive(Debug, Default)]
pub(crate) struct Session {
    spec: Spec,
    hosts: Hosts,
    subscriptions: BTreeMap<ResourceKind, Subscription>,
    held: Vec<Held>,
    changed: bool,
}

impl Session {
    /// Everything received so far.
    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether there is something that no table holds yet.
    pub(crate) fn changed(&self) -> bool {
        self.changed || !self.held.is_empty()
    }

    /// Whether clusters and listeners have been answered: before that there is nothing to serve.
    pub(crate) fn started(&self) -> bool {
        [ResourceKind::Cluster, ResourceKind::Listener]
            .iter()
            .all(|kind| self.subscriptions.get(kind).is_some_and(|s| s.answered))
    }

    /// Names that were asked for and not answered yet; a table built now would lack them.
    pub(crate) fn awaited(&self) -> usize {
        self.subscriptions.values().map(|s| s.awaited.len()).sum()
    }

    /// Stops waiting: what has not been answered by now is taken to be absent.
    pub(crate) fn give_up(&mut self) {
        for subscription in self.subscriptions.values_mut() {
            subscription.awaited.clear();
        }
    }

    /// The first requests of a new stream.
    pub(crate) fn open(&mut self) -> Vec<Request> {
        self.held.clear();
        KINDS
            .into_iter()
            .filter_map(|kind| {
                let subscription = self.subscriptions.entry(kind).or_default();
                let wildcard = is_wildcard(kind);
                if !wildcard && subscription.names.is_empty() {
                    return None;
                }
                Some(Request {
                    kind,
                    subscribe: if wildcard {
                        vec!["*".to_owned()]
                    } else {
                        subscription.names.iter().cloned().collect()
                    },
                    unsubscribe: Vec::new(),
                    held: subscription.versions.clone(),
                    nonce: String::new(),
                    refused: None,
                })
            })
            .collect()
    }

    /// Takes a response; gives the subscriptions that follow from it. Its acknowledgement comes from [`Self::served`].
    pub(crate) fn on_response(&mut self, response: Response) -> Vec<Request> {
        let Response { kind, nonce, resources, removed } = response;
        let subscription = self.subscriptions.entry(kind).or_default();
        subscription.answered = true;
        let mut refused = Vec::new();
        let mut names = BTreeSet::new();
        for received in resources {
            names.insert(received.name.clone());
            subscription.awaited.remove(hosts::asked_as(kind, &received.name));
            match received.resource {
                Ok(resource) if resource.kind() == kind => {
                    match insert(&mut self.spec, &mut self.hosts, &received.name, resource) {
                        Ok(()) => {
                            subscription.versions.insert(received.name, received.version);
                            self.changed = true;
                        }
                        Err(reason) => refused.push(format!("{:?}: {reason}", received.name)),
                    }
                }
                Ok(resource) => refused.push(format!("{}: a {:?} came as {kind:?}", received.name, resource.kind())),
                Err(reason) => refused.push(format!("{}: {reason}", received.name)),
            }
        }
        for name in removed {
            subscription.awaited.remove(&name);
            subscription.versions.remove(&name);
            self.changed |= remove(&mut self.spec, &mut self.hosts, kind, &name);
        }
        self.hosts.join(&mut self.spec);
        self.held.push(Held { kind, nonce, names, refused });
        self.resubscribe()
    }

    /// Says that a table made of [`Self::spec`] serves now, and which resources it could not take; gives the
    /// acknowledgements that this frees.
    pub(crate) fn served(&mut self, faults: &[(ResourceKind, String, String)]) -> Vec<Request> {
        self.changed = false;
        self.held
            .drain(..)
            .map(|held| {
                let concerns = |(kind, name, why): &&(ResourceKind, String, String)| {
                    if held.kind == ResourceKind::VirtualHost {
                        hosts::told_in(*kind, name, why, &held.names)
                    } else {
                        *kind == held.kind && held.names.contains(name)
                    }
                };
                let faults = faults.iter().filter(concerns).map(|(_, name, why)| format!("{name}: {why}"));
                let refused: Vec<String> = held.refused.into_iter().chain(faults).collect();
                Request {
                    kind: held.kind,
                    subscribe: Vec::new(),
                    unsubscribe: Vec::new(),
                    held: BTreeMap::new(),
                    nonce: held.nonce,
                    refused: (!refused.is_empty()).then(|| refused.join("; ")),
                }
            })
            .collect()
    }

    /// Compares what the resources name with what is subscribed to.
    fn resubscribe(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for (kind, wanted) in [
            (ResourceKind::Endpoints, wanted_endpoints(&self.spec)),
            (ResourceKind::Routes, wanted_routes(&self.spec)),
            (ResourceKind::VirtualHost, self.hosts.wanted()),
            (ResourceKind::Secret, wanted_secrets(&self.spec)),
        ] {
            let subscription = self.subscriptions.entry(kind).or_default();
            let subscribe: Vec<String> = wanted.difference(&subscription.names).cloned().collect();
            let unsubscribe: Vec<String> = subscription.names.difference(&wanted).cloned().collect();
            if subscribe.is_empty() && unsubscribe.is_empty() {
                continue;
            }
            for name in &unsubscribe {
                subscription.awaited.remove(name);
                subscription.versions.retain(|held, _| hosts::asked_as(kind, held) != name);
                remove(&mut self.spec, &mut self.hosts, kind, name);
            }
            subscription.awaited.extend(subscribe.iter().cloned());
            subscription.names = wanted;
            let (held, nonce, refused) = (BTreeMap::new(), String::new(), None);
            requests.push(Request { kind, subscribe, unsubscribe, held, nonce, refused });
        }
        requests
    }
}

fn is_wildcard(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Cluster | ResourceKind::Listener)
}

/// Puts a resource in its place.
///
/// # Errors
/// Its name has none.
fn insert(spec: &mut Spec, hosts: &mut Hosts, name: &str, resource: Resource) -> Result<(), &'static str> {
    match resource {
        Resource::Cluster(it) => drop(spec.clusters.insert(it.name.clone(), it)),
        Resource::Endpoints(it) => drop(spec.endpoints.insert(it.cluster.clone(), it)),
        Resource::Listener(it) => drop(spec.listeners.insert(it.name.clone(), it)),
        Resource::Routes(it) => hosts.table(spec, it),
        Resource::Secret(it) => drop(spec.secrets.insert(it.name.clone(), it)),
        Resource::VirtualHost(it) => {
            hosts.host(HostName::read(name).ok_or("names no table: it must be written TABLE/HOST")?, it);
        }
    }
    Ok(())
}

fn remove(spec: &mut Spec, hosts: &mut Hosts, kind: ResourceKind, name: &str) -> bool {
    match kind {
        ResourceKind::Cluster => spec.clusters.remove(name).is_some(),
        ResourceKind::Endpoints => spec.endpoints.remove(name).is_some(),
        ResourceKind::Listener => spec.listeners.remove(name).is_some(),
        ResourceKind::Routes => hosts.no_table(spec, name),
        ResourceKind::Secret => spec.secrets.remove(name).is_some(),
        ResourceKind::VirtualHost => hosts.no_host(name),
    }
}

fn wanted_endpoints(spec: &Spec) -> BTreeSet<String> {
    spec.clusters.values().filter(|c| c.discovery == Discovery::Eds).map(|c| c.name.clone()).collect()
}

fn chains(spec: &Spec) -> impl Iterator<Item = &api::spec::FilterChain> {
    spec.listeners.values().flat_map(|l: &Arc<_>| l.chains.iter().chain(&l.default_chain))
}

fn wanted_routes(spec: &Spec) -> BTreeSet<String> {
    chains(spec)
        .filter_map(|chain| match &chain.network {
            Network::Http(http) => match &http.routes {
                RoutesRef::Named(name) => Some(name.clone()),
                RoutesRef::Inline(_) => None,
            },
            Network::Tcp(_) => None,
        })
        .collect()
}

fn wanted_secrets(spec: &Spec) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    let mut add = |certificate: Option<&CertificateRef>, roots: Option<&RootsRef>| {
        if let Some(CertificateRef::Secret(name)) = certificate {
            wanted.insert(name.clone());
        }
        if let Some(RootsRef::Secret(name)) = roots {
            wanted.insert(name.clone());
        }
    };
    for tls in chains(spec).filter_map(|chain| chain.tls.as_ref()) {
        add(Some(&tls.certificate), tls.client_roots.as_ref());
    }
    for cluster in spec.clusters.values() {
        if let UpstreamTls::Auto(ClientTls { certificate, roots, .. })
        | UpstreamTls::On(ClientTls { certificate, roots, .. }) = &cluster.tls
        {
            add(certificate.as_ref(), roots.as_ref());
        }
    }
    wanted
}

#[cfg(test)]
mod tests;

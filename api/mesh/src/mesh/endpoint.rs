//! The addresses behind each service, joined with the Pods and nodes they belong to.
//!
//! Kept apart from everything else, so that an endpoint-only change touches nothing but the endpoints of its service.
//! Never here: which of them a client may use. Used by `cluster` and by `Mesh::with_endpoints`.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use api::spec::{Address, Endpoint, Endpoints, Health, Locality, Workload};

use crate::model::{
    Catalog, Labels, Location, Outside, Place, Pod, Registry, Resolution, Service, ServicePort, TargetPort,
    base::{hash_of, selects},
};

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceEndpoint {
    pub(crate) location: Location,
    /// Its ports by name of the service's port; empty: the target port's number.
    ports: Arc<[(Arc<str>, u16)]>,
    labels: Arc<Labels>,
    account: Option<(String, String)>,
    mtls: bool,
    place: Arc<Place>,
    workload: Option<Arc<Workload>>,
    weight: u32,
}

/// All addresses of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceEndpoints {
    pub(crate) endpoints: Vec<ServiceEndpoint>,
    /// Namespace and name of the service accounts behind it.
    pub(crate) accounts: BTreeSet<(String, String)>,
    /// Whether every endpoint takes mTLS (and there is one).
    pub(crate) all_mtls: bool,
    /// Version of the addresses.
    pub(crate) version: u64,
}

impl ServiceEndpoints {
    fn of(mut endpoints: Vec<ServiceEndpoint>) -> Self {
        endpoints.sort();
        endpoints.dedup();
        Self {
            accounts: endpoints.iter().filter_map(|endpoint| endpoint.account.clone()).collect(),
            all_mtls: !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.mtls),
            version: hash_of(&endpoints),
            endpoints,
        }
    }

    /// Version of the addresses that have these labels.
    pub(crate) fn version_of(&self, labels: &Labels) -> u64 {
        let chosen: Vec<&ServiceEndpoint> =
            self.endpoints.iter().filter(|endpoint| selects(labels, &endpoint.labels)).collect();
        hash_of(&chosen)
    }

    /// Version of what clusters depend on: who answers, not where.
    pub(crate) fn identity_version(&self) -> u64 {
        hash_of(&(&self.accounts, self.all_mtls))
    }
}

/// Gathers the addresses of a service.
pub(crate) fn gather(catalog: &Catalog, service: &Service) -> ServiceEndpoints {
    match service.registry {
        Registry::Kubernetes => ServiceEndpoints::of(of_slices(catalog, service)),
        Registry::Entry => ServiceEndpoints::of(of_entry(catalog, service)),
    }
}

fn of_slices(catalog: &Catalog, service: &Service) -> Vec<ServiceEndpoint> {
    let namespace = &*service.id.namespace;
    let mut all = Vec::new();
    for slice in catalog.slices_of(&service.meta.object) {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready || service.publish_not_ready) {
            let pod = catalog.pod_behind(namespace, endpoint.pod.as_deref(), endpoint.ip);
            let node = pod.map(|pod| pod.node.as_str()).filter(|node| !node.is_empty()).or(endpoint.node.as_deref());
            let mut place = place_of(catalog, pod, node);
            if place.zone.is_empty()
                && let Some(zone) = &endpoint.zone
            {
                place = Arc::new(Place { zone: zone.clone(), ..(*place).clone() });
            }
            all.push(ServiceEndpoint {
                location: Location::Ip(endpoint.ip),
                ports: Arc::clone(&slice.ports),
                labels: pod.map(|pod| Arc::clone(&pod.labels)).unwrap_or_default(),
                account: pod.map(|pod| (pod.namespace.clone(), pod.service_account.clone())),
                mtls: pod.is_some_and(|pod| pod.mtls),
                place,
                workload: pod.map(|pod| Arc::clone(&pod.workload)),
                weight: 1,
            });
        }
    }
    all
}

fn place_of(catalog: &Catalog, pod: Option<&Arc<Pod>>, node: Option<&str>) -> Arc<Place> {
    match pod.and_then(|pod| pod.place.clone()) {
        Some(place) => Arc::new(place),
        None => node.and_then(|node| catalog.nodes.get(node)).cloned().unwrap_or_default(),
    }
}

fn of_entry(catalog: &Catalog, service: &Service) -> Vec<ServiceEndpoint> {
    let Some(entry) = catalog.service_entries.get(&service.meta.object) else { return Vec::new() };
    let namespace = entry.meta.namespace();
    let mut all: Vec<ServiceEndpoint> = entry.endpoints.iter().map(|outside| of_outside(outside, namespace)).collect();
    if all.is_empty()
        && entry.selector.is_none()
        && matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
        && !service.id.host.starts_with('*')
    {
        let mut own = Outside::named(&service.name, namespace, Labels::new(), &catalog.settings.cluster_id);
        own.location = Location::Name(service.id.host.to_string());
        let mut endpoint = of_outside(&own, namespace);
        endpoint.workload = None;
        all.push(endpoint);
    }
    if let Some(selector) = &entry.selector {
        let chosen = catalog
            .workload_entries
            .values()
            .filter(|we| we.meta.namespace() == namespace && selects(selector, &we.outside.labels));
        // without DNS in between, a name is no address
        let usable = chosen.filter(|we| {
            service.resolution != Resolution::Endpoints || !matches!(we.outside.location, Location::Name(_))
        });
        all.extend(usable.map(|we| of_outside(&we.outside, namespace)));
        let pods = catalog.pods.values().filter(|pod| pod.namespace == namespace && selects(selector, &pod.labels));
        for pod in pods {
            let Some(address) = pod.addresses.first() else { continue };
            all.push(ServiceEndpoint {
                location: Location::Ip(*address),
                ports: Arc::default(),
                labels: Arc::clone(&pod.labels),
                account: Some((pod.namespace.clone(), pod.service_account.clone())),
                mtls: pod.mtls,
                place: place_of(catalog, Some(pod), Some(&pod.node)),
                workload: Some(Arc::clone(&pod.workload)),
                weight: 1,
            });
        }
    }
    all
}

fn of_outside(outside: &Outside, namespace: &str) -> ServiceEndpoint {
    ServiceEndpoint {
        location: outside.location.clone(),
        ports: outside.ports.iter().map(|(name, port)| (name.as_str().into(), *port)).collect(),
        labels: Arc::clone(&outside.labels),
        account: (!outside.service_account.is_empty()).then(|| (namespace.to_owned(), outside.service_account.clone())),
        mtls: outside.mtls,
        place: outside.place.clone().map(Arc::new).unwrap_or_default(),
        workload: Some(Arc::clone(&outside.workload)),
        weight: outside.weight,
    }
}

/// The addresses of one port of a service, or of the part of it with these labels, grouped by place.
pub(crate) fn of_port(
    service: &Service,
    port: &ServicePort,
    labels: &Labels,
    known: &ServiceEndpoints,
    cluster: &str,
) -> Endpoints {
    let mut localities: Vec<Locality> = Vec::new();
    let mut places: Vec<&Place> = Vec::new();
    for endpoint in known.endpoints.iter().filter(|endpoint| selects(labels, &endpoint.labels)) {
        let Some(number) = number_of(service, port, endpoint) else { continue };
        let address = match &endpoint.location {
            Location::Ip(ip) => Address::Socket(SocketAddr::new(*ip, number)),
            Location::Name(name) => Address::Name(name.clone(), number),
            Location::Unix(path) => Address::Unix(path.clone()),
        };
        let at = places.iter().position(|place| **place == *endpoint.place).unwrap_or_else(|| {
            let Place { region, zone, sub_zone } = &*endpoint.place;
            places.push(&endpoint.place);
            localities.push(Locality {
                region: region.clone(),
                zone: zone.clone(),
                sub_zone: sub_zone.clone(),
                ..Locality::default()
            });
            localities.len() - 1
        });
        let Some(locality) = localities.get_mut(at) else { continue };
        locality.endpoints.push(Endpoint {
            address,
            weight: endpoint.weight,
            health: Health::Healthy,
            mtls: endpoint.mtls,
            workload: endpoint.workload.as_deref().cloned(),
        });
    }
    Endpoints { cluster: cluster.to_owned(), localities }
}

/// The endpoint's port behind a service's port.
fn number_of(service: &Service, port: &ServicePort, endpoint: &ServiceEndpoint) -> Option<u16> {
    if matches!(endpoint.location, Location::Unix(_)) {
        return Some(0);
    }
    let named = endpoint.ports.iter().find(|(name, _)| *name == port.name).map(|(_, number)| *number);
    match (&port.target, service.registry) {
        // a slice lists what its endpoints have: nothing of that name, no such port
        (_, Registry::Kubernetes) => named,
        (TargetPort::Number(number), Registry::Entry) => Some(named.unwrap_or(*number)),
        (TargetPort::Name(_), Registry::Entry) => Some(named.unwrap_or(port.number)),
    }
}

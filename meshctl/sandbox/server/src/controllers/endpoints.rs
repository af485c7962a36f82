//! Endpoints: which Pods a Service leads to, in the old form and in slices.
//!
//! Resolves ports for each Pod, tells ready from terminating, and copies Endpoints that a user wrote into slices.
//! Never here: how slices are filled (`slices`), addresses of Services. Called by `work`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::pods;
use super::resource::{Key, Resource};
use super::slices::{self, Group};
use super::write::{Policy, Write};

/// Tells a headless Service's endpoints.
const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const NOT_MIRRORED: &str = "endpointslice.kubernetes.io/skip-mirror";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is there for a Service.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) endpoints: Option<Arc<Endpoints>>,
    pub(crate) slices: Vec<Arc<discovery::EndpointSlice>>,
}

/// What is to be written for a Service's endpoints, given the Pods that it selects.
pub(crate) fn reconcile(
    key: &Key,
    service: Option<&Service>,
    pods: &[Arc<Pod>],
    own: &Own,
    nodes: &[Arc<Node>],
) -> Vec<Write> {
    let Some(service) = service else { return without_service(key, own) };
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") || service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
        return mirror(key, own);
    }
    let found = Found::new(service, pods, nodes);
    let mut writes = Vec::new();
    writes.extend(old_form(key, service, &found, own.endpoints.as_deref()));
    let owner = pods::owned_by("v1", "Service", &service.metadata);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    writes.extend(slices::fill(key, slices::Manager::Endpoints, &owner, &labels, found.groups(), &own.slices));
    writes
}

/// Its Endpoints go with a Service; slices have it as owner.
fn without_service(key: &Key, own: &Own) -> Vec<Write> {
    let Some(endpoints) = &own.endpoints else { return Vec::new() };
    let ours = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    let mirrored = own.slices.iter().filter(|slice| slices::Manager::Mirror.made(slice));
    let mut writes: Vec<Write> = mirrored.filter_map(|slice| slices::delete(slice)).collect();
    if ours.map(String::as_str) == Some(MANAGER)
        && let Some(resource) = Resource::builtin("Endpoints").map(Arc::new)
    {
        let uid = endpoints.metadata.uid.clone().unwrap_or_default();
        writes.push(Write::Delete { resource, key: key.clone(), uid, policy: Policy::Background, report: None });
    }
    writes
}

/// One Pod as an endpoint.
struct Candidate {
    address: String,
    ports: Vec<(String, i32, ServicePort)>,
    ready: bool,
    serving: bool,
    terminating: bool,
    /// Whether it counts in the old form, which knows no terminating ones.
    in_old_form: bool,
    hostname: Option<String>,
    node: Option<String>,
    zone: Option<String>,
    target: ObjectReference,
}

struct Found(Vec<Candidate>);

impl Found {
    fn new(service: &Service, pods: &[Arc<Pod>], nodes: &[Arc<Node>]) -> Self {
        let spec = service.spec.as_ref();
        let unready_too = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
        let zones: BTreeMap<&str, &str> = nodes
            .iter()
            .filter_map(|node| {
                Some((node.metadata.name.as_deref()?, node.metadata.labels.as_ref()?.get(ZONE)?.as_str()))
            })
            .collect();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let name = service.metadata.name.as_deref();
        let mut found: Vec<_> =
            pods.iter().filter_map(|pod| Candidate::new(pod, name, ports, unready_too, &zones)).collect();
        found.sort_by(|a, b| a.address.cmp(&b.address));
        Self(found)
    }

    /// Endpoints with the same ports together.
    fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<Vec<(String, i32)>, Group> = BTreeMap::new();
        for candidate in &self.0 {
            let by = candidate.ports.iter().map(|(name, number, _)| (name.clone(), *number)).collect();
            let group =
                groups.entry(by).or_insert_with(|| Group { ports: candidate.slice_ports(), endpoints: Vec::new() });
            group.endpoints.push(candidate.slice_endpoint());
        }
        groups.into_values().collect()
    }

    fn subsets(&self) -> Vec<EndpointSubset> {
        let mut subsets: BTreeMap<Vec<(String, i32)>, EndpointSubset> = BTreeMap::new();
        for candidate in self.0.iter().filter(|candidate| candidate.in_old_form) {
            let by = candidate.ports.iter().map(|(name, number, _)| (name.clone(), *number)).collect();
            let subset = subsets.entry(by).or_insert_with(|| EndpointSubset {
                ports: Some(candidate.old_ports()).filter(|ports| !ports.is_empty()),
                ..EndpointSubset::default()
            });
            let list = if candidate.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.get_or_insert_default().push(EndpointAddress {
                ip: candidate.address.clone(),
                hostname: candidate.hostname.clone(),
                node_name: candidate.node.clone(),
                target_ref: Some(candidate.target.clone()),
            });
        }
        subsets.into_values().collect()
    }
}

impl Candidate {
    fn new(
        pod: &Pod,
        service: Option<&str>,
        ports: &[ServicePort],
        unready_too: bool,
        zones: &BTreeMap<&str, &str>,
    ) -> Option<Self> {
        let address = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
        if pods::ended(pod) {
            return None;
        }
        let spec = pod.spec.as_ref()?;
        let serving = pods::ready(pod);
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let resolved: Vec<_> = ports
            .iter()
            .filter_map(|port| Some((port.name.clone().unwrap_or_default(), target_port(pod, port)?, port.clone())))
            .collect();
        if resolved.is_empty() && !ports.is_empty() {
            return None; // no port of the Service is one of this Pod's
        }
        let node = spec.node_name.clone();
        Some(Self {
            address,
            ports: resolved,
            ready: unready_too || (serving && !terminating),
            serving,
            terminating,
            in_old_form: unready_too || !terminating,
            hostname: spec.hostname.clone().filter(|host| !host.is_empty() && spec.subdomain.as_deref() == service),
            zone: node.as_deref().and_then(|node| zones.get(node)).map(|zone| (*zone).to_owned()),
            node,
            target: ObjectReference {
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            },
        })
    }

    fn slice_ports(&self) -> Vec<discovery::EndpointPort> {
        let port = |(name, number, port): &(String, i32, ServicePort)| discovery::EndpointPort {
            name: Some(name.clone()),
            port: Some(*number),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        };
        self.ports.iter().map(port).collect()
    }

    fn old_ports(&self) -> Vec<EndpointPort> {
        let port = |(name, number, port): &(String, i32, ServicePort)| EndpointPort {
            name: Some(name.clone()).filter(|name| !name.is_empty()),
            port: *number,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        };
        self.ports.iter().map(port).collect()
    }

    fn slice_endpoint(&self) -> discovery::Endpoint {
        discovery::Endpoint {
            addresses: vec![self.address.clone()],
            conditions: Some(discovery::EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.serving),
                terminating: Some(self.terminating),
            }),
            hostname: self.hostname.clone(),
            node_name: self.node.clone(),
            zone: self.zone.clone(),
            target_ref: Some(self.target.clone()),
            ..discovery::Endpoint::default()
        }
    }
}

/// The number of a Service's port on a Pod: given, or found by name among its containers' ports.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let native_sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports =
        spec.containers.iter().chain(native_sidecars).flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
    named.map(|port| port.container_port)
}

fn old_form(key: &Key, service: &Service, found: &Found, known: Option<&Endpoints>) -> Option<Write> {
    let subsets = Some(found.subsets()).filter(|subsets| !subsets.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let Some(known) = known else {
        let object = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": key.name, "namespace": key.namespace, "labels": labels },
            "subsets": subsets,
        });
        return Some(Write::Create { object, report: None });
    };
    let mut wanted = known.clone();
    wanted.subsets = subsets;
    wanted.metadata.labels = Some(labels);
    let same = wanted.subsets == known.subsets && wanted.metadata.labels == known.metadata.labels;
    let object = (!same).then(|| serde_json::to_value(wanted).ok()).flatten()?;
    Some(Write::Replace { part: "", object })
}

/// Slices for Endpoints that a user wrote for a Service without selector.
fn mirror(key: &Key, own: &Own) -> Vec<Write> {
    let Some(endpoints) = &own.endpoints else {
        return own
            .slices
            .iter()
            .filter(|slice| slices::Manager::Mirror.made(slice))
            .filter_map(|s| slices::delete(s))
            .collect();
    };
    let labels = endpoints.metadata.labels.clone().unwrap_or_default();
    if labels.get(NOT_MIRRORED).map(String::as_str) == Some("true") || endpoints.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let endpoint = |address: &EndpointAddress, ready: bool| discovery::Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(ready),
            ..discovery::EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..discovery::Endpoint::default()
    };
    let port = |port: &EndpointPort| discovery::EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    let group = |subset: &EndpointSubset| Group {
        ports: subset.ports.iter().flatten().map(port).collect(),
        endpoints: subset
            .addresses
            .iter()
            .flatten()
            .map(|address| endpoint(address, true))
            .chain(subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false)))
            .collect(),
    };
    let groups = endpoints.subsets.iter().flatten().map(group).collect();
    let owner = pods::owned_by("v1", "Endpoints", &endpoints.metadata);
    slices::fill(key, slices::Manager::Mirror, &owner, &labels, groups, &own.slices)
}

#[cfg(test)]
mod tests;

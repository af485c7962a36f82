//! Workloads and the addresses of services: Pods, nodes, endpoint slices, WorkloadEntries.
//!
//! Never here: which service an address serves for whom. Called by the catalog; `mesh` joins them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use api::spec::Workload;

use super::base::Labels;
use crate::object::{Metadata, core};

/// Region, zone and sub-zone; empty where unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

impl Place {
    /// Reads `region/zone/sub-zone` (or with dots, as labels write it).
    pub(crate) fn read(text: &str, separator: char) -> Self {
        let mut parts = text.splitn(3, separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// Where a node is.
    pub(crate) fn of_node(node: &core::Node) -> Self {
        let label = |names: [&str; 2]| {
            names.iter().find_map(|name| node.metadata.labels.get(*name)).cloned().unwrap_or_default()
        };
        Self {
            region: label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
            zone: label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
            sub_zone: label(["topology.istio.io/subzone", "topology.istio.io/subzone"]),
        }
    }
}

/// A Pod, as far as the mesh cares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Addresses; empty until it has one.
    pub addresses: Vec<IpAddr>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Service account.
    pub service_account: String,
    /// Node it is on.
    pub node: String,
    /// Where its label says it is.
    pub place: Option<Place>,
    /// How metrics name it.
    pub workload: Arc<Workload>,
    /// Whether its sidecar takes Istio mTLS.
    pub mtls: bool,
    /// Names that containers give to ports.
    pub ports: Vec<(String, u16)>,
    /// Whether it shares the node's network.
    pub host_network: bool,
}

impl Pod {
    pub(crate) fn parse(raw: &core::Pod, cluster: &str) -> Self {
        let labels = &raw.metadata.labels;
        let addresses = raw
            .status
            .as_ref()
            .map(|status| {
                let many = status.pod_ips.iter().map(|ip| ip.ip.as_str());
                let mut all: Vec<IpAddr> =
                    many.chain([status.pod_ip.as_str()]).filter_map(|text| text.parse().ok()).collect();
                all.dedup();
                all
            })
            .unwrap_or_default();
        let ended = raw.status.as_ref().is_some_and(|s| s.phase == "Succeeded" || s.phase == "Failed");
        let containers = raw.spec.containers.iter().chain(&raw.spec.init_containers);
        Self {
            namespace: raw.metadata.namespace.clone(),
            name: raw.metadata.name.clone(),
            addresses: if ended { Vec::new() } else { addresses },
            service_account: match raw.spec.service_account_name.as_str() {
                "" => "default".to_owned(),
                name => name.to_owned(),
            },
            node: raw.spec.node_name.clone(),
            place: labels.get("topology.istio.io/locality").map(|text| Place::read(text, '.')),
            workload: Arc::new(workload(&owner(&raw.metadata), &raw.metadata.namespace, labels, cluster)),
            mtls: labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio"),
            ports: containers
                .flat_map(|container| &container.ports)
                .filter(|port| !port.name.is_empty())
                .map(|port| (port.name.clone(), port.container_port))
                .collect(),
            host_network: raw.spec.host_network == Some(true),
            labels: Arc::new(labels.clone()),
        }
    }
}

/// Label that the injector sets on what has a sidecar.
pub(crate) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Name of what a Pod belongs to: the Deployment above its ReplicaSet, else its controller, else itself.
fn owner(metadata: &Metadata) -> String {
    let controller = metadata
        .owner_references
        .iter()
        .find(|owner| owner.controller == Some(true))
        .or_else(|| metadata.owner_references.first());
    let Some(owner) = controller else { return metadata.name.clone() };
    let template = metadata.labels.get("pod-template-hash").map(|hash| format!("-{hash}"));
    match (owner.kind.as_str(), template) {
        ("ReplicaSet", Some(suffix)) => owner.name.strip_suffix(&suffix).unwrap_or(&owner.name).to_owned(),
        _ => owner.name.clone(),
    }
}

fn workload(name: &str, namespace: &str, labels: &Labels, cluster: &str) -> Workload {
    let label = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).cloned();
    let name = label(&["service.istio.io/workload-name"]).unwrap_or_else(|| name.to_owned());
    Workload {
        canonical_name: label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .unwrap_or_else(|| name.clone()),
        canonical_revision: label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
            .unwrap_or_else(|| "latest".to_owned()),
        name,
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
    }
}

/// Where an endpoint is reached, without the port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// By address.
    Ip(IpAddr),
    /// By a name that DNS knows.
    Name(String),
    /// By a Unix domain socket.
    Unix(String),
}

/// A workload outside Kubernetes: a WorkloadEntry, or an endpoint written in a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outside {
    /// Where.
    pub location: Location,
    /// Its ports, by name of the service's port.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// Where it is.
    pub place: Option<Place>,
    /// Weight, at least 1.
    pub weight: u32,
    /// Service account; empty: none.
    pub service_account: String,
    /// How metrics name it.
    pub workload: Arc<Workload>,
    /// Whether it takes Istio mTLS.
    pub mtls: bool,
}

impl Outside {
    pub(crate) fn named(name: &str, namespace: &str, labels: Labels, cluster: &str) -> Self {
        Self {
            location: Location::Name(String::new()),
            ports: BTreeMap::new(),
            place: None,
            weight: 1,
            service_account: String::new(),
            workload: Arc::new(workload(name, namespace, &labels, cluster)),
            mtls: labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio"),
            labels: Arc::new(labels),
        }
    }
}

/// One address of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    /// The address.
    pub ip: IpAddr,
    /// Whether it may get traffic.
    pub ready: bool,
    /// Name of the Pod behind it, where that is told.
    pub pod: Option<String>,
    /// Node, where that is told.
    pub node: Option<String>,
    /// Zone, where that is told.
    pub zone: Option<String>,
}

/// Some endpoints of one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Ports by name, shared by all endpoints.
    pub ports: Arc<[(Arc<str>, u16)]>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

impl Slice {
    /// Reads a slice; with it the name of its service. None where it belongs to none.
    pub(crate) fn parse(raw: &core::EndpointSlice) -> Option<(String, Self)> {
        let service = raw.metadata.labels.get("kubernetes.io/service-name")?.clone();
        let endpoints = raw.endpoints.iter().filter_map(|endpoint| {
            Some(SliceEndpoint {
                ip: endpoint.addresses.first()?.parse().ok()?,
                ready: endpoint.conditions.ready != Some(false),
                pod: endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.clone()),
                node: endpoint.node_name.clone(),
                zone: endpoint.zone.clone(),
            })
        });
        Some((service, Self { ports: ports(&raw.ports), endpoints: endpoints.collect() }))
    }

    /// Reads the old form: one slice a group.
    pub(crate) fn parse_old(raw: &core::Endpoints) -> Vec<Self> {
        raw.subsets
            .iter()
            .map(|subset| {
                let one = |ready: bool| {
                    move |address: &core::EndpointAddress| {
                        Some(SliceEndpoint {
                            ip: address.ip.parse().ok()?,
                            ready,
                            pod: address.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.clone()),
                            node: address.node_name.clone(),
                            zone: None,
                        })
                    }
                };
                Self {
                    ports: ports(&subset.ports),
                    endpoints: subset
                        .addresses
                        .iter()
                        .filter_map(one(true))
                        .chain(subset.not_ready_addresses.iter().filter_map(one(false)))
                        .collect(),
                }
            })
            .collect()
    }
}

fn ports(raw: &[core::EndpointPort]) -> Arc<[(Arc<str>, u16)]> {
    raw.iter()
        .filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"))
        .filter_map(|port| Some((port.name.as_deref().unwrap_or_default().into(), port.port?)))
        .collect()
}

//! Kubernetes' own kinds, only the fields that a mesh reads.
//!
//! Services and where they lead, namespaces, nodes, secrets, settings; Pods and what runs in them are in `pod`.
//! Never here: meaning. Unknown fields are dropped silently, since most of each kind is none of our business.
//! Read by `from_json`, used by `model`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scalar::IntOrString;
use super::{Metadata, Object};

/// A Service.
pub type Service = Object<ServiceSpec, ServiceStatus>;
/// A Pod.
pub type Pod = Object<PodSpec, PodStatus>;
/// A Namespace.
pub type Namespace = Object<NamespaceSpec, NamespaceStatus>;
/// A Node.
pub type Node = Object<NodeSpec, NodeStatus>;

macro_rules! core {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty, )* }
    )*) => {$(
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        $(#[$meta])*
        pub struct $name { $( $(#[$field_meta])* pub $field: $ty, )* }
    )*};
}

// below the macro that it uses
mod pod;

pub use self::pod::{Container, ContainerPort, EnvVar, PodIp, PodSecurityContext, PodSpec, PodStatus};

core! {
    /// What a Service asks for.
    pub struct ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
        #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
        pub kind: String,
        /// First address, `None` for a headless Service, empty where there is none.
        #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
        pub cluster_ip: String,
        /// All addresses, one for each family.
        #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
        pub cluster_ips: Vec<String>,
        /// Addresses outside the cluster that lead here.
        #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
        pub external_ips: Vec<String>,
        /// The name that an `ExternalName` Service stands for.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub external_name: String,
        /// Address asked of the load balancer.
        #[serde(rename = "loadBalancerIP", skip_serializing_if = "String::is_empty")]
        pub load_balancer_ip: String,
        /// Labels of the Pods behind it; empty: endpoints are written by someone else.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub selector: BTreeMap<String, String>,
        /// Ports.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<ServicePort>,
        /// `Local` keeps traffic on the caller's node.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub internal_traffic_policy: Option<String>,
        /// `Local` keeps traffic from outside on the node it reached.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub external_traffic_policy: Option<String>,
        /// Preference such as `PreferClose`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub traffic_distribution: Option<String>,
        /// Whether endpoints count before they are ready.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub publish_not_ready_addresses: Option<bool>,
        /// `ClientIP` sends a client to the same endpoint again.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub session_affinity: Option<String>,
        /// Address families, first choice first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ip_families: Vec<String>,
    }

    /// One port of a Service.
    pub struct ServicePort {
        /// Name; may carry the protocol (`http-web`).
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// `TCP`, `UDP` or `SCTP`; empty means `TCP`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub protocol: String,
        /// Application protocol, stronger than the name.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub app_protocol: Option<String>,
        /// Port of the Service.
        pub port: u16,
        /// Port of the Pods, by number or name; absent: the same number.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub target_port: Option<IntOrString>,
        /// Port on every node.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node_port: Option<u16>,
    }

    /// What became of a Service.
    pub struct ServiceStatus {
        /// Its load balancer's addresses.
        pub load_balancer: LoadBalancerStatus,
    }

    /// Addresses of a load balancer.
    pub struct LoadBalancerStatus {
        /// The addresses.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ingress: Vec<LoadBalancerIngress>,
    }

    /// One address of a load balancer.
    pub struct LoadBalancerIngress {
        /// By number.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub ip: String,
        /// By name.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub hostname: String,
    }

    /// Where a Service of the same name leads, in the old form.
    pub struct Endpoints {
        /// Name, labels.
        pub metadata: Metadata,
        /// Addresses, grouped by the ports they have in common.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub subsets: Vec<EndpointSubset>,
    }

    /// Addresses with the same ports.
    pub struct EndpointSubset {
        /// Ready ones.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub addresses: Vec<EndpointAddress>,
        /// Those not ready.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub not_ready_addresses: Vec<EndpointAddress>,
        /// The ports that each has.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<EndpointPort>,
    }

    /// One address in the old form.
    pub struct EndpointAddress {
        /// The address.
        pub ip: String,
        /// Its own name under a headless Service.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub hostname: String,
        /// Node it is on.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node_name: Option<String>,
        /// The object it belongs to, mostly a Pod.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub target_ref: Option<TargetRef>,
    }

    /// A port that endpoints have.
    pub struct EndpointPort {
        /// Name of the Service's port.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Number; absent means all ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub port: Option<u16>,
        /// `TCP`, `UDP` or `SCTP`; absent means `TCP`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub protocol: Option<String>,
        /// Application protocol.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub app_protocol: Option<String>,
    }

    /// The object behind an endpoint.
    pub struct TargetRef {
        /// Kind, mostly `Pod`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub kind: String,
        /// Name.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
        /// Namespace.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub namespace: String,
        /// Uid.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub uid: String,
    }

    /// Some of the endpoints of the Service named by label `kubernetes.io/service-name`.
    pub struct EndpointSlice {
        /// Name, labels.
        pub metadata: Metadata,
        /// `IPv4`, `IPv6` or `FQDN`.
        pub address_type: String,
        /// The endpoints.
        pub endpoints: Vec<SliceEndpoint>,
        /// The ports that each has.
        pub ports: Vec<EndpointPort>,
    }

    /// One endpoint of a slice.
    pub struct SliceEndpoint {
        /// Its addresses; the first is the one to use.
        pub addresses: Vec<String>,
        /// Whether it may get traffic.
        pub conditions: EndpointConditions,
        /// Its own name under a headless Service.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hostname: Option<String>,
        /// Node it is on.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node_name: Option<String>,
        /// The object it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub target_ref: Option<TargetRef>,
        /// Zone it is in.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub zone: Option<String>,
    }

    /// Whether an endpoint may get traffic; absent conditions mean ready.
    pub struct EndpointConditions {
        /// Ready and not terminating.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ready: Option<bool>,
        /// Able to serve, terminating or not.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub serving: Option<bool>,
        /// Going away.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub terminating: Option<bool>,
    }

    /// One statement about a core object.
    pub struct CoreCondition {
        /// What is stated.
        #[serde(rename = "type")]
        pub kind: String,
        /// True, False or Unknown.
        pub status: String,
    }

    /// What a Namespace asks for: nothing that is read.
    pub struct NamespaceSpec {}

    /// What became of a Namespace.
    pub struct NamespaceStatus {
        /// `Active` or `Terminating`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub phase: String,
    }

    /// What a Node asks for.
    pub struct NodeSpec {
        /// First Pod network.
        #[serde(rename = "podCIDR", skip_serializing_if = "String::is_empty")]
        pub pod_cidr: String,
    }

    /// What became of a Node.
    pub struct NodeStatus {
        /// Its addresses.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub addresses: Vec<NodeAddress>,
        /// What holds of it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub conditions: Vec<CoreCondition>,
    }

    /// One address of a Node.
    pub struct NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname`.
        #[serde(rename = "type")]
        pub kind: String,
        /// The address.
        pub address: String,
    }

    /// A Secret; values are base64, as stored.
    pub struct Secret {
        /// Name, labels.
        pub metadata: Metadata,
        /// What it holds, for example `kubernetes.io/tls`.
        #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
        pub kind: String,
        /// Base64 values.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub data: BTreeMap<String, String>,
        /// Plain values, as a user may write them in a file.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub string_data: BTreeMap<String, String>,
    }

    /// A ConfigMap.
    pub struct ConfigMap {
        /// Name, labels.
        pub metadata: Metadata,
        /// Its values.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub data: BTreeMap<String, String>,
    }
}

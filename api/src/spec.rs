//! What one proxy is told: named resources with Envoy's meaning, each checked once.
//!
//! `api-mesh` builds them, `api-xds` carries them as Envoy v3 messages and back, `table` compiles them for requests.
//! Durations are whole milliseconds so that they survive the wire. Where the meaning of a field is not said here, it is
//! that of the Envoy v3 message of the same name.
//! Never here: how a mesh is resolved, or anything a request changes.

mod access_log;
mod authorization;
mod cluster;
mod listener;
mod routes;
mod secret;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{access_log::*, authorization::*, cluster::*, listener::*, routes::*, secret::*};
use crate::note::ObjectRef;

/// Application protocol that two of our proxies agree on: HTTP/1 requests ride HTTP/2, the original protocol marked.
/// In lists of protocols it stands where it is preferred; it is written for our own proxies only.
pub const PRIVATE_ALPN: &str = "ferromesh";

/// The types of resource, each with its own subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    /// Clusters (CDS).
    Cluster,
    /// Endpoints of a cluster (EDS).
    Endpoints,
    /// Listeners (LDS).
    Listener,
    /// Route tables (RDS).
    Routes,
    /// Single virtual hosts on demand (VHDS).
    VirtualHost,
    /// Certificates and roots (SDS).
    Secret,
}

/// One resource, shared between all proxies that see the same inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Resource {
    /// Where to send requests.
    Cluster(Arc<Cluster>),
    /// The addresses behind a cluster.
    Endpoints(Arc<Endpoints>),
    /// Where connections come in.
    Listener(Arc<Listener>),
    /// Which request goes where.
    Routes(Arc<RouteTable>),
    /// One virtual host of a route table; it is subscribed to as `TABLE/HOST`.
    VirtualHost(Arc<VirtualHost>),
    /// A certificate with its key, or roots.
    Secret(Arc<Secret>),
}

impl Resource {
    /// The type it is subscribed to under.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Cluster(_) => ResourceKind::Cluster,
            Self::Endpoints(_) => ResourceKind::Endpoints,
            Self::Listener(_) => ResourceKind::Listener,
            Self::Routes(_) => ResourceKind::Routes,
            Self::VirtualHost(_) => ResourceKind::VirtualHost,
            Self::Secret(_) => ResourceKind::Secret,
        }
    }

    /// Its name; a virtual host is subscribed to under the name of its table as well.
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(cluster) => &cluster.name,
            Self::Endpoints(endpoints) => &endpoints.cluster,
            Self::Listener(listener) => &listener.name,
            Self::Routes(routes) => &routes.name,
            Self::VirtualHost(host) => &host.name,
            Self::Secret(secret) => &secret.name,
        }
    }
}

/// All resources of one proxy: what `meshctl why` reads, and what a test feeds to the data plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Clusters by name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Endpoints by cluster name.
    pub endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Route tables by name.
    pub routes: BTreeMap<String, Arc<RouteTable>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// Which object and field a resource was made from; it rides along as metadata so that tools can say so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The object.
    pub object: ObjectRef,
    /// Path of the field, for example `spec.http[0]`; empty for the object as a whole.
    pub path: String,
}

// ---------------------------------------------------------------------------------------------------------------- proxy

/// What kind of proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProxyKind {
    /// Beside one workload, in its network namespace.
    Sidecar,
    /// On its own, at the edge of the mesh (Istio's `router`).
    Gateway,
}

/// Who asks for configuration: the parts of an xDS node that decide what it is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Sidecar or gateway.
    pub kind: ProxyKind,
    /// Node id: `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`.
    pub id: String,
    /// Pod (or host) name.
    pub name: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Service account of the workload.
    pub service_account: String,
    /// Address of the workload.
    pub address: std::net::IpAddr,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Cluster domain, `cluster.local` unless the mesh says otherwise.
    pub domain: String,
    /// Cluster id, `Kubernetes` unless the mesh says otherwise.
    pub cluster_id: String,
    /// Name of the workload's owner, for example `reviews-v1`.
    pub workload: String,
    /// Takes virtual hosts as resources of their own (our own proxies).
    pub on_demand_hosts: bool,
    /// Speaks the private protocol between our proxies: HTTP/1 requests ride HTTP/2.
    pub ours: bool,
    /// Its connections begin with a header of the PROXY protocol (a gateway's `gatewayTopology.proxyProtocol`).
    pub proxy_header: bool,
    /// A client of proxyless gRPC: it wants API listeners, named `HOST:PORT`.
    pub proxyless: bool,
}

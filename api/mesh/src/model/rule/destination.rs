//! Valid forms of DestinationRule and ServiceEntry.
//!
//! Never here: how they are read, or what they mean together. Part of [`super`].

use std::{collections::BTreeMap, time::Duration};

use api::{
    name::Host,
    spec::{Balance, ClientTls, Keepalive, Outlier, ProxyVersion},
};

use super::super::{
    base::{ExportTo, Labels, Meta, Shared},
    service::Service,
    workload::Outside,
};

/// How a service's endpoints are used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DestinationRule {
    /// Name and age.
    pub meta: Meta,
    /// Host, full.
    pub host: Host,
    /// Who sees it; none: as the mesh says.
    pub export_to: Option<ExportTo>,
    /// Only for clients with these labels; empty: for all.
    pub clients: Labels,
    /// Parts of the service.
    pub subsets: Vec<Subset>,
    /// Policy for all of it.
    pub policy: Option<Policy>,
}

/// A part of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subset {
    /// Name.
    pub name: String,
    /// Labels of its endpoints.
    pub labels: Labels,
    /// Policy that beats the rule's, block by block.
    pub policy: Option<Policy>,
}

/// Policy for a service or a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// For all ports.
    pub blocks: Blocks,
    /// For single ports, in place of the other.
    pub ports: BTreeMap<u16, Blocks>,
}

/// The blocks of a policy; an absent one means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// How an endpoint is chosen.
    pub balance: Option<Balance>,
    /// Limits.
    pub pool: Option<Pool>,
    /// When an endpoint is left alone.
    pub outlier: Option<Outlier>,
    /// How connections are protected.
    pub tls: Option<PolicyTls>,
    /// Header of the PROXY protocol.
    pub proxy_header: Option<ProxyVersion>,
}

/// Limits of a cluster's connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Connections.
    pub connections: Option<u32>,
    /// Limit for a connection to be made.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive of TCP.
    pub keepalive: Option<Keepalive>,
    /// How long a silent TCP connection stays; zero: for ever.
    pub tcp_idle: Option<Duration>,
    /// How long any TCP connection stays.
    pub tcp_longest: Option<Duration>,
    /// Requests that wait.
    pub pending: Option<u32>,
    /// Requests.
    pub requests: Option<u32>,
    /// Requests a connection carries.
    pub requests_per_connection: Option<u32>,
    /// Retries.
    pub retries: Option<u32>,
    /// How long an unused connection stays.
    pub http_idle: Option<Duration>,
    /// HTTP/1 clients are served by HTTP/2.
    pub upgrade: Option<bool>,
    /// The version of the client's request is kept.
    pub client_protocol: bool,
    /// Streams on a connection.
    pub streams: Option<u32>,
}

/// How connections of a cluster are protected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PolicyTls {
    /// Not at all.
    Off,
    /// The mesh's own mTLS; SANs, where given, in place of the service accounts known.
    Mesh {
        /// Identities.
        subject_alt_names: Vec<String>,
        /// Name in the ClientHello.
        sni: Option<String>,
    },
    /// TLS as given.
    Given(Box<ClientTls>),
}

/// Services that are not Kubernetes' own.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct ServiceEntry {
    /// Name and age.
    pub meta: Meta,
    /// One service for each host.
    pub services: Vec<Shared<Service>>,
    /// Endpoints written in it.
    pub endpoints: Vec<Outside>,
    /// Labels of the Pods and WorkloadEntries behind it, in its namespace.
    pub selector: Option<Labels>,
}

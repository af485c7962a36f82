//! Where requests go: clusters, their endpoints, limits, ejection and TLS.
//!
//! Never here: connections, or which endpoint is taken (`balance`). Part of [`super`].

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::Origin;

/// Where to send requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Name: `outbound|9080|v1|reviews.default.svc.cluster.local`, `inbound|9080||`, `PassthroughCluster`,
    /// `BlackHoleCluster`, `InboundPassthroughCluster`.
    pub name: String,
    /// Where its addresses come from.
    pub discovery: Discovery,
    /// How one of them is chosen.
    pub balance: Balance,
    /// Limit for a connection to be made.
    pub connect_timeout: Duration,
    /// How much may be under way at once.
    pub breakers: Breakers,
    /// When an address is left alone for a while.
    pub outlier: Option<Outlier>,
    /// How connections are protected.
    pub tls: UpstreamTls,
    /// Which HTTP version is spoken.
    pub http: UpstreamHttp,
    /// Local address to connect from (`127.0.0.6` towards the workload).
    pub bind_source: Option<std::net::IpAddr>,
    /// TCP keep-alive; none: the system's.
    pub keepalive: Option<Keepalive>,
    /// A header of the PROXY protocol at the start of each connection, which tells the client's address.
    pub proxy_header: Option<ProxyVersion>,
    /// The service it belongs to, for metrics; none for passthrough and black hole.
    pub service: Option<ServiceRef>,
    /// The DestinationRule (or other object) it was shaped by.
    pub origin: Option<Origin>,
}

/// The service behind a cluster, as metrics name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceRef {
    /// Full host.
    pub host: String,
    /// Short name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// Where a cluster's addresses come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Discovery {
    /// Subscribed to by cluster name (EDS).
    Eds,
    /// Given here.
    Static(Vec<Locality>),
    /// Every address that the hosts' names resolve to, asked again every 60 s or as `refresh` says.
    StrictDns {
        /// Hosts (and addresses).
        localities: Vec<Locality>,
        /// How often names are asked again.
        refresh: Duration,
    },
    /// The first address that the host's name resolves to at the time of connecting.
    LogicalDns {
        /// The host.
        localities: Vec<Locality>,
        /// How often the name is asked again.
        refresh: Duration,
    },
    /// The address that the client wanted.
    OriginalDestination,
}

/// The addresses behind a cluster (EDS `ClusterLoadAssignment`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Name of the cluster.
    pub cluster: String,
    /// Groups of addresses.
    pub localities: Vec<Locality>,
}

/// Addresses in one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Locality {
    /// Region, zone and sub-zone; empty where unknown.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
    /// 0 is asked first.
    pub priority: u32,
    /// Weight of the whole place; 0: the number of its addresses.
    pub weight: u32,
    /// The addresses.
    pub endpoints: Vec<Endpoint>,
}

/// Where one endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Address {
    /// An address and port.
    Socket(SocketAddr),
    /// A name to be resolved, and port.
    Name(String, u16),
    /// A Unix domain socket.
    Unix(String),
}

/// Whether an endpoint takes traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Health {
    /// It does.
    #[default]
    Healthy,
    /// It does not.
    Unhealthy,
    /// It ends; only connections that it already has.
    Draining,
}

/// One address that serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Weight within its locality, at least 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// True: it has a sidecar and takes Istio mTLS (metadata `tlsMode: istio`).
    pub mtls: bool,
    /// The workload, for metrics.
    pub workload: Option<Workload>,
}

/// A workload as metrics name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Owner's name, for example `reviews-v1`.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Label `service.istio.io/canonical-name`, else `app`, else the owner's name.
    pub canonical_name: String,
    /// Label `service.istio.io/canonical-revision`, else `version`, else `latest`.
    pub canonical_revision: String,
    /// Cluster id.
    pub cluster: String,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Balance {
    /// The less busy of two random ones (weights counted).
    #[default]
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// By luck, by weight.
    Random,
    /// The address the client wanted.
    OriginalDestination,
}

/// How much may be under way at once; past it requests answer 503 with flag `UO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Breakers {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries.
    pub retries: u32,
}

impl Default for Breakers {
    fn default() -> Self {
        Self { connections: u32::MAX, pending: u32::MAX, requests: u32::MAX, retries: u32::MAX }
    }
}

/// When an address is left alone for a while (Envoy `OutlierDetection`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outlier {
    /// Failures (5xx and connection errors) in a row; 0: not counted.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 and connection errors in a row; 0: not counted.
    pub consecutive_gateway: u32,
    /// Connection errors in a row, where counted apart; 0: not counted.
    pub consecutive_local: u32,
    /// Whether connection errors are counted apart.
    pub split_local: bool,
    /// How often ejections are looked at.
    pub interval: Duration,
    /// Length of the first ejection; times their number after that.
    pub base_ejection: Duration,
    /// Largest share of addresses ejected at once, 0 to 100.
    pub max_ejection_percent: u32,
    /// Below this share of healthy addresses all are used, 0 to 100; 0: never.
    pub min_health_percent: u32,
}

/// How connections of a cluster are protected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum UpstreamTls {
    /// Not at all.
    #[default]
    Off,
    /// Istio mTLS to endpoints that take it, plain to others (automatic mTLS).
    Auto(ClientTls),
    /// Always as given.
    On(ClientTls),
}

/// TLS as a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientTls {
    /// Name sent in the ClientHello; none: taken from the request's host.
    pub sni: Option<String>,
    /// Protocols offered, in order (`istio-peer-exchange`, `istio`, `h2`, `http/1.1`).
    pub alpn: Vec<String>,
    /// Own certificate.
    pub certificate: Option<CertificateRef>,
    /// Roots to trust; none with `insecure` false: the machine's.
    pub roots: Option<RootsRef>,
    /// Identities or DNS names, one of which the server must prove; empty: the name in `sni` (or any mesh identity, for
    /// Istio mTLS).
    pub subject_alt_names: Vec<String>,
    /// Whether anything the server shows is taken.
    pub insecure: bool,
    /// True: this is the mesh's own mTLS (ISTIO_MUTUAL).
    pub mesh: bool,
}

/// TLS as a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerTls {
    /// Own certificate.
    pub certificate: CertificateRef,
    /// Roots that client certificates must chain to; none: clients are not asked.
    pub client_roots: Option<RootsRef>,
    /// Whether a client without certificate is refused.
    pub require_client_certificate: bool,
    /// Trust domains a client may come from (the mesh's and its aliases); empty: any.
    pub trust_domains: Vec<String>,
    /// Protocols offered, in order.
    pub alpn: Vec<String>,
    /// True: this is the mesh's own mTLS.
    pub mesh: bool,
    /// Smallest TLS version.
    pub min_version: TlsVersion,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    V1_2,
    /// 1.3
    V1_3,
}

/// Where a certificate with its key is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CertificateRef {
    /// The proxy's own identity (SDS `default`, answered in the pod).
    Workload,
    /// A secret of this name, subscribed to (`kubernetes://NAME`).
    Secret(String),
    /// Files in the pod.
    Files {
        /// Chain, PEM.
        chain: String,
        /// Key, PEM.
        key: String,
    },
}

/// Where roots are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RootsRef {
    /// The mesh's (SDS `ROOTCA`, answered in the pod).
    Mesh,
    /// A secret of this name, subscribed to.
    Secret(String),
    /// A file in the pod, PEM.
    File(String),
}

/// Which HTTP version is spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamHttp {
    /// The version.
    pub version: UpstreamVersion,
    /// Requests a connection carries before it is closed; 0: no limit.
    pub max_requests_per_connection: u32,
    /// How long an unused connection stays; zero: for ever.
    pub idle_timeout: Duration,
    /// HTTP/2 streams at once on a connection.
    pub max_concurrent_streams: u32,
}

impl Default for UpstreamHttp {
    fn default() -> Self {
        Self {
            version: UpstreamVersion::Http1,
            max_requests_per_connection: 0,
            idle_timeout: Duration::from_secs(3600),
            max_concurrent_streams: 2_147_483_647,
        }
    }
}

/// Which HTTP version is spoken upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpstreamVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// That of the request as it came.
    Downstream,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProxyVersion {
    /// 1: a line of text.
    V1,
    /// 2: a block of bytes.
    V2,
}

/// TCP keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Pause between probes.
    pub interval: Option<Duration>,
}

//! What one proxy is told: named resources with Envoy's meaning, each checked once.
//!
//! `api-mesh` builds them, `api-xds` carries them as Envoy v3 messages and back, `table` compiles them for requests.
//! Durations are whole milliseconds so that they survive the wire. Where the meaning of a field is not said here, it is
//! that of the Envoy v3 message of the same name.
//! Never here: how a mesh is resolved, or anything a request changes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{name::Percent, note::ObjectRef};

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
    /// One virtual host of a route table, named `TABLE/DOMAIN`.
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

    /// The name it is subscribed to under.
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
    /// Asks for virtual hosts one by one (our own proxies).
    pub on_demand_hosts: bool,
    /// Speaks the private protocol between our proxies: HTTP/1 requests ride HTTP/2.
    pub ours: bool,
    /// A client of proxyless gRPC: it wants API listeners, named `HOST:PORT`.
    pub proxyless: bool,
}

// -------------------------------------------------------------------------------------------------------------- listener

/// Where a listener stands, seen from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Towards the workload.
    Inbound,
    /// Away from the workload.
    Outbound,
    /// Through a gateway: counts as outbound in metrics.
    Gateway,
}

/// Where connections come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Name: `virtualOutbound`, `virtualInbound`, `198.19.0.5_9080`, `0.0.0.0_80`.
    pub name: String,
    /// Address that it answers for.
    pub address: SocketAddr,
    /// Inbound, outbound or gateway.
    pub direction: Direction,
    /// False: it has no socket of its own and serves connections that a capturing listener hands over.
    pub bind: bool,
    /// True: redirected connections go to the listener of their original destination (address and port, else
    /// `0.0.0.0` and port), and stay here when there is none.
    pub use_original_destination: bool,
    /// What to find out from the first bytes.
    pub detect: Detect,
    /// Chains; the most specific match wins, in Envoy's order: destination port, address range, server name,
    /// transport, application protocol, source.
    pub chains: Vec<FilterChain>,
    /// For connections that no chain matches; without it they are closed.
    pub default_chain: Option<FilterChain>,
    /// The object it was made from (a Gateway); none for what every proxy has.
    pub origin: Option<Origin>,
}

/// What a listener looks for in the first bytes of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Detect {
    /// Read a TLS ClientHello for server name and ALPN (Envoy's `tls_inspector`).
    pub tls: bool,
    /// Tell HTTP/1 and HTTP/2 from other bytes (Envoy's `http_inspector`); shows as ALPN `http/1.0`, `http/1.1`, `h2c`.
    pub http: bool,
    /// How long to wait for the first bytes; then the connection is taken as raw TCP. Zero waits without limit.
    pub timeout: Duration,
}

/// Whether TLS was seen on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// No TLS.
    Raw,
    /// TLS, as told by the ClientHello.
    Tls,
}

/// Which connections a chain serves; an empty or absent part matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address lies in one of these.
    pub destination_ranges: Vec<IpNet>,
    /// Server name of the ClientHello, exact or `*.suffix`.
    pub server_names: Vec<String>,
    /// TLS seen or not.
    pub transport: Option<Transport>,
    /// ALPN of the ClientHello or the detected plaintext protocol.
    pub application_protocols: Vec<String>,
    /// Source address lies in one of these.
    pub source_ranges: Vec<IpNet>,
}

/// Serves the connections that it matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterChain {
    /// Name, unique within the listener.
    pub name: String,
    /// Which connections.
    pub matches: ChainMatch,
    /// TLS to end here; none: bytes are taken as they come.
    pub tls: Option<ServerTls>,
    /// What to do with the bytes.
    pub network: Network,
}

/// What a chain does with a connection's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Network {
    /// Reads requests.
    Http(Box<HttpServer>),
    /// Passes bytes on.
    Tcp(Box<TcpServer>),
}

/// How requests on a chain are read and where their routes are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpServer {
    /// Prefix of its statistics: `outbound_0.0.0.0_9080`, `inbound_0.0.0.0_9080`.
    pub stat_prefix: String,
    /// Its routes.
    pub routes: RoutesRef,
    /// Which HTTP versions it reads.
    pub codec: Codec,
    /// What it does with `x-forwarded-client-cert`.
    pub client_cert: ClientCertHeader,
    /// True at the mesh's edge: the peer's address is the client's, and `x-forwarded-*` from it are not trusted.
    pub edge: bool,
    /// Whether `connection: upgrade` (WebSocket) is passed on.
    pub upgrades: bool,
    /// Authorization to check before routing; empty allows all.
    pub authorization: Vec<Authorization>,
    /// Where finished requests are written.
    pub access_log: Option<AccessLog>,
    /// Answer for paths like `//a/../b`: what is done to the path before anything looks at it.
    pub normalize: PathNormalization,
    /// How long a connection without requests stays; zero: for ever.
    pub idle_timeout: Duration,
    /// Whether requests make `istio_*` metrics.
    pub metrics: bool,
}

/// What is done to a path before anything looks at it (MeshConfig `pathNormalization`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathNormalization {
    /// Nothing.
    None,
    /// RFC 3986 dot segments and unreserved escapes, backslashes become slashes.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And `%2F`, `%5C` are decoded first.
    DecodeAndMergeSlashes,
}

/// Which HTTP versions a chain reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// As told by ALPN or the first bytes.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// What is done with `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientCertHeader {
    /// Removed (a sidecar's outbound side, an edge).
    #[default]
    Sanitize,
    /// Passed on.
    Forward,
    /// The peer's certificate is added to what came (a sidecar's inbound side, over mTLS).
    AppendForward,
    /// The peer's certificate replaces what came.
    SanitizeSet,
}

/// Where the routes of a chain are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RoutesRef {
    /// In a table of their own, subscribed to by name.
    Named(String),
    /// Here.
    Inline(Arc<RouteTable>),
}

/// How a chain passes bytes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpServer {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Clusters with the weight of each; the weights need not sum to 100.
    pub clusters: Vec<WeightedCluster>,
    /// Authorization to check before connecting; empty allows all.
    pub authorization: Vec<Authorization>,
    /// Where finished connections are written.
    pub access_log: Option<AccessLog>,
    /// How long a silent connection stays; zero: for ever.
    pub idle_timeout: Duration,
    /// Whether connections make `istio_tcp_*` metrics.
    pub metrics: bool,
}

/// Where finished requests are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccessLog {
    /// File; `/dev/stdout` for the container's log.
    pub path: String,
    /// Envoy's command operators; none: Istio's default line.
    pub format: Option<String>,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// One layer of authorization: what it does and to whom (AuthorizationPolicy). The request must pass every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authorization {
    /// What a match means.
    pub action: AuthorizationAction,
    /// Rules by policy name; any of them matching is a match.
    pub rules: Vec<AuthorizationRule>,
}

/// What a match of an authorization rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthorizationAction {
    /// Requests that match pass; all others are denied.
    Allow,
    /// Requests that match are denied.
    Deny,
}

/// One rule: who, what and when, all of which must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthorizationRule {
    /// `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`, as Istio names it in logs.
    pub name: String,
    /// Any of these callers; empty: every caller.
    pub from: Vec<AuthorizationSource>,
    /// Any of these operations; empty: every operation.
    pub to: Vec<AuthorizationOperation>,
    /// The policy it was made from.
    pub origin: Option<Origin>,
}

/// A caller; every part that is not empty must hold. Texts are exact, `prefix*`, `*suffix` or `*` (any, but present).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationSource {
    /// Principals, without `spiffe://`.
    pub principals: Vec<String>,
    /// Not these principals.
    pub not_principals: Vec<String>,
    /// Namespaces of the caller's identity.
    pub namespaces: Vec<String>,
    /// Not these namespaces.
    pub not_namespaces: Vec<String>,
    /// Addresses of the direct peer.
    pub ip_blocks: Vec<IpNet>,
    /// Not these addresses.
    pub not_ip_blocks: Vec<IpNet>,
}

/// An operation; every part that is not empty must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationOperation {
    /// Hosts, compared without case.
    pub hosts: Vec<String>,
    /// Not these hosts.
    pub not_hosts: Vec<String>,
    /// Destination ports.
    pub ports: Vec<u16>,
    /// Not these ports.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<String>,
    /// Not these methods.
    pub not_methods: Vec<String>,
    /// Paths, without the query.
    pub paths: Vec<String>,
    /// Not these paths.
    pub not_paths: Vec<String>,
}

// ---------------------------------------------------------------------------------------------------------------- routes

/// Which request goes where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Name: `9080`, `http.8080`, `https.443.NAME.GATEWAY.NAMESPACE`, `inbound|9080||`.
    pub name: String,
    /// Hosts; the most specific domain wins: exact, `*.suffix` (longest), `prefix.*` (longest), `*`.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// True: the port in `:authority` is ignored when a host is looked for.
    pub ignore_port: bool,
}

/// The routes of some domains, first match wins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// Name: `reviews.default.svc.cluster.local:9080`, `allow_any`, `block_all`.
    pub name: String,
    /// Domains, with or without port.
    pub domains: Vec<String>,
    /// Routes in order.
    pub routes: Vec<Route>,
}

/// One rule: which requests, and what happens to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Name, written as `%ROUTE_NAME%`; may be empty.
    pub name: String,
    /// Which requests.
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: Action,
    /// Changes to requests and replies.
    pub headers: HeaderChanges,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Operation name of spans: `reviews.default.svc.cluster.local:9080/*`.
    pub operation: String,
    /// The object it was made from.
    pub origin: Option<Origin>,
}

/// Which requests a route takes; all parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// Whether letters of `path` match in either case (not for regex).
    pub ignore_case: bool,
    /// Headers; `:method`, `:authority` and `:scheme` among them.
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query.
    pub query: Vec<QueryMatch>,
}

/// How a path matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Its beginning, as plain text: `/a` takes `/ab`.
    Prefix(String),
    /// Its beginning, by whole segments: `/a` takes `/a` and `/a/b`, not `/ab` (Gateway API).
    SegmentPrefix(String),
    /// The whole path, in RE2 syntax.
    Regex(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

/// How a text matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TextMatch {
    /// It is there.
    Present,
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// The whole text, in RE2 syntax.
    Regex(String),
}

/// A header that must (or must not) match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Name, lower case.
    pub name: String,
    /// How its value matches.
    pub value: TextMatch,
    /// True: the route takes requests for which this does not hold.
    pub invert: bool,
}

/// A query parameter that must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Name.
    pub name: String,
    /// How its value matches.
    pub value: TextMatch,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// It is sent on.
    Forward(Box<Forward>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Reply {
        /// Status.
        status: u16,
        /// Body, as text.
        body: String,
    },
}

/// How a request is sent on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// Clusters with the weight of each; a cluster that does not exist answers 503 with flag `NC`.
    pub clusters: Vec<WeightedCluster>,
    /// Limit for the whole exchange, retries included; none: no limit.
    pub timeout: Option<Duration>,
    /// When and how often to try again; none: once only.
    pub retry: Option<Retry>,
    /// Change of the path.
    pub path: Option<PathRewrite>,
    /// Change of the host.
    pub authority: Option<String>,
    /// Copies, sent and forgotten.
    pub mirrors: Vec<Mirror>,
    /// Largest number of bytes of a body kept for a retry.
    pub retry_buffer_bytes: u32,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedCluster {
    /// Name of the cluster.
    pub cluster: String,
    /// Its weight; the share is weight / sum of weights.
    pub weight: u32,
    /// Changes for requests that take this way.
    pub headers: HeaderChanges,
}

/// When and how often to try again (Envoy `RetryPolicy`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Conditions, in Envoy's words: `connect-failure`, `5xx`, `gateway-error`, `reset`, `retriable-status-codes` …
    pub on: Vec<String>,
    /// Statuses for `retriable-status-codes`.
    pub statuses: Vec<u16>,
    /// Limit for one try; none: the whole exchange's.
    pub per_try_timeout: Option<Duration>,
    /// First pause; doubled (with jitter) each time, ten times this at the most.
    pub backoff: Duration,
    /// Whether a try avoids endpoints that have failed this request.
    pub avoid_previous: bool,
}

/// A copy of the request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mirror {
    /// Where to.
    pub cluster: String,
    /// Which share of requests.
    pub share: Percent,
}

/// How a path is changed before the request is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathRewrite {
    /// The matched prefix is replaced.
    Prefix(String),
    /// The whole path is replaced.
    Full(String),
    /// What the regex matches is replaced; `\1` stands for the first group.
    Regex {
        /// RE2 syntax.
        pattern: String,
        /// What takes its place.
        substitution: String,
    },
}

/// Where a client is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<String>,
    /// Replacement for the matched prefix.
    pub prefix: Option<String>,
}

/// Changes to the headers of requests and replies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Changes to the request.
    pub request: HeaderOps,
    /// Changes to the reply.
    pub response: HeaderOps,
}

/// Changes in order: remove, set (replaces), add (appends).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeaderOps {
    /// Replaces all of that name.
    pub set: Vec<(String, String)>,
    /// Appends to those of that name.
    pub add: Vec<(String, String)>,
    /// Removes all of that name.
    pub remove: Vec<String>,
}

/// Faults to inject into a share of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// Wait, then go on.
    pub delay: Option<(Duration, Percent)>,
    /// Answer at once.
    pub abort: Option<(AbortWith, Percent)>,
}

/// What an injected abort answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AbortWith {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

// -------------------------------------------------------------------------------------------------------------- clusters

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

// --------------------------------------------------------------------------------------------------------------- secrets

/// A certificate with its key, or roots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Name: `kubernetes://NAME`.
    pub name: String,
    /// What it holds.
    pub value: SecretValue,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a secret holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretValue {
    /// A certificate with its key.
    Certificate {
        /// Chain, PEM, leaf first.
        chain: Vec<u8>,
        /// Key, PEM.
        key: Vec<u8>,
    },
    /// Roots, PEM.
    Roots(Vec<u8>),
}

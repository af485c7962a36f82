//! Where connections come in: listeners, the chains that take them, HTTP and TCP servers; authorization and TLS apart.
//!
//! Never here: what a request matches (`routes`) or where it goes (`cluster`). Part of [`super`]; compiled by `table`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Authorization, Origin, RouteTable, ServerTls, WeightedCluster};

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
    /// Read a header of the PROXY protocol before all else: it tells who began the connection, and one that begins without
    /// it is closed.
    pub proxy_header: bool,
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
    /// Whether HTTP/1.0 is served, too (Envoy's `accept_http_10`).
    pub http10: bool,
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
    /// How long any connection stays; zero: for ever.
    pub max_duration: Duration,
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

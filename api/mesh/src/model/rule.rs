//! Valid forms of the routing kinds: VirtualService, DestinationRule, Gateway, ServiceEntry.
//!
//! Plain values in which nothing is left to doubt: hosts are full, weights sum, durations are positive.
//! Never here: how they are read (the files named after the kinds), or what they mean together (`mesh`).
//! Read by `mesh`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    name::{Host, Percent},
    spec::{
        Balance, ClientTls, Fault, HeaderChanges, HeaderMatch, Keepalive, Outlier, PathMatch, PathRewrite,
        ProxyVersion, QueryMatch, Retry, TlsVersion,
    },
};
use ipnet::IpNet;

use super::{
    base::{ExportTo, Labels, Meta, Shared},
    service::{Protocol, Service},
    workload::Outside,
};

/// Which gateways a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayRef {
    /// Every sidecar.
    Mesh,
    /// A Gateway object.
    Named {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// How requests and connections to some hosts are routed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualService {
    /// Name and age.
    pub meta: Meta,
    /// Hosts, full.
    pub hosts: Vec<Host>,
    /// Gateways; never empty.
    pub gateways: Vec<GatewayRef>,
    /// Who sees it; none: as the mesh says.
    pub export_to: Option<ExportTo>,
    /// Rules for requests, first match wins.
    pub http: Vec<HttpRule>,
    /// Rules for TLS that is passed on as it is, first match wins.
    pub tls: Vec<TlsRule>,
    /// Rules for connections, first match wins.
    pub tcp: Vec<TcpRule>,
}

impl VirtualService {
    /// Whether any of its rules is for that gateway.
    pub fn serves(&self, gateway: &GatewayRef) -> bool {
        self.gateways.contains(gateway)
            || self.clients().any(|client| client.gateways.as_ref().is_some_and(|g| g.contains(gateway)))
    }

    /// The clients of all its matches.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &ClientMatch> {
        let http = self.http.iter().flat_map(|rule| &rule.matches).map(|m| &m.client);
        let tls = self.tls.iter().flat_map(|rule| &rule.matches).map(|m| &m.client);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.matches).map(|m| &m.client);
        http.chain(tls).chain(tcp)
    }

    /// The destinations of its rules for connections.
    pub(crate) fn connection_destinations(&self) -> impl Iterator<Item = &Destination> {
        let tls = self.tls.iter().flat_map(|rule| &rule.destinations);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.destinations);
        tls.chain(tcp).map(|weighted| &weighted.destination)
    }
}

/// One rule for requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpRule {
    /// Where it stands in the list.
    pub index: usize,
    /// Name; may be empty.
    pub name: String,
    /// Any of these; empty: all requests.
    pub matches: Vec<HttpMatch>,
    /// What happens.
    pub action: RuleAction,
    /// Changes to requests and replies.
    pub headers: HeaderChanges,
    /// Faults to inject.
    pub fault: Option<Fault>,
}

/// Which clients a match is for: settled when a proxy asks, not by requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientMatch {
    /// Labels of the client's workload.
    pub labels: Labels,
    /// Namespace of the client.
    pub namespace: Option<String>,
    /// Gateways in place of the VirtualService's.
    pub gateways: Option<Vec<GatewayRef>>,
    /// Port of the listener.
    pub port: Option<u16>,
}

/// One way for a request to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Name; may be empty.
    pub name: String,
    /// Which clients.
    pub client: ClientMatch,
    /// The path.
    pub path: PathMatch,
    /// Whether letters of the path match in either case.
    pub ignore_case: bool,
    /// Headers, method, scheme and authority among them.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
}

impl HttpMatch {
    /// Whether every request matches.
    pub fn is_catch_all(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty() && is_every_path(&self.path)
    }
}

/// Whether every path matches.
pub(crate) fn is_every_path(path: &PathMatch) -> bool {
    match path {
        PathMatch::Prefix(text) => text == "/",
        PathMatch::Regex(text) => text == ".*" || text == "*" || text == "/.*",
        PathMatch::Exact(_) | PathMatch::SegmentPrefix(_) => false,
    }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Sends the request on.
    Route(Box<HttpRoute>),
    /// Sends the client elsewhere.
    Redirect(RuleRedirect),
    /// Answers.
    Reply {
        /// Status.
        status: u16,
        /// Body.
        body: String,
    },
    /// Leaves it to another VirtualService, which is not honoured yet: the rule is passed over.
    Delegate,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleRedirect {
    /// Status.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New port is the one that the request came to.
    pub port_of_request: bool,
    /// New path.
    pub path: Option<String>,
    /// Replacement for the matched prefix.
    pub prefix: Option<String>,
}

/// How a request is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpRoute {
    /// Destinations with weights.
    pub destinations: Vec<Weighted>,
    /// Limit for the whole exchange.
    pub timeout: Option<Duration>,
    /// When to try again; none: as the mesh says.
    pub retries: Option<RetryRule>,
    /// Change of the path.
    pub path: Option<RuleRewrite>,
    /// Change of the host.
    pub authority: Option<String>,
    /// Copies.
    pub mirrors: Vec<(Destination, Percent)>,
}

/// How a path is changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleRewrite {
    /// The matched prefix, or the whole path where it matched otherwise.
    Matched(String),
    /// By regular expression.
    Regex(PathRewrite),
}

/// Whether and how to try again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RetryRule {
    /// Never.
    Never,
    /// So.
    Policy(Retry),
}

/// A destination and its share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Weighted {
    /// Where to.
    pub destination: Destination,
    /// Weight.
    pub weight: u32,
    /// Changes for requests that take this way.
    pub headers: HeaderChanges,
}

/// A service, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Host, full.
    pub host: Host,
    /// Subset; empty: all of it.
    pub subset: String,
    /// Port; none: its only port, or that of the listener.
    pub port: Option<u16>,
    /// Field it was written in.
    pub path: String,
}

/// One rule for TLS that is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsRule {
    /// Where it stands in the list.
    pub index: usize,
    /// Any of these; never empty.
    pub matches: Vec<TlsMatch>,
    /// Destinations with weights.
    pub destinations: Vec<Weighted>,
}

/// One way for a connection to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsMatch {
    /// Server names of the ClientHello, exact or `*.suffix`, or `*` alone; never empty.
    pub server_names: Vec<Host>,
    /// Which clients.
    pub client: ClientMatch,
    /// Destination addresses; empty: all.
    pub destinations: Vec<IpNet>,
}

/// One rule for connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpRule {
    /// Where it stands in the list.
    pub index: usize,
    /// Any of these; empty: all.
    pub matches: Vec<TcpMatch>,
    /// Destinations with weights.
    pub destinations: Vec<Weighted>,
}

/// One way for a connection to match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TcpMatch {
    /// Which clients.
    pub client: ClientMatch,
    /// Destination addresses; empty: all.
    pub destinations: Vec<IpNet>,
}

// ------------------------------------------------------------------------------------------------------ destination rule

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

// --------------------------------------------------------------------------------------------------------------- gateway

/// Ports that a gateway opens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the gateway's workloads, in any namespace.
    pub selector: Labels,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// One port of a gateway, for some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it stands in the list.
    pub index: usize,
    /// Port number as the gateway's Service has it.
    pub port: u16,
    /// Name of the port.
    pub port_name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Address to listen on; none: all.
    pub bind: Option<std::net::IpAddr>,
    /// Which VirtualServices may be served.
    pub hosts: Vec<ServerHost>,
    /// What it does with connections.
    pub mode: ServerMode,
}

/// A host of a server, and from which namespaces its VirtualServices may come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerHost {
    /// Namespace; none: any.
    pub namespace: Option<String>,
    /// Host.
    pub host: Host,
}

/// What a server does with connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerMode {
    /// Takes them as they come.
    Plain,
    /// Sends clients to https.
    RedirectToHttps,
    /// Passes TLS on as it is, by server name.
    Passthrough,
    /// Ends the mesh's own mTLS.
    Mesh {
        /// Smallest version.
        min_version: TlsVersion,
    },
    /// Ends TLS.
    Tls {
        /// Where the certificate is.
        certificate: ServerCertificate,
        /// Which clients it takes.
        clients: ServerClients,
        /// Smallest version.
        min_version: TlsVersion,
    },
    /// Asks for protection that is not enforced yet: it serves nothing.
    Closed,
}

/// Which clients a server that ends TLS takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerClients {
    /// All; none is asked for a certificate.
    Anyone,
    /// All, but a certificate that is shown must be good.
    Optional,
    /// Those that show a good certificate.
    Proven,
}

/// Where a server's certificate is, and the roots that its clients' certificates are checked against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerCertificate {
    /// In a Secret of the gateway's namespace.
    Secret(String),
    /// In files of the gateway's Pod.
    Files {
        /// Chain, PEM.
        chain: String,
        /// Key, PEM.
        key: String,
        /// Roots, PEM; none where no client is asked.
        roots: Option<String>,
    },
}

// --------------------------------------------------------------------------------------------------------- service entry

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

// -------------------------------------------------------------------------------------------------------------- security

/// Which connections a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plain only.
    Disable,
    /// Plain and mTLS.
    Permissive,
    /// mTLS only.
    Strict,
}

/// Who must prove an identity (PeerAuthentication).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAuthentication {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the workloads; none: the whole namespace.
    pub selector: Option<Labels>,
    /// Mode; none: as the next wider policy says.
    pub mode: Option<MtlsMode>,
    /// Modes of single ports; none: as the workload's.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// An object that guards something in a way that is not enforced yet: what it selects denies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guard {
    /// Name and age.
    pub meta: Meta,
    /// Labels of the workloads; empty: all of the namespace (of the mesh, in the root namespace).
    pub selector: Labels,
}

/// What a Secret holds for TLS, as a gateway uses it; at least one of both.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TlsSecret {
    /// Chain and key, PEM.
    pub certificate: Option<(Pem, Pem)>,
    /// Roots that clients are checked against, PEM.
    pub roots: Option<Pem>,
}

/// Text in the form of PEM.
pub type Pem = Arc<[u8]>;

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSecret").finish_non_exhaustive()
    }
}

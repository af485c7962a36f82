//! Valid forms of VirtualService, and below it of the other kinds of rules.
//!
//! Plain values in which nothing is left to doubt: hosts are full, weights sum, durations are positive.
//! Never here: how they are read (the files named after the kinds), or what they mean together (`mesh`).
//! Read by `mesh`.

mod destination;
mod gateway;
mod guard;

use std::time::Duration;

use api::{
    name::{Host, Percent},
    spec::{Fault, HeaderChanges, HeaderMatch, PathMatch, PathRewrite, QueryMatch, Retry},
};
use ipnet::IpNet;

pub use self::{destination::*, gateway::*, guard::*};
use super::base::{ExportTo, Labels, Meta};

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

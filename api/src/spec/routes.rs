//! Which request goes where: route tables, virtual hosts, what they match and do.
//!
//! Never here: how a match is compiled (`table`) or chosen (`route`). Part of [`super`].

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::Origin;
use crate::name::Percent;

/// Which request goes where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Name: `9080`, `http.8080`, `https.443.NAME.GATEWAY.NAMESPACE`, `inbound|9080||`.
    pub name: String,
    /// Hosts; the most specific domain wins: exact, `*.suffix` (longest), `prefix.*` (longest), `*`.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// True: the port in `:authority` is ignored when a host is looked for.
    pub ignore_port: bool,
    /// True: more hosts come as resources of their own (VHDS), named `TABLE/HOST` and asked for by the table's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hosts_apart: bool,
}

impl RouteTable {
    /// The whole table, given the hosts that came by themselves.
    #[must_use]
    pub fn with_hosts<'h>(&self, hosts: impl IntoIterator<Item = &'h Arc<VirtualHost>>) -> Self {
        let mut whole = self.clone();
        whole.virtual_hosts.extend(hosts.into_iter().cloned());
        whole
    }
}

/// Name of a virtual host that comes by itself: `TABLE/HOST` (Envoy, `VirtualHost` as a resource of VHDS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName<'n> {
    /// The table it belongs to.
    pub table: &'n str,
    /// Its name there.
    pub host: &'n str,
}

impl<'n> HostName<'n> {
    /// Reads a name; none where a part is missing.
    pub fn read(name: &'n str) -> Option<Self> {
        let (table, host) = name.split_once('/')?;
        (!table.is_empty() && !host.is_empty()).then_some(Self { table, host })
    }
}

impl fmt::Display for HostName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table, self.host)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_comes_by_itself_names_its_table() {
        let name = HostName { table: "80", host: "a.default:80" };
        assert_eq!(HostName::read(&name.to_string()), Some(name));
        for bad in ["", "/", "80", "80/", "/a"] {
            assert_eq!(HostName::read(bad), None, "{bad:?}");
        }
    }
}

//! VirtualService: which request goes where, and what happens to it on the way.
//!
//! Never here: rules for connections (`connection_route`), whether a rule makes sense. Read by `from_json`, used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use super::{TcpRoute, TlsRoute};
use crate::object::Duration;
use crate::object::shape::{names, one_of, shapes};

shapes! {
    /// Routing rules for some hosts.
    pub struct VirtualService {
        /// Names that the rules are for.
        #[serde(default)]
        pub hosts: Vec<String>,
        /// Gateways that apply the rules; `mesh` stands for all sidecars and is the default.
        #[serde(default)]
        pub gateways: Vec<String>,
        /// Rules for HTTP, the first that matches wins.
        #[serde(default)]
        pub http: Vec<HttpRoute>,
        /// Rules for TLS that is passed through, by server name.
        #[serde(default)]
        pub tls: Vec<TlsRoute>,
        /// Rules for plain TCP.
        #[serde(default)]
        pub tcp: Vec<TcpRoute>,
        /// Namespaces that see it: `.`, `*` or a name.
        #[serde(default)]
        pub export_to: Vec<String>,
    }

    /// One rule for HTTP.
    pub struct HttpRoute {
        /// Name, for logs and traces.
        pub name: Option<String>,
        /// Conditions, any of which suffices; none: every request.
        #[serde(rename = "match", default)]
        pub matches: Vec<HttpMatch>,
        /// Where requests go, by weight.
        #[serde(default)]
        pub route: Vec<HttpRouteDestination>,
        /// Answers with a redirect instead.
        pub redirect: Option<HttpRedirect>,
        /// Answers with this instead.
        pub direct_response: Option<HttpDirectResponse>,
        /// Continues in another VirtualService.
        pub delegate: Option<Delegate>,
        /// Changes path or authority before forwarding.
        pub rewrite: Option<HttpRewrite>,
        /// Limit for the whole request, retries included.
        pub timeout: Option<Duration>,
        /// What is tried again, and how often.
        pub retries: Option<HttpRetry>,
        /// Failures made on purpose.
        pub fault: Option<HttpFault>,
        /// Also sends each request here and drops the answer.
        pub mirror: Option<Destination>,
        /// Several such destinations.
        #[serde(default)]
        pub mirrors: Vec<HttpMirror>,
        /// Share of requests mirrored, old spelling.
        #[schemars(extend("nullable" = true))]
        pub mirror_percent: Option<u32>,
        /// Share of requests mirrored, oldest spelling.
        #[serde(rename = "mirror_percent")]
        #[schemars(extend("nullable" = true))]
        pub mirror_percent_snake: Option<u32>,
        /// Share of requests mirrored.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin answers.
        pub cors_policy: Option<CorsPolicy>,
        /// Header changes for all destinations.
        pub headers: Option<Headers>,
    }

    /// Conditions that must all hold.
    pub struct HttpMatch {
        /// Name, for statistics.
        pub name: Option<String>,
        /// Path.
        pub uri: Option<StringMatch>,
        /// Scheme.
        pub scheme: Option<StringMatch>,
        /// Method.
        pub method: Option<StringMatch>,
        /// Authority (Host header).
        pub authority: Option<StringMatch>,
        /// Headers by name; an empty condition asks for presence only.
        #[serde(default)]
        pub headers: BTreeMap<String, StringMatch>,
        /// Headers that must not match.
        #[serde(default)]
        pub without_headers: BTreeMap<String, StringMatch>,
        /// Query parameters by name.
        #[serde(default)]
        pub query_params: BTreeMap<String, StringMatch>,
        /// Whether case of the path does not matter.
        pub ignore_uri_case: Option<bool>,
        /// Port of the host.
        pub port: Option<u32>,
        /// Labels of the caller.
        #[serde(default)]
        pub source_labels: BTreeMap<String, String>,
        /// Namespace of the caller.
        pub source_namespace: Option<String>,
        /// Gateways this condition is for; overrides those of the VirtualService.
        #[serde(default)]
        pub gateways: Vec<String>,
        /// Prefix for the route's statistics.
        pub stat_prefix: Option<String>,
    }

    /// A condition on text: one of its fields.
    #[schemars(extend("oneOf" = one_of(&["exact", "prefix", "regex"])))]
    pub struct StringMatch {
        /// The whole text.
        pub exact: Option<String>,
        /// Its beginning.
        pub prefix: Option<String>,
        /// A regular expression for the whole text, RE2 syntax.
        pub regex: Option<String>,
    }

    /// One destination of an HTTP rule.
    pub struct HttpRouteDestination {
        /// Where to.
        pub destination: Destination,
        /// Its share, relative to the sum of all weights.
        pub weight: Option<i32>,
        /// Header changes for this destination only.
        pub headers: Option<Headers>,
    }

    /// A service, or a part of one.
    pub struct Destination {
        /// Name of the service.
        pub host: String,
        /// Subset declared in a DestinationRule.
        pub subset: Option<String>,
        /// Port; needed where the service has several.
        pub port: Option<PortSelector>,
    }

    /// Names a port by number.
    pub struct PortSelector {
        /// The number.
        pub number: Option<u32>,
    }

    /// Changes of headers, both ways.
    pub struct Headers {
        /// On the request.
        pub request: Option<HeaderOperations>,
        /// On the reply.
        pub response: Option<HeaderOperations>,
    }

    /// Changes of headers.
    pub struct HeaderOperations {
        /// Overwrites.
        #[serde(default)]
        pub set: BTreeMap<String, String>,
        /// Appends.
        #[serde(default)]
        pub add: BTreeMap<String, String>,
        /// Removes.
        #[serde(default)]
        pub remove: Vec<String>,
    }

    /// Another VirtualService that continues this rule.
    pub struct Delegate {
        /// Its name.
        pub name: Option<String>,
        /// Its namespace; absent: the same.
        pub namespace: Option<String>,
    }

    /// An answer that sends the caller elsewhere.
    #[schemars(extend("oneOf" = one_of(&["port", "derivePort"])))]
    pub struct HttpRedirect {
        /// New path.
        pub uri: Option<String>,
        /// Replaces the matched prefix of the path.
        pub prefix_rewrite: Option<String>,
        /// New authority.
        pub authority: Option<String>,
        /// New port.
        pub port: Option<u32>,
        /// Takes the port from elsewhere.
        pub derive_port: Option<RedirectPort>,
        /// New scheme.
        pub scheme: Option<String>,
        /// Status; 301 if absent.
        pub redirect_code: Option<u32>,
    }

    /// A fixed answer.
    pub struct HttpDirectResponse {
        /// Its status.
        pub status: u32,
        /// Its body.
        pub body: Option<HttpBody>,
    }

    /// The body of a fixed answer: one of its fields.
    #[schemars(extend("oneOf" = one_of(&["string", "bytes"])))]
    pub struct HttpBody {
        /// As text.
        pub string: Option<String>,
        /// As base64.
        #[schemars(extend("format" = "byte"))]
        pub bytes: Option<String>,
    }

    /// Changes of the request line.
    pub struct HttpRewrite {
        /// Replaces the path, or its matched prefix.
        pub uri: Option<String>,
        /// Replaces the authority.
        pub authority: Option<String>,
        /// Replaces what an expression finds in the path.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }

    /// Replaces what an expression finds.
    pub struct RegexRewrite {
        /// The expression, RE2 syntax.
        #[serde(rename = "match")]
        pub pattern: Option<String>,
        /// The replacement, with `\1` for groups.
        pub rewrite: Option<String>,
    }

    /// What is tried again.
    pub struct HttpRetry {
        /// How often, besides the first time; 0 turns retries off.
        pub attempts: Option<i32>,
        /// Limit for each try.
        pub per_try_timeout: Option<Duration>,
        /// Conditions, separated by commas, with Envoy's names or status codes.
        pub retry_on: Option<String>,
        /// Whether to avoid hosts already tried.
        #[schemars(extend("nullable" = true))]
        pub retry_ignore_previous_hosts: Option<bool>,
        /// Whether other localities may be tried.
        #[schemars(extend("nullable" = true))]
        pub retry_remote_localities: Option<bool>,
        /// Shortest pause between tries.
        pub backoff: Option<Duration>,
    }

    /// Failures made on purpose.
    pub struct HttpFault {
        /// Waits before forwarding.
        pub delay: Option<FaultDelay>,
        /// Answers with an error.
        pub abort: Option<FaultAbort>,
    }

    /// A pause before forwarding.
    #[schemars(extend("oneOf" = one_of(&["fixedDelay", "exponentialDelay"])))]
    pub struct FaultDelay {
        /// How long.
        pub fixed_delay: Option<Duration>,
        /// Reserved by Istio.
        pub exponential_delay: Option<Duration>,
        /// Share of requests, old spelling.
        pub percent: Option<i32>,
        /// Share of requests.
        pub percentage: Option<Percent>,
    }

    /// An error instead of forwarding.
    #[schemars(extend("oneOf" = one_of(&["httpStatus", "grpcStatus", "http2Error"])))]
    pub struct FaultAbort {
        /// Status of the answer.
        pub http_status: Option<i32>,
        /// gRPC status, by name.
        pub grpc_status: Option<String>,
        /// Reserved by Istio.
        #[serde(rename = "http2Error")]
        pub http2_error: Option<String>,
        /// Share of requests.
        pub percentage: Option<Percent>,
    }

    /// A share, 0 to 100.
    pub struct Percent {
        /// The number.
        pub value: Option<f64>,
    }

    /// A destination that gets copies.
    pub struct HttpMirror {
        /// Where to.
        pub destination: Destination,
        /// Share of requests.
        pub percentage: Option<Percent>,
    }

    /// What pages of other origins may do.
    pub struct CorsPolicy {
        /// Origins, exact, old spelling.
        #[serde(default)]
        pub allow_origin: Vec<String>,
        /// Origins.
        #[serde(default)]
        pub allow_origins: Vec<StringMatch>,
        /// Methods.
        #[serde(default)]
        pub allow_methods: Vec<String>,
        /// Request headers.
        #[serde(default)]
        pub allow_headers: Vec<String>,
        /// Reply headers that scripts may read.
        #[serde(default)]
        pub expose_headers: Vec<String>,
        /// How long an answer to a preflight holds.
        pub max_age: Option<Duration>,
        /// Whether credentials may be sent.
        #[schemars(extend("nullable" = true))]
        pub allow_credentials: Option<bool>,
        /// What becomes of preflights of other origins.
        pub unmatched_preflights: Option<UnmatchedPreflights>,
    }
}

names! {
    /// Where a redirect takes its port from.
    pub enum RedirectPort {
        /// 80 or 443, by scheme.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The port of the request.
        FromRequestPort = "FROM_REQUEST_PORT",
    }

    /// What becomes of preflights of origins that are not allowed.
    pub enum UnmatchedPreflights {
        /// The default, `FORWARD`.
        Unspecified = "UNSPECIFIED",
        /// The service answers.
        Forward = "FORWARD",
        /// Answered without permission.
        Ignore = "IGNORE",
    }
}

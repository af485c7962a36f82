//! Traffic policies: balancing, connection pools, ejection, TLS to the upstream.
//!
//! Never here: defaults and meaning. Used by DestinationRule and Sidecar.
//! Called by serde.

use std::collections::BTreeMap;

use super::PortSelector;
use crate::object::Duration;
use crate::object::shape::{names, one_of, shapes};

shapes! {
    /// How to reach a service.
    pub struct TrafficPolicy {
        /// Which endpoint is chosen.
        pub load_balancer: Option<LoadBalancer>,
        /// How many connections and requests at once.
        pub connection_pool: Option<ConnectionPool>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS to the upstream.
        pub tls: Option<ClientTls>,
        /// Policies for single ports, which replace the above.
        #[serde(default)]
        #[schemars(length(max = 4096))]
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Sends connections through an HTTP CONNECT proxy.
        pub tunnel: Option<Tunnel>,
        /// Tells the upstream the caller's address in a PROXY header.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// How many retries at once, as a share of requests.
        pub retry_budget: Option<RetryBudget>,
    }

    /// How to reach one port of a service.
    pub struct PortTrafficPolicy {
        /// The port.
        pub port: Option<PortSelector>,
        /// Which endpoint is chosen.
        pub load_balancer: Option<LoadBalancer>,
        /// How many connections and requests at once.
        pub connection_pool: Option<ConnectionPool>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS to the upstream.
        pub tls: Option<ClientTls>,
    }

    /// Which endpoint is chosen: one of `simple`, `consistentHash`, `backendUtilization`.
    #[schemars(extend("oneOf" = one_of(&["simple", "consistentHash", "backendUtilization"])))]
    pub struct LoadBalancer {
        /// A plain algorithm.
        pub simple: Option<SimpleLoadBalancer>,
        /// The same key goes to the same endpoint.
        pub consistent_hash: Option<ConsistentHash>,
        /// By what endpoints report of their load.
        pub backend_utilization: Option<BackendUtilization>,
        /// Preference for near endpoints.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Preference for endpoints of the same zone.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Grace for new endpoints, old spelling.
        pub warmup_duration_secs: Option<Duration>,
        /// Grace for new endpoints.
        pub warmup: Option<Warmup>,
    }

    /// Hashing: one key, and at most one algorithm.
    #[schemars(extend("allOf" = [
        { "oneOf": one_of(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]) },
        { "oneOf": one_of(&["ringHash", "maglev"]) },
    ]))]
    pub struct ConsistentHash {
        /// Key: a header.
        pub http_header_name: Option<String>,
        /// Key: a cookie.
        pub http_cookie: Option<HttpCookie>,
        /// Key: the caller's address.
        pub use_source_ip: Option<bool>,
        /// Key: a query parameter.
        pub http_query_parameter_name: Option<String>,
        /// A ring of hashes.
        pub ring_hash: Option<RingHash>,
        /// Maglev's table.
        pub maglev: Option<Maglev>,
        /// Size of the ring, old spelling.
        pub minimum_ring_size: Option<u64>,
    }

    /// A cookie as hash key; made where the caller has none.
    pub struct HttpCookie {
        /// Name.
        pub name: String,
        /// Path for a cookie that is made.
        pub path: Option<String>,
        /// Lifetime of a cookie that is made; 0 means the session.
        #[schemars(with = "Option<String>")]
        pub ttl: Option<Duration>,
        /// More attributes for a cookie that is made.
        #[serde(default)]
        pub attributes: Vec<CookieAttribute>,
    }

    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Name.
        pub name: String,
        /// Value.
        pub value: Option<String>,
    }

    /// A ring of hashes.
    pub struct RingHash {
        /// At least so many points.
        pub minimum_ring_size: Option<u64>,
    }

    /// Maglev's table.
    pub struct Maglev {
        /// Its size, a prime.
        pub table_size: Option<u64>,
    }

    /// Balancing by reported load.
    pub struct BackendUtilization {
        /// How much errors count.
        pub error_utilization_penalty_percent: Option<u32>,
        /// Reported metrics that count.
        #[serde(default)]
        pub metric_names_for_computing_utilization: Vec<String>,
        /// A report counts no longer than this.
        #[schemars(with = "Option<String>")]
        pub weight_expiration_period: Option<Duration>,
        /// A new endpoint's reports count after this.
        #[schemars(with = "Option<String>")]
        pub weight_stabilization_period: Option<Duration>,
        /// How often weights are computed.
        #[schemars(with = "Option<String>")]
        pub weight_update_period: Option<Duration>,
    }

    /// Preference for near endpoints.
    pub struct LocalityLbSetting {
        /// Fixed shares by the caller's locality.
        #[serde(default)]
        pub distribute: Vec<Distribute>,
        /// Which region follows which.
        #[serde(default)]
        pub failover: Vec<Failover>,
        /// Labels that order endpoints: the more of them agree, the nearer.
        #[serde(default)]
        pub failover_priority: Vec<String>,
        /// Turns it on or off.
        #[schemars(extend("nullable" = true))]
        pub enabled: Option<bool>,
    }

    /// Shares for callers of one locality.
    pub struct Distribute {
        /// The callers' locality, `region/zone/sub-zone`, with `*`.
        pub from: Option<String>,
        /// Share of each locality; together 100.
        #[serde(default)]
        pub to: BTreeMap<String, u32>,
    }

    /// Which region follows which.
    pub struct Failover {
        /// Region that has no healthy endpoints.
        pub from: Option<String>,
        /// Region that is used instead.
        pub to: Option<String>,
    }

    /// Preference for endpoints of the same zone.
    pub struct ZoneAwareLbSetting {
        /// Turns it on or off.
        #[schemars(extend("nullable" = true))]
        pub enabled: Option<bool>,
        /// Which region follows which.
        #[serde(default)]
        pub failover: Vec<Failover>,
        /// Labels that order endpoints.
        #[serde(default)]
        pub failover_priority: Vec<String>,
        /// Fewer endpoints than this: no preference.
        #[schemars(range(min = 1), extend("nullable" = true))]
        pub min_cluster_size: Option<u32>,
    }

    /// Grace for new endpoints: their share grows.
    pub struct Warmup {
        /// How long.
        pub duration: Duration,
        /// Share at the start, in percent.
        #[schemars(range(min = 0, max = 100), extend("nullable" = true))]
        pub minimum_percent: Option<f64>,
        /// Shape of the growth; 1 is linear.
        #[schemars(range(min = 0), extend("nullable" = true))]
        pub aggression: Option<f64>,
    }

    /// How much at once.
    pub struct ConnectionPool {
        /// Connections.
        pub tcp: Option<TcpSettings>,
        /// Requests.
        pub http: Option<HttpSettings>,
    }

    /// Limits of connections.
    pub struct TcpSettings {
        /// Connections to each endpoint.
        pub max_connections: Option<i32>,
        /// Limit for connecting.
        pub connect_timeout: Option<Duration>,
        /// Probes that keep a connection.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Age at which a connection is closed.
        pub max_connection_duration: Option<Duration>,
        /// Idle time after which a connection is closed.
        #[schemars(with = "Option<String>")]
        pub idle_timeout: Option<Duration>,
    }

    /// Probes that keep a connection.
    pub struct TcpKeepalive {
        /// Probes without answer until it counts as dead.
        pub probes: Option<u32>,
        /// Idle time before the first probe.
        pub time: Option<Duration>,
        /// Time between probes.
        pub interval: Option<Duration>,
    }

    /// Limits of requests.
    pub struct HttpSettings {
        /// Requests that may wait for a connection.
        #[serde(rename = "http1MaxPendingRequests")]
        pub http1_max_pending_requests: Option<i32>,
        /// Requests at once.
        #[serde(rename = "http2MaxRequests")]
        pub http2_max_requests: Option<i32>,
        /// Requests after which a connection is closed.
        pub max_requests_per_connection: Option<i32>,
        /// Retries at once.
        pub max_retries: Option<i32>,
        /// Idle time after which a connection is closed.
        pub idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 is raised to HTTP/2.
        pub h2_upgrade_policy: Option<H2UpgradePolicy>,
        /// Whether the caller's protocol is kept.
        pub use_client_protocol: Option<bool>,
        /// Streams at once on one connection.
        pub max_concurrent_streams: Option<i32>,
        /// HTTP/2 pings.
        #[serde(rename = "http2KeepAlive")]
        pub http2_keep_alive: Option<Http2KeepAlive>,
    }

    /// HTTP/2 pings.
    pub struct Http2KeepAlive {
        /// Time between pings.
        pub interval: Option<Duration>,
        /// Time to wait for the answer.
        pub timeout: Option<Duration>,
    }

    /// When an endpoint is left out for a while.
    pub struct OutlierDetection {
        /// Errors in a row, old spelling.
        pub consecutive_errors: Option<i32>,
        /// Errors in a row: 502, 503, 504.
        #[schemars(extend("nullable" = true))]
        pub consecutive_gateway_errors: Option<u32>,
        /// Errors in a row: any 5xx.
        #[serde(rename = "consecutive5xxErrors")]
        #[schemars(extend("nullable" = true))]
        pub consecutive_5xx_errors: Option<u32>,
        /// Errors in a row of our own making, such as connect failures.
        #[schemars(extend("nullable" = true))]
        pub consecutive_local_origin_failures: Option<u32>,
        /// Whether errors of our own making are counted apart.
        pub split_external_local_origin_errors: Option<bool>,
        /// Time between sweeps.
        pub interval: Option<Duration>,
        /// Shortest time left out; grows with each time.
        pub base_ejection_time: Option<Duration>,
        /// At most this share of endpoints is left out.
        pub max_ejection_percent: Option<i32>,
        /// Below this share of healthy endpoints all are used.
        pub min_health_percent: Option<i32>,
        /// Statuses that count as errors.
        #[serde(default)]
        #[schemars(inner(range(min = 100, max = 599)))]
        pub outlier_detection_http_error_codes: Vec<u32>,
    }

    /// TLS to the upstream.
    pub struct ClientTls {
        /// Which kind.
        pub mode: Option<ClientTlsMode>,
        /// File of our certificate.
        pub client_certificate: Option<String>,
        /// File of our key.
        pub private_key: Option<String>,
        /// File of the upstream's authorities.
        pub ca_certificates: Option<String>,
        /// File of revoked certificates.
        pub ca_crl: Option<String>,
        /// Secret with all of these.
        pub credential_name: Option<String>,
        /// Names that the upstream may prove.
        #[serde(default)]
        pub subject_alt_names: Vec<String>,
        /// Server name to send.
        pub sni: Option<String>,
        /// Whether any certificate will do.
        #[schemars(extend("nullable" = true))]
        pub insecure_skip_verify: Option<bool>,
    }

    /// An HTTP CONNECT proxy on the way.
    pub struct Tunnel {
        /// `CONNECT` or `POST`.
        pub protocol: Option<String>,
        /// Host to ask the proxy for.
        pub target_host: String,
        /// Port to ask the proxy for.
        pub target_port: u32,
    }

    /// The PROXY header.
    pub struct ProxyProtocol {
        /// Its version.
        pub version: Option<ProxyProtocolVersion>,
    }

    /// How many retries at once.
    pub struct RetryBudget {
        /// Share of requests that may be retries.
        #[schemars(range(min = 0, max = 100), extend("nullable" = true))]
        pub percent: Option<f64>,
        /// So many may be at any rate.
        pub min_retry_concurrency: Option<u32>,
        /// Span over which requests are counted.
        #[schemars(with = "Option<String>")]
        pub budget_interval: Option<Duration>,
    }
}

names! {
    /// A plain balancing algorithm.
    pub enum SimpleLoadBalancer {
        /// The default, least requests.
        Unspecified = "UNSPECIFIED",
        /// Old name of `LEAST_REQUEST`.
        LeastConn = "LEAST_CONN",
        /// Any endpoint.
        Random = "RANDOM",
        /// The address the caller asked for.
        Passthrough = "PASSTHROUGH",
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// The less busy of two chosen at random.
        LeastRequest = "LEAST_REQUEST",
    }

    /// Whether HTTP/1.1 is raised to HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh has it.
        Default = "DEFAULT",
        /// Never.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Always.
        Upgrade = "UPGRADE",
    }

    /// TLS to the upstream.
    pub enum ClientTlsMode {
        /// None.
        Disable = "DISABLE",
        /// The upstream proves who it is.
        Simple = "SIMPLE",
        /// Both prove who they are, with files.
        Mutual = "MUTUAL",
        /// Both prove who they are, with the mesh's identities.
        IstioMutual = "ISTIO_MUTUAL",
    }

    /// Version of the PROXY header.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

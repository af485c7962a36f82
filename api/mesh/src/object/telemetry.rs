//! Group telemetry.istio.io: which metrics, traces and access logs are made.
//!
//! Never here: meaning. Read by `from_json`, used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use super::Duration;
use super::selector::{ONE_TARGET, Selector, TargetRef};
use super::shape::{cel, names, one_of, shapes};

shapes! {
    /// What some proxies record.
    #[schemars(extend("x-kubernetes-validations" = cel(&[ONE_TARGET])))]
    pub struct Telemetry {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Object it is attached to, old spelling.
        pub target_ref: Option<TargetRef>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// Traces.
        #[serde(default)]
        pub tracing: Vec<Tracing>,
        /// Metrics.
        #[serde(default)]
        pub metrics: Vec<Metrics>,
        /// Access logs.
        #[serde(default)]
        pub access_logging: Vec<AccessLogging>,
    }

    /// Traces.
    pub struct Tracing {
        /// On which side.
        #[serde(rename = "match")]
        pub matches: Option<TracingMatch>,
        /// Where they are sent.
        #[serde(default)]
        pub providers: Vec<ProviderRef>,
        /// Share of requests traced.
        #[schemars(range(min = 0, max = 100), extend("nullable" = true))]
        pub random_sampling_percentage: Option<f64>,
        /// Whether none are sent.
        #[schemars(extend("nullable" = true))]
        pub disable_span_reporting: Option<bool>,
        /// Tags to add.
        #[serde(default)]
        pub custom_tags: BTreeMap<String, CustomTag>,
        /// Whether the request id decides about sampling.
        #[schemars(extend("nullable" = true))]
        pub use_request_id_for_trace_sampling: Option<bool>,
        /// Whether Istio's own tags are added.
        #[schemars(extend("nullable" = true))]
        pub enable_istio_tags: Option<bool>,
        /// Whether trace headers are not passed on.
        #[schemars(extend("nullable" = true))]
        pub disable_context_propagation: Option<bool>,
    }

    /// On which side traces are made.
    pub struct TracingMatch {
        /// Which side.
        pub mode: Option<WorkloadMode>,
    }

    /// Names a provider of MeshConfig.
    pub struct ProviderRef {
        /// Its name.
        #[schemars(length(min = 1))]
        pub name: String,
    }

    /// A tag: one of its fields says where its value comes from.
    #[schemars(extend("oneOf" = one_of(&["literal", "environment", "header", "formatter"])))]
    pub struct CustomTag {
        /// A fixed value.
        pub literal: Option<LiteralTag>,
        /// The proxy's environment.
        pub environment: Option<NamedTag>,
        /// A request header.
        pub header: Option<NamedTag>,
        /// A format of Envoy's access log.
        pub formatter: Option<LiteralTag>,
    }

    /// A value.
    pub struct LiteralTag {
        /// The text.
        #[schemars(length(min = 1))]
        pub value: String,
    }

    /// A value found by name.
    pub struct NamedTag {
        /// The name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// Value where there is none.
        pub default_value: Option<String>,
    }

    /// Metrics.
    pub struct Metrics {
        /// Where they are sent.
        #[serde(default)]
        pub providers: Vec<ProviderRef>,
        /// Changes of single metrics.
        #[serde(default)]
        pub overrides: Vec<MetricsOverride>,
        /// Time between reports.
        pub reporting_interval: Option<Duration>,
    }

    /// A change of some metrics.
    pub struct MetricsOverride {
        /// Which.
        #[serde(rename = "match")]
        pub matches: Option<MetricSelector>,
        /// Whether they are not made.
        #[schemars(extend("nullable" = true))]
        pub disabled: Option<bool>,
        /// Changes of labels.
        #[serde(default)]
        pub tag_overrides: BTreeMap<String, TagOverride>,
    }

    /// Which metrics.
    #[schemars(extend("oneOf" = one_of(&["metric", "customMetric"])))]
    pub struct MetricSelector {
        /// One of Istio's.
        pub metric: Option<IstioMetric>,
        /// By name.
        #[schemars(length(min = 1))]
        pub custom_metric: Option<String>,
        /// On which side.
        pub mode: Option<WorkloadMode>,
    }

    /// A change of a label.
    #[schemars(extend("x-kubernetes-validations" = cel(&[
        ("value must be set when operation is UPSERT",
         r#"((has(self.operation) ? self.operation : "") == "UPSERT") ? (self.value != "") : true"#),
        ("value must not be set when operation is REMOVE",
         r#"((has(self.operation) ? self.operation : "") == "REMOVE") ? !has(self.value) : true"#),
    ])))]
    pub struct TagOverride {
        /// Which change.
        pub operation: Option<TagOperation>,
        /// Expression for the value.
        pub value: Option<String>,
    }

    /// Access logs.
    pub struct AccessLogging {
        /// On which side.
        #[serde(rename = "match")]
        pub matches: Option<LogSelector>,
        /// Where they are sent.
        #[serde(default)]
        pub providers: Vec<ProviderRef>,
        /// Whether none are made.
        #[schemars(extend("nullable" = true))]
        pub disabled: Option<bool>,
        /// Which requests are logged.
        pub filter: Option<LogFilter>,
    }

    /// On which side logs are made.
    pub struct LogSelector {
        /// Which side.
        pub mode: Option<WorkloadMode>,
    }

    /// Which requests are logged.
    pub struct LogFilter {
        /// A CEL expression.
        pub expression: Option<String>,
    }
}

names! {
    /// A side of a call.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER",
        /// The caller's.
        Client = "CLIENT",
        /// The callee's.
        Server = "SERVER",
    }

    /// One of Istio's metrics.
    pub enum IstioMetric {
        /// All of them.
        All = "ALL_METRICS",
        /// `istio_requests_total`.
        RequestCount = "REQUEST_COUNT",
        /// `istio_request_duration_milliseconds`.
        RequestDuration = "REQUEST_DURATION",
        /// `istio_request_bytes`.
        RequestSize = "REQUEST_SIZE",
        /// `istio_response_bytes`.
        ResponseSize = "RESPONSE_SIZE",
        /// `istio_tcp_connections_opened_total`.
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS",
        /// `istio_tcp_connections_closed_total`.
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS",
        /// `istio_tcp_sent_bytes_total`.
        TcpSentBytes = "TCP_SENT_BYTES",
        /// `istio_tcp_received_bytes_total`.
        TcpReceivedBytes = "TCP_RECEIVED_BYTES",
        /// `istio_request_messages_total`.
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES",
        /// `istio_response_messages_total`.
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES",
    }

    /// A change of a label.
    pub enum TagOperation {
        /// Adds or replaces.
        Upsert = "UPSERT",
        /// Removes.
        Remove = "REMOVE",
    }
}

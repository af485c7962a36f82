//! Providers: services of the mesh that log, trace or decide, and which of them count where nobody says.
//!
//! Never here: talking to them. Read by `MeshConfig::from_json`, used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::Duration;
use crate::object::shape::shapes;

shapes! {
    /// Providers where Telemetry names none.
    pub struct DefaultProviders {
        /// For traces.
        #[serde(default)]
        pub tracing: Vec<String>,
        /// For metrics.
        #[serde(default)]
        pub metrics: Vec<String>,
        /// For access logs.
        #[serde(default)]
        pub access_logging: Vec<String>,
    }

    /// A service that logs, traces or decides: one of its fields besides the name.
    pub struct ExtensionProvider {
        /// Its name.
        pub name: String,
        /// Decides, by HTTP.
        pub envoy_ext_authz_http: Option<Value>,
        /// Decides, by gRPC.
        pub envoy_ext_authz_grpc: Option<Value>,
        /// Takes traces as Zipkin does.
        pub zipkin: Option<ZipkinProvider>,
        /// Takes traces over OTLP.
        pub opentelemetry: Option<OpenTelemetryProvider>,
        /// Takes traces as Datadog does.
        pub datadog: Option<Value>,
        /// Takes traces as Lightstep does.
        pub lightstep: Option<Value>,
        /// Takes traces as SkyWalking does.
        pub skywalking: Option<Value>,
        /// Takes traces as OpenCensus does.
        pub opencensus: Option<Value>,
        /// Google's.
        pub stackdriver: Option<Value>,
        /// Metrics, scraped.
        pub prometheus: Option<Empty>,
        /// Access log in a file.
        pub envoy_file_access_log: Option<FileAccessLogProvider>,
        /// Access log of requests, over gRPC.
        pub envoy_http_als: Option<Value>,
        /// Access log of connections, over gRPC.
        pub envoy_tcp_als: Option<Value>,
        /// Access log over OTLP.
        pub envoy_otel_als: Option<Value>,
        /// Secrets from elsewhere.
        pub sds: Option<Value>,
    }

    /// Nothing more to say.
    pub struct Empty {}

    /// Traces as Zipkin takes them.
    pub struct ZipkinProvider {
        /// Host.
        pub service: Option<String>,
        /// Port.
        pub port: Option<u32>,
        /// Longest tag for paths.
        pub max_tag_length: Option<u32>,
        /// Whether trace ids are short.
        #[serde(rename = "enable64bitTraceId")]
        pub enable_64bit_trace_id: Option<bool>,
        /// Path; `/api/v2/spans`.
        pub path: Option<String>,
        /// Which headers are used.
        pub trace_context_option: Option<String>,
        /// Limit for sending.
        pub timeout: Option<Duration>,
        /// Headers to send.
        #[serde(default)]
        pub headers: Vec<Value>,
    }

    /// Traces over OTLP.
    pub struct OpenTelemetryProvider {
        /// Host.
        pub service: Option<String>,
        /// Port.
        pub port: Option<u32>,
        /// Longest tag for paths.
        pub max_tag_length: Option<u32>,
        /// Sends by HTTP.
        pub http: Option<OpenTelemetryHttp>,
        /// Sends by gRPC.
        pub grpc: Option<Value>,
        /// Where attributes of the process come from.
        pub resource_detectors: Option<Value>,
        /// How service names are made.
        pub service_attribute_enrichment: Option<String>,
        /// Dynatrace's sampling.
        pub dynatrace_sampler: Option<Value>,
    }

    /// OTLP by HTTP.
    pub struct OpenTelemetryHttp {
        /// Path.
        pub path: Option<String>,
        /// Limit for sending.
        pub timeout: Option<Duration>,
        /// Headers to send.
        #[serde(default)]
        pub headers: Vec<Value>,
    }

    /// Access log in a file.
    pub struct FileAccessLogProvider {
        /// The file; `/dev/stdout`.
        pub path: Option<String>,
        /// Its format.
        pub log_format: Option<LogFormat>,
        /// Whether empty values are left out.
        pub omit_empty_values: Option<bool>,
    }

    /// Format of an access log: text or labels.
    pub struct LogFormat {
        /// A line.
        pub text: Option<String>,
        /// A JSON object.
        #[serde(default)]
        pub labels: BTreeMap<String, Value>,
    }
}

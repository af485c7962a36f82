//! Settings of one proxy: MeshConfig's `defaultConfig` and the annotation `proxy.istio.io/config`.
//!
//! Every field that Istio documents has a place; those whose content nobody reads yet are kept as they are.
//! Never here: defaults and meaning, or how the several sources are merged. Read by `model` and `inject`.
//! Called through [`ProxySettings::from_json`].

use std::collections::BTreeMap;

use api::note::ObjectRef;
use serde_json::Value;

use super::mesh_config::{Empty, read};
use super::networking::ClientTls;
use super::shape::shapes;
use super::{Duration, ObjectError};

impl ProxySettings {
    /// Reads one proxy's settings (annotation `proxy.istio.io/config`), with the paths of fields that Istio does not have.
    ///
    /// # Errors
    /// Where a field has the wrong type.
    pub fn from_json(value: Value, object: &ObjectRef) -> Result<(Self, Vec<String>), ObjectError> {
        read(value, object)
    }
}

shapes! {
    /// Settings of one proxy.
    pub struct ProxySettings {
        /// Folder for generated files.
        pub config_path: Option<String>,
        /// Program.
        pub binary_path: Option<String>,
        /// Its name in traces.
        pub service_cluster: Option<String>,
        /// How its name in traces is made.
        pub tracing_service_name: Option<String>,
        /// Time to close listeners when it is replaced.
        pub drain_duration: Option<Duration>,
        /// Time to finish requests when it ends; 5s.
        pub termination_drain_duration: Option<Duration>,
        /// Time to end the old one when it is replaced, old.
        pub parent_shutdown_duration: Option<Duration>,
        /// Where pilot is.
        pub discovery_address: Option<String>,
        /// Time between asking pilot again, old.
        pub discovery_refresh_delay: Option<Duration>,
        /// Port of the admin page; 15000.
        pub proxy_admin_port: Option<i32>,
        /// Port of the pod's metrics and probes; 15020.
        pub status_port: Option<i32>,
        /// How pilot is spoken to.
        pub control_plane_auth_policy: Option<String>,
        /// Worker threads; 0: one for each core.
        pub concurrency: Option<i32>,
        /// How connections are captured.
        pub interception_mode: Option<String>,
        /// Traces.
        pub tracing: Option<TracingSettings>,
        /// Where traces go, old.
        pub zipkin_address: Option<String>,
        /// Where statsd is.
        pub statsd_udp_address: Option<String>,
        /// Longest name of a statistic.
        pub stat_name_length: Option<i32>,
        /// Access log service.
        pub envoy_access_log_service: Option<Value>,
        /// Metrics service.
        pub envoy_metrics_service: Option<Value>,
        /// Metrics service, old.
        pub envoy_metrics_service_address: Option<String>,
        /// Environment; `ISTIO_META_*` become metadata.
        #[serde(default)]
        pub proxy_metadata: BTreeMap<String, String>,
        /// Runtime values of Envoy.
        #[serde(default)]
        pub runtime_values: BTreeMap<String, String>,
        /// Which statistics are kept.
        pub proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// What stands before a gateway.
        pub gateway_topology: Option<GatewayTopology>,
        /// Name of the mesh.
        pub mesh_id: Option<String>,
        /// Probe of the workload.
        pub readiness_probe: Option<Value>,
        /// Whether the app waits for the proxy.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// More authorities.
        #[serde(default)]
        pub ca_certificates_pem: Vec<String>,
        /// Image.
        pub image: Option<ImageSettings>,
        /// Where private keys are.
        pub private_key_provider: Option<Value>,
        /// Which headers the proxy adds.
        pub proxy_headers: Option<ProxyHeaders>,
        /// Time between writes of the access log.
        pub file_flush_interval: Option<Duration>,
        /// Size after which the access log is written.
        pub file_flush_min_size_kb: Option<u32>,
        /// Whether metrics are sent compressed.
        pub stats_compression: Option<bool>,
        /// Limits of connections.
        pub connection_settings: Option<Value>,
        /// More labels of metrics, old.
        #[serde(default)]
        pub extra_stat_tags: Vec<String>,
        /// Zone, old.
        pub availability_zone: Option<String>,
        /// Envoy's own bootstrap.
        pub custom_config_file: Option<String>,
        /// Template for it.
        pub proxy_bootstrap_template_path: Option<String>,
        /// Secret discovery, old.
        pub sds: Option<Value>,
    }

    /// Traces of one proxy.
    pub struct TracingSettings {
        /// Where Zipkin is.
        pub zipkin: Option<AddressOnly>,
        /// Where Datadog is.
        pub datadog: Option<AddressOnly>,
        /// Lightstep.
        pub lightstep: Option<Value>,
        /// Google's.
        pub stackdriver: Option<Value>,
        /// OpenCensus.
        #[serde(rename = "openCensusAgent")]
        pub open_census_agent: Option<Value>,
        /// Share of requests traced.
        pub sampling: Option<f64>,
        /// Tags to add.
        #[serde(default)]
        pub custom_tags: BTreeMap<String, super::telemetry::CustomTag>,
        /// Longest tag for paths.
        pub max_path_tag_length: Option<u32>,
        /// TLS to the collector.
        pub tls_settings: Option<ClientTls>,
        /// Whether Istio's own tags are added.
        pub enable_istio_tags: Option<bool>,
    }

    /// An address.
    pub struct AddressOnly {
        /// `host:port`.
        pub address: Option<String>,
    }

    /// Which statistics are kept.
    pub struct ProxyStatsMatcher {
        /// By beginning.
        #[serde(default)]
        pub inclusion_prefixes: Vec<String>,
        /// By end.
        #[serde(default)]
        pub inclusion_suffixes: Vec<String>,
        /// By expression.
        #[serde(default)]
        pub inclusion_regexps: Vec<String>,
    }

    /// What stands before a gateway.
    pub struct GatewayTopology {
        /// How many proxies whose X-Forwarded-For is believed.
        pub num_trusted_proxies: Option<u32>,
        /// What becomes of X-Forwarded-Client-Cert.
        pub forward_client_cert_details: Option<String>,
        /// Whether a PROXY header is read.
        pub proxy_protocol: Option<Empty>,
    }

    /// Image of a proxy.
    pub struct ImageSettings {
        /// `default`, `debug` or `distroless`.
        pub image_type: Option<String>,
    }

    /// Which headers the proxy adds.
    pub struct ProxyHeaders {
        /// What becomes of X-Forwarded-Client-Cert.
        pub forwarded_client_cert: Option<String>,
        /// What it says of the caller.
        pub set_current_client_cert_details: Option<Value>,
        /// `x-request-id`.
        pub request_id: Option<DisabledHeader>,
        /// `server`.
        pub server: Option<ServerHeader>,
        /// `x-envoy-attempt-count`.
        pub attempt_count: Option<DisabledHeader>,
        /// Other `x-envoy-` headers.
        pub envoy_debug_headers: Option<DisabledHeader>,
        /// Metadata exchange.
        pub metadata_exchange_headers: Option<Value>,
        /// Whether the case of names is kept.
        #[serde(rename = "preserveHttp1HeaderCase")]
        pub preserve_http1_header_case: Option<bool>,
        /// `x-forwarded-host`.
        pub x_forwarded_host: Option<Value>,
        /// `x-forwarded-port`.
        pub x_forwarded_port: Option<Value>,
    }

    /// A header that can be turned off.
    pub struct DisabledHeader {
        /// Whether it is.
        pub disabled: Option<bool>,
    }

    /// The `server` header.
    pub struct ServerHeader {
        /// Whether it is not sent.
        pub disabled: Option<bool>,
        /// Its value.
        pub value: Option<String>,
    }
}

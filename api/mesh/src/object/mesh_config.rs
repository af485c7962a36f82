//! Mesh-wide settings: `MeshConfig`, stored in ConfigMap `istio` under the key `mesh`.
//!
//! Every field that Istio documents has a place; those whose content nobody reads yet are kept as they are.
//! Never here: defaults and meaning, or YAML (the caller has made JSON of it). Read by `model` and `inject`.
//! Called through [`MeshConfig::from_json`].

mod providers;

use std::collections::BTreeMap;

use api::note::ObjectRef;
use serde_json::Value;

pub use self::providers::*;
use super::networking::{
    ClientTls, ConnectionPool, H2UpgradePolicy, HttpRetry, LocalityLbSetting, OutlierDetection, TcpKeepalive,
    ZoneAwareLbSetting,
};
use super::proxy_settings::ProxySettings;
use super::shape::{names, shapes};
use super::{Duration, ObjectError, kind, schema};

impl MeshConfig {
    /// Reads the settings; with them come the paths of fields that Istio does not have.
    ///
    /// # Errors
    /// Where a field has the wrong type: with the field's path, about `object`.
    pub fn from_json(value: Value, object: &ObjectRef) -> Result<(Self, Vec<String>), ObjectError> {
        read(value, object)
    }
}

pub(super) fn read<T>(mut value: Value, object: &ObjectRef) -> Result<(T, Vec<String>), ObjectError>
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema,
{
    schema::drop_nulls(&mut value);
    let mut unknown = Vec::new();
    schema::find_unknown(&value, &schema::structural::<T>(), "", &mut unknown);
    Ok((kind::typed(&value, object)?, unknown))
}

shapes! {
    /// Settings of the whole mesh.
    pub struct MeshConfig {
        /// Port that outgoing connections are led to; 15001.
        pub proxy_listen_port: Option<u32>,
        /// Port that incoming connections are led to; 15006.
        pub proxy_inbound_listen_port: Option<u32>,
        /// Port of a plain HTTP proxy; off.
        pub proxy_http_port: Option<u32>,
        /// Limit for connecting; 10s.
        pub connect_timeout: Option<Duration>,
        /// Probes that keep a connection.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// How long to wait for the first bytes when the protocol is not told; 0: no limit.
        pub protocol_detection_timeout: Option<Duration>,
        /// Idle time of HBONE connections.
        pub hbone_idle_timeout: Option<Duration>,
        /// Time between look-ups of a name; 60s.
        pub dns_refresh_rate: Option<Duration>,
        /// Class of Ingresses that are served.
        pub ingress_class: Option<String>,
        /// Service whose address Ingresses get.
        pub ingress_service: Option<String>,
        /// Which Ingresses are served.
        pub ingress_controller_mode: Option<String>,
        /// Gateway that serves them.
        pub ingress_selector: Option<String>,
        /// Whether traces are made.
        pub enable_tracing: Option<bool>,
        /// File of the access log; empty: none.
        pub access_log_file: Option<String>,
        /// Its format.
        pub access_log_format: Option<String>,
        /// Whether it is text or JSON.
        pub access_log_encoding: Option<AccessLogEncoding>,
        /// Whether records are sent to a service.
        pub enable_envoy_access_log_service: Option<bool>,
        /// Whether listeners log connections that no route takes.
        pub disable_envoy_listener_log: Option<bool>,
        /// Settings of every proxy.
        pub default_config: Option<ProxySettings>,
        /// What becomes of calls to unknown hosts.
        pub outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
        /// Where incoming calls are sent within the pod.
        pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
        /// Other sources of objects.
        #[serde(default)]
        pub config_sources: Vec<Value>,
        /// Whether mutual TLS is used wherever both sides can; true.
        pub enable_auto_mtls: Option<bool>,
        /// Domain of the mesh's identities; `cluster.local`.
        pub trust_domain: Option<String>,
        /// Other domains that count as the same.
        #[serde(default)]
        pub trust_domain_aliases: Vec<String>,
        /// More authorities.
        #[serde(default)]
        pub ca_certificates: Vec<CaCertificate>,
        /// An authority elsewhere.
        pub ca: Option<Value>,
        /// Certificates made for DNS names, old.
        #[serde(default)]
        pub certificates: Vec<Value>,
        /// Whether the caller checks the upstream's certificate, old.
        pub verify_certificate_at_client: Option<bool>,
        /// Namespaces that see a Service without `exportTo`.
        #[serde(default)]
        pub default_service_export_to: Vec<String>,
        /// Namespaces that see a VirtualService without `exportTo`.
        #[serde(default)]
        pub default_virtual_service_export_to: Vec<String>,
        /// Namespaces that see a DestinationRule without `exportTo`.
        #[serde(default)]
        pub default_destination_rule_export_to: Vec<String>,
        /// Namespace whose policies are for all; `istio-system`.
        pub root_namespace: Option<String>,
        /// Namespaces that are watched, any of these; none: all.
        #[serde(default)]
        pub discovery_selectors: Vec<LabelSelector>,
        /// Who sees ServiceEntries.
        pub service_entry_visibility: Option<Value>,
        /// Preference for near endpoints.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Preference for endpoints of the same zone.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Whether HTTP/1.1 is raised to HTTP/2.
        pub h2_upgrade_policy: Option<H2UpgradePolicy>,
        /// Retries of routes that say nothing.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// Retries to the workload itself.
        pub default_inbound_http_retry_policy: Option<HttpRetry>,
        /// Limits of services that say nothing.
        pub default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// Pattern for statistics of calls to the workload.
        pub inbound_cluster_stat_name: Option<String>,
        /// Pattern for statistics of calls of the workload.
        pub outbound_cluster_stat_name: Option<String>,
        /// Settings of single services, for several clusters.
        #[serde(default)]
        pub service_settings: Vec<Value>,
        /// Which services are seen by other clusters.
        #[serde(default)]
        pub service_scope_configs: Vec<Value>,
        /// Whether the proxy answers with the app's metrics too; true.
        pub enable_prometheus_merge: Option<bool>,
        /// Providers where Telemetry names none.
        pub default_providers: Option<DefaultProviders>,
        /// Services that log, trace or decide.
        #[serde(default)]
        pub extension_providers: Vec<ExtensionProvider>,
        /// How paths are made comparable.
        pub path_normalization: Option<PathNormalization>,
        /// TLS inside the mesh.
        #[serde(rename = "meshMTLS")]
        pub mesh_mtls: Option<TlsLimits>,
        /// TLS elsewhere.
        pub tls_defaults: Option<TlsLimits>,
        /// Thrift, not used any more.
        pub thrift_config: Option<Value>,
    }

    /// What becomes of calls to unknown hosts.
    pub struct MeshOutboundTrafficPolicy {
        /// Which way.
        pub mode: Option<MeshOutboundMode>,
        /// TLS for names found by DNS.
        pub tls: Option<ClientTls>,
    }

    /// Where incoming calls are sent within the pod.
    pub struct InboundTrafficPolicy {
        /// Which way.
        pub mode: Option<InboundMode>,
    }

    /// An authority.
    pub struct CaCertificate {
        /// Its certificate.
        pub pem: Option<String>,
        /// Where its certificates are.
        pub spiffe_bundle_url: Option<String>,
        /// Signers it stands for.
        #[serde(default)]
        pub cert_signers: Vec<String>,
        /// Trust domains it stands for.
        #[serde(default)]
        pub trust_domains: Vec<String>,
    }

    /// Chooses objects by labels.
    pub struct LabelSelector {
        /// Labels they must all have.
        #[serde(default)]
        pub match_labels: BTreeMap<String, String>,
        /// More conditions, all of them.
        #[serde(default)]
        pub match_expressions: Vec<LabelRequirement>,
    }

    /// A condition on one label.
    pub struct LabelRequirement {
        /// The label.
        pub key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: String,
        /// The values.
        #[serde(default)]
        pub values: Vec<String>,
    }

    /// Limits of services that say nothing.
    pub struct DefaultTrafficPolicy {
        /// How many connections and requests at once.
        pub connection_pool: Option<ConnectionPool>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
    }

    /// How paths are made comparable.
    pub struct PathNormalization {
        /// Which way.
        pub normalization: Option<NormalizationType>,
    }

    /// Limits of TLS.
    pub struct TlsLimits {
        /// Oldest version.
        pub min_protocol_version: Option<String>,
        /// Curves.
        #[serde(default)]
        pub ecdh_curves: Vec<String>,
        /// Ciphers, by OpenSSL's names.
        #[serde(default)]
        pub cipher_suites: Vec<String>,
    }
}

names! {
    /// Form of the access log.
    pub enum AccessLogEncoding {
        /// Lines.
        Text = "TEXT",
        /// JSON objects.
        Json = "JSON",
    }

    /// What becomes of calls to unknown hosts.
    pub enum MeshOutboundMode {
        /// Refused.
        RegistryOnly = "REGISTRY_ONLY",
        /// Passed on.
        AllowAny = "ALLOW_ANY",
        /// Passed on, names looked up by the proxy.
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS",
    }

    /// Where incoming calls are sent within the pod.
    pub enum InboundMode {
        /// The address that was called.
        Passthrough = "PASSTHROUGH",
        /// 127.0.0.1.
        Localhost = "LOCALHOST",
    }

    /// How paths are made comparable.
    pub enum NormalizationType {
        /// As the implementation has it, `BASE`.
        Default = "DEFAULT",
        /// Not at all.
        None = "NONE",
        /// RFC 3986.
        Base = "BASE",
        /// And several slashes become one.
        MergeSlashes = "MERGE_SLASHES",
        /// And encoded slashes are decoded.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> ObjectRef {
        ObjectRef::new("ConfigMap", "istio-system", "istio")
    }

    #[test]
    fn settings_are_read_and_unknown_ones_listed() {
        let value = json!({
            "accessLogFile": "/dev/stdout", "outboundTrafficPolicy": { "mode": "REGISTRY_ONLY" }, "trustDomain": null,
            "defaultConfig": { "discoveryAddress": "istiod:15012", "tracing": { "zipkin": { "adress": "z" } }, "drainDuration": "45s" },
            "extensionProviders": [{ "name": "otel", "opentelemetry": { "service": "otel", "port": 4317 } }],
            "enableThings": true,
        });
        let (config, unknown) = MeshConfig::from_json(value, &object()).unwrap();
        assert_eq!(unknown, ["defaultConfig.tracing.zipkin.adress", "enableThings"]);
        assert_eq!(config.outbound_traffic_policy.unwrap().mode, Some(MeshOutboundMode::RegistryOnly));
        assert_eq!(config.default_config.unwrap().drain_duration, Some(Duration::from_secs(45)));
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let error = MeshConfig::from_json(json!({ "connectTimeout": 10 }), &object()).unwrap_err();
        assert!(error.to_string().starts_with("ConfigMap/istio.istio-system: connectTimeout: "), "{error}");
    }
}

//! Reads MeshConfig: the settings of the whole mesh, from key `mesh` of the ConfigMap.
//!
//! Fields that only the injector or telemetry reads are passed over; all others that have no effect are named.
//! Never here: settings of one process. Called by `model::parse`.

use std::time::Duration;

use super::{
    base::{Judge, Meta},
    destination_rule::keepalive,
    http_action::read_retries,
    rule::RetryRule,
    text,
};
use crate::object::{ObjectError, core, mesh_config as raw, networking};
use api::{
    note::Notes,
    spec::{AccessLog, Keepalive, PathNormalization, TlsVersion},
};

/// What happens to requests for hosts that the mesh does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    /// They go where the client wanted.
    #[default]
    AllowAny,
    /// They are answered 502, or closed.
    RegistryOnly,
}

/// Where inbound connections go in the workload's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum InboundPolicy {
    /// To the workload's address, as the client wanted.
    #[default]
    Passthrough,
    /// To 127.0.0.1.
    Localhost,
}

/// Settings of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshConfig {
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Further trust domains whose peers are taken.
    pub trust_domain_aliases: Vec<String>,
    /// Namespace whose policies hold everywhere; none: as the control plane was told.
    pub root_namespace: Option<String>,
    /// Limit for a connection to be made.
    pub connect_timeout: Duration,
    /// How often names are asked again.
    pub dns_refresh: Duration,
    /// How long to wait for the first bytes of a connection; zero: without limit.
    pub detection_timeout: Duration,
    /// TCP keep-alive of upstream connections.
    pub keepalive: Option<Keepalive>,
    /// Where finished requests are written.
    pub access_log: Option<AccessLog>,
    /// What happens to unknown hosts.
    pub outbound: OutboundPolicy,
    /// Where inbound connections go.
    pub inbound: InboundPolicy,
    /// Whether clients use mTLS wherever the server takes it.
    pub auto_mtls: bool,
    /// Whether workloads refuse plaintext where no PeerAuthentication says otherwise (`authPolicy: MUTUAL_TLS`).
    pub strict: bool,
    /// Who sees services that do not say.
    pub service_export: Vec<String>,
    /// Who sees VirtualServices that do not say.
    pub virtual_service_export: Vec<String>,
    /// Who sees DestinationRules that do not say.
    pub destination_rule_export: Vec<String>,
    /// Whether HTTP/1 requests ride HTTP/2 upstream.
    pub h2_upgrade: bool,
    /// Retries where a route does not say.
    pub default_retry: Option<RetryRule>,
    /// What is done to paths before anything looks at them.
    pub normalization: PathNormalization,
    /// Smallest TLS version between workloads.
    pub mtls_min_version: TlsVersion,
    /// Port where captured outbound connections arrive.
    pub outbound_port: u16,
    /// Port where captured inbound connections arrive.
    pub inbound_port: u16,
}

/// How long the first bytes of a connection are waited for where nobody says. Istio waits for ever, and a client of a
/// server that speaks first then waits too; after this long the connection is taken for plain bytes.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: None,
            connect_timeout: Duration::from_secs(10),
            dns_refresh: Duration::from_secs(60),
            detection_timeout: DETECTION_TIMEOUT,
            keepalive: None,
            access_log: None,
            outbound: OutboundPolicy::AllowAny,
            inbound: InboundPolicy::Passthrough,
            auto_mtls: true,
            strict: false,
            service_export: vec!["*".to_owned()],
            virtual_service_export: vec!["*".to_owned()],
            destination_rule_export: vec!["*".to_owned()],
            h2_upgrade: false,
            default_retry: None,
            normalization: PathNormalization::Base,
            mtls_min_version: TlsVersion::V1_2,
            outbound_port: 15001,
            inbound_port: 15006,
        }
    }
}

impl Default for super::Shared<MeshConfig> {
    fn default() -> Self {
        Self::new(MeshConfig::default())
    }
}

pub(crate) fn parse(object: &core::ConfigMap, notes: &mut Notes) -> Option<MeshConfig> {
    let meta = Meta::of("ConfigMap", &object.metadata);
    let mut judge = Judge::new(meta.object, notes);
    let text = object.data.get("mesh").map(String::as_str).unwrap_or_default();
    if text.trim().is_empty() {
        return Some(MeshConfig::default());
    }
    let mut value = judge.read("data.mesh", serde_saphyr::from_str::<serde_json::Value>(text))?;
    if value.is_null() {
        return Some(MeshConfig::default());
    }
    // of Istio's first years, and not in today's MeshConfig
    let strict = match value.as_object_mut().and_then(|fields| fields.remove("authPolicy")) {
        None => false,
        Some(policy) => match policy.as_str() {
            Some("NONE") => false,
            Some("MUTUAL_TLS") => true,
            _ => {
                judge.error("data.mesh.authPolicy", "must be NONE or MUTUAL_TLS");
                return None;
            }
        },
    };
    let (raw, unknown) = match raw::MeshConfig::from_json(value, &judge.object) {
        Ok(read) => read,
        Err(ObjectError::Field { object: _, path, source }) => {
            judge.error(format!("data.mesh.{path}"), source.to_string());
            return None;
        }
        Err(error) => {
            judge.error("data.mesh", error.to_string());
            return None;
        }
    };
    for path in unknown {
        judge.warn(format!("data.mesh.{path}"), "unknown field: it has no effect");
    }
    let model = MeshConfig { strict, ..read(&mut judge, raw) };
    (judge.errors() == 0).then_some(model)
}

/// Long and flat: each field has one line where it is taken apart, and a few where it is read.
fn read(judge: &mut Judge<'_>, raw: raw::MeshConfig) -> MeshConfig {
    without_effect(judge, &raw);
    let default = MeshConfig::default();
    let raw::MeshConfig {
        trust_domain,
        trust_domain_aliases,
        root_namespace,
        connect_timeout,
        dns_refresh_rate,
        protocol_detection_timeout,
        tcp_keepalive,
        access_log_file,
        access_log_format,
        access_log_encoding,
        outbound_traffic_policy,
        inbound_traffic_policy,
        enable_auto_mtls,
        default_service_export_to,
        default_virtual_service_export_to,
        default_destination_rule_export_to,
        h2_upgrade_policy,
        default_http_retry_policy,
        path_normalization,
        mesh_mtls,
        proxy_listen_port,
        proxy_inbound_listen_port,
        // named by `without_effect`
        proxy_http_port: _,
        hbone_idle_timeout: _,
        ca_certificates: _,
        service_entry_visibility: _,
        locality_lb_setting: _,
        zone_aware_lb_setting: _,
        default_inbound_http_retry_policy: _,
        default_traffic_policy: _,
        inbound_cluster_stat_name: _,
        outbound_cluster_stat_name: _,
        service_settings: _,
        service_scope_configs: _,
        tls_defaults: _,
        discovery_selectors: _,
        thrift_config: _,
        // read by the injector, citadel, telemetry and Ingress
        default_config: _,
        enable_prometheus_merge: _,
        default_providers: _,
        extension_providers: _,
        enable_tracing: _,
        enable_envoy_access_log_service: _,
        disable_envoy_listener_log: _,
        ca: _,
        certificates: _,
        config_sources: _,
        ingress_class: _,
        ingress_service: _,
        ingress_controller_mode: _,
        ingress_selector: _,
        verify_certificate_at_client: _,
    } = raw;
    let or_default = |said: Vec<String>, default| if said.is_empty() { default } else { said };
    MeshConfig {
        trust_domain: trust_domain.filter(|domain| !domain.is_empty()).unwrap_or(default.trust_domain),
        trust_domain_aliases,
        root_namespace: root_namespace.filter(|name| !name.is_empty()),
        connect_timeout: connect_timeout
            .and_then(|raw| text::positive_duration(judge, "data.mesh.connectTimeout", raw))
            .unwrap_or(default.connect_timeout),
        dns_refresh: dns_refresh_rate
            .and_then(|raw| text::positive_duration(judge, "data.mesh.dnsRefreshRate", raw))
            .unwrap_or(default.dns_refresh),
        detection_timeout: protocol_detection_timeout
            .and_then(|raw| text::duration(judge, "data.mesh.protocolDetectionTimeout", raw))
            .unwrap_or(default.detection_timeout),
        keepalive: tcp_keepalive.map(|raw| keepalive(judge, "data.mesh.tcpKeepalive", &raw)),
        access_log: access_log_file.filter(|path| !path.is_empty()).map(|path| AccessLog {
            path,
            format: access_log_format.filter(|format| !format.is_empty()),
            json: access_log_encoding == Some(raw::AccessLogEncoding::Json),
        }),
        outbound: outbound_traffic_policy.map_or(default.outbound, |raw| outbound(judge, raw)),
        inbound: inbound_traffic_policy.map_or(default.inbound, |raw| inbound(&raw)),
        auto_mtls: enable_auto_mtls.unwrap_or(true),
        strict: default.strict,
        service_export: or_default(default_service_export_to, default.service_export),
        virtual_service_export: or_default(default_virtual_service_export_to, default.virtual_service_export),
        destination_rule_export: or_default(default_destination_rule_export_to, default.destination_rule_export),
        h2_upgrade: h2_upgrade_policy == Some(networking::H2UpgradePolicy::Upgrade),
        default_retry: default_http_retry_policy
            .and_then(|raw| read_retries(judge, "data.mesh.defaultHttpRetryPolicy", &raw)),
        normalization: path_normalization.and_then(|raw| normalization(&raw)).unwrap_or(default.normalization),
        mtls_min_version: mesh_mtls.and_then(|raw| mesh_tls(judge, raw)).unwrap_or(default.mtls_min_version),
        outbound_port: port(judge, "proxyListenPort", proxy_listen_port).unwrap_or(default.outbound_port),
        inbound_port: port(judge, "proxyInboundListenPort", proxy_inbound_listen_port).unwrap_or(default.inbound_port),
    }
}

/// Names the fields that have no effect, and refuses those that would protect something.
fn without_effect(judge: &mut Judge<'_>, raw: &raw::MeshConfig) {
    for (present, field) in [
        (raw.proxy_http_port.is_some_and(|port| port != 0), "proxyHttpPort"),
        (raw.hbone_idle_timeout.is_some(), "hboneIdleTimeout"),
        (raw.service_entry_visibility.is_some(), "serviceEntryVisibility"),
        (raw.locality_lb_setting.is_some(), "localityLbSetting"),
        (raw.zone_aware_lb_setting.is_some(), "zoneAwareLbSetting"),
        (raw.default_inbound_http_retry_policy.is_some(), "defaultInboundHttpRetryPolicy"),
        (raw.default_traffic_policy.is_some(), "defaultTrafficPolicy"),
        (raw.inbound_cluster_stat_name.is_some(), "inboundClusterStatName"),
        (raw.outbound_cluster_stat_name.is_some(), "outboundClusterStatName"),
        (!raw.service_settings.is_empty(), "serviceSettings"),
        (!raw.service_scope_configs.is_empty(), "serviceScopeConfigs"),
        (!raw.discovery_selectors.is_empty(), "discoverySelectors"),
        (raw.thrift_config.is_some(), "thriftConfig"),
    ] {
        judge.not_honoured(present, format!("data.mesh.{field}"));
    }
    judge.not_enforced(!raw.ca_certificates.is_empty(), "data.mesh.caCertificates");
    judge.not_enforced(raw.tls_defaults.is_some(), "data.mesh.tlsDefaults");
}

fn port(judge: &mut Judge<'_>, field: &str, raw: Option<u32>) -> Option<u16> {
    text::port(judge, &format!("data.mesh.{field}"), i64::from(raw?))
}

/// Where inbound connections go in the workload's network.
fn inbound(raw: &raw::InboundTrafficPolicy) -> InboundPolicy {
    let raw::InboundTrafficPolicy { mode } = raw;
    match mode {
        None | Some(raw::InboundMode::Passthrough) => InboundPolicy::Passthrough,
        Some(raw::InboundMode::Localhost) => InboundPolicy::Localhost,
    }
}

/// What is done to paths; none: as it is by default.
fn normalization(raw: &raw::PathNormalization) -> Option<PathNormalization> {
    let raw::PathNormalization { normalization } = raw;
    Some(match (*normalization)? {
        raw::NormalizationType::Default | raw::NormalizationType::Base => PathNormalization::Base,
        raw::NormalizationType::None => PathNormalization::None,
        raw::NormalizationType::MergeSlashes => PathNormalization::MergeSlashes,
        raw::NormalizationType::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    })
}

/// Where connections go whose destination no service has.
fn outbound(judge: &mut Judge<'_>, raw: raw::MeshOutboundTrafficPolicy) -> OutboundPolicy {
    let raw::MeshOutboundTrafficPolicy { mode, tls } = raw;
    judge.not_enforced(tls.is_some(), "data.mesh.outboundTrafficPolicy.tls");
    match mode {
        None | Some(raw::MeshOutboundMode::AllowAny) => OutboundPolicy::AllowAny,
        Some(raw::MeshOutboundMode::RegistryOnly) => OutboundPolicy::RegistryOnly,
        Some(raw::MeshOutboundMode::AllowAnyDynamicDns) => {
            judge.not_honoured(true, "data.mesh.outboundTrafficPolicy.mode");
            OutboundPolicy::AllowAny
        }
    }
}

/// The smallest version of the mesh's mTLS; none: as it is by default.
fn mesh_tls(judge: &mut Judge<'_>, raw: raw::TlsLimits) -> Option<TlsVersion> {
    let raw::TlsLimits { min_protocol_version, ecdh_curves, cipher_suites } = raw;
    judge.not_enforced(!cipher_suites.is_empty(), "data.mesh.meshMTLS.cipherSuites");
    judge.not_enforced(!ecdh_curves.is_empty(), "data.mesh.meshMTLS.ecdhCurves");
    match min_protocol_version.as_deref() {
        None | Some("TLS_AUTO") => None,
        Some("TLSV1_2") => Some(TlsVersion::V1_2),
        Some("TLSV1_3") => Some(TlsVersion::V1_3),
        Some(other) => {
            let text = format!("{other:?} must be TLS_AUTO, TLSV1_2 or TLSV1_3");
            judge.error("data.mesh.meshMTLS.minProtocolVersion", text);
            None
        }
    }
}

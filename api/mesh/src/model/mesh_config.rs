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

fn read(judge: &mut Judge<'_>, raw: raw::MeshConfig) -> MeshConfig {
    let mut model = MeshConfig::default();
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
        // not honoured yet
        proxy_http_port,
        hbone_idle_timeout,
        ca_certificates,
        service_entry_visibility,
        locality_lb_setting,
        zone_aware_lb_setting,
        default_inbound_http_retry_policy,
        default_traffic_policy,
        inbound_cluster_stat_name,
        outbound_cluster_stat_name,
        service_settings,
        service_scope_configs,
        tls_defaults,
        discovery_selectors,
        thrift_config,
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
    for (present, field) in [
        (proxy_http_port.is_some_and(|port| port != 0), "proxyHttpPort"),
        (hbone_idle_timeout.is_some(), "hboneIdleTimeout"),
        (service_entry_visibility.is_some(), "serviceEntryVisibility"),
        (locality_lb_setting.is_some(), "localityLbSetting"),
        (zone_aware_lb_setting.is_some(), "zoneAwareLbSetting"),
        (default_inbound_http_retry_policy.is_some(), "defaultInboundHttpRetryPolicy"),
        (default_traffic_policy.is_some(), "defaultTrafficPolicy"),
        (inbound_cluster_stat_name.is_some(), "inboundClusterStatName"),
        (outbound_cluster_stat_name.is_some(), "outboundClusterStatName"),
        (!service_settings.is_empty(), "serviceSettings"),
        (!service_scope_configs.is_empty(), "serviceScopeConfigs"),
        (!discovery_selectors.is_empty(), "discoverySelectors"),
        (thrift_config.is_some(), "thriftConfig"),
    ] {
        judge.not_honoured(present, format!("data.mesh.{field}"));
    }
    judge.not_enforced(!ca_certificates.is_empty(), "data.mesh.caCertificates");
    judge.not_enforced(tls_defaults.is_some(), "data.mesh.tlsDefaults");
    if let Some(domain) = trust_domain.filter(|domain| !domain.is_empty()) {
        model.trust_domain = domain;
    }
    model.trust_domain_aliases = trust_domain_aliases;
    model.root_namespace = root_namespace.filter(|name| !name.is_empty());
    if let Some(span) = connect_timeout.and_then(|d| text::positive_duration(judge, "data.mesh.connectTimeout", d)) {
        model.connect_timeout = span;
    }
    if let Some(span) = dns_refresh_rate.and_then(|d| text::positive_duration(judge, "data.mesh.dnsRefreshRate", d)) {
        model.dns_refresh = span;
    }
    let path = "data.mesh.protocolDetectionTimeout";
    if let Some(span) = protocol_detection_timeout.and_then(|d| text::duration(judge, path, d)) {
        model.detection_timeout = span;
    }
    model.keepalive = tcp_keepalive.map(|raw| keepalive(judge, "data.mesh.tcpKeepalive", &raw));
    model.access_log = access_log_file.filter(|path| !path.is_empty()).map(|path| AccessLog {
        path,
        format: access_log_format.filter(|format| !format.is_empty()),
        json: access_log_encoding == Some(raw::AccessLogEncoding::Json),
    });
    if let Some(policy) = outbound_traffic_policy {
        model.outbound = outbound(judge, policy);
    }
    if let Some(raw::InboundTrafficPolicy { mode }) = inbound_traffic_policy {
        model.inbound = match mode {
            None | Some(raw::InboundMode::Passthrough) => InboundPolicy::Passthrough,
            Some(raw::InboundMode::Localhost) => InboundPolicy::Localhost,
        };
    }
    model.auto_mtls = enable_auto_mtls.unwrap_or(true);
    for (said, default) in [
        (default_service_export_to, &mut model.service_export),
        (default_virtual_service_export_to, &mut model.virtual_service_export),
        (default_destination_rule_export_to, &mut model.destination_rule_export),
    ] {
        if !said.is_empty() {
            *default = said;
        }
    }
    model.h2_upgrade = h2_upgrade_policy == Some(networking::H2UpgradePolicy::Upgrade);
    model.default_retry =
        default_http_retry_policy.and_then(|raw| read_retries(judge, "data.mesh.defaultHttpRetryPolicy", &raw));
    if let Some(raw::PathNormalization { normalization: Some(kind) }) = path_normalization {
        model.normalization = match kind {
            raw::NormalizationType::Default | raw::NormalizationType::Base => PathNormalization::Base,
            raw::NormalizationType::None => PathNormalization::None,
            raw::NormalizationType::MergeSlashes => PathNormalization::MergeSlashes,
            raw::NormalizationType::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        };
    }
    if let Some(limits) = mesh_mtls {
        model.mtls_min_version = mesh_tls(judge, limits).unwrap_or(model.mtls_min_version);
    }
    for (said, field, port) in [
        (proxy_listen_port, "proxyListenPort", &mut model.outbound_port),
        (proxy_inbound_listen_port, "proxyInboundListenPort", &mut model.inbound_port),
    ] {
        let said = said.and_then(|raw| text::port(judge, &format!("data.mesh.{field}"), i64::from(raw)));
        if let Some(number) = said {
            *port = number;
        }
    }
    model
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

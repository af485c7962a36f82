//! Reads MeshConfig: the settings of the whole mesh, from key `mesh` of the ConfigMap.
//!
//! Fields that only the injector or telemetry reads are passed over; all others that have no effect are named.
//! Never here: settings of one process. Called by `model::parse`.

use std::{collections::BTreeMap, time::Duration};

use api::{
    note::Notes,
    spec::{AccessLog, Keepalive, PathNormalization, TlsVersion},
};
use serde::Deserialize;

use super::{
    base::{Judge, Meta},
    destination_rule::keepalive,
    http_rule::read_retries,
    rule::RetryRule,
    text,
};
use crate::object::{self, core, networking as raw};

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

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: None,
            connect_timeout: Duration::from_secs(10),
            dns_refresh: Duration::from_secs(60),
            detection_timeout: Duration::ZERO,
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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    trust_domain: Option<String>,
    trust_domain_aliases: Vec<String>,
    root_namespace: Option<String>,
    connect_timeout: Option<object::Duration>,
    dns_refresh_rate: Option<object::Duration>,
    protocol_detection_timeout: Option<object::Duration>,
    tcp_keepalive: Option<raw::TcpKeepalive>,
    access_log_file: Option<String>,
    access_log_format: Option<String>,
    access_log_encoding: Option<String>,
    outbound_traffic_policy: Option<Mode>,
    inbound_traffic_policy: Option<Mode>,
    enable_auto_mtls: Option<bool>,
    auth_policy: Option<String>,
    default_service_export_to: Vec<String>,
    default_virtual_service_export_to: Vec<String>,
    default_destination_rule_export_to: Vec<String>,
    h2_upgrade_policy: Option<String>,
    default_http_retry_policy: Option<raw::HttpRetry>,
    path_normalization: Option<Normalization>,
    #[serde(rename = "meshMTLS")]
    mesh_mtls: Option<MeshMtls>,
    proxy_listen_port: Option<i64>,
    proxy_inbound_listen_port: Option<i64>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mode {
    mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Normalization {
    normalization: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshMtls {
    min_protocol_version: Option<String>,
    cipher_suites: Vec<String>,
    ecdh_curves: Vec<String>,
}

/// Fields that others read: the injector, citadel, telemetry, Ingress.
const OF_OTHERS: &[&str] = &[
    "defaultConfig",
    "enablePrometheusMerge",
    "defaultProviders",
    "extensionProviders",
    "enableTracing",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "ca",
    "certificates",
    "configSources",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "verifyCertificateAtClient",
    "discoverySelectors",
];

pub(crate) fn parse(object: &core::ConfigMap, notes: &mut Notes) -> Option<MeshConfig> {
    let meta = Meta::of("ConfigMap", &object.metadata);
    let mut judge = Judge::new(meta.object, notes);
    let text = object.data.get("mesh").map(String::as_str).unwrap_or_default();
    if text.trim().is_empty() {
        return Some(MeshConfig::default());
    }
    let value = judge.read("data.mesh", serde_saphyr::from_str::<serde_json::Value>(text))?;
    if value.is_null() {
        return Some(MeshConfig::default());
    }
    let raw: Raw = match serde_path_to_error::deserialize(&value) {
        Ok(raw) => raw,
        Err(error) => {
            judge.error(format!("data.mesh.{}", error.path()), error.inner().to_string());
            return None;
        }
    };
    let model = read(&mut judge, raw);
    (judge.errors() == 0).then_some(model)
}

fn read(judge: &mut Judge<'_>, raw: Raw) -> MeshConfig {
    let mut model = MeshConfig::default();
    let Raw {
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
        auth_policy,
        default_service_export_to,
        default_virtual_service_export_to,
        default_destination_rule_export_to,
        h2_upgrade_policy,
        default_http_retry_policy,
        path_normalization,
        mesh_mtls,
        proxy_listen_port,
        proxy_inbound_listen_port,
        rest,
    } = raw;
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
    if let Some(d) = protocol_detection_timeout {
        model.detection_timeout = text::duration(judge, "data.mesh.protocolDetectionTimeout", d).unwrap_or_default();
    }
    model.keepalive = tcp_keepalive.map(|raw| keepalive(judge, "data.mesh.tcpKeepalive", &raw));
    model.access_log = access_log_file.filter(|path| !path.is_empty()).map(|path| AccessLog {
        path,
        format: access_log_format.filter(|format| !format.is_empty()),
        json: access_log_encoding.as_deref() == Some("JSON"),
    });
    let one_of = |judge: &mut Judge<'_>, field: &str, text: &str, known: &[&str]| {
        if !known.contains(&text) {
            judge.error(format!("data.mesh.{field}"), format!("{text:?} must be one of {}", known.join(", ")));
        }
    };
    if let Some(mode) = outbound_traffic_policy.and_then(|policy| policy.mode) {
        one_of(judge, "outboundTrafficPolicy.mode", &mode, &["ALLOW_ANY", "REGISTRY_ONLY", "ALLOW_ANY_DYNAMIC_DNS"]);
        judge.not_honoured(mode == "ALLOW_ANY_DYNAMIC_DNS", "data.mesh.outboundTrafficPolicy.mode");
        if mode == "REGISTRY_ONLY" {
            model.outbound = OutboundPolicy::RegistryOnly;
        }
    }
    if let Some(mode) = inbound_traffic_policy.and_then(|policy| policy.mode) {
        one_of(judge, "inboundTrafficPolicy.mode", &mode, &["PASSTHROUGH", "LOCALHOST"]);
        if mode == "LOCALHOST" {
            model.inbound = InboundPolicy::Localhost;
        }
    }
    model.auto_mtls = enable_auto_mtls.unwrap_or(true);
    if let Some(policy) = auth_policy {
        one_of(judge, "authPolicy", &policy, &["NONE", "MUTUAL_TLS"]);
        model.strict = policy == "MUTUAL_TLS";
    }
    if !default_service_export_to.is_empty() {
        model.service_export = default_service_export_to;
    }
    if !default_virtual_service_export_to.is_empty() {
        model.virtual_service_export = default_virtual_service_export_to;
    }
    if !default_destination_rule_export_to.is_empty() {
        model.destination_rule_export = default_destination_rule_export_to;
    }
    if let Some(policy) = h2_upgrade_policy {
        one_of(judge, "h2UpgradePolicy", &policy, &["DO_NOT_UPGRADE", "UPGRADE"]);
        model.h2_upgrade = policy == "UPGRADE";
    }
    model.default_retry =
        default_http_retry_policy.and_then(|raw| read_retries(judge, "data.mesh.defaultHttpRetryPolicy", &raw));
    if let Some(name) = path_normalization.and_then(|raw| raw.normalization) {
        let field = "pathNormalization.normalization";
        one_of(judge, field, &name, &["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]);
        model.normalization = match name.as_str() {
            "NONE" => PathNormalization::None,
            "MERGE_SLASHES" => PathNormalization::MergeSlashes,
            "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
            _ => PathNormalization::Base,
        };
    }
    if let Some(MeshMtls { min_protocol_version, cipher_suites, ecdh_curves }) = mesh_mtls {
        judge.not_enforced(!cipher_suites.is_empty(), "data.mesh.meshMTLS.cipherSuites");
        judge.not_enforced(!ecdh_curves.is_empty(), "data.mesh.meshMTLS.ecdhCurves");
        if let Some(version) = min_protocol_version {
            one_of(judge, "meshMTLS.minProtocolVersion", &version, &["TLS_AUTO", "TLSV1_2", "TLSV1_3"]);
            if version == "TLSV1_3" {
                model.mtls_min_version = TlsVersion::V1_3;
            }
        }
    }
    if let Some(port) = proxy_listen_port.and_then(|raw| text::port(judge, "data.mesh.proxyListenPort", raw)) {
        model.outbound_port = port;
    }
    if let Some(port) =
        proxy_inbound_listen_port.and_then(|raw| text::port(judge, "data.mesh.proxyInboundListenPort", raw))
    {
        model.inbound_port = port;
    }
    for field in rest.keys().filter(|field| !OF_OTHERS.contains(&field.as_str())) {
        judge.not_honoured(true, format!("data.mesh.{field}"));
    }
    model
}

//! Small shapes that every message is made of: durations, matchers, metadata, config sources.
//!
//! Never here: anything about one kind of resource. Used by the other files of `encode`.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use api::{name::Percent, spec::Origin, spec::TextMatch};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, CidrRange, ConfigSource, DataSource,
            GrpcService, Metadata, Pipe, RuntimeFractionalPercent, SocketAddress, address,
            api_config_source::ApiType,
            config_source::ConfigSourceSpecifier,
            data_source::Specifier,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            socket_address::PortSpecifier,
        },
        r#type::{
            matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
            v3::{FractionalPercent, fractional_percent::DenominatorType},
        },
    },
    google::protobuf,
};
use ipnet::IpNet;

/// The cluster under which a real Envoy reaches its agent's certificates.
pub(super) const AGENT_SECRETS: &str = "sds-grpc";

pub(super) fn any<M: prost::Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn duration(value: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

#[expect(clippy::unnecessary_wraps, reason = "every use is an optional field")]
pub(super) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn text(value: impl Into<String>) -> protobuf::Value {
    protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(value.into())) }
}

pub(super) fn object(fields: impl IntoIterator<Item = (&'static str, protobuf::Value)>) -> protobuf::Struct {
    protobuf::Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

pub(super) fn metadata(parts: impl IntoIterator<Item = (&'static str, protobuf::Struct)>) -> Option<Metadata> {
    let filter_metadata: std::collections::HashMap<String, protobuf::Struct> = parts
        .into_iter()
        .filter(|(_, part)| !part.fields.is_empty())
        .map(|(name, part)| (name.to_owned(), part))
        .collect();
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}

/// Istio's group for a kind; none for Kubernetes' own.
fn group(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        "Telemetry" => "telemetry.istio.io/v1",
        "WasmPlugin" => "extensions.istio.io/v1alpha1",
        "DestinationRule" | "EnvoyFilter" | "Gateway" | "ProxyConfig" | "ServiceEntry" | "Sidecar"
        | "VirtualService" | "WorkloadEntry" | "WorkloadGroup" => "networking.istio.io/v1",
        _ => return None,
    })
}

/// The object something was made from, as Istio names it in metadata, and the path of the field within.
pub(super) fn origin(origin: Option<&Origin>) -> Vec<(&'static str, protobuf::Value)> {
    let Some(Origin { object, path }) = origin else { return Vec::new() };
    let mut kind = String::with_capacity(object.kind.len() + 4);
    for c in object.kind.chars() {
        if c.is_ascii_uppercase() && !kind.is_empty() {
            kind.push('-');
        }
        kind.push(c.to_ascii_lowercase());
    }
    let group = group(&object.kind).map_or_else(|| "/api/v1".to_owned(), |group| format!("/apis/{group}"));
    let namespace =
        if object.namespace.is_empty() { String::new() } else { format!("/namespaces/{}", object.namespace) };
    let mut fields = vec![("config", text(format!("{group}{namespace}/{kind}/{}", object.name)))];
    if !path.is_empty() {
        fields.push(("path", text(path)));
    }
    fields
}

pub(super) fn socket(address: SocketAddr) -> Address {
    named_socket(address.ip().to_string(), address.port())
}

pub(super) fn named_socket(address: String, port: u16) -> Address {
    Address { address: Some(address::Address::SocketAddress(socket_address(address, port))) }
}

pub(super) fn socket_address(address: String, port: u16) -> SocketAddress {
    SocketAddress { address, port_specifier: Some(PortSpecifier::PortValue(port.into())), ..SocketAddress::default() }
}

pub(super) fn pipe(path: String) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path, mode: 0 })) }
}

pub(super) fn source_address(address: IpAddr) -> SocketAddress {
    socket_address(address.to_string(), 0)
}

pub(super) fn range(net: IpNet) -> CidrRange {
    CidrRange { address_prefix: net.addr().to_string(), prefix_len: number(net.prefix_len().into()) }
}

pub(super) fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

pub(super) fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineString(text)), ..DataSource::default() }
}

pub(super) fn inline_bytes(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

/// Over the stream that this resource comes on; waited for without limit.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(protobuf::Duration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// From the agent beside the proxy.
pub(super) fn agent() -> ConfigSource {
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: AGENT_SECRETS.to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    ConfigSource {
        initial_fetch_timeout: Some(protobuf::Duration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: ApiType::Grpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            grpc_services: vec![service],
            set_node_on_first_message_only: true,
            ..ApiConfigSource::default()
        })),
        ..ConfigSource::default()
    }
}

pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

pub(super) fn matcher(pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
    StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

/// A text match; none for mere presence.
pub(super) fn text_match(text: &TextMatch) -> Option<StringMatcher> {
    let pattern = match text {
        TextMatch::Present => return None,
        TextMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        TextMatch::Suffix(text) => MatchPattern::Suffix(text.clone()),
        TextMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
    };
    Some(matcher(pattern, false))
}

pub(super) fn share(percent: Percent) -> FractionalPercent {
    FractionalPercent { numerator: percent.millionths(), denominator: DenominatorType::Million.into() }
}

pub(super) fn runtime_share(percent: Percent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(share(percent)), ..RuntimeFractionalPercent::default() }
}

//! Clusters and endpoints.
//!
//! Never here: which endpoints exist. Called by `encode`.

use api::spec::{
    Address, Balance, Breakers, Cluster, Discovery, Endpoint, Health, Locality, Outlier, ProxyVersion, ServiceRef,
    UpstreamHttp, UpstreamTls, UpstreamVersion, Workload,
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb, CircuitBreakers, OutlierDetection, UpstreamConnectionOptions,
                circuit_breakers::Thresholds,
                cluster::{
                    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
                    TransportSocketMatch, common_lb_config,
                },
            },
            core::v3::{self as core, proxy_protocol_config::Version},
            endpoint::v3::{
                self as endpoint, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
        },
        extensions::{
            transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            upstreams::http::v3::{HttpProtocolOptions, http_protocol_options as options},
        },
        r#type::v3::Percent,
    },
    google::protobuf,
};

use super::{EncodeError, Out, tls, wire};
use crate::{Dialect, names};

pub(super) fn cluster(out: Out<'_>, cluster: &Cluster) -> Result<pb::Cluster, EncodeError> {
    let Cluster {
        name,
        discovery,
        balance,
        connect_timeout,
        breakers,
        outlier,
        tls: _,
        http,
        bind_source,
        keepalive,
        proxy_header,
        service,
        origin,
    } = cluster;
    if connect_timeout.is_zero() {
        return out.bad("connect_timeout", "zero");
    }
    let mut wire_cluster = pb::Cluster {
        name: name.clone(),
        connect_timeout: Some(wire::duration(*connect_timeout)),
        lb_policy: lb_policy(out, discovery, *balance)?.into(),
        circuit_breakers: Some(circuit_breakers(*breakers)),
        outlier_detection: outlier.as_ref().map(outlier_detection),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent {
                value: outlier.as_ref().map_or(0.0, |outlier| outlier.min_health_percent.into()),
            }),
            locality_config_specifier: (out.dialect != Dialect::Ours).then_some(
                common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                    common_lb_config::LocalityWeightedLbConfig {},
                ),
            ),
            ..CommonLbConfig::default()
        }),
        upstream_bind_config: bind_source.map(|address| core::BindConfig {
            source_address: Some(wire::source_address(address)),
            ..core::BindConfig::default()
        }),
        upstream_connection_options: keepalive.map(|keepalive| UpstreamConnectionOptions {
            tcp_keepalive: Some(core::TcpKeepalive {
                keepalive_probes: keepalive.probes.and_then(wire::number),
                keepalive_time: keepalive.time.and_then(|time| wire::number(seconds(time))),
                keepalive_interval: keepalive.interval.and_then(|time| wire::number(seconds(time))),
            }),
            ..UpstreamConnectionOptions::default()
        }),
        metadata: wire::metadata([("istio", about(service.as_ref(), wire::origin(origin.as_ref())))]),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        ..pb::Cluster::default()
    };
    discover(out, &mut wire_cluster, discovery)?;
    protect(out, &mut wire_cluster, cluster)?;
    if let Some(version) = proxy_header {
        announce(out, &mut wire_cluster, *version)?;
    }
    if out.dialect == Dialect::Grpc {
        // gRPC refuses or ignores what is not for it.
        wire_cluster.common_lb_config = None;
        wire_cluster.upstream_bind_config = None;
        wire_cluster.upstream_connection_options = None;
    } else {
        let any = wire::any(&http_options(cluster, *http));
        wire_cluster.typed_extension_protocol_options.insert(names::HTTP_OPTIONS.to_owned(), any);
    }
    Ok(wire_cluster)
}

fn seconds(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn lb_policy(out: Out<'_>, discovery: &Discovery, balance: Balance) -> Result<LbPolicy, EncodeError> {
    let original = *discovery == Discovery::OriginalDestination;
    match balance {
        _ if original => Ok(LbPolicy::ClusterProvided),
        _ if out.dialect == Dialect::Grpc => Ok(LbPolicy::RoundRobin),
        Balance::LeastRequest => Ok(LbPolicy::LeastRequest),
        Balance::RoundRobin => Ok(LbPolicy::RoundRobin),
        Balance::Random => Ok(LbPolicy::Random),
        Balance::OriginalDestination => {
            out.bad("balance", "the client's address needs discovery by original destination")
        }
    }
}

fn discover(out: Out<'_>, cluster: &mut pb::Cluster, discovery: &Discovery) -> Result<(), EncodeError> {
    let kind = match discovery {
        Discovery::Eds => {
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(wire::ads()), service_name: cluster.name.clone() });
            DiscoveryType::Eds
        }
        Discovery::Static(localities) => {
            cluster.load_assignment = Some(endpoints(out, &cluster.name, localities, false)?);
            DiscoveryType::Static
        }
        Discovery::StrictDns { localities, refresh } => {
            cluster.load_assignment = Some(endpoints(out, &cluster.name, localities, true)?);
            cluster.dns_refresh_rate = (!refresh.is_zero()).then(|| wire::duration(*refresh));
            cluster.respect_dns_ttl = true;
            DiscoveryType::StrictDns
        }
        Discovery::LogicalDns { localities, refresh } => {
            let hosts: usize = localities.iter().map(|place| place.endpoints.len()).sum();
            if localities.len() != 1 || hosts != 1 {
                return out
                    .bad("discovery.localities", format!("one host is resolved at a time, and there are {hosts}"));
            }
            cluster.load_assignment = Some(endpoints(out, &cluster.name, localities, true)?);
            cluster.dns_refresh_rate = (!refresh.is_zero()).then(|| wire::duration(*refresh));
            cluster.respect_dns_ttl = true;
            DiscoveryType::LogicalDns
        }
        Discovery::OriginalDestination => DiscoveryType::OriginalDst,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    Ok(())
}

fn protect(out: Out<'_>, wire_cluster: &mut pb::Cluster, cluster: &Cluster) -> Result<(), EncodeError> {
    match (&cluster.tls, out.dialect) {
        (UpstreamTls::Off, _) => {}
        // A gRPC client has no per-endpoint choice, and where all endpoints take mTLS it is told `On`.
        (UpstreamTls::Auto(_), Dialect::Grpc) => {}
        (UpstreamTls::Auto(tls), Dialect::Ours | Dialect::Envoy) => {
            wire_cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(wire::object([(names::TLS_MODE, wire::text("istio"))])),
                    transport_socket: Some(tls::client(out, "tls", tls)?),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(protobuf::Struct::default()),
                    transport_socket: Some(tls::raw()),
                },
            ];
        }
        (UpstreamTls::On(tls), _) => wire_cluster.transport_socket = Some(tls::client(out, "tls", tls)?),
    }
    Ok(())
}

/// Puts a header of the PROXY protocol before what each socket sends.
fn announce(out: Out<'_>, wire_cluster: &mut pb::Cluster, version: ProxyVersion) -> Result<(), EncodeError> {
    if out.dialect == Dialect::Grpc {
        return out.bad("proxy_header", "a gRPC client sends no header of the PROXY protocol");
    }
    let version = match version {
        ProxyVersion::V1 => Version::V1,
        ProxyVersion::V2 => Version::V2,
    };
    let wrap = |inner: Option<core::TransportSocket>| {
        let config = core::ProxyProtocolConfig { version: version.into(), ..core::ProxyProtocolConfig::default() };
        let outer = ProxyProtocolUpstreamTransport {
            config: Some(config),
            transport_socket: Some(inner.unwrap_or_else(tls::raw)),
            ..ProxyProtocolUpstreamTransport::default()
        };
        Some(tls::socket(names::SOCKET_PROXY_HEADER, &outer))
    };
    for one in &mut wire_cluster.transport_socket_matches {
        one.transport_socket = wrap(one.transport_socket.take());
    }
    if wire_cluster.transport_socket_matches.is_empty() {
        wire_cluster.transport_socket = wrap(wire_cluster.transport_socket.take());
    }
    Ok(())
}

fn http_options(cluster: &Cluster, http: UpstreamHttp) -> HttpProtocolOptions {
    let UpstreamHttp { version, max_requests_per_connection, idle_timeout, max_concurrent_streams } = http;
    let http1 = core::Http1ProtocolOptions::default;
    let http2 = || core::Http2ProtocolOptions {
        max_concurrent_streams: wire::number(max_concurrent_streams),
        ..core::Http2ProtocolOptions::default()
    };
    let explicit = |config| {
        options::UpstreamProtocolOptions::ExplicitHttpConfig(options::ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match version {
        UpstreamVersion::Http1 => explicit(options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(http1())),
        UpstreamVersion::Http2 => {
            explicit(options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2()))
        }
        UpstreamVersion::Downstream => {
            options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(options::UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                ..options::UseDownstreamHttpConfig::default()
            })
        }
    };
    let sni_from_request = match &cluster.tls {
        UpstreamTls::Auto(tls) | UpstreamTls::On(tls) => tls.sni.is_none(),
        UpstreamTls::Off => false,
    };
    HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: Some(wire::duration(idle_timeout)),
            max_requests_per_connection: (max_requests_per_connection > 0)
                .then_some(protobuf::UInt32Value { value: max_requests_per_connection }),
            ..core::HttpProtocolOptions::default()
        }),
        upstream_http_protocol_options: sni_from_request
            .then(|| core::UpstreamHttpProtocolOptions { auto_sni: true, ..Default::default() }),
        upstream_protocol_options: Some(protocol),
        ..HttpProtocolOptions::default()
    }
}

fn circuit_breakers(breakers: Breakers) -> CircuitBreakers {
    let Breakers { connections, pending, requests, retries } = breakers;
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: wire::number(connections),
            max_pending_requests: wire::number(pending),
            max_requests: wire::number(requests),
            max_retries: wire::number(retries),
            track_remaining: true,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

fn outlier_detection(outlier: &Outlier) -> OutlierDetection {
    let Outlier {
        consecutive_5xx,
        consecutive_gateway,
        consecutive_local,
        split_local,
        interval,
        base_ejection,
        max_ejection_percent,
        min_health_percent: _,
    } = outlier;
    let enforced = |count: u32| wire::number(if count > 0 { 100 } else { 0 });
    // A count of zero is not one that Envoy knows: what is not counted is not enforced.
    let counted = |count: u32| if count > 0 { wire::number(count) } else { None };
    OutlierDetection {
        consecutive_5xx: counted(*consecutive_5xx),
        enforcing_consecutive_5xx: enforced(*consecutive_5xx),
        consecutive_gateway_failure: counted(*consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforced(*consecutive_gateway),
        consecutive_local_origin_failure: counted(*consecutive_local),
        enforcing_consecutive_local_origin_failure: enforced(*consecutive_local),
        split_external_local_origin_errors: *split_local,
        interval: Some(wire::duration(*interval)),
        base_ejection_time: Some(wire::duration(*base_ejection)),
        max_ejection_percent: wire::number(*max_ejection_percent),
        enforcing_success_rate: wire::number(0),
        enforcing_local_origin_success_rate: wire::number(0),
        ..OutlierDetection::default()
    }
}

fn about(service: Option<&ServiceRef>, mut fields: Vec<(&'static str, protobuf::Value)>) -> protobuf::Struct {
    if let Some(ServiceRef { host, name, namespace }) = service {
        let one = wire::object([
            ("host", wire::text(host)),
            ("name", wire::text(name)),
            ("namespace", wire::text(namespace)),
        ]);
        let one = protobuf::Value { kind: Some(protobuf::value::Kind::StructValue(one)) };
        let list = protobuf::value::Kind::ListValue(protobuf::ListValue { values: vec![one] });
        fields.push(("services", protobuf::Value { kind: Some(list) }));
    }
    wire::object(fields)
}

/// The addresses of a cluster; names among them only where the reader resolves them.
pub(super) fn endpoints(
    out: Out<'_>,
    cluster: &str,
    localities: &[Locality],
    names: bool,
) -> Result<ClusterLoadAssignment, EncodeError> {
    let endpoints = localities
        .iter()
        .enumerate()
        .map(|(index, place)| locality(out, &format!("localities[{index}]"), place, names))
        .collect::<Result<_, _>>()?;
    Ok(ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints, ..ClusterLoadAssignment::default() })
}

fn locality(out: Out<'_>, path: &str, place: &Locality, names: bool) -> Result<LocalityLbEndpoints, EncodeError> {
    let Locality { region, zone, sub_zone, priority, weight, endpoints } = place;
    let lb_endpoints = endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| lb_endpoint(out, &format!("{path}.endpoints[{index}]"), endpoint, names))
        .collect::<Result<_, _>>()?;
    let sum = endpoints.iter().fold(0u32, |sum, endpoint| sum.saturating_add(endpoint.weight));
    let weight = match out.dialect {
        Dialect::Ours => *weight,
        // Readers that share by weight give nothing to a place without one.
        Dialect::Envoy | Dialect::Grpc => {
            if *weight == 0 {
                sum
            } else {
                *weight
            }
        }
    };
    let known = !(region.is_empty() && zone.is_empty() && sub_zone.is_empty());
    Ok(LocalityLbEndpoints {
        locality: (known || out.dialect == Dialect::Grpc).then(|| core::Locality {
            region: region.clone(),
            zone: zone.clone(),
            sub_zone: sub_zone.clone(),
        }),
        lb_endpoints,
        load_balancing_weight: if weight > 0 { wire::number(weight) } else { None },
        priority: *priority,
        ..LocalityLbEndpoints::default()
    })
}

fn lb_endpoint(out: Out<'_>, path: &str, endpoint: &Endpoint, names: bool) -> Result<LbEndpoint, EncodeError> {
    let Endpoint { address, weight, health, mtls, workload } = endpoint;
    let address = match address {
        Address::Socket(address) => wire::socket(*address),
        Address::Name(name, port) if names => wire::named_socket(name.clone(), *port),
        Address::Name(name, _) => {
            return out.bad(format!("{path}.address"), format!("{name} is a name, and nobody resolves it here"));
        }
        Address::Unix(path) => wire::pipe(path.clone()),
    };
    if *weight == 0 {
        return out.bad(format!("{path}.weight"), "zero");
    }
    let health = match health {
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
        Health::Draining => core::HealthStatus::Draining,
    };
    let socket = if *mtls { vec![(crate::names::TLS_MODE, wire::text("istio"))] } else { Vec::new() };
    let workload =
        workload.as_ref().map(|Workload { name, namespace, canonical_name, canonical_revision, cluster }| {
            (
                "workload",
                wire::text(
                    [name, namespace, canonical_name, canonical_revision, cluster].map(String::as_str).join(";"),
                ),
            )
        });
    Ok(LbEndpoint {
        health_status: health.into(),
        metadata: wire::metadata([
            (crate::names::SOCKET_MATCH, wire::object(socket)),
            ("istio", wire::object(workload)),
        ]),
        load_balancing_weight: wire::number(*weight),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..endpoint::Endpoint::default()
        })),
    })
}

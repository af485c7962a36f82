//! Clusters.
//!
//! Never here: endpoints (`endpoint`), TLS (`tls`). Called by `decode`.

use std::time::Duration;

use api::spec::{
    Balance, Breakers, ClientTls, Cluster, Discovery, Keepalive, Locality, Outlier, ProxyVersion, ServiceRef,
    UpstreamHttp, UpstreamTls, UpstreamVersion,
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb, OutlierDetection,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3::{Http2ProtocolOptions, Metadata, TransportSocket},
        },
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
        },
    },
    google::protobuf::value::Kind,
};

use super::{DecodeError, In, endpoint, read, tls};
use crate::names;

/// Envoy's limit for a connection to be made.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How often Envoy asks for names.
const DNS_REFRESH_DEFAULT: Duration = Duration::from_secs(5);
/// Envoy's limit of connections, of waiting and of running requests.
const BREAKER_DEFAULT: u32 = 1024;

pub(super) fn cluster(input: &mut In<'_>, raw: &pb::Cluster) -> Result<Cluster, DecodeError> {
    if raw.name.is_empty() {
        return Err(input.invalid("name", "missing"));
    }
    input.ignore(!raw.health_checks.is_empty(), "", "health_checks");
    input.ignore(raw.lb_subset_config.is_some(), "", "lb_subset_config");
    input.ignore(raw.upstream_config.is_some(), "", "upstream_config");
    input.ignore(raw.preconnect_policy.is_some(), "", "preconnect_policy");
    input.ignore(raw.connection_pool_per_downstream_connection, "", "connection_pool_per_downstream_connection");
    for filter in raw.filters.iter().filter(|filter| !filter.name.ends_with("metadata_exchange")) {
        input.note(format!("filters[{}]", filter.name), "not honoured");
    }
    let discovery = discovery(input, raw)?;
    let outlier = raw.outlier_detection.as_ref().map(|outlier| outlier_detection(input, raw, outlier)).transpose()?;
    let bind_source = match raw.upstream_bind_config.as_ref().and_then(|bind| bind.source_address.as_ref()) {
        None => None,
        Some(source) => Some(source.address.parse().map_err(|_| {
            input.invalid("upstream_bind_config.source_address", format!("{:?} is not an address", source.address))
        })?),
    };
    let keepalive = raw.upstream_connection_options.as_ref().and_then(|options| options.tcp_keepalive.as_ref());
    let seconds = |value: u32| Duration::from_secs(value.into());
    let connect = raw.connect_timeout.as_ref();
    let (tls, proxy_header) = protection(input, raw)?;
    Ok(Cluster {
        name: raw.name.clone(),
        balance: balance(input, raw, &discovery),
        discovery,
        connect_timeout: read::duration_or(input, "connect_timeout", connect, CONNECT_TIMEOUT_DEFAULT)?,
        breakers: breakers(input, raw),
        outlier,
        tls,
        http: http(input, raw)?,
        bind_source,
        keepalive: keepalive.map(|keepalive| Keepalive {
            probes: keepalive.keepalive_probes.as_ref().map(|probes| probes.value),
            time: keepalive.keepalive_time.as_ref().map(|time| seconds(time.value)),
            interval: keepalive.keepalive_interval.as_ref().map(|time| seconds(time.value)),
        }),
        proxy_header,
        service: service(raw.metadata.as_ref()),
        origin: read::origin(raw.metadata.as_ref()),
    })
}

fn discovery(input: &mut In<'_>, raw: &pb::Cluster) -> Result<Discovery, DecodeError> {
    let kind = match &raw.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(*kind).map_err(|_| input.invalid("type", "unknown"))?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(input.invalid("cluster_type", format!("clusters of type {} are not served", custom.name)));
        }
    };
    let given = |input: &mut In<'_>| -> Result<Vec<Locality>, DecodeError> {
        raw.load_assignment
            .as_ref()
            .map_or(Ok(Vec::new()), |given| endpoint::localities(input, "load_assignment.", given))
    };
    let refresh = read::duration_or(input, "dns_refresh_rate", raw.dns_refresh_rate.as_ref(), DNS_REFRESH_DEFAULT)?;
    Ok(match kind {
        DiscoveryType::Static => Discovery::Static(given(input)?),
        DiscoveryType::StrictDns => Discovery::StrictDns { localities: given(input)?, refresh },
        DiscoveryType::LogicalDns => {
            let localities = given(input)?;
            let hosts: usize = localities.iter().map(|place| place.endpoints.len()).sum();
            if hosts != 1 || localities.len() != 1 {
                return Err(
                    input.invalid("load_assignment", format!("one host is resolved at a time, and there are {hosts}"))
                );
            }
            Discovery::LogicalDns { localities, refresh }
        }
        DiscoveryType::OriginalDst => Discovery::OriginalDestination,
        DiscoveryType::Eds => {
            let config = raw.eds_cluster_config.as_ref();
            let other =
                config.map(|config| config.service_name.as_str()).filter(|name| !name.is_empty() && *name != raw.name);
            if let Some(other) = other {
                let reason = format!("endpoints are subscribed to under the cluster's name, not {other:?}");
                return Err(input.invalid("eds_cluster_config.service_name", reason));
            }
            if !read::is_ads(config.and_then(|config| config.eds_config.as_ref())) {
                input.note("eds_cluster_config.eds_config", "endpoints are subscribed to on this stream");
            }
            Discovery::Eds
        }
    })
}

fn balance(input: &mut In<'_>, raw: &pb::Cluster, discovery: &Discovery) -> Balance {
    if *discovery == Discovery::OriginalDestination {
        return Balance::OriginalDestination;
    }
    if let Some(policy) = &raw.load_balancing_policy {
        let named = policy.policies.iter().filter_map(|policy| policy.typed_extension_config.as_ref());
        let known = named.filter_map(|config| config.typed_config.as_ref()).find_map(|any| {
            match any.type_url.rsplit('/').next()? {
                "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => Some(Balance::RoundRobin),
                "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => Some(Balance::LeastRequest),
                "envoy.extensions.load_balancing_policies.random.v3.Random" => Some(Balance::Random),
                _ => None,
            }
        });
        return known.unwrap_or_else(|| {
            input.note("load_balancing_policy", "none of these is known; the least busy of two is taken");
            Balance::LeastRequest
        });
    }
    match LbPolicy::try_from(raw.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Balance::RoundRobin,
        Ok(LbPolicy::LeastRequest) => Balance::LeastRequest,
        Ok(LbPolicy::Random) => Balance::Random,
        Ok(LbPolicy::RingHash | LbPolicy::Maglev | LbPolicy::ClusterProvided | LbPolicy::LoadBalancingPolicyConfig)
        | Err(_) => {
            input.note("lb_policy", "not honoured; the least busy of two is taken");
            Balance::LeastRequest
        }
    }
}

fn breakers(input: &mut In<'_>, raw: &pb::Cluster) -> Breakers {
    let thresholds =
        raw.circuit_breakers.as_ref().and_then(|breakers| breakers.thresholds.iter().find(|one| one.priority == 0));
    if let Some(thresholds) = thresholds {
        input.ignore(thresholds.retry_budget.is_some(), "circuit_breakers.thresholds.", "retry_budget");
    }
    let limit = |field: Option<&_>, default| read::number(field, default);
    Breakers {
        connections: limit(thresholds.and_then(|one| one.max_connections.as_ref()), BREAKER_DEFAULT),
        pending: limit(thresholds.and_then(|one| one.max_pending_requests.as_ref()), BREAKER_DEFAULT),
        requests: limit(thresholds.and_then(|one| one.max_requests.as_ref()), BREAKER_DEFAULT),
        retries: limit(thresholds.and_then(|one| one.max_retries.as_ref()), 3),
    }
}

fn outlier_detection(
    input: &mut In<'_>,
    cluster: &pb::Cluster,
    raw: &OutlierDetection,
) -> Result<Outlier, DecodeError> {
    let path = "outlier_detection.";
    input.ignore(read::number(raw.enforcing_success_rate.as_ref(), 100) > 0, path, "enforcing_success_rate");
    input.ignore(read::number(raw.enforcing_failure_percentage.as_ref(), 0) > 0, path, "enforcing_failure_percentage");
    input.ignore(!raw.monitors.is_empty(), path, "monitors");
    let counted = |count: Option<&_>, enforced: Option<&_>, by_default: u32| {
        if read::number(enforced, by_default) > 0 { read::number(count, 5) } else { 0 }
    };
    let panic = cluster.common_lb_config.as_ref().and_then(|config| config.healthy_panic_threshold.as_ref());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "brought into range first")]
    let min_health_percent = panic.map_or(50, |percent| percent.value.clamp(0.0, 100.0).round() as u32);
    Ok(Outlier {
        consecutive_5xx: counted(raw.consecutive_5xx.as_ref(), raw.enforcing_consecutive_5xx.as_ref(), 100),
        consecutive_gateway: counted(
            raw.consecutive_gateway_failure.as_ref(),
            raw.enforcing_consecutive_gateway_failure.as_ref(),
            0,
        ),
        consecutive_local: counted(
            raw.consecutive_local_origin_failure.as_ref(),
            raw.enforcing_consecutive_local_origin_failure.as_ref(),
            100,
        ),
        split_local: raw.split_external_local_origin_errors,
        interval: read::duration_or(
            input,
            "outlier_detection.interval",
            raw.interval.as_ref(),
            Duration::from_secs(10),
        )?,
        base_ejection: read::duration_or(
            input,
            "outlier_detection.base_ejection_time",
            raw.base_ejection_time.as_ref(),
            Duration::from_secs(30),
        )?,
        max_ejection_percent: read::number(raw.max_ejection_percent.as_ref(), 10).min(100),
        min_health_percent,
    })
}

/// How connections are protected, and the header of the PROXY protocol before that.
fn protection(input: &mut In<'_>, raw: &pb::Cluster) -> Result<(UpstreamTls, Option<ProxyVersion>), DecodeError> {
    input.refuse(
        raw.transport_socket_matcher.is_some(),
        "",
        "transport_socket_matcher",
        "sockets are not chosen by matchers",
    )?;
    if raw.transport_socket_matches.is_empty() {
        let (header, tls) = client(input, "transport_socket.", raw.transport_socket.as_ref())?;
        return Ok((tls.map_or(UpstreamTls::Off, UpstreamTls::On), header));
    }
    let mut auto = None;
    let mut headers = Vec::with_capacity(raw.transport_socket_matches.len());
    for (index, one) in raw.transport_socket_matches.iter().enumerate() {
        let path = format!("transport_socket_matches[{index}].");
        let (header, tls) = client(input, &format!("{path}transport_socket."), one.transport_socket.as_ref())?;
        headers.push(header);
        let fields = one.r#match.as_ref().map(|matches| matches.fields.len()).unwrap_or_default();
        let istio = one.r#match.as_ref().and_then(|matches| read::text(matches, names::TLS_MODE)) == Some("istio");
        match (tls, fields, istio) {
            (Some(tls), 1, true) if auto.is_none() => auto = Some(tls),
            (None, 0, false) => {}
            _ => return Err(input.guards(path, "sockets are chosen by tlsMode only: TLS for istio, none for the rest")),
        }
    }
    let header = headers.first().copied().flatten();
    if headers.iter().any(|other| *other != header) {
        return Err(input.guards("transport_socket_matches", "all endpoints get the same header of the PROXY protocol"));
    }
    let auto = auto.ok_or_else(|| input.guards("transport_socket_matches", "no socket for tlsMode istio"))?;
    Ok((UpstreamTls::Auto(auto), header))
}

fn client(
    input: &mut In<'_>,
    path: &str,
    raw: Option<&TransportSocket>,
) -> Result<(Option<ProxyVersion>, Option<ClientTls>), DecodeError> {
    let Some(raw) = raw else { return Ok((None, None)) };
    let (header, socket) = tls::unwrapped(input, path, raw)?;
    let tls = socket.map(|socket| tls::client(input, path, &socket)).transpose()?.flatten();
    Ok((header, tls))
}

fn http(input: &mut In<'_>, raw: &pb::Cluster) -> Result<UpstreamHttp, DecodeError> {
    let mut http = UpstreamHttp {
        max_requests_per_connection: read::number(raw.max_requests_per_connection.as_ref(), 0),
        ..UpstreamHttp::default()
    };
    let mut common = raw.common_http_protocol_options;
    let mut streams = |options: Option<&Http2ProtocolOptions>| {
        let most = options.and_then(|options| options.max_concurrent_streams.as_ref());
        http.max_concurrent_streams = read::number(most, http.max_concurrent_streams);
    };
    let Some(any) = raw.typed_extension_protocol_options.get(names::HTTP_OPTIONS) else {
        if raw.http2_protocol_options.is_some() {
            streams(raw.http2_protocol_options.as_ref());
            http.version = UpstreamVersion::Http2;
        } else if raw.protocol_selection == 1 {
            http.version = UpstreamVersion::Downstream;
        }
        return with_common(input, http, common.as_ref());
    };
    let path = "typed_extension_protocol_options";
    let options: HttpProtocolOptions = read::message(input, path, any)?;
    for filter in options.http_filters.iter().filter(|filter| !filter.name.ends_with("upstream_codec")) {
        input.note(format!("{path}.http_filters[{}]", filter.name), "not honoured");
    }
    common = options.common_http_protocol_options.or(common);
    http.version = match &options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match &explicit.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(_)) | None => UpstreamVersion::Http1,
            Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                streams(Some(options));
                UpstreamVersion::Http2
            }
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(input.invalid(path, "HTTP/3 is not spoken"));
            }
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(downstream)) => {
            streams(downstream.http2_protocol_options.as_ref());
            UpstreamVersion::Downstream
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            input.note(path, "the version is not negotiated; HTTP/1.1 is spoken");
            UpstreamVersion::Http1
        }
        None => UpstreamVersion::Http1,
    };
    with_common(input, http, common.as_ref())
}

fn with_common(
    input: &mut In<'_>,
    mut http: UpstreamHttp,
    common: Option<&envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions>,
) -> Result<UpstreamHttp, DecodeError> {
    if let Some(common) = common {
        http.idle_timeout = read::duration_or(input, "idle_timeout", common.idle_timeout.as_ref(), http.idle_timeout)?;
        let most = common.max_requests_per_connection.as_ref();
        http.max_requests_per_connection = read::number(most, http.max_requests_per_connection);
        input.ignore(common.max_connection_duration.is_some(), "", "max_connection_duration");
    }
    Ok(http)
}

/// The first service that Istio's metadata names.
fn service(metadata: Option<&Metadata>) -> Option<ServiceRef> {
    let Some(Kind::ListValue(list)) = &read::part(metadata, "istio")?.fields.get("services")?.kind else { return None };
    let Some(Kind::StructValue(first)) = &list.values.first()?.kind else { return None };
    Some(ServiceRef {
        host: read::text(first, "host")?.to_owned(),
        name: read::text(first, "name")?.to_owned(),
        namespace: read::text(first, "namespace")?.to_owned(),
    })
}

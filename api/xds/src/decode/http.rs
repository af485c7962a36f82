//! HTTP and TCP servers of a chain, from their network filters.
//!
//! A filter that we do not know may guard something, so only those known to guard nothing are passed over.
//! Never here: how a request is served. Called by `listener`.

use std::{sync::Arc, time::Duration};

use api::spec::{
    Authorization, ClientCertHeader, Codec, HeaderChanges, HttpServer, Network, PathNormalization, RoutesRef,
    TcpServer, WeightedCluster,
};
use envoy_types::pb::{
    envoy::{
        config::listener::v3::{Filter, filter},
        extensions::filters::{
            http::{rbac::v3::Rbac, router::v3::Router},
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter,
                    http_connection_manager::{
                        CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                    },
                    http_filter,
                },
                rbac::v3::Rbac as NetworkRbac,
                tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
            },
        },
    },
    google::protobuf,
};
use prost::Name;

use super::{DecodeError, In, access_log::access_log, authorization, read, routes};
use crate::{names, typed};

/// Envoy's limit for a connection without requests, and without bytes.
const IDLE_DEFAULT: Duration = Duration::from_secs(3600);

/// Whether a filter may be passed over: it shapes or watches traffic, and refuses none.
pub(super) fn guards_nothing(name: &str, type_url: &str) -> bool {
    const TYPES: [&str; 19] = [
        "envoy.extensions.filters.http.alternate_protocols_cache.v3.FilterConfig",
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
        "envoy.extensions.filters.http.cors.v3.Cors",
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "envoy.extensions.filters.http.decompressor.v3.Decompressor",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
        "envoy.extensions.filters.http.on_demand.v3.OnDemand",
        "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        "envoy.extensions.filters.http.cache.v3.CacheConfig",
        "io.istio.http.peer_metadata.Config",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        "stats.PluginConfig",
        "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy",
        "envoy.extensions.filters.network.zookeeper_proxy.v3.ZooKeeperProxy",
    ];
    const NAMES: [&str; 4] = ["istio.alpn", "istio.metadata_exchange", "istio.stats", "istio_stats"];
    let inner = type_url.rsplit('/').next().unwrap_or_default();
    if typed::TYPE_URLS.contains(&type_url) || type_url.is_empty() {
        return NAMES.contains(&name);
    }
    TYPES.contains(&inner)
}

/// What the filters of a chain do.
pub(super) fn network(
    input: &mut In<'_>,
    path: &str,
    filters: &[Filter],
    counted: bool,
) -> Result<Network, DecodeError> {
    let mut authorization = Vec::new();
    let mut metrics = counted;
    let Some((last, before)) = filters.split_last() else {
        return Err(input.invalid(format!("{path}filters"), "none"));
    };
    for filter in before {
        let path = format!("{path}filters[{}].", filter.name);
        let any = typed(input, &path, filter)?;
        if any.type_url == NetworkRbac::type_url() {
            let rbac: NetworkRbac = read::message(input, &path, any)?;
            input.refuse(rbac.matcher.is_some(), &path, "matcher", "rules as matcher trees are not tested")?;
            input.ignore(rbac.shadow_rules.is_some() || rbac.shadow_matcher.is_some(), &path, "shadow_rules");
            if let Some(rules) = &rbac.rules {
                authorization.extend(authorization::layer(input, &format!("{path}rules."), rules)?);
            }
        } else if guards_nothing(&filter.name, &any.type_url) {
            metrics |= filter.name == names::FILTER_STATS;
        } else {
            return Err(input.guards(path, format!("filter {} is not run", any.type_url)));
        }
    }
    let path = format!("{path}filters[{}].", last.name);
    let any = typed(input, &path, last)?;
    if any.type_url == HttpConnectionManager::type_url() {
        if !authorization.is_empty() {
            return Err(input.guards(path, "authorization of connections is not tested before HTTP"));
        }
        let manager: HttpConnectionManager = read::message(input, &path, any)?;
        Ok(Network::Http(Box::new(server(input, &path, &manager)?)))
    } else if any.type_url == TcpProxy::type_url() {
        let proxy: TcpProxy = read::message(input, &path, any)?;
        Ok(Network::Tcp(Box::new(tcp(input, &path, &proxy, authorization, metrics)?)))
    } else {
        Err(input.invalid(path, format!("filter {} is not run", any.type_url)))
    }
}

fn typed<'f>(input: &In<'_>, path: &str, filter: &'f Filter) -> Result<&'f protobuf::Any, DecodeError> {
    match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) => Ok(any),
        Some(filter::ConfigType::ConfigDiscovery(_)) => Err(input.guards(path, "filters are not subscribed to")),
        None => Err(input.invalid(path, "no configuration")),
    }
}

pub(super) fn server(input: &mut In<'_>, path: &str, raw: &HttpConnectionManager) -> Result<HttpServer, DecodeError> {
    input.refuse(
        raw.forward_client_cert_matcher.is_some(),
        path,
        "forward_client_cert_matcher",
        "it is the same for all",
    )?;
    input.ignore(raw.xff_num_trusted_hops > 0, path, "xff_num_trusted_hops");
    input.ignore(!raw.original_ip_detection_extensions.is_empty(), path, "original_ip_detection_extensions");
    input.ignore(!raw.early_header_mutation_extensions.is_empty(), path, "early_header_mutation_extensions");
    input.ignore(raw.local_reply_config.is_some(), path, "local_reply_config");
    input.ignore(raw.strip_matching_host_port, path, "strip_matching_host_port");
    let (authorization, metrics) = http_filters(input, path, &raw.http_filters)?;
    let routes = routes_ref(input, path, raw)?;
    let codec = match CodecType::try_from(raw.codec_type) {
        Ok(CodecType::Auto) => Codec::Auto,
        Ok(CodecType::Http1) => Codec::Http1,
        Ok(CodecType::Http2) => Codec::Http2,
        Ok(CodecType::Http3) | Err(_) => return Err(input.invalid(format!("{path}codec_type"), "HTTP/3 is not read")),
    };
    let http1 = raw.http_protocol_options.as_ref();
    let named = http1.is_some_and(|options| !options.default_host_for_http_10.is_empty());
    input.ignore(named, path, "http_protocol_options.default_host_for_http_10");
    let client_cert = client_cert(input, path, raw)?;
    let mut upgrades = false;
    for upgrade in &raw.upgrade_configs {
        if upgrade.upgrade_type.eq_ignore_ascii_case("websocket") {
            upgrades = read::truth(upgrade.enabled.as_ref(), true);
        } else {
            input.note(format!("{path}upgrade_configs[{}]", upgrade.upgrade_type), "not honoured");
        }
    }
    let idle = raw.common_http_protocol_options.as_ref().and_then(|common| common.idle_timeout.as_ref());
    Ok(HttpServer {
        stat_prefix: raw.stat_prefix.clone(),
        routes,
        codec,
        http10: http1.is_some_and(|options| options.accept_http_10),
        client_cert,
        edge: read::truth(raw.use_remote_address.as_ref(), false),
        upgrades,
        authorization,
        access_log: access_log(input, path, &raw.access_log)?,
        normalize: normalization(input, path, raw)?,
        idle_timeout: read::duration_or(input, &format!("{path}idle_timeout"), idle, IDLE_DEFAULT)?,
        metrics,
    })
}

/// Where the routes are: in a table of that name, or in place.
fn routes_ref(input: &mut In<'_>, path: &str, raw: &HttpConnectionManager) -> Result<RoutesRef, DecodeError> {
    match &raw.route_specifier {
        Some(RouteSpecifier::Rds(rds)) if rds.route_config_name.is_empty() => {
            Err(input.invalid(format!("{path}rds.route_config_name"), "missing"))
        }
        Some(RouteSpecifier::Rds(rds)) => {
            if !read::is_ads(rds.config_source.as_ref()) {
                input.note(format!("{path}rds.config_source"), "routes are subscribed to on this stream");
            }
            Ok(RoutesRef::Named(rds.route_config_name.clone()))
        }
        Some(RouteSpecifier::RouteConfig(table)) => {
            let mut read = routes::table(input, &format!("{path}route_config."), table)?;
            // hosts are asked for by the name of a table that was asked for
            input.ignore(std::mem::take(&mut read.hosts_apart), path, "route_config.vhds");
            Ok(RoutesRef::Inline(Arc::new(read)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            Err(input.invalid(format!("{path}scoped_routes"), "routes by scope are not served"))
        }
        None => Err(input.invalid(path, "no routes")),
    }
}

fn client_cert(input: &In<'_>, path: &str, raw: &HttpConnectionManager) -> Result<ClientCertHeader, DecodeError> {
    match ForwardClientCertDetails::try_from(raw.forward_client_cert_details) {
        Ok(ForwardClientCertDetails::Sanitize) => Ok(ClientCertHeader::Sanitize),
        Ok(ForwardClientCertDetails::ForwardOnly) => Ok(ClientCertHeader::Forward),
        Ok(ForwardClientCertDetails::AppendForward) => Ok(ClientCertHeader::AppendForward),
        Ok(ForwardClientCertDetails::SanitizeSet) => Ok(ClientCertHeader::SanitizeSet),
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) | Err(_) => {
            Err(input.guards(format!("{path}forward_client_cert_details"), "the header is not passed on unasked"))
        }
    }
}

fn normalization(
    input: &mut In<'_>,
    path: &str,
    raw: &HttpConnectionManager,
) -> Result<PathNormalization, DecodeError> {
    let decode = match PathWithEscapedSlashesAction::try_from(raw.path_with_escaped_slashes_action) {
        Ok(
            PathWithEscapedSlashesAction::ImplementationSpecificDefault | PathWithEscapedSlashesAction::KeepUnchanged,
        ) => false,
        Ok(PathWithEscapedSlashesAction::UnescapeAndForward) => true,
        Ok(PathWithEscapedSlashesAction::RejectRequest | PathWithEscapedSlashesAction::UnescapeAndRedirect)
        | Err(_) => {
            let reason = "paths with escaped slashes are decoded or kept, not refused";
            return Err(input.guards(format!("{path}path_with_escaped_slashes_action"), reason));
        }
    };
    let base = read::truth(raw.normalize_path.as_ref(), false);
    Ok(match (base, raw.merge_slashes, decode) {
        (false, false, false) => PathNormalization::None,
        (true, false, false) => PathNormalization::Base,
        (true, true, false) => PathNormalization::MergeSlashes,
        (true, true, true) => PathNormalization::DecodeAndMergeSlashes,
        // More is done than asked for, so that nothing slips past a rule.
        (_, _, true) => {
            input.note(format!("{path}path_with_escaped_slashes_action"), "slashes are merged, and dots removed, too");
            PathNormalization::DecodeAndMergeSlashes
        }
        (false, true, false) => {
            input.note(format!("{path}merge_slashes"), "dots are removed, too");
            PathNormalization::MergeSlashes
        }
    })
}

/// The layers of authorization, and whether metrics are made.
fn http_filters(
    input: &mut In<'_>,
    path: &str,
    filters: &[HttpFilter],
) -> Result<(Vec<Authorization>, bool), DecodeError> {
    let mut authorization = Vec::new();
    let mut metrics = false;
    let mut routed = false;
    for filter in filters {
        let path = format!("{path}http_filters[{}].", filter.name);
        let any = match &filter.config_type {
            _ if filter.disabled => continue,
            Some(http_filter::ConfigType::TypedConfig(any)) => any,
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(input.guards(path, "filters are not subscribed to"));
            }
            None => return Err(input.invalid(path, "no configuration")),
        };
        if any.type_url == Router::type_url() {
            routed = true;
        } else if any.type_url == Rbac::type_url() {
            let rbac: Rbac = read::message(input, &path, any)?;
            input.refuse(rbac.matcher.is_some(), &path, "matcher", "rules as matcher trees are not tested")?;
            input.ignore(rbac.shadow_rules.is_some() || rbac.shadow_matcher.is_some(), &path, "shadow_rules");
            if let Some(rules) = &rbac.rules {
                authorization.extend(authorization::layer(input, &format!("{path}rules."), rules)?);
            }
        } else if guards_nothing(&filter.name, &any.type_url) {
            metrics |= filter.name == names::FILTER_STATS;
        } else if filter.is_optional {
            input.note(path, format!("filter {} is not run; it is optional", any.type_url));
        } else {
            return Err(input.guards(path, format!("filter {} is not run", any.type_url)));
        }
    }
    if routed { Ok((authorization, metrics)) } else { Err(input.invalid(format!("{path}http_filters"), "no router")) }
}

fn tcp(
    input: &mut In<'_>,
    path: &str,
    raw: &TcpProxy,
    authorization: Vec<Authorization>,
    metrics: bool,
) -> Result<TcpServer, DecodeError> {
    input.ignore(raw.metadata_match.is_some(), path, "metadata_match");
    input.ignore(!raw.hash_policy.is_empty(), path, "hash_policy");
    if raw.tunneling_config.is_some() {
        return Err(input.guards(format!("{path}tunneling_config"), "bytes are not tunnelled"));
    }
    let way = |name: &str, weight: u32| WeightedCluster {
        cluster: name.to_owned(),
        weight,
        headers: HeaderChanges::default(),
    };
    let clusters: Vec<WeightedCluster> = match &raw.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => vec![way(name, 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            // Envoy refuses a weight of zero here; such a cluster takes nothing anyway.
            let weighing = weighted.clusters.iter().filter(|cluster| cluster.weight > 0);
            weighing.map(|cluster| way(&cluster.name, cluster.weight)).collect()
        }
        Some(ClusterSpecifier::Cluster(_)) | None => return Err(input.invalid(format!("{path}cluster"), "missing")),
    };
    if clusters.is_empty() {
        return Err(input.invalid(format!("{path}weighted_clusters"), "no cluster has a weight"));
    }
    Ok(TcpServer {
        stat_prefix: raw.stat_prefix.clone(),
        clusters,
        authorization,
        access_log: access_log(input, path, &raw.access_log)?,
        idle_timeout: read::duration_or(
            input,
            &format!("{path}idle_timeout"),
            raw.idle_timeout.as_ref(),
            IDLE_DEFAULT,
        )?,
        max_duration: read::duration_or(
            input,
            &format!("{path}max_downstream_connection_duration"),
            raw.max_downstream_connection_duration.as_ref(),
            Duration::ZERO,
        )?,
        metrics,
    })
}

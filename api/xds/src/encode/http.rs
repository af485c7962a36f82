//! HTTP and TCP servers of a chain as network filters.
//!
//! HTTP: authorization, then faults, then metrics, then the router, as Istio orders them; routes over ADS or inline. TCP:
//! authorization, then the proxy of bytes.
//! Never here: how a request is served. Called by `listener`.

use api::spec::{
    ACCESS_LOG_FIELDS, ACCESS_LOG_LINE, AccessLog, Authorization, ClientCertHeader, Codec, HeaderChanges, HttpServer,
    PathNormalization, RoutesRef, TcpServer, WeightedCluster,
};
use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{self as accesslog, access_log},
            core::v3::{
                Http1ProtocolOptions, HttpProtocolOptions, SubstitutionFormatString, substitution_format_string::Format,
            },
            listener::v3::{Filter, filter},
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::{
                http::{fault::v3::HttpFault, router::v3::Router},
                network::{
                    http_connection_manager::v3::{
                        HttpConnectionManager, HttpFilter, Rds,
                        http_connection_manager::{
                            CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                            SetCurrentClientCertDetails, UpgradeConfig,
                        },
                        http_filter,
                    },
                    tcp_proxy::v3::{TcpProxy, tcp_proxy},
                },
            },
        },
    },
    google::protobuf,
};

use super::{EncodeError, Out, authorization, routes, wire};
use crate::{Dialect, names, typed::TypedStruct};

/// A network filter of the given configuration.
pub(super) fn filter<M: prost::Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(wire::any(config))) }
}

fn http_filter<M: prost::Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(wire::any(config))),
        ..HttpFilter::default()
    }
}

pub(super) fn server(out: Out<'_>, path: &str, server: &HttpServer) -> Result<HttpConnectionManager, EncodeError> {
    let HttpServer {
        stat_prefix,
        routes,
        codec,
        http10,
        client_cert,
        edge,
        upgrades,
        authorization,
        access_log,
        normalize,
        idle_timeout,
        metrics,
    } = server;
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.clone(),
        http_filters: http_filters(out, path, authorization, *metrics)?,
        route_specifier: Some(match routes {
            RoutesRef::Named(name) => {
                RouteSpecifier::Rds(Rds { config_source: Some(wire::ads()), route_config_name: name.clone() })
            }
            RoutesRef::Inline(table) => RouteSpecifier::RouteConfig(routes::table(out, table)?),
        }),
        ..HttpConnectionManager::default()
    };
    if out.dialect == Dialect::Grpc {
        return Ok(manager);
    }
    manager.codec_type = match codec {
        Codec::Auto => CodecType::Auto,
        Codec::Http1 => CodecType::Http1,
        Codec::Http2 => CodecType::Http2,
    }
    .into();
    manager.http_protocol_options =
        http10.then(|| Http1ProtocolOptions { accept_http_10: true, ..Http1ProtocolOptions::default() });
    set_client_cert(&mut manager, *client_cert);
    manager.use_remote_address = wire::boolean(*edge);
    if *upgrades {
        manager.upgrade_configs =
            vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }];
    }
    manager.access_log = access_log.iter().map(|log| logger(out, path, log)).collect::<Result<_, _>>()?;
    set_normalization(&mut manager, *normalize);
    manager.common_http_protocol_options = Some(HttpProtocolOptions {
        idle_timeout: Some(wire::duration(*idle_timeout)),
        ..HttpProtocolOptions::default()
    });
    manager.stream_idle_timeout = Some(protobuf::Duration::default());
    manager.strip_trailing_host_dot = true;
    "istio-envoy".clone_into(&mut manager.server_name);
    Ok(manager)
}

/// The filters in Istio's order: authorization, faults, metrics, the router.
fn http_filters(
    out: Out<'_>,
    path: &str,
    authorization: &[Authorization],
    metrics: bool,
) -> Result<Vec<HttpFilter>, EncodeError> {
    let mut http_filters = Vec::with_capacity(authorization.len() + 3);
    for (index, layer) in authorization.iter().enumerate() {
        let rbac = authorization::for_http(out, &format!("{path}.authorization[{index}]"), layer)?;
        http_filters.push(http_filter(names::FILTER_RBAC, &rbac));
    }
    http_filters.push(http_filter(names::FILTER_FAULT, &HttpFault::default()));
    if metrics && out.dialect != Dialect::Grpc {
        let config = TypedStruct {
            type_url: "type.googleapis.com/stats.PluginConfig".to_owned(),
            value: Some(protobuf::Struct::default()),
        };
        http_filters.push(HttpFilter { is_optional: true, ..http_filter(names::FILTER_STATS, &config) });
    }
    http_filters.push(http_filter(names::FILTER_ROUTER, &Router::default()));
    Ok(http_filters)
}

/// What becomes of the header that tells of the client's certificate.
fn set_client_cert(manager: &mut HttpConnectionManager, client_cert: ClientCertHeader) {
    let details = match client_cert {
        ClientCertHeader::Sanitize => ForwardClientCertDetails::Sanitize,
        ClientCertHeader::Forward => ForwardClientCertDetails::ForwardOnly,
        ClientCertHeader::AppendForward => ForwardClientCertDetails::AppendForward,
        ClientCertHeader::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
    };
    manager.forward_client_cert_details = details.into();
    if matches!(client_cert, ClientCertHeader::AppendForward | ClientCertHeader::SanitizeSet) {
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: wire::boolean(true),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
}

/// What is done to paths before anything looks at them.
fn set_normalization(manager: &mut HttpConnectionManager, normalize: PathNormalization) {
    let (base, merge, decode) = match normalize {
        PathNormalization::None => (false, false, false),
        PathNormalization::Base => (true, false, false),
        PathNormalization::MergeSlashes => (true, true, false),
        PathNormalization::DecodeAndMergeSlashes => (true, true, true),
    };
    manager.normalize_path = wire::boolean(base);
    manager.merge_slashes = merge;
    let slashes = if decode {
        PathWithEscapedSlashesAction::UnescapeAndForward
    } else {
        PathWithEscapedSlashesAction::KeepUnchanged
    };
    manager.path_with_escaped_slashes_action = slashes.into();
}

fn logger(out: Out<'_>, path: &str, log: &AccessLog) -> Result<accesslog::AccessLog, EncodeError> {
    let AccessLog { path: file, format, json } = log;
    let text = |text: &str| Format::TextFormatSource(wire::inline(text.to_owned()));
    let format = match (format, json) {
        (None, false) => text(ACCESS_LOG_LINE),
        (Some(format), false) => text(format),
        (None, true) => {
            Format::JsonFormat(wire::object(ACCESS_LOG_FIELDS.map(|(name, operator)| (name, wire::text(operator)))))
        }
        (Some(format), true) => match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(format) {
            Ok(fields) => Format::JsonFormat(protobuf::Struct {
                fields: fields.into_iter().map(|(name, value)| (name, json_value(value))).collect(),
            }),
            Err(error) => return out.bad(format!("{path}.access_log.format"), format!("not a JSON object: {error}")),
        },
    };
    let config = FileAccessLog {
        path: file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..SubstitutionFormatString::default()
        })),
    };
    Ok(accesslog::AccessLog {
        name: names::LOG_FILE.to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(wire::any(&config))),
        ..accesslog::AccessLog::default()
    })
}

fn json_value(value: serde_json::Value) -> protobuf::Value {
    use protobuf::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(protobuf::ListValue { values: values.into_iter().map(json_value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(protobuf::Struct {
            fields: fields.into_iter().map(|(name, value)| (name, json_value(value))).collect(),
        }),
    };
    protobuf::Value { kind: Some(kind) }
}

pub(super) fn tcp(out: Out<'_>, path: &str, server: &TcpServer) -> Result<Vec<Filter>, EncodeError> {
    let TcpServer { stat_prefix, clusters, authorization, access_log, idle_timeout, max_duration, metrics: _ } = server;
    let mut filters = Vec::with_capacity(authorization.len() + 1);
    for (index, layer) in authorization.iter().enumerate() {
        let rbac = authorization::for_tcp(out, &format!("{path}.authorization[{index}]"), layer)?;
        filters.push(filter(names::FILTER_NETWORK_RBAC, &rbac));
    }
    if clusters.iter().any(|cluster| cluster.headers != HeaderChanges::default()) {
        return out.bad(format!("{path}.clusters"), "bytes have no headers to change");
    }
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    let specifier = match clusters.as_slice() {
        [WeightedCluster { cluster, weight: 1, .. }] => tcp_proxy::ClusterSpecifier::Cluster(cluster.clone()),
        _ if total == 0 || u32::try_from(total).is_err() => {
            return out.bad(format!("{path}.clusters"), format!("weights sum to {total}; expected 1 to {}", u32::MAX));
        }
        // Envoy refuses a weight of zero here; such a cluster takes nothing anyway.
        _ => tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: clusters
                .iter()
                .filter(|cluster| cluster.weight > 0)
                .map(|WeightedCluster { cluster, weight, headers: _ }| tcp_proxy::weighted_cluster::ClusterWeight {
                    name: cluster.clone(),
                    weight: *weight,
                    ..tcp_proxy::weighted_cluster::ClusterWeight::default()
                })
                .collect(),
        }),
    };
    filters.push(filter(
        names::FILTER_TCP,
        &TcpProxy {
            stat_prefix: stat_prefix.clone(),
            idle_timeout: Some(wire::duration(*idle_timeout)),
            max_downstream_connection_duration: (!max_duration.is_zero()).then(|| wire::duration(*max_duration)),
            access_log: access_log.iter().map(|log| logger(out, path, log)).collect::<Result<_, _>>()?,
            cluster_specifier: Some(specifier),
            ..TcpProxy::default()
        },
    ));
    Ok(filters)
}

//! The bootstrap of a real Envoy: who it is, where pilot is, where its certificate comes from.
//!
//! Never here: what it serves; pilot tells it. Called by `agent`.

use std::path::Path;

use anyhow::Context;
use api::spec::Node;
use serde_json::{Map, Value, json};

use crate::env::Ports;

/// Where pilot is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pilot<'a> {
    pub(crate) address: &'a str,
    pub(crate) tls: bool,
    pub(crate) name: &'a str,
}

fn http2() -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {
            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
        } },
    } })
}

fn endpoint(cluster: &str, address: &Value) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] })
}

fn secret(name: &str) -> Value {
    json!({ "name": name, "sds_config": {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
        },
    } })
}

/// A listener that answers from Envoy's own admin pages.
fn own_pages(name: &str, port: u16, path: &str, to: &str) -> Value {
    json!({
        "name": name,
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": port } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "codec_type": "AUTO",
                "route_config": { "virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": path }, "route": { "cluster": "own-admin", "prefix_rewrite": to } }],
                }] },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }] }],
    })
}

fn socket(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// The cluster of pilot.
fn pilot_cluster(pilot: &Pilot<'_>) -> anyhow::Result<Value> {
    let (host, port) = pilot.address.rsplit_once(':').context("pilot's address is not host:port")?;
    let port: u16 = port.parse().context("pilot's address is not host:port")?;
    let host = host.trim_matches(['[', ']']);
    let mut xds = json!({
        "name": "xds-grpc",
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2(),
        "load_assignment": endpoint("xds-grpc", &socket(host, port)),
        "circuit_breakers": { "thresholds": [{ "max_connections": 100_000, "max_requests": 100_000 }] },
    });
    if pilot.tls {
        xds["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": pilot.name,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [secret("default")],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": pilot.name } }],
                        },
                        "validation_context_sds_secret_config": secret("ROOTCA"),
                    },
                },
            },
        });
    }
    Ok(xds)
}

/// What the pod shows of Envoy itself.
fn listeners(ports: Ports) -> Vec<Value> {
    let mut listeners = Vec::new();
    if ports.metrics != 0 {
        listeners.push(own_pages("prometheus", ports.metrics, "/stats/prometheus", "/stats/prometheus"));
    }
    if ports.ready != 0 {
        listeners.push(own_pages("health", ports.ready, "/healthz/ready", "/ready"));
    }
    listeners
}

/// Makes the bootstrap.
///
/// # Errors
/// Pilot's address is not `host:port`.
pub(crate) fn make(
    node: &Node,
    metadata: &Map<String, Value>,
    pilot: &Pilot<'_>,
    sds: &Path,
    ports: Ports,
) -> anyhow::Result<String> {
    let admin = socket("127.0.0.1", ports.admin);
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    let bootstrap = json!({
        "node": {
            "id": node.id,
            "cluster": format!("{}.{}", node.workload, node.namespace),
            "locality": {},
            "metadata": metadata,
        },
        "admin": { "address": admin },
        "layered_runtime": { "layers": [{ "name": "static", "static_layer": {
            "re2.max_program_size.error_level": 32_768,
        } }] },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": {
            "listeners": listeners(ports),
            "clusters": [
                pilot_cluster(pilot)?,
                {
                    "name": "sds-grpc",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": http2(),
                    "load_assignment": endpoint("sds-grpc", &json!({ "pipe": { "path": sds } })),
                },
                {
                    "name": "own-admin",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": endpoint("own-admin", &admin),
                },
            ],
        },
    });
    Ok(serde_json::to_string_pretty(&bootstrap)?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use api::spec::ProxyKind;

    use super::*;

    #[test]
    fn envoy_is_pointed_at_pilot_with_its_own_certificate() {
        let node = Node {
            kind: ProxyKind::Sidecar,
            id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".into(),
            name: "a".into(),
            namespace: "b".into(),
            service_account: "c".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            labels: BTreeMap::new(),
            domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            workload: "w".into(),
            on_demand_hosts: false,
            ours: false,
            proxy_header: false,
            proxyless: false,
        };
        let pilot = Pilot { address: "istiod.istio-system.svc:15012", tls: true, name: "istiod.istio-system.svc" };
        let ports = Ports { admin: 15000, status: 15020, ready: 15021, metrics: 0 };
        let text = make(&node, &Map::new(), &pilot, Path::new("/run/SDS"), ports).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["node"]["id"], node.id);
        let xds = &value["static_resources"]["clusters"][0];
        let at = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
        assert_eq!(xds.pointer(at), Some(&json!(15012)));
        let own = "/transport_socket/typed_config/common_tls_context/tls_certificate_sds_secret_configs/0/name";
        assert_eq!(xds.pointer(own), Some(&json!("default")));
        assert_eq!(value["static_resources"]["listeners"].as_array().map(Vec::len), Some(1));
    }
}

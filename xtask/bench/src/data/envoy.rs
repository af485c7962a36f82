//! Envoy's bootstrap for one hop: the router filter and nothing else.
//!
//! Never here: statistics sinks, logs, authorization. Called by `rig`.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use super::shape::{Hop, Side};
use crate::floor::NAME;

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn tls(certificates: &Path, alpn: &[&str]) -> Value {
    let file = |name: &str| json!({"filename": certificates.join(name)});
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem")}],
        "validation_context": {"trusted_ca": file("root-cert.pem")},
        "alpn_protocols": alpn,
    })
}

fn requests() -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "AUTO",
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    })
}

fn bytes() -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench", "cluster": "upstream",
        },
    })
}

fn chain(hop: &Hop, certificates: &Path) -> Value {
    let filter = if hop.inward == Side::Bytes { bytes() } else { requests() };
    let mut chain = json!({"filters": [filter]});
    if hop.inward == Side::Tls {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": tls(certificates, &["h2", "http/1.1"]),
                "require_client_certificate": true,
            },
        });
    }
    chain
}

fn upstream(hop: &Hop, certificates: &Path) -> Value {
    let most = json!(1_000_000);
    let mut cluster = json!({
        "name": "upstream", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most,
        }]},
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(hop.upstream)}},
        ]}]},
    });
    if matches!(hop.outward, Side::Http2 | Side::Tls) {
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }});
    }
    if hop.outward == Side::Tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": tls(certificates, &["h2"]),
                "sni": NAME,
            },
        });
    }
    cluster
}

/// The bootstrap of one hop.
pub(super) fn bootstrap(hop: &Hop, certificates: &Path) -> Value {
    json!({"static_resources": {
        "listeners": [{
            "name": "bench", "address": address(hop.listen), "filter_chains": [chain(hop, certificates)],
        }],
        "clusters": [upstream(hop, certificates)],
    }})
}

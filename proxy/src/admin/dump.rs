//! What serves now, as JSON in the shapes of Envoy's admin messages.
//!
//! Never here: keys. Called by `admin`.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::SystemTime};

use api::spec::{
    Action, Discovery, FilterChain, Health, Listener, Network, Origin, PathMatch, Route, RouteMatch, RouteTable,
    RoutesRef, TextMatch, VirtualHost, WeightedCluster,
};
use api_rt::identity::Identity;
use serde_json::{Value, json};

use crate::{
    table::{Cluster, Tables, cluster::Member},
    upstream::live::Place,
};

pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

pub(super) fn place(at: &Place) -> Value {
    match at {
        Place::Socket(address) => socket_address(*address),
        Place::Unix(path) => json!({ "pipe": { "path": path } }),
    }
}

pub(super) fn health(member: &Member) -> &'static str {
    match member.health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    }
}

/// `/clusters?format=json`.
pub(crate) fn cluster_statuses(tables: &Tables) -> Value {
    let host = |member: &Member| {
        let mut status = json!({ "eds_health_status": health(member) });
        if member.live.ejected.load(Relaxed) {
            status["failed_outlier_check"] = json!(true);
        }
        json!({
            "address": place(&member.live.place),
            "health_status": status,
            "weight": member.weight,
            "stats": [
                { "name": "rq_active", "value": member.live.busy.load(Relaxed).to_string(), "type": "GAUGE" },
                { "name": "rq_total", "value": member.live.requests_total.load(Relaxed).to_string() },
                { "name": "rq_error", "value": member.live.failures_total.load(Relaxed).to_string() },
            ],
        })
    };
    let one = |cluster: &std::sync::Arc<Cluster>| {
        json!({
            "name": cluster.name,
            "observability_name": cluster.name,
            "added_via_api": true,
            "host_statuses": cluster.members.iter().map(host).collect::<Vec<_>>(),
        })
    };
    json!({ "cluster_statuses": tables.clusters().map(one).collect::<Vec<_>>() })
}

/// `/clusters`.
pub(crate) fn clusters_text(tables: &Tables) -> String {
    let mut out = String::new();
    for cluster in tables.clusters() {
        let (name, breakers) = (&cluster.name, &cluster.spec.breakers);
        out.push_str(&format!("{name}::default_priority::max_connections::{}\n", breakers.connections));
        out.push_str(&format!("{name}::default_priority::max_pending_requests::{}\n", breakers.pending));
        out.push_str(&format!("{name}::default_priority::max_requests::{}\n", breakers.requests));
        out.push_str(&format!("{name}::default_priority::max_retries::{}\n", breakers.retries));
        for member in &cluster.members {
            let at = &member.live.place;
            let flags = match (member.health, member.live.ejected.load(Relaxed)) {
                (_, true) => "/failed_outlier_check",
                (Health::Healthy, false) => "healthy",
                (Health::Unhealthy, false) => "/failed_eds_health",
                (Health::Draining, false) => "/eds_status_draining",
            };
            out.push_str(&format!("{name}::{at}::health_flags::{flags}\n"));
            out.push_str(&format!("{name}::{at}::weight::{}\n", member.weight));
            out.push_str(&format!("{name}::{at}::rq_active::{}\n", member.live.busy.load(Relaxed)));
            out.push_str(&format!("{name}::{at}::rq_total::{}\n", member.live.requests_total.load(Relaxed)));
            out.push_str(&format!("{name}::{at}::rq_error::{}\n", member.live.failures_total.load(Relaxed)));
        }
    }
    out
}

/// `/listeners?format=json`.
pub(crate) fn listener_statuses(tables: &Tables) -> Value {
    let one = |listener: &std::sync::Arc<api::table::Listener>| {
        let spec = &listener.spec;
        json!({ "name": spec.name, "local_address": socket_address(spec.address) })
    };
    json!({ "listener_statuses": tables.table.listeners().map(one).collect::<Vec<_>>() })
}

/// `/listeners`.
pub(crate) fn listeners_text(tables: &Tables) -> String {
    let mut lines: Vec<String> = tables
        .table
        .listeners()
        .map(|listener| format!("{}::{}\n", listener.spec.name, listener.spec.address))
        .collect();
    lines.sort();
    lines.concat()
}

/// Whose object made a resource, as Istio writes it into metadata.
fn metadata(origin: Option<&Origin>) -> Value {
    let Some(Origin { object, path: _ }) = origin else { return Value::Null };
    let kind: String = object.kind.chars().enumerate().fold(String::new(), |mut text, (at, c)| {
        if c.is_uppercase() && at > 0 {
            text.push('-');
        }
        text.extend(c.to_lowercase());
        text
    });
    let group = match object.kind.as_str() {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io",
        _ => "networking.istio.io",
    };
    let config = format!("/apis/{group}/v1/namespaces/{}/{kind}/{}", object.namespace, object.name);
    json!({ "filter_metadata": { "istio": { "config": config } } })
}

pub(super) fn cluster(cluster: &Cluster) -> Value {
    let spec = &cluster.spec;
    let kind = match &spec.discovery {
        Discovery::Eds => "EDS",
        Discovery::Static(_) => "STATIC",
        Discovery::StrictDns { .. } => "STRICT_DNS",
        Discovery::LogicalDns { .. } => "LOGICAL_DNS",
        Discovery::OriginalDestination => "ORIGINAL_DST",
    };
    json!({
        "version_info": "",
        "cluster": {
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": spec.name,
            "type": kind,
            "connect_timeout": format!("{}s", spec.connect_timeout.as_secs_f64()),
            "metadata": metadata(spec.origin.as_ref()),
        },
    })
}

fn text_match(value: &TextMatch) -> Value {
    match value {
        TextMatch::Present => json!({ "prefix": "" }),
        TextMatch::Exact(text) => json!({ "exact": text }),
        TextMatch::Prefix(text) => json!({ "prefix": text }),
        TextMatch::Suffix(text) => json!({ "suffix": text }),
        TextMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex } }),
    }
}

fn route_match(matches: &RouteMatch) -> Value {
    let mut shown = match &matches.path {
        PathMatch::Exact(path) => json!({ "path": path }),
        PathMatch::Prefix(path) => json!({ "prefix": path }),
        PathMatch::SegmentPrefix(path) => json!({ "path_separated_prefix": path }),
        PathMatch::Regex(regex) => json!({ "safe_regex": { "regex": regex } }),
    };
    if !matches.headers.is_empty() {
        shown["headers"] = matches
            .headers
            .iter()
            .map(|h| json!({ "name": h.name, "string_match": text_match(&h.value), "invert_match": h.invert }))
            .collect();
    }
    if !matches.query.is_empty() {
        shown["query_parameters"] =
            matches.query.iter().map(|q| json!({ "name": q.name, "string_match": text_match(&q.value) })).collect();
    }
    shown
}

/// Writes one cluster, or several with their weights, as routes and TCP proxies name them.
fn show_clusters(clusters: &[WeightedCluster], shown: &mut Value) {
    match clusters {
        [one] => shown["cluster"] = json!(one.cluster),
        many => {
            shown["weighted_clusters"] = json!({ "clusters": many
                .iter()
                .map(|c| json!({ "name": c.cluster, "weight": c.weight }))
                .collect::<Vec<_>>() });
        }
    }
}

fn route(route: &Route) -> Value {
    let matched = route_match(&route.matches);
    let mut shown = json!({ "name": route.name, "match": matched, "metadata": metadata(route.origin.as_ref()) });
    match &route.action {
        Action::Forward(forward) => {
            let timeout = forward.timeout.unwrap_or_default().as_secs_f64();
            let mut action = json!({});
            show_clusters(&forward.clusters, &mut action);
            action["timeout"] = json!(format!("{timeout}s"));
            shown["route"] = action;
        }
        Action::Redirect(redirect) => {
            shown["redirect"] = json!({
                "host_redirect": redirect.authority,
                "path_redirect": redirect.path,
                "scheme_redirect": redirect.scheme,
            });
        }
        Action::Reply { status, .. } => shown["direct_response"] = json!({ "status": status }),
    }
    shown
}

pub(super) fn route_config(table: &RouteTable) -> Value {
    let routes = |host: &VirtualHost| host.routes.iter().map(route).collect::<Vec<_>>();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": table.name,
        "ignore_port_in_host_matching": table.ignore_port,
        "virtual_hosts": table
            .virtual_hosts
            .iter()
            .map(|host| json!({ "name": host.name, "domains": host.domains, "routes": routes(host) }))
            .collect::<Vec<_>>(),
    })
}

fn chain(chain: &FilterChain) -> Value {
    let matches = &chain.matches;
    let mut matched = json!({});
    if let Some(port) = matches.destination_port {
        matched["destination_port"] = json!(port);
    }
    if !matches.destination_ranges.is_empty() {
        matched["prefix_ranges"] = matches
            .destination_ranges
            .iter()
            .map(|net| json!({ "address_prefix": net.addr().to_string(), "prefix_len": net.prefix_len() }))
            .collect();
    }
    if !matches.server_names.is_empty() {
        matched["server_names"] = json!(matches.server_names);
    }
    if let Some(transport) = matches.transport {
        matched["transport_protocol"] = json!(match transport {
            api::spec::Transport::Raw => "raw_buffer",
            api::spec::Transport::Tls => "tls",
        });
    }
    if !matches.application_protocols.is_empty() {
        matched["application_protocols"] = json!(matches.application_protocols);
    }
    let filter = match &chain.network {
        Network::Http(server) => {
            let mut config = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": server.stat_prefix,
            });
            match &server.routes {
                RoutesRef::Named(name) => {
                    config["rds"] = json!({ "route_config_name": name, "config_source": { "ads": {} } });
                }
                RoutesRef::Inline(table) => config["route_config"] = route_config(table),
            }
            json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": config })
        }
        Network::Tcp(server) => {
            let mut config = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": server.stat_prefix,
            });
            show_clusters(&server.clusters, &mut config);
            json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": config })
        }
    };
    let mut shown = json!({ "name": chain.name, "filter_chain_match": matched, "filters": [filter] });
    if chain.tls.is_some() {
        shown["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls" });
    }
    shown
}

pub(super) fn listener(spec: &Listener) -> Value {
    let mut shown = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": spec.name,
        "address": socket_address(spec.address),
        "use_original_dst": spec.use_original_destination,
        "bind_to_port": spec.bind,
        "filter_chains": spec.chains.iter().map(chain).collect::<Vec<_>>(),
        "traffic_direction": match spec.direction {
            api::spec::Direction::Inbound => "INBOUND",
            api::spec::Direction::Outbound | api::spec::Direction::Gateway => "OUTBOUND",
        },
        "metadata": metadata(spec.origin.as_ref()),
    });
    if let Some(default) = &spec.default_chain {
        shown["default_filter_chain"] = chain(default);
    }
    json!({ "name": spec.name, "active_state": { "version_info": "", "listener": shown } })
}

pub(super) fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default()
}

/// `/spec`: everything but secrets, in our own form, as `meshctl` reads it.
pub(crate) fn spec(tables: &Tables) -> Value {
    let mut spec = api::spec::Spec::default();
    for listener in tables.table.listeners() {
        spec.listeners.insert(listener.spec.name.clone(), std::sync::Arc::clone(&listener.spec));
    }
    for routes in tables.table.all_routes() {
        spec.routes.insert(routes.spec.name.clone(), std::sync::Arc::clone(&routes.spec));
    }
    for (_, cluster) in tables.table.clusters() {
        spec.clusters.insert(cluster.spec.name.clone(), std::sync::Arc::clone(&cluster.spec));
        if let Some(endpoints) = &cluster.endpoints {
            spec.endpoints.insert(endpoints.cluster.clone(), std::sync::Arc::clone(endpoints));
        }
    }
    serde_json::to_value(&spec).unwrap_or(Value::Null)
}

/// `/certs`.
pub(crate) fn certificates(identity: &Identity, now: SystemTime) -> Value {
    let mut shown = json!({});
    if let Some(own) = identity.certificate().get() {
        let left = own.not_after().duration_since(now).unwrap_or_default();
        shown["cert_chain"] = json!([{
            "path": "<inline>",
            "serial_number": own.serial(),
            "subject_alt_names": own.uris().iter().map(|uri| json!({ "uri": uri })).collect::<Vec<_>>(),
            "days_until_expiration": (left.as_secs() / 86_400).to_string(),
            "valid_from": time(own.not_before()),
            "expiration_time": time(own.not_after()),
        }]);
    }
    if let Some(roots) = identity.roots().get() {
        shown["ca_cert"] = json!([{ "path": "<inline>", "count": roots.anchors().len() }]);
    }
    json!({ "certificates": [shown] })
}

//! `/config_dump`: what serves now as a list of Envoy's dumps, in Envoy's order, and the parts of it that a reader asks for.
//!
//! Without parameters: bootstrap, clusters, listeners, routes and secrets; with `include_eds` the endpoints too.
//! `resource` names one list (`dynamic_listeners`), `name_regex` keeps what has a matching name.
//! Never here: keys, or what a single resource looks like (`dump`). Called by `admin`.

use std::sync::Arc;

use api_rt::identity::Identity;
use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;
use serde_json::{Value, json};

use super::dump::{cluster, health, listener, place, route_config, time};
use crate::table::{Cluster, Tables};

/// What a reader asks for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Endpoints too.
    pub(crate) endpoints: bool,
    /// One list only.
    pub(crate) resource: Option<String>,
    /// Only what has a matching name.
    pub(crate) names: Option<Regex>,
}

/// Why a part cannot be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} not found in config dump")]
pub(crate) struct NoSuchList(String);

fn typed(name: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/envoy.admin.v3.{name}"));
    fields
}

fn endpoints(cluster: &Arc<Cluster>) -> Value {
    let one = |member: &crate::table::cluster::Member| {
        json!({
            "endpoint": { "address": place(&member.live.place) },
            "health_status": health(member),
            "load_balancing_weight": member.weight,
        })
    };
    json!({
        "endpoint_config": {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": cluster.name,
            "endpoints": [{ "lb_endpoints": cluster.members.iter().map(one).collect::<Vec<_>>() }],
        },
    })
}

fn secrets(identity: &Identity) -> Vec<Value> {
    let mut secrets = Vec::new();
    let typed = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    if let Some(own) = identity.certificate().get() {
        secrets.push(json!({
            "name": "default",
            "version_info": own.serial(),
            "last_updated": time(own.not_before()),
            "secret": {
                "@type": typed,
                "name": "default",
                "tls_certificate": {
                    "certificate_chain": { "inline_bytes": STANDARD.encode(own.chain_pem()) },
                    "private_key": { "inline_bytes": STANDARD.encode("[redacted]") },
                },
            },
        }));
    }
    if let Some(roots) = identity.roots().get() {
        secrets.push(json!({
            "name": "ROOTCA",
            "secret": {
                "@type": typed,
                "name": "ROOTCA",
                "validation_context": { "trusted_ca": { "inline_bytes": STANDARD.encode(roots.pem()) } },
            },
        }));
    }
    secrets
}

/// The name of an element of any list.
fn name(element: &Value) -> Option<&str> {
    let inner = ["cluster", "route_config"].iter().find_map(|key| element.get(key)?.get("name"));
    let endpoints = element.get("endpoint_config").and_then(|config| config.get("cluster_name"));
    element.get("name").or(inner).or(endpoints)?.as_str()
}

/// The dump; `bootstrap`: what the process began with.
///
/// # Errors
/// There is no such list.
pub(crate) fn dump(
    tables: &Tables,
    identity: &Identity,
    bootstrap: &Value,
    wanted: &Wanted,
) -> Result<Value, NoSuchList> {
    let version = tables.version.to_string();
    let listeners: Vec<Value> = tables.table.listeners().map(|l| listener(&l.spec)).collect();
    let routes: Vec<Value> = tables
        .table
        .all_routes()
        .map(|routes| json!({ "version_info": version, "route_config": route_config(&routes.spec) }))
        .collect();
    let clusters: Vec<Value> = tables.clusters().map(|c| cluster(c)).collect();
    let mut configs = vec![
        typed("BootstrapConfigDump", json!({ "bootstrap": bootstrap })),
        typed("ClustersConfigDump", json!({ "version_info": version, "dynamic_active_clusters": clusters })),
    ];
    if wanted.endpoints {
        let all: Vec<Value> = tables.clusters().map(endpoints).collect();
        configs.push(typed("EndpointsConfigDump", json!({ "dynamic_endpoint_configs": all })));
    }
    configs.push(typed("ListenersConfigDump", json!({ "version_info": version, "dynamic_listeners": listeners })));
    configs.push(typed("RoutesConfigDump", json!({ "dynamic_route_configs": routes })));
    configs.push(typed("SecretsConfigDump", json!({ "dynamic_active_secrets": secrets(identity) })));
    if let Some(names) = &wanted.names {
        let lists = configs.iter_mut().filter_map(Value::as_object_mut).flat_map(|dump| dump.values_mut());
        for list in lists.filter_map(Value::as_array_mut) {
            list.retain(|element| name(element).is_some_and(|name| names.is_match(name)));
        }
    }
    if let Some(resource) = &wanted.resource {
        let found = configs.iter_mut().find_map(|dump| dump.get_mut(resource).map(Value::take));
        configs = match found {
            Some(Value::Array(elements)) => elements,
            Some(other) => vec![other],
            None => return Err(NoSuchList(resource.clone())),
        };
    }
    Ok(json!({ "configs": configs }))
}

//! Which kinds are served: legacy lists and the aggregated form, and the version.
//!
//! Never here: schemas (see `openapi`). Called by `server` for `/api`, `/apis` and below.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Served};
use crate::reply::{self, Body, Refusal};

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "33",
        "emulationMajor": "1", "emulationMinor": "33", "minCompatibilityMajor": "1", "minCompatibilityMinor": "32",
        "gitVersion": "v1.33.4", "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "rust", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// The aggregated form that a client takes, if any.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().unwrap_or_default().split(',') {
            let has = |text: &str| range.split(';').any(|part| part.trim() == text);
            if has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") {
                if has("v=v2") {
                    return Some("v2");
                }
                if has("v=v2beta1") {
                    return Some("v2beta1");
                }
            }
        }
    }
    None
}

/// Answers a discovery path; `None` for any other.
pub(crate) fn answer(path: &str, headers: &HeaderMap, served: &Served) -> Option<Result<Response<Body>, Refusal>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ok = |value: Value| Some(Ok(reply::json_body(StatusCode::OK, &value)));
    match parts[..] {
        ["api"] => match aggregated(headers) {
            Some(version) => Some(Ok(aggregate(version, served, true))),
            None => ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        },
        ["apis"] => match aggregated(headers) {
            Some(version) => Some(Ok(aggregate(version, served, false))),
            None => ok(json!({
                "kind": "APIGroupList", "apiVersion": "v1",
                "groups": groups(served).iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>(),
            })),
        },
        ["apis", name] => match groups(served).iter().find(|(group, _)| group == name) {
            Some((name, versions)) => {
                let mut value = group(name, versions);
                let map = crate::object::object(&mut value);
                map.insert("kind".to_owned(), "APIGroup".into());
                map.insert("apiVersion".to_owned(), "v1".into());
                ok(value)
            }
            None => Some(Err(Refusal::unknown_resource())),
        },
        ["api", version] => resources("", version, served),
        ["apis", group, version] => resources(group, version, served),
        _ => None,
    }
}

/// Named groups with their versions, in order of preference.
fn groups(served: &Served) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for kind in served.kinds().iter().filter(|kind| !kind.group.is_empty()) {
        match all.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version.clone()),
            None => all.push((kind.group.clone(), vec![kind.version.clone()])),
        }
    }
    for (group, versions) in &mut all {
        if group != "autoscaling" {
            versions.sort_by_key(|version| std::cmp::Reverse(crate::crd::rank(version)));
        }
    }
    all
}

fn group(name: &str, versions: &[String]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// Kind of what a subresource takes and gives, where it is not the object itself.
fn foreign(kind: &Kind, subresource: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match (kind.plural.as_str(), subresource) {
        (_, "scale") => Some(("autoscaling", "v1", "Scale")),
        ("pods", "eviction") => Some(("policy", "v1", "Eviction")),
        ("pods", "binding") => Some(("", "v1", "Binding")),
        ("pods", "exec") => Some(("", "v1", "PodExecOptions")),
        ("pods", "attach") => Some(("", "v1", "PodAttachOptions")),
        ("pods", "portforward") => Some(("", "v1", "PodPortForwardOptions")),
        ("serviceaccounts", "token") => Some(("authentication.k8s.io", "v1", "TokenRequest")),
        _ => None,
    }
}

fn subresource_verbs(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "eviction" | "binding" | "token" => &["create"],
        "exec" | "attach" | "portforward" => &["create", "get"],
        "log" => &["get"],
        "finalize" => &["update"],
        _ => &["get", "patch", "update"],
    }
}

fn resources(group: &str, version: &str, served: &Served) -> Option<Result<Response<Body>, Refusal>> {
    let kinds: Vec<&Arc<Kind>> =
        served.kinds().iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let Some(first) = kinds.first() else { return Some(Err(Refusal::unknown_resource())) };
    let mut rows = Vec::new();
    for kind in &kinds {
        let mut row = Map::new();
        row.insert("name".to_owned(), kind.plural.clone().into());
        row.insert("singularName".to_owned(), kind.singular.clone().into());
        row.insert("namespaced".to_owned(), kind.namespaced.into());
        row.insert("kind".to_owned(), kind.kind.clone().into());
        row.insert("verbs".to_owned(), json!(kind.verbs()));
        if !kind.short.is_empty() {
            row.insert("shortNames".to_owned(), json!(kind.short));
        }
        if !kind.categories.is_empty() {
            row.insert("categories".to_owned(), json!(kind.categories));
        }
        rows.push(Value::Object(row));
        for subresource in &kind.subresources {
            let mut row = Map::new();
            row.insert("name".to_owned(), format!("{}/{subresource}", kind.plural).into());
            row.insert("singularName".to_owned(), "".into());
            row.insert("namespaced".to_owned(), kind.namespaced.into());
            if let Some((group, version, name)) = foreign(kind, subresource) {
                if group != kind.group || version != kind.version {
                    row.insert("group".to_owned(), group.into());
                    row.insert("version".to_owned(), version.into());
                }
                row.insert("kind".to_owned(), name.into());
            } else {
                row.insert("kind".to_owned(), kind.kind.clone().into());
            }
            row.insert("verbs".to_owned(), json!(subresource_verbs(subresource)));
            rows.push(Value::Object(row));
        }
    }
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": rows,
    });
    Some(Ok(reply::json_body(StatusCode::OK, &list)))
}

fn aggregate(version: &str, served: &Served, core: bool) -> Response<Body> {
    let mut by_group: Vec<(String, BTreeMap<String, Vec<Value>>)> = Vec::new();
    for kind in served.kinds().iter().filter(|kind| kind.group.is_empty() == core) {
        let at = match by_group.iter().position(|(group, _)| *group == kind.group) {
            Some(at) => at,
            None => {
                by_group.push((kind.group.clone(), BTreeMap::new()));
                by_group.len() - 1
            }
        };
        by_group[at].1.entry(kind.version.clone()).or_default().push(aggregate_row(kind));
    }
    let order = groups(served);
    let items: Vec<Value> = by_group
        .into_iter()
        .map(|(group, mut versions)| {
            let names = if core {
                vec!["v1".to_owned()]
            } else {
                order.iter().find(|(name, _)| *name == group).map(|(_, versions)| versions.clone()).unwrap_or_default()
            };
            let versions: Vec<Value> = names
                .into_iter()
                .map(|name| {
                    let resources = versions.remove(&name).unwrap_or_default();
                    json!({"version": name, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    let media = if version == "v2" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    };
    reply::whole(StatusCode::OK, media, list.to_string())
}

fn aggregate_row(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, name) = foreign(kind, subresource).unwrap_or((&kind.group, &kind.version, &kind.kind));
            json!({
                "subresource": subresource,
                "responseKind": {"group": group, "version": version, "kind": name},
                "verbs": subresource_verbs(subresource),
            })
        })
        .collect();
    let mut row = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    let map = crate::object::object(&mut row);
    for (name, list) in [("shortNames", &kind.short), ("categories", &kind.categories)] {
        if !list.is_empty() {
            map.insert(name.to_owned(), json!(list));
        }
    }
    if !subresources.is_empty() {
        map.insert("subresources".to_owned(), subresources.into());
    }
    row
}

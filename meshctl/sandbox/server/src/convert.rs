//! Between the version an object is stored in and the one a request speaks.
//!
//! Most kinds have one version. Custom resources differ only in apiVersion; Events and autoscalers in fields; old
//! Deployments are views of `apps/v1`. Never here: defaults. Called by every verb.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::object;
use crate::store::Item;

/// The stored object as this kind shows it.
pub(crate) fn view(kind: &Kind, item: &Item) -> Value {
    let mut value = item.value();
    if !stored_so(kind, item) {
        from_storage(kind, &mut value);
    }
    value
}

/// As `view`, as text.
pub(crate) fn view_bytes(kind: &Kind, item: &Item) -> Bytes {
    if stored_so(kind, item) { item.json.clone() } else { Bytes::from(view(kind, item).to_string()) }
}

/// Whether the stored text is already in the kind's version; `input::arrange` puts apiVersion first.
fn stored_so(kind: &Kind, item: &Item) -> bool {
    let prefix = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\"", kind.api_version(), kind.kind);
    item.json.starts_with(prefix.as_bytes())
}

fn from_storage(kind: &Kind, value: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("events.k8s.io", "events") => event_to_new(value),
        ("autoscaling", "horizontalpodautoscalers") if kind.version == "v1" => autoscaler_to_v1(value),
        _ => {}
    }
    object::object(value).insert("apiVersion".to_owned(), kind.api_version().into());
}

/// The apiVersion that this kind's objects are stored under.
pub(crate) fn storage_version(kind: &Kind) -> String {
    if let Some(custom) = kind.custom() {
        return format!("{}/{}", kind.group, custom.storage_version);
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("events.k8s.io", "events") => "v1".to_owned(),
        ("autoscaling", "horizontalpodautoscalers") => "autoscaling/v2".to_owned(),
        _ if kind.is_old_deployment() => "apps/v1".to_owned(),
        _ => kind.api_version(),
    }
}

/// Rewrites an object of this kind as it is stored.
pub(crate) fn to_storage(kind: &Kind, value: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("events.k8s.io", "events") => event_to_old(value),
        ("autoscaling", "horizontalpodautoscalers") if kind.version == "v1" => autoscaler_to_v2(value),
        _ => {}
    }
    object::object(value).insert("apiVersion".to_owned(), storage_version(kind).into());
}

/// (core name, events.k8s.io name) of members that are only renamed.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn event_to_new(value: &mut Value) {
    let map = object::object(value);
    for (old, new) in EVENT_NAMES {
        rename(map, old, new);
    }
}

fn event_to_old(value: &mut Value) {
    let map = object::object(value);
    for (old, new) in EVENT_NAMES {
        rename(map, new, old);
    }
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(inner) = object::take(map, from) {
        map.insert(to.to_owned(), inner);
    }
}

const CPU: &str = "cpu";

fn is_cpu_utilization(metric: &Value) -> bool {
    object::text(metric, "/resource/name") == CPU && object::text(metric, "/resource/target/type") == "Utilization"
}

/// v1 has one metric, processor use; others ride in an annotation there, and are left out here.
fn autoscaler_to_v1(value: &mut Value) {
    let target = object::items(value, "/spec/metrics")
        .iter()
        .find(|metric| is_cpu_utilization(metric))
        .and_then(|metric| metric.pointer("/resource/target/averageUtilization"))
        .cloned();
    let spec = object::member(value, "spec");
    object::take(spec, "metrics");
    object::take(spec, "behavior");
    if let Some(target) = target {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
    }
    let current = object::items(value, "/status/currentMetrics")
        .iter()
        .find_map(|metric| metric.pointer("/resource/current/averageUtilization"))
        .cloned();
    if value.get("status").is_some() {
        let status = object::member(value, "status");
        object::take(status, "currentMetrics");
        object::take(status, "conditions");
        if let Some(current) = current {
            status.insert("currentCPUUtilizationPercentage".to_owned(), current);
        }
    }
}

fn autoscaler_to_v2(value: &mut Value) {
    let spec = object::member(value, "spec");
    if let Some(target) = object::take(spec, "targetCPUUtilizationPercentage") {
        spec.insert("metrics".to_owned(), cpu_metric(&target));
    }
    if value.get("status").is_some() {
        object::take(object::member(value, "status"), "currentCPUUtilizationPercentage");
    }
}

fn cpu_metric(target: &Value) -> Value {
    json!([{"type": "Resource", "resource": {"name": CPU, "target": {"type": "Utilization", "averageUtilization": target}}}])
}

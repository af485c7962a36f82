//! Every object of a cluster, as kubectl lists them: what an install adds, and what is left after it is gone.
//!
//! Never here: what an install should add. Called by the suite `install`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;

/// Kind, namespace and name, and the object.
pub type Objects = BTreeMap<String, Value>;

/// Types that tell of the others, and come and go by themselves.
const ECHOES: [&str; 2] = ["events", "events.events.k8s.io"];
/// Kinds that programs make while they run; their names or contents differ from run to run.
const MADE_AT_RUN_TIME: [&str; 6] = ["ReplicaSet", "Pod", "Endpoints", "EndpointSlice", "Lease", "ControllerRevision"];
const NAMES_MADE_AT_RUN_TIME: [&str; 2] = ["istio-ca-secret", "istio-ca-root-cert"];

/// Everything there is, but for events.
///
/// # Errors
/// kubectl cannot list.
pub fn all(kubectl: &Kubectl) -> Result<Objects> {
    let types = kubectl.ok(&["api-resources", "--verbs=list", "-o", "name"])?;
    let types: Vec<&str> = types.lines().filter(|name| !ECHOES.contains(name)).collect();
    let listed = kubectl.ok(&["get", &types.join(","), "-A", "-o", "json"])?;
    let list: Value = serde_json::from_str(&listed)?;
    let items = list["items"].as_array().context("not a list")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |one: &Value| {
        let metadata = &one["metadata"];
        [text(&one["kind"]), text(&metadata["namespace"]), text(&metadata["name"])].join("/")
    };
    Ok(items.iter().map(|one| (name(one), one.clone())).collect())
}

/// What was declared: without what programs made of it, and without what a server adds to each object.
pub fn declared(objects: &Objects) -> Objects {
    let kept = objects.iter().filter(|(name, object)| {
        let made = |list: &[&str], value: &Value| list.iter().any(|one| value == one);
        !made(&MADE_AT_RUN_TIME, &object["kind"])
            && !made(&NAMES_MADE_AT_RUN_TIME, &object["metadata"]["name"])
            && !name.contains("/kube-")
    });
    kept.map(|(name, object)| (name.clone(), stripped(object))).collect()
}

fn stripped(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            annotations.remove("deployment.kubernetes.io/revision");
        }
        metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    // Given out by the server, and signed by a root of this cluster's own.
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["clusterIP", "clusterIPs"] {
            spec.remove(field);
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
    for webhook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(client) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) {
            client.remove("caBundle");
        }
    }
    object
}

/// Names where two sets differ, each with what differs.
pub fn differences(one: &Objects, other: &Objects) -> Vec<String> {
    let mut found = Vec::new();
    for (name, object) in one {
        match other.get(name) {
            None => found.push(format!("{name} is missing")),
            Some(there) if there != object => found.push(format!("{name} differs:\n{object}\n{there}")),
            Some(_) => {}
        }
    }
    found.extend(other.keys().filter(|name| !one.contains_key(*name)).map(|name| format!("{name} is added")));
    found
}

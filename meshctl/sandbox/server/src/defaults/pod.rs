//! Defaults of Pods and Pod templates.
//!
//! Never here: service accounts (see `admission`). Called by `defaults` and `workload`.

use serde_json::{Value, json};

use super::{Members, each, inner};
use crate::object::{self, fill, fill_text};

pub(super) fn template(owner: &mut Members) {
    let template = object::object(owner.entry("template").or_insert_with(|| json!({})));
    let metadata = object::object(template.entry("metadata").or_insert_with(|| json!({})));
    metadata.entry("creationTimestamp").or_insert(Value::Null);
    spec(object::object(template.entry("spec").or_insert_with(|| json!({}))));
}

/// What Pods have and templates have not.
pub(super) fn only_pods(spec: &mut Members) {
    fill(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            // Limits count as requests where none are given.
            let limits = container.get("resources").and_then(|resources| resources.get("limits")).cloned();
            if let Some(Value::Object(limits)) = limits {
                inner(container, "resources", |resources| {
                    let requests = object::object(resources.entry("requests").or_insert_with(|| json!({})));
                    for (name, amount) in limits {
                        requests.entry(name).or_insert(amount);
                    }
                });
            }
        });
    }
}

pub(super) fn spec(spec: &mut Members) {
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "securityContext", json!({}));
    if let Some(account) = spec.get("serviceAccountName").filter(|name| name.as_str() != Some("")).cloned() {
        spec.insert("serviceAccount".to_owned(), account);
    } else if let Some(account) = spec.get("serviceAccount").filter(|name| name.as_str() != Some("")).cloned() {
        spec.insert("serviceAccountName".to_owned(), account);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, |container| self::container(container, host_network));
    }
    each(spec, "volumes", volume);
}

fn container(container: &mut Members, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    fill_text(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    each(container, "ports", |port| {
        fill_text(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            fill(port, "hostPort", number);
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        inner(container, name, probe);
    }
    inner(container, "lifecycle", |lifecycle| {
        for name in ["postStart", "preStop"] {
            inner(lifecycle, name, |handler| inner(handler, "httpGet", http_get));
        }
    });
    each(container, "env", |variable| {
        inner(variable, "valueFrom", |source| {
            inner(source, "fieldRef", |field| fill_text(field, "apiVersion", "v1"));
            inner(source, "resourceFieldRef", |field| fill(field, "divisor", "0"));
        });
    });
}

fn http_get(get: &mut Members) {
    fill_text(get, "path", "/");
    fill_text(get, "scheme", "HTTP");
}

fn probe(probe: &mut Members) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(name).is_none_or(|old| old.is_null() || old == 0) {
            probe.insert(name.to_owned(), value.into());
        }
    }
    inner(probe, "httpGet", http_get);
    inner(probe, "grpc", |grpc| fill(grpc, "service", ""));
}

fn volume(volume: &mut Members) {
    if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap"] {
        inner(volume, name, |source| fill(source, "defaultMode", 420));
    }
    inner(volume, "hostPath", |source| fill(source, "type", ""));
    inner(volume, "downwardAPI", |source| {
        fill(source, "defaultMode", 420);
        each(source, "items", downward);
    });
    inner(volume, "projected", |projected| {
        fill(projected, "defaultMode", 420);
        each(projected, "sources", |source| {
            inner(source, "serviceAccountToken", |token| fill(token, "expirationSeconds", 3600));
            inner(source, "downwardAPI", |files| each(files, "items", downward));
        });
    });
}

fn downward(item: &mut Members) {
    inner(item, "fieldRef", |field| fill_text(field, "apiVersion", "v1"));
    inner(item, "resourceFieldRef", |field| fill(field, "divisor", "0"));
}

/// The quality-of-service class.
pub(super) fn quality(pod: &Value) -> &'static str {
    let containers = object::items(pod, "/spec/containers").iter().chain(object::items(pod, "/spec/initContainers"));
    let (mut any, mut all) = (false, true);
    for container in containers {
        let amount = |kind: &str, name: &str| container.pointer(&format!("/resources/{kind}/{name}"));
        for name in ["cpu", "memory"] {
            let (limit, request) = (amount("limits", name), amount("requests", name));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

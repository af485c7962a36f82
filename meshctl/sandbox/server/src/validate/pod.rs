//! Pods and Pod templates.
//!
//! Never here: quotas, security. Called by `validate` and `workload`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{join, meta};
use crate::object;
use crate::reply::Cause;

pub(super) fn check(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    match old {
        None => self::spec(spec, "spec", causes),
        Some(old) => unchanged(spec, old.get("spec").unwrap_or(&Value::Null), causes),
    }
}

/// Of a Pod's spec only a few fields may change.
fn unchanged(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let bare = |spec: &Value| {
        let mut spec = spec.clone();
        let map = object::object(&mut spec);
        for name in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "schedulingGates",
            "nodeName",
            "ephemeralContainers",
        ] {
            object::take(map, name);
        }
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(items)) = map.get_mut(list) {
                for item in items {
                    object::take(object::object(item), "image");
                }
            }
        }
        spec
    };
    let node = |spec: &Value| object::text(spec, "/nodeName").to_owned();
    let moved = !node(old).is_empty() && node(old) != node(new);
    if bare(new) != bare(old) || moved {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

/// A template: its labels and spec.
pub(super) fn template(template: &Value, path: &str, causes: &mut Vec<Cause>) {
    meta::labels(template.pointer("/metadata/labels"), &join(path, "metadata.labels"), causes);
    spec(template.get("spec").unwrap_or(&Value::Null), &join(path, "spec"), causes);
}

fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut volumes = BTreeSet::new();
    for (index, volume) in object::items(spec, "/volumes").iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        let name = object::text(volume, "/name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if let Some(why) = meta::label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &name.into(), why));
        }
        if !volumes.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
        }
        let sources = volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count());
        if sources == 0 {
            causes.push(Cause::required(at, "must specify a volume type"));
        } else if sources > 1 {
            causes.push(Cause::forbidden(at, "may not specify more than 1 volume type"));
        }
    }
    let containers = object::items(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in object::items(spec, &format!("/{list}")).iter().enumerate() {
            self::container(container, &format!("{path}.{list}[{index}]"), &volumes, &mut names, causes);
        }
    }
    let policy = object::text(spec, "/restartPolicy");
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        causes.push(Cause::unsupported(
            format!("{path}.restartPolicy"),
            &policy.into(),
            &["Always", "Never", "OnFailure"],
        ));
    }
    let dns = object::text(spec, "/dnsPolicy");
    if !matches!(dns, "ClusterFirst" | "ClusterFirstWithHostNet" | "Default" | "None") {
        let allowed = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
        causes.push(Cause::unsupported(format!("{path}.dnsPolicy"), &dns.into(), &allowed));
    }
}

fn container<'c>(
    container: &'c Value,
    path: &str,
    volumes: &BTreeSet<&str>,
    names: &mut BTreeSet<&'c str>,
    causes: &mut Vec<Cause>,
) {
    let name = object::text(container, "/name");
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    } else if let Some(why) = meta::label(name) {
        causes.push(Cause::invalid(format!("{path}.name"), &name.into(), why));
    } else if !names.insert(name) {
        causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
    }
    let image = object::text(container, "/image");
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        causes.push(Cause::invalid(
            format!("{path}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        ));
    }
    let policy = object::text(container, "/imagePullPolicy");
    if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
        causes.push(Cause::unsupported(
            format!("{path}.imagePullPolicy"),
            &policy.into(),
            &["Always", "IfNotPresent", "Never"],
        ));
    }
    ports(container, path, causes);
    environment(container, path, causes);
    mounts(container, path, volumes, causes);
    resources(container, path, causes);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(name) {
            self::probe(probe, &format!("{path}.{name}"), causes);
        }
    }
}

fn ports(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, port) in object::items(container, "/ports").iter().enumerate() {
        let at = format!("{path}.ports[{index}]");
        number(port.get("containerPort"), &format!("{at}.containerPort"), causes);
        let protocol = object::text(port, "/protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(format!("{at}.protocol"), &protocol.into(), &["SCTP", "TCP", "UDP"]));
        }
        let name = object::text(port, "/name");
        if !name.is_empty() && name.len() > 15 {
            causes.push(Cause::invalid(format!("{at}.name"), &name.into(), "must be no more than 15 characters"));
        }
    }
}

fn environment(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, variable) in object::items(container, "/env").iter().enumerate() {
        let at = format!("{path}.env[{index}]");
        if object::text(variable, "/name").is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        let plain = !object::text(variable, "/value").is_empty();
        if plain && variable.get("valueFrom").is_some() {
            causes.push(Cause::invalid(
                format!("{at}.valueFrom"),
                &"".into(),
                "may not be specified when `value` is not empty",
            ));
        }
    }
}

/// What is mounted must be a volume of the Pod.
fn mounts(container: &Value, path: &str, volumes: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    let mut mounts = BTreeSet::new();
    for (index, mount) in object::items(container, "/volumeMounts").iter().enumerate() {
        let at = format!("{path}.volumeMounts[{index}]");
        let name = object::text(mount, "/name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{at}.name"), &name.into()));
        }
        let target = object::text(mount, "/mountPath");
        if target.is_empty() {
            causes.push(Cause::required(format!("{at}.mountPath"), ""));
        } else if !mounts.insert(target) {
            causes.push(Cause::invalid(format!("{at}.mountPath"), &target.into(), "must be unique"));
        }
    }
}

fn resources(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for list in ["limits", "requests"] {
        for (name, amount) in object::members(container, &format!("/resources/{list}")).into_iter().flatten() {
            let at = format!("{path}.resources.{list}[{name}]");
            if amount.as_str().is_some_and(|text| crate::quantity::nanos(text).is_ok_and(|amount| amount < 0)) {
                causes.push(Cause::invalid(at, amount, "must be greater than or equal to 0"));
                continue;
            }
            let limit = container.pointer(&format!("/resources/limits/{name}")).and_then(Value::as_str);
            let nanos = |text: &str| crate::quantity::nanos(text).ok();
            if list == "requests"
                && let (Some(request), Some(limit)) = (amount.as_str().and_then(nanos), limit.and_then(nanos))
                && request > limit
            {
                let shown =
                    container.pointer(&format!("/resources/limits/{name}")).and_then(Value::as_str).unwrap_or_default();
                causes.push(Cause::invalid(
                    format!("{path}.resources.requests"),
                    amount,
                    format!("must be less than or equal to {name} limit of {shown}"),
                ));
            }
        }
    }
}

fn probe(probe: &Value, path: &str, causes: &mut Vec<Cause>) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].iter().filter(|name| probe.get(**name).is_some()).count();
    if handlers == 0 {
        causes.push(Cause::required(path, "must specify a handler type"));
    } else if handlers > 1 {
        causes.push(Cause::forbidden(path, "may not specify more than 1 handler type"));
    }
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(value) = probe.get(name).filter(|value| value.as_i64().is_some_and(|value| value < 0)) {
            causes.push(Cause::invalid(format!("{path}.{name}"), value, "must be greater than or equal to 0"));
        }
    }
}

/// A port number.
pub(super) fn number(value: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    match value {
        None => causes.push(Cause::required(path, "")),
        Some(value) if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) => {
            causes.push(Cause::invalid(path, value, "must be between 1 and 65535, inclusive"));
        }
        Some(_) => {}
    }
}

//! Defaults of the smaller kinds.
//!
//! Never here: workloads, Services. Called by `defaults`.

use serde_json::{Value, json};

use super::each;
use crate::clock;
use crate::core::Core;
use crate::object::{self, fill, fill_text};

pub(super) fn endpoints(value: &mut Value) {
    each(object::object(value), "subsets", |subset| each(subset, "ports", |port| fill_text(port, "protocol", "TCP")));
}

pub(super) fn endpoint_slice(value: &mut Value) {
    each(object::object(value), "ports", |port| {
        fill(port, "name", "");
        fill_text(port, "protocol", "TCP");
    });
    if let Value::Object(map) = value {
        map.entry("endpoints").or_insert_with(|| json!([]));
    }
}

/// `stringData` is written, never stored.
pub(super) fn secret(value: &mut Value) {
    use base64::Engine as _;
    let map = object::object(value);
    fill_text(map, "type", "Opaque");
    if let Some(Value::Object(texts)) = object::take(map, "stringData") {
        let data = object::object(map.entry("data").or_insert_with(|| json!({})));
        for (name, text) in texts {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            data.insert(name, encoded.into());
        }
    }
}

pub(super) fn event(value: &mut Value) {
    let map = object::object(value);
    for name in ["reportingComponent", "reportingInstance"] {
        map.entry(name).or_insert_with(|| "".into());
    }
    map.entry("source").or_insert_with(|| json!({}));
}

pub(super) fn webhooks(value: &mut Value, mutating: bool) {
    each(object::object(value), "webhooks", |webhook| {
        fill_text(webhook, "failurePolicy", "Fail");
        fill_text(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        if mutating {
            fill_text(webhook, "reinvocationPolicy", "Never");
        }
        each(webhook, "rules", |rule| fill_text(rule, "scope", "*"));
        super::inner(webhook, "clientConfig", |config| {
            super::inner(config, "service", |service| fill(service, "port", 443));
        });
    });
}

pub(super) fn binding(value: &mut Value) {
    let map = object::object(value);
    super::inner(map, "roleRef", |role| fill_text(role, "apiGroup", "rbac.authorization.k8s.io"));
    each(map, "subjects", |subject| {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            fill_text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    });
}

pub(super) fn network_policy(value: &mut Value) {
    let spec = object::member(value, "spec");
    if spec.get("policyTypes").is_none() {
        let mut types = vec!["Ingress"];
        if spec.get("egress").is_some_and(|egress| !egress.is_null()) {
            types.push("Egress");
        }
        spec.insert("policyTypes".to_owned(), json!(types));
    }
    for list in ["ingress", "egress"] {
        each(spec, list, |rule| each(rule, "ports", |port| fill_text(port, "protocol", "TCP")));
    }
}

/// A Job selects its Pods by its own uid.
pub(super) fn new_job(value: &mut Value) {
    let (uid, name) = (object::uid(value).to_owned(), object::name(value).to_owned());
    let spec = object::member(value, "spec");
    if spec.get("manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let template = object::object(spec.entry("template").or_insert_with(|| json!({})));
    let metadata = object::object(template.entry("metadata").or_insert_with(|| json!({})));
    let labels = object::object(metadata.entry("labels").or_insert_with(|| json!({})));
    for (key, text) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels.insert(key.to_owned(), text.clone().into());
    }
    spec.insert("selector".to_owned(), json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}

pub(super) fn crd(value: &mut Value) {
    let spec = object::member(value, "spec");
    fill(spec, "conversion", json!({"strategy": "None"}));
    let names = object::object(spec.entry("names").or_insert_with(|| json!({})));
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    fill_text(names, "singular", &kind.to_lowercase());
    fill_text(names, "listKind", &format!("{kind}List"));
}

/// The server accepts names at once: a new CRD is established when it is stored.
pub(super) fn new_crd(core: &Core, value: &mut Value) {
    let now = clock::seconds(clock::now());
    let names = value.pointer("/spec/names").cloned().unwrap_or_default();
    let group = object::text(value, "/spec/group").to_owned();
    let taken = core.registry.served().kinds().iter().any(|kind| {
        kind.group == group
            && kind.kind == object::text(&names, "/kind")
            && kind.plural != object::text(&names, "/plural")
    });
    let storage: Vec<Value> = object::items(value, "/spec/versions")
        .iter()
        .filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .map(|version| object::text(version, "/name").into())
        .collect();
    let condition = |name: &str, ok: bool, reason: &str, message: &str| {
        json!({
            "type": name, "status": if ok { "True" } else { "False" }, "lastTransitionTime": now,
            "reason": reason, "message": message,
        })
    };
    let conditions = if taken {
        let message = format!("{:?} is already in use", object::text(&names, "/kind"));
        json!([
            condition("NamesAccepted", false, "KindConflict", &message),
            condition("Established", false, "NotAccepted", "not all names are accepted"),
        ])
    } else {
        json!([
            condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
            condition("Established", true, "InitialNamesAccepted", "the initial names have been accepted"),
        ])
    };
    let status = json!({"acceptedNames": names, "storedVersions": storage, "conditions": conditions});
    object::object(value).insert("status".to_owned(), status);
}

/// Names follow the spec; versions that were ever stored stay listed.
pub(super) fn changed_crd(old: &Value, new: &mut Value) {
    let names = new.pointer("/spec/names").cloned().unwrap_or_default();
    let storage: Vec<Value> = object::items(new, "/spec/versions")
        .iter()
        .filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .map(|version| object::text(version, "/name").into())
        .collect();
    let mut stored: Vec<Value> = match new.pointer("/status/storedVersions") {
        Some(Value::Array(list)) => list.clone(),
        _ => object::items(old, "/status/storedVersions").to_vec(),
    };
    for version in storage {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    let status = object::member(new, "status");
    status.insert("acceptedNames".to_owned(), names);
    status.insert("storedVersions".to_owned(), stored.into());
}

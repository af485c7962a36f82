//! Defaults, as the real server stores them.
//!
//! Filling is idempotent and fills only what is absent. Never here: admission, checks of values.
//! Called by create, update and patch before and after admission.

mod pod;
mod rest;
mod service;
mod workload;

pub(crate) use service::allocate;

use serde_json::{Map, Value, json};

use crate::core::Core;
use crate::kinds::{Kind, Model};
use crate::object;

type Members = Map<String, Value>;

/// Kinds whose `metadata.generation` counts changes.
pub(crate) fn has_generation(kind: &Kind) -> bool {
    kind.custom().is_some()
        || matches!(
            kind.storage.as_str(),
            "deployments.apps"
                | "replicasets.apps"
                | "daemonsets.apps"
                | "statefulsets.apps"
                | "jobs.batch"
                | "cronjobs.batch"
                | "ingresses.networking.k8s.io"
                | "ingressclasses.networking.k8s.io"
                | "networkpolicies.networking.k8s.io"
                | "poddisruptionbudgets.policy"
                | "replicationcontrollers"
                | "endpointslices.discovery.k8s.io"
                | "mutatingwebhookconfigurations.admissionregistration.k8s.io"
                | "validatingwebhookconfigurations.admissionregistration.k8s.io"
                | "customresourcedefinitions.apiextensions.k8s.io"
                | "priorityclasses.scheduling.k8s.io"
        )
}

/// What a new object gets besides plain defaults.
pub(crate) fn on_create(core: &Core, kind: &Kind, value: &mut Value) {
    match kind.storage.as_str() {
        "namespaces" => {
            let finalizers = object::member(value, "spec").entry("finalizers").or_insert_with(|| json!([])).clone();
            if !finalizers.as_array().is_some_and(|list| list.iter().any(|item| item == "kubernetes")) {
                object::member(value, "spec").insert("finalizers".to_owned(), json!(["kubernetes"]));
            }
            object::member(value, "status").insert("phase".to_owned(), "Active".into());
        }
        "pods" => {
            fill(kind, value);
            let class = pod::quality(value);
            object::object(value).insert("status".to_owned(), json!({"phase": "Pending", "qosClass": class}));
        }
        "services" => {
            object::object(value).insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        "persistentvolumeclaims" | "persistentvolumes" => {
            object::object(value).insert("status".to_owned(), json!({"phase": "Pending"}));
        }
        "jobs.batch" => rest::new_job(value),
        "customresourcedefinitions.apiextensions.k8s.io" => {
            fill(kind, value);
            rest::new_crd(core, value);
        }
        _ => {}
    }
    fill(kind, value);
    if has_status_object(kind) {
        object::object(value).entry("status").or_insert_with(|| json!({}));
    }
}

fn has_status_object(kind: &Kind) -> bool {
    kind.has("status") && kind.custom().is_none() && matches!(kind.group.as_str(), "apps" | "extensions" | "batch")
}

/// What an update gets besides plain defaults.
pub(crate) fn on_update(kind: &Kind, old: &Value, new: &mut Value) {
    match kind.storage.as_str() {
        "services" => service::on_update(old, new),
        "customresourcedefinitions.apiextensions.k8s.io" => rest::changed_crd(old, new),
        "secrets" if object::text(new, "/type").is_empty() => {
            object::object(new).insert("type".to_owned(), object::text(old, "/type").into());
        }
        _ => {}
    }
}

/// Fills what is absent.
pub(crate) fn fill(kind: &Kind, value: &mut Value) {
    if let Model::Custom(custom) = &kind.model {
        custom.schema.fill(value);
        return;
    }
    match kind.storage.as_str() {
        "pods" => {
            pod::spec(object::member(value, "spec"));
            pod::only_pods(object::member(value, "spec"));
        }
        "podtemplates" => pod::template(object::object(value)),
        "replicationcontrollers" => {
            let spec = object::member(value, "spec");
            object::fill(spec, "replicas", 1);
            pod::template(spec);
        }
        "deployments.apps" => workload::deployment(kind, value),
        "replicasets.apps" => workload::replica_set(value),
        "daemonsets.apps" => workload::daemon_set(value),
        "statefulsets.apps" => workload::stateful_set(value),
        "jobs.batch" => workload::job(object::member(value, "spec")),
        "cronjobs.batch" => workload::cron_job(value),
        "services" => service::fill(value),
        "endpoints" => rest::endpoints(value),
        "endpointslices.discovery.k8s.io" => rest::endpoint_slice(value),
        "namespaces" => {
            let name = object::name(value).to_owned();
            let labels = object::metadata(value).entry("labels").or_insert_with(|| json!({}));
            object::object(labels).insert("kubernetes.io/metadata.name".to_owned(), name.into());
        }
        "secrets" => rest::secret(value),
        "events" => rest::event(value),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            rest::webhooks(value, kind.plural.starts_with("mutating"));
        }
        "customresourcedefinitions.apiextensions.k8s.io" => rest::crd(value),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            rest::binding(value);
        }
        "horizontalpodautoscalers.autoscaling" => {
            object::fill(object::member(value, "spec"), "minReplicas", 1);
        }
        "networkpolicies.networking.k8s.io" => rest::network_policy(value),
        "ingresses.networking.k8s.io" if value.get("status").is_none() => {
            object::object(value).insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        "persistentvolumeclaims" => object::fill(object::member(value, "spec"), "volumeMode", "Filesystem"),
        "persistentvolumes" => {
            let spec = object::member(value, "spec");
            object::fill(spec, "volumeMode", "Filesystem");
            object::fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        }
        "storageclasses.storage.k8s.io" => {
            let map = object::object(value);
            object::fill(map, "reclaimPolicy", "Delete");
            object::fill(map, "volumeBindingMode", "Immediate");
        }
        "nodes" if value.get("spec").is_none() => {
            object::object(value).insert("spec".to_owned(), json!({}));
        }
        _ => {}
    }
}

/// The members of each object in a list member.
fn each(map: &mut Members, name: &str, mut change: impl FnMut(&mut Members)) {
    if let Some(Value::Array(items)) = map.get_mut(name) {
        for item in items {
            change(object::object(item));
        }
    }
}

/// The members of an inner object, if it is there.
fn inner(map: &mut Members, name: &str, change: impl FnOnce(&mut Members)) {
    if let Some(Value::Object(members)) = map.get_mut(name) {
        change(members);
    }
}

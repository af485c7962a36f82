//! Defaults of workloads: Deployment, ReplicaSet, DaemonSet, StatefulSet, Job, CronJob.
//!
//! Never here: Pods (see `pod`). Called by `defaults`.

use serde_json::{Value, json};

use super::{Members, pod};
use crate::kinds::Kind;
use crate::object::{self, fill, fill_text};

fn rolling(spec: &mut Members, name: &str, kind: &str, defaults: &[(&str, Value)]) {
    let strategy = object::object(spec.entry(name).or_insert_with(|| json!({})));
    fill_text(strategy, "type", kind);
    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
        let rolling = object::object(strategy.entry("rollingUpdate").or_insert_with(|| json!({})));
        for (name, value) in defaults {
            fill(rolling, name, value.clone());
        }
    }
}

pub(super) fn deployment(kind: &Kind, value: &mut Value) {
    if kind.is_old_deployment() {
        old_deployment(kind, object::member(value, "spec"));
    }
    let spec = object::member(value, "spec");
    fill(spec, "replicas", 1);
    rolling(spec, "strategy", "RollingUpdate", &[("maxUnavailable", "25%".into()), ("maxSurge", "25%".into())]);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    pod::template(spec);
}

/// The versions before `apps/v1` had other defaults.
fn old_deployment(kind: &Kind, spec: &mut Members) {
    let labels = spec
        .get("template")
        .and_then(|template| template.pointer("/metadata/labels"))
        .cloned()
        .unwrap_or_else(|| json!({}));
    if kind.version != "v1beta2" && labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        fill(spec, "selector", json!({"matchLabels": labels}));
    }
    object::take(spec, "rollbackTo");
    if kind.group == "extensions" {
        rolling(spec, "strategy", "RollingUpdate", &[("maxUnavailable", 1.into()), ("maxSurge", 1.into())]);
        fill(spec, "progressDeadlineSeconds", 2_147_483_647);
        fill(spec, "revisionHistoryLimit", 2_147_483_647);
    } else if kind.version == "v1beta1" {
        fill(spec, "revisionHistoryLimit", 2);
    }
}

pub(super) fn replica_set(value: &mut Value) {
    let spec = object::member(value, "spec");
    fill(spec, "replicas", 1);
    pod::template(spec);
}

pub(super) fn daemon_set(value: &mut Value) {
    let spec = object::member(value, "spec");
    rolling(spec, "updateStrategy", "RollingUpdate", &[("maxUnavailable", 1.into()), ("maxSurge", 0.into())]);
    fill(spec, "revisionHistoryLimit", 10);
    pod::template(spec);
}

pub(super) fn stateful_set(value: &mut Value) {
    let spec = object::member(value, "spec");
    fill_text(spec, "podManagementPolicy", "OrderedReady");
    rolling(spec, "updateStrategy", "RollingUpdate", &[("partition", 0.into())]);
    fill(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    pod::template(spec);
}

pub(super) fn job(spec: &mut Members) {
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        spec.insert("completions".to_owned(), 1.into());
    }
    fill(spec, "parallelism", 1);
    fill(spec, "backoffLimit", 6);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    if spec.get("manualSelector").and_then(Value::as_bool) == Some(false) {
        object::take(spec, "manualSelector");
    }
    if spec.get("podReplacementPolicy").is_none() {
        let policy = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        spec.insert("podReplacementPolicy".to_owned(), policy.into());
    }
    pod::template(spec);
}

pub(super) fn cron_job(value: &mut Value) {
    let spec = object::member(value, "spec");
    fill_text(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    let template = object::object(spec.entry("jobTemplate").or_insert_with(|| json!({})));
    object::object(template.entry("metadata").or_insert_with(|| json!({})))
        .entry("creationTimestamp")
        .or_insert(Value::Null);
    let inner = object::object(template.entry("spec").or_insert_with(|| json!({})));
    pod::template(inner);
}

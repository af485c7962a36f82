//! Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, CronJobs.
//!
//! Never here: Pods' own rules (see `pod`). Called by `validate`.

use serde_json::Value;

use super::pod;
use crate::kinds::Kind;
use crate::object;
use crate::reply::Cause;
use crate::selector::Labels;

pub(super) fn check(kind: &Kind, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    if let Some(replicas) = spec.get("replicas").filter(|replicas| replicas.as_i64().is_some_and(|count| count < 0)) {
        causes.push(Cause::invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    match spec.get("selector") {
        None => {
            causes.push(Cause::required("spec.selector", ""));
            let shown =
                template.pointer("/metadata/labels").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
            causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                &shown,
                "`selector` does not match template `labels`",
            ));
        }
        Some(selector) => {
            let labels = Labels::from_object(selector);
            if labels.is_empty() {
                causes.push(Cause::invalid(
                    "spec.selector",
                    selector,
                    format!("empty selector is invalid for {}", kind.singular),
                ));
            } else if !labels.matches(object::members(template, "/metadata/labels")) {
                let shown = template
                    .pointer("/metadata/labels")
                    .cloned()
                    .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                causes.push(Cause::invalid(
                    "spec.template.metadata.labels",
                    &shown,
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
    if let Some(old) = old
        && old.pointer("/spec/selector") != spec.get("selector")
        && !kind.is_old_deployment()
    {
        let shown = spec.get("selector").cloned().unwrap_or_default();
        causes.push(Cause::invalid("spec.selector", &shown, "field is immutable"));
    }
    pod::template(template, "spec.template", causes);
    let policy = object::text(template, "/spec/restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", &policy.into(), &["Always"]));
    }
    if kind.plural == "deployments" {
        strategy(spec, causes);
    }
}

fn strategy(spec: &Value, causes: &mut Vec<Cause>) {
    let kind = object::text(spec, "/strategy/type");
    match kind {
        "Recreate" if spec.pointer("/strategy/rollingUpdate").is_some() => {
            causes.push(Cause::forbidden(
                "spec.strategy.rollingUpdate",
                "may not be specified when strategy `type` is 'Recreate'",
            ));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let zero =
                |pointer: &str| spec.pointer(pointer).is_some_and(|value| *value == 0 || value.as_str() == Some("0%"));
            if zero("/strategy/rollingUpdate/maxSurge") && zero("/strategy/rollingUpdate/maxUnavailable") {
                let shown = spec.pointer("/strategy/rollingUpdate/maxUnavailable").cloned().unwrap_or_default();
                causes.push(Cause::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    &shown,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        other => causes.push(Cause::unsupported("spec.strategy.type", &other.into(), &["Recreate", "RollingUpdate"])),
    }
}

pub(super) fn job(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let template = new.pointer("/spec/template").unwrap_or(&Value::Null);
    pod::template(template, "spec.template", causes);
    let policy = object::text(template, "/spec/restartPolicy");
    if policy == "Always" {
        causes.push(Cause::required("spec.template.spec.restartPolicy", "valid values: \"OnFailure\", \"Never\""));
    }
    if let Some(old) = old {
        for name in ["selector", "completions", "template"] {
            let pointer = format!("/spec/{name}");
            let suspended = old.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
            if new.pointer(&pointer) != old.pointer(&pointer) && !(name == "template" && suspended) {
                let shown = new.pointer(&pointer).cloned().unwrap_or_default();
                causes.push(Cause::invalid(format!("spec.{name}"), &shown, "field is immutable"));
            }
        }
    }
}

pub(super) fn cron_job(new: &Value, causes: &mut Vec<Cause>) {
    let schedule = object::text(new, "/spec/schedule");
    if schedule.is_empty() {
        causes.push(Cause::required("spec.schedule", ""));
    } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
        let found = schedule.split_whitespace().count();
        let detail = format!("expected exactly 5 fields, found {found}: [{schedule}]");
        causes.push(Cause::invalid("spec.schedule", &schedule.into(), detail));
    }
    let template = new.pointer("/spec/jobTemplate/spec/template").unwrap_or(&Value::Null);
    pod::template(template, "spec.jobTemplate.spec.template", causes);
}

//! Whether an object may be stored, in the real server's words.
//!
//! Metadata for all kinds, then what each kind demands. Never here: defaults, admission.
//! Called by create and update; an empty list of causes means valid.

mod crd;
mod meta;
mod pod;
mod rest;
mod service;
mod workload;

use serde_json::Value;

use crate::kinds::{Kind, Model};
use crate::reply::Cause;

pub(crate) fn check(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    meta::check(kind, new, old, &mut causes);
    if let Model::Custom(custom) = &kind.model {
        crate::crd::check(custom, new, old, &mut causes);
        return causes;
    }
    match kind.storage.as_str() {
        "pods" => pod::check(new, old, &mut causes),
        "services" => service::check(new, old, &mut causes),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" => {
            workload::check(kind, new, old, &mut causes);
        }
        "jobs.batch" => workload::job(new, old, &mut causes),
        "cronjobs.batch" => workload::cron_job(new, &mut causes),
        "customresourcedefinitions.apiextensions.k8s.io" => crd::check(new, old, &mut causes),
        _ => rest::check(kind, new, old, &mut causes),
    }
    causes
}

/// A field's path below another.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

//! Objects that hold a Pod template: finds it, and injects it.
//!
//! Deployment, DaemonSet, ReplicaSet, StatefulSet, ReplicationController, DeploymentConfig, Job, CronJob, Pod, and lists of
//! these; everything else stays as it is. Never here: decisions. Called by `meshctl kube-inject`.

use serde_json::Value;

use super::{Decision, InjectConfig, InjectError, Injected, Owner, Placement, decide, inject};

/// Where the template is within an object; none for kinds that hold none.
fn path_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment"
        | "DaemonSet"
        | "ReplicaSet"
        | "StatefulSet"
        | "ReplicationController"
        | "DeploymentConfig"
        | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Injects whatever Pods an object will make; what is not injected stays as it is, and the notes say why.
///
/// # Errors
/// An annotation of a template cannot be read.
pub fn workload(object: &Value, default_namespace: &str, config: &InjectConfig) -> Result<Injected, InjectError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    let mut whole = object.clone();
    if kind == "List" {
        let mut notes = Vec::new();
        for item in whole["items"].as_array_mut().into_iter().flatten() {
            let done = workload(item, default_namespace, config)?;
            *item = done.object;
            notes.extend(done.notes);
        }
        return Ok(Injected { object: whole, notes });
    }
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default().to_owned();
    let Some(template) = path_of(&kind).and_then(|path| whole.pointer_mut(path)) else {
        return Ok(Injected { object: whole, notes: Vec::new() });
    };
    let placement = Placement {
        namespace: metadata["namespace"].as_str().unwrap_or(default_namespace).to_owned(),
        owner: Some(Owner { api_version, kind: kind.clone(), name: name.clone() }),
        ..Placement::default()
    };
    let named = |note: String| format!("{kind}/{name}.{}: {note}", placement.namespace);
    let notes = match decide(template, &placement, config) {
        Decision::Skip(why) => vec![named(format!("not injected: {why}"))],
        Decision::Inject => {
            let done = inject(template, &placement, config)?;
            *template = done.object;
            done.notes.into_iter().map(named).collect()
        }
    };
    Ok(Injected { object: whole, notes })
}

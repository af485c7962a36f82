//! The admission that the API server brings along.
//!
//! Namespace lifecycle; service accounts of Pods. Never here: webhooks. Called by `admission`.

use serde_json::{Value, json};

use super::{Ask, Operation};
use crate::core::Core;
use crate::object;
use crate::reply::Refusal;
use crate::verb::create::suffix;

/// Where a Pod finds its account's token.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Life of such a token.
const TOKEN_SECONDS: i64 = 3607;

pub(super) fn mutate(core: &Core, ask: &Ask<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
    let kind = &ask.target.kind;
    if ask.operation == Operation::Create && kind.namespaced {
        namespace(core, ask, new)?;
    }
    if kind.is("", "pods") && ask.operation == Operation::Create && ask.target.subresource.is_empty() && old.is_none() {
        service_account(core, new)?;
        priority(core, new)?;
        tolerations(new);
    }
    Ok(())
}

/// Nothing is made in a namespace that is not there or is going.
pub(super) fn namespace(core: &Core, ask: &Ask<'_>, new: &Value) -> Result<(), Refusal> {
    let (space, kind) = (&ask.target.namespace, &ask.target.kind);
    let Some(item) = core.store.get("namespaces", "", space) else {
        let mut refusal = Refusal::new(404, "NotFound", format!("namespaces \"{space}\" not found"));
        refusal.details = Some(Box::new(json!({"name": space, "kind": "namespaces"})));
        return Err(refusal);
    };
    let value = item.value();
    if object::text(&value, "/status/phase") == "Terminating" {
        let name = object::name(new);
        let message = format!(
            "{} \"{name}\" is forbidden: unable to create new content in namespace {space} because it is being terminated",
            kind.group_resource()
        );
        let mut refusal = Refusal::new(403, "Forbidden", message);
        refusal.details = Some(Box::new(json!({
            "name": name, "kind": kind.plural,
            "causes": [{"reason": "NamespaceTerminating", "message": format!("namespace {space} is being terminated"), "field": "metadata.namespace"}],
        })));
        return Err(refusal);
    }
    Ok(())
}

fn service_account(core: &Core, pod: &mut Value) -> Result<(), Refusal> {
    let namespace = object::namespace(pod).to_owned();
    let pod_name = object::name(pod).to_owned();
    // Mirror Pods and the like do not exist here: every Pod has an account.
    let spec = object::member(pod, "spec");
    object::fill_text(spec, "serviceAccountName", "default");
    let account = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default().to_owned();
    spec.insert("serviceAccount".to_owned(), account.clone().into());
    let Some(item) = core.store.get("serviceaccounts", &namespace, &account) else {
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        return Err(forbidden_pod(&pod_name, &why));
    };
    let account = item.value();
    if spec.get("imagePullSecrets").is_none_or(|list| list.as_array().is_some_and(Vec::is_empty))
        && let Some(secrets) =
            account.get("imagePullSecrets").filter(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    let wanted = spec
        .get("automountServiceAccountToken")
        .and_then(Value::as_bool)
        .or_else(|| account.get("automountServiceAccountToken").and_then(Value::as_bool))
        .unwrap_or(true);
    if wanted {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let volume = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|volume| object::text(volume, "/name"))
        .find(|name| name.starts_with("kube-api-access-"))
        .map_or_else(|| format!("kube-api-access-{}", suffix()), str::to_owned);
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        for container in containers {
            let mounts = object::object(container).entry("volumeMounts").or_insert_with(|| json!([]));
            let Value::Array(mounts) = mounts else { continue };
            if mounts.iter().any(|mount| object::text(mount, "/mountPath") == TOKEN_FOLDER) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_FOLDER}));
            used = true;
        }
    }
    if !used {
        return;
    }
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    if let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([]))
        && !volumes.iter().any(|other| object::text(other, "/name") == volume)
    {
        volumes.push(source);
    }
}

fn priority(core: &Core, pod: &mut Value) -> Result<(), Refusal> {
    let class = object::text(pod, "/spec/priorityClassName").to_owned();
    let value = match class.as_str() {
        "" => 0,
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        name => match core.store.get("priorityclasses.scheduling.k8s.io", "", name) {
            Some(item) => item.value().get("value").and_then(Value::as_i64).unwrap_or(0),
            None => {
                return Err(forbidden_pod(object::name(pod), &format!("no PriorityClass with name {name} was found")));
            }
        },
    };
    let spec = object::member(pod, "spec");
    object::fill(spec, "priority", value);
    object::fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

fn forbidden_pod(name: &str, why: &str) -> Refusal {
    let mut refusal = Refusal::new(403, "Forbidden", format!("pods \"{name}\" is forbidden: {why}"));
    refusal.details = Some(Box::new(json!({"name": name, "kind": "pods"})));
    refusal
}

fn tolerations(pod: &mut Value) {
    let spec = object::member(pod, "spec");
    let Value::Array(list) = spec.entry("tolerations").or_insert_with(|| json!([])) else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let known = list.iter().any(|toleration| {
            let own = object::text(toleration, "/key");
            own == key || own.is_empty() && object::text(toleration, "/operator") == "Exists"
        });
        if !known {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

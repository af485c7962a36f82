//! Cells of the built-in kinds.
//!
//! Never here: custom resources, columns (see `columns`). Called by `table`.

use serde_json::{Map, Value};

use super::cell::{
    balancers, completions, duration, endpoints, event, external, job_status, listed, modes, node, none, ports, short,
    shown_labels, shown_selector,
};
use super::{age, pod};
use crate::object::{self, items, text};

/// An object, for its cells.
struct Row<'v>(&'v Value);

impl Row<'_> {
    fn name(&self) -> Value {
        object::name(self.0).into()
    }

    fn age(&self) -> Value {
        age::of(self.0).into()
    }

    fn count(&self, pointer: &str) -> i64 {
        self.0.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
    }

    fn number(&self, pointer: &str) -> Value {
        self.count(pointer).into()
    }

    fn plain(&self, pointer: &str) -> Value {
        text(self.0, pointer).into()
    }

    fn or_none(&self, pointer: &str) -> Value {
        none(text(self.0, pointer)).into()
    }

    /// Names and images of a template's containers.
    fn template(&self) -> (Value, Value) {
        let containers = items(self.0, "/spec/template/spec/containers");
        (listed(containers, "/name"), listed(containers, "/image"))
    }

    fn selector(&self) -> Value {
        shown_selector(self.0.pointer("/spec/selector")).into()
    }
}

pub(super) fn cells(storage: &str, value: &Value) -> Vec<Value> {
    let row = Row(value);
    match storage {
        "pods" => pods(&row),
        "services" => vec![
            row.name(),
            row.plain("/spec/type"),
            row.or_none("/spec/clusterIP"),
            external(value).into(),
            ports(value).into(),
            row.age(),
            row.selector(),
        ],
        "deployments.apps" => deployments(&row),
        "replicasets.apps" => replica_sets(&row),
        "daemonsets.apps" => daemon_sets(&row),
        "statefulsets.apps" => stateful_sets(&row),
        "jobs.batch" => jobs(&row),
        "cronjobs.batch" => cron_jobs(&row),
        "namespaces" => vec![row.name(), row.plain("/status/phase"), row.age()],
        "nodes" => node(value),
        "configmaps" => {
            let size = |pointer: &str| object::members(value, pointer).map_or(0, Map::len);
            vec![row.name(), (size("/data") + size("/binaryData")).into(), row.age()]
        }
        "secrets" => {
            vec![row.name(), row.plain("/type"), object::members(value, "/data").map_or(0, Map::len).into(), row.age()]
        }
        "serviceaccounts" => vec![row.name(), items(value, "/secrets").len().into(), row.age()],
        "endpoints" => vec![row.name(), endpoints(value).into(), row.age()],
        "endpointslices.discovery.k8s.io" => endpoint_slices(&row),
        "events" => event(value),
        "customresourcedefinitions.apiextensions.k8s.io"
        | "roles.rbac.authorization.k8s.io"
        | "clusterroles.rbac.authorization.k8s.io" => {
            vec![row.name(), row.plain("/metadata/creationTimestamp")]
        }
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            vec![row.name(), items(value, "/webhooks").len().into(), row.age()]
        }
        "ingresses.networking.k8s.io" => ingresses(&row),
        "ingressclasses.networking.k8s.io" => {
            vec![row.name(), row.plain("/spec/controller"), row.or_none("/spec/parameters/name"), row.age()]
        }
        "leases.coordination.k8s.io" => vec![row.name(), row.plain("/spec/holderIdentity"), row.age()],
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            role_bindings(&row)
        }
        "horizontalpodautoscalers.autoscaling" => autoscalers(&row),
        "poddisruptionbudgets.policy" => disruption_budgets(&row),
        "networkpolicies.networking.k8s.io" => {
            vec![row.name(), shown_selector(value.pointer("/spec/podSelector")).into(), row.age()]
        }
        "priorityclasses.scheduling.k8s.io" => vec![
            row.name(),
            row.number("/value"),
            value.get("globalDefault").and_then(Value::as_bool).unwrap_or(false).into(),
            row.age(),
            row.plain("/preemptionPolicy"),
        ],
        "storageclasses.storage.k8s.io" => vec![
            row.name(),
            row.plain("/provisioner"),
            row.plain("/reclaimPolicy"),
            row.plain("/volumeBindingMode"),
            value.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false).into(),
            row.age(),
        ],
        "persistentvolumeclaims" => vec![
            row.name(),
            row.plain("/status/phase"),
            row.plain("/spec/volumeName"),
            row.plain("/status/capacity/storage"),
            modes(value).into(),
            row.plain("/spec/storageClassName"),
            row.age(),
        ],
        "persistentvolumes" => vec![
            row.name(),
            row.plain("/spec/capacity/storage"),
            modes(value).into(),
            row.plain("/spec/persistentVolumeReclaimPolicy"),
            row.plain("/status/phase"),
            row.plain("/spec/claimRef/name"),
            row.plain("/spec/storageClassName"),
            row.plain("/status/reason"),
            row.age(),
        ],
        _ => vec![row.name(), row.age()],
    }
}

fn pods(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let summary = pod::summary(value);
    let gates = items(value, "/spec/readinessGates").len();
    let gates = if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") };
    let ip = items(value, "/status/podIPs").first().map_or_else(|| text(value, "/status/podIP"), |ip| text(ip, "/ip"));
    vec![
        row.name(),
        summary.ready.into(),
        summary.status.into(),
        summary.restarts.into(),
        row.age(),
        none(ip).into(),
        row.or_none("/spec/nodeName"),
        row.or_none("/status/nominatedNodeName"),
        gates.into(),
    ]
}

fn deployments(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = row.template();
    let ready = format!("{}/{}", row.count("/status/readyReplicas"), row.count("/spec/replicas"));
    vec![
        row.name(),
        ready.into(),
        row.number("/status/updatedReplicas"),
        row.number("/status/availableReplicas"),
        row.age(),
        names,
        images,
        row.selector(),
    ]
}

fn replica_sets(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = row.template();
    vec![
        row.name(),
        row.number("/spec/replicas"),
        row.number("/status/replicas"),
        row.number("/status/readyReplicas"),
        row.age(),
        names,
        images,
        row.selector(),
    ]
}

fn daemon_sets(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let (names, images) = row.template();
    let nodes = shown_labels(object::members(value, "/spec/template/spec/nodeSelector"));
    vec![
        row.name(),
        row.number("/status/desiredNumberScheduled"),
        row.number("/status/currentNumberScheduled"),
        row.number("/status/numberReady"),
        row.number("/status/updatedNumberScheduled"),
        row.number("/status/numberAvailable"),
        nodes.into(),
        row.age(),
        names,
        images,
        row.selector(),
    ]
}

fn stateful_sets(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = row.template();
    let ready = format!("{}/{}", row.count("/status/readyReplicas"), row.count("/spec/replicas"));
    vec![row.name(), ready.into(), row.age(), names, images]
}

fn jobs(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let (names, images) = row.template();
    vec![
        row.name(),
        job_status(value).into(),
        completions(value).into(),
        duration(value).into(),
        row.age(),
        names,
        images,
        row.selector(),
    ]
}

fn cron_jobs(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let containers = items(value, "/spec/jobTemplate/spec/template/spec/containers");
    let suspended = value.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    let last = text(value, "/status/lastScheduleTime");
    let last = if last.is_empty() { "<none>".to_owned() } else { age::since(last) };
    vec![
        row.name(),
        row.plain("/spec/schedule"),
        row.or_none("/spec/timeZone"),
        (if suspended { "True" } else { "False" }).into(),
        items(value, "/status/active").len().into(),
        last.into(),
        row.age(),
        listed(containers, "/name"),
        listed(containers, "/image"),
        "<none>".into(),
    ]
}

fn endpoint_slices(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let ports: Vec<String> = items(value, "/ports")
        .iter()
        .map(|port| port.get("port").map_or_else(|| "*".to_owned(), Value::to_string))
        .collect();
    let addresses: Vec<String> = items(value, "/endpoints")
        .iter()
        .flat_map(|endpoint| items(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let ports = if ports.is_empty() { "<unset>".to_owned() } else { short(&ports) };
    let addresses = if addresses.is_empty() { "<unset>".to_owned() } else { short(&addresses) };
    vec![row.name(), row.plain("/addressType"), ports.into(), addresses.into(), row.age()]
}

fn ingresses(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let hosts: Vec<String> = items(value, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { short(&hosts) };
    let ports = if items(value, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    let addresses: Vec<String> = balancers(value);
    vec![
        row.name(),
        row.or_none("/spec/ingressClassName"),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        row.age(),
    ]
}

fn role_bindings(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let of = |kind: &str| -> Value {
        let names: Vec<String> = items(value, "/subjects")
            .iter()
            .filter(|subject| text(subject, "/kind") == kind)
            .map(|subject| {
                let space = text(subject, "/namespace");
                if space.is_empty() {
                    text(subject, "/name").to_owned()
                } else {
                    format!("{space}/{}", text(subject, "/name"))
                }
            })
            .collect();
        names.join(", ").into()
    };
    let role = format!("{}/{}", text(value, "/roleRef/kind"), text(value, "/roleRef/name"));
    vec![row.name(), role.into(), row.age(), of("User"), of("Group"), of("ServiceAccount")]
}

fn autoscalers(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let target = format!("{}/{}", text(value, "/spec/scaleTargetRef/kind"), text(value, "/spec/scaleTargetRef/name"));
    let targets = if items(value, "/spec/metrics").is_empty() { "<none>" } else { "<unknown>" };
    vec![
        row.name(),
        target.into(),
        targets.into(),
        row.count("/spec/minReplicas").to_string().into(),
        row.number("/spec/maxReplicas"),
        row.number("/status/currentReplicas"),
        row.age(),
    ]
}

fn disruption_budgets(row: &Row<'_>) -> Vec<Value> {
    let value = row.0;
    let either = |pointer: &str| -> Value {
        match value.pointer(pointer) {
            Some(Value::String(text)) => text.clone().into(),
            Some(other) => other.to_string().into(),
            None => "N/A".into(),
        }
    };
    vec![
        row.name(),
        either("/spec/minAvailable"),
        either("/spec/maxUnavailable"),
        row.number("/status/disruptionsAllowed"),
        row.age(),
    ]
}

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

pub(super) fn cells(storage: &str, value: &Value) -> Vec<Value> {
    let name = || Value::from(object::name(value));
    let age = || Value::from(age::of(value));
    let count = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let number = |pointer: &str| Value::from(count(pointer));
    let plain = |pointer: &str| Value::from(text(value, pointer));
    let or_none = |pointer: &str| Value::from(none(text(value, pointer)));
    let template = || {
        let containers = items(value, "/spec/template/spec/containers");
        (listed(containers, "/name"), listed(containers, "/image"))
    };
    let selector = || Value::from(shown_selector(value.pointer("/spec/selector")));
    match storage {
        "pods" => {
            let summary = pod::summary(value);
            let gates = items(value, "/spec/readinessGates").len();
            let gates = if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") };
            let ip = items(value, "/status/podIPs")
                .first()
                .map_or_else(|| text(value, "/status/podIP"), |ip| text(ip, "/ip"));
            vec![
                name(),
                summary.ready.into(),
                summary.status.into(),
                summary.restarts.into(),
                age(),
                none(ip).into(),
                or_none("/spec/nodeName"),
                or_none("/status/nominatedNodeName"),
                gates.into(),
            ]
        }
        "services" => vec![
            name(),
            plain("/spec/type"),
            none(text(value, "/spec/clusterIP")).into(),
            external(value).into(),
            ports(value).into(),
            age(),
            shown_selector(value.pointer("/spec/selector")).into(),
        ],
        "deployments.apps" => {
            let (names, images) = template();
            let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
            vec![
                name(),
                ready.into(),
                number("/status/updatedReplicas"),
                number("/status/availableReplicas"),
                age(),
                names,
                images,
                selector(),
            ]
        }
        "replicasets.apps" => {
            let (names, images) = template();
            vec![
                name(),
                number("/spec/replicas"),
                number("/status/replicas"),
                number("/status/readyReplicas"),
                age(),
                names,
                images,
                selector(),
            ]
        }
        "daemonsets.apps" => {
            let (names, images) = template();
            let nodes = shown_labels(object::members(value, "/spec/template/spec/nodeSelector"));
            vec![
                name(),
                number("/status/desiredNumberScheduled"),
                number("/status/currentNumberScheduled"),
                number("/status/numberReady"),
                number("/status/updatedNumberScheduled"),
                number("/status/numberAvailable"),
                nodes.into(),
                age(),
                names,
                images,
                selector(),
            ]
        }
        "statefulsets.apps" => {
            let (names, images) = template();
            let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
            vec![name(), ready.into(), age(), names, images]
        }
        "jobs.batch" => {
            let (names, images) = template();
            vec![
                name(),
                job_status(value).into(),
                completions(value).into(),
                duration(value).into(),
                age(),
                names,
                images,
                selector(),
            ]
        }
        "cronjobs.batch" => {
            let containers = items(value, "/spec/jobTemplate/spec/template/spec/containers");
            let suspended = value.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
            let last = text(value, "/status/lastScheduleTime");
            let last = if last.is_empty() { "<none>".to_owned() } else { age::since(last) };
            vec![
                name(),
                plain("/spec/schedule"),
                or_none("/spec/timeZone"),
                (if suspended { "True" } else { "False" }).into(),
                items(value, "/status/active").len().into(),
                last.into(),
                age(),
                listed(containers, "/name"),
                listed(containers, "/image"),
                "<none>".into(),
            ]
        }
        "namespaces" => vec![name(), plain("/status/phase"), age()],
        "nodes" => node(value),
        "configmaps" => {
            let size = |pointer: &str| object::members(value, pointer).map_or(0, Map::len);
            vec![name(), (size("/data") + size("/binaryData")).into(), age()]
        }
        "secrets" => vec![name(), plain("/type"), object::members(value, "/data").map_or(0, Map::len).into(), age()],
        "serviceaccounts" => vec![name(), items(value, "/secrets").len().into(), age()],
        "endpoints" => vec![name(), endpoints(value).into(), age()],
        "endpointslices.discovery.k8s.io" => {
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
            vec![name(), plain("/addressType"), ports.into(), addresses.into(), age()]
        }
        "events" => event(value),
        "customresourcedefinitions.apiextensions.k8s.io"
        | "roles.rbac.authorization.k8s.io"
        | "clusterroles.rbac.authorization.k8s.io" => {
            vec![name(), plain("/metadata/creationTimestamp")]
        }
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            vec![name(), items(value, "/webhooks").len().into(), age()]
        }
        "ingresses.networking.k8s.io" => {
            let hosts: Vec<String> = items(value, "/spec/rules")
                .iter()
                .map(|rule| text(rule, "/host").to_owned())
                .filter(|host| !host.is_empty())
                .collect();
            let hosts = if hosts.is_empty() { "*".to_owned() } else { short(&hosts) };
            let ports = if items(value, "/spec/tls").is_empty() { "80" } else { "80, 443" };
            let addresses: Vec<String> = balancers(value);
            vec![
                name(),
                or_none("/spec/ingressClassName"),
                hosts.into(),
                addresses.join(",").into(),
                ports.into(),
                age(),
            ]
        }
        "ingressclasses.networking.k8s.io" => {
            vec![name(), plain("/spec/controller"), or_none("/spec/parameters/name"), age()]
        }
        "leases.coordination.k8s.io" => vec![name(), plain("/spec/holderIdentity"), age()],
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
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
            vec![name(), role.into(), age(), of("User"), of("Group"), of("ServiceAccount")]
        }
        "horizontalpodautoscalers.autoscaling" => {
            let target =
                format!("{}/{}", text(value, "/spec/scaleTargetRef/kind"), text(value, "/spec/scaleTargetRef/name"));
            let targets = if items(value, "/spec/metrics").is_empty() { "<none>" } else { "<unknown>" };
            vec![
                name(),
                target.into(),
                targets.into(),
                count("/spec/minReplicas").to_string().into(),
                number("/spec/maxReplicas"),
                number("/status/currentReplicas"),
                age(),
            ]
        }
        "poddisruptionbudgets.policy" => {
            let either = |pointer: &str| -> Value {
                match value.pointer(pointer) {
                    Some(Value::String(text)) => text.clone().into(),
                    Some(other) => other.to_string().into(),
                    None => "N/A".into(),
                }
            };
            vec![
                name(),
                either("/spec/minAvailable"),
                either("/spec/maxUnavailable"),
                number("/status/disruptionsAllowed"),
                age(),
            ]
        }
        "networkpolicies.networking.k8s.io" => {
            vec![name(), shown_selector(value.pointer("/spec/podSelector")).into(), age()]
        }
        "priorityclasses.scheduling.k8s.io" => vec![
            name(),
            number("/value"),
            value.get("globalDefault").and_then(Value::as_bool).unwrap_or(false).into(),
            age(),
            plain("/preemptionPolicy"),
        ],
        "storageclasses.storage.k8s.io" => vec![
            name(),
            plain("/provisioner"),
            plain("/reclaimPolicy"),
            plain("/volumeBindingMode"),
            value.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false).into(),
            age(),
        ],
        "persistentvolumeclaims" => vec![
            name(),
            plain("/status/phase"),
            plain("/spec/volumeName"),
            plain("/status/capacity/storage"),
            modes(value).into(),
            plain("/spec/storageClassName"),
            age(),
        ],
        "persistentvolumes" => vec![
            name(),
            plain("/spec/capacity/storage"),
            modes(value).into(),
            plain("/spec/persistentVolumeReclaimPolicy"),
            plain("/status/phase"),
            plain("/spec/claimRef/name"),
            plain("/spec/storageClassName"),
            plain("/status/reason"),
            age(),
        ],
        _ => vec![name(), age()],
    }
}

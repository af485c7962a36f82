//! Columns and cells of the built-in kinds.
//!
//! Never here: custom resources. Called by `table`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{age, pod};
use crate::object::{self, items, text};
use crate::verb::scale::selector_text;

type Columns = &'static [(&'static str, i64)];

const WORKLOAD_WIDE: [(&str, i64); 3] = [("Containers", 1), ("Images", 1), ("Selector", 1)];

pub(super) fn columns(storage: &str) -> Columns {
    match storage {
        "pods" => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1),
        ],
        "services" => &[
            ("Name", 0),
            ("Type", 0),
            ("Cluster-IP", 0),
            ("External-IP", 0),
            ("Port(s)", 0),
            ("Age", 0),
            ("Selector", 1),
        ],
        "deployments.apps" => {
            const ALL: [(&str, i64); 8] = [
                ("Name", 0),
                ("Ready", 0),
                ("Up-to-date", 0),
                ("Available", 0),
                ("Age", 0),
                WORKLOAD_WIDE[0],
                WORKLOAD_WIDE[1],
                WORKLOAD_WIDE[2],
            ];
            &ALL
        }
        "replicasets.apps" => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "daemonsets.apps" => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Node Selector", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "statefulsets.apps" => &[("Name", 0), ("Ready", 0), ("Age", 0), ("Containers", 1), ("Images", 1)],
        "jobs.batch" => &[
            ("Name", 0),
            ("Status", 0),
            ("Completions", 0),
            ("Duration", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "cronjobs.batch" => &[
            ("Name", 0),
            ("Schedule", 0),
            ("Timezone", 0),
            ("Suspend", 0),
            ("Active", 0),
            ("Last Schedule", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        "namespaces" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        "nodes" => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        "configmaps" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "secrets" => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        "serviceaccounts" => &[("Name", 0), ("Secrets", 0), ("Age", 0)],
        "endpoints" => &[("Name", 0), ("Endpoints", 0), ("Age", 0)],
        "endpointslices.discovery.k8s.io" => {
            &[("Name", 0), ("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)]
        }
        "events" => &[
            ("Last Seen", 0),
            ("Type", 0),
            ("Reason", 0),
            ("Object", 0),
            ("Subobject", 1),
            ("Source", 1),
            ("Message", 0),
            ("First Seen", 1),
            ("Count", 1),
            ("Name", 1),
        ],
        "customresourcedefinitions.apiextensions.k8s.io" => &[("Name", 0), ("Created At", 0)],
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => &[("Name", 0), ("Webhooks", 0), ("Age", 0)],
        "ingresses.networking.k8s.io" => {
            &[("Name", 0), ("Class", 0), ("Hosts", 0), ("Address", 0), ("Ports", 0), ("Age", 0)]
        }
        "ingressclasses.networking.k8s.io" => &[("Name", 0), ("Controller", 0), ("Parameters", 0), ("Age", 0)],
        "leases.coordination.k8s.io" => &[("Name", 0), ("Holder", 0), ("Age", 0)],
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            &[("Name", 0), ("Created At", 0)]
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            &[("Name", 0), ("Role", 0), ("Age", 0), ("Users", 1), ("Groups", 1), ("ServiceAccounts", 1)]
        }
        "horizontalpodautoscalers.autoscaling" => &[
            ("Name", 0),
            ("Reference", 0),
            ("Targets", 0),
            ("MinPods", 0),
            ("MaxPods", 0),
            ("Replicas", 0),
            ("Age", 0),
        ],
        "poddisruptionbudgets.policy" => {
            &[("Name", 0), ("Min Available", 0), ("Max Unavailable", 0), ("Allowed Disruptions", 0), ("Age", 0)]
        }
        "networkpolicies.networking.k8s.io" => &[("Name", 0), ("Pod-Selector", 0), ("Age", 0)],
        "priorityclasses.scheduling.k8s.io" => {
            &[("Name", 0), ("Value", 0), ("Global-Default", 0), ("Age", 0), ("PreemptionPolicy", 0)]
        }
        "storageclasses.storage.k8s.io" => &[
            ("Name", 0),
            ("Provisioner", 0),
            ("ReclaimPolicy", 0),
            ("VolumeBindingMode", 0),
            ("AllowVolumeExpansion", 0),
            ("Age", 0),
        ],
        "persistentvolumeclaims" => &[
            ("Name", 0),
            ("Status", 0),
            ("Volume", 0),
            ("Capacity", 0),
            ("Access Modes", 0),
            ("StorageClass", 0),
            ("Age", 0),
        ],
        "persistentvolumes" => &[
            ("Name", 0),
            ("Capacity", 0),
            ("Access Modes", 0),
            ("Reclaim Policy", 0),
            ("Status", 0),
            ("Claim", 0),
            ("StorageClass", 0),
            ("Reason", 0),
            ("Age", 0),
        ],
        _ => &[("Name", 0), ("Age", 0)],
    }
}

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
            let hosts = if hosts.is_empty() { "*".to_owned() } else { short_with(&hosts, 3) };
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

fn none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn listed(list: &[Value], pointer: &str) -> Value {
    list.iter().map(|item| text(item, pointer)).collect::<Vec<_>>().join(",").into()
}

fn shown_labels(labels: Option<&Map<String, Value>>) -> String {
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    parts.sort();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

fn shown_selector(selector: Option<&Value>) -> String {
    let text = selector.map(selector_text).unwrap_or_default();
    if text.is_empty() { "<none>".to_owned() } else { text }
}

fn balancers(value: &Value) -> Vec<String> {
    items(value, "/status/loadBalancer/ingress")
        .iter()
        .map(|entry| if text(entry, "/ip").is_empty() { text(entry, "/hostname") } else { text(entry, "/ip") })
        .map(str::to_owned)
        .collect()
}

fn external(service: &Value) -> String {
    let mut all: Vec<String> =
        items(service, "/spec/externalIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let mut given = balancers(service);
            given.append(&mut all);
            if given.is_empty() { "<pending>".to_owned() } else { given.join(",") }
        }
        _ => {
            if all.is_empty() {
                "<none>".to_owned()
            } else {
                all.join(",")
            }
        }
    }
}

fn ports(service: &Value) -> String {
    let parts: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
            let mut text = number("port").to_string();
            if number("nodePort") > 0 {
                let _ = write!(text, ":{}", number("nodePort"));
            }
            format!("{text}/{}", object::text(port, "/protocol"))
        })
        .collect();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

fn short(all: &[String]) -> String {
    if all.len() > 3 { format!("{} + {} more...", all[..3].join(","), all.len() - 3) } else { all.join(",") }
}

fn short_with(all: &[String], max: usize) -> String {
    if all.len() > max { format!("{} + {} more...", all[..max].join(","), all.len() - max) } else { all.join(",") }
}

fn endpoints(value: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(value, "/subsets") {
        let ports = items(subset, "/ports");
        for address in items(subset, "/addresses") {
            if ports.is_empty() {
                all.push(text(address, "/ip").to_owned());
            }
            for port in ports {
                all.push(format!("{}:{}", text(address, "/ip"), port.get("port").and_then(Value::as_i64).unwrap_or(0)));
            }
        }
    }
    if all.is_empty() { "<none>".to_owned() } else { short(&all) }
}

fn job_status(job: &Value) -> &'static str {
    let has = |name: &str| {
        items(job, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == name && text(condition, "/status") == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !text(job, "/metadata/deletionTimestamp").is_empty() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let done = job.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0);
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match job.pointer("/spec/parallelism").and_then(Value::as_i64) {
            Some(parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(job: &Value) -> String {
    let (from, to) = (text(job, "/status/startTime"), text(job, "/status/completionTime"));
    match (from.parse::<jiff::Timestamp>(), to.parse::<jiff::Timestamp>()) {
        (Ok(from), Ok(to)) => age::show(to.as_second() - from.as_second()),
        (Ok(_), Err(_)) => age::since(from),
        (Err(_), _) => String::new(),
    }
}

fn node(node: &Value) -> Vec<Value> {
    let ready = items(node, "/status/conditions").iter().find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = object::members(node, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| -> Value {
        let found = items(node, "/status/addresses").iter().find(|address| text(address, "/type") == kind);
        none(found.map_or("", |address| text(address, "/address"))).into()
    };
    let system = |name: &str| -> Value {
        let found = text(node, &format!("/status/nodeInfo/{name}"));
        if found.is_empty() { "<unknown>" } else { found }.into()
    };
    vec![
        object::name(node).into(),
        status.into(),
        none(&roles.join(",")).into(),
        age::of(node).into(),
        text(node, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        system("osImage"),
        system("kernelVersion"),
        system("containerRuntimeVersion"),
    ]
}

fn event(event: &Value) -> Vec<Value> {
    let either = |pointers: [&str; 3]| {
        pointers
            .into_iter()
            .map(|pointer| text(event, pointer))
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_owned()
    };
    let first = either(["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = either(["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp"]);
    let last = if last.is_empty() { first.clone() } else { last };
    let count = ["/series/count", "/count", "/deprecatedCount"]
        .into_iter()
        .find_map(|pointer| event.pointer(pointer).and_then(Value::as_i64))
        .unwrap_or(1);
    let of = event.get("involvedObject").or_else(|| event.get("regarding")).unwrap_or(&Value::Null);
    let target = format!("{}/{}", text(of, "/kind").to_lowercase(), text(of, "/name"));
    let source = either(["/source/component", "/deprecatedSource/component", "/reportingController"]);
    let source = if source.is_empty() { text(event, "/reportingComponent").to_owned() } else { source };
    let host = either(["/source/host", "/deprecatedSource/host", "/none"]);
    let source = if host.is_empty() { source } else { format!("{source}, {host}") };
    let message = either(["/message", "/note", "/none"]);
    let shown = |time: &str| if time.is_empty() { "<unknown>".to_owned() } else { age::since(time) };
    vec![
        shown(&last).into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        target.into(),
        text(of, "/fieldPath").into(),
        source.into(),
        message.trim().into(),
        shown(&first).into(),
        count.into(),
        object::name(event).into(),
    ]
}

fn modes(value: &Value) -> String {
    items(value, "/spec/accessModes")
        .iter()
        .map(|mode| match mode.as_str() {
            Some("ReadWriteOnce") => "RWO",
            Some("ReadOnlyMany") => "ROX",
            Some("ReadWriteMany") => "RWX",
            Some("ReadWriteOncePod") => "RWOP",
            _ => "?",
        })
        .collect::<Vec<_>>()
        .join(",")
}

//! Single cells that take more than a field: addresses, ports, states.
//!
//! Never here: rows. Called by `rows`.

use serde_json::{Map, Value};

use super::age;
use crate::object::{self, items, text};
use crate::verb::scale::selector_text;

pub(super) fn none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

pub(super) fn listed(list: &[Value], pointer: &str) -> Value {
    list.iter().map(|item| text(item, pointer)).collect::<Vec<_>>().join(",").into()
}

pub(super) fn shown_labels(labels: Option<&Map<String, Value>>) -> String {
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    parts.sort();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

pub(super) fn shown_selector(selector: Option<&Value>) -> String {
    let text = selector.map(selector_text).unwrap_or_default();
    if text.is_empty() { "<none>".to_owned() } else { text }
}

pub(super) fn balancers(value: &Value) -> Vec<String> {
    items(value, "/status/loadBalancer/ingress")
        .iter()
        .map(|entry| if text(entry, "/ip").is_empty() { text(entry, "/hostname") } else { text(entry, "/ip") })
        .map(str::to_owned)
        .collect()
}

pub(super) fn external(service: &Value) -> String {
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

pub(super) fn ports(service: &Value) -> String {
    let parts: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
            let protocol = object::text(port, "/protocol");
            match number("nodePort") {
                0 => format!("{}/{protocol}", number("port")),
                node => format!("{}:{node}/{protocol}", number("port")),
            }
        })
        .collect();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

pub(super) fn short(all: &[String]) -> String {
    if all.len() > 3 { format!("{} + {} more...", all[..3].join(","), all.len() - 3) } else { all.join(",") }
}

pub(super) fn endpoints(value: &Value) -> String {
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

pub(super) fn job_status(job: &Value) -> &'static str {
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

pub(super) fn completions(job: &Value) -> String {
    let done = job.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0);
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match job.pointer("/spec/parallelism").and_then(Value::as_i64) {
            Some(parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

pub(super) fn duration(job: &Value) -> String {
    let (from, to) = (text(job, "/status/startTime"), text(job, "/status/completionTime"));
    match (from.parse::<jiff::Timestamp>(), to.parse::<jiff::Timestamp>()) {
        (Ok(from), Ok(to)) => age::show(to.as_second() - from.as_second()),
        (Ok(_), Err(_)) => age::since(from),
        (Err(_), _) => String::new(),
    }
}

pub(super) fn node(node: &Value) -> Vec<Value> {
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

pub(super) fn event(event: &Value) -> Vec<Value> {
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

pub(super) fn modes(value: &Value) -> String {
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

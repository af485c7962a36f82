//! Scheduler: binds Pods to a node that they may run on.
//!
//! The sandbox has one node, which has room for everything; labels, taints of unschedulable nodes and readiness count.
//! Never here: resources and affinity between Pods. Called by `work`; `daemon_set` asks which nodes fit.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};
use serde_json::json;

use super::event::{About, Report};
use super::resource::Key;
use super::write::Write;

/// What is to be written for an unbound Pod.
pub(crate) fn reconcile(pod: &Pod, nodes: &[Arc<Node>]) -> Vec<Write> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let bound = spec.node_name.as_deref().is_some_and(|node| !node.is_empty());
    let held = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let elsewhere = spec.scheduler_name.as_deref().is_some_and(|name| !name.is_empty() && name != "default-scheduler");
    if bound || held || elsewhere || pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let key = Key::of(pod);
    let about = About::new("v1", "Pod", &pod.metadata);
    let report = |warning, reason, message| {
        Write::Event(Report { about: about.clone(), warning, reason, message, component: "default-scheduler" })
    };
    match nodes.iter().find(|node| takes_pods(node) && selects(spec, node)) {
        Some(node) => {
            let name = node.metadata.name.clone().unwrap_or_default();
            let binding = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": { "name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid },
                "target": { "apiVersion": "v1", "kind": "Node", "name": name },
            });
            let text = format!("Successfully assigned {key} to {name}");
            let bind = Write::CreatePart { kind: "Pod", key, part: "binding", object: binding };
            vec![bind, report(false, "Scheduled", text)]
        }
        None => {
            let text = why_not(spec, nodes);
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
            if known.and_then(|condition| condition.message.as_deref()) == Some(text.as_str()) {
                return Vec::new();
            }
            let others = conditions.into_iter().flatten().filter(|condition| condition.type_ != "PodScheduled");
            let mut conditions: Vec<_> = others.map(|condition| json!(condition)).collect();
            conditions.push(json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text,
            }));
            let patch = json!({ "status": { "conditions": conditions } });
            let status = Write::Merge { kind: "Pod", key, part: "status", patch };
            vec![status, report(true, "FailedScheduling", text)]
        }
    }
}

/// Whether a node is ready and not closed to new Pods.
fn takes_pods(node: &Node) -> bool {
    let closed = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !closed
}

/// Whether a Pod may run on a node by its node selector and required node affinity.
pub(crate) fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    let by_selector = spec.node_selector.iter().flatten().all(|(name, value)| label(name) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    let by_field = |name: &str| (name == "metadata.name").then_some(node.metadata.name.as_deref()).flatten();
    let term_holds = |term: &NodeSelectorTerm| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|requirement| holds(requirement, label(&requirement.key)))
            && fields.iter().all(|requirement| holds(requirement, by_field(&requirement.key)))
    };
    by_selector && required.is_none_or(|required| required.node_selector_terms.iter().any(term_holds))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|v| v == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn why_not(spec: &PodSpec, nodes: &[Arc<Node>]) -> String {
    if nodes.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let unmatched = nodes.iter().filter(|node| !selects(spec, node)).count();
    let closed = nodes.iter().filter(|node| node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)).count();
    let mut reasons = Vec::new();
    if unmatched > 0 {
        reasons.push(format!("{unmatched} node(s) didn't match Pod's node affinity/selector"));
    }
    if closed > 0 {
        reasons.push(format!("{closed} node(s) were unschedulable"));
    }
    if reasons.is_empty() {
        reasons.push(format!("{} node(s) were not ready", nodes.len()));
    }
    format!("0/{} nodes are available: {}.", nodes.len(), reasons.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::wildcard_enum_match_arm, clippy::needless_pass_by_value, reason = "short cases read better")]

    use serde_json::{Value, from_value};

    use super::*;

    fn node(ready: &str, unschedulable: bool) -> Arc<Node> {
        Arc::new(
            from_value(json!({
                "metadata": { "name": "n1", "labels": { "disk": "ssd", "cores": "8" } },
                "spec": { "unschedulable": unschedulable },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap(),
        )
    }

    /// The reason of the event that tells what was done.
    fn check(spec: Value, node: Arc<Node>, expected: Option<&str>) {
        let pod: Pod = from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": spec })).unwrap();
        let writes = reconcile(&pod, &[node]);
        let told = writes.iter().find_map(|write| match write {
            Write::Event(report) => Some(report.reason),
            _ => None,
        });
        assert_eq!(told, expected, "{spec}");
    }

    #[test]
    fn pods_are_bound_where_they_may_run() {
        let ready = || node("True", false);
        let affinity = |operator: &str, value: &str| {
            json!({ "containers": [], "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "cores", "operator": operator, "values": [value] }] }],
            } } } })
        };
        check(json!({ "containers": [] }), ready(), Some("Scheduled"));
        check(json!({ "containers": [], "nodeSelector": { "disk": "ssd" } }), ready(), Some("Scheduled"));
        check(json!({ "containers": [], "nodeSelector": { "disk": "tape" } }), ready(), Some("FailedScheduling"));
        check(affinity("Gt", "4"), ready(), Some("Scheduled"));
        check(affinity("In", "16"), ready(), Some("FailedScheduling"));
    }

    #[test]
    fn nodes_that_are_not_ready_or_closed_take_none() {
        check(json!({ "containers": [] }), node("False", false), Some("FailedScheduling"));
        check(json!({ "containers": [] }), node("True", true), Some("FailedScheduling"));
    }

    #[test]
    fn bound_gated_and_foreign_pods_are_left_alone() {
        check(json!({ "containers": [], "nodeName": "n1" }), node("True", false), None);
        check(json!({ "containers": [], "schedulingGates": [{ "name": "g" }] }), node("True", false), None);
        check(json!({ "containers": [], "schedulerName": "mine" }), node("True", false), None);
    }
}

//! DaemonSets: one Pod of a template on each node that it may run on.
//!
//! Pods of an older template are replaced, a few at a time. Never here: binding (its Pods name their node).
//! Called by `work`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::event::{About, Report};
use super::pods::{self, Availability};
use super::resource::{Key, Resource};
use super::scheduler;
use super::work::Outcome;
use super::write::{CreateReport, Policy, Write};

/// The label that tells which template a Pod was made from.
const HASH_LABEL: &str = "controller-revision-hash";

/// What is to be written for a DaemonSet, given its Pods and all nodes.
pub(crate) fn reconcile(set: &DaemonSet, own: &[Arc<Pod>], nodes: &[Arc<Node>], now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(spec) = &set.spec else { return outcome };
    let hash = pods::hash(&spec.template, 0);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let fits = |node: &&Arc<Node>| spec.template.spec.as_ref().is_some_and(|pod| scheduler::selects(pod, node));
    let wanted: Vec<String> = nodes.iter().filter(fits).map(|node| Key::of(&**node).name).collect();
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in own {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        by_node.entry(node).or_default().push(pod);
    }
    if set.metadata.deletion_timestamp.is_none() {
        outcome.writes.extend(place(set, &hash, &wanted, &by_node, now));
    }
    let status = count(set, &hash, min_ready, &wanted, &by_node, now, &mut outcome);
    if set.status.as_ref() != Some(&status)
        && let Ok(object) = serde_json::to_value(DaemonSet { status: Some(status), ..set.clone() })
    {
        outcome.writes.push(Write::Replace { part: "status", object });
    }
    outcome
}

fn place(
    set: &DaemonSet,
    hash: &str,
    wanted: &[String],
    by_node: &BTreeMap<&str, Vec<&Pod>>,
    now: Timestamp,
) -> Vec<Write> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let mut writes = Vec::new();
    let none = Vec::new();
    let (mut missing, mut outdated) = (0, Vec::new());
    for node in wanted {
        let here = by_node.get(node.as_str()).unwrap_or(&none);
        // One that ended is replaced; one that is being deleted is waited for.
        writes.extend(
            here.iter()
                .filter(|pod| pods::ended(pod) && pod.metadata.deletion_timestamp.is_none())
                .filter_map(|pod| delete(set, pod)),
        );
        if here.iter().all(|pod| pods::ended(pod)) {
            missing += 1;
            writes.push(create(set, hash, node));
            continue;
        }
        let mut alive: Vec<_> = here.iter().copied().filter(|pod| pods::active(pod)).collect();
        alive.sort_by_key(|pod| (!pods::ready(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0)));
        writes.extend(alive.iter().skip(1).filter_map(|pod| delete(set, pod)));
        match alive.first() {
            None => missing += 1,
            Some(pod) => {
                let min_ready = spec.min_ready_seconds.unwrap_or(0);
                let available = pods::available(pod, min_ready, now) == Availability::Yes;
                let current =
                    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|h| h == hash);
                if !current && !available {
                    writes.extend(delete(set, pod)); // costs nothing
                } else if !current {
                    outdated.push(*pod);
                } else if !available {
                    missing += 1;
                }
            }
        }
    }
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") {
        let unavailable = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
        let at_once = match unavailable {
            Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(1),
            Some(IntOrString::String(text)) => {
                let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
                (wanted.len() * percent).div_ceil(100)
            }
            None => 1,
        };
        let may_go = at_once.max(1).saturating_sub(missing);
        writes.extend(outdated.into_iter().take(may_go).filter_map(|pod| delete(set, pod)));
    }
    let elsewhere = by_node.iter().filter(|(node, _)| !node.is_empty() && !wanted.iter().any(|w| w == *node));
    let stray = elsewhere.flat_map(|(_, pods)| pods).filter(|pod| pods::active(pod));
    writes.extend(stray.filter_map(|pod| delete(set, pod)));
    writes
}

fn create(set: &DaemonSet, hash: &str, node: &str) -> Write {
    let key = Key::of(set);
    let owner = pods::owned_by("apps/v1", "DaemonSet", &set.metadata);
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut object =
        pods::from_template(&template, &key.namespace, &format!("{}-", key.name), &owner, &[(HASH_LABEL, hash)]);
    if let Some(spec) = object.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), node.into());
    }
    let made = report(set, "SuccessfulCreate", "Created pod: {}".to_owned());
    Write::Create { object, report: Some(CreateReport { made, failed: Some("FailedCreate") }) }
}

fn delete(set: &DaemonSet, pod: &Pod) -> Option<Write> {
    let key = Key::of(pod);
    let report = report(set, "SuccessfulDelete", format!("Deleted pod: {}", key.name));
    Some(Write::Delete {
        resource: Resource::builtin("Pod").map(Arc::new)?,
        key,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        policy: Policy::Background,
        report: Some(report),
    })
}

fn report(set: &DaemonSet, reason: &'static str, message: String) -> Report {
    let about = About::new("apps/v1", "DaemonSet", &set.metadata);
    Report { about, warning: false, reason, message, component: "daemonset-controller" }
}

fn count(
    set: &DaemonSet,
    hash: &str,
    min_ready: i32,
    wanted: &[String],
    by_node: &BTreeMap<&str, Vec<&Pod>>,
    now: Timestamp,
    outcome: &mut Outcome,
) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        desired_number_scheduled: i32::try_from(wanted.len()).unwrap_or(i32::MAX),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, pods) in by_node {
        let Some(pod) = pods.iter().find(|pod| pods::active(pod)) else { continue };
        if !wanted.iter().any(|wanted| wanted == node) {
            status.number_misscheduled += 1;
            continue;
        }
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::ready(pod));
        match pods::available(pod, min_ready, now) {
            Availability::Yes => available += 1,
            Availability::No => {}
            Availability::In(left) => outcome.again(left),
        }
        let labels = pod.metadata.labels.as_ref();
        updated += i32::from(labels.and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|h| h == hash));
    }
    let some = |number: i32| (number > 0).then_some(number);
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::super::replica_set::{made_and_deleted, stored_status};
    use super::*;

    fn set(image: &str) -> DaemonSet {
        from_value(json!({
            "metadata": { "name": "cni", "namespace": "kube-system", "uid": "ds", "generation": 1 },
            "spec": {
                "selector": { "matchLabels": { "app": "cni" } },
                "template": {
                    "metadata": { "labels": { "app": "cni" } },
                    "spec": { "nodeSelector": { "os": "linux" }, "containers": [{ "name": "c", "image": image }] },
                },
            },
        }))
        .unwrap()
    }

    fn node(name: &str, os: &str) -> Arc<Node> {
        Arc::new(from_value(json!({ "metadata": { "name": name, "labels": { "os": os } } })).unwrap())
    }

    fn pod(name: &str, node: &str, image: &str) -> Arc<Pod> {
        let hash = pods::hash(&set(image).spec.unwrap().template, 0);
        Arc::new(
            from_value(json!({
                "metadata": { "name": name, "namespace": "kube-system", "uid": name, "labels": { HASH_LABEL: hash } },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn each_fitting_node_gets_one() {
        let nodes = [node("a", "linux"), node("b", "windows"), node("c", "linux")];
        let outcome = reconcile(&set("1"), &[pod("p", "a", "1")], &nodes, Timestamp::UNIX_EPOCH);
        assert_eq!(made_and_deleted(&outcome.writes), (1, vec![]));
        let status = stored_status(&outcome.writes).unwrap();
        assert_eq!((status["desiredNumberScheduled"].as_i64(), status["numberReady"].as_i64()), (Some(2), Some(1)));
    }

    #[test]
    fn outdated_pods_go_one_at_a_time() {
        let nodes = [node("a", "linux"), node("c", "linux")];
        let outcome = reconcile(&set("2"), &[pod("p", "a", "1"), pod("q", "c", "1")], &nodes, Timestamp::UNIX_EPOCH);
        assert_eq!(made_and_deleted(&outcome.writes), (0, vec!["p".to_owned()]));
    }

    #[test]
    fn pods_on_nodes_that_do_not_fit_go() {
        let outcome = reconcile(&set("1"), &[pod("p", "b", "1")], &[node("b", "windows")], Timestamp::UNIX_EPOCH);
        assert_eq!(made_and_deleted(&outcome.writes), (0, vec!["p".to_owned()]));
    }
}

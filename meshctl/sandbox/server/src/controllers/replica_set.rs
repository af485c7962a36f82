//! ReplicaSets: so many Pods of one template, no more, no fewer.
//!
//! Makes what is missing, gives up what is too much, takes over Pods that match and belong to nobody, counts.
//! Never here: which template (Deployments say). Called by `work`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
#[cfg(test)]
use serde_json::Value;

use super::deployment::take_over;
use super::event::{About, Report};
use super::pods::{self, Availability};
use super::resource::{Key, Resource};
use super::work::Outcome;
use super::write::{CreateReport, Policy, Write};
use crate::limits::PODS_AT_ONCE;

/// What is to be written for a ReplicaSet, given its Pods and those of its namespace that nobody manages.
pub(crate) fn reconcile(set: &ReplicaSet, own: &[Arc<Pod>], orphans: &[Arc<Pod>], now: Timestamp) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(spec) = &set.spec else { return outcome };
    let owner = pods::owned_by("apps/v1", "ReplicaSet", &set.metadata);
    let mut mine: Vec<&Pod> = own.iter().map(|pod| &**pod).filter(|pod| pods::active(pod)).collect();
    if set.metadata.deletion_timestamp.is_none() {
        for pod in orphans
            .iter()
            .filter(|pod| pods::active(pod) && pods::selects(&spec.selector, pod.metadata.labels.as_ref()))
        {
            outcome.writes.push(take_over("Pod", &pod.metadata, Key::of(&**pod), &owner));
            mine.push(pod);
        }
        outcome.writes.extend(resize(set, &mut mine));
    }
    let status = status(set, &mine, now, &mut outcome);
    if set.status.as_ref() != Some(&status)
        && let Ok(object) = serde_json::to_value(ReplicaSet { status: Some(status), ..set.clone() })
    {
        outcome.writes.insert(0, Write::Replace { part: "status", object });
    }
    outcome
}

fn resize(set: &ReplicaSet, mine: &mut [&Pod]) -> Vec<Write> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let report = |reason, message| Report {
        about: About::new("apps/v1", "ReplicaSet", &set.metadata),
        warning: false,
        reason,
        message,
        component: "replicaset-controller",
    };
    if mine.len() < wanted {
        let Some(template) = &spec.template else { return Vec::new() };
        let key = Key::of(set);
        let owner = pods::owned_by("apps/v1", "ReplicaSet", &set.metadata);
        let object = pods::from_template(template, &key.namespace, &format!("{}-", key.name), &owner, &[]);
        let made = report("SuccessfulCreate", "Created pod: {}".to_owned());
        let create = Write::Create { object, report: Some(CreateReport { made, failed: Some("FailedCreate") }) };
        return vec![create; (wanted - mine.len()).min(PODS_AT_ONCE)];
    }
    let Some(resource) = Resource::builtin("Pod").map(Arc::new) else { return Vec::new() };
    let too_many = mine.len() - wanted;
    mine.sort_by_key(|pod| pods::give_up_order(pod));
    let delete = |pod: &&Pod| Write::Delete {
        resource: resource.clone(),
        key: Key::of(*pod),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        policy: Policy::Background,
        report: Some(report("SuccessfulDelete", format!("Deleted pod: {}", Key::of(*pod).name))),
    };
    mine.iter().take(too_many.min(PODS_AT_ONCE)).map(delete).collect()
}

fn status(set: &ReplicaSet, mine: &[&Pod], now: Timestamp, outcome: &mut Outcome) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let template_labels = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let some = |number: usize| (number > 0).then(|| count(number));
    let mut available = 0;
    for pod in mine {
        match pods::available(pod, min_ready, now) {
            Availability::Yes => available += 1,
            Availability::No => {}
            Availability::In(left) => outcome.again(left),
        }
    }
    let labelled = mine.iter().filter(|pod| {
        template_labels
            .is_none_or(|wanted| wanted.is_empty() || super::world::has_all(pod.metadata.labels.as_ref(), wanted))
    });
    ReplicaSetStatus {
        replicas: count(mine.len()),
        fully_labeled_replicas: some(labelled.count()),
        ready_replicas: some(mine.iter().filter(|pod| pods::ready(pod)).count()),
        available_replicas: some(available),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    }
}

/// How many Pods a list of writes makes and deletes; what the tests ask.
#[cfg(test)]
pub(crate) fn made_and_deleted(writes: &[Write]) -> (usize, Vec<String>) {
    let made = writes.iter().filter(|write| matches!(write, Write::Create { .. })).count();
    let deleted = writes.iter().filter_map(|write| {
        let Write::Delete { key, .. } = write else { return None };
        Some(key.name.clone())
    });
    (made, deleted.collect())
}

/// The status that a list of writes stores.
#[cfg(test)]
pub(crate) fn stored_status(writes: &[Write]) -> Option<Value> {
    writes.iter().find_map(|write| {
        let Write::Replace { part: "status", object } = write else { return None };
        object.get("status").cloned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        from_value(json!({
            "metadata": { "name": "web-1", "namespace": "shop", "uid": "rs", "generation": 2 },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c" }] } },
            },
        }))
        .unwrap()
    }

    fn pod(name: &str, phase: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            from_value(json!({
                "metadata": { "name": name, "namespace": "shop", "uid": name, "labels": { "app": "web" } },
                "spec": { "nodeName": "n", "containers": [] },
                "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap(),
        )
    }

    fn check(replicas: i32, own: &[Arc<Pod>], made: usize, deleted: &[&str]) -> Outcome {
        let outcome = reconcile(&set(replicas), own, &[], Timestamp::UNIX_EPOCH);
        let deleted: Vec<String> = deleted.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(made_and_deleted(&outcome.writes), (made, deleted));
        outcome
    }

    #[test]
    fn missing_pods_are_made_with_owner_and_labels() {
        let outcome = check(2, &[], 2, &[]);
        let Some(Write::Create { object, .. }) = outcome.writes.last() else { panic!("nothing made") };
        assert_eq!(object.pointer("/metadata/generateName"), Some(&json!("web-1-")));
        assert_eq!(object.pointer("/metadata/labels/app"), Some(&json!("web")));
        assert_eq!(object.pointer("/metadata/ownerReferences/0/uid"), Some(&json!("rs")));
        assert_eq!(object.pointer("/metadata/ownerReferences/0/controller"), Some(&json!(true)));
    }

    #[test]
    fn ended_pods_do_not_count() {
        check(2, &[pod("a", "Running", true), pod("b", "Failed", false), pod("c", "Succeeded", false)], 1, &[]);
    }

    #[test]
    fn too_many_pods_are_given_up_unready_first() {
        check(1, &[pod("a", "Running", true), pod("b", "Running", false), pod("c", "Pending", false)], 0, &["c", "b"]);
    }

    #[test]
    fn pods_of_nobody_are_taken_over() {
        let outcome = reconcile(&set(1), &[], &[pod("a", "Running", true)], Timestamp::UNIX_EPOCH);
        assert!(matches!(outcome.writes.last(), Some(Write::Merge { kind: "Pod", .. })), "{:?}", outcome.writes);
        assert_eq!(made_and_deleted(&outcome.writes).0, 0);
    }

    #[test]
    fn the_status_counts() {
        let outcome = check(2, &[pod("a", "Running", true), pod("b", "Running", false)], 0, &[]);
        assert_eq!(
            stored_status(&outcome.writes).unwrap(),
            json!({ "replicas": 2, "readyReplicas": 1, "availableReplicas": 1, "fullyLabeledReplicas": 2, "observedGeneration": 2 }),
        );
    }

    #[test]
    fn a_set_that_is_as_asked_is_left_alone() {
        let own = [pod("a", "Running", true)];
        let first = reconcile(&set(1), &own, &[], Timestamp::UNIX_EPOCH);
        let status = stored_status(&first.writes).unwrap();
        let settled = ReplicaSet { status: Some(from_value(status).unwrap()), ..set(1) };
        assert_eq!(reconcile(&settled, &own, &[], Timestamp::UNIX_EPOCH), Outcome::default());
    }
}

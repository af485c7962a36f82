//! What controllers ask about Pods, and how a Pod is made from a template.
//!
//! Ready, available, active; which one goes first; labels that match; the hash that names a template.
//! Never here: writes. Called by the workload controllers, `endpoints` and `scheduler`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The label that tells which template a Pod was made from.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// Whether it counts: not ended and not being deleted.
pub(crate) fn active(pod: &Pod) -> bool {
    !ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether it ran to its end.
pub(crate) fn ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Its phase; `Pending` until told.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether it is ready, and since when.
pub(crate) fn ready_since(pod: &Pod) -> Option<Option<Timestamp>> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map(|time| time.0))
}

pub(crate) fn ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether it has been ready for so long; where it will be, after what time.
pub(crate) fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(since) = ready_since(pod) else { return Availability::No };
    if min_ready_seconds <= 0 {
        return Availability::Yes;
    }
    let Some(since) = since else { return Availability::No };
    let left = since + SignedDuration::from_secs(i64::from(min_ready_seconds)) - now;
    match SignedDuration::try_from(left).map(std::time::Duration::try_from) {
        Ok(Ok(left)) if !left.is_zero() => Availability::In(left),
        _ => Availability::Yes,
    }
}

/// Whether a Pod is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    Yes,
    No,
    /// It will be if it stays ready.
    In(std::time::Duration),
}

/// The order in which Pods are given up: unbound ones first, then those not ready, then the youngest.
pub(crate) fn give_up_order(pod: &Pod) -> (bool, u8, bool, std::cmp::Reverse<Option<Timestamp>>) {
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()));
    let stage = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let born = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (bound, stage, ready(pod), std::cmp::Reverse(born))
}

/// The reference that manages the object.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// A reference from what an object makes to it.
pub(crate) fn owned_by(api_version: &str, kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether labels match a selector; an empty selector matches nothing here.
pub(crate) fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let none = BTreeMap::new();
    let labels = labels.unwrap_or(&none);
    let wanted = selector.match_labels.as_ref();
    let conditions = selector.match_expressions.as_deref().unwrap_or_default();
    if wanted.is_none_or(BTreeMap::is_empty) && conditions.is_empty() {
        return false;
    }
    wanted.into_iter().flatten().all(|(name, value)| labels.get(name) == Some(value))
        && conditions.iter().all(|condition| {
            let value = labels.get(&condition.key);
            let listed = || value.is_some_and(|value| condition.values.iter().flatten().any(|v| v == value));
            match condition.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// A short name for a template: the same for equal templates, another for each count of collisions.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789"; // no words, nothing to confuse
    let mut digest = Sha256::new();
    // A template that was read as JSON can be written as JSON.
    digest.update(serde_json::to_vec(template).unwrap_or_default());
    digest.update(collisions.to_be_bytes());
    let bytes = digest.finalize();
    bytes.iter().take(10).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// The Pod that a template describes; the server completes its name.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    name_prefix: &str,
    owner: &OwnerReference,
    more_labels: &[(&str, &str)],
) -> Value {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.extend(more_labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": name_prefix,
            "namespace": namespace,
            "labels": labels,
            "annotations": meta.annotations.unwrap_or_default(),
            "finalizers": meta.finalizers.unwrap_or_default(),
            "ownerReferences": [owner],
        },
        "spec": template.spec,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn pod(value: Value) -> Pod {
        from_value(value).unwrap()
    }

    #[test]
    fn selectors_match_by_labels_and_expressions() {
        let labels: BTreeMap<_, _> = [("app".to_owned(), "a".to_owned()), ("v".to_owned(), "1".to_owned())].into();
        for (selector, expected) in [
            (json!({ "matchLabels": { "app": "a" } }), true),
            (json!({ "matchLabels": { "app": "b" } }), false),
            (json!({}), false),
            (json!({ "matchExpressions": [{ "key": "v", "operator": "In", "values": ["1", "2"] }] }), true),
            (json!({ "matchExpressions": [{ "key": "v", "operator": "NotIn", "values": ["1"] }] }), false),
            (json!({ "matchExpressions": [{ "key": "w", "operator": "NotIn", "values": ["1"] }] }), true),
            (json!({ "matchExpressions": [{ "key": "w", "operator": "Exists" }] }), false),
            (json!({ "matchExpressions": [{ "key": "w", "operator": "DoesNotExist" }] }), true),
        ] {
            let parsed: LabelSelector = from_value(selector.clone()).unwrap();
            assert_eq!(selects(&parsed, Some(&labels)), expected, "{selector}");
        }
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let ready = pod(json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
        ] } }));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(available(&ready, 0, at("2026-01-01T00:00:00Z")), Availability::Yes);
        let left = Availability::In(std::time::Duration::from_secs(7));
        assert_eq!(available(&ready, 10, at("2026-01-01T00:00:03Z")), left);
        assert_eq!(available(&ready, 10, at("2026-01-01T00:00:10Z")), Availability::Yes);
        assert_eq!(available(&pod(json!({})), 0, at("2026-01-01T00:00:00Z")), Availability::No);
    }

    #[test]
    fn unbound_then_unready_then_young_pods_go_first() {
        let make = |name: &str, node: &str, ready: &str, born: &str| {
            pod(json!({
                "metadata": { "name": name, "creationTimestamp": born },
                "spec": { "nodeName": node, "containers": [] },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
            }))
        };
        let mut pods = [
            make("old", "n", "True", "2026-01-01T00:00:00Z"),
            make("young", "n", "True", "2026-01-02T00:00:00Z"),
            make("unready", "n", "False", "2026-01-01T00:00:00Z"),
            make("unbound", "", "False", "2026-01-01T00:00:00Z"),
        ];
        pods.sort_by_key(give_up_order);
        assert_eq!(pods.map(|p| p.metadata.name.unwrap()), ["unbound", "unready", "young", "old"]);
    }

    #[test]
    fn equal_templates_have_equal_hashes() {
        let template = |image: &str| -> PodTemplateSpec {
            from_value(json!({ "spec": { "containers": [{ "name": "c", "image": image }] } })).unwrap()
        };
        assert_eq!(hash(&template("a"), 0), hash(&template("a"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("b"), 0));
        assert_ne!(hash(&template("a"), 0), hash(&template("a"), 1));
        assert_eq!(hash(&template("a"), 0).len(), 10);
    }
}

//! Cases for Deployments: sizes step by step, revisions, conditions.
//!
//! Never here: a server. A Deployment and sets are written in a few words each; what is written is told in words too.
//! Called by `cargo test`.
#![allow(clippy::wildcard_enum_match_arm, clippy::needless_pass_by_value, reason = "short cases read better")]

use serde_json::from_value;

use super::*;

/// A Deployment with this many replicas and image; strategy and more in `spec`.
fn deployment(replicas: i32, image: &str, more: Value) -> Deployment {
    let mut spec = json!({
        "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
        "selector": { "matchLabels": { "app": "web" } },
        "template": template(image),
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "d", "generation": 3, "annotations": { "note": "x" } },
        "spec": spec,
    }))
    .unwrap()
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

/// A set of the Deployment: image, revision, size, and how many of it are available.
fn set(image: &str, revision: i32, size: i32, available: i32) -> Arc<ReplicaSet> {
    let mut template = template(image);
    template["metadata"]["labels"][HASH_LABEL] = image.into();
    Arc::new(
        from_value(json!({
            "metadata": {
                "name": format!("web-{image}"), "namespace": "shop", "uid": image,
                "annotations": { REVISION: revision.to_string(), DESIRED: "3", MAX_REPLICAS: "4", "note": "x" },
                "creationTimestamp": format!("2026-01-01T00:00:{revision:02}Z"),
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true }],
            },
            "spec": { "replicas": size, "selector": {}, "template": template },
            "status": { "replicas": size, "readyReplicas": available, "availableReplicas": available },
        }))
        .unwrap(),
    )
}

fn said(writes: &[Write]) -> Vec<String> {
    let word = |write: &Write| match write {
        Write::Create { object, .. } => format!(
            "make {} of {} at revision {}",
            object.pointer("/spec/replicas")?,
            object.pointer("/spec/template/spec/containers/0/image")?.as_str()?,
            object.pointer("/metadata/annotations")?.get(REVISION)?.as_str()?,
        )
        .into(),
        Write::Merge { kind: "ReplicaSet", key, patch, .. } => match patch.pointer("/spec/replicas") {
            Some(size) => Some(format!("{} to {size}", key.name)),
            None => {
                let annotations = patch.pointer("/metadata/annotations")?;
                Some(format!(
                    "{} is revision {}",
                    key.name,
                    annotations.get(REVISION).and_then(Value::as_str).unwrap_or("-")
                ))
            }
        },
        Write::Delete { key, .. } => Some(format!("delete {}", key.name)),
        _ => None,
    };
    writes.iter().filter_map(word).collect()
}

fn check(deployment: &Deployment, sets: &[Arc<ReplicaSet>], expected: &[&str]) -> Outcome {
    let outcome = reconcile(deployment, sets, &[], at(0));
    assert_eq!(said(&outcome.writes), expected);
    outcome
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn condition(outcome: &Outcome, kind: &str) -> Option<(String, String)> {
    let status = crate::controllers::replica_set::stored_status(&outcome.writes)?;
    let condition = status.get("conditions")?.as_array()?.iter().find(|c| c["type"] == kind)?.clone();
    Some((condition["status"].as_str()?.to_owned(), condition["reason"].as_str()?.to_owned()))
}

fn with_status_of(deployment: &Deployment, outcome: &Outcome) -> Deployment {
    let status = crate::controllers::replica_set::stored_status(&outcome.writes).unwrap();
    Deployment { status: Some(from_value(status).unwrap()), ..deployment.clone() }
}

#[test]
fn a_new_one_gets_a_set_of_its_size() {
    let outcome = check(&deployment(3, "1", json!({})), &[], &["make 3 of 1 at revision 1"]);
    let Some(Write::Create { object, report: Some(report) }) = outcome.writes.first() else { panic!("nothing made") };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap();
    let hash = object.pointer("/metadata/labels").unwrap().get(HASH_LABEL).and_then(Value::as_str).unwrap();
    assert_eq!(name, format!("web-{hash}"));
    assert_eq!(object.pointer("/spec/selector/matchLabels").unwrap().get(HASH_LABEL).unwrap(), hash);
    assert_eq!(object.pointer("/spec/template/metadata/labels").unwrap().get(HASH_LABEL).unwrap(), hash);
    assert_eq!(object.pointer("/metadata/annotations/note"), Some(&json!("x")));
    assert_eq!(report.made.message, format!("Scaled up replica set {name} from 0 to 3"));
    assert_eq!(condition(&outcome, "Progressing").unwrap().1, "NewReplicaSetCreated");
}

#[test]
fn a_rollout_surges_then_shrinks_then_forgets() {
    let new = deployment(3, "2", json!({}));
    check(&new, &[set("1", 1, 3, 3)], &["make 1 of 2 at revision 2"]);
    check(&new, &[set("1", 1, 3, 3), set("2", 2, 1, 0)], &[]);
    check(&new, &[set("1", 1, 3, 3), set("2", 2, 1, 1)], &["web-1 to 2"]);
    check(&new, &[set("1", 1, 2, 2), set("2", 2, 1, 1)], &["web-2 to 2"]);
    check(&new, &[set("0", 1, 0, 0), set("1", 2, 0, 0), set("2", 3, 3, 3)], &["delete web-0"]);
}

#[test]
fn unavailable_pods_of_old_sets_go_first() {
    let new = deployment(3, "2", json!({}));
    check(&new, &[set("1", 1, 3, 1), set("2", 2, 1, 0)], &[]);
    let lax = json!({ "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } } });
    check(&deployment(4, "2", lax), &[set_desired("1", 1, 4, 3, 4), set_desired("2", 2, 1, 0, 4)], &["web-1 to 3"]);
}

fn set_desired(image: &str, revision: i32, size: i32, available: i32, desired: i32) -> Arc<ReplicaSet> {
    let mut set = (*set(image, revision, size, available)).clone();
    set.metadata.annotations.as_mut().unwrap().insert(DESIRED.to_owned(), desired.to_string());
    Arc::new(set)
}

#[test]
fn an_undo_gives_the_old_set_a_new_revision() {
    let back = deployment(3, "1", json!({}));
    let outcome = reconcile(&back, &[set("1", 1, 0, 0), set("2", 2, 3, 3)], &[], at(0));
    assert_eq!(said(&outcome.writes), ["web-1 is revision 3", "web-1 to 1"]);
    let Some(Write::Merge { patch, .. }) = outcome.writes.first() else { panic!("no patch") };
    assert_eq!(patch.pointer("/metadata/annotations").unwrap().get(REVISION_HISTORY), Some(&json!("1")));
    let noted = outcome.writes.iter().any(|write| {
        matches!(write, Write::Merge { kind: "Deployment", patch, .. }
            if patch.pointer("/metadata/annotations").and_then(|a| a.get(REVISION)) == Some(&json!("3")))
    });
    assert!(noted, "{:?}", outcome.writes);
}

#[test]
fn recreate_ends_the_old_before_the_new() {
    let new = deployment(3, "2", json!({ "strategy": { "type": "Recreate" } }));
    check(&new, &[set("1", 1, 3, 3)], &["web-1 to 0"]);
    let pod: Pod = from_value(json!({
        "metadata": { "name": "p", "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "1", "controller": true }] },
        "status": { "phase": "Running" },
    }))
    .unwrap();
    let waiting = reconcile(&new, &[set("1", 1, 0, 0)], &[Arc::new(pod)], at(0));
    assert_eq!(said(&waiting.writes), [""; 0]);
    check(&new, &[set("1", 1, 0, 0)], &["make 3 of 2 at revision 2"]);
}

#[test]
fn scaling_goes_to_the_one_set_or_by_share() {
    check(&deployment(5, "1", json!({})), &[set("1", 1, 3, 3)], &["web-1 to 5"]);
    check(&deployment(0, "1", json!({})), &[set("1", 1, 3, 3)], &["web-1 to 0"]);
    // 3 + 1 of 4 allowed before; now 6 + 1: both grow, together to 7
    check(&deployment(6, "2", json!({})), &[set("1", 1, 3, 3), set("2", 2, 1, 1)], &["web-1 to 6", "web-2 to 1"]);
}

#[test]
fn a_paused_one_scales_and_does_not_roll() {
    check(&deployment(3, "2", json!({ "paused": true })), &[set("1", 1, 3, 3)], &[]);
    check(&deployment(4, "2", json!({ "paused": true })), &[set("1", 1, 3, 3)], &["web-1 to 4"]);
}

#[test]
fn a_name_that_is_taken_is_counted() {
    let new = deployment(1, "1", json!({}));
    let first = reconcile(&new, &[], &[], at(0));
    let Some(Write::Create { object, .. }) = first.writes.first() else { panic!("nothing made") };
    let stranger = json!({ "metadata": { "name": object.pointer("/metadata/name"), "namespace": "shop", "uid": "s" } });
    let outcome = reconcile(&new, &[Arc::new(from_value(stranger).unwrap())], &[], at(0));
    assert_eq!(said(&outcome.writes), [""; 0]);
    let status = crate::controllers::replica_set::stored_status(&outcome.writes).unwrap();
    assert_eq!(status["collisionCount"], 1);
}

#[test]
fn conditions_tell_a_rollouts_course() {
    let new = deployment(3, "1", json!({}));
    let begun = reconcile(&new, &[set("1", 1, 3, 1)], &[], at(0));
    assert_eq!(condition(&begun, "Progressing").unwrap(), ("True".into(), "ReplicaSetUpdated".into()));
    assert_eq!(condition(&begun, "Available").unwrap(), ("False".into(), "MinimumReplicasUnavailable".into()));
    let waiting = with_status_of(&new, &begun);
    let later = reconcile(&waiting, &[set("1", 1, 3, 1)], &[], at(100));
    assert_eq!(later.again_after, Some(std::time::Duration::from_secs(500)));
    let late = reconcile(&waiting, &[set("1", 1, 3, 1)], &[], at(600));
    assert_eq!(condition(&late, "Progressing").unwrap(), ("False".into(), "ProgressDeadlineExceeded".into()));
    let done = reconcile(&waiting, &[set("1", 1, 3, 3)], &[], at(200));
    assert_eq!(condition(&done, "Progressing").unwrap(), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(condition(&done, "Available").unwrap().0, "True");
    let settled = with_status_of(&new, &done);
    let again = reconcile(&settled, &[set("1", 1, 3, 3)], &[], at(300));
    assert_eq!(crate::controllers::replica_set::stored_status(&again.writes), None);
    assert_eq!(again.again_after, None);
}

#[test]
fn shares_round_as_kubernetes_rounds() {
    let text = |text: &str| IntOrString::String(text.to_owned());
    for (value, total, up, expected) in [
        (None, 10, true, 3),
        (None, 10, false, 2),
        (Some(text("50%")), 3, true, 2),
        (Some(text("50%")), 3, false, 1),
        (Some(IntOrString::Int(4)), 3, true, 4),
        (Some(text("0%")), 3, true, 0),
    ] {
        assert_eq!(share(value.as_ref(), total, up), expected, "{value:?} of {total}");
    }
}

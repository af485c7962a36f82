//! Objects changed: patches, server-side apply, dry runs.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use serde_json::{Value, json};

use super::{Cluster, DEPLOYMENTS, MAPS, deployment, map, message};

#[tokio::test]
async fn patches() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", DEPLOYMENTS, deployment("d"), 201).await;
    let uri = format!("{DEPLOYMENTS}/d");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "y:2"}]}}}});
    let patched = cluster.patch("strategic-merge", &uri, strategic, 200).await;
    let container = &patched["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["terminationMessagePath"]),
        (&json!("y:2"), &json!("/dev/termination-log"))
    );
    assert_eq!(patched["metadata"]["generation"], 2);
    let labelled = cluster.patch("merge", &uri, json!({"metadata": {"labels": {"a": "b"}}}), 200).await;
    assert_eq!(labelled["metadata"]["generation"], 2, "labels are no new generation");
    cluster.patch("json", &uri, json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]), 200).await;
    let failed = cluster.patch("json", &uri, json!([{"op": "test", "path": "/spec/replicas", "value": 9}]), 422).await;
    assert_eq!(message(&failed), "the server rejected our request due to an error in our request");
    let stale = cluster.patch("merge", &uri, json!({"metadata": {"resourceVersion": "1"}}), 409).await;
    assert_eq!(stale["reason"], "Conflict");
    let immutable =
        cluster.patch("merge", &uri, json!({"spec": {"selector": {"matchLabels": {"app": "z"}}}}), 422).await;
    assert!(
        message(&immutable).contains("spec.selector: Invalid value:")
            && message(&immutable).contains("field is immutable")
    );
    let (code, _) = cluster.ask("PATCH", &uri, "application/json", &json!({})).await;
    assert_eq!(code, 415);
    let scaled = cluster.patch("merge", &format!("{uri}/scale"), json!({"spec": {"replicas": 2}}), 200).await;
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(cluster.expect("GET", &uri, Value::Null, 200).await["spec"]["replicas"], 2);
}

#[tokio::test]
async fn server_side_apply() {
    let cluster = Cluster::new().await;
    let uri = format!("{MAPS}/a");
    let by = |manager: &str| format!("{uri}?fieldManager={manager}");
    let made = cluster.patch("apply", &by("m1"), map("a", json!({"x": "1", "y": "1"})), 201).await;
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:x": {}, "f:y": {}}}));
    let again = cluster.patch("apply", &by("m1"), map("a", json!({"x": "1", "y": "1"})), 200).await;
    assert_eq!(made["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    let refused = cluster.patch("apply", &by("m2"), map("a", json!({"x": "2"})), 409).await;
    assert_eq!(message(&refused), "Apply failed with 1 conflict: conflict with \"m1\": .data.x");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = cluster.patch("apply", &format!("{}&force=true", by("m2")), map("a", json!({"x": "2"})), 200).await;
    assert_eq!(forced["data"], json!({"x": "2", "y": "1"}));
    let dropped = cluster.patch("apply", &by("m1"), map("a", json!({})), 200).await;
    assert_eq!(dropped["data"], json!({"x": "2"}));
    cluster.patch("apply", &uri, map("a", json!({})), 422).await;
    let unknown =
        cluster.patch("apply", &by("m"), json!({"apiVersion": "v1", "kind": "ConfigMap", "zork": 1}), 500).await;
    assert!(message(&unknown).ends_with(".zork: field not declared in schema"), "{unknown}");
    let nil = cluster
        .patch(
            "apply",
            &by("m"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            400,
        )
        .await;
    assert_eq!(message(&nil), "metadata.managedFields must be nil");
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let cluster = Cluster::new().await;
    let made = cluster.expect("POST", &format!("{MAPS}?dryRun=All"), map("a", json!({})), 201).await;
    assert!(made["metadata"]["resourceVersion"].is_null() && made["metadata"]["uid"].is_string());
    cluster.expect("GET", &format!("{MAPS}/a"), Value::Null, 404).await;
    cluster.expect("POST", &format!("{MAPS}?dryRun=Some"), map("a", json!({})), 422).await;
    cluster.expect("POST", MAPS, map("a", json!({"k": "v"})), 201).await;
    let exists = cluster.expect("POST", &format!("{MAPS}?dryRun=All"), map("a", json!({})), 409).await;
    assert_eq!(message(&exists), "configmaps \"a\" already exists");
    cluster.patch("merge", &format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "w"}}), 200).await;
    cluster.expect("DELETE", &format!("{MAPS}/a?dryRun=All"), Value::Null, 200).await;
    assert_eq!(cluster.expect("GET", &format!("{MAPS}/a"), Value::Null, 200).await["data"]["k"], "v");
}

//! Objects that go: finalizers, grace, namespaces that end, evictions.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use serde_json::{Value, json};

use super::{Cluster, MAPS, PODS, map, message, pod};

#[tokio::test]
async fn deletion_waits_for_finalizers_and_nodes() {
    let cluster = Cluster::new().await;
    let mut held = map("a", json!({}));
    held["metadata"]["finalizers"] = json!(["x.io/f"]);
    cluster.expect("POST", MAPS, held, 201).await;
    let uri = format!("{MAPS}/a");
    let marked = cluster.expect("DELETE", &uri, Value::Null, 200).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = cluster.patch("merge", &uri, json!({"metadata": {"finalizers": ["x.io/f", "x.io/g"]}}), 422).await;
    assert!(message(&more).contains("found new finalizers []string{\"x.io/g\"}"));
    cluster.patch("merge", &uri, json!({"metadata": {"finalizers": null}}), 200).await;
    cluster.expect("GET", &uri, Value::Null, 404).await;

    cluster.expect("POST", PODS, pod("free"), 201).await;
    cluster.expect("DELETE", &format!("{PODS}/free"), Value::Null, 200).await;
    cluster.expect("GET", &format!("{PODS}/free"), Value::Null, 404).await;
    cluster
        .expect(
            "POST",
            PODS,
            {
                let mut p = pod("bound");
                p["spec"]["nodeName"] = "n".into();
                p
            },
            201,
        )
        .await;
    let uri = format!("{PODS}/bound");
    let ending = cluster.expect("DELETE", &uri, Value::Null, 200).await;
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    cluster.expect("DELETE", &uri, json!({"preconditions": {"uid": "other"}}), 409).await;
    cluster.expect("DELETE", &uri, json!({"gracePeriodSeconds": 0}), 200).await;
    cluster.expect("GET", &uri, Value::Null, 404).await;
    let own = cluster.expect("DELETE", "/api/v1/namespaces/default", Value::Null, 403).await;
    assert_eq!(own["reason"], "Forbidden");
}

#[tokio::test]
async fn a_namespace_that_ends_takes_nothing_new() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", "/api/v1/namespaces", json!({"metadata": {"name": "n"}}), 201).await;
    let ending = cluster.expect("DELETE", "/api/v1/namespaces/n", Value::Null, 200).await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = cluster.expect("POST", "/api/v1/namespaces/n/configmaps", map("a", json!({})), 403).await;
    assert!(message(&refused).ends_with("unable to create new content in namespace n because it is being terminated"));
    let mut last = ending;
    last["spec"]["finalizers"] = json!([]);
    cluster.expect("PUT", "/api/v1/namespaces/n/finalize", last, 200).await;
    cluster.expect("GET", "/api/v1/namespaces/n", Value::Null, 404).await;
}

#[tokio::test]
async fn evictions_keep_to_budgets() {
    let cluster = Cluster::new().await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["a", "b"] {
        let mut one = pod(name);
        one["metadata"]["labels"] = json!({"app": "x"});
        one["spec"]["nodeName"] = json!("n");
        cluster.expect("POST", PODS, one, 201).await;
        cluster.patch("merge", &format!("{PODS}/{name}/status"), ready.clone(), 200).await;
    }
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    cluster.expect("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget, 201).await;
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    cluster.expect("POST", &format!("{PODS}/a/eviction"), eviction("a"), 201).await;
    let refused = cluster.expect("POST", &format!("{PODS}/b/eviction"), eviction("b"), 429).await;
    assert_eq!(message(&refused), "Cannot evict pod as it would violate the pod's disruption budget.");
    // The first is on its way out, answers still, and counts no more; asking again for it disrupts nothing.
    assert!(
        cluster.expect("GET", &format!("{PODS}/a"), Value::Null, 200).await["metadata"]["deletionTimestamp"]
            .is_string()
    );
    cluster.expect("POST", &format!("{PODS}/a/eviction"), eviction("a"), 201).await;
}

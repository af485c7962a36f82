//! Collections: selectors, pages, watches.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use serde_json::{Value, json};

use super::{Cluster, MAPS, PODS, map, message, pod};

#[tokio::test]
async fn lists_select_by_labels_and_fields() {
    let cluster = Cluster::new().await;
    for (name, label) in [("a", "1"), ("b", "2")] {
        let mut one = pod(name);
        one["metadata"]["labels"] = json!({"l": label});
        cluster.expect("POST", PODS, one, 201).await;
    }
    for (query, want) in [
        ("labelSelector=l%3D1", 1),
        ("labelSelector=l", 2),
        ("labelSelector=l+in+(1,2),l!%3D2", 1),
        ("labelSelector=!l", 0),
        ("fieldSelector=metadata.name%3Db", 1),
        ("fieldSelector=spec.nodeName%3D", 2),
        ("fieldSelector=status.phase!%3DPending", 0),
        ("limit=500&resourceVersion=0", 2),
    ] {
        let list = cluster.expect("GET", &format!("{PODS}?{query}"), Value::Null, 200).await;
        assert_eq!(list["items"].as_array().unwrap().len(), want, "{query}");
        assert_eq!(list["kind"], "PodList");
    }
    let refused = cluster.expect("GET", &format!("{PODS}?fieldSelector=spec.foo%3D1"), Value::Null, 400).await;
    assert_eq!(message(&refused), "field label not supported: spec.foo");
    let early = cluster.expect("GET", &format!("{PODS}?resourceVersion=99999999"), Value::Null, 504).await;
    assert!(message(&early).starts_with("Timeout: Too large resource version: 99999999, current: "));
    cluster.expect("GET", &format!("{PODS}?resourceVersionMatch=Exact"), Value::Null, 422).await;
}

#[tokio::test]
async fn watches_follow_selectors() {
    let cluster = Cluster::new().await;
    let start =
        cluster.expect("GET", MAPS, Value::Null, 200).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut one = map("a", json!({}));
    one["metadata"]["labels"] = json!({"l": "1"});
    cluster.expect("POST", MAPS, one, 201).await;
    cluster.expect("POST", MAPS, map("b", json!({})), 201).await;
    let uri = format!("{MAPS}/a");
    cluster.patch("merge", &uri, json!({"data": {"k": "v"}}), 200).await;
    cluster.patch("merge", &uri, json!({"metadata": {"labels": {"l": "2"}}}), 200).await;
    cluster.patch("merge", &uri, json!({"metadata": {"labels": {"l": "1"}}}), 200).await;
    cluster.expect("DELETE", &uri, Value::Null, 200).await;
    let lines = cluster.watch(&format!("{MAPS}?watch=1&labelSelector=l%3D1&resourceVersion={start}"), 5).await;
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    assert_eq!(lines[2]["object"]["metadata"]["labels"]["l"], "1", "the old object");
    let revisions: Vec<u64> = lines
        .iter()
        .map(|line| line["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    let synced = cluster
        .watch(
            &format!(
                "{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
            ),
            3,
        )
        .await;
    let last = synced.last().unwrap();
    assert_eq!(
        (&last["type"], &last["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        (&json!("BOOKMARK"), &json!("true"))
    );
    let ended = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion=999999&timeoutSeconds=1"), 1).await;
    assert!(ended.is_empty(), "a future revision is silent, and the time ends the stream");
}

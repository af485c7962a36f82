//! Collections: selectors, pages, watches.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use http_body_util::BodyExt as _;
use sandbox_server::User;
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

/// Follows a list page by page; gives the names of each page, and the metadata of the last.
async fn pages(cluster: &Cluster, query: &str) -> (Vec<String>, Value) {
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let list = cluster.expect("GET", &format!("{MAPS}?{query}&continue={token}"), Value::Null, 200).await;
        let names = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
        pages.push(names.collect::<Vec<_>>().join(" "));
        match list["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => return (pages, list["metadata"].clone()),
        }
    }
}

async fn five_maps() -> Cluster {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        let mut one = map(name, json!({}));
        let is_vowel = ["a", "e"].contains(&name);
        one["metadata"]["labels"] = json!({"vowel": is_vowel.to_string()});
        cluster.expect("POST", MAPS, one, 201).await;
    }
    cluster
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cluster = five_maps().await;
    let has = "fieldSelector=metadata.name!%3Dkube-root-ca.crt";
    for (query, want) in [
        ("limit=2", &["a b", "c d", "e"][..]),
        ("limit=5", &["a b c d e"]),
        ("limit=500&resourceVersion=0", &["a b c d e"]),
        ("limit=0", &["a b c d e"]),
        ("limit=1&labelSelector=vowel%3Dtrue", &["a", "e"]),
        ("limit=2&labelSelector=vowel%3Dfalse", &["b c", "d"]),
    ] {
        let (found, _) = pages(&cluster, &format!("{query}&{has}")).await;
        assert_eq!(found, want, "{query}");
    }
    let first = cluster.expect("GET", &format!("{MAPS}?limit=2"), Value::Null, 200).await;
    assert!(first["metadata"]["remainingItemCount"].as_u64() >= Some(3), "{}", first["metadata"]);
    let selected = cluster.expect("GET", &format!("{MAPS}?limit=1&labelSelector=vowel"), Value::Null, 200).await;
    assert_eq!(selected["metadata"].get("remainingItemCount"), None, "counting them needs the selector");
    for (accept, items) in [("Table", "rows"), ("PartialObjectMetadataList", "items")] {
        let accept = format!("application/json;as={accept};v=v1;g=meta.k8s.io");
        let response = cluster.raw(User::admin(), "GET", &format!("{MAPS}?limit=2"), &[("accept", &accept)], "").await;
        let list: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(list[items].as_array().unwrap().len(), 2);
        assert!(list["metadata"]["continue"].is_string(), "{}", list["metadata"]);
    }
}

#[tokio::test]
async fn all_pages_are_of_one_moment() {
    let cluster = five_maps().await;
    let first = cluster.expect("GET", &format!("{MAPS}?limit=2"), Value::Null, 200).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    cluster.expect("DELETE", &format!("{MAPS}/d"), Value::Null, 200).await;
    cluster.expect("POST", MAPS, map("cc", json!({})), 201).await;
    cluster.expect("PATCH", &format!("{MAPS}/e"), json!({"data": {"k": "new"}}), 200).await;
    let rest = cluster.expect("GET", &format!("{MAPS}?continue={token}"), Value::Null, 200).await;
    let items: Vec<_> =
        rest["items"].as_array().unwrap().iter().filter(|item| item["metadata"]["labels"].is_object()).collect();
    let names: Vec<_> = items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c", "d", "e"]);
    assert_eq!(items.last().unwrap().get("data"), Some(&json!({})), "as it was");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    for query in [
        format!("resourceVersion={revision}&resourceVersionMatch=Exact"),
        format!("resourceVersion={revision}&limit=500"),
    ] {
        let then = cluster.expect("GET", &format!("{MAPS}?labelSelector=vowel&{query}"), Value::Null, 200).await;
        assert_eq!(then["items"].as_array().unwrap().len(), 5, "{query}");
    }
}

#[tokio::test]
async fn a_page_that_comes_too_late_says_how_to_go_on() {
    let cluster = five_maps().await;
    let first = cluster.expect("GET", &format!("{MAPS}?limit=2"), Value::Null, 200).await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    // A server that starts again has no history.
    let cluster = cluster.again().await;
    let late = cluster.expect("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null, 410).await;
    assert_eq!(late["reason"], "Expired");
    assert!(message(&late).starts_with("The provided continue parameter is too old"), "{late}");
    let token = late["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.expect("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null, 200).await;
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    let exact = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let late = cluster.expect("GET", &exact, Value::Null, 410).await;
    assert_eq!(message(&late), "The resourceVersion for the provided list is too old.");
}

#[tokio::test]
async fn what_a_page_cannot_be_asked_for() {
    let cluster = five_maps().await;
    for (query, code) in [
        ("continue=nonsense", 400),
        ("continue=e30", 400),
        ("limit=many", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ("resourceVersionMatch=Newest&resourceVersion=1", 422),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=e30", 400),
    ] {
        cluster.expect("GET", &format!("{MAPS}?{query}"), Value::Null, code).await;
    }
    let first = cluster.expect("GET", &format!("{MAPS}?limit=2"), Value::Null, 200).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    cluster.expect("GET", &format!("{MAPS}?continue={token}&resourceVersion=5"), Value::Null, 400).await;
}

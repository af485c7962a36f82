//! Who asks, and what they may.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use http_body_util::BodyExt as _;
use sandbox_server::User;
use serde_json::{Value, json};

use super::{Cluster, MAPS, PODS, message, pod};

#[tokio::test]
async fn tokens_prove_accounts_while_they_live() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", PODS, pod("p"), 201).await;
    let uid = cluster.expect("GET", &format!("{PODS}/p"), Value::Null, 200).await["metadata"]["uid"].clone();
    let uri = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"spec": {"audiences": ["istio-ca"], "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let token = cluster.expect("POST", uri, request, 201).await["status"]["token"].clone();
    let review = |audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let uri = "/apis/authentication.k8s.io/v1/tokenreviews";
    let good = cluster.expect("POST", uri, review(json!(["istio-ca", "x"])), 201).await["status"].clone();
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!(["istio-ca"])));
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(good["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    let other = cluster.expect("POST", uri, review(json!(["vault"])), 201).await["status"].clone();
    assert!(other["authenticated"].is_null() && other["error"].is_string());
    cluster.expect("DELETE", &format!("{PODS}/p"), Value::Null, 200).await;
    let dead = cluster.expect("POST", uri, review(json!(["istio-ca"])), 201).await["status"].clone();
    assert!(dead["authenticated"].is_null() && dead["error"].is_string(), "it dies with its Pod");
    cluster
        .expect(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            json!({"spec": {"expirationSeconds": 5}}),
            422,
        )
        .await;
}

#[tokio::test]
async fn roles_decide() {
    let cluster = Cluster::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
    cluster.expect("POST", &format!("{rbac}/roles"), role, 201).await;
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "ann"}]});
    cluster.expect("POST", &format!("{rbac}/rolebindings"), binding, 201).await;
    let ann = || User::new("ann", &[]);
    for (method, uri, want) in [
        ("GET", PODS, 200),
        ("GET", "/api/v1/pods", 403),
        ("DELETE", "/api/v1/namespaces/default/pods/x", 403),
        ("GET", MAPS, 403),
        ("GET", "/version", 200),
        ("GET", "/api", 200),
        ("GET", "/metrics", 403),
    ] {
        assert_eq!(cluster.raw(ann(), method, uri, &[], "").await.status(), want, "{method} {uri}");
    }
    let refused = cluster.raw(ann(), "GET", "/api/v1/pods", &[], "").await;
    let refused: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        message(&refused),
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
    );
    assert_eq!(cluster.raw(User::anonymous(), "GET", "/api", &[], "").await.status(), 403);
    assert_eq!(cluster.raw(User::anonymous(), "GET", "/healthz", &[], "").await.status(), 200);
    let as_ann = cluster.raw(User::admin(), "GET", MAPS, &[("impersonate-user", "ann")], "").await;
    assert_eq!(as_ann.status(), 403);
    let by_ann = cluster.raw(ann(), "GET", PODS, &[("impersonate-user", "admin")], "").await;
    assert_eq!(by_ann.status(), 403);
}

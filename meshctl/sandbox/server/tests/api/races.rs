//! Two writers of one object.
//!
//! A webhook that is asked while one request is under way lets another be faster, so that every run meets the race.
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`. Called by `cargo test`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use sandbox_server::{Dial, Duplex, Server, User};
use serde_json::{Value, json};

use super::{Cluster, DEPLOYMENTS, MAPS, SERVICES, deployment, map, message, service};

/// A request that is faster.
struct Other {
    method: &'static str,
    uri: String,
    body: Value,
}

/// Makes its request when it is dialled for the first time; there is never an answer.
struct Faster {
    server: Server,
    other: Mutex<Option<Other>>,
}

impl Dial for Faster {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Duplex>> {
        let (server, other) = (self.server.clone(), self.other.lock().unwrap().take());
        Box::pin(async move {
            if let Some(Other { method, uri, body }) = other {
                let request = Request::builder().method(method).uri(uri).header("content-type", content(method));
                let answer = server.handle(request.body(Bytes::from(body.to_string())).unwrap(), User::admin()).await;
                assert_eq!(answer.status(), 200);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

fn content(method: &str) -> &'static str {
    if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
}

/// The answer to a request that another overtook.
async fn overtaken(cluster: &Cluster, other: Other, method: &str, uri: &str, body: Value) -> (u16, Value) {
    let other = Mutex::new(Some(other));
    cluster.server.set_dial(Arc::new(Faster { server: cluster.server.clone(), other }));
    cluster.ask(method, uri, content(method), &body).await
}

fn patch(uri: &str, body: Value) -> Other {
    Other { method: "PATCH", uri: uri.to_owned(), body }
}

async fn cluster() -> Cluster {
    let cluster = Cluster::new().await;
    cluster.expect("POST", SERVICES, service("hook", json!({"ports": [{"port": 443}]})), 201).await;
    let rule = |operation: &str, resources: Value| json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": [operation], "resources": resources});
    let rules = json!([rule("UPDATE", json!(["configmaps", "deployments/*"])), rule("CREATE", json!(["secrets"]))]);
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{
        "name": "h.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
        "clientConfig": {"service": {"name": "hook", "namespace": "default"}}, "rules": rules}]});
    let uri = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    cluster.expect("POST", uri, hook, 201).await;
    cluster
}

#[tokio::test]
async fn a_patch_that_was_overtaken_is_made_anew() {
    let cluster = cluster().await;
    cluster.expect("POST", MAPS, map("a", json!({})), 201).await;
    let uri = format!("{MAPS}/a");
    let other = patch(&uri, json!({"data": {"theirs": "1"}}));
    let (code, after) = overtaken(&cluster, other, "PATCH", &uri, json!({"data": {"ours": "1"}})).await;
    assert_eq!((code, &after["data"]), (200, &json!({"ours": "1", "theirs": "1"})), "{after}");
}

#[tokio::test]
async fn a_write_that_names_its_revision_is_refused() {
    let cluster = cluster().await;
    let made = cluster.expect("POST", MAPS, map("a", json!({})), 201).await;
    let uri = format!("{MAPS}/a");
    for (method, number) in [("PUT", "1"), ("PATCH", "2")] {
        let now = cluster.expect("GET", &uri, Value::Null, 200).await;
        let mut ours = if method == "PUT" { made.clone() } else { json!({"metadata": {}}) };
        ours["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        ours["data"] = json!({"ours": number});
        let other = patch(&uri, json!({"data": {"theirs": number}}));
        let (code, refused) = overtaken(&cluster, other, method, &uri, ours).await;
        assert_eq!(code, 409, "{method}: {refused}");
        assert!(message(&refused).contains("the object has been modified"), "{refused}");
    }
}

#[tokio::test]
async fn scaling_that_was_overtaken_is_made_anew() {
    let cluster = cluster().await;
    cluster.expect("POST", DEPLOYMENTS, deployment("a"), 201).await;
    let (uri, scale) = (format!("{DEPLOYMENTS}/a"), format!("{DEPLOYMENTS}/a/scale"));
    let other = patch(&uri, json!({"metadata": {"annotations": {"theirs": "1"}}}));
    let (code, after) = overtaken(&cluster, other, "PATCH", &scale, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code, &after["spec"]["replicas"]), (200, &json!(3)), "{after}");
    let now = cluster.expect("GET", &uri, Value::Null, 200).await;
    assert_eq!(now["metadata"]["annotations"]["theirs"], "1");
}

#[tokio::test]
async fn nothing_is_left_in_a_namespace_that_went_meanwhile() {
    let cluster = cluster().await;
    let uri = "/api/v1/namespaces/gone".to_owned();
    cluster.expect("POST", "/api/v1/namespaces", json!({"metadata": {"name": "gone"}}), 201).await;
    let other = Other { method: "DELETE", uri: uri.clone(), body: json!({}) };
    let secret = json!({"metadata": {"name": "a"}});
    let (code, refused) = overtaken(&cluster, other, "POST", &format!("{uri}/secrets"), secret).await;
    assert_eq!(code, 403, "{refused}");
    assert!(message(&refused).ends_with("because it is being terminated"), "{refused}");
}

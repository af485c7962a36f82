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

/// Writes once when it is dialled; there is never an answer.
struct Faster {
    server: Server,
    uri: String,
    patch: Mutex<Option<Value>>,
}

impl Dial for Faster {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Duplex>> {
        let patch = self.patch.lock().unwrap().take();
        let (server, uri) = (self.server.clone(), self.uri.clone());
        Box::pin(async move {
            if let Some(patch) = patch {
                let request = Request::builder().method("PATCH").uri(uri);
                let request = request.header("content-type", "application/merge-patch+json");
                let answer = server.handle(request.body(Bytes::from(patch.to_string())).unwrap(), User::admin()).await;
                assert_eq!(answer.status(), 200);
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

/// The answer to a request that was overtaken by `patch`.
async fn overtaken(cluster: &Cluster, patch: (&str, Value), method: &str, uri: &str, body: Value) -> (u16, Value) {
    let (of, patch) = (patch.0.to_owned(), Mutex::new(Some(patch.1)));
    cluster.server.set_dial(Arc::new(Faster { server: cluster.server.clone(), uri: of, patch }));
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    cluster.ask(method, uri, content, &body).await
}

async fn cluster() -> Cluster {
    let cluster = Cluster::new().await;
    cluster.expect("POST", SERVICES, service("hook", json!({"ports": [{"port": 443}]})), 201).await;
    let rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["configmaps", "deployments/*"]});
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{
        "name": "h.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
        "clientConfig": {"service": {"name": "hook", "namespace": "default"}}, "rules": [rule]}]});
    let uri = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    cluster.expect("POST", uri, hook, 201).await;
    cluster
}

#[tokio::test]
async fn a_patch_that_was_overtaken_is_made_anew() {
    let cluster = cluster().await;
    cluster.expect("POST", MAPS, map("a", json!({})), 201).await;
    let uri = format!("{MAPS}/a");
    let other = (uri.as_str(), json!({"data": {"theirs": "1"}}));
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
        let other = (uri.as_str(), json!({"data": {"theirs": number}}));
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
    let other = (uri.as_str(), json!({"metadata": {"annotations": {"theirs": "1"}}}));
    let (code, after) = overtaken(&cluster, other, "PATCH", &scale, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code, &after["spec"]["replicas"]), (200, &json!(3)), "{after}");
    let now = cluster.expect("GET", &uri, Value::Null, 200).await;
    assert_eq!(now["metadata"]["annotations"]["theirs"], "1");
}

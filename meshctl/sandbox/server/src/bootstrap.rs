//! What every cluster has from the beginning.
//!
//! Never here: what controllers keep up later. Called by `Server::bootstrap`, which may run again.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use serde_json::{Value, json};

use crate::auth::roles;
use crate::core::Core;
use crate::limits::FIRST_OBJECTS_AT_ONCE;
use crate::server::OpenError;
use crate::{Server, User, object};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn run(server: &Server, core: &Core) -> Result<(), OpenError> {
    let mut first = Vec::new();
    for name in NAMESPACES {
        first.push((
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        ));
    }
    for role in roles::seed() {
        let plural = if object::kind(&role) == "ClusterRole" { "clusterroles" } else { "clusterrolebindings" };
        first.push((format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), role));
    }
    let mut objects = Vec::new();
    for name in NAMESPACES {
        let space = format!("/api/v1/namespaces/{name}");
        objects.push((
            format!("{space}/serviceaccounts"),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
        ));
        objects.push((
            format!("{space}/configmaps"),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kube-root-ca.crt", "namespace": name, "annotations": {
                    "kubernetes.io/description": "The certificate to verify the API server with."}},
                "data": {"ca.crt": core.keys.root()},
            }),
        ));
    }
    objects.push((
        "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000}),
    ));
    objects.push((
        "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
    ));
    let address = core.options.kubernetes_address();
    // Where a Service has the address, this is not the first time.
    if !core.allocator.is_given(address) {
        objects.push((
            "/api/v1/namespaces/default/services".to_owned(),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {"clusterIP": address.to_string(), "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]},
            }),
        ));
    }
    // Namespaces before what is in them; within each step at once, so that the store commits them together.
    for step in [first, objects] {
        let made = futures::stream::iter(step).map(|(path, body)| async move { create(server, &path, &body).await });
        made.buffer_unordered(FIRST_OBJECTS_AT_ONCE).try_collect::<()>().await?;
    }
    Ok(())
}

async fn create(server: &Server, path: &str, body: &Value) -> Result<(), OpenError> {
    let failed = |reason: String| OpenError::Bootstrap {
        object: format!("{} {}", object::kind(body), object::name(body)),
        reason,
    };
    let request = Request::post(format!("{path}?fieldManager=kube-apiserver"))
        .body(Bytes::from(body.to_string()))
        .map_err(|error| failed(error.to_string()))?;
    let response = server.handle(request, User::system("apiserver")).await;
    if response.status().is_success() || response.status() == http::StatusCode::CONFLICT {
        return Ok(());
    }
    use http_body_util::BodyExt as _;
    let text = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status: Value = serde_json::from_slice(&text).unwrap_or_default();
    Err(failed(object::text(&status, "/message").to_owned()))
}

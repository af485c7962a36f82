//! The API asked in process: status codes, bodies and texts as the real server has them.
//!
//! One `check` per request. Never here: sockets, nodes. Run by `cargo test`.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "what fails here fails the test")]

mod access;
mod changes;
mod clients;
mod custom;
mod endings;
mod lists;
mod objects;
mod races;
mod webhooks;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use sandbox_server::{Body, Options, Server, User};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Cluster {
    server: Server,
    folder: TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::open(Options::new(folder.path())).unwrap();
        server.bootstrap().await.unwrap();
        Self { server, folder }
    }

    /// As after `kill -9`: nothing is told to stop.
    async fn again(self) -> Self {
        let Self { server, folder } = self;
        drop(server);
        let server = Server::open(Options::new(folder.path())).unwrap();
        server.bootstrap().await.unwrap();
        Self { server, folder }
    }

    async fn raw(&self, user: User, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        self.server.handle(request, user).await
    }

    async fn ask(&self, method: &str, uri: &str, content: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.raw(User::admin(), method, uri, &[("content-type", content)], &text).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[track_caller]
    fn expect<'a>(&'a self, method: &'a str, uri: &'a str, body: Value, want: u16) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let (code, value) = self.ask(method, uri, content, &body).await;
            assert_eq!(code, want, "{caller}: {method} {uri}: {value}");
            value
        }
    }

    #[track_caller]
    fn patch<'a>(&'a self, kind: &'a str, uri: &'a str, body: Value, want: u16) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let content = match kind {
                "apply" => "application/apply-patch+yaml".to_owned(),
                kind => format!("application/{kind}-patch+json"),
            };
            let (code, value) = self.ask("PATCH", uri, &content, &body).await;
            assert_eq!(code, want, "{caller}: PATCH {uri}: {value}");
            value
        }
    }

    /// The first lines of a watch.
    async fn watch(&self, uri: &str, lines: usize) -> Vec<Value> {
        let response = self.raw(User::admin(), "GET", uri, &[], "").await;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut text = String::new();
        let read = async {
            while text.lines().count() < lines {
                let Some(frame) = body.frame().await else { break };
                text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/t.example.com/v1/namespaces/default/widgets";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "x"}]}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": "x:1"}]}}}})
}

fn widgets() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["hosts"], "properties": {
            "hosts": {"type": "array", "maxItems": 3, "items": {"type": "string"}},
            "color": {"type": "string", "enum": ["red", "blue"]},
            "n": {"type": "integer", "maximum": 10, "default": 3},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "never changes"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
        }, "x-kubernetes-validations": [{"rule": "!has(self.color) || self.color != 'blue' || self.n > 1", "message": "blue needs n"}]},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.t.example.com"},
    "spec": {"group": "t.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["w"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}]},
            {"name": "v1beta1", "served": true, "storage": false, "schema": schema, "subresources": {"status": {}}},
        ]}})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "t.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap_or_default()
}

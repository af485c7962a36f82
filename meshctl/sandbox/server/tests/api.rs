//! The API asked in process: status codes, bodies and texts as the real server has them.
//!
//! One `check` per request. Never here: sockets, nodes. Run by `cargo test`.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "what fails here fails the test")]

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

#[tokio::test]
async fn objects_are_made_read_changed_and_deleted() {
    let cluster = Cluster::new().await;
    let made = cluster.expect("POST", MAPS, map("a", json!({"k": "v"})), 201).await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let again = cluster.expect("POST", MAPS, map("a", json!({})), 409).await;
    assert_eq!(message(&again), "configmaps \"a\" already exists");
    let uri = format!("{MAPS}/a");
    let mut next = made.clone();
    next["data"]["k"] = "w".into();
    let put = cluster.expect("PUT", &uri, next.clone(), 200).await;
    let stale = cluster
        .expect(
            "PUT",
            &uri,
            {
                let mut next = next.clone();
                next["data"]["k"] = "z".into();
                next
            },
            409,
        )
        .await;
    assert_eq!(
        message(&stale),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = cluster.expect("PUT", &uri, put.clone(), 200).await;
    assert_eq!(same["metadata"]["resourceVersion"], put["metadata"]["resourceVersion"], "a no-op writes nothing");
    let gone = cluster.expect("DELETE", &uri, Value::Null, 200).await;
    assert_eq!((&gone["status"], &gone["details"]["name"]), (&json!("Success"), &json!("a")));
    let absent = cluster.expect("GET", &uri, Value::Null, 404).await;
    assert_eq!(message(&absent), "configmaps \"a\" not found");
    assert_eq!(absent["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", CRDS, widgets(), 201).await;
    for name in ["a", "b"] {
        cluster.expect("POST", WIDGETS, widget(name, json!({"hosts": ["h"]})), 201).await;
    }
    let before = cluster.expect("GET", WIDGETS, Value::Null, 200).await;
    let cluster = cluster.again().await;
    let after = cluster.expect("GET", WIDGETS, Value::Null, 200).await;
    assert_eq!(before["items"], after["items"]);
    let number = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&after) > number(&before), "revisions never repeat");
    let old = cluster.watch(&format!("{WIDGETS}?watch=1&resourceVersion={}", number(&before)), 1).await;
    assert_eq!((&old[0]["type"], &old[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn bodies_must_fit_the_request() {
    let cluster = Cluster::new().await;
    for (body, want, text) in [
        (
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "x"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}}),
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ] {
        assert_eq!(message(&cluster.expect("POST", MAPS, body, want).await), text);
    }
    let named = cluster.expect("POST", MAPS, json!({"metadata": {"generateName": "a-"}}), 201).await;
    assert_eq!(named["metadata"]["name"].as_str().unwrap().len(), 7);
    let bad = cluster.expect("POST", MAPS, map("A_b", json!({})), 422).await;
    assert!(message(&bad).starts_with(
        "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"
    ));
    let missing = cluster.expect("POST", "/api/v1/namespaces/none/configmaps", map("a", json!({})), 404).await;
    assert_eq!(message(&missing), "namespaces \"none\" not found");
    let large = "x".repeat(4 * 1024 * 1024);
    cluster.expect("POST", MAPS, map("a", json!({"k": large})), 413).await;
    let (code, _) = cluster.ask("POST", MAPS, "application/cbor", &map("a", json!({}))).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let cluster = Cluster::new().await;
    let strict = format!("{SERVICES}?fieldValidation=Strict");
    let body = service("s", json!({"ports": [{"port": 80, "zz": 1}]}));
    let refused = cluster.expect("POST", &strict, body.clone(), 400).await;
    assert_eq!(
        message(&refused),
        "Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown field \"spec.ports[0].zz\""
    );
    let warned = cluster.raw(User::admin(), "POST", SERVICES, &[], &body.to_string()).await;
    assert_eq!(warned.status(), 201);
    assert_eq!(warned.headers()["warning"], "299 - \"unknown field \\\"spec.ports[0].zz\\\"\"");
    let twice = r#"{"metadata":{"name":"d"},"data":{"k":"a","k":"b"}}"#;
    let refused = cluster.raw(User::admin(), "POST", &format!("{MAPS}?fieldValidation=Strict"), &[], twice).await;
    assert_eq!(refused.status(), 400);
    let wrong = cluster
        .expect(
            "POST",
            DEPLOYMENTS,
            {
                let mut d = deployment("d");
                d["spec"]["replicas"] = "x".into();
                d
            },
            400,
        )
        .await;
    assert!(
        message(&wrong)
            .ends_with("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32")
    );
}

#[tokio::test]
async fn defaults_are_stored() {
    let cluster = Cluster::new().await;
    let made = cluster.expect("POST", DEPLOYMENTS, deployment("d"), 201).await;
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!((&made["spec"]["replicas"], &made["metadata"]["generation"]), (&json!(1), &json!(1)));
    let made = cluster.expect("POST", PODS, pod("p"), 201).await;
    assert_eq!((&made["spec"]["serviceAccountName"], &made["status"]["phase"]), (&json!("default"), &json!("Pending")));
    assert_eq!(
        made["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "old"}, "spec": {
        "template": {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
    let made = cluster.expect("POST", "/apis/extensions/v1beta1/namespaces/default/deployments", old, 201).await;
    assert_eq!(made["apiVersion"], "extensions/v1beta1");
    let seen = cluster.expect("GET", &format!("{DEPLOYMENTS}/old"), Value::Null, 200).await;
    assert_eq!(
        (&seen["apiVersion"], &seen["spec"]["selector"]),
        (&json!("apps/v1"), &json!({"matchLabels": {"app": "old"}}))
    );
}

#[tokio::test]
async fn services_get_addresses_and_ports_once() {
    let cluster = Cluster::new().await;
    let a =
        cluster.expect("POST", SERVICES, service("a", json!({"type": "NodePort", "ports": [{"port": 80}]})), 201).await;
    let (address, node_port) = (a["spec"]["clusterIP"].clone(), a["spec"]["ports"][0]["nodePort"].clone());
    assert!(address.as_str().unwrap().starts_with("198.19.") && node_port.as_u64().unwrap() >= 30000);
    assert_eq!(a["spec"]["ports"][0]["targetPort"], 80);
    let taken = service("b", json!({"clusterIP": address, "ports": [{"port": 80}]}));
    let refused = cluster.expect("POST", SERVICES, taken.clone(), 422).await;
    assert!(message(&refused).contains("provided IP is already allocated"), "{refused}");
    let changed =
        cluster.patch("merge", &format!("{SERVICES}/a"), json!({"spec": {"clusterIP": "198.19.9.9"}}), 422).await;
    assert!(message(&changed).contains("spec.clusterIPs[0]: Invalid value: \"198.19.9.9\": may not change once set"));
    cluster.expect("DELETE", &format!("{SERVICES}/a"), Value::Null, 200).await;
    cluster.expect("POST", SERVICES, taken, 201).await;
    let headless = cluster
        .expect("POST", SERVICES, service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]})), 201)
        .await;
    assert_eq!(headless["spec"]["clusterIP"], "None");
    cluster.expect("GET", &format!("{SERVICES}/kubernetes"), Value::Null, 200).await;
}

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
    cluster.patch("merge", &format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "w"}}), 200).await;
    cluster.expect("DELETE", &format!("{MAPS}/a?dryRun=All"), Value::Null, 200).await;
    assert_eq!(cluster.expect("GET", &format!("{MAPS}/a"), Value::Null, 200).await["data"]["k"], "v");
}

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

#[tokio::test]
async fn custom_resources() {
    let cluster = Cluster::new().await;
    cluster.expect("GET", WIDGETS, Value::Null, 404).await;
    let crd = cluster.expect("POST", CRDS, widgets(), 201).await;
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "WidgetList");
    let made =
        cluster.expect("POST", WIDGETS, widget("a", json!({"hosts": ["h"], "junk": 1, "fixed": "f"})), 201).await;
    assert_eq!(made["spec"], json!({"hosts": ["h"], "fixed": "f", "n": 3}));
    let uri = format!("{WIDGETS}/a");
    for (spec, text) in [
        (
            json!({"color": "green"}),
            "Widget.t.example.com \"a\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\", <nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]",
        ),
        (
            json!({"fixed": "g"}),
            "Widget.t.example.com \"a\" is invalid: spec.fixed: Invalid value: \"string\": never changes",
        ),
        (
            json!({"color": "blue", "n": 1}),
            "Widget.t.example.com \"a\" is invalid: spec: Invalid value: \"object\": blue needs n",
        ),
    ] {
        assert_eq!(message(&cluster.patch("merge", &uri, json!({"spec": spec}), 422).await), text);
    }
    let beta =
        cluster.expect("GET", "/apis/t.example.com/v1beta1/namespaces/default/widgets/a", Value::Null, 200).await;
    assert_eq!(
        (&beta["apiVersion"], &beta["metadata"]["uid"]),
        (&json!("t.example.com/v1beta1"), &made["metadata"]["uid"])
    );
    let status =
        cluster.patch("merge", &format!("{uri}/status"), json!({"status": {"s": 1}, "spec": {"n": 9}}), 200).await;
    assert_eq!(
        (&status["status"], &status["spec"]["n"], &status["metadata"]["generation"]),
        (&json!({"s": 1}), &json!(3), &json!(1))
    );
    let kept = cluster.patch("merge", &uri, json!({"status": {"s": 2}}), 200).await;
    assert_eq!(kept["status"], json!({"s": 1}));
    let unversioned = cluster.expect("PUT", &uri, widget("a", json!({"hosts": []})), 422).await;
    assert!(
        message(&unversioned)
            .ends_with("metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
    );
    let (code, _) = cluster.ask("PATCH", &uri, "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(code, 415);
    let applied = cluster
        .patch(
            "apply",
            &format!("{uri}?fieldManager=m"),
            widget("a", json!({"hosts": ["h"], "ports": [{"port": 1}]})),
            200,
        )
        .await;
    assert_eq!(applied["spec"]["ports"], json!([{"port": 1}]));
    let table = cluster
        .raw(User::admin(), "GET", WIDGETS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await;
    let table: Value = serde_json::from_slice(&table.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "[\"h\"]"]));
    cluster.expect("DELETE", &format!("{CRDS}/widgets.t.example.com"), Value::Null, 200).await;
    cluster.expect("GET", WIDGETS, Value::Null, 404).await;
    cluster.expect("POST", CRDS, widgets(), 201).await;
    let anew = cluster.expect("GET", WIDGETS, Value::Null, 200).await;
    assert_eq!(anew["items"], json!([]), "a definition made again begins empty");
}

#[tokio::test]
async fn evictions_keep_to_budgets() {
    let cluster = Cluster::new().await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["a", "b"] {
        let mut one = pod(name);
        one["metadata"]["labels"] = json!({"app": "x"});
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
}

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

#[tokio::test]
async fn discovery_in_all_its_forms() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.expect("GET", "/api", Value::Null, 200).await["versions"], json!(["v1"]));
    let groups = cluster.expect("GET", "/apis", Value::Null, 200).await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert!(place("apps") < place("extensions"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let beta = cluster.raw(User::admin(), "GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(
        beta.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    );
    let resources = cluster.expect("GET", "/api/v1", Value::Null, 200).await;
    let has = |name: &str| resources["resources"].as_array().unwrap().iter().any(|row| row["name"] == name);
    assert!(has("pods") && has("pods/eviction") && has("serviceaccounts/token"));
    let index = cluster.expect("GET", "/openapi/v3", Value::Null, 200).await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = cluster.expect("GET", &url, Value::Null, 200).await;
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let unknown = cluster.raw(User::admin(), "GET", "/nothing", &[], "").await;
    assert_eq!(
        (unknown.status().as_u16(), &unknown.headers()["content-type"]),
        (404, &http::HeaderValue::from_static("text/plain; charset=utf-8"))
    );
}

#[tokio::test]
async fn what_nobody_runs_cannot_be_streamed() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", PODS, pod("p"), 201).await;
    let absent = cluster.expect("GET", &format!("{PODS}/p/log"), Value::Null, 503).await;
    assert_eq!(absent["reason"], "ServiceUnavailable");
    cluster.expect("GET", &format!("{PODS}/none/log"), Value::Null, 404).await;
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]);
    cluster.expect("POST", PODS, two, 201).await;
    let which = cluster.expect("GET", &format!("{PODS}/two/log"), Value::Null, 400).await;
    assert_eq!(message(&which), "a container name must be specified for pod two, choose one of: [a b]");
}

#[tokio::test]
async fn older_clients_read_openapi_2() {
    let cluster = Cluster::new().await;
    cluster.expect("POST", CRDS, widgets(), 201).await;
    let answer = cluster.raw(User::admin(), "GET", "/openapi/v2", &[], "").await;
    assert_eq!(answer.headers()["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes[..5], *b"\x0a\x032.0");
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("io.k8s.api.apps.v1.Deployment") && has("com.example.t.v1.Widget") && has("dryRun"));
}

#[tokio::test]
async fn a_kube_client_works_in_process() {
    use kube::api::{Api, ListParams, PostParams};
    let cluster = Cluster::new().await;
    let client = cluster.server.client(User::system("test"));
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client, "default");
    let made: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(map("a", json!({"k": "v"}))).unwrap();
    maps.create(&PostParams::default(), &made).await.unwrap();
    let names: Vec<_> =
        maps.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|map| map.metadata.name).collect();
    assert_eq!(names, ["a", "kube-root-ca.crt"]);
    assert!(matches!(maps.get("none").await.unwrap_err(), kube::Error::Api(status) if status.code == 404));
}

//! What clients learn of the server before they ask: discovery, schemas, streams.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use http_body_util::BodyExt as _;
use sandbox_server::User;
use serde_json::{Value, json};

use super::{CRDS, Cluster, PODS, map, message, pod, widgets};

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

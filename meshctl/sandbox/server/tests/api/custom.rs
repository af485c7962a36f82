//! Kinds that CustomResourceDefinitions make.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use http_body_util::BodyExt as _;
use sandbox_server::User;
use serde_json::{Value, json};

use super::{CRDS, Cluster, WIDGETS, message, widget, widgets};

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

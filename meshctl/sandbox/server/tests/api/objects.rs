//! Objects made, read and kept: bodies, fields, defaults, addresses.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`.
//! Called by `cargo test`.

use sandbox_server::User;
use serde_json::{Value, json};

use super::{
    CRDS, Cluster, DEPLOYMENTS, MAPS, PODS, SERVICES, WIDGETS, deployment, map, message, pod, service, widget, widgets,
};

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
    let mut classed = pod("p");
    classed["spec"]["priorityClassName"] = json!("none");
    let refused = cluster.expect("POST", PODS, classed, 403).await;
    assert_eq!(message(&refused), "pods \"p\" is forbidden: no PriorityClass with name none was found");
    let both = json!({"metadata": {"name": "n", "generateName": "n-"}});
    cluster.expect("POST", MAPS, both.clone(), 201).await;
    let again = cluster.expect("POST", MAPS, both, 409).await;
    assert_eq!(message(&again), "configmaps \"n\" already exists", "a given name is never replaced by another");
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
async fn a_service_that_becomes_a_name_gives_its_port_back() {
    let cluster = Cluster::new().await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    cluster.expect("POST", SERVICES, service("a", spec.clone()), 201).await;
    let name = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let named = cluster.patch("merge", &format!("{SERVICES}/a"), name, 200).await;
    assert!(named["spec"]["ports"][0]["nodePort"].is_null(), "{named}");
    cluster.expect("POST", SERVICES, service("b", spec), 201).await;
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

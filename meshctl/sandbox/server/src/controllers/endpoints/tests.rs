//! Cases for endpoints: which Pods count, how, and in which objects.
//!
//! Never here: a server. Called by `cargo test`.
#![allow(clippy::wildcard_enum_match_arm, clippy::needless_pass_by_value, reason = "short cases read better")]

use serde_json::{Value, from_value};

use super::*;

fn key() -> Key {
    Key::new("shop", "web")
}

fn service(more: Value) -> Service {
    let mut spec = json!({ "selector": { "app": "web" }, "clusterIP": "198.19.0.9", "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] });
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    let meta = json!({ "name": "web", "namespace": "shop", "uid": "svc", "labels": { "app": "web" } });
    from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
}

fn pod(last: usize, port: u16, more: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": format!("web-{last}"), "namespace": "shop", "uid": format!("p{last}") },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": port }] }] },
        "status": { "phase": "Running", "podIP": format!("198.18.{}.{}", last / 200, last % 200), "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    Arc::new(from_value(pod).unwrap())
}

fn unready() -> Value {
    json!({ "/status/conditions": [{ "type": "Ready", "status": "False" }] })
}

fn ending() -> Value {
    json!({ "/metadata/deletionTimestamp": "2026-01-01T00:00:00Z" })
}

/// The objects written, by kind.
fn written(writes: &[Write], kind: &str) -> Vec<Value> {
    let object = |write: &Write| match write {
        Write::Create { object, .. } | Write::Replace { object, .. } => Some(object.clone()),
        _ => None,
    };
    writes.iter().filter_map(object).filter(|object| object["kind"] == kind).collect()
}

/// What was written, as if the server had stored it.
fn stored(writes: &[Write]) -> Own {
    let named = |mut object: Value, at: usize| {
        object["metadata"]["name"] = format!("web-{at}").into();
        object
    };
    let slices = written(writes, "EndpointSlice").into_iter().enumerate();
    Own {
        endpoints: written(writes, "Endpoints").pop().map(|object| Arc::new(from_value(object).unwrap())),
        slices: slices.map(|(at, object)| Arc::new(from_value(named(object, at)).unwrap())).collect(),
    }
}

fn run(service: &Service, pods: &[Arc<Pod>], own: &Own) -> Vec<Write> {
    reconcile(&key(), Some(service), pods, own, &[])
}

#[test]
fn ready_and_unready_pods_are_told_apart() {
    let writes = run(&service(json!({})), &[pod(1, 8080, json!({})), pod(2, 8080, unready())], &Own::default());
    let endpoints = written(&writes, "Endpoints").remove(0);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "198.18.0.1");
    assert_eq!(endpoints["subsets"][0]["notReadyAddresses"][0]["ip"], "198.18.0.2");
    assert_eq!(endpoints["subsets"][0]["ports"], json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    let slice = written(&writes, "EndpointSlice").remove(0);
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    assert_eq!(slice["metadata"]["labels"]["app"], "web");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "svc");
    assert_eq!(slice["endpoints"][0]["conditions"], json!({ "ready": true, "serving": true, "terminating": false }));
    assert_eq!(slice["endpoints"][1]["conditions"], json!({ "ready": false, "serving": false, "terminating": false }));
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "web-1");
}

#[test]
fn what_is_there_is_not_written_again() {
    let pods = [pod(1, 8080, json!({})), pod(2, 9090, json!({}))];
    let first = run(&service(json!({})), &pods, &Own::default());
    assert_eq!(run(&service(json!({})), &pods, &stored(&first)), []);
}

#[test]
fn ending_pods_stay_in_slices_only() {
    let writes = run(&service(json!({})), &[pod(1, 8080, ending())], &Own::default());
    assert_eq!(written(&writes, "Endpoints")[0]["subsets"], Value::Null);
    let conditions = &written(&writes, "EndpointSlice")[0]["endpoints"][0]["conditions"];
    assert_eq!(conditions, &json!({ "ready": false, "serving": true, "terminating": true }));
}

#[test]
fn named_ports_are_found_in_each_pod() {
    let writes = run(&service(json!({})), &[pod(1, 8080, json!({})), pod(2, 9090, json!({}))], &Own::default());
    let ports: Vec<_> =
        written(&writes, "EndpointSlice").iter().map(|slice| slice["ports"][0]["port"].clone()).collect();
    assert_eq!(ports, [8080, 9090]);
    assert_eq!(written(&writes, "Endpoints")[0]["subsets"].as_array().unwrap().len(), 2);
}

#[test]
fn unready_ones_are_published_where_asked() {
    let service = service(json!({ "publishNotReadyAddresses": true, "clusterIP": "None" }));
    let writes = run(&service, &[pod(1, 8080, unready())], &Own::default());
    assert_eq!(written(&writes, "Endpoints")[0]["subsets"][0]["addresses"][0]["ip"], "198.18.0.1");
    assert_eq!(written(&writes, "EndpointSlice")[0]["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(written(&writes, "EndpointSlice")[0]["metadata"]["labels"]["service.kubernetes.io/headless"], "");
}

#[test]
fn pods_without_address_or_that_ended_do_not_count() {
    let pods = [pod(1, 8080, json!({ "/status/podIP": "" })), pod(2, 8080, json!({ "/status/phase": "Succeeded" }))];
    let writes = run(&service(json!({})), &pods, &Own::default());
    assert_eq!(written(&writes, "Endpoints")[0]["subsets"], Value::Null);
    assert_eq!(written(&writes, "EndpointSlice")[0]["endpoints"], json!([]));
}

#[test]
fn many_endpoints_fill_several_slices_and_one_change_touches_one() {
    let mut pods: Vec<_> = (1..=250).map(|last| pod(last, 8080, json!({}))).collect();
    let first = run(&service(json!({})), &pods, &Own::default());
    let sizes: Vec<_> =
        written(&first, "EndpointSlice").iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    let own = stored(&first);
    pods.remove(10);
    assert_eq!(written(&run(&service(json!({})), &pods, &own), "EndpointSlice").len(), 1);
    pods.push(pod(999, 8080, json!({})));
    let swapped = run(&service(json!({})), &pods, &own);
    assert_eq!(written(&swapped, "EndpointSlice").len(), 1);
}

#[test]
fn the_last_endpoint_leaves_an_empty_slice() {
    let own = stored(&run(&service(json!({})), &[pod(1, 8080, json!({}))], &Own::default()));
    let writes = run(&service(json!({})), &[], &own);
    let slices = written(&writes, "EndpointSlice");
    assert_eq!((slices.len(), slices[0]["endpoints"].as_array().unwrap().len()), (1, 0));
    assert!(!writes.iter().any(|write| matches!(write, Write::Delete { .. })));
    let own = stored(&writes);
    assert_eq!(run(&service(json!({})), &[], &own), []);
}

#[test]
fn a_users_endpoints_are_mirrored() {
    let endpoints: Endpoints = from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "ep", "resourceVersion": "1" },
        "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }], "notReadyAddresses": [{ "ip": "10.0.0.2" }], "ports": [{ "port": 80 }] }],
    }))
    .unwrap();
    let own = Own { endpoints: Some(Arc::new(endpoints)), slices: Vec::new() };
    let bare = service(json!({ "selector": null }));
    let writes = run(&bare, &[], &own);
    let slice = written(&writes, "EndpointSlice").remove(0);
    assert_eq!(
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    assert_eq!(slice["endpoints"][1]["conditions"], json!({ "ready": false }));
    assert!(written(&writes, "Endpoints").is_empty());
}

#[test]
fn slices_that_a_user_wrote_are_left_alone() {
    let slice = json!({
        "metadata": { "name": "mine", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "endpoints": [], "ports": [],
    });
    let own = Own { endpoints: None, slices: vec![Arc::new(from_value(slice).unwrap())] };
    assert_eq!(run(&service(json!({ "selector": null })), &[], &own), []);
}

#[test]
fn a_services_endpoints_go_with_it() {
    let own = stored(&run(&service(json!({})), &[pod(1, 8080, json!({}))], &Own::default()));
    let writes = reconcile(&key(), None, &[], &own, &[]);
    assert!(
        matches!(writes.as_slice(), [Write::Delete { resource, .. }] if resource.kind == "Endpoints"),
        "{writes:?}"
    );
}

#[test]
fn an_external_name_has_none() {
    assert_eq!(run(&service(json!({ "type": "ExternalName" })), &[], &Own::default()), []);
}

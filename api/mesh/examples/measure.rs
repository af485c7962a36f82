//! Measures what a large mesh costs: reading, resolving, one scope's keys, versions, and building them all.
//!
//! Never here: a bar that fails a build; the numbers are for people. Run with `cargo run --release -p api-mesh --example measure`.
//! Called by hand.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement by hand")]

use std::time::Instant;

use api::spec::{Node, ProxyKind, ResourceKind};
use api_mesh::{
    mesh,
    model::{Catalog, Change, Settings},
    object::{Strictness, from_json},
};
use serde_json::json;

const NAMESPACES: u32 = 20;
const SERVICES: u32 = 1000;
const ENDPOINTS: u32 = 10;

/// Services with their Pods and endpoints; every fifth has rules of its own.
fn objects() -> Vec<serde_json::Value> {
    let mut values = Vec::new();
    for n in 0..SERVICES {
        let namespace = format!("ns{}", n % NAMESPACES);
        let name = format!("svc{n}");
        let vip = format!("198.19.{}.{}", n / 250, n % 250 + 1);
        values.push(json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace },
            "spec": { "clusterIP": vip, "selector": { "app": name }, "ports": [{ "name": "http", "port": 80 + n % 200 }] } }));
        let mut endpoints = Vec::new();
        for e in 0..ENDPOINTS {
            let ip = format!("198.18.{}.{}", (n * ENDPOINTS + e) / 250, (n * ENDPOINTS + e) % 250 + 1);
            let pod = format!("{name}-{e}");
            endpoints.push(json!({ "addresses": [ip], "targetRef": { "kind": "Pod", "name": pod } }));
            values.push(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": namespace, "labels": { "app": name, "security.istio.io/tlsMode": "istio" } },
                "spec": { "serviceAccountName": name, "containers": [] }, "status": { "podIP": ip } }));
        }
        values.push(json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints }));
        if n % 5 == 0 {
            values.push(json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": name, "namespace": namespace },
                "spec": { "host": name, "subsets": [{ "name": "v1", "labels": { "version": "v1" } }] } }));
            values.push(json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": name, "namespace": namespace },
                "spec": { "hosts": [name], "http": [{ "match": [{ "headers": { "x": { "exact": "1" } } }], "route": [{ "destination": { "host": name, "subset": "v1" } }] }, { "route": [{ "destination": { "host": name } }] }] } }));
        }
    }
    values
}

/// The first Pod of the first service.
fn node() -> Node {
    Node {
        kind: ProxyKind::Sidecar,
        id: String::new(),
        name: "svc0-0".to_owned(),
        namespace: "ns0".to_owned(),
        service_account: "svc0".to_owned(),
        address: "198.18.0.1".parse().unwrap(),
        labels: [("app".to_owned(), "svc0".to_owned())].into(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: "svc0".to_owned(),
        on_demand_hosts: false,
        ours: false,
        proxy_header: false,
        proxyless: false,
    }
}

fn main() {
    let values = objects();
    let start = Instant::now();
    let objects: Vec<_> = values.into_iter().map(|value| from_json(value, Strictness::Report).unwrap().0).collect();
    println!("read {} objects: {:?}", objects.len(), start.elapsed());
    let start = Instant::now();
    let mut catalog = Catalog::new(Settings::default());
    for object in &objects {
        catalog.apply(object);
    }
    println!("catalog: {:?}", start.elapsed());
    let start = Instant::now();
    let copy = catalog.clone();
    println!("copy of the catalog: {:?}", start.elapsed());
    drop(copy);
    let start = Instant::now();
    let (mesh, notes) = mesh::resolve(&catalog);
    println!("resolve: {:?}, {} notes", start.elapsed(), notes.iter().count());
    let node = node();
    let start = Instant::now();
    let outbound = mesh::outbound(&mesh, &mesh::scope(&mesh, &node));
    println!("keys of a scope: {:?}, {} keys", start.elapsed(), outbound.iter().count());
    let start = Instant::now();
    let keys = mesh::view_with(&mesh, &node, outbound);
    println!("view of one proxy, its scope known: {:?}", start.elapsed());
    let start = Instant::now();
    let versions: u64 = keys.iter().fold(0, |sum, key| sum ^ mesh.version_of(key));
    println!("versions: {:?} ({versions:x})", start.elapsed());
    for kind in mesh::ORDER {
        let start = Instant::now();
        let built = keys.of(kind).filter_map(|key| mesh::build(&mesh, key)).count();
        println!("build {built} {kind:?}: {:?}", start.elapsed());
    }
    let mut slice = objects.iter().find(|object| object.kind().name() == "EndpointSlice").unwrap().to_json().unwrap();
    slice["endpoints"][0]["addresses"][0] = "198.18.200.1".into();
    let start = Instant::now();
    let Change::Endpoints(services) = catalog.apply(&from_json(slice, Strictness::Report).unwrap().0) else { return };
    let after = mesh.with_endpoints(&catalog, &services);
    println!("one endpoint: {:?}", start.elapsed());
    let changed = keys.of(ResourceKind::Endpoints).filter(|key| mesh.version_of(key) != after.version_of(key)).count();
    println!("endpoints changed: {changed}");
}

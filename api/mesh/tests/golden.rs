//! What proxies are told, as golden files: small meshes, and Bookinfo as the public samples have it.
//!
//! Never here: laws that hold for every mesh (`laws.rs`). Files are in `testdata`.
//! Called by `cargo test`; Bookinfo is not run without the public samples and says so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod support;

use std::fmt::Write as _;

use api::{note::Notes, spec::ProxyKind};
use api_mesh::mesh::{self, Mesh};
use serde_json::Value;
use support::{golden, node, resolve, shared, sidecar};

/// The spec of a proxy and the notes about the mesh, as text.
fn show(mesh: &Mesh, notes: &Notes, node: &api::spec::Node) -> String {
    let mut text = String::new();
    for note in notes {
        let code = note.code.as_deref().map(|code| format!(" [{code}]")).unwrap_or_default();
        writeln!(text, "{:?}{code} {note}", note.severity).unwrap();
    }
    let mut value = serde_json::to_value(mesh::spec(mesh, node)).unwrap();
    prune(&mut value);
    text + &serde_json::to_string_pretty(&value).unwrap() + "\n"
}

/// Leaves out what says nothing, and writes durations and objects' names short.
fn prune(value: &mut Value) {
    if let Value::Array(items) = value {
        items.iter_mut().for_each(prune);
        if items.len() == 1 && items[0].is_string() {
            *value = items.remove(0);
        }
        return;
    }
    let Value::Object(fields) = value else { return };
    if let (Some(secs), Some(nanos)) =
        (fields.get("secs").and_then(Value::as_u64), fields.get("nanos").and_then(Value::as_u64))
    {
        *value = format!("{}ms", secs * 1000 + nanos / 1_000_000).into();
        return;
    }
    if let (Some(object), Some(Value::String(path))) = (fields.get("object"), fields.get("path")) {
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        *value = format!("{}/{}.{} {path}", text("kind"), text("name"), text("namespace")).trim_end().into();
        return;
    }
    fields.values_mut().for_each(prune);
    fields.retain(|name, value| match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(number) => {
            !(["connections", "pending", "requests", "retries"].contains(&name.as_str())
                && number.as_u64() == Some(u64::from(u32::MAX)))
                && number.as_u64() != Some(2_147_483_647)
        }
    });
}

/// Names of everything a proxy is told.
fn names(mesh: &Mesh, node: &api::spec::Node) -> String {
    let mut text = String::new();
    for kind in mesh::ORDER {
        for key in mesh::view(mesh, node).of(kind) {
            writeln!(text, "{kind:?} {}", key.name()).unwrap();
        }
    }
    text
}

fn bookinfo(more: &[&str]) -> Option<String> {
    let folder = shared().join("istio/samples/bookinfo");
    let files = ["platform/kube/bookinfo.yaml"].iter().chain(more);
    let mut text = String::new();
    for file in files {
        let path = folder.join(file);
        let Ok(read) = std::fs::read_to_string(&path) else {
            println!("not run: {} is absent; set FERROMESH_SHARED", path.display());
            return None;
        };
        text += &read;
        text += "\n---\n";
    }
    Some(text + include_str!("../testdata/bookinfo-pods.yaml"))
}

#[test]
fn bookinfo_for_a_sidecar_of_reviews() {
    let Some(text) =
        bookinfo(&["networking/destination-rule-all.yaml", "networking/virtual-service-reviews-90-10.yaml"])
    else {
        return;
    };
    let (mesh, notes) = resolve(&text);
    let reviews = sidecar(&[("app", "reviews"), ("version", "v1")]);
    golden("bookinfo-reviews.names", &names(&mesh, &reviews));
    golden("bookinfo-reviews.json", &show(&mesh, &notes, &reviews));
}

#[test]
fn bookinfo_for_the_ingress_gateway() {
    let Some(text) = bookinfo(&["networking/bookinfo-gateway.yaml"]) else { return };
    let (mesh, notes) = resolve(&text);
    let labels = [("istio", "ingressgateway"), ("app", "istio-ingressgateway")];
    let gateway = node(ProxyKind::Gateway, "gateway", "istio-system", "198.18.0.50", &labels);
    golden("bookinfo-gateway.names", &names(&mesh, &gateway));
    golden("bookinfo-gateway.json", &show(&mesh, &notes, &gateway));
}

//! What the mesh's tests share: YAML into a catalog, proxies to ask for, and golden files.
//!
//! Never here: what is expected. Used by the tests beside this folder.
//! Called by `cargo test`.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use api::{
    note::Notes,
    spec::{Node, ProxyKind},
};
use api_mesh::{
    mesh::{self, Mesh},
    model::{Catalog, Settings},
    object::{Stored, Strictness, from_json},
};
use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the public data is")]
pub(crate) fn shared() -> PathBuf {
    std::env::var_os("FERROMESH_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    let mut document = String::new();
    for line in text.lines().chain(["---"]) {
        if line.starts_with("---") {
            if document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
                documents
                    .push(serde_saphyr::from_str::<Value>(&document).unwrap_or_else(|e| panic!("{e}\n{document}")));
            }
            document.clear();
        } else {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

/// Reads the objects of a YAML text that are of kinds we know; objects without a namespace are in `default`.
pub(crate) fn objects(text: &str) -> Vec<Stored> {
    documents(text).into_iter().filter_map(|value| object(value).ok()).collect()
}

pub(crate) fn object(mut value: Value) -> Result<Stored, api_mesh::object::ObjectError> {
    let cluster_wide = ["Node", "Namespace"].contains(&value["kind"].as_str().unwrap_or_default());
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        && !cluster_wide
    {
        metadata.entry("namespace").or_insert_with(|| "default".into());
    }
    from_json(value, Strictness::Report).map(|(stored, _)| stored)
}

pub(crate) fn catalog(objects: &[Stored]) -> Catalog {
    let mut catalog = Catalog::new(Settings::default());
    for object in objects {
        catalog.apply(object);
    }
    catalog
}

pub(crate) fn resolve(text: &str) -> (Mesh, Notes) {
    mesh::resolve(&catalog(&objects(text)))
}

pub(crate) fn node(kind: ProxyKind, name: &str, namespace: &str, address: &str, labels: &[(&str, &str)]) -> Node {
    Node {
        kind,
        id: format!("{name}.{namespace}"),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        service_account: "default".to_owned(),
        address: address.parse().unwrap(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: name.to_owned(),
        on_demand_hosts: false,
        ours: false,
        proxy_header: false,
        proxyless: false,
    }
}

pub(crate) fn sidecar(labels: &[(&str, &str)]) -> Node {
    node(ProxyKind::Sidecar, "pod", "default", "198.18.0.99", labels)
}

/// Compares a text with a golden file; `BLESS=1` writes it anew.
#[allow(clippy::disallowed_methods, reason = "blessing is asked for by the environment")]
pub(crate) fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let line = expected.lines().zip(found.lines()).position(|(a, b)| a != b);
        let line = line.unwrap_or_else(|| expected.lines().count().min(found.lines().count()));
        panic!(
            "{} differs at line {}:\n  expected: {}\n  found:    {}\nBLESS=1 cargo test -p api-mesh writes it anew",
            path.display(),
            line + 1,
            expected.lines().nth(line).unwrap_or("(end)"),
            found.lines().nth(line).unwrap_or("(end)"),
        );
    }
}

//! Our CustomResourceDefinitions equal Istio's, path by path; what is deployed is what the types say.
//!
//! Never here: descriptions, which are our own words. Reads `$FERROMESH_SHARED/istio/crds/istio.yaml`.
//! Called by `cargo test`; without that data the comparison is not run and says so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Differences on purpose: a path, and why.
const ON_PURPOSE: &[(&str, &str)] = &[];

#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the public data is")]
fn shared() -> PathBuf {
    std::env::var_os("FERROMESH_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

fn documents(text: &str) -> Vec<Value> {
    text.split("\n---")
        .filter(|document| document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')))
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

fn flatten(value: &Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                if name != "description" || !field.is_string() {
                    flatten(field, &format!("{path}.{name}"), leaves);
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                // versions and columns by name, so that order shows as its own difference
                let at = item.get("name").and_then(Value::as_str).map_or(at.to_string(), str::to_owned);
                flatten(item, &format!("{path}[{at}]"), leaves);
            }
        }
        // `required` and the like are sets
        leaf => {
            leaves.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// Lists whose order means nothing are sorted.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if let (true, Value::Array(items)) = (name == "required", &mut *field) {
                    items.sort_by_key(Value::to_string);
                }
                sort_sets(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sort_sets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn leaves(crds: Vec<Value>) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for mut crd in crds {
        sort_sets(&mut crd);
        let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap().to_owned();
        flatten(&crd, &name, &mut leaves);
    }
    leaves
}

#[test]
fn equal_istios_path_by_path() {
    let file = shared().join("istio/crds/istio.yaml");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("not run: {} is absent; set FERROMESH_SHARED", file.display());
        return;
    };
    let (theirs, ours) = (leaves(documents(&text)), leaves(api_mesh::object::crds()));
    let same = |a: &Value, b: &Value| a == b || (a.is_number() && a.as_f64() == b.as_f64());
    let mut differences = Vec::new();
    for (path, value) in &theirs {
        match ours.get(path) {
            None => differences.push(format!("missing {path} = {value}")),
            Some(other) if !same(value, other) => differences.push(format!("{path}: theirs {value}, ours {other}")),
            Some(_) => {}
        }
    }
    for (path, value) in &ours {
        if !theirs.contains_key(path) {
            differences.push(format!("added {path} = {value}"));
        }
    }
    differences.retain(|line| !ON_PURPOSE.iter().any(|(path, _)| line.contains(path)));
    assert!(theirs.len() > 5000, "read only {} paths", theirs.len());
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn every_field_of_a_kind_has_a_description() {
    fn undescribed(schema: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field.get("description").is_none() {
                missing.push(path.clone());
            }
            undescribed(field, &path, missing);
        }
        for word in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(word) {
                undescribed(inner, path, missing);
            }
        }
    }
    let mut missing = Vec::new();
    for crd in api_mesh::object::crds() {
        let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
        undescribed(spec, crd.pointer("/spec/names/kind").and_then(Value::as_str).unwrap(), &mut missing);
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_deployed_files_read_back_as_the_same() {
    for (file, crds) in [("istio.yaml", api_mesh::object::crds()), ("old.yaml", api_mesh::old::crds())] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds").join(file);
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(documents(&text), crds, "run cargo xtask gen");
    }
}

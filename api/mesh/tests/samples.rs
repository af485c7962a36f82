//! Every Istio object in the public samples and validation cases is read, strictly.
//!
//! Never here: whether `model` accepts them. Reads `$FERROMESH_SHARED/istio/samples` and `corpora/validation`.
//! Called by `cargo test`; without that data it is not run and says so.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::path::{Path, PathBuf};

use api_mesh::object::{Kind, ObjectError, Stored, Strictness, from_json};
use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the public data is")]
fn shared() -> PathBuf {
    std::env::var_os("FERROMESH_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    found.sort();
}

/// The documents of a file; those that are templates rather than YAML are left out.
fn documents(text: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    let mut document = String::new();
    for line in text.lines().chain(["---"]) {
        if line.starts_with("---") {
            documents.extend(serde_saphyr::from_str::<Value>(&document).ok().filter(Value::is_object));
            document.clear();
        } else {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

fn kind_of(document: &Value) -> Option<Kind> {
    Kind::find(document.get("apiVersion")?.as_str()?, document.get("kind")?.as_str()?)
}

/// Reads every object of a folder; those that cannot be read must be exactly `unreadable`, by name and field.
fn check(folder: &str, at_least: usize, unreadable: &[&str]) {
    let folder = shared().join(folder);
    if !folder.is_dir() {
        println!("not run: {} is absent; set FERROMESH_SHARED", folder.display());
        return;
    }
    let mut found = Vec::new();
    files(&folder, &mut found);
    let (mut read, mut wrong) = (0, Vec::new());
    for file in found {
        for mut document in documents(&std::fs::read_to_string(&file).unwrap()) {
            if let Value::Object(fields) = &mut document {
                fields.shift_remove("_err"); // how the validation cases mark what they expect
            }
            let Some(kind) = kind_of(&document) else { continue };
            read += usize::from(kind.is_istio());
            match from_json(document, Strictness::Refuse) {
                Ok((stored, _)) => round_trip(&stored),
                Err(ObjectError::Field { object, path, .. }) => wrong.push(format!("{object} {path}")),
                Err(other) => wrong.push(other.to_string()),
            }
        }
    }
    assert_eq!(wrong, unreadable);
    assert!(read >= at_least, "read only {read} Istio objects");
}

/// What was read, written and read again is the same.
fn round_trip(stored: &Stored) {
    let (again, unknown) = from_json(stored.to_json().unwrap(), Strictness::Refuse).unwrap();
    assert_eq!((&again, unknown.len()), (stored, 0));
}

#[test]
fn samples_are_read() {
    check("istio/samples", 53, &[]);
}

/// The faults of the other invalid cases are for the CRDs' rules and for `model`.
#[test]
fn validation_cases_are_read_but_for_wrong_types_and_names_and_what_is_missing() {
    check(
        "corpora/validation",
        112,
        &[
            "DestinationRule/bookinfo-ratings spec.trafficPolicy.loadBalancer.warmup",
            "PeerAuthentication/bad-mode spec.mtls.mode",
            "RequestAuthentication/bad-target-name spec.targetRef",
            "RequestAuthentication/no-issuer spec.jwtRules[0]",
            "RequestAuthentication/invalid-from-headers-no-name spec.jwtRules[0].fromHeaders[0]",
            "RequestAuthentication/invalid-claim-to-header-unset spec.jwtRules[0].outputClaimToHeaders[0]",
            "RequestAuthentication/bad-timeout spec.jwtRules[0].timeout",
            "RequestAuthentication/invalid-presence-value spec.jwtRules[0].presence",
            "ServiceEntry/no-spec spec",
            "ServiceEntry/missing-host spec",
            // valid to Istio; but by YAML 1.2 `[1.2.3.4, 001:db8::]` is a list with a map in it
            "ServiceEntry/full.default spec.addresses[1]",
            "WasmPlugin/unset-port spec.match[0].ports[0]",
            "WasmPlugin/nil spec",
            "WasmPlugin/nested-nil spec",
            "WorkloadGroup/no-spec spec",
        ],
    );
}

//! Which webhooks are asked, where none of them can answer.
//!
//! Never here: how a request is sent. Uses `Cluster` of the folder's `main`. Called by `cargo test`.

use serde_json::{Value, json};

use super::{Cluster, MAPS, map, message};

/// What a webhook with these conditions, which does not answer, makes of a write.
async fn check(policy: &str, expressions: &[&str], code: u16, says: &str) {
    let cluster = Cluster::new().await;
    let conditions: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| json!({"name": format!("c{number}"), "expression": expression}))
        .collect();
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{
        "name": "h.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": policy,
        "clientConfig": {"service": {"name": "none", "namespace": "default"}}, "rules": [rule],
        "matchConditions": conditions}]});
    let uri = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    cluster.expect("POST", uri, hook, 201).await;
    let (found, answer) = cluster.ask("POST", MAPS, "application/json", &map("a", json!({}))).await;
    assert_eq!(found, code, "{expressions:?}: {answer}");
    assert!(message(&answer).starts_with(says), "{answer}");
}

#[tokio::test]
async fn conditions_choose_what_a_webhook_sees() {
    check("Fail", &["object.metadata.name == 'b'"], 201, "").await;
    let failed = "Internal error occurred: failed calling webhook \"h.example.com\": ";
    check("Fail", &["object.metadata.name == 'a'"], 500, failed).await;
}

#[tokio::test]
async fn a_condition_that_cannot_be_answered_passes_nothing_by() {
    let broken = "object.metadata.labels['none'] == 'x'";
    check("Fail", &[broken], 403, "configmaps \"a\" is forbidden: ").await;
    check("Fail", &[broken, "object.metadata.name == 'b'"], 201, "").await;
    check("Ignore", &[broken], 201, "").await;
}

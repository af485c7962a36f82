//! Whether a Pod gets a proxy.
//!
//! In order: host network, system namespaces, already injected; then the Pod's own word (the label before the
//! annotation), the settings' selectors, and last the policy. Never here: how. Called by webhook and `kube-inject`.

use serde_json::Value;

use super::{INJECT, InjectConfig, Placement, STATUS, pod::texts};

/// Namespaces of Kubernetes itself, whose Pods are left alone.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The outcome, with the reason a user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets one.
    Inject,
    /// It does not.
    Skip(String),
}

fn skip(reason: impl Into<String>) -> Decision {
    Decision::Skip(reason.into())
}

/// Decides for one Pod.
pub fn decide(pod: &Value, placement: &Placement, config: &InjectConfig) -> Decision {
    let (labels, annotations) = (texts(pod, "labels"), texts(pod, "annotations"));
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return skip("the Pod is on the host's network");
    }
    if SYSTEM.contains(&placement.namespace.as_str()) {
        return skip(format!("namespace {} belongs to Kubernetes", placement.namespace));
    }
    if annotations.contains_key(STATUS) {
        return skip("the Pod has a sidecar already");
    }
    match labels.get(INJECT).or_else(|| annotations.get(INJECT)).map(String::as_str) {
        Some("true" | "y" | "yes" | "on") => return Decision::Inject,
        Some("false" | "n" | "no" | "off") => return skip(format!("{INJECT} says no")),
        // Anything else says nothing, as in Istio.
        Some(_) | None => {}
    }
    if config.never.iter().any(|selector| selector.selects(&labels)) {
        return skip("neverInjectSelector selects the Pod");
    }
    if config.always.iter().any(|selector| selector.selects(&labels)) {
        return Decision::Inject;
    }
    if config.by_default { Decision::Inject } else { skip("the policy is \"disabled\" and the Pod does not ask") }
}

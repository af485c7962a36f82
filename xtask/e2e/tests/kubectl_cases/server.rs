//! What the server says of itself and of what it refuses; kinds of the user's own.
//!
//! Never here: built-in objects that are taken (see `objects`). Called by the suite `kubectl`.

use anyhow::{Result, ensure};
use e2e::kubectl::Kubectl;

use super::{WEB, has};

pub(super) fn explain(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.ok(&["explain", "pods.spec.containers"])?, "image")?;
    has(&k.ok(&["explain", "deployment.spec.replicas"])?, "integer")
}

pub(super) fn api_resources(k: &Kubectl, _: &str) -> Result<()> {
    let all = k.ok(&["api-resources"])?;
    for part in ["deployments", "configmaps", "customresourcedefinitions"] {
        has(&all, part)?;
    }
    has(&k.ok(&["api-versions"])?, "apps/v1")
}

/// What is refused, with the message a real server gives.
pub(super) fn refusals(k: &Kubectl, _: &str) -> Result<()> {
    has(&k.fails(&["get", "pod", "absent"])?, "pods \"absent\" not found")?;
    has(&k.fails(&["get", "zork"])?, "the server doesn't have a resource type \"zork\"")?;
    let bad = k.fed(&["create", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_b}\n")?.fails()?;
    has(&bad, "a lowercase RFC 1123 subdomain must consist of")?;
    let selector = WEB.replace("selector: {matchLabels: {app: web}}", "selector: {matchLabels: {app: other}}");
    has(&k.fed(&["create", "-f", "-"], &selector)?.fails()?, "`selector` does not match template `labels`")?;
    has(&k.fed(&["create", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x\n")?.fails()?, "error")?;
    has(&k.fails(&["top", "pods"])?, "Metrics API not available")
}

pub(super) fn custom_resources(k: &Kubectl, version: &str) -> Result<()> {
    let group = format!("v{}.example.com", version.replace('.', ""));
    let crd = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: widgets.{group}}}\nspec:\n  group: {group}\n  scope: Namespaced\n  names: {{plural: widgets, singular: widget, kind: Widget}}\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    additionalPrinterColumns: [{{name: Color, type: string, jsonPath: .spec.color}}]\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec:\n            type: object\n            properties:\n              color: {{type: string, enum: [red, blue]}}\n              size: {{type: integer, default: 3}}\n"
    );
    k.apply(&crd)?;
    k.ok(&["wait", "--for=condition=Established", &format!("crd/widgets.{group}"), "--timeout=30s"])?;
    let widget = |color: &str| {
        format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {{color: {color}}}\n")
    };
    has(&k.fed(&["apply", "-f", "-"], &widget("green"))?.fails()?, "Unsupported value: \"green\"")?;
    k.apply(&widget("red"))?;
    has(&k.ok(&["get", &format!("widgets.{group}")])?, "COLOR")?;
    ensure!(k.ok(&["get", &format!("widgets.{group}"), "w", "-o", "jsonpath={.spec.size}"])? == "3");
    k.ok(&["delete", "crd", &format!("widgets.{group}")]).map(drop)
}

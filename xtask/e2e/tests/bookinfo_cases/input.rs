//! Objects that are refused, each with a clear error, and those that are taken with a warning.
//!
//! Never here: every rule; `api-mesh` and the sandbox's server test theirs. Called by the suite `bookinfo`.

use anyhow::{Result, ensure};
use e2e::bookinfo::Bookinfo;

pub(crate) fn bad_input(b: &Bookinfo) -> Result<()> {
    let route = |rest: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bad}}\nspec:\n  hosts: [reviews]\n  http:\n  - {rest}\n"
        )
    };
    let refused = |yaml: &str, parts: &[&str]| -> Result<()> {
        let err = b.kubectl.fed(&["apply", "-f", "-"], yaml)?.fails()?;
        for part in parts {
            ensure!(err.contains(part), "expected {part:?} in: {err}");
        }
        Ok(())
    };
    refused(&route("route: [{destination: {host: reviews}, weight: -1}]"), &["spec.http[0].route[0].weight"])?;
    refused(
        &route("{match: [{uri: {regex: '(('}}], route: [{destination: {host: reviews}}]}"),
        &["spec.http[0].match[0].uri"],
    )?;
    refused(&route("{route: [{destination: {host: reviews}}], timeut: 1s}"), &["timeut"])?;
    refused(&route("{route: [{destination: {host: reviews}}], timeout: [1]}"), &["timeout"])?;
    refused("apiVersion: v1\nkind: [", &[])?;
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: guard}\nspec: {}\n";
    refused(tokens, &["RequestAuthentication", "not enforced"])?;
    let audit = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard}\nspec: {action: AUDIT, rules: [{}]}\n";
    refused(audit, &["spec.action", "not enforced"])?;
    let warned = b.kubectl.fed(
        &["apply", "-f", "-"],
        &route("route: [{destination: {host: nowhere.example}}]").replace("bad", "warned"),
    )?;
    ensure!(warned.code == 0 && warned.err.contains("nowhere.example"), "{}", warned.all());
    b.kubectl.ok(&["delete", "virtualservice", "warned"])?;
    let left = b.kubectl.ok(&["get", "virtualservices", "-o", "name"])?;
    ensure!(!left.contains("bad"), "{left}");
    ensure!(!b.versions(3)?.is_empty());
    Ok(())
}

pub(crate) fn too_large(b: &Bookinfo) -> Result<()> {
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata: {{text: {}}}\n",
        "x".repeat(10 * 1024 * 1024)
    );
    let err = b.kubectl.fed(&["create", "-f", "-"], &yaml)?.fails()?;
    ensure!(err.contains("too large"), "{err}");
    let err = b.kubectl.fails(&["get", "configmap", "large"])?;
    ensure!(err.contains("NotFound"), "{err}");
    // The server goes on as before.
    ensure!(!b.versions(1)?.is_empty());
    Ok(())
}

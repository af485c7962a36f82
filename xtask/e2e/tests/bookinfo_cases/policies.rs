//! Who may call, and what: AuthorizationPolicies over a running Bookinfo.
//!
//! Never here: every field; `api-mesh` and `api` test theirs. Called by the suite `bookinfo`.

use anyhow::{Result, ensure};
use e2e::{bookinfo::Bookinfo, sandbox::until};

use super::{
    LIMIT,
    wire::{ask, pair},
};

pub(crate) fn decide(b: &Bookinfo) -> Result<()> {
    pair(b, "callers", true)?;
    let answered = |url: &str, end: &str| {
        until(&format!("{url} is answered{end}"), LIMIT, || {
            let said = ask(b, "callers", url)?;
            ensure!(said.ends_with(end), "{said}");
            Ok(())
        })
    };
    let policy = |name: &str, spec: &str| {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy";
        b.kubectl.apply(&format!("{head}\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
    };
    let (reviews, ratings) = ("http://reviews.default:9080/health", "http://ratings.default:9080");
    answered(reviews, " 200")?;
    policy(
        "reviews",
        "{selector: {matchLabels: {app: reviews}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]}]}",
    )?;
    answered(reviews, "RBAC: access denied 403")?;
    until("productpage may", LIMIT, || {
        ensure!(!b.versions(6)?.is_empty());
        Ok(())
    })?;
    policy(
        "ratings",
        "{selector: {matchLabels: {app: ratings}}, action: DENY, rules: [{to: [{operation: {paths: [/health]}}]}]}",
    )?;
    for path in ["/health", "/health?x=1", "/%68ealth"] {
        answered(&format!("{ratings}{path}"), "RBAC: access denied 403")?;
    }
    answered(&format!("{ratings}/ratings/0"), " 200")?;
    b.kubectl.ok(&["delete", "authorizationpolicy", "--all"])?;
    answered(reviews, " 200")?;
    answered(&format!("{ratings}/health"), " 200")?;
    b.kubectl.ok(&["delete", "namespace", "callers", "--wait=false"]).map(drop)
}

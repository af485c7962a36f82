//! Keeps the CA bundle in a program's own webhook configuration: what the API server checks the webhook's certificate with.
//!
//! Looks every few seconds and whenever roots change, and patches only what differs.
//! Never here: making of certificates. Run as a task by pilot and the injector.

use std::time::Duration;

use api_rt::{clock::Clock, identity::Identity};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How often the configuration is looked at; it may have been applied anew without a bundle.
const CHECK: Duration = Duration::from_secs(5);
/// How soon it is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Which configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    /// `MutatingWebhookConfiguration`
    Mutating,
    /// `ValidatingWebhookConfiguration`
    Validating,
}

/// What to keep.
#[derive(Debug, Clone)]
pub struct BundleOptions {
    /// Mutating or validating.
    pub kind: WebhookKind,
    /// Name of the configuration.
    pub name: String,
    /// Service that our webhooks are reached by, as `(namespace, name)`; webhooks of other services stay as they are.
    pub service: (String, String),
    /// Failure policy to set with the bundle, if one is to be (`Fail`, once the webhook answers).
    pub failure_policy: Option<&'static str>,
}

/// The JSON patch that makes the configuration right; empty if it is.
fn changes(configuration: &Value, options: &BundleOptions, bundle: &str) -> Vec<Value> {
    let (namespace, name) = &options.service;
    let mut patch = Vec::new();
    let webhooks = configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    for (index, webhook) in webhooks.enumerate() {
        let service = &webhook["clientConfig"]["service"];
        if service["namespace"] != json!(namespace) || service["name"] != json!(name) {
            continue;
        }
        // The name is tested so that a list changed meanwhile is not patched in the wrong place.
        let mut set = |path: &str, now: &Value, wanted: &str| {
            if now != wanted {
                patch
                    .push(json!({ "op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook["name"] }));
                patch.push(json!({ "op": "add", "path": format!("/webhooks/{index}/{path}"), "value": wanted }));
            }
        };
        set("clientConfig/caBundle", &webhook["clientConfig"]["caBundle"], bundle);
        if let Some(policy) = options.failure_policy {
            set("failurePolicy", &webhook["failurePolicy"], policy);
        }
    }
    patch
}

async fn check(api: &Api<DynamicObject>, options: &BundleOptions, roots_pem: &str) -> Result<(), kube::Error> {
    let found = api.get(&options.name).await?;
    let patch = changes(&found.data, options, &STANDARD.encode(roots_pem));
    if patch.is_empty() {
        return Ok(());
    }
    let patch = Patch::Json::<()>(serde_json::from_value(Value::Array(patch)).map_err(kube::Error::SerdeError)?);
    api.patch(&options.name, &PatchParams::default(), &patch).await?;
    tracing::info!(configuration = options.name, "CA bundle set");
    Ok(())
}

/// Keeps the bundle equal to the identity's roots until stopped; `state` hears of each look: none, or why it failed.
pub async fn keep(
    client: Client,
    options: BundleOptions,
    identity: Identity,
    clock: Clock,
    stop: CancellationToken,
    mut state: impl FnMut(Option<&str>) + Send,
) {
    let kind = match options.kind {
        WebhookKind::Mutating => "MutatingWebhookConfiguration",
        WebhookKind::Validating => "ValidatingWebhookConfiguration",
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut roots_changed = identity.changes();
    let keep = async {
        identity.wait().await;
        let mut said = String::new();
        loop {
            roots_changed.mark_unchanged();
            let roots = identity.roots().get();
            let outcome = match &roots {
                Some(roots) => check(&api, &options, roots.pem()).await,
                None => Ok(()),
            };
            let pause = match outcome {
                Ok(()) => {
                    said.clear();
                    state(None);
                    CHECK
                }
                Err(error) => {
                    if said != error.to_string() {
                        said = error.to_string();
                        tracing::warn!(configuration = options.name, %error, "could not set the CA bundle");
                    }
                    state(Some(&format!("{kind} {}: {error}", options.name)));
                    RETRY
                }
            };
            tokio::select! {
                () = clock.sleep(pause) => {}
                _ = roots_changed.changed() => {}
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_webhooks_are_patched_and_only_where_they_differ() {
        let configuration = json!({ "webhooks": [
            { "name": "a", "clientConfig": { "service": { "namespace": "istio-system", "name": "istiod" } }, "failurePolicy": "Ignore" },
            { "name": "b", "clientConfig": { "service": { "namespace": "other", "name": "istiod" } } },
            { "name": "c", "clientConfig": { "caBundle": "Yg==", "service": { "namespace": "istio-system", "name": "istiod" } }, "failurePolicy": "Fail" },
        ]});
        let options = BundleOptions {
            kind: WebhookKind::Validating,
            name: "v".into(),
            service: ("istio-system".into(), "istiod".into()),
            failure_policy: Some("Fail"),
        };
        let patch = changes(&configuration, &options, "Yg==");
        let paths: Vec<&str> = patch.iter().map(|step| step["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            ["/webhooks/0/name", "/webhooks/0/clientConfig/caBundle", "/webhooks/0/name", "/webhooks/0/failurePolicy"]
        );
    }
}

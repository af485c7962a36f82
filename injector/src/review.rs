//! One admission review: a Pod in, a patch out.
//!
//! Never here: I/O, or how a Pod is injected (`api_mesh::inject`). Called by the webhook server.

use api_kube::webhook::{Review, Verdict};
use api_mesh::inject::{Decision, InjectConfig, Placement, decide, inject};
use serde_json::Value;

/// Settings that the webhook's path changes: `/inject/cluster/NAME/net/NAME`, and variables besides.
fn along_path(path: &str, config: &mut InjectConfig) -> Vec<(String, String)> {
    let mut extra = Vec::new();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for pair in parts.chunks_exact(2) {
        if let [name, value] = pair {
            let value = value.replace("--slash--", "/");
            match *name {
                "cluster" => config.cluster_id = value,
                "net" => config.network = value,
                other => extra.push((other.to_owned(), value)),
            }
        }
    }
    extra
}

/// What became of a review, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The Pod got a sidecar.
    Injected,
    /// It did not need one.
    Skipped,
    /// It was refused.
    Refused,
}

/// Answers a review by these settings.
pub(crate) fn answer(review: &Review, config: &InjectConfig) -> (Verdict, Outcome) {
    if review.kind.kind != "Pod" || !review.kind.group.is_empty() || review.operation != "CREATE" {
        return (Verdict::allow(), Outcome::Skipped);
    }
    let mut config = config.clone();
    let extra_env = along_path(&review.path, &mut config);
    let placement = Placement { namespace: review.namespace.clone(), owner: None, extra_env };
    if let Decision::Skip(why) = decide(&review.object, &placement, &config) {
        tracing::debug!(namespace = review.namespace, why, "not injected");
        return (Verdict::allow(), Outcome::Skipped);
    }
    match inject(&review.object, &placement, &config) {
        Err(error) => (Verdict::refuse(error.to_string()), Outcome::Refused),
        Ok(injected) => match serde_json::to_value(json_patch::diff(&review.object, &injected.object)) {
            Ok(Value::Array(patch)) => {
                (Verdict { patch, warnings: injected.notes, ..Verdict::allow() }, Outcome::Injected)
            }
            Ok(_) | Err(_) => {
                let why = "the change cannot be written as a patch".to_owned();
                (Verdict { refused: Some((500, why)), ..Verdict::allow() }, Outcome::Refused)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use api_kube::webhook::GroupVersionKind;
    use serde_json::json;

    use super::*;

    fn review(object: Value) -> Review {
        let kind = GroupVersionKind { version: "v1".into(), kind: "Pod".into(), ..GroupVersionKind::default() };
        Review { operation: "CREATE".into(), kind, namespace: "shop".into(), object, ..Review::default() }
    }

    fn pod() -> Value {
        json!({
            "metadata": { "generateName": "reviews-", "labels": { "app": "reviews" } },
            "spec": { "containers": [{ "name": "app", "image": "a" }] },
        })
    }

    #[test]
    fn the_patch_makes_the_injected_pod() {
        let config = InjectConfig::plain();
        let (verdict, outcome) = answer(&review(pod()), &config);
        assert_eq!(outcome, Outcome::Injected);
        let mut patched = pod();
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(verdict.patch)).unwrap();
        json_patch::patch(&mut patched, &patch).unwrap();
        let placement = Placement { namespace: "shop".into(), ..Placement::default() };
        assert_eq!(patched, inject(&pod(), &placement, &config).unwrap().object);
        assert_eq!(answer(&review(patched), &config).1, Outcome::Skipped, "once is enough");
    }

    #[test]
    fn a_bad_annotation_refuses_the_pod_with_its_name() {
        let mut bad = pod();
        bad["metadata"]["annotations"] = json!({ "sidecar.istio.io/interceptionMode": "x" });
        let (verdict, outcome) = answer(&review(bad), &InjectConfig::plain());
        assert_eq!(outcome, Outcome::Refused);
        assert!(verdict.refused.unwrap().1.starts_with("annotation sidecar.istio.io/interceptionMode: "));
    }

    #[test]
    fn the_path_names_cluster_and_network() {
        let mut asked = review(pod());
        asked.path = "/cluster/east/net/n--slash--1/FOO/bar".into();
        let (verdict, _) = answer(&asked, &InjectConfig::plain());
        let text = Value::Array(verdict.patch).to_string();
        assert!(text.contains("\"east\"") && text.contains("\"n/1\"") && text.contains("\"FOO\""), "{text}");
    }

    #[test]
    fn other_objects_and_operations_pass() {
        let mut update = review(pod());
        update.operation = "UPDATE".into();
        assert_eq!(answer(&update, &InjectConfig::plain()), (Verdict::allow(), Outcome::Skipped));
    }
}

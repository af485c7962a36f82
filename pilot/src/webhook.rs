//! The validating webhook: what is wrong with an object is told before it is stored.
//!
//! The object is tried out on a copy of the catalog, so that what it means together with the others is told as well.
//! Never here: a rule of its own; every sentence comes from `api-mesh`. Called by the API server through `api-kube`.

use std::sync::Arc;

use api::note::{Note, ObjectRef, Severity};
use api_kube::webhook::{Review, Verdict};
use api_mesh::{
    mesh,
    model::{Catalog, Settings},
    object::{Stored, Strictness, from_json},
    old,
};
use tokio::sync::Semaphore;

use crate::{limits::REVIEWS_AT_ONCE, push::Published};

/// Judges objects.
#[derive(Clone)]
pub(crate) struct Judge {
    worlds: Published,
    settings: Settings,
    turns: Arc<Semaphore>,
}

impl Judge {
    /// Judges by the newest of these snapshots.
    pub(crate) fn new(worlds: Published, settings: Settings) -> Self {
        Self { worlds, settings, turns: Arc::new(Semaphore::new(REVIEWS_AT_ONCE)) }
    }

    /// The verdict on a review.
    pub(crate) async fn judge(self, review: Review) -> Verdict {
        // What is being deleted may lose its finalizers, however wrong it is; what it says may not change unjudged.
        let leaving = review.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
            && review.object.get("spec") == review.old_object.get("spec");
        if review.operation == "DELETE" || review.object.is_null() || leaving {
            return Verdict::allow();
        }
        let catalog = self.worlds.borrow().as_ref().map(|world| Arc::clone(&world.catalog));
        let settings = self.settings.clone();
        let turn = self.turns.acquire().await;
        let verdict = tokio::task::spawn_blocking(move || {
            let catalog = catalog.map_or_else(|| Catalog::new(settings), |catalog| Catalog::clone(&catalog));
            verdict(review.object, catalog)
        })
        .await;
        drop(turn);
        let verdict = verdict.unwrap_or_else(|error| Verdict {
            refused: Some((500, format!("the object could not be judged: {error}"))),
            ..Verdict::allow()
        });
        let counter = if verdict.refused.is_some() { "galley_validation_failed" } else { "galley_validation_passed" };
        metrics::counter!(counter).increment(1);
        verdict
    }
}

fn verdict(mut object: serde_json::Value, mut catalog: Catalog) -> Verdict {
    // A name that the server will make stands in as its beginning.
    if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut)
        && !metadata.contains_key("name")
        && let Some(beginning) = metadata.get("generateName").cloned()
    {
        metadata.insert("name".to_owned(), beginning);
    }
    if let Some(instead) = old::instead(&object, &catalog) {
        return Verdict::refuse(instead.to_string());
    }
    match from_json(object, Strictness::Refuse) {
        Ok((stored, _)) => judged(&stored, &mut catalog),
        Err(error) => Verdict::refuse(error.to_string()),
    }
}

fn judged(stored: &Stored, catalog: &mut Catalog) -> Verdict {
    let object = stored.reference();
    catalog.apply(stored);
    let mut notes: Vec<Note> = catalog.notes_of(&object).into_iter().flatten().cloned().collect();
    if !notes.iter().any(|note| note.severity == Severity::Error) {
        let (_, together) = mesh::resolve(catalog);
        notes.extend(together.iter().filter(|note| note.object == object).cloned());
        notes.sort();
        notes.dedup();
    }
    let (errors, others): (Vec<Note>, Vec<Note>) = notes.into_iter().partition(|note| note.severity == Severity::Error);
    let warnings =
        others.iter().filter(|note| note.severity == Severity::Warn).map(|note| say(&object, note)).collect();
    let refused = (!errors.is_empty()).then(|| {
        let texts: Vec<String> = errors.iter().map(|note| say(&object, note)).collect();
        (422, format!("{object}: {}", texts.join("; ")))
    });
    Verdict { refused, warnings, patch: Vec::new() }
}

/// A note without the object's name, which the user sees anyway.
fn say(object: &ObjectRef, note: &Note) -> String {
    let text = if note.path.is_empty() { note.text.clone() } else { format!("{}: {}", note.path, note.text) };
    let named = if note.object == *object { text } else { format!("{}: {text}", note.object) };
    match &note.code {
        Some(code) => format!("{named} [{code}]"),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(object: Value) -> Verdict {
        verdict(object, Catalog::new(Settings::default()))
    }

    fn virtual_service(spec: &Value) -> Value {
        json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": { "name": "reviews", "namespace": "shop" }, "spec": spec })
    }

    fn route(route: &Value) -> Value {
        virtual_service(&json!({ "hosts": ["reviews"], "http": [{ "route": [route] }] }))
    }

    #[test]
    fn a_good_object_passes_with_a_warning_where_its_host_is_unknown() {
        let verdict = check(route(&json!({ "destination": { "host": "reviews" } })));
        assert_eq!(verdict.refused, None);
        assert!(verdict.warnings.iter().any(|text| text.contains("reviews")), "{:?}", verdict.warnings);
    }

    #[test]
    fn an_object_of_an_old_group_is_refused_with_what_to_write_instead() {
        let verdict = check(json!({
            "apiVersion": "authentication.istio.io/v1alpha1", "kind": "Policy",
            "metadata": { "name": "default", "namespace": "shop" }, "spec": { "peers": [{ "mtls": {} }] },
        }));
        let (status, text) = verdict.refused.expect("refused");
        assert_eq!(status, 422);
        assert!(
            text.starts_with("Policy/default.shop: authentication.istio.io/v1alpha1 is not read any more"),
            "{text}"
        );
        assert!(text.contains("kind: PeerAuthentication") && text.contains("mode: STRICT"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_object_and_path() {
        for (object, says) in [
            (virtual_service(&json!({ "hosts": ["reviews"], "htttp": [] })), "htttp"),
            (virtual_service(&json!({ "hosts": "reviews" })), "spec.hosts"),
            (route(&json!({ "destination": { "host": "reviews" }, "weight": -1 })), "weight"),
            (
                virtual_service(&json!({ "hosts": ["reviews"], "http": [{
                    "match": [{ "uri": { "regex": "(" } }], "route": [{ "destination": { "host": "reviews" } }] }] })),
                "spec.http[0].match[0].uri",
            ),
        ] {
            let verdict = check(object);
            let (status, text) = verdict.refused.expect(says);
            assert!(status == 422 && text.contains("VirtualService/reviews.shop") && text.contains(says), "{text}");
        }
    }
}

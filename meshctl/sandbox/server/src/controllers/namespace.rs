//! Namespaces: what each has from the start, and how one goes with all that is in it.
//!
//! Never here: refusing new objects in a namespace that ends (the server does). Called by `work`.
//! Before it lets a namespace go, it asks the server itself whether anything is left.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::inventory::Thing;
use super::resource::Key;
use super::world::{ROOT_CERTIFICATE, World};
use super::write::{Policy, Write, WriteError, Writer};

/// The finalizer that this controller takes away.
const FINALIZER: &str = "kubernetes";

/// Looks at one namespace and writes what follows.
pub(crate) async fn look(world: &World, writer: &Writer, name: &str) -> Result<(), WriteError> {
    let (namespace, things, certificate, certified, resources) = {
        let state = world.state();
        let Some(namespace) = state.namespaces.get(&Key::new("", name)) else { return Ok(()) };
        let things: Vec<Thing> = state.inventory.within(name).cloned().collect();
        let resources: Vec<_> = state.resources.values().filter(|r| r.namespaced).cloned().collect();
        (namespace, things, state.root_certificate.clone(), state.certified.contains(name), resources)
    };
    if namespace.metadata.deletion_timestamp.is_none() {
        return writer.all(furnish(name, &things, certificate.as_deref(), certified)).await;
    }
    let writes = clear(&namespace, &things);
    let nothing_known = things.is_empty();
    writer.all(writes).await?;
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !nothing_known || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(()); // each object that goes brings us here again
    }
    for resource in resources {
        if writer.any_within(&resource, name).await? {
            world
                .queue()
                .push_after(super::queue::Task::Namespace(name.to_owned()), std::time::Duration::from_millis(50));
            return Ok(());
        }
    }
    writer.all(finalize(&namespace).into_iter().collect()).await
}

/// What a namespace has from the start.
fn furnish(name: &str, things: &[Thing], certificate: Option<&str>, certified: bool) -> Vec<Write> {
    let named =
        |kind: &str, name: &str| things.iter().any(|thing| thing.resource.kind == kind && thing.key.name == name);
    let mut writes = Vec::new();
    if !named("ServiceAccount", "default") {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default", "namespace": name },
        });
        writes.push(Write::Create { object, report: None });
    }
    if let Some(certificate) = certificate.filter(|_| !certified) {
        if named("ConfigMap", ROOT_CERTIFICATE) {
            let patch = json!({ "data": { "ca.crt": certificate } });
            let key = Key::new(name, ROOT_CERTIFICATE);
            writes.push(Write::Merge { kind: "ConfigMap", key, part: "", patch });
        } else {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": ROOT_CERTIFICATE, "namespace": name,
                    "annotations": { "kubernetes.io/description": "The certificate that the API server proves itself with." },
                },
                "data": { "ca.crt": certificate },
            });
            writes.push(Write::Create { object, report: None });
        }
    }
    writes
}

/// Everything in a namespace that ends is deleted.
fn clear(namespace: &Namespace, things: &[Thing]) -> Vec<Write> {
    let mut writes = Vec::new();
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    let ending = phase == Some("Terminating");
    if !ending {
        let key = Key::new("", namespace.metadata.name.as_deref().unwrap_or_default());
        let patch = json!({ "status": { "phase": "Terminating" } });
        writes.push(Write::Merge { kind: "Namespace", key, part: "status", patch });
    }
    let alive = things.iter().filter(|thing| !thing.deleting);
    writes.extend(alive.map(|thing| Write::Delete {
        resource: thing.resource.clone(),
        key: thing.key.clone(),
        uid: thing.uid.clone(),
        policy: Policy::Background,
        report: None,
    }));
    writes
}

/// The namespace without our finalizer, as `/finalize` takes it.
fn finalize(namespace: &Namespace) -> Option<Write> {
    let mut object = serde_json::to_value(namespace).ok()?;
    let finalizers = object.pointer_mut("/spec/finalizers")?.as_array_mut()?;
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    Some(Write::Replace { part: "finalize", object })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::from_value;

    use super::super::resource::Resource;
    use super::*;

    fn thing(kind: &str, name: &str, deleting: bool) -> Thing {
        Thing {
            resource: Arc::new(Resource::builtin(kind).unwrap()),
            key: Key::new("shop", name),
            uid: name.to_owned(),
            version: 1,
            owners: Vec::new(),
            finalizers: Vec::new(),
            deleting,
        }
    }

    #[test]
    fn a_namespace_gets_its_account_and_certificate_once() {
        assert_eq!(furnish("shop", &[], Some("PEM"), false).len(), 2);
        let account = [thing("ServiceAccount", "default", false)];
        assert_eq!(furnish("shop", &account, None, false), []);
        assert_eq!(furnish("shop", &account, Some("PEM"), true), []);
        let both = [account[0].clone(), thing("ConfigMap", ROOT_CERTIFICATE, false)];
        assert!(matches!(furnish("shop", &both, Some("PEM2"), false).as_slice(), [Write::Merge { .. }]));
    }

    #[test]
    fn what_is_in_an_ending_namespace_goes_once() {
        let namespace: Namespace = from_value(json!({
            "metadata": { "name": "shop" }, "status": { "phase": "Terminating" }, "spec": { "finalizers": ["kubernetes", "mine"] },
        }))
        .unwrap();
        let writes = clear(&namespace, &[thing("Pod", "a", false), thing("Pod", "b", true)]);
        assert!(matches!(writes.as_slice(), [Write::Delete { key, .. }] if key.name == "a"));
        let Some(Write::Replace { part: "finalize", object }) = finalize(&namespace) else { panic!("not finalized") };
        assert_eq!(object.pointer("/spec/finalizers"), Some(&json!(["mine"])));
    }
}

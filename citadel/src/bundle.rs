//! Puts the root into ConfigMap `istio-ca-root-cert` of every namespace, and back when it is changed or deleted.
//!
//! Never here: the root itself. One task, run by `main` where there is an API server.

use std::collections::{BTreeMap, BTreeSet};

use api_kube::{
    client::{is_conflict, is_not_found},
    source::{Event, Selection, Source},
};
use api_mesh::object::{Kind, Stored};
use api_rt::ready::Gate;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::limits::BUNDLE_RETRY;

/// Name of the ConfigMap.
const NAME: &str = "istio-ca-root-cert";
/// Its key.
const KEY: &str = "root-cert.pem";

/// What is known of the cluster.
#[derive(Debug, Default)]
struct Known {
    namespaces: BTreeSet<String>,
    /// The root in each namespace's ConfigMap.
    held: BTreeMap<String, String>,
}

impl Known {
    /// Takes in an event.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Apply(Stored::Namespace(namespace)) => {
                let name = namespace.metadata.name.clone();
                if namespace.metadata.deletion_timestamp.is_some() {
                    self.namespaces.remove(&name);
                } else {
                    self.namespaces.insert(name);
                }
            }
            Event::Apply(Stored::ConfigMap(map)) => {
                let held = map.data.get(KEY).cloned().unwrap_or_default();
                self.held.insert(map.metadata.namespace.clone(), held);
            }
            Event::Delete(object) if object.kind == "Namespace" => {
                self.namespaces.remove(&object.name);
            }
            Event::Delete(object) => {
                self.held.remove(&object.namespace);
            }
            Event::Apply(_) | Event::Broken(_) | Event::Mended(_) | Event::Synced => {}
        }
    }

    /// Namespaces whose ConfigMap is absent or wrong.
    fn lacking(&self, root: &str) -> Vec<String> {
        self.namespaces.iter().filter(|name| self.held.get(*name).is_none_or(|held| held != root)).cloned().collect()
    }
}

async fn put(client: &Client, namespace: &str, root: &str) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let content =
        json!({ "metadata": { "name": NAME, "labels": { "istio.io/config": "true" } }, "data": { KEY: root } });
    let patched = maps.patch(NAME, &PatchParams::default(), &Patch::Merge(&content)).await;
    match patched {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => {
            let map: ConfigMap = serde_json::from_value(content).map_err(kube::Error::SerdeError)?;
            match maps.create(&PostParams::default(), &map).await {
                Ok(_) => Ok(()),
                // Another copy of us was faster, and wrote the same.
                Err(error) if is_conflict(&error) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Keeps the ConfigMaps until dropped; opens the gate when all namespaces had theirs once.
pub(crate) async fn keep(client: Client, root: String, gate: Gate) {
    let maps = Selection::of(Kind::ConfigMap).with_fields(&format!("metadata.name={NAME}"));
    let mut source = Source::cluster(&client, vec![Selection::of(Kind::Namespace), maps]);
    let mut known = Known::default();
    let (mut gate, mut synced) = (Some(gate), false);
    let mut retry = false;
    loop {
        let mut events = Vec::new();
        if retry {
            // A timeout only means that nothing else happened; what failed is tried again either way.
            let _news = tokio::time::timeout(BUNDLE_RETRY, source.next_many(&mut events, 256)).await.is_ok();
        } else if source.next_many(&mut events, 256).await == 0 {
            return;
        }
        for event in &events {
            known.note(event);
            synced |= *event == Event::Synced;
        }
        if !synced {
            continue;
        }
        retry = false;
        for namespace in known.lacking(&root) {
            match put(&client, &namespace, &root).await {
                Ok(()) => {
                    known.held.insert(namespace, root.clone());
                }
                Err(error) => {
                    tracing::warn!(namespace, %error, "could not put the root into the namespace");
                    if let Some(gate) = &gate {
                        gate.because(format!("root in every namespace: {namespace}: {error}"));
                    }
                    retry = true;
                }
            }
        }
        if !retry && let Some(gate) = gate.take() {
            gate.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use api::note::ObjectRef;
    use api_mesh::object::{Strictness, from_json};

    use super::*;

    fn apply(value: serde_json::Value) -> Event {
        Event::Apply(from_json(value, Strictness::Report).unwrap().0)
    }

    #[test]
    fn every_living_namespace_without_the_right_root_is_lacking() {
        let namespace =
            |name: &str| apply(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        let map = |namespace: &str, root: &str| {
            let metadata = json!({ "name": NAME, "namespace": namespace });
            apply(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { KEY: root } }))
        };
        let mut known = Known::default();
        for event in
            [namespace("a"), namespace("b"), namespace("c"), map("a", "root"), map("b", "old"), map("gone", "root")]
        {
            known.note(&event);
        }
        assert_eq!(known.lacking("root"), ["b", "c"]);
        known.note(&Event::Delete(ObjectRef::new("ConfigMap", "a", NAME)));
        known.note(&Event::Delete(ObjectRef::new("Namespace", "", "c")));
        assert_eq!(known.lacking("root"), ["a", "b"]);
    }
}

//! The objects of one kind as they were last seen, found by key or by an index.
//!
//! Older news about an object never replaces newer: watch events and answers to writes come in any order.
//! Never here: what follows from a change. Called by `world`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::resource::{Key, version_number};

pub(crate) struct Table<K> {
    objects: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
    index_by: fn(&K) -> Option<String>,
}

impl<K: kube::Resource> Table<K> {
    /// An empty table, with an index by the text that the function gives.
    pub(crate) fn new(index_by: fn(&K) -> Option<String>) -> Self {
        Self { objects: BTreeMap::new(), index: HashMap::new(), index_by }
    }

    /// Takes an object in; false where it was no news.
    pub(crate) fn put(&mut self, object: Arc<K>) -> bool {
        let key = Key::of(&*object);
        if let Some(known) = self.objects.get(&key) {
            let version = |object: &K| version_number(object.meta().resource_version.as_deref());
            if version(known) >= version(&object) {
                return false;
            }
        }
        self.remove(&key);
        if let Some(entry) = (self.index_by)(&object) {
            self.index.entry(entry).or_default().insert(key.clone());
        }
        self.objects.insert(key, object);
        true
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let object = self.objects.remove(key)?;
        if let Some(entry) = (self.index_by)(&object)
            && let Some(keys) = self.index.get_mut(&entry)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(&entry);
            }
        }
        Some(object)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.get(key).cloned()
    }

    /// The objects with that index entry, by name.
    pub(crate) fn indexed(&self, entry: &str) -> Vec<Arc<K>> {
        let keys = self.index.get(entry).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    /// The objects of a namespace, by name.
    pub(crate) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{from_value, json};

    use super::*;

    fn pod(name: &str, version: &str, node: &str) -> Arc<Pod> {
        let value = json!({
            "metadata": { "name": name, "namespace": "shop", "resourceVersion": version },
            "spec": { "nodeName": node, "containers": [] },
        });
        Arc::new(from_value(value).unwrap())
    }

    fn table() -> Table<Pod> {
        Table::new(|pod: &Pod| pod.spec.as_ref()?.node_name.clone())
    }

    #[test]
    fn older_news_is_no_news() {
        let mut pods = table();
        assert!(pods.put(pod("a", "7", "n1")));
        assert!(!pods.put(pod("a", "7", "n2")));
        assert!(!pods.put(pod("a", "5", "n2")));
        assert!(pods.put(pod("a", "10", "n2")));
    }

    #[test]
    fn the_index_follows_changes() {
        let mut pods = table();
        pods.put(pod("a", "1", "n1"));
        pods.put(pod("b", "2", "n1"));
        pods.put(pod("a", "3", "n2"));
        assert_eq!(pods.indexed("n1").len(), 1);
        assert_eq!(pods.indexed("n2").len(), 1);
        pods.remove(&Key::new("shop", "b"));
        assert!(pods.indexed("n1").is_empty());
        assert_eq!(pods.within("shop").count(), 1);
        assert_eq!(pods.within("sho").count(), 0);
    }
}

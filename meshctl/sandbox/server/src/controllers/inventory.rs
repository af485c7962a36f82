//! Every object of every kind, by uid: who owns whom, and what is left in a namespace.
//!
//! Keeps names and relations only, nothing else of an object. Never here: deciding what goes (`garbage`, `namespace`).
//! Called by `world`.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::resource::{Key, Resource, version_number};
use crate::limits::GONE_UIDS_MAX;

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thing {
    pub(crate) resource: Arc<Resource>,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
}

impl Thing {
    pub(crate) fn of(resource: Arc<Resource>, meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            resource,
            key: Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone()?),
            uid: meta.uid.clone()?,
            version: version_number(meta.resource_version.as_deref()),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }

    /// Whether anything that garbage collection goes by differs.
    fn relates_otherwise(&self, other: &Self) -> bool {
        self.owners != other.owners || self.finalizers != other.finalizers || self.deleting != other.deleting
    }
}

#[derive(Default)]
pub(crate) struct Inventory {
    gone: HashSet<String>,
    gone_in_order: VecDeque<String>,
    things: HashMap<String, Thing>,
    dependents: HashMap<String, BTreeSet<String>>,
    namespaces: HashMap<String, BTreeSet<String>>,
}

impl Inventory {
    /// Takes news in; true where garbage collection should look at the object.
    pub(crate) fn put(&mut self, thing: Thing) -> bool {
        let known = self.things.get(&thing.uid);
        // The same version again is news where the kind is asked for by another URL now: a CRD may drop a version.
        let is_old = |known: &Thing| {
            known.version > thing.version || known.version == thing.version && known.resource == thing.resource
        };
        if known.is_some_and(is_old) {
            return false;
        }
        let news = match known {
            Some(known) => known.relates_otherwise(&thing),
            None => !thing.owners.is_empty() || thing.deleting,
        };
        self.take(&thing.uid);
        for owner in &thing.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(thing.uid.clone());
        }
        if !thing.key.namespace.is_empty() {
            self.namespaces.entry(thing.key.namespace.clone()).or_default().insert(thing.uid.clone());
        }
        self.things.insert(thing.uid.clone(), thing);
        news
    }

    /// Whether an object of that uid is known to be gone for good: an answer to a write may come after that news.
    pub(crate) fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    /// An object is gone for good.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<Thing> {
        if self.gone.insert(uid.to_owned()) {
            self.gone_in_order.push_back(uid.to_owned());
        }
        if self.gone_in_order.len() > GONE_UIDS_MAX
            && let Some(oldest) = self.gone_in_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
        self.take(uid)
    }

    fn take(&mut self, uid: &str) -> Option<Thing> {
        let thing = self.things.remove(uid)?;
        for owner in &thing.owners {
            take_out(&mut self.dependents, &owner.uid, uid);
        }
        take_out(&mut self.namespaces, &thing.key.namespace, uid);
        Some(thing)
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Thing> {
        self.things.get(uid)
    }

    /// The objects that name this owner.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Thing> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.things.get(uid))
    }

    /// The objects in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> impl Iterator<Item = &Thing> {
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|uid| self.things.get(uid))
    }

    /// The uids of one kind.
    pub(crate) fn of_kind(&self, resource: &Resource) -> BTreeSet<String> {
        self.things.values().filter(|thing| *thing.resource == *resource).map(|thing| thing.uid.clone()).collect()
    }
}

fn take_out(sets: &mut HashMap<String, BTreeSet<String>>, key: &str, uid: &str) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(uid);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(uid: &str, version: u64, owner: &str) -> Thing {
        Thing {
            resource: Arc::new(Resource::new("v1", "Pod", "pods", true)),
            key: Key::new("shop", uid),
            uid: uid.to_owned(),
            version,
            owners: vec![OwnerReference { uid: owner.to_owned(), ..OwnerReference::default() }],
            finalizers: Vec::new(),
            deleting: false,
        }
    }

    #[test]
    fn relations_follow_changes() {
        let mut inventory = Inventory::default();
        assert!(inventory.put(thing("a", 1, "o")));
        assert!(!inventory.put(thing("a", 2, "o"))); // nothing new to garbage collection
        assert!(inventory.put(thing("a", 3, "p")));
        assert_eq!(inventory.dependents("o").count(), 0);
        assert_eq!(inventory.dependents("p").count(), 1);
        assert_eq!(inventory.within("shop").count(), 1);
    }

    #[test]
    fn an_object_goes_along_when_its_kind_gets_another_version() {
        let mut inventory = Inventory::default();
        inventory.put(thing("a", 2, "o"));
        let newer = Arc::new(Resource::new("v2", "Pod", "pods", true));
        assert!(!inventory.put(Thing { resource: newer.clone(), ..thing("a", 2, "o") }));
        assert_eq!(inventory.get("a").unwrap().resource, newer);
        inventory.put(Thing { version: 1, ..thing("a", 2, "o") });
        assert_eq!(inventory.get("a").unwrap().version, 2);
    }

    #[test]
    fn what_is_gone_is_remembered() {
        let mut inventory = Inventory::default();
        inventory.put(thing("a", 1, "o"));
        inventory.remove("a");
        assert!(inventory.is_gone("a") && inventory.get("a").is_none());
        for number in 0..GONE_UIDS_MAX {
            inventory.remove(&number.to_string());
        }
        assert!(!inventory.is_gone("a") && inventory.gone.len() == GONE_UIDS_MAX);
    }
}

//! Garbage: objects whose owners are gone, and the order in which owners and dependents go.
//!
//! Background (the owner went first), foreground (it waits for its dependents) and orphaning, as finalizers ask.
//! Never here: which kinds there are. Called by `work`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::inventory::Thing;
use super::resource::{Key, Resource};
use super::world::World;
use super::write::{Policy, Write, WriteError, Writer};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    There,
    /// It waits for its dependents to go.
    Waiting,
    Gone,
}

/// Looks at one object and writes what follows. Owners not seen yet are asked for: news of kinds come in any order.
pub(crate) async fn look(world: &World, writer: &Writer, uid: &str) -> Result<(), WriteError> {
    let (thing, dependents, seen) = {
        let state = world.state();
        let Some(thing) = state.inventory.get(uid).cloned() else { return Ok(()) };
        let dependents: Vec<Thing> = state.inventory.dependents(uid).cloned().collect();
        let seen: Vec<_> = thing
            .owners
            .iter()
            .map(|owner| match state.inventory.get(&owner.uid) {
                Some(there) if there.deleting && has(there, FOREGROUND) => Seen::As(Owner::Waiting),
                Some(_) => Seen::As(Owner::There),
                None => match state.resource(&owner.api_version, &owner.kind) {
                    Some(resource) => Seen::AskFor(resource),
                    None => Seen::As(Owner::There), // of a kind that nobody serves, nothing is known
                },
            })
            .collect();
        (thing, dependents, seen)
    };
    let mut owners = Vec::new();
    for (owner, seen) in thing.owners.iter().zip(seen) {
        owners.push(match seen {
            Seen::As(state) => state,
            Seen::AskFor(resource) => {
                let namespace = if resource.namespaced { thing.key.namespace.as_str() } else { "" };
                let key = Key::new(namespace, owner.name.as_str());
                if writer.exists(&resource, &key, &owner.uid).await? { Owner::There } else { Owner::Gone }
            }
        });
    }
    writer.all(reconcile(&thing, &owners, &dependents)).await
}

enum Seen {
    As(Owner),
    AskFor(Arc<Resource>),
}

/// What is to be written for an object, given its owners' states and its dependents.
pub(crate) fn reconcile(thing: &Thing, owners: &[Owner], dependents: &[Thing]) -> Vec<Write> {
    if thing.deleting {
        return finalize(thing, dependents);
    }
    if owners.is_empty() {
        return Vec::new();
    }
    let any = |state: Owner| owners.contains(&state);
    if any(Owner::There) {
        if !any(Owner::Gone) && !any(Owner::Waiting) {
            return Vec::new();
        }
        let kept: Vec<&OwnerReference> = thing
            .owners
            .iter()
            .zip(owners)
            .filter(|(_, state)| **state == Owner::There)
            .map(|(owner, _)| owner)
            .collect();
        let version = thing.version.to_string();
        let patch = json!({ "metadata": { "uid": thing.uid, "resourceVersion": version, "ownerReferences": kept } });
        return vec![Write::MergeInto { resource: thing.resource.clone(), key: thing.key.clone(), patch }];
    }
    let policy = if has(thing, ORPHAN) {
        Policy::Orphan
    } else if has(thing, FOREGROUND) || (any(Owner::Waiting) && !dependents.is_empty()) {
        Policy::Foreground
    } else {
        Policy::Background
    };
    vec![delete(thing, policy)]
}

/// An object that waits for what its finalizers of ours stand for.
fn finalize(thing: &Thing, dependents: &[Thing]) -> Vec<Write> {
    if has(thing, ORPHAN) {
        let mut writes: Vec<Write> = dependents.iter().map(|dependent| without_owner(dependent, &thing.uid)).collect();
        writes.push(without_finalizer(thing, ORPHAN));
        return writes;
    }
    if !has(thing, FOREGROUND) {
        return Vec::new();
    }
    let blocks = |dependent: &&Thing| {
        dependent.owners.iter().any(|owner| owner.uid == thing.uid && owner.block_owner_deletion == Some(true))
    };
    if dependents.iter().any(|dependent| blocks(&dependent)) {
        let alive = dependents.iter().filter(|dependent| !dependent.deleting);
        return alive.map(|dependent| delete(dependent, Policy::Foreground)).collect();
    }
    vec![without_finalizer(thing, FOREGROUND)] // what does not block goes when the owner is gone
}

fn has(thing: &Thing, finalizer: &str) -> bool {
    thing.finalizers.iter().any(|f| f == finalizer)
}

fn delete(thing: &Thing, policy: Policy) -> Write {
    Write::Collect {
        resource: thing.resource.clone(),
        key: thing.key.clone(),
        uid: thing.uid.clone(),
        version: thing.version,
        policy,
    }
}

fn without_finalizer(thing: &Thing, finalizer: &str) -> Write {
    let kept: Vec<&String> = thing.finalizers.iter().filter(|f| *f != finalizer).collect();
    let patch =
        json!({ "metadata": { "uid": thing.uid, "resourceVersion": thing.version.to_string(), "finalizers": kept } });
    Write::MergeInto { resource: thing.resource.clone(), key: thing.key.clone(), patch }
}

fn without_owner(thing: &Thing, uid: &str) -> Write {
    let kept: Vec<&OwnerReference> = thing.owners.iter().filter(|owner| owner.uid != uid).collect();
    let version = thing.version.to_string();
    let patch = json!({ "metadata": { "uid": thing.uid, "resourceVersion": version, "ownerReferences": kept } });
    Write::MergeInto { resource: thing.resource.clone(), key: thing.key.clone(), patch }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::wildcard_enum_match_arm, clippy::needless_pass_by_value, reason = "short cases read better")]

    use super::*;

    fn thing(uid: &str, owners: &[(&str, bool)], finalizers: &[&str], deleting: bool) -> Thing {
        let owner = |(uid, blocks): &(&str, bool)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*blocks),
            ..OwnerReference::default()
        };
        Thing {
            resource: Arc::new(Resource::builtin("Pod").unwrap()),
            key: Key::new("shop", uid),
            uid: uid.to_owned(),
            version: 1,
            owners: owners.iter().map(owner).collect(),
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
            deleting,
        }
    }

    /// What is written, in words.
    fn check(thing: &Thing, owners: &[Owner], dependents: &[Thing], expected: &[&str]) {
        let said: Vec<String> = reconcile(thing, owners, dependents)
            .into_iter()
            .map(|write| match write {
                Write::Collect { key, policy, version: 1, .. } => format!("delete {} {policy:?}", key.name),
                Write::MergeInto { key, patch, .. } => {
                    let what = if patch.pointer("/metadata/finalizers").is_some() { "finalizers" } else { "owners" };
                    let left = patch
                        .pointer(&format!("/metadata/{}", if what == "owners" { "ownerReferences" } else { what }));
                    format!("{what} of {}: {}", key.name, left.and_then(|l| l.as_array()).map_or(0, Vec::len))
                }
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn an_object_stays_while_an_owner_does() {
        check(&thing("a", &[("o", true)], &[], false), &[Owner::There], &[], &[]);
        let two = thing("a", &[("o", true), ("p", true)], &[], false);
        check(&two, &[Owner::There, Owner::Gone], &[], &["owners of a: 1"]);
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        check(&thing("a", &[("o", true)], &[], false), &[Owner::Gone], &[], &["delete a Background"]);
        let kept = thing("a", &[("o", true)], &[ORPHAN], false);
        check(&kept, &[Owner::Gone], &[], &["delete a Orphan"]);
    }

    #[test]
    fn foreground_deletes_dependents_first() {
        let owner = thing("o", &[], &[FOREGROUND], true);
        let (alive, going) = (thing("a", &[("o", true)], &[], false), thing("b", &[("o", true)], &[], true));
        check(&owner, &[], &[alive, going.clone()], &["delete a Foreground"]);
        check(&owner, &[], &[going], &[]);
        check(&owner, &[], &[thing("c", &[("o", false)], &[], false)], &["finalizers of o: 0"]);
        check(&owner, &[], &[], &["finalizers of o: 0"]);
    }

    #[test]
    fn orphaning_cuts_the_ties_first() {
        let owner = thing("o", &[], &[ORPHAN, "mine"], true);
        check(&owner, &[], &[thing("a", &[("o", true)], &[], false)], &["owners of a: 0", "finalizers of o: 1"]);
    }

    #[test]
    fn other_finalizers_are_others_business() {
        check(&thing("o", &[], &["mine"], true), &[], &[thing("a", &[("o", true)], &[], false)], &[]);
    }
}

//! The kinds served now: replaced whole when a CRD changes.
//!
//! Never here: how a CRD becomes a kind (see `crd`). Called by `request`, `discovery`, `openapi`, `verb`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Kind;
use crate::store::Item;

/// One snapshot of the kinds served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    kinds: Vec<Arc<Kind>>,
    by_path: HashMap<(String, String, String), usize>,
}

impl Served {
    pub(crate) fn new(kinds: Vec<Arc<Kind>>) -> Self {
        let by_path = kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| ((kind.group.clone(), kind.version.clone(), kind.plural.clone()), index))
            .collect();
        Self { kinds, by_path }
    }

    pub(crate) fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let index = self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))?;
        self.kinds.get(*index)
    }

    /// The kind whose objects are stored there, in its first version.
    pub(crate) fn stored_at(&self, storage: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|kind| kind.storage == storage && !kind.review)
    }
}

/// The kinds of one CRD, and the revision that they were made from.
type Made = (u64, Vec<Arc<Kind>>);

/// Holds the snapshot.
#[derive(Debug)]
pub(crate) struct Registry {
    served: RwLock<Arc<Served>>,
    /// By CRD name: a CRD that has not changed is not read again.
    made: Mutex<BTreeMap<String, Made>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let served = Served::new(super::built_in().to_vec());
        Self { served: RwLock::new(Arc::new(served)), made: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the built-in kinds and those of the CRDs that there are. They are asked for in turn: of two writes at once,
    /// the later look must not be undone by the earlier.
    pub(crate) fn reload(&self, crds: impl FnOnce() -> Vec<Arc<Item>>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let crds = crds();
        made.retain(|name, _| crds.iter().any(|item| *item.name == **name));
        for item in &crds {
            if made.get(&*item.name).is_none_or(|(revision, _)| *revision != item.revision) {
                made.insert(item.name.to_string(), (item.revision, crate::crd::kinds(&item.value())));
            }
        }
        let mut kinds = super::built_in().to_vec();
        kinds.extend(made.values().flat_map(|(_, kinds)| kinds).cloned());
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Served::new(kinds));
    }
}

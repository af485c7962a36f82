//! The kinds served now: replaced whole when a CRD changes.
//!
//! Never here: how a CRD becomes a kind (see `crd`). Called by `request`, `discovery`, `openapi`, `verb`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Kind;

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

    /// The first kind (the preferred version) of a group and plural.
    pub(crate) fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|kind| kind.is(group, plural))
    }

    /// The kind that an object of this apiVersion and kind is of.
    pub(crate) fn of_object(&self, group: &str, version: &str, name: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|kind| kind.group == group && kind.version == version && kind.kind == name)
    }

    /// The kind whose objects are stored there, in its first version.
    pub(crate) fn stored_at(&self, storage: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|kind| kind.storage == storage && !kind.review)
    }
}

/// Holds the snapshot.
#[derive(Debug)]
pub(crate) struct Registry {
    served: RwLock<Arc<Served>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { served: RwLock::new(Arc::new(Served::new(super::built_in().to_vec()))) }
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the built-in kinds and these.
    pub(crate) fn replace(&self, custom: Vec<Arc<Kind>>) {
        let mut kinds = super::built_in().to_vec();
        kinds.extend(custom);
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Served::new(kinds));
    }
}

//! The resources that some proxies see, by type and name: each row knows its key and version, and keeps its bytes once made.
//!
//! Rows are shared between snapshots as long as their version stays, so bytes made for one are there for the next.
//! Never here: which proxies see a table. Used by `world`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use api::spec::ResourceKind;
use api_mesh::mesh::{Difference, Key, KeySet, Mesh};
use api_xds::Dialect;

use super::KINDS;
use crate::{
    cache::Cache,
    session::{Encoded, Names},
};

/// One resource.
pub(super) struct Row {
    key: Key,
    /// Version of what it is made from.
    version: u64,
    made: OnceLock<Option<Arc<Encoded>>>,
}

impl Row {
    /// Its name.
    pub(super) fn name(&self) -> &Arc<str> {
        self.key.name()
    }

    /// Its bytes; made now unless they were before. The mesh is one in which the row has its version.
    pub(super) fn encoded(&self, mesh: &Mesh, dialect: Dialect, cache: &Cache) -> Option<Arc<Encoded>> {
        self.made.get_or_init(|| cache.get(mesh, &self.key, self.version, dialect)).clone()
    }

    /// Its bytes, where they were made.
    pub(super) fn made(&self) -> Option<Arc<Encoded>> {
        self.made.get().cloned().flatten()
    }
}

/// The resources of one type.
#[derive(Clone, Default)]
struct Rows {
    /// In order of name.
    all: Vec<Arc<Row>>,
    places: Arc<HashMap<Arc<str>, usize>>,
}

impl Rows {
    fn of(mesh: &Mesh, keys: &KeySet, kind: ResourceKind, before: Option<&Self>) -> Self {
        let row = |key: &Key| {
            let version = mesh.version_of(key);
            let same = before.and_then(|before| before.get(key.name()));
            match same.filter(|row| row.version == version && row.key == *key) {
                Some(row) => Arc::clone(row),
                None => Arc::new(Row { key: key.clone(), version, made: OnceLock::new() }),
            }
        };
        let all: Vec<Arc<Row>> = keys.of(kind).map(row).collect();
        let same_names =
            before.filter(|before| before.all.iter().map(|row| row.name()).eq(all.iter().map(|row| row.name())));
        let places = match same_names {
            Some(before) => Arc::clone(&before.places),
            None => Arc::new(all.iter().enumerate().map(|(at, row)| (Arc::clone(row.name()), at)).collect()),
        };
        Self { all, places }
    }

    fn get(&self, name: &str) -> Option<&Arc<Row>> {
        self.all.get(*self.places.get(name)?)
    }

    fn differences(&self, before: &Self) -> BTreeSet<Arc<str>> {
        let named = |row: &Arc<Row>| Arc::clone(row.name());
        if Arc::ptr_eq(&self.places, &before.places) {
            let pairs = self.all.iter().zip(&before.all);
            return pairs.filter(|(new, old)| !Arc::ptr_eq(new, old)).map(|(new, _)| named(new)).collect();
        }
        let gone = before.all.iter().filter(|row| self.get(row.name()).is_none());
        let fresh = self.all.iter().filter(|row| before.get(row.name()).is_none_or(|old| !Arc::ptr_eq(old, row)));
        gone.chain(fresh).map(named).collect()
    }
}

/// The resources that some proxies see.
pub(super) struct Table(BTreeMap<ResourceKind, Rows>);

impl Table {
    /// The resources of these keys, each shared with the table before where it is the same.
    pub(super) fn of(mesh: &Mesh, keys: &KeySet, before: Option<&Self>) -> Self {
        let rows = |kind| Rows::of(mesh, keys, kind, before.and_then(|before| before.0.get(&kind)));
        Self(KINDS.iter().map(|kind| (*kind, rows(*kind))).filter(|(_, rows)| !rows.all.is_empty()).collect())
    }

    /// The same resources after differences that leave their keys, and the names of those that are new.
    pub(super) fn touched(&self, mesh: &Mesh, differences: &[Arc<Difference>]) -> (Self, Names) {
        let touches = |row: &Row| differences.iter().any(|difference| difference.touches(&row.key));
        let mut table = self.0.clone();
        let mut changes = Names::new();
        for (kind, rows) in &mut table {
            let mut names = BTreeSet::new();
            for row in rows.all.iter_mut().filter(|row| touches(row)) {
                let version = mesh.version_of(&row.key);
                if version != row.version {
                    names.insert(Arc::clone(row.name()));
                    *row = Arc::new(Row { key: row.key.clone(), version, made: OnceLock::new() });
                }
            }
            if !names.is_empty() {
                changes.insert(*kind, names);
            }
        }
        (Self(table), changes)
    }

    /// Names of all that is not the same in the table before.
    pub(super) fn differences(&self, before: &Self) -> Names {
        let none = Rows::default();
        let mut changes = Names::new();
        for kind in KINDS {
            let (old, new) = (before.0.get(&kind).unwrap_or(&none), self.0.get(&kind).unwrap_or(&none));
            let names = new.differences(old);
            if !names.is_empty() {
                changes.insert(kind, names);
            }
        }
        changes
    }

    /// A resource.
    pub(super) fn get(&self, kind: ResourceKind, name: &str) -> Option<&Arc<Row>> {
        self.0.get(&kind)?.get(name)
    }

    /// All of a type, in order of name.
    pub(super) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Arc<Row>> {
        self.0.get(&kind).into_iter().flat_map(|rows| &rows.all)
    }
}

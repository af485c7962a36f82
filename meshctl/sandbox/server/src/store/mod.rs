//! All objects: an index in memory over the database, one revision counter, and what changed lately.
//!
//! A write is seen by readers and watchers at once and acknowledged when it is on disk. Never here: kinds, rules.
//! Called by `verb`; `disk` keeps the file.

mod disk;
mod feed;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

pub use disk::DiskError;
use disk::{Disk, Op};
pub(crate) use feed::{Change, Seen, Watch};

use crate::limits::OBJECT_BYTES_MAX;

/// Revisions skipped at every start: writes that were seen but not yet on disk when the process was killed had these.
const REVISION_GAP: u64 = 1_000;

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) revision: u64,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) json: Bytes,
}

impl Item {
    /// The object. Its text is this program's own, and was looked through when the file was opened.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// What must be true for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    Revision(u64),
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the object exists")]
    Exists,
    #[error("the object does not exist")]
    Gone,
    #[error("the object has been modified")]
    Modified,
    #[error("the object has {bytes} bytes, {OBJECT_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
    #[error("the database cannot be written")]
    Disk,
}

type Key = (Box<str>, Box<str>);

struct Shelf {
    items: BTreeMap<Key, Arc<Item>>,
    feed: feed::Feed,
}

impl Shelf {
    /// What it holds (in one namespace), in order.
    fn within(&self, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Arc<Item>)> {
        let first: Key = (namespace.unwrap_or_default().into(), "".into());
        let is_in = move |key: &Key| namespace.is_none_or(|namespace| namespace == &*key.0);
        self.items.range(first..).take_while(move |(key, _)| is_in(key))
    }
}

struct State {
    revision: u64,
    /// The revision at the start: changes before it are not in the history.
    opened: u64,
    /// By resource, e.g. `pods` or `deployments.apps`.
    shelves: HashMap<String, Shelf>,
}

pub(crate) struct Store {
    state: Mutex<State>,
    disk: Disk,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let (disk, rows, revision) = Disk::open(path)?;
        let revision = if revision == 0 { 1 } else { revision + REVISION_GAP };
        let mut state = State { revision, opened: revision, shelves: HashMap::new() };
        for row in rows {
            let disk::Row { resource, namespace, name, revision, json } = row;
            let key: Key = (namespace.clone(), name.clone());
            state.shelf(&resource).items.insert(key, Arc::new(Item { revision, namespace, name, json }));
        }
        Ok(Self { state: Mutex::new(state), disk })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is changed in single steps that cannot fail half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.state().revision
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Item>> {
        self.state().shelves.get(resource)?.items.get(&(namespace.into(), name.into())).cloned()
    }

    /// All objects of a resource (in one namespace), by namespace and name, and the revision they are of.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> (Vec<Arc<Item>>, u64) {
        let state = self.state();
        let items = state.shelves.get(resource).into_iter().flat_map(|shelf| shelf.within(namespace));
        (items.map(|(_, item)| Arc::clone(item)).collect(), state.revision)
    }

    /// The same as they were at an earlier revision; none where the history no longer reaches back so far.
    pub(crate) fn list_at(&self, resource: &str, namespace: Option<&str>, revision: u64) -> Option<Vec<Arc<Item>>> {
        let mut state = self.state();
        let shelf = state.shelf(resource);
        let later = shelf.feed.since(revision)?;
        let mut items: BTreeMap<(&str, &str), &Arc<Item>> =
            shelf.within(namespace).map(|((space, name), item)| ((&**space, &**name), item)).collect();
        for change in later.iter().rev() {
            let Some(item) = change.old.as_ref().or(change.new.as_ref()) else { continue };
            if namespace.is_some_and(|namespace| namespace != &*item.namespace) {
                continue;
            }
            match &change.old {
                Some(old) => items.insert((&old.namespace, &old.name), old),
                None => items.remove(&(&*item.namespace, &*item.name)),
            };
        }
        Some(items.into_values().cloned().collect())
    }

    /// Writes the object; gives the stored version once it is on disk. Sets `metadata.resourceVersion`.
    pub(crate) async fn put(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        expect: Expect,
        value: Value,
    ) -> Result<Arc<Item>, WriteError> {
        let (item, durable) = self.put_now(resource, namespace, name, expect, value)?;
        if durable.await == Ok(true) { Ok(item) } else { Err(WriteError::Disk) }
    }

    fn put_now(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        expect: Expect,
        mut value: Value,
    ) -> Result<(Arc<Item>, oneshot::Receiver<bool>), WriteError> {
        if self.disk.is_broken() {
            return Err(WriteError::Disk);
        }
        let mut state = self.state();
        let key: Key = (namespace.into(), name.into());
        let revision = state.revision + 1;
        let shelf = state.shelf(resource);
        let old = shelf.items.get(&key).cloned();
        match (&old, expect) {
            (Some(_), Expect::Absent) => return Err(WriteError::Exists),
            (None, Expect::Revision(_)) => return Err(WriteError::Gone),
            (Some(item), Expect::Revision(wanted)) if item.revision != wanted => return Err(WriteError::Modified),
            _ => {}
        }
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
        let json = Bytes::from(value.to_string());
        if json.len() > OBJECT_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes: json.len() });
        }
        let item = Arc::new(Item { revision, namespace: namespace.into(), name: name.into(), json: json.clone() });
        shelf.items.insert(key, Arc::clone(&item));
        shelf.feed.push(Change { revision, old, new: Some(Arc::clone(&item)) });
        state.revision = revision;
        let (done, durable) = oneshot::channel();
        // Pushed under the lock, so that disk order is revision order.
        self.disk.push(Op { key: disk_key(resource, namespace, name), revision, json: Some(json), done });
        Ok((item, durable))
    }

    /// Removes the object; gives its last version and the revision of the removal.
    pub(crate) async fn remove(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        wanted: u64,
    ) -> Result<(Arc<Item>, u64), WriteError> {
        let (item, revision, durable) = self.remove_now(resource, namespace, name, wanted)?;
        if durable.await == Ok(true) { Ok((item, revision)) } else { Err(WriteError::Disk) }
    }

    fn remove_now(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        wanted: u64,
    ) -> Result<(Arc<Item>, u64, oneshot::Receiver<bool>), WriteError> {
        if self.disk.is_broken() {
            return Err(WriteError::Disk);
        }
        let mut state = self.state();
        let key: Key = (namespace.into(), name.into());
        let revision = state.revision + 1;
        let shelf = state.shelf(resource);
        let item = shelf.items.get(&key).cloned().ok_or(WriteError::Gone)?;
        if item.revision != wanted {
            return Err(WriteError::Modified);
        }
        shelf.items.remove(&key);
        shelf.feed.push(Change { revision, old: Some(Arc::clone(&item)), new: None });
        state.revision = revision;
        let (done, durable) = oneshot::channel();
        self.disk.push(Op { key: disk_key(resource, namespace, name), revision, json: None, done });
        Ok((item, revision, durable))
    }

    /// Begins to watch a resource after a revision.
    pub(crate) fn watch(self: &Arc<Self>, resource: &str, after: u64) -> Watch {
        let mut state = self.state();
        let head = state.shelf(resource).feed.head();
        Watch::new(Arc::clone(self), resource.to_owned(), after, head)
    }
}

impl State {
    fn shelf(&mut self, resource: &str) -> &mut Shelf {
        let opened = self.opened;
        self.shelves
            .entry(resource.to_owned())
            .or_insert_with(|| Shelf { items: BTreeMap::new(), feed: feed::Feed::new(opened) })
    }
}

fn disk_key(resource: &str, namespace: &str, name: &str) -> String {
    format!("{resource}\0{namespace}\0{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: u64) -> Value {
        json!({"metadata": {"name": "a"}, "value": value})
    }

    #[tokio::test]
    async fn writes_survive_and_revisions_never_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let store = Arc::new(Store::open(&path).unwrap());
        let first = store.put("pods", "d", "a", Expect::Absent, object(1)).await.unwrap();
        assert_eq!(store.put("pods", "d", "a", Expect::Absent, object(2)).await.unwrap_err(), WriteError::Exists);
        assert_eq!(
            store.put("pods", "d", "a", Expect::Revision(77), object(2)).await.unwrap_err(),
            WriteError::Modified
        );
        let second = store.put("pods", "d", "a", Expect::Revision(first.revision), object(2)).await.unwrap();
        store.put("pods", "d", "b", Expect::Absent, object(3)).await.unwrap();
        let (item, gone) = store.remove("pods", "d", "a", second.revision).await.unwrap();
        assert_eq!(item.value()["value"], 2);
        assert!(gone > second.revision);
        drop(store);
        let store = Store::open(&path).unwrap();
        assert!(store.get("pods", "d", "a").is_none());
        assert_eq!(store.get("pods", "d", "b").unwrap().value()["value"], 3);
        assert!(store.revision() > gone);
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_not_seen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("db")).unwrap());
        let item = store.put("pods", "d", "a", Expect::Absent, object(1)).await.unwrap();
        store.disk.give_up();
        let refused = store.put("pods", "d", "b", Expect::Absent, object(2)).await;
        assert_eq!(refused.unwrap_err(), WriteError::Disk);
        assert_eq!(store.remove("pods", "d", "a", item.revision).await.unwrap_err(), WriteError::Disk);
        assert_eq!((store.list("pods", None).0.len(), store.revision()), (1, item.revision));
    }

    #[tokio::test]
    async fn a_namespace_lists_only_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        for (namespace, name) in [("a", "x"), ("a", "y"), ("aa", "x"), ("b", "x")] {
            store.put("pods", namespace, name, Expect::Absent, object(0)).await.unwrap();
        }
        assert_eq!(store.list("pods", Some("a")).0.len(), 2);
        assert_eq!(store.list("pods", None).0.len(), 4);
    }

    #[tokio::test]
    async fn an_earlier_revision_can_be_listed_while_the_history_reaches_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap();
        let first = store.put("pods", "d", "a", Expect::Absent, object(1)).await.unwrap();
        let second = store.put("pods", "d", "a", Expect::Revision(first.revision), object(2)).await.unwrap();
        let third = store.put("pods", "e", "b", Expect::Absent, object(3)).await.unwrap();
        let (_, gone) = store.remove("pods", "d", "a", second.revision).await.unwrap();
        for (revision, namespace, want) in [
            (first.revision, None, vec![1]),
            (second.revision, None, vec![2]),
            (third.revision, None, vec![2, 3]),
            (third.revision, Some("d"), vec![2]),
            (third.revision, Some("e"), vec![3]),
            (gone, None, vec![3]),
        ] {
            let items = store.list_at("pods", namespace, revision).unwrap();
            let found: Vec<_> = items.iter().filter_map(|item| item.value()["value"].as_u64()).collect();
            assert_eq!(found, want, "at {revision} in {namespace:?}");
        }
        assert!(store.list_at("pods", None, 0).is_none());
    }

    #[tokio::test]
    async fn a_watch_sees_changes_in_order_and_learns_when_it_is_too_late() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("db")).unwrap());
        let first = store.put("pods", "d", "a", Expect::Absent, object(1)).await.unwrap();
        let mut watch = store.watch("pods", first.revision);
        let second = store.put("pods", "d", "a", Expect::Revision(first.revision), object(2)).await.unwrap();
        let Seen::Changes(changes, _) = watch.next().await else { panic!("expected changes") };
        assert_eq!(changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [second.revision]);
        assert!(matches!(store.watch("pods", 0).next().await, Seen::TooOld { .. }));
    }
}

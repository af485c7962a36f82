//! Resources, encoded once for all clients that are sent them.
//!
//! A slot is named by key and dialect and holds the version it was made from; whoever comes first fills it, and those who
//! come meanwhile wait for that one. Resources of equal content under different keys share their bytes. What nobody holds
//! any more is swept out, and made again when asked for.
//! Never here: which client gets what. Used by `world`, filled through `mesh::build`.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use api_mesh::mesh::{Key, Mesh, build};
use api_xds::{Dialect, discovery::frame};

use crate::{
    limits::CACHE_SHARDS,
    session::{Encoded, VERSION_BITS},
};

type Made = Arc<OnceLock<Option<Arc<Encoded>>>>;

struct Slot {
    /// Version of the inputs that `made` was built from.
    inputs: u64,
    made: Made,
    /// What was good before `made`.
    before: Option<Arc<Encoded>>,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.made.get().and_then(Option::as_ref).map_or(0, |encoded| encoded.frame.delta.len())
    }

    /// Whether somebody is sent it, or waits for it; slots that share its bytes are nobody.
    fn held(&self, shares: &Shares) -> bool {
        match self.made.get() {
            Some(made) => made.as_ref().is_some_and(|encoded| {
                Arc::strong_count(encoded) > shares.get(&Arc::as_ptr(encoded)).copied().unwrap_or_default()
            }),
            None => Arc::strong_count(&self.made) > 1,
        }
    }
}

/// How many slots hold the same bytes.
type Shares = HashMap<*const Encoded, usize>;

type Shard = HashMap<(Key, Dialect), Slot>;

/// Bytes by their content's version and the name they go by.
type Contents = HashMap<(NonZeroU64, Arc<str>), Weak<Encoded>>;

/// The encoded resources of a mesh.
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    contents: Mutex<Contents>,
    spread: RandomState,
    bytes: AtomicUsize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: (0..CACHE_SHARDS).map(|_| Mutex::default()).collect(),
            contents: Mutex::default(),
            spread: RandomState::new(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Cache {
    fn shard(&self, name: &(Key, Dialect)) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.spread.hash_one(name) % CACHE_SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource of a key whose inputs have this version in this mesh; built now unless it was before.
    pub(crate) fn get(&self, mesh: &Mesh, key: &Key, inputs: u64, dialect: Dialect) -> Option<Arc<Encoded>> {
        let name = (key.clone(), dialect);
        let (made, before) = {
            let mut shard = self.shard(&name);
            let slot = shard.entry(name).or_insert_with(|| Slot { inputs, made: Made::default(), before: None });
            if slot.inputs != inputs {
                self.bytes.fetch_sub(slot.bytes(), Ordering::Relaxed);
                slot.before = slot.made.get().cloned().flatten().or(slot.before.take());
                slot.inputs = inputs;
                slot.made = Made::default();
            }
            (Arc::clone(&slot.made), slot.before.clone())
        };
        let fill = || {
            let made = self.make(mesh, key, dialect, before.as_ref());
            self.bytes.fetch_add(made.as_ref().map_or(0, |made| made.frame.delta.len()), Ordering::Relaxed);
            made
        };
        made.get_or_init(fill).clone()
    }

    fn make(&self, mesh: &Mesh, key: &Key, dialect: Dialect, before: Option<&Arc<Encoded>>) -> Option<Arc<Encoded>> {
        let resource = build(mesh, key)?;
        let encoded = match api_xds::encode(&resource, dialect) {
            Ok(encoded) => encoded,
            Err(error) => {
                // What cannot be written must not take away what serves.
                tracing::error!(name = %key.name(), kind = ?key.kind(), %error, "a resource cannot be encoded; its last good version stays");
                metrics::counter!("pilot_encode_errors_total").increment(1);
                return before.cloned();
            }
        };
        let version = NonZeroU64::new(encoded.version & VERSION_BITS).unwrap_or(NonZeroU64::MIN);
        if let Some(before) = before
            && before.version == version
        {
            return Some(Arc::clone(before));
        }
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let known = contents.entry((version, Arc::clone(key.name()))).or_default();
        if let Some(same) = known.upgrade() {
            return Some(same);
        }
        let frame = frame(key.name(), &format!("{version:x}"), encoded.type_url, &encoded.value);
        let made = Arc::new(Encoded { version, frame });
        *known = Arc::downgrade(&made);
        Some(made)
    }

    /// Drops what nobody holds any more. What is filled meanwhile may be kept until the next sweep, or be made once more.
    pub(crate) fn sweep(&self) {
        let mut shares = Shares::new();
        for shard in &self.shards {
            for slot in shard.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
                slot.before = None;
                if let Some(encoded) = slot.made.get().and_then(Option::as_ref) {
                    *shares.entry(Arc::as_ptr(encoded)).or_default() += 1;
                }
            }
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut freed = 0;
            shard.retain(|_, slot| {
                let keep = slot.held(&shares);
                freed += if keep { 0 } else { slot.bytes() };
                keep
            });
            shard.shrink_to_fit();
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.retain(|_, known| known.strong_count() > 0);
        contents.shrink_to_fit();
    }

    /// Resources and their bytes; bytes that several share count for each.
    pub(crate) fn size(&self) -> (usize, usize) {
        let slots = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum();
        (slots, self.bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use api::spec::ResourceKind;
    use api_mesh::{
        mesh::{self, Mesh},
        model::{Catalog, Settings},
        object::{Strictness, from_json},
    };
    use api_xds::{discovery, node};
    use serde_json::json;

    use super::*;

    /// A mesh with one service.
    fn one_service() -> Mesh {
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a", "namespace": "default" },
            "spec": { "clusterIP": "198.19.0.9", "ports": [{ "name": "http", "port": 80 }] } });
        let mut catalog = Catalog::new(Settings::default());
        catalog.apply(&from_json(service, Strictness::Refuse).unwrap().0);
        mesh::resolve(&catalog).0
    }

    /// The listener of port 80 as sidecars of a namespace are sent it.
    fn listener(cache: &Cache, mesh: &Mesh, namespace: &str) -> Arc<Encoded> {
        let id = format!("sidecar~198.18.0.7~web-1.{namespace}~{namespace}.svc.cluster.local");
        let node = node::read(&discovery::Node { id, ..discovery::Node::default() }).unwrap();
        let keys = mesh::outbound(mesh, &mesh::scope(mesh, &node));
        let key = keys.get(ResourceKind::Listener, "0.0.0.0_80").unwrap();
        cache.get(mesh, key, mesh.version_of(key), Dialect::Envoy).unwrap()
    }

    #[test]
    fn slots_that_share_bytes_do_not_hold_each_other() {
        let (cache, mesh) = (Cache::default(), one_service());
        let (one, other) = (listener(&cache, &mesh, "one"), listener(&cache, &mesh, "other"));
        assert!(Arc::ptr_eq(&one, &other), "they share their bytes");
        drop(one);
        cache.sweep();
        assert_eq!(cache.size().0, 2, "one of them is held");
        drop(other);
        cache.sweep();
        assert_eq!(cache.size(), (0, 0));
    }
}

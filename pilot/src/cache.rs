//! Resources, encoded once for all clients that are sent them.
//!
//! A slot is named by key and dialect and holds the content version it was made from; whoever comes first fills it, and
//! those who come meanwhile wait for that one. Bounded; what is dropped is made again when asked for.
//! Never here: which client gets what. Used by `world`, filled through `mesh::build`.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use api_mesh::mesh::{Key, Mesh, build};
use api_xds::{Dialect, discovery::frame};

use crate::{limits::CACHE_BYTES_MAX, session::Encoded};

const SHARDS: usize = 16;

type Made = Arc<OnceLock<Option<Arc<Encoded>>>>;

struct Slot {
    /// Version of the inputs that `made` was built from.
    inputs: u64,
    made: Made,
    /// What was good before `made`.
    before: Option<Arc<Encoded>>,
    /// Edition of the mesh it was last asked for by.
    asked: u64,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.made.get().and_then(Option::as_ref).map_or(0, |encoded| encoded.frame.delta.len())
    }
}

type Shard = HashMap<(Key, Dialect), Slot>;

/// The encoded resources of a mesh.
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    spread: RandomState,
    bytes: AtomicUsize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            spread: RandomState::new(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Cache {
    fn shard(&self, name: &(Key, Dialect)) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.spread.hash_one(name) % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource of a key in this mesh; built now unless it was before.
    pub(crate) fn get(&self, mesh: &Mesh, edition: u64, key: &Key, dialect: Dialect) -> Option<Arc<Encoded>> {
        let inputs = mesh.version_of(key);
        let name = (key.clone(), dialect);
        let (made, before) = {
            let mut shard = self.shard(&name);
            let slot = shard.entry(name).or_insert_with(|| Slot {
                inputs,
                made: Made::default(),
                before: None,
                asked: edition,
            });
            slot.asked = edition;
            if slot.inputs != inputs {
                self.bytes.fetch_sub(slot.bytes(), Ordering::Relaxed);
                slot.before = slot.made.get().cloned().flatten().or(slot.before.take());
                slot.inputs = inputs;
                slot.made = Made::default();
            }
            (Arc::clone(&slot.made), slot.before.clone())
        };
        let fill = || {
            let made = make(mesh, key, dialect, before.as_ref());
            self.bytes.fetch_add(made.as_ref().map_or(0, |made| made.frame.delta.len()), Ordering::Relaxed);
            made
        };
        made.get_or_init(fill).clone()
    }

    /// What this key was last encoded as, in whatever version.
    pub(crate) fn last_known(&self, key: &Key, dialect: Dialect) -> Option<Arc<Encoded>> {
        let name = (key.clone(), dialect);
        let shard = self.shard(&name);
        shard.get(&name)?.made.get().cloned().flatten()
    }

    /// Drops what nobody has asked for since the edition `oldest`, or where there is too much, since `recent`.
    pub(crate) fn sweep(&self, oldest: u64, recent: u64) {
        let full = self.bytes.load(Ordering::Relaxed) > CACHE_BYTES_MAX;
        let oldest = if full { recent } else { oldest };
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut freed = 0;
            shard.retain(|_, slot| {
                let keep = slot.asked >= oldest;
                freed += if keep { 0 } else { slot.bytes() };
                slot.before = None;
                keep
            });
            shard.shrink_to_fit();
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// Resources and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let slots = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum();
        (slots, self.bytes.load(Ordering::Relaxed))
    }
}

fn make(mesh: &Mesh, key: &Key, dialect: Dialect, before: Option<&Arc<Encoded>>) -> Option<Arc<Encoded>> {
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
    let version = NonZeroU64::new(encoded.version).unwrap_or(NonZeroU64::MIN);
    if let Some(before) = before
        && before.version == version
    {
        return Some(Arc::clone(before));
    }
    let frame = frame(&encoded.name, &format!("{version:x}"), encoded.type_url, &encoded.value);
    Some(Arc::new(Encoded { version, frame }))
}

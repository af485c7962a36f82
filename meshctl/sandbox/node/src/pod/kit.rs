//! What every Pod's tasks share: the API, the keeper, images, addresses, where logs are.
//!
//! Never here: state of one Pod. Made once by `node`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio::sync::watch;

use super::live::Live;
use crate::event::Events;
use crate::image::Images;
use crate::keeper::birth::Users;
use crate::link::Link;
use crate::net::view::Entry;

/// What Pods share.
pub(crate) struct Kit {
    pub(crate) client: Client,
    pub(crate) link: Link,
    pub(crate) events: Events,
    pub(crate) images: Images,
    pub(crate) users: Users,
    pub(crate) live: Live,
    pub(crate) logs: PathBuf,
    pub(crate) services: watch::Receiver<Arc<Vec<Entry>>>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
}

impl Kit {
    /// A Pod's folder of logs.
    pub(crate) fn log_folder(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        self.logs.join(format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid)))
    }

    /// Logs that an earlier life of the daemon left for a container: the last two, oldest first.
    pub(crate) fn old_logs(&self, pod: &Pod, container: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.log_folder(pod).join(container)).into_iter().flatten().flatten();
        let mut runs: Vec<(u32, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let number = path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()?;
                Some((number, path))
            })
            .collect();
        runs.sort();
        runs.into_iter().rev().take(2).rev().map(|(_, path)| path).collect()
    }

    /// Removes logs of Pods that are gone.
    pub(crate) fn sweep_logs(&self, living: &[String]) {
        for entry in std::fs::read_dir(&self.logs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.rsplit('_').next()).unwrap_or_default();
            if !living.iter().any(|living| living == uid)
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(folder = %entry.path().display(), %error, "old logs not removed");
            }
        }
    }

    /// Where a run's log is written.
    pub(crate) fn log_path(&self, pod: &Pod, container: &str, restarts: i32) -> PathBuf {
        self.log_folder(pod).join(Path::new(container)).join(format!("{restarts}.log"))
    }
}

/// Pods' addresses: 198.18.0.2 to 198.18.255.254, the least recently used first.
pub(crate) struct Addresses {
    /// Addresses in use; the packet filter watches them too.
    used: watch::Sender<BTreeSet<Ipv4Addr>>,
    next: std::sync::atomic::AtomicU32,
}

const FIRST: u32 = 2;
const COUNT: u32 = 65_533;

/// An address that is given back when dropped.
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    /// Its number: also the link's.
    pub(crate) number: u32,
    of: Arc<Addresses>,
}

impl Addresses {
    pub(crate) fn new() -> (Arc<Self>, watch::Receiver<BTreeSet<Ipv4Addr>>) {
        let (used, watched) = watch::channel(BTreeSet::new());
        (Arc::new(Self { used, next: std::sync::atomic::AtomicU32::new(0) }), watched)
    }

    /// A free address; `None`: all are in use.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Lease> {
        (0..COUNT).find_map(|_| {
            let step = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % COUNT;
            let number = FIRST + step;
            let [.., c, d] = number.to_be_bytes();
            let address = Ipv4Addr::new(198, 18, c, d);
            let fresh = self.used.send_if_modified(|used| used.insert(address));
            fresh.then(|| Lease { address, number, of: Arc::clone(self) })
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.used.send_modify(|used| {
            used.remove(&self.address);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_begin_after_the_gateway_and_are_not_reused_at_once() {
        let (addresses, watched) = Addresses::new();
        let first = addresses.take().unwrap();
        assert_eq!(first.address, Ipv4Addr::new(198, 18, 0, 2));
        drop(first);
        assert_eq!(addresses.take().unwrap().address, Ipv4Addr::new(198, 18, 0, 3));
        assert!(watched.borrow().is_empty());
    }
}

//! One worker: a thread with its own runtime, pools and counters, and what all workers share.
//!
//! Nothing on the request path crosses from one worker to another but atomics: tables are swapped under them whole.
//! Never here: what a connection does. Started by `main`; held by every connection.

use std::{cell::Cell, future::Future, rc::Rc, sync::Arc};

use api_rt::{clock::Clock, identity::Identity};
use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    access::{Lines, writer::Writer},
    http::{formats::Formats, gate::ids::Ids, h1::date::Dates},
    metrics::{Metrics, PartyId, Shard, proxy::ProxyStats},
    overload::Overload,
    peers::Peers,
    table::Tables,
    tcp::relay::Room,
    upstream::pool::Pools,
};

/// How far the process is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves.
    Serving,
    /// It still takes connections and requests, and tells peers to go elsewhere.
    Draining,
    /// It takes nothing new; requests under way end.
    Closing,
}

/// Who we are, ready for use on the request path.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) party: PartyId,
    /// `x-envoy-peer-metadata-id`.
    pub(crate) metadata_id: HeaderValue,
    /// `x-envoy-peer-metadata`.
    pub(crate) metadata: HeaderValue,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tables: ArcSwap<Tables>,
    pub(crate) stats: Arc<ProxyStats>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Writer,
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    pub(crate) own: Own,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) overload: Overload,
    /// Zero of the times that shared atomics hold.
    pub(crate) epoch: tokio::time::Instant,
}

impl Shared {
    /// Milliseconds since the process began.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Has connections that wait look again at how long they may: who waits for the next phase is woken, and finds the old.
    pub(crate) fn rouse(&self) {
        self.phase.send_modify(|_| ());
    }
}

/// One worker's own things.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: Shard,
    pub(crate) pools: Pools,
    pub(crate) lines: Lines,
    pub(crate) peers: Peers,
    pub(crate) dates: Dates,
    pub(crate) ids: Ids,
    pub(crate) formats: Formats,
    pub(crate) room: Room,
    /// Copies of requests that are under way.
    pub(crate) mirrors: Cell<usize>,
    tasks: TaskTracker,
    /// Upstream connections that have a task of their own.
    connections: TaskTracker,
    luck: Cell<u64>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            shard: Shard::new(Arc::clone(&shared.metrics)),
            pools: Pools::default(),
            lines: Lines::default(),
            peers: Peers::default(),
            dates: Dates::default(),
            ids: Ids::default(),
            formats: Formats::default(),
            room: Room::default(),
            mirrors: Cell::new(0),
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
            luck: Cell::new(seed | 1),
            shared,
        })
    }

    /// Runs something beside the connections; the worker waits for it when it ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.tasks.track_future(task));
    }

    /// Runs an upstream connection, for as long as the pools or a request hold it.
    pub(crate) fn spawn_connection(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.connections.track_future(task));
    }

    /// Ends taking tasks, waits for those under way, and then for the upstream connections, which nobody needs any more.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.pools.let_go();
        self.connections.close();
        self.connections.wait().await;
    }

    /// The next random number (xorshift64*): for balancing and shares, not for secrets.
    pub(crate) fn roll(&self) -> u64 {
        let mut x = self.luck.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.luck.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Lets hyper's HTTP/2 run its tasks on this worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

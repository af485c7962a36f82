//! What is counted about clusters and endpoints, kept while tables come and go.
//!
//! Numbers are shared atomics, so that breakers and ejections hold for the process and not for each worker.
//! Never here: choosing, connecting. Made by `table`; changed by `open`, `lease`, `http::retry` and `tcp`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use api::{
    balance::{Observed, Strikes, ejection, may_eject},
    spec::Outlier,
};
use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::proxy::ClusterStats;

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Socket(SocketAddr),
    Unix(Arc<str>),
}

impl Place {
    /// The address, where it has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// How long an endpoint that could not be connected to is passed over while there are others.
const QUARANTINE: Duration = Duration::from_secs(3);
/// Endpoints remembered for clusters that go where the client wanted; past it all of them are forgotten.
const ORIGINAL_PLACES_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Ejections {
    strikes: Strikes,
    times: u32,
    /// End of the last ejection, milliseconds of the process.
    until_ms: u64,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct LiveEndpoint {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) place: Place,
    pub(crate) busy: AtomicU32,
    pub(crate) ejected: AtomicBool,
    /// Whether there are strikes to take back.
    struck: AtomicBool,
    quarantined_until_ms: AtomicU64,
    ejections: Mutex<Ejections>,
    pub(crate) requests_total: AtomicU64,
    pub(crate) failures_total: AtomicU64,
    /// Cancelled when no table names it any more: nobody waits for a connection to it then.
    pub(crate) gone: CancellationToken,
}

impl LiveEndpoint {
    fn new(id: u64, place: Place) -> Self {
        Self {
            id,
            place,
            busy: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            struck: AtomicBool::new(false),
            quarantined_until_ms: AtomicU64::new(0),
            ejections: Mutex::default(),
            requests_total: AtomicU64::new(0),
            failures_total: AtomicU64::new(0),
            gone: CancellationToken::new(),
        }
    }

    fn ejections(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes it over for a while: no connection could be made.
    pub(crate) fn quarantine(&self, now_ms: u64) {
        let length = u64::try_from(QUARANTINE.as_millis()).unwrap_or(u64::MAX);
        self.quarantined_until_ms.store(now_ms.saturating_add(length), Relaxed);
    }

    /// A connection was made.
    pub(crate) fn release(&self) {
        if self.quarantined_until_ms.load(Relaxed) != 0 {
            self.quarantined_until_ms.store(0, Relaxed);
        }
    }

    pub(crate) fn is_quarantined(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let until = self.quarantined_until_ms.load(Relaxed);
        until != 0 && now_ms() < until
    }
}

/// One cluster.
#[derive(Debug)]
pub(crate) struct LiveCluster {
    pub(crate) stats: ClusterStats,
    pub(crate) cursor: AtomicU64,
    /// Told when a connection is free again.
    pub(crate) freed: Notify,
    endpoints: Mutex<HashMap<Place, Arc<LiveEndpoint>>>,
}

static NEXT_ENDPOINT: AtomicU64 = AtomicU64::new(1);

impl LiveCluster {
    fn new() -> Self {
        Self {
            stats: ClusterStats::default(),
            cursor: AtomicU64::new(0),
            freed: Notify::new(),
            endpoints: Mutex::default(),
        }
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<Place, Arc<LiveEndpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint at this place.
    pub(crate) fn endpoint(&self, place: &Place) -> Arc<LiveEndpoint> {
        let mut all = self.endpoints();
        if let Some(found) = all.get(place) {
            return Arc::clone(found);
        }
        let made = Arc::new(LiveEndpoint::new(NEXT_ENDPOINT.fetch_add(1, Relaxed), place.clone()));
        all.insert(place.clone(), Arc::clone(&made));
        made
    }

    /// The endpoint at an address that a client asked for.
    pub(crate) fn original(&self, address: SocketAddr) -> Arc<LiveEndpoint> {
        {
            let mut all = self.endpoints();
            if all.len() >= ORIGINAL_PLACES_MAX {
                all.clear();
            }
        }
        self.endpoint(&Place::Socket(address))
    }

    /// Forgets endpoints that the table no longer names.
    pub(crate) fn keep_only(&self, named: impl Fn(&Place) -> bool) {
        self.endpoints().retain(|place, endpoint| {
            let kept = named(place);
            if !kept {
                endpoint.gone.cancel();
            }
            kept
        });
    }

    /// Notes what an exchange showed; ejects the endpoint where that is due.
    pub(crate) fn observe(&self, endpoint: &LiveEndpoint, seen: Observed, outlier: Option<&Outlier>, now_ms: u64) {
        endpoint.requests_total.fetch_add(1, Relaxed);
        let failed = matches!(seen, Observed::ConnectionError | Observed::Status(500..));
        if failed {
            endpoint.failures_total.fetch_add(1, Relaxed);
        }
        let Some(outlier) = outlier else { return };
        if !failed && !endpoint.struck.load(Relaxed) {
            return;
        }
        let mut ejections = endpoint.ejections();
        let (strikes, due) = ejections.strikes.after(seen, outlier);
        ejections.strikes = strikes;
        endpoint.struck.store(strikes != Strikes::default(), Relaxed);
        if !due || endpoint.ejected.load(Relaxed) {
            return;
        }
        let (ejected, all) = {
            let all = self.endpoints();
            (all.values().filter(|other| other.ejected.load(Relaxed)).count(), all.len())
        };
        // Envoy always lets one go, whatever the share says.
        if ejected > 0 && !may_eject(outlier, ejected, all) {
            return;
        }
        let interval = u64::try_from(outlier.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let calm = now_ms.saturating_sub(ejections.until_ms) / interval;
        ejections.times = ejections.times.saturating_sub(u32::try_from(calm).unwrap_or(u32::MAX)).saturating_add(1);
        let length = u64::try_from(ejection(outlier, ejections.times).as_millis()).unwrap_or(u64::MAX);
        ejections.until_ms = now_ms.saturating_add(length);
        ejections.strikes = Strikes::default();
        endpoint.struck.store(false, Relaxed);
        endpoint.ejected.store(true, Relaxed);
        self.stats.ejections.add(1);
        tracing::info!(endpoint = %endpoint.place, for_ms = length, "endpoint ejected");
    }

    /// Takes back ejections that have ended.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for endpoint in self.endpoints().values() {
            if endpoint.ejected.load(Relaxed) && now_ms >= endpoint.ejections().until_ms {
                endpoint.ejected.store(false, Relaxed);
                tracing::info!(endpoint = %endpoint.place, "endpoint takes traffic again");
            }
        }
    }
}

/// All clusters, by name.
#[derive(Debug, Default)]
pub(crate) struct Live {
    clusters: Mutex<HashMap<String, Arc<LiveCluster>>>,
}

impl Live {
    fn clusters(&self) -> MutexGuard<'_, HashMap<String, Arc<LiveCluster>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster of this name.
    pub(crate) fn cluster(&self, name: &str) -> Arc<LiveCluster> {
        let mut all = self.clusters();
        if let Some(found) = all.get(name) {
            return Arc::clone(found);
        }
        let made = Arc::new(LiveCluster::new());
        all.insert(name.to_owned(), Arc::clone(&made));
        made
    }

    /// Forgets clusters that the table no longer names.
    pub(crate) fn keep_only(&self, named: impl Fn(&str) -> bool) {
        self.clusters().retain(|name, _| named(name));
    }

    /// Takes back ejections that have ended.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let all: Vec<_> = self.clusters().values().cloned().collect();
        for cluster in all {
            cluster.sweep(now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlier() -> Outlier {
        Outlier {
            consecutive_5xx: 2,
            consecutive_gateway: 0,
            consecutive_local: 0,
            split_local: false,
            interval: Duration::from_secs(1),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 50,
            min_health_percent: 0,
        }
    }

    fn at(port: u16) -> Place {
        Place::Socket(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    #[test]
    fn two_failures_in_a_row_eject_and_time_brings_back() {
        let live = Live::default();
        let cluster = live.cluster("a");
        let (one, _two) = (cluster.endpoint(&at(1)), cluster.endpoint(&at(2)));
        let outlier = outlier();
        for seen in [Observed::Status(503), Observed::Status(200), Observed::Status(503)] {
            cluster.observe(&one, seen, Some(&outlier), 0);
        }
        assert!(!one.ejected.load(Relaxed), "a success between clears the count");
        cluster.observe(&one, Observed::ConnectionError, Some(&outlier), 0);
        assert!(one.ejected.load(Relaxed));
        live.sweep(29_999);
        assert!(one.ejected.load(Relaxed));
        live.sweep(30_000);
        assert!(!one.ejected.load(Relaxed));
    }

    #[test]
    fn no_more_than_the_share_is_ejected_and_a_new_table_finds_the_same() {
        let live = Live::default();
        let cluster = live.cluster("a");
        let all: Vec<_> = (1..=2).map(|port| cluster.endpoint(&at(port))).collect();
        for endpoint in &all {
            for _ in 0..2 {
                cluster.observe(endpoint, Observed::Status(500), Some(&outlier()), 0);
            }
        }
        assert_eq!(all.iter().filter(|e| e.ejected.load(Relaxed)).count(), 1);
        let again = live.cluster("a").endpoint(&at(1));
        assert_eq!(again.id, all[0].id);
        cluster.keep_only(|place| *place != at(1));
        assert_ne!(live.cluster("a").endpoint(&at(1)).id, all[0].id);
    }

    #[test]
    fn an_endpoint_that_refused_is_passed_over_for_a_while() {
        let cluster = Live::default().cluster("a");
        let endpoint = cluster.endpoint(&at(1));
        endpoint.quarantine(1_000);
        assert!(endpoint.is_quarantined(|| 3_999));
        assert!(!endpoint.is_quarantined(|| 4_000));
    }
}

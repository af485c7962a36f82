//! The mesh's metrics of requests and connections: Istio's names and labels, counted without a label look-up.
//!
//! Parties (workloads) and services get small numbers once; a request's labels are then a key of plain numbers, which
//! each worker maps to the counters with one hash. Text is made only when a new series appears and when it is scraped.
//! Never here: deciding what a request was. Fed by `access`; scraped by `pod` and `admin`.

pub(crate) mod histogram;
pub(crate) mod labels;
pub(crate) mod proxy;

use std::{
    cell::RefCell,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hashbrown::HashMap;

use crate::limits::SERIES_MAX;
use histogram::Histogram;
pub(crate) use labels::{Flags, Party, PartyId, Protocol, Reporter, Security, Service, ServiceId};
use labels::{Interned, label};

/// The labels of requests, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestKey {
    pub(crate) reporter: Reporter,
    pub(crate) source: PartyId,
    pub(crate) destination: PartyId,
    pub(crate) service: ServiceId,
    pub(crate) protocol: Protocol,
    pub(crate) security: Security,
    pub(crate) code: u16,
    pub(crate) flags: Flags,
    /// The gRPC status of the answer, where there is one.
    pub(crate) grpc: Option<u8>,
}

/// The labels of TCP connections, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionKey {
    pub(crate) reporter: Reporter,
    pub(crate) source: PartyId,
    pub(crate) destination: PartyId,
    pub(crate) service: ServiceId,
    pub(crate) security: Security,
    pub(crate) flags: Flags,
}

/// Counters of requests with the same labels.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    labels: String,
    pub(crate) total: AtomicU64,
    pub(crate) duration: Histogram,
    pub(crate) request_bytes: Histogram,
    pub(crate) response_bytes: Histogram,
}

/// Counters of TCP connections with the same labels.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    labels: String,
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Labels as numbers: what a series is found by.
pub(crate) trait Key: Copy + Eq + Hash {
    /// What is counted under such labels.
    type Series: Default;

    /// The same labels without what has no bound, for what finds no room for a series of its own.
    fn shared(self) -> Self;

    /// Empty counters under these labels, in Prometheus' form.
    fn series(self, metrics: &Metrics) -> Self::Series;

    /// Those of this kind.
    fn of(metrics: &Metrics) -> &Registry<Self>;
}

impl Key for RequestKey {
    type Series = Requests;

    fn shared(self) -> Self {
        Self { source: PartyId(0), destination: PartyId(0), service: ServiceId(0), ..self }
    }

    fn series(self, metrics: &Metrics) -> Requests {
        let mut labels = metrics.ends(self.reporter, self.source, self.destination, self.service);
        label(&mut labels, "request_protocol", self.protocol.name());
        label(&mut labels, "response_code", &self.code.to_string());
        label(&mut labels, "grpc_response_status", &self.grpc.map(|g| g.to_string()).unwrap_or_default());
        label(&mut labels, "response_flags", &self.flags.to_string());
        label(&mut labels, "connection_security_policy", self.security.name());
        Requests { labels, ..Requests::default() }
    }

    fn of(metrics: &Metrics) -> &Registry<Self> {
        &metrics.requests
    }
}

impl Key for ConnectionKey {
    type Series = Connections;

    fn shared(self) -> Self {
        Self { source: PartyId(0), destination: PartyId(0), service: ServiceId(0), ..self }
    }

    fn series(self, metrics: &Metrics) -> Connections {
        let mut labels = metrics.ends(self.reporter, self.source, self.destination, self.service);
        label(&mut labels, "request_protocol", "tcp");
        label(&mut labels, "response_flags", &self.flags.to_string());
        label(&mut labels, "connection_security_policy", self.security.name());
        Connections { labels, ..Connections::default() }
    }

    fn of(metrics: &Metrics) -> &Registry<Self> {
        &metrics.connections
    }
}

/// All series under one kind of labels.
#[derive(Debug)]
pub(crate) struct Registry<K: Key>(Mutex<HashMap<K, Arc<K::Series>>>);

impl<K: Key> Default for Registry<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Key> Registry<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<K::Series>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of these labels, or where there is no room for one more, that of the labels it shares.
    fn series(&self, key: K, metrics: &Metrics) -> Arc<K::Series> {
        let mut all = self.lock();
        if let Some(found) = all.get(&key) {
            return Arc::clone(found);
        }
        let key = if all.len() < SERIES_MAX {
            key
        } else {
            metrics.overflow.fetch_add(1, Relaxed);
            key.shared()
        };
        Arc::clone(all.entry(key).or_insert_with(|| Arc::new(key.series(metrics))))
    }

    /// All series, by their labels.
    fn sorted(&self, labels: impl Fn(&K::Series) -> &str) -> Vec<Arc<K::Series>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| labels(a).cmp(labels(b)));
        all
    }
}

/// A metric, and where a series has it.
type Named<S, M> = (&'static str, fn(&S) -> &M);

/// All series of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    parties: Interned<Party>,
    services: Interned<Service>,
    requests: Registry<RequestKey>,
    connections: Registry<ConnectionKey>,
    /// Requests and connections that found no room for a series of their own.
    pub(crate) overflow: AtomicU64,
}

impl Metrics {
    /// The number of a workload.
    pub(crate) fn party(&self, party: &Party) -> PartyId {
        PartyId(self.parties.number(party))
    }

    /// The number of a service.
    pub(crate) fn service(&self, service: &Service) -> ServiceId {
        ServiceId(self.services.number(service))
    }

    /// The labels of who speaks with whom.
    fn ends(&self, reporter: Reporter, source: PartyId, destination: PartyId, service: ServiceId) -> String {
        let mut text = String::new();
        label(&mut text, "reporter", reporter.name());
        self.parties.get(source.0).write(&mut text, "source");
        self.parties.get(destination.0).write(&mut text, "destination");
        self.services.get(service.0).write(&mut text);
        text
    }

    /// Sets every counter back to nought; histograms stay, as Envoy's do.
    pub(crate) fn reset(&self) {
        for series in self.requests.lock().values() {
            series.total.store(0, Relaxed);
        }
        for series in self.connections.lock().values() {
            let Connections { labels: _, opened, closed, sent, received } = &**series;
            for counter in [opened, closed, sent, received] {
                counter.store(0, Relaxed);
            }
        }
        self.overflow.store(0, Relaxed);
    }

    /// Prints all series in Prometheus' text format.
    pub(crate) fn print(&self, out: &mut String) {
        let requests = self.requests.sorted(|series| &series.labels);
        let connections = self.connections.sorted(|series| &series.labels);
        if !requests.is_empty() {
            out.push_str("# TYPE istio_requests_total counter\n");
            for series in &requests {
                out.push_str(&format!("istio_requests_total{{{}}} {}\n", series.labels, series.total.load(Relaxed)));
            }
            let histograms: [Named<Requests, Histogram>; 3] = [
                ("istio_request_duration_milliseconds", |s| &s.duration),
                ("istio_request_bytes", |s| &s.request_bytes),
                ("istio_response_bytes", |s| &s.response_bytes),
            ];
            for (name, pick) in histograms {
                out.push_str(&format!("# TYPE {name} histogram\n"));
                for series in &requests {
                    pick(series).print(out, name, &series.labels);
                }
            }
        }
        if !connections.is_empty() {
            let counters: [Named<Connections, AtomicU64>; 4] = [
                ("istio_tcp_connections_opened_total", |s| &s.opened),
                ("istio_tcp_connections_closed_total", |s| &s.closed),
                ("istio_tcp_sent_bytes_total", |s| &s.sent),
                ("istio_tcp_received_bytes_total", |s| &s.received),
            ];
            for (name, pick) in counters {
                out.push_str(&format!("# TYPE {name} counter\n"));
                for series in &connections {
                    out.push_str(&format!("{name}{{{}}} {}\n", series.labels, pick(series).load(Relaxed)));
                }
            }
        }
    }
}

/// One worker's way to the counters of one kind.
#[derive(Debug)]
struct Known<K: Key>(RefCell<HashMap<K, Arc<K::Series>>>);

impl<K: Key> Default for Known<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Key> Known<K> {
    fn count(&self, key: K, metrics: &Metrics, count: impl FnOnce(&K::Series)) {
        if let Some(series) = self.0.borrow().get(&key) {
            return count(series);
        }
        let series = K::of(metrics).series(key, metrics);
        count(&series);
        let mut known = self.0.borrow_mut();
        if known.len() < SERIES_MAX {
            known.insert(key, series);
        }
    }
}

/// One worker's way to the counters.
#[derive(Debug)]
pub(crate) struct Shard {
    metrics: Arc<Metrics>,
    requests: Known<RequestKey>,
    connections: Known<ConnectionKey>,
}

impl Shard {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, requests: Known::default(), connections: Known::default() }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts with the series of these labels.
    pub(crate) fn request(&self, key: RequestKey, count: impl FnOnce(&Requests)) {
        self.requests.count(key, &self.metrics, count);
    }

    /// Counts with the series of these labels.
    pub(crate) fn connection(&self, key: ConnectionKey, count: impl FnOnce(&Connections)) {
        self.connections.count(key, &self.metrics, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_printed_with_istios_labels() {
        let metrics = Arc::new(Metrics::default());
        let shard = Shard::new(Arc::clone(&metrics));
        let party =
            |name: &str| metrics.party(&Party { workload: name.into(), namespace: "shop".into(), ..Party::default() });
        let key = RequestKey {
            reporter: Reporter::Source,
            source: party("web"),
            destination: party("reviews-v1"),
            service: metrics.service(&Service {
                host: "reviews.shop.svc.cluster.local".into(),
                name: "reviews".into(),
                namespace: "shop".into(),
            }),
            protocol: Protocol::Http,
            security: Security::Unknown,
            code: 503,
            flags: Flags::UPSTREAM_FAILED.with(Flags::RETRIES_EXHAUSTED),
            grpc: None,
        };
        for _ in 0..2 {
            shard.request(key, |series| {
                series.total.fetch_add(1, Relaxed);
            });
        }
        let mut out = String::new();
        metrics.print(&mut out);
        let line = out.lines().find(|l| l.starts_with("istio_requests_total{")).unwrap();
        for part in [
            "reporter=\"source\"",
            "source_workload=\"web\"",
            "source_principal=\"unknown\"",
            "destination_workload=\"reviews-v1\"",
            "destination_service=\"reviews.shop.svc.cluster.local\"",
            "response_code=\"503\"",
            "response_flags=\"UF,URX\"",
            "connection_security_policy=\"unknown\"",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(line.ends_with("} 2"), "{line}");
    }
}

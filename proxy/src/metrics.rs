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

#[derive(Debug, Default)]
struct Registry {
    requests: HashMap<RequestKey, Arc<Requests>>,
    connections: HashMap<ConnectionKey, Arc<Connections>>,
}

/// A metric, and where a series has it.
type Named<S, M> = (&'static str, fn(&S) -> &M);

/// All series of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    parties: Interned<Party>,
    services: Interned<Service>,
    registry: Mutex<Registry>,
    /// Requests and connections that found no room for a series of their own.
    pub(crate) overflow: AtomicU64,
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a workload.
    pub(crate) fn party(&self, party: &Party) -> PartyId {
        PartyId(self.parties.number(party))
    }

    /// The number of a service.
    pub(crate) fn service(&self, service: &Service) -> ServiceId {
        ServiceId(self.services.number(service))
    }

    fn request_series(&self, key: RequestKey) -> Arc<Requests> {
        let mut registry = self.lock();
        if let Some(found) = registry.requests.get(&key) {
            return Arc::clone(found);
        }
        let key = if registry.requests.len() < SERIES_MAX {
            key
        } else {
            self.overflow.fetch_add(1, Relaxed);
            RequestKey { source: PartyId(0), destination: PartyId(0), service: ServiceId(0), ..key }
        };
        let labels = || {
            let mut text = String::new();
            label(&mut text, "reporter", key.reporter.name());
            self.parties.get(key.source.0).write(&mut text, "source");
            self.parties.get(key.destination.0).write(&mut text, "destination");
            self.services.get(key.service.0).write(&mut text);
            label(&mut text, "request_protocol", key.protocol.name());
            label(&mut text, "response_code", &key.code.to_string());
            label(&mut text, "grpc_response_status", &key.grpc.map(|g| g.to_string()).unwrap_or_default());
            label(&mut text, "response_flags", &key.flags.to_string());
            label(&mut text, "connection_security_policy", key.security.name());
            text
        };
        let series = || Arc::new(Requests { labels: labels(), ..Requests::default() });
        Arc::clone(registry.requests.entry(key).or_insert_with(series))
    }

    fn connection_series(&self, key: ConnectionKey) -> Arc<Connections> {
        let mut registry = self.lock();
        if let Some(found) = registry.connections.get(&key) {
            return Arc::clone(found);
        }
        let key = if registry.connections.len() < SERIES_MAX {
            key
        } else {
            self.overflow.fetch_add(1, Relaxed);
            ConnectionKey { source: PartyId(0), destination: PartyId(0), service: ServiceId(0), ..key }
        };
        let labels = || {
            let mut text = String::new();
            label(&mut text, "reporter", key.reporter.name());
            self.parties.get(key.source.0).write(&mut text, "source");
            self.parties.get(key.destination.0).write(&mut text, "destination");
            self.services.get(key.service.0).write(&mut text);
            label(&mut text, "request_protocol", "tcp");
            label(&mut text, "response_flags", &key.flags.to_string());
            label(&mut text, "connection_security_policy", key.security.name());
            text
        };
        let series = || Arc::new(Connections { labels: labels(), ..Connections::default() });
        Arc::clone(registry.connections.entry(key).or_insert_with(series))
    }

    /// Prints all series in Prometheus' text format.
    pub(crate) fn print(&self, out: &mut String) {
        let (mut requests, mut connections): (Vec<_>, Vec<_>) = {
            let registry = self.lock();
            (registry.requests.values().cloned().collect(), registry.connections.values().cloned().collect())
        };
        requests.sort_by(|a, b| a.labels.cmp(&b.labels));
        connections.sort_by(|a, b| a.labels.cmp(&b.labels));
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

/// One worker's way to the counters.
#[derive(Debug)]
pub(crate) struct Shard {
    metrics: Arc<Metrics>,
    requests: RefCell<HashMap<RequestKey, Arc<Requests>>>,
    connections: RefCell<HashMap<ConnectionKey, Arc<Connections>>>,
}

impl Shard {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, requests: RefCell::default(), connections: RefCell::default() }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts with the series of these labels.
    pub(crate) fn request(&self, key: RequestKey, count: impl FnOnce(&Requests)) {
        if let Some(series) = self.requests.borrow().get(&key) {
            return count(series);
        }
        let series = self.metrics.request_series(key);
        count(&series);
        let mut cache = self.requests.borrow_mut();
        if cache.len() < SERIES_MAX {
            cache.insert(key, series);
        }
    }

    /// Counts with the series of these labels.
    pub(crate) fn connection(&self, key: ConnectionKey, count: impl FnOnce(&Connections)) {
        if let Some(series) = self.connections.borrow().get(&key) {
            return count(series);
        }
        let series = self.metrics.connection_series(key);
        count(&series);
        let mut cache = self.connections.borrow_mut();
        if cache.len() < SERIES_MAX {
            cache.insert(key, series);
        }
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

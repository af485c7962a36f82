//! Counters of the proxy itself, under Envoy's names where tools read them.
//!
//! Never here: request labels. Fed by `listen`, `upstream` and `xds`; printed with the rest.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::http::h2::Excess;

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn up(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// HTTP/2 connections that were ended, by what the peer did too much of.
#[derive(Debug, Default)]
pub(crate) struct ExcessCounters([Counter; Excess::ALL.len()]);

impl ExcessCounters {
    /// Counts one; gives how many there are.
    pub(crate) fn add(&self, excess: Excess) -> u64 {
        let Some(counter) = Excess::ALL.iter().position(|one| *one == excess).and_then(|at| self.0.get(at)) else {
            return 0;
        };
        counter.add(1);
        counter.get()
    }

    fn reset(&self) {
        self.0.iter().for_each(Counter::reset);
    }

    fn each(&self, mut put: impl FnMut(&str, u64)) {
        for (excess, counter) in Excess::ALL.iter().zip(&self.0) {
            put(&format!("http2.excess.{}", excess.name()), counter.get());
        }
    }
}

/// Counters of the process.
#[derive(Debug, Default)]
pub(crate) struct ProxyStats {
    pub(crate) downstream_connections: Gauge,
    pub(crate) downstream_connections_total: Counter,
    pub(crate) downstream_requests: Gauge,
    pub(crate) downstream_requests_total: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) http2_excess: ExcessCounters,
    /// Connections closed because too many were open, or memory was short.
    pub(crate) connections_overflow: Counter,
    pub(crate) connections_shed: Counter,
    /// Requests refused because memory was short.
    pub(crate) requests_shed: Counter,
    pub(crate) overload_step: Gauge,
    pub(crate) memory_used: Gauge,
    pub(crate) memory_limit: Gauge,
    pub(crate) xds_connected: Gauge,
    pub(crate) xds_updates: Counter,
    pub(crate) xds_rejected: Counter,
    pub(crate) table_version: Gauge,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) listeners: Gauge,
    pub(crate) clusters: Gauge,
}

/// Counters of one cluster.
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) http2_connections_total: Counter,
    pub(crate) connect_failed: Counter,
    pub(crate) requests: Gauge,
    pub(crate) requests_total: Counter,
    pub(crate) pending: Gauge,
    pub(crate) overflow: Counter,
    pub(crate) retries: Counter,
    pub(crate) retrying: Gauge,
    pub(crate) retries_overflow: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) ejections: Counter,
}

impl ProxyStats {
    /// Names and values, as Envoy's `/stats` has them.
    pub(crate) fn each(&self, mut put: impl FnMut(&str, u64)) {
        put("cluster_manager.active_clusters", self.clusters.get());
        put("http.downstream_rq_active", self.downstream_requests.get());
        put("http.downstream_rq_total", self.downstream_requests_total.get());
        put("listener_manager.total_listeners_active", self.listeners.get());
        put("listener.downstream_cx_active", self.downstream_connections.get());
        put("listener.downstream_cx_total", self.downstream_connections_total.get());
        put("listener.ssl.connection_error", self.handshakes_failed.get());
        put("control_plane.connected_state", self.xds_connected.get());
        put("xds.update_success", self.xds_updates.get());
        put("xds.update_rejected", self.xds_rejected.get());
        put("xds.table_version", self.table_version.get());
        put("access_log.lines_dropped", self.log_lines_dropped.get());
        put("listener.downstream_cx_overflow", self.connections_overflow.get());
        put("listener.downstream_cx_overload_reject", self.connections_shed.get());
        put("http.downstream_rq_overload_close", self.requests_shed.get());
        put("overload.step", self.overload_step.get());
        put("server.memory_allocated", self.memory_used.get());
        put("server.memory_limit", self.memory_limit.get());
        self.http2_excess.each(&mut put);
    }

    /// Sets every counter back to nought.
    pub(crate) fn reset(&self) {
        let Self {
            downstream_connections: _,
            downstream_connections_total,
            downstream_requests: _,
            downstream_requests_total,
            handshakes_failed,
            http2_excess,
            connections_overflow,
            connections_shed,
            requests_shed,
            overload_step: _,
            memory_used: _,
            memory_limit: _,
            xds_connected: _,
            xds_updates,
            xds_rejected,
            table_version: _,
            log_lines_dropped,
            listeners: _,
            clusters: _,
        } = self;
        for counter in [
            downstream_connections_total,
            downstream_requests_total,
            handshakes_failed,
            connections_overflow,
            connections_shed,
            requests_shed,
            xds_updates,
            xds_rejected,
            log_lines_dropped,
        ] {
            counter.reset();
        }
        http2_excess.reset();
    }

    pub(crate) fn print(&self, out: &mut String) {
        self.each(|name, value| {
            let name = name.replace('.', "_");
            out.push_str(&format!("envoy_{name} {value}\n"));
        });
    }
}

impl ClusterStats {
    /// Sets every counter back to nought.
    pub(crate) fn reset(&self) {
        let Self {
            connections: _,
            connections_total,
            http2_connections_total,
            connect_failed,
            requests: _,
            requests_total,
            pending: _,
            overflow,
            retries,
            retrying: _,
            retries_overflow,
            timeouts,
            ejections,
        } = self;
        let counters = [
            connections_total,
            http2_connections_total,
            connect_failed,
            requests_total,
            overflow,
            retries,
            retries_overflow,
            timeouts,
            ejections,
        ];
        counters.into_iter().for_each(Counter::reset);
    }

    /// Names and values, as Envoy's `/stats` has them below `cluster.NAME.`.
    pub(crate) fn each(&self, mut put: impl FnMut(&str, u64)) {
        put("upstream_cx_active", self.connections.get());
        put("upstream_cx_total", self.connections_total.get());
        put("upstream_cx_http2_total", self.http2_connections_total.get());
        put("upstream_cx_connect_fail", self.connect_failed.get());
        put("upstream_rq_active", self.requests.get());
        put("upstream_rq_total", self.requests_total.get());
        put("upstream_rq_pending_active", self.pending.get());
        put("upstream_rq_pending_overflow", self.overflow.get());
        put("upstream_rq_retry", self.retries.get());
        put("upstream_rq_retry_overflow", self.retries_overflow.get());
        put("upstream_rq_timeout", self.timeouts.get());
        put("outlier_detection.ejections_enforced_total", self.ejections.get());
    }
}

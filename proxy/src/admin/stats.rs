//! `/stats`, and the clusters' part of the Prometheus page.
//!
//! Never here: request metrics (`metrics`). Called by `admin` and `pod`.

use std::sync::atomic::Ordering::Relaxed;

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    table::Tables,
    worker::{Phase, Shared},
};

/// Which numbers are asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Only those whose names match.
    pub(crate) names: Option<Regex>,
    /// Only those that are not nought.
    pub(crate) used_only: bool,
}

/// All numbers by name.
fn all(shared: &Shared, wanted: &Wanted) -> Vec<(String, u64)> {
    let mut lines: Vec<(String, u64)> = Vec::new();
    shared.stats.each(|name, value| lines.push((name.to_owned(), value)));
    for cluster in shared.tables.load().clusters() {
        cluster.live.stats.each(|name, value| lines.push((format!("cluster.{}.{name}", cluster.name), value)));
    }
    let serving = *shared.phase.borrow() == Phase::Serving && shared.stats.listeners.get() > 0;
    lines.push(("listener_manager.workers_started".to_owned(), u64::from(shared.stats.table_version.get() > 0)));
    lines.push(("metrics.series_overflow".to_owned(), shared.metrics.overflow.load(Relaxed)));
    lines.push(("server.live".to_owned(), u64::from(serving)));
    lines.push(("server.total_connections".to_owned(), shared.stats.downstream_connections.get()));
    lines.push(("server.uptime".to_owned(), shared.epoch.elapsed().as_secs()));
    lines.retain(|(name, value)| {
        (!wanted.used_only || *value != 0) && wanted.names.as_ref().is_none_or(|names| names.is_match(name))
    });
    lines.sort();
    lines
}

/// One a line.
pub(crate) fn text(shared: &Shared, wanted: &Wanted) -> String {
    all(shared, wanted).into_iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// As Envoy's JSON.
pub(crate) fn json(shared: &Shared, wanted: &Wanted) -> Value {
    let stats: Vec<Value> =
        all(shared, wanted).into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    json!({ "stats": stats })
}

/// Sets every counter back to nought; what is under way keeps its gauges.
pub(crate) fn reset(shared: &Shared) {
    shared.stats.reset();
    for cluster in shared.tables.load().clusters() {
        cluster.live.stats.reset();
    }
    shared.metrics.reset();
}

/// The clusters' counters in Prometheus' format; those that have never been used are left out.
pub(crate) fn print_clusters(tables: &Tables, out: &mut String) {
    for cluster in tables.clusters() {
        if cluster.live.stats.connections_total.get() == 0 && cluster.live.stats.connect_failed.get() == 0 {
            continue;
        }
        cluster.live.stats.each(|name, value| {
            let name = name.replace('.', "_");
            out.push_str(&format!("envoy_cluster_{name}{{cluster_name=\"{}\"}} {value}\n", cluster.name));
        });
    }
}

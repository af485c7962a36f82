//! `/stats`, and the clusters' part of the Prometheus page.
//!
//! Never here: request metrics (`metrics`). Called by `admin` and `pod`.

use crate::{table::Tables, worker::Shared};

/// All counters, one a line; `filter`: a regex that names must match.
///
/// # Errors
/// The filter is no regex.
pub(crate) fn text(shared: &Shared, filter: Option<&str>) -> Result<String, regex::Error> {
    let filter = filter.map(regex::Regex::new).transpose()?;
    let mut lines: Vec<(String, u64)> = Vec::new();
    shared.stats.each(|name, value| lines.push((name.to_owned(), value)));
    for cluster in shared.tables.load().clusters() {
        cluster.live.stats.each(|name, value| lines.push((format!("cluster.{}.{name}", cluster.name), value)));
    }
    lines.push((
        "metrics.series_overflow".to_owned(),
        shared.metrics.overflow.load(std::sync::atomic::Ordering::Relaxed),
    ));
    lines.sort();
    let mut out = String::new();
    for (name, value) in lines {
        if filter.as_ref().is_none_or(|filter| filter.is_match(&name)) {
            out.push_str(&format!("{name}: {value}\n"));
        }
    }
    Ok(out)
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

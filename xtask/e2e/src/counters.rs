//! What every sidecar and gateway counts, read again and again while a test runs, so that Pods which end are heard too.
//!
//! Never here: which counts are good. Called by the suite `resilience`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{kubectl::Said, sandbox::Sandbox};

/// A Pod ends five seconds after it takes no more requests: no count is missed at this pace.
const PACE: Duration = Duration::from_millis(500);
/// Prints `POD METRIC{LABELS} VALUE` for every Pod that shows metrics.
const READ: &str = "kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}' | \
    while read pod ip; do [ -z \"$ip\" ] || curl -s -m 2 http://$ip:15020/stats/prometheus | \
    grep -E '^(istio_requests_total|envoy_cluster_upstream_rq_retry)[{]' | sed \"s|^|$pod |\"; done";

/// The last value of every counter that was ever seen, by Pod and series.
#[derive(Debug, Clone, Default)]
pub struct Counters(BTreeMap<(String, String), u64>);

impl Counters {
    /// What all Pods show now.
    ///
    /// # Errors
    /// Nothing can be read.
    pub fn read(sandbox: &Sandbox) -> Result<Self> {
        let counters = Self::of(&Said::of(&mut sandbox.command(&["shell", "-c", READ]))?.ok()?);
        ensure!(!counters.0.is_empty(), "no sidecar shows its counters");
        Ok(counters)
    }

    fn of(text: &str) -> Self {
        let one = |line: &str| {
            let (pod, rest) = line.split_once(' ')?;
            let (series, value) = rest.rsplit_once(' ')?;
            Some(((pod.to_owned(), series.to_owned()), value.parse().ok()?))
        };
        Self(text.lines().filter_map(one).collect())
    }

    /// Takes newer values in; those of Pods that are gone stay.
    fn renew(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }

    /// What was added since, where the Pod and series are wanted.
    pub fn added(&self, before: &Self, wanted: impl Fn(&str, &str) -> bool) -> Vec<(String, u64)> {
        let added = |(key, value): (&(String, String), &u64)| {
            let more = value.saturating_sub(before.0.get(key).copied().unwrap_or(0));
            (more > 0 && wanted(&key.0, &key.1)).then(|| (format!("{} {}", key.0, key.1), more))
        };
        self.0.iter().filter_map(added).collect()
    }
}

/// Reads until it is stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<Counters>>>,
}

impl Watch {
    /// Starts to read.
    pub fn start(sandbox: &Sandbox) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut shell) = (Arc::clone(&stop), sandbox.command(&["shell", "-c", READ]));
        let reader = std::thread::spawn(move || {
            let mut counters = Counters::default();
            while !stopped.load(Ordering::Relaxed) {
                counters.renew(Counters::of(&Said::of(&mut shell)?.out));
                std::thread::sleep(PACE);
            }
            Ok(counters)
        });
        Self { stop, reader: Some(reader) }
    }

    /// Ends it, and reads once more.
    ///
    /// # Errors
    /// Something could not be run.
    pub fn stop(mut self, sandbox: &Sandbox) -> Result<Counters> {
        self.stop.store(true, Ordering::Relaxed);
        let reader = self.reader.take().context("stopped before")?;
        let mut counters = reader.join().map_err(|_| anyhow::anyhow!("reading the counters panicked"))??;
        counters.renew(Counters::read(sandbox)?);
        Ok(counters)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

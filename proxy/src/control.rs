//! The control thread: takes specs, builds tables, swaps them, keeps sockets and names in step.
//!
//! A table serves from the moment of the swap; only then is what it holds acknowledged. Names of DNS clusters are
//! resolved beside, and a change of addresses makes a new table from the same spec.
//! Never here: where specs come from (`xds`, a file). Owned by the task that receives them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use api::spec::{Discovery, Spec};
use api_rt::ready::Gate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    limits::DNS_STALE,
    listen::Sockets,
    table::{
        Builder, Fault, Resolved,
        cluster::names,
        headers::{Unwritten, unwritten},
    },
    worker::Shared,
};

/// Names to resolve, with how often.
type Wanted = BTreeMap<String, Duration>;

/// Turns specs into tables that serve.
#[derive(Debug)]
pub(crate) struct Control {
    builder: Builder,
    shared: Arc<Shared>,
    sockets: Sockets,
    wanted: watch::Sender<Wanted>,
    resolved: watch::Receiver<Resolved>,
    gate: Option<Gate>,
    /// What could not be used last time, so that it is logged once.
    told: Vec<Fault>,
}

impl Control {
    pub(crate) fn new(
        builder: Builder,
        shared: Arc<Shared>,
        sockets: Sockets,
        gate: Gate,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (wanted, wants) = watch::channel(Wanted::new());
        let (found, resolved) = watch::channel(Resolved::new());
        let control = Self { builder, shared, sockets, wanted, resolved, gate: Some(gate), told: Vec::new() };
        (control, async move {
            stop.run_until_cancelled(resolve(wants, found)).await;
        })
    }

    /// Serves with this spec from now on; gives what could not be used.
    pub(crate) fn apply(&mut self, spec: &Spec) -> Vec<Fault> {
        let wanted = wanted(spec);
        self.wanted.send_if_modified(|old| {
            let changed = *old != wanted;
            *old = wanted;
            changed
        });
        let resolved = self.resolved.borrow_and_update().clone();
        let previous = self.shared.tables.load_full();
        let (tables, mut faults) = self.builder.build(spec, &resolved, &previous);
        for Unwritten { routes, rule, header, error } in unwritten(&tables.table, &previous.table) {
            tracing::warn!(routes, rule, %header, %error, "header is not written");
        }
        let tables = Arc::new(tables);
        self.shared.stats.table_version.set(tables.version);
        self.shared.stats.clusters.set(tables.clusters().count() as u64);
        self.shared.stats.listeners.set(tables.table.listeners().count() as u64);
        self.shared.tables.store(Arc::clone(&tables));
        faults.extend(self.sockets.keep_step(&tables));
        for (kind, name, reason) in faults.iter().filter(|fault| !self.told.contains(fault)) {
            tracing::warn!(?kind, name, reason, "resource cannot be used");
        }
        self.told.clone_from(&faults);
        if let Some(gate) = self.gate.take() {
            tracing::info!("first configuration serves");
            gate.open();
        }
        faults
    }

    /// Says why the first configuration has not come.
    pub(crate) fn waiting(&self, reason: &str) {
        if let Some(gate) = &self.gate {
            gate.because(format!("first configuration: {reason}"));
        }
    }

    /// Waits until names have other addresses.
    pub(crate) async fn names_changed(&mut self) {
        if self.resolved.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn wanted(spec: &Spec) -> Wanted {
    let mut wanted = Wanted::new();
    for cluster in spec.clusters.values() {
        let (localities, refresh) = match &cluster.discovery {
            Discovery::StrictDns { localities, refresh } | Discovery::LogicalDns { localities, refresh } => {
                (localities.as_slice(), *refresh)
            }
            Discovery::Static(localities) => (localities.as_slice(), Duration::ZERO),
            Discovery::Eds => {
                (spec.endpoints.get(&cluster.name).map_or(&[][..], |endpoints| &endpoints.localities), Duration::ZERO)
            }
            Discovery::OriginalDestination => continue,
        };
        let refresh = if refresh.is_zero() { Duration::from_secs(60) } else { refresh };
        for name in names(localities) {
            let known = wanted.entry(name.to_owned()).or_insert(refresh);
            *known = refresh.min(*known);
        }
    }
    wanted
}

/// Pause after a look-up that failed.
const RETRY: Duration = Duration::from_secs(5);

async fn resolve(mut wants: watch::Receiver<Wanted>, found: watch::Sender<Resolved>) {
    struct Known {
        due: tokio::time::Instant,
        good: tokio::time::Instant,
    }
    let mut known: HashMap<String, Known> = HashMap::new();
    loop {
        let wanted = wants.borrow_and_update().clone();
        known.retain(|name, _| wanted.contains_key(name));
        let now = tokio::time::Instant::now();
        let due: Vec<String> =
            wanted.keys().filter(|name| known.get(*name).is_none_or(|k| k.due <= now)).cloned().collect();
        let asked = futures::future::join_all(due.into_iter().map(|name| async move {
            let answer = tokio::net::lookup_host((name.as_str(), 0)).await;
            let answer = answer.map(|all| all.map(|address| address.ip().to_canonical()).collect::<Vec<IpAddr>>());
            (name, answer)
        }))
        .await;
        let mut changes: Vec<(String, Vec<IpAddr>)> = Vec::new();
        for (name, answer) in asked {
            let refresh = wanted.get(&name).copied().unwrap_or(RETRY);
            let now = tokio::time::Instant::now();
            match answer {
                Ok(mut addresses) => {
                    addresses.sort_unstable();
                    addresses.dedup();
                    known.insert(name.clone(), Known { due: now + refresh, good: now });
                    changes.push((name, addresses));
                }
                Err(error) => {
                    tracing::debug!(name, %error, "name not resolved");
                    let good = known.get(&name).map_or(now, |k| k.good);
                    if now.duration_since(good) > DNS_STALE {
                        changes.push((name.clone(), Vec::new()));
                    }
                    known.insert(name, Known { due: now + RETRY.min(refresh), good });
                }
            }
        }
        found.send_if_modified(|all| {
            let before = all.len();
            all.retain(|name, _| wanted.contains_key(name));
            let mut changed = all.len() != before;
            for (name, addresses) in changes {
                if all.get(&name) != Some(&addresses) {
                    all.insert(name, addresses);
                    changed = true;
                }
            }
            changed
        });
        let next = known.values().map(|k| k.due).min();
        let sleeping = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleeping => {}
            changed = wants.changed() => if changed.is_err() { return },
        }
    }
}

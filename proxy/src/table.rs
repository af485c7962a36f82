//! The compiled table that serves, and what the proxy puts beside it: pools' handles, TLS, log formats, labels.
//!
//! Built from a spec on the control thread, taking over what has not changed, and swapped whole; a request holds one
//! table from its head to its reply. What cannot be built is told, by resource, and does not stop the rest.
//! Never here: choosing rules or endpoints (`api`). Built by `xds::apply`; read by every connection.

pub(crate) mod chain;
pub(crate) mod cluster;
pub(crate) mod headers;
pub(crate) mod secrets;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use api::{
    note::Severity,
    spec::{ResourceKind, Spec},
    table::{ClusterId, Table},
};
use api_rt::identity::Identity;

use crate::{metrics::Metrics, upstream::live::Live};
pub(crate) use chain::ChainExtra;
pub(crate) use cluster::Cluster;
use secrets::SecretStore;

/// Addresses of names, as far as they are known.
pub(crate) type Resolved = HashMap<String, Vec<IpAddr>>;

/// A resource that cannot be used, and why.
pub(crate) type Fault = (ResourceKind, String, String);

/// Everything that serves.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Grows with every swap; 0: nothing has come yet.
    pub(crate) version: u64,
    pub(crate) table: Table,
    clusters: Vec<Option<Arc<Cluster>>>,
    /// By the address of the chain that it belongs to.
    chains: HashMap<usize, Arc<ChainExtra>>,
}

impl Tables {
    /// The cluster at a place.
    pub(crate) fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(id.index()).and_then(Option::as_ref)
    }

    /// All clusters.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter().flatten()
    }

    /// What belongs to a chain of this table.
    pub(crate) fn extra(&self, chain: &Arc<api::table::Chain>) -> Option<&Arc<ChainExtra>> {
        self.chains.get(&Arc::as_ptr(chain).addr())
    }
}

/// Builds tables.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) identity: Identity,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) live: Arc<Live>,
    pub(crate) secrets: SecretStore,
}

impl Builder {
    /// Compiles a spec; gives the table and what could not be used.
    pub(crate) fn build(&mut self, spec: &Spec, resolved: &Resolved, previous: &Tables) -> (Tables, Vec<Fault>) {
        let (table, notes) = Table::compile(spec, Some(&previous.table));
        let mut faults: Vec<Fault> = notes
            .iter()
            .filter(|note| note.severity == Severity::Error)
            .filter_map(|note| {
                let kind = match note.object.kind.as_str() {
                    "Listener" => ResourceKind::Listener,
                    "RouteConfiguration" => ResourceKind::Routes,
                    "Cluster" => ResourceKind::Cluster,
                    _ => return None,
                };
                Some((kind, note.object.name.clone(), format!("{}: {}", note.path, note.text)))
            })
            .collect();
        self.secrets.update(&spec.secrets, &mut |name, reason| faults.push((ResourceKind::Secret, name, reason)));

        let mut clusters = vec![None; table.cluster_places()];
        for (id, compiled) in table.clusters() {
            let old = previous.cluster(id);
            let cluster = match old.filter(|old| old.still(compiled, resolved)) {
                Some(old) => Arc::clone(old),
                None => {
                    let before = old.map(Arc::as_ref);
                    let (cluster, fault) = Cluster::build(compiled, resolved, self, before);
                    if let Some(reason) = fault {
                        faults.push((ResourceKind::Cluster, compiled.spec.name.clone(), reason));
                    }
                    Arc::new(cluster)
                }
            };
            if let Some(place) = clusters.get_mut(id.index()) {
                *place = Some(cluster);
            }
        }
        let mut chains = HashMap::new();
        for chain in table.listeners().flat_map(|listener| listener.chains()) {
            let key = Arc::as_ptr(chain).addr();
            // A chain that was taken over is the same allocation: what belongs to it still fits.
            let kept = previous
                .table
                .listener(chain.listener_name())
                .and_then(|old| old.chains().find(|old| Arc::ptr_eq(old, chain)).and_then(|old| previous.extra(old)));
            let extra = match kept {
                Some(kept) => Arc::clone(kept),
                None => match ChainExtra::build(chain, self) {
                    Ok(extra) => Arc::new(extra),
                    Err(reason) => {
                        let text = format!("filter_chains[{}]: {reason}", chain.name());
                        faults.push((ResourceKind::Listener, chain.listener_name().to_owned(), text));
                        continue;
                    }
                },
            };
            chains.insert(key, extra);
        }
        let tables = Tables { version: previous.version + 1, table, clusters, chains };
        self.forget(&tables);
        (tables, faults)
    }

    /// Lets go of what no table names any more.
    fn forget(&self, tables: &Tables) {
        self.live.keep_only(|name| tables.table.cluster_id(name).is_some());
        for cluster in tables.clusters() {
            cluster.forget_others();
        }
    }
}

//! What a sidecar and a gateway are told, in all the shapes that the spec knows.
//!
//! Written out by hand, so that every field that is encoded is seen by a real Envoy at least once.
//! Never here: expectations. Used by the test of this folder.

mod clusters;
mod listeners;
mod routes;

use std::{net::SocketAddr, sync::Arc};

use api::{note::ObjectRef, spec::*};

use clusters::{clusters, endpoints};
use listeners::listeners;
use routes::table;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn origin(kind: &str) -> Option<Origin> {
    Some(Origin { object: ObjectRef::new(kind, "shop", "reviews"), path: "spec.http[0]".to_owned() })
}

fn way(cluster: &str, weight: u32) -> WeightedCluster {
    WeightedCluster { cluster: cluster.to_owned(), weight, headers: HeaderChanges::default() }
}

/// Everything, but for secrets.
pub(crate) fn resources() -> Vec<Resource> {
    let tables = ["9080", "https.443.shop"].map(table);
    clusters()
        .into_iter()
        .map(|cluster| Resource::Cluster(Arc::new(cluster)))
        .chain(endpoints().into_iter().map(|endpoints| Resource::Endpoints(Arc::new(endpoints))))
        .chain(listeners().into_iter().map(|listener| Resource::Listener(Arc::new(listener))))
        .chain(tables.into_iter().map(|table| Resource::Routes(Arc::new(table))))
        .collect()
}

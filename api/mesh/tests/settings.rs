//! What pilot's own settings change in what every proxy is told.
//!
//! Never here: MeshConfig (`rules.rs`). Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::spec::{Network, Node, ProxyKind};
use api_mesh::{
    mesh,
    model::{Catalog, Settings},
};
use support::{node, objects};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 198.19.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {selector: {app: a}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
";

/// Whether HTTP/1.0 is served, for each place where a proxy of this kind reads requests.
fn served(kind: ProxyKind, http10: bool) -> Vec<bool> {
    let mut catalog = Catalog::new(Settings { http10, ..Settings::default() });
    for object in objects(OBJECTS) {
        catalog.apply(&object);
    }
    let node: Node = node(kind, "a", "default", "198.18.0.9", &[("app", "a")]);
    let spec = mesh::spec(&mesh::resolve(&catalog).0, &node);
    let chains = spec.listeners.values().flat_map(|listener| &listener.chains);
    chains
        .filter_map(|chain| match &chain.network {
            Network::Http(server) => Some(server.http10),
            Network::Tcp(_) => None,
        })
        .collect()
}

#[test]
fn http_1_0_is_served_everywhere_or_nowhere() {
    for kind in [ProxyKind::Sidecar, ProxyKind::Gateway] {
        for http10 in [true, false] {
            let served = served(kind, http10);
            assert!(!served.is_empty() && served.iter().all(|it| *it == http10), "{kind:?}: {served:?}");
        }
    }
}

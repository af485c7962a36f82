//! Specs for tests, made of few words.
//!
//! Each function gives a whole, valid resource; a test names only what it is about.
//! Never here: expectations. Used by `exchange` and `mesh`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::spec::*;

pub(super) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address: Address::Socket(address), weight: 1, health: Health::Healthy, mtls: false, workload: None }
}

pub(super) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = addresses.iter().map(|address| endpoint(*address)).collect();
    Cluster {
        name: name.into(),
        discovery: Discovery::Static(vec![Locality { endpoints, ..Locality::default() }]),
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        breakers: Breakers::default(),
        outlier: None,
        tls: UpstreamTls::Off,
        http: UpstreamHttp { version: UpstreamVersion::Downstream, ..UpstreamHttp::default() },
        bind_source: None,
        keepalive: None,
        proxy_header: None,
        service: None,
        origin: None,
    }
}

pub(super) fn forward(cluster: &str) -> Forward {
    Forward {
        clusters: vec![WeightedCluster { cluster: cluster.into(), weight: 1, headers: HeaderChanges::default() }],
        timeout: None,
        retry: None,
        path: None,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: 64 * 1024,
    }
}

/// The policy that Istio gives every route.
pub(super) fn retry() -> Retry {
    Retry {
        attempts: 2,
        on: ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"]
            .map(str::to_owned)
            .to_vec(),
        statuses: Vec::new(),
        per_try_timeout: None,
        backoff: Duration::from_millis(1),
        avoid_previous: true,
    }
}

pub(super) fn route(action: Action) -> Route {
    Route {
        name: "rule".into(),
        matches: RouteMatch::default(),
        action,
        headers: HeaderChanges::default(),
        fault: None,
        operation: String::new(),
        origin: None,
    }
}

pub(super) fn table(routes: Vec<Route>) -> RouteTable {
    let host = VirtualHost { name: "any".into(), domains: vec!["*".into()], routes };
    RouteTable { name: "r".into(), virtual_hosts: vec![Arc::new(host)], ignore_port: true, hosts_apart: false }
}

pub(super) fn server(routes: Vec<Route>) -> HttpServer {
    HttpServer {
        stat_prefix: "test".into(),
        routes: RoutesRef::Inline(Arc::new(table(routes))),
        codec: Codec::Auto,
        http10: false,
        client_cert: ClientCertHeader::Sanitize,
        edge: false,
        upgrades: true,
        authorization: Vec::new(),
        access_log: None,
        normalize: PathNormalization::Base,
        idle_timeout: Duration::ZERO,
        metrics: true,
    }
}

pub(super) fn chain(network: Network) -> FilterChain {
    FilterChain { name: "chain".into(), matches: ChainMatch::default(), tls: None, network }
}

pub(super) fn listener(chain: FilterChain) -> Listener {
    Listener {
        name: "l".into(),
        address: SocketAddr::from(([0, 0, 0, 0], 80)),
        direction: Direction::Outbound,
        bind: true,
        use_original_destination: false,
        detect: Detect { tls: true, http: true, timeout: Duration::from_secs(5), ..Detect::default() },
        chains: vec![chain],
        default_chain: None,
        origin: None,
    }
}

pub(super) fn spec(listener: Listener, clusters: Vec<Cluster>) -> Spec {
    Spec {
        clusters: clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))).collect(),
        listeners: [(listener.name.clone(), Arc::new(listener))].into(),
        ..Spec::default()
    }
}

/// Routes in front of clusters.
pub(super) fn http(routes: Vec<Route>, clusters: Vec<Cluster>) -> Spec {
    spec(listener(chain(Network::Http(Box::new(server(routes))))), clusters)
}

/// Everything to one cluster with Istio's retries.
pub(super) fn to(addresses: &[SocketAddr]) -> Spec {
    let action = Action::Forward(Box::new(Forward { retry: Some(retry()), ..forward("c") }));
    http(vec![route(action)], vec![cluster("c", addresses)])
}

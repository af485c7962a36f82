//! Our proxy's instructions for one hop: what pilot makes of Bookinfo, moved to the addresses of the bench.
//!
//! Only addresses differ from production: the listener that would take captured connections is bound itself, and
//! endpoints are the next hop. Table sizes and authorization rules are added to the built spec.
//! Never here: a shortcut that production does not have. Called by `rig`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use api::spec::{
    Action, Address, Authorization, AuthorizationAction, AuthorizationClause, AuthorizationRule, Balance, Cluster,
    Discovery, Endpoint, Forward, HeaderChanges, Health, Listener, Locality, Network, Node, PathMatch, ProxyKind,
    Route, RouteMatch, RouteTable, SourceTest, Spec, VirtualHost, WeightedCluster,
};
use api_mesh::{
    mesh,
    model::{Catalog, Settings},
    object::{Strictness, from_json},
};

use super::{
    certificates::{CLIENT, SERVER},
    shape::{Hop, Side, Size},
};

const MESH: &str = include_str!("bookinfo.yaml");

/// The port of `reviews` that carries this traffic.
fn port(hop: &Hop) -> u16 {
    match (hop.inward, hop.outward) {
        (Side::Bytes, _) | (_, Side::Bytes) => 9082,
        (Side::Tls, Side::Http2) => 9081,
        _ => 9080,
    }
}

fn spec(serving: bool, log: &str) -> Result<Spec> {
    let mut catalog = Catalog::new(Settings::default());
    let text = MESH.replace("ACCESS_LOG", log).replace("MODE", "STRICT");
    for document in text.split("\n---\n") {
        let (stored, _) = from_json(serde_saphyr::from_str(document)?, Strictness::Report)?;
        catalog.apply(&stored);
    }
    let (mesh, _) = mesh::resolve(&catalog);
    let (account, address) = if serving { (SERVER, "198.18.0.13") } else { (CLIENT, "198.18.0.10") };
    let labels = [("app", account), ("version", "v1")];
    let node = Node {
        kind: ProxyKind::Sidecar,
        id: format!("sidecar~{address}~{account}-v1.default~default.svc.cluster.local"),
        name: format!("{account}-v1"),
        namespace: "default".to_owned(),
        service_account: account.to_owned(),
        address: address.parse()?,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        workload: format!("{account}-v1"),
        on_demand_hosts: false,
        ours: true,
        proxy_header: false,
        proxyless: false,
    };
    Ok(mesh::spec(&mesh, &node))
}

/// Points every endpoint of a cluster to one address.
fn move_endpoints(localities: &mut [Locality], to: SocketAddr, mtls: bool) {
    for endpoint in localities.iter_mut().flat_map(|locality| &mut locality.endpoints) {
        endpoint.address = Address::Socket(to);
        endpoint.mtls = mtls;
    }
}

/// The calling side: the outbound listener of the service's port, endpoints at the next hop.
fn calling(hop: &Hop, size: Size, grpc: bool, log: &str) -> Result<Spec> {
    let mut spec = spec(false, log)?;
    let port = if grpc { 9081 } else { port(hop) };
    let name = spec
        .listeners
        .keys()
        .find(|name| name.ends_with(&format!("_{port}")))
        .with_context(|| format!("no outbound listener for port {port}"))?
        .clone();
    let mut listener = Listener::clone(&spec.listeners[&name]);
    listener.address = hop.listen;
    listener.bind = true;
    // The client of the bench connects to the proxy, not to the service's address.
    for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
        chain.matches.destination_ranges.clear();
        chain.matches.destination_port = None;
    }
    spec.listeners = BTreeMap::from([(name, Arc::new(listener))]);
    for endpoints in spec.endpoints.values_mut() {
        move_endpoints(&mut Arc::make_mut(endpoints).localities, hop.upstream, hop.outward == Side::Tls);
    }
    add_routes(&mut spec, port, size)?;
    Ok(spec)
}

fn route(prefix: String, cluster: String) -> Route {
    let to = WeightedCluster { cluster, weight: 100, headers: HeaderChanges::default() };
    Route {
        name: prefix.clone(),
        matches: RouteMatch { path: PathMatch::Prefix(prefix), ..RouteMatch::default() },
        action: Action::Forward(Box::new(Forward {
            clusters: vec![to],
            timeout: None,
            retry: None,
            path: None,
            authority: None,
            mirrors: Vec::new(),
            retry_buffer_bytes: 64 * 1024,
        })),
        headers: HeaderChanges::default(),
        fault: None,
        operation: String::new(),
        origin: None,
    }
}

fn add_routes(spec: &mut Spec, port: u16, size: Size) -> Result<()> {
    if size.routes == 0 && size.hosts == 0 {
        return Ok(());
    }
    let table = spec.routes.get_mut(&port.to_string()).context("no route table of that port")?;
    let table: &mut RouteTable = Arc::make_mut(table);
    let reviews = table.virtual_hosts.iter_mut().find(|host| host.domains.iter().any(|name| name == "reviews"));
    let reviews = Arc::make_mut(reviews.context("no virtual host for reviews")?);
    let cluster = format!("outbound|{port}||reviews.default.svc.cluster.local");
    let more = size.routes.saturating_sub(reviews.routes.len());
    let before = (0..more).map(|number| route(format!("/catalogue/part-{number}/"), cluster.clone()));
    reviews.routes.splice(0..0, before);
    let pattern = spec.clusters.get(&cluster).context("no cluster for reviews")?;
    let mut clusters = Vec::new();
    for number in 0..size.hosts {
        let short = format!("service-{number}");
        let host = format!("{short}.default.svc.cluster.local");
        let name = format!("outbound|{port}||{host}");
        let domains = vec![host, short.clone(), format!("{short}.default.svc"), format!("{short}.default")];
        clusters.push(Arc::new(Cluster { name: name.clone(), ..Cluster::clone(pattern) }));
        let routes = vec![route("/".to_owned(), name)];
        table.virtual_hosts.push(Arc::new(VirtualHost { name: format!("{short}:{port}"), domains, routes }));
    }
    spec.clusters.extend(clusters.into_iter().map(|cluster| (cluster.name.clone(), cluster)));
    Ok(())
}

/// The serving side: the inbound listener, with the application behind.
fn serving(hop: &Hop, size: Size, log: &str) -> Result<Spec> {
    let mut spec = spec(true, log)?;
    let port = port(hop);
    let (name, listener) = spec.listeners.remove_entry("virtualInbound").context("no inbound listener")?;
    let mut listener = Listener::clone(&listener);
    listener.address = hop.listen;
    listener.chains.retain(|chain| chain.matches.destination_port == Some(port));
    ensure!(!listener.chains.is_empty(), "no inbound chain for port {port}");
    for chain in &mut listener.chains {
        chain.matches.destination_port = Some(hop.listen.port());
        let Network::Http(server) = &mut chain.network else { bail!("{} carries no requests", chain.name) };
        server.authorization = vec![authorization(size.rules)];
    }
    spec.listeners = BTreeMap::from([(name, Arc::new(listener))]);
    let name = format!("inbound|{port}||");
    let cluster = Arc::make_mut(spec.clusters.get_mut(&name).context("no inbound cluster")?);
    let endpoint = Endpoint {
        address: Address::Socket(hop.upstream),
        weight: 1,
        health: Health::Healthy,
        mtls: false,
        workload: None,
    };
    cluster.discovery = Discovery::Static(vec![Locality { endpoints: vec![endpoint], ..Locality::default() }]);
    cluster.balance = Balance::LeastRequest;
    cluster.bind_source = None;
    Ok(spec)
}

/// Lets the caller in by the last of its rules.
fn authorization(more: usize) -> Authorization {
    let rule = |account: String| AuthorizationRule {
        name: format!("ns[default]-policy[{account}]-rule[0]"),
        from: vec![vec![AuthorizationClause::is(SourceTest::Principals(vec![format!(
            "cluster.local/ns/default/sa/{account}"
        )]))]],
        to: Vec::new(),
        origin: None,
    };
    let mut rules: Vec<_> = (0..more).map(|number| rule(format!("other-{number}"))).collect();
    rules.push(rule(CLIENT.to_owned()));
    Authorization { action: AuthorizationAction::Allow, rules }
}

/// The instructions of one hop.
pub(super) fn instructions(hop: &Hop, size: Size, grpc: bool, log: &str) -> Result<Spec> {
    if hop.inward == Side::Tls { serving(hop, size, log) } else { calling(hop, size, grpc, log) }
}

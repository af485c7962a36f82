//! Builds the listeners of a sidecar's outbound side (and of gRPC programs).
//!
//! `virtualOutbound` takes all captured connections; behind it stand one listener for each port of HTTP services, and one
//! for each address and port of the others.
//! Never here: routes, clusters, the inbound side. Called by `build`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use api::{
    name::Host,
    spec::{
        ChainMatch, ClientCertHeader, Codec, Detect, Direction, FilterChain, HeaderChanges, HttpServer, Listener,
        Network, RoutesRef, TcpServer, Transport, WeightedCluster,
    },
};

use super::{
    Mesh, cluster,
    http_route::{self, Client},
    key::{ClientKind, Scope},
    routes::{service_table_name, shares_port_table},
};
use crate::model::{GatewayRef, OutboundPolicy, Protocol, Service, ServiceId, ServicePort, Shared, VirtualService};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long a connection without requests stays.
pub(crate) const HTTP_IDLE: Duration = Duration::from_secs(3600);
/// How long a silent TCP connection stays.
pub(crate) const TCP_IDLE: Duration = Duration::from_secs(3600);

/// Plaintext HTTP as detection names it.
pub(crate) fn plaintext_http() -> Vec<String> {
    ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec()
}

/// Passes bytes on to one cluster.
pub(crate) fn tcp_to(mesh: &Mesh, stat_prefix: &str, cluster: &str) -> Network {
    tcp(
        mesh,
        stat_prefix,
        vec![WeightedCluster { cluster: cluster.to_owned(), weight: 1, headers: HeaderChanges::default() }],
    )
}

pub(crate) fn tcp(mesh: &Mesh, stat_prefix: &str, clusters: Vec<WeightedCluster>) -> Network {
    Network::Tcp(Box::new(TcpServer {
        stat_prefix: stat_prefix.to_owned(),
        clusters,
        authorization: Vec::new(),
        access_log: mesh.config.access_log.clone(),
        idle_timeout: TCP_IDLE,
        max_duration: Duration::ZERO,
        metrics: true,
    }))
}

/// Reads requests with the routes of a table.
pub(crate) fn http(mesh: &Mesh, stat_prefix: &str, routes: RoutesRef) -> HttpServer {
    HttpServer {
        stat_prefix: stat_prefix.to_owned(),
        routes,
        codec: Codec::Auto,
        http10: mesh.settings.http10,
        client_cert: ClientCertHeader::Sanitize,
        edge: false,
        upgrades: true,
        authorization: Vec::new(),
        access_log: mesh.config.access_log.clone(),
        normalize: mesh.config.normalization,
        idle_timeout: HTTP_IDLE,
        metrics: true,
    }
}

/// Where connections to what nobody knows go.
fn rest(mesh: &Mesh) -> &'static str {
    match mesh.config.outbound {
        OutboundPolicy::AllowAny => "PassthroughCluster",
        OutboundPolicy::RegistryOnly => "BlackHoleCluster",
    }
}

fn outbound_listener(name: &str, address: IpAddr, port: u16, detect: Detect) -> Listener {
    Listener {
        name: name.to_owned(),
        address: SocketAddr::new(address, port),
        direction: Direction::Outbound,
        bind: false,
        use_original_destination: false,
        detect,
        chains: Vec::new(),
        default_chain: None,
        origin: None,
    }
}

pub(crate) fn virtual_outbound(mesh: &Mesh) -> Listener {
    let port = mesh.config.outbound_port;
    let chain = |name: &str, port: Option<u16>, cluster: &str| FilterChain {
        name: name.to_owned(),
        matches: ChainMatch { destination_port: port, ..ChainMatch::default() },
        tls: None,
        network: tcp_to(mesh, cluster, cluster),
    };
    let catchall = match mesh.config.outbound {
        OutboundPolicy::AllowAny => "virtualOutbound-catchall-tcp",
        OutboundPolicy::RegistryOnly => "virtualOutbound-blackhole",
    };
    Listener {
        bind: true,
        use_original_destination: true,
        // connections to the port itself would come back for ever
        chains: vec![chain("virtualOutbound-trap", Some(port), "BlackHoleCluster"), chain(catchall, None, rest(mesh))],
        ..outbound_listener("virtualOutbound", ANY, port, Detect::default())
    }
}

// ------------------------------------------------------------------------------------------------- connections to a port

/// Services of a port that have no address of their own, or share the port's table.
fn wildcard_services<'m>(
    mesh: &'m Mesh,
    scope: &'m Scope,
    number: u16,
) -> impl Iterator<Item = (&'m Shared<Service>, &'m ServicePort)> {
    mesh.services.on_port(number, &scope.namespace).filter_map(move |service| {
        let port = service.port(number)?;
        (shares_port_table(service, port) || service.vip().is_none()).then_some((service, port))
    })
}

pub(crate) fn wildcard_version(mesh: &Mesh, scope: &Scope, port: u16) -> u64 {
    let mut hash = DefaultHasher::new();
    for (service, _) in wildcard_services(mesh, scope, port) {
        service_inputs(mesh, scope, service, &mut hash);
    }
    mesh.config.version().hash(&mut hash);
    hash.finish()
}

fn service_inputs(mesh: &Mesh, scope: &Scope, service: &Shared<Service>, hash: &mut DefaultHasher) {
    service.version().hash(hash);
    let routing = mesh
        .routing
        .for_host(&service.id.host, &scope.namespace)
        .filter(|routing| !(routing.tcp.is_empty() && routing.tls.is_empty()));
    routing.map(Shared::version).hash(hash);
    if let Some(routing) = routing {
        http_route::destinations_version(mesh, routing, scope, hash);
    }
    let rule = mesh.rules.find(scope, &mesh.root, service).and_then(|name| mesh.rules.get(name));
    rule.map(Shared::version).hash(hash);
}

pub(crate) fn wildcard(mesh: &Mesh, scope: &Scope, port: u16, name: &str) -> Listener {
    let mut http_seen = false;
    let mut tls_seen = false;
    let mut chains = Vec::new();
    let mut fallback = None;
    for (service, service_port) in wildcard_services(mesh, scope, port) {
        if shares_port_table(service, service_port) {
            http_seen = true;
        }
        if service_port.protocol.is_http() {
            continue;
        }
        let found = tcp_chains(mesh, scope, service, service_port);
        if !service.addresses.is_empty() && service.vip().is_none() {
            tls_seen |= found.iter().any(|chain| chain.matches.transport.is_some());
            // a range of addresses: told apart by destination
            chains.extend(found.into_iter().map(|mut chain| {
                if chain.matches.destination_ranges.is_empty() {
                    chain.matches.destination_ranges.clone_from(&service.addresses);
                }
                chain
            }));
        } else if service_port.protocol.is_tls() && !service.is_headless() {
            tls_seen = true;
            chains.extend(found.into_iter().map(|mut chain| {
                if chain.matches.transport.is_none() {
                    chain.matches.server_names = vec![service.id.host.to_string()];
                    chain.matches.transport = Some(Transport::Tls);
                }
                chain
            }));
        } else {
            for chain in found {
                if chain.matches.transport.is_some() {
                    tls_seen = true;
                    chains.push(chain);
                } else if fallback.is_none() && chain.matches == ChainMatch::default() {
                    fallback = Some(chain);
                }
            }
        }
    }
    if http_seen {
        let stat_prefix = format!("outbound_0.0.0.0_{port}");
        chains.push(FilterChain {
            name: format!("{name}-http"),
            matches: ChainMatch {
                transport: Some(Transport::Raw),
                application_protocols: plaintext_http(),
                ..ChainMatch::default()
            },
            tls: None,
            network: Network::Http(Box::new(http(mesh, &stat_prefix, RoutesRef::Named(port.to_string())))),
        });
    }
    one_of_each(&mut chains);
    let fallback = fallback.unwrap_or_else(|| FilterChain {
        name: "PassthroughFilterChain".to_owned(),
        matches: ChainMatch::default(),
        tls: None,
        network: tcp_to(mesh, rest(mesh), rest(mesh)),
    });
    let detect = Detect {
        tls: http_seen || tls_seen,
        http: http_seen,
        timeout: mesh.config.detection_timeout,
        ..Detect::default()
    };
    Listener { chains, default_chain: Some(fallback), ..outbound_listener(name, ANY, port, detect) }
}

/// Two chains that match the same would make the listener invalid: the first one counts.
fn one_of_each(chains: &mut Vec<FilterChain>) {
    let mut seen = std::collections::HashSet::new();
    chains.retain(|chain| seen.insert(chain.matches.clone()));
}

/// TLS for one of these names.
pub(crate) fn by_name(names: &[Host]) -> ChainMatch {
    let every = names.iter().any(|name| name.as_str() == "*");
    ChainMatch {
        transport: Some(Transport::Tls),
        server_names: if every { Vec::new() } else { names.iter().map(ToString::to_string).collect() },
        ..ChainMatch::default()
    }
}

/// Chains for connections to a service: those of its VirtualService, else one to its cluster.
fn tcp_chains(mesh: &Mesh, scope: &Scope, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
    let host = &service.id.host;
    let own = cluster::name_of(port.number, "", host);
    let pool = mesh
        .rules
        .find(scope, &mesh.root, service)
        .and_then(|name| mesh.rules.get(name))
        .and_then(|rule| rule.blocks(port.number, None).pool)
        .unwrap_or_default();
    let chain = |name: String, matches: ChainMatch, clusters: Vec<WeightedCluster>| {
        let mut network = tcp(mesh, &own, clusters);
        if let Network::Tcp(server) = &mut network {
            server.idle_timeout = pool.tcp_idle.unwrap_or(server.idle_timeout);
            server.max_duration = pool.tcp_longest.unwrap_or(server.max_duration);
        }
        FilterChain { name, matches, tls: None, network }
    };
    let mut chains = Vec::new();
    if let Some(routing) = mesh.routing.for_host(host, &scope.namespace) {
        let client = Client { scope, gateways: &[GatewayRef::Mesh], port: port.number };
        for rule in &routing.tls {
            let clusters = || http_route::clusters(mesh, routing, &rule.destinations, &client);
            for (at, m) in rule.matches.iter().enumerate().filter(|(_, m)| client.takes(&m.client, routing)) {
                let matches = ChainMatch { destination_ranges: m.destinations.clone(), ..by_name(&m.server_names) };
                chains.push(chain(format!("{own}-tls-{}-{at}", rule.index), matches, clusters()));
            }
        }
        for rule in &routing.tcp {
            let all = rule.matches.is_empty() && routing.gateways.contains(&GatewayRef::Mesh);
            let taken: Vec<_> = rule.matches.iter().filter(|m| client.takes(&m.client, routing)).collect();
            if !all && taken.is_empty() {
                continue;
            }
            let clusters = http_route::clusters(mesh, routing, &rule.destinations, &client);
            let everywhere = all || taken.iter().any(|m| m.destinations.is_empty());
            let ranges = if everywhere {
                Vec::new()
            } else {
                taken.iter().flat_map(|m| m.destinations.iter().copied()).collect()
            };
            let matches = ChainMatch { destination_ranges: ranges, ..ChainMatch::default() };
            chains.push(chain(format!("{own}-{}", rule.index), matches, clusters));
            if everywhere {
                return chains;
            }
        }
    }
    let whole = vec![WeightedCluster { cluster: own.clone(), weight: 1, headers: HeaderChanges::default() }];
    chains.push(chain(own.clone(), ChainMatch::default(), whole));
    chains
}

// -------------------------------------------------------------------------------------------- connections to an address

pub(crate) fn service_version(mesh: &Mesh, scope: &Scope, id: &ServiceId) -> u64 {
    let mut hash = DefaultHasher::new();
    if let Some(service) = mesh.services.get(id) {
        service_inputs(mesh, scope, service, &mut hash);
    }
    mesh.config.version().hash(&mut hash);
    hash.finish()
}

pub(crate) fn service(
    mesh: &Mesh,
    scope: &Scope,
    id: &ServiceId,
    address: IpAddr,
    number: u16,
    name: &str,
) -> Option<Listener> {
    let service = mesh.services.get(id)?;
    let port = service.port(number)?;
    let auto = port.protocol == Protocol::Auto;
    let found = tcp_chains(mesh, scope, service, port);
    let by_name = found.iter().any(|chain| chain.matches.transport.is_some());
    let detect =
        Detect { tls: auto || by_name, http: auto, timeout: mesh.config.detection_timeout, ..Detect::default() };
    let mut listener = outbound_listener(name, address, number, detect);
    if auto {
        let stat_prefix = format!("outbound_{address}_{number}");
        let table = service_table_name(ClientKind::Sidecar, &id.host, number);
        listener.chains.push(FilterChain {
            name: format!("{name}-http"),
            matches: ChainMatch {
                transport: Some(Transport::Raw),
                application_protocols: plaintext_http(),
                ..ChainMatch::default()
            },
            tls: None,
            network: Network::Http(Box::new(http(mesh, &stat_prefix, RoutesRef::Named(table)))),
        });
    }
    for chain in found {
        if chain.matches == ChainMatch::default() {
            listener.default_chain = Some(chain);
        } else {
            listener.chains.push(chain);
        }
    }
    one_of_each(&mut listener.chains);
    Some(listener)
}

/// What a gRPC program asks for by the address it was given.
pub(crate) fn api(mesh: &Mesh, id: &ServiceId, number: u16, name: &str) -> Option<Listener> {
    mesh.services.get(id)?.port(number)?;
    let table = service_table_name(ClientKind::Proxyless, &id.host, number);
    let mut listener = outbound_listener(name, ANY, number, Detect::default());
    listener.chains.push(FilterChain {
        name: name.to_owned(),
        matches: ChainMatch::default(),
        tls: None,
        network: Network::Http(Box::new(http(mesh, &table, RoutesRef::Named(table.clone())))),
    });
    Some(listener)
}

/// The VirtualService's rules for connections; used by gateways too.
pub(crate) fn tcp_rule_clusters(
    mesh: &Mesh,
    routing: &VirtualService,
    client: &Client<'_>,
) -> Option<Vec<WeightedCluster>> {
    let rule = routing.tcp.iter().find(|rule| {
        (rule.matches.is_empty() && routing.gateways.iter().any(|gateway| client.gateways.contains(gateway)))
            || rule.matches.iter().any(|m| client.takes(&m.client, routing))
    })?;
    Some(http_route::clusters(mesh, routing, &rule.destinations, client))
}

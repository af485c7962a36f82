//! Builds the listeners of gateways; `routes` their tables.
//!
//! All Gateways that select a workload are merged, oldest first; a port belongs to the protocol that claims it first.
//! Never here: which Gateways select it (`view`). Called by `build` and `view`.

mod routes;

pub(crate) use routes::table;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use api::{
    name::Host,
    note::ObjectRef,
    spec::{
        CertificateRef, ChainMatch, ClientCertHeader, Codec, Detect, Direction, FilterChain, Listener, Network, Origin,
        RootsRef, RoutesRef, ServerTls,
    },
};

use super::{
    Mesh, authorization,
    http_route::{self, Client},
    inbound::mesh_tls,
    key::{GatewayTable, Selection},
    outbound::{by_name, http, tcp, tcp_rule_clusters},
};
use crate::model::{
    Gateway, GatewayRef, Protocol, Server, ServerCertificate, ServerClients, ServerHost, ServerMode, Shared, TlsSecret,
    VirtualService,
};

/// How long a ClientHello is waited for; who sends none is sent away.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// What a port is used for; one use a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Requests, told apart by host.
    Requests,
    /// TLS, told apart by server name.
    Tls,
    /// Bytes.
    Bytes,
}

impl Use {
    pub(crate) fn of(server: &Server) -> Self {
        if server.protocol.is_tls() {
            Self::Tls
        } else if server.protocol.is_http() {
            Self::Requests
        } else {
            Self::Bytes
        }
    }
}

/// The servers of one address and port.
pub(crate) struct PortServers<'m> {
    pub(crate) used: Use,
    pub(crate) servers: Vec<(&'m Shared<Gateway>, &'m Server)>,
}

/// The Gateways of a selection, oldest first.
fn gateways<'m>(mesh: &'m Mesh, selection: &Selection) -> Vec<&'m Shared<Gateway>> {
    mesh.gateways.iter().filter(|gateway| selection.gateways.contains(&gateway.meta.object)).collect()
}

/// All servers of a selection by address and port of the workload; those that would change a port's use are left out.
pub(crate) fn merged<'m>(mesh: &'m Mesh, selection: &Selection) -> BTreeMap<(Option<IpAddr>, u16), PortServers<'m>> {
    let mut ports: BTreeMap<(Option<IpAddr>, u16), PortServers<'m>> = BTreeMap::new();
    for gateway in gateways(mesh, selection) {
        for server in &gateway.servers {
            let mapped = selection.ports.get(&server.port).into_iter().flatten().copied();
            let unmapped = (!selection.ports.contains_key(&server.port)).then_some(server.port);
            for port in mapped.chain(unmapped) {
                let used = Use::of(server);
                let at = ports.entry((server.bind, port)).or_insert_with(|| PortServers { used, servers: Vec::new() });
                if at.used == used {
                    at.servers.push((gateway, server));
                }
            }
        }
    }
    ports
}

/// Name of a gateway's listener.
pub(crate) fn listener_name(bind: Option<IpAddr>, port: u16) -> String {
    format!("{}_{port}", bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// Name of a gateway's route table.
pub(crate) fn table_name(mesh: &Mesh, table: &GatewayTable) -> Option<String> {
    Some(match table {
        GatewayTable::Http(None, port) => format!("http.{port}"),
        GatewayTable::Http(Some(bind), port) => format!("http.{port}.{bind}"),
        GatewayTable::Https(object, index) => {
            let gateway = mesh.gateways.iter().find(|gateway| gateway.meta.object == *object)?;
            https_name(gateway, gateway.servers.iter().find(|server| server.index == *index)?)
        }
    })
}

fn https_name(gateway: &Gateway, server: &Server) -> String {
    let object = &gateway.meta.object;
    format!("https.{}.{}.{}.{}", server.port, server.port_name, object.name, object.namespace)
}

fn reference(gateway: &Gateway) -> GatewayRef {
    GatewayRef::Named { namespace: gateway.meta.object.namespace.clone(), name: gateway.meta.object.name.clone() }
}

/// VirtualServices for a Gateway that the proxy's namespace sees, oldest first.
fn bound<'m>(
    mesh: &'m Mesh,
    selection: &'m Selection,
    gateway: GatewayRef,
) -> impl Iterator<Item = &'m Shared<VirtualService>> {
    let namespace = &*selection.scope.namespace;
    mesh.routing.iter().filter(move |service| service.serves(&gateway) && mesh.routing.sees(service, namespace))
}

/// Version of everything about a selection's Gateways and their VirtualServices.
pub(crate) fn version(mesh: &Mesh, selection: &Selection) -> u64 {
    let mut hash = DefaultHasher::new();
    for gateway in gateways(mesh, selection) {
        gateway.version().hash(&mut hash);
        for service in bound(mesh, selection, reference(gateway)) {
            service.version().hash(&mut hash);
            http_route::destinations_version(mesh, service, &selection.scope, &mut hash);
        }
    }
    authorization::version(mesh, &selection.guarded).hash(&mut hash);
    mesh.config.version().hash(&mut hash);
    hash.finish()
}

pub(crate) fn listener(
    mesh: &Mesh,
    selection: &Selection,
    bind: Option<IpAddr>,
    port: u16,
    name: &str,
) -> Option<Listener> {
    let at = merged(mesh, selection).remove(&(bind, port))?;
    let (first, _) = at.servers.first()?;
    let origin = Origin { object: first.meta.object.clone(), path: String::new() };
    let mut chains = Vec::new();
    match at.used {
        Use::Requests => {
            let table = table_name(mesh, &GatewayTable::Http(bind, port))?;
            chains.push(requests(mesh, selection, name.to_owned(), ChainMatch::default(), None, table));
        }
        Use::Tls => {
            let mut taken: Vec<&Host> = Vec::new();
            for (gateway, server) in &at.servers {
                if server.mode == ServerMode::Passthrough {
                    chains.extend(passthrough(mesh, selection, gateway, server, &mut taken));
                    continue;
                }
                let hosts: Vec<&Host> =
                    server.hosts.iter().map(|host| &host.host).filter(|host| !taken.contains(host)).collect();
                taken.extend(&hosts);
                if !hosts.is_empty() {
                    chains.extend(tls_chain(mesh, selection, gateway, server, &hosts));
                }
            }
        }
        Use::Bytes => {
            let mut open = at.servers.iter().filter(|(_, server)| server.mode != ServerMode::Closed);
            chains.extend(open.find_map(|(gateway, server)| {
                bytes(mesh, selection, gateway, server, name.to_owned(), ChainMatch::default(), None)
            }));
        }
    }
    if chains.is_empty() {
        return None;
    }
    Some(Listener {
        name: name.to_owned(),
        address: SocketAddr::new(bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port),
        direction: Direction::Gateway,
        bind: true,
        use_original_destination: false,
        detect: Detect {
            tls: at.used == Use::Tls,
            http: false,
            proxy_header: selection.proxy_header,
            timeout: HELLO_TIMEOUT,
        },
        chains,
        default_chain: None,
        origin: Some(origin),
    })
}

fn requests(
    mesh: &Mesh,
    selection: &Selection,
    name: String,
    matches: ChainMatch,
    tls: Option<ServerTls>,
    table: String,
) -> FilterChain {
    let mut server = http(mesh, &format!("outbound_{name}"), RoutesRef::Named(table));
    server.codec = Codec::Auto;
    server.client_cert = ClientCertHeader::SanitizeSet;
    server.edge = true;
    server.authorization = authorization::layers(mesh, &selection.guarded);
    FilterChain { name, matches, tls, network: Network::Http(Box::new(server)) }
}

fn bytes(
    mesh: &Mesh,
    selection: &Selection,
    gateway: &Gateway,
    server: &Server,
    name: String,
    matches: ChainMatch,
    tls: Option<ServerTls>,
) -> Option<FilterChain> {
    let gateways = [reference(gateway)];
    let client = Client { scope: &selection.scope, gateways: &gateways, port: server.port };
    let clusters = bound(mesh, selection, reference(gateway))
        .filter(|service| service.hosts.iter().any(|host| admits(&server.hosts, service, host).is_some()))
        .find_map(|service| tcp_rule_clusters(mesh, service, &client))?;
    let mut network = tcp(mesh, &name, clusters);
    if let Network::Tcp(server) = &mut network {
        server.authorization = authorization::layers(mesh, &selection.guarded);
    }
    Some(FilterChain { name, matches, tls, network })
}

/// TLS that is passed on, by the rules for it that are bound to the gateway.
fn passthrough<'m>(
    mesh: &'m Mesh,
    selection: &Selection,
    gateway: &Gateway,
    server: &'m Server,
    taken: &mut Vec<&'m Host>,
) -> Vec<FilterChain> {
    let gateways = [reference(gateway)];
    let client = Client { scope: &selection.scope, gateways: &gateways, port: server.port };
    let mut chains = Vec::new();
    let services = mesh
        .routing
        .iter()
        .filter(|service| service.serves(&gateways[0]) && mesh.routing.sees(service, &selection.scope.namespace));
    for service in services {
        for rule in &service.tls {
            for (at, m) in rule.matches.iter().enumerate().filter(|(_, m)| client.takes(&m.client, service)) {
                let names: Vec<&Host> = m
                    .server_names
                    .iter()
                    .filter_map(|name| admits(&server.hosts, service, name))
                    .filter(|name| is_server_name(name) && !taken.contains(name))
                    .collect();
                if names.is_empty() {
                    continue;
                }
                taken.extend(&names);
                let names: Vec<Host> = names.into_iter().cloned().collect();
                let clusters = http_route::clusters(mesh, service, &rule.destinations, &client);
                let object = &service.meta.object;
                let name =
                    format!("{}.{}.{}.{}.{at}", https_name(gateway, server), object.name, object.namespace, rule.index);
                let mut network = tcp(mesh, &name, clusters);
                if let Network::Tcp(server) = &mut network {
                    server.authorization = authorization::layers(mesh, &selection.guarded);
                }
                let matches = ChainMatch { destination_ranges: m.destinations.clone(), ..by_name(&names) };
                chains.push(FilterChain { name, matches, tls: None, network });
            }
        }
    }
    chains
}

/// Server names have whole labels: `*x.org` cannot be told from the ClientHello.
fn is_server_name(host: &Host) -> bool {
    !host.is_wildcard() || host.as_str() == "*" || host.as_str().starts_with("*.")
}

fn tls_chain(
    mesh: &Mesh,
    selection: &Selection,
    gateway: &Gateway,
    server: &Server,
    hosts: &[&Host],
) -> Option<FilterChain> {
    let hosts: Vec<Host> = hosts.iter().filter(|host| is_server_name(host)).map(|&host| host.clone()).collect();
    if hosts.is_empty() {
        return None;
    }
    let matches = by_name(&hosts);
    let alpn =
        if server.protocol == Protocol::Https { vec!["h2".to_owned(), "http/1.1".to_owned()] } else { Vec::new() };
    let tls = match &server.mode {
        ServerMode::Tls { certificate, clients, min_version } => {
            let (certificate, roots) = match certificate {
                ServerCertificate::Secret(name) => {
                    (CertificateRef::Secret(secret_name(name)), Some(RootsRef::Secret(roots_name(name))))
                }
                ServerCertificate::Files { chain, key, roots } => (
                    CertificateRef::Files { chain: chain.clone(), key: key.clone() },
                    roots.clone().map(RootsRef::File),
                ),
            };
            ServerTls {
                certificate,
                client_roots: roots.filter(|_| *clients != ServerClients::Anyone),
                require_client_certificate: *clients == ServerClients::Proven,
                trust_domains: Vec::new(),
                alpn,
                mesh: false,
                min_version: *min_version,
            }
        }
        ServerMode::Mesh { min_version } => ServerTls { alpn, min_version: *min_version, ..mesh_tls(mesh) },
        ServerMode::Plain | ServerMode::RedirectToHttps | ServerMode::Passthrough | ServerMode::Closed => return None,
    };
    let name = https_name(gateway, server);
    if server.protocol == Protocol::Https {
        Some(requests(mesh, selection, name.clone(), matches, Some(tls), name))
    } else {
        bytes(mesh, selection, gateway, server, name, matches, Some(tls))
    }
}

/// Name of a Kubernetes Secret in SDS.
pub(crate) fn secret_name(name: &str) -> String {
    format!("kubernetes://{name}")
}

/// Name in SDS of the roots that belong to a Secret.
pub(crate) fn roots_name(name: &str) -> String {
    format!("kubernetes://{name}-cacert")
}

/// The roots that belong to a Secret: those of the Secret `NAME-cacert`, else its own.
pub(crate) fn roots<'m>(mesh: &'m Mesh, object: &ObjectRef) -> Option<&'m Shared<TlsSecret>> {
    let beside = ObjectRef { name: format!("{}-cacert", object.name), ..object.clone() };
    let found = mesh.secrets.get(&beside).or_else(|| mesh.secrets.get(object))?;
    found.roots.is_some().then_some(found)
}

/// The more specific of two hosts where one covers the other.
fn intersection<'h>(a: &'h Host, b: &'h Host) -> Option<&'h Host> {
    if a.covers(b) {
        Some(b)
    } else if b.covers(a) {
        Some(a)
    } else {
        None
    }
}

/// The domain that a server serves a VirtualService's host under.
pub(crate) fn admits<'h>(hosts: &'h [ServerHost], service: &VirtualService, host: &'h Host) -> Option<&'h Host> {
    hosts
        .iter()
        .filter(|server| server.namespace.as_deref().is_none_or(|name| name == service.meta.namespace()))
        .find_map(|server| intersection(&server.host, host))
}

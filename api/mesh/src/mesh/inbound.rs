//! Builds `virtualInbound`: what a workload takes, on which port, by which protocol.
//!
//! For each port that a service leads to, and for all others: the mesh's mTLS, other TLS, and plain bytes, as the
//! workload's PeerAuthentication has it.
//! Never here: which policy that is (`peer`). Called by `build`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::spec::{
    Action, Authorization, CertificateRef, ChainMatch, ClientCertHeader, Detect, Direction, FilterChain, HeaderChanges,
    Listener, Network, PRIVATE_ALPN, Retry, RootsRef, Route, RouteMatch, RouteTable, RoutesRef, ServerTls, Transport,
    VirtualHost,
};

use super::{
    Mesh, authorization, http_route,
    key::Inbound,
    outbound::{http, plaintext_http, tcp_to},
};
use crate::model::{MtlsMode, Protocol, base::hash_of};

/// How clients of the mesh mark connections that carry requests.
const MESH_HTTP: [&str; 4] = [PRIVATE_ALPN, "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// How clients of the mesh mark any connection.
const MESH_ANY: [&str; 2] = ["istio-peer-exchange", "istio"];

fn names(lists: &[&[&str]]) -> Vec<String> {
    lists.iter().flat_map(|list| list.iter().map(|&name| name.to_owned())).collect()
}

pub(crate) fn version(mesh: &Mesh, inbound: &Inbound) -> u64 {
    hash_of(&(mesh.config.version(), authorization::version(mesh, &inbound.guarded)))
}

/// One place where connections arrive: a port, or all others.
struct Place<'p> {
    name: String,
    port: Option<u16>,
    protocol: Protocol,
    cluster: String,
    table: Arc<RouteTable>,
    authorization: &'p [Authorization],
}

pub(crate) fn virtual_inbound(mesh: &Mesh, inbound: &Inbound, name: &str) -> Listener {
    let Inbound { ports, modes, guarded } = inbound;
    let layers = authorization::layers(mesh, guarded);
    let own_port = mesh.config.inbound_port;
    let mut chains = vec![FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        // connections to the port itself would come back for ever
        matches: ChainMatch { destination_port: Some(own_port), ..ChainMatch::default() },
        tls: None,
        network: tcp_to(mesh, "BlackHoleCluster", "BlackHoleCluster"),
    }];
    for port in ports {
        let cluster = format!("inbound|{}||", port.port);
        let operation = http_route::operation(&port.service.host, port.service_port);
        let place = Place {
            name: format!("0.0.0.0_{}", port.port),
            port: Some(port.port),
            protocol: port.protocol,
            table: Arc::new(table(&cluster, &format!("inbound|http|{}", port.service_port), &operation)),
            cluster,
            authorization: &layers,
        };
        chains.extend(place.chains(mesh, modes.of(port.port)));
    }
    let table = Arc::new(table("InboundPassthroughCluster", "inbound|http|0", ":0/*"));
    let rest = |name: String, port: Option<u16>| Place {
        name,
        port,
        protocol: Protocol::Auto,
        cluster: "InboundPassthroughCluster".to_owned(),
        table: Arc::clone(&table),
        authorization: &layers,
    };
    // ports with a mode of their own that no service leads to
    for (port, mode) in modes.ports.iter().filter(|(port, _)| !ports.iter().any(|known| known.port == **port)) {
        chains.extend(rest(format!("0.0.0.0_{port}"), Some(*port)).chains(mesh, *mode));
    }
    chains.extend(rest("virtualInbound-catchall".to_owned(), None).chains(mesh, modes.default));
    Listener {
        name: name.to_owned(),
        address: SocketAddr::from(([0, 0, 0, 0], own_port)),
        direction: Direction::Inbound,
        bind: true,
        use_original_destination: false,
        detect: Detect { tls: true, http: true, timeout: mesh.config.detection_timeout, ..Detect::default() },
        chains,
        default_chain: None,
        origin: None,
    }
}

/// Everything to the workload itself, tried again only where it never arrived.
fn table(cluster: &str, host: &str, operation: &str) -> RouteTable {
    let mut forward = http_route::to_cluster(cluster.to_owned());
    forward.retry = Some(Retry {
        attempts: 2,
        on: vec!["reset-before-request".to_owned()],
        statuses: Vec::new(),
        per_try_timeout: None,
        backoff: Duration::from_millis(25),
        avoid_previous: false,
    });
    let route = Route {
        name: "default".to_owned(),
        matches: RouteMatch::default(),
        action: Action::Forward(Box::new(forward)),
        headers: HeaderChanges::default(),
        fault: None,
        operation: operation.to_owned(),
        origin: None,
    };
    RouteTable {
        name: cluster.to_owned(),
        virtual_hosts: vec![Arc::new(VirtualHost {
            name: host.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
        })],
        ignore_port: false,
        hosts_apart: false,
    }
}

impl Place<'_> {
    fn chains(&self, mesh: &Mesh, mode: MtlsMode) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        let (http, auto) = (self.protocol.is_http(), self.protocol == Protocol::Auto);
        if mode != MtlsMode::Disable {
            // under STRICT any ClientHello is held to the mesh's mTLS, marked or not
            let marks = |lists: &[&[&str]]| if mode == MtlsMode::Strict { Vec::new() } else { names(lists) };
            if http {
                chains.push(self.chain(
                    mesh,
                    "-mtls",
                    true,
                    Some(Transport::Tls),
                    marks(&[&MESH_HTTP, &MESH_ANY]),
                    true,
                ));
            } else if auto {
                chains.push(self.chain(mesh, "-mtls-http", true, Some(Transport::Tls), names(&[&MESH_HTTP]), true));
                chains.push(self.chain(mesh, "-mtls", true, Some(Transport::Tls), marks(&[&MESH_ANY]), false));
            } else {
                chains.push(self.chain(
                    mesh,
                    "-mtls",
                    true,
                    Some(Transport::Tls),
                    marks(&[&MESH_HTTP, &MESH_ANY]),
                    false,
                ));
            }
        }
        if mode == MtlsMode::Strict {
            return chains;
        }
        // a chain for each transport: matching does not come back once a transport is found
        let told_apart = mode == MtlsMode::Permissive || auto;
        if told_apart {
            // the application's own TLS
            chains.push(self.chain(mesh, "-tls", false, Some(Transport::Tls), Vec::new(), false));
        }
        let raw = told_apart.then_some(Transport::Raw);
        if auto {
            chains.push(self.chain(mesh, "-http", false, raw, plaintext_http(), true));
        }
        chains.push(self.chain(mesh, "", false, raw, Vec::new(), http));
        chains
    }

    fn chain(
        &self,
        mesh: &Mesh,
        suffix: &str,
        mtls: bool,
        transport: Option<Transport>,
        protocols: Vec<String>,
        requests: bool,
    ) -> FilterChain {
        let authorization = self.authorization.to_vec();
        let network = if requests {
            let mut server = http(mesh, &format!("inbound_{}", self.name), RoutesRef::Inline(Arc::clone(&self.table)));
            server.client_cert = if mtls { ClientCertHeader::AppendForward } else { ClientCertHeader::Sanitize };
            server.authorization = authorization;
            Network::Http(Box::new(server))
        } else {
            let mut network = tcp_to(mesh, &self.cluster, &self.cluster);
            if let Network::Tcp(server) = &mut network {
                server.authorization = authorization;
            }
            network
        };
        FilterChain {
            name: format!("{}{suffix}", self.name),
            matches: ChainMatch {
                destination_port: self.port,
                transport,
                application_protocols: protocols,
                ..ChainMatch::default()
            },
            tls: mtls.then(|| server_tls(mesh, requests)),
            network,
        }
    }
}

fn server_tls(mesh: &Mesh, requests: bool) -> ServerTls {
    ServerTls {
        alpn: names(if requests { &[&[PRIVATE_ALPN, "h2", "http/1.1"]] } else { &[&["istio", "h2", "http/1.1"]] }),
        min_version: mesh.config.mtls_min_version,
        ..mesh_tls(mesh)
    }
}

/// The mesh's own mTLS: the workload's certificate for clients of the mesh's trust domains.
pub(crate) fn mesh_tls(mesh: &Mesh) -> ServerTls {
    let mut trust_domains = vec![mesh.config.trust_domain.clone()];
    trust_domains.extend(mesh.config.trust_domain_aliases.iter().cloned());
    ServerTls {
        certificate: CertificateRef::Workload,
        client_roots: Some(RootsRef::Mesh),
        require_client_certificate: true,
        trust_domains,
        alpn: Vec::new(),
        mesh: true,
        min_version: mesh.config.mtls_min_version,
    }
}

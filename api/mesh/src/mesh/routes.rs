//! Builds the route tables of a sidecar's outbound side (and of gRPC programs).
//!
//! One table for each port number, with a virtual host for each service there; one for each port whose protocol is found
//! out, with that service only.
//! Never here: single routes (`http_route`), gateways. Called by `build`.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use api::spec::{Action, HeaderChanges, Route, RouteMatch, RouteTable, VirtualHost};

use super::{
    Mesh, cluster,
    http_route::{self, Client},
    key::{ClientKind, HostsStand, Scope},
};
use crate::model::{GatewayRef, OutboundPolicy, Service, ServiceId, ServicePort, Shared, VirtualService};

/// Whether requests to a service's port are routed by a table shared with the port's other services.
pub(crate) fn shares_port_table(service: &Service, port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == crate::model::Protocol::Auto && service.vip().is_none()
}

/// Port that hosts of VirtualServices are served on where no service of that host is known.
const UNKNOWN_HOSTS_PORT: u16 = 80;

/// A service, and the VirtualService that speaks for it.
type Routed<'m> = (&'m Shared<Service>, Option<&'m Shared<VirtualService>>);

/// The services and VirtualServices of a port, as a namespace sees them.
struct PortInputs<'m> {
    services: Vec<Routed<'m>>,
    /// Hosts of VirtualServices that no service has.
    others: Vec<(&'m str, &'m Shared<VirtualService>)>,
}

impl<'m> PortInputs<'m> {
    fn of(mesh: &'m Mesh, scope: &'m Scope, number: u16) -> Self {
        let namespace = &*scope.namespace;
        let services = mesh
            .services
            .on_port(number, namespace)
            .filter_map(|service| {
                service.port(number).filter(|port| shares_port_table(service, port))?;
                Some((service, mesh.routing.for_host(&service.id.host, namespace)))
            })
            .collect();
        let others = if number == UNKNOWN_HOSTS_PORT {
            mesh.routing
                .hosts(namespace)
                .filter(|(host, _)| {
                    if host.starts_with('*') {
                        return !mesh.services.hosts().any(|known| covers(host, known));
                    }
                    mesh.services.find(host, namespace).is_none()
                })
                .collect()
        } else {
            Vec::new()
        };
        Self { services, others }
    }
}

/// Whether a wildcard covers a host.
fn covers(wildcard: &str, host: &str) -> bool {
    wildcard.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
}

pub(crate) fn port_version(mesh: &Mesh, scope: &Scope, port: u16) -> u64 {
    let mut hash = DefaultHasher::new();
    let inputs = PortInputs::of(mesh, scope, port);
    for (service, routing) in &inputs.services {
        service.version().hash(&mut hash);
        routing.map(Shared::version).hash(&mut hash);
    }
    for (host, routing) in &inputs.others {
        (host, routing.version()).hash(&mut hash);
    }
    let routings = inputs.services.iter().filter_map(|(_, routing)| *routing);
    for routing in routings.chain(inputs.others.iter().map(|(_, routing)| *routing)) {
        http_route::destinations_version(mesh, routing, scope, &mut hash);
    }
    mesh.config.version().hash(&mut hash);
    hash.finish()
}

pub(crate) fn port_table(mesh: &Mesh, scope: &Scope, port: u16, name: &str) -> RouteTable {
    let inputs = PortInputs::of(mesh, scope, port);
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut hosts = Vec::with_capacity(inputs.services.len() + 1);
    // full names first: a short name of one service never takes the full name of another
    let mut add = |host: VirtualHost| {
        let domains: Vec<String> = host.domains.into_iter().filter(|domain| taken.insert(domain.clone())).collect();
        if !domains.is_empty() {
            hosts.push(Arc::new(VirtualHost { domains, ..host }));
        }
    };
    for (service, routing) in &inputs.services {
        add(of_service(mesh, scope, service, *routing, port));
    }
    for (host, routing) in &inputs.others {
        if let Some(host) = of_other(mesh, scope, host, routing, port) {
            add(host);
        }
    }
    hosts.push(Arc::new(host_of_rest(mesh)));
    RouteTable { name: name.to_owned(), virtual_hosts: hosts, ignore_port: true, hosts_apart: false }
}

/// Name of the virtual host of a host in a port's table.
pub(crate) fn host_name(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

fn of_service(
    mesh: &Mesh,
    scope: &Scope,
    service: &Service,
    routing: Option<&Shared<VirtualService>>,
    port: u16,
) -> VirtualHost {
    VirtualHost {
        name: host_name(&service.id.host, port),
        domains: domains(mesh, service, scope),
        routes: service_routes(mesh, scope, service, routing, port),
    }
}

/// The virtual host of a host that no service has; none: no rule is for this client.
fn of_other(
    mesh: &Mesh,
    scope: &Scope,
    host: &str,
    routing: &Shared<VirtualService>,
    port: u16,
) -> Option<VirtualHost> {
    let client = Client { scope, gateways: &[GatewayRef::Mesh], port };
    let routes = http_route::routes(mesh, routing, &client);
    let domains = || host_domains(mesh, host, scope);
    (!routes.is_empty()).then(|| VirtualHost { name: host_name(host, port), domains: domains(), routes })
}

fn host_of_rest(mesh: &Mesh) -> VirtualHost {
    let (name, action) = rest(mesh);
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            matches: RouteMatch::default(),
            action,
            headers: HeaderChanges::default(),
            fault: None,
            operation: String::new(),
            origin: None,
        }],
    }
}

// --------------------------------------------------------------------------------------------------- hosts that stand apart

/// The hosts of a port's table.
pub(crate) struct PortHosts {
    pub(crate) services: Vec<ServiceId>,
    /// Hosts that no service has.
    pub(crate) others: Vec<Arc<str>>,
    /// Two of them want one domain: who has it can be said in the table as a whole only.
    pub(crate) disputed: bool,
}

/// The hosts of a port's table; none: there is no such table.
pub(crate) fn hosts(mesh: &Mesh, scope: &Scope, port: u16) -> Option<PortHosts> {
    let inputs = PortInputs::of(mesh, scope, port);
    if inputs.services.is_empty() {
        return None;
    }
    let others: Vec<Arc<str>> = inputs.others.iter().map(|(host, _)| Arc::from(*host)).collect();
    let disputed = scope.hosts == HostsStand::Apart && {
        let mut taken = HashSet::new();
        let of_services = inputs.services.iter().flat_map(|(service, _)| domains(mesh, service, scope));
        let of_others = others.iter().flat_map(|host| host_domains(mesh, host, scope));
        !of_services.chain(of_others).all(|domain| taken.insert(domain))
    };
    let services = inputs.services.iter().map(|(service, _)| service.id.clone()).collect();
    Some(PortHosts { services, others, disputed })
}

/// The table of a port without the hosts that stand apart.
pub(crate) fn rest_table(mesh: &Mesh, name: &str) -> RouteTable {
    let rest = vec![Arc::new(host_of_rest(mesh))];
    RouteTable { name: name.to_owned(), virtual_hosts: rest, ignore_port: true, hosts_apart: true }
}

pub(crate) fn service_host(mesh: &Mesh, scope: &Scope, id: &ServiceId, port: u16) -> Option<VirtualHost> {
    let (service, routing) = one(mesh, scope, id)?;
    Some(of_service(mesh, scope, service, routing, port))
}

/// The VirtualService that speaks for a host that no service has.
fn other<'m>(mesh: &'m Mesh, scope: &Scope, host: &str) -> Option<&'m Shared<VirtualService>> {
    mesh.routing.named(host, &scope.namespace)
}

pub(crate) fn other_host(mesh: &Mesh, scope: &Scope, host: &str, port: u16) -> Option<VirtualHost> {
    of_other(mesh, scope, host, other(mesh, scope, host)?, port)
}

pub(crate) fn other_version(mesh: &Mesh, scope: &Scope, host: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    if let Some(routing) = other(mesh, scope, host) {
        (routing.version(), mesh.config.version()).hash(&mut hash);
        http_route::destinations_version(mesh, routing, scope, &mut hash);
    }
    hash.finish()
}

/// What happens to requests for hosts that nobody knows.
fn rest(mesh: &Mesh) -> (&'static str, Action) {
    match mesh.config.outbound {
        OutboundPolicy::AllowAny => {
            ("allow_any", Action::Forward(Box::new(http_route::to_cluster("PassthroughCluster".to_owned()))))
        }
        OutboundPolicy::RegistryOnly => ("block_all", Action::Reply { status: 502, body: String::new() }),
    }
}

/// Routes of a service: its VirtualService's, or all to its cluster.
fn service_routes(
    mesh: &Mesh,
    scope: &Scope,
    service: &Service,
    routing: Option<&Shared<VirtualService>>,
    port: u16,
) -> Vec<Route> {
    let client = Client { scope, gateways: &[GatewayRef::Mesh], port };
    let routes = routing.map(|routing| http_route::routes(mesh, routing, &client)).unwrap_or_default();
    if !routes.is_empty() {
        return routes;
    }
    let host = &service.id.host;
    vec![http_route::default_route(mesh, cluster::name_of(port, "", host), http_route::operation(host, port))]
}

/// Every name that a client of this scope may write for a service, and its addresses.
fn domains(mesh: &Mesh, service: &Service, scope: &Scope) -> Vec<String> {
    let host = &*service.id.host;
    let mut all = host_domains(mesh, host, scope);
    if service.is_headless() {
        all.push(format!("*.{host}"));
    }
    for net in service.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()) {
        all.push(match net.addr() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        });
    }
    all
}

/// Every name that a client of this scope may write for a host.
fn host_domains(mesh: &Mesh, host: &str, scope: &Scope) -> Vec<String> {
    let mut all = vec![host.to_owned()];
    if host.starts_with('*') {
        return all;
    }
    let domain = &mesh.settings.domain;
    let Some(short) = host.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix(".svc.")) else {
        return all;
    };
    let Some((name, namespace)) = short.rsplit_once('.') else { return all };
    all.push(format!("{host}."));
    if namespace == &*scope.namespace {
        all.push(name.to_owned());
    }
    all.push(format!("{short}.svc"));
    all.push(short.to_owned());
    all
}

/// The service of a table of its own, and the VirtualService that speaks for it.
fn one<'m>(mesh: &'m Mesh, scope: &Scope, id: &ServiceId) -> Option<Routed<'m>> {
    Some((mesh.services.get(id)?, mesh.routing.for_host(&id.host, &scope.namespace)))
}

pub(crate) fn service_version(mesh: &Mesh, scope: &Scope, id: &ServiceId) -> u64 {
    let mut hash = DefaultHasher::new();
    if let Some((service, routing)) = one(mesh, scope, id) {
        (service.version(), routing.map(Shared::version), mesh.config.version()).hash(&mut hash);
        if let Some(routing) = routing {
            http_route::destinations_version(mesh, routing, scope, &mut hash);
        }
    }
    hash.finish()
}

pub(crate) fn service_table(mesh: &Mesh, scope: &Scope, id: &ServiceId, port: u16, name: &str) -> Option<RouteTable> {
    let (service, routing) = one(mesh, scope, id)?;
    let host = VirtualHost {
        name: format!("{}:{port}", id.host),
        domains: vec!["*".to_owned()],
        routes: service_routes(mesh, scope, service, routing, port),
    };
    Some(RouteTable {
        name: name.to_owned(),
        virtual_hosts: vec![Arc::new(host)],
        ignore_port: true,
        hosts_apart: false,
    })
}

/// Name of the table of one service's port.
pub(crate) fn service_table_name(kind: ClientKind, host: &str, port: u16) -> String {
    match kind {
        ClientKind::Proxyless => cluster::name_of(port, "", host),
        ClientKind::Sidecar | ClientKind::Gateway => format!("{host}:{port}"),
    }
}

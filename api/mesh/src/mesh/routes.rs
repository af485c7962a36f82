//! Builds the route tables of a sidecar's outbound side (and of gRPC programs).
//!
//! One table for each port number, with a virtual host for each service there; one for each port whose protocol is found
//! out, with that service only.
//! Never here: single routes (`http_route`), gateways. Called by `build`.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use api::spec::{Action, HeaderChanges, Route, RouteMatch, RouteTable, VirtualHost};

use super::{
    Mesh, cluster,
    http_route::{self, Client},
    key::{ClientKind, Scope},
};
use crate::model::{GatewayRef, OutboundPolicy, Service, ServicePort, Shared, VirtualService};

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
    let mut add = |name: String, domains: Vec<String>, routes: Vec<Route>| {
        let domains: Vec<String> = domains.into_iter().filter(|domain| taken.insert(domain.clone())).collect();
        if !domains.is_empty() {
            hosts.push(Arc::new(VirtualHost { name, domains, routes }));
        }
    };
    for (service, routing) in &inputs.services {
        let routes = service_routes(mesh, scope, service, *routing, port);
        add(format!("{}:{port}", service.id.host), domains(mesh, service, scope), routes);
    }
    for (host, routing) in &inputs.others {
        let client = Client { scope, gateways: &[GatewayRef::Mesh], port };
        let routes = http_route::routes(mesh, routing, &client);
        if !routes.is_empty() {
            add(format!("{host}:{port}"), host_domains(mesh, host, scope), routes);
        }
    }
    let (name_of_rest, action) = rest(mesh);
    hosts.push(Arc::new(VirtualHost {
        name: name_of_rest.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name_of_rest.to_owned(),
            matches: RouteMatch::default(),
            action,
            headers: HeaderChanges::default(),
            fault: None,
            operation: String::new(),
            origin: None,
        }],
    }));
    RouteTable { name: name.to_owned(), virtual_hosts: hosts, ignore_port: true }
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
fn one<'m>(mesh: &'m Mesh, scope: &Scope, id: &crate::model::ServiceId) -> Option<Routed<'m>> {
    Some((mesh.services.get(id)?, mesh.routing.for_host(&id.host, &scope.namespace)))
}

pub(crate) fn service_version(mesh: &Mesh, scope: &Scope, id: &crate::model::ServiceId) -> u64 {
    let mut hash = DefaultHasher::new();
    if let Some((service, routing)) = one(mesh, scope, id) {
        (service.version(), routing.map(Shared::version), mesh.config.version()).hash(&mut hash);
        if let Some(routing) = routing {
            http_route::destinations_version(mesh, routing, scope, &mut hash);
        }
    }
    hash.finish()
}

pub(crate) fn service_table(
    mesh: &Mesh,
    scope: &Scope,
    id: &crate::model::ServiceId,
    port: u16,
    name: &str,
) -> Option<RouteTable> {
    let (service, routing) = one(mesh, scope, id)?;
    let host = VirtualHost {
        name: format!("{}:{port}", id.host),
        domains: vec!["*".to_owned()],
        routes: service_routes(mesh, scope, service, routing, port),
    };
    Some(RouteTable { name: name.to_owned(), virtual_hosts: vec![Arc::new(host)], ignore_port: true })
}

/// Name of the table of one service's port.
pub(crate) fn service_table_name(kind: ClientKind, host: &str, port: u16) -> String {
    match kind {
        ClientKind::Proxyless => cluster::name_of(port, "", host),
        ClientKind::Sidecar | ClientKind::Gateway => format!("{host}:{port}"),
    }
}

//! Names the resources that one proxy gets.
//!
//! Sidecars and gRPC programs of a scope share their outbound keys; inbound sides and gateways are the proxy's own.
//! Never here: building. Called by pilot for each proxy and by `meshctl`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use api::{
    note::ObjectRef,
    spec::{HostName, Node, ProxyKind},
};

use super::{
    Mesh, authorization, cluster, gateway,
    gateway::Use,
    key::{
        ClientKind, ClusterKey, Fixed, GatewayTable, HostsStand, Inbound, InboundCluster, InboundPort, Key, KeySet,
        Keys, Recipe, Scope, Selection,
    },
    routes::{self, service_table_name, shares_port_table},
};
use crate::model::{
    Labels, Pod, Protocol, Registry, Resolution, ServerCertificate, ServerClients, ServerMode, Service, ServicePort,
    Shared, TargetPort, base::selects,
};

/// The inputs that proxies share: all proxies of one scope have the same outbound keys.
pub fn scope(mesh: &Mesh, node: &Node) -> Scope {
    let kind = match (node.proxyless, node.kind) {
        (true, _) => ClientKind::Proxyless,
        (false, ProxyKind::Sidecar) => ClientKind::Sidecar,
        (false, ProxyKind::Gateway) => ClientKind::Gateway,
    };
    let chosen = mesh.client_selectors.iter().filter(|labels| selects(labels, &node.labels)).cloned();
    let apart = node.on_demand_hosts && kind == ClientKind::Sidecar;
    Scope {
        kind,
        namespace: node.namespace.as_str().into(),
        selectors: Arc::new(chosen.collect()),
        hosts: if apart { HostsStand::Apart } else { HostsStand::Inside },
    }
}

/// The outbound keys of a scope; the costly part of a view, to be kept per scope by who has many proxies.
pub fn outbound(mesh: &Mesh, scope: &Scope) -> Arc<KeySet> {
    let mut keys = KeySet::default();
    let shared = Arc::new(scope.clone());
    if scope.kind != ClientKind::Proxyless {
        keys.add(Key::new("BlackHoleCluster", Recipe::Fixed(Fixed::BlackHole)));
    }
    if scope.kind == ClientKind::Sidecar {
        keys.add(Key::new("PassthroughCluster", Recipe::Fixed(Fixed::Passthrough)));
        keys.add(Key::new("virtualOutbound", Recipe::VirtualOutbound));
    }
    for service in mesh.services.visible(&scope.namespace) {
        clusters(mesh, scope, service, &mut keys);
        for port in &service.ports {
            match scope.kind {
                ClientKind::Sidecar => sidecar_port(&shared, service, port, &mut keys),
                ClientKind::Proxyless => api_port(mesh, &shared, service, port, &mut keys),
                ClientKind::Gateway => {}
            }
        }
    }
    if scope.kind == ClientKind::Sidecar {
        for port in mesh.services.ports() {
            port_routes(mesh, &shared, port, &mut keys);
        }
    }
    Arc::new(keys)
}

/// The table of a port, whole or with its hosts apart, as the client wants it.
fn port_routes(mesh: &Mesh, scope: &Arc<Scope>, port: u16, keys: &mut KeySet) {
    let table: Arc<str> = port.to_string().into();
    let Some(hosts) = routes::hosts(mesh, scope, port) else { return };
    if scope.hosts == HostsStand::Inside || hosts.disputed {
        keys.add(Key::new(table, Recipe::PortRoutes(Arc::clone(scope), port)));
        return;
    }
    for id in hosts.services {
        let name = HostName { table: &table, host: &routes::host_name(&id.host, port) }.to_string();
        keys.add(Key::new(name, Recipe::ServiceHost(Arc::clone(scope), id, port)));
    }
    for host in hosts.others {
        let name = HostName { table: &table, host: &routes::host_name(&host, port) }.to_string();
        keys.add(Key::new(name, Recipe::OtherHost(Arc::clone(scope), host, port)));
    }
    keys.add(Key::new(table, Recipe::PortRest(port)));
}

fn clusters(mesh: &Mesh, scope: &Scope, service: &Shared<Service>, keys: &mut KeySet) {
    let rule = mesh.rules.find(scope, &mesh.root, service);
    let subsets = rule.and_then(|name| mesh.rules.get(name)).map(|rule| rule.subsets.as_slice()).unwrap_or_default();
    let eds = cluster::uses_eds(scope.kind, service);
    for port in &service.ports {
        let whole = std::iter::once(None);
        for subset in whole.chain(subsets.iter().map(|subset| Some(subset.name.as_str()))) {
            let name: Arc<str> = cluster::name_of(port.number, subset.unwrap_or_default(), &service.id.host).into();
            let key = ClusterKey {
                kind: scope.kind,
                service: service.id.clone(),
                port: port.number,
                subset: subset.map(Arc::from),
                rule: rule.cloned(),
            };
            if eds {
                // addresses are the same for every kind of client, and rules matter to subsets only
                let rule = if subset.is_some() { key.rule.clone() } else { None };
                let key = ClusterKey { kind: ClientKind::Sidecar, rule, ..key.clone() };
                keys.add(Key::new(Arc::clone(&name), Recipe::Endpoints(key)));
            }
            keys.add(Key::new(name, Recipe::Cluster(key)));
        }
    }
}

fn sidecar_port(scope: &Arc<Scope>, service: &Service, port: &ServicePort, keys: &mut KeySet) {
    let number = port.number;
    if !shares_port_table(service, port) && port.protocol == Protocol::Auto {
        let name = service_table_name(scope.kind, &service.id.host, number);
        keys.add(Key::new(name, Recipe::ServiceRoutes(Arc::clone(scope), service.id.clone(), number)));
    }
    let addresses: Vec<IpAddr> = service
        .addresses
        .iter()
        .filter(|net| net.prefix_len() == net.max_prefix_len())
        .map(ipnet::IpNet::addr)
        .collect();
    if shares_port_table(service, port) || addresses.is_empty() {
        keys.add(Key::new(format!("0.0.0.0_{number}"), Recipe::WildcardListener(Arc::clone(scope), number)));
        return;
    }
    for address in addresses {
        let recipe = Recipe::ServiceListener(Arc::clone(scope), service.id.clone(), address, number);
        keys.add(Key::new(format!("{address}_{number}"), recipe));
    }
}

/// gRPC programs ask for a listener by the very text they were given: every way to write it is a key.
fn api_port(mesh: &Mesh, scope: &Arc<Scope>, service: &Service, port: &ServicePort, keys: &mut KeySet) {
    let host = &*service.id.host;
    let number = port.number;
    let mut names = vec![host.to_owned()];
    let short = host.strip_suffix(mesh.settings.domain.as_str()).and_then(|rest| rest.strip_suffix(".svc."));
    if let Some(short) = short {
        names.extend([format!("{short}.svc"), short.to_owned()]);
        if service.id.namespace == scope.namespace
            && let Some((name, _)) = short.rsplit_once('.')
        {
            names.push(name.to_owned());
        }
    }
    for name in names {
        let recipe = Recipe::ApiListener(Arc::clone(scope), service.id.clone(), number);
        keys.add(Key::new(format!("{name}:{number}"), recipe));
    }
    let table = service_table_name(ClientKind::Proxyless, host, number);
    keys.add(Key::new(table, Recipe::ServiceRoutes(Arc::clone(scope), service.id.clone(), number)));
}

/// Which resources this proxy gets.
pub fn view(mesh: &Mesh, node: &Node) -> Keys {
    view_with(mesh, node, outbound(mesh, &scope(mesh, node)))
}

/// Which resources this proxy gets, given the outbound keys of its scope.
pub fn view_with(mesh: &Mesh, node: &Node, outbound: Arc<KeySet>) -> Keys {
    Keys::new(outbound, own(mesh, node))
}

/// The keys of one proxy that it does not share with its scope.
pub fn own(mesh: &Mesh, node: &Node) -> KeySet {
    let mut own = KeySet::default();
    if !node.proxyless {
        match node.kind {
            ProxyKind::Sidecar => inbound(mesh, node, &mut own),
            ProxyKind::Gateway => edge(mesh, node, &mut own),
        }
    }
    own
}

/// Name of the Pod that a proxy is in.
pub(crate) fn pod_name(node: &Node) -> ObjectRef {
    ObjectRef::new("Pod", node.namespace.clone(), node.name.clone())
}

/// The Pod that a proxy is in, where it is known.
fn pod_of<'m>(mesh: &'m Mesh, node: &Node) -> Option<&'m Arc<Pod>> {
    mesh.pods.get(&pod_name(node))
}

/// The workload's port behind a service's port.
fn target(pod: Option<&Arc<Pod>>, port: &ServicePort) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod?.ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number),
    }
}

/// Services that lead to a workload: by its labels, or by its address.
fn services_of<'m>(mesh: &'m Mesh, node: &'m Node) -> impl Iterator<Item = &'m Shared<Service>> {
    mesh.services.iter().filter(move |service| {
        if *service.id.namespace != *node.namespace {
            return false;
        }
        let by_labels = !service.selector.is_empty() && selects(&service.selector, &node.labels);
        let by_address = || {
            let here = crate::model::Location::Ip(node.address);
            mesh.endpoints_of(&service.id).is_some_and(|known| known.endpoints.iter().any(|e| e.location == here))
        };
        let internal = service.registry == Registry::Kubernetes || service.resolution == Resolution::Endpoints;
        internal && (by_labels || service.selector.is_empty() && by_address())
    })
}

fn inbound(mesh: &Mesh, node: &Node, keys: &mut KeySet) {
    let pod = pod_of(mesh, node);
    let scope = scope(mesh, node);
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    let mut services: Vec<&Shared<Service>> = services_of(mesh, node).collect();
    services.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    for service in services {
        for port in &service.ports {
            let Some(number) = target(pod, port) else { continue };
            // the oldest service decides how a port is read
            ports.entry(number).or_insert_with(|| InboundPort {
                port: number,
                protocol: port.protocol,
                service: service.id.clone(),
                service_port: port.number,
            });
            if ports.get(&number).is_some_and(|known| known.service != service.id) {
                continue;
            }
            let key = InboundCluster {
                port: number,
                service: service.id.clone(),
                service_port: port.number,
                rule: mesh.rules.find(&scope, &mesh.root, service).cloned(),
                loopback: cluster::loopback(mesh),
            };
            keys.add(Key::new(format!("inbound|{number}||"), Recipe::InboundCluster(key)));
        }
    }
    let inbound = Inbound {
        ports: ports.into_values().collect(),
        modes: mesh.peers.modes(&node.namespace, &node.labels),
        guarded: authorization::guarded(mesh, &node.namespace, &node.labels),
    };
    keys.add(Key::new("InboundPassthroughCluster", Recipe::Fixed(Fixed::InboundPassthrough)));
    keys.add(Key::new("virtualInbound", Recipe::VirtualInbound(Arc::new(inbound))));
}

fn edge(mesh: &Mesh, node: &Node, keys: &mut KeySet) {
    let selection = Arc::new(selection(mesh, node));
    for ((bind, port), at) in gateway::merged(mesh, &selection) {
        let open = at.servers.iter().any(|(_, server)| server.mode != ServerMode::Closed);
        if !open {
            continue;
        }
        let name = gateway::listener_name(bind, port);
        keys.add(Key::new(name, Recipe::GatewayListener(Arc::clone(&selection), bind, port)));
        let tables: Vec<GatewayTable> = match at.used {
            Use::Requests => vec![GatewayTable::Http(bind, port)],
            Use::Tls => at
                .servers
                .iter()
                .filter(|(_, server)| server.protocol == Protocol::Https)
                .filter(|(_, server)| matches!(server.mode, ServerMode::Tls { .. } | ServerMode::Mesh { .. }))
                .map(|(gateway, server)| GatewayTable::Https(gateway.meta.object.clone(), server.index))
                .collect(),
            Use::Bytes => Vec::new(),
        };
        for table in tables {
            if let Some(name) = gateway::table_name(mesh, &table) {
                keys.add(Key::new(name, Recipe::GatewayRoutes(Arc::clone(&selection), table)));
            }
        }
        for (_, server) in &at.servers {
            if let ServerMode::Tls { certificate: ServerCertificate::Secret(name), clients, .. } = &server.mode {
                // only from the gateway's own namespace
                let object = ObjectRef::new("Secret", node.namespace.clone(), name.clone());
                if *clients != ServerClients::Anyone {
                    keys.add(Key::new(gateway::roots_name(name), Recipe::Roots(object.clone())));
                }
                keys.add(Key::new(gateway::secret_name(name), Recipe::Secret(object)));
            }
        }
    }
}

fn selection(mesh: &Mesh, node: &Node) -> Selection {
    let pod = pod_of(mesh, node);
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for service in services_of(mesh, node) {
        for port in &service.ports {
            if let Some(number) = target(pod, port) {
                ports.entry(port.number).or_default().insert(number);
            }
        }
    }
    let chosen = |labels: &Labels| selects(labels, &node.labels);
    Selection {
        scope: scope(mesh, node),
        gateways: mesh
            .gateways
            .iter()
            .filter(|gateway| chosen(&gateway.selector))
            .map(|gateway| gateway.meta.object.clone())
            .collect(),
        ports,
        guarded: authorization::guarded(mesh, &node.namespace, &node.labels),
        proxy_header: node.proxy_header,
    }
}

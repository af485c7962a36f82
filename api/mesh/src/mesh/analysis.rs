//! Says what does not fit together between objects: hosts, subsets, ports and gateways that are not there, hosts twice.
//!
//! Istio's analyzer code goes with each finding that it has too.
//! Never here: complaints about one object alone (`model`). Called by `resolve`.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    name::Host,
    note::{Note, Notes, ObjectRef, Severity},
};

use super::{
    Mesh,
    gateway::{Use, admits},
    key::{ClientKind, HostsStand, Scope},
    services::Services,
};
use crate::model::{
    Catalog, Destination, DestinationRule, ExportTo, Gateway, GatewayRef, Pod, Registry, Resolution, RuleAction,
    Server, ServerCertificate, ServerMode, Service, Shared, VirtualService, base::selects,
};

/// Pods by namespace.
type Pods<'m> = BTreeMap<&'m str, Vec<&'m Pod>>;

/// Gathers findings.
struct Findings(Notes);

impl Findings {
    fn add(&mut self, code: Option<&str>, object: &ObjectRef, path: impl Into<String>, text: impl Into<String>) {
        self.0.push(Note {
            severity: Severity::Warn,
            object: object.clone(),
            path: path.into(),
            text: text.into(),
            code: code.map(str::to_owned),
        });
    }
}

pub(crate) fn notes(mesh: &Mesh, catalog: &Catalog) -> Notes {
    let mut found = Findings(Notes::new());
    for service in mesh.routing.iter() {
        destinations(mesh, service, &mut found);
        gateways_of(mesh, service, &mut found);
    }
    hosts_twice(mesh, &mut found);
    let mut pods: Pods<'_> = BTreeMap::new();
    for pod in mesh.pods.values() {
        pods.entry(&pod.namespace).or_default().push(pod);
    }
    for rule in mesh.rules.iter() {
        rule_host(mesh, rule, &pods, &mut found);
    }
    for gateway in mesh.gateways.iter() {
        servers(mesh, catalog, gateway, &mut found);
    }
    ports_claimed_twice(mesh, &mut found);
    entries(catalog, &mut found);
    found.0
}

/// The service that a host means to a namespace, wildcard entries included.
fn find<'m>(services: &'m Services, host: &str, namespace: &str) -> Option<&'m Shared<Service>> {
    if let Some(found) = services.find(host, namespace) {
        return Some(found);
    }
    let wildcard = services.hosts().find(|known| {
        known.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
            && services.find(known, namespace).is_some()
    })?;
    services.find(wildcard, namespace)
}

fn destinations(mesh: &Mesh, service: &VirtualService, found: &mut Findings) {
    let object = &service.meta.object;
    let http = service.http.iter().filter_map(|rule| match &rule.action {
        RuleAction::Route(route) => Some(route),
        RuleAction::Redirect(_) | RuleAction::Reply { .. } | RuleAction::Delegate => None,
    });
    let http = http.flat_map(|route| {
        route.destinations.iter().map(|weighted| &weighted.destination).chain(route.mirrors.iter().map(|(to, _)| to))
    });
    let tcp = service.connection_destinations();
    let namespace = service.meta.namespace();
    let scope = Scope {
        kind: ClientKind::Sidecar,
        namespace: namespace.into(),
        selectors: std::sync::Arc::default(),
        hosts: HostsStand::Inside,
    };
    for destination in http.chain(tcp) {
        let Destination { host, subset, port, path } = destination;
        let Some(target) = find(&mesh.services, host.as_str(), namespace) else {
            let text = format!("Referenced host not found: \"{host}\"");
            found.add(Some("IST0101"), object, format!("{path}.host"), text);
            continue;
        };
        match port {
            Some(number) if target.port(*number).is_none() => {
                let text = format!("Referenced host:port not found: \"{host}:{number}\"");
                found.add(Some("IST0101"), object, format!("{path}.port.number"), text);
            }
            None if target.ports.len() > 1 => {
                let numbers: Vec<String> = target.ports.iter().map(|port| port.number.to_string()).collect();
                let text = format!(
                    "This VirtualService routes to a service \"{host}\" that exposes multiple ports [{}]. Specifying a port in the destination is required to disambiguate.",
                    numbers.join(" ")
                );
                found.add(Some("IST0112"), object, path.as_str(), text);
            }
            Some(_) | None => {}
        }
        if !subset.is_empty() {
            let rule = mesh.rules.find(&scope, &mesh.root, target).and_then(|name| mesh.rules.get(name));
            if !rule.is_some_and(|rule| rule.subsets.iter().any(|known| known.name == *subset)) {
                let text = format!("Referenced host+subset in destinationrule not found: \"{host}+{subset}\"");
                found.add(Some("IST0101"), object, format!("{path}.subset"), text);
            }
        }
    }
}

fn find_gateway<'m>(mesh: &'m Mesh, reference: &GatewayRef) -> Option<&'m Shared<Gateway>> {
    let GatewayRef::Named { namespace, name } = reference else { return None };
    mesh.gateways
        .iter()
        .find(|gateway| gateway.meta.object.namespace == *namespace && gateway.meta.object.name == *name)
}

fn gateways_of(mesh: &Mesh, service: &VirtualService, found: &mut Findings) {
    let object = &service.meta.object;
    let mut bound = Vec::new();
    for (index, reference) in service.gateways.iter().enumerate() {
        let GatewayRef::Named { namespace, name } = reference else { continue };
        let path = format!("spec.gateways[{index}]");
        if name.contains("~istio-autogenerated-k8s-gateway") {
            let text = format!("Gateway {namespace}/{name} in VirtualService should not reference internal gateways");
            found.add(Some("IST0165"), object, path, text);
            continue;
        }
        let written = if namespace == service.meta.namespace() { name.clone() } else { format!("{namespace}/{name}") };
        let Some(gateway) = find_gateway(mesh, reference) else {
            found.add(Some("IST0101"), object, path, format!("Referenced gateway not found: \"{written}\""));
            continue;
        };
        bound.push((index, gateway, written));
    }
    let admitted = |gateway: &Gateway, host: &Host| {
        gateway.servers.iter().any(|server| admits(&server.hosts, service, host).is_some())
    };
    // a host that none of the Gateways has, or a Gateway that has none of the hosts
    let nowhere: Vec<&Host> =
        service.hosts.iter().filter(|host| !bound.iter().any(|(_, gateway, _)| admitted(gateway, host))).collect();
    for (index, gateway, written) in &bound {
        let missing: Vec<&str> = if service.hosts.iter().any(|host| admitted(gateway, host)) {
            nowhere.iter().map(|host| host.as_str()).collect()
        } else {
            service.hosts.iter().map(Host::as_str).collect()
        };
        if !missing.is_empty() {
            let text = format!(
                "one or more host [{}] defined in VirtualService {}/{} not found in Gateway {written}.",
                missing.join(" "),
                object.namespace,
                object.name
            );
            found.add(Some("IST0132"), object, format!("spec.gateways[{index}]"), text);
        }
    }
}

/// The same host in several VirtualServices for the mesh, where some client sees both.
fn hosts_twice(mesh: &Mesh, found: &mut Findings) {
    let mut by_host: BTreeMap<&Host, Vec<&Shared<VirtualService>>> = BTreeMap::new();
    for service in mesh.routing.iter().filter(|service| service.gateways.contains(&GatewayRef::Mesh)) {
        for host in &service.hosts {
            by_host.entry(host).or_default().push(service);
        }
    }
    let wildcards: Vec<&Host> = by_host.keys().copied().filter(|host| host.is_wildcard()).collect();
    for (&host, services) in &by_host {
        let mut services = services.clone();
        // a wildcard inside another: which one counts depends on the client's call
        if host.is_wildcard() {
            for other in wildcards.iter().filter(|other| **other != host && (other.covers(host) || host.covers(other)))
            {
                services.extend(by_host.get(*other).into_iter().flatten().copied());
            }
        }
        if services.len() < 2 {
            continue;
        }
        let meets = |a: &VirtualService, b: &VirtualService| match (&a.export_to, &b.export_to) {
            (Some(ExportTo::Namespaces(a)), Some(ExportTo::Namespaces(b))) => !a.is_disjoint(b),
            (Some(ExportTo::Namespaces(names)), _) | (_, Some(ExportTo::Namespaces(names))) => !names.is_empty(),
            _ => true,
        };
        for service in services.iter().filter(|service| service.hosts.contains(host)) {
            let others: Vec<String> = services
                .iter()
                .filter(|other| other.meta.object != service.meta.object && meets(service, other))
                .map(|other| format!("{}/{}", other.meta.object.namespace, other.meta.object.name))
                .collect();
            if others.is_empty() {
                continue;
            }
            let text = format!(
                "The VirtualServices {}/{},{} associated with mesh gateway define the same host {host} which can lead to undefined behavior; the oldest one counts",
                service.meta.object.namespace,
                service.meta.object.name,
                others.join(",")
            );
            found.add(Some("IST0109"), &service.meta.object, "spec.hosts", text);
        }
    }
}

fn rule_host(mesh: &Mesh, rule: &DestinationRule, pods: &Pods<'_>, found: &mut Findings) {
    let host = &rule.host;
    let known = if host.is_wildcard() {
        mesh.services.hosts().any(|known| known.parse::<Host>().is_ok_and(|known| host.covers(&known)))
    } else {
        find(&mesh.services, host.as_str(), rule.meta.namespace()).is_some() || mesh.services.declares(host.as_str())
    };
    if !known {
        let text = format!("The host {host} defined in the DestinationRule does not match any services in the mesh.");
        found.add(Some("IST0174"), &rule.meta.object, "spec.host", text);
    }
    let Some(service) = mesh.services.find(host.as_str(), rule.meta.namespace()) else { return };
    if service.registry != Registry::Kubernetes || service.selector.is_empty() {
        return;
    }
    // labels matter only where there are workloads to have them
    let here = pods.get(&*service.id.namespace).into_iter().flatten();
    let workloads: Vec<_> = here.filter(|pod| selects(&service.selector, &pod.labels)).collect();
    if workloads.is_empty() {
        return;
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        if !workloads.iter().any(|pod| selects(&subset.labels, &pod.labels)) {
            let text = format!("The Subset {} defined in the DestinationRule does not select any pods.", subset.name);
            found.add(Some("IST0173"), &rule.meta.object, format!("spec.subsets[{index}].labels"), text);
        }
    }
}

fn servers(mesh: &Mesh, catalog: &Catalog, gateway: &Gateway, found: &mut Findings) {
    let object = &gateway.meta.object;
    let pods: Vec<_> = mesh.pods.values().filter(|pod| selects(&gateway.selector, &pod.labels)).collect();
    if pods.is_empty() && !gateway.selector.is_empty() && !mesh.pods.is_empty() {
        let selector: Vec<String> = gateway.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text = format!("Referenced selector not found: \"{}\"", selector.join(","));
        found.add(Some("IST0101"), object, "spec.selector", text);
    }
    let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
    let open: BTreeSet<u16> = catalog
        .services
        .values()
        .filter(|service| {
            !service.selector.is_empty()
                && pods
                    .iter()
                    .any(|pod| *pod.namespace == *service.id.namespace && selects(&service.selector, &pod.labels))
        })
        .flat_map(|service| service.ports.iter().map(|port| port.number))
        .collect();
    for server in &gateway.servers {
        let path = format!("spec.servers[{}]", server.index);
        if !pods.is_empty() && !open.contains(&server.port) {
            let text = format!(
                "The gateway is listening on a target port (port {}) that is not defined in the Service associated with its workload instances (Pod selector {}).",
                server.port,
                gateway.selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
            );
            found.add(Some("IST0162"), object, format!("{path}.port.number"), text);
        }
        if let ServerMode::Tls { certificate: ServerCertificate::Secret(name), .. } = &server.mode {
            let missing: Vec<&str> = namespaces
                .iter()
                .filter(|namespace| !mesh.secrets.contains_key(&ObjectRef::new("Secret", **namespace, name.clone())))
                .copied()
                .collect();
            if !missing.is_empty() {
                let text = format!("Referenced credentialName not found: \"{name}\"");
                found.add(Some("IST0101"), object, format!("{path}.tls.credentialName"), text);
            }
        }
        if server.mode == ServerMode::Closed {
            let text = "serves nothing: it asks for protection that is not enforced yet";
            found.add(None, object, path, text);
        }
    }
}

/// Servers of Gateways with the same selector that would use one port in two ways.
fn ports_claimed_twice(mesh: &Mesh, found: &mut Findings) {
    let mut claimed: BTreeMap<(&_, Option<std::net::IpAddr>, u16), (Use, &Gateway)> = BTreeMap::new();
    let mut certificates: BTreeMap<(&_, Option<std::net::IpAddr>, u16, &Host), (&Gateway, &Server)> = BTreeMap::new();
    for gateway in mesh.gateways.iter() {
        for server in &gateway.servers {
            let used = Use::of(server);
            let at = (&gateway.selector, server.bind, server.port);
            let (first, owner) = claimed.entry(at).or_insert((used, gateway));
            let path = format!("spec.servers[{}]", server.index);
            if *first != used {
                let text = format!(
                    "Conflict with gateways {}/{} (workload selector, port {}): another protocol has the port already; this server serves nothing",
                    owner.meta.object.namespace, owner.meta.object.name, server.port
                );
                found.add(Some("IST0145"), &gateway.meta.object, path, text);
                continue;
            }
            if used != Use::Tls {
                continue;
            }
            for host in &server.hosts {
                let (first, other) = *certificates
                    .entry((&gateway.selector, server.bind, server.port, &host.host))
                    .or_insert((gateway, server));
                let same = first.meta.object == gateway.meta.object && other.index == server.index;
                if !same {
                    let text = format!(
                        "Conflict with gateways {}/{} (workload selector, port {}, hosts {}): the oldest one counts",
                        first.meta.object.namespace, first.meta.object.name, server.port, host.host
                    );
                    found.add(Some("IST0145"), &gateway.meta.object, format!("{path}.hosts"), text);
                }
            }
        }
    }
}

fn entries(catalog: &Catalog, found: &mut Findings) {
    let mut protocols: BTreeMap<(&str, u16), Vec<(&Service, &ObjectRef)>> = BTreeMap::new();
    for entry in catalog.service_entries.values() {
        let object = &entry.meta.object;
        let Some(first) = entry.services.first() else { continue };
        for (index, port) in first.ports.iter().enumerate() {
            if !port.protocol.is_http()
                && !port.protocol.is_tls()
                && first.addresses.is_empty()
                && first.resolution == Resolution::Passthrough
            {
                found.add(
                    Some("IST0134"),
                    object,
                    format!("spec.ports[{index}]"),
                    "ServiceEntry addresses are required for this protocol.",
                );
            }
        }
        for service in &entry.services {
            for port in &service.ports {
                protocols.entry((&service.id.host, port.number)).or_default().push((service, object));
            }
        }
    }
    for ((host, number), declared) in protocols {
        for (service, object) in &declared {
            let protocol = |service: &Service| service.port(number).map(|port| port.protocol);
            let sees = |other: &Service| match (&service.export_to, &other.export_to) {
                (Some(ExportTo::Namespaces(a)), Some(ExportTo::Namespaces(b))) => !a.is_disjoint(b),
                _ => true,
            };
            let other = declared.iter().find(|(other, _)| protocol(other) != protocol(service) && sees(other));
            if let Some((_, other)) = other {
                let text = format!(
                    "host {host} port {number} has another protocol in ServiceEntry {}/{}",
                    other.namespace, other.name
                );
                found.add(Some("IST0177"), object, "spec.ports", text);
            }
        }
    }
}

//! Reads a ServiceEntry and a WorkloadEntry.
//!
//! Each host of a ServiceEntry becomes a service of its own.
//! Never here: which endpoints a selector picks (`mesh`). Called by `model::parse`.

use api::{name::Host, note::Notes};

use super::{
    ServiceId, Settings, WorkloadEntry,
    base::{ExportTo, Judge, Meta, Shared},
    rule::ServiceEntry,
    service::{Protocol, Registry, Resolution, Service, ServicePort, TargetPort},
    text,
    workload::{Location, Outside, Place},
};
use crate::object::{Object, networking as raw};

pub(crate) fn parse(
    object: &Object<raw::ServiceEntry, impl Sized>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<ServiceEntry> {
    let meta = Meta::of("ServiceEntry", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let namespace = object.metadata.namespace.as_str();
    let raw::ServiceEntry {
        hosts,
        addresses,
        ports,
        location,
        resolution,
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names,
    } = &object.spec;

    let raw_resolution = resolution.unwrap_or(raw::Resolution::None);
    let resolution = read_resolution(&mut judge, raw_resolution);
    let nets = read_addresses(&mut judge, addresses, resolution);
    let ports = read_ports(&mut judge, ports);
    let selector =
        workload_selector.as_ref().map(|raw| text::selector(&mut judge, "spec.workloadSelector.labels", &raw.labels));
    if selector.is_some() && !endpoints.is_empty() {
        judge.error("spec.endpoints", "only one of workloadSelector, endpoints may be set");
    }
    check_endpoint_count(&mut judge, raw_resolution, endpoints.len(), selector.is_some(), hosts);
    let location = location.unwrap_or(raw::Location::MeshExternal);
    let mut outsides = Vec::with_capacity(endpoints.len());
    for (index, raw) in endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        let outside = outside(&mut judge, &path, raw, (&meta.object.name, namespace), settings, &[], Some(resolution));
        for name in raw.ports.keys().filter(|name| !ports.iter().any(|port| *port.name == ***name)) {
            judge.error(format!("{path}.ports[{name}]"), format!("the entry has no port named {name}"));
        }
        outsides.extend(outside);
    }
    let export_to = ExportTo::read(export_to.iter().map(String::as_str), namespace);
    if hosts.is_empty() {
        judge.error("spec.hosts", "required: at least one host");
    }
    let mut services = Vec::with_capacity(hosts.len());
    for (index, raw) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        let Some(host) = read_host(&mut judge, &path, raw, resolution, endpoints.len()) else { continue };
        services.push(Shared::new(Service {
            id: ServiceId { host: host.as_str().into(), namespace: namespace.into() },
            name: host.as_str().into(),
            meta: meta.clone(),
            registry: Registry::Entry,
            ports: ports.clone(),
            addresses: nets.clone(),
            resolution,
            external: location == raw::Location::MeshExternal,
            export_to: export_to.clone(),
            selector: selector.clone().unwrap_or_default(),
            external_name: None,
            subject_alt_names: subject_alt_names.clone(),
            publish_not_ready: false,
        }));
    }
    (judge.errors() == 0).then_some(ServiceEntry { meta, services, endpoints: outsides, selector })
}

fn read_resolution(judge: &mut Judge<'_>, raw: raw::Resolution) -> Resolution {
    match raw {
        raw::Resolution::None => Resolution::Passthrough,
        raw::Resolution::Static => Resolution::Endpoints,
        raw::Resolution::Dns => Resolution::Dns,
        raw::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        raw::Resolution::DynamicDns => {
            judge.warn("spec.resolution", "not honoured yet: DYNAMIC_DNS is taken as NONE");
            Resolution::Passthrough
        }
    }
}

/// A host of the entry, unless nobody could find out where it is.
fn read_host(judge: &mut Judge<'_>, path: &str, raw: &str, resolution: Resolution, endpoints: usize) -> Option<Host> {
    if raw == "*" {
        judge.error(path, "hostname cannot be wildcard");
        return None;
    }
    let host = judge.read(path, raw.parse::<Host>())?;
    let by_dns = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if host.is_wildcard() && by_dns && endpoints == 0 {
        judge.error(path, "a wildcard cannot be resolved by DNS without endpoints");
        return None;
    }
    Some(host)
}

fn check_endpoint_count(
    judge: &mut Judge<'_>,
    resolution: raw::Resolution,
    endpoints: usize,
    selector: bool,
    hosts: &[String],
) {
    match resolution {
        raw::Resolution::None if endpoints > 0 => judge.error("spec.endpoints", "NONE mode cannot set endpoints"),
        raw::Resolution::DnsRoundRobin if endpoints > 1 => {
            judge.error("spec.endpoints", "DNS_ROUND_ROBIN mode cannot have multiple endpoints");
        }
        raw::Resolution::DnsRoundRobin if endpoints == 0 && hosts.len() > 1 => {
            judge.error("spec.hosts", "DNS_ROUND_ROBIN mode without endpoints must have one host");
        }
        raw::Resolution::Static if endpoints == 0 && !selector => {
            judge.warn("spec.endpoints", "STATIC without endpoints or workloadSelector leads nowhere");
        }
        raw::Resolution::None
        | raw::Resolution::Static
        | raw::Resolution::Dns
        | raw::Resolution::DnsRoundRobin
        | raw::Resolution::DynamicDns => {}
    }
}

fn read_addresses(judge: &mut Judge<'_>, addresses: &[String], resolution: Resolution) -> Vec<ipnet::IpNet> {
    let mut nets = Vec::with_capacity(addresses.len());
    for (index, raw) in addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        if raw.contains('/') && !matches!(resolution, Resolution::Endpoints | Resolution::Passthrough) {
            judge.error(path, "CIDR addresses are allowed only for NONE/STATIC resolution types");
            continue;
        }
        nets.extend(text::subnet(judge, &path, raw));
    }
    nets
}

fn read_ports(judge: &mut Judge<'_>, raw: &[raw::ServicePort]) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(raw.len());
    for (index, raw::ServicePort { number, protocol, name, target_port }) in raw.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let Some(number) = text::port(judge, &format!("{path}.number"), i64::from(*number)) else { continue };
        if ports.iter().any(|other| other.number == number) {
            judge.error(format!("{path}.number"), "port number cannot be duplicated");
            continue;
        }
        if name.is_empty() {
            judge.error(format!("{path}.name"), "required");
            continue;
        }
        if ports.iter().any(|other| *other.name == **name) {
            judge.error(format!("{path}.name"), format!("Duplicate value: {name:?}"));
            continue;
        }
        let protocol = match protocol.as_deref().filter(|text| !text.is_empty()) {
            None => Protocol::Auto,
            Some(text) => match Protocol::named(text) {
                Some(protocol) => protocol,
                None => {
                    judge.error(format!("{path}.protocol"), format!("{text:?} is not a protocol"));
                    continue;
                }
            },
        };
        let target = match target_port {
            None | Some(0) => number,
            Some(target) => match text::port(judge, &format!("{path}.targetPort"), i64::from(*target)) {
                Some(target) => target,
                None => continue,
            },
        };
        ports.push(ServicePort { number, name: name.as_str().into(), protocol, target: TargetPort::Number(target) });
    }
    ports
}

fn unix_location(judge: &mut Judge<'_>, path: &str, socket: &str) -> Location {
    if !(socket.starts_with('/') || socket.starts_with('@')) {
        judge.error(path, "UDS must be an absolute path or abstract socket");
    }
    if socket.ends_with('/') {
        judge.error(path, "UDS may not be a dir");
    }
    Location::Unix(socket.to_owned())
}

/// An address, or a name where the entry's resolution takes names.
fn ip_or_name(judge: &mut Judge<'_>, path: &str, text: &str, resolution: Option<Resolution>) -> Option<Location> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Some(Location::Ip(ip));
    }
    if resolution == Some(Resolution::Endpoints) {
        judge.error(path, format!("{text:?} must be an IP address with resolution STATIC"));
        return None;
    }
    let host = judge.read(path, text.parse::<Host>())?;
    if host.is_wildcard() {
        judge.error(path, "must not be a wildcard");
        return None;
    }
    Some(Location::Name(host.to_string()))
}

fn outside(
    judge: &mut Judge<'_>,
    path: &str,
    raw: &raw::WorkloadEntry,
    (name, namespace): (&str, &str),
    settings: &Settings,
    more_labels: &[(&String, &String)],
    resolution: Option<Resolution>,
) -> Option<Outside> {
    let before = judge.errors();
    let raw::WorkloadEntry { address, ports, labels, network, locality, weight, service_account } = raw;
    let has_network = network.as_deref().is_some_and(|network| !network.is_empty());
    judge.not_honoured(has_network, format!("{path}.network"));
    let address_path = format!("{path}.address");
    let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else {
        if !has_network {
            judge.error(address_path, "Address is required");
        }
        return None;
    };
    let location = match address.strip_prefix("unix://") {
        Some(socket) => {
            let location = unix_location(judge, &address_path, socket);
            if !ports.is_empty() {
                judge.error(path, "UDS may not include ports");
            }
            location
        }
        None => ip_or_name(judge, &address_path, address, resolution)?,
    };
    let mut all = text::labels(judge, &format!("{path}.labels"), labels);
    for (key, value) in more_labels {
        all.entry((*key).clone()).or_insert_with(|| (*value).clone());
    }
    let mut outside = Outside::named(name, namespace, all, &settings.cluster_id);
    outside.location = location;
    for (name, number) in ports {
        let at = format!("{path}.ports[{name}]");
        let good_name = name.len() < 63
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !good_name {
            judge.error(at.as_str(), "port name must be valid");
        }
        if let Some(number) = text::port(judge, &at, i64::from(*number)) {
            outside.ports.insert(name.clone(), number);
        }
    }
    outside.place = locality.as_deref().filter(|text| !text.is_empty()).map(|text| Place::read(text, '/'));
    outside.weight = weight.filter(|weight| *weight > 0).unwrap_or(1);
    outside.service_account = service_account.clone().unwrap_or_default();
    (judge.errors() == before).then_some(outside)
}

pub(crate) fn parse_workload_entry(
    object: &Object<raw::WorkloadEntry>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<WorkloadEntry> {
    let meta = Meta::of("WorkloadEntry", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let more: Vec<_> = object.metadata.labels.iter().collect();
    let name = (meta.object.name.as_str(), meta.namespace());
    let outside = outside(&mut judge, "spec", &object.spec, name, settings, &more, None)?;
    (judge.errors() == 0).then_some(WorkloadEntry { meta, outside })
}

//! Services: what can be called, under which host, addresses and ports.
//!
//! A Kubernetes Service and each host of a ServiceEntry become the same model.
//! Never here: addresses of endpoints, rules about services. Called by the catalog.

use std::{net::IpAddr, sync::Arc};

use api::note::Notes;

use super::{
    ServiceId,
    base::{ExportTo, Judge, Labels, Meta},
};
use crate::object::{IntOrString, core};

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP inside TLS that the mesh does not end.
    Https,
    /// TLS that the mesh does not end.
    Tls,
    /// Any bytes.
    Tcp,
    /// MongoDB, as any bytes.
    Mongo,
    /// Redis, as any bytes.
    Redis,
    /// MySQL, as any bytes.
    Mysql,
    /// Not told: found out from the first bytes.
    Auto,
}

impl Protocol {
    /// Reads a protocol's name, in either case.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            _ => return None,
        })
    }

    /// Protocol of a Service's port; none for those that are not TCP at all.
    fn of_port(port: &core::ServicePort) -> Option<Self> {
        if !(port.protocol.is_empty() || port.protocol == "TCP") {
            return None;
        }
        if let Some(app) = &port.app_protocol {
            let known = match app.as_str() {
                "kubernetes.io/h2c" => Some(Self::Http2),
                "kubernetes.io/ws" => Some(Self::Http),
                "kubernetes.io/wss" => Some(Self::Https),
                other => Self::by_prefix(other),
            };
            return Some(known.unwrap_or(Self::by_number(port.port)));
        }
        Some(Self::by_prefix(&port.name).unwrap_or(Self::by_number(port.port)))
    }

    fn by_prefix(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        if lower == "grpc-web" || lower.starts_with("grpc-web-") {
            return Some(Self::GrpcWeb);
        }
        let first = lower.split('-').next()?;
        if first == "udp" { None } else { Self::named(first) }
    }

    fn by_number(port: u16) -> Self {
        match port {
            25 | 53 | 3306 | 27017 => Self::Tcp, // the server speaks first there: nothing to find out
            _ => Self::Auto,
        }
    }

    /// Whether requests are read.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether a ClientHello comes first, which the mesh does not end.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// Port of the workload behind a service's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that containers give it.
    Name(String),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Number that clients use.
    pub number: u16,
    /// Name, by which endpoints tell their port.
    pub name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the workload.
    pub target: TargetPort,
}

/// Where a service's addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// From endpoints that the control plane knows.
    Endpoints,
    /// From DNS, every address.
    Dns,
    /// From DNS, one address at a time.
    DnsRoundRobin,
    /// The client has found the address itself (headless, `NONE`).
    Passthrough,
}

/// Who declares a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    Entry,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Host and namespace.
    pub id: ServiceId,
    /// Short name for metrics: that of the Service, or the host.
    pub name: Arc<str>,
    /// The object that declares it, and its age.
    pub meta: Meta,
    /// Who declares it.
    pub registry: Registry,
    /// Ports, in the order written.
    pub ports: Vec<ServicePort>,
    /// Addresses that clients use, with the number of leading bits; empty: none of its own.
    pub addresses: Vec<ipnet::IpNet>,
    /// Where its addresses come from.
    pub resolution: Resolution,
    /// Whether it stands outside the mesh (no automatic mTLS).
    pub external: bool,
    /// Which namespaces see it; none: as the mesh says.
    pub export_to: Option<ExportTo>,
    /// Labels of the Pods behind it.
    pub selector: Labels,
    /// The name that it stands for (`ExternalName`).
    pub external_name: Option<String>,
    /// Identities its endpoints may prove, besides those known.
    pub subject_alt_names: Vec<String>,
    /// Whether endpoints count before they are ready.
    pub publish_not_ready: bool,
}

impl Service {
    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The one address of a VIP, where it has one.
    pub fn vip(&self) -> Option<IpAddr> {
        self.addresses.first().filter(|net| net.prefix_len() == net.max_prefix_len()).map(ipnet::IpNet::addr)
    }

    /// Whether clients find the addresses of its endpoints themselves.
    pub fn is_headless(&self) -> bool {
        self.resolution == Resolution::Passthrough && self.registry == Registry::Kubernetes
    }
}

/// The host of a Kubernetes Service.
pub(crate) fn host_of(name: &str, namespace: &str, domain: &str) -> Arc<str> {
    format!("{name}.{namespace}.svc.{domain}").into()
}

pub(crate) fn parse(raw: &core::Service, domain: &str, notes: &mut Notes) -> Service {
    let meta = Meta::of("Service", &raw.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let namespace = raw.metadata.namespace.as_str();
    let name = raw.metadata.name.as_str();
    let spec = &raw.spec;

    let external_name = (spec.kind == "ExternalName").then(|| spec.external_name.trim_end_matches('.').to_owned());
    let headless = spec.cluster_ip == "None";
    let texts =
        if spec.cluster_ips.is_empty() { std::slice::from_ref(&spec.cluster_ip) } else { &spec.cluster_ips[..] };
    let addresses = if external_name.is_some() || headless {
        Vec::new()
    } else {
        texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(ipnet::IpNet::from).collect()
    };

    let mut ports = Vec::with_capacity(spec.ports.len());
    for port in &spec.ports {
        let Some(protocol) = Protocol::of_port(port) else { continue };
        let target = match &port.target_port {
            None => TargetPort::Number(port.port),
            Some(IntOrString::Int(0)) => TargetPort::Number(port.port),
            Some(IntOrString::Int(number)) => match u16::try_from(*number) {
                Ok(number) => TargetPort::Number(number),
                Err(_) => {
                    judge.error("spec.ports.targetPort", format!("{number} is not a port"));
                    continue;
                }
            },
            Some(IntOrString::String(text)) => {
                text.parse().map_or_else(|_| TargetPort::Name(text.clone()), TargetPort::Number)
            }
        };
        ports.push(ServicePort { number: port.port, name: port.name.as_str().into(), protocol, target });
    }

    let export_to = raw
        .metadata
        .annotations
        .get("networking.istio.io/exportTo")
        .and_then(|text| ExportTo::read(text.split(','), namespace));

    Service {
        id: ServiceId { host: host_of(name, namespace, domain), namespace: namespace.into() },
        name: name.into(),
        registry: Registry::Kubernetes,
        ports,
        addresses,
        resolution: match (&external_name, headless) {
            (Some(_), _) => Resolution::Dns,
            (None, true) => Resolution::Passthrough,
            (None, false) => Resolution::Endpoints,
        },
        external: external_name.is_some(),
        export_to,
        selector: spec.selector.clone(),
        external_name,
        subject_alt_names: Vec::new(),
        publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        meta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, number: u16, app: Option<&str>, expected: Protocol) {
        let port = core::ServicePort {
            name: name.to_owned(),
            port: number,
            app_protocol: app.map(str::to_owned),
            ..core::ServicePort::default()
        };
        assert_eq!(Protocol::of_port(&port), Some(expected), "{name} {number} {app:?}");
    }

    #[test]
    fn a_port_name_tells_the_protocol() {
        check("http", 80, None, Protocol::Http);
        check("HTTP-web", 80, None, Protocol::Http);
        check("http2-web", 80, None, Protocol::Http2);
        check("grpc-web", 80, None, Protocol::GrpcWeb);
        check("grpc-web-x", 80, None, Protocol::GrpcWeb);
        check("grpc-x", 80, None, Protocol::Grpc);
        check("https", 443, None, Protocol::Https);
        check("tcp-echo", 9000, None, Protocol::Tcp);
        check("web", 80, None, Protocol::Auto);
        check("httpx", 80, None, Protocol::Auto);
        check("", 3306, None, Protocol::Tcp);
    }

    #[test]
    fn the_application_protocol_beats_the_name() {
        check("tcp", 80, Some("http"), Protocol::Http);
        check("tcp", 80, Some("kubernetes.io/h2c"), Protocol::Http2);
        check("http", 80, Some("kubernetes.io/wss"), Protocol::Https);
        check("http", 80, Some("example.com/x"), Protocol::Auto);
    }
}

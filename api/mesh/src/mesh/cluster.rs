//! Builds clusters and their endpoints.
//!
//! A service's port (or subset) becomes one cluster, shaped by the DestinationRule that the key names.
//! Never here: which clusters a proxy gets (`view`). Called by `build`.

use std::{net::IpAddr, time::Duration};

use api::{
    name::SpiffeId,
    spec::{
        Balance, Breakers, CertificateRef, ClientTls, Cluster, Discovery, Endpoints, Locality, Origin, PRIVATE_ALPN,
        RootsRef, ServiceRef, UpstreamHttp, UpstreamTls, UpstreamVersion,
    },
};

use super::{
    Mesh,
    endpoint::{ServiceEndpoints, of_port},
    key::{ClientKind, ClusterKey, Fixed, InboundCluster},
};
use crate::model::{
    Blocks, DestinationRule, InboundPolicy, Labels, MtlsMode, PolicyTls, Pool, Protocol, Resolution, Service,
    ServicePort, Shared, base::hash_of,
};

/// Address that a proxy connects to its own workload from, so that capture lets it pass.
const INBOUND_SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));

/// Name of a service's cluster.
pub(crate) fn name_of(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// A plain cluster to where the client wanted.
fn plain(mesh: &Mesh, name: &str, discovery: Discovery, balance: Balance) -> Cluster {
    Cluster {
        name: name.to_owned(),
        discovery,
        balance,
        connect_timeout: mesh.config.connect_timeout,
        breakers: Breakers::default(),
        outlier: None,
        tls: UpstreamTls::Off,
        http: UpstreamHttp { version: UpstreamVersion::Downstream, ..UpstreamHttp::default() },
        bind_source: None,
        keepalive: mesh.config.keepalive,
        proxy_header: None,
        service: None,
        origin: None,
    }
}

pub(crate) fn fixed(mesh: &Mesh, which: Fixed) -> Cluster {
    let wanted = Discovery::OriginalDestination;
    match which {
        Fixed::Passthrough => plain(mesh, "PassthroughCluster", wanted, Balance::OriginalDestination),
        Fixed::BlackHole => plain(mesh, "BlackHoleCluster", Discovery::Static(Vec::new()), Balance::LeastRequest),
        Fixed::InboundPassthrough => Cluster {
            bind_source: Some(INBOUND_SOURCE),
            ..plain(mesh, "InboundPassthroughCluster", wanted, Balance::OriginalDestination)
        },
    }
}

/// What a service's cluster is made from.
pub(crate) struct ClusterInputs<'m> {
    service: &'m Shared<Service>,
    port: &'m ServicePort,
    rule: Option<&'m Shared<DestinationRule>>,
    endpoints: Option<&'m ServiceEndpoints>,
}

impl<'m> ClusterInputs<'m> {
    pub(crate) fn of(mesh: &'m Mesh, key: &ClusterKey) -> Option<Self> {
        let service = mesh.services.get(&key.service)?;
        Some(Self {
            service,
            port: service.port(key.port)?,
            rule: key.rule.as_ref().and_then(|name| mesh.rules.get(name)),
            endpoints: mesh.endpoints_of(&key.service).map(|known| &**known),
        })
    }

    /// Version of the cluster: who answers counts, their addresses do not (but for clusters that hold them).
    pub(crate) fn cluster_version(&self, mesh: &Mesh) -> u64 {
        let rule = self.rule.map(Shared::version);
        let held = matches!(self.service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        let addresses = self.endpoints.filter(|_| held).map(|known| known.version);
        let identity = self.endpoints.map(ServiceEndpoints::identity_version);
        let expected = mesh.peers.expected(&self.service.id.namespace);
        hash_of(&(self.service.version(), rule, addresses, identity, expected, mesh.config.version()))
    }

    /// Version of the endpoints, or of those of a subset.
    pub(crate) fn endpoints_version(&self, key: &ClusterKey) -> u64 {
        let chosen = key.subset.as_ref().map(|subset| {
            let labels = subset_labels(self.rule, subset).map(|(_, labels)| labels);
            labels.zip(self.endpoints).map(|(labels, known)| known.version_of(labels))
        });
        match chosen {
            Some(part) => hash_of(&(self.service.version(), part)),
            None => hash_of(&(self.service.version(), self.endpoints.map(|known| known.version))),
        }
    }
}

/// Labels of a subset; none where the rule has no such subset.
fn subset_labels<'r>(rule: Option<&'r Shared<DestinationRule>>, subset: &str) -> Option<(usize, &'r Labels)> {
    let (at, subset) = rule?.subsets.iter().enumerate().find(|(_, part)| part.name == subset)?;
    Some((at, &subset.labels))
}

pub(crate) fn endpoints(key: &ClusterKey, inputs: &ClusterInputs<'_>, name: &str) -> Option<Endpoints> {
    let all = Labels::new();
    let labels = match &key.subset {
        None => &all,
        Some(subset) => subset_labels(inputs.rule, subset)?.1,
    };
    let none = ServiceEndpoints::default();
    let known = inputs.endpoints.unwrap_or(&none);
    Some(of_port(inputs.service, inputs.port, labels, known, name))
}

/// How a kind of client finds the addresses of a service.
pub(crate) fn uses_eds(kind: ClientKind, service: &Service) -> bool {
    match service.resolution {
        Resolution::Endpoints => true,
        Resolution::Passthrough => kind != ClientKind::Sidecar,
        Resolution::Dns | Resolution::DnsRoundRobin => false,
    }
}

pub(crate) fn outbound(mesh: &Mesh, key: &ClusterKey, inputs: &ClusterInputs<'_>, name: &str) -> Option<Cluster> {
    let ClusterInputs { service, port, rule, .. } = inputs;
    let mut origin = None;
    let mut blocks = Blocks::default();
    if let Some(rule) = rule {
        blocks = rule.blocks(key.port, key.subset.as_deref());
        let path = match &key.subset {
            Some(subset) => format!("spec.subsets[{}]", subset_labels(Some(rule), subset)?.0),
            None => "spec".to_owned(),
        };
        origin = Some(Origin { object: rule.meta.object.clone(), path });
    } else if key.subset.is_some() {
        return None;
    }
    let Blocks { balance, pool, outlier, tls, proxy_header } = blocks;
    let pool = pool.unwrap_or_default();

    let refresh = mesh.config.dns_refresh;
    let discovery = if uses_eds(key.kind, service) {
        Discovery::Eds
    } else {
        match service.resolution {
            Resolution::Dns => Discovery::StrictDns { localities: names(key, inputs, name), refresh },
            Resolution::DnsRoundRobin => Discovery::LogicalDns { localities: names(key, inputs, name), refresh },
            Resolution::Passthrough | Resolution::Endpoints => Discovery::OriginalDestination,
        }
    };
    let discovery = if balance == Some(Balance::OriginalDestination) && key.kind == ClientKind::Sidecar {
        Discovery::OriginalDestination
    } else {
        discovery
    };
    let wanted = discovery == Discovery::OriginalDestination;
    let http = UpstreamHttp { version: version(mesh, key.kind, port.protocol, &pool), ..http(&pool) };
    Some(Cluster {
        name: name.to_owned(),
        tls: protection(mesh, key, inputs, tls, wanted, http.version),
        balance: match (wanted, balance) {
            (true, _) => Balance::OriginalDestination,
            (false, None | Some(Balance::OriginalDestination)) => Balance::LeastRequest,
            (false, Some(balance)) => balance,
        },
        connect_timeout: pool.connect_timeout.unwrap_or(mesh.config.connect_timeout),
        breakers: breakers(&pool),
        outlier: if wanted { None } else { outlier },
        http,
        bind_source: None,
        keepalive: pool.keepalive.or(mesh.config.keepalive),
        proxy_header,
        service: Some(service_ref(service)),
        origin: origin.or_else(|| Some(Origin { object: service.meta.object.clone(), path: String::new() })),
        discovery,
    })
}

fn service_ref(service: &Service) -> ServiceRef {
    ServiceRef {
        host: service.id.host.to_string(),
        name: service.name.to_string(),
        namespace: service.id.namespace.to_string(),
    }
}

/// Hosts of a cluster that DNS resolves.
fn names(key: &ClusterKey, inputs: &ClusterInputs<'_>, name: &str) -> Vec<Locality> {
    if let Some(target) = &inputs.service.external_name {
        let address = match target.parse() {
            Ok(ip) => api::spec::Address::Socket(std::net::SocketAddr::new(ip, key.port)),
            Err(_) => api::spec::Address::Name(target.clone(), key.port),
        };
        let endpoint =
            api::spec::Endpoint { address, weight: 1, health: api::spec::Health::Healthy, mtls: false, workload: None };
        return vec![Locality { endpoints: vec![endpoint], ..Locality::default() }];
    }
    endpoints(key, inputs, name).map(|known| known.localities).unwrap_or_default()
}

fn breakers(pool: &Pool) -> Breakers {
    let default = Breakers::default();
    Breakers {
        connections: pool.connections.unwrap_or(default.connections),
        pending: pool.pending.unwrap_or(default.pending),
        requests: pool.requests.unwrap_or(default.requests),
        retries: pool.retries.unwrap_or(default.retries),
    }
}

fn http(pool: &Pool) -> UpstreamHttp {
    let default = UpstreamHttp::default();
    UpstreamHttp {
        version: default.version,
        max_requests_per_connection: pool.requests_per_connection.unwrap_or(0),
        idle_timeout: pool.http_idle.unwrap_or(Duration::from_secs(3600)),
        max_concurrent_streams: pool.streams.unwrap_or(default.max_concurrent_streams),
    }
}

fn version(mesh: &Mesh, kind: ClientKind, protocol: Protocol, pool: &Pool) -> UpstreamVersion {
    if protocol.is_http2() {
        UpstreamVersion::Http2
    } else if pool.client_protocol {
        UpstreamVersion::Downstream
    } else if protocol == Protocol::Http && pool.upgrade.unwrap_or(mesh.config.h2_upgrade) {
        UpstreamVersion::Http2
    } else if protocol == Protocol::Auto && kind != ClientKind::Gateway {
        UpstreamVersion::Downstream
    } else {
        UpstreamVersion::Http1
    }
}

fn protection(
    mesh: &Mesh,
    key: &ClusterKey,
    inputs: &ClusterInputs<'_>,
    tls: Option<PolicyTls>,
    wanted: bool,
    version: UpstreamVersion,
) -> UpstreamTls {
    let service = inputs.service;
    let own = |subject_alt_names: Vec<String>, sni: Option<String>| {
        let subject_alt_names =
            if subject_alt_names.is_empty() { identities(mesh, service, inputs.endpoints) } else { subject_alt_names };
        ClientTls {
            sni: Some(sni.unwrap_or_else(|| {
                let subset = key.subset.as_deref().unwrap_or_default();
                format!("outbound_.{}_.{subset}_.{}", key.port, service.id.host)
            })),
            alpn: mesh_alpn(inputs.port.protocol, version),
            certificate: Some(CertificateRef::Workload),
            roots: Some(RootsRef::Mesh),
            subject_alt_names,
            insecure: false,
            mesh: true,
        }
    };
    match tls {
        Some(PolicyTls::Off) => UpstreamTls::Off,
        Some(PolicyTls::Mesh { subject_alt_names, sni }) => UpstreamTls::On(own(subject_alt_names, sni)),
        Some(PolicyTls::Given(mut given)) => {
            if given.subject_alt_names.is_empty() {
                given.subject_alt_names.clone_from(&service.subject_alt_names);
            }
            given.alpn = match version {
                UpstreamVersion::Http2 => vec!["h2".to_owned()],
                UpstreamVersion::Downstream => vec!["h2".to_owned(), "http/1.1".to_owned()],
                UpstreamVersion::Http1 => Vec::new(),
            };
            UpstreamTls::On(*given)
        }
        None => {
            let automatic = mesh.config.auto_mtls
                && !service.external
                && key.kind != ClientKind::Proxyless
                && mesh.peers.expected(&service.id.namespace) != MtlsMode::Disable;
            // without known addresses there is no "each endpoint as it takes it": all of them, or none
            let all = inputs.endpoints.is_some_and(|known| known.all_mtls);
            if !automatic || wanted && !all {
                UpstreamTls::Off
            } else if wanted {
                UpstreamTls::On(own(Vec::new(), None))
            } else {
                UpstreamTls::Auto(own(Vec::new(), None))
            }
        }
    }
}

/// Protocols that a client of the mesh offers: the HTTP version, marked as the mesh's own, then without the mark. What
/// may carry HTTP/1 requests offers first to carry them on HTTP/2.
fn mesh_alpn(protocol: Protocol, version: UpstreamVersion) -> Vec<String> {
    let names: &[&str] = match (protocol.is_http(), version) {
        (true, UpstreamVersion::Http1) => &[PRIVATE_ALPN, "istio-http/1.1", "istio", "http/1.1"],
        (true, UpstreamVersion::Http2) => &["istio-h2", "istio", "h2"],
        (true, UpstreamVersion::Downstream) => &[PRIVATE_ALPN, "istio"],
        (false, _) if protocol == Protocol::Auto => &[PRIVATE_ALPN, "istio"],
        (false, _) => &["istio"],
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Identities that the endpoints of a service may prove.
fn identities(mesh: &Mesh, service: &Service, endpoints: Option<&ServiceEndpoints>) -> Vec<String> {
    let accounts = endpoints.into_iter().flat_map(|known| &known.accounts);
    let mut all: Vec<String> = accounts
        .filter_map(|(namespace, account)| SpiffeId::new(&mesh.config.trust_domain, namespace, account).ok())
        .map(|id| id.to_string())
        .chain(service.subject_alt_names.iter().cloned())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Version of a cluster to the workload's own port.
pub(crate) fn inbound_version(mesh: &Mesh, key: &InboundCluster) -> u64 {
    let rule = key.rule.as_ref().and_then(|name| mesh.rules.get(name)).map(Shared::version);
    hash_of(&(mesh.services.get(&key.service).map(Shared::version), rule, mesh.config.version()))
}

pub(crate) fn inbound(mesh: &Mesh, key: &InboundCluster, name: &str) -> Option<Cluster> {
    let service = mesh.services.get(&key.service)?;
    let pool = key
        .rule
        .as_ref()
        .and_then(|rule| mesh.rules.get(rule))
        .and_then(|rule| rule.blocks(key.service_port, None).pool)
        .unwrap_or_default();
    let (discovery, balance, bind_source) = if key.loopback {
        let address = std::net::SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), key.port);
        let endpoint = api::spec::Endpoint {
            address: api::spec::Address::Socket(address),
            weight: 1,
            health: api::spec::Health::Healthy,
            mtls: false,
            workload: None,
        };
        let here = Locality { endpoints: vec![endpoint], ..Locality::default() };
        (Discovery::Static(vec![here]), Balance::LeastRequest, None)
    } else {
        (Discovery::OriginalDestination, Balance::OriginalDestination, Some(INBOUND_SOURCE))
    };
    Some(Cluster {
        connect_timeout: pool.connect_timeout.unwrap_or(mesh.config.connect_timeout),
        breakers: breakers(&pool),
        http: UpstreamHttp { version: UpstreamVersion::Downstream, ..http(&pool) },
        bind_source,
        keepalive: pool.keepalive.or(mesh.config.keepalive),
        service: Some(service_ref(service)),
        origin: Some(Origin { object: service.meta.object.clone(), path: String::new() }),
        ..plain(mesh, name, discovery, balance)
    })
}

/// Whether inbound connections go to the loopback.
pub(crate) fn loopback(mesh: &Mesh) -> bool {
    mesh.config.inbound == InboundPolicy::Localhost
}

//! Clusters of every sort, and endpoints.
//!
//! Never here: expectations. Called by `spec`.

use std::{net::SocketAddr, time::Duration};

use api::spec::*;

use super::{origin, socket, words};

fn mesh_client(host: &str) -> ClientTls {
    ClientTls {
        sni: Some(format!("outbound_.9080_._.{host}")),
        alpn: words(&[PRIVATE_ALPN, "istio-peer-exchange", "istio"]),
        certificate: Some(CertificateRef::Workload),
        roots: Some(RootsRef::Mesh),
        subject_alt_names: words(&["spiffe://cluster.local/ns/shop/sa/reviews"]),
        insecure: false,
        mesh: true,
    }
}

fn endpoint(address: Address, mtls: bool) -> Endpoint {
    Endpoint {
        address,
        weight: 3,
        health: Health::Healthy,
        mtls,
        workload: Some(Workload {
            name: "reviews-v1".to_owned(),
            namespace: "shop".to_owned(),
            canonical_name: "reviews".to_owned(),
            canonical_revision: "v1".to_owned(),
            cluster: "Kubernetes".to_owned(),
        }),
    }
}

fn place(priority: u32, weight: u32, endpoints: Vec<Endpoint>) -> Locality {
    let zone = format!("zone-{priority}");
    Locality { region: "region".to_owned(), zone, sub_zone: String::new(), priority, weight, endpoints }
}

fn cluster(name: &str, discovery: Discovery) -> Cluster {
    Cluster {
        name: name.to_owned(),
        discovery,
        balance: Balance::LeastRequest,
        connect_timeout: Duration::from_secs(10),
        breakers: Breakers::default(),
        outlier: None,
        tls: UpstreamTls::Off,
        http: UpstreamHttp::default(),
        bind_source: None,
        keepalive: None,
        proxy_header: None,
        service: None,
        origin: None,
    }
}

/// Long and flat: one cluster after the other.
pub(super) fn clusters() -> Vec<Cluster> {
    let host = "reviews.shop.svc.cluster.local";
    let local = |port| endpoint(Address::Socket(SocketAddr::from(([127, 0, 0, 1], port))), false);
    let named = |name: &str| endpoint(Address::Name(name.to_owned(), 443), false);
    let refresh = Duration::from_secs(60);
    let external = ClientTls { alpn: words(&["h2", "http/1.1"]), ..ClientTls::default() };
    vec![
        Cluster {
            outlier: Some(Outlier {
                consecutive_5xx: 5,
                consecutive_gateway: 0,
                consecutive_local: 2,
                split_local: true,
                interval: Duration::from_secs(10),
                base_ejection: Duration::from_secs(30),
                max_ejection_percent: 10,
                min_health_percent: 30,
            }),
            tls: UpstreamTls::Auto(mesh_client(host)),
            http: UpstreamHttp { version: UpstreamVersion::Downstream, ..UpstreamHttp::default() },
            service: Some(ServiceRef {
                host: host.to_owned(),
                name: "reviews".to_owned(),
                namespace: "shop".to_owned(),
            }),
            origin: origin("DestinationRule"),
            keepalive: Some(Keepalive {
                probes: Some(3),
                time: Some(Duration::from_secs(60)),
                interval: Some(Duration::from_secs(5)),
            }),
            ..cluster("outbound|9080|v1|reviews.shop.svc.cluster.local", Discovery::Eds)
        },
        Cluster {
            tls: UpstreamTls::On(mesh_client(host)),
            balance: Balance::Random,
            http: UpstreamHttp {
                version: UpstreamVersion::Http2,
                max_requests_per_connection: 100,
                ..UpstreamHttp::default()
            },
            ..cluster("outbound|9080|v2|reviews.shop.svc.cluster.local", Discovery::Eds)
        },
        Cluster {
            bind_source: Some([127, 0, 0, 6].into()),
            balance: Balance::RoundRobin,
            ..cluster("inbound|9080||", Discovery::Static(vec![place(0, 0, vec![local(9080)])]))
        },
        Cluster {
            tls: UpstreamTls::On(external.clone()),
            ..cluster(
                "outbound|443||one.example.com",
                Discovery::LogicalDns { localities: vec![place(0, 0, vec![named("one.example.com")])], refresh },
            )
        },
        Cluster {
            tls: UpstreamTls::On(ClientTls { sni: Some("two.example.com".to_owned()), ..external.clone() }),
            ..cluster(
                "outbound|443||two.example.com",
                Discovery::StrictDns { localities: vec![place(0, 1, vec![named("localhost"), local(1)])], refresh },
            )
        },
        Cluster {
            tls: UpstreamTls::On(ClientTls { insecure: true, ..external }),
            ..cluster("outbound|443||insecure", Discovery::Static(vec![place(0, 0, vec![local(2)])]))
        },
        Cluster {
            balance: Balance::OriginalDestination,
            ..cluster("PassthroughCluster", Discovery::OriginalDestination)
        },
        cluster("BlackHoleCluster", Discovery::Static(Vec::new())),
    ]
}

pub(super) fn endpoints() -> Vec<Endpoints> {
    let at = |address: &str, mtls| endpoint(Address::Socket(socket(address)), mtls);
    ["v1", "v2"]
        .map(|subset| Endpoints {
            cluster: format!("outbound|9080|{subset}|reviews.shop.svc.cluster.local"),
            localities: vec![
                place(0, 0, vec![at("198.18.0.5:9080", true), at("198.18.0.6:9080", false)]),
                place(1, 4, vec![endpoint(Address::Unix("/run/reviews".to_owned()), false)]),
            ],
        })
        .into()
}

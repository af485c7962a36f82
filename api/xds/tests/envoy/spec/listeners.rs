//! Listeners of a sidecar and of a gateway, with authorization and logs.
//!
//! Never here: expectations. Called by `spec`.

use std::{sync::Arc, time::Duration};

use api::spec::*;

use super::{origin, routes::table, socket, way, words};

fn authorization() -> Vec<Authorization> {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    let source = vec![
        AuthorizationClause::is(SourceTest::Principals(words(&[
            "cluster.local/ns/shop/sa/sleep",
            "*",
            "*/sa/a",
            "cluster.local/*",
        ]))),
        AuthorizationClause::is_not(SourceTest::Principals(words(&["cluster.local/ns/bad/sa/bad"]))),
        AuthorizationClause::is(SourceTest::Namespaces(words(&["shop", "sh*", "*op", "*"]))),
        AuthorizationClause::is_not(SourceTest::TrustDomains(words(&["bad.domain", "bad*", "*bad"]))),
        AuthorizationClause::is(SourceTest::Addresses(nets(&["10.0.0.0/8", "fd00::/8"]))),
    ];
    let asked = vec![
        AuthorizationClause::is(SourceTest::Header("x-role".to_owned(), words(&["a", "b*", "*c", "*"]))),
        AuthorizationClause::is_not(SourceTest::Header("x-role".to_owned(), words(&["d"]))),
    ];
    let operation = vec![
        AuthorizationClause::is(OperationTest::Hosts(words(&["reviews.shop", "*.shop", "a*", "*"]))),
        AuthorizationClause::is_not(OperationTest::Hosts(words(&["secret.com"]))),
        AuthorizationClause::is(OperationTest::Ports(vec![9080])),
        AuthorizationClause::is(OperationTest::Methods(words(&["GET", "P*"]))),
        AuthorizationClause::is_not(OperationTest::Paths(words(&["/secret", "/secret/{*}/x", "/a/{**}/"]))),
        AuthorizationClause::is(OperationTest::Paths(words(&["/info*", "/admin", "*.html", "*", "/{*}/{**}"]))),
        AuthorizationClause::is(OperationTest::Paths(words(&["/{*}/{*}/{*}/{*}/{*}/{*}/{*}/a"]))),
        AuthorizationClause::is_not(OperationTest::Addresses(nets(&["198.18.0.0/16"]))),
        AuthorizationClause::is(OperationTest::ServerNames(words(&["a.com", "*.com", "a*", "*"]))),
    ];
    let rule = |index: usize, from, to| AuthorizationRule {
        name: format!("ns[shop]-policy[reviews]-rule[{index}]"),
        from,
        to,
        origin: None,
    };
    let port = vec![AuthorizationClause::is(OperationTest::Ports(vec![9080]))];
    vec![
        Authorization {
            action: AuthorizationAction::Deny,
            rules: vec![rule(0, vec![source.clone(), asked], vec![operation])],
        },
        Authorization {
            action: AuthorizationAction::Allow,
            rules: vec![rule(0, Vec::new(), Vec::new()), rule(1, vec![source], vec![port])],
        },
        Authorization { action: AuthorizationAction::Allow, rules: Vec::new() },
    ]
}

fn log(format: Option<&str>, json: bool) -> Option<AccessLog> {
    Some(AccessLog { path: "/dev/null".to_owned(), format: format.map(str::to_owned), json })
}

fn http(routes: RoutesRef) -> HttpServer {
    HttpServer {
        stat_prefix: "outbound_0.0.0.0_9080".to_owned(),
        routes,
        codec: Codec::Auto,
        client_cert: ClientCertHeader::Sanitize,
        edge: false,
        upgrades: true,
        authorization: Vec::new(),
        access_log: log(None, false),
        http10: false,
        normalize: PathNormalization::Base,
        idle_timeout: Duration::ZERO,
        metrics: true,
    }
}

fn tcp(clusters: Vec<WeightedCluster>) -> Network {
    Network::Tcp(Box::new(TcpServer {
        stat_prefix: "PassthroughCluster".to_owned(),
        clusters,
        authorization: Vec::new(),
        access_log: log(None, true),
        idle_timeout: Duration::from_secs(3600),
        max_duration: Duration::from_secs(7200),
        metrics: true,
    }))
}

fn chain(name: &str, matches: ChainMatch, network: Network) -> FilterChain {
    FilterChain { name: name.to_owned(), matches, tls: None, network }
}

fn server_tls(certificate: CertificateRef, mesh: bool) -> ServerTls {
    ServerTls {
        certificate,
        client_roots: mesh.then_some(RootsRef::Mesh),
        require_client_certificate: mesh,
        trust_domains: if mesh { words(&["cluster.local", "old.domain"]) } else { Vec::new() },
        alpn: words(&[PRIVATE_ALPN, "h2", "http/1.1"]),
        mesh,
        min_version: TlsVersion::V1_2,
    }
}

fn detect(tls: bool, http: bool) -> Detect {
    Detect { tls, http, ..Detect::default() }
}

fn listener(name: &str, address: &str, direction: Direction, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.to_owned(),
        address: socket(address),
        direction,
        bind: false,
        use_original_destination: false,
        detect: detect(true, true),
        chains,
        default_chain: None,
        origin: None,
    }
}

fn named(routes: &str) -> HttpServer {
    http(RoutesRef::Named(routes.to_owned()))
}

fn as_http(server: HttpServer) -> Network {
    Network::Http(Box::new(server))
}

fn virtual_outbound() -> Listener {
    Listener {
        bind: true,
        use_original_destination: true,
        detect: Detect::default(),
        default_chain: Some(chain("passthrough", ChainMatch::default(), tcp(vec![way("PassthroughCluster", 1)]))),
        ..listener(
            "virtualOutbound",
            "127.0.0.1:0",
            Direction::Outbound,
            vec![chain(
                "blackhole",
                ChainMatch { destination_port: Some(15001), ..ChainMatch::default() },
                tcp(vec![way("BlackHoleCluster", 1)]),
            )],
        )
    }
}

fn virtual_inbound() -> Listener {
    let alpn = |list: &[&str], transport| ChainMatch {
        destination_port: Some(9080),
        application_protocols: words(list),
        transport: Some(transport),
        ..ChainMatch::default()
    };
    let inbound = || HttpServer {
        client_cert: ClientCertHeader::AppendForward,
        authorization: authorization(),
        normalize: PathNormalization::DecodeAndMergeSlashes,
        http10: true,
        access_log: log(Some("{\"a\": \"%START_TIME%\", \"b\": {\"c\": \"%REQ(X)%\"}}"), true),
        ..http(RoutesRef::Inline(Arc::new(table("inbound|9080||"))))
    };
    let istio = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2", PRIVATE_ALPN];
    let Network::Tcp(mut guarded) = tcp(vec![way("inbound|9080||", 1)]) else { unreachable!() };
    guarded.authorization = authorization();
    Listener {
        bind: true,
        ..listener(
            "virtualInbound",
            "127.0.0.2:0",
            Direction::Inbound,
            vec![
                FilterChain {
                    tls: Some(server_tls(CertificateRef::Workload, true)),
                    ..chain("9080-mtls", alpn(&istio, Transport::Tls), as_http(inbound()))
                },
                chain("9080-tls", alpn(&[], Transport::Tls), Network::Tcp(guarded)),
                chain("9080-http", alpn(&["http/1.1", "h2c"], Transport::Raw), as_http(inbound())),
                chain("private", alpn(&[PRIVATE_ALPN], Transport::Raw), as_http(inbound())),
                chain("rest", ChainMatch::default(), tcp(vec![way("PassthroughCluster", 1)])),
            ],
        )
    }
}

fn outbound_http() -> Listener {
    Listener {
        default_chain: Some(chain("tcp", ChainMatch::default(), tcp(vec![way("PassthroughCluster", 1)]))),
        ..listener(
            "0.0.0.0_9080",
            "0.0.0.0:9080",
            Direction::Outbound,
            vec![chain(
                "http",
                ChainMatch {
                    transport: Some(Transport::Raw),
                    application_protocols: words(&["http/1.1", "h2c"]),
                    ..ChainMatch::default()
                },
                as_http(named("9080")),
            )],
        )
    }
}

fn outbound_tcp() -> Listener {
    listener(
        "198.19.0.7_3306",
        "198.19.0.7:3306",
        Direction::Outbound,
        vec![chain(
            "mysql",
            ChainMatch {
                destination_ranges: vec!["198.19.0.7/32".parse().unwrap()],
                source_ranges: vec!["198.18.0.0/16".parse().unwrap()],
                ..ChainMatch::default()
            },
            tcp(vec![
                way("outbound|443||one.example.com", 30),
                way("PassthroughCluster", 70),
                way("BlackHoleCluster", 0),
            ]),
        )],
    )
}

fn gateway() -> Listener {
    Listener {
        bind: true,
        origin: origin("Gateway"),
        detect: Detect { timeout: Duration::from_secs(5), ..detect(true, false) },
        ..listener(
            "127.0.0.3_0",
            "127.0.0.3:0",
            Direction::Gateway,
            vec![FilterChain {
                tls: Some(ServerTls {
                    min_version: TlsVersion::V1_3,
                    ..server_tls(CertificateRef::Secret("kubernetes://shop".to_owned()), false)
                }),
                ..chain(
                    "shop",
                    ChainMatch {
                        server_names: words(&["shop.example.com", "*.shop.example.com"]),
                        ..ChainMatch::default()
                    },
                    as_http(HttpServer { edge: true, codec: Codec::Http1, ..named("https.443.shop") }),
                )
            }],
        )
    }
}

pub(super) fn listeners() -> Vec<Listener> {
    vec![virtual_outbound(), virtual_inbound(), outbound_http(), outbound_tcp(), gateway()]
}

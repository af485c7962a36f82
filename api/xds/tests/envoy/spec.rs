//! What a sidecar and a gateway are told, in all the shapes that the spec knows.
//!
//! Written out by hand, so that every field that is encoded is seen by a real Envoy at least once.
//! Never here: expectations. Used by the test of this folder.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{name::Percent, note::ObjectRef, spec::*};

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn origin(kind: &str) -> Option<Origin> {
    Some(Origin { object: ObjectRef::new(kind, "shop", "reviews"), path: "spec.http[0]".to_owned() })
}

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

fn clusters() -> Vec<Cluster> {
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

fn endpoints() -> Vec<Endpoints> {
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

fn way(cluster: &str, weight: u32) -> WeightedCluster {
    WeightedCluster { cluster: cluster.to_owned(), weight, headers: HeaderChanges::default() }
}

fn forward(clusters: Vec<WeightedCluster>) -> Forward {
    Forward {
        clusters,
        timeout: None,
        retry: None,
        path: None,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: 1 << 20,
    }
}

fn route(path: PathMatch, action: Action) -> Route {
    Route {
        name: "default".to_owned(),
        matches: RouteMatch { path, ..RouteMatch::default() },
        action,
        headers: HeaderChanges::default(),
        fault: None,
        operation: "reviews.shop.svc.cluster.local:9080/*".to_owned(),
        origin: origin("VirtualService"),
    }
}

fn routes() -> Vec<Route> {
    let v1 = "outbound|9080|v1|reviews.shop.svc.cluster.local";
    let v2 = "outbound|9080|v2|reviews.shop.svc.cluster.local";
    let lines = |name: &str| vec![(name.to_owned(), "%REQ(:PATH)%".to_owned())];
    let ops = HeaderOps { set: lines("x-set"), add: lines("x-add"), remove: words(&["x-gone"]) };
    let changes = HeaderChanges { request: ops.clone(), response: ops };
    let header = |name: &str, value, invert| HeaderMatch { name: name.to_owned(), value, invert };
    let regex = || TextMatch::Regex("v[0-9]+".to_owned());
    let query = |name: &str, value| QueryMatch { name: name.to_owned(), value };
    let rewrite = |path| Action::Forward(Box::new(Forward { path: Some(path), ..forward(vec![way(v1, 1)]) }));
    vec![
        Route {
            matches: RouteMatch {
                path: PathMatch::Prefix("/Api".to_owned()),
                ignore_case: true,
                headers: vec![
                    header("end-user", TextMatch::Exact("jason".to_owned()), false),
                    header("x-p", TextMatch::Prefix("p".to_owned()), true),
                    header("x-s", TextMatch::Suffix("s".to_owned()), false),
                    header(":method", TextMatch::Exact("GET".to_owned()), false),
                    header("x-there", TextMatch::Present, true),
                    header("x-r", regex(), false),
                ],
                query: vec![
                    query("a", TextMatch::Present),
                    query("b", TextMatch::Exact("1".to_owned())),
                    query("c", regex()),
                ],
            },
            headers: changes.clone(),
            fault: Some(Fault {
                delay: Some((Duration::from_secs(7), Percent::ALL)),
                abort: Some((AbortWith::Http(500), Percent::try_from(0.5).unwrap())),
            }),
            ..route(
                PathMatch::default(),
                Action::Forward(Box::new(Forward {
                    timeout: Some(Duration::from_millis(500)),
                    retry: Some(Retry {
                        attempts: 2,
                        on: words(&["connect-failure", "refused-stream", "unavailable", "retriable-status-codes"]),
                        statuses: vec![503],
                        per_try_timeout: Some(Duration::from_secs(2)),
                        backoff: Duration::from_millis(25),
                        avoid_previous: true,
                    }),
                    mirrors: vec![Mirror { cluster: v2.to_owned(), share: Percent::ALL }],
                    authority: Some("ratings".to_owned()),
                    ..forward(vec![WeightedCluster { headers: changes, ..way(v1, 90) }, way(v2, 10)])
                })),
            )
        },
        route(PathMatch::Exact("/exact".to_owned()), rewrite(PathRewrite::Full("/whole\\path".to_owned()))),
        route(PathMatch::SegmentPrefix("/segment".to_owned()), rewrite(PathRewrite::Prefix("/other".to_owned()))),
        route(
            PathMatch::Regex("/v[0-9]/.*".to_owned()),
            rewrite(PathRewrite::Regex { pattern: "^/v([0-9])/".to_owned(), substitution: "/\\1/".to_owned() }),
        ),
        Route {
            fault: Some(Fault { delay: None, abort: Some((AbortWith::Grpc(14), Percent::ALL)) }),
            ..route(
                PathMatch::Exact("/old".to_owned()),
                Action::Redirect(Redirect {
                    status: 308,
                    scheme: Some("https".to_owned()),
                    authority: Some("new.example.com".to_owned()),
                    port: Some(8443),
                    path: Some("/new".to_owned()),
                    prefix: None,
                }),
            )
        },
        route(
            PathMatch::Exact("/teapot".to_owned()),
            Action::Reply { status: 418, body: "short and stout".to_owned() },
        ),
        route(PathMatch::default(), Action::Forward(Box::new(forward(vec![way("PassthroughCluster", 1)])))),
    ]
}

fn table(name: &str) -> RouteTable {
    let host = |name: &str, domains: &[&str], routes| {
        Arc::new(VirtualHost { name: name.to_owned(), domains: words(domains), routes })
    };
    let none = Action::Reply { status: 502, body: String::new() };
    RouteTable {
        name: name.to_owned(),
        virtual_hosts: vec![
            host("reviews:9080", &["reviews", "reviews.shop.svc.cluster.local", "*.reviews", "198.19.0.5"], routes()),
            host("block_all", &["*"], vec![Route { origin: None, ..route(PathMatch::default(), none) }]),
        ],
        ignore_port: true,
        hosts_apart: false,
    }
}

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

fn listeners() -> Vec<Listener> {
    let named = |name: &str| http(RoutesRef::Named(name.to_owned()));
    let as_http = |server| Network::Http(Box::new(server));
    let any = ChainMatch::default;
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
    vec![
        Listener {
            bind: true,
            use_original_destination: true,
            detect: Detect::default(),
            default_chain: Some(chain("passthrough", any(), tcp(vec![way("PassthroughCluster", 1)]))),
            ..listener(
                "virtualOutbound",
                "127.0.0.1:0",
                Direction::Outbound,
                vec![chain(
                    "blackhole",
                    ChainMatch { destination_port: Some(15001), ..any() },
                    tcp(vec![way("BlackHoleCluster", 1)]),
                )],
            )
        },
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
                    chain("rest", any(), tcp(vec![way("PassthroughCluster", 1)])),
                ],
            )
        },
        Listener {
            default_chain: Some(chain("tcp", any(), tcp(vec![way("PassthroughCluster", 1)]))),
            ..listener(
                "0.0.0.0_9080",
                "0.0.0.0:9080",
                Direction::Outbound,
                vec![chain(
                    "http",
                    ChainMatch {
                        transport: Some(Transport::Raw),
                        application_protocols: words(&["http/1.1", "h2c"]),
                        ..any()
                    },
                    as_http(named("9080")),
                )],
            )
        },
        listener(
            "198.19.0.7_3306",
            "198.19.0.7:3306",
            Direction::Outbound,
            vec![chain(
                "mysql",
                ChainMatch {
                    destination_ranges: vec!["198.19.0.7/32".parse().unwrap()],
                    source_ranges: vec!["198.18.0.0/16".parse().unwrap()],
                    ..any()
                },
                tcp(vec![
                    way("outbound|443||one.example.com", 30),
                    way("PassthroughCluster", 70),
                    way("BlackHoleCluster", 0),
                ]),
            )],
        ),
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
                        ChainMatch { server_names: words(&["shop.example.com", "*.shop.example.com"]), ..any() },
                        as_http(HttpServer { edge: true, codec: Codec::Http1, ..named("https.443.shop") }),
                    )
                }],
            )
        },
    ]
}

/// Everything, but for secrets.
pub(crate) fn resources() -> Vec<Resource> {
    let tables = ["9080", "https.443.shop"].map(table);
    clusters()
        .into_iter()
        .map(|cluster| Resource::Cluster(Arc::new(cluster)))
        .chain(endpoints().into_iter().map(|endpoints| Resource::Endpoints(Arc::new(endpoints))))
        .chain(listeners().into_iter().map(|listener| Resource::Listener(Arc::new(listener))))
        .chain(tables.into_iter().map(|table| Resource::Routes(Arc::new(table))))
        .collect()
}

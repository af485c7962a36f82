//! Random resources in canonical form, for the laws of the codec.
//!
//! Canonical: what the wire has one way to say. A single cluster weighs 1, a rule without conditions has none (not an
//! empty one), mesh TLS is the workload's certificate with the mesh's roots, durations are whole milliseconds.
//! Never here: expectations. Used by the tests of this package.

mod clusters;
mod routes;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use api::{authz, name::Percent, note::ObjectRef, spec::*};
use proptest::{collection::vec, option, prelude::*};

use clusters::{cluster, endpoints};
use routes::{inline_table, route_table, virtual_host, weighted};

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}[a-z0-9]"
}

fn host() -> impl Strategy<Value = String> {
    "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}"
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z]{1,4}){1,3}"
}

fn millis() -> impl Strategy<Value = Duration> {
    (1u64..10_000_000).prop_map(Duration::from_millis)
}

fn millis_or_zero() -> impl Strategy<Value = Duration> {
    (0u64..10_000_000).prop_map(Duration::from_millis)
}

fn percent() -> impl Strategy<Value = Percent> {
    (0u32..=1_000_000).prop_map(|raw| Percent::from_millionths(raw).unwrap())
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32)
            .prop_map(|(address, length)| ipnet::Ipv4Net::new(address.into(), length).unwrap().trunc().into()),
        (any::<[u8; 16]>(), 0u8..=128)
            .prop_map(|(address, length)| ipnet::Ipv6Net::new(address.into(), length).unwrap().trunc().into()),
    ]
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    let kind = prop::sample::select(vec!["VirtualService", "DestinationRule", "Gateway", "Service", "ServiceEntry"]);
    option::of(
        (kind, word(), word(), "(spec\\.http\\[[0-9]\\])?")
            .prop_map(|(kind, namespace, name, path)| Origin { object: ObjectRef::new(kind, namespace, name), path }),
    )
}

/// Values of policies: `exact`, `prefix*`, `*suffix`, `*`; other stars are plain text.
fn policy_text() -> impl Strategy<Value = String> + 'static {
    "[a-z/]{1,5}|[a-z/]{1,5}\\*|\\*[a-z/]{1,5}|\\*|[a-z]\\*[a-z]\\*?|\\*[a-z]\\*"
}

/// Clauses of which each asks for one attribute.
fn clauses<T: Clone + std::fmt::Debug + 'static>(
    test: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Vec<AuthorizationClause<T>>> {
    vec((test, any::<bool>()).prop_map(|(test, not)| AuthorizationClause { test, not }), 1..4).boxed()
}

fn source() -> BoxedStrategy<AuthorizationSource> {
    let texts = || vec(policy_text(), 1..3);
    let parts = || vec("[a-z.-]{1,5}|[a-z]{1,5}\\*|\\*[a-z]{1,5}|\\*", 1..3);
    clauses(prop_oneof![
        texts().prop_map(SourceTest::Principals),
        parts().prop_map(SourceTest::Namespaces),
        parts().prop_map(SourceTest::TrustDomains),
        vec(net(), 1..3).prop_map(SourceTest::Addresses),
        (word(), texts()).prop_map(|(name, texts)| SourceTest::Header(name, texts)),
    ])
}

fn operation() -> BoxedStrategy<AuthorizationOperation> {
    let texts = || vec(policy_text(), 1..3);
    let paths = prop_oneof![policy_text(), "(/[a-z]{1,4}){0,2}/\\{\\*\\}(/[a-z]{1,4}){0,2}", "/[a-z]/\\{\\*\\*\\}/?"];
    clauses(prop_oneof![
        texts().prop_map(OperationTest::Hosts),
        texts().prop_map(OperationTest::Methods),
        vec(paths, 1..3).prop_map(OperationTest::Paths),
        vec(1u16.., 1..3).prop_map(OperationTest::Ports),
        vec(net(), 1..3).prop_map(OperationTest::Addresses),
        texts().prop_map(OperationTest::ServerNames),
    ])
}

fn authorization() -> BoxedStrategy<Authorization> {
    let action = prop_oneof![Just(AuthorizationAction::Allow), Just(AuthorizationAction::Deny)];
    let rule = (word(), word(), vec(source(), 0..3), vec(operation(), 0..3));
    (action, vec(rule, 0..3))
        .prop_map(|(action, rules)| {
            let rules = rules.into_iter().enumerate().map(|(index, (namespace, name, from, to))| AuthorizationRule {
                name: format!("ns[{namespace}]-policy[{name}]-rule[{index}]"),
                from,
                to,
                origin: Some(Origin {
                    object: ObjectRef::new("AuthorizationPolicy", namespace, name),
                    path: format!("spec.rules[{index}]"),
                }),
            });
            let mut rules: Vec<AuthorizationRule> = rules.collect();
            rules.sort_by(|a, b| a.name.cmp(&b.name));
            Authorization { action, rules }
        })
        .boxed()
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    let json = Just(Some(r#"{"a":"%START_TIME%","b":{"c":"x"}}"#.to_owned()));
    let format = prop_oneof![
        option::of("[a-z%_()]{1,9}").prop_map(|format| (format, false)),
        prop_oneof![Just(None), json].prop_map(|format| (format, true)),
    ];
    (path(), format).prop_map(|(path, (format, json))| AccessLog { path, format, json })
}

fn http_server() -> BoxedStrategy<HttpServer> {
    let routes = prop_oneof![
        word().prop_map(RoutesRef::Named),
        inline_table().prop_map(|table| RoutesRef::Inline(Arc::new(table))),
    ];
    let codec = prop_oneof![Just(Codec::Auto), Just(Codec::Http1), Just(Codec::Http2)];
    let client_cert = prop_oneof![
        Just(ClientCertHeader::Sanitize),
        Just(ClientCertHeader::Forward),
        Just(ClientCertHeader::AppendForward),
        Just(ClientCertHeader::SanitizeSet),
    ];
    let normalize = prop_oneof![
        Just(PathNormalization::None),
        Just(PathNormalization::Base),
        Just(PathNormalization::MergeSlashes),
        Just(PathNormalization::DecodeAndMergeSlashes),
    ];
    let head = (word(), routes, codec, client_cert, any::<[bool; 4]>());
    (head, vec(authorization(), 0..3), option::of(access_log()), normalize, millis_or_zero())
        .prop_map(
            |(
                (stat_prefix, routes, codec, client_cert, [edge, upgrades, metrics, http10]),
                authorization,
                access_log,
                normalize,
                idle_timeout,
            )| {
                HttpServer {
                    stat_prefix,
                    routes,
                    codec,
                    http10,
                    client_cert,
                    edge,
                    upgrades,
                    authorization,
                    access_log,
                    normalize,
                    idle_timeout,
                    metrics,
                }
            },
        )
        .boxed()
}

fn tcp_server() -> BoxedStrategy<TcpServer> {
    let times = (millis_or_zero(), millis_or_zero());
    (word(), weighted(false), vec(authorization(), 0..3), option::of(access_log()), times, any::<bool>())
        .prop_map(|(stat_prefix, clusters, authorization, access_log, times, metrics)| TcpServer {
            stat_prefix,
            clusters,
            authorization: authorization.iter().map(authz::for_tcp).collect(),
            access_log,
            idle_timeout: times.0,
            max_duration: times.1,
            metrics,
        })
        .boxed()
}

fn certificate() -> impl Strategy<Value = CertificateRef> {
    prop_oneof![
        Just(CertificateRef::Workload),
        word().prop_map(|name| CertificateRef::Secret(format!("kubernetes://{name}"))),
        (path(), path()).prop_map(|(chain, key)| CertificateRef::Files { chain, key }),
    ]
}

fn roots() -> impl Strategy<Value = RootsRef> {
    prop_oneof![
        Just(RootsRef::Mesh),
        word().prop_map(|name| RootsRef::Secret(format!("kubernetes://{name}"))),
        path().prop_map(RootsRef::File),
    ]
}

fn alpn() -> impl Strategy<Value = Vec<String>> {
    let known = vec![PRIVATE_ALPN, "istio-http/1.1", "istio", "h2", "http/1.1"];
    prop::sample::subsequence(known, 0..5).prop_map(|list| list.into_iter().map(str::to_owned).collect())
}

fn server_tls() -> BoxedStrategy<ServerTls> {
    let version = prop_oneof![Just(TlsVersion::V1_2), Just(TlsVersion::V1_3)];
    (certificate(), option::of((roots(), vec(host(), 0..3))), any::<bool>(), alpn(), version)
        .prop_map(|(certificate, client, require, alpn, min_version)| {
            let (client_roots, trust_domains) =
                client.map_or((None, Vec::new()), |(roots, names)| (Some(roots), names));
            ServerTls {
                mesh: certificate == CertificateRef::Workload && client_roots == Some(RootsRef::Mesh),
                require_client_certificate: require && client_roots.is_some(),
                certificate,
                client_roots,
                trust_domains,
                alpn,
                min_version,
            }
        })
        .boxed()
}

fn client_tls() -> BoxedStrategy<ClientTls> {
    let names = vec(prop_oneof![host(), "spiffe://[a-z]{2}/ns/[a-z]{2}/sa/[a-z]{2}"], 0..3);
    (option::of(host()), alpn(), option::of(certificate()), option::of(roots()), names, any::<bool>())
        .prop_map(|(sni, alpn, certificate, roots, names, insecure)| {
            let mesh = certificate == Some(CertificateRef::Workload) && roots == Some(RootsRef::Mesh);
            let insecure = insecure && !mesh;
            ClientTls {
                sni,
                alpn,
                certificate,
                roots,
                subject_alt_names: if insecure { Vec::new() } else { names },
                insecure,
                mesh,
            }
        })
        .boxed()
}

fn chain() -> BoxedStrategy<FilterChain> {
    let transport = prop_oneof![Just(None), Just(Some(Transport::Raw)), Just(Some(Transport::Tls))];
    let matches = (option::of(1u16..), vec(net(), 0..3), vec(host(), 0..3), transport, alpn(), vec(net(), 0..3))
        .prop_map(
            |(destination_port, destination_ranges, server_names, transport, application_protocols, source_ranges)| {
                ChainMatch {
                    destination_port,
                    destination_ranges,
                    server_names,
                    transport,
                    application_protocols,
                    source_ranges,
                }
            },
        );
    let network = prop_oneof![
        http_server().prop_map(|server| Network::Http(Box::new(server))),
        tcp_server().prop_map(|server| Network::Tcp(Box::new(server))),
    ];
    (word(), matches, option::of(server_tls()), network)
        .prop_map(|(name, matches, tls, network)| FilterChain { name, matches, tls, network })
        .boxed()
}

pub(crate) fn listener() -> BoxedStrategy<Listener> {
    let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound), Just(Direction::Gateway)];
    let detect = (any::<[bool; 3]>(), millis_or_zero()).prop_map(|([tls, http, proxy_header], timeout)| Detect {
        tls,
        http,
        proxy_header,
        timeout,
    });
    (word(), socket(), direction, any::<[bool; 2]>(), detect, vec(chain(), 1..3), option::of(chain()), origin())
        .prop_map(
            |(
                name,
                address,
                direction,
                [bind, use_original_destination],
                detect,
                mut chains,
                default_chain,
                origin,
            )| {
                let mut seen = BTreeSet::new();
                chains.retain(|chain| seen.insert(chain.name.clone()));
                Listener {
                    name,
                    address,
                    direction,
                    bind,
                    use_original_destination,
                    detect,
                    chains,
                    default_chain,
                    origin,
                }
            },
        )
        .boxed()
}

fn secret() -> impl Strategy<Value = Secret> {
    let bytes = || vec(any::<u8>(), 1..9);
    (word(), bytes(), bytes(), any::<bool>()).prop_map(|(name, chain, key, roots)| Secret {
        name,
        value: if roots { SecretValue::Roots(chain) } else { SecretValue::Certificate { chain, key } },
    })
}

/// Any resource.
pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        cluster().prop_map(|cluster| Resource::Cluster(Arc::new(cluster))),
        endpoints().prop_map(|endpoints| Resource::Endpoints(Arc::new(endpoints))),
        listener().prop_map(|listener| Resource::Listener(Arc::new(listener))),
        route_table().prop_map(|table| Resource::Routes(Arc::new(table))),
        virtual_host().prop_map(|host| Resource::VirtualHost(Arc::new(host))),
        secret().prop_map(|secret| Resource::Secret(Arc::new(secret))),
    ]
}

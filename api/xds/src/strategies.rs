//! Random resources in canonical form, for the laws of the codec.
//!
//! Canonical: what the wire has one way to say. A single cluster weighs 1, a rule without conditions has none (not an
//! empty one), mesh TLS is the workload's certificate with the mesh's roots, durations are whole milliseconds.
//! Never here: expectations. Used by the tests of this package.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use api::{authz, name::Percent, note::ObjectRef, spec::*};
use proptest::{collection::vec, option, prelude::*};

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

fn text_match() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        Just(TextMatch::Present),
        word().prop_map(TextMatch::Exact),
        word().prop_map(TextMatch::Prefix),
        word().prop_map(TextMatch::Suffix),
        "[a-z]{1,3}(\\.\\*|\\+|\\[0-9\\])?".prop_map(TextMatch::Regex),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        path().prop_map(PathMatch::SegmentPrefix),
        "/[a-z]{1,4}(\\.\\*|\\+|/v[0-9])".prop_map(PathMatch::Regex),
    ]
}

fn header_ops() -> impl Strategy<Value = HeaderOps> {
    let line = || (word(), word());
    (vec(line(), 0..3), vec(line(), 0..3), vec(word(), 0..3)).prop_map(|(set, add, remove)| HeaderOps {
        set,
        add,
        remove,
    })
}

fn header_changes() -> impl Strategy<Value = HeaderChanges> {
    prop_oneof![
        Just(HeaderChanges::default()),
        (header_ops(), header_ops()).prop_map(|(request, response)| HeaderChanges { request, response }),
    ]
}

fn weighted(headers: bool) -> impl Strategy<Value = Vec<WeightedCluster>> {
    let changes = if headers { header_changes().boxed() } else { Just(HeaderChanges::default()).boxed() };
    vec((word(), 1u32..100, changes), 1..4).prop_map(|list| {
        let single = list.len() == 1;
        list.into_iter()
            .map(|(cluster, weight, headers)| WeightedCluster {
                cluster,
                weight: if single { 1 } else { weight },
                headers,
            })
            .collect()
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let on = prop::sample::subsequence(vec!["connect-failure", "5xx", "reset", "retriable-status-codes"], 0..4);
    (0u32..9, on, vec(400u16..600, 0..3), option::of(millis()), millis(), any::<bool>()).prop_map(
        |(attempts, on, statuses, per_try_timeout, backoff, avoid_previous)| Retry {
            attempts,
            on: on.into_iter().map(str::to_owned).collect(),
            statuses,
            per_try_timeout,
            backoff,
            avoid_previous,
        },
    )
}

fn rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        path().prop_map(PathRewrite::Prefix),
        "/[a-z\\\\]{0,5}".prop_map(PathRewrite::Full),
        (Just("^/a/(.*)$".to_owned()), "/[a-z]{1,3}/\\\\1")
            .prop_map(|(pattern, substitution)| PathRewrite::Regex { pattern, substitution }),
    ]
}

fn forward() -> BoxedStrategy<Forward> {
    let mirror = (word(), percent()).prop_map(|(cluster, share)| Mirror { cluster, share });
    (
        weighted(true),
        option::of(millis()),
        option::of(retry()),
        option::of(rewrite()),
        option::of(host()),
        vec(mirror, 0..3),
        any::<u32>(),
    )
        .prop_map(|(clusters, timeout, retry, path, authority, mirrors, retry_buffer_bytes)| Forward {
            clusters,
            timeout,
            retry,
            path,
            authority,
            mirrors,
            retry_buffer_bytes,
        })
        .boxed()
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = prop::sample::select(vec![301u16, 302, 303, 307, 308]);
    let to =
        prop_oneof![Just((None, None)), path().prop_map(|to| (Some(to), None)), path().prop_map(|to| (None, Some(to)))];
    (status, option::of(word()), option::of(host()), option::of(1u16..), to).prop_map(
        |(status, scheme, authority, port, (path, prefix))| Redirect { status, scheme, authority, port, path, prefix },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => forward().prop_map(|forward| Action::Forward(Box::new(forward))),
        1 => redirect().prop_map(Action::Redirect),
        1 => (200u16..600, ".{0,9}").prop_map(|(status, body)| Action::Reply { status, body }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let with = prop_oneof![(200u16..600).prop_map(AbortWith::Http), (0u32..17).prop_map(AbortWith::Grpc)];
    (option::of((millis(), percent())), option::of((with, percent()))).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn route() -> BoxedStrategy<Route> {
    let header =
        (word(), text_match(), any::<bool>()).prop_map(|(name, value, invert)| HeaderMatch { name, value, invert });
    let query = (word(), text_match()).prop_map(|(name, value)| QueryMatch { name, value });
    let matches = (path_match(), any::<bool>(), vec(header, 0..3), vec(query, 0..3))
        .prop_map(|(path, ignore_case, headers, query)| RouteMatch { path, ignore_case, headers, query });
    ("[a-z]{0,5}", matches, action(), header_changes(), option::of(fault()), "[a-z:/*]{0,5}", origin())
        .prop_map(|(name, matches, action, headers, fault, operation, origin)| Route {
            name,
            matches,
            action,
            headers,
            fault,
            operation,
            origin,
        })
        .boxed()
}

fn virtual_host() -> BoxedStrategy<VirtualHost> {
    (word(), vec(host(), 1..4), vec(route(), 0..4))
        .prop_map(|(name, domains, routes)| VirtualHost { name, domains, routes })
        .boxed()
}

fn route_table() -> impl Strategy<Value = RouteTable> {
    (word(), vec(virtual_host().prop_map(Arc::new), 0..3), any::<bool>())
        .prop_map(|(name, virtual_hosts, ignore_port)| RouteTable { name, virtual_hosts, ignore_port })
}

/// Values of policies: `exact`, `prefix*`, `*suffix`, `*`.
fn policy_text() -> impl Strategy<Value = String> {
    "[a-z/]{1,5}|[a-z/]{1,5}\\*|\\*[a-z/]{1,5}|\\*"
}

fn source() -> impl Strategy<Value = AuthorizationSource> {
    let texts = || vec(policy_text(), 0..3);
    let names = || vec("[a-z-]{1,5}|[a-z]{1,5}\\*|\\*[a-z]{1,5}|\\*", 0..3);
    let nets = || vec(net(), 0..3);
    (texts(), texts(), names(), names(), nets(), nets()).prop_map(
        |(principals, not_principals, namespaces, not_namespaces, ip_blocks, not_ip_blocks)| AuthorizationSource {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            ip_blocks,
            not_ip_blocks,
        },
    )
}

fn operation() -> impl Strategy<Value = AuthorizationOperation> {
    let texts = || vec(policy_text(), 0..3);
    let ports = || vec(1u16.., 0..3);
    (texts(), texts(), ports(), ports(), texts(), texts(), texts(), texts()).prop_map(
        |(hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths)| AuthorizationOperation {
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        },
    )
}

fn authorization() -> BoxedStrategy<Authorization> {
    let action = prop_oneof![Just(AuthorizationAction::Allow), Just(AuthorizationAction::Deny)];
    let rule = (word(), word(), vec(source(), 0..3), vec(operation(), 0..3));
    (action, vec(rule, 0..3))
        .prop_map(|(action, rules)| {
            let rules = rules.into_iter().enumerate().map(|(index, (namespace, name, mut from, mut to))| {
                from.retain(|source| *source != AuthorizationSource::default());
                to.retain(|operation| *operation != AuthorizationOperation::default());
                AuthorizationRule {
                    name: format!("ns[{namespace}]-policy[{name}]-rule[{index}]"),
                    from,
                    to,
                    origin: Some(Origin {
                        object: ObjectRef::new("AuthorizationPolicy", namespace, name),
                        path: format!("spec.rules[{index}]"),
                    }),
                }
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
        route_table().prop_map(|table| RoutesRef::Inline(Arc::new(table))),
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
    let head = (word(), routes, codec, client_cert, any::<[bool; 3]>());
    (head, vec(authorization(), 0..3), option::of(access_log()), normalize, millis_or_zero())
        .prop_map(
            |(
                (stat_prefix, routes, codec, client_cert, [edge, upgrades, metrics]),
                authorization,
                access_log,
                normalize,
                idle_timeout,
            )| {
                HttpServer {
                    stat_prefix,
                    routes,
                    codec,
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
    (word(), weighted(false), vec(authorization(), 0..3), option::of(access_log()), millis_or_zero(), any::<bool>())
        .prop_map(|(stat_prefix, clusters, authorization, access_log, idle_timeout, metrics)| TcpServer {
            stat_prefix,
            clusters,
            authorization: authorization.iter().map(authz::for_tcp).collect(),
            access_log,
            idle_timeout,
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
    let detect =
        (any::<bool>(), any::<bool>(), millis_or_zero()).prop_map(|(tls, http, timeout)| Detect { tls, http, timeout });
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

fn locality(names: bool) -> BoxedStrategy<Locality> {
    let sockets = prop_oneof![socket().prop_map(Address::Socket), path().prop_map(Address::Unix)];
    let address = if names {
        prop_oneof![sockets, (host(), 1u16..).prop_map(|(name, port)| Address::Name(name, port))].boxed()
    } else {
        sockets.boxed()
    };
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy), Just(Health::Draining)];
    let workload = vec(word(), 5).prop_map(|words| Workload {
        name: words[0].clone(),
        namespace: words[1].clone(),
        canonical_name: words[2].clone(),
        canonical_revision: words[3].clone(),
        cluster: words[4].clone(),
    });
    let endpoint = (address, 1u32.., health, any::<bool>(), option::of(workload))
        .prop_map(|(address, weight, health, mtls, workload)| Endpoint { address, weight, health, mtls, workload });
    ("[a-z]{0,3}", "[a-z]{0,3}", "[a-z]{0,3}", 0u32..3, 0u32..9, vec(endpoint, 0..4))
        .prop_map(|(region, zone, sub_zone, priority, weight, endpoints)| Locality {
            region,
            zone,
            sub_zone,
            priority,
            weight,
            endpoints,
        })
        .boxed()
}

pub(crate) fn endpoints() -> impl Strategy<Value = Endpoints> {
    (word(), vec(locality(false), 0..3)).prop_map(|(cluster, localities)| Endpoints { cluster, localities })
}

fn outlier() -> impl Strategy<Value = Outlier> {
    (0u32..9, 0u32..9, 0u32..9, any::<bool>(), millis(), millis(), 0u32..=100, 0u32..=100).prop_map(
        |(
            consecutive_5xx,
            consecutive_gateway,
            consecutive_local,
            split_local,
            interval,
            base_ejection,
            most,
            least,
        )| Outlier {
            consecutive_5xx,
            consecutive_gateway,
            consecutive_local,
            split_local,
            interval,
            base_ejection,
            max_ejection_percent: most,
            min_health_percent: least,
        },
    )
}

fn upstream_http() -> impl Strategy<Value = UpstreamHttp> {
    let version =
        prop_oneof![Just(UpstreamVersion::Http1), Just(UpstreamVersion::Http2), Just(UpstreamVersion::Downstream)];
    (version, any::<u32>(), millis_or_zero(), any::<u32>()).prop_map(
        |(version, max_requests_per_connection, idle_timeout, streams)| UpstreamHttp {
            version,
            max_requests_per_connection,
            idle_timeout,
            max_concurrent_streams: if version == UpstreamVersion::Http1 {
                UpstreamHttp::default().max_concurrent_streams
            } else {
                streams
            },
        },
    )
}

pub(crate) fn cluster() -> BoxedStrategy<Cluster> {
    let one = locality(true).prop_filter_map("one host", |mut place| {
        place.endpoints.truncate(1);
        (place.endpoints.len() == 1).then(|| vec![place])
    });
    let given = |names| vec(locality(names), 0..3);
    let discovery = prop_oneof![
        Just(Discovery::Eds),
        given(false).prop_map(Discovery::Static),
        (given(true), millis()).prop_map(|(localities, refresh)| Discovery::StrictDns { localities, refresh }),
        (one, millis()).prop_map(|(localities, refresh)| Discovery::LogicalDns { localities, refresh }),
        Just(Discovery::OriginalDestination),
    ];
    let balance = prop_oneof![Just(Balance::LeastRequest), Just(Balance::RoundRobin), Just(Balance::Random)];
    let breakers = any::<[u32; 4]>().prop_map(|[connections, pending, requests, retries]| Breakers {
        connections,
        pending,
        requests,
        retries,
    });
    let tls = prop_oneof![
        Just(UpstreamTls::Off),
        client_tls().prop_map(UpstreamTls::Auto),
        client_tls().prop_map(UpstreamTls::On),
    ];
    let seconds = || option::of((0u64..9999).prop_map(Duration::from_secs));
    let keepalive = (option::of(any::<u32>()), seconds(), seconds()).prop_map(|(probes, time, interval)| Keepalive {
        probes,
        time,
        interval,
    });
    let service = (host(), word(), word()).prop_map(|(host, name, namespace)| ServiceRef { host, name, namespace });
    let source = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from)
    ];
    let first = (word(), discovery, balance, millis(), breakers, option::of(outlier()), tls, upstream_http());
    (first, option::of(source), option::of(keepalive), option::of(service), origin())
        .prop_map(
            |(
                (name, discovery, balance, connect_timeout, breakers, outlier, tls, http),
                bind_source,
                keepalive,
                service,
                origin,
            )| {
                Cluster {
                    name,
                    balance: if discovery == Discovery::OriginalDestination {
                        Balance::OriginalDestination
                    } else {
                        balance
                    },
                    discovery,
                    connect_timeout,
                    breakers,
                    outlier,
                    tls,
                    http,
                    bind_source,
                    keepalive,
                    service,
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

//! Random clusters and endpoints.
//!
//! Never here: listeners (`strategies`), routes (`routes`). Called by `strategies`.

use std::time::Duration;

use api::spec::*;
use proptest::{collection::vec, option, prelude::*};

use super::{client_tls, host, millis, millis_or_zero, origin, path, socket, word};

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

pub(super) fn endpoints() -> impl Strategy<Value = Endpoints> {
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

fn discovery() -> BoxedStrategy<Discovery> {
    let one = locality(true).prop_filter_map("one host", |mut place| {
        place.endpoints.truncate(1);
        (place.endpoints.len() == 1).then(|| vec![place])
    });
    let given = |names| vec(locality(names), 0..3);
    prop_oneof![
        Just(Discovery::Eds),
        given(false).prop_map(Discovery::Static),
        (given(true), millis()).prop_map(|(localities, refresh)| Discovery::StrictDns { localities, refresh }),
        (one, millis()).prop_map(|(localities, refresh)| Discovery::LogicalDns { localities, refresh }),
        Just(Discovery::OriginalDestination),
    ]
    .boxed()
}

pub(super) fn cluster() -> BoxedStrategy<Cluster> {
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
    let first = (word(), discovery(), balance, millis(), breakers, option::of(outlier()), tls, upstream_http());
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    (first, option::of(source), option::of(keepalive), option::of(version), option::of(service), origin())
        .prop_map(
            |(
                (name, discovery, balance, connect_timeout, breakers, outlier, tls, http),
                bind_source,
                keepalive,
                proxy_header,
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
                    proxy_header,
                    service,
                    origin,
                }
            },
        )
        .boxed()
}

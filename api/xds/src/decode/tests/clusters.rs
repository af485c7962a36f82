//! Clusters and endpoints that others send, with Envoy's defaults and fields of older years.
//!
//! Never here: listeners and routes (`traffic`), TLS (`tls`). Part of `decode`'s tests.

use std::time::Duration;

use envoy_types::pb::envoy::config::endpoint::v3::{self as endpoint, lb_endpoint::HostIdentifier};

use super::*;

fn lb_endpoint(host: &str, port: u32) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: address(host, port),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[test]
fn a_static_cluster_with_envoys_defaults() {
    let mut wire = cluster_named("service");
    wire.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: "service".to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint("10.0.0.1", 80)],
            ..Default::default()
        }],
        ..Default::default()
    });
    let resource = served(&wire);
    let cluster = cluster_of(&resource);
    let Discovery::Static(places) = &cluster.discovery else { panic!("{cluster:?}") };
    let only = &places[0].endpoints[0];
    assert_eq!((only.weight, only.health, only.mtls), (1, Health::Healthy, false));
    assert_eq!(cluster.balance, Balance::RoundRobin);
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    let Breakers { connections, pending, requests, retries } = cluster.breakers;
    assert_eq!([connections, pending, requests, retries], [1024, 1024, 1024, 3]);
    assert_eq!(cluster.http.version, UpstreamVersion::Http1);
}

#[test]
fn a_dns_cluster_with_fields_of_older_years() {
    let mut wire = cluster_named("google");
    wire.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::Type(1));
    wire.http2_protocol_options = Some(Default::default());
    wire.max_requests_per_connection = number(7);
    wire.load_assignment = Some(endpoint::ClusterLoadAssignment {
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint("www.google.com", 443)],
            ..Default::default()
        }],
        ..Default::default()
    });
    let resource = served(&wire);
    let cluster = cluster_of(&resource);
    let Discovery::StrictDns { localities, refresh } = &cluster.discovery else { panic!("{cluster:?}") };
    assert_eq!(localities[0].endpoints[0].address, Address::Name("www.google.com".to_owned(), 443));
    assert_eq!(*refresh, Duration::from_secs(5));
    assert_eq!((cluster.http.version, cluster.http.max_requests_per_connection), (UpstreamVersion::Http2, 7));
}

#[test]
fn a_balancer_given_as_an_extension() {
    // As Envoy Gateway writes it.
    let policy = |url: &str| cluster::load_balancing_policy::Policy {
        typed_extension_config: Some(core::TypedExtensionConfig {
            name: url.to_owned(),
            typed_config: Some(opaque(&format!("envoy.extensions.load_balancing_policies.{url}"))),
        }),
    };
    let check = |urls: &[&str], want, noted| {
        let mut wire = cluster_named("a");
        wire.lb_policy = 7;
        let policies = urls.iter().map(|url| policy(url)).collect();
        wire.load_balancing_policy = Some(cluster::LoadBalancingPolicy { policies });
        let (resource, notes) = read(&wire).unwrap();
        assert_eq!((cluster_of(&resource).balance, notes.len()), (want, noted), "{urls:?}");
    };
    check(&["random.v3.Random"], Balance::Random, 0);
    check(&["client_side_weighted_round_robin.v3.X", "round_robin.v3.RoundRobin"], Balance::RoundRobin, 0);
    check(&["ring_hash.v3.RingHash"], Balance::LeastRequest, 1);
}

#[test]
fn an_ejection_policy_with_envoys_defaults() {
    let mut wire = cluster_named("a");
    wire.outlier_detection =
        Some(cluster::OutlierDetection { enforcing_success_rate: number(0), ..Default::default() });
    let resource = served(&wire);
    let outlier = cluster_of(&resource).outlier.as_ref().unwrap();
    assert_eq!([outlier.consecutive_5xx, outlier.consecutive_gateway, outlier.consecutive_local], [5, 0, 5]);
    assert_eq!((outlier.max_ejection_percent, outlier.min_health_percent), (10, 50));
    assert_eq!((outlier.interval, outlier.base_ejection), (Duration::from_secs(10), Duration::from_secs(30)));
}

#[test]
fn istios_endpoints() {
    let mut one = lb_endpoint("10.44.0.7", 9080);
    one.health_status = 1;
    one.load_balancing_weight = number(1);
    one.metadata = metadata("istio", &[("workload", "reviews-v1;default;reviews;v1;Kubernetes")]);
    let part = object(&[("tlsMode", "istio")]);
    one.metadata.as_mut().unwrap().filter_metadata.insert("envoy.transport_socket_match".to_owned(), part);
    let wire = endpoint::ClusterLoadAssignment {
        cluster_name: "outbound|9080|v1|reviews.default.svc.cluster.local".to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() }],
        ..Default::default()
    };
    let Resource::Endpoints(endpoints) = served(&wire) else { panic!("endpoints") };
    let only = &endpoints.localities[0].endpoints[0];
    assert!(only.mtls);
    let workload = only.workload.as_ref().unwrap();
    assert_eq!((workload.name.as_str(), workload.canonical_revision.as_str()), ("reviews-v1", "v1"));
}

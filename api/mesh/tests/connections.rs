//! Connections without requests, and the doors of gateways: which chain takes them and where they go.
//!
//! Never here: requests (`rules.rs`), single objects (`objects.rs`). Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::spec::{Network, Node, ProxyKind, Spec};
use api_mesh::mesh;
use support::{resolve, sidecar};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 198.19.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}, {name: x, port: 9999}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: other}
spec: {clusterIP: 198.19.0.2, ports: [{name: http, port: 80}]}
---
";

fn told(more: &str, node: &Node) -> Spec {
    mesh::spec(&resolve(&format!("{SERVICES}{more}")).0, node)
}

/// Chains of a listener as `NAMES RANGES -> CLUSTERS`.
fn chains(spec: &Spec, listener: &str) -> Vec<String> {
    let listener = spec.listeners.get(listener).unwrap_or_else(|| panic!("{:?}", spec.listeners.keys()));
    let all = listener.chains.iter().chain(&listener.default_chain);
    all.map(|chain| {
        let to = match &chain.network {
            Network::Tcp(server) => server.clusters.iter().map(|to| to.cluster.clone()).collect::<Vec<_>>().join(" "),
            Network::Http(_) => "http".to_owned(),
        };
        let ranges = chain.matches.destination_ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ends = if chain.tls.is_some() { " ended" } else { "" };
        format!("{} {}{ends} -> {to}", chain.matches.server_names.join(","), ranges.join(","))
    })
    .collect()
}

const OUTSIDE: &str = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: wiki, namespace: default}, spec: {hosts: ['*.wiki.test', a.wiki.test], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE, location: MESH_EXTERNAL}}\n---\n";

#[test]
fn tls_goes_by_server_name_from_a_sidecar() {
    let routing = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: wiki, namespace: default}, spec: {hosts: ['*.wiki.test'], tls: [{match: [{port: 443, sniHosts: [en.wiki.test]}], route: [{destination: {host: a.default.svc.cluster.local, port: {number: 9000}}}]}]}}";
    let spec = told(&format!("{OUTSIDE}{routing}"), &sidecar(&[]));
    let found = chains(&spec, "0.0.0.0_443");
    assert!(found.contains(&"en.wiki.test  -> outbound|9000||a.default.svc.cluster.local".to_owned()), "{found:?}");
    assert!(found.contains(&"*.wiki.test  -> outbound|443||*.wiki.test".to_owned()), "{found:?}");
    assert!(spec.listeners["0.0.0.0_443"].detect.tls);
}

#[test]
fn a_service_with_an_address_looks_at_tls_only_where_a_rule_asks() {
    let listener = "198.19.0.1_9000";
    assert!(!told("", &sidecar(&[])).listeners[listener].detect.tls);
    let routing = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, namespace: default}, spec: {hosts: [a], tls: [{match: [{sniHosts: [a]}], route: [{destination: {host: b.other.svc.cluster.local, port: {number: 80}}}]}]}}";
    let spec = told(routing, &sidecar(&[]));
    assert!(spec.listeners[listener].detect.tls);
    let own = "outbound|9000||a.default.svc.cluster.local";
    assert_eq!(
        chains(&spec, listener),
        ["a  -> outbound|80||b.other.svc.cluster.local".to_owned(), format!("  -> {own}")]
    );
}

fn edge(server: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: edge, namespace: default}}, spec: {{selector: {{app: edge}}, servers: [{server}]}}}}\n---\n"
    )
}

#[test]
fn a_gateway_passes_tls_on_by_server_name() {
    let gateway =
        edge("{port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.shop.test'], tls: {mode: PASSTHROUGH}}");
    let routing = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop, namespace: default}, spec: {hosts: ['*.shop.test', other.test], gateways: [edge], tls: [{match: [{sniHosts: [a.shop.test]}, {port: 444, sniHosts: [b.shop.test]}], route: [{destination: {host: a, port: {number: 9000}}}]}, {match: [{sniHosts: ['*.shop.test', other.test]}], route: [{destination: {host: a, port: {number: 9999}}}]}]}}";
    let spec = told(&format!("{gateway}{routing}"), &Node { kind: ProxyKind::Gateway, ..sidecar(&[("app", "edge")]) });
    assert_eq!(
        chains(&spec, "0.0.0.0_443"),
        [
            "a.shop.test  -> outbound|9000||a.default.svc.cluster.local",
            "*.shop.test  -> outbound|9999||a.default.svc.cluster.local",
        ]
    );
    let detect = spec.listeners["0.0.0.0_443"].detect;
    assert!(detect.tls && !detect.http && !detect.timeout.is_zero(), "{detect:?}");
}

#[test]
fn a_gateway_ends_the_meshs_own_mtls() {
    let gateway =
        edge("{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*.shop.test'], tls: {mode: ISTIO_MUTUAL}}");
    let spec = told(&gateway, &Node { kind: ProxyKind::Gateway, ..sidecar(&[("app", "edge")]) });
    let tls = spec.listeners["0.0.0.0_443"].chains[0].tls.clone().unwrap();
    assert!(tls.mesh && tls.require_client_certificate && tls.trust_domains == ["cluster.local"], "{tls:?}");
}

#[test]
fn a_gateway_reads_the_proxy_header_where_its_pod_says_so() {
    let gateway = edge("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}");
    for wanted in [false, true] {
        let node = Node { kind: ProxyKind::Gateway, proxy_header: wanted, ..sidecar(&[("app", "edge")]) };
        assert_eq!(told(&gateway, &node).listeners["0.0.0.0_80"].detect.proxy_header, wanted);
    }
}

#[test]
fn connection_settings_of_a_rule_reach_cluster_and_listener() {
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a, namespace: default}, spec: {host: a, trafficPolicy: {proxyProtocol: {version: V2}, connectionPool: {tcp: {maxConnectionDuration: 60s, idleTimeout: 5s}}, portLevelSettings: [{port: {number: 9999}, loadBalancer: {simple: RANDOM}}]}}}";
    let spec = told(rule, &sidecar(&[]));
    let times = |listener: &str| match &spec.listeners[listener].default_chain.as_ref().unwrap().network {
        Network::Tcp(server) => (server.idle_timeout.as_secs(), server.max_duration.as_secs()),
        Network::Http(_) => panic!("http"),
    };
    assert_eq!(times("198.19.0.1_9000"), (5, 60));
    assert_eq!(times("198.19.0.1_9999"), (3600, 0));
    for port in [9000, 9999] {
        let cluster = &spec.clusters[&format!("outbound|{port}||a.default.svc.cluster.local")];
        assert_eq!(cluster.proxy_header, Some(api::spec::ProxyVersion::V2));
    }
}

#[test]
fn a_gateway_asks_clients_for_certificates() {
    let secret = |name: &str, data: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: default}}, stringData: {{{data}}}}}\n---\n"
        )
    };
    let server = |mode: &str| {
        edge(&format!(
            "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*.shop.test'], tls: {{mode: {mode}, credentialName: shop}}}}"
        ))
    };
    let both = secret("shop", "tls.crt: C, tls.key: K, ca.crt: R");
    let apart = secret("shop", "tls.crt: C, tls.key: K") + &secret("shop-cacert", "cacert: R");
    let revoked = secret("shop", "tls.crt: C, tls.key: K, ca.crt: R, ca.crl: L");
    for (mode, secrets, asked, required, roots) in [
        ("SIMPLE", &both, false, false, false),
        ("MUTUAL", &both, true, true, true),
        ("MUTUAL", &apart, true, true, true),
        ("OPTIONAL_MUTUAL", &both, true, false, true),
        ("MUTUAL", &revoked, true, true, false),
    ] {
        let node = Node { kind: ProxyKind::Gateway, ..sidecar(&[("app", "edge")]) };
        let spec = told(&format!("{}{secrets}", server(mode)), &node);
        let tls = spec.listeners["0.0.0.0_443"].chains[0].tls.clone().unwrap();
        assert_eq!((tls.client_roots.is_some(), tls.require_client_certificate), (asked, required), "{mode}");
        assert_eq!(spec.secrets.contains_key("kubernetes://shop-cacert"), roots, "{mode}: {secrets}");
        assert!(spec.secrets.contains_key("kubernetes://shop"), "{mode}");
    }
}

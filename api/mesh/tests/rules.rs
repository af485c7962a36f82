//! What objects mean together, one line a case.
//!
//! Never here: single objects (`objects.rs`), whole specs (`golden.rs`), laws (`laws.rs`).
//! Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::{
    note::Severity,
    spec::{
        Action, AuthorizationAction, AuthorizationClause, AuthorizationRule, Network, Node, OperationTest, ProxyKind,
        SourceTest, Spec, Transport, UpstreamTls,
    },
};
use api_mesh::{
    mesh,
    model::{Catalog, Settings},
    object::Stored,
};
use support::{node, objects, resolve, sidecar};

const SERVICE: &str = "
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
    mesh::spec(&resolve(&format!("{SERVICE}{more}")).0, node)
}

/// Clusters and names of the first virtual host of table 80 that has the domain.
fn routes(spec: &Spec, table: &str, domain: &str) -> Vec<String> {
    let Some(table) = spec.routes.get(table) else { return Vec::new() };
    let host = table.virtual_hosts.iter().find(|host| host.domains.iter().any(|known| known == domain));
    let host = host.unwrap_or_else(|| {
        panic!("no {domain} in {:?}", table.virtual_hosts.iter().map(|h| &h.domains).collect::<Vec<_>>())
    });
    host.routes
        .iter()
        .map(|route| match &route.action {
            Action::Forward(forward) => {
                forward.clusters.iter().map(|to| format!("{}*{}", to.cluster, to.weight)).collect::<Vec<_>>().join(" ")
            }
            Action::Redirect(redirect) => {
                format!("{} {}", redirect.status, redirect.scheme.clone().unwrap_or_default())
            }
            Action::Reply { status, .. } => status.to_string(),
        })
        .collect()
}

#[test]
fn short_names_belong_to_the_clients_namespace() {
    let spec = told("", &sidecar(&[]));
    assert_eq!(routes(&spec, "80", "a"), ["outbound|80||a.default.svc.cluster.local*1"]);
    assert_eq!(routes(&spec, "80", "198.19.0.2"), ["outbound|80||b.other.svc.cluster.local*1"]);
    let domains: Vec<_> = spec.routes["80"].virtual_hosts.iter().flat_map(|host| host.domains.clone()).collect();
    assert!(!domains.contains(&"b".to_owned()) && domains.contains(&"b.other".to_owned()));
}

#[test]
fn unknown_hosts_pass_or_are_blocked() {
    assert_eq!(routes(&told("", &sidecar(&[])), "80", "*"), ["PassthroughCluster*1"]);
    let only = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}}";
    assert_eq!(routes(&told(only, &sidecar(&[])), "80", "*"), ["502"]);
}

#[test]
fn listeners_follow_protocols() {
    let spec = told("", &sidecar(&[]));
    let names: Vec<&str> = spec.listeners.keys().map(String::as_str).collect();
    assert_eq!(names, ["0.0.0.0_80", "198.19.0.1_9000", "198.19.0.1_9999", "virtualInbound", "virtualOutbound"]);
    assert!(
        spec.routes.contains_key("a.default.svc.cluster.local:9999"),
        "a protocol to be found out has a table of its own"
    );
    assert!(spec.listeners["198.19.0.1_9999"].detect.http && !spec.listeners["198.19.0.1_9000"].detect.http);
}

fn virtual_service(name: &str, age: u8, rest: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: '{name}', namespace: default, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}, spec: {rest}}}\n---\n"
    )
}

#[test]
fn the_oldest_virtual_service_of_a_host_counts() {
    let to = |name: &str| format!("{{hosts: [a], http: [{{route: [{{destination: {{host: {name}.example.com}}}}]}}]}}");
    let spec =
        told(&(virtual_service("young", 2, &to("young")) + &virtual_service("old", 1, &to("old"))), &sidecar(&[]));
    assert_eq!(routes(&spec, "80", "a"), ["outbound|80||old.example.com*1"]);
}

#[test]
fn source_labels_choose_when_the_proxy_asks() {
    let vs = virtual_service(
        "x",
        1,
        "{hosts: [a], http: [{match: [{sourceLabels: {app: web}}], route: [{destination: {host: b.other.svc.cluster.local}}]}]}",
    );
    assert_eq!(
        routes(&told(&vs, &sidecar(&[("app", "web")])), "80", "a"),
        ["outbound|80||b.other.svc.cluster.local*1"]
    );
    assert_eq!(
        routes(&told(&vs, &sidecar(&[])), "80", "a"),
        ["outbound|80||a.default.svc.cluster.local*1"],
        "no rule left: default routing"
    );
}

#[test]
fn export_to_hides_from_other_namespaces() {
    let vs = virtual_service("x", 1, "{hosts: [a], exportTo: ['.'], http: [{redirect: {uri: /x}}]}");
    assert_eq!(routes(&told(&vs, &sidecar(&[])), "80", "a"), ["301 "]);
    let other = node(ProxyKind::Sidecar, "p", "other", "198.18.0.8", &[]);
    assert_eq!(routes(&told(&vs, &other), "80", "a.default"), ["outbound|80||a.default.svc.cluster.local*1"]);
}

fn peer(namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p{}, namespace: {namespace}}}, spec: {spec}}}\n---\n",
        spec.len()
    )
}

/// Suffixes of the chains for a port, and of those for all others.
fn chains(more: &str, port: Option<u16>) -> Vec<String> {
    let spec = told(more, &sidecar(&[("app", "a")]));
    spec.listeners["virtualInbound"]
        .chains
        .iter()
        .filter(|chain| chain.matches.destination_port == port)
        .map(|chain| {
            let transport = match chain.matches.transport {
                None => "any",
                Some(Transport::Raw) => "raw",
                Some(Transport::Tls) => "tls",
            };
            let read = match chain.network {
                Network::Http(_) => "http",
                Network::Tcp(_) => "tcp",
            };
            format!("{transport} {read}{}", if chain.tls.is_some() { " mtls" } else { "" })
        })
        .collect()
}

#[test]
fn peer_authentication_decides_what_a_workload_takes() {
    assert_eq!(chains("", Some(8080)), ["tls http mtls", "tls tcp", "raw http"]);
    assert_eq!(chains(&peer("istio-system", "{mtls: {mode: STRICT}}"), Some(8080)), ["tls http mtls"]);
    assert_eq!(chains(&peer("istio-system", "{mtls: {mode: STRICT}}"), None), ["tls http mtls", "tls tcp mtls"]);
    let nearer = peer("istio-system", "{mtls: {mode: STRICT}}") + &peer("default", "{mtls: {mode: DISABLE}}");
    assert_eq!(chains(&nearer, Some(8080)), ["any http"]);
    let nearest = nearer
        + &peer(
            "default",
            "{selector: {matchLabels: {app: a}}, mtls: {mode: UNSET}, portLevelMtls: {8080: {mode: STRICT}, 7: {mode: STRICT}}}",
        );
    assert_eq!(chains(&nearest, Some(8080)), ["tls http mtls"]);
    assert_eq!(chains(&nearest, Some(9000)), ["any tcp"]);
    assert_eq!(chains(&nearest, Some(7)), ["tls http mtls", "tls tcp mtls"]);
}

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

/// Action and names of the rules of each layer; every chain but that of the port itself has the same.
fn layers_of(spec: &Spec, listener: &str) -> Vec<String> {
    let all = spec.listeners[listener].chains.iter().filter(|chain| !chain.name.ends_with("blackhole")).map(|chain| {
        let layers = match &chain.network {
            Network::Http(server) => &server.authorization,
            Network::Tcp(server) => &server.authorization,
        };
        let names =
            |rules: &[AuthorizationRule]| rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>().join(" ");
        layers.iter().map(|layer| format!("{:?} {}", layer.action, names(&layer.rules))).collect::<Vec<_>>()
    });
    let all: Vec<_> = all.collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
    all.into_iter().next().unwrap()
}

fn guards(more: &str, labels: &[(&str, &str)]) -> Vec<String> {
    layers_of(&told(more, &sidecar(labels)), "virtualInbound")
}

#[test]
fn policies_of_the_namespace_and_the_root_hold_where_they_select() {
    let all = policy("default", "own", "{selector: {matchLabels: {app: a}}, rules: [{}, {}]}")
        + &policy("default", "never", "{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}")
        + &policy(
            "istio-system",
            "root",
            "{selector: {matchLabels: {app: a}}, action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]}",
        )
        + &policy("other", "elsewhere", "{}");
    let never = "Deny ns[default]-policy[never]-rule[0]";
    let own = "Allow ns[default]-policy[own]-rule[0] ns[default]-policy[own]-rule[1]";
    assert_eq!(guards(&all, &[("app", "a")]), [&format!("{never} ns[istio-system]-policy[root]-rule[0]"), own]);
    assert_eq!(guards(&all, &[("app", "b")]), [never]);
    assert_eq!(guards(&policy("default", "nobody", "{}"), &[]), ["Allow "]);
    let http = gateway("gw", 1, "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]");
    let guarded = edge(&(http + &policy("istio-system", "edge", "{selector: {matchLabels: {istio: ingressgateway}}}")));
    assert_eq!(layers_of(&guarded, "0.0.0.0_8080"), ["Allow "]);
}

#[test]
fn conditions_are_clauses_of_every_alternative() {
    let rule = "{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}, {source: {serviceAccounts: [c]}}], when: [{key: source.ip, values: [10.0.0.1]}, {key: destination.port, notValues: ['80']}]}";
    let aliases = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'trustDomainAliases: [old]'}}\n---\n";
    let spec = told(&(policy("default", "p", &format!("{{rules: [{rule}]}}")) + aliases), &sidecar(&[]));
    let Network::Tcp(server) = &spec.listeners["virtualInbound"].chains.last().unwrap().network else { panic!("tcp") };
    let AuthorizationRule { from, to, .. } = &server.authorization[0].rules[0];
    let address = AuthorizationClause::is(SourceTest::Addresses(vec!["10.0.0.1/32".parse().unwrap()]));
    let principals = |list: &[&str]| {
        AuthorizationClause::is(SourceTest::Principals(list.iter().map(|text| (*text).to_owned()).collect()))
    };
    let first = principals(&["cluster.local/ns/a/sa/b", "old/ns/a/sa/b"]);
    assert_eq!(from, &[vec![first, address.clone()], vec![principals(&["*/ns/default/sa/c"]), address]]);
    assert_eq!(to, &[vec![AuthorizationClause::is_not(OperationTest::Ports(vec![80]))]]);
}

#[test]
fn a_stored_guard_that_is_not_enforced_denies_what_it_selects() {
    let selector = "selector: {matchLabels: {app: a}}";
    let custom = policy(
        "default",
        "x",
        &format!(
            "{{{selector}, action: CUSTOM, provider: {{name: judge}}, rules: [{{to: [{{operation: {{paths: [/x]}}}}]}}]}}"
        ),
    );
    assert_eq!(guards(&custom, &[("app", "a")]), ["Deny ns[default]-policy[x]-rule[0]"]);
    assert_eq!(guards(&custom, &[("app", "b")]), [""; 0]);
    let condition = policy("default", "x", "{rules: [{when: [{key: remote.ip, values: [1.2.3.4]}]}]}");
    let spec = told(&condition, &sidecar(&[]));
    let Network::Tcp(server) = &spec.listeners["virtualInbound"].chains.last().unwrap().network else { panic!("tcp") };
    let rule = &server.authorization[0].rules[0];
    assert_eq!((server.authorization[0].action, rule.from.len(), rule.to.len()), (AuthorizationAction::Deny, 0, 0));
    let tokens = format!(
        "{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: x, namespace: default}}, spec: {{{selector}}}}}"
    );
    assert_eq!(guards(&tokens, &[("app", "a")]), ["Deny ns[default]-RequestAuthentication[x]"]);
    let both = custom + &tokens;
    assert_eq!(
        guards(&both, &[("app", "a")]),
        ["Deny ns[default]-RequestAuthentication[x] ns[default]-policy[x]-rule[0]"]
    );
}

#[test]
fn clients_use_mtls_where_the_server_takes_it() {
    let tls = |more: &str| told(more, &sidecar(&[])).clusters["outbound|80||a.default.svc.cluster.local"].tls.clone();
    assert!(matches!(tls(""), UpstreamTls::Auto(_)));
    assert_eq!(tls(&peer("default", "{mtls: {mode: DISABLE}}")), UpstreamTls::Off);
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}";
    let UpstreamTls::On(client) = tls(rule) else { panic!("mTLS always") };
    assert_eq!(client.sni.as_deref(), Some("outbound_.80_._.a.default.svc.cluster.local"));
}

fn gateway(name: &str, age: u8, servers: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: '{name}', namespace: default, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}, spec: {{selector: {{istio: ingressgateway}}, servers: {servers}}}}}\n---\n"
    )
}

fn edge(more: &str) -> Spec {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: gw, namespace: istio-system}, spec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]}}\n---\n";
    let labels = [("istio", "ingressgateway")];
    told(&format!("{service}{more}"), &node(ProxyKind::Gateway, "gw", "istio-system", "198.18.0.9", &labels))
}

#[test]
fn a_gateway_serves_what_its_servers_and_virtual_services_share() {
    let http = gateway("gw", 1, "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}]");
    let vs = virtual_service(
        "x",
        1,
        "{hosts: [shop.example.com, other.org], gateways: [gw], http: [{route: [{destination: {host: a, port: {number: 80}}}]}]}",
    );
    let spec = edge(&(http.clone() + &vs));
    assert_eq!(spec.listeners.keys().collect::<Vec<_>>(), ["0.0.0.0_8080"]);
    assert_eq!(routes(&spec, "http.8080", "shop.example.com"), ["outbound|80||a.default.svc.cluster.local*1"]);
    assert_eq!(spec.routes["http.8080"].virtual_hosts.len(), 1);
    assert_eq!(routes(&edge(&http), "http.8080", "*"), ["404"]);
}

#[test]
fn a_gateway_merges_virtual_services_and_moves_catch_alls_last() {
    let http = gateway("gw", 1, "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]");
    let all = virtual_service("all", 1, "{hosts: [x.org], gateways: [gw], http: [{redirect: {uri: /}}]}");
    let one = virtual_service(
        "one",
        2,
        "{hosts: [x.org], gateways: [gw], http: [{match: [{uri: {prefix: /one}}], directResponse: {status: 418}}]}",
    );
    assert_eq!(routes(&edge(&(http + &all + &one)), "http.8080", "x.org"), ["418", "301 "]);
}

#[test]
fn a_gateway_redirects_and_ends_tls() {
    let servers = "[{port: {number: 80, name: http, protocol: HTTP}, hosts: [x.org], tls: {httpsRedirect: true}}, {port: {number: 443, name: https, protocol: HTTPS}, hosts: [x.org], tls: {mode: SIMPLE, credentialName: cert}}]";
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: istio-system}, data: {tls.crt: Zm9v, tls.key: YmFy}}\n---\n";
    let vs = virtual_service("x", 1, "{hosts: [x.org], gateways: [gw], http: [{directResponse: {status: 200}}]}");
    let spec = edge(&(gateway("gw", 1, servers) + secret + &vs));
    assert_eq!(routes(&spec, "http.8080", "x.org"), ["301 https"]);
    assert_eq!(routes(&spec, "https.443.https.gw.default", "x.org"), ["200"]);
    assert_eq!(spec.listeners["0.0.0.0_8443"].chains[0].matches.server_names, ["x.org"]);
    assert!(spec.secrets.contains_key("kubernetes://cert"));
}

#[test]
fn a_server_with_unenforced_tls_serves_nothing() {
    let servers = "[{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: AUTO_PASSTHROUGH, credentialName: cert}}]";
    assert!(edge(&gateway("gw", 1, servers)).listeners.is_empty());
    let good = servers.replace("AUTO_PASSTHROUGH", "SIMPLE");
    let mut catalog = Catalog::new(Settings::default());
    let apply = |catalog: &mut Catalog, servers: &str| {
        let objects: Vec<Stored> = objects(&gateway("gw", 1, servers));
        catalog.apply(&objects[0]);
        let node = node(ProxyKind::Gateway, "gw", "istio-system", "198.18.0.9", &[("istio", "ingressgateway")]);
        mesh::spec(&mesh::resolve(catalog).0, &node).listeners.len()
    };
    assert_eq!(apply(&mut catalog, &good), 1);
    assert_eq!(apply(&mut catalog, servers), 0, "the last good version would let in who should not come in");
}

#[test]
fn a_port_belongs_to_the_protocol_that_claims_it_first() {
    let tcp = gateway("late", 2, "[{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}]");
    let http = gateway("early", 1, "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]");
    let (_, notes) = resolve(&(tcp.clone() + &http));
    assert!(notes.iter().any(|note| note.code.as_deref() == Some("IST0145") && note.object.name == "late"));
    assert!(edge(&(tcp + &http)).routes.contains_key("http.8080"));
}

#[test]
fn what_does_not_fit_together_is_said() {
    let code = |text: &str, code: &str, path: &str| {
        let (_, notes) = resolve(&format!("{SERVICE}{text}"));
        assert!(
            notes
                .iter()
                .any(|note| note.code.as_deref() == Some(code) && note.path == path && note.severity == Severity::Warn),
            "{notes:#?}"
        );
    };
    let to = |to: &str| format!("{{hosts: [a], http: [{{route: [{{destination: {to}}}]}}]}}");
    code(&virtual_service("x", 1, &to("{host: gone}")), "IST0101", "spec.http[0].route[0].destination.host");
    code(
        &virtual_service("x", 1, &to("{host: a, port: {number: 80}, subset: v9}")),
        "IST0101",
        "spec.http[0].route[0].destination.subset",
    );
    code(&virtual_service("x", 1, &to("{host: a}")), "IST0112", "spec.http[0].route[0].destination");
    code(
        &(virtual_service("x", 1, &to("{host: b}")) + &virtual_service("y", 1, &to("{host: b}"))),
        "IST0109",
        "spec.hosts",
    );
    code(
        &virtual_service("x", 1, "{hosts: [a.com], gateways: [gone], http: [{redirect: {uri: /}}]}"),
        "IST0101",
        "spec.gateways[0]",
    );
}

#[test]
fn grpc_programs_ask_for_listeners_by_address() {
    let mut program = sidecar(&[]);
    program.proxyless = true;
    let spec = told("", &program);
    for name in ["a:80", "a.default:80", "a.default.svc:80", "a.default.svc.cluster.local:80", "b.other:80"] {
        assert!(spec.listeners.contains_key(name), "{name}");
    }
    assert_eq!(
        routes(&spec, "outbound|80||a.default.svc.cluster.local", "*"),
        ["outbound|80||a.default.svc.cluster.local*1"]
    );
    assert!(!spec.listeners.contains_key("virtualInbound"));
}

//! What is refused and what is accepted with a note, kind by kind, one line a case.
//!
//! Never here: what objects mean together (`rules.rs`), Istio's own cases (`corpora.rs`).
//! Called by `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use api::note::{Notes, Severity};
use api_mesh::{
    mesh,
    model::{Settings, parse},
};
use support::{catalog, documents, object, objects, sidecar};

fn notes(text: &str) -> Vec<String> {
    let mut notes = Notes::new();
    for value in documents(text) {
        match object(value) {
            Ok(stored) => drop(parse(&stored, &Settings::default(), &mut notes)),
            Err(error) => return vec![format!("error {error}")],
        }
    }
    let show = |severity| match severity {
        Severity::Error => "error",
        Severity::Warn => "warn",
        Severity::Info => "info",
    };
    notes.iter().map(|note| format!("{} {}: {}", show(note.severity), note.path, note.text)).collect()
}

fn spec_of(kind: &str, spec: &str) -> String {
    let group = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        _ => "networking.istio.io/v1",
    };
    format!("{{apiVersion: {group}, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}")
}

/// The object is refused, at that path and for a reason that holds these words.
fn refused(kind: &str, spec: &str, path: &str, reason: &str) {
    let found = notes(&spec_of(kind, spec));
    let hit = found.iter().any(|note| note.starts_with(&format!("error {path}: ")) && note.contains(reason));
    assert!(hit, "{spec}\n{found:#?}");
}

/// The object is accepted, with notes that start so, in order.
fn accepted(kind: &str, spec: &str, expected: &[&str]) {
    let found = notes(&spec_of(kind, spec));
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(note, start)| note.starts_with(start));
    assert!(same, "{spec}\n{found:#?}");
}

const TO: &str = "route: [{destination: {host: a}}]";

fn rule(rest: &str) -> String {
    format!("{{hosts: [a], http: [{{{TO}, {rest}}}]}}")
}

#[test]
fn bad_virtual_services_are_refused() {
    let vs = |spec: &str, path: &str, reason: &str| refused("VirtualService", spec, path, reason);
    vs("{hosts: [a]}", "spec", "at least one of http");
    vs("{hosts: ['*'], http: []}", "spec.hosts[0]", "wildcard host *");
    vs("{hosts: ['a b']}", "spec.hosts[0]", "not a host");
    vs("{hosts: ['*.a.com', b.a.com]}", "spec.hosts[1]", "duplicate hosts");
    vs("{hosts: [a], http: [{}]}", "spec.http[0]", "one of route, redirect");
    vs("{hosts: [a], http: [{route: [{destination: {host: a}, weight: -1}]}]}", "spec.http[0].route[0].weight", "-1");
    let zero = "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}]}";
    vs(zero, "spec.http[0].route", "sum to 0");
    vs(&rule("match: [{uri: {regex: '('}}]"), "spec.http[0].match[0].uri", "regex");
    vs(&rule("match: [{uri: {prefix: ''}}]"), "spec.http[0].match[0].uri", "empty");
    vs(
        &rule("match: [{headers: {'@request.auth.claims.x': {exact: a}}}]"),
        "spec.http[0].match[0].headers[@request.auth.claims.x]",
        "not enforced yet",
    );
    vs(&rule("timeout: -1s"), "spec.http[0].timeout", "negative");
    vs(&rule("timeout: 0.5ms"), "spec.http[0].timeout", "millisecond");
    vs(&rule("retries: {attempts: -1}"), "spec.http[0].retries.attempts", "-1");
    vs(&rule("retries: {attempts: 0, retryOn: 5xx}"), "spec.http[0].retries", "attempts is 0");
    vs(&rule("retries: {attempts: 1, retryOn: never}"), "spec.http[0].retries.retryOn", "never");
    vs(&rule("fault: {abort: {httpStatus: 99}}"), "spec.http[0].fault.abort.httpStatus", "99");
    vs(&rule("fault: {abort: {grpcStatus: NOPE}}"), "spec.http[0].fault.abort.grpcStatus", "NOPE");
    vs(
        &rule("fault: {abort: {httpStatus: 500, percentage: {value: 140}}}"),
        "spec.http[0].fault.abort.percentage.value",
        "140",
    );
    vs(&rule("fault: {delay: {percentage: {value: 1}}}"), "spec.http[0].fault.delay.fixedDelay", "required");
    vs(&rule("redirect: {uri: /x}"), "spec.http[0]", "only one of route");
    vs(&rule("rewrite: {}"), "spec.http[0].rewrite", "at least one");
    vs(&rule("headers: {request: {set: {'a b': c}}}"), "spec.http[0].headers.request.set[a b]", "header name");
    vs(&rule("mirror: {host: b}, mirrors: [{destination: {host: c}}]"), "spec.http[0].mirrors", "mirror");
    vs("{hosts: [a], http: [{redirect: {redirectCode: 300, uri: /}}]}", "spec.http[0].redirect.redirectCode", "300");
    vs("{hosts: [a], http: [{directResponse: {status: 99}}]}", "spec.http[0].directResponse.status", "99");
    vs(
        "{hosts: [a], http: [{route: [{destination: {host: '*'}}]}]}",
        "spec.http[0].route[0].destination.host",
        "wildcard",
    );
    vs(
        "{hosts: [a], http: [{route: [{destination: {host: a, port: {number: 70000}}}]}]}",
        "spec.http[0].route[0].destination.port.number",
        "70000",
    );
    vs("{hosts: [a], gateways: ['a/b/c'], http: []}", "spec.gateways[0]", "not a gateway");
    vs("{hosts: [a], tcp: [{}]}", "spec.tcp[0].route", "at least one");
}

#[test]
fn all_complaints_come_at_once() {
    let found = notes(&spec_of(
        "VirtualService",
        "{hosts: ['a b'], http: [{route: [{destination: {host: a}, weight: -1}]}, {}]}",
    ));
    assert_eq!(found.iter().filter(|note| note.starts_with("error")).count(), 3, "{found:#?}");
}

#[test]
fn what_has_no_effect_yet_is_said() {
    accepted("VirtualService", &rule("corsPolicy: {}"), &["warn spec.http[0].corsPolicy: not honoured yet"]);
    let two = format!("{{hosts: [a], http: [{{{TO}}}, {{{TO}}}]}}");
    accepted("VirtualService", &two, &["warn spec.http[1]: never reached: rule 0"]);
    let twice = format!(
        "{{hosts: [a], http: [{{match: [{{uri: {{exact: /x}}}}], {TO}}}, {{match: [{{uri: {{exact: /x}}}}], {TO}}}]}}"
    );
    accepted("VirtualService", &twice, &["warn spec.http[1]: never reached: rule 0"]);
    accepted("VirtualService", &rule("timeout: 1s, retries: {attempts: 3, retryOn: '5xx,503'}"), &[]);
    accepted(
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}",
        &["warn spec.trafficPolicy.loadBalancer.consistentHash: not honoured yet"],
    );
    accepted("Sidecar", "{}", &["warn : not honoured yet"]);
}

#[test]
fn bad_destination_rules_are_refused() {
    let dr = |spec: &str, path: &str, reason: &str| refused("DestinationRule", spec, path, reason);
    dr("{host: ''}", "spec.host", "not a host");
    dr("{host: a, subsets: [{name: A_b}]}", "spec.subsets[0].name", "DNS label");
    dr("{host: a, trafficPolicy: {connectionPool: {}}}", "spec.trafficPolicy.connectionPool", "at least one");
    dr(
        "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}}",
        "spec.trafficPolicy.connectionPool.tcp.maxConnections",
        "-1",
    );
    dr(
        "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}",
        "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
        "101",
    );
    dr("{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}", "spec.trafficPolicy.tls.clientCertificate", "required");
    dr(
        "{host: a, trafficPolicy: {tls: {mode: SIMPLE, credentialName: x}}}",
        "spec.trafficPolicy.tls.credentialName",
        "not enforced yet",
    );
    dr(
        "{host: a, trafficPolicy: {portLevelSettings: [{}]}}",
        "spec.trafficPolicy.portLevelSettings[0].port.number",
        "required",
    );
}

#[test]
fn guards_that_are_not_enforced_are_refused() {
    refused("RequestAuthentication", "{}", "", "not enforced yet");
    refused("EnvoyFilter", "{}", "", "not enforced yet");
    let server = |tls: &str| {
        format!("{{servers: [{{port: {{number: 443, name: a, protocol: HTTPS}}, hosts: ['*'], tls: {tls}}}]}}")
    };
    refused("Gateway", &server("{mode: AUTO_PASSTHROUGH}"), "spec.servers[0].tls.mode", "AUTO_PASSTHROUGH");
    let files = "serverCertificate: a, privateKey: b";
    refused(
        "Gateway",
        &server(&format!("{{mode: MUTUAL, {files}}}")),
        "spec.servers[0].tls.caCertificates",
        "required",
    );
    refused("Gateway", &server("{mode: MUTUAL}"), "spec.servers[0].tls.privateKey", "required with mode MUTUAL");
    let roots = format!("{{mode: SIMPLE, {files}, caCertificates: c}}");
    refused("Gateway", &server(&roots), "spec.servers[0].tls.caCertificates", "not enforced yet");
    for mode in ["PASSTHROUGH", "ISTIO_MUTUAL"] {
        let named = format!("{{mode: {mode}, credentialName: x}}");
        refused("Gateway", &server(&named), "spec.servers[0].tls.credentialName", "not allowed");
        accepted("Gateway", &server(&format!("{{mode: {mode}}}")), &[]);
    }
    for mode in ["MUTUAL", "OPTIONAL_MUTUAL"] {
        accepted("Gateway", &server(&format!("{{mode: {mode}, credentialName: x}}")), &[]);
        accepted("Gateway", &server(&format!("{{mode: {mode}, {files}, caCertificates: c}}")), &[]);
    }
    refused(
        "Gateway",
        &server("{mode: SIMPLE, credentialName: x, subjectAltNames: [a]}"),
        "spec.servers[0].tls.subjectAltNames",
        "not enforced yet",
    );
    refused("Gateway", &server("{mode: SIMPLE}"), "spec.servers[0].tls.privateKey", "required");
    accepted("Gateway", &server("{mode: SIMPLE, credentialName: x}"), &[]);
    let tls = |rule: &str| format!("{{hosts: ['*.a.test'], gateways: [g], tls: [{rule}]}}");
    let to = "route: [{destination: {host: a}}]";
    accepted("VirtualService", &tls(&format!("{{match: [{{sniHosts: [x.a.test]}}], {to}}}")), &[]);
    for (rule, path, text) in [
        (format!("{{match: [], {to}}}"), "spec.tls[0].match", "required"),
        (format!("{{match: [{{sniHosts: []}}], {to}}}"), "spec.tls[0].match[0].sniHosts", "required"),
        (format!("{{match: [{{sniHosts: [b.test]}}], {to}}}"), "spec.tls[0].match[0].sniHosts[0]", "none of"),
        ("{match: [{sniHosts: [x.a.test]}]}".to_owned(), "spec.tls[0].route", "required"),
    ] {
        refused("VirtualService", &tls(&rule), path, text);
    }
    refused("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}", "spec", "requires selector");
}

#[test]
fn authorization_policies_that_are_enforced_are_accepted() {
    let good = |spec: &str| accepted("AuthorizationPolicy", spec, &[]);
    good("{}");
    good("{action: DENY, rules: [{}]}");
    good("{selector: {matchLabels: {app: a}}, action: ALLOW, rules: [{from: [{source: {principals: ['*']}}]}]}");
    let sources = "principals: [a], notPrincipals: ['a*'], namespaces: [b], notNamespaces: ['*b'], ipBlocks: [10.0.0.1, 'fd00::/8'], notIpBlocks: [10.0.0.0/8], trustDomains: [c], notTrustDomains: ['c*']";
    let operations = "hosts: ['*.com'], notHosts: [a.com], ports: ['80'], notPorts: ['81'], methods: [GET], notMethods: ['P*'], paths: ['/a/{*}/{**}', '*'], notPaths: ['/b*']";
    good(&format!("{{rules: [{{from: [{{source: {{{sources}}}}}], to: [{{operation: {{{operations}}}}}]}}]}}"));
    good("{rules: [{from: [{source: {serviceAccounts: [a, b/c], notServiceAccounts: [d]}}]}]}");
    for (key, value) in [
        ("request.headers[X-Role]", "admin*"),
        ("source.ip", "10.0.0.0/8"),
        ("source.namespace", "a"),
        ("source.principal", "*/sa/a"),
        ("source.serviceAccount", "a/b"),
        ("source.trustDomain", "a"),
        ("destination.ip", "fd00::1"),
        ("destination.port", "8080"),
        ("connection.sni", "*.com"),
    ] {
        good(&format!("{{rules: [{{when: [{{key: '{key}', values: ['{value}'], notValues: ['{value}']}}]}}]}}"));
    }
    let rule = |source: &str| format!("{{rules: [{{from: [{{source: {source}}}]}}]}}");
    let at = "warn spec.rules[0].from[0].source";
    accepted("AuthorizationPolicy", &rule("{principals: ['spiffe://a']}"), &[&format!("{at}.principals[0]: never")]);
    accepted("AuthorizationPolicy", &rule("{principals: ['a*b']}"), &[&format!("{at}.principals[0]: \"a*b\"")]);
}

#[test]
fn authorization_policies_that_would_not_be_enforced_are_refused() {
    let bad = |spec: &str, path: &str, reason: &str| refused("AuthorizationPolicy", spec, path, reason);
    bad("{action: AUDIT, rules: [{}]}", "spec.action", "not enforced yet: AUDIT");
    bad("{action: CUSTOM, provider: {name: a}, rules: [{}]}", "spec.action", "not enforced yet: CUSTOM");
    bad("{provider: {name: a}}", "spec.provider", "only action CUSTOM");
    bad("{action: DENY}", "spec.rules", "denies nothing");
    bad("{targetRefs: [{kind: Service, name: a}]}", "spec.targetRefs", "not enforced yet");
    bad("{targetRef: {kind: Service, name: a}}", "spec.targetRef", "not enforced yet");
    bad("{selector: {matchLabels: {app: 'a*'}}}", "spec.selector.matchLabels[app]", "wildcards");
    bad("{rules: [{from: []}]}", "spec.rules[0].from", "empty list");
    bad("{rules: [{to: []}]}", "spec.rules[0].to", "empty list");
    let from = |source: &str, path: &str, reason: &str| {
        bad(&format!("{{rules: [{{from: [{source}]}}]}}"), &format!("spec.rules[0].from[0].source{path}"), reason);
    };
    from("{}", "", "required");
    from("{source: {}}", "", "must not be empty");
    from("{source: {principals: []}}", "", "must not be empty");
    from("{source: {principals: ['']}}", ".principals[0]", "must not be empty");
    from("{source: {namespaces: ['a*b']}}", ".namespaces[0]", "never matches");
    from("{source: {trustDomains: ['a/b']}}", ".trustDomains[0]", "never matches");
    from("{source: {requestPrincipals: [a]}}", ".requestPrincipals", "not enforced yet");
    from("{source: {notRequestPrincipals: [a]}}", ".notRequestPrincipals", "not enforced yet");
    from("{source: {remoteIpBlocks: [1.2.3.4]}}", ".remoteIpBlocks", "not enforced yet");
    from("{source: {notRemoteIpBlocks: [1.2.3.4]}}", ".notRemoteIpBlocks", "not enforced yet");
    from("{source: {ipBlocks: [1.2.3.4/33]}}", ".ipBlocks[0]", "1.2.3.4/33");
    from("{source: {serviceAccounts: ['a/*']}}", ".serviceAccounts[0]", "not a service account");
    from("{source: {serviceAccounts: [a], namespaces: [b]}}", "", "cannot be combined");
    let to = |operation: &str, path: &str, reason: &str| {
        bad(&format!("{{rules: [{{to: [{operation}]}}]}}"), &format!("spec.rules[0].to[0].operation{path}"), reason);
    };
    to("{}", "", "required");
    to("{operation: {}}", "", "must not be empty");
    to("{operation: {ports: ['0']}}", ".ports[0]", "not a port");
    to("{operation: {ports: [http]}}", ".ports[0]", "not a port");
    to("{operation: {paths: ['/{**}/{*}']}}", ".paths[0]", "last operator");
    to("{operation: {notPaths: ['/a{*}']}}", ".notPaths[0]", "whole segment");
    let when = |condition: &str, path: &str, reason: &str| {
        bad(&format!("{{rules: [{{when: [{condition}]}}]}}"), &format!("spec.rules[0].when[0]{path}"), reason);
    };
    when("{key: source.ip}", "", "must not both be empty");
    when("{key: remote.ip, values: [1.2.3.4]}", ".key", "not enforced yet");
    when("{key: 'request.auth.claims[a][b]', values: [c]}", ".key", "not enforced yet");
    when("{key: request.auth.principal, values: ['*']}", ".key", "not enforced yet");
    when("{key: experimental.envoy.filters.a, values: [b]}", ".key", "not enforced yet");
    when("{key: source.colour, values: [b]}", ".key", "not an attribute");
    when("{key: 'request.headers[a b]', values: [b]}", ".key", "not a header name");
    when("{key: destination.ip, notValues: [b]}", ".notValues[0]", "not an address");
}

#[test]
fn a_dry_run_is_not_enforced() {
    let policy = |value: &str, action: &str| {
        let found = notes(&format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: x, annotations: {{istio.io/dry-run: '{value}'}}}}, spec: {{action: {action}, rules: [{{}}]}}}}"
        ));
        found.iter().map(|note| note.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(policy("true", "DENY"), "warn");
    assert_eq!(policy("false", "DENY"), "");
    assert_eq!(policy("maybe", "DENY"), "error warn");
    assert_eq!(policy("true", "CUSTOM"), "error warn");
}

#[test]
fn a_bad_object_leaves_its_last_good_version() {
    let vs = |weight: i32| {
        object(
            documents(&spec_of(
                "VirtualService",
                &format!("{{hosts: [a], http: [{{route: [{{destination: {{host: a}}, weight: {weight}}}]}}]}}"),
            ))
            .remove(0),
        )
        .unwrap()
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 198.19.0.1, ports: [{name: http, port: 80}]}}";
    let mut catalog = catalog(&objects(service));
    catalog.apply(&vs(1));
    let good = mesh::spec(&mesh::resolve(&catalog).0, &sidecar(&[]));
    catalog.apply(&vs(-1));
    let (mesh, notes) = mesh::resolve(&catalog);
    assert_eq!(mesh::spec(&mesh, &sidecar(&[])), good);
    assert!(notes.has_errors());
    assert!(notes.iter().any(|note| note.text.contains("last good version")));
}

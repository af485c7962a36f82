//! Tests of `authz`: one policy and one caller a line.
//!
//! Policies are JSON of the spec's own types, callers `PRINCIPAL ADDRESS:PORT [METHOD AUTHORITY PATH]`, `-` for nobody.
//! Never here: parsing of AuthorizationPolicy. Run by `cargo test -p api`.

use http::{HeaderMap, Method};

use super::*;
use crate::{
    head::{Scheme, Target},
    spec::{AuthorizationRule, PathNormalization},
};

fn layer(
    action: AuthorizationAction,
    rules: Vec<(Vec<AuthorizationSource>, Vec<AuthorizationOperation>)>,
) -> Authorization {
    let rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, (from, to))| AuthorizationRule {
            name: format!("ns[shop]-policy[p]-rule[{index}]"),
            from,
            to,
            origin: None,
        })
        .collect();
    Authorization { action, rules }
}

fn allow(rules: Vec<(Vec<AuthorizationSource>, Vec<AuthorizationOperation>)>) -> Authorization {
    layer(AuthorizationAction::Allow, rules)
}

fn deny(rules: Vec<(Vec<AuthorizationSource>, Vec<AuthorizationOperation>)>) -> Authorization {
    layer(AuthorizationAction::Deny, rules)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn principals(text: &str) -> AuthorizationSource {
    AuthorizationSource { principals: list(text), ..AuthorizationSource::default() }
}

fn paths(text: &str) -> AuthorizationOperation {
    AuthorizationOperation { paths: list(text), ..AuthorizationOperation::default() }
}

fn hosts(text: &str) -> AuthorizationOperation {
    AuthorizationOperation { hosts: list(text), ..AuthorizationOperation::default() }
}

fn check(layers: &[Authorization], caller: &str, want: bool) {
    let words: Vec<&str> = caller.split(' ').collect();
    let socket: std::net::SocketAddr = words[1].parse().unwrap();
    let principal = (words[0] != "-").then_some(words[0]);
    let peer = Peer {
        principal,
        namespace: principal.and_then(|text| text.split('/').nth(2)),
        address: socket.ip(),
        port: socket.port(),
    };
    let headers = HeaderMap::new();
    let verdict = if let [_, _, method, authority, path] = words.as_slice() {
        let method: Method = method.parse().unwrap();
        let target = Target { scheme: Scheme::Http, authority, path };
        let head = Head::read(&method, target, &headers, PathNormalization::MergeSlashes).unwrap();
        let policies = Policies::compile(layers, Carried::Http);
        super::check(&policies, &peer, Some(&head), &mut ()) == Verdict::Allowed
    } else {
        super::check(&Policies::compile(layers, Carried::Tcp), &peer, None, &mut ()) == Verdict::Allowed
    };
    assert_eq!(verdict, want, "{caller} {layers:#?}");
}

const SLEEP: &str = "cluster.local/ns/shop/sa/sleep";

#[test]
fn without_a_layer_all_may() {
    check(&[], "- 10.0.0.1:80 GET a /", true);
}

#[test]
fn allow_without_rules_denies_all_and_deny_without_rules_none() {
    check(&[allow(vec![])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), false);
    check(&[deny(vec![])], "- 10.0.0.1:80 GET a /", true);
}

#[test]
fn an_empty_rule_takes_everyone() {
    check(&[allow(vec![(vec![], vec![])])], "- 10.0.0.1:80 GET a /", true);
    check(&[deny(vec![(vec![], vec![])])], "- 10.0.0.1:80 GET a /", false);
}

#[test]
fn principals_need_a_certificate() {
    let policy = [allow(vec![(vec![principals("*")], vec![])])];
    check(&policy, "- 10.0.0.1:80 GET a /", false);
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
    let policy = [allow(vec![(vec![principals("*/ns/other/sa/sleep")], vec![])])];
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 GET a /"), false);
    let policy = [allow(vec![(vec![principals("*/sa/sleep")], vec![])])];
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
}

#[test]
fn nobody_is_not_someone() {
    let source = AuthorizationSource { not_principals: list(SLEEP), ..AuthorizationSource::default() };
    check(&[deny(vec![(vec![source.clone()], vec![])])], "- 10.0.0.1:80 GET a /", false);
    check(&[deny(vec![(vec![source], vec![])])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
}

#[test]
fn namespaces_and_addresses() {
    let source = |namespaces: &str, block: &str| AuthorizationSource {
        namespaces: list(namespaces),
        ip_blocks: list(block).iter().map(|block| block.parse().unwrap()).collect(),
        ..AuthorizationSource::default()
    };
    check(&[allow(vec![(vec![source("shop", "")], vec![])])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
    check(&[allow(vec![(vec![source("other", "")], vec![])])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), false);
    check(&[allow(vec![(vec![source("", "10.0.0.0/24")], vec![])])], "- 10.0.0.9:80 GET a /", true);
    check(
        &[allow(vec![(vec![source("shop", "10.9.0.0/24")], vec![])])],
        &format!("{SLEEP} 10.0.0.1:80 GET a /"),
        false,
    );
    check(&[allow(vec![(vec![source("", "10.0.0.0/24")], vec![])])], "- [::ffff:10.0.0.9]:80 GET a /", true);
}

#[test]
fn hosts_match_in_any_case_with_or_without_port_and_dot() {
    let policy = [deny(vec![(vec![], vec![hosts("secret.com")])])];
    for host in ["secret.com", "Secret.COM", "secret.com:8080", "secret.com.", "secret.com.:80"] {
        check(&policy, &format!("- 10.0.0.1:80 GET {host} /"), false);
    }
    check(&policy, "- 10.0.0.1:80 GET other.com /", true);
    check(&[deny(vec![(vec![], vec![hosts("a.com:80")])])], "- 10.0.0.1:80 GET a.com:80 /", false);
}

#[test]
fn paths_are_the_normalised_ones_without_query() {
    let policy = [deny(vec![(vec![], vec![paths("/admin,/admin/*")])])];
    for path in ["/admin", "/admin?x", "/admin#x", "//admin", "/a/../admin", "/%61dmin/x", "/pub/..;/admin"] {
        check(&policy, &format!("- 10.0.0.1:80 GET a {path}"), false);
    }
    check(&policy, "- 10.0.0.1:80 GET a /administrator", true);
    check(&[allow(vec![(vec![], vec![paths("/info/*")])])], "- 10.0.0.1:80 GET a /info/../private", false);
}

#[test]
fn all_parts_of_a_rule_must_hold() {
    let operation = AuthorizationOperation {
        methods: list("GET,HEAD"),
        not_paths: list("/x*"),
        ports: vec![80],
        ..AuthorizationOperation::default()
    };
    let policy = [allow(vec![(vec![principals(SLEEP)], vec![operation])])];
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 POST a /"), false);
    check(&policy, &format!("{SLEEP} 10.0.0.1:81 GET a /"), false);
    check(&policy, &format!("{SLEEP} 10.0.0.1:80 GET a /xy"), false);
    check(&policy, "- 10.0.0.1:80 GET a /", false);
}

#[test]
fn deny_beats_allow_and_every_layer_counts() {
    let all = || allow(vec![(vec![], vec![])]);
    check(&[all(), deny(vec![(vec![principals(SLEEP)], vec![])])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), false);
    check(&[all(), allow(vec![])], "- 10.0.0.1:80 GET a /", false);
}

#[test]
fn on_tcp_what_only_http_knows_allows_less_and_denies_more() {
    let mixed = AuthorizationOperation { ports: vec![80], ..paths("/x") };
    check(&[allow(vec![(vec![], vec![mixed.clone()])])], "- 10.0.0.1:80", false);
    check(&[deny(vec![(vec![], vec![mixed.clone()])])], "- 10.0.0.1:80", false);
    check(&[deny(vec![(vec![], vec![mixed])])], "- 10.0.0.1:81", true);
    check(&[deny(vec![(vec![], vec![paths("/x")])])], "- 10.0.0.1:81", false);
    check(&[allow(vec![(vec![principals(SLEEP)], vec![])])], &format!("{SLEEP} 10.0.0.1:80"), true);
}

#[test]
fn reading_a_layer_for_tcp_twice_changes_nothing() {
    for layer in [allow(vec![(vec![], vec![paths("/x")])]), deny(vec![(vec![], vec![paths("/x")])])] {
        let once = for_tcp(&layer);
        assert_eq!(for_tcp(&once), once);
    }
}

#[test]
fn a_denial_names_its_rule() {
    let policies = Policies::compile(&[deny(vec![(vec![], vec![])])], Carried::Tcp);
    let peer = Peer { principal: None, namespace: None, address: [10, 0, 0, 1].into(), port: 1 };
    let mut why = Vec::new();
    let verdict = super::check(&policies, &peer, None, &mut why);
    assert_eq!(verdict, Verdict::Denied { rule: Some("ns[shop]-policy[p]-rule[0]") });
    assert_eq!(why, [("deny[0] ns[shop]-policy[p]-rule[0]".to_owned(), None)]);
}

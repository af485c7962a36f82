//! Tests of `authz`: one policy and one caller a line.
//!
//! Callers are `PRINCIPAL ADDRESS:PORT [METHOD AUTHORITY PATH [NAME=VALUE …]]`, `-` for nobody; the port is the one asked for.
//! Never here: parsing of AuthorizationPolicy. Run by `cargo test -p api`.

use http::{HeaderMap, Method};

use super::*;
use crate::{
    head::{Scheme, Target},
    spec::{AuthorizationClause, AuthorizationRule, PathNormalization},
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

fn is<T>(test: T) -> Vec<AuthorizationClause<T>> {
    vec![AuthorizationClause::is(test)]
}

fn is_not<T>(test: T) -> Vec<AuthorizationClause<T>> {
    vec![AuthorizationClause::is_not(test)]
}

fn principals(text: &str) -> AuthorizationSource {
    is(SourceTest::Principals(list(text)))
}

fn header(name: &str, values: &str) -> SourceTest {
    SourceTest::Header(name.to_owned(), list(values))
}

fn blocks(text: &str) -> Vec<ipnet::IpNet> {
    list(text).iter().map(|block| block.parse().unwrap()).collect()
}

fn paths(text: &str) -> AuthorizationOperation {
    is(OperationTest::Paths(list(text)))
}

fn hosts(text: &str) -> AuthorizationOperation {
    is(OperationTest::Hosts(list(text)))
}

fn check(layers: &[Authorization], caller: &str, want: bool) {
    let words: Vec<&str> = caller.split(' ').collect();
    let socket: std::net::SocketAddr = words[1].parse().unwrap();
    let principal = (words[0] != "-").then_some(words[0]);
    let peer = Peer {
        principal,
        namespace: principal.and_then(|text| text.split('/').nth(2)),
        address: socket.ip(),
        destination: ([198, 18, 0, 5], socket.port()).into(),
        server_name: Some("Outbound_.80_._.reviews"),
    };
    let mut headers = HeaderMap::new();
    let verdict = if let [_, _, method, authority, path, lines @ ..] = words.as_slice() {
        for (name, value) in lines.iter().filter_map(|line| line.split_once('=')) {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
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
    let source = is_not(SourceTest::Principals(list(SLEEP)));
    check(&[deny(vec![(vec![source.clone()], vec![])])], "- 10.0.0.1:80 GET a /", false);
    check(&[deny(vec![(vec![source], vec![])])], &format!("{SLEEP} 10.0.0.1:80 GET a /"), true);
}

#[test]
fn namespaces_and_addresses() {
    let source = |namespaces: &str, block: &str| {
        let mut clauses = Vec::new();
        if !namespaces.is_empty() {
            clauses.extend(is(SourceTest::Namespaces(list(namespaces))));
        }
        if !block.is_empty() {
            clauses.extend(is(SourceTest::Addresses(blocks(block))));
        }
        clauses
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
    check(&[deny(vec![(vec![source("", "::ffff:10.0.0.0/120")], vec![])])], "- 10.0.0.9:80 GET a /", false);
}

#[test]
fn trust_domains_are_the_first_part_of_a_principal() {
    let policy = |not: bool, text: &str| {
        [allow(vec![(vec![vec![AuthorizationClause { test: SourceTest::TrustDomains(list(text)), not }]], vec![])])]
    };
    let sleep = format!("{SLEEP} 10.0.0.1:80");
    check(&policy(false, "cluster.local"), &sleep, true);
    check(&policy(false, "cluster*"), &sleep, true);
    check(&policy(false, "cluster"), &sleep, false);
    check(&policy(false, "*"), "- 10.0.0.1:80", false);
    check(&policy(true, "bad*,cluster.local"), &sleep, false);
    check(&policy(true, "bad*"), &sleep, true);
}

#[test]
fn where_a_connection_was_for() {
    let to = |test| [allow(vec![(vec![], vec![is(test)])])];
    check(&to(OperationTest::Addresses(blocks("198.18.0.0/16"))), "- 10.0.0.1:80", true);
    check(&to(OperationTest::Addresses(blocks("198.19.0.0/16"))), "- 10.0.0.1:80", false);
    check(&to(OperationTest::ServerNames(list("outbound_.80_*"))), "- 10.0.0.1:80", true);
    check(&to(OperationTest::ServerNames(list("*.com"))), "- 10.0.0.1:80", false);
}

#[test]
fn a_header_opens_as_a_whole_and_closes_by_any_part() {
    let allow_if = |clauses| [allow(vec![(vec![clauses], vec![])])];
    let deny_if = |clauses| [deny(vec![(vec![clauses], vec![])])];
    let role = || header("x-role", "admin");
    for lines in ["x-role=admin", "x-role=user x-role=admin", "x-role=user,admin", "x-role=a x-role=admin x-role=b"] {
        let caller = format!("- 10.0.0.1:80 GET a / {lines}");
        let alone = lines == "x-role=admin";
        check(&allow_if(is(role())), &caller, alone);
        check(&allow_if(is_not(role())), &caller, false);
        check(&deny_if(is(role())), &caller, false);
        check(&deny_if(is_not(role())), &caller, alone);
    }
    let none = "- 10.0.0.1:80 GET a /";
    check(&allow_if(is(header("x-role", "*"))), none, false);
    check(&allow_if(is_not(header("x-role", "*"))), none, true);
    check(&deny_if(is(header("x", "*"))), "- 10.0.0.1:80 GET a / x=\u{ff}", false);
    check(&deny_if(is(role())), "- 10.0.0.1:80", false);
    check(&allow_if(is(role())), "- 10.0.0.1:80", false);
}

#[test]
fn templates_take_every_character() {
    let policy = [deny(vec![(vec![], vec![paths("/any/{**}")])])];
    for path in ["/any/*abc", "/any/%2a", "/any/a/b"] {
        check(&policy, &format!("- 10.0.0.1:80 GET a {path}"), false);
    }
    check(&policy, "- 10.0.0.1:80 GET a /any", true);
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
    let methods = is(OperationTest::Methods(list("GET,HEAD")));
    let rest = [is_not(OperationTest::Paths(list("/x*"))), is(OperationTest::Ports(vec![80]))];
    let operation = [methods, rest.concat()].concat();
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
    let mixed = [is(OperationTest::Ports(vec![80])), paths("/x")].concat();
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
fn a_denial_names_its_rule_and_a_listener_hears_of_all_before() {
    let rules = (0..9).map(|port| (vec![], vec![is(OperationTest::Ports(vec![port]))])).chain([(vec![], vec![])]);
    let policies = Policies::compile(&[deny(rules.collect())], Carried::Tcp);
    let destination = ([198, 18, 0, 5], 2).into();
    let peer = Peer { principal: None, namespace: None, address: [10, 0, 0, 1].into(), destination, server_name: None };
    let mut why = Vec::new();
    let Verdict::Denied { rule: Some(rule) } = super::check(&policies, &peer, None, &mut why) else {
        panic!("allowed")
    };
    assert_eq!(&**rule, "ns[shop]-policy[p]-rule[2]");
    let told: Vec<_> = why.iter().map(|(rule, miss)| (rule.as_str(), miss.is_some())).collect();
    let name = |index: usize| format!("deny[{index}] ns[shop]-policy[p]-rule[{index}]");
    assert_eq!(told, [(&*name(0), true), (&*name(1), true), (&*name(2), false)]);
}

//! What guards something: served exactly, or refused at its place.
//!
//! Never here: TLS (`tls`), and what only shapes traffic (`traffic`). Part of `decode`'s tests.

use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::rbac::v3::{self as rbac, Permission, Principal, permission, principal},
    extensions::{
        filters::{
            http::rbac::v3::Rbac, listener::proxy_protocol::v3::ProxyProtocol, network::rbac::v3::Rbac as NetworkRbac,
        },
        path::r#match::uri_template::v3::UriTemplateMatchConfig,
    },
    r#type::matcher::v3::{PathMatcher, path_matcher},
};

use super::*;

fn permit(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn identify(identifier: principal::Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn path_rule(pattern: MatchPattern) -> Permission {
    permit(permission::Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(string(pattern))) }))
}

fn header_rule(name: &str, pattern: MatchPattern) -> Permission {
    permit(permission::Rule::Header(route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(string(pattern))),
        ..Default::default()
    }))
}

fn authenticated(pattern: MatchPattern) -> Principal {
    let principal_name = Some(string(pattern));
    identify(principal::Identifier::Authenticated(principal::Authenticated { principal_name }))
}

fn anyone() -> Principal {
    identify(principal::Identifier::Any(true))
}

fn anything() -> Permission {
    permit(permission::Rule::Any(true))
}

/// A listener whose HTTP chain has one policy.
fn guarded(permissions: Vec<Permission>, principals: Vec<Principal>) -> listener::Listener {
    let policy = rbac::Policy { permissions, principals, ..Default::default() };
    let rules = rbac::Rbac { action: 0, policies: HashMap::from([("p".to_owned(), policy)]), ..Default::default() };
    let filter = http_filter("envoy.filters.http.rbac", &Rbac { rules: Some(rules), ..Default::default() });
    http_listener(&manager(vec![filter, router()]))
}

fn rule_of(permissions: Vec<Permission>, principals: Vec<Principal>) -> AuthorizationRule {
    http_of(&served(&guarded(permissions, principals))).authorization[0].rules[0].clone()
}

fn all(rules: Vec<Permission>) -> Permission {
    permit(permission::Rule::AndRules(permission::Set { rules }))
}

fn either(rules: Vec<Permission>) -> Permission {
    permit(permission::Rule::OrRules(permission::Set { rules }))
}

fn not(rule: Permission) -> Permission {
    permit(permission::Rule::NotRule(Box::new(rule)))
}

#[test]
fn policies_are_read_however_they_are_nested() {
    let get = || header_rule(":method", exact("GET"));
    let admin = || path_rule(exact("/admin"));
    let port = || permit(permission::Rule::DestinationPort(80));
    let want = vec![
        AuthorizationClause::is(OperationTest::Methods(vec!["GET".to_owned()])),
        AuthorizationClause::is_not(OperationTest::Paths(vec!["/admin".to_owned()])),
        AuthorizationClause::is(OperationTest::Ports(vec![80])),
    ];
    for shape in [
        vec![all(vec![get(), not(admin()), port()])],
        vec![all(vec![either(vec![get()]), not(either(vec![admin()])), either(vec![port()])])],
        vec![all(vec![all(vec![get()]), all(vec![not(all(vec![admin()])), all(vec![port()])])])],
        vec![either(vec![all(vec![get(), not(admin()), port()])])],
    ] {
        assert_eq!(rule_of(shape.clone(), vec![anyone()]).to.as_slice(), std::slice::from_ref(&want), "{shape:?}");
    }
    let two = rule_of(vec![get(), admin()], vec![anyone()]).to;
    assert!(matches!(two[0][0].test, OperationTest::Methods(_)) && matches!(two[1][0].test, OperationTest::Paths(_)));
    assert!(rule_of(vec![anything()], vec![anyone()]).to.is_empty());
    assert!(rule_of(vec![get(), anything()], vec![anyone()]).to.is_empty(), "anything takes the rest in");
}

#[test]
fn callers_are_read_however_they_are_nested() {
    let sleep = || authenticated(exact("spiffe://cluster.local/ns/shop/sa/sleep"));
    let shop = || authenticated(MatchPattern::SafeRegex(regex(".*/ns/shop/.*")));
    let ids = |ids| identify(principal::Identifier::AndIds(principal::Set { ids }));
    let no = |id| identify(principal::Identifier::NotId(Box::new(id)));
    let from = rule_of(vec![anything()], vec![ids(vec![sleep(), no(shop())])]).from;
    let principals = |text: &str| AuthorizationClause::is(SourceTest::Principals(vec![text.to_owned()]));
    let namespace = AuthorizationClause::is_not(SourceTest::Namespaces(vec!["shop".to_owned()]));
    assert_eq!(from, [[principals("cluster.local/ns/shop/sa/sleep"), namespace]]);
    let someone = identify(principal::Identifier::Authenticated(principal::Authenticated { principal_name: None }));
    assert_eq!(rule_of(vec![anything()], vec![someone]).from, [[principals("*")]]);
    let suffix = authenticated(MatchPattern::Suffix("/sa/a".to_owned()));
    assert_eq!(rule_of(vec![anything()], vec![suffix]).from, [[principals("*/sa/a")]]);
    let by_regex =
        |text: &str| rule_of(vec![anything()], vec![authenticated(MatchPattern::SafeRegex(regex(text)))]).from;
    let domain = |text: &str| AuthorizationClause::is(SourceTest::TrustDomains(vec![text.to_owned()]));
    assert_eq!(by_regex("spiffe://.+/ns/my-ns/(.+/|)sa/my\\.sa(/.+)?"), [[principals("*/ns/my-ns/sa/my.sa")]]);
    assert_eq!(by_regex("spiffe://bad[^/]*/.*"), [[domain("bad*")]]);
    assert_eq!(by_regex("spiffe://.*-suffix"), [[principals("*-suffix")]]);
}

#[test]
fn parts_that_must_hold_together_may_ask_for_one_attribute_twice() {
    let port = |port| permit(permission::Rule::DestinationPort(port));
    let to = rule_of(vec![all(vec![either(vec![port(80), port(90)]), port(80)])], vec![anyone()]).to;
    let ports = |ports: &[u16]| AuthorizationClause::is(OperationTest::Ports(ports.to_vec()));
    assert_eq!(to, [[ports(&[80, 90]), ports(&[80])]]);
    let sni = permit(permission::Rule::RequestedServerName(string(exact("a"))));
    let name = AuthorizationClause::is(OperationTest::ServerNames(vec!["a".to_owned()]));
    assert_eq!(rule_of(vec![sni], vec![anyone()]).to, [[name]]);
    let role = route::HeaderMatcher {
        name: "X-Role".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
        invert_match: true,
        ..Default::default()
    };
    let header = AuthorizationClause::is_not(SourceTest::Header("x-role".to_owned(), vec!["*".to_owned()]));
    assert_eq!(rule_of(vec![anything()], vec![identify(principal::Identifier::Header(role))]).from, [[header]]);
}

#[test]
fn policies_that_we_cannot_test_are_refused() {
    let place = "rules.policies[p]";
    let check = |permission| refused(&guarded(vec![permission], vec![anyone()]), place, true);
    check(header_rule("x-role", exact("admin")));
    check(either(vec![anything(), header_rule("x-role", exact("admin"))]));
    check(path_rule(MatchPattern::Contains("x".to_owned())));
    check(path_rule(MatchPattern::SafeRegex(regex("/a[0-9]"))));
    check(path_rule(exact("/a*")));
    check(path_rule(exact("/a/{*}")));
    check(all(vec![either(vec![path_rule(exact("/a")), not(path_rule(exact("/b")))])]));
    check(all(vec![either(vec![path_rule(exact("/a")), header_rule(":method", exact("GET"))])]));
    check(not(all(vec![path_rule(exact("/a")), header_rule(":method", exact("GET"))])));
    check(not(anything()));
    check(permit(permission::Rule::Any(false)));
    for path_template in ["/a/{x}", "/a/b", "/**/a/*"].map(str::to_owned) {
        let typed_config = Some(any(&UriTemplateMatchConfig { path_template }));
        let config = core::TypedExtensionConfig { name: "t".to_owned(), typed_config };
        check(permit(permission::Rule::UriTemplate(config)));
    }
    let check = |principal| refused(&guarded(vec![anything()], vec![principal]), place, true);
    check(authenticated(exact("CN=someone")));
    check(authenticated(MatchPattern::SafeRegex(regex("spiffe://.*/sa/[ab]"))));
    check(identify(principal::Identifier::RemoteIp(Default::default())));
    check(identify(principal::Identifier::Metadata(Default::default())));
    let mut condition = guarded(vec![anything()], vec![anyone()]);
    let policy = rbac::Policy {
        permissions: vec![anything()],
        principals: vec![anyone()],
        condition: Some(Default::default()),
        ..Default::default()
    };
    let rules = rbac::Rbac { policies: HashMap::from([("p".to_owned(), policy)]), ..Default::default() };
    let filter = network_filter("rbac", any(&NetworkRbac { rules: Some(rules), ..Default::default() }));
    condition.filter_chains[0].filters.insert(0, filter);
    refused(&condition, "condition", true);
}

#[test]
fn a_shadow_rule_enforces_nothing_and_a_log_rule_neither() {
    let rules = |action| Some(rbac::Rbac { action, ..Default::default() });
    let shadow = Rbac { shadow_rules: rules(1), ..Default::default() };
    let log = Rbac { rules: rules(2), ..Default::default() };
    let filters = vec![http_filter("rbac", &shadow), http_filter("rbac", &log), router()];
    let (resource, notes) = read(&http_listener(&manager(filters))).unwrap();
    assert!(http_of(&resource).authorization.is_empty());
    assert_eq!(notes.len(), 2);
}

#[test]
fn filters_that_guard_are_refused() {
    for url in [
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "envoy.extensions.filters.http.lua.v3.Lua",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "acme.Unknown",
        "xds.type.v3.TypedStruct",
    ] {
        let listener = http_listener(&manager(vec![raw_http_filter("some.filter", opaque(url)), router()]));
        refused(&listener, "http_filters[some.filter]", true);
        let mut route = wire_route(prefix("/"), route::route::Action::Route(to_cluster("a")));
        route.typed_per_filter_config = HashMap::from([("some.filter".to_owned(), opaque(url))]);
        refused(&table_of(vec![route]), "typed_per_filter_config", true);
    }
    let mut listener = http_listener(&manager(vec![router()]));
    let filter = opaque("envoy.extensions.filters.network.ext_authz.v3.ExtAuthz");
    listener.filter_chains[0].filters.insert(0, network_filter("guard", filter));
    refused(&listener, "filters[guard]", true);
}

#[test]
fn what_would_take_other_connections_is_refused() {
    let check = |place: &str, bend: &dyn Fn(&mut listener::Listener)| {
        let mut listener = http_listener(&manager(vec![router()]));
        bend(&mut listener);
        refused(&listener, place, true);
    };
    let matches = |bend: &dyn Fn(&mut listener::FilterChainMatch)| {
        let mut matches = listener::FilterChainMatch::default();
        bend(&mut matches);
        Some(matches)
    };
    check("filter_chain_matcher", &|listener| listener.filter_chain_matcher = Some(Default::default()));
    check("source_ports", &|listener| {
        listener.filter_chains[0].filter_chain_match = matches(&|matches| matches.source_ports = vec![1]);
    });
    check("source_type", &|listener| {
        listener.filter_chains[0].filter_chain_match = matches(&|matches| matches.source_type = 1);
    });
    check("use_proxy_proto", &|listener| listener.filter_chains[0].use_proxy_proto = truth(true));
    check("allow_requests_without_proxy_protocol", &|listener| {
        let filter = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..Default::default() };
        listener.listener_filters = vec![listener::ListenerFilter {
            name: "proxy".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(&filter))),
            ..Default::default()
        }];
    });
    check("listener_filters[dynamic]", &|listener| {
        let config = opaque("envoy.extensions.filters.listener.dynamic_modules.v3.DynamicModuleListenerFilter");
        listener.listener_filters = vec![listener::ListenerFilter {
            name: "dynamic".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
            ..Default::default()
        }];
    });
}

#[test]
fn what_would_take_other_requests_is_refused() {
    let check = |place: &str, bend: &dyn Fn(&mut route::RouteMatch)| {
        let mut matches = prefix("/");
        bend(&mut matches);
        refused(&table_of(vec![wire_route(matches, route::route::Action::Route(to_cluster("a")))]), place, true);
    };
    check("runtime_fraction", &|matches| matches.runtime_fraction = Some(Default::default()));
    check("tls_context", &|matches| matches.tls_context = Some(Default::default()));
    check("cookies", &|matches| matches.cookies = vec![Default::default()]);
    check("path_match_policy", &|matches| {
        matches.path_specifier = Some(route::route_match::PathSpecifier::PathMatchPolicy(Default::default()));
    });
    check("headers[0]", &|matches| {
        matches.headers = vec![route::HeaderMatcher {
            name: "x".to_owned(),
            header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::RangeMatch(Default::default())),
            ..Default::default()
        }];
    });
    let mut table = table_of(Vec::new());
    table.virtual_hosts[0].require_tls = 2;
    refused(&table, "require_tls", true);
    let mut scoped = manager(vec![router()]);
    scoped.route_specifier = Some(RouteSpecifier::ScopedRoutes(Default::default()));
    refused(&http_listener(&scoped), "scoped_routes", false);
    let mut slashes = manager(vec![router()]);
    slashes.path_with_escaped_slashes_action = 2;
    refused(&http_listener(&slashes), "path_with_escaped_slashes_action", true);
}

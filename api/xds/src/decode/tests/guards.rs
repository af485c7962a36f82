//! What guards something: served exactly, or refused at its place.
//!
//! Never here: traffic (`traffic`). Part of `decode`'s tests.

use std::collections::HashMap;

use envoy_types::pb::envoy::{
    config::rbac::v3::{self as rbac, Permission, Principal, permission, principal},
    extensions::{
        filters::{
            http::rbac::v3::Rbac, listener::proxy_protocol::v3::ProxyProtocol, network::rbac::v3::Rbac as NetworkRbac,
        },
        path::r#match::uri_template::v3::UriTemplateMatchConfig,
        transport_sockets::tls::v3::{
            self as tls, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            UpstreamTlsContext, common_tls_context::ValidationContextType,
        },
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

fn exact(text: &str) -> MatchPattern {
    MatchPattern::Exact(text.to_owned())
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

fn socket<M: Name>(context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(context))),
    }
}

fn file(path: &str) -> Option<core::DataSource> {
    Some(core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..Default::default()
    })
}

fn client(context: CertificateValidationContext) -> cluster::Cluster {
    let mut wire = cluster_named("a");
    wire.transport_socket = Some(socket(&UpstreamTlsContext {
        sni: "a.com".to_owned(),
        common_tls_context: Some(CommonTlsContext {
            validation_context_type: Some(ValidationContextType::ValidationContext(context)),
            ..Default::default()
        }),
        ..Default::default()
    }));
    wire
}

#[test]
fn tls_to_servers() {
    let roots = || CertificateValidationContext { trusted_ca: file("/roots.pem"), ..Default::default() };
    let named = |pattern| CertificateValidationContext { match_subject_alt_names: vec![string(pattern)], ..roots() };
    let resource = served(&client(named(exact("spiffe://td/ns/a/sa/b"))));
    let UpstreamTls::On(tls) = &cluster_of(&resource).tls else { panic!("{resource:?}") };
    assert_eq!(tls.roots, Some(RootsRef::File("/roots.pem".to_owned())));
    assert_eq!(tls.subject_alt_names, ["spiffe://td/ns/a/sa/b"]);
    assert!(!tls.insecure && !tls.mesh);
    let (resource, _) = read(&client(CertificateValidationContext::default())).unwrap();
    let UpstreamTls::On(tls) = &cluster_of(&resource).tls else { panic!("{resource:?}") };
    assert!(tls.insecure, "without roots Envoy takes anything");

    refused(&client(named(MatchPattern::Prefix("spiffe://td/".to_owned()))), "match_typed_subject_alt_names", true);
    refused(&client(CertificateValidationContext { crl: file("/crl"), ..roots() }), "crl", true);
    refused(
        &client(CertificateValidationContext { verify_certificate_hash: vec!["x".to_owned()], ..roots() }),
        "verify_certificate_hash",
        true,
    );
    refused(
        &client(CertificateValidationContext { custom_validator_config: Some(Default::default()), ..roots() }),
        "custom_validator_config",
        true,
    );
    let mut unknown = cluster_named("a");
    unknown.transport_socket = Some(core::TransportSocket {
        name: "quic".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(opaque(
            "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
        ))),
    });
    refused(&unknown, "transport_socket", true);
    let mut by_label = cluster_named("a");
    by_label.transport_socket_matches = vec![cluster::cluster::TransportSocketMatch {
        r#match: Some(object(&[("zone", "a")])),
        transport_socket: Some(socket(&UpstreamTlsContext::default())),
        ..Default::default()
    }];
    refused(&by_label, "transport_socket_matches[0]", true);
}

fn server(context: &DownstreamTlsContext) -> listener::Listener {
    let mut listener = http_listener(&manager(vec![router()]));
    listener.filter_chains[0].transport_socket = Some(socket(context));
    listener
}

#[test]
fn tls_to_clients() {
    let sds = |name: &str, ads: bool| SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(if ads {
                core::config_source::ConfigSourceSpecifier::Ads(Default::default())
            } else {
                core::config_source::ConfigSourceSpecifier::ApiConfigSource(Default::default())
            }),
            ..Default::default()
        }),
    };
    let common = |name: &str, ads| CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![sds(name, ads)],
        ..Default::default()
    };
    let certificate = |common| {
        let context = DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let Resource::Listener(listener) = served(&server(&context)) else { panic!("a listener") };
        listener.chains[0].tls.as_ref().unwrap().certificate.clone()
    };
    assert_eq!(certificate(common("default", false)), CertificateRef::Workload);
    assert_eq!(certificate(common("default", true)), CertificateRef::Secret("default".to_owned()));
    assert_eq!(certificate(common("shop-cert", true)), CertificateRef::Secret("shop-cert".to_owned()));
    let files = tls::TlsCertificate { certificate_chain: file("/c"), private_key: file("/k"), ..Default::default() };
    let in_files = CommonTlsContext { tls_certificates: vec![files], ..Default::default() };
    assert_eq!(certificate(in_files), CertificateRef::Files { chain: "/c".to_owned(), key: "/k".to_owned() });

    let check = |place: &str, bend: &dyn Fn(&mut DownstreamTlsContext)| {
        let mut context =
            DownstreamTlsContext { common_tls_context: Some(common("default", false)), ..Default::default() };
        bend(&mut context);
        refused(&server(&context), place, true);
    };
    check("require_sni", &|context| context.require_sni = truth(true));
    check("common_tls_context", &|context| context.require_client_certificate = truth(true));
    check("tls_certificate_sds_secret_configs", &|context| {
        context.common_tls_context = Some(common("elsewhere", false))
    });
    check("match_typed_subject_alt_names", &|context| {
        let checks = CertificateValidationContext {
            trusted_ca: file("/roots.pem"),
            match_subject_alt_names: vec![string(exact("spiffe://td/ns/a/sa/b"))],
            ..Default::default()
        };
        let common = context.common_tls_context.get_or_insert_default();
        common.validation_context_type = Some(ValidationContextType::ValidationContext(checks));
    });
    refused(&server(&DownstreamTlsContext::default()), "tls_certificates", false);
}

#[test]
fn client_certificates_of_some_trust_domains() {
    let names = ["spiffe://a/", "spiffe://b/"].map(|text| string(MatchPattern::Prefix(text.to_owned())));
    let local = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: Some(core::ConfigSource::default()) };
    let combined = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: names.to_vec(),
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(local("ROOTCA")),
        ..Default::default()
    };
    let context = DownstreamTlsContext {
        require_client_certificate: truth(true),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![local("default")],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let Resource::Listener(listener) = served(&server(&context)) else { panic!("a listener") };
    let tls = listener.chains[0].tls.as_ref().unwrap();
    assert_eq!(tls.trust_domains, ["a", "b"]);
    assert!(tls.mesh && tls.require_client_certificate);
}

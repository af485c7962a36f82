//! What others send and we serve, wholly or with a note.
//!
//! Never here: clusters and endpoints (`clusters`), refusals of guards (`guards`). Part of `decode`'s tests.

use std::time::Duration;

use api::name::Percent;
use envoy_types::pb::envoy::{
    config::accesslog::v3::{AccessLog as WireLog, access_log},
    extensions::{
        access_loggers::stream::v3::StdoutAccessLog,
        filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
    },
};

use super::*;
use crate::typed::TypedStruct;

#[test]
fn a_listener_with_inline_routes_and_nothing_else() {
    // As in java-control-plane's and go-control-plane's examples.
    let mut manager = manager(vec![router()]);
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(table_of(vec![wire_route(
        prefix("/"),
        route::route::Action::Route(to_cluster("service")),
    )])));
    let resource = served(&http_listener(&manager));
    let Resource::Listener(listener) = &resource else { panic!("{resource:?}") };
    assert_eq!((listener.bind, listener.direction), (true, Direction::Gateway));
    assert_eq!(listener.chains[0].name, "chain-0");
    let server = http_of(&resource);
    let RoutesRef::Inline(table) = &server.routes else { panic!("{server:?}") };
    let Action::Forward(forward) = &table.virtual_hosts[0].routes[0].action else { panic!("{table:?}") };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)), "Envoy's own default");
    assert_eq!(server.normalize, PathNormalization::None);
    assert_eq!(server.idle_timeout, Duration::from_secs(3600));
    assert!(!server.http10);
}

#[test]
fn istios_filters_are_known() {
    let wrapped = |inner: &str, outer: &str| protobuf::Any {
        type_url: outer.to_owned(),
        value: TypedStruct { type_url: format!("type.googleapis.com/{inner}"), value: None }.encode_to_vec(),
    };
    let filters = vec![
        raw_http_filter("istio.metadata_exchange", opaque("io.istio.http.peer_metadata.Config")),
        raw_http_filter("istio.alpn", opaque("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig")),
        raw_http_filter("envoy.filters.http.cors", opaque("envoy.extensions.filters.http.cors.v3.Cors")),
        raw_http_filter("istio.stats", wrapped("stats.PluginConfig", "type.googleapis.com/udpa.type.v1.TypedStruct")),
        router(),
    ];
    let resource = served(&http_listener(&manager(filters)));
    assert!(http_of(&resource).metrics);
}

#[test]
fn istios_tcp_chain() {
    let proxy = TcpProxy {
        stat_prefix: "outbound|3306||mysql.db.svc.cluster.local".to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(
            "outbound|3306||mysql.db.svc.cluster.local".to_owned(),
        )),
        ..Default::default()
    };
    let filters = vec![
        network_filter("istio.metadata_exchange", opaque("envoy.tcp.metadataexchange.config.MetadataExchange")),
        network_filter("istio.stats", opaque("stats.PluginConfig")),
        network_filter("envoy.filters.network.tcp_proxy", any(&proxy)),
    ];
    let mut wire = listener_of(filters);
    wire.bind_to_port = truth(false);
    wire.traffic_direction = 2;
    wire.default_filter_chain = wire.filter_chains.first().cloned();
    let Resource::Listener(listener) = served(&wire) else { panic!("a listener") };
    assert_eq!((listener.bind, listener.direction), (false, Direction::Outbound));
    assert_eq!(listener.default_chain.as_ref().unwrap().name, "default");
    let Network::Tcp(server) = &listener.chains[0].network else { panic!("{listener:?}") };
    assert!(server.metrics);
    assert_eq!(server.clusters[0].weight, 1);
}

#[test]
fn a_grpc_api_listener() {
    let wire = listener::Listener {
        name: "helloworld.default.svc.cluster.local:5000".to_owned(),
        api_listener: Some(listener::ApiListener { api_listener: Some(any(&manager(vec![router()]))) }),
        ..Default::default()
    };
    let Resource::Listener(listener) = served(&wire) else { panic!("a listener") };
    assert!(!listener.bind && listener.default_chain.is_some());
}

#[test]
fn matchers_of_older_years() {
    use route::header_matcher::HeaderMatchSpecifier as Specifier;
    let header = |name: &str, specifier| route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: specifier,
        ..Default::default()
    };
    let mut matches = prefix("/");
    matches.headers = vec![
        header("A", Some(Specifier::ExactMatch("x".to_owned()))),
        header("b", Some(Specifier::SafeRegexMatch(regex("v[0-9]")))),
        header("c", Some(Specifier::PrefixMatch("x".to_owned()))),
        header("d", Some(Specifier::SuffixMatch("x".to_owned()))),
        header("e", Some(Specifier::ContainsMatch("x.y".to_owned()))),
        header("f", None),
        header("g", Some(Specifier::PresentMatch(false))),
    ];
    let resource = served(&table_of(vec![wire_route(matches, route::route::Action::Route(to_cluster("a")))]));
    let got: Vec<(&str, &TextMatch, bool)> =
        first_route(&resource).matches.headers.iter().map(|one| (one.name.as_str(), &one.value, one.invert)).collect();
    let owned = |text: &str| text.to_owned();
    let want = [
        ("a", &TextMatch::Exact(owned("x")), false),
        ("b", &TextMatch::Regex(owned("v[0-9]")), false),
        ("c", &TextMatch::Prefix(owned("x")), false),
        ("d", &TextMatch::Suffix(owned("x")), false),
        ("e", &TextMatch::Regex(owned(".*x\\.y.*")), false),
        ("f", &TextMatch::Present, false),
        ("g", &TextMatch::Present, true),
    ];
    assert_eq!(got, want);
}

#[test]
fn an_inverted_matcher_of_envoys_needs_the_header() {
    use route::header_matcher::HeaderMatchSpecifier as Specifier;
    let header = |missing_as_empty| route::HeaderMatcher {
        name: "x".to_owned(),
        invert_match: true,
        treat_missing_header_as_empty: missing_as_empty,
        header_match_specifier: Some(Specifier::StringMatch(string(MatchPattern::Exact("1".to_owned())))),
    };
    for (missing_as_empty, want) in [(true, 1), (false, 2)] {
        let mut matches = prefix("/");
        matches.headers = vec![header(missing_as_empty)];
        let resource = served(&table_of(vec![wire_route(matches, route::route::Action::Route(to_cluster("a")))]));
        let headers = &first_route(&resource).matches.headers;
        assert_eq!(headers.len(), want);
        assert!(headers[0].invert);
    }
}

#[test]
fn texts_in_either_case_become_regexes() {
    let mut matches = prefix("/");
    matches.query_parameters = vec![route::QueryParameterMatcher {
        name: "q".to_owned(),
        query_parameter_match_specifier: Some(
            route::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(StringMatcher {
                match_pattern: Some(MatchPattern::Prefix("a.b".to_owned())),
                ignore_case: true,
            }),
        ),
    }];
    let resource = served(&table_of(vec![wire_route(matches, route::route::Action::Route(to_cluster("a")))]));
    assert_eq!(first_route(&resource).matches.query[0].value, TextMatch::Regex("(?i)a\\.b.*".to_owned()));
}

#[test]
fn what_a_table_says_for_all_is_handed_down() {
    let mut table = table_of(vec![wire_route(prefix("/"), route::route::Action::Route(to_cluster("a")))]);
    table.request_headers_to_add = vec![header_line("x", "table")];
    let host = &mut table.virtual_hosts[0];
    host.request_headers_to_remove = vec!["gone".to_owned()];
    host.retry_policy = Some(route::RetryPolicy { retry_on: "5xx, reset".to_owned(), ..Default::default() });
    let mut overwrite = header_line("x", "route");
    overwrite.append = truth(false);
    host.routes[0].request_headers_to_add = vec![overwrite];
    let resource = served(&table);
    let changes = &first_route(&resource).headers.request;
    assert_eq!(changes.set, [("x".to_owned(), "route".to_owned())]);
    assert_eq!(changes.add, [("x".to_owned(), "table".to_owned())]);
    assert_eq!(changes.remove, ["gone"]);
    let retry = forward_of(&resource).retry.as_ref().unwrap();
    assert_eq!((retry.attempts, retry.on.as_slice()), (1, ["5xx".to_owned(), "reset".to_owned()].as_slice()));
    assert_eq!(retry.backoff, Duration::from_millis(25), "Envoy's own default");
}

#[test]
fn shares_in_any_denominator() {
    let share = |numerator, denominator| route::route_action::RequestMirrorPolicy {
        cluster: "m".to_owned(),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator, denominator }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut action = to_cluster("a");
    action.request_mirror_policies = vec![share(50, 0), share(1, 1), share(7, 2), share(200, 0)];
    let resource = served(&table_of(vec![wire_route(prefix("/"), route::route::Action::Route(action))]));
    let shares: Vec<u32> = forward_of(&resource).mirrors.iter().map(|mirror| mirror.share.millionths()).collect();
    assert_eq!(shares, [500_000, 100, 7, Percent::ALL.millionths()]);
}

#[test]
fn an_action_that_we_cannot_do_answers_503() {
    let by_header = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::ClusterHeader("x-cluster".to_owned())),
        ..Default::default()
    };
    let (resource, notes) =
        read(&table_of(vec![wire_route(prefix("/"), route::route::Action::Route(by_header))])).unwrap();
    assert_eq!(first_route(&resource).action, Action::Reply { status: 503, body: String::new() });
    assert_eq!(notes, ["virtual_hosts[all].routes[0].route.cluster_specifier"]);
}

#[test]
fn traffic_that_is_not_shaped_is_noted() {
    let mut action = to_cluster("a");
    action.hash_policy = vec![Default::default()];
    action.hedge_policy = Some(Default::default());
    let table = table_of(vec![wire_route(prefix("/"), route::route::Action::Route(action))]);
    let (resource, notes) = read(&table).unwrap();
    assert_eq!(forward_of(&resource).clusters[0].cluster, "a");
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn connect_routes_take_nothing() {
    let connect = route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::ConnectMatcher(Default::default())),
        ..Default::default()
    };
    let rest = wire_route(prefix("/"), route::route::Action::Route(to_cluster("a")));
    let (resource, notes) =
        read(&table_of(vec![wire_route(connect, route::route::Action::Route(to_cluster("c"))), rest])).unwrap();
    assert_eq!(forward_of(&resource).clusters[0].cluster, "a");
    assert_eq!(notes.len(), 1);
}

#[test]
fn istios_origin() {
    let mut route = wire_route(prefix("/"), route::route::Action::Route(to_cluster("a")));
    let config = "/apis/networking.istio.io/v1alpha3/namespaces/shop/virtual-service/reviews";
    route.metadata = metadata("istio", &[("config", config)]);
    let resource = served(&table_of(vec![route]));
    let origin = first_route(&resource).origin.as_ref().unwrap();
    assert_eq!(origin.object.to_string(), "VirtualService/reviews.shop");
}

#[test]
fn a_log_to_a_standard_stream() {
    let mut manager = manager(vec![router()]);
    manager.access_log = vec![
        WireLog {
            config_type: Some(access_log::ConfigType::TypedConfig(opaque(
                "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            ))),
            ..Default::default()
        },
        WireLog {
            config_type: Some(access_log::ConfigType::TypedConfig(any(&StdoutAccessLog::default()))),
            ..Default::default()
        },
    ];
    let (resource, notes) = read(&http_listener(&manager)).unwrap();
    let log = http_of(&resource).access_log.as_ref().unwrap();
    assert_eq!((log.path.as_str(), log.json, notes.len()), ("/dev/stdout", false, 1));
}

#[test]
fn an_optional_filter_may_be_left_out() {
    let mut filter = raw_http_filter("acme.shiny", opaque("acme.Shiny"));
    filter.is_optional = true;
    let mut off =
        raw_http_filter("envoy.filters.http.ext_authz", opaque("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"));
    off.disabled = true;
    let (_, notes) = read(&http_listener(&manager(vec![filter, off, router()]))).unwrap();
    assert_eq!(notes.len(), 1);
}

#[test]
fn plain_nonsense_is_refused_with_its_place() {
    refused(&http_listener(&manager(Vec::new())), "http_filters", false);
    refused(&listener_of(Vec::new()), "filters", false);
    refused(&table_of(vec![route::Route::default()]), "routes[0].match", false);
    let mut matches = prefix("/");
    matches.path_specifier = Some(route::route_match::PathSpecifier::SafeRegex(regex("(")));
    refused(&table_of(vec![wire_route(matches, route::route::Action::Route(to_cluster("a")))]), "safe_regex", false);
    let mut wire = cluster_named("a");
    wire.connect_timeout = seconds(-1);
    refused(&wire, "connect_timeout", false);
    wire = cluster_named("a");
    wire.cluster_discovery_type = Some(cluster::cluster::ClusterDiscoveryType::ClusterType(Default::default()));
    refused(&wire, "cluster_type", false);
    let mut far = http_listener(&manager(vec![router()]));
    far.address = address("0.0.0.0", 70000);
    refused(&far, "address", false);
    let error = decode("type.googleapis.com/acme.Thing", &[], &mut Notes::new()).unwrap_err();
    assert_eq!(error, DecodeError::Type("type.googleapis.com/acme.Thing".to_owned()));
    let error = decode(crate::TYPE_URL_CLUSTER, &[0xff], &mut Notes::new()).unwrap_err();
    assert!(matches!(error, DecodeError::Bytes { .. }), "{error}");
}

//! Messages that other control planes send and our encoder never would.
//!
//! Built by hand in the shapes of Istio, Envoy Gateway, java-control-plane and gRPC's: inline routes, fields of older years,
//! filters of Istio's, policies as trees; and what must be refused, with the place it is refused at.
//! Never here: our own encoding (`encode`'s tests). Run by `cargo test -p api-xds`.

mod clusters;
mod guards;
mod tls;
mod traffic;

use api::{note::Notes, spec::*};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3 as cluster,
            core::v3::{
                self as core, Address as WireAddress, HeaderValue, HeaderValueOption, SocketAddress,
                address::Address as AddressKind, socket_address::PortSpecifier,
            },
            listener::v3::{self as listener, Filter, FilterChain as WireChain, filter},
            route::v3 as route,
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter,
            },
        },
        r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::{self, value::Kind},
};
use prost::{Message, Name};

use super::{DecodeError, decode};

/// Decodes; gives the resource and the paths of the notes.
fn read<M: Name>(message: &M) -> Result<(Resource, Vec<String>), DecodeError> {
    let mut notes = Notes::new();
    let resource = decode(&M::type_url(), &message.encode_to_vec(), &mut notes)?;
    Ok((resource, notes.iter().map(|note| note.path.clone()).collect()))
}

/// Decodes what must be served without a remark.
fn served<M: Name>(message: &M) -> Resource {
    let (resource, notes) = read(message).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    resource
}

/// Checks that a message is refused at a place, as a guard or as plainly wrong.
fn refused<M: Name>(message: &M, place: &str, guard: bool) {
    let error = read(message).map(|(resource, _)| format!("{resource:#?}")).expect_err(place);
    match &error {
        DecodeError::Unsupported { path, resource, .. } if guard => {
            assert!(path.contains(place) && !resource.is_empty(), "{error}")
        }
        DecodeError::Invalid { path, resource, .. } if !guard => {
            assert!(path.contains(place) && !resource.is_empty(), "{error}")
        }
        DecodeError::Type(_)
        | DecodeError::Bytes { .. }
        | DecodeError::Invalid { .. }
        | DecodeError::Unsupported { .. } => panic!("expected it refused at {place}: {error:?}"),
    }
}

fn any<M: Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn opaque(type_url: &str) -> protobuf::Any {
    protobuf::Any { type_url: format!("type.googleapis.com/{type_url}"), value: Vec::new() }
}

fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

fn truth(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

fn seconds(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

fn object(fields: &[(&str, &str)]) -> protobuf::Struct {
    let value = |text: &str| protobuf::Value { kind: Some(Kind::StringValue(text.to_owned())) };
    protobuf::Struct { fields: fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect() }
}

fn metadata(part: &str, fields: &[(&str, &str)]) -> Option<core::Metadata> {
    let filter_metadata = [(part.to_owned(), object(fields))].into();
    Some(core::Metadata { filter_metadata, ..Default::default() })
}

fn address(text: &str, port: u32) -> Option<WireAddress> {
    let socket = SocketAddress {
        address: text.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Some(WireAddress { address: Some(AddressKind::SocketAddress(socket)) })
}

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..Default::default() }
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn exact(text: &str) -> MatchPattern {
    MatchPattern::Exact(text.to_owned())
}

fn http_filter<M: Name>(name: &str, config: &M) -> HttpFilter {
    raw_http_filter(name, any(config))
}

fn raw_http_filter(name: &str, config: protobuf::Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", &Router::default())
}

fn network_filter(name: &str, config: protobuf::Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

fn manager(filters: Vec<HttpFilter>) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "ingress_http".to_owned(),
        http_filters: filters,
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            route_config_name: "local_route".to_owned(),
            config_source: Some(core::ConfigSource {
                config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
                ..Default::default()
            }),
        })),
        ..Default::default()
    }
}

/// A listener with one chain of these network filters.
fn listener_of(filters: Vec<Filter>) -> listener::Listener {
    listener::Listener {
        name: "listener_0".to_owned(),
        address: address("0.0.0.0", 10000),
        filter_chains: vec![WireChain { filters, ..Default::default() }],
        ..Default::default()
    }
}

fn http_listener(manager: &HttpConnectionManager) -> listener::Listener {
    listener_of(vec![network_filter("envoy.filters.network.http_connection_manager", any(manager))])
}

fn http_of(resource: &Resource) -> &HttpServer {
    let Resource::Listener(listener) = resource else { panic!("a listener: {resource:?}") };
    match &listener.chains[0].network {
        Network::Http(server) => server,
        Network::Tcp(server) => panic!("HTTP: {server:?}"),
    }
}

/// A table with one host for everything and these routes.
fn table_of(routes: Vec<route::Route>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: "local_route".to_owned(),
        virtual_hosts: vec![route::VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn wire_route(matches: route::RouteMatch, action: route::route::Action) -> route::Route {
    route::Route { r#match: Some(matches), action: Some(action), ..Default::default() }
}

fn prefix(text: &str) -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::Prefix(text.to_owned())),
        ..Default::default()
    }
}

fn to_cluster(name: &str) -> route::RouteAction {
    route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(name.to_owned())),
        ..Default::default()
    }
}

fn first_route(resource: &Resource) -> &Route {
    let Resource::Routes(table) = resource else { panic!("routes: {resource:?}") };
    &table.virtual_hosts[0].routes[0]
}

fn forward_of(resource: &Resource) -> &Forward {
    match &first_route(resource).action {
        Action::Forward(forward) => forward,
        Action::Redirect(_) | Action::Reply { .. } => panic!("a forward: {resource:?}"),
    }
}

fn header_line(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn cluster_named(name: &str) -> cluster::Cluster {
    cluster::Cluster { name: name.to_owned(), ..Default::default() }
}

fn cluster_of(resource: &Resource) -> &Cluster {
    let Resource::Cluster(cluster) = resource else { panic!("a cluster: {resource:?}") };
    cluster
}

//! Listeners and filter chains.
//!
//! For a gRPC client a listener is an API listener: the HTTP server of its only chain and nothing around it.
//! Never here: sockets. Called by `encode`.

use api::spec::{ChainMatch, Detect, Direction, FilterChain, Listener, Network, Transport};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::TrafficDirection,
            listener::v3::{self as pb, ApiListener, FilterChainMatch, ListenerFilter, listener_filter},
        },
        extensions::filters::listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, proxy_protocol::v3::ProxyProtocol,
            tls_inspector::v3::TlsInspector,
        },
    },
    google::protobuf,
};

use super::{EncodeError, Out, http, tls, wire};
use crate::{Dialect, names};

pub(super) fn listener(out: Out<'_>, listener: &Listener) -> Result<pb::Listener, EncodeError> {
    let Listener { name, address, direction, bind, use_original_destination, detect, chains, default_chain, origin } =
        listener;
    if out.dialect == Dialect::Grpc {
        return api_listener(out, listener);
    }
    let mut about = wire::origin(origin.as_ref());
    let traffic = match direction {
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
        Direction::Gateway => {
            about.push(("direction", wire::text("gateway")));
            TrafficDirection::Outbound
        }
    };
    let mut filter_chains = Vec::with_capacity(chains.len());
    for one in chains {
        filter_chains.extend(chain(out, one)?);
    }
    let default_filter_chain = default_chain.as_ref().map(|one| chain(out, one)).transpose()?.flatten();
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return out.bad("chains", "none that the reader knows");
    }
    let Detect { tls, http, proxy_header, timeout } = *detect;
    let captured = *use_original_destination || (*bind && *direction == Direction::Inbound);
    let mut listener_filters = Vec::new();
    if captured {
        listener_filters.push(listener_filter(names::FILTER_ORIGINAL_DST, &OriginalDst {}));
    }
    if proxy_header {
        listener_filters.push(listener_filter(names::FILTER_PROXY_HEADER, &ProxyProtocol::default()));
    }
    if tls {
        listener_filters.push(listener_filter(names::FILTER_TLS_INSPECTOR, &TlsInspector::default()));
    }
    if http {
        listener_filters.push(listener_filter(names::FILTER_HTTP_INSPECTOR, &HttpInspector::default()));
    }
    Ok(pb::Listener {
        name: name.clone(),
        address: Some(wire::socket(*address)),
        filter_chains,
        use_original_dst: use_original_destination.then_some(protobuf::BoolValue { value: true }),
        default_filter_chain,
        metadata: wire::metadata([("istio", wire::object(about))]),
        listener_filters,
        listener_filters_timeout: Some(wire::duration(timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: traffic.into(),
        bind_to_port: wire::boolean(*bind),
        ..pb::Listener::default()
    })
}

fn api_listener(out: Out<'_>, listener: &Listener) -> Result<pb::Listener, EncodeError> {
    let server = match (listener.chains.as_slice(), &listener.default_chain) {
        ([only], None) | ([], Some(only)) => match &only.network {
            Network::Http(server) => server,
            Network::Tcp(_) => return out.bad("chains", "a gRPC client speaks HTTP only"),
        },
        _ => return out.bad("chains", "a gRPC client has no connections to choose a chain for"),
    };
    let manager = http::server(out, "chains[0]", server)?;
    Ok(pb::Listener {
        name: listener.name.clone(),
        api_listener: Some(ApiListener { api_listener: Some(wire::any(&manager)) }),
        ..pb::Listener::default()
    })
}

fn listener_filter<M: prost::Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(wire::any(config))),
        ..ListenerFilter::default()
    }
}

/// A chain; none where it is only for protocols that the reader does not know.
fn chain(out: Out<'_>, chain: &FilterChain) -> Result<Option<pb::FilterChain>, EncodeError> {
    let FilterChain { name, matches, tls, network } = chain;
    let known = tls::protocols(out, &matches.application_protocols);
    if known.is_empty() && !matches.application_protocols.is_empty() {
        return Ok(None);
    }
    let path = format!("chains[{name}]");
    let (filters, metrics) = match network {
        Network::Http(server) => {
            (vec![http::filter(names::FILTER_HTTP, &http::server(out, &path, server)?)], Vec::new())
        }
        Network::Tcp(server) => {
            let counted = protobuf::Value { kind: Some(protobuf::value::Kind::BoolValue(server.metrics)) };
            (http::tcp(out, &path, server)?, vec![("metrics", counted)])
        }
    };
    Ok(Some(pb::FilterChain {
        name: name.clone(),
        filter_chain_match: chain_match(matches, known),
        filters,
        metadata: wire::metadata([("istio", wire::object(metrics))]),
        transport_socket: tls.as_ref().map(|tls| tls::server(out, &format!("{path}.tls"), tls)).transpose()?,
        ..pb::FilterChain::default()
    }))
}

fn chain_match(matches: &ChainMatch, application_protocols: Vec<String>) -> Option<FilterChainMatch> {
    let ChainMatch {
        destination_port,
        destination_ranges,
        server_names,
        transport,
        application_protocols: _,
        source_ranges,
    } = matches;
    let ranges = |list: &[ipnet::IpNet]| list.iter().map(|net| wire::range(*net)).collect();
    (*matches != ChainMatch::default()).then(|| FilterChainMatch {
        destination_port: destination_port.and_then(|port| wire::number(port.into())),
        prefix_ranges: ranges(destination_ranges),
        server_names: server_names.clone(),
        transport_protocol: match transport {
            None => String::new(),
            Some(Transport::Raw) => "raw_buffer".to_owned(),
            Some(Transport::Tls) => "tls".to_owned(),
        },
        application_protocols,
        // The direct peer, which is what the spec means: forwarded addresses are for requests.
        source_prefix_ranges: ranges(source_ranges),
        ..FilterChainMatch::default()
    })
}

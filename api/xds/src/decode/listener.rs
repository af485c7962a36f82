//! Listeners and filter chains.
//!
//! Never here: what a chain does (`http`), TLS (`tls`). Called by `decode`.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use api::spec::{ChainMatch, Detect, Direction, FilterChain, Listener, Network, Transport};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::TrafficDirection,
            listener::v3::{self as pb, ListenerFilter, listener_filter},
        },
        extensions::filters::{
            listener::{
                http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, original_src::v3::OriginalSrc,
                proxy_protocol::v3::ProxyProtocol, tls_inspector::v3::TlsInspector,
            },
            network::http_connection_manager::v3::HttpConnectionManager,
        },
    },
    google::protobuf::value::Kind,
};
use prost::Name;

use super::{DecodeError, In, http, read, tls};
use crate::names;

/// How long Envoy waits for listener filters.
const DETECT_DEFAULT: Duration = Duration::from_secs(15);

pub(super) fn listener(input: &mut In<'_>, raw: &pb::Listener) -> Result<Listener, DecodeError> {
    if raw.name.is_empty() {
        return Err(input.invalid("name", "missing"));
    }
    if let Some(any) = raw.api_listener.as_ref().and_then(|listener| listener.api_listener.as_ref()) {
        let manager: HttpConnectionManager = read::message(input, "api_listener", any)?;
        return api_listener(input, raw, &manager);
    }
    input.refuse(
        raw.filter_chain_matcher.is_some(),
        "",
        "filter_chain_matcher",
        "chains are not chosen by matchers",
    )?;
    input.refuse(raw.fcds_config.is_some(), "", "fcds_config", "chains are not subscribed to")?;
    if raw.udp_listener_config.is_some() || raw.listener_specifier.is_some() {
        return Err(input.invalid("", "only TCP is listened on"));
    }
    input.ignore(!raw.additional_addresses.is_empty(), "", "additional_addresses");
    input.ignore(read::truth(raw.transparent.as_ref(), false), "", "transparent");
    let direction = direction(input, raw)?;
    let mut detect = Detect {
        timeout: read::duration_or(
            input,
            "listener_filters_timeout",
            raw.listener_filters_timeout.as_ref(),
            DETECT_DEFAULT,
        )?,
        ..Detect::default()
    };
    for filter in &raw.listener_filters {
        listener_filter(input, filter, &mut detect)?;
    }
    if (detect.tls || detect.http) && !raw.continue_on_listener_filters_timeout && !detect.timeout.is_zero() {
        input.note("continue_on_listener_filters_timeout", "silent connections are taken as raw TCP, not closed");
    }
    let chains = filter_chains(input, &raw.filter_chains)?;
    let default_chain = match &raw.default_filter_chain {
        None => None,
        Some(chain) => {
            let name = if chain.name.is_empty() { "default".to_owned() } else { chain.name.clone() };
            Some(filter_chain(input, "default_filter_chain.", name, chain)?)
        }
    };
    if chains.is_empty() && default_chain.is_none() {
        return Err(input.invalid("filter_chains", "none"));
    }
    Ok(Listener {
        name: raw.name.clone(),
        address: read::socket(input, "address", raw.address.as_ref())?,
        direction,
        bind: binds(raw),
        use_original_destination: read::truth(raw.use_original_dst.as_ref(), false),
        detect,
        chains,
        default_chain,
        origin: read::origin(raw.metadata.as_ref()),
    })
}

fn direction(input: &In<'_>, raw: &pb::Listener) -> Result<Direction, DecodeError> {
    Ok(match TrafficDirection::try_from(raw.traffic_direction) {
        Ok(TrafficDirection::Inbound) => Direction::Inbound,
        Ok(TrafficDirection::Outbound) => {
            let said = read::part(raw.metadata.as_ref(), "istio").and_then(|part| read::text(part, "direction"));
            if said == Some("gateway") { Direction::Gateway } else { Direction::Outbound }
        }
        // Who does not say stands at an edge: nothing there trusts the client more than elsewhere.
        Ok(TrafficDirection::Unspecified) => Direction::Gateway,
        Err(_) => return Err(input.invalid("traffic_direction", "unknown")),
    })
}

/// The chains; each gets a name of its own where the sender gave none, or the same twice.
fn filter_chains(input: &mut In<'_>, raw: &[pb::FilterChain]) -> Result<Vec<FilterChain>, DecodeError> {
    let mut names = HashSet::new();
    let mut chains = Vec::with_capacity(raw.len());
    for (index, chain) in raw.iter().enumerate() {
        let mut name = if chain.name.is_empty() { format!("chain-{index}") } else { chain.name.clone() };
        if !names.insert(name.clone()) {
            name = format!("{name}-{index}");
            names.insert(name.clone());
        }
        chains.push(filter_chain(input, &format!("filter_chains[{index}]."), name, chain)?);
    }
    Ok(chains)
}

fn binds(raw: &pb::Listener) -> bool {
    let older = raw.deprecated_v1.as_ref().and_then(|older| older.bind_to_port.as_ref());
    read::truth(raw.bind_to_port.as_ref().or(older), true)
}

fn api_listener(
    input: &mut In<'_>,
    raw: &pb::Listener,
    manager: &HttpConnectionManager,
) -> Result<Listener, DecodeError> {
    let server = http::server(input, "api_listener.", manager)?;
    Ok(Listener {
        name: raw.name.clone(),
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        direction: Direction::Outbound,
        bind: false,
        use_original_destination: false,
        detect: Detect::default(),
        chains: Vec::new(),
        default_chain: Some(FilterChain {
            name: "api".to_owned(),
            matches: ChainMatch::default(),
            tls: None,
            network: Network::Http(Box::new(server)),
        }),
        origin: None,
    })
}

fn listener_filter(input: &mut In<'_>, raw: &ListenerFilter, detect: &mut Detect) -> Result<(), DecodeError> {
    let path = format!("listener_filters[{}].", raw.name);
    // Where detection is switched off for some ports it still happens: more is known, nothing is lost.
    let type_url = match &raw.config_type {
        Some(listener_filter::ConfigType::TypedConfig(any)) => any.type_url.as_str(),
        Some(listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(input.guards(path, "listener filters are not subscribed to"));
        }
        None => "",
    };
    let is = |name: &str, url: String| type_url == url || (type_url.is_empty() && raw.name == name);
    if is(names::FILTER_TLS_INSPECTOR, TlsInspector::type_url()) {
        detect.tls = true;
    } else if is(names::FILTER_HTTP_INSPECTOR, HttpInspector::type_url()) {
        detect.http = true;
    } else if is(names::FILTER_PROXY_HEADER, ProxyProtocol::type_url()) {
        detect.proxy_header = true;
        if let Some(listener_filter::ConfigType::TypedConfig(any)) = &raw.config_type {
            let filter: ProxyProtocol = read::message(input, &path, any)?;
            input.refuse(
                filter.allow_requests_without_proxy_protocol,
                &path,
                "allow_requests_without_proxy_protocol",
                "a connection that may or may not begin with the header lets anyone say who it is",
            )?;
            input.refuse(
                !filter.disallowed_versions.is_empty(),
                &path,
                "disallowed_versions",
                "both versions are read",
            )?;
            input.ignore(!filter.rules.is_empty(), &path, "rules");
        }
    } else if is("envoy.filters.listener.original_src", OriginalSrc::type_url()) {
        input.note(path, "not honoured");
    } else if !is(names::FILTER_ORIGINAL_DST, OriginalDst::type_url()) {
        return Err(input.guards(path, format!("listener filter {type_url} is not run")));
    }
    Ok(())
}

fn filter_chain(
    input: &mut In<'_>,
    path: &str,
    name: String,
    raw: &pb::FilterChain,
) -> Result<FilterChain, DecodeError> {
    let proxied = read::truth(raw.use_proxy_proto.as_ref(), false);
    input.refuse(proxied, path, "use_proxy_proto", "the PROXY protocol is not read")?;
    let matches = match &raw.filter_chain_match {
        None => ChainMatch::default(),
        Some(matches) => chain_match(input, &format!("{path}filter_chain_match."), matches)?,
    };
    let tls = match &raw.transport_socket {
        None => None,
        Some(socket) => tls::server(input, &format!("{path}transport_socket."), socket)?,
    };
    let about = read::part(raw.metadata.as_ref(), "istio");
    let counted = about.and_then(|part| part.fields.get("metrics")).and_then(|value| value.kind.as_ref());
    let network = http::network(input, path, &raw.filters, matches!(counted, Some(Kind::BoolValue(true))))?;
    Ok(FilterChain { name, matches, tls, network })
}

fn chain_match(input: &In<'_>, path: &str, raw: &pb::FilterChainMatch) -> Result<ChainMatch, DecodeError> {
    input.refuse(
        !raw.address_suffix.is_empty() || raw.suffix_len.is_some(),
        path,
        "address_suffix",
        "ends of addresses are not tested",
    )?;
    input.refuse(!raw.source_ports.is_empty(), path, "source_ports", "source ports are not tested")?;
    input.refuse(raw.source_type != 0, path, "source_type", "sorts of sources are not tested")?;
    let direct = &raw.direct_source_prefix_ranges;
    let both = !direct.is_empty() && !raw.source_prefix_ranges.is_empty();
    input.refuse(both, path, "direct_source_prefix_ranges", "only one kind of source range is tested")?;
    let transport = match raw.transport_protocol.as_str() {
        "" => None,
        "raw_buffer" => Some(Transport::Raw),
        "tls" => Some(Transport::Tls),
        other => return Err(input.invalid(format!("{path}transport_protocol"), format!("{other:?} is not spoken"))),
    };
    let sources = if direct.is_empty() { &raw.source_prefix_ranges } else { direct };
    Ok(ChainMatch {
        destination_port: match &raw.destination_port {
            None => None,
            Some(port) => Some(read::port(input, &format!("{path}destination_port"), port.value)?),
        },
        destination_ranges: read::ranges(input, &format!("{path}prefix_ranges"), &raw.prefix_ranges)?,
        server_names: raw.server_names.clone(),
        transport,
        application_protocols: raw.application_protocols.clone(),
        source_ranges: read::ranges(input, &format!("{path}source_prefix_ranges"), sources)?,
    })
}

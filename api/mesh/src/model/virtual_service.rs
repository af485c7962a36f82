//! Reads a VirtualService.
//!
//! Refuses what Istio's validation refuses; says which fields have no effect yet and which rules are never reached.
//! Never here: HTTP rules one by one (`http_rule`), whether hosts and gateways exist (`mesh`). Called by `model::parse`.

use api::{
    name::Host,
    note::{Notes, Severity},
};

use super::{
    Settings,
    base::{ExportTo, Judge, Meta},
    http_rule,
    rule::{
        ClientMatch, Destination, GatewayRef, HttpRule, TcpMatch, TcpRule, TlsMatch, TlsRule, VirtualService, Weighted,
    },
    text,
};
use crate::object::{Object, networking as raw};

/// What the rules of one VirtualService have in common.
pub(crate) struct Site<'s> {
    pub(crate) namespace: &'s str,
    pub(crate) domain: &'s str,
}

impl Site<'_> {
    pub(crate) fn gateway(&self, judge: &mut Judge<'_>, path: &str, text: &str) -> Option<GatewayRef> {
        if text == "mesh" {
            return Some(GatewayRef::Mesh);
        }
        let (namespace, name) = text.split_once('/').unwrap_or((self.namespace, text));
        let namespace = if namespace == "." { self.namespace } else { namespace };
        if name.is_empty() || namespace.is_empty() || name.contains('/') {
            judge.error(path, format!("{text:?} is not a gateway: expected [NAMESPACE/]NAME or mesh"));
            return None;
        }
        Some(GatewayRef::Named { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    pub(crate) fn gateways(&self, judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<GatewayRef> {
        raw.iter().enumerate().filter_map(|(i, text)| self.gateway(judge, &format!("{path}[{i}]"), text)).collect()
    }

    pub(crate) fn destination(&self, judge: &mut Judge<'_>, path: &str, raw: &raw::Destination) -> Option<Destination> {
        let raw::Destination { host, subset, port } = raw;
        let host_path = format!("{path}.host");
        if host.contains('*') {
            judge.error(host_path, "a destination must not be a wildcard");
            return None;
        }
        let host = text::host(judge, &host_path, host, self.namespace, self.domain)?;
        let subset = subset.clone().unwrap_or_default();
        if !subset.is_empty() && !is_subset_name(&subset) {
            judge.error(format!("{path}.subset"), format!("{subset:?} is not a subset's name"));
            return None;
        }
        let port = match port {
            Some(raw::PortSelector { number: Some(number) }) => {
                Some(text::port(judge, &format!("{path}.port.number"), i64::from(*number))?)
            }
            Some(raw::PortSelector { number: None }) => {
                judge.error(format!("{path}.port.number"), "required");
                return None;
            }
            None => None,
        };
        Some(Destination { host, subset, port, path: path.to_owned() })
    }
}

/// Subset names are DNS labels.
pub(crate) fn is_subset_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Weights as written: none is 0, but a single destination takes all.
pub(crate) fn weights(judge: &mut Judge<'_>, path: &str, destinations: &mut [Weighted], raw: &[i32]) {
    let mut sum: i64 = 0;
    for (index, (destination, raw)) in destinations.iter_mut().zip(raw).enumerate() {
        match u32::try_from(*raw) {
            Ok(weight) => {
                destination.weight = weight;
                sum += i64::from(weight);
            }
            Err(_) => judge.error(format!("{path}[{index}].weight"), format!("{raw} must not be negative")),
        }
    }
    match destinations {
        [only] => only.weight = 1,
        [] => {}
        _ if sum == 0 => judge.error(path, "the weights of all destinations sum to 0"),
        _ if sum > i64::from(u32::MAX) => judge.error(path, format!("the weights sum to more than {}", u32::MAX)),
        _ => {}
    }
}

pub(crate) fn parse(
    object: &Object<raw::VirtualService>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<VirtualService> {
    let meta = Meta::of("VirtualService", &object.metadata);
    let mut judge = Judge::new(meta.object.clone(), notes);
    let namespace = object.metadata.namespace.as_str();
    let site = Site { namespace, domain: &settings.domain };
    let raw::VirtualService { hosts, gateways, http, tls, tcp, export_to } = &object.spec;

    let mut gateway_refs = site.gateways(&mut judge, "spec.gateways", gateways);
    if gateways.is_empty() {
        gateway_refs.push(GatewayRef::Mesh);
    }
    let full = read_hosts(&mut judge, hosts, gateway_refs.contains(&GatewayRef::Mesh), &site);

    if hosts.is_empty() {
        if gateways.is_empty() {
            judge.warn("spec", "not honoured yet: a VirtualService without hosts (a delegate) has no effect");
        } else {
            judge.error("spec.hosts", "required: at least one host");
        }
    }
    if http.is_empty() && tcp.is_empty() && tls.is_empty() {
        judge.error("spec", "required: at least one of http, tcp, tls");
    }
    let rules: Vec<HttpRule> =
        http.iter().enumerate().filter_map(|(index, rule)| http_rule::parse(&mut judge, index, rule, &site)).collect();
    let tls =
        tls.iter().enumerate().filter_map(|(i, rule)| tls_rule(&mut judge, i, rule, hosts, &full, &site)).collect();
    let tcp = tcp.iter().enumerate().filter_map(|(index, rule)| tcp_rule(&mut judge, index, rule, &site)).collect();
    if judge.errors() > 0 {
        return None;
    }
    never_reached(&mut judge, &rules);
    Some(VirtualService {
        meta,
        hosts: full,
        gateways: gateway_refs,
        export_to: ExportTo::read(export_to.iter().map(String::as_str), namespace),
        http: rules,
        tls,
        tcp,
    })
}

fn read_hosts(judge: &mut Judge<'_>, hosts: &[String], mesh: bool, site: &Site<'_>) -> Vec<Host> {
    let mut full: Vec<Host> = Vec::with_capacity(hosts.len());
    for (index, raw) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if raw == "*" && mesh {
            judge.error(path, "wildcard host * is not allowed for virtual services bound to the mesh gateway");
            continue;
        }
        let Some(host) = text::host(judge, &path, raw, site.namespace, site.domain) else { continue };
        if let Some(other) = full.iter().find(|other| other.covers(&host) || host.covers(other)) {
            judge.error(path, format!("duplicate hosts in virtual service: {other} and {host}"));
            continue;
        }
        full.push(host);
    }
    full
}

/// Rules after one that takes every request, and matches that an earlier rule has already.
fn never_reached(judge: &mut Judge<'_>, rules: &[HttpRule]) {
    let unconditional = |client: &ClientMatch| *client == ClientMatch::default();
    let mut taker: Option<usize> = None;
    for (position, rule) in rules.iter().enumerate() {
        let path = format!("spec.http[{}]", rule.index);
        if let Some(earlier) = taker {
            let text = format!("never reached: rule {earlier} already matches every request");
            judge.coded(Severity::Warn, "IST0130", path, text);
            continue;
        }
        let before = |m: &super::rule::HttpMatch| {
            let earlier = rules.get(..position).unwrap_or_default();
            earlier
                .iter()
                .find(|rule| {
                    rule.matches.iter().any(|other| {
                        other.client == m.client
                            && other.path == m.path
                            && other.ignore_case == m.ignore_case
                            && other.headers == m.headers
                            && other.query == m.query
                    })
                })
                .map(|rule| rule.index)
        };
        let taken: Vec<Option<usize>> = rule.matches.iter().map(before).collect();
        match taken.iter().flatten().next() {
            Some(earlier) if taken.iter().all(Option::is_some) => {
                let text = format!("never reached: rule {earlier} already has the same match");
                judge.coded(Severity::Warn, "IST0130", path, text);
            }
            _ => {
                for (index, earlier) in taken.iter().enumerate().filter_map(|(i, e)| Some((i, (*e)?))) {
                    let text = format!("never reached: rule {earlier} already has the same match");
                    judge.coded(Severity::Warn, "IST0131", format!("{path}.match[{index}]"), text);
                }
            }
        }
        let all = rule.matches.is_empty() || rule.matches.iter().any(|m| m.is_catch_all() && unconditional(&m.client));
        if all {
            taker = Some(rule.index);
        }
    }
}

fn tcp_rule(judge: &mut Judge<'_>, index: usize, rule: &raw::TcpRoute, site: &Site<'_>) -> Option<TcpRule> {
    let path = format!("spec.tcp[{index}]");
    let before = judge.errors();
    let raw::TcpRoute { matches, route } = rule;
    if route.is_empty() {
        judge.error(format!("{path}.route"), "required: at least one destination");
    }
    let matches: Vec<TcpMatch> =
        matches.iter().enumerate().map(|(i, m)| tcp_match(judge, &format!("{path}.match[{i}]"), m, site)).collect();
    let destinations = destinations(judge, &path, route, site);
    (judge.errors() == before).then_some(TcpRule { index, matches, destinations })
}

fn destinations(judge: &mut Judge<'_>, path: &str, route: &[raw::RouteDestination], site: &Site<'_>) -> Vec<Weighted> {
    let mut destinations = Vec::new();
    let mut raw_weights = Vec::new();
    for (i, raw::RouteDestination { destination, weight }) in route.iter().enumerate() {
        let at = format!("{path}.route[{i}].destination");
        if let Some(destination) = site.destination(judge, &at, destination) {
            destinations.push(Weighted { destination, weight: 0, headers: api::spec::HeaderChanges::default() });
            raw_weights.push(weight.unwrap_or_default());
        }
    }
    weights(judge, &format!("{path}.route"), &mut destinations, &raw_weights);
    destinations
}

fn subnets(judge: &mut Judge<'_>, path: &str, raw: &[String]) -> Vec<ipnet::IpNet> {
    let subnets = raw.iter().enumerate();
    subnets.filter_map(|(i, text)| text::subnet(judge, &format!("{path}.destinationSubnets[{i}]"), text)).collect()
}

/// `written` and `hosts`: the hosts of the VirtualService, as they stand there and in full.
fn tls_rule(
    judge: &mut Judge<'_>,
    index: usize,
    rule: &raw::TlsRoute,
    written: &[String],
    hosts: &[Host],
    site: &Site<'_>,
) -> Option<TlsRule> {
    let path = format!("spec.tls[{index}]");
    let before = judge.errors();
    let raw::TlsRoute { matches, route } = rule;
    if matches.is_empty() {
        judge.error(format!("{path}.match"), "required: at least one");
    }
    if route.is_empty() {
        judge.error(format!("{path}.route"), "required: at least one destination");
    }
    let mut all = Vec::with_capacity(matches.len());
    for (i, m) in matches.iter().enumerate() {
        let path = format!("{path}.match[{i}]");
        let raw::TlsMatch { sni_hosts, destination_subnets, port, source_labels, gateways, source_namespace } = m;
        if sni_hosts.is_empty() {
            judge.error(format!("{path}.sniHosts"), "required: at least one server name");
        }
        let mut server_names = Vec::with_capacity(sni_hosts.len());
        for (i, text) in sni_hosts.iter().enumerate() {
            let path = format!("{path}.sniHosts[{i}]");
            let Some(name) = judge.read(path.clone(), text.parse::<Host>()) else { continue };
            let known = written.iter().any(|host| host == "*" || host.eq_ignore_ascii_case(text));
            if !known && !hosts.iter().any(|host| *host == name || host.covers(&name)) {
                judge.error(path, format!("{name} is none of this VirtualService's hosts, and no part of one"));
                continue;
            }
            server_names.push(name);
        }
        all.push(TlsMatch {
            server_names,
            client: client(judge, &path, *port, source_labels, source_namespace.as_deref(), gateways, site),
            destinations: subnets(judge, &path, destination_subnets),
        });
    }
    let destinations = destinations(judge, &path, route, site);
    (judge.errors() == before).then_some(TlsRule { index, matches: all, destinations })
}

fn tcp_match(judge: &mut Judge<'_>, path: &str, m: &raw::L4Match, site: &Site<'_>) -> TcpMatch {
    let raw::L4Match { destination_subnets, port, source_subnet, source_labels, gateways, source_namespace } = m;
    judge.not_honoured(source_subnet.is_some(), format!("{path}.sourceSubnet"));
    TcpMatch {
        client: client(judge, path, *port, source_labels, source_namespace.as_deref(), gateways, site),
        destinations: subnets(judge, path, destination_subnets),
    }
}

/// The parts of a match that are settled when a proxy asks.
pub(crate) fn client(
    judge: &mut Judge<'_>,
    path: &str,
    port: Option<u32>,
    labels: &super::Labels,
    namespace: Option<&str>,
    gateways: &[String],
    site: &Site<'_>,
) -> ClientMatch {
    ClientMatch {
        labels: text::labels(judge, &format!("{path}.sourceLabels"), labels),
        namespace: namespace.filter(|name| !name.is_empty()).map(str::to_owned),
        gateways: (!gateways.is_empty()).then(|| site.gateways(judge, &format!("{path}.gateways"), gateways)),
        port: match port {
            None | Some(0) => None,
            Some(number) => text::port(judge, &format!("{path}.port"), i64::from(number)),
        },
    }
}

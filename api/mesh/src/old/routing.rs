//! Routing of config.istio.io: RouteRule, EgressRule and DestinationPolicy.
//!
//! They become VirtualService, ServiceEntry and DestinationRule; labels of a destination become a subset.
//! Never here: Mixer's kinds of the same group. Called by `instead`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{draft::Draft, part::Part};
use crate::object::Kind;

/// Translates a RouteRule.
pub(super) fn route_rule(draft: &mut Draft<'_>, mut spec: Part) {
    let destination = spec.part("destination");
    let Some(host) = destination.and_then(|mut service| host(draft, &mut service)) else {
        draft.lost("spec.destination", "names no service: a VirtualService needs its host");
        return;
    };
    let mut rule = Map::new();
    let mut subsets = BTreeMap::new();
    if let Some(mut wanted) = spec.part("match") {
        if let Some(matched) = matched(draft, &mut wanted) {
            rule.insert("match".to_owned(), json!([matched]));
        }
        draft.rest(&wanted);
    }
    if let Some(redirect) = spec.take("redirect") {
        rule.insert("redirect".to_owned(), redirect);
    } else {
        let mut routes = Vec::new();
        for route in spec.parts("route") {
            routes.push(weighted(draft, route, &host, &mut subsets));
        }
        if routes.is_empty() {
            routes.push(json!({ "destination": { "host": host } }));
        }
        rule.insert("route".to_owned(), routes.into());
    }
    if let Some(rewrite) = spec.take("rewrite") {
        rule.insert("rewrite".to_owned(), rewrite);
    }
    if let Some(mut mirror) = spec.part("mirror") {
        let labels = mirror.pairs("labels");
        let to = self::host(draft, &mut mirror).unwrap_or_else(|| host.clone());
        rule.insert("mirror".to_owned(), to_subset(&to, labels, &mut subsets));
    }
    waits(draft, &mut spec, &mut rule);
    if let Some(fault) = spec.part("httpFault") {
        rule.insert("fault".to_owned(), faults(draft, fault));
    }
    if let Some(cors) = spec.take("corsPolicy") {
        rule.insert("corsPolicy".to_owned(), cors);
    }
    let headers: Map<_, _> =
        spec.pairs("appendHeaders").into_iter().map(|(name, value)| (name, value.into())).collect();
    if !headers.is_empty() {
        rule.insert("headers".to_owned(), json!({ "request": { "add": headers } }));
    }
    if spec.take("websocketUpgrade").is_some() {
        draft.info(spec.at("websocketUpgrade"), "WebSocket upgrades pass without being asked for");
    }
    if spec.number("precedence").is_some() {
        draft.info(
            spec.at("precedence"),
            "put all rules of one host into one VirtualService, those of higher precedence first",
        );
    }
    draft.rest(&spec);
    let name = draft.name();
    draft.write(Kind::VirtualService, &name, json!({ "hosts": [host], "http": [rule] }));
    for (host, subsets) in subsets {
        let subsets: Vec<Value> = subsets.into_values().collect();
        let name = host.split('.').next().unwrap_or(&host).to_owned();
        draft.write(Kind::DestinationRule, &name, json!({ "host": host, "subsets": subsets }));
    }
}

type Subsets = BTreeMap<String, BTreeMap<String, Value>>;

/// The host of an old service reference.
fn host(draft: &Draft<'_>, service: &mut Part) -> Option<String> {
    let (name, namespace, domain) = (service.text("name"), service.text("namespace"), service.text("domain"));
    let full = service.text("service");
    let host = match (name, namespace, domain) {
        (Some(name), namespace, Some(domain)) => {
            format!("{name}.{}.{domain}", namespace.unwrap_or_else(|| draft.namespace()))
        }
        (Some(name), Some(namespace), None) => draft.host(&name, &namespace),
        (Some(name), None, None) => name,
        (None, _, _) => full?,
    };
    Some(host)
}

fn to_subset(host: &str, labels: Vec<(String, String)>, subsets: &mut Subsets) -> Value {
    if labels.is_empty() {
        return json!({ "host": host });
    }
    let name = labels.iter().map(|(_, value)| value.to_lowercase().replace('.', "-")).collect::<Vec<_>>().join("-");
    let labels: Map<_, _> = labels.into_iter().map(|(key, value)| (key, value.into())).collect();
    subsets.entry(host.to_owned()).or_default().insert(name.clone(), json!({ "name": name, "labels": labels }));
    json!({ "host": host, "subset": name })
}

fn weighted(draft: &mut Draft<'_>, mut route: Part, host: &str, subsets: &mut Subsets) -> Value {
    let to = route.part("destination").and_then(|mut service| self::host(draft, &mut service));
    let labels = route.pairs("labels");
    let mut written = json!({ "destination": to_subset(to.as_deref().unwrap_or(host), labels, subsets) });
    if let Some(weight) = route.number("weight") {
        written["weight"] = weight.into();
    }
    draft.rest(&route);
    written
}

fn matched(draft: &mut Draft<'_>, wanted: &mut Part) -> Option<Value> {
    let mut written = Map::new();
    if let Some(mut source) = wanted.part("source") {
        let mut labels: Map<String, Value> =
            source.pairs("labels").into_iter().map(|(key, value)| (key, value.into())).collect();
        if let Some(name) = source.text("name") {
            draft.info(source.at("name"), format!("callers are told by their labels: app: {name} stands for them"));
            labels.insert("app".to_owned(), name.into());
        }
        draft.rest(&source);
        written.insert("sourceLabels".to_owned(), labels.into());
    }
    if let Some(mut headers) = wanted.part("request").and_then(|mut request| request.part("headers")) {
        for pseudo in ["uri", "scheme", "method", "authority"] {
            written.extend(headers.take(pseudo).map(|value| (pseudo.to_owned(), value)));
        }
        let names: Vec<String> =
            headers.left().filter_map(|path| Some(path.strip_prefix(headers.path())?.get(1..)?.to_owned())).collect();
        let others: Map<String, Value> =
            names.into_iter().filter_map(|name| Some((name.clone(), headers.take(&name)?))).collect();
        if !others.is_empty() {
            written.insert("headers".to_owned(), others.into());
        }
    }
    (!written.is_empty()).then(|| written.into())
}

fn waits(draft: &mut Draft<'_>, spec: &mut Part, rule: &mut Map<String, Value>) {
    if let Some(mut timeout) = spec.part("httpReqTimeout") {
        let simple = timeout.part("simpleTimeout").and_then(|mut simple| simple.take("timeout"));
        rule.extend(simple.map(|value| ("timeout".to_owned(), value)));
        draft.rest(&timeout);
    }
    if let Some(mut retries) = spec.part("httpReqRetries") {
        if let Some(mut simple) = retries.part("simpleRetry") {
            let mut written = Map::new();
            for field in ["attempts", "perTryTimeout"] {
                written.extend(simple.take(field).map(|value| (field.to_owned(), value)));
            }
            draft.rest(&simple);
            rule.insert("retries".to_owned(), written.into());
        }
        draft.rest(&retries);
    }
}

fn faults(draft: &mut Draft<'_>, mut fault: Part) -> Value {
    let mut written = Map::new();
    for (kind, value) in [("delay", "fixedDelay"), ("abort", "httpStatus")] {
        let Some(mut part) = fault.part(kind) else { continue };
        let mut one = Map::new();
        one.extend(part.take("percent").map(|percent| ("percentage".to_owned(), json!({ "value": percent }))));
        one.extend(part.take(value).map(|given| (value.to_owned(), given)));
        draft.rest(&part);
        written.insert(kind.to_owned(), one.into());
    }
    draft.rest(&fault);
    written.into()
}

/// Translates an EgressRule.
pub(super) fn egress_rule(draft: &mut Draft<'_>, mut spec: Part) {
    let Some(host) = spec.part("destination").and_then(|mut service| service.text("service")) else {
        draft.lost("spec.destination.service", "is missing: a ServiceEntry needs its host");
        return;
    };
    let name = draft.name();
    let mut ports = Vec::new();
    for mut port in spec.parts("ports") {
        let protocol = port.text("protocol").unwrap_or_else(|| "http".to_owned()).to_lowercase();
        let Some(number) = port.number("port") else {
            draft.lost(port.at("port"), "is missing");
            continue;
        };
        // Applications spoke plaintext to such a port, and the sidecar TLS to the host.
        let spoken = if protocol == "https" { "HTTP".to_owned() } else { protocol.to_uppercase() };
        ports.push(json!({ "number": number, "name": format!("{protocol}-{number}"), "protocol": spoken }));
        if protocol == "https" {
            let tls =
                if host.contains('*') { json!({ "mode": "SIMPLE" }) } else { json!({ "mode": "SIMPLE", "sni": host }) };
            let settings = json!([{ "port": { "number": number }, "tls": tls }]);
            let rule = json!({ "host": host, "trafficPolicy": { "portLevelSettings": settings } });
            draft.write(Kind::DestinationRule, &name, rule);
            let text = format!(
                "the sidecar begins TLS for http://{host}:{number}; write HTTPS and no DestinationRule where the application does"
            );
            draft.info(port.path(), text);
        }
        draft.rest(&port);
    }
    let is_net = host.contains('/') || host.parse::<std::net::IpAddr>().is_ok();
    let resolution = if is_net || host.contains('*') { "NONE" } else { "DNS" };
    let mut entry = json!({ "hosts": [host], "location": "MESH_EXTERNAL", "ports": ports, "resolution": resolution });
    if is_net {
        entry["hosts"] = json!([format!("{name}.external")]);
        entry["addresses"] = json!([host]);
    }
    draft.rest(&spec);
    draft.write(Kind::ServiceEntry, &name, entry);
}

/// Translates a DestinationPolicy.
pub(super) fn destination_policy(draft: &mut Draft<'_>, mut spec: Part) {
    let mut destination = spec.part("destination").unwrap_or_else(|| Part::new("spec.destination", Value::Null));
    let labels = destination.pairs("labels");
    let Some(host) = host(draft, &mut destination) else {
        draft.lost("spec.destination", "names no service: a DestinationRule needs its host");
        return;
    };
    let mut policy = Map::new();
    if let Some(mut balancing) = spec.part("loadBalancing") {
        let simple = match balancing.text("name").as_deref() {
            Some("LEAST_CONN") => "LEAST_REQUEST",
            Some("RANDOM") => "RANDOM",
            Some(_) | None => "ROUND_ROBIN",
        };
        policy.insert("loadBalancer".to_owned(), json!({ "simple": simple }));
        draft.rest(&balancing);
    }
    if let Some(mut breaker) = spec.part("circuitBreaker") {
        if let Some(simple) = breaker.part("simpleCb") {
            breakers(draft, simple, &mut policy);
        }
        draft.rest(&breaker);
    }
    if spec.take("source").is_some() {
        draft.lost(
            spec.at("source"),
            "a DestinationRule holds for every caller that sees it: put it into the caller's namespace",
        );
    }
    draft.rest(&spec);
    let mut rule = json!({ "host": host });
    if labels.is_empty() {
        rule["trafficPolicy"] = policy.into();
    } else {
        let mut subsets = Subsets::new();
        to_subset(&host, labels, &mut subsets);
        let mut subsets: Vec<Value> = subsets.into_values().flat_map(BTreeMap::into_values).collect();
        subsets.iter_mut().for_each(|subset| subset["trafficPolicy"] = policy.clone().into());
        rule["subsets"] = subsets.into();
    }
    let name = draft.name();
    draft.write(Kind::DestinationRule, &name, rule);
}

fn breakers(draft: &mut Draft<'_>, mut simple: Part, policy: &mut Map<String, Value>) {
    let section = |simple: &mut Part, fields: &[(&str, &str)]| -> Map<String, Value> {
        fields.iter().filter_map(|(old, new)| Some(((*new).to_owned(), simple.take(old)?))).collect()
    };
    let tcp = section(&mut simple, &[("maxConnections", "maxConnections")]);
    let http = section(
        &mut simple,
        &[
            ("httpMaxPendingRequests", "http1MaxPendingRequests"),
            ("httpMaxRequests", "http2MaxRequests"),
            ("httpMaxRequestsPerConnection", "maxRequestsPerConnection"),
            ("httpMaxRetries", "maxRetries"),
        ],
    );
    let outliers = section(
        &mut simple,
        &[
            ("httpConsecutiveErrors", "consecutive5xxErrors"),
            ("httpDetectionInterval", "interval"),
            ("sleepWindow", "baseEjectionTime"),
            ("httpMaxEjectionPercent", "maxEjectionPercent"),
        ],
    );
    let pool: Map<_, _> = [("tcp", tcp), ("http", http)]
        .into_iter()
        .filter(|(_, fields)| !fields.is_empty())
        .map(|(name, fields)| (name.to_owned(), Value::from(fields)))
        .collect();
    for (name, fields) in [("connectionPool", pool), ("outlierDetection", outliers)] {
        if !fields.is_empty() {
            policy.insert(name.to_owned(), fields.into());
        }
    }
    draft.rest(&simple);
}

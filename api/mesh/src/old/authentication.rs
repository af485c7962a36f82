//! Group authentication.istio.io: Policy and MeshPolicy.
//!
//! `peers` become a PeerAuthentication; `origins` a RequestAuthentication, and an AuthorizationPolicy that demands a token.
//! Never here: which Pods a service has; `Draft` knows. Called by `instead`.

use serde_json::{Map, Value, json};

use super::{
    draft::{Draft, Workloads},
    part::Part,
};
use crate::object::Kind;

/// Where a policy holds.
struct Place {
    workloads: Workloads,
    /// Ports of the workload; none: all.
    ports: Vec<u16>,
}

/// Translates a Policy or a MeshPolicy.
pub(super) fn policy(draft: &mut Draft<'_>, mut spec: Part) {
    let mut peers = spec.parts("peers");
    let mode = mode(draft, &mut peers, spec.is_on("peerIsOptional"));
    let places = places(draft, spec.parts("targets"));
    for place in &places {
        let mut wanted = place.workloads.spec();
        if place.ports.is_empty() {
            wanted.insert("mtls".to_owned(), json!({ "mode": mode }));
        } else {
            let ports = place.ports.iter().map(|port| (port.to_string(), json!({ "mode": mode })));
            wanted.insert("portLevelMtls".to_owned(), ports.collect::<Map<_, _>>().into());
        }
        draft.write(Kind::PeerAuthentication, &place.workloads.name, wanted.into());
    }
    callers(draft, mode);
    let mut methods = peers;
    methods.extend(spec.parts("origins"));
    let tokens: Vec<Part> = methods.iter_mut().filter_map(|method| method.part("jwt")).collect();
    methods.iter().for_each(|method| draft.rest(method));
    let optional = spec.is_on("originIsOptional");
    if spec.text("principalBinding").as_deref() == Some("USE_ORIGIN") {
        let text = "an AuthorizationPolicy names a token's caller by source.requestPrincipals";
        draft.info(spec.at("principalBinding"), text);
    }
    if !tokens.is_empty() {
        origins(draft, &places, tokens, optional);
    }
    draft.rest(&spec);
}

/// The mode of mutual TLS that the peer methods ask for.
fn mode(draft: &mut Draft<'_>, peers: &mut [Part], optional: bool) -> &'static str {
    let Some((at, mtls)) = peers.iter_mut().find_map(|peer| Some((peer.at("mtls"), peer.take("mtls")?))) else {
        draft.info(
            "spec.peers",
            "without mtls such a policy turned mutual TLS off; leave the PeerAuthentication out to keep it as the mesh has it",
        );
        return "DISABLE";
    };
    let mut mtls = Part::new(at.as_str(), mtls);
    let permissive = mtls.text("mode").is_some_and(|mode| mode == "PERMISSIVE");
    let without_certificate = mtls.is_on("allowTls");
    if without_certificate {
        draft.lost(mtls.at("allowTls"), "TLS without a client's certificate has no equal; PERMISSIVE comes nearest");
    }
    if optional {
        draft.info("spec.peerIsOptional", "PERMISSIVE comes nearest: it takes plaintext too");
    }
    draft.rest(&mtls);
    if permissive || without_certificate || optional { "PERMISSIVE" } else { "STRICT" }
}

/// What becomes of the DestinationRule that callers needed.
fn callers(draft: &mut Draft<'_>, mode: &str) {
    let text = match mode {
        "DISABLE" => {
            "a DestinationRule for these hosts with tls.mode ISTIO_MUTUAL fails then: remove it; callers follow by themselves"
        }
        _ => {
            "callers need no DestinationRule with tls.mode ISTIO_MUTUAL any more: they follow by themselves; one with tls.mode DISABLE still wins, and fails under STRICT"
        }
    };
    draft.info("", text);
}

fn places(draft: &mut Draft<'_>, targets: Vec<Part>) -> Vec<Place> {
    let (name, namespace) = (draft.name(), draft.namespace());
    if targets.is_empty() {
        let everywhere = if draft.is_mesh_wide() { "the mesh" } else { "its namespace" };
        if name != "default" {
            draft.info("", format!("only the policy named default held for {everywhere}; this one had no effect"));
        }
        draft.info("", format!("without a selector it holds for {everywhere}"));
        return vec![Place { workloads: Workloads { name, labels: None }, ports: Vec::new() }];
    }
    let alone = targets.len() == 1;
    let mut places = Vec::new();
    for mut target in targets {
        let Some(service) = target.text("name") else {
            draft.lost(target.path(), "names no service");
            continue;
        };
        let called = if alone { name.clone() } else { format!("{name}-{service}") };
        let ports = ports(draft, &mut target, &namespace, &service);
        let mut workloads = draft.behind(&target.at("name"), &namespace, &service, called);
        if let Some(labels) = &mut workloads.labels {
            labels.extend(target.pairs("labels"));
        }
        draft.rest(&target);
        match ports {
            Some(ports) => places.push(Place { workloads, ports }),
            None => draft.lost(target.at("ports"), "without its ports the target would hold for all: it is left out"),
        }
    }
    places
}

/// The workload's ports of a target: an empty list for all, none where not one of those named is known.
fn ports(draft: &mut Draft<'_>, target: &mut Part, namespace: &str, service: &str) -> Option<Vec<u16>> {
    let wanted = target.parts("ports");
    let mut known = Vec::new();
    for mut port in wanted.iter().cloned() {
        let text = port.number("number").map(|number| number.to_string()).or_else(|| port.text("name"));
        known.extend(text.and_then(|text| draft.workload_port(port.path(), namespace, service, &text)));
        draft.rest(&port);
    }
    (wanted.is_empty() || !known.is_empty()).then_some(known)
}

fn origins(draft: &mut Draft<'_>, places: &[Place], tokens: Vec<Part>, optional: bool) {
    let mut rules = Vec::new();
    let mut wanted: Option<Vec<Value>> = Some(Vec::new()); // none: every request needs a token
    for mut token in tokens {
        let triggers = token.parts("triggerRules");
        let at = token.at("triggerRules");
        match (triggers.is_empty(), &mut wanted) {
            (true, _) => wanted = None,
            (false, Some(wanted)) => wanted.extend(triggers.into_iter().map(|trigger| operation(draft, trigger))),
            (false, None) => {}
        }
        if wanted.is_some() {
            draft.info(at, "a token that is sent and wrong is refused on every path");
        }
        rules.push(rule(draft, token));
    }
    for place in places {
        let mut spec = place.workloads.spec();
        spec.insert("jwtRules".to_owned(), rules.clone().into());
        draft.write(Kind::RequestAuthentication, &place.workloads.name, spec.into());
        if optional {
            continue;
        }
        let mut spec = place.workloads.spec();
        spec.insert("action".to_owned(), "DENY".into());
        let mut rule = json!({ "from": [{ "source": { "notRequestPrincipals": ["*"] } }] });
        let ports: Vec<String> = place.ports.iter().map(u16::to_string).collect();
        let mut operations = wanted.clone().unwrap_or_default();
        if !ports.is_empty() {
            operations = if operations.is_empty() { vec![json!({})] } else { operations };
            operations.iter_mut().for_each(|operation| operation["ports"] = json!(ports));
        }
        // An operation without conditions is every request.
        if !operations.is_empty() && operations.iter().all(|operation| *operation != json!({})) {
            let to: Vec<Value> = operations.into_iter().map(|operation| json!({ "operation": operation })).collect();
            rule["to"] = to.into();
        }
        spec.insert("rules".to_owned(), json!([rule]));
        draft.write(Kind::AuthorizationPolicy, &format!("{}-needs-token", place.workloads.name), spec.into());
    }
}

/// The requests that a trigger rule is for. What cannot be said makes it wider: a token is asked for more often, never less.
fn operation(draft: &mut Draft<'_>, mut trigger: Part) -> Value {
    let mut operation = Map::new();
    for (old, new) in [("includedPaths", "paths"), ("excludedPaths", "notPaths")] {
        let wanted = trigger.parts(old);
        let mut paths = Vec::new();
        for mut path in wanted.iter().cloned() {
            let exact = path.text("exact");
            let prefix = path.text("prefix").map(|text| format!("{text}*"));
            let suffix = path.text("suffix").map(|text| format!("*{text}"));
            paths.extend(exact.or(prefix).or(suffix));
            draft.rest(&path);
        }
        let all = paths.len() == wanted.len();
        if !paths.is_empty() && (all || new == "notPaths") {
            operation.insert(new.to_owned(), paths.into());
        }
    }
    draft.rest(&trigger);
    operation.into()
}

/// How tokens of one issuer are checked; they were passed on.
fn rule(draft: &mut Draft<'_>, mut token: Part) -> Value {
    let mut rule = Map::new();
    for field in ["issuer", "jwksUri", "jwks"] {
        rule.extend(token.text(field).map(|text| (field.to_owned(), text.into())));
    }
    if let Some(uri) = token.text("jwks_uri") {
        rule.insert("jwksUri".to_owned(), uri.into());
    }
    let headers = token.texts("jwtHeaders").into_iter().map(|name| json!({ "name": name })).collect();
    for (field, list) in [
        ("audiences", token.texts("audiences").into_iter().map(Value::String).collect::<Vec<_>>()),
        ("fromHeaders", headers),
        ("fromParams", token.texts("jwtParams").into_iter().map(Value::String).collect()),
    ] {
        if !list.is_empty() {
            rule.insert(field.to_owned(), list.into());
        }
    }
    rule.insert("forwardOriginalToken".to_owned(), true.into());
    draft.rest(&token);
    rule.into()
}

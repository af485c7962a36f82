//! Turns the rules of a VirtualService into routes, for one client on one port.
//!
//! Matches that are for other clients, gateways or ports fall away; a destination becomes the name of a cluster.
//! Never here: virtual hosts and domains (`routes`, `gateway`). Called by those.

use api::spec::{
    Action, Forward, HeaderChanges, Mirror, Origin, PathMatch, PathRewrite, Redirect, Retry, Route, RouteMatch,
    WeightedCluster,
};

use super::{Mesh, cluster, key::Scope};
use crate::model::{
    ClientMatch, Destination, GatewayRef, HttpMatch, HttpRoute, HttpRule, RetryRule, RuleAction, RuleRedirect,
    RuleRewrite, VirtualService, Weighted, default_retry, is_every_path,
};

/// Most bytes of a body that are kept for a retry (Envoy's per-connection buffer).
const RETRY_BUFFER_BYTES: u32 = 64 * 1024;

/// Who asks for routes, and where its requests come in.
pub(crate) struct Client<'c> {
    pub(crate) scope: &'c Scope,
    /// The gateways that it is: the mesh, or Gateway objects.
    pub(crate) gateways: &'c [GatewayRef],
    /// Port of the listener, as users write it.
    pub(crate) port: u16,
}

impl Client<'_> {
    /// Whether a match is for this client at all.
    pub(crate) fn takes(&self, m: &ClientMatch, service: &VirtualService) -> bool {
        let gateways = m.gateways.as_ref().unwrap_or(&service.gateways);
        let mesh_client = self.gateways.contains(&GatewayRef::Mesh);
        gateways.iter().any(|gateway| self.gateways.contains(gateway))
            && m.port.is_none_or(|port| port == self.port)
            && (!mesh_client || m.labels.is_empty() || self.scope.selectors.contains(&m.labels))
            && (!mesh_client || m.namespace.as_deref().is_none_or(|name| name == &*self.scope.namespace))
    }

    fn takes_all(&self, service: &VirtualService) -> bool {
        service.gateways.iter().any(|gateway| self.gateways.contains(gateway))
    }
}

/// Routes of a VirtualService for a client, up to the first that takes every request. Empty: none is for it.
pub(crate) fn routes(mesh: &Mesh, service: &VirtualService, client: &Client<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in &service.http {
        if matches!(rule.action, RuleAction::Delegate) {
            continue;
        }
        if rule.matches.is_empty() {
            if client.takes_all(service) {
                routes.push(route(mesh, service, rule, None, client));
                return routes;
            }
            continue;
        }
        for (index, m) in rule.matches.iter().enumerate().filter(|(_, m)| client.takes(&m.client, service)) {
            routes.push(route(mesh, service, rule, Some((index, m)), client));
            if m.is_catch_all() {
                return routes;
            }
        }
    }
    routes
}

fn route(
    mesh: &Mesh,
    service: &VirtualService,
    rule: &HttpRule,
    m: Option<(usize, &HttpMatch)>,
    client: &Client<'_>,
) -> Route {
    let matches = m.map(|(_, m)| RouteMatch {
        path: m.path.clone(),
        ignore_case: m.ignore_case,
        headers: m.headers.clone(),
        query: m.query.clone(),
    });
    let matches = matches.unwrap_or_default();
    let mut name = rule.name.clone();
    let mut path = format!("spec.http[{}]", rule.index);
    if let Some((index, m)) = m {
        if !m.name.is_empty() {
            name = format!("{name}.{}", m.name);
        }
        path = format!("{path}.match[{index}]");
    }
    let mut headers = rule.headers.clone();
    let action = match &rule.action {
        RuleAction::Redirect(redirect) => Action::Redirect(self::redirect(redirect, client.port)),
        RuleAction::Reply { status, body } => Action::Reply { status: *status, body: body.clone() },
        RuleAction::Route(forward) => {
            Action::Forward(Box::new(self::forward(mesh, service, forward, &mut headers, &matches.path, client)))
        }
        // passed over by the caller
        RuleAction::Delegate => Action::Reply { status: 404, body: String::new() },
    };
    let operation = match &rule.action {
        RuleAction::Route(forward) => forward.destinations.first().map(|first| {
            let port = port_of(mesh, service, &first.destination, client);
            operation(first.destination.host.as_str(), port)
        }),
        RuleAction::Redirect(_) | RuleAction::Reply { .. } | RuleAction::Delegate => None,
    };
    Route {
        name,
        matches,
        action,
        headers,
        fault: rule.fault.clone(),
        operation: operation.unwrap_or_default(),
        origin: Some(Origin { object: service.meta.object.clone(), path }),
    }
}

/// Name of the operation in spans.
pub(crate) fn operation(host: &str, port: u16) -> String {
    format!("{host}:{port}/*")
}

fn redirect(raw: &RuleRedirect, listener: u16) -> Redirect {
    Redirect {
        status: raw.status,
        scheme: raw.scheme.clone(),
        authority: raw.authority.clone(),
        port: raw.port.or(raw.port_of_request.then_some(listener)),
        path: raw.path.clone(),
        prefix: raw.prefix.clone(),
    }
}

fn forward(
    mesh: &Mesh,
    service: &VirtualService,
    raw: &HttpRoute,
    headers: &mut HeaderChanges,
    matched: &PathMatch,
    client: &Client<'_>,
) -> Forward {
    let mut authority = raw.authority.clone();
    // a header operation on :authority is a rewrite of the host
    headers.request.set.retain(|(name, value)| {
        let host = name == ":authority" || name == "host";
        if host && authority.is_none() {
            authority = Some(value.clone());
        }
        !host
    });
    Forward {
        clusters: clusters(mesh, service, &raw.destinations, client),
        timeout: raw.timeout,
        retry: match &raw.retries {
            Some(RetryRule::Never) => None,
            Some(RetryRule::Policy(retry)) => Some(retry.clone()),
            None => mesh_retry(mesh),
        },
        path: raw.path.as_ref().map(|rewrite| match (rewrite, matched) {
            (RuleRewrite::Regex(regex), _) => regex.clone(),
            (RuleRewrite::Matched(text), PathMatch::Prefix(_) | PathMatch::SegmentPrefix(_)) => {
                PathRewrite::Prefix(text.clone())
            }
            (RuleRewrite::Matched(text), PathMatch::Exact(_) | PathMatch::Regex(_)) => PathRewrite::Full(text.clone()),
        }),
        authority,
        mirrors: raw
            .mirrors
            .iter()
            .map(|(to, share)| Mirror { cluster: cluster_of(mesh, service, to, client), share: *share })
            .collect(),
        retry_buffer_bytes: RETRY_BUFFER_BYTES,
    }
}

fn mesh_retry(mesh: &Mesh) -> Option<Retry> {
    match &mesh.config.default_retry {
        None => Some(default_retry()),
        Some(RetryRule::Never) => None,
        Some(RetryRule::Policy(retry)) => Some(retry.clone()),
    }
}

/// Weighted clusters of destinations; those without weight get nothing and are left out.
pub(crate) fn clusters(
    mesh: &Mesh,
    service: &VirtualService,
    destinations: &[Weighted],
    client: &Client<'_>,
) -> Vec<WeightedCluster> {
    destinations
        .iter()
        .filter(|destination| destination.weight > 0)
        .map(|Weighted { destination, weight, headers }| WeightedCluster {
            cluster: cluster_of(mesh, service, destination, client),
            weight: *weight,
            headers: headers.clone(),
        })
        .collect()
}

/// A destination's port: the one written, else its only one, else the listener's.
fn port_of(mesh: &Mesh, service: &VirtualService, destination: &Destination, client: &Client<'_>) -> u16 {
    if let Some(port) = destination.port {
        return port;
    }
    match found(mesh, service, destination, client).map(|found| found.ports.as_slice()) {
        Some([only]) => only.number,
        _ => client.port,
    }
}

fn found<'m>(
    mesh: &'m Mesh,
    service: &VirtualService,
    destination: &Destination,
    client: &Client<'_>,
) -> Option<&'m crate::model::Shared<crate::model::Service>> {
    let host = destination.host.as_str();
    mesh.services.find(host, &client.scope.namespace).or_else(|| mesh.services.find(host, service.meta.namespace()))
}

fn cluster_of(mesh: &Mesh, service: &VirtualService, destination: &Destination, client: &Client<'_>) -> String {
    let port = port_of(mesh, service, destination, client);
    cluster::name_of(port, &destination.subset, destination.host.as_str())
}

/// Versions of the services that the routes name: their ports decide which cluster is meant.
pub(crate) fn destinations_version(
    mesh: &Mesh,
    service: &VirtualService,
    scope: &Scope,
    hash: &mut impl std::hash::Hasher,
) {
    use std::hash::Hash as _;
    let of_http = service.http.iter().flat_map(|rule| match &rule.action {
        RuleAction::Route(route) => {
            let mirrors = route.mirrors.iter().map(|(to, _)| to);
            Some(route.destinations.iter().map(|weighted| &weighted.destination).chain(mirrors))
        }
        RuleAction::Redirect(_) | RuleAction::Reply { .. } | RuleAction::Delegate => None,
    });
    let of_tcp = service.connection_destinations();
    for destination in of_http.flatten().chain(of_tcp).filter(|destination| destination.port.is_none()) {
        let client = Client { scope, gateways: &[], port: 0 };
        found(mesh, service, destination, &client).map(crate::model::Shared::version).hash(hash);
    }
}

/// The route of a service that no VirtualService speaks for.
pub(crate) fn default_route(mesh: &Mesh, cluster: String, operation: String) -> Route {
    Route {
        name: "default".to_owned(),
        matches: RouteMatch::default(),
        action: Action::Forward(Box::new(Forward { retry: mesh_retry(mesh), ..to_cluster(cluster) })),
        headers: HeaderChanges::default(),
        fault: None,
        operation,
        origin: None,
    }
}

/// Sends everything to one cluster, once.
pub(crate) fn to_cluster(cluster: String) -> Forward {
    Forward {
        clusters: vec![WeightedCluster { cluster, weight: 1, headers: HeaderChanges::default() }],
        timeout: None,
        retry: None,
        path: None,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: RETRY_BUFFER_BYTES,
    }
}

/// Moves routes that take every request behind all others, as gateways do with the routes of several VirtualServices.
pub(crate) fn sort(routes: &mut [Route]) {
    routes.sort_by_key(|route| {
        let m = &route.matches;
        m.headers.is_empty() && m.query.is_empty() && is_every_path(&m.path)
    });
}

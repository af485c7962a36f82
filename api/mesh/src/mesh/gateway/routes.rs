//! Builds the route tables of gateways.
//!
//! Never here: which servers a port has (`gateway`). Called by `build`.

use std::sync::Arc;

use api::spec::{Action, HeaderChanges, Origin, Redirect, Route, RouteMatch, RouteTable, VirtualHost};
use indexmap::IndexMap;

use super::{admits, bound, merged, reference};
use crate::{
    mesh::{
        Mesh,
        http_route::{self, Client},
        key::{GatewayTable, Selection},
    },
    model::{Gateway, Server, ServerMode, Shared},
};

pub(crate) fn table(mesh: &Mesh, selection: &Selection, table: &GatewayTable, name: &str) -> Option<RouteTable> {
    let ports = merged(mesh, selection);
    let (servers, port): (Vec<(&Shared<Gateway>, &Server)>, u16) = match table {
        GatewayTable::Http(bind, port) => (ports.get(&(*bind, *port))?.servers.clone(), *port),
        GatewayTable::Https(object, index) => {
            let found = ports
                .values()
                .flat_map(|at| &at.servers)
                .find(|(gateway, server)| gateway.meta.object == *object && server.index == *index);
            let (gateway, server) = found?;
            (vec![(*gateway, *server)], server.port)
        }
    };
    let mut hosts: IndexMap<String, Vec<Route>> = IndexMap::new();
    let mut to_https: IndexMap<String, Route> = IndexMap::new();
    for (gateway, server) in servers {
        let gateways = [reference(gateway)];
        let client = Client { scope: &selection.scope, gateways: &gateways, port: server.port };
        if server.mode == ServerMode::RedirectToHttps {
            for host in &server.hosts {
                to_https.entry(host.host.to_string()).or_insert_with(|| redirect_to_https(gateway, server));
            }
        }
        for service in bound(mesh, selection, reference(gateway)) {
            let mut routes: Option<Vec<Route>> = None;
            for host in &service.hosts {
                let Some(domain) = admits(&server.hosts, service, host) else { continue };
                if server.mode == ServerMode::RedirectToHttps {
                    to_https.entry(domain.to_string()).or_insert_with(|| redirect_to_https(gateway, server));
                    continue;
                }
                let routes = routes.get_or_insert_with(|| http_route::routes(mesh, service, &client));
                let known = hosts.entry(domain.to_string()).or_default();
                // two Gateways may serve the same VirtualService under one domain
                let again = |route: &Route| known.contains(route);
                let fresh: Vec<Route> = routes.iter().filter(|route| !again(route)).cloned().collect();
                known.extend(fresh);
            }
        }
    }
    let mut virtual_hosts: Vec<Arc<VirtualHost>> = Vec::new();
    for (domain, mut routes) in hosts {
        if to_https.contains_key(&domain) || routes.is_empty() {
            continue;
        }
        http_route::sort(&mut routes);
        let name = format!("{domain}:{port}");
        virtual_hosts.push(Arc::new(VirtualHost { name, domains: vec![domain], routes }));
    }
    for (domain, route) in to_https {
        let name = format!("{domain}:{port}");
        virtual_hosts.push(Arc::new(VirtualHost { name, domains: vec![domain], routes: vec![route] }));
    }
    if virtual_hosts.is_empty() {
        virtual_hosts.push(Arc::new(black_hole(port)));
    }
    Some(RouteTable { name: name.to_owned(), virtual_hosts, ignore_port: true, hosts_apart: false })
}

fn whole(action: Action, origin: Option<Origin>) -> Route {
    Route {
        name: String::new(),
        matches: RouteMatch::default(),
        action,
        headers: HeaderChanges::default(),
        fault: None,
        operation: String::new(),
        origin,
    }
}

fn redirect_to_https(gateway: &Gateway, server: &Server) -> Route {
    let origin = Origin {
        object: gateway.meta.object.clone(),
        path: format!("spec.servers[{}].tls.httpsRedirect", server.index),
    };
    let redirect = Redirect { status: 301, scheme: Some("https".to_owned()), ..Redirect::default() };
    whole(Action::Redirect(redirect), Some(origin))
}

fn black_hole(port: u16) -> VirtualHost {
    VirtualHost {
        name: format!("blackhole:{port}"),
        domains: vec!["*".to_owned()],
        routes: vec![whole(Action::Reply { status: 404, body: String::new() }, None)],
    }
}

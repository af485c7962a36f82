//! Routes with every condition and every action.
//!
//! Never here: expectations. Called by `spec` and `listeners`.

use std::{sync::Arc, time::Duration};

use api::{name::Percent, spec::*};

use super::{origin, way, words};

fn forward(clusters: Vec<WeightedCluster>) -> Forward {
    Forward {
        clusters,
        timeout: None,
        retry: None,
        path: None,
        authority: None,
        mirrors: Vec::new(),
        retry_buffer_bytes: 1 << 20,
    }
}

fn route(path: PathMatch, action: Action) -> Route {
    Route {
        name: "default".to_owned(),
        matches: RouteMatch { path, ..RouteMatch::default() },
        action,
        headers: HeaderChanges::default(),
        fault: None,
        operation: "reviews.shop.svc.cluster.local:9080/*".to_owned(),
        origin: origin("VirtualService"),
    }
}

/// Long and flat: one route after the other.
fn routes() -> Vec<Route> {
    let v1 = "outbound|9080|v1|reviews.shop.svc.cluster.local";
    let v2 = "outbound|9080|v2|reviews.shop.svc.cluster.local";
    let lines = |name: &str| vec![(name.to_owned(), "%REQ(:PATH)%".to_owned())];
    let ops = HeaderOps { set: lines("x-set"), add: lines("x-add"), remove: words(&["x-gone"]) };
    let changes = HeaderChanges { request: ops.clone(), response: ops };
    let header = |name: &str, value, invert| HeaderMatch { name: name.to_owned(), value, invert };
    let regex = || TextMatch::Regex("v[0-9]+".to_owned());
    let query = |name: &str, value| QueryMatch { name: name.to_owned(), value };
    let rewrite = |path| Action::Forward(Box::new(Forward { path: Some(path), ..forward(vec![way(v1, 1)]) }));
    vec![
        Route {
            matches: RouteMatch {
                path: PathMatch::Prefix("/Api".to_owned()),
                ignore_case: true,
                headers: vec![
                    header("end-user", TextMatch::Exact("jason".to_owned()), false),
                    header("x-p", TextMatch::Prefix("p".to_owned()), true),
                    header("x-s", TextMatch::Suffix("s".to_owned()), false),
                    header(":method", TextMatch::Exact("GET".to_owned()), false),
                    header("x-there", TextMatch::Present, true),
                    header("x-r", regex(), false),
                ],
                query: vec![
                    query("a", TextMatch::Present),
                    query("b", TextMatch::Exact("1".to_owned())),
                    query("c", regex()),
                ],
            },
            headers: changes.clone(),
            fault: Some(Fault {
                delay: Some((Duration::from_secs(7), Percent::ALL)),
                abort: Some((AbortWith::Http(500), Percent::try_from(0.5).unwrap())),
            }),
            ..route(
                PathMatch::default(),
                Action::Forward(Box::new(Forward {
                    timeout: Some(Duration::from_millis(500)),
                    retry: Some(Retry {
                        attempts: 2,
                        on: words(&["connect-failure", "refused-stream", "unavailable", "retriable-status-codes"]),
                        statuses: vec![503],
                        per_try_timeout: Some(Duration::from_secs(2)),
                        backoff: Duration::from_millis(25),
                        avoid_previous: true,
                    }),
                    mirrors: vec![Mirror { cluster: v2.to_owned(), share: Percent::ALL }],
                    authority: Some("ratings".to_owned()),
                    ..forward(vec![WeightedCluster { headers: changes, ..way(v1, 90) }, way(v2, 10)])
                })),
            )
        },
        route(PathMatch::Exact("/exact".to_owned()), rewrite(PathRewrite::Full("/whole\\path".to_owned()))),
        route(PathMatch::SegmentPrefix("/segment".to_owned()), rewrite(PathRewrite::Prefix("/other".to_owned()))),
        route(
            PathMatch::Regex("/v[0-9]/.*".to_owned()),
            rewrite(PathRewrite::Regex { pattern: "^/v([0-9])/".to_owned(), substitution: "/\\1/".to_owned() }),
        ),
        Route {
            fault: Some(Fault { delay: None, abort: Some((AbortWith::Grpc(14), Percent::ALL)) }),
            ..route(
                PathMatch::Exact("/old".to_owned()),
                Action::Redirect(Redirect {
                    status: 308,
                    scheme: Some("https".to_owned()),
                    authority: Some("new.example.com".to_owned()),
                    port: Some(8443),
                    path: Some("/new".to_owned()),
                    prefix: None,
                }),
            )
        },
        route(
            PathMatch::Exact("/teapot".to_owned()),
            Action::Reply { status: 418, body: "short and stout".to_owned() },
        ),
        route(PathMatch::default(), Action::Forward(Box::new(forward(vec![way("PassthroughCluster", 1)])))),
    ]
}

pub(super) fn table(name: &str) -> RouteTable {
    let host = |name: &str, domains: &[&str], routes| {
        Arc::new(VirtualHost { name: name.to_owned(), domains: words(domains), routes })
    };
    let none = Action::Reply { status: 502, body: String::new() };
    RouteTable {
        name: name.to_owned(),
        virtual_hosts: vec![
            host("reviews:9080", &["reviews", "reviews.shop.svc.cluster.local", "*.reviews", "198.19.0.5"], routes()),
            host("block_all", &["*"], vec![Route { origin: None, ..route(PathMatch::default(), none) }]),
        ],
        ignore_port: true,
        hosts_apart: false,
    }
}

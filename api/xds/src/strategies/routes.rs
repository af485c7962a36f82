//! Random route tables in canonical form.
//!
//! Never here: expectations. Part of `strategies`.

use std::sync::Arc;

use api::spec::*;
use proptest::{collection::vec, option, prelude::*};

use super::{host, millis, origin, path, percent, word};

fn text_match() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        Just(TextMatch::Present),
        word().prop_map(TextMatch::Exact),
        word().prop_map(TextMatch::Prefix),
        word().prop_map(TextMatch::Suffix),
        "[a-z]{1,3}(\\.\\*|\\+|\\[0-9\\])?".prop_map(TextMatch::Regex),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        path().prop_map(PathMatch::SegmentPrefix),
        "/[a-z]{1,4}(\\.\\*|\\+|/v[0-9])".prop_map(PathMatch::Regex),
    ]
}

fn header_ops() -> impl Strategy<Value = HeaderOps> {
    let line = || (word(), word());
    (vec(line(), 0..3), vec(line(), 0..3), vec(word(), 0..3)).prop_map(|(set, add, remove)| HeaderOps {
        set,
        add,
        remove,
    })
}

fn header_changes() -> impl Strategy<Value = HeaderChanges> {
    prop_oneof![
        Just(HeaderChanges::default()),
        (header_ops(), header_ops()).prop_map(|(request, response)| HeaderChanges { request, response }),
    ]
}

pub(super) fn weighted(headers: bool) -> impl Strategy<Value = Vec<WeightedCluster>> {
    let changes = if headers { header_changes().boxed() } else { Just(HeaderChanges::default()).boxed() };
    vec((word(), 1u32..100, changes), 1..4).prop_map(|list| {
        let single = list.len() == 1;
        list.into_iter()
            .map(|(cluster, weight, headers)| WeightedCluster {
                cluster,
                weight: if single { 1 } else { weight },
                headers,
            })
            .collect()
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let on = prop::sample::subsequence(vec!["connect-failure", "5xx", "reset", "retriable-status-codes"], 0..4);
    (0u32..9, on, vec(400u16..600, 0..3), option::of(millis()), millis(), any::<bool>()).prop_map(
        |(attempts, on, statuses, per_try_timeout, backoff, avoid_previous)| Retry {
            attempts,
            on: on.into_iter().map(str::to_owned).collect(),
            statuses,
            per_try_timeout,
            backoff,
            avoid_previous,
        },
    )
}

fn rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![
        path().prop_map(PathRewrite::Prefix),
        "/[a-z\\\\]{0,5}".prop_map(PathRewrite::Full),
        (Just("^/a/(.*)$".to_owned()), "/[a-z]{1,3}/\\\\1")
            .prop_map(|(pattern, substitution)| PathRewrite::Regex { pattern, substitution }),
    ]
}

fn forward() -> BoxedStrategy<Forward> {
    let mirror = (word(), percent()).prop_map(|(cluster, share)| Mirror { cluster, share });
    (
        weighted(true),
        option::of(millis()),
        option::of(retry()),
        option::of(rewrite()),
        option::of(host()),
        vec(mirror, 0..3),
        any::<u32>(),
    )
        .prop_map(|(clusters, timeout, retry, path, authority, mirrors, retry_buffer_bytes)| Forward {
            clusters,
            timeout,
            retry,
            path,
            authority,
            mirrors,
            retry_buffer_bytes,
        })
        .boxed()
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = prop::sample::select(vec![301u16, 302, 303, 307, 308]);
    let to =
        prop_oneof![Just((None, None)), path().prop_map(|to| (Some(to), None)), path().prop_map(|to| (None, Some(to)))];
    (status, option::of(word()), option::of(host()), option::of(1u16..), to).prop_map(
        |(status, scheme, authority, port, (path, prefix))| Redirect { status, scheme, authority, port, path, prefix },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => forward().prop_map(|forward| Action::Forward(Box::new(forward))),
        1 => redirect().prop_map(Action::Redirect),
        1 => (200u16..600, ".{0,9}").prop_map(|(status, body)| Action::Reply { status, body }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let with = prop_oneof![(200u16..600).prop_map(AbortWith::Http), (0u32..17).prop_map(AbortWith::Grpc)];
    (option::of((millis(), percent())), option::of((with, percent()))).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn route() -> BoxedStrategy<Route> {
    let header =
        (word(), text_match(), any::<bool>()).prop_map(|(name, value, invert)| HeaderMatch { name, value, invert });
    let query = (word(), text_match()).prop_map(|(name, value)| QueryMatch { name, value });
    let matches = (path_match(), any::<bool>(), vec(header, 0..3), vec(query, 0..3))
        .prop_map(|(path, ignore_case, headers, query)| RouteMatch { path, ignore_case, headers, query });
    ("[a-z]{0,5}", matches, action(), header_changes(), option::of(fault()), "[a-z:/*]{0,5}", origin())
        .prop_map(|(name, matches, action, headers, fault, operation, origin)| Route {
            name,
            matches,
            action,
            headers,
            fault,
            operation,
            origin,
        })
        .boxed()
}

pub(super) fn virtual_host() -> BoxedStrategy<VirtualHost> {
    (word(), vec(host(), 1..4), vec(route(), 0..4))
        .prop_map(|(name, domains, routes)| VirtualHost { name, domains, routes })
        .boxed()
}

/// A table with all its hosts inside, as it stands in a listener.
pub(super) fn inline_table() -> impl Strategy<Value = RouteTable> {
    (word(), vec(virtual_host().prop_map(Arc::new), 0..3), any::<bool>()).prop_map(
        |(name, virtual_hosts, ignore_port)| RouteTable { name, virtual_hosts, ignore_port, hosts_apart: false },
    )
}

pub(super) fn route_table() -> impl Strategy<Value = RouteTable> {
    (inline_table(), any::<bool>()).prop_map(|(table, hosts_apart)| RouteTable { hosts_apart, ..table })
}

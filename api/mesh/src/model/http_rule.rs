//! Reads one HTTP rule of a VirtualService.
//!
//! Which requests it takes and where they go; what else happens to them is read by `http_action`.
//! Never here: the VirtualService as a whole. Called by `virtual_service`.

use std::collections::BTreeMap;

use api::{
    name::Percent,
    spec::{HeaderChanges, HeaderMatch, PathMatch, QueryMatch, TextMatch},
};

use super::{
    base::Judge,
    http_action::{percent, read_fault, read_redirect, read_reply, read_retries, read_rewrite},
    rule::{Destination, HttpMatch, HttpRoute, HttpRule, RuleAction, Weighted},
    text::{self, HeaderOpsRaw},
    virtual_service::{Site, client, weights},
};
use crate::object::networking as raw;

pub(crate) fn parse(judge: &mut Judge<'_>, index: usize, rule: &raw::HttpRoute, site: &Site<'_>) -> Option<HttpRule> {
    let path = format!("spec.http[{index}]");
    let before = judge.errors();
    let raw::HttpRoute {
        name,
        matches,
        // read by `read_action`
        route: _,
        redirect: _,
        direct_response: _,
        delegate: _,
        rewrite,
        timeout,
        retries,
        fault,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percent_snake,
        mirror_percentage,
        cors_policy,
        headers,
    } = rule;
    judge.not_honoured(cors_policy.is_some(), format!("{path}.corsPolicy"));

    let matches = matches
        .iter()
        .enumerate()
        .filter_map(|(i, m)| http_match(judge, &format!("{path}.match[{i}]"), m, site))
        .collect();
    let shares = MirrorShare { old: mirror_percent.or(*mirror_percent_snake), new: mirror_percentage.as_ref() };
    let mirrors = read_mirrors(judge, &path, mirror.as_ref(), &shares, mirrors, site);
    let timeout = timeout.and_then(|raw| text::positive_duration(judge, &format!("{path}.timeout"), raw));
    let retries = retries.as_ref().and_then(|raw| read_retries(judge, &format!("{path}.retries"), raw));
    let rewritten = rewrite.as_ref().map(|raw| read_rewrite(judge, &format!("{path}.rewrite"), raw));

    let (rewritten, authority) = rewritten.unwrap_or_default();
    let forward = HttpRoute { destinations: Vec::new(), timeout, retries, path: rewritten, authority, mirrors };
    let action = read_action(judge, &path, rule, forward, site);
    let headers = read_headers(judge, &format!("{path}.headers"), headers.as_ref());
    let fault = fault.as_ref().and_then(|raw| read_fault(judge, &format!("{path}.fault"), raw));
    let action = action?;
    (judge.errors() == before).then(|| HttpRule {
        index,
        name: name.clone().unwrap_or_default(),
        matches,
        action,
        headers,
        fault,
    })
}

/// What becomes of the requests: exactly one of four ways. `forward` is how they are sent on, but for where to.
fn read_action(
    judge: &mut Judge<'_>,
    path: &str,
    rule: &raw::HttpRoute,
    forward: HttpRoute,
    site: &Site<'_>,
) -> Option<RuleAction> {
    let ways =
        [!rule.route.is_empty(), rule.redirect.is_some(), rule.direct_response.is_some(), rule.delegate.is_some()];
    if ways.iter().filter(|way| **way).count() > 1 {
        judge.error(path, "only one of route, redirect, directResponse, delegate may be set");
    }
    match (&rule.redirect, &rule.direct_response, &rule.delegate) {
        (Some(redirect), _, _) => {
            if rule.fault.is_some() {
                judge.error(format!("{path}.fault"), "not allowed together with redirect");
            }
            if rule.rewrite.is_some() {
                judge.error(format!("{path}.rewrite"), "not allowed together with redirect");
            }
            read_redirect(judge, &format!("{path}.redirect"), redirect).map(RuleAction::Redirect)
        }
        (None, Some(reply), _) => read_reply(judge, &format!("{path}.directResponse"), reply),
        (None, None, Some(_)) => {
            judge.not_honoured(true, format!("{path}.delegate"));
            Some(RuleAction::Delegate)
        }
        (None, None, None) if rule.route.is_empty() => {
            judge.error(path, "required: one of route, redirect, directResponse, delegate");
            None
        }
        (None, None, None) => {
            let destinations = read_route(judge, &format!("{path}.route"), &rule.route, site);
            Some(RuleAction::Route(Box::new(HttpRoute { destinations, ..forward })))
        }
    }
}

fn read_headers(judge: &mut Judge<'_>, path: &str, raw: Option<&raw::Headers>) -> HeaderChanges {
    let Some(raw::Headers { request, response }) = raw else { return HeaderChanges::default() };
    let mut ops = |side: &str, raw: &Option<raw::HeaderOperations>| {
        let raw = raw.as_ref().map(|raw::HeaderOperations { set, add, remove }| HeaderOpsRaw { set, add, remove });
        text::header_ops(judge, &format!("{path}.{side}"), raw.as_ref(), side == "request")
    };
    HeaderChanges { request: ops("request", request), response: ops("response", response) }
}

/// None: the match says nothing about the text.
fn text_match(judge: &mut Judge<'_>, path: &str, raw: &raw::StringMatch) -> Option<TextMatch> {
    let raw::StringMatch { exact, prefix, regex } = raw;
    match (exact, prefix, regex) {
        (Some(text), None, None) => Some(TextMatch::Exact(text.clone())),
        (None, Some(text), None) => Some(TextMatch::Prefix(text.clone())),
        (None, None, Some(text)) => text::regex(judge, path, text).map(TextMatch::Regex),
        (None, None, None) => None,
        _ => {
            judge.error(path, "only one of exact, prefix, regex may be set");
            None
        }
    }
}

fn http_match(judge: &mut Judge<'_>, path: &str, m: &raw::HttpMatch, site: &Site<'_>) -> Option<HttpMatch> {
    let before = judge.errors();
    let raw::HttpMatch {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        ignore_uri_case,
        port,
        source_labels,
        source_namespace,
        gateways,
        stat_prefix,
    } = m;
    judge.not_honoured(stat_prefix.is_some(), format!("{path}.statPrefix"));
    let client = client(judge, path, *port, source_labels, source_namespace.as_deref(), gateways, site);

    let uri_path = format!("{path}.uri");
    let uri = uri.as_ref().and_then(|raw| text_match(judge, &uri_path, raw));
    let (path_match, ignore_case) = match uri {
        Some(TextMatch::Exact(text) | TextMatch::Prefix(text)) if text.is_empty() => {
            judge.error(uri_path, "must not be empty");
            return None;
        }
        Some(TextMatch::Exact(text)) => (PathMatch::Exact(text), *ignore_uri_case == Some(true)),
        Some(TextMatch::Prefix(text)) => (PathMatch::Prefix(text), *ignore_uri_case == Some(true)),
        Some(TextMatch::Regex(text)) => (PathMatch::Regex(text), false),
        Some(TextMatch::Present | TextMatch::Suffix(_)) | None => (PathMatch::default(), false),
    };

    let mut all = Vec::new();
    for (field, header, raw) in
        [("scheme", ":scheme", scheme), ("method", ":method", method), ("authority", ":authority", authority)]
    {
        let value = raw.as_ref().and_then(|raw| text_match(judge, &format!("{path}.{field}"), raw));
        all.extend(value.map(|value| HeaderMatch { name: header.to_owned(), value, invert: false }));
    }
    for (field, map, invert) in [("headers", headers, false), ("withoutHeaders", without_headers, true)] {
        all.extend(named_headers(judge, &format!("{path}.{field}"), map, invert));
    }
    let mut query = Vec::new();
    for (name, raw) in query_params {
        let at = format!("{path}.queryParams[{name}]");
        let value = text_match(judge, &at, raw).unwrap_or(TextMatch::Present);
        query.push(QueryMatch { name: name.clone(), value });
    }
    (judge.errors() == before).then(|| HttpMatch {
        name: name.clone().unwrap_or_default(),
        client,
        path: path_match,
        ignore_case,
        headers: all,
        query,
    })
}

/// Conditions on headers by name; those that are no headers are left out, and said.
fn named_headers(
    judge: &mut Judge<'_>,
    path: &str,
    map: &BTreeMap<String, raw::StringMatch>,
    invert: bool,
) -> Vec<HeaderMatch> {
    let mut all = Vec::with_capacity(map.len());
    for (name, raw) in map {
        let at = format!("{path}[{name}]");
        if name.starts_with("@request.auth.claims") {
            judge.not_enforced(true, at);
            continue;
        }
        if ["uri", "scheme", "method", "authority"].contains(&name.as_str()) {
            judge.warn(at, format!("{name} is a field of its own in a match; as a header it is ignored"));
            continue;
        }
        if name.is_empty() || !text::is_header_name(name) {
            judge.error(at, format!("{name:?} is not a header name"));
            continue;
        }
        let errors = judge.errors();
        let value = text_match(judge, &at, raw).unwrap_or(TextMatch::Present);
        if judge.errors() == errors {
            all.push(HeaderMatch { name: name.to_ascii_lowercase(), value, invert });
        }
    }
    all
}

fn read_route(
    judge: &mut Judge<'_>,
    path: &str,
    route: &[raw::HttpRouteDestination],
    site: &Site<'_>,
) -> Vec<Weighted> {
    let mut destinations = Vec::with_capacity(route.len());
    let mut raw_weights = Vec::with_capacity(route.len());
    for (i, raw::HttpRouteDestination { destination, weight, headers }) in route.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let headers = read_headers(judge, &format!("{at}.headers"), headers.as_ref());
        if let Some(destination) = site.destination(judge, &format!("{at}.destination"), destination) {
            destinations.push(Weighted { destination, weight: 0, headers });
            raw_weights.push(weight.unwrap_or_default());
        }
    }
    weights(judge, path, &mut destinations, &raw_weights);
    destinations
}

struct MirrorShare<'r> {
    old: Option<u32>,
    new: Option<&'r raw::Percent>,
}

fn read_mirrors(
    judge: &mut Judge<'_>,
    path: &str,
    mirror: Option<&raw::Destination>,
    share: &MirrorShare<'_>,
    mirrors: &[raw::HttpMirror],
    site: &Site<'_>,
) -> Vec<(Destination, Percent)> {
    if mirror.is_some() && !mirrors.is_empty() {
        judge.error(format!("{path}.mirrors"), "not allowed together with mirror");
    }
    let mut all = Vec::new();
    let old = share.old.and_then(|raw| judge.read(format!("{path}.mirrorPercent"), Percent::try_from(f64::from(raw))));
    let new = share.new.and_then(|raw| percent(judge, &format!("{path}.mirrorPercentage"), raw));
    if let Some(mirror) = mirror
        && let Some(destination) = site.destination(judge, &format!("{path}.mirror"), mirror)
    {
        all.push((destination, new.or(old).unwrap_or(Percent::ALL)));
    }
    for (i, raw::HttpMirror { destination, percentage }) in mirrors.iter().enumerate() {
        let at = format!("{path}.mirrors[{i}]");
        let share = percentage.as_ref().and_then(|raw| percent(judge, &format!("{at}.percentage"), raw));
        if let Some(destination) = site.destination(judge, &format!("{at}.destination"), destination) {
            all.push((destination, share.unwrap_or(Percent::ALL)));
        }
    }
    all.retain(|(_, share)| *share != Percent::NONE);
    all
}

//! Route tables, virtual hosts and routes.
//!
//! Never here: which routes a proxy is told. Called by `encode`, and by `http` for inline tables.

use api::spec::{
    AbortWith, Action, Fault, Forward, HeaderChanges, HeaderOps, PathMatch, PathRewrite, Redirect, Retry, Route,
    RouteMatch, RouteTable, TextMatch, VirtualHost, WeightedCluster,
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
            route::v3::{
                self as pb, header_matcher::HeaderMatchSpecifier,
                query_parameter_matcher::QueryParameterMatchSpecifier, redirect_action, retry_policy, route,
                route_action, route_match::PathSpecifier, weighted_cluster::ClusterWeight,
            },
        },
        extensions::{
            filters::{
                common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
                http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
            },
            retry::host::previous_hosts::v3::PreviousHostsPredicate,
        },
        r#type::matcher::v3::RegexMatchAndSubstitute,
    },
    google::protobuf,
};

use super::{EncodeError, Out, wire};
use crate::names;

pub(super) fn table(out: Out<'_>, table: &RouteTable) -> Result<pb::RouteConfiguration, EncodeError> {
    let RouteTable { name, virtual_hosts, ignore_port, hosts_apart } = table;
    Ok(pb::RouteConfiguration {
        name: name.clone(),
        virtual_hosts: virtual_hosts.iter().map(|host| virtual_host(out, host)).collect::<Result<_, _>>()?,
        vhds: hosts_apart.then(|| pb::Vhds { config_source: Some(wire::ads()) }),
        ignore_port_in_host_matching: *ignore_port,
        validate_clusters: wire::boolean(false),
        max_direct_response_body_size_bytes: wire::number(names::REPLY_BYTES_MAX),
        ..pb::RouteConfiguration::default()
    })
}

pub(super) fn virtual_host(out: Out<'_>, host: &VirtualHost) -> Result<pb::VirtualHost, EncodeError> {
    let VirtualHost { name, domains, routes } = host;
    let routes = routes
        .iter()
        .enumerate()
        .map(|(index, one)| route(out, &format!("virtual_hosts[{name}].routes[{index}]"), one))
        .collect::<Result<_, _>>()?;
    Ok(pb::VirtualHost {
        name: name.clone(),
        domains: domains.clone(),
        routes,
        include_request_attempt_count: true,
        ..pb::VirtualHost::default()
    })
}

fn route(out: Out<'_>, path: &str, route: &Route) -> Result<pb::Route, EncodeError> {
    let Route { name, matches, action, headers, fault, operation, origin } = route;
    let HeaderChanges { request, response } = headers;
    let mut wire_route = pb::Route {
        name: name.clone(),
        r#match: Some(route_match(matches)),
        metadata: wire::metadata([("istio", wire::object(wire::origin(origin.as_ref())))]),
        decorator: (!operation.is_empty())
            .then(|| pb::Decorator { operation: operation.clone(), ..pb::Decorator::default() }),
        request_headers_to_add: additions(request),
        request_headers_to_remove: request.remove.clone(),
        response_headers_to_add: additions(response),
        response_headers_to_remove: response.remove.clone(),
        ..pb::Route::default()
    };
    if let Some(fault) = fault {
        let any = wire::any(&http_fault(fault));
        wire_route.typed_per_filter_config.insert(names::FILTER_FAULT.to_owned(), any);
    }
    wire_route.action = Some(match action {
        Action::Forward(forward) => {
            wire_route.per_request_buffer_limit_bytes = wire::number(forward.retry_buffer_bytes);
            route::Action::Route(forwarding(out, path, forward)?)
        }
        Action::Redirect(redirect) => route::Action::Redirect(redirecting(out, path, redirect)?),
        Action::Reply { status, body } => route::Action::DirectResponse(pb::DirectResponseAction {
            status: (*status).into(),
            body: (!body.is_empty()).then(|| wire::inline(body.clone())),
            ..pb::DirectResponseAction::default()
        }),
    });
    Ok(wire_route)
}

fn route_match(matches: &RouteMatch) -> pb::RouteMatch {
    let RouteMatch { path, ignore_case, headers, query } = matches;
    let path = match path {
        PathMatch::Exact(text) => PathSpecifier::Path(text.clone()),
        PathMatch::Prefix(text) => PathSpecifier::Prefix(text.clone()),
        PathMatch::SegmentPrefix(text) => PathSpecifier::PathSeparatedPrefix(text.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(wire::regex(pattern)),
    };
    let headers = headers
        .iter()
        .map(|header| pb::HeaderMatcher {
            name: header.name.clone(),
            invert_match: header.invert,
            // What is not there does not match, so its inversion holds.
            treat_missing_header_as_empty: header.invert
                && header.value != TextMatch::Present
                && !header.name.starts_with(':'),
            header_match_specifier: Some(match wire::text_match(&header.value) {
                None => HeaderMatchSpecifier::PresentMatch(true),
                Some(text) => HeaderMatchSpecifier::StringMatch(text),
            }),
        })
        .collect();
    let query_parameters = query
        .iter()
        .map(|query| pb::QueryParameterMatcher {
            name: query.name.clone(),
            query_parameter_match_specifier: Some(match wire::text_match(&query.value) {
                None => QueryParameterMatchSpecifier::PresentMatch(true),
                Some(text) => QueryParameterMatchSpecifier::StringMatch(text),
            }),
        })
        .collect();
    pb::RouteMatch {
        case_sensitive: (*ignore_case).then_some(protobuf::BoolValue { value: false }),
        headers,
        query_parameters,
        path_specifier: Some(path),
        ..pb::RouteMatch::default()
    }
}

fn forwarding(out: Out<'_>, path: &str, forward: &Forward) -> Result<pb::RouteAction, EncodeError> {
    let Forward { clusters, timeout, retry, path: rewrite, authority, mirrors, retry_buffer_bytes: _ } = forward;
    let mut action = pb::RouteAction {
        cluster_specifier: Some(cluster_specifier(out, path, clusters)?),
        timeout: Some(timeout.map_or_else(protobuf::Duration::default, wire::duration)),
        retry_policy: retry.as_ref().map(retry_policy),
        host_rewrite_specifier: authority.clone().map(route_action::HostRewriteSpecifier::HostRewriteLiteral),
        ..pb::RouteAction::default()
    };
    match rewrite {
        None => {}
        Some(PathRewrite::Prefix(prefix)) if prefix.is_empty() => {
            return out.bad(format!("{path}.rewrite"), "a prefix cannot be replaced by nothing");
        }
        Some(PathRewrite::Prefix(prefix)) => action.prefix_rewrite.clone_from(prefix),
        Some(PathRewrite::Full(full)) => {
            action.regex_rewrite = Some(substitution(names::WHOLE_PATH, full.replace('\\', r"\\")));
        }
        Some(PathRewrite::Regex { pattern, substitution: text }) => {
            action.regex_rewrite = Some(substitution(pattern, text.clone()));
        }
    }
    action.request_mirror_policies = mirrors
        .iter()
        .map(|mirror| route_action::RequestMirrorPolicy {
            cluster: mirror.cluster.clone(),
            runtime_fraction: Some(wire::runtime_share(mirror.share)),
            disable_shadow_host_suffix_append: true,
            ..route_action::RequestMirrorPolicy::default()
        })
        .collect();
    Ok(action)
}

fn substitution(pattern: &str, substitution: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(wire::regex(pattern)), substitution }
}

/// One cluster by its name alone where nothing else is said of it, else all with their weights.
fn cluster_specifier(
    out: Out<'_>,
    path: &str,
    clusters: &[WeightedCluster],
) -> Result<route_action::ClusterSpecifier, EncodeError> {
    if let [WeightedCluster { cluster, weight: 1, headers }] = clusters
        && *headers == HeaderChanges::default()
    {
        return Ok(route_action::ClusterSpecifier::Cluster(cluster.clone()));
    }
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 || u32::try_from(total).is_err() {
        return out.bad(format!("{path}.clusters"), format!("weights sum to {total}; expected 1 to {}", u32::MAX));
    }
    let clusters = clusters
        .iter()
        .map(|WeightedCluster { cluster, weight, headers: HeaderChanges { request, response } }| ClusterWeight {
            name: cluster.clone(),
            weight: wire::number(*weight),
            request_headers_to_add: additions(request),
            request_headers_to_remove: request.remove.clone(),
            response_headers_to_add: additions(response),
            response_headers_to_remove: response.remove.clone(),
            ..ClusterWeight::default()
        })
        .collect();
    Ok(route_action::ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
        clusters,
        ..pb::WeightedCluster::default()
    }))
}

fn retry_policy(retry: &Retry) -> pb::RetryPolicy {
    let Retry { attempts, on, statuses, per_try_timeout, backoff, avoid_previous } = retry;
    let previous = pb::retry_policy::RetryHostPredicate {
        name: names::PREVIOUS_HOSTS.to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(wire::any(
            &PreviousHostsPredicate::default(),
        ))),
    };
    pb::RetryPolicy {
        retry_on: on.join(","),
        num_retries: wire::number(*attempts),
        per_try_timeout: per_try_timeout.map(wire::duration),
        retry_host_predicate: if *avoid_previous { vec![previous] } else { Vec::new() },
        host_selection_retry_max_attempts: if *avoid_previous { 5 } else { 0 },
        retriable_status_codes: statuses.iter().copied().map(u32::from).collect(),
        retry_back_off: (!backoff.is_zero()).then(|| retry_policy::RetryBackOff {
            base_interval: Some(wire::duration(*backoff)),
            max_interval: Some(wire::duration(backoff.saturating_mul(10))),
        }),
        ..pb::RetryPolicy::default()
    }
}

fn redirecting(out: Out<'_>, at: &str, redirect: &Redirect) -> Result<pb::RedirectAction, EncodeError> {
    use redirect_action::RedirectResponseCode as Code;
    let Redirect { status, scheme, authority, port, path, prefix } = redirect;
    let code = match status {
        301 => Code::MovedPermanently,
        302 => Code::Found,
        303 => Code::SeeOther,
        307 => Code::TemporaryRedirect,
        308 => Code::PermanentRedirect,
        other => return out.bad(format!("{at}.redirect.status"), format!("{other} is no redirect")),
    };
    Ok(pb::RedirectAction {
        host_redirect: authority.clone().unwrap_or_default(),
        port_redirect: port.map_or(0, u32::from),
        response_code: code.into(),
        scheme_rewrite_specifier: scheme.clone().map(redirect_action::SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: match (path, prefix) {
            (Some(path), _) => Some(redirect_action::PathRewriteSpecifier::PathRedirect(path.clone())),
            (None, Some(prefix)) => Some(redirect_action::PathRewriteSpecifier::PrefixRewrite(prefix.clone())),
            (None, None) => None,
        },
        ..pb::RedirectAction::default()
    })
}

fn additions(ops: &HeaderOps) -> Vec<HeaderValueOption> {
    let HeaderOps { set, add, remove: _ } = ops;
    let line = |action: HeaderAppendAction| {
        move |(key, value): &(String, String)| HeaderValueOption {
            header: Some(HeaderValue { key: key.clone(), value: value.clone(), ..HeaderValue::default() }),
            append_action: action.into(),
            keep_empty_value: value.is_empty(),
            ..HeaderValueOption::default()
        }
    };
    let set = set.iter().map(line(HeaderAppendAction::OverwriteIfExistsOrAdd));
    set.chain(add.iter().map(line(HeaderAppendAction::AppendIfExistsOrAdd))).collect()
}

fn http_fault(fault: &Fault) -> HttpFault {
    let Fault { delay, abort } = fault;
    HttpFault {
        delay: delay.map(|(length, share)| FaultDelay {
            percentage: Some(wire::share(share)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(wire::duration(length))),
        }),
        abort: abort.map(|(with, share)| FaultAbort {
            percentage: Some(wire::share(share)),
            error_type: Some(match with {
                AbortWith::Http(status) => ErrorType::HttpStatus(status.into()),
                AbortWith::Grpc(status) => ErrorType::GrpcStatus(status),
            }),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

//! Single routes.
//!
//! A route whose action we cannot do right answers 503 and says so in a note: its requests must not reach another route.
//! Never here: routing. Called by `routes`.

use std::time::Duration;

use api::{
    name::Percent,
    pattern, retry as conditions,
    spec::{
        Action, Forward, HeaderChanges, HeaderMatch, HeaderOps, Mirror, PathMatch, PathRewrite, Redirect, Retry, Route,
        RouteMatch, TextMatch, WeightedCluster,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction},
            route::v3::{
                self as pb, redirect_action, route,
                route_action::{ClusterSpecifier, HostRewriteSpecifier},
                route_match::PathSpecifier,
            },
        },
        r#type::matcher::v3::RegexMatchAndSubstitute,
    },
    google::protobuf,
};

use super::{DecodeError, In, fault::fault, matcher, read, routes::Table, routes::joined};
use crate::names;

/// Envoy's limit of an exchange where none is given.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// Envoy's first pause between tries where none is given.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(25);
const BACKOFF_MIN: Duration = Duration::from_millis(1);

/// A route; none where it takes only requests that we never have.
pub(super) fn route(
    input: &mut In<'_>,
    path: &str,
    raw: &pb::Route,
    above: &Table,
) -> Result<Option<Route>, DecodeError> {
    let Some(raw_match) = &raw.r#match else { return Err(input.invalid(format!("{path}match"), "missing")) };
    let Some(matches) = route_match(input, &format!("{path}match."), raw_match)? else {
        input.note(format!("{path}match"), "CONNECT is not served; the route takes no request");
        return Ok(None);
    };
    let request =
        operations(input, path, "request_headers_to", &raw.request_headers_to_add, &raw.request_headers_to_remove)?;
    let response =
        operations(input, path, "response_headers_to", &raw.response_headers_to_add, &raw.response_headers_to_remove)?;
    let fault = fault(input, &format!("{path}typed_per_filter_config"), &raw.typed_per_filter_config)?;
    let limit = raw.per_request_buffer_limit_bytes.as_ref().map(|limit| limit.value);
    let buffer = buffer(raw.request_body_buffer_limit.as_ref(), limit).or(above.buffer);
    let action = match &raw.action {
        Some(route::Action::Route(action)) => forwarding(input, &format!("{path}route."), action, above, buffer)?,
        Some(route::Action::Redirect(action)) => redirecting(input, &format!("{path}redirect."), action)?,
        Some(route::Action::DirectResponse(reply)) => {
            let path = format!("{path}direct_response.");
            input.ignore(reply.body_format.is_some(), &path, "body_format");
            let body = match &reply.body {
                None => Vec::new(),
                Some(source) => read::inline(source)
                    .ok_or_else(|| input.invalid(format!("{path}body"), "only inline bodies are served"))?,
            };
            let body = String::from_utf8(body).map_err(|_| input.invalid(format!("{path}body"), "not UTF-8"))?;
            Action::Reply { status: read::status(input, &format!("{path}status"), reply.status)?, body }
        }
        Some(route::Action::FilterAction(_) | route::Action::NonForwardingAction(_)) | None => {
            return Err(input.invalid(path, "no action we can take"));
        }
    };
    Ok(Some(Route {
        name: raw.name.clone(),
        matches,
        action,
        headers: HeaderChanges {
            request: joined(request, &above.request),
            response: joined(response, &above.response),
        },
        fault: fault.or_else(|| above.fault.clone()),
        operation: raw.decorator.as_ref().map(|decorator| decorator.operation.clone()).unwrap_or_default(),
        origin: read::origin(raw.metadata.as_ref()),
    }))
}

pub(super) fn buffer(limit: Option<&protobuf::UInt64Value>, older: Option<u32>) -> Option<u32> {
    limit.map(|limit| u32::try_from(limit.value).unwrap_or(u32::MAX)).or(older)
}

/// Which requests; none for CONNECT, which is never served.
fn route_match(input: &In<'_>, path: &str, raw: &pb::RouteMatch) -> Result<Option<RouteMatch>, DecodeError> {
    input.refuse(raw.runtime_fraction.is_some(), path, "runtime_fraction", "shares of requests are not tested")?;
    input.refuse(!raw.cookies.is_empty(), path, "cookies", "cookies are not tested")?;
    input.refuse(raw.tls_context.is_some(), path, "tls_context", "certificates are not tested by routes")?;
    input.refuse(!raw.dynamic_metadata.is_empty(), path, "dynamic_metadata", "metadata is not tested")?;
    input.refuse(!raw.filter_state.is_empty(), path, "filter_state", "filter state is not tested")?;
    let matched = match &raw.path_specifier {
        Some(PathSpecifier::Path(text)) => PathMatch::Exact(text.clone()),
        Some(PathSpecifier::Prefix(text)) => PathMatch::Prefix(text.clone()),
        Some(PathSpecifier::PathSeparatedPrefix(text)) => PathMatch::SegmentPrefix(text.clone()),
        Some(PathSpecifier::SafeRegex(raw)) => {
            PathMatch::Regex(matcher::regex(input, &format!("{path}safe_regex"), raw)?)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => return Ok(None),
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            return Err(input.guards(format!("{path}path_match_policy"), "path templates are not tested"));
        }
        None => return Err(input.invalid(path, "no path")),
    };
    let mut headers = Vec::with_capacity(raw.headers.len());
    for (index, header) in raw.headers.iter().enumerate() {
        headers.extend(matcher::header(input, &format!("{path}headers[{index}]"), header)?);
    }
    if raw.grpc.is_some() {
        let value = TextMatch::Prefix("application/grpc".to_owned());
        headers.push(HeaderMatch { name: "content-type".to_owned(), value, invert: false });
    }
    let query = raw.query_parameters.iter().enumerate();
    let query = query
        .map(|(index, query)| matcher::query(input, &format!("{path}query_parameters[{index}]"), query))
        .collect::<Result<_, _>>()?;
    let ignore_case = !read::truth(raw.case_sensitive.as_ref(), true);
    Ok(Some(RouteMatch { path: matched, ignore_case, headers, query }))
}

/// An action that we cannot do right.
fn refused(input: &mut In<'_>, path: String) -> Action {
    input.note(path, "not honoured; the route answers 503");
    Action::Reply { status: 503, body: String::new() }
}

fn forwarding(
    input: &mut In<'_>,
    path: &str,
    raw: &pb::RouteAction,
    above: &Table,
    buffer: Option<u32>,
) -> Result<Action, DecodeError> {
    let clusters = match &raw.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            vec![WeightedCluster { cluster: name.clone(), weight: 1, headers: HeaderChanges::default() }]
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let mut clusters = Vec::with_capacity(weighted.clusters.len());
            for (index, one) in weighted.clusters.iter().enumerate() {
                clusters.push(weighted_cluster(input, &format!("{path}weighted_clusters.clusters[{index}]."), one)?);
            }
            if clusters.iter().all(|cluster| cluster.weight == 0) {
                return Err(input.invalid(format!("{path}weighted_clusters"), "no cluster has a weight"));
            }
            clusters
        }
        Some(
            ClusterSpecifier::ClusterHeader(_)
            | ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => return Ok(refused(input, format!("{path}cluster_specifier"))),
        None => return Err(input.invalid(path, "no cluster")),
    };
    if raw.path_rewrite_policy.is_some() || !raw.path_rewrite.is_empty() {
        return Ok(refused(input, format!("{path}path_rewrite_policy")));
    }
    input.ignore(raw.metadata_match.is_some(), path, "metadata_match");
    input.ignore(!raw.hash_policy.is_empty(), path, "hash_policy");
    input.ignore(raw.cors.is_some(), path, "cors");
    input.ignore(raw.hedge_policy.is_some(), path, "hedge_policy");
    input.ignore(!raw.rate_limits.is_empty(), path, "rate_limits");
    input.ignore(raw.internal_redirect_policy.is_some(), path, "internal_redirect_policy");
    input.ignore(raw.idle_timeout.is_some(), path, "idle_timeout");
    input.ignore(raw.max_stream_duration.is_some(), path, "max_stream_duration");
    input.ignore(raw.retry_policy_typed_config.is_some(), path, "retry_policy_typed_config");
    let authority = match &raw.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host.clone()),
        Some(_) => {
            input.note(format!("{path}host_rewrite_specifier"), "only literal hosts are honoured");
            None
        }
    };
    let rewrite = match (&raw.regex_rewrite, raw.prefix_rewrite.as_str()) {
        (Some(rewrite), _) => Some(path_rewrite(input, &format!("{path}regex_rewrite."), rewrite)?),
        (None, "") => None,
        (None, prefix) => Some(PathRewrite::Prefix(prefix.to_owned())),
    };
    let timeout = read::duration_or(input, &format!("{path}timeout"), raw.timeout.as_ref(), TIMEOUT_DEFAULT)?;
    let own = raw.retry_policy.as_ref().map(|one| retry(input, &format!("{path}retry_policy."), one)).transpose()?;
    let mirrors = mirrors(input, path, &raw.request_mirror_policies)?;
    Ok(Action::Forward(Box::new(Forward {
        clusters,
        timeout: (!timeout.is_zero()).then_some(timeout),
        retry: own.or_else(|| above.retry.clone()),
        path: rewrite,
        authority,
        mirrors: if mirrors.is_empty() { above.mirrors.clone() } else { mirrors },
        retry_buffer_bytes: buffer.unwrap_or(1 << 20),
    })))
}

fn weighted_cluster(
    input: &mut In<'_>,
    path: &str,
    raw: &pb::weighted_cluster::ClusterWeight,
) -> Result<WeightedCluster, DecodeError> {
    if raw.name.is_empty() {
        return Err(input.invalid(format!("{path}name"), "missing"));
    }
    input.ignore(raw.metadata_match.is_some(), path, "metadata_match");
    input.ignore(raw.host_rewrite_specifier.is_some(), path, "host_rewrite_specifier");
    if fault(input, &format!("{path}typed_per_filter_config"), &raw.typed_per_filter_config)?.is_some() {
        input.note(format!("{path}typed_per_filter_config"), "faults of a single cluster are not injected");
    }
    Ok(WeightedCluster {
        cluster: raw.name.clone(),
        weight: read::number(raw.weight.as_ref(), 0),
        headers: HeaderChanges {
            request: operations(
                input,
                path,
                "request_headers_to",
                &raw.request_headers_to_add,
                &raw.request_headers_to_remove,
            )?,
            response: operations(
                input,
                path,
                "response_headers_to",
                &raw.response_headers_to_add,
                &raw.response_headers_to_remove,
            )?,
        },
    })
}

fn path_rewrite(input: &In<'_>, path: &str, raw: &RegexMatchAndSubstitute) -> Result<PathRewrite, DecodeError> {
    let pattern = raw.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
    pattern::anywhere(pattern).map_err(|error| input.invalid(format!("{path}pattern"), error.to_string()))?;
    let bare = raw.substitution.replace(r"\\", "");
    if pattern == names::WHOLE_PATH && !bare.contains('\\') {
        return Ok(PathRewrite::Full(raw.substitution.replace(r"\\", r"\")));
    }
    Ok(PathRewrite::Regex { pattern: pattern.to_owned(), substitution: raw.substitution.clone() })
}

pub(super) fn mirrors(
    input: &mut In<'_>,
    path: &str,
    raw: &[pb::route_action::RequestMirrorPolicy],
) -> Result<Vec<Mirror>, DecodeError> {
    let mut mirrors = Vec::with_capacity(raw.len());
    for (index, one) in raw.iter().enumerate() {
        let path = format!("{path}request_mirror_policies[{index}].");
        if one.cluster.is_empty() {
            input.note(format!("{path}cluster"), "only clusters given by name are mirrored to");
            continue;
        }
        let share = match one.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value.as_ref()) {
            None => Percent::ALL,
            Some(fraction) => read::share(input, &format!("{path}runtime_fraction"), fraction)?,
        };
        mirrors.push(Mirror { cluster: one.cluster.clone(), share });
    }
    Ok(mirrors)
}

pub(super) fn retry(input: &mut In<'_>, path: &str, raw: &pb::RetryPolicy) -> Result<Retry, DecodeError> {
    input.ignore(raw.retry_priority.is_some(), path, "retry_priority");
    input.ignore(raw.per_try_idle_timeout.is_some(), path, "per_try_idle_timeout");
    input.ignore(raw.rate_limited_retry_back_off.is_some(), path, "rate_limited_retry_back_off");
    input.ignore(!raw.retriable_headers.is_empty(), path, "retriable_headers");
    input.ignore(!raw.retriable_request_headers.is_empty(), path, "retriable_request_headers");
    let on: Vec<String> =
        raw.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    for word in on.iter().filter(|word| !conditions::knows(word)) {
        input.note(format!("{path}retry_on"), format!("{word:?} is not a condition we know"));
    }
    let previous = |predicate: &pb::retry_policy::RetryHostPredicate| predicate.name.ends_with("previous_hosts");
    input.ignore(!raw.retry_host_predicate.iter().all(previous), path, "retry_host_predicate");
    let statuses = raw
        .retriable_status_codes
        .iter()
        .map(|status| read::status(input, &format!("{path}retriable_status_codes"), *status))
        .collect::<Result<_, _>>()?;
    let per_try =
        read::duration_or(input, &format!("{path}per_try_timeout"), raw.per_try_timeout.as_ref(), Duration::ZERO)?;
    let base = raw.retry_back_off.as_ref().and_then(|back_off| back_off.base_interval.as_ref());
    Ok(Retry {
        attempts: read::number(raw.num_retries.as_ref(), 1),
        on,
        statuses,
        per_try_timeout: (!per_try.is_zero()).then_some(per_try),
        // Shorter ones are rounded up, as in Envoy.
        backoff: read::duration_or(input, &format!("{path}retry_back_off"), base, BACKOFF_DEFAULT)?.max(BACKOFF_MIN),
        avoid_previous: raw.retry_host_predicate.iter().any(previous),
    })
}

fn redirecting(input: &mut In<'_>, path: &str, raw: &pb::RedirectAction) -> Result<Action, DecodeError> {
    use redirect_action::{PathRewriteSpecifier, RedirectResponseCode as Code, SchemeRewriteSpecifier};
    input.ignore(raw.strip_query, path, "strip_query");
    let status = match Code::try_from(raw.response_code) {
        Ok(Code::MovedPermanently) => 301,
        Ok(Code::Found) => 302,
        Ok(Code::SeeOther) => 303,
        Ok(Code::TemporaryRedirect) => 307,
        Ok(Code::PermanentRedirect) => 308,
        Err(_) => return Err(input.invalid(format!("{path}response_code"), "unknown")),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (new_path, prefix) = match &raw.path_rewrite_specifier {
        None => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(new)) => (some(new), None),
        Some(PathRewriteSpecifier::PrefixRewrite(new)) => (None, Some(new.clone())),
        Some(PathRewriteSpecifier::RegexRewrite(_) | PathRewriteSpecifier::PathRewrite(_)) => {
            return Ok(refused(input, format!("{path}path_rewrite_specifier")));
        }
    };
    Ok(Action::Redirect(Redirect {
        status,
        scheme: match &raw.scheme_rewrite_specifier {
            None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => some(scheme),
        },
        authority: some(&raw.host_redirect),
        port: match raw.port_redirect {
            0 => None,
            port => Some(read::port(input, &format!("{path}port_redirect"), port)?),
        },
        path: new_path,
        prefix,
    }))
}

/// Changes of headers; `names` is the beginning of the fields' names.
pub(super) fn operations(
    input: &mut In<'_>,
    path: &str,
    names: &str,
    add: &[HeaderValueOption],
    remove: &[String],
) -> Result<HeaderOps, DecodeError> {
    let mut ops = HeaderOps { remove: remove.to_vec(), ..HeaderOps::default() };
    for (index, option) in add.iter().enumerate() {
        let at = format!("{path}{names}_add[{index}]");
        let Some(header) = &option.header else { return Err(input.invalid(at, "no header")) };
        let value = if header.raw_value.is_empty() {
            header.value.clone()
        } else {
            String::from_utf8(header.raw_value.clone()).map_err(|_| input.invalid(&at, "not UTF-8"))?
        };
        let line = (header.key.clone(), value);
        let action =
            HeaderAppendAction::try_from(option.append_action).map_err(|_| input.invalid(&at, "unknown action"))?;
        match (option.append.as_ref().map(|append| append.value), action) {
            (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => ops.set.push(line),
            (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => ops.add.push(line),
            (None, HeaderAppendAction::AddIfAbsent | HeaderAppendAction::OverwriteIfExists) => {
                input.note(at, "conditional changes are not made");
            }
        }
    }
    Ok(ops)
}

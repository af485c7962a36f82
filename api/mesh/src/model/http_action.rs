//! Reads what one HTTP rule of a VirtualService does: rewrites, retries, redirects, answers, faults.
//!
//! Never here: which requests it takes (`http_rule`). Called by `http_rule` and, for retries, `mesh_config`.

use std::time::Duration;

use api::{
    name::Percent,
    spec::{AbortWith, Fault, PathRewrite, Retry},
};
use base64::Engine as _;

use super::{
    base::Judge,
    rule::{RetryRule, RuleAction, RuleRedirect, RuleRewrite},
    text,
};
use crate::object::networking as raw;

/// Largest body of a direct response, in bytes.
const DIRECT_RESPONSE_BYTES_MAX: usize = 1024 * 1024;

pub(crate) fn percent(judge: &mut Judge<'_>, path: &str, raw: &raw::Percent) -> Option<Percent> {
    let raw::Percent { value } = raw;
    judge.read(format!("{path}.value"), Percent::try_from(value.unwrap_or_default()))
}

pub(crate) fn read_rewrite(
    judge: &mut Judge<'_>,
    path: &str,
    raw: &raw::HttpRewrite,
) -> (Option<RuleRewrite>, Option<String>) {
    let raw::HttpRewrite { uri, authority, uri_regex_rewrite } = raw;
    if uri.is_none() && authority.is_none() && uri_regex_rewrite.is_none() {
        judge.error(path, "required: at least one of uri, authority, uriRegexRewrite");
    }
    let rewrite = match (uri, uri_regex_rewrite) {
        (Some(_), Some(_)) => {
            judge.error(path, "only one of uri, uriRegexRewrite may be set");
            None
        }
        (Some(uri), None) => Some(RuleRewrite::Matched(uri.clone())),
        (None, Some(raw::RegexRewrite { pattern, rewrite })) => {
            let at = format!("{path}.uriRegexRewrite.match");
            let pattern = text::regex(judge, &at, pattern.as_deref().unwrap_or_default());
            if rewrite.is_none() {
                judge.error(format!("{path}.uriRegexRewrite.rewrite"), "required");
            }
            let substitution = rewrite.clone().unwrap_or_default();
            pattern.map(|pattern| RuleRewrite::Regex(PathRewrite::Regex { pattern, substitution }))
        }
        (None, None) => None,
    };
    (rewrite, authority.clone().filter(|authority| !authority.is_empty()))
}

/// What retries happen on where nothing else is said.
pub(crate) const RETRY_ON: [&str; 5] =
    ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"];

const RETRY_CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Istio's retry policy where neither route nor mesh says otherwise.
pub(crate) fn default_retry() -> Retry {
    Retry {
        attempts: 2,
        on: RETRY_ON.iter().map(|&text| text.to_owned()).collect(),
        statuses: Vec::new(),
        per_try_timeout: None,
        backoff: Duration::from_millis(25),
        avoid_previous: true,
    }
}

pub(crate) fn read_retries(judge: &mut Judge<'_>, path: &str, raw: &raw::HttpRetry) -> Option<RetryRule> {
    let before = judge.errors();
    let raw::HttpRetry {
        attempts,
        per_try_timeout,
        retry_on,
        retry_ignore_previous_hosts,
        retry_remote_localities,
        backoff,
    } = raw;
    judge.not_honoured(*retry_remote_localities == Some(true), format!("{path}.retryRemoteLocalities"));
    let attempts = text::count(judge, &format!("{path}.attempts"), i64::from(attempts.unwrap_or_default()))?;
    let mut retry = default_retry();
    retry.attempts = attempts;
    retry.avoid_previous = *retry_ignore_previous_hosts != Some(false);
    retry.per_try_timeout =
        per_try_timeout.and_then(|raw| text::positive_duration(judge, &format!("{path}.perTryTimeout"), raw));
    if let Some(raw) = backoff {
        retry.backoff = text::positive_duration(judge, &format!("{path}.backoff"), *raw)?;
    }
    if let Some(list) = retry_on.as_deref().filter(|list| !list.is_empty()) {
        retry.on.clear();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.parse::<u16>() {
                Ok(status) if (100..600).contains(&status) => retry.statuses.push(status),
                Err(_) if RETRY_CONDITIONS.contains(&word) => retry.on.push(word.to_owned()),
                _ => judge.error(format!("{path}.retryOn"), format!("{word:?} is not a condition for retries")),
            }
        }
        if !retry.statuses.is_empty() && !retry.on.iter().any(|word| word == "retriable-status-codes") {
            retry.on.push("retriable-status-codes".to_owned());
        }
    }
    if attempts == 0 && (per_try_timeout.is_some() || retry_on.is_some()) {
        judge.error(path, "conditions and timeouts are set while attempts is 0, which turns retries off");
    }
    if judge.errors() > before {
        return None;
    }
    Some(if attempts == 0 { RetryRule::Never } else { RetryRule::Policy(retry) })
}

pub(crate) fn read_redirect(judge: &mut Judge<'_>, path: &str, raw: &raw::HttpRedirect) -> Option<RuleRedirect> {
    let before = judge.errors();
    let raw::HttpRedirect { uri, prefix_rewrite, authority, port, derive_port, scheme, redirect_code } = raw;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (uri, prefix, authority, scheme) = (set(uri), set(prefix_rewrite), set(authority), set(scheme));
    if [&uri, &prefix, &authority, &scheme].iter().all(|part| part.is_none()) && port.is_none() && derive_port.is_none()
    {
        judge.error(path, "required: at least one of uri, prefixRewrite, authority, scheme, port");
    }
    if uri.is_some() && prefix.is_some() {
        judge.error(path, "only one of uri, prefixRewrite may be set");
    }
    if let Some(scheme) = &scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        judge.error(format!("{path}.scheme"), format!("{scheme:?} must be http or https"));
    }
    let status = match redirect_code {
        None | Some(0) => 301,
        Some(code @ (301 | 302 | 303 | 307 | 308)) => u16::try_from(*code).unwrap_or(301),
        Some(code) => {
            judge.error(format!("{path}.redirectCode"), format!("{code} must be 301, 302, 303, 307 or 308"));
            return None;
        }
    };
    let number = match port {
        Some(number) => Some(text::port(judge, &format!("{path}.port"), i64::from(*number))?),
        None => None,
    };
    (judge.errors() == before).then_some(RuleRedirect {
        status,
        scheme,
        authority,
        port: number,
        port_of_request: *derive_port == Some(raw::RedirectPort::FromRequestPort),
        path: uri,
        prefix,
    })
}

pub(crate) fn read_reply(judge: &mut Judge<'_>, path: &str, raw: &raw::HttpDirectResponse) -> Option<RuleAction> {
    let raw::HttpDirectResponse { status, body } = raw;
    let Some(status) = u16::try_from(*status).ok().filter(|status| (200..=599).contains(status)) else {
        judge.error(format!("{path}.status"), format!("{status} must be 200 to 599"));
        return None;
    };
    let body = match body {
        None => String::new(),
        Some(raw::HttpBody { string: Some(text), bytes: None }) => text.clone(),
        Some(raw::HttpBody { string: None, bytes: Some(raw) }) => {
            let at = format!("{path}.body.bytes");
            let bytes = judge.read(at.as_str(), base64::engine::general_purpose::STANDARD.decode(raw))?;
            judge.read(at, String::from_utf8(bytes).map_err(|_| "not honoured yet: bytes that are not UTF-8 text"))?
        }
        Some(raw::HttpBody { .. }) => {
            judge.error(format!("{path}.body"), "required: exactly one of string, bytes");
            return None;
        }
    };
    if body.len() > DIRECT_RESPONSE_BYTES_MAX {
        judge.error(format!("{path}.body"), format!("must not be longer than {DIRECT_RESPONSE_BYTES_MAX} bytes"));
        return None;
    }
    Some(RuleAction::Reply { status, body })
}

pub(crate) fn read_fault(judge: &mut Judge<'_>, path: &str, raw: &raw::HttpFault) -> Option<Fault> {
    let raw::HttpFault { delay, abort } = raw;
    if delay.is_none() && abort.is_none() {
        judge.error(path, "required: at least one of delay, abort");
    }
    let delay = delay.as_ref().and_then(|raw| {
        let path = format!("{path}.delay");
        let raw::FaultDelay { fixed_delay, exponential_delay, percent: old, percentage } = raw;
        judge.not_honoured(exponential_delay.is_some(), format!("{path}.exponentialDelay"));
        let Some(span) = fixed_delay else {
            if exponential_delay.is_none() {
                judge.error(format!("{path}.fixedDelay"), "required");
            }
            return None;
        };
        let span = text::positive_duration(judge, &format!("{path}.fixedDelay"), *span)?;
        let old = old.and_then(|raw| judge.read(format!("{path}.percent"), Percent::try_from(f64::from(raw))));
        let new = percentage.as_ref().and_then(|raw| percent(judge, &format!("{path}.percentage"), raw));
        Some((span, new.or(old).unwrap_or(Percent::NONE)))
    });
    let abort = abort.as_ref().and_then(|raw| {
        let path = format!("{path}.abort");
        let raw::FaultAbort { http_status, grpc_status, http2_error, percentage } = raw;
        judge.not_honoured(http2_error.is_some(), format!("{path}.http2Error"));
        let share = match percentage {
            Some(raw) => percent(judge, &format!("{path}.percentage"), raw)?,
            None => Percent::NONE,
        };
        let answer = match (http_status, grpc_status) {
            (Some(status), None) => match u16::try_from(*status).ok().filter(|status| (200..=599).contains(status)) {
                Some(status) => AbortWith::Http(status),
                None => {
                    judge.error(format!("{path}.httpStatus"), format!("{status} must be 200 to 599"));
                    return None;
                }
            },
            (None, Some(name)) => match grpc_code(name) {
                Some(code) => AbortWith::Grpc(code),
                None => {
                    judge.error(format!("{path}.grpcStatus"), format!("{name:?} is not a gRPC status"));
                    return None;
                }
            },
            (Some(_), Some(_)) => {
                judge.error(path, "only one of httpStatus, grpcStatus may be set");
                return None;
            }
            (None, None) => {
                if http2_error.is_none() {
                    judge.error(path, "required: one of httpStatus, grpcStatus");
                }
                return None;
            }
        };
        Some((answer, share))
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn grpc_code(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = NAMES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok());
    by_name.or_else(|| name.parse().ok().filter(|code| *code <= 16))
}

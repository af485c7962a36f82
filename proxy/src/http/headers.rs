//! Names of headers that have a meaning in the mesh; which of a reply's end here, and which change because a route says so.
//!
//! Never here: when a header is set. Used by the steps of `http`.

use api::table::{Edits, Value};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, TRANSFER_ENCODING, UPGRADE},
};

use super::{formats::Formats, ride};
use crate::{
    access::{Record, line},
    peers,
};

macro_rules! names {
    ($($name:ident = $text:literal;)*) => {
        $(pub(crate) const $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    REQUEST_ID = "x-request-id";
    FORWARDED_FOR = "x-forwarded-for";
    FORWARDED_PROTO = "x-forwarded-proto";
    CLIENT_CERT = "x-forwarded-client-cert";
    ATTEMPT_COUNT = "x-envoy-attempt-count";
    SERVICE_TIME = "x-envoy-upstream-service-time";
    OVERLOADED = "x-envoy-overloaded";
    ORIGINAL_PATH = "x-envoy-original-path";
    EXTERNAL_ADDRESS = "x-envoy-external-address";
    INTERNAL = "x-envoy-internal";
    RATE_LIMITED = "x-envoy-ratelimited";
    KEEP_ALIVE = "keep-alive";
    PROXY_CONNECTION = "proxy-connection";
    GRPC_STATUS = "grpc-status";
    GRPC_MESSAGE = "grpc-message";
}

/// Set by our inbound side where a request did not reach the application at all; taken away by our outbound side, which
/// may then try elsewhere whatever the method.
pub(crate) const NOT_DELIVERED: HeaderName = HeaderName::from_static("x-ferromesh-not-delivered");

/// What a client from outside must not say.
pub(crate) static EDGE_ONLY: [HeaderName; 20] = [
    EXTERNAL_ADDRESS,
    INTERNAL,
    ORIGINAL_PATH,
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    SERVICE_TIME,
];

/// Takes from a reply's head what concerns the upstream's connection alone (RFC 9110, 7.6.1), and what proxies of the mesh
/// tell each other.
pub(super) fn end_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter(|name| !name.trim_ascii().eq_ignore_ascii_case(b"close"))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    between(headers);
}

/// The same where the reply changes the protocol, which these words are needed for.
pub(super) fn between(headers: &mut HeaderMap) {
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(NOT_DELIVERED);
    headers.remove(peers::METADATA);
    headers.remove(peers::METADATA_ID);
    ride::strip(headers);
}

/// A number as a value; small ones, which nearly all are, cost nothing.
pub(crate) fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(number).ok().and_then(|at| SMALL.get(at)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(number),
    }
}

/// Applies a route's changes: remove, set, add.
pub(super) fn apply(edits: &Edits, headers: &mut HeaderMap, record: &Record, formats: &Formats) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        if let Some(value) = value_of(value, record, formats) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &edits.add {
        if let Some(value) = value_of(value, record, formats) {
            headers.append(name, value);
        }
    }
}

fn value_of(value: &Value, record: &Record, formats: &Formats) -> Option<HeaderValue> {
    match value {
        Value::Text(value) => Some(value.clone()),
        // Only where a user wrote an operator; one that is not offered writes nothing, as `table::headers` has told.
        Value::Format(text) => HeaderValue::from_bytes(&line::expand(&*formats.of(text)?, record)).ok(),
    }
}

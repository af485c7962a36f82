//! What goes back to the client: the upstream's reply, our own, or what became of a failure.
//!
//! Never here: what a failure means (`failure`), trying again. Called by `http::handle`, last.

use api::spec::Direction;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, SERVER, UPGRADE},
};
use tokio::time::Instant;

use super::{
    Conn, View,
    body::Reply,
    failure::Failure,
    gate::refusal::Refusal,
    h1::head::HeadError as Malformed,
    headers::{self, GRPC_MESSAGE, GRPC_STATUS, NOT_DELIVERED, OVERLOADED, SERVICE_TIME, number},
    incoming::Incoming,
};
use crate::{
    access::{Denied, Record},
    limits::OVERLOAD_RETRY,
    overload::Step,
    upstream::lease::Lease,
    worker::Phase,
};

/// What the steps came to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The upstream's reply.
    Upstream {
        response: Response<Incoming>,
        lease: Lease,
        /// When its body must have ended.
        deadline: Option<Instant>,
    },
    /// Our own.
    Own { status: StatusCode, headers: HeaderMap, body: Bytes },
}

/// Our own reply.
pub(super) fn own(status: StatusCode, headers: HeaderMap, body: Bytes, mut record: Record) -> Response<Reply> {
    record.code = status.as_u16();
    record.replied = Some(Instant::now());
    let mut response = Response::new(Reply::own(body, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(SERVER, SERVER_NAME);
    response
}

/// What a client is told of a failure.
pub(super) fn from_failure(failure: &Failure, grpc: bool, conn: &Conn, mut record: Record) -> Response<Reply> {
    let told = failure.told();
    record.flag(told.flags);
    record.details = told.details;
    if let Failure::Denied(rule) = failure {
        record.denied = Some(Denied { rule: rule.clone() });
    }
    let mut headers = HeaderMap::new();
    if let Failure::Connect { reason, .. } = failure {
        record.transport_failure = reason.as_deref().map(Into::into);
        if conn.direction == Direction::Inbound {
            headers.insert(NOT_DELIVERED, HeaderValue::from_static("1"));
        }
    }
    if matches!(failure, Failure::Refused(Refusal::Overload)) {
        headers.insert(RETRY_AFTER, HeaderValue::from(OVERLOAD_RETRY.as_secs()));
    }
    if matches!(failure, Failure::Overflow | Failure::Refused(Refusal::Overload)) {
        headers.insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    if matches!(failure, Failure::Malformed(Malformed::OldVersion)) {
        // What to change to must be said (RFC 9110, 15.5.22).
        headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    }
    if grpc || matches!(failure, Failure::AbortedGrpc(_)) {
        let code = failure.grpc(told.status);
        record.grpc = u8::try_from(code).ok();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(code));
        if let Ok(message) = HeaderValue::from_str(&told.body.replace('%', "%25"))
            && !told.body.is_empty()
        {
            headers.insert(GRPC_MESSAGE, message);
        }
        return own(StatusCode::OK, headers, Bytes::new(), record);
    }
    if !told.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    own(status, headers, Bytes::from(told.body), record)
}

const SERVER_NAME: HeaderValue = HeaderValue::from_static("istio-envoy");

/// The upstream's reply.
pub(super) fn from_upstream(
    response: Response<Incoming>,
    lease: Lease,
    deadline: Option<Instant>,
    mut record: Record,
) -> Response<Reply> {
    let (mut parts, body) = response.into_parts();
    record.code = parts.status.as_u16();
    record.replied = Some(Instant::now());
    if record.details.is_empty() {
        record.details = "via_upstream";
    }
    record.upstream_local = lease.local;
    let headers = &mut parts.headers;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        headers::between(headers);
    } else {
        headers::end_hop(headers);
    }
    if let Some(time) = record.service_time {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        headers.insert(SERVICE_TIME, number(millis));
    }
    if record.grpc.is_none() {
        record.grpc = headers.get(GRPC_STATUS).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    }
    if let Some(log) = &record.log {
        for name in &log.replied {
            if let Some(value) = headers.get(name) {
                record.reply_headers.insert(name, value.clone());
            }
        }
    }
    Response::from_parts(parts, Reply::upstream(body, record, lease, deadline))
}

/// What every reply gets.
pub(super) fn finish(conn: &Conn, view: &View, version: Version, response: &mut Response<Reply>) {
    if conn.direction != Direction::Inbound {
        response.headers_mut().insert(SERVER, SERVER_NAME);
    }
    // HTTP/2 connections are told by the codec.
    let shared = &conn.worker.shared;
    let leaving = !view.current || *shared.phase.borrow() != Phase::Serving || shared.overload.step() >= Step::Parting;
    let http2 = version == Version::HTTP_2 || conn.downstream.ridden;
    if leaving && !http2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

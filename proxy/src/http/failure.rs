//! Why a request has no reply from the upstream, and how its client is told.
//!
//! Every failure has one status, body, flag and detail, Envoy's; to gRPC clients it is told as a gRPC status.
//! Never here: replies (`reply`). Made by the steps of `http`, told by `reply`.

use std::sync::Arc;

use api::head::HeadError;

use super::{gate::refusal::Refusal, h1::head::HeadError as Malformed, incoming::Fault};
use crate::metrics::Flags;

/// Why there is no reply from the upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no route takes the request")]
    NoRoute,
    #[error("the route's cluster does not exist")]
    NoCluster,
    #[error("no endpoint may take the request")]
    NoHealthyUpstream,
    #[error("the cluster is at its limit")]
    Overflow,
    #[error("no connection to the upstream")]
    Connect { reason: Option<String>, exhausted: bool },
    #[error("the upstream ended the connection before it replied")]
    Reset { exhausted: bool },
    #[error("no reply in time")]
    TimedOut { exhausted: bool },
    #[error("not allowed")]
    Denied(Option<Arc<str>>),
    #[error("a fault was injected")]
    Aborted(u16),
    #[error("a fault was injected")]
    AbortedGrpc(u32),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("{0}")]
    Head(#[from] HeadError),
    #[error("not offered")]
    NotOffered,
    #[error("{0}")]
    Malformed(Malformed),
    #[error("the head of the request did not end in time")]
    HeadLate,
    #[error("the body of the request did not come in time")]
    BodyLate,
    #[error("the body of the request is malformed")]
    BodyMalformed,
    #[error("the upstream's reply is malformed")]
    Protocol { exhausted: bool },
    #[error("the client went away")]
    ClientGone,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone => Self::ClientGone,
            Fault::Late => Self::BodyLate,
            Fault::Malformed => Self::BodyMalformed,
        }
    }
}

/// How a failure is told.
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) flags: Flags,
    pub(super) details: &'static str,
}

const BEFORE_HEADERS: &str = "upstream connect error or disconnect/reset before headers";

impl Failure {
    pub(super) fn told(&self) -> Told {
        let tell = |status, body: &str, flags, details| Told { status, body: body.to_owned(), flags, details };
        let or_exhausted =
            |flags: Flags, exhausted: &bool| if *exhausted { flags.with(Flags::RETRIES_EXHAUSTED) } else { flags };
        match self {
            Self::NoRoute => tell(404, "", Flags::NO_ROUTE, "route_not_found"),
            Self::NoCluster => tell(503, "", Flags::NO_CLUSTER, "cluster_not_found"),
            Self::NoHealthyUpstream => {
                tell(503, "no healthy upstream", Flags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream")
            }
            Self::Overflow => Told {
                status: 503,
                body: format!("{BEFORE_HEADERS}. reset reason: overflow"),
                flags: Flags::UPSTREAM_OVERFLOW,
                details: "upstream_reset_before_response_started{overflow}",
            },
            Self::Connect { reason, exhausted } => Told {
                status: 503,
                body: match reason {
                    Some(reason) => {
                        let reason = reason.replace('_', " ");
                        format!(
                            "{BEFORE_HEADERS}. reset reason: remote connection failure, transport failure reason: {reason}"
                        )
                    }
                    None => format!("{BEFORE_HEADERS}. reset reason: connection timeout"),
                },
                flags: or_exhausted(Flags::UPSTREAM_FAILED, exhausted),
                details: "upstream_reset_before_response_started{remote_connection_failure}",
            },
            Self::Reset { exhausted } => Told {
                status: 503,
                body: format!("{BEFORE_HEADERS}. reset reason: connection termination"),
                flags: or_exhausted(Flags::UPSTREAM_ENDED, exhausted),
                details: "upstream_reset_before_response_started{connection_termination}",
            },
            Self::TimedOut { exhausted } => {
                let flags = or_exhausted(Flags::UPSTREAM_TIMEOUT, exhausted);
                tell(504, "upstream request timeout", flags, "response_timeout")
            }
            Self::Denied(_) => tell(403, "RBAC: access denied", Flags::NONE, "rbac_access_denied"),
            Self::Aborted(status) => tell(*status, "fault filter abort", Flags::FAULT_INJECTED, "fault_filter_abort"),
            Self::AbortedGrpc(_) => tell(200, "fault filter abort", Flags::FAULT_INJECTED, "fault_filter_abort"),
            Self::Refused(refusal) => {
                let flags = if *refusal == Refusal::Overload { Flags::NONE } else { Flags::BAD_REQUEST };
                tell(refusal.status(), &refusal.to_string(), flags, refusal.details())
            }
            Self::BadRequest(reason) => tell(400, reason, Flags::BAD_REQUEST, "request_refused"),
            Self::Head(error) => {
                Told { status: 400, body: error.to_string(), flags: Flags::BAD_REQUEST, details: "request_refused" }
            }
            Self::NotOffered => tell(403, "", Flags::NONE, "upgrade_failed"),
            Self::Malformed(error) => {
                let (status, details) = malformed(*error);
                Told { status, body: error.to_string(), flags: Flags::BAD_REQUEST, details }
            }
            Self::HeadLate => tell(408, "", Flags::NONE, "request_header_timeout"),
            Self::BodyLate => tell(408, "stream timeout", Flags::IDLE, "stream_idle_timeout"),
            Self::BodyMalformed => tell(400, "Bad Request", Flags::BAD_REQUEST, "http1.codec_error"),
            Self::Protocol { exhausted } => Told {
                status: 502,
                body: format!("{BEFORE_HEADERS}. reset reason: protocol error"),
                flags: or_exhausted(Flags::UPSTREAM_PROTOCOL, exhausted),
                details: "upstream_reset_before_response_started{protocol_error}",
            },
            Self::ClientGone => tell(400, "", Flags::DOWNSTREAM_ENDED, "downstream_remote_disconnect"),
        }
    }

    /// The gRPC status for the same thing (gRPC's table of HTTP statuses).
    pub(super) fn grpc(&self, status: u16) -> u32 {
        match (self, status) {
            (Self::AbortedGrpc(code), _) => *code,
            (_, 400) => 13,
            (_, 401) => 16,
            (_, 403) => 7,
            (_, 404) => 12,
            (_, 429 | 502 | 503 | 504) => 14,
            (_, _) => 2,
        }
    }
}

/// Status and detail, Envoy's words where it has them.
fn malformed(error: Malformed) -> (u16, &'static str) {
    match error {
        Malformed::LineEnd | Malformed::FirstLine => (400, "http1.codec_error"),
        Malformed::Name | Malformed::Value => (400, "http1.invalid_characters"),
        Malformed::Version => (505, "unsupported_version"),
        Malformed::OldVersion => (426, "low_version"),
        Malformed::Target => (400, "http1.invalid_url"),
        Malformed::TargetTooLong => (414, "http1.url_too_long"),
        Malformed::TooMany => (431, "http1.too_many_headers"),
        Malformed::TooLarge => (431, "http1.headers_too_large"),
        Malformed::ContentLength => (400, "http1.content_length_not_allowed"),
        Malformed::TransferEncoding => (400, "http1.invalid_transfer_encoding"),
        Malformed::TransferCoding => (501, "http1.invalid_transfer_encoding"),
        Malformed::TwoLengths => (400, "http1.content_length_and_chunked_not_allowed"),
        Malformed::Expect => (417, "http1.expectation_not_met"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failure: &Failure, status: u16, flags: &str, grpc: u32) {
        let told = failure.told();
        assert_eq!((told.status, told.flags.to_string().as_str()), (status, flags), "{failure:?}");
        assert_eq!(failure.grpc(told.status), grpc, "{failure:?}");
    }

    #[test]
    fn failures_are_told_as_envoy_tells_them() {
        check(&Failure::NoRoute, 404, "NR", 12);
        check(&Failure::NoCluster, 503, "NC", 14);
        check(&Failure::NoHealthyUpstream, 503, "UH", 14);
        check(&Failure::Overflow, 503, "UO", 14);
        check(&Failure::Connect { reason: None, exhausted: true }, 503, "UF,URX", 14);
        check(&Failure::Reset { exhausted: false }, 503, "UC", 14);
        check(&Failure::TimedOut { exhausted: false }, 504, "UT", 14);
        check(&Failure::Denied(None), 403, "-", 7);
        check(&Failure::Aborted(418), 418, "FI", 2);
        check(&Failure::AbortedGrpc(8), 200, "FI", 8);
        check(&Failure::BadRequest("x"), 400, "DPE", 13);
        check(&Refusal::Hosts.into(), 400, "DPE", 13);
        check(&Refusal::HeadTooLarge.into(), 431, "DPE", 2);
        check(&Refusal::Overload.into(), 503, "-", 14);
    }
}

//! May this outcome be tried again, and after which pause?
//!
//! Conditions are Envoy's words; a request whose body has left and is no longer held is never sent twice. The number of
//! tries, the budget of the cluster and the body decide, in that order.
//! Never here: timers, or sending. Called by the proxy after each try; the roll comes from the caller.

use std::time::Duration;

use crate::spec::Retry;

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No connection was made: nothing has left.
    ConnectFailed,
    /// The upstream refused the stream before it worked on it (HTTP/2 `REFUSED_STREAM`, or GOAWAY below its id).
    Refused,
    /// The connection or stream ended before the reply's head.
    Reset {
        /// Whether any byte of the request was sent.
        sent: bool,
    },
    /// No reply's head within the limit of one try.
    TimedOut,
    /// A reply.
    Status {
        /// HTTP status.
        status: u16,
        /// gRPC status, where the reply's head (or trailers-only reply) shows one.
        grpc: Option<u32>,
        /// Whether the reply carries `x-envoy-ratelimited`.
        rate_limited: bool,
    },
}

/// What is left of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There was none, or all that was sent is still held.
    Held,
    /// Some of it was sent and is gone.
    Gone,
}

/// Why a try is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Final {
    /// The outcome is none of the conditions.
    #[error("the outcome is not one to retry")]
    Outcome,
    /// All tries are used (flag `URX`).
    #[error("all tries are used")]
    Attempts,
    /// The body has left.
    #[error("the body has left")]
    Body,
    /// As many retries are under way as the cluster allows (flag `UO`).
    #[error("too many retries are under way")]
    Budget,
}

/// When to try again, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    conditions: u16,
    statuses: Box<[u16]>,
    attempts: u32,
    backoff: Duration,
    per_try_timeout: Option<Duration>,
    avoid_previous: bool,
}

const CONNECT_FAILURE: u16 = 1;
const REFUSED_STREAM: u16 = 1 << 1;
const RESET: u16 = 1 << 2;
const RESET_BEFORE_REQUEST: u16 = 1 << 3;
const FIVE_XX: u16 = 1 << 4;
const GATEWAY_ERROR: u16 = 1 << 5;
const RETRIABLE_4XX: u16 = 1 << 6;
const STATUS_CODES: u16 = 1 << 7;
const RATE_LIMITED: u16 = 1 << 8;
const CANCELLED: u16 = 1 << 9;
const DEADLINE_EXCEEDED: u16 = 1 << 10;
const INTERNAL: u16 = 1 << 11;
const RESOURCE_EXHAUSTED: u16 = 1 << 12;
const UNAVAILABLE: u16 = 1 << 13;

/// The bit of a condition in Envoy's words; none for words we do not know.
fn condition(word: &str) -> Option<u16> {
    Some(match word {
        "connect-failure" => CONNECT_FAILURE,
        "refused-stream" => REFUSED_STREAM,
        "reset" => RESET,
        "reset-before-request" => RESET_BEFORE_REQUEST,
        "5xx" => FIVE_XX,
        "gateway-error" => GATEWAY_ERROR,
        "retriable-4xx" => RETRIABLE_4XX,
        "retriable-status-codes" => STATUS_CODES,
        "envoy-ratelimited" => RATE_LIMITED,
        "cancelled" => CANCELLED,
        "deadline-exceeded" => DEADLINE_EXCEEDED,
        "internal" => INTERNAL,
        "resource-exhausted" => RESOURCE_EXHAUSTED,
        "unavailable" => UNAVAILABLE,
        _ => return None,
    })
}

/// Whether a word is a condition that we know.
pub fn knows(word: &str) -> bool {
    condition(word).is_some()
}

impl Plan {
    /// Compiles a policy; words that are no condition match nothing.
    pub fn compile(retry: &Retry) -> Self {
        let Retry { attempts, on, statuses, per_try_timeout, backoff, avoid_previous } = retry;
        Self {
            conditions: on.iter().filter_map(|word| condition(word)).fold(0, |all, one| all | one),
            statuses: statuses.as_slice().into(),
            attempts: *attempts,
            backoff: *backoff,
            per_try_timeout: *per_try_timeout,
            avoid_previous: *avoid_previous,
        }
    }

    /// Limit of one try.
    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.per_try_timeout
    }

    /// Tries after the first.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a try avoids endpoints that have failed this request.
    pub fn avoid_previous(&self) -> bool {
        self.avoid_previous
    }

    /// Whether an outcome is one of the conditions.
    pub fn wants(&self, outcome: Outcome) -> bool {
        let on = |conditions: u16| self.conditions & conditions != 0;
        match outcome {
            Outcome::ConnectFailed => on(CONNECT_FAILURE | FIVE_XX | GATEWAY_ERROR | RESET | RESET_BEFORE_REQUEST),
            Outcome::Refused => on(REFUSED_STREAM | FIVE_XX | RESET),
            Outcome::Reset { sent } => on(RESET | FIVE_XX) || (!sent && on(RESET_BEFORE_REQUEST)),
            Outcome::TimedOut => on(RESET | FIVE_XX | GATEWAY_ERROR),
            Outcome::Status { rate_limited: true, .. } => on(RATE_LIMITED),
            Outcome::Status { status, grpc, rate_limited: false } => {
                (on(FIVE_XX) && (500..600).contains(&status))
                    || (on(GATEWAY_ERROR) && (502..=504).contains(&status))
                    || (on(RETRIABLE_4XX) && status == 409)
                    || (on(STATUS_CODES) && self.statuses.contains(&status))
                    || match grpc {
                        Some(1) => on(CANCELLED),
                        Some(4) => on(DEADLINE_EXCEEDED),
                        Some(8) => on(RESOURCE_EXHAUSTED),
                        Some(13) => on(INTERNAL),
                        Some(14) => on(UNAVAILABLE),
                        _ => false,
                    }
            }
        }
    }

    /// Whether to try again after `tried` tries (the first among them), while the cluster has `under_way` retries of at
    /// most `budget`.
    ///
    /// # Errors
    /// Why not.
    pub fn again(&self, tried: u32, outcome: Outcome, body: Body, under_way: u32, budget: u32) -> Result<(), Final> {
        if !self.wants(outcome) {
            Err(Final::Outcome)
        } else if tried > self.attempts {
            Err(Final::Attempts)
        } else if body == Body::Gone {
            Err(Final::Body)
        } else if under_way >= budget {
            Err(Final::Budget)
        } else {
            Ok(())
        }
    }

    /// The pause before the next try, after `tried` tries: evenly spread between nothing and the first pause doubled
    /// each time, ten times the first at the most.
    pub fn pause(&self, tried: u32, roll: u64) -> Duration {
        let base = u64::try_from(self.backoff.as_micros()).unwrap_or(u64::MAX);
        let doubled = base.saturating_mul(1 << tried.saturating_sub(1).min(16));
        let most = doubled.min(base.saturating_mul(10));
        Duration::from_micros(most.checked_add(1).map_or(roll, |range| roll % range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISTIO: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

    fn plan(on: &str) -> Plan {
        Plan::compile(&Retry {
            attempts: 2,
            on: on.split(',').map(str::to_owned).collect(),
            statuses: vec![503],
            per_try_timeout: None,
            backoff: Duration::from_millis(25),
            avoid_previous: true,
        })
    }

    fn check(on: &str, outcome: Outcome, want: bool) {
        assert_eq!(plan(on).wants(outcome), want, "{on} {outcome:?}");
    }

    fn status(status: u16) -> Outcome {
        Outcome::Status { status, grpc: None, rate_limited: false }
    }

    fn grpc(code: u32) -> Outcome {
        Outcome::Status { status: 200, grpc: Some(code), rate_limited: false }
    }

    #[test]
    fn istios_default_retries_what_was_not_worked_on() {
        check(ISTIO, Outcome::ConnectFailed, true);
        check(ISTIO, Outcome::Refused, true);
        check(ISTIO, status(503), true);
        check(ISTIO, status(500), false);
        check(ISTIO, grpc(14), true);
        check(ISTIO, grpc(13), false);
        check(ISTIO, Outcome::Reset { sent: true }, false);
        check(ISTIO, Outcome::TimedOut, false);
    }

    #[test]
    fn five_hundreds_and_their_subset() {
        check("5xx", status(500), true);
        check("5xx", status(499), false);
        check("5xx", Outcome::Reset { sent: true }, true);
        check("5xx", Outcome::TimedOut, true);
        check("gateway-error", status(502), true);
        check("gateway-error", status(500), false);
    }

    #[test]
    fn a_reset_counts_by_what_was_sent() {
        check("reset-before-request", Outcome::Reset { sent: false }, true);
        check("reset-before-request", Outcome::Reset { sent: true }, false);
        check("reset", Outcome::Reset { sent: true }, true);
    }

    #[test]
    fn a_limited_caller_is_not_retried_as_an_error() {
        let limited = Outcome::Status { status: 503, grpc: None, rate_limited: true };
        check("5xx", limited, false);
        check("envoy-ratelimited", limited, true);
    }

    #[test]
    fn words_that_are_no_condition_match_nothing() {
        check("http3-post-connect-failure", status(503), false);
        assert!(!knows("http3-post-connect-failure"));
    }

    #[test]
    fn tries_body_and_budget_bound_retries() {
        let plan = plan(ISTIO);
        let held = |tried, under_way| plan.again(tried, status(503), Body::Held, under_way, 3);
        assert_eq!(held(1, 0), Ok(()));
        assert_eq!(held(2, 0), Ok(()));
        assert_eq!(held(3, 0), Err(Final::Attempts));
        assert_eq!(held(1, 3), Err(Final::Budget));
        assert_eq!(plan.again(1, status(200), Body::Held, 0, 3), Err(Final::Outcome));
    }

    #[test]
    fn sent_body_is_final() {
        assert_eq!(plan(ISTIO).again(1, status(503), Body::Gone, 0, 3), Err(Final::Body));
    }

    #[test]
    fn pauses_double_up_to_ten_times_the_first() {
        let plan = plan(ISTIO);
        assert_eq!(plan.pause(1, 25_000).as_millis(), 25);
        assert_eq!(plan.pause(1, 25_001).as_millis(), 0);
        assert_eq!(plan.pause(2, 50_000).as_millis(), 50);
        assert_eq!(plan.pause(9, 250_000).as_millis(), 250);
        assert_eq!(plan.pause(9, 250_001).as_millis(), 0);
        assert_eq!(plan.pause(40, 0), Duration::ZERO);
    }
}

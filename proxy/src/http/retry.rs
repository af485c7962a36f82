//! Sends the request, and again where policy and body allow it.
//!
//! Each try chooses its own endpoint. What never reached anyone (a dead pooled connection, an idempotent request on a
//! connection that broke before a reply) is sent again without counting: nobody could tell the difference.
//! Never here: one try (`attempt`), or whether an outcome is worth another (`api::retry`). Called by `http::handle`.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use api::{
    balance::Observed,
    retry::{Body, Final, Outcome, Plan},
};
use http::{Response, request::Parts};
use tokio::time::Instant;

use super::{
    Conn,
    attempt::{Clock, Sending, Tried},
    body::Upload,
    failure::Failure,
    formats::Formats,
    gate::Asked,
    headers::{self, GRPC_STATUS, NOT_DELIVERED, RATE_LIMITED},
    incoming::Incoming,
    reply::Answer,
    select::Way,
};
use crate::{
    access::Record,
    limits::STALE_TRIES_MAX,
    metrics::{Flags, Reporter},
    peers,
    table::{Cluster, cluster::Chosen},
    upstream::{connect::ConnectError, send::SendError},
};

/// Counts retries under way at a cluster.
struct Retrying<'c>(&'c Cluster);

impl<'c> Retrying<'c> {
    fn begin(cluster: &'c Cluster) -> Self {
        cluster.live.stats.retries.add(1);
        cluster.live.stats.retrying.up();
        Self(cluster)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.live.stats.retrying.down();
    }
}

/// The tries of a request so far.
#[derive(Default)]
struct Tries<'c> {
    /// As policy and `x-envoy-attempt-count` count them.
    counted: u32,
    /// Those that nobody could notice.
    free: u32,
    /// Endpoints that have failed it.
    failed: Vec<u64>,
    retrying: Option<Retrying<'c>>,
}

/// What follows from a try.
enum Next {
    Again(Duration),
    /// `exhausted`: it would be tried again, had it not been so often.
    Settled {
        exhausted: bool,
    },
}

/// Sends the request of `parts` and `upload` until there is an answer.
pub(super) async fn run(
    conn: &Rc<Conn>,
    way: &Way<'_>,
    asked: &Asked,
    parts: &mut Parts,
    upload: &Upload,
    record: &mut Record,
) -> Result<Answer, Failure> {
    let sending = sending(conn, way, asked, upload);
    let mut tries = Tries::default();
    loop {
        let chosen = tries.choose(&sending).ok_or(Failure::NoHealthyUpstream)?;
        note(&chosen, record);
        tries.counted += 1;
        let began = Instant::now();
        let mut tried = sending.once(&chosen, parts, tries.counted).await?;
        let outcome = outcome(&tried, sending.cluster, &chosen);
        observe(conn, sending.cluster, &chosen, outcome);
        if went_unnoticed(&mut tried, parts, asked) && upload.is_held() && tries.free < STALE_TRIES_MAX {
            tries.counted -= 1;
            tries.free += 1;
            continue;
        }
        match tries.next(&sending, &tried, outcome) {
            Next::Again(pause) => {
                tries.failed.push(chosen.endpoint.id);
                drop(tried);
                sending.clock.pause(pause).await?;
            }
            Next::Settled { exhausted } => {
                drop(tries);
                if matches!(tried, Tried::Replied(..)) {
                    record.service_time = Some(began.elapsed());
                }
                return settle(tried, exhausted, &sending, way, record);
            }
        }
    }
}

/// What the tries share.
fn sending<'s>(conn: &'s Rc<Conn>, way: &'s Way<'_>, asked: &'s Asked, upload: &'s Upload) -> Sending<'s> {
    let plan = way.forwarding.retry.as_ref();
    let copied = !way.forwarding.mirrors.is_empty();
    let timeout = way.forward.timeout.filter(|limit| !limit.is_zero());
    Sending {
        conn,
        cluster: way.cluster,
        asked,
        upload,
        plan,
        keeps_head: copied || plan.is_some_and(|plan| plan.attempts() > 0),
        clock: Clock { timeout, upload, started: Instant::now() },
    }
}

impl<'c> Tries<'c> {
    fn choose(&self, sending: &Sending<'_>) -> Option<Chosen> {
        let avoid = if sending.plan.is_none_or(Plan::avoid_previous) { self.failed.as_slice() } else { &[] };
        sending.cluster.choose(&sending.conn.worker, sending.conn.original, avoid)
    }

    /// Whether there is another try.
    fn next(&mut self, sending: &Sending<'c>, tried: &Tried, outcome: Outcome) -> Next {
        let mut settled = Next::Settled { exhausted: false };
        let Some(plan) = sending.plan else { return settled };
        if matches!(tried, Tried::RanOut) {
            return settled;
        }
        let body = if sending.upload.is_held() { Body::Held } else { Body::Gone };
        let stats = &sending.cluster.live.stats;
        let under_way = u32::try_from(stats.retrying.get()).unwrap_or(u32::MAX);
        match plan.again(self.counted, outcome, body, under_way, sending.cluster.spec.breakers.retries) {
            Ok(()) => {
                self.retrying.get_or_insert_with(|| Retrying::begin(sending.cluster));
                return Next::Again(plan.pause(self.counted, sending.conn.worker.roll()));
            }
            Err(Final::Attempts) => settled = Next::Settled { exhausted: plan.attempts() > 0 },
            Err(Final::Budget) => stats.retries_overflow.add(1),
            Err(Final::Outcome | Final::Body) => {}
        }
        settled
    }
}

/// Writes down where the request goes.
fn note(chosen: &Chosen, record: &mut Record) {
    record.upstream = chosen.endpoint.place.address();
    if record.reporter == Reporter::Source {
        record.destination = chosen.party;
    }
}

/// Whether nobody has worked on it, and asking again does no harm; then its head is whole again.
fn went_unnoticed(tried: &mut Tried, parts: &mut Parts, asked: &Asked) -> bool {
    let Tried::Failed(SendError::Reset { reused: true, fields, .. }) = tried else { return false };
    if let Some(fields) = fields.take().filter(|_| parts.headers.is_empty()) {
        parts.headers = *fields;
        parts.headers.remove(peers::METADATA_ID);
        parts.headers.remove(peers::METADATA);
    }
    asked.idempotent
}

/// What the last try comes to.
fn settle(
    tried: Tried,
    exhausted: bool,
    sending: &Sending<'_>,
    way: &Way<'_>,
    record: &mut Record,
) -> Result<Answer, Failure> {
    match tried {
        Tried::Replied(mut response, lease) => {
            if exhausted {
                record.flag(Flags::RETRIES_EXHAUSTED);
            }
            change(&mut response, way, record, &sending.conn.worker.formats);
            Ok(Answer::Upstream { response, lease, deadline: sending.clock.deadline() })
        }
        Tried::TimedOut | Tried::RanOut => {
            sending.cluster.live.stats.timeouts.add(1);
            Err(Failure::TimedOut { exhausted })
        }
        Tried::Failed(error) => Err(failure(&error, exhausted)),
    }
}

/// Applies the changes of headers that rule and target ask for.
fn change(response: &mut Response<Incoming>, way: &Way<'_>, record: &Record, formats: &Formats) {
    for edits in [&way.target.changes.response, &way.rule.changes.response] {
        if !edits.is_empty() {
            headers::apply(edits, response.headers_mut(), record, formats);
        }
    }
}

fn outcome(tried: &Tried, cluster: &Cluster, chosen: &Chosen) -> Outcome {
    match tried {
        Tried::TimedOut | Tried::RanOut => Outcome::TimedOut,
        Tried::Failed(SendError::Connect(_) | SendError::NoServerName | SendError::Overflow) => Outcome::ConnectFailed,
        Tried::Failed(SendError::Refused) => Outcome::Refused,
        Tried::Failed(SendError::Reset { .. } | SendError::Protocol(_) | SendError::Unwritable(_)) => {
            Outcome::Reset { sent: true }
        }
        Tried::Replied(response, _) => {
            let headers = response.headers();
            let secured = cluster.is_mesh() && matches!(cluster.tls(chosen.mtls), Ok(Some(_)));
            if secured && headers.contains_key(NOT_DELIVERED) {
                return Outcome::ConnectFailed;
            }
            let grpc = headers.get(GRPC_STATUS).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
            let rate_limited = headers.contains_key(RATE_LIMITED);
            Outcome::Status { status: response.status().as_u16(), grpc, rate_limited }
        }
    }
}

fn observe(conn: &Conn, cluster: &Cluster, chosen: &Chosen, outcome: Outcome) {
    let seen = match outcome {
        Outcome::Status { status, .. } => Observed::Status(status),
        Outcome::ConnectFailed | Outcome::Refused | Outcome::Reset { .. } | Outcome::TimedOut => {
            Observed::ConnectionError
        }
    };
    let now = conn.worker.shared.now_ms();
    if outcome == Outcome::ConnectFailed {
        chosen.endpoint.quarantine(now);
    }
    cluster.live.observe(&chosen.endpoint, seen, cluster.spec.outlier.as_ref(), now);
    tracing::trace!(endpoint = %chosen.endpoint.place, busy = chosen.endpoint.busy.load(Relaxed), ?outcome, "tried");
}

fn failure(error: &SendError, exhausted: bool) -> Failure {
    match error {
        SendError::Overflow => Failure::Overflow,
        SendError::Connect(ConnectError::TimedOut { .. } | ConnectError::Gone { .. }) => {
            Failure::Connect { reason: None, exhausted }
        }
        SendError::Connect(error) => Failure::Connect { reason: error.transport_failure(), exhausted },
        SendError::NoServerName => Failure::Connect { reason: Some("TLS_error:no_server_name".to_owned()), exhausted },
        SendError::Protocol(_) => Failure::Protocol { exhausted },
        SendError::Unwritable(_) => Failure::BadRequest("the request cannot be written"),
        SendError::Refused | SendError::Reset { .. } => Failure::Reset { exhausted },
    }
}

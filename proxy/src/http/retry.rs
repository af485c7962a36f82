//! Sends the request, and again where policy and body allow it.
//!
//! Each try chooses its own endpoint. What never reached anyone (a dead pooled connection, an idempotent request on a
//! connection that broke before a reply) is sent again without counting: nobody could tell the difference.
//! Never here: whether an outcome is worth another try (`api::retry`). Called by `http::handle`.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use api::{
    balance::Observed,
    retry::{Body, Final, Outcome, Plan},
    spec::UpstreamVersion,
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONNECTION, COOKIE, HOST, UPGRADE},
    request::Parts,
    uri::Scheme,
};
use tokio::time::Instant;

use super::{
    Conn,
    body::Upload,
    failure::Failure,
    gate::Asked,
    headers::{self, ATTEMPT_COUNT, GRPC_STATUS, NOT_DELIVERED, RATE_LIMITED},
    incoming::Incoming,
    reply::Answer,
    select::Way,
};
use crate::{
    access::Record,
    limits::STALE_TRIES_MAX,
    metrics::Flags,
    peers,
    table::{Cluster, cluster::Chosen},
    upstream::{
        connect::ConnectError,
        lease::Lease,
        send::{SendError, Target, send},
        tls::Carries,
    },
};

/// What came of one try.
#[expect(clippy::large_enum_variant, reason = "a reply is what nearly every try comes to")]
enum Tried {
    Replied(Response<Incoming>, Lease),
    Failed(SendError),
    /// No reply's head within the limit of one try, or of the whole exchange.
    TimedOut {
        whole: bool,
    },
}

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

/// Sends the request of `parts` and `upload` until there is an answer.
pub(super) async fn run(
    conn: &Rc<Conn>,
    way: &Way<'_>,
    asked: &Asked,
    parts: &mut Parts,
    upload: &Upload,
    record: &mut Record,
) -> Result<Answer, Failure> {
    let (Some(cluster), Some(forward)) = (way.cluster, way.forward) else { return Err(Failure::NoCluster) };
    let plan = way.forwarding.and_then(|forwarding| forwarding.retry.as_ref());
    let clock = Clock { timeout: forward.timeout.filter(|t| !t.is_zero()), upload, started: Instant::now() };
    // What may be asked for again, or copied afterwards, is kept; HTTP/1 gives back what got no reply.
    let keep = plan.is_some_and(|plan| plan.attempts() > 0)
        || way.forwarding.is_some_and(|forwarding| !forwarding.mirrors.is_empty());
    let mut tried: Vec<u64> = Vec::new();
    let (mut tries, mut free) = (0, 0);
    let mut retrying = None;
    loop {
        let avoid = if plan.is_none_or(Plan::avoid_previous) { tried.as_slice() } else { &[] };
        let chosen = cluster.choose(&conn.worker, conn.original, avoid).ok_or(Failure::NoHealthyUpstream)?;
        record.upstream = chosen.endpoint.place.address();
        record.destination = match record.reporter {
            crate::metrics::Reporter::Source => chosen.party,
            crate::metrics::Reporter::Destination => record.destination,
        };
        tries += 1;
        let began = Instant::now();
        let mut result = once(conn, cluster, &chosen, asked, parts, keep, upload, tries - free, plan, &clock).await?;
        let outcome = outcome(&result, cluster, &chosen);
        observe(conn, cluster, &chosen, outcome);
        // Nobody has worked on it, or asking again does no harm: not a retry that anyone could notice.
        let unnoticed = match &mut result {
            Tried::Failed(SendError::Reset { reused: true, fields, .. }) => {
                if let Some(fields) = fields.take().filter(|_| parts.headers.is_empty()) {
                    parts.headers = *fields;
                    parts.headers.remove(peers::METADATA_ID);
                    parts.headers.remove(peers::METADATA);
                }
                asked.idempotent
            }
            Tried::Replied(..) | Tried::Failed(_) | Tried::TimedOut { .. } => false,
        };
        if unnoticed && upload.is_held() && free < STALE_TRIES_MAX {
            free += 1;
            continue;
        }
        let mut exhausted = false;
        if let Some(plan) = plan
            && !matches!(result, Tried::TimedOut { whole: true })
        {
            let body = if upload.is_held() { Body::Held } else { Body::Gone };
            let stats = &cluster.live.stats;
            let under_way = u32::try_from(stats.retrying.get()).unwrap_or(u32::MAX);
            match plan.again(tries - free, outcome, body, under_way, cluster.spec.breakers.retries) {
                Ok(()) => {
                    tried.push(chosen.endpoint.id);
                    retrying = retrying.or_else(|| Some(Retrying::begin(cluster)));
                    drop(result);
                    pause(plan.pause(tries - free, conn.worker.roll()), &clock).await?;
                    continue;
                }
                Err(Final::Attempts) => exhausted = plan.attempts() > 0,
                Err(Final::Budget) => stats.retries_overflow.add(1),
                Err(Final::Outcome | Final::Body) => {}
            }
        }
        drop(retrying);
        return match result {
            Tried::Replied(mut response, lease) => {
                record.service_time = Some(began.elapsed());
                if exhausted {
                    record.flag(Flags::RETRIES_EXHAUSTED);
                }
                let own = way.target.map(|target| &target.changes.response);
                for edits in [own, Some(&way.rule.changes.response)].into_iter().flatten() {
                    if !edits.is_empty() {
                        headers::apply(edits, response.headers_mut(), record);
                    }
                }
                Ok(Answer::Upstream { response, lease, deadline: clock.deadline() })
            }
            Tried::TimedOut { .. } => {
                cluster.live.stats.timeouts.add(1);
                Err(Failure::TimedOut { exhausted })
            }
            Tried::Failed(error) => Err(failure(&error, exhausted)),
        };
    }
}

/// When the whole exchange must have ended.
#[derive(Clone, Copy)]
struct Clock<'u> {
    timeout: Option<Duration>,
    upload: &'u Upload,
    started: Instant,
}

impl Clock<'_> {
    /// The time counts from the request's last byte.
    fn deadline(&self) -> Option<Instant> {
        let from = if self.upload.is_empty() { self.started } else { self.upload.ended()? };
        Some(from + self.timeout?)
    }

    /// Waits for the end of the time; for ever where there is none.
    async fn run_out(&self) {
        let Some(timeout) = self.timeout else { return std::future::pending().await };
        loop {
            match self.deadline() {
                Some(at) => return tokio::time::sleep_until(at).await,
                None => tokio::time::sleep(timeout).await,
            }
        }
    }
}

async fn pause(length: Duration, clock: &Clock<'_>) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(length) => Ok(()),
        () = clock.run_out() => Err(Failure::TimedOut { exhausted: false }),
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place where everything about a try meets")]
async fn once(
    conn: &Rc<Conn>,
    cluster: &Cluster,
    chosen: &Chosen,
    asked: &Asked,
    parts: &mut Parts,
    keep: bool,
    upload: &Upload,
    attempt: u32,
    plan: Option<&Plan>,
    clock: &Clock<'_>,
) -> Result<Tried, Failure> {
    let tls = cluster.tls(chosen.mtls).map_err(|_| Failure::Connect {
        reason: Some("TLS_error:the_cluster's_TLS_cannot_be_set_up".to_owned()),
        exhausted: false,
    })?;
    let http2 = asked.upgrade.is_none()
        && match cluster.spec.http.version {
            UpstreamVersion::Http1 => false,
            UpstreamVersion::Http2 => true,
            UpstreamVersion::Downstream => asked.version == Version::HTTP_2,
        };
    let host = parts.headers.get(HOST).cloned();
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let target = Target {
        cluster,
        options: cluster.options(&conn.downstream),
        endpoint: &chosen.endpoint,
        // What changes its protocol needs a connection of its own.
        carries: cluster.carries(tls, http2, asked.upgrade.is_some() || parts.method == Method::CONNECT),
        tls,
        host: name,
    };
    let mesh = tls.is_some() && cluster.is_mesh();
    let keep = keep || (asked.idempotent && target.carries != Carries::Http1);
    let headers = std::mem::take(&mut parts.headers);
    if keep {
        // The copy is what stays: the original has room for what is added.
        parts.headers = headers.clone();
    }
    let head = build(conn, asked, parts, headers, http2, mesh, attempt)?;
    let request = Request::from_parts(head, upload.read());
    let sending = async {
        match send(&conn.worker, &target, request, Some(upload)).await {
            Ok((response, lease)) => Ok(Tried::Replied(response, lease)),
            Err(error @ SendError::Unwritable(_)) => Err(failure(&error, false)),
            // The client's doing is no sign of the endpoint, and trying again would not mend it.
            Err(error) => upload.fault().map_or(Ok(Tried::Failed(error)), |fault| Err(fault.into())),
        }
    };
    let per_try = plan.and_then(Plan::per_try_timeout).filter(|t| !t.is_zero());
    if per_try.is_none() && clock.timeout.is_none() {
        return sending.await;
    }
    let patience = async {
        match per_try {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        tried = sending => tried,
        () = clock.run_out() => Ok(Tried::TimedOut { whole: true }),
        () = patience => Ok(Tried::TimedOut { whole: false }),
    }
}

/// The request's head as it goes to one endpoint, made of these fields.
fn build(
    conn: &Conn,
    asked: &Asked,
    parts: &Parts,
    mut headers: HeaderMap,
    http2: bool,
    mesh: bool,
    attempt: u32,
) -> Result<Parts, Failure> {
    let bad = |_| Failure::BadRequest("the request cannot be written");
    let path = parts.uri.path_and_query().cloned();
    let (uri, version) = if http2 {
        let host = headers.remove(HOST);
        let authority = host.as_ref().map_or("", |host| host.to_str().unwrap_or_default());
        let authority = conn.host.authority(authority);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(if mesh { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(authority.ok_or(Failure::BadRequest("the host cannot be sent"))?);
        uri.path_and_query = Some(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")));
        (Uri::from_parts(uri).map_err(bad)?, Version::HTTP_2)
    } else {
        if asked.version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        if let Some(protocol) = &asked.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = path;
        let old = asked.version == Version::HTTP_10;
        (Uri::from_parts(uri).map_err(bad)?, if old { Version::HTTP_10 } else { Version::HTTP_11 })
    };
    headers.insert(ATTEMPT_COUNT, headers::number(attempt.into()));
    if mesh {
        let own = &conn.worker.shared.own;
        headers.insert(peers::METADATA_ID, own.metadata_id.clone());
        headers.insert(peers::METADATA, own.metadata.clone());
    }
    let mut head = Request::new(()).into_parts().0;
    (head.method, head.uri, head.version, head.headers) = (parts.method.clone(), uri, version, headers);
    Ok(head)
}

/// HTTP/2 may split cookies; HTTP/1 has one line (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn outcome(tried: &Tried, cluster: &Cluster, chosen: &Chosen) -> Outcome {
    match tried {
        Tried::TimedOut { .. } => Outcome::TimedOut,
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

//! Which rule takes the request, which cluster it goes to, and what its path becomes.
//!
//! Redirects and direct replies are answered here; what is sent on leaves with everything that the next steps need.
//! Never here: the choice itself (`api::route`). Called by `http::handle`.

use std::sync::Arc;

use api::{
    head::Head,
    route,
    spec::{Action, Forward},
    table::{Forwarding, Rule, Target},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE, header::LOCATION, uri::PathAndQuery};

use super::{Conn, View, failure::Failure, headers, reply::Answer};
use crate::{access::Record, metrics::Flags, table::Cluster};

/// What the rules make of a request.
#[derive(Debug)]
pub(crate) enum Choice<'v> {
    /// It is answered here.
    Answer(Answer),
    /// It is sent on.
    Way(Way<'v>),
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Way<'v> {
    pub(crate) rule: &'v Rule,
    pub(crate) forward: &'v Forward,
    pub(crate) forwarding: &'v Forwarding,
    pub(crate) target: &'v Target,
    pub(crate) cluster: &'v Arc<Cluster>,
    /// The new path with query, where it is another.
    pub(crate) path: Option<PathAndQuery>,
    /// The authority to send, where it is another.
    pub(crate) authority: Option<HeaderValue>,
    pub(crate) rewritten: bool,
}

impl Way<'_> {
    /// How much of the body is kept: only where it may be needed again.
    pub(crate) fn keep_bytes(&self) -> usize {
        let again = self.forwarding.retry.is_some() || !self.forwarding.mirrors.is_empty();
        if again { usize::try_from(self.forward.retry_buffer_bytes).unwrap_or(usize::MAX) } else { 0 }
    }
}

/// Finds the way of a request.
pub(super) fn way<'v>(
    view: &'v View,
    conn: &Conn,
    head: &Head<'_>,
    record: &mut Record,
) -> Result<Choice<'v>, Failure> {
    let rule = view.chain.routes().and_then(|routes| route::select(routes, head, &mut ())).ok_or(Failure::NoRoute)?;
    if record.log.is_some() {
        record.route = Some(rule.name());
    }
    match &rule.spec().action {
        Action::Redirect(redirect) => {
            let location = route::location(rule, redirect, head);
            let location = HeaderValue::from_str(&location)
                .map_err(|_| Failure::BadRequest("the redirect's target cannot be written"))?;
            let headers = HeaderMap::from_iter([(LOCATION, location)]);
            Ok(Choice::Answer(own(conn, rule, redirect.status, (headers, Bytes::new()), record)?))
        }
        Action::Reply { status, body } => {
            let plain = (!body.is_empty()).then_some((CONTENT_TYPE, HeaderValue::from_static("text/plain")));
            let headers = HeaderMap::from_iter(plain);
            let body = Bytes::copy_from_slice(body.as_bytes());
            Ok(Choice::Answer(own(conn, rule, *status, (headers, body), record)?))
        }
        Action::Forward(forward) => Ok(Choice::Way(onward(view, conn, head, rule, forward, record)?)),
    }
}

/// The way of a request that this rule sends on.
fn onward<'v>(
    view: &'v View,
    conn: &Conn,
    head: &Head<'_>,
    rule: &'v Rule,
    forward: &'v Forward,
    record: &mut Record,
) -> Result<Way<'v>, Failure> {
    let forwarding = rule.forward.as_ref().ok_or(Failure::NoRoute)?;
    let target = forwarding.targets.pick(conn.worker.roll()).ok_or(Failure::NoCluster)?;
    let Some(cluster) = target.cluster.and_then(|id| view.tables.cluster(id)) else {
        record.cluster = Some(target.name.as_ref().into());
        return Err(Failure::NoCluster);
    };
    record.cluster = Some(Arc::clone(&cluster.name));
    record.service = cluster.service;
    let path = route::path(rule, head);
    let rewritten = path != head.path();
    let path = (rewritten || head.path() != head.raw_path()).then(|| joined(&path, head.query())).transpose()?;
    let authority = authority(forward, head)?;
    Ok(Way { rule, forward, forwarding, target, cluster, path, authority, rewritten })
}

/// An answer that the rule itself gives.
fn own(
    conn: &Conn,
    rule: &Rule,
    status: u16,
    (mut headers, body): (HeaderMap, Bytes),
    record: &mut Record,
) -> Result<Answer, Failure> {
    let status = StatusCode::from_u16(status).map_err(|_| Failure::NoRoute)?;
    headers::apply(&rule.changes.response, &mut headers, record, &conn.worker.formats);
    record.details = "direct_response";
    record.flag(Flags::NONE);
    Ok(Answer::Own { status, headers, body })
}

fn joined(path: &str, query: Option<&str>) -> Result<PathAndQuery, Failure> {
    let text = match query {
        Some(query) if !path.contains('?') => [path, "?", query].concat(),
        Some(_) | None => path.to_owned(),
    };
    PathAndQuery::try_from(text).map_err(|_| Failure::BadRequest("the rewritten path cannot be sent"))
}

/// The authority to send: what the route says, else the canonical one where it differs from what came.
fn authority(forward: &Forward, head: &Head<'_>) -> Result<Option<HeaderValue>, Failure> {
    let text = match &forward.authority {
        Some(authority) => authority.as_str(),
        None => {
            let came = head.headers().get(http::header::HOST);
            if came.is_some_and(|came| came.as_bytes() == head.authority().as_bytes()) {
                return Ok(None);
            }
            head.authority()
        }
    };
    HeaderValue::from_str(text).map(Some).map_err(|_| Failure::BadRequest("the host cannot be sent"))
}

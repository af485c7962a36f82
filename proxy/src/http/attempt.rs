//! One try: the request as it goes to one endpoint, and what comes of it within its time.
//!
//! Never here: whether there is another try (`retry`), connections (`upstream`). Called by `retry`; copies of requests
//! (`mirror`) go the same way.

use std::{rc::Rc, sync::Arc, time::Duration};

use api::retry::Plan;
use http::{
    HeaderMap, HeaderValue, Request, Response, Uri, Version,
    header::{CONNECTION, COOKIE, HOST, UPGRADE},
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use tokio::time::Instant;

use super::{
    Conn,
    body::{Outgoing, Upload},
    failure::Failure,
    gate::Asked,
    headers::{self, ATTEMPT_COUNT},
    incoming::Incoming,
};
use crate::{
    peers,
    table::{
        Cluster,
        cluster::{Chosen, Needs},
    },
    upstream::{
        lease::Lease,
        send::{SendError, Target, send},
        tls::{Carries, Tls},
    },
};

/// What came of one try.
#[expect(clippy::large_enum_variant, reason = "a reply is what nearly every try comes to")]
pub(super) enum Tried {
    Replied(Response<Incoming>, Lease),
    Failed(SendError),
    /// No reply's head within the limit of this try.
    TimedOut,
    /// The same within the limit of the whole exchange.
    RanOut,
}

/// What all tries of a request have in common.
pub(super) struct Sending<'s> {
    pub(super) conn: &'s Rc<Conn>,
    pub(super) cluster: &'s Cluster,
    pub(super) asked: &'s Asked,
    pub(super) upload: &'s Upload,
    pub(super) plan: Option<&'s Plan>,
    /// Whether the head may be needed again, whatever comes of a try.
    pub(super) keeps_head: bool,
    pub(super) clock: Clock<'s>,
}

impl Sending<'_> {
    /// Sends the request to an endpoint.
    pub(super) async fn once(&self, chosen: &Chosen, parts: &mut Parts, attempt: u32) -> Result<Tried, Failure> {
        // What changes its protocol needs a connection of its own.
        let needs = match self.asked.upgrade {
            Some(_) => Needs::Alone,
            None => Needs::of(self.cluster, parts.version),
        };
        let hop = Hop::to(self.cluster, chosen, needs)?;
        let host = parts.headers.get(HOST).cloned();
        let target = hop.target(self.conn, host.as_ref());
        let mut headers = std::mem::take(&mut parts.headers);
        // HTTP/1 gives back what got no reply.
        if self.keeps_head || (self.asked.idempotent && target.carries != Carries::Http1) {
            // The copy is what stays: the original has room for what is added.
            parts.headers = headers.clone();
        }
        headers.insert(ATTEMPT_COUNT, headers::number(attempt.into()));
        if let Some(protocol) = &self.asked.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        let head = hop.head(self.conn, parts, headers)?;
        self.within_its_time(&target, Request::from_parts(head, self.upload.read())).await
    }

    async fn within_its_time(&self, target: &Target<'_>, request: Request<Outgoing>) -> Result<Tried, Failure> {
        let sending = async {
            match send(&self.conn.worker, target, request, Some(self.upload)).await {
                Ok((response, lease)) => Ok(Tried::Replied(response, lease)),
                Err(SendError::Unwritable(_)) => Err(Failure::BadRequest("the request cannot be written")),
                // The client's doing is no sign of the endpoint, and trying again would not mend it.
                Err(error) => self.upload.fault().map_or(Ok(Tried::Failed(error)), |fault| Err(fault.into())),
            }
        };
        let per_try = self.plan.and_then(Plan::per_try_timeout).filter(|limit| !limit.is_zero());
        if per_try.is_none() && self.clock.timeout.is_none() {
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
            () = self.clock.run_out() => Ok(Tried::RanOut),
            () = patience => Ok(Tried::TimedOut),
        }
    }
}

/// When the whole exchange must have ended.
pub(super) struct Clock<'u> {
    pub(super) timeout: Option<Duration>,
    pub(super) upload: &'u Upload,
    pub(super) started: Instant,
}

impl Clock<'_> {
    /// The time counts from the request's last byte.
    pub(super) fn deadline(&self) -> Option<Instant> {
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

    /// A pause between tries.
    pub(super) async fn pause(&self, length: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = self.run_out() => Err(Failure::TimedOut { exhausted: false }),
        }
    }
}

/// The way of a request to one endpoint.
pub(super) struct Hop<'t> {
    cluster: &'t Cluster,
    chosen: &'t Chosen,
    needs: Needs,
    tls: Option<&'t Arc<Tls>>,
}

impl<'t> Hop<'t> {
    /// The way to a chosen endpoint.
    pub(super) fn to(cluster: &'t Cluster, chosen: &'t Chosen, needs: Needs) -> Result<Self, Failure> {
        let tls = cluster.tls(chosen.mtls).map_err(|_| Failure::Connect {
            reason: Some("TLS_error:the_cluster's_TLS_cannot_be_set_up".to_owned()),
            exhausted: false,
        })?;
        Ok(Self { cluster, chosen, needs, tls })
    }

    /// Whether another proxy of the mesh takes it.
    fn is_mesh(&self) -> bool {
        self.tls.is_some() && self.cluster.is_mesh()
    }

    /// Where the connection must lead; the host is what TLS may ask for.
    pub(super) fn target(&self, conn: &Conn, host: Option<&'t HeaderValue>) -> Target<'t> {
        Target {
            cluster: self.cluster,
            options: self.cluster.options(&conn.downstream),
            endpoint: &self.chosen.endpoint,
            carries: self.cluster.carries(self.tls, self.needs),
            tls: self.tls,
            host: host.and_then(|host| host.to_str().ok()).map(without_port).unwrap_or_default(),
        }
    }

    /// The request's head as it goes there: what `parts` asks for, with these fields.
    pub(super) fn head(&self, conn: &Conn, parts: &Parts, mut headers: HeaderMap) -> Result<Parts, Failure> {
        let bad = |_| Failure::BadRequest("the request cannot be written");
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = parts.uri.path_and_query().cloned();
        let version = match self.needs {
            Needs::Http2 => {
                let host = headers.remove(HOST);
                let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
                let authority = conn.host.authority(host).ok_or(Failure::BadRequest("the host cannot be sent"))?;
                uri.scheme = Some(if self.is_mesh() { Scheme::HTTPS } else { Scheme::HTTP });
                uri.authority = Some(authority);
                uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
                Version::HTTP_2
            }
            Needs::Http1 | Needs::Alone if parts.version == Version::HTTP_2 => {
                join_cookies(&mut headers);
                Version::HTTP_11
            }
            Needs::Http1 | Needs::Alone => parts.version,
        };
        if self.is_mesh() {
            let own = &conn.worker.shared.own;
            headers.insert(peers::METADATA_ID, own.metadata_id.clone());
            headers.insert(peers::METADATA, own.metadata.clone());
        }
        let mut head = Request::new(()).into_parts().0;
        (head.method, head.version, head.headers) = (parts.method.clone(), version, headers);
        head.uri = Uri::from_parts(uri).map_err(bad)?;
        Ok(head)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_name() {
        for (host, name) in [
            ("a", "a"),
            ("a:80", "a"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn split_cookies_become_one_line() {
        let mut headers = HeaderMap::new();
        for part in ["a=1", "b=2", "c=3; d=4"] {
            headers.append(COOKIE, HeaderValue::from_static(part));
        }
        join_cookies(&mut headers);
        let lines: Vec<&HeaderValue> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3; d=4"]);
    }
}

//! Sends one request to one endpoint: over a pooled connection, or a new one within the cluster's limits.
//!
//! A pooled connection that turns out to be dead before anything was written costs nothing: the next one is taken.
//! Never here: trying another endpoint. Called by `http::attempt` and `mirror`.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ::h2::{Reason, client::SendRequest};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::{
    connect::{ConnectError, Options},
    http2::Stream,
    lease::{Busy, Carrier, Lease},
    live::LiveEndpoint,
    open::open,
    pool::{Connection, Host, Http1, Key, Wear},
    tls::{Carries, Tls},
};
use crate::{
    http::{
        body::{Outgoing, Upload},
        h1::{
            client::{ClientError, Failed, exchange},
            spelling::Spelling,
            write::Unwritable,
        },
        h2,
        incoming::Incoming,
        ride,
    },
    limits::STALE_TRIES_MAX,
    table::Cluster,
    worker::Worker,
};

/// Where one try goes.
#[derive(Debug)]
pub(crate) struct Target<'t> {
    pub(crate) cluster: &'t Cluster,
    pub(crate) options: Options,
    pub(crate) endpoint: &'t Arc<LiveEndpoint>,
    pub(crate) carries: Carries,
    pub(crate) tls: Option<&'t Arc<Tls>>,
    /// The request's host, for the server name where the cluster names none.
    pub(crate) host: &'t str,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The cluster has as many requests or connections as it may.
    #[error("the cluster is at its limit")]
    Overflow,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// TLS needs a name, and the request's host is none.
    #[error("the host is no name that TLS can ask for")]
    NoServerName,
    /// The upstream refused the stream before it worked on it.
    #[error("the upstream refused the request")]
    Refused,
    /// The connection broke before the reply's head.
    #[error("the upstream ended the connection: {source}")]
    Reset {
        /// Whether the connection had carried a request before.
        reused: bool,
        /// What broke.
        source: Broken,
        /// The request's fields, which HTTP/1 gives back.
        fields: Option<Box<HeaderMap>>,
    },
    /// What the upstream sent is no reply.
    #[error("{0}")]
    Protocol(ClientError),
    /// The request cannot be written so that every reader reads the same.
    #[error(transparent)]
    Unwritable(Unwritable),
}

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Http1(ClientError),
    #[error(transparent)]
    Http2(::h2::Error),
    #[error("no settings of HTTP/2 came")]
    Untold,
}

impl SendError {
    fn of_http1(error: ClientError, reused: bool, fields: HeaderMap) -> Self {
        match error {
            ClientError::Malformed(_) | ClientError::Interim => Self::Protocol(error),
            ClientError::Unwritable(error) => Self::Unwritable(error),
            ClientError::Upload(_) | ClientError::Length | ClientError::Broken(_) | ClientError::Closed => {
                Self::Reset { reused, source: Broken::Http1(error), fields: Some(Box::new(fields)) }
            }
        }
    }
}

/// A request that got no reply from a connection.
struct Missed {
    error: SendError,
    /// The request, where nothing of it was sent and another connection may have it.
    unsent: Option<Request<Outgoing>>,
}

/// Sends a request. `from` is its body as it comes, where it comes from a client.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    target: &Target<'_>,
    mut request: Request<Outgoing>,
    from: Option<&Upload>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let spec = &target.cluster.spec;
    let busy = Busy::begin(&target.cluster.live, target.endpoint, spec.breakers.requests).ok_or(SendError::Overflow)?;
    let server_name = target.tls.filter(|tls| tls.name_from_host()).map(|_| Rc::from(target.host));
    let key = Key {
        endpoint: target.endpoint.id,
        tls: target.tls.map_or(0, |tls| tls.id),
        carries: target.carries,
        server_name,
        header: target.options.header,
    };
    let wear = Wear {
        idle_timeout: spec.http.idle_timeout,
        uses_max: spec.http.max_requests_per_connection,
        streams_max: spec.http.max_concurrent_streams,
    };
    let host = worker.pools.host(&key, target.endpoint, target.tls, wear);
    let mut stale = 0;
    loop {
        let (connection, reused) = match host.find() {
            Some(connection) => (connection, true),
            None => open(worker, target, &host).await?,
        };
        let sent = match connection {
            Connection::Http1(connection) => over_http1(&host, connection, request, from, reused).await,
            Connection::Http2(stream, sender) => {
                if target.carries == Carries::Ridden {
                    mount(&mut request, from);
                }
                over_http2(stream, sender, request, reused, target.carries).await
            }
        };
        match sent {
            Ok((response, carrier, local)) => return Ok((response, Lease::new(carrier, local, busy))),
            Err(Missed { unsent: Some(unsent), .. }) if stale < STALE_TRIES_MAX => {
                stale += 1;
                request = unsent;
                // The next connection may be of HTTP/1.
                ride::strip(request.headers_mut());
            }
            Err(missed) => return Err(missed.error),
        }
    }
}

fn mount(request: &mut Request<Outgoing>, from: Option<&Upload>) {
    match from {
        Some(upload) => upload.with_spelling(|spelling| ride::mount(request, spelling)),
        None => ride::mount(request, &Spelling::default()),
    }
}

type Sent = Result<(Response<Incoming>, Carrier, Option<SocketAddr>), Missed>;

async fn over_http1(
    host: &Rc<Host>,
    mut connection: Http1,
    request: Request<Outgoing>,
    from: Option<&Upload>,
    reused: bool,
) -> Sent {
    connection.used += 1;
    match exchange(&connection.wire, request, from).await {
        Ok(response) => {
            let local = connection.local;
            Ok((response, Carrier::Http1(Rc::clone(host), connection), local))
        }
        Err(Failed { error, head, unsent }) => {
            let again = unsent.filter(|_| matches!(error, ClientError::Broken(_)));
            let error = SendError::of_http1(error, reused, head.headers.clone());
            Err(Missed { error, unsent: again.map(|body| Request::from_parts(head, body)) })
        }
    }
}

async fn over_http2(
    stream: Stream,
    sender: SendRequest<Bytes>,
    request: Request<Outgoing>,
    reused: bool,
    carries: Carries,
) -> Sent {
    match h2::client::exchange(sender, request).await {
        Ok(mut response) => {
            let ridden = carries == Carries::Ridden;
            let spelling = if ridden { ride::take_names(response.headers_mut()) } else { Spelling::default() };
            let response = response.map(|body| Incoming::reply(body, spelling));
            let local = stream.local();
            Ok((response, Carrier::Http2(stream), local))
        }
        Err(source) => {
            let error = if was_refused(&source) {
                SendError::Refused
            } else {
                // A stream that the peer reset was worked on: only a broken connection is nobody's reply.
                let reused = reused && !source.is_reset();
                SendError::Reset { reused, source: Broken::Http2(source), fields: None }
            };
            Err(Missed { error, unsent: None })
        }
    }
}

/// Whether the peer said that it did not work on the stream.
fn was_refused(error: &::h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR))
}

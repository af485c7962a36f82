//! Copies of requests, sent and forgotten.
//!
//! A request without body is copied at once; one with a body when all of it has come and is held, so that the copy never
//! slows the original. A body that was too large to hold is not copied.
//! Never here: which share is copied (`Percent::hits`). Called by `http::handle`.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, Version, header::HOST, request::Parts, uri::Scheme};
use http_body_util::BodyExt;

use super::{
    Conn, View,
    body::{Outgoing, Upload},
    select::Way,
};
use crate::{
    table::Cluster,
    upstream::send::{Target, send},
};

/// Copies a request without body.
pub(super) fn at_once(conn: &Rc<Conn>, view: &View, way: &Way<'_>, parts: &Parts, upload: &Upload) {
    if upload.is_empty() {
        copy(conn, view, way, parts, || Some(Bytes::new()));
    }
}

/// Copies a request whose body has come by now.
pub(super) fn afterwards(conn: &Rc<Conn>, view: &View, way: &Way<'_>, parts: &Parts, upload: &Upload) {
    if !upload.is_empty() {
        copy(conn, view, way, parts, || upload.whole());
    }
}

fn copy(conn: &Rc<Conn>, view: &View, way: &Way<'_>, parts: &Parts, body: impl Fn() -> Option<Bytes>) {
    let Some(forwarding) = way.forwarding else { return };
    for (cluster, share) in &forwarding.mirrors {
        if !share.hits(conn.worker.roll()) {
            continue;
        }
        let Some(cluster) = cluster.and_then(|id| view.tables.cluster(id)) else { continue };
        let Some(body) = body() else {
            tracing::debug!(cluster = %cluster.name, "request not mirrored: its body was not held");
            continue;
        };
        let (conn, cluster) = (Rc::clone(conn), Arc::clone(cluster));
        let (method, headers, uri) = (parts.method.clone(), parts.headers.clone(), parts.uri.clone());
        let worker = Rc::clone(&conn.worker);
        worker.spawn(async move {
            let mut request = Request::new(Outgoing::Whole(Some(body)));
            *request.method_mut() = method;
            *request.headers_mut() = headers;
            *request.uri_mut() = uri;
            if let Err(reason) = deliver(&conn, &cluster, request).await {
                tracing::debug!(cluster = %cluster.name, reason, "mirrored request failed");
            }
        });
    }
}

async fn deliver(conn: &Conn, cluster: &Cluster, mut request: Request<Outgoing>) -> Result<(), &'static str> {
    let chosen = cluster.choose(&conn.worker, conn.original, &[]).ok_or("no endpoint")?;
    let tls = cluster.tls(chosen.mtls).map_err(|_| "no TLS")?;
    let http2 = cluster.spec.http.version == api::spec::UpstreamVersion::Http2;
    let host = request.headers().get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    let host = host.to_str().map_err(|_| "the host is no text")?;
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = request.uri().path_and_query().cloned();
    if http2 {
        uri.scheme = Some(if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(host.parse().map_err(|_| "the host cannot be sent")?);
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| "the path cannot be sent")?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let target = Target {
        cluster,
        options: cluster.options(&conn.downstream),
        endpoint: &chosen.endpoint,
        carries: cluster.carries(tls, http2, false),
        tls,
        host: name,
    };
    let (response, lease) = send(&conn.worker, &target, request, None).await.map_err(|_| "not sent")?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|_| "the reply ended early")?;
    }
    lease.give_back();
    Ok(())
}

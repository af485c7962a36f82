//! Copies of requests, sent and forgotten, within limits of number and time.
//!
//! A request without body is copied at once; one with a body when all of it has come and is held, so that the copy never
//! slows the original. A body that was too large to hold is not copied.
//! Never here: which share is copied (`Percent::hits`). Called by `http::handle`.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{Request, header::HOST, request::Parts};
use http_body_util::BodyExt;

use super::{
    Conn, View,
    attempt::Hop,
    body::{Outgoing, Upload},
    failure::Failure,
    incoming::IncomingError,
    select::Way,
};
use crate::{
    limits::{MIRROR_TIMEOUT, MIRRORS_MAX},
    table::{Cluster, cluster::Needs},
    upstream::send::{SendError, send},
    worker::Worker,
};

/// Why nobody has the copy, or its reply was not read to the end; nobody waits for either.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("no endpoint may take it")]
    NoEndpoint,
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    NotSent(#[from] SendError),
    #[error("the reply ended early: {0}")]
    Cut(#[from] IncomingError),
    #[error("it took longer than its limit")]
    Late,
}

/// Counts a copy for as long as it is under way.
struct Slot(Rc<Worker>);

impl Slot {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let under_way = worker.mirrors.get();
        (under_way < MIRRORS_MAX).then(|| {
            worker.mirrors.set(under_way + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

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
    for (cluster, share) in &way.forwarding.mirrors {
        if !share.hits(conn.worker.roll()) {
            continue;
        }
        let Some(cluster) = cluster.and_then(|id| view.tables.cluster(id)) else { continue };
        let Some(body) = body() else {
            tracing::debug!(cluster = %cluster.name, "request not mirrored: its body was not held");
            continue;
        };
        let Some(slot) = Slot::take(&conn.worker) else {
            cluster.live.stats.overflow.add(1);
            tracing::debug!(cluster = %cluster.name, "request not mirrored: too many copies are under way");
            continue;
        };
        let (conn, cluster, parts) = (Rc::clone(conn), Arc::clone(cluster), parts.clone());
        let worker = Rc::clone(&conn.worker);
        worker.spawn(async move {
            let delivering = tokio::time::timeout(MIRROR_TIMEOUT, deliver(&conn, &cluster, parts, body));
            if let Err(error) = delivering.await.unwrap_or(Err(Undelivered::Late)) {
                tracing::debug!(cluster = %cluster.name, %error, "mirrored request failed");
            }
            drop(slot);
        });
    }
}

async fn deliver(conn: &Conn, cluster: &Cluster, mut parts: Parts, body: Bytes) -> Result<(), Undelivered> {
    let chosen = cluster.choose(&conn.worker, conn.original, &[]).ok_or(Undelivered::NoEndpoint)?;
    let hop = Hop::to(cluster, &chosen, Needs::of(cluster, parts.version))?;
    let host = parts.headers.get(HOST).cloned();
    let headers = std::mem::take(&mut parts.headers);
    let request = Request::from_parts(hop.head(conn, &parts, headers)?, Outgoing::Whole(Some(body)));
    let (response, lease) = send(&conn.worker, &hop.target(conn, host.as_ref()), request, None).await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    lease.give_back();
    Ok(())
}

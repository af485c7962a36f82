//! Changes of protocol (WebSocket and the like): after both sides agree, bytes pass in both directions.
//!
//! Never here: agreeing, which is between client and upstream. Called by `retry` on a 101.

use std::rc::Rc;

use http::{Response, StatusCode};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::{limits::TCP_BUFFER_BYTES, worker::Worker};

/// Joins both connections once both have changed.
pub(super) fn join(worker: &Rc<Worker>, client: Option<OnUpgrade>, response: &mut Response<Incoming>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let Some(client) = client else { return };
    let upstream = hyper::upgrade::on(response);
    worker.spawn(async move {
        let joined = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let size = TCP_BUFFER_BYTES;
            let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size).await;
            if let Err(error) = copied {
                tracing::debug!(%error, "an upgraded connection ended early");
            }
            Ok::<_, hyper::Error>(())
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "an upgrade did not come about");
        }
    });
}

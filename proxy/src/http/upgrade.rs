//! Changes of protocol (WebSocket and the like): after both sides agree, bytes pass in both directions.
//!
//! Never here: agreeing, which is between client and upstream. Called by the codec after a 101.

use super::h1::tunnel::Tunnel;
use crate::limits::TCP_BUFFER_BYTES;

/// Joins both connections until both have ended; how many bytes came from the client and went to it.
pub(super) async fn join(mut client: Tunnel, mut upstream: Tunnel) -> (u64, u64) {
    let size = TCP_BUFFER_BYTES;
    if let Err(error) = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size).await {
        tracing::debug!(%error, "an upgraded connection ended early");
    }
    // What came, however it ended.
    (client.came(), upstream.came())
}

//! Changes of protocol (WebSocket and the like): after both sides agree, bytes pass in both directions.
//!
//! They end as other bytes do: with both sides' last, with a reset where one side breaks, or when nothing has passed for as
//! long as the listener lets a connection be idle. What has passed counts however it ended.
//! Never here: agreeing, which is between client and upstream. Called by `h1::answer` after a 101.

use std::time::Duration;

use tokio::net::TcpStream;

use super::h1::tunnel::Tunnel;
use crate::{
    metrics::Flags,
    tcp::relay::{Broken, Passed, Room, Side, relay},
};

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// Why it ended, where that was for a reason of ours.
    pub(crate) flags: Flags,
    /// The side that broke, where one did; the other's end is to be a reset.
    pub(crate) broken: Option<Broken>,
}

impl Side for Tunnel {
    fn socket(&self) -> Option<&TcpStream> {
        None // the wire may hold bytes of its own
    }

    fn reset_at_close(&self) {
        self.reset();
    }
}

/// Joins both connections until both have ended, one breaks, or nothing has passed for `idle` (zero: for ever).
pub(super) async fn join(mut client: Tunnel, mut upstream: Tunnel, room: &Room, idle: Duration) -> Moved {
    let passed = Passed::new();
    let (flags, broken) = tokio::select! {
        ended = relay(&mut client, &mut upstream, room, &passed) => (Flags::NONE, ended.err()),
        () = passed.silence(idle) => (Flags::IDLE, None),
    };
    Moved { received: passed.received.get(), sent: passed.sent.get(), flags, broken }
}

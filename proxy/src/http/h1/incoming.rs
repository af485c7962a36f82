//! The body of a message that comes in over HTTP/1.
//!
//! Reads from the connection only when it is polled. A reply's body also drives what is left of the request's: a server
//! may answer before it has read everything.
//! Never here: HTTP/2. Made by `server` and `client`; one side of `http::incoming`.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    framing::Framing,
    pump::Pump,
    tunnel::Tunnel,
    wire::{Shared, WireError},
};
use crate::http::body::Outgoing;

/// A body.
#[derive(Debug)]
pub(crate) struct Incoming {
    wire: Shared,
    turn: u32,
    upload: Option<Box<Pump<Outgoing>>>,
}

impl Incoming {
    /// The body that begins on a connection.
    pub(crate) fn begin(wire: &Shared, framing: Framing) -> Self {
        let turn = wire.borrow_mut().begin(framing);
        Self { wire: wire.clone(), turn, upload: None }
    }

    /// The same, of a reply; `upload` is what is left to send of a request that was answered early.
    pub(super) fn reply(wire: &Shared, framing: Framing, upload: Option<Box<Pump<Outgoing>>>) -> Self {
        Self { upload, ..Self::begin(wire, framing) }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        if let Some(pump) = &mut self.upload
            && let Poll::Ready(sent) = pump.poll(&self.wire, cx)
        {
            // Where it could not be sent the reply may still be whole; the connection is not.
            self.wire.borrow_mut().unsent = sent.is_err();
            self.upload = None;
        }
        self.wire.borrow_mut().poll_body(self.turn, cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let wire = self.wire.borrow();
        wire.turn != self.turn || wire.cutter.is_done()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let wire = self.wire.borrow();
        match wire.cutter.left() {
            Some(left) if wire.turn == self.turn => SizeHint::with_exact(left),
            Some(_) | None => SizeHint::default(),
        }
    }

    /// The connection, for what is not a body: interim replies and, after a change of protocol, everything.
    pub(crate) fn wire(&self) -> &Shared {
        &self.wire
    }

    /// The connection's bytes, after it has changed to another protocol.
    pub(crate) fn tunnel(&self) -> Tunnel {
        Tunnel::new(&self.wire)
    }
}

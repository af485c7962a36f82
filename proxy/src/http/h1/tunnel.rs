//! A connection's bytes, after it has changed to another protocol.
//!
//! What was read of the peer before the change comes first; what was written before it leaves first.
//! Never here: agreeing on the change. Made by `answer` and `incoming`, joined by `http::upgrade`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Shared;

/// The bytes of a connection that has changed to another protocol.
#[derive(Debug)]
pub(crate) struct Tunnel {
    wire: Shared,
}

impl Tunnel {
    pub(super) fn new(wire: &Shared) -> Self {
        Self { wire: wire.clone() }
    }

    /// Makes its end a reset.
    pub(crate) fn reset(&self) {
        self.wire.borrow_mut().reset();
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire.borrow_mut();
        if !wire.input.is_empty() {
            let count = wire.input.len().min(buf.remaining());
            buf.put_slice(&wire.input[..count]);
            wire.input.advance(count);
        } else if !wire.ended {
            ready!(Pin::new(&mut wire.io).poll_read(cx, buf))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.borrow_mut();
        ready!(wire.poll_flush(cx))?;
        Pin::new(&mut wire.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.borrow_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.borrow_mut().poll_shutdown(cx)
    }
}

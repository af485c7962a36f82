//! The ends of requests and connections: what a client still sends is read and dropped, within bounds.
//!
//! A socket that is closed with unread bytes resets, and the client may lose the reply that it was about to read.
//! Never here: deciding whether a connection goes on. Called by `server` and `answer`.

use std::{
    future::poll_fn,
    io,
    task::{Poll, ready},
};

use super::{framing::Next, wire::Shared};
use crate::limits::{DRAIN_BYTES_MAX, DRAIN_TIMEOUT, LINGER_BYTES_MAX, LINGER_TIMEOUT};

/// Reads the rest of a request's body; false: there was too much of it, or it could not be understood.
pub(super) async fn drain(wire: &Shared) -> bool {
    if wire.borrow().cutter.is_done() {
        return true;
    }
    let mut dropped = 0;
    let reading = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        loop {
            match wire.cutter.next(&mut wire.input, wire.ended) {
                Ok(Next::Data(data)) => dropped += data.len() as u64,
                Ok(Next::End | Next::Trailers(_)) => return Poll::Ready(true),
                Err(_) => return Poll::Ready(false),
                Ok(Next::More) => match wire.poll_fill(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                },
            }
            if dropped > DRAIN_BYTES_MAX {
                return Poll::Ready(false);
            }
        }
    });
    tokio::time::timeout(DRAIN_TIMEOUT, reading).await.unwrap_or(false)
}

/// Writes what waits, and says that no more will come; false: the client did not take it, or is gone.
async fn shut(wire: &Shared) -> io::Result<bool> {
    let ending = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        ready!(wire.poll_flush(cx))?;
        wire.poll_shutdown(cx)
    });
    match tokio::time::timeout(LINGER_TIMEOUT, ending).await {
        Ok(Ok(())) => Ok(true),
        // It has gone before us.
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Ends a connection.
///
/// # Errors
/// The connection broke.
pub(super) async fn close(wire: &Shared) -> io::Result<()> {
    shut(wire).await.map(drop)
}

/// Ends a connection on which something of the client's may still be under way: waits until it has closed its side too.
///
/// # Errors
/// The connection broke.
pub(super) async fn linger(wire: &Shared) -> io::Result<()> {
    if !shut(wire).await? {
        return Ok(());
    }
    let mut dropped = 0;
    let reading = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        loop {
            dropped += wire.input.len() as u64;
            wire.input.clear();
            if wire.ended || dropped > LINGER_BYTES_MAX {
                return Poll::Ready(());
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // However it ends, the connection does.
    let _timed_out = tokio::time::timeout(LINGER_TIMEOUT, reading).await.is_err();
    Ok(())
}

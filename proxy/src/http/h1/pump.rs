//! Writes a body to a connection, framed as its head announced it.
//!
//! Never takes more from the body than the connection can hold, and never writes another length than was announced: a
//! body that does not keep to it breaks the connection, so that nobody takes a part for the whole.
//! Never here: heads. Used by `answer` for replies and by `client` for requests.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};

use super::{
    chunk::forbidden,
    queue::Queue,
    spelling::Spelling,
    wire::Shared,
    write::{Framed, put_field},
};
use crate::http::body::BodyError;

/// Why a body was not written to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not as long as announced")]
    Length,
}

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct Pump<B> {
    pub(crate) body: B,
    framed: Framed,
    done: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Pump<B> {
    pub(crate) fn new(body: B, framed: Framed) -> Self {
        Self { done: framed == Framed::Nothing, body, framed }
    }

    /// Puts what the body has into the queue, as far as there is room. The connection is not held while the body is
    /// polled: that may read from the same one.
    fn fill(&mut self, wire: &Shared, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        while !self.done && wire.borrow().out.has_room() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            // The end that is known without asking leaves with the last piece.
            let last = self.body.is_end_stream();
            let out = &mut wire.borrow_mut().out;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.data(data, out)?;
                    if last {
                        self.end(None, out)?;
                    }
                }
                Some(Err(frame)) => self.end(frame.trailers_ref(), out)?,
                None => self.end(None, out)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the body; ready when its last byte has gone.
    pub(crate) fn poll(&mut self, wire: &Shared, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        loop {
            let waits = match self.fill(wire, cx) {
                Poll::Ready(filled) => {
                    filled?;
                    false
                }
                Poll::Pending => true,
            };
            ready!(wire.borrow_mut().poll_flush(cx))?;
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn data(&mut self, data: Bytes, out: &mut Queue) -> Result<(), PumpError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framed {
            Framed::Nothing => return Err(PumpError::Length),
            Framed::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(PumpError::Length)?,
            Framed::UntilClose => {}
            Framed::Chunked { .. } => {
                write!(out.text(), "{:x}\r\n", data.len())?;
                out.push(data);
                out.text().extend_from_slice(b"\r\n");
                return Ok(());
            }
        }
        out.push(data);
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Queue) -> Result<(), PumpError> {
        self.done = true;
        match self.framed {
            Framed::Length(1..) => return Err(PumpError::Length),
            Framed::Nothing | Framed::Length(0) | Framed::UntilClose => {}
            Framed::Chunked { trailers: wanted } => {
                let text = out.text();
                text.extend_from_slice(b"0\r\n");
                let allowed = |(name, _): &(&HeaderName, &HeaderValue)| wanted && !forbidden(name);
                for (name, value) in trailers.into_iter().flatten().filter(allowed) {
                    put_field(text, name, value, &Spelling::default(), &mut 0);
                }
                text.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

//! The body of a message as it comes in, over HTTP/1 or HTTP/2: one type, so that the request path stays one future.
//!
//! Carries what only HTTP/1 knows of the message besides: how its names were spelt, and its connection.
//! Never here: what goes out. Made by the codecs; read by `body` and `mirror`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h1::{
    framing::FramingError,
    incoming::Incoming as Http1,
    spelling::Spelling,
    tunnel::Tunnel,
    wire::{Shared, WireError},
};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    #[error(transparent)]
    Http1(#[from] WireError),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// What a client did to its request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It went away.
    Gone,
    /// It took too long over it.
    Late,
    /// The bytes that came are no body.
    Malformed,
}

impl IncomingError {
    /// Whose fault it was, where the peer is a client.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Http1(WireError::TimedOut) => Fault::Late,
            Self::Http1(WireError::Framing(FramingError::Ended)) => Fault::Gone,
            Self::Http1(WireError::Framing(_)) => Fault::Malformed,
            Self::Http1(WireError::Io(_) | WireError::Over) | Self::Http2(_) => Fault::Gone,
        }
    }
}

#[derive(Debug)]
enum Content {
    Http1(Http1),
    Http2(hyper::body::Incoming),
}

/// A body, and how the names of its head were spelt.
#[derive(Debug)]
pub(crate) struct Incoming {
    content: Content,
    spelling: Spelling,
}

impl Incoming {
    /// A body over HTTP/1.
    pub(crate) fn http1(body: Http1, spelling: Spelling) -> Self {
        Self { content: Content::Http1(body), spelling }
    }

    /// A body over HTTP/2, which knows lower case only: a spelling comes with what rode it.
    pub(crate) fn http2(body: hyper::body::Incoming, spelling: Spelling) -> Self {
        Self { content: Content::Http2(body), spelling }
    }

    /// How the names of the head were spelt.
    pub(crate) fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    /// The HTTP/1 connection that it comes from.
    pub(crate) fn wire(&self) -> Option<&Shared> {
        match &self.content {
            Content::Http1(body) => Some(body.wire()),
            Content::Http2(_) => None,
        }
    }

    /// The connection's bytes, after it has changed to another protocol.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        match &self.content {
            Content::Http1(body) => Some(body.tunnel()),
            Content::Http2(_) => None,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match &mut self.content {
            Content::Http1(body) => body.poll_frame(cx).map_err(IncomingError::from),
            Content::Http2(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1(body) => body.is_end_stream(),
            Content::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http1(body) => body.size_hint(),
            Content::Http2(body) => body.size_hint(),
        }
    }
}

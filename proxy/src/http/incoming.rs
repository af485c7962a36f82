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
use super::h2::incoming::Incoming as Http2;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    #[error(transparent)]
    Http1(#[from] WireError),
    #[error(transparent)]
    Request(#[from] hyper::Error),
    #[error(transparent)]
    Reply(#[from] h2::Error),
    /// Nobody said that what came was all.
    #[error("the stream was given up")]
    Cut,
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
            Self::Http1(WireError::Io(_) | WireError::Over) | Self::Request(_) | Self::Reply(_) | Self::Cut => {
                Fault::Gone
            }
        }
    }
}

#[derive(Debug)]
enum Content {
    Http1(Http1),
    /// A request's, over HTTP/2.
    Request(hyper::body::Incoming),
    /// A reply's, over HTTP/2.
    Reply(Http2),
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

    /// A request's body over HTTP/2, which knows lower case only: a spelling comes with what rode it.
    pub(crate) fn request(body: hyper::body::Incoming, spelling: Spelling) -> Self {
        Self { content: Content::Request(body), spelling }
    }

    /// A reply's body over HTTP/2.
    pub(crate) fn reply(body: Http2, spelling: Spelling) -> Self {
        Self { content: Content::Reply(body), spelling }
    }

    /// How the names of the head were spelt.
    pub(crate) fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    /// The HTTP/1 connection that it comes from.
    pub(crate) fn wire(&self) -> Option<&Shared> {
        match &self.content {
            Content::Http1(body) => Some(body.wire()),
            Content::Request(_) | Content::Reply(_) => None,
        }
    }

    /// The connection's bytes, after it has changed to another protocol.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        match &self.content {
            Content::Http1(body) => Some(body.tunnel()),
            Content::Request(_) | Content::Reply(_) => None,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match &mut self.content {
            Content::Http1(body) => body.poll_frame(cx).map_err(IncomingError::from),
            Content::Request(body) => match Pin::new(&mut *body).poll_frame(cx) {
                // The codec takes a stream that its client resets without an error for one that is whole.
                Poll::Ready(None) if !body.is_end_stream() => Poll::Ready(Some(Err(IncomingError::Cut))),
                polled @ (Poll::Ready(_) | Poll::Pending) => polled.map_err(IncomingError::from),
            },
            Content::Reply(body) => Pin::new(body).poll_frame(cx).map_err(IncomingError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1(body) => body.is_end_stream(),
            Content::Request(body) => body.is_end_stream(),
            Content::Reply(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http1(body) => body.size_hint(),
            Content::Request(body) => body.size_hint(),
            Content::Reply(body) => body.size_hint(),
        }
    }
}

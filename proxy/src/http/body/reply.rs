//! The body of a reply on its way to the client.
//!
//! Carries the record and the upstream connection, and lets go of both when its last byte is out.
//! Never here: heads. Made by `http::reply`, written by the codecs.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::BodyError;
use crate::{
    access::Record,
    http::{
        h1::{spelling::Spelling, tunnel::Tunnel},
        incoming::Incoming,
        upgrade::Moved,
    },
    metrics::Flags,
    upstream::lease::Lease,
};

#[derive(Debug)]
enum Content {
    Own(Option<Bytes>),
    Upstream(Incoming),
}

/// The body of a reply on its way to the client.
#[derive(Debug)]
pub(crate) struct Reply {
    content: Content,
    record: Option<Record>,
    lease: Option<Lease>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Reply {
    /// A body of our own.
    pub(crate) fn own(bytes: Bytes, record: Record) -> Self {
        Self { content: Content::Own(Some(bytes)), record: Some(record), lease: None, deadline: None }
    }

    /// The upstream's body; at the deadline it ends early.
    pub(crate) fn upstream(incoming: Incoming, record: Record, lease: Lease, deadline: Option<Instant>) -> Self {
        Self {
            content: Content::Upstream(incoming),
            record: Some(record),
            lease: Some(lease),
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// How the upstream spelt the names of the reply's head.
    pub(crate) fn spelling(&self) -> Option<&Spelling> {
        match &self.content {
            Content::Own(_) => None,
            Content::Upstream(incoming) => Some(incoming.spelling()),
        }
    }

    /// The upstream's connection, after it agreed to change its protocol.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        match &self.content {
            Content::Own(_) => None,
            Content::Upstream(incoming) => incoming.tunnel(),
        }
    }

    /// The tunnel has ended.
    pub(crate) fn finish_tunnel(mut self, moved: Moved) {
        drop(self.lease.take());
        if let Some(mut record) = self.record.take() {
            record.received.add(moved.received);
            record.sent += moved.sent;
            record.flag(moved.flags);
            record.finish();
        }
    }

    /// The head has gone, and its body is not sent because of the request's method or the reply's status.
    pub(crate) fn finish_unsent(&mut self) {
        if let Content::Upstream(incoming) = &self.content
            && !incoming.is_end_stream()
        {
            drop(self.lease.take());
        }
        self.finish();
    }

    /// Ready when the time of the whole exchange has run out: for whoever has no room for more of the body.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        self.fail(Flags::UPSTREAM_TIMEOUT, "response_timeout");
        Poll::Ready(BodyError::TimedOut)
    }

    /// The client has taken nothing of it for too long.
    pub(crate) fn stalled(&mut self) {
        self.fail(Flags::IDLE, "stream_idle_timeout");
    }

    /// All has been sent: the connection may be used again, the record is written.
    fn finish(&mut self) {
        self.deadline = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        if let Some(record) = self.record.take() {
            record.finish();
        }
    }

    fn fail(&mut self, flag: Flags, details: &'static str) {
        self.deadline = None;
        drop(self.lease.take());
        if let Some(mut record) = self.record.take() {
            record.flag(flag);
            record.details = details;
            record.finish();
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let incoming = match &mut this.content {
            Content::Own(bytes) => {
                let frame = bytes.take().filter(|b| !b.is_empty());
                if let (Some(record), Some(bytes)) = (&mut this.record, &frame) {
                    record.sent += bytes.len() as u64;
                }
                this.finish();
                return Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))));
            }
            Content::Upstream(incoming) => incoming,
        };
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Pending => this.poll_late(cx).map(|late| Some(Err(late))),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(record) = &mut this.record {
                    if let Some(data) = frame.data_ref() {
                        record.sent += data.len() as u64;
                    } else if let Some(trailers) = frame.trailers_ref() {
                        record.grpc = grpc_status(trailers).or(record.grpc);
                    }
                }
                if incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(Flags::UPSTREAM_ENDED, "upstream_reset_after_response_started{connection_termination}");
                Poll::Ready(Some(Err(BodyError::Reply(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Upstream(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Upstream(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // The codec does not poll a body that it knows to be empty.
        if self.record.is_some() && self.is_end_stream() {
            self.finish();
        }
    }
}

//! The body of a reply as it comes from an upstream over HTTP/2.
//!
//! What is taken makes room for as much again; what ends without its end is an error.
//! Never here: heads. Made by `client`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// The request's body, on its way in a task that ends with this.
#[derive(Debug)]
pub(super) struct Uploading(JoinHandle<()>);

impl Uploading {
    pub(super) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A reply's body.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Bytes still to come, where the head told.
    length: Option<u64>,
    trailers: bool,
    _uploading: Option<Uploading>,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap, uploading: Option<Uploading>) -> Self {
        let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = told.or_else(|| stream.is_end_stream().then_some(0));
        Self { stream, length, trailers: false, _uploading: uploading }
    }
}

/// A server that needs no more of a request says so after the end of its reply (RFC 9113, 8.1).
fn ended<T>(error: h2::Error) -> Option<Result<T, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        if !this.trailers {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where the stream has ended.
                    drop(this.stream.flow_control().release_capacity(data.len()));
                    this.length = this.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(ended(error)),
                None => this.trailers = true,
            }
        }
        Poll::Ready(match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => ended(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

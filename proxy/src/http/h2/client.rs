//! One exchange with an upstream over HTTP/2, driven by whoever waits for it.
//!
//! Body and reply move at the same time. Only a body that is still on its way when the reply begins gets a task, so that
//! neither waits for the other; the reply owns it, and what ends the reply ends it.
//! Never here: connections, or trying again. Called by `upstream::send`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client::SendRequest};
use http::{HeaderValue, Method, Request, Response, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;

use super::incoming::{Incoming, Uploading};
use crate::http::body::Outgoing;

/// Sends a request and waits for the head of its reply.
pub(crate) async fn exchange(
    mut sender: SendRequest<Bytes>,
    request: Request<Outgoing>,
) -> Result<Response<Incoming>, h2::Error> {
    let (mut head, body) = request.into_parts();
    announce(&mut head, &body);
    let bodiless = body.is_end_stream();
    let (mut reply, stream) = sender.send_request(Request::from_parts(head, ()), bodiless)?;
    drop(sender);
    let mut pump = (!bodiless).then(|| Pump { body, stream, waiting: None });
    let reply = poll_fn(|cx| {
        if let Some(sending) = &mut pump
            && Pin::new(sending).poll(cx).is_ready()
        {
            pump = None;
        }
        Pin::new(&mut reply).poll(cx)
    })
    .await?;
    let uploading = pump.map(|pump| Uploading::new(tokio::task::spawn_local(pump)));
    let (parts, stream) = reply.into_parts();
    let incoming = Incoming::new(stream, &parts.headers, uploading);
    Ok(Response::from_parts(parts, incoming))
}

/// Says how long the body is, where that is known and a reader may want to know (RFC 9110, 8.6).
fn announce(head: &mut Parts, body: &Outgoing) {
    let has_meaning = !matches!(head.method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    if let Some(length) = body.size_hint().exact()
        && (length != 0 || has_meaning)
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

/// A body on its way out. It ends where the peer wants no more of it: the reply says why.
struct Pump {
    body: Outgoing,
    stream: SendStream<Bytes>,
    /// A piece that waits for room, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            if let Some((data, last)) = this.waiting.take() {
                if !data.is_empty() && this.stream.capacity() == 0 {
                    match this.stream.poll_capacity(cx) {
                        Poll::Pending => {
                            this.waiting = Some((data, last));
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(Ok(0))) => {
                            this.waiting = Some((data, last));
                            continue;
                        }
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    }
                }
                if this.stream.send_data(data, last).is_err() || last {
                    return Poll::Ready(());
                }
                continue;
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => this.waiting = Some((Bytes::new(), true)),
                Some(Err(_)) => {
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        // Room is asked for a byte only: until more of it is in hand, others may have it.
                        this.stream.reserve_capacity(usize::from(!data.is_empty()));
                        let last = this.body.is_end_stream();
                        this.waiting = Some((data, last));
                    }
                    Err(frame) => {
                        this.stream.reserve_capacity(0);
                        // Where that fails the stream has ended, and the reply says why.
                        let trailers = frame.into_trailers().unwrap_or_default();
                        drop(this.stream.send_trailers(trailers));
                        return Poll::Ready(());
                    }
                },
            }
        }
    }
}

//! One exchange with an upstream over HTTP/1, driven by whoever waits for it: no task of its own.
//!
//! Body and reply move at the same time, so that a server may answer before it has read everything. What the upstream
//! says before it is asked, or after its reply has ended, ends the connection's use: nobody else's reply can be made of it.
//! Never here: pools, or trying again. Called by `upstream::send`.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use http::{
    Method, Request, Response, StatusCode,
    header::{TRAILER, UPGRADE},
    request,
};
use http_body::Body;

use super::{
    framing::Framing,
    head::HeadError,
    incoming::Incoming as Http1,
    pump::{Pump, PumpError},
    response::{self, Expected, Reader},
    spelling::Spelling,
    wire::Shared,
    write::{self, Framed, Unwritable},
};
use crate::{
    http::{
        body::{BodyError, Outgoing, Upload},
        incoming::Incoming,
    },
    limits::INTERIM_REPLIES_MAX,
};

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// The request's body ended early: the client's doing.
    #[error(transparent)]
    Upload(#[from] BodyError),
    #[error("the request's body is not as long as announced")]
    Length,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the connection ended before the reply's head")]
    Closed,
    #[error("the reply is malformed: {0}")]
    Malformed(#[from] HeadError),
    #[error("too many interim replies")]
    Interim,
}

/// A failed exchange.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ClientError,
    /// The request without its body.
    pub(crate) head: request::Parts,
    /// The body from its beginning, where nothing of the request has left.
    pub(crate) unsent: Option<Outgoing>,
}

/// One exchange under way.
struct Exchange<'e> {
    pump: Pump<Outgoing>,
    sending: bool,
    /// Why the rest of the request was not sent; a reply may have come before.
    broken: Option<io::Error>,
    reader: Reader,
    expected: Expected,
    interims: u32,
    /// The request's own body, by which its client is told interim replies.
    from: Option<&'e Upload>,
}

/// Sends a request and waits for the head of its reply.
pub(crate) async fn exchange(
    wire: &Shared,
    request: Request<Outgoing>,
    from: Option<&Upload>,
) -> Result<Response<Incoming>, Failed> {
    let (head, body) = request.into_parts();
    let framed = framed(&body, head.headers.contains_key(TRAILER));
    let written = {
        let mut wire = wire.borrow_mut();
        (wire.keeps, wire.unsent) = (false, true);
        wire.out.begin();
        let out = wire.out.text();
        match from {
            Some(upload) => upload.with_spelling(|spelling| write::request(out, &head, spelling, framed)),
            None => write::request(out, &head, &Spelling::default(), framed),
        }
    };
    if let Err(error) = written {
        return Err(Failed { error: error.into(), head, unsent: None });
    }
    let mut exchange = Exchange {
        pump: Pump::new(body, framed),
        sending: true,
        broken: None,
        reader: Reader::new(),
        expected: Expected { bodiless: head.method == Method::HEAD, upgrade: head.headers.contains_key(UPGRADE) },
        interims: 0,
        from,
    };
    match poll_fn(|cx| exchange.poll(wire, cx)).await {
        Ok(reply) => Ok(exchange.begin_body(wire, reply)),
        Err(error) => {
            let touched = wire.borrow().out.touched();
            let unsent = (!touched && exchange.pump.body.rewind()).then_some(exchange.pump.body);
            Err(Failed { error, head, unsent })
        }
    }
}

/// How the body is announced; trailers are sent where the head promises them (RFC 9110, 6.6.2).
fn framed(body: &Outgoing, trailers: bool) -> Framed {
    if body.is_end_stream() {
        return Framed::Nothing;
    }
    match body.size_hint().exact() {
        Some(length) => Framed::Length(length),
        None => Framed::Chunked { trailers },
    }
}

impl Exchange<'_> {
    fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Result<response::Response, ClientError>> {
        let sent = if self.sending { self.pump.poll(shared, cx) } else { Poll::Pending };
        let wire = &mut *shared.borrow_mut();
        if let Poll::Ready(sent) = sent {
            self.sending = false;
            match sent {
                Ok(()) => wire.unsent = false,
                Err(PumpError::Io(error)) if !wire.out.touched() => {
                    return Poll::Ready(Err(ClientError::Broken(error)));
                }
                Err(PumpError::Io(error)) => self.broken = Some(error),
                Err(PumpError::Body(error)) => return Poll::Ready(Err(error.into())),
                Err(PumpError::Length) => return Poll::Ready(Err(ClientError::Length)),
            }
        }
        loop {
            match self.reader.read(&mut wire.input, self.expected)? {
                Some(reply) if is_interim(reply.parts.status) => {
                    self.interims += 1;
                    if self.interims > INTERIM_REPLIES_MAX {
                        return Poll::Ready(Err(ClientError::Interim));
                    }
                    // `100` is for us: the client got its own when its body was asked for.
                    if reply.parts.status != StatusCode::CONTINUE
                        && let Some(upload) = self.from
                    {
                        upload.inform(reply, cx);
                    }
                    self.reader = Reader::new();
                    continue;
                }
                Some(reply) => return Poll::Ready(Ok(reply)),
                None => {}
            }
            if wire.ended {
                return Poll::Ready(Err(self.broken.take().map_or(ClientError::Closed, ClientError::Broken)));
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ClientError::Broken(error))),
                Poll::Pending => {
                    return self.broken.take().map_or(Poll::Pending, |e| Poll::Ready(Err(ClientError::Broken(e))));
                }
            }
        }
    }

    fn begin_body(self, wire: &Shared, reply: response::Response) -> Response<Incoming> {
        let response::Response { parts, spelling, framing, keep_alive } = reply;
        wire.borrow_mut().keeps = keep_alive;
        let changes = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let framing = if changes { Framing::UntilClose } else { framing };
        let upload = self.sending.then(|| Box::new(self.pump));
        Response::from_parts(parts, Incoming::http1(Http1::reply(wire, framing, upload), spelling))
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

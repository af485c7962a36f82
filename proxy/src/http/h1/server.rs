//! A client's connection over HTTP/1: one request after the other, inside the connection's own task.
//!
//! A head is read, `handle` runs, its reply is written; what a client sends early stays in the buffer of one read. The
//! waits are bounded apart: for a request to begin, for its head to end, and between pieces of its body.
//! Never here: what a request means. Called by `codec`.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, UPGRADE},
    response,
};
use http_body::Body;
use tokio::time::Instant;

use super::{
    end,
    framing::Framing,
    head::{Announced, HeadError},
    incoming::Incoming as Http1,
    pump::{Pump, PumpError},
    request::{Reader, Request},
    spelling::Spelling,
    wire::{Shared, Tunnel, Wire},
    write::{self, Framed, Persists},
};
use crate::{
    http::{Conn, body::Reply, handle, incoming::Incoming, refuse, reply::Failure, upgrade},
    io::Io,
    limits::{BODY_TIMEOUT, DRAIN_BYTES_MAX, HEAD_TIMEOUT},
};

/// What comes next on a connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a request is what nearly every wait comes to")]
enum Next {
    Request(Request),
    Refused(HeadError),
    /// A head that was begun and not ended in time.
    Late,
    /// No more requests come, or none are wanted.
    Ended,
}

/// What becomes of a connection after a reply.
enum After {
    Next,
    /// It ends; `linger`: something of the client's may still be under way.
    Close {
        linger: bool,
    },
    /// It breaks off, so that nobody takes a part for the whole.
    Break,
}

/// What the reply depends on besides the reply.
struct Asked {
    head_only: bool,
    old: bool,
    keep_alive: bool,
    trailers: bool,
    upgrade: bool,
}

/// Serves requests until the connection ends.
///
/// # Errors
/// The connection broke.
pub(crate) async fn serve(
    conn: Rc<Conn>,
    io: Io,
    idle_timeout: Duration,
    closing: impl Future<Output = ()>,
) -> io::Result<()> {
    let wire = Wire::shared(io, Some(BODY_TIMEOUT));
    let mut closing = pin!(closing);
    loop {
        let mut waiting = Waiting::new(idle_timeout, HEAD_TIMEOUT);
        let next = poll_fn(|cx| waiting.poll(&mut wire.borrow_mut(), closing.as_mut(), cx)).await?;
        let after = match next {
            Next::Request(request) => exchange(&conn, &wire, request).await?,
            Next::Refused(error) => told(&conn, &wire, Failure::Malformed(error)).await?,
            Next::Late => told(&conn, &wire, Failure::HeadLate).await?,
            Next::Ended => After::Close { linger: false },
        };
        match after {
            After::Next => wire.borrow_mut().rest(),
            After::Close { linger } => return end::close(&wire, linger).await,
            After::Break => return end::close(&wire, false).await,
        }
    }
}

/// Waits for the head of a request.
struct Waiting {
    reader: Reader,
    /// When its first byte came.
    began: Option<Instant>,
    since: Instant,
    /// Zero: no limit.
    idle_timeout: Duration,
    head_timeout: Duration,
}

impl Waiting {
    fn new(idle_timeout: Duration, head_timeout: Duration) -> Self {
        Self { reader: Reader::new(false), began: None, since: Instant::now(), idle_timeout, head_timeout }
    }

    fn poll(
        &mut self,
        wire: &mut Wire,
        closing: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Next>> {
        loop {
            match self.reader.read(&mut wire.input) {
                Ok(Some(request)) => return Poll::Ready(Ok(Next::Request(request))),
                Err(error) => return Poll::Ready(Ok(Next::Refused(error))),
                Ok(None) if wire.ended => return Poll::Ready(Ok(Next::Ended)),
                Ok(None) => {}
            }
            if wire.poll_fill(cx)?.is_ready() {
                continue;
            }
            let begun = !wire.input.is_empty();
            if !begun && closing.poll(cx).is_ready() {
                return Poll::Ready(Ok(Next::Ended));
            }
            let deadline = if begun {
                *self.began.get_or_insert_with(Instant::now) + self.head_timeout
            } else if self.idle_timeout.is_zero() {
                return Poll::Pending;
            } else {
                self.since + self.idle_timeout
            };
            let late = if begun { Next::Late } else { Next::Ended };
            return wire.patience.poll(cx, deadline).map(|()| Ok(late));
        }
    }
}

/// One request and its reply.
async fn exchange(conn: &Rc<Conn>, wire: &Shared, request: Request) -> io::Result<After> {
    let Request { parts, spelling, body, keep_alive, expects, trailers } = request;
    let asked = Asked {
        head_only: parts.method == Method::HEAD,
        old: parts.version == Version::HTTP_10,
        keep_alive,
        trailers,
        upgrade: parts.headers.contains_key(UPGRADE),
    };
    let turn = {
        let mut wire = wire.borrow_mut();
        wire.awaited = expects;
        wire.informs = !asked.old;
        wire.begin(match body {
            Announced::Nothing => Framing::Length(0),
            Announced::Length(length) => Framing::Length(length),
            Announced::Chunked => Framing::Chunked,
        })
    };
    let incoming = Incoming::http1(Http1::new(wire.clone(), turn, None), spelling);
    let response = {
        let mut handling = pin!(handle(Rc::clone(conn), http::Request::from_parts(parts, incoming)));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => wire.borrow_mut().poll_gone(cx).map(Err),
        })
        .await?
    };
    send(conn, wire, response, &asked).await
}

/// Answers what is no request.
async fn told(conn: &Rc<Conn>, wire: &Shared, failure: Failure) -> io::Result<After> {
    let asked = Asked { head_only: false, old: false, keep_alive: false, trailers: false, upgrade: false };
    wire.borrow_mut().failed = true;
    send(conn, wire, refuse(conn, &failure), &asked).await
}

/// Writes a reply.
async fn send(conn: &Rc<Conn>, wire: &Shared, response: Response<Reply>, asked: &Asked) -> io::Result<After> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(upstream) = body.tunnel()
    {
        put_head(conn, wire, &head, &body, Framed::Nothing, None, Persists::Changes);
        poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await?;
        let moved = upgrade::join(Tunnel(wire.clone()), upstream).await;
        body.finish_tunnel(moved);
        return Ok(After::Close { linger: false });
    }
    let bodiless = asked.head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (framed, unsent) = framing(&head, &body, asked, bodiless);
    let persists = persists(&wire.borrow(), &head, asked, framed);
    put_head(conn, wire, &head, &body, framed, unsent, persists);
    // `100 Continue` has no place any more.
    wire.borrow_mut().awaited = false;
    let mut pump = Pump::new(body, framed);
    let sent = poll_fn(|cx| match pump.poll(wire, cx) {
        Poll::Ready(sent) => Poll::Ready(sent),
        Poll::Pending => wire.borrow_mut().poll_gone(cx).map(|error| Err(PumpError::Io(error))),
    })
    .await;
    match sent {
        Ok(()) if bodiless => pump.body.finish_unsent(),
        Ok(()) => {}
        Err(PumpError::Io(error)) => return Err(error),
        Err(PumpError::Body(error)) => {
            tracing::debug!(%error, "a reply ended early");
            return Ok(After::Break);
        }
        Err(PumpError::Length) => return Ok(After::Break),
    }
    drop(pump);
    if persists != Persists::No && end::drain(wire).await {
        return Ok(After::Next);
    }
    let wire = wire.borrow();
    Ok(After::Close { linger: wire.failed || !wire.cutter.is_done() || !wire.input.is_empty() })
}

fn put_head(
    conn: &Conn,
    wire: &Shared,
    head: &response::Parts,
    body: &Reply,
    framed: Framed,
    unsent: Option<u64>,
    persists: Persists,
) {
    let own = Spelling::default();
    let spelling = body.spelling().unwrap_or(&own);
    let shared = &conn.worker.shared;
    let out = &mut wire.borrow_mut().out;
    let mut write = |date: &[u8]| write::response(out.text(), head, spelling, framed, unsent, persists, date);
    // The clock is read only where the upstream did not say when it replied.
    match head.headers.get(DATE) {
        Some(_) => write(b""),
        None => conn.worker.dates.with(shared.clock.unix(), write),
    }
}

/// How the body is framed, and the length of one that is not sent.
fn framing(head: &response::Parts, body: &Reply, asked: &Asked, bodiless: bool) -> (Framed, Option<u64>) {
    let exact = body.size_hint().exact();
    if bodiless {
        let said = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = said.or(exact.filter(|length| *length > 0));
        return (Framed::Nothing, length.filter(|_| head.status != StatusCode::NO_CONTENT));
    }
    let framed = match exact {
        Some(length) => Framed::Length(length),
        None if asked.old => Framed::UntilClose,
        None => Framed::Chunked { trailers: asked.trailers },
    };
    (framed, None)
}

/// Whether the connection goes on after the reply.
fn persists(wire: &Wire, head: &response::Parts, asked: &Asked, framed: Framed) -> Persists {
    let leaving = head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    // The rest of the request must be read first, and that must not take long.
    let short = wire.cutter.left().is_none_or(|left| left <= DRAIN_BYTES_MAX);
    let readable = wire.cutter.is_done() || (!wire.awaited && !wire.failed && short);
    // What came after a request for another protocol was not meant as HTTP.
    let early = asked.upgrade && !wire.input.is_empty();
    match asked.keep_alive && !leaving && readable && !early && framed != Framed::UntilClose {
        true if asked.old => Persists::Said,
        true => Persists::Yes,
        false => Persists::No,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::io::{Raw, Socket};

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    /// What comes of a client that sends these bytes and then nothing.
    async fn check(sent: &[u8], idle: Duration, head: Duration, expected: &str) {
        let (mut far, near) = tokio::io::duplex(1024);
        far.write_all(sent).await.unwrap();
        let wire = Wire::shared(Io::plain(Raw::new(Socket::Memory(near), Bytes::new())), None);
        let mut waiting = Waiting::new(idle, head);
        let mut closing = pin!(std::future::pending());
        let next = poll_fn(|cx| waiting.poll(&mut wire.borrow_mut(), closing.as_mut(), cx)).await.unwrap();
        assert!(format!("{next:?}").starts_with(expected), "{sent:?}: {next:?}");
        drop(far);
    }

    #[tokio::test]
    async fn a_slow_head_and_an_idle_connection_have_limits_of_their_own() {
        check(b"", SHORT, LONG, "Ended").await;
        check(b"GET / HT", LONG, SHORT, "Late").await;
        check(b"GET / HT", Duration::ZERO, SHORT, "Late").await;
        check(b"GET / HTTP/1.1\r\n\r\n", SHORT, SHORT, "Request").await;
    }

    #[tokio::test]
    async fn a_wait_that_is_put_off_ends_at_its_latest_deadline() {
        let mut patience = super::super::wire::Patience::default();
        let began = Instant::now();
        let early = poll_fn(|cx| Poll::Ready(patience.poll(cx, began + SHORT))).await;
        assert!(early.is_pending());
        poll_fn(|cx| patience.poll(cx, began + SHORT * 3)).await;
        assert!(began.elapsed() >= SHORT * 3);
        poll_fn(|cx| patience.poll(cx, began + SHORT)).await;
    }

    #[tokio::test]
    async fn a_body_that_stops_to_come_is_given_up() {
        let (mut far, near) = tokio::io::duplex(1024);
        let wire = Wire::shared(Io::plain(Raw::new(Socket::Memory(near), Bytes::new())), Some(SHORT));
        far.write_all(b"ab").await.unwrap();
        let turn = wire.borrow_mut().begin(Framing::Length(3));
        let mut body = Http1::new(wire.clone(), turn, None);
        assert!(poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap().is_data());
        let error = poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap_err();
        assert!(matches!(error, super::super::wire::WireError::TimedOut), "{error}");
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let wire = Wire::shared(Io::plain(Raw::new(Socket::Memory(near), Bytes::new())), None);
        far.write_all(&[b'x'; 200_000]).await.unwrap();
        let turn = wire.borrow_mut().begin(Framing::Length(200_000));
        let mut body = Http1::new(wire.clone(), turn, None);
        let mut came = 0;
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            came += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(came, 200_000);
        let mut wire = wire.borrow_mut();
        assert!(wire.is_quiet());
        wire.rest();
        assert_eq!(wire.input.capacity(), 0);
    }
}

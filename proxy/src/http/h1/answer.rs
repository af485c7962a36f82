//! Writes a reply to a client, and says what becomes of the connection.
//!
//! A client that takes nothing for too long is given up, and so is a reply whose time has run out while it waits.
//! Never here: what the reply is (`reply`), reading requests. Called by `server`.

use std::{future::poll_fn, io, task::Poll};

use http::{
    Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, UPGRADE},
    response,
};
use http_body::Body;

use super::{
    end,
    pump::{Pump, PumpError},
    request::Request,
    spelling::Spelling,
    tunnel::Tunnel,
    wire::{Shared, Wire},
    write::{self, Form, Framed, Persists},
};
use crate::{
    http::{
        Conn,
        body::{BodyError, Reply},
        upgrade,
    },
    limits::{DRAIN_BYTES_MAX, FLUSH_TIMEOUT},
};

/// What becomes of a connection after a reply.
pub(super) enum After {
    Next,
    /// It ends, perhaps in the middle of a body, which everyone can tell from the head.
    Close,
    /// It ends, and something of the client's may still be under way.
    Linger,
    /// It breaks off, and what waits for the client with it.
    Reset,
}

/// What the reply depends on besides the reply.
pub(super) struct Asked {
    head_only: bool,
    /// HTTP/1.0.
    pub(super) old: bool,
    keep_alive: bool,
    trailers: bool,
    upgrade: bool,
}

impl Asked {
    /// What was no request.
    pub(super) const NOTHING: Self =
        Self { head_only: false, old: false, keep_alive: false, trailers: false, upgrade: false };

    pub(super) fn of(request: &Request) -> Self {
        Self {
            head_only: request.parts.method == Method::HEAD,
            old: request.parts.version == Version::HTTP_10,
            keep_alive: request.keep_alive,
            trailers: request.trailers,
            upgrade: request.parts.headers.contains_key(UPGRADE),
        }
    }
}

/// Why a reply did not go to its end.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Body(BodyError),
    #[error("the body is not as long as announced")]
    Length,
    #[error("the client took nothing for too long")]
    Stalled,
}

impl From<PumpError> for Cut {
    fn from(error: PumpError) -> Self {
        match error {
            PumpError::Io(error) => Self::Io(error),
            PumpError::Body(error) => Self::Body(error),
            PumpError::Length => Self::Length,
        }
    }
}

/// Writes a reply.
///
/// # Errors
/// The connection broke.
pub(super) async fn answer(conn: &Conn, wire: &Shared, response: Response<Reply>, asked: &Asked) -> io::Result<After> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS
        && let Some(upstream) = body.tunnel()
    {
        put_head(conn, wire, &head, &body, Form { framed: Framed::Nothing, unsent: None, persists: Persists::Changes });
        flush(wire).await?;
        let moved = upgrade::join(Tunnel::new(wire), upstream, &conn.worker.room, conn.idle_timeout()).await;
        body.finish_tunnel(moved);
        return Ok(if moved.broken.is_some() { After::Reset } else { After::Close });
    }
    let bodiless = asked.head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (framed, unsent) = framing(&head, &body, asked, bodiless);
    let persists = persists(&wire.borrow(), &head, asked, framed);
    put_head(conn, wire, &head, &body, Form { framed, unsent, persists });
    // `100 Continue` has no place any more.
    wire.borrow_mut().awaited = false;
    let mut pump = Pump::new(body, framed);
    let sent = put_body(wire, &mut pump).await;
    // What is left of the request is nobody's: the reply is out, or never will be.
    wire.borrow_mut().end_turn();
    match sent {
        Ok(()) if bodiless => pump.body.finish_unsent(),
        Ok(()) => {}
        Err(Cut::Io(error)) => return Err(error),
        Err(cut @ (Cut::Body(_) | Cut::Length)) => {
            tracing::debug!(error = %cut, "a reply ended early");
            // Where the end of the connection is the end of the body, only a reset is none.
            return Ok(if framed == Framed::UntilClose { After::Reset } else { After::Close });
        }
        Err(cut @ Cut::Stalled) => {
            tracing::debug!(error = %cut, "a reply ended early");
            pump.body.stalled();
            return Ok(After::Reset);
        }
    }
    drop(pump);
    if persists != Persists::No && end::drain(wire).await {
        return Ok(After::Next);
    }
    let wire = wire.borrow();
    let more = wire.failed || !wire.cutter.is_done() || !wire.input.is_empty();
    Ok(if more { After::Linger } else { After::Close })
}

/// Writes what waits.
async fn flush(wire: &Shared) -> io::Result<()> {
    poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        match wire.poll_flush(cx) {
            Poll::Pending => wire.poll_stalled(FLUSH_TIMEOUT, cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            flushed @ Poll::Ready(_) => flushed,
        }
    })
    .await
}

/// Writes what waits, and the body after it.
async fn put_body(wire: &Shared, pump: &mut Pump<Reply>) -> Result<(), Cut> {
    poll_fn(|cx| {
        if let Poll::Ready(sent) = pump.poll(wire, cx) {
            return Poll::Ready(sent.map_err(Cut::from));
        }
        // While the client makes us wait nobody asks the body, which has its own time.
        if let Poll::Ready(error) = pump.body.poll_late(cx) {
            return Poll::Ready(Err(Cut::Body(error)));
        }
        let wire = &mut *wire.borrow_mut();
        if wire.poll_stalled(FLUSH_TIMEOUT, cx).is_ready() {
            return Poll::Ready(Err(Cut::Stalled));
        }
        wire.poll_gone(cx).map(|error| Err(Cut::Io(error)))
    })
    .await
}

fn put_head(conn: &Conn, wire: &Shared, head: &response::Parts, body: &Reply, form: Form) {
    let own = Spelling::default();
    let spelling = body.spelling().unwrap_or(&own);
    let shared = &conn.worker.shared;
    let out = &mut wire.borrow_mut().out;
    let mut write = |date: &[u8]| write::response(out.text(), head, spelling, form, date);
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

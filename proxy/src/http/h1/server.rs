//! A client's connection over HTTP/1: one request after the other, inside the connection's own task.
//!
//! A head is read, `handle` runs, its reply is written; what a client sends early stays in the buffer of one read.
//! Never here: what a request means; reading and writing (`waiting`, `answer`). Called by `codec`.

use std::{future::poll_fn, io, pin::pin, rc::Rc, task::Poll, time::Duration};

use super::{
    answer::{After, Asked, answer},
    end,
    framing::Framing,
    head::Announced,
    incoming::Incoming as Http1,
    request::Request,
    waiting::{Next, Waiting},
    wire::{Shared, Wire},
};
use crate::{
    http::{Conn, failure::Failure, handle, incoming::Incoming, refuse},
    io::Io,
    limits::{BODY_TIMEOUT, HEAD_TIMEOUT},
};

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
    let overload = &conn.worker.shared.overload;
    let mut closing = pin!(closing);
    loop {
        let mut waiting = Waiting::new(conn.oldest(), HEAD_TIMEOUT);
        let idle = || overload.idle(idle_timeout);
        let next = poll_fn(|cx| waiting.poll(&mut wire.borrow_mut(), closing.as_mut(), idle, cx)).await?;
        let after = match next {
            Next::Request(request) => exchange(&conn, &wire, request).await?,
            Next::Refused(error) => told(&conn, &wire, Failure::Malformed(error)).await?,
            Next::Late => told(&conn, &wire, Failure::HeadLate).await?,
            Next::Ended => After::Close,
        };
        match after {
            After::Next => wire.borrow_mut().rest(),
            After::Close => return end::close(&wire).await,
            After::Linger => return end::linger(&wire).await,
            After::Reset => {
                wire.borrow_mut().reset();
                return Ok(());
            }
        }
    }
}

/// One request and its reply.
async fn exchange(conn: &Rc<Conn>, wire: &Shared, request: Request) -> io::Result<After> {
    let asked = Asked::of(&request);
    let Request { parts, spelling, body, expects, .. } = request;
    {
        let mut wire = wire.borrow_mut();
        (wire.awaited, wire.informs) = (expects, !asked.old);
    }
    let framing = match body {
        Announced::Nothing => Framing::Length(0),
        Announced::Length(length) => Framing::Length(length),
        Announced::Chunked => Framing::Chunked,
    };
    let incoming = Incoming::http1(Http1::begin(wire, framing), spelling);
    let response = {
        let mut handling = pin!(handle(Rc::clone(conn), http::Request::from_parts(parts, incoming)));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => wire.borrow_mut().poll_gone(cx).map(Err),
        })
        .await?
    };
    answer(conn, wire, response, &asked).await
}

/// Answers what is no request.
async fn told(conn: &Rc<Conn>, wire: &Shared, failure: Failure) -> io::Result<After> {
    wire.borrow_mut().failed = true;
    answer(conn, wire, refuse(conn, &failure), &Asked::NOTHING).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;

    use super::{super::wire::WireError, *};
    use crate::io::{Raw, Socket};

    /// A connection, its far end, and the body that begins on it.
    fn reading(room: usize, length: u64) -> (tokio::io::DuplexStream, Shared, Http1) {
        let (far, near) = tokio::io::duplex(room);
        let io = Io::plain(Raw::new(Socket::Memory(near), Bytes::new()));
        let wire = Wire::shared(io, Some(BODY_TIMEOUT));
        let body = Http1::begin(&wire, Framing::Length(length));
        (far, wire, body)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_to_come_is_given_up() {
        let (mut far, _wire, mut body) = reading(1024, 3);
        far.write_all(b"ab").await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap().is_data());
        let error = poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap_err();
        assert!(matches!(error, WireError::TimedOut), "{error}");
        assert_eq!(began.elapsed(), BODY_TIMEOUT);
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer() {
        let (mut far, wire, mut body) = reading(1 << 20, 200_000);
        far.write_all(&[b'x'; 200_000]).await.unwrap();
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

    #[tokio::test]
    async fn whose_turn_is_over_gets_nothing_more_and_learns_it() {
        let (mut far, wire, mut body) = reading(1024, 6);
        far.write_all(b"abc").await.unwrap();
        assert!(poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap().is_data());
        let waiting = async { poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap_err() };
        let ending = async {
            wire.borrow_mut().end_turn();
            far.write_all(b"def").await.unwrap();
        };
        let (error, ()) = tokio::join!(waiting, ending);
        assert!(matches!(error, WireError::Over), "{error}");
        assert!(end::drain(&wire).await);
    }
}

//! Waits for the head of a client's next request.
//!
//! The waits are bounded apart: for a request to begin, and for its head to end. How long a connection may be idle is asked
//! anew whenever something wakes it: it is less where memory is short.
//! Never here: what a request means, bodies. Called by `server`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    head::HeadError,
    request::{Oldest, Reader, Request},
    wire::Wire,
};

/// What comes next on a connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a request is what nearly every wait comes to")]
pub(super) enum Next {
    Request(Request),
    Refused(HeadError),
    /// A head that was begun and not ended in time.
    Late,
    /// No more requests come, or none are wanted.
    Ended,
}

/// A wait for one request.
pub(super) struct Waiting {
    reader: Reader,
    /// When its first byte came.
    began: Option<Instant>,
    since: Instant,
    head_timeout: Duration,
}

impl Waiting {
    pub(super) fn new(oldest: Oldest, head_timeout: Duration) -> Self {
        Self { reader: Reader::new(oldest), began: None, since: Instant::now(), head_timeout }
    }

    /// What comes. `idle`: how long the connection may be without a request; zero: for ever.
    pub(super) fn poll(
        &mut self,
        wire: &mut Wire,
        closing: Pin<&mut impl Future<Output = ()>>,
        idle: impl FnOnce() -> Duration,
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
            if !wire.input.is_empty() {
                let began = *self.began.get_or_insert_with(Instant::now);
                return wire.patience.poll(cx, began + self.head_timeout).map(|()| Ok(Next::Late));
            }
            if closing.poll(cx).is_ready() {
                return Poll::Ready(Ok(Next::Ended));
            }
            let idle = idle();
            if idle.is_zero() {
                return Poll::Pending;
            }
            return wire.patience.poll(cx, self.since + idle).map(|()| Ok(Next::Ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use bytes::Bytes;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::io::{Io, Raw, Socket};

    const SHORT: Duration = Duration::from_secs(2);
    const LONG: Duration = Duration::from_secs(60);

    /// What comes, and when, of a client that sends these bytes and then nothing.
    async fn check(sent: &[u8], idle: Duration, head: Duration, expected: &str, after: Duration) {
        let (mut far, near) = tokio::io::duplex(1024);
        far.write_all(sent).await.unwrap();
        let wire = Wire::shared(Io::plain(Raw::new(Socket::Memory(near), Bytes::new())), None);
        let began = Instant::now();
        let mut waiting = Waiting::new(Oldest::Http11, head);
        let mut closing = pin!(std::future::pending());
        let next = poll_fn(|cx| waiting.poll(&mut wire.borrow_mut(), closing.as_mut(), || idle, cx)).await.unwrap();
        assert!(format!("{next:?}").starts_with(expected), "{sent:?}: {next:?}");
        assert_eq!(began.elapsed(), after, "{sent:?}");
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_and_an_idle_connection_have_limits_of_their_own() {
        check(b"", SHORT, LONG, "Ended", SHORT).await;
        check(b"GET / HT", LONG, SHORT, "Late", SHORT).await;
        check(b"GET / HT", Duration::ZERO, SHORT, "Late", SHORT).await;
        check(b"GET / HTTP/1.1\r\n\r\n", SHORT, SHORT, "Request", Duration::ZERO).await;
    }
}

//! The byte stream under HTTP/2's codec, which shows its bytes to the meter and ends when the meter says so.
//!
//! What is over the budget never reaches the codec. The peer is told with GOAWAY, after the frame that was being sent,
//! and has a moment to read it before the connection closes.
//! Never here: what is too much (`meter`). Made by `codec` and `upstream::http2`.

use std::{
    cell::RefCell,
    error::Error,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::Instant,
};

use super::{
    Excess, calmed,
    meter::{Look, Meter},
    tell,
};
use crate::{
    io::Io,
    limits::{FAREWELL_BYTES_MAX, FAREWELL_TIMEOUT},
    metrics::proxy::ProxyStats,
};

/// What the connection and its owner share.
#[derive(Debug)]
struct Inner {
    io: Io,
    meter: Meter,
    over: Option<Excess>,
    /// The peer takes no bytes at the moment.
    blocked: bool,
}

/// The owner's end: looks at the clock, and says farewell.
#[derive(Debug)]
pub(crate) struct Guard(Rc<RefCell<Inner>>);

/// The codec's end.
#[derive(Debug)]
pub(crate) struct Guarded(Rc<RefCell<Inner>>);

impl Guard {
    /// Guards a connection.
    pub(crate) fn new(io: Io, meter: Meter) -> (Self, Guarded) {
        let inner = Rc::new(RefCell::new(Inner { io, meter, over: None, blocked: false }));
        (Self(Rc::clone(&inner)), Guarded(inner))
    }

    /// Whether the peer has told its settings.
    pub(crate) fn is_told(&self) -> bool {
        self.0.borrow().meter.is_told()
    }

    /// Looks at what has been going on for too long.
    pub(crate) fn look(&self) -> Look {
        let mut inner = self.0.borrow_mut();
        if let Some(excess) = inner.over {
            return Look::Over(excess);
        }
        let blocked = inner.blocked;
        let look = inner.meter.look(blocked, Instant::now());
        if let Look::Over(excess) = look {
            inner.over = Some(excess);
        }
        look
    }

    /// Counts why the connection ended early, and ends it properly; the codec must have let go of its end.
    pub(crate) async fn farewell(
        self,
        ended: Result<(), &(dyn Error + 'static)>,
        stats: &ProxyStats,
        side: &'static str,
    ) {
        let over = self.0.borrow().over;
        let calmed = ended.is_err_and(calmed).then_some(Excess::Codec);
        if let Some(excess) = over.or(calmed) {
            tell(stats, excess, side);
        } else if ended.is_ok() {
            return;
        }
        let Some(inner) = Rc::into_inner(self.0) else { return };
        let Inner { mut io, meter, .. } = inner.into_inner();
        let parting = async {
            match over {
                // The codec took the rest of the frame with it: the peer did not read.
                Some(_) if meter.sending().is_some() => return Ok(0),
                Some(excess) => io.write_all(&goaway(meter.newest(), excess)).await?,
                None => {}
            }
            io.shutdown().await?;
            // Closing with bytes unread would reset the connection, and take the GOAWAY with it.
            let mut rest = io.take(FAREWELL_BYTES_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        match tokio::time::timeout(FAREWELL_TIMEOUT, parting).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::trace!(%error, "the peer left before it was told why"),
        }
    }
}

/// GOAWAY (RFC 9113, 6.8).
fn goaway(newest: u32, excess: Excess) -> [u8; 17] {
    let [a, b, c, d] = newest.to_be_bytes();
    let [e, f, g, h] = excess.code().to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

fn ended(excess: Excess) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, excess.name())
}

impl Inner {
    /// How many bytes may be written: all, or the rest of a frame where the connection is to end.
    fn may_write(&self) -> io::Result<usize> {
        match (self.over, self.meter.sending()) {
            (None, _) => Ok(usize::MAX),
            // Of a head that is cut, the end is not known yet: one byte more tells.
            (Some(_), Some(rest)) => Ok(rest.max(1)),
            (Some(excess), None) => Err(ended(excess)),
        }
    }

    /// Shows what was written to the meter.
    fn written<'b>(&mut self, bufs: impl Iterator<Item = &'b [u8]>, mut count: usize, cx: &Context<'_>) {
        for buf in bufs {
            let piece = buf.get(..count).unwrap_or(buf);
            count -= piece.len();
            if let Err(excess) = self.meter.send(piece, Instant::now) {
                self.over = self.over.or(Some(excess));
            }
        }
        if self.over.is_some() {
            // Whoever waits to read learns it.
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if let Some(excess) = inner.over {
            // The frame that is being sent goes first; the writing side says when it is out.
            return if inner.meter.sending().is_some() { Poll::Pending } else { Poll::Ready(Err(ended(excess))) };
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let Err(stopped) = inner.meter.receive(fresh, Instant::now) else { return Poll::Ready(Ok(())) };
        inner.over = Some(stopped.excess);
        buf.set_filled(before + stopped.after);
        if stopped.after > 0 {
            return Poll::Ready(Ok(()));
        }
        if inner.meter.sending().is_some() { Poll::Pending } else { Poll::Ready(Err(ended(stopped.excess))) }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let most = inner.may_write()?;
        let buf = buf.get(..most).unwrap_or(buf);
        let polled = Pin::new(&mut inner.io).poll_write(cx, buf);
        inner.blocked = polled.is_pending();
        let count = ready!(polled)?;
        inner.written(std::iter::once(buf), count, cx);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.borrow().over.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
            return self.poll_write(cx, first);
        }
        let inner = &mut *self.0.borrow_mut();
        let polled = Pin::new(&mut inner.io).poll_write_vectored(cx, bufs);
        inner.blocked = polled.is_pending();
        let count = ready!(polled)?;
        inner.written(bufs.iter().map(|buf| &**buf), count, cx);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let polled = Pin::new(&mut inner.io).poll_flush(cx);
        inner.blocked |= polled.is_pending();
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.over.is_some() {
            // The farewell closes it.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

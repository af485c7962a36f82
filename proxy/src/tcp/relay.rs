//! Passes bytes between two streams, both ways at once, until both sides have said their last.
//!
//! A way holds no buffer of its own while it is silent: it reads into the worker's, writes at once, and keeps only what the
//! other side did not take. How much is read at a time grows with what is said. Between plain sockets the bytes of a busy
//! way stay in the kernel (`pipe`). One side's end is passed on, and the other may go on (half-close).
//! Never here: counters' meaning. Called by `tcp`, and by `http::upgrade`.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::pipe::{Pipe, Pipes};
use crate::{
    io::Io,
    limits::{TCP_PIPE_AFTER_BYTES, TCP_READ_BYTES},
};

/// A worker's buffer that all its connections read into, and its pipes.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// As large as the largest read that was asked for so far.
    buffer: RefCell<Vec<u8>>,
    pipes: Pipes,
}

/// What has passed so far; read by whoever waits beside.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Bytes from the client.
    pub(crate) received: Cell<u64>,
    /// Bytes to the client.
    pub(crate) sent: Cell<u64>,
    /// When the last byte passed.
    pub(crate) active: Cell<Instant>,
}

impl Passed {
    pub(crate) fn new() -> Self {
        Self { received: Cell::new(0), sent: Cell::new(0), active: Cell::new(Instant::now()) }
    }
}

/// The side whose connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Client,
    Upstream,
}

/// One way: what the reader said and the writer has not taken yet.
#[derive(Debug, Default)]
struct Way {
    /// How much is read at a time: a place in [`TCP_READ_BYTES`].
    step: usize,
    waiting: Vec<u8>,
    /// Bytes of `waiting` that are written already.
    written: usize,
    /// Bytes that were copied, until they are enough for a pipe.
    copied: usize,
    /// The last read was a large one.
    busy: bool,
    pipe: Option<Pipe>,
    /// Bytes that a stream over TLS may still hold.
    unflushed: bool,
    /// The reader has said its last.
    ended: bool,
    /// The writer has been told so.
    told: bool,
}

/// Which side of a way broke.
enum Fault {
    Reader,
    Writer,
}

/// One side of a connection that is passed on.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Its socket, where its bytes are those of a TCP connection just as they are.
    fn socket(&self) -> Option<&TcpStream>;
    /// Makes its end a reset: what the peer has got is not all there was.
    fn reset_at_close(&self);
}

impl Side for Io {
    fn socket(&self) -> Option<&TcpStream> {
        Self::socket(self)
    }

    fn reset_at_close(&self) {
        Self::reset_at_close(self);
    }
}

/// Passes bytes until both sides have ended, or one breaks: then the other's end is made a reset, since it must not take
/// this for an end.
///
/// # Errors
/// The side that broke: what it had said is lost.
pub(crate) async fn relay(
    client: &mut impl Side,
    upstream: &mut impl Side,
    room: &Room,
    passed: &Passed,
) -> Result<(), Broken> {
    let (mut up, mut down) = (Way::default(), Way::default());
    let ended = std::future::poll_fn(|cx| {
        let up = up.poll(cx, client, upstream, room, |count| passed.take(&passed.received, count));
        if let Poll::Ready(Err(fault)) = up {
            return Poll::Ready(Err(match fault {
                Fault::Reader => Broken::Client,
                Fault::Writer => Broken::Upstream,
            }));
        }
        let down = down.poll(cx, upstream, client, room, |count| passed.take(&passed.sent, count));
        if let Poll::Ready(Err(fault)) = down {
            return Poll::Ready(Err(match fault {
                Fault::Reader => Broken::Upstream,
                Fault::Writer => Broken::Client,
            }));
        }
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    match ended {
        Ok(()) => {}
        Err(Broken::Client) => upstream.reset_at_close(),
        Err(Broken::Upstream) => client.reset_at_close(),
    }
    ended
}

impl Passed {
    /// Waits until nothing has passed for so long; zero: for ever.
    pub(crate) async fn silence(&self, idle: Duration) {
        let silent = || if idle.is_zero() { None } else { self.active.get().checked_add(idle) };
        loop {
            match silent() {
                None => std::future::pending().await,
                Some(until) if until <= Instant::now() => return,
                Some(until) => tokio::time::sleep_until(until).await,
            }
        }
    }

    fn take(&self, way: &Cell<u64>, count: usize) {
        way.set(way.get() + count as u64);
        self.active.set(Instant::now());
    }
}

impl Way {
    /// Ready when the reader's end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Side,
        to: &mut impl Side,
        room: &Room,
        count: impl Fn(usize),
    ) -> Poll<Result<(), Fault>> {
        loop {
            if self.told {
                return Poll::Ready(Ok(()));
            }
            ready!(self.write_waiting(cx, to)).map_err(|_| Fault::Writer)?;
            if self.ended {
                // On TLS this sends what is unflushed and `close_notify`, then FIN.
                match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    Ok(()) => self.told = true,
                    // It has closed already: it hears nothing any more, and that is no fault.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => self.told = true,
                    Err(_) => return Poll::Ready(Err(Fault::Writer)),
                }
                continue;
            }
            if self.splices(from, to, room) {
                ready!(self.splice(cx, from, to, &count))?;
                continue;
            }
            match self.copy(cx, from, to, room, &count)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if self.unflushed && Pin::new(&mut *to).poll_flush(cx).map_err(|_| Fault::Writer)?.is_ready() {
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes what waits, and lets go of its buffer.
    fn write_waiting(&mut self, cx: &mut Context<'_>, to: &mut impl Side) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        if !self.waiting.is_empty() {
            (self.waiting, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what was read; what is not taken waits.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Side,
        to: &mut impl Side,
        room: &Room,
        count: &impl Fn(usize),
    ) -> Result<Poll<()>, Fault> {
        let most = TCP_READ_BYTES.get(self.step).copied().unwrap_or(1024);
        let mut buffer = room.buffer.borrow_mut();
        if buffer.len() < most {
            buffer.resize(most, 0);
        }
        let mut read = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        match Pin::new(&mut *from).poll_read(cx, &mut read) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(error)) if is_end(&error) => {}
            Poll::Ready(Err(_)) => return Err(Fault::Reader),
            Poll::Ready(Ok(())) => {}
        }
        let said = read.filled();
        if said.is_empty() {
            self.ended = true;
            return Ok(Poll::Ready(()));
        }
        count(said.len());
        self.copied = self.copied.saturating_add(said.len());
        self.busy = said.len() >= TCP_READ_BYTES[1];
        self.unflushed = true;
        let mut rest = said;
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Err(Fault::Writer),
                Poll::Ready(Ok(taken)) => rest = rest.get(taken..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        if !rest.is_empty() {
            // The writer is slower than the reader: less is asked for, so that less waits.
            self.waiting = rest.to_vec();
            self.step = self.step.saturating_sub(1);
        } else if said.len() == most {
            self.step = (self.step + 1).min(TCP_READ_BYTES.len() - 1);
        }
        Ok(Poll::Ready(()))
    }

    /// Whether the bytes of this way may stay in the kernel.
    fn splices(&mut self, from: &impl Side, to: &impl Side, room: &Room) -> bool {
        if from.socket().is_none() || to.socket().is_none() {
            return false;
        }
        if self.pipe.is_none() && self.busy && self.copied >= TCP_PIPE_AFTER_BYTES {
            self.pipe = room.pipes.open();
        }
        self.pipe.is_some()
    }

    /// Moves bytes by way of the pipe until the reader is silent or ends.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Side,
        to: &impl Side,
        count: &impl Fn(usize),
    ) -> Poll<Result<(), Fault>> {
        let (Some(pipe), Some(from), Some(to)) = (&mut self.pipe, from.socket(), to.socket()) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            ready!(pipe.drain(cx, to)).map_err(|_| Fault::Writer)?;
            match ready!(pipe.fill(cx, from)) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Ok(()));
                }
                Ok(moved) => count(moved),
                Err(_) => return Poll::Ready(Err(Fault::Reader)),
            }
        }
    }
}

/// A peer that closes TLS without saying so ends as one that does: what the bytes mean is not ours to tell.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

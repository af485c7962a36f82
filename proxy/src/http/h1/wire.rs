//! One connection that carries HTTP/1: its socket, what was read and not yet understood, what waits to be written.
//!
//! Bytes come in by way of the stack and are kept in memory of their own size, so an idle connection holds no buffer and
//! a slow peer cannot make a small piece keep a large one; where the stack's room was filled, the next read goes into a
//! buffer of its own. Nothing is read unless someone asks for it.
//! Never here: whose turn it is (`server`, `client`). Held by both, and by the bodies they give out.

use std::{
    cell::RefCell,
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    framing::{Cutter, Framing, FramingError, Next},
    patience::{Patience, Stall},
    queue::Queue,
    response::Response,
    write,
};
use crate::{
    io::Io,
    limits::{READ_BYTES_MAX, READ_FIRST_BYTES},
};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the exchange of this body is over")]
    Over,
    #[error("nothing came for too long")]
    TimedOut,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) io: Io,
    pub(super) input: BytesMut,
    /// The peer has said that it sends no more.
    pub(super) ended: bool,
    /// Size of the next read that goes into a buffer of its own; 0: by way of the stack.
    bulk: usize,
    pub(super) out: Queue,
    /// The body that is being read.
    pub(super) cutter: Cutter,
    /// The number of the exchange; bodies of earlier ones read nothing.
    pub(super) turn: u32,
    /// Whether the client waits for `100 Continue`.
    pub(super) awaited: bool,
    /// Whether the client understands interim replies.
    pub(super) informs: bool,
    /// Whether the upstream lets the connection go on after this exchange.
    pub(super) keeps: bool,
    /// Whether what the peer sent is no body, or stopped to come: nothing after it can be understood.
    pub(super) failed: bool,
    /// Whether something of the request has not been sent, and perhaps never will.
    pub(super) unsent: bool,
    /// Between two pieces of a body; none: no limit.
    body_limit: Option<Duration>,
    pub(super) patience: Patience,
    heard: Option<Instant>,
    /// Who reads the body and waits for more of it.
    reader: Option<Waker>,
    /// Who watches for the client's leaving, while the body is another's to read.
    watcher: Option<Waker>,
    stall: Stall,
    /// The connection ends without a goodbye.
    reset: bool,
}

/// A connection as it is shared by its driver and the body that is being read from it.
pub(crate) type Shared = Rc<RefCell<Wire>>;

impl Wire {
    pub(crate) fn shared(io: Io, body_limit: Option<Duration>) -> Shared {
        Rc::new(RefCell::new(Self {
            io,
            input: BytesMut::new(),
            ended: false,
            bulk: 0,
            out: Queue::default(),
            cutter: Cutter::Done,
            turn: 0,
            awaited: false,
            informs: false,
            keeps: false,
            unsent: false,
            failed: false,
            body_limit,
            patience: Patience::default(),
            heard: None,
            reader: None,
            watcher: None,
            stall: Stall::default(),
            reset: false,
        }))
    }

    /// Begins to read a body; gives its turn.
    pub(super) fn begin(&mut self, framing: Framing) -> u32 {
        self.cutter = Cutter::new(framing);
        self.turn = self.turn.wrapping_add(1);
        (self.heard, self.reader, self.watcher) = (None, None, None);
        self.turn
    }

    /// From here on the rest of the body is the driver's: whoever read it, perhaps a task that still sends it, is told that
    /// the exchange is over. Two that cut from one body would each get a part.
    pub(super) fn end_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Reads what is there; 0 bytes: the peer sends no more.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = if self.bulk == 0 {
            let mut room = [const { MaybeUninit::uninit() }; READ_FIRST_BYTES];
            let mut read = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            self.input.extend_from_slice(read.filled());
            let count = read.filled().len();
            if count == READ_FIRST_BYTES {
                self.bulk = READ_FIRST_BYTES * 2;
            }
            count
        } else {
            ready!(self.poll_fill_bulk(cx))?
        };
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    fn poll_fill_bulk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.input.len();
        self.input.reserve(self.bulk);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        let count = match read {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if count < self.bulk / 2 {
            // Little came: it moves to memory of its own size.
            self.input = BytesMut::from(&self.input[..before + count]);
            self.bulk = 0;
        } else {
            self.bulk = (self.bulk * 2).min(READ_BYTES_MAX);
        }
        read
    }

    /// The next piece of the body of exchange `turn`.
    pub(super) fn poll_body(
        &mut self,
        turn: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        if turn != self.turn {
            return Poll::Ready(Some(Err(WireError::Over)));
        }
        let Poll::Ready(piece) = self.poll_piece(cx) else {
            keep(&mut self.reader, cx);
            return Poll::Pending;
        };
        self.reader = None;
        self.failed |= piece.is_err();
        if self.cutter.is_done()
            && let Some(watcher) = self.watcher.take()
            && !watcher.will_wake(cx.waker())
        {
            watcher.wake();
        }
        Poll::Ready(piece.transpose())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, WireError>> {
        loop {
            match self.cutter.next(&mut self.input, self.ended)? {
                Next::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Next::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Next::End => return Poll::Ready(Ok(None)),
                Next::More => {}
            }
            if self.awaited {
                self.awaited = false;
                self.out.text().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // What cannot be written now is written with the reply.
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(error.into()));
                }
            }
            match self.poll_fill(cx)? {
                Poll::Ready(_) => self.heard = None,
                Poll::Pending => return self.poll_patience(cx).map(|()| Err(WireError::TimedOut)),
            }
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.body_limit else { return Poll::Pending };
        let since = *self.heard.get_or_insert_with(Instant::now);
        self.patience.poll(cx, since + limit)
    }

    /// Tells the client an interim reply.
    pub(crate) fn inform(&mut self, interim: &Response, cx: &mut Context<'_>) {
        if self.informs {
            write::interim(self.out.text(), &interim.parts, &interim.spelling);
            // What cannot be written now is written with the reply; where the client has gone, that will show it.
            let _written = self.poll_flush(cx).is_ready();
        }
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.out.poll_flush(Pin::new(&mut self.io), cx);
        self.stall.saw(flushed.is_pending(), self.out.sent());
        flushed
    }

    /// Ready when the peer has taken nothing of what waits for it for as long as `limit`.
    pub(super) fn poll_stalled(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        self.stall.poll(limit, cx)
    }

    /// Makes the connection's end a reset: nobody takes it for the end of what was sent, and what waits goes nowhere.
    pub(super) fn reset(&mut self) {
        self.reset = true;
        self.io.reset_at_close();
    }

    /// While a request is worked on: an error tells that its client is gone. What comes early stays within one read; a
    /// client that sends no more may still wait for the reply. While someone waits for its body, he learns it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.cutter.is_done() {
            keep(&mut self.watcher, cx);
        }
        if self.reader.is_some() || self.ended || !self.input.is_empty() {
            return Poll::Pending;
        }
        match self.poll_fill(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Says to the peer that no more will come.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Whether the exchange has ended so that another may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keeps && !self.unsent && self.cutter.is_done()
    }

    /// Whether a connection that nobody uses is still good: the peer has neither closed it nor said a word unasked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        if !self.input.is_empty() || self.ended || !self.out.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_fill(&mut cx).is_pending()
    }

    /// Lets go of memory that only an exchange needs.
    pub(crate) fn rest(&mut self) {
        self.out.clear();
        self.bulk = 0;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }
}

/// Keeps who is to be woken.
fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl Drop for Wire {
    /// Says goodbye as far as that needs no waiting: over TLS the peer is told that this is the end.
    fn drop(&mut self) {
        if self.reset {
            return;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _gone = self.poll_shutdown(&mut cx).is_ready();
    }
}

//! Bytes on their way out of a connection: small pieces are gathered, a large one is passed on as it is.
//!
//! Holds at most one large piece, so that whoever fills it must wait for the socket.
//! Never here: what the bytes mean. Used by `wire`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Pieces up to this size are copied next to the head: one write, and a copy costs less than a second piece.
const SMALL_BYTES: usize = 4 * 1024;
/// Gathered bytes past which no more are taken.
const GATHERED_BYTES: usize = 16 * 1024;

/// What waits to be written, in order: `gathered`, `large`, `after`.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    gathered: Vec<u8>,
    /// Bytes of `gathered` that have left.
    gone: usize,
    large: Option<Bytes>,
    after: Vec<u8>,
    /// Whether anything has left since [`Queue::begin`].
    touched: bool,
}

impl Queue {
    /// A new message begins.
    pub(crate) fn begin(&mut self) {
        self.touched = false;
    }

    /// Whether bytes have left since the message began.
    pub(crate) fn touched(&self) -> bool {
        self.touched
    }

    /// Where small pieces are written to.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        if self.large.is_some() { &mut self.after } else { &mut self.gathered }
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() <= SMALL_BYTES || self.large.is_some() {
            self.text().extend_from_slice(&piece);
        } else {
            self.large = Some(piece);
        }
    }

    /// Whether more may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.large.is_none() && self.gathered.len() - self.gone < GATHERED_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.large.is_none()
    }

    /// Drops everything, the memory too.
    pub(crate) fn clear(&mut self) {
        *self = Self { touched: self.touched, ..Self::default() };
    }

    /// Writes all of it.
    pub(crate) fn poll_flush(
        &mut self,
        mut io: Pin<&mut (impl AsyncWrite + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let gathered = &self.gathered[self.gone..];
            let count = match &self.large {
                None => ready!(io.as_mut().poll_write(cx, gathered))?,
                Some(large) => {
                    let pieces = [IoSlice::new(gathered), IoSlice::new(large), IoSlice::new(&self.after)];
                    let from = usize::from(gathered.is_empty());
                    ready!(io.as_mut().poll_write_vectored(cx, &pieces[from..]))?
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            self.advance(count);
        }
        io.poll_flush(cx)
    }

    fn advance(&mut self, mut count: usize) {
        let gathered = count.min(self.gathered.len() - self.gone);
        self.gone += gathered;
        count -= gathered;
        if self.gone == self.gathered.len() {
            self.gathered.clear();
            self.gone = 0;
        }
        if let Some(large) = &mut self.large {
            let part = count.min(large.len());
            large.advance(part);
            count -= part;
            if large.is_empty() {
                self.large = None;
                std::mem::swap(&mut self.gathered, &mut self.after);
                self.gone = count;
                if self.gone == self.gathered.len() {
                    self.gathered.clear();
                    self.gone = 0;
                }
            }
        }
    }
}

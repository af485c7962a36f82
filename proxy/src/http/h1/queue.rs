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

use crate::limits::{GATHERED_BYTES_MAX, SMALL_PIECE_BYTES};

/// What waits to be written, in order: `gathered`, `large`, `after`.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    gathered: Vec<u8>,
    /// Bytes of `gathered` that have left.
    gone: usize,
    large: Option<Bytes>,
    after: Vec<u8>,
    /// Bytes that have left, and how many had when the message began.
    sent: u64,
    began: u64,
}

impl Queue {
    /// A new message begins.
    pub(crate) fn begin(&mut self) {
        self.began = self.sent;
    }

    /// Whether bytes have left since the message began.
    pub(crate) fn touched(&self) -> bool {
        self.sent > self.began
    }

    /// Bytes that have left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Where small pieces are written to.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        if self.large.is_some() { &mut self.after } else { &mut self.gathered }
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() <= SMALL_PIECE_BYTES || self.large.is_some() {
            self.text().extend_from_slice(&piece);
        } else {
            self.large = Some(piece);
        }
    }

    /// Whether more may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.large.is_none() && self.gathered.len() - self.gone < GATHERED_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.large.is_none()
    }

    /// Drops everything, the memory too.
    pub(crate) fn clear(&mut self) {
        *self = Self { sent: self.sent, began: self.began, ..Self::default() };
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
            self.sent += count as u64;
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A socket that takes a few bytes at a time.
    struct Slow {
        taken: Vec<u8>,
        steps: Vec<usize>,
        turn: usize,
    }

    impl Slow {
        fn step(&mut self) -> usize {
            self.turn += 1;
            self.steps[self.turn % self.steps.len()]
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = self.step().min(bytes.len());
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            let count = self.step().min(all.len());
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn however_little_the_socket_takes_the_order_stays(
            pieces in vec((0..3_usize, 0..10_000_usize), 1..6),
            steps in vec(1..7_000_usize, 1..5),
        ) {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let (mut queue, mut meant) = (Queue::default(), Vec::new());
            let mut socket = Slow { taken: Vec::new(), steps, turn: 0 };
            for (at, (before, size)) in pieces.into_iter().enumerate() {
                let byte = b'a' + u8::try_from(at).unwrap();
                queue.text().extend(vec![b'0'; before]);
                queue.push(vec![byte; size].into());
                queue.text().extend_from_slice(b"\r\n");
                meant.extend([vec![b'0'; before], vec![byte; size], b"\r\n".to_vec()].concat());
                if !queue.has_room() {
                    prop_assert!(queue.poll_flush(Pin::new(&mut socket), &mut cx).is_ready());
                    prop_assert!(queue.is_empty() && queue.has_room());
                }
            }
            prop_assert!(queue.poll_flush(Pin::new(&mut socket), &mut cx).is_ready());
            prop_assert_eq!(socket.taken, meant);
        }
    }
}

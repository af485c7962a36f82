//! Counts the frames of one HTTP/2 connection, and says when a peer has asked for too much.
//!
//! New streams and data are free. Resets have a budget of their own; what is legal and of no use adds up as glitches,
//! which wear off with time. Answers earn the frames that answers need: window updates, pings, priorities.
//! Never here: bytes that are passed on (`guard`), clocks (they are arguments). Made by `codec` and `upstream::http2`.

mod books;
mod ways;

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Excess,
    frame::{Head, Kind, Scanner, Stopped},
};
use crate::limits::{FLUSH_TIMEOUT, H2Budget, HEAD_TIMEOUT};
use books::{Books, Stream};
use ways::{Inward, Outward, Small};

/// The client's preface (RFC 9113, 3.4), which is no frame.
pub(super) const PREFACE_BYTES: usize = 24;

/// Which side of the connection is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// We take requests.
    Server,
    /// We send requests.
    Client,
}

/// One way of a connection.
#[derive(Debug)]
struct Way {
    scanner: Scanner,
    head: Head,
    small: Small,
}

impl Way {
    fn new(preface: usize) -> Self {
        let head = Head { length: 0, kind: Kind::Unknown, flags: 0, stream: 0 };
        Self { scanner: Scanner::new(preface), head, small: Small::default() }
    }
}

/// What a look at the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Requests are under way, or were not long ago.
    Busy,
    /// No request for so long.
    Idle(Duration),
    /// The peer had its time.
    Over(Excess),
}

/// The account of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    inward: Way,
    outward: Way,
    books: Books,
    /// The frame or block that was under way, by number, and since when.
    slow: Option<(u64, Instant)>,
    /// DATA bytes sent when a reply was first seen without room.
    stalled: Option<(u64, Instant)>,
    /// Streams opened when none was seen open.
    idle: (u64, Instant),
}

impl Meter {
    /// A new connection.
    pub(crate) fn new(side: Side, budget: &'static H2Budget, now: Instant) -> Self {
        let (inward, outward) = match side {
            Side::Server => (PREFACE_BYTES, 0),
            Side::Client => (0, PREFACE_BYTES),
        };
        Self {
            inward: Way::new(inward),
            outward: Way::new(outward),
            books: Books::new(side, budget, now),
            slow: Some((0, now)),
            stalled: None,
            idle: (0, now),
        }
    }

    /// Bytes from the peer. The clock is asked only where a frame needs it.
    pub(super) fn receive(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Stopped> {
        let Way { scanner, head, small } = &mut self.inward;
        scanner.scan(bytes, &mut Inward { books: &mut self.books, head, small, now })
    }

    /// Bytes that went to the peer.
    pub(super) fn send(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Excess> {
        let Way { scanner, head, small } = &mut self.outward;
        let sink = &mut Outward { books: &mut self.books, head, small, now };
        scanner.scan(bytes, sink).map_err(|stopped| stopped.excess)
    }

    /// Whether the peer has told its settings.
    pub(super) fn is_told(&self) -> bool {
        self.books.told
    }

    /// How many bytes end the frame that is being sent; none: nothing is under way.
    pub(super) fn sending(&self) -> Option<usize> {
        (!self.outward.scanner.between()).then(|| self.outward.scanner.rest())
    }

    /// The newest stream that the peer opened.
    pub(super) fn newest(&self) -> u32 {
        if self.books.side == Side::Server { self.books.newest } else { 0 }
    }

    /// Looks at what has been going on for too long; to be asked every few seconds. `blocked`: the peer takes no bytes.
    pub(super) fn look(&mut self, blocked: bool, now: Instant) -> Look {
        let books = &self.books;
        let reading = !self.inward.scanner.between() && self.inward.head.kind != Kind::Data;
        let under_way = match &books.block {
            Some(block) => Some(block.frame),
            // A client must say what it came for; an upstream may take its time before its first word.
            None => ((books.frames == 0 && books.side == Side::Server) || reading).then_some(books.frames),
        };
        match (under_way, self.slow) {
            (Some(frame), Some((same, since))) if frame == same => {
                if now.duration_since(since) >= HEAD_TIMEOUT {
                    return Look::Over(Excess::Late);
                }
            }
            (Some(frame), _) => self.slow = Some((frame, now)),
            (None, _) => self.slow = None,
        }
        let stalls = books.budget.streams_stall;
        let full = |s: &Stream| s.replying && ((stalls && s.window <= 0) || books.window <= 0);
        match self.stalled {
            _ if !blocked && !books.streams.values().any(full) => self.stalled = None,
            Some((sent, since)) if sent == books.sent => {
                if now.duration_since(since) >= FLUSH_TIMEOUT {
                    return Look::Over(Excess::Stalled);
                }
            }
            _ => self.stalled = Some((books.sent, now)),
        }
        if !books.streams.is_empty() || self.idle.0 != books.opened {
            self.idle = (books.opened, now);
            return Look::Busy;
        }
        Look::Idle(now.duration_since(self.idle.1))
    }

    /// Bytes that this account holds.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        size_of::<Self>() + self.books.streams.allocation_size()
    }
}

#[cfg(test)]
mod tests;

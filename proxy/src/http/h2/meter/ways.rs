//! What each frame means for the books: of the peer's, and of ours.
//!
//! Never here: budgets (`books`) or finding frames (`frame`). Made by `meter` for each piece of bytes.

use tokio::time::Instant;

use super::{
    super::{
        Excess,
        frame::{ACK, END_HEADERS, END_STREAM, Head, Kind, Sink},
    },
    Side,
    books::Books,
};
use crate::limits::{GLITCH_STREAM_ERROR, H2_SETTINGS_MAX};

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 0x4;

/// The payload of a frame whose first bytes are of interest.
#[derive(Debug, Default)]
pub(super) struct Small {
    bytes: [u8; 6],
    have: usize,
}

impl Small {
    /// Collects up to `want` bytes at a time; calls with each full set.
    fn each(&mut self, piece: &[u8], want: usize, mut full: impl FnMut(&[u8; 6])) {
        for byte in piece {
            self.bytes[self.have] = *byte;
            self.have += 1;
            if self.have == want {
                full(&self.bytes);
                self.have = 0;
            }
        }
    }
}

/// What is read of a frame of the peer's besides its head.
enum Payload {
    /// A piece of a header block.
    Block,
    Settings,
    /// How much a window grows.
    Window,
    Passed,
}

impl Payload {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Headers | Kind::Continuation => Self::Block,
            Kind::Settings => Self::Settings,
            Kind::WindowUpdate => Self::Window,
            Kind::Data
            | Kind::Reset
            | Kind::Ping
            | Kind::Priority
            | Kind::PriorityUpdate
            | Kind::GoAway
            | Kind::Unknown
            | Kind::PushPromise => Self::Passed,
        }
    }
}

/// What the peer sends.
pub(super) struct Inward<'m, F> {
    pub(super) books: &'m mut Books,
    pub(super) head: &'m mut Head,
    pub(super) small: &'m mut Small,
    pub(super) now: F,
}

impl<F: Fn() -> Instant> Sink for Inward<'_, F> {
    fn head(&mut self, head: Head) -> Result<bool, Excess> {
        let (books, now) = (&mut *self.books, &self.now);
        *self.head = head;
        self.small.have = 0;
        books.frames += 1;
        match head.kind {
            Kind::Data => {
                if head.length == 0 && !head.has(END_STREAM) {
                    books.glitch(1, now())?;
                }
                if books.side == Side::Client && head.has(END_STREAM) {
                    books.streams.remove(&head.stream);
                }
            }
            Kind::Headers => books.headers(head, now)?,
            Kind::Continuation => books.continuation(head, now)?,
            Kind::Reset => books.reset(head.stream, now())?,
            Kind::Settings => {
                books.told |= !head.has(ACK);
                books.glitch(1, now())?;
                if head.length / 6 > H2_SETTINGS_MAX {
                    return Err(Excess::Settings);
                }
            }
            Kind::Ping | Kind::Priority | Kind::PriorityUpdate | Kind::WindowUpdate => books.control(now)?,
            Kind::GoAway | Kind::Unknown => books.glitch(1, now())?,
            Kind::PushPromise => books.glitch(GLITCH_STREAM_ERROR, now())?,
        }
        Ok(match Payload::of(head.kind) {
            Payload::Block => books.block.is_some(),
            Payload::Settings => !head.has(ACK),
            Payload::Window => head.length == 4,
            Payload::Passed => false,
        })
    }

    fn payload(&mut self, piece: &[u8], last: bool) -> Result<(), Excess> {
        let (books, head) = (&mut *self.books, *self.head);
        match Payload::of(head.kind) {
            Payload::Block => return books.block_bytes(piece, last && head.has(END_HEADERS), &self.now),
            Payload::Settings => self.small.each(piece, 6, |[a, b, value @ ..]| {
                if u16::from_be_bytes([*a, *b]) == INITIAL_WINDOW_SIZE {
                    books.first_window(u32::from_be_bytes(*value));
                }
            }),
            Payload::Window => self.small.each(piece, 4, |[a, b, c, d, ..]| {
                books.more_room(head.stream, u32::from_be_bytes([*a, *b, *c, *d]));
            }),
            Payload::Passed => {}
        }
        Ok(())
    }
}

/// What we send.
pub(super) struct Outward<'m, F> {
    pub(super) books: &'m mut Books,
    pub(super) head: &'m mut Head,
    pub(super) small: &'m mut Small,
    pub(super) now: F,
}

impl<F: Fn() -> Instant> Sink for Outward<'_, F> {
    fn head(&mut self, head: Head) -> Result<bool, Excess> {
        let books = &mut *self.books;
        *self.head = head;
        self.small.have = 0;
        let server = books.side == Side::Server;
        match head.kind {
            Kind::Data => books.data(head),
            Kind::Headers if server && head.has(END_STREAM) => {
                books.streams.remove(&head.stream);
            }
            Kind::Headers if server => {
                if let Some(stream) = books.streams.get_mut(&head.stream) {
                    stream.replying = true;
                }
            }
            Kind::Headers => books.ask(head.stream, &self.now)?,
            Kind::Reset => {
                books.streams.remove(&head.stream);
                return Ok(server);
            }
            Kind::Priority
            | Kind::Settings
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::PriorityUpdate
            | Kind::Unknown => {}
        }
        Ok(false)
    }

    fn payload(&mut self, piece: &[u8], _last: bool) -> Result<(), Excess> {
        let mut cost = 0;
        self.small.each(piece, 4, |[_, _, _, code, ..]| {
            cost += match code {
                // NO_ERROR, INTERNAL_ERROR, CANCEL: ours, or the upstream's.
                0x0 | 0x2 | 0x8 => 0,
                // REFUSED_STREAM: it may not have read our limit yet.
                0x7 => 1,
                _ => GLITCH_STREAM_ERROR,
            };
        });
        if cost == 0 { Ok(()) } else { self.books.glitch(cost, (self.now)()) }
    }
}

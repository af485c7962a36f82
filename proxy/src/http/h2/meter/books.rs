//! What a peer has used of its budgets, and the streams and the header block that are open.
//!
//! Never here: reading frames (`ways`). Kept by `meter`.

use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{
    super::{
        Excess,
        block::Block,
        frame::{END_STREAM, Head},
    },
    Side,
};
use crate::limits::{EARLY_RESET, GLITCH_STREAM_ERROR, H2_STREAMS_MAX, H2Budget};

/// Window of a connection, and of a stream until settings say otherwise (RFC 9113, 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// Control frames that a stream, and a DATA frame of ours, earn the peer; and how many can be kept.
const EARNED_BY_STREAM: u32 = 2;
const EARNED_BY_DATA: u32 = 20;
const EARNED_MAX: u32 = 2_000;
/// HEADERS that a request of ours earns the peer: interim replies, the reply, trailers.
const HEADERS_PER_REQUEST: u32 = 8;

/// Something that may be used up and comes back with time.
#[derive(Debug)]
struct Bucket {
    left: u32,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, cost: u32, (burst, per_second): (u32, u32), now: Instant) -> bool {
        let per_second = u64::from(per_second).max(1);
        let millis = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(per_second) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(burst);
            // What was not enough for a whole one is kept.
            self.at += Duration::from_millis((earned * 1000 / per_second).min(millis));
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// A stream from its request to the end of its reply.
#[derive(Debug)]
pub(super) struct Stream {
    /// What we may still send on it.
    pub(super) window: i64,
    opened: Instant,
    /// The reply has begun.
    pub(super) replying: bool,
}

/// What was used, and what is open.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) side: Side,
    pub(super) budget: &'static H2Budget,
    glitches: Bucket,
    resets: Bucket,
    early: u64,
    pub(super) opened: u64,
    pub(super) newest: u32,
    earned: u32,
    /// Client: HEADERS that the upstream may send.
    headers: u32,
    pub(super) streams: HashMap<u32, Stream, foldhash::fast::RandomState>,
    pub(super) window: i64,
    first_window: i64,
    pub(super) block: Option<Block>,
    pub(super) frames: u64,
    pub(super) sent: u64,
    /// The peer has told its settings.
    pub(super) told: bool,
}

impl Books {
    pub(super) fn new(side: Side, budget: &'static H2Budget, now: Instant) -> Self {
        let full = |(burst, _): (u32, u32)| Bucket { left: burst, at: now };
        Self {
            side,
            budget,
            glitches: full(budget.glitches),
            resets: full(budget.resets),
            early: 0,
            opened: 0,
            newest: 0,
            earned: 0,
            headers: HEADERS_PER_REQUEST,
            streams: HashMap::default(),
            window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            block: None,
            frames: 0,
            sent: 0,
            told: false,
        }
    }

    pub(super) fn glitch(&mut self, cost: u32, now: Instant) -> Result<(), Excess> {
        if self.glitches.take(cost, self.budget.glitches, now) { Ok(()) } else { Err(Excess::Glitches) }
    }

    /// A frame that is earned by answers, or a glitch.
    pub(super) fn control(&mut self, now: impl Fn() -> Instant) -> Result<(), Excess> {
        match self.earned.checked_sub(1) {
            Some(left) => {
                self.earned = left;
                Ok(())
            }
            None => self.glitch(1, now()),
        }
    }

    pub(super) fn earn(&mut self, count: u32) {
        self.earned = self.earned.saturating_add(count).min(EARNED_MAX);
    }

    /// A stream begins, whoever opens it.
    pub(super) fn open(&mut self, stream: u32, now: Instant) -> Result<(), Excess> {
        self.newest = stream;
        self.opened += 1;
        self.earn(EARNED_BY_STREAM);
        self.streams.insert(stream, Stream { window: self.first_window, opened: now, replying: false });
        // Those beyond the limit are refused by the codec at once; many more than that do not come by chance.
        let most = usize::try_from(H2_STREAMS_MAX * 4).unwrap_or(usize::MAX);
        if self.streams.len() > most { Err(Excess::Streams) } else { Ok(()) }
    }

    /// The peer gives up a stream.
    pub(super) fn reset(&mut self, stream: u32, now: Instant) -> Result<(), Excess> {
        // It may have ended by itself while this was on its way.
        let stream = match (self.streams.remove(&stream), self.side) {
            (Some(stream), Side::Server) => stream,
            // It refuses what we asked for, as often as we ask.
            (Some(_), Side::Client) => return Ok(()),
            // The stream may have ended by itself while this was on its way.
            (None, _) => return self.control(|| now),
        };
        if !self.resets.take(1, self.budget.resets, now) {
            return Err(Excess::Resets);
        }
        if now.duration_since(stream.opened) < EARLY_RESET {
            self.early += 1;
        }
        match self.budget.early_resets_after {
            Some(streams) if self.opened > streams && self.early * 2 > self.opened => Err(Excess::EarlyResets),
            _ => Ok(()),
        }
    }

    /// A header block begins.
    pub(super) fn headers(&mut self, head: Head, now: impl Fn() -> Instant) -> Result<(), Excess> {
        let trailers = head.stream <= self.newest && self.side == Side::Server;
        match self.side {
            Side::Server if !trailers => self.open(head.stream, now())?,
            Side::Server => {}
            Side::Client => {
                match self.headers.checked_sub(1) {
                    Some(left) => self.headers = left,
                    None => self.glitch(1, now())?,
                }
                if head.has(END_STREAM) {
                    self.streams.remove(&head.stream);
                }
            }
        }
        self.block = Block::begin(head, self.frames, trailers)?;
        Ok(())
    }

    /// A header block goes on.
    pub(super) fn continuation(&mut self, head: Head, now: impl Fn() -> Instant) -> Result<(), Excess> {
        if head.length == 0 {
            self.glitch(GLITCH_STREAM_ERROR, now())?;
        }
        self.block = match self.block.take() {
            Some(block) => block.go_on(head)?,
            None => None,
        };
        Ok(())
    }

    /// Bytes of a header block.
    pub(super) fn block_bytes(&mut self, piece: &[u8], ends: bool, now: impl Fn() -> Instant) -> Result<(), Excess> {
        if let Some(block) = &mut self.block
            && block.read(piece)?
        {
            self.glitch(GLITCH_STREAM_ERROR, now())?;
        }
        if ends {
            self.block = None;
        }
        Ok(())
    }

    /// A request of ours: the upstream may answer it.
    pub(super) fn ask(&mut self, stream: u32, now: impl Fn() -> Instant) -> Result<(), Excess> {
        if stream <= self.newest {
            return Ok(());
        }
        self.headers = self.headers.saturating_add(HEADERS_PER_REQUEST).min(EARNED_MAX);
        self.open(stream, now())
    }

    /// DATA of ours.
    pub(super) fn data(&mut self, head: Head) {
        let length = i64::from(head.length);
        self.window -= length;
        self.sent += u64::from(head.length);
        self.earn(EARNED_BY_DATA);
        if self.side == Side::Server && head.has(END_STREAM) {
            self.streams.remove(&head.stream);
        } else if let Some(stream) = self.streams.get_mut(&head.stream) {
            stream.window -= length;
        }
    }

    /// The windows of all streams move with the first one.
    pub(super) fn first_window(&mut self, value: u32) {
        let by = i64::from(value) - self.first_window;
        self.first_window = i64::from(value);
        for stream in self.streams.values_mut() {
            stream.window += by;
        }
    }

    pub(super) fn more_room(&mut self, stream: u32, by: u32) {
        let by = i64::from(by & 0x7fff_ffff);
        match self.streams.get_mut(&stream) {
            Some(stream) => stream.window += by,
            None if stream == 0 => self.window += by,
            None => {}
        }
    }
}

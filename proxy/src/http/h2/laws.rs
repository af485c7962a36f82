//! What must hold for the meter, whatever happens on a connection.
//!
//! Never here: budgets and their numbers (`meter`'s tests). Used by the replay of the corpus and by the fuzz target.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Excess,
    meter::{Look, Meter, PREFACE_BYTES, Side},
};
use crate::limits::{H2_MEMBER, H2_STRANGER};

/// Bytes of all steps together, so that one input stays quick.
const BYTES_MAX: usize = 20 * 1024;
/// Bytes of a frame's head (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;

/// What happens on a connection.
#[derive(Debug, Clone, Copy)]
enum Step<'i> {
    Receive(&'i [u8]),
    Send(&'i [u8]),
    Later(Duration),
    Look { blocked: bool },
}

/// Reads steps from an input: a kind, a count, two bytes of length, and so many bytes, which happen as often as counted.
fn steps(mut input: &[u8]) -> Vec<Step<'_>> {
    let (mut steps, mut total) = (Vec::new(), 0);
    while let [kind, count, high, low, rest @ ..] = input {
        let number = usize::from(u16::from_be_bytes([*high, *low]));
        match kind % 4 {
            kind @ (0 | 1) => {
                let (bytes, after) = rest.split_at(number.min(rest.len()));
                let times = (1 + usize::from(*count)).min((BYTES_MAX - total) / bytes.len().max(1));
                total += times * bytes.len();
                let step = if kind == 0 { Step::Receive(bytes) } else { Step::Send(bytes) };
                steps.extend(std::iter::repeat_n(step, times));
                input = after;
                continue;
            }
            2 => steps.push(Step::Later(Duration::from_millis(number as u64 * u64::from(*count)))),
            _ => steps.push(Step::Look { blocked: number & 1 == 1 }),
        }
        input = rest;
    }
    steps
}

/// What the meter made of some steps.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// At which step it was too much.
    over: Option<(usize, Excess)>,
    looks: Vec<Look>,
    newest: u32,
    /// Whether a frame is being sent, where nothing was too much.
    sending: bool,
}

/// One header block can be too much in several ways; which of them is seen first depends on its pieces.
fn first_seen(excess: Excess) -> Excess {
    if matches!(excess, Excess::Fields | Excess::Trailers) { Excess::Glitches } else { excess }
}

/// Takes the steps, bytes in pieces of a size.
fn take(side: Side, member: bool, steps: &[Step<'_>], size: usize) -> Said {
    let mut now = Instant::now();
    let began = now;
    let mut meter = Meter::new(side, if member { &H2_MEMBER } else { &H2_STRANGER }, now);
    let (mut over, mut looks) = (None, Vec::new());
    for (at, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Receive(bytes) => bytes.chunks(size).try_for_each(|piece| {
                let received = meter.receive(piece, || now);
                received.map_err(|stopped| {
                    assert!(stopped.after <= piece.len(), "what passes is no more than what came");
                    stopped.excess
                })
            }),
            Step::Send(bytes) => bytes.chunks(size).try_for_each(|piece| meter.send(piece, || now)),
            Step::Later(time) => {
                now += *time;
                Ok(())
            }
            Step::Look { blocked } => match meter.look(*blocked, now) {
                Look::Over(excess) => Err(excess),
                look @ (Look::Busy | Look::Idle(_)) => {
                    if let Look::Idle(idle) = look {
                        assert!(idle <= now - began, "nothing is idle longer than it lives");
                    }
                    looks.push(look);
                    Ok(())
                }
            },
        };
        if let Err(excess) = done {
            over = Some((at, first_seen(excess)));
            break;
        }
    }
    let sending = over.is_none() && meter.sending().is_some();
    Said { over, looks, newest: meter.newest(), sending }
}

/// The frames of a direction, found without the meter: the highest stream of HEADERS, and whether one is under way.
fn walk(bytes: &[u8], preface: usize) -> (u32, bool) {
    let (mut at, mut newest) = (preface, 0);
    while let Some([l0, l1, l2, kind, _, s0, s1, s2, s3]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEAD_BYTES>)
    {
        if *kind == HEADERS {
            newest = newest.max(u32::from_be_bytes([s0 & 0x7f, *s1, *s2, *s3]));
        }
        at += HEAD_BYTES + u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
    }
    (newest, at != bytes.len())
}

/// What must hold for an input: side, budget and size of pieces, then steps.
pub(crate) fn laws(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let side = if first & 1 == 0 { Side::Server } else { Side::Client };
    let member = first & 2 != 0;
    let steps = steps(rest);
    let whole = take(side, member, &steps, BYTES_MAX);
    let size = 1 + usize::from(first >> 2) % 16;
    assert_eq!(take(side, member, &steps, size), whole, "in pieces of {size}");
    let all = |sent: bool| {
        let pieces = steps.iter().filter_map(|step| match step {
            Step::Receive(bytes) => (!sent).then_some(*bytes),
            Step::Send(bytes) => sent.then_some(*bytes),
            Step::Later(_) | Step::Look { .. } => None,
        });
        pieces.collect::<Vec<_>>().concat()
    };
    if whole.over.is_some() {
        return;
    }
    let (prefaces, server) = match side {
        Side::Server => ([PREFACE_BYTES, 0], true),
        Side::Client => ([0, PREFACE_BYTES], false),
    };
    let (newest, _) = walk(&all(false), prefaces[0]);
    assert_eq!(whole.newest, if server { newest } else { 0 }, "the newest stream");
    let (_, sending) = walk(&all(true), prefaces[1]);
    assert_eq!(whole.sending, sending, "whether a frame is being sent");
}

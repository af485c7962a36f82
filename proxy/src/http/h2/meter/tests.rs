//! How many frames a peer may send, and what its account holds meanwhile.
//!
//! Never here: the connection around it (`tests::h2`). Run by `cargo test`.

use super::*;
use crate::{
    limits::{H2_MEMBER, H2_STRANGER, H2_STREAMS_MAX},
    tests::h2::raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PLAIN, PREFACE, PRIORITY,
        PUSH_PROMISE, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame, request, upload,
    },
};

/// A connection whose clock stands still.
struct Account {
    meter: Meter,
    now: Instant,
}

impl Account {
    fn new(side: Side, budget: &'static H2Budget) -> Self {
        let now = Instant::now();
        let mut meter = Meter::new(side, budget, now);
        if side == Side::Server {
            meter.receive(PREFACE, || now).unwrap();
        } else {
            meter.send(PREFACE, || now).unwrap();
        }
        Self { meter, now }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        self.meter.receive(bytes, || self.now).map_err(|stopped| stopped.excess)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.meter.send(bytes, || self.now).unwrap();
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
    }
}

/// Receives what `part` gives until it is too much: which, and how often it passed. Little is held all the while.
fn flood(account: &mut Account, part: impl Fn(u32) -> Vec<u8>) -> (Excess, u32) {
    for number in 0..20_000 {
        if let Err(excess) = account.receive(&part(number)) {
            return (excess, number);
        }
        assert!(account.meter.held() < 8 * 1024, "{} bytes after {number}", account.meter.held());
    }
    panic!("there is no end to it");
}

fn check(part: impl Fn(u32) -> Vec<u8>, want: (Excess, u32)) {
    assert_eq!(flood(&mut Account::new(Side::Server, &H2_STRANGER), part), want);
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn streams_that_are_given_up() {
    let early = |n| [request(stream(n), &[]), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat();
    check(early, (Excess::EarlyResets, 100));
    // With others answered between them it is the budget that ends it.
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    for number in 0..3_000 {
        account.receive(&request(stream(number), &[])).unwrap();
        account.send(&frame(HEADERS, WHOLE, stream(number), b"\x88"));
    }
    assert_eq!(flood(&mut account, |n| early(n + 3_000)), (Excess::Resets, 200));
    let mut account = Account::new(Side::Server, &H2_MEMBER);
    for number in 0..10_000 {
        account.receive(&early(number)).unwrap();
    }
}

#[test]
fn resets_come_back_with_time() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    for number in 0..2_000 {
        account.receive(&request(stream(number), &[])).unwrap();
        account.later(Duration::from_millis(1_100));
        account.receive(&frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8])).unwrap();
    }
}

#[test]
fn what_is_of_no_use() {
    check(|_| frame(PING, 0, 0, b"12345678"), (Excess::Glitches, 1_000));
    check(|_| frame(SETTINGS, 0, 0, &[]), (Excess::Glitches, 1_000));
    check(|_| frame(PRIORITY, 0, 1, &[0; 5]), (Excess::Glitches, 1_000));
    check(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), (Excess::Glitches, 1_000));
    check(|_| frame(DATA, 0, 1, b""), (Excess::Glitches, 1_000));
    check(|_| frame(0x42, 0, 0, b"unknown"), (Excess::Glitches, 1_000));
    check(|_| frame(GOAWAY, 0, 0, &[0; 8]), (Excess::Glitches, 1_000));
    check(|_| frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 8]), (Excess::Glitches, 100));
}

#[test]
fn glitches_wear_off() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    for _ in 0..100 {
        for _ in 0..100 {
            account.receive(&frame(PING, 0, 0, b"12345678")).unwrap();
        }
        account.later(Duration::from_secs(1));
    }
    assert_eq!(flood(&mut account, |_| frame(PING, 0, 0, b"12345678")), (Excess::Glitches, 1_000));
}

#[test]
fn answers_earn_control_frames() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    account.receive(&upload(1, &[])).unwrap();
    account.send(&frame(HEADERS, END_HEADERS, 1, b"\x88"));
    for _ in 0..3_000 {
        account.send(&frame(DATA, 0, 1, b"hello"));
        account.receive(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 5]).repeat(20)).unwrap();
    }
}

#[test]
fn streams_that_we_must_end() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    let mut ended = 0;
    let excess = loop {
        account.receive(&upload(stream(ended), &[])).unwrap();
        match account.meter.send(&frame(RST_STREAM, 0, stream(ended), &[0, 0, 0, 1]), || account.now) {
            Ok(()) => ended += 1,
            Err(excess) => break excess,
        }
    };
    assert_eq!((excess, ended), (Excess::Glitches, 100));
}

#[test]
fn header_blocks() {
    let open = |part: &[u8]| {
        let mut account = Account::new(Side::Server, &H2_STRANGER);
        account.receive(&frame(HEADERS, END_STREAM, 1, part)).unwrap();
        account
    };
    let more = |part: &'static [u8]| move |_| frame(CONTINUATION, 0, 1, part);
    assert_eq!(flood(&mut open(b"\x82"), more(b"\x00\x01x\x01y")), (Excess::Continuations, 100));
    assert_eq!(flood(&mut open(b"\x82"), more(b"")), (Excess::Glitches, 100));
    assert_eq!(flood(&mut open(b"\x82"), more(&[0; 4096])), (Excess::Fields, 0));
    // A value of a megabyte: no field more, but bytes.
    assert_eq!(flood(&mut open(b"\x00\x01x\x7f\x81\xff\x3f"), more(&[b'x'; 16_000])), (Excess::BlockBytes, 8));
    check(|n| frame(HEADERS, WHOLE, stream(n), &[0xa0; 401]), (Excess::Fields, 0));
    // Each of these is answered with 431; a hundred of them are enough.
    check(|n| frame(HEADERS, WHOLE, stream(n), &[0xa0; 390]), (Excess::Glitches, 100));
    check(|_| frame(SETTINGS, 0, 0, &[0; 33 * 6]), (Excess::Settings, 0));
}

#[test]
fn padding_and_priority_are_no_fields() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    let padded = [&[200, 0, 0, 0, 0, 16][..], &block(&PLAIN), &[0x82; 200]].concat();
    for number in 0..10 {
        let frame = frame(HEADERS, WHOLE | PADDED | 0x20, stream(number), &padded);
        for piece in frame.chunks(1 + usize::try_from(number).unwrap()) {
            account.receive(piece).unwrap();
        }
    }
}

#[test]
fn trailers_have_no_pseudo_headers() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    account.receive(&upload(1, &[])).unwrap();
    account.receive(&upload(3, &[])).unwrap();
    assert_eq!(account.receive(&frame(HEADERS, WHOLE, 1, &block(&[("x", "y")]))), Ok(()));
    assert_eq!(account.receive(&frame(HEADERS, WHOLE, 3, b"\x84")), Err(Excess::Trailers));
}

#[test]
fn streams_that_nobody_could_want() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    let most = H2_STREAMS_MAX * 4;
    for number in 0..most {
        account.receive(&request(stream(number), &[])).unwrap();
    }
    assert_eq!(account.receive(&request(stream(most), &[])), Err(Excess::Streams));
    assert!(account.meter.held() < 512 * 1024, "{}", account.meter.held());
}

#[test]
fn upstreams() {
    let check = |part: &dyn Fn(u32) -> Vec<u8>, want| {
        let mut account = Account::new(Side::Client, &H2_STRANGER);
        account.send(&request(1, &[]));
        assert_eq!(flood(&mut account, part), want);
    };
    check(&|_| frame(SETTINGS, 0, 0, &[]), (Excess::Glitches, 1_000));
    check(&|_| frame(PING, 0, 0, b"12345678"), (Excess::Glitches, 1_002));
    check(&|_| frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 8]), (Excess::Glitches, 100));
    // Interim replies: what two requests may have, and then glitches.
    check(&|_| frame(HEADERS, END_HEADERS, 1, b"\x08\x03103"), (Excess::Glitches, 1_016));
    check(&|_| frame(HEADERS, END_HEADERS, 1, &[0xa0; 401]), (Excess::Fields, 0));
    let mut account = Account::new(Side::Client, &H2_STRANGER);
    for number in 0..10_000 {
        account.send(&request(stream(number), &[]));
        account.receive(&frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 7])).unwrap();
    }
}

#[test]
fn a_reply_without_room_stalls_and_one_with_room_does_not() {
    let mut account = Account::new(Side::Server, &H2_STRANGER);
    account.receive(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 5])).unwrap();
    account.receive(&request(1, &[])).unwrap();
    let look = |account: &mut Account, after| {
        account.later(Duration::from_secs(after));
        let now = account.now;
        account.meter.look(false, now)
    };
    account.send(&frame(HEADERS, END_HEADERS, 1, b"\x88"));
    for _ in 0..100 {
        assert_eq!(look(&mut account, 5), Look::Busy, "the upstream is slow, not the peer");
    }
    account.send(&frame(DATA, 0, 1, b"hello"));
    assert_eq!(look(&mut account, 5), Look::Busy);
    assert_eq!(look(&mut account, 59), Look::Busy);
    account.receive(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).unwrap();
    assert_eq!(look(&mut account, 5), Look::Busy);
    account.send(&frame(DATA, 0, 1, b"!"));
    assert_eq!(look(&mut account, 5), Look::Busy);
    assert_eq!(look(&mut account, 60), Look::Over(Excess::Stalled));
}

#[test]
fn a_stream_of_a_member_may_wait_for_its_client_and_the_connection_may_not() {
    let mut account = Account::new(Side::Server, &H2_MEMBER);
    account.receive(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 5])).unwrap();
    account.receive(&request(1, &[])).unwrap();
    let look = |account: &mut Account, after| {
        account.later(Duration::from_secs(after));
        let now = account.now;
        account.meter.look(false, now)
    };
    account.send(&frame(HEADERS, END_HEADERS, 1, b"\x88"));
    account.send(&frame(DATA, 0, 1, b"hello"));
    for _ in 0..100 {
        assert_eq!(look(&mut account, 5), Look::Busy);
    }
    for _ in 0..4 {
        account.send(&frame(DATA, 0, 1, &[0; 16_384]));
    }
    assert_eq!(look(&mut account, 5), Look::Busy);
    assert_eq!(look(&mut account, 60), Look::Over(Excess::Stalled));
}

/// Frames and garbage, as a seed has them.
fn noise(seed: u64) -> Vec<u8> {
    let mut luck = seed | 1;
    let mut roll = move |most: u64| {
        luck ^= luck << 13;
        luck ^= luck >> 7;
        luck ^= luck << 17;
        u8::try_from(luck % most).unwrap()
    };
    let mut bytes = Vec::new();
    for _ in 0..60 {
        let payload: Vec<u8> = (0..roll(200)).map(|_| roll(256)).collect();
        let kinds = [HEADERS, HEADERS, DATA, CONTINUATION, SETTINGS, WINDOW_UPDATE, RST_STREAM, PING, 0x10, 0x42];
        let kind = kinds[usize::from(roll(10))];
        let mut one = frame(kind, roll(256) & 0x2d, u32::from(roll(9)), &payload);
        if roll(20) == 0 {
            // A length that lies, so that what follows is read as something else.
            one[2] = roll(256);
        }
        bytes.extend(one);
    }
    bytes
}

#[test]
fn it_does_not_matter_in_which_pieces_bytes_come() {
    for seed in 1..500 {
        let bytes = noise(seed * 0x9e37_79b9);
        for side in [Side::Server, Side::Client] {
            let whole = Account::new(side, &H2_STRANGER).receive(&bytes);
            for size in [1, 7, 100] {
                let mut account = Account::new(side, &H2_STRANGER);
                let pieces = bytes.chunks(size).try_for_each(|piece| account.receive(piece));
                assert_eq!(pieces, whole, "seed {seed}, {side:?}, by {size}");
            }
            // What we send is only counted; it must not matter how odd it is.
            let mut account = Account::new(side, &H2_STRANGER);
            let sent = account.meter.send(&bytes, || account.now);
            assert!(matches!(sent, Ok(()) | Err(Excess::Glitches | Excess::Streams)), "seed {seed}: {sent:?}");
        }
    }
}

//! The rules of HTTP/2 that a peer can break (RFC 9113, sections 3 to 8): for each what the server must do.
//!
//! A case is frames after a greeting and the outcomes that the RFC allows; `alive` means that nothing was complained of.
//! Never here: what requests mean (`rows`). Run by `cargo test`.

use std::time::Duration;

use super::{
    super::local,
    answering,
    raw::{
        ACK, CONTINUATION, DATA, DEPENDENT, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PLAIN, PREFACE,
        PRIORITY, PUSH_PROMISE, Peer, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame, request, upload,
    },
};

/// Everything that the server complains of until it has answered two pings, or has closed.
async fn trace(peer: &mut Peer, frames: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut rounds = 0;
    peer.send(&[frames, &frame(PING, 0, 0, b"\x01answer!")].concat()).await;
    loop {
        match peer.next().await {
            None => {
                seen.push("closed".to_owned());
                return seen;
            }
            Some(frame) if frame.kind == RST_STREAM => seen.push(format!("RST {}", frame.code())),
            Some(frame) if frame.kind == GOAWAY => seen.push(format!("GOAWAY {}", frame.code())),
            Some(answer) if answer.kind == PING => {
                rounds += 1;
                if rounds == 2 {
                    if seen.is_empty() {
                        seen.push("alive".to_owned());
                    }
                    return seen;
                }
                peer.send(&frame(PING, 0, 0, b"\x02answer!")).await;
            }
            Some(_) => {}
        }
    }
}

fn check(rule: &str, frames: &[u8], allowed: &[&str]) {
    local(async {
        let proxy = answering("hello");
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        let seen = trace(&mut peer, frames).await;
        assert!(seen.iter().any(|one| allowed.contains(&one.as_str())), "{rule}: {seen:?}, allowed {allowed:?}");
    });
}

const PROTOCOL: &[&str] = &["GOAWAY 1", "closed"];
const FRAME_SIZE: &[&str] = &["GOAWAY 6", "closed"];
const CLOSED: &[&str] = &["RST 5", "GOAWAY 5", "closed"];
const RESET: &[&str] = &["RST 1", "GOAWAY 1", "closed"];
const ALIVE: &[&str] = &["alive"];

fn all(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// One setting.
fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn room(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

#[test]
fn starting_3() {
    local(async {
        let proxy = answering("");
        for first in
            [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\nxxxxx"[..], &[PREFACE, &frame(PING, 0, 9, b"12345678")].concat()]
        {
            let mut peer = Peer::silent(proxy.connect(Duration::ZERO));
            peer.send(first).await;
            assert!(matches!(peer.farewell().await, None | Some(1)));
        }
    });
    check("3.4 settings may be followed by frames at once", &request(1, &[]), ALIVE);
}

#[test]
fn frames_4() {
    check("4.1 unknown types are ignored", &frame(0x16, 0, 0, b"x"), ALIVE);
    check("4.1 undefined flags are ignored", &frame(PING, 0x16, 0, b"12345678"), ALIVE);
    check("4.1 the reserved bit is ignored", &frame(PING, 0, 0x8000_0000, b"12345678"), ALIVE);
    let large = [0; 16 * 1024 + 1];
    check(
        "4.2 DATA above the maximum",
        &all(&[upload(1, &[]), frame(DATA, 0, 1, &large)]),
        &["RST 6", "GOAWAY 6", "closed"],
    );
    check("4.2 HEADERS above the maximum", &frame(HEADERS, WHOLE, 1, &large), FRAME_SIZE);
    check("4.2 SETTINGS above the maximum", &frame(SETTINGS, 0, 0, &large), &["GOAWAY 6", "GOAWAY 11", "closed"]);
    check(
        "4.3 a block that cannot be decoded",
        &frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff\xff"),
        &["GOAWAY 9", "GOAWAY 1", "closed"],
    );
    let open = frame(HEADERS, END_STREAM, 1, &block(&PLAIN));
    check("4.3 PRIORITY inside a block", &all(&[open.clone(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])]), PROTOCOL);
    check("4.3 another stream's HEADERS inside a block", &all(&[open, request(3, &[])]), PROTOCOL);
}

#[test]
fn states_5_1() {
    check("5.1 idle: DATA", &frame(DATA, END_STREAM, 1, b"x"), PROTOCOL);
    check("5.1 idle: RST_STREAM", &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), PROTOCOL);
    check("5.1 idle: WINDOW_UPDATE", &room(1, 100), PROTOCOL);
    check("5.1 idle: CONTINUATION", &frame(CONTINUATION, END_HEADERS, 1, &block(&PLAIN)), PROTOCOL);
    check("5.1 idle: PRIORITY is allowed", &frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), ALIVE);
    check("5.1 half-closed: DATA", &all(&[request(1, &[]), frame(DATA, END_STREAM, 1, b"x")]), CLOSED);
    check("5.1 half-closed: HEADERS", &all(&[request(1, &[]), request(1, &[])]), CLOSED);
    check(
        "5.1 half-closed: CONTINUATION",
        &all(&[request(1, &[]), frame(CONTINUATION, 4, 1, b"")]),
        &["GOAWAY 1", "GOAWAY 5", "closed"],
    );
    let reset = all(&[upload(1, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])]);
    check("5.1 closed: DATA", &[&reset[..], &frame(DATA, END_STREAM, 1, b"x")].concat(), CLOSED);
    check("5.1 closed: HEADERS", &[&reset[..], &request(1, &[])].concat(), CLOSED);
    check(
        "5.1 closed: WINDOW_UPDATE and RST_STREAM may cross",
        &[&reset[..], &room(1, 1), &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat(),
        ALIVE,
    );
    check("5.1.1 even streams are the server's", &request(2, &[]), PROTOCOL);
    check("5.1.1 streams only grow", &all(&[request(5, &[]), request(3, &[])]), &["GOAWAY 1", "GOAWAY 5", "closed"]);
    check(
        "5.3.1 HEADERS that depend on themselves",
        &frame(HEADERS, WHOLE | DEPENDENT, 1, &[&[0, 0, 0, 1, 16][..], &block(&PLAIN)].concat()),
        &["RST 1", "GOAWAY 1", "closed", "alive"],
    );
    check(
        "5.5 unknown frames inside a block",
        &all(&[frame(HEADERS, END_STREAM, 1, &block(&PLAIN)), frame(0x16, 0, 0, b"")]),
        PROTOCOL,
    );
}

#[test]
fn data_and_headers_6_1_and_6_2() {
    check("6.1 DATA on stream 0", &frame(DATA, 0, 0, b"x"), PROTOCOL);
    check("6.1 more padding than DATA", &all(&[upload(1, &[]), frame(DATA, PADDED, 1, b"\x06123")]), PROTOCOL);
    check("6.1 padding", &all(&[upload(1, &[]), frame(DATA, PADDED | END_STREAM, 1, b"\x0212\0\0")]), ALIVE);
    check("6.2 HEADERS on stream 0", &frame(HEADERS, WHOLE, 0, &block(&PLAIN)), PROTOCOL);
    check("6.2 more padding than HEADERS", &frame(HEADERS, WHOLE | PADDED, 1, b"\xff\x82"), PROTOCOL);
    let padded = [&[3][..], &block(&PLAIN), &[0; 3]].concat();
    check("6.2 padding", &frame(HEADERS, WHOLE | PADDED, 1, &padded), ALIVE);
    let both = [&[3, 0, 0, 0, 0, 16][..], &block(&PLAIN), &[0; 3]].concat();
    check("6.2 padding and priority", &frame(HEADERS, WHOLE | PADDED | DEPENDENT, 1, &both), ALIVE);
}

#[test]
fn priority_and_reset_6_3_and_6_4() {
    check("6.3 PRIORITY on stream 0", &frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 16]), PROTOCOL);
    check(
        "6.3 PRIORITY of another length",
        &frame(PRIORITY, 0, 1, &[0, 0, 0, 0]),
        &["RST 6", "GOAWAY 6", "GOAWAY 1", "closed"],
    );
    check("6.4 RST_STREAM on stream 0", &frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), PROTOCOL);
    check(
        "6.4 RST_STREAM of another length",
        &all(&[upload(1, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 8])]),
        &["GOAWAY 6", "GOAWAY 1", "closed"],
    );
}

#[test]
fn settings_6_5() {
    check("6.5 ACK with a payload", &frame(SETTINGS, ACK, 0, &[0; 6]), &["GOAWAY 6", "GOAWAY 1", "closed"]);
    check("6.5 SETTINGS on a stream", &frame(SETTINGS, 0, 1, &[]), PROTOCOL);
    check("6.5 SETTINGS of an odd length", &frame(SETTINGS, 0, 0, &[0; 5]), &["GOAWAY 6", "GOAWAY 1", "closed"]);
    check("6.5.2 ENABLE_PUSH is 0 or 1", &setting(2, 2), PROTOCOL);
    check("6.5.2 INITIAL_WINDOW_SIZE has 31 bits", &setting(4, 0x8000_0000), &["GOAWAY 3", "GOAWAY 1", "closed"]);
    check("6.5.2 MAX_FRAME_SIZE too small", &setting(5, 16_383), PROTOCOL);
    check("6.5.2 MAX_FRAME_SIZE too large", &setting(5, 0x0100_0000), PROTOCOL);
    check("6.5.2 unknown settings are ignored", &setting(0xff, 1), ALIVE);
    check("6.5 HEADER_TABLE_SIZE may shrink", &all(&[setting(1, 0), request(1, &[])]), ALIVE);
}

#[test]
fn push_ping_goaway_6_6_to_6_8() {
    let push = [&[0, 0, 0, 2][..], &block(&PLAIN)].concat();
    check("6.6 clients do not push", &all(&[upload(1, &[]), frame(PUSH_PROMISE, END_HEADERS, 1, &push)]), PROTOCOL);
    check("6.7 PING on a stream", &frame(PING, 0, 1, b"12345678"), PROTOCOL);
    check("6.7 PING of another length", &frame(PING, 0, 0, b"1234567"), &["GOAWAY 6", "GOAWAY 1", "closed"]);
    check("6.7 an ACK that nobody waits for", &frame(PING, ACK, 0, b"12345678"), ALIVE);
    check("6.8 GOAWAY on a stream", &frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL);
    local(async {
        let proxy = answering("");
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(&frame(PING, 0, 0, b"opaque!!")).await;
        let pong = loop {
            let frame = peer.next().await.unwrap();
            if frame.kind == PING {
                break frame;
            }
        };
        assert_eq!((pong.kind, pong.flags, pong.payload.as_slice()), (PING, ACK, &b"opaque!!"[..]), "6.7 the answer");
    });
}

#[test]
fn windows_6_9() {
    check("6.9 nothing more for the connection", &room(0, 0), PROTOCOL);
    check("6.9 nothing more for a stream", &all(&[upload(1, &[]), room(1, 0)]), RESET);
    check(
        "6.9 WINDOW_UPDATE of another length",
        &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
        &["GOAWAY 6", "GOAWAY 1", "closed"],
    );
    check(
        "6.9.1 a connection's window has 31 bits",
        &all(&[room(0, 0x7fff_ffff), room(0, 0x7fff_ffff)]),
        &["GOAWAY 3", "closed"],
    );
    check(
        "6.9.1 a stream's window has 31 bits",
        &all(&[upload(1, &[]), room(1, 0x7fff_ffff), room(1, 0x7fff_ffff)]),
        &["RST 3", "GOAWAY 3", "closed"],
    );
    check(
        "6.9.2 a first window that makes one too large",
        &all(&[upload(1, &[]), room(1, 0x7fff_0000), setting(4, 0x7fff_ffff)]),
        &["GOAWAY 3", "closed"],
    );
    local(async {
        let proxy = answering("hello");
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[0, 4, 0, 0, 0, 1]).await;
        peer.send(&request(1, &[])).await;
        let mut body = Vec::new();
        while body.len() < 5 {
            let frame = peer.next().await.unwrap();
            if frame.kind == DATA {
                assert!(frame.payload.len() <= 1, "6.9.1 no more than the window");
                body.extend(frame.payload);
                peer.send(&room(1, 1)).await;
            }
        }
        assert_eq!(body, b"hello", "6.9.2 windows open one byte at a time");
    });
}

#[test]
fn continuation_6_10() {
    let (one, two) = (block(&PLAIN[..2]), block(&PLAIN[2..]));
    let open = frame(HEADERS, END_STREAM, 1, &one);
    let more = |stream, flags, part: &[u8]| frame(CONTINUATION, flags, stream, part);
    check("6.10 a block in three", &all(&[open.clone(), more(1, 0, &two), more(1, END_HEADERS, b"")]), ALIVE);
    check(
        "6.10 cut inside a field",
        &all(&[frame(HEADERS, END_STREAM, 1, &one[..5]), more(1, END_HEADERS, &[&one[5..], &two].concat())]),
        ALIVE,
    );
    check("6.10 followed by another frame", &all(&[open.clone(), frame(DATA, 0, 1, b"x")]), PROTOCOL);
    check("6.10 on stream 0", &all(&[open.clone(), more(0, END_HEADERS, &two)]), PROTOCOL);
    check("6.10 on another stream", &all(&[open, more(3, END_HEADERS, &two)]), PROTOCOL);
    check("6.10 after the end of a block", &all(&[upload(1, &[]), more(1, END_HEADERS, &two)]), PROTOCOL);
    check("6.10 after DATA", &all(&[upload(1, &[]), frame(DATA, 0, 1, b"x"), more(1, END_HEADERS, b"")]), PROTOCOL);
}

#[test]
fn errors_7_and_messages_8() {
    check(
        "7 unknown codes mean nothing special",
        &all(&[upload(1, &[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])]),
        ALIVE,
    );
    let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
    check("7 unknown codes in GOAWAY", &goaway, &["alive", "GOAWAY 0", "closed"]);
    check("8.1 a second HEADERS without END_STREAM", &all(&[upload(1, &[]), upload(1, &[])]), RESET);
    let short = all(&[upload(1, &[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"123")]);
    check("8.1.1 less than content-length", &short, RESET);
    let long = all(&[upload(1, &[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"123")]);
    check("8.1.1 more than content-length", &long, RESET);
    let split =
        all(&[upload(1, &[("content-length", "3")]), frame(DATA, 0, 1, b"1"), frame(DATA, END_STREAM, 1, b"2")]);
    check("8.1.1 less in two frames", &split, RESET);
    check("8.2.1 names have no capitals", &request(1, &[("X", "1")]), RESET);
    check("8.3 no request without a method", &frame(HEADERS, WHOLE, 1, &block(&PLAIN[1..])), RESET);
    check("8.3 no unknown pseudo-header", &request(1, &[(":x", "1")]), RESET);
}

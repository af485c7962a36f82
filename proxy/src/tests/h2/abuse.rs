//! Peers that ask for more work than they give: each is told to leave, soon, and costs little until then.
//!
//! How many frames each may send, and what the account holds meanwhile, is in `http::h2::meter`. Never here: what single
//! frames mean (`rules`). Run by `cargo test`.

use std::time::Duration;

use api::spec::{UpstreamHttp, UpstreamVersion};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{
        Proxy, ask, get, local,
        spec::{cluster, forward, http, route, to},
    },
    answering, paused,
    raw::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PLAIN, PREFACE, PRIORITY, Peer,
        RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE, block, frame, request, upload,
    },
    serving,
};
use crate::{http::h2::Excess, limits::FLUSH_TIMEOUT};

fn stats(proxy: &Proxy) -> Vec<String> {
    let mut out = Vec::new();
    proxy.worker.shared.stats.each(|name, value| {
        if let Some(excess) = name.strip_prefix("http2.excess.")
            && value > 0
        {
            out.push(excess.to_owned());
        }
    });
    out
}

/// Sends so many times what `part` gives; the server says ENHANCE_YOUR_CALM and closes, and counts it by its name.
fn check(first: &[u8], count: u32, part: impl Fn(u32) -> Vec<u8>, by: Excess) {
    paused(async {
        let proxy = answering("hello");
        let peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        let flood = (0..count).map(part).fold(first.to_vec(), |all, one| [all, one].concat());
        assert_eq!(peer.flood(&flood).await, Some(0xb));
        assert_eq!(stats(&proxy), [by.name()]);
    });
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn rapid_reset() {
    let pair = |n| [request(stream(n), &[]), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat();
    // The budget that ends slower ones is in `http::h2::meter`.
    check(&[], 2_000, pair, Excess::EarlyResets);
}

#[test]
fn made_you_reset() {
    let longer = |n| [upload(stream(n), &[("content-length", "1")]), frame(DATA, 0, stream(n), b"xx")].concat();
    check(&[], 2_000, longer, Excess::Glitches);
    // The codec itself ends these: at the first, and at the first that it has forgotten.
    let nothing = |n| [upload(stream(n), &[]), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat();
    let late = |n| [request(stream(n), &[]), frame(DATA, END_STREAM, stream(n), b"x")].concat();
    for flood in [(0..2_000).map(nothing).collect::<Vec<_>>(), (0..2_000).map(late).collect()] {
        paused(async {
            let proxy = answering("hello");
            let peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
            assert_eq!(peer.flood(&flood.concat()).await, Some(0x1));
        });
    }
}

#[test]
fn continuation_flood() {
    let open = frame(HEADERS, END_STREAM, 1, &block(&PLAIN));
    check(&open, 20_000, |_| frame(CONTINUATION, 0, 1, &block(&[("x", "y")])), Excess::Continuations);
    check(&open, 2_000, |_| frame(CONTINUATION, 0, 1, b""), Excess::Glitches);
}

#[test]
fn control_frames() {
    let by = Excess::Glitches;
    check(&[], 12_000, |_| frame(PING, 0, 0, b"12345678"), by);
    check(&[], 12_000, |_| frame(PING, ACK, 0, b"12345678"), by);
    check(&[], 12_000, |_| frame(SETTINGS, 0, 0, &[]), by);
    check(&[], 3_000, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), by);
    check(&[], 3_000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), by);
    check(&[], 3_000, |_| frame(0x42, 0, 0, b""), by);
    check(&[], 3_000, |_| frame(GOAWAY, 0, 0, &[0; 8]), by);
}

#[test]
fn settings_without_end() {
    check(&[], 1, |_| frame(SETTINGS, 0, 0, &[0, 0x42, 0, 0, 0, 1].repeat(2_700)), Excess::Settings);
}

#[test]
fn empty_data() {
    check(&upload(1, &[]), 2_000, |_| frame(DATA, 0, 1, b""), Excess::Codec);
}

#[test]
fn compression_bombs() {
    let cookie = "x".repeat(3_900);
    let mut learn = block(&[&PLAIN[..], &[("cookie", &cookie)]].concat());
    // The last field enters the table.
    let at = block(&PLAIN).len();
    learn[at] = 0x40;
    let learned = frame(HEADERS, WHOLE, 1, &learn);
    let again = |count: usize| {
        move |n| frame(HEADERS, WHOLE, stream(n + 1), &[&block(&PLAIN)[..], &vec![0xbe; count]].concat())
    };
    check(&learned, 1, again(3_000), Excess::Fields);
    check(&learned, 1, again(300), Excess::Codec);
    // Below that it is only a large head.
    paused(async {
        let proxy = answering("");
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(&[learned.clone(), again(50)(0)].concat()).await;
        let mut outcomes = [peer.outcome().await, peer.outcome().await];
        outcomes.sort();
        assert_eq!(outcomes, ["200", "431"]);
    });
    check(&[], 1, |_| frame(HEADERS, WHOLE, 1, &[&block(&PLAIN)[..], &[0xa0; 10_000]].concat()), Excess::Fields);
}

/// What is sent, and then silence: closed by the clock.
fn silence(first: &[u8], by: Excess, within: Duration) {
    paused(async {
        let proxy = answering(&"x".repeat(200_000));
        let mut peer = Peer::silent(proxy.connect(Duration::ZERO));
        let began = Instant::now();
        peer.send(first).await;
        assert_eq!(peer.farewell().await, Some(0xb), "{by:?}");
        assert!(began.elapsed() <= within, "{by:?} after {:?}", began.elapsed());
        assert_eq!(stats(&proxy), [by.name()]);
    });
}

#[test]
fn what_is_begun_must_be_ended() {
    let soon = Duration::from_secs(20);
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    silence(&PREFACE[..10], Excess::Late, soon);
    silence(&[&hello[..], &frame(HEADERS, END_STREAM, 1, &block(&PLAIN))].concat(), Excess::Late, soon);
    silence(&[&hello[..], &request(1, &[])[..20]].concat(), Excess::Late, soon);
    silence(&[&hello[..], &frame(PING, 0, 0, b"12345678")[..12]].concat(), Excess::Late, soon);
}

#[test]
fn windows_must_open() {
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), &frame(SETTINGS, ACK, 0, &[])].concat();
    silence(&[&hello[..], &request(1, &[])].concat(), Excess::Stalled, FLUSH_TIMEOUT + Duration::from_secs(15));
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat();
    silence(&[&hello[..], &request(1, &[])].concat(), Excess::Stalled, FLUSH_TIMEOUT + Duration::from_secs(15));
}

#[test]
fn a_slow_reader_may_be_slow() {
    paused(async {
        let proxy = answering(&"x".repeat(70_000));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(&request(1, &[])).await;
        let mut body = 0;
        loop {
            let Ok(frame) = tokio::time::timeout(Duration::from_secs(50), peer.next()).await else {
                peer.send(&frame_room(1_000)).await;
                continue;
            };
            let frame = frame.unwrap();
            assert_ne!(frame.kind, GOAWAY);
            if frame.kind == DATA {
                body += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        assert_eq!(body, 70_000);
        assert_eq!(stats(&proxy), [""; 0]);
    });
}

fn frame_room(by: u32) -> Vec<u8> {
    [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())).concat()
}

#[test]
fn heads_that_were_named_with_few_bytes_are_few_at_once() {
    local(async {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = serving(&to(&[silent.local_addr().unwrap()]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        // Each names a cookie of the table fourteen times: 55 KiB.
        let mut learn = block(&[&PLAIN[..], &[("cookie", &"x".repeat(3_900))]].concat());
        let at = block(&PLAIN).len();
        learn[at] = 0x40;
        let again = |n| frame(HEADERS, WHOLE, stream(n), &[&block(&PLAIN)[..], &[0xbe; 14]].concat());
        let all = (1..200).map(again).fold(frame(HEADERS, WHOLE, 1, &learn), |all, one| [all, one].concat());
        peer.send(&all).await;
        let mut refused = 0;
        while refused < 199 - crate::limits::HEADS_BYTES_MAX / (14 * 3_900) {
            let frame = peer.next().await.unwrap();
            if frame.kind == HEADERS {
                assert!(refused > 0 || frame.status() == 431);
                refused += 1;
            }
        }
        assert_eq!(stats(&proxy), [""; 0]);
    });
}

#[test]
fn nothing_is_left_of_a_peer_that_was_sent_away() {
    local(async {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain =
            api::spec::Cluster { http: UpstreamHttp::default(), ..cluster("c", &[silent.local_addr().unwrap()]) };
        let action = api::spec::Action::Forward(Box::new(forward("c")));
        let proxy = serving(&http(vec![route(action)], vec![plain]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        let shared = &proxy.worker.shared;
        let upstream = || shared.tables.load().clusters().map(|c| c.live.stats.requests.get()).sum::<u64>();
        peer.send(&(0..50).map(|number| request(stream(number), &[])).collect::<Vec<_>>().concat()).await;
        while upstream() < 50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.flood(&frame(PING, 0, 0, b"12345678").repeat(3_000)).await, Some(0xb));
        while upstream() + shared.stats.downstream_requests.get() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_farewell_comes_after_whole_frames() {
    paused(async {
        let proxy = answering(&"x".repeat(300_000));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[0, 4, 0, 0x10, 0, 0]).await;
        let room = frame(WINDOW_UPDATE, 0, 0, &0x10_0000_u32.to_be_bytes());
        peer.send(&[room, request(1, &[]), request(3, &[])].concat()).await;
        // The reply fills what lies between; it is read only after the flood.
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.send(&frame(PING, ACK, 0, b"12345678").repeat(1_500)).await;
        let mut kinds = Vec::new();
        while let Some(frame) = peer.next().await {
            kinds.push(frame.kind);
        }
        assert!(kinds.iter().all(|kind| [HEADERS, DATA, SETTINGS, WINDOW_UPDATE, GOAWAY].contains(kind)), "{kinds:?}");
        assert_eq!(kinds.last(), Some(&GOAWAY));
        assert_eq!(stats(&proxy), [Excess::Glitches.name()]);
    });
}

#[test]
fn an_idle_connection_is_closed() {
    paused(async {
        let proxy = answering("hello");
        let mut peer = Peer::greet(proxy.connect(Duration::from_secs(60)), &[]).await;
        peer.send(&request(1, &[])).await;
        let began = Instant::now();
        assert_eq!(peer.farewell().await, Some(0));
        assert!((60..75).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    });
}

#[test]
fn an_honest_peer_is_left_alone() {
    local(async {
        let proxy = answering("hello");
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        for number in 0..3_000 {
            let id = stream(number);
            peer.send(&request(id, &[])).await;
            loop {
                let frame = peer.next().await.unwrap();
                assert!(!matches!(frame.kind, GOAWAY | RST_STREAM), "{frame:?} at {number}");
                if frame.kind == DATA {
                    break;
                }
            }
            let mut after = frame_room(5);
            if number % 10 == 0 {
                after.extend(frame(PING, 0, 0, b"12345678"));
            }
            peer.send(&after).await;
        }
        assert_eq!(stats(&proxy), [""; 0]);
    });
}

#[test]
fn streams_over_the_limit_are_refused() {
    local(async {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = serving(&to(&[silent.local_addr().unwrap()]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        for number in 0..1_100 {
            peer.send(&request(stream(number), &[])).await;
        }
        for _ in 0..76 {
            assert_eq!(peer.outcome().await, "RST 7");
        }
        assert_eq!(stats(&proxy), [""; 0]);
    });
}

/// Whether frames of a client hold a request.
fn has_request(seen: &[u8]) -> bool {
    let mut rest = seen.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = rest {
        if *kind == HEADERS {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

/// An upstream that sends this after its settings and a request; the client gets an answer, and the upstream is left.
fn upstream(flood: Vec<u8>, by: Option<Excess>) {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let hello = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
                let (mut read, mut write) = socket.split();
                let mut seen = Vec::new();
                let mut open = write.write_all(&hello).await.is_ok();
                while open && !has_request(&seen) {
                    open = read.read_buf(&mut seen).await.is_ok_and(|count| count > 0);
                }
                let writing = async { open && write.write_all(&flood).await.is_ok() };
                let _both = tokio::join!(writing, read.read_to_end(&mut seen));
            }
        });
        let http2 = UpstreamHttp { version: UpstreamVersion::Http2, ..UpstreamHttp::default() };
        let spoken = api::spec::Cluster { http: http2, ..cluster("c", &[address]) };
        let action = api::spec::Action::Forward(Box::new(forward("c")));
        let (proxy, front) = super::super::proxy(&http(vec![route(action)], vec![spoken])).await;
        let reply = ask(front, &get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        while by.is_some() && stats(&proxy).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(stats(&proxy), by.map(Excess::name).into_iter().collect::<Vec<_>>());
    });
}

#[test]
fn upstreams_are_held_to_the_same() {
    upstream(frame(SETTINGS, 0, 0, &[]).repeat(12_000), Some(Excess::Glitches));
    upstream(frame(PING, 0, 0, b"12345678").repeat(12_000), Some(Excess::Glitches));
    let interim = frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103")]));
    upstream(interim.repeat(12_000), Some(Excess::Glitches));
    let push = [&[0, 0, 0, 2][..], &block(&PLAIN)].concat();
    upstream(frame(super::raw::PUSH_PROMISE, END_HEADERS, 1, &push), None);
    let bomb = [&block(&[(":status", "200")])[..], &[0xa0; 10_000]].concat();
    upstream(frame(HEADERS, WHOLE, 1, &bomb), Some(Excess::Fields));
}

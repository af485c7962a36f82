//! What the front door answers to requests on HTTP/2 that two programs could read differently: one row each.
//!
//! The same rows on HTTP/1 are in `tests::door`. Never here: floods (`abuse`), frames and states (`rules`). Run by
//! `cargo test`.

use std::time::Duration;

use api::spec::{Action, UpstreamHttp};

use super::{
    super::{
        app, local, ok,
        spec::{cluster, forward, http, route, to},
    },
    answering, at_the_edge,
    raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PLAIN, Peer, WHOLE, block, frame, request, upload},
    serving,
};

/// One request's outcome: a status, `RST code` or `GOAWAY code`.
fn check(frames: &[u8], want: &str) {
    check_at(&answering("hello"), frames, want);
}

fn check_at(proxy: &super::Proxy, frames: &[u8], want: &str) {
    local(async {
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(frames).await;
        assert_eq!(peer.outcome().await, want, "{}", String::from_utf8_lossy(frames));
    });
}

/// A request of exactly these fields.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// The same in as many frames as it needs.
fn pieces(fields: &[(&str, &str)]) -> Vec<u8> {
    let whole = block(fields);
    let mut pieces = whole.chunks(16 * 1024).peekable();
    let mut frames = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    while let Some(piece) = pieces.next() {
        frames.extend(frame(CONTINUATION, if pieces.peek().is_none() { END_HEADERS } else { 0 }, 1, piece));
    }
    frames
}

/// A plain request with one pseudo-header changed.
fn with(name: &str, value: &str) -> Vec<u8> {
    fields(&PLAIN.map(|(known, usual)| if known == name { (known, value) } else { (known, usual) }))
}

#[test]
fn a_plain_request_is_answered() {
    check(&request(1, &[]), "200");
    check(&request(1, &[("te", "trailers"), ("x", "\u{80}\u{ff}")]), "200");
}

#[test]
fn connection_headers_are_no_part_of_http2() {
    for field in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
    ] {
        check(&request(1, &[field]), "RST 1");
    }
}

#[test]
fn pseudo_headers_come_once_first_and_are_known() {
    check(&fields(&[&PLAIN[..], &[(":path", "/")]].concat()), "RST 1");
    check(&fields(&[&[("x", "y")], &PLAIN[..]].concat()), "RST 1");
    check(&fields(&[&PLAIN[..], &[(":status", "200")]].concat()), "RST 1");
    check(&fields(&PLAIN[1..]), "RST 1");
    check(&fields(&[PLAIN[0], PLAIN[1], PLAIN[3]]), "RST 1");
}

#[test]
fn a_host_is_one_host() {
    check(&with(":authority", "a/b"), "RST 1");
    check(&with(":authority", "a b"), "RST 1");
    check(&with(":authority", "u@a"), "400");
    check(&with(":authority", "a:0"), "400");
    check(&with(":authority", "a."), "200");
    check(&with(":authority", &"a".repeat(300)), "400");
    check(&fields(&PLAIN[..3]), "400");
    check(&fields(&[&PLAIN[..3], &[("host", "a")]].concat()), "200");
    check(&fields(&[&PLAIN[..3], &[("host", "a"), ("host", "a")]].concat()), "400");
    check(&request(1, &[("host", "a.test")]), "200");
    check(&request(1, &[("host", "b.test")]), "400");
    check(&request(1, &[("host", "a.test"), ("host", "a.test")]), "400");
}

#[test]
fn a_target_is_a_path() {
    check(&with(":path", "/x#y"), "200");
    check(&with(":path", "/x%00"), "400");
    check(&with(":path", "*"), "400");
    check(&with(":path", "/a/../x%2e\\"), "200");
    check(&with(":path", "x"), "RST 1");
    check(&with(":path", ""), "RST 1");
    check(&with(":path", "/a b"), "RST 1");
    let long = format!("/{}", "x".repeat(33 * 1024));
    check(&pieces(&PLAIN.map(|(name, usual)| (name, if name == ":path" { &long } else { usual }))), "414");
}

#[test]
fn a_scheme_is_http_in_any_case() {
    check(&with(":scheme", "htTPs"), "200");
    check(&with(":scheme", "ftp"), "400");
    check(&with(":scheme", ""), "400");
}

#[test]
fn methods_are_known() {
    check(&with(":method", "PROPFIND"), "200");
    check(&with(":method", "FOO"), "400");
    check(&with(":method", "get"), "400");
    check(&with(":method", "A B"), "GOAWAY 1");
}

#[test]
fn tunnels_are_not_offered() {
    check(&fields(&[(":method", "CONNECT"), (":authority", "a:80")]), "405");
    let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")], &PLAIN[1..]].concat();
    check(&fields(&extended), "RST 1");
}

#[test]
fn names_and_values_hold_what_http_allows() {
    for field in
        [("X-Upper", "1"), ("", "1"), ("a b", "1"), ("a:b", "1"), ("x", "a\r\nb"), ("x", "a\0b"), ("x", "\u{7f}")]
    {
        let mut frames = request(1, &[field]);
        frames.extend(request(3, &[]));
        local(async {
            let mut peer = Peer::greet(answering("").connect(Duration::ZERO), &[]).await;
            peer.send(&frames).await;
            let outcome = peer.outcome().await;
            assert!(outcome == "RST 1" || outcome.starts_with("GOAWAY"), "{field:?}: {outcome}");
        });
    }
}

#[test]
fn expectations_are_known() {
    check(&request(1, &[("expect", "200-ok")]), "417");
    check(&request(1, &[("expect", "100-continue")]), "200");
}

#[test]
fn heads_have_a_size() {
    let names: Vec<String> = (0..101).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    check(&request(1, &many[..100]), "200");
    check(&request(1, &many), "431");
    check(&request(1, &[("x", "1"); 101]), "431");
    for (size, want) in [(11 * 1024, "200"), (13 * 1024, "431")] {
        let long = "x".repeat(size);
        check(&pieces(&[&PLAIN[..], &[("x", long.as_str()); 5]].concat()), want);
    }
}

#[test]
fn lengths_are_clear() {
    let body = |length: &str, body: &[u8]| {
        let mut frames = upload(1, &[("content-length", length)]);
        frames.extend(frame(DATA, END_STREAM, 1, body));
        frames
    };
    check(&body("5", b"hello"), "200");
    check(&request(1, &[("content-length", "5")]), "RST 1");
    check(&request(1, &[("content-length", "x")]), "RST 1");
    check(&upload(1, &[("content-length", "0"), ("content-length", "0")]), "400");
    check(&upload(1, &[("content-length", "5"), ("content-length", "6")]), "RST 1");
}

#[test]
fn twins_of_trusted_names_do_not_come_in_at_the_edge() {
    check_at(&at_the_edge(), &request(1, &[("x_api_key", "1")]), "200");
    check_at(&at_the_edge(), &request(1, &[("x_forwarded_client_cert", "1")]), "400");
    check(&request(1, &[("x_forwarded_client_cert", "1")]), "200");
}

/// What an application on HTTP/1 sees of a request on HTTP/2.
fn seen(frames: &[u8], look: impl Fn(&str)) {
    local(async {
        let plain = api::spec::Cluster { http: UpstreamHttp::default(), ..cluster("c", &[app(ok).await]) };
        let proxy = serving(&http(vec![route(Action::Forward(Box::new(forward("c"))))], vec![plain]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(frames).await;
        let mut text = String::new();
        while let Some(frame) = peer.next().await {
            if frame.kind == DATA {
                text.push_str(&String::from_utf8_lossy(&frame.payload));
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        look(&text);
    });
}

#[test]
fn the_application_sees_the_canonical_head() {
    seen(&with(":path", "/a#b"), |text| assert!(text.starts_with("GET /a HTTP/1.1\r\n"), "{text}"));
    let crumbs =
        request(1, &[("x", " a \t"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-envoy-original-path", "/admin")]);
    seen(&crumbs, |text| {
        assert!(text.contains("x: a\r\n") && text.contains("cookie: a=1; b=2\r\n"), "{text}");
        assert!(text.contains("host: a.test\r\n") && !text.contains("/admin"), "{text}");
    });
}

#[test]
fn trailers_hold_no_pseudo_headers() {
    let mut frames = upload(1, &[]);
    frames.extend(frame(HEADERS, WHOLE, 1, &block(&[(":path", "/admin")])));
    local(async {
        let app = app(ok).await;
        let proxy = serving(&to(&[app]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(&frames).await;
        assert_eq!(peer.farewell().await, Some(1));
    });
    let mut open = upload(1, &[]);
    open.extend(frame(HEADERS, END_HEADERS, 1, &block(&[("x", "1")])));
    local(async {
        let app = app(ok).await;
        let proxy = serving(&to(&[app]));
        let mut peer = Peer::greet(proxy.connect(Duration::ZERO), &[]).await;
        peer.send(&open).await;
        assert_eq!(peer.outcome().await, "RST 1");
    });
}

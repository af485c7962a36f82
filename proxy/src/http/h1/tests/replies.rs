//! Replies: one line for each rule of RFC 9112 that an upstream can break.
//!
//! Never here: what a client is told then. Run by `cargo test`.

use super::{
    super::response::{Expected, Response},
    judge::reply,
};

const GET: Expected = Expected { bodiless: false, upgrade: false };

fn show(response: &Response) -> String {
    let close = if response.keep_alive { "" } else { " close" };
    format!("{} {:?}{close}", response.parts.status.as_u16(), response.framing)
}

#[track_caller]
fn check(input: &str, expected: &str) {
    assert_eq!(reply(input.as_bytes(), &[], GET, show), expected, "{input:?}");
}

/// A reply with these lines after its first, and what comes after its head.
#[track_caller]
fn with(status: u16, lines: &str, rest: &str, expected: &str) {
    check(&format!("HTTP/1.1 {status} X\r\n{lines}\r\n{rest}"), expected);
}

#[test]
fn section_4_the_status_line() {
    check("HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n", "200 Length(0)");
    check("HTTP/1.1 299 Any thing\r\ncontent-length: 0\r\n\r\n", "299 Length(0)");
    for bad in [
        "HTTP/1.1 20 X",
        "HTTP/1.1 2000 X",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 +20 X",
        "HTTP/1.1  200 X",
        "200 OK",
        "http/1.1 200 X",
        "ICY 200 OK",
    ] {
        let text = format!("{bad}\r\ncontent-length: 0\r\n\r\n");
        let made = reply(text.as_bytes(), &[], GET, show);
        assert!(matches!(made.as_str(), "FirstLine" | "Version"), "{bad}: {made}");
    }
    check("HTTP/2.0 200 X\r\n\r\n", "Version");
    check("HTTP/1.1 200 X\ncontent-length: 0\n\n", "LineEnd");
    check("\r\nHTTP/1.1 200 X\r\n\r\n", "FirstLine");
}

#[test]
fn section_6_3_where_a_body_ends() {
    with(200, "content-length: 2\r\n", "hi", "200 Length(2) \"hi\"");
    with(200, "content-length: 2\r\n", "h", "200 Length(2) \"h\" Ended");
    with(200, "content-length: 2\r\n", "hi!", "200 Length(2) \"hi\" left 1");
    with(200, "transfer-encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n", "200 Chunked \"hi\"");
    with(200, "transfer-encoding: chunked\r\n", "2\r\nhi\r\n", "200 Chunked \"hi\" Ended");
    with(200, "", "hi", "200 UntilClose close \"hi\"");
    with(204, "", "", "204 Length(0)");
    with(204, "content-length: 2\r\n", "hi", "204 Length(0) left 2");
    with(304, "content-length: 2\r\n", "", "304 Length(0)");
    let head = Expected { bodiless: true, ..GET };
    let text = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n";
    assert_eq!(reply(text, &[], head, show), "200 Length(0)");
}

#[test]
fn section_6_framing_that_can_be_read_in_two_ways() {
    with(200, "content-length: 2\r\ntransfer-encoding: chunked\r\n", "", "TwoLengths");
    with(200, "content-length: 2\r\ncontent-length: 2\r\n", "", "ContentLength");
    with(200, "content-length: 2\r\ncontent-length: 3\r\n", "", "ContentLength");
    with(200, "content-length: +2\r\n", "", "ContentLength");
    with(200, "transfer-encoding: gzip, chunked\r\n", "", "TransferEncoding");
    with(200, "transfer-encoding: identity\r\n", "", "TransferCoding");
    with(204, "content-length: 2\r\ntransfer-encoding: chunked\r\n", "", "TwoLengths");
    check("HTTP/1.0 200 X\r\ntransfer-encoding: chunked\r\n\r\n", "TransferEncoding");
    with(200, "x : y\r\n", "", "Name");
    with(200, "x: y\r\n folded\r\n", "", "Name");
    with(200, "x: a\0b\r\n", "", "Value");
    with(200, &"a: b\r\n".repeat(101), "", "TooMany");
    with(200, &format!("a: {}\r\n", "b".repeat(100_000)), "", "TooLarge");
}

#[test]
fn section_9_persistence() {
    with(200, "content-length: 0\r\nconnection: close\r\n", "", "200 Length(0) close");
    check("HTTP/1.0 200 X\r\ncontent-length: 0\r\n\r\n", "200 Length(0) close");
    check("HTTP/1.0 200 X\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", "200 Length(0)");
}

#[test]
fn a_change_of_protocol_only_where_it_was_asked_for() {
    let text = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    check(text, "FirstLine");
    let asked = Expected { upgrade: true, ..GET };
    assert_eq!(reply(text.as_bytes(), &[], asked, show), "101 Length(0)");
}

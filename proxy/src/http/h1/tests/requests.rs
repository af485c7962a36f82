//! Requests: one line for each rule of RFC 9112 that a client can break, and for the framing rows that peers disagree on.
//!
//! Never here: what `gate` refuses. Run by `cargo test`.

use super::{
    super::{
        head::HeadError,
        request::{Oldest, Reader, Request},
    },
    judge::requests,
};
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

fn show(request: &Request) -> String {
    let mut text = format!("{} {} {:?}", request.parts.method, request.parts.uri, request.body);
    for (word, said) in [("close", !request.keep_alive), ("expects", request.expects), ("trailers", request.trailers)] {
        if said {
            text.push(' ');
            text.push_str(word);
        }
    }
    text
}

#[track_caller]
fn check(input: &str, expected: &str) {
    check_bytes(input.as_bytes(), expected);
}

#[track_caller]
fn check_bytes(input: &[u8], expected: &str) {
    assert_eq!(requests(input, &[], show), expected, "{:?}", String::from_utf8_lossy(&input[..input.len().min(200)]));
}

/// One request with these lines after its first.
#[track_caller]
fn with(lines: &str, expected: &str) {
    check(&format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n"), expected);
}

/// A chunked body.
#[track_caller]
fn chunks(body: &str, expected: &str) {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    check(&format!("{head}{body}"), format!("POST / Chunked {expected}").trim_end());
}

#[test]
fn section_2_lines_and_versions() {
    check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / Nothing");
    check("\r\n\r\nGET / HTTP/1.1\r\n\r\n", "GET / Nothing");
    check("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", "FirstLine");
    check("\nGET / HTTP/1.1\r\n\r\n", "LineEnd");
    check("GET / HTTP/1.1\nhost: a\n\n", "LineEnd");
    check("GET / HTTP/1.1\r\nhost: a\n\r\n", "LineEnd");
    check("GET / HTTP/1.1\r\nhost: a\r\n\n", "LineEnd");
    check("GET / HTTP/1.1\r\rhost: a\r\n\r\n", "LineEnd");
    check("GET / HTTP/1.1\r\n host: a\r\n\r\n", "Name");
    check("GET / HTTP/1.1\r\n\thost: a\r\n\r\n", "Name");
    check("GET / http/1.1\r\n\r\n", "FirstLine");
    check("GET / HTTP/1.2\r\n\r\n", "Version");
    check("GET / HTTP/2.0\r\n\r\n", "Version");
    check("GET / HTTP/11\r\n\r\n", "FirstLine");
    check("GET / HTTP/1.1.\r\n\r\n", "LineEnd");
    check("GET /\r\n\r\n", "FirstLine");
}

#[test]
fn section_3_the_request_line() {
    check("GET  / HTTP/1.1\r\n\r\n", "FirstLine");
    check("GET\t/ HTTP/1.1\r\n\r\n", "FirstLine");
    check("GET / HTTP/1.1 \r\n\r\n", "LineEnd");
    check("GET / x HTTP/1.1\r\n\r\n", "FirstLine");
    check(" GET / HTTP/1.1\r\n\r\n", "FirstLine");
    check("G(T / HTTP/1.1\r\n\r\n", "FirstLine");
    check("G\0T / HTTP/1.1\r\n\r\n", "FirstLine");
    check("GET /\x01 HTTP/1.1\r\n\r\n", "FirstLine");
    check("/ HTTP/1.1\r\n\r\n", "FirstLine");
    check("M-SEARCH / HTTP/1.1\r\n\r\n", "M-SEARCH / Nothing");
    let long = |count| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(count));
    check(&long(TARGET_BYTES_MAX), "TargetTooLong");
    check(&long(70_000), "TargetTooLong");
    check(&format!("GET /{}", "a".repeat(70_000)), "TargetTooLong");
    assert!(requests(long(TARGET_BYTES_MAX - 1).as_bytes(), &[], show).starts_with("GET /aaa"));
}

#[test]
fn section_3_2_the_four_forms_of_a_target() {
    check("GET /a/../b?c=d HTTP/1.1\r\n\r\n", "GET /a/../b?c=d Nothing");
    check("GET //a HTTP/1.1\r\n\r\n", "GET //a Nothing");
    check("GET /a#b HTTP/1.1\r\n\r\n", "GET /a Nothing");
    check("GET http://b/c HTTP/1.1\r\nhost: a\r\n\r\n", "GET http://b/c Nothing");
    check("GET https://b:1/c HTTP/1.1\r\nhost: a\r\n\r\n", "GET https://b:1/c Nothing");
    check("GET ftp://b/c HTTP/1.1\r\n\r\n", "Target");
    check("GET http:///c HTTP/1.1\r\n\r\n", "Target");
    check("GET x HTTP/1.1\r\n\r\n", "Target");
    check("GET a:80 HTTP/1.1\r\n\r\n", "Target");
    check("GET ?a HTTP/1.1\r\n\r\n", "Target");
    check("GET * HTTP/1.1\r\n\r\n", "Target");
    check("OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS * Nothing");
    check("CONNECT a:80 HTTP/1.1\r\n\r\n", "CONNECT a:80 Nothing close");
    check("CONNECT a HTTP/1.1\r\n\r\n", "Target");
    check("CONNECT /a HTTP/1.1\r\n\r\n", "Target");
    check("CONNECT http://a:80/ HTTP/1.1\r\n\r\n", "Target");
}

#[test]
fn section_5_fields() {
    let name = |name: &str, expected: &str| check(&format!("GET / HTTP/1.1\r\n{name}: x\r\n\r\n"), expected);
    name("x-a_b!#$%&'*+.^`|~", "GET / Nothing");
    for bad in ["x ", "x\t", "", "x y", "x(", "x\0", "\u{e9}", "x\x7f", " "] {
        name(bad, "Name");
    }
    check("GET / HTTP/1.1\r\nno colon\r\n\r\n", "Name");
    check("GET / HTTP/1.1\r\nx: a\r\n folded\r\n\r\n", "Name");
    check("GET / HTTP/1.1\r\nx: a\r\n\tfolded\r\n\r\n", "Name");
    let value = |value: &[u8], expected: &str| {
        check_bytes(&[b"GET / HTTP/1.1\r\nx: ", value, b"\r\n\r\n"].concat(), expected);
    };
    for good in [&b""[..], b"a b\tc", b"\x80\xff", b"  padded\t ", b"a;b=\"c\""] {
        value(good, "GET / Nothing");
    }
    for bad in [&b"a\0b"[..], b"a\x01", b"a\x1fb", b"a\x7fb"] {
        value(bad, "Value");
    }
    value(b"a\rb", "Value");
    value(b"a\nb", "LineEnd");
    let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    check(&many(HEADERS_MAX), "GET / Nothing");
    check(&many(HEADERS_MAX + 1), "TooMany");
    for size in [HEAD_BYTES_MAX, 100_000] {
        check(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(size)), "TooLarge");
    }
    check(&format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(HEAD_BYTES_MAX)), "TooLarge");
}

#[test]
fn section_6_1_transfer_encoding() {
    with("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "TwoLengths");
    with("content-length: 3\r\nTransfer-Encoding: CHUNKED\r\n", "TwoLengths");
    with("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "TransferEncoding");
    for list in
        ["chunked, chunked", "gzip, chunked", ",chunked", "chunked,", "chunked ;q", "\u{b}chunked", "", "ch unked"]
    {
        let expected = if list.contains('\u{b}') { "Value" } else { "TransferEncoding" };
        with(&format!("transfer-encoding: {list}\r\n"), expected);
    }
    for unknown in ["identity", "xchunked", "gzip", "chunked2"] {
        with(&format!("transfer-encoding: {unknown}\r\n"), "TransferCoding");
    }
    with("transfer-encoding : chunked\r\n", "Name");
    with("transfer-encoding:\tchunked \r\n", "POST / Chunked Ended");
    check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "TransferEncoding");
}

#[test]
fn section_6_2_content_length() {
    check("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", "POST / Length(5) \"hello\"");
    check("POST / HTTP/1.1\r\ncontent-length: 05\r\n\r\nhello", "POST / Length(5) \"hello\"");
    check("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhell", "POST / Length(5) \"hell\" Ended");
    with("content-length: 0\r\n", "POST / Length(0)");
    with("content-length: 3\r\ncontent-length: 3\r\n", "ContentLength");
    with("content-length: 3\r\ncontent-length: 4\r\n", "ContentLength");
    for bad in ["3, 3", "3,4", "+3", "-1", "0x3", "1_0", "", "3a", "3 3", "3.0", "18446744073709551616"] {
        with(&format!("content-length: {bad}\r\n"), "ContentLength");
    }
}

#[test]
fn section_7_chunks() {
    chunks("5\r\nhello\r\n0\r\n\r\n", "\"hello\"");
    chunks("5\r\nhello\r\n00a\r\n0123456789\r\n000\r\n\r\n", "\"hello0123456789\"");
    chunks("A\r\n0123456789\r\n0\r\n\r\n", "\"0123456789\"");
    chunks("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", "\"hello\"");
    chunks("5 ;a\r\nhello\r\n0\r\n\r\n", "\"hello\"");
    for bad in [
        "0x3\r\n",
        "+3\r\n",
        "-0\r\n",
        "0_3\r\n",
        " 3\r\n",
        "\r\n",
        ";a\r\n",
        "g\r\n",
        "3 3\r\n",
        "12345678123456781\r\n",
    ] {
        chunks(bad, "Chunk");
    }
    for bad in ["3\nabc\r\n0\r\n\r\n", "3\r\rabc", "3;a\nabc", "3;a\rbc", "3;\x01\r\n"] {
        chunks(bad, "Chunk");
    }
    for bad in ["3\r\nabc\n0\r\n\r\n", "3\r\nabcd\r\n", "3\r\nabc\r0"] {
        chunks(bad, "\"abc\" Chunk");
    }
    chunks("5\r\nhel", "\"hel\" Ended");
    chunks("5\r\nhello\r\n", "\"hello\" Ended");
    chunks("5\r\nhello\r\n0\r\n", "\"hello\" Ended");
    chunks("ffffffffffffffff\r\nabc", "\"abc\" Ended");
    let extension = |count| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(count));
    chunks(&extension(CHUNK_EXTENSION_BYTES_MAX - 1), "\"a\"");
    chunks(&extension(CHUNK_EXTENSION_BYTES_MAX), "Extensions");
    let many = format!("1;{}\r\na\r\n", "x".repeat(4000)).repeat(5);
    chunks(&many, "\"aaaa\" Extensions");
}

#[test]
fn section_7_1_2_trailers() {
    chunks("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "x-sum=1; \"a\"");
    chunks("0\r\ncontent-length: 3\r\nhost: b\r\nx: y\r\n\r\n", "x=y;");
    chunks("0\r\ntransfer-encoding: chunked\r\nx-forwarded-for: b\r\nx-envoy-a: b\r\n\r\n", "");
    chunks("0\r\nx y: z\r\n\r\n", "Trailers");
    chunks("0\r\nx: y\n\r\n", "Trailers");
    chunks(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(20_000)), "Trailers");
}

#[test]
fn section_9_persistence_and_order() {
    let close = |lines: &str, version: &str, expected: &str| {
        check(&format!("GET / HTTP/{version}\r\n{lines}\r\n"), expected);
    };
    close("connection: close\r\n", "1.1", "GET / Nothing close");
    close("connection: x, Close\r\n", "1.1", "GET / Nothing close");
    close("connection: keep-alive\r\nconnection: close\r\n", "1.1", "GET / Nothing close");
    close("", "1.0", "GET / Nothing close");
    close("connection: Keep-Alive\r\n", "1.0", "GET / Nothing");
    close("te: trailers, deflate\r\n", "1.1", "GET / Nothing trailers");
    let first = "POST /1 HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi";
    check(&format!("{first}GET /2 HTTP/1.1\r\n\r\n"), "POST /1 Length(2) \"hi\" GET /2 Nothing");
    check("GET / HTTP/1.1\r\n\r\nGARBAGE\r\n\r\n", "GET / Nothing FirstLine");
}

#[test]
fn expectations() {
    with("expect: 100-Continue\r\ncontent-length: 3\r\n", "POST / Length(3) expects Ended");
    with("expect: 100-continue\r\n", "POST / Nothing");
    with("expect: 200-ok\r\n", "Expect");
    with("expect: 100-continue\r\nexpect: x\r\n", "Expect");
    check("POST / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n", "POST / Nothing close");
}

#[test]
fn http_1_0_is_served_only_where_it_is_wanted() {
    let mut bytes = bytes::BytesMut::from(&b"GET / HTTP/1.0\r\n\r\n"[..]);
    let refused = Reader::new(Oldest::Http11).read(&mut bytes);
    assert_eq!(refused.unwrap_err(), HeadError::OldVersion);
}

//! Laws of the readers, for any bytes: splits change nothing, written is read, and hyper reads the same.
//!
//! Inputs are requests and replies of interesting parts, with a few bytes changed.
//! Never here: single rules. Run by `cargo test`; `PROPTEST_CASES` runs more of them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    super::{
        head::Announced,
        request::{Oldest, Reader},
        response::Expected,
        spelling::Spelling,
        write::{self, Framed},
    },
    judge::{reply, request_laws, requests, whole, whole_reply},
};

fn some_line() -> impl Strategy<Value = String> {
    let known = select(vec![
        "host: a",
        "Host: b:80",
        "content-length: 3",
        "Content-Length: 0",
        "content-length: 03",
        "content-length: +3",
        "content-length: 3, 3",
        "transfer-encoding: chunked",
        "Transfer-Encoding: Chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding:\tchunked\t",
        "transfer-encoding: identity",
        "connection: close",
        "Connection: keep-alive, Upgrade",
        "upgrade: websocket",
        "expect: 100-continue",
        "te: trailers",
        "x-empty:",
        "x: \u{e9}",
        " folded",
        "x : y",
        "X-Long-Name: some value; q=1, \"quoted\"",
    ]);
    known.prop_map(str::to_owned)
}

fn some_body() -> impl Strategy<Value = String> {
    let known = select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n",
        "1 \r\na\r\n00\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcde\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "ffffffffffffffff1\r\n",
    ]);
    known.prop_map(str::to_owned)
}

fn some_message(first: Vec<&'static str>) -> impl Strategy<Value = String> {
    let end = select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
    (select(first), vec(some_line(), 0..4), end, some_body())
        .prop_map(|(first, lines, end, body)| [&[first.to_owned()][..], &lines].concat().join(end) + end + end + &body)
}

fn some_request() -> impl Strategy<Value = String> {
    some_message(vec![
        "GET / HTTP/1.1",
        "GET / HTTP/1.1",
        "POST /a?b=c#d HTTP/1.1",
        "POST / HTTP/1.1",
        "HEAD //x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://c.test/p HTTP/1.1",
        "CONNECT c.test:443 HTTP/1.1",
        "POST / HTTP/1.0",
        "\r\nPUT /%2e%2E HTTP/1.1",
        "GET  / HTTP/1.1",
        "get / HTTP/1.2",
    ])
}

fn some_reply() -> impl Strategy<Value = String> {
    some_message(vec!["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.0 404 No", "HTTP/1.1 204 ", "HTTP/1.1 304 X"])
}

/// Changes a byte here and there.
fn mutated(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = select(b"\r\n\t \0:;,0129afx\x7f\x80/#".to_vec());
    (text, vec((any::<prop::sample::Index>(), 0..3_u8, bytes), 0..3)).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        bytes
    })
}

fn some_requests() -> impl Strategy<Value = Vec<u8>> {
    mutated(vec(some_request(), 1..3).prop_map(|all| all.concat()))
}

proptest! {
    #[test]
    fn no_split_of_a_clients_bytes_changes_the_answer(input in some_requests(), cuts in vec(any::<usize>(), 0..6)) {
        let at_once = requests(&input, &[], whole);
        prop_assert_eq!(&requests(&input, &cuts, whole), &at_once);
        let each: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&requests(&input, &each, whole), &at_once);
    }

    #[test]
    fn no_split_of_an_upstreams_bytes_changes_the_answer(input in mutated(some_reply()), cuts in vec(any::<usize>(), 0..6)) {
        let expected = Expected { bodiless: false, upgrade: false };
        // What comes after the reply depends on when it comes.
        let without_left = |text: String| text.split(" left ").next().unwrap_or_default().to_owned();
        let at_once = without_left(reply(&input, &[], expected, whole_reply));
        prop_assert_eq!(&without_left(reply(&input, &cuts, expected, whole_reply)), &at_once);
        let each: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&without_left(reply(&input, &each, expected, whole_reply)), &at_once);
    }

    #[test]
    fn where_hyper_accepts_what_we_accept_both_read_the_same(input in some_requests()) {
        request_laws(&input);
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant(
        path in "/[a-zA-Z0-9._~%!$&'()*+,;=:@/?-]{0,40}",
        names in vec("[a-zA-Z0-9-]{1,20}", 0..10),
        values in vec("[ -~\u{80}-\u{ff}]{0,30}", 10),
        length in 0_u64..1000,
    ) {
        let mut parts = http::Request::new(()).into_parts().0;
        parts.method = Method::PUT;
        parts.uri = path.parse::<Uri>().unwrap();
        let mut spelling = Spelling::default();
        let mut spelt = Vec::new();
        for (name, value) in names.iter().zip(&values) {
            let header = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let framing = matches!(header.as_str(), "content-length" | "transfer-encoding" | "expect" | "host");
            let Ok(value) = HeaderValue::from_bytes(value.trim().as_bytes()) else { continue };
            if framing || parts.headers.contains_key(&header) {
                continue;
            }
            spelling.note(&header, name.as_bytes());
            spelt.push(format!("\r\n{name}: "));
            parts.headers.insert(header, value);
        }
        parts.headers.insert("host", HeaderValue::from_static("a.test"));
        let mut out = Vec::new();
        write::request(&mut out, &parts, &spelling, Framed::Length(length)).unwrap();
        let text = String::from_utf8_lossy(&out).into_owned();
        for line in &spelt {
            prop_assert!(text.contains(line), "{} in {}", line, text);
        }
        let mut bytes = bytes::BytesMut::from(&out[..]);
        let mut reader = Reader::new(Oldest::Http11);
        let read = reader.read(&mut bytes).unwrap().unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(&read.parts.method, &parts.method);
        prop_assert_eq!(&read.parts.uri, &parts.uri);
        prop_assert_eq!(read.parts.version, Version::HTTP_11);
        prop_assert_eq!(read.body, Announced::Length(length));
        let mut headers: HeaderMap = read.parts.headers;
        headers.remove("content-length");
        prop_assert_eq!(headers, parts.headers);
    }
}

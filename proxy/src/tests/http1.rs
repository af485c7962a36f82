//! HTTP/1 as a client and an application see it: what is refused, in which order things are said, how connections end.
//!
//! Never here: the readers alone (`http::h1::tests`). Run by `cargo test`.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use api::spec::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Client, app, get, local, ok, proxy,
    spec::{chain, cluster, forward, http, listener, route, server, spec, to},
};

/// An application that answers the first line of every request with `answer`, and notes all that it reads.
pub(super) async fn recorder(answer: &'static str) -> (SocketAddr, Rc<RefCell<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(RefCell::new(String::new()));
    let noted = Rc::clone(&seen);
    tokio::task::spawn_local(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let noted = Rc::clone(&noted);
            tokio::task::spawn_local(async move {
                let mut buf = [0; 4096];
                while let Ok(count @ 1..) = socket.read(&mut buf).await {
                    let text = String::from_utf8_lossy(&buf[..count]);
                    noted.borrow_mut().push_str(&text);
                    if text.contains(" HTTP/1.1\r\n") {
                        socket.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Everything that comes back for these bytes until the connection ends.
pub(super) async fn all(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    socket.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// The rows of the oracle that concern framing and syntax: what we answer, after which the connection ends and the
/// application has seen nothing.
#[test]
fn what_is_not_well_formed_is_refused_and_ends_the_connection() {
    local(async {
        let (upstream, seen) = recorder("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let post = |lines: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\nabc");
        let long = "a".repeat(70_000);
        for (status, bytes) in [
            (400, post("content-length: 3\r\ntransfer-encoding: chunked\r\n")),
            (400, post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n")),
            (400, post("transfer-encoding: chunked, chunked\r\n")),
            (400, post("transfer-encoding: gzip, chunked\r\n")),
            (400, post("transfer-encoding: ,chunked\r\n")),
            (501, post("transfer-encoding: gzip\r\n")),
            (400, post("content-length: 3\r\ncontent-length: 3\r\n")),
            (400, post("content-length: 3, 3\r\n")),
            (400, post("x: a\r\n folded\r\ncontent-length: 3\r\n")),
            (400, post("x: a\rb\r\ncontent-length: 3\r\n")),
            (400, post("x : a\r\ncontent-length: 3\r\n")),
            (400, post("x: a\0b\r\ncontent-length: 3\r\n")),
            (400, "GET / HTTP/1.1\nhost: a\n\n".to_owned()),
            (400, "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "G@T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET / http/1.1\r\nhost: a\r\n\r\n".to_owned()),
            (400, "GET /\r\n\r\n".to_owned()),
            (426, "GET / HTTP/1.0\r\nhost: a\r\n\r\n".to_owned()),
            (426, "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
            (505, "GET / HTTP/1.2\r\nhost: a\r\n\r\n".to_owned()),
            (505, "GET / HTTP/2.0\r\nhost: a\r\n\r\n".to_owned()),
            (417, post("expect: 200-ok\r\ncontent-length: 3\r\n")),
            (431, post(&"x: y\r\n".repeat(100))),
            (431, post(&format!("x: {long}\r\n"))),
            (414, format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n")),
        ] {
            // A request that is smuggled in the body would be answered, or seen by the application.
            let smuggled = format!("{bytes}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
            let replies = all(address, smuggled.as_bytes()).await;
            let shown = &bytes[..bytes.len().min(100)];
            assert!(replies.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {replies}");
            assert_eq!(replies.matches("HTTP/1.1").count(), 1 + usize::from(status == 426), "{shown:?}: {replies}");
            assert!(replies.contains("connection: close\r\n"), "{shown:?}: {replies}");
        }
        assert_eq!(*seen.borrow(), "");
    });
}

#[test]
fn a_body_that_is_malformed_is_told_and_reaches_nobody_whole() {
    local(async {
        let (upstream, seen) = recorder("").await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        for body in ["0x3\r\nabc", "3\r\nabc\n0\r\n\r\n", "3\r\nabcd\r\n", "0\r\nx y: z\r\n\r\n"] {
            let reply = all(address, format!("{head}{body}").as_bytes()).await;
            assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("connection: close"), "{body:?}: {reply}");
        }
        assert!(!seen.borrow().contains("0\r\n\r\n"), "{}", seen.borrow());
    });
}

#[test]
fn a_refused_head_leaves_a_line_that_says_why() {
    local(async {
        let file = std::env::temp_dir().join(format!("proxy-log-http1-{}", std::process::id()));
        let log = AccessLog {
            path: file.to_string_lossy().into_owned(),
            format: Some("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n".into()),
            json: false,
        };
        let logged = HttpServer { access_log: Some(log), ..server(vec![]) };
        let (proxy, address) = proxy(&spec(listener(chain(Network::Http(Box::new(logged)))), vec![])).await;
        let reply = all(address, b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        proxy.worker.lines.flush(&proxy.worker);
        let text = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) if !text.is_empty() => break text,
                _ => tokio::task::yield_now().await,
            }
        };
        std::fs::remove_file(&file).unwrap();
        assert_eq!(text, "400 DPE http1.content_length_and_chunked_not_allowed\n");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    local(async {
        let app = app(|head| ok(head.split(' ').nth(1).unwrap_or_default())).await;
        let (_, address) = proxy(&to(&[app])).await;
        let post = "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
        let last = "GET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let replies = all(address, [&get("/1"), post, last].concat().as_bytes()).await;
        let bodies: Vec<&str> = replies.split("\r\n\r\n").skip(1).map(|text| &text[..2]).collect();
        assert_eq!(bodies, ["/1", "/2", "/3"], "{replies}");
        assert_eq!(replies.matches("connection: close\r\n").count(), 1, "{replies}");
    });
}

#[test]
fn a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() {
    local(async {
        let app = app(|head| ok(head.rsplit("\r\n\r\n").next().unwrap_or_default())).await;
        let (_, address) = proxy(&to(&[app])).await;
        let mut client = Client::to(address).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(client.ask(head).await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(client.ask("hello").await.ends_with("hello"));
        // What is refused without the body is refused at once, and the connection ends: the body may come or not.
        let (_, address) = proxy(&http(vec![], vec![])).await;
        let reply = all(address, head.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 404 ") && reply.contains("connection: close\r\n"), "{reply}");
    });
}

#[test]
fn replies_without_bodies_keep_the_connection_in_step() {
    local(async {
        let app = app(|head| {
            let path = head.split(' ').nth(1).unwrap_or_default();
            match path {
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned(),
                "/none" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                "/same" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n".to_owned(),
                path => ok(path),
            }
        })
        .await;
        let (proxy, address) = proxy(&to(&[app])).await;
        let text = ["HEAD /head", "GET /none", "GET /same", "HEAD /last"]
            .map(|line| format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .concat();
        let mut client = Client::to(address).await;
        client.send(&text).await;
        client.0.shutdown().await.unwrap();
        let replies = client.rest().await;
        let heads: Vec<&str> = replies.split_terminator("\r\n\r\n").collect();
        assert_eq!(heads.len(), 4, "{replies}");
        assert!(heads[0].contains("content-length: 10") && heads[2].contains("content-length: 10"), "{replies}");
        assert!(!heads[1].contains("content-length") && !replies.contains("chunked"), "{replies}");
        assert!(!proxy.metrics().contains("DC"), "{}", proxy.metrics());
    });
}

#[test]
fn chunks_and_trailers_pass_and_extensions_end_here() {
    local(async {
        let (upstream, seen) = recorder(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nX-Sum: 7\r\nhost: b\r\n\r\n",
        )
        .await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let request = "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-end\r\nconnection: close\r\n\
                       transfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nx-end: 1\r\ncontent-length: 9\r\n\r\n";
        let reply = all(address, request.as_bytes()).await;
        assert!(reply.contains("transfer-encoding: chunked\r\n"), "{reply}");
        assert!(reply.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{reply}");
        let seen = seen.borrow().clone();
        assert!(seen.contains("transfer-encoding: chunked\r\n") && !seen.contains("content-length"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n"), "{seen}");
        let reply = all(address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(reply.ends_with("5\r\nhello\r\n0\r\n\r\n"), "not asked for: {reply}");
    });
}

#[test]
fn an_early_reply_is_read_while_the_body_still_comes() {
    local(async {
        let (upstream, _) = recorder("HTTP/1.1 413 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        let action = Action::Forward(Box::new(forward("c")));
        let (_, address) = proxy(&http(vec![route(action)], vec![cluster("c", &[upstream])])).await;
        let mut client = Client::to(address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n").await;
        client.send(&"x".repeat(100_000)).await;
        let reply = client.reply().await;
        assert!(reply.starts_with("HTTP/1.1 413 ") && reply.ends_with("much"), "{reply}");
        assert!(reply.contains("connection: close\r\n"), "{reply}");
        // The client goes on a while; its connection is not reset under the reply.
        client.send(&"x".repeat(1_000_000)).await;
        client.0.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn a_short_body_after_the_reply_is_read_and_the_connection_goes_on() {
    local(async {
        let (_, address) = proxy(&http(vec![], vec![])).await;
        let mut client = Client::to(address).await;
        let first = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\nGET /smuggled").await;
        assert!(first.starts_with("HTTP/1.1 404 ") && !first.contains("connection: close"), "{first}");
        client.send(" HTTP/1.1\r\n\r\nabcd").await;
        assert!(client.ask(&get("/")).await.starts_with("HTTP/1.1 404 "));
        client.0.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn nothing_that_follows_an_upgrade_leaves_before_it_is_agreed() {
    local(async {
        let upgrade = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        // Refused: the early bytes are dropped and the connection ends.
        let refusal = "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n";
        let (upstream, seen) = recorder(refusal).await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let replies = all(address, format!("{upgrade}{}", get("/smuggled")).as_bytes()).await;
        assert!(replies.starts_with("HTTP/1.1 403 ") && replies.matches("HTTP/1.1").count() == 1, "{replies}");
        assert!(!seen.borrow().contains("smuggled"), "{}", seen.borrow());
        // Another reply than 101 leaves the connection as it was.
        let (upstream, _) = recorder("HTTP/1.1 200 OK\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nno").await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(upgrade).await.ends_with("no"));
        assert!(client.ask(&get("/")).await.starts_with("HTTP/1.1 "));
        // Agreed: they follow.
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        let (upstream, seen) = recorder(agreed).await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let mut client = Client::to(address).await;
        assert!(client.ask(&format!("{upgrade}early")).await.starts_with("HTTP/1.1 101 "));
        client.0.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "");
        assert!(seen.borrow().ends_with("\r\n\r\nearly"), "{}", seen.borrow());
    });
}

#[test]
fn names_keep_their_case_both_ways() {
    local(async {
        let (upstream, seen) = recorder("HTTP/1.1 200 Fine\r\nX-Their-Name: 1\r\nCONTENT-LENGTH: 2\r\n\r\nhi").await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let reply = Client::to(address).await.ask("GET / HTTP/1.1\r\nHOST: a\r\nX-MY-name: 2\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.contains("X-Their-Name: 1\r\n"), "{reply}");
        assert!(
            seen.borrow().contains("HOST: a\r\n") && seen.borrow().contains("X-MY-name: 2\r\n"),
            "{}",
            seen.borrow()
        );
    });
}

#[test]
fn an_absolute_target_names_the_host() {
    local(async {
        let (upstream, seen) = recorder("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (_, address) = proxy(&to(&[upstream])).await;
        let reply = Client::to(address).await.ask("GET http://evil/x?y HTTP/1.1\r\nhost: good\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        assert!(seen.borrow().starts_with("GET /x?y HTTP/1.1\r\nhost: evil\r\n"), "{}", seen.borrow());
        assert!(!seen.borrow().contains("good"), "{}", seen.borrow());
    });
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    local(async {
        let app = app(|head| ok(head.rsplit("\r\n\r\n").next().unwrap_or_default())).await;
        let (_, address) = proxy(&to(&[app])).await;
        let body: String = (0..300_000_u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
        let mut client = Client::to(address).await;
        for _ in 0..2 {
            client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())).await;
            client.send(&body).await;
            let reply = client.reply().await;
            assert!(reply.split_once("\r\n\r\n").is_some_and(|(_, came)| came == body));
        }
    });
}

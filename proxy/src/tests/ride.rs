//! HTTP/1 riding HTTP/2 between two of our proxies: what client and application see is what they would without.
//!
//! Never here: identities and policy (`mesh`), HTTP/1 itself (`http1`). Run by `cargo test`.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use api::spec::*;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Client, Proxy, app, ask, get,
    http1::{all, recorder},
    local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok,
};
/// The same, where both sides may agree to our protocol.
pub(super) fn ours(mut spec: Spec) -> Spec {
    for listener in spec.listeners.values_mut() {
        for chain in &mut Arc::make_mut(listener).chains {
            if let Some(tls) = &mut chain.tls {
                tls.alpn.insert(0, PRIVATE_ALPN.into());
            }
        }
    }
    changed(&mut spec, |cluster| {
        if let UpstreamTls::Auto(tls) = &mut cluster.tls {
            tls.alpn.insert(0, PRIVATE_ALPN.into());
        }
    });
    spec
}

fn changed(spec: &mut Spec, change: impl Fn(&mut Cluster)) {
    spec.clusters.values_mut().for_each(|cluster| change(Arc::make_mut(cluster)));
}

/// Two proxies with mutual TLS between them.
pub(super) struct Pair {
    pub(super) authority: Authority,
    pub(super) inner: Proxy,
    pub(super) outer: Proxy,
    pub(super) address: SocketAddr,
}

impl Pair {
    pub(super) async fn to(app: SocketAddr) -> Self {
        Self::with(app, |_| ()).await
    }

    pub(super) async fn with(app: SocketAddr, change: impl Fn(&mut Cluster)) -> Self {
        let authority = Authority::new();
        let (inner, inside) = serve(authority.identity(REVIEWS), &ours(inbound(app, true, vec![]))).await;
        let mut out = ours(outbound(&[inside], &[REVIEWS], UpstreamVersion::Http1));
        changed(&mut out, change);
        let (outer, address) = serve(authority.identity(WEB), &out).await;
        Self { authority, inner, outer, address }
    }

    /// Connections between the proxies so far: all, and those of HTTP/2.
    pub(super) fn connections(&self) -> (u64, u64) {
        connections(&self.outer)
    }
}

pub(super) fn connections(proxy: &Proxy) -> (u64, u64) {
    let tables = proxy.worker.shared.tables.load();
    let stats = &tables.clusters().find(|cluster| &*cluster.name == "c").unwrap().live.stats;
    (stats.connections_total.get(), stats.http2_connections_total.get())
}

#[test]
fn requests_of_http_1_ride_one_connection_of_http_2() {
    local(async {
        let app = app(ok_of_path).await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        for path in ["/1", "/2", "/3"] {
            let reply = client.ask(&get(path)).await;
            assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with(path), "{reply}");
            assert!(!reply.contains("x-ferromesh"), "{reply}");
        }
        assert!(ask(pair.address, &get("/4")).await.ends_with("/4"));
        assert_eq!(pair.connections(), (1, 1));
        let seen = pair.inner.metrics();
        assert!(seen.contains("connection_security_policy=\"mutual_tls\""), "{seen}");
        assert!(seen.contains("request_protocol=\"http\"") && seen.contains(WEB), "{seen}");
    });
}

pub(super) fn ok_of_path(head: &str) -> String {
    assert!(head.contains(" HTTP/1.1\r\n") && !head.contains("x-ferromesh"), "{head}");
    ok(head.split(' ').nth(1).unwrap_or_default())
}

#[test]
fn names_keep_their_case_across_both_proxies() {
    local(async {
        let (app, seen) = recorder(
            "HTTP/1.1 200 Fine\r\nX-Their-Name: 1\r\nx-low: 2\r\nETag: 3\r\n\
                                    CONTENT-LENGTH: 2\r\n\r\nhi",
        )
        .await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        for text in
            ["GET / HTTP/1.1\r\nHOST: a\r\nX-MY-name: 2\r\naccept: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
        {
            let reply = client.ask(text).await;
            for line in ["HTTP/1.1 200 OK", "X-Their-Name: 1", "x-low: 2", "ETag: 3"] {
                assert!(reply.contains(&format!("{line}\r\n")), "{line}: {reply}");
            }
            assert!(!reply.contains("x-ferromesh"), "{reply}");
            let seen = seen.take();
            for line in text.split("\r\n") {
                assert!(seen.contains(&format!("{line}\r\n")), "{line}: {seen}");
            }
            assert!(!seen.contains("x-ferromesh"), "{seen}");
        }
        assert_eq!(pair.connections(), (1, 1));
    });
}

/// An application that sends every body back, once so many requests are under way.
pub(super) async fn mirror(together: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gathered = Rc::new(tokio::sync::Barrier::new(together));
    tokio::task::spawn_local(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let gathered = Rc::clone(&gathered);
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let gathered = Rc::clone(&gathered);
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    gathered.wait().await;
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(body)))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::task::spawn_local(async move { drop(serving.await) });
        }
    });
    address
}

#[test]
fn large_bodies_ride_both_ways() {
    local(async {
        let pair = Pair::to(mirror(1).await).await;
        let body: Vec<u8> = (0..1_048_576_u32).map(|n| b'a' + (n % 23) as u8).collect();
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut came = Vec::new();
        let (mut reading, mut writing) = socket.split();
        let sending = async { writing.write_all(&[head.as_bytes(), &body].concat()).await };
        let (sent, read) = tokio::join!(sending, reading.read_to_end(&mut came));
        assert!(sent.is_ok() && read.is_ok() && came.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(came.ends_with(&[b"\r\n\r\n", &body[..]].concat()), "{}", came.len());
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn chunks_and_trailers_ride() {
    local(async {
        let (app, seen) =
            recorder("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n").await;
        let pair = Pair::to(app).await;
        let request = "POST / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\ntrailer: x-end\r\nconnection: close\r\n\
                       transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n";
        let reply = all(pair.address, request.as_bytes()).await;
        assert!(reply.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{reply}");
        let seen = seen.borrow().clone();
        assert!(seen.contains("transfer-encoding: chunked\r\n") && !seen.contains("content-length"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n"), "{seen}");
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn replies_without_bodies_and_connections_that_end_change_nothing() {
    local(async {
        let app = app(|head| match head.split(' ').nth(1).unwrap_or_default() {
            "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned(),
            "/none" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/same" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n".to_owned(),
            "/last" => {
                "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            path => ok(path),
        })
        .await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        let lines = ["HEAD /head", "GET /none", "GET /same", "GET /last", "HEAD /more"];
        client.send(&lines.map(|line| format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")).concat()).await;
        client.0.shutdown().await.unwrap();
        let replies = client.rest().await;
        let heads: Vec<&str> = replies.split_terminator("\r\n\r\n").collect();
        assert_eq!(heads.len(), 5, "{replies}");
        assert!(heads[0].contains("content-length: 10") && heads[2].contains("content-length: 10"), "{replies}");
        assert!(!heads[3].contains("connection") && !replies.contains("chunked"), "{replies}");
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn what_changes_its_protocol_has_a_connection_of_http_1() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buf = [0; 4096];
            assert!(socket.read(&mut buf).await.unwrap() > 0);
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            socket.write_all(agreed.as_bytes()).await.unwrap();
            let count = socket.read(&mut buf).await.unwrap();
            socket.write_all(&buf[..count]).await.unwrap();
        });
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        let reply =
            client.ask("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
        client.send("ping").await;
        assert_eq!(client.rest().await, "ping");
        assert_eq!(pair.connections(), (1, 0));
    });
}

#[test]
fn a_client_that_goes_away_ends_its_stream_and_no_other() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let told = told.clone();
                tokio::task::spawn_local(async move {
                    let mut buf = [0; 4096];
                    while let Ok(count @ 1..) = socket.read(&mut buf).await {
                        let slow = buf[..count].starts_with(b"GET /slow");
                        let answer =
                            if slow { "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart".into() } else { ok("whole") };
                        socket.write_all(answer.as_bytes()).await.unwrap();
                        if slow {
                            assert_eq!(socket.read(&mut buf).await.unwrap_or(0), 0);
                            told.send(()).unwrap();
                        }
                    }
                });
            }
        });
        let pair = Pair::to(app).await;
        let mut slow = Client::to(pair.address).await;
        slow.send(&get("/slow")).await;
        let mut buf = [0; 4096];
        assert!(slow.0.read(&mut buf).await.unwrap() > 0);
        let mut fast = Client::to(pair.address).await;
        assert!(fast.ask(&get("/")).await.ends_with("whole"));
        socket2::SockRef::from(&slow.0).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(slow);
        ended.recv().await.unwrap();
        assert!(fast.ask(&get("/")).await.ends_with("whole"));
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn an_early_reply_rides_while_the_body_still_comes() {
    local(async {
        let (app, _) = recorder("HTTP/1.1 413 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch").await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n").await;
        client.send(&"x".repeat(100_000)).await;
        let reply = client.reply().await;
        assert!(reply.starts_with("HTTP/1.1 413 ") && reply.ends_with("much"), "{reply}");
        assert!(ask(pair.address, &get("/")).await.starts_with("HTTP/1.1 413 "));
        assert_eq!(pair.connections(), (1, 1));
    });
}

#[test]
fn a_client_is_told_to_go_on_and_the_body_rides() {
    local(async {
        let app = app(|head| ok(head.rsplit("\r\n\r\n").next().unwrap_or_default())).await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(client.ask(head).await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(client.ask("hello").await.ends_with("hello"));
    });
}

#[test]
fn interim_replies_of_the_application_end_before_they_ride() {
    local(async {
        let (app, _) =
            recorder("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
                .await;
        let pair = Pair::to(app).await;
        let reply = Client::to(pair.address).await.ask(&get("/")).await;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("done"), "{reply}");
    });
}

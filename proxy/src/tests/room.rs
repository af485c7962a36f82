//! Room on HTTP/2 connections: streams that nobody moves leave the others theirs, and what finds none opens a connection.
//!
//! Never here: the numbers (`limits` asserts them). Run by `cargo test`.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use api::spec::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use super::{
    Client, Proxy, ask, get, local,
    mesh::{Authority, REVIEWS, WEB, inbound, outbound, serve},
    ok, proxy,
    ride::{Pair, connections, mirror, ours},
    spec::to,
};
use crate::{
    limits::{H2_RIDDEN, H2_SPARE_IDLE},
    worker::Here,
};

/// More than the streams of a connection.
const MANY: usize = 150;
/// More than a stream's window and the sockets' buffers hold.
const LARGE: usize = 1024 * 1024;
static ZEROS: [u8; LARGE] = [0; LARGE];

/// A listener whose sockets hold little by themselves.
fn tight() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket.listen(1024).unwrap()
}

/// An application that answers `/large` with much, takes nothing of `/stuck`, and answers others when their body has come; how many of the
/// first two it has been asked for.
async fn slow() -> (SocketAddr, Rc<RefCell<usize>>) {
    let listener = tight();
    let address = listener.local_addr().unwrap();
    let asked = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let counted = Rc::clone(&counted);
            tokio::task::spawn_local(async move {
                let mut buf = [0; 4096];
                while let Ok(count @ 1..) = socket.read(&mut buf).await {
                    let text = String::from_utf8_lossy(&buf[..count]);
                    if text.starts_with("GET /large") {
                        *counted.borrow_mut() += 1;
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
                        drop(socket.write_all(head.as_bytes()).await);
                        drop(socket.write_all(&ZEROS).await);
                    } else if text.starts_with("POST /stuck") {
                        *counted.borrow_mut() += 1;
                        std::future::pending::<()>().await;
                    } else if text.ends_with("hi") {
                        drop(socket.write_all(ok("at once").as_bytes()).await);
                    }
                }
            });
        }
    });
    (address, asked)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Clients that stop after their request; the sockets must be kept.
async fn stopped(address: SocketAddr, head: &str, body: &'static [u8]) -> Vec<Rc<TcpStream>> {
    let mut all = Vec::new();
    for _ in 0..MANY {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let socket = Rc::new(socket);
        all.push(Rc::clone(&socket));
        tokio::task::spawn_local(async move {
            let mut rest = body;
            while !rest.is_empty() && socket.writable().await.is_ok() {
                if let Ok(count) = socket.try_write(rest) {
                    rest = &rest[count..];
                }
            }
        });
    }
    all
}

/// Many that get stuck, and then one more on the same endpoint.
async fn one_more(outer: &Proxy, asked: &RefCell<usize>, head: &str, body: &'static [u8]) {
    let address = outer.listen_on("l", tight());
    let stuck = stopped(address, head, body).await;
    until(|| *asked.borrow() == MANY).await;
    // What can be held is held: nothing moves any more.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let reply = ask(address, "POST /more HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    assert!(reply.ends_with("at once"), "{reply}");
    drop(stuck);
}

const GET: &str = "GET /large HTTP/1.1\r\nhost: a\r\n\r\n";

fn post() -> String {
    format!("POST /stuck HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")
}

#[test]
fn readers_that_stop_hold_up_nobody_who_rides_with_them() {
    local(async {
        let (app, asked) = slow().await;
        let pair = Pair::to(app).await;
        one_more(&pair.outer, &asked, GET, &[]).await;
        assert_eq!(pair.connections(), (2, 2));
    });
}

#[test]
fn uploads_that_nobody_takes_hold_up_nobody_who_rides_with_them() {
    local(async {
        let (app, asked) = slow().await;
        let pair = Pair::to(app).await;
        one_more(&pair.outer, &asked, &post(), &ZEROS).await;
        assert_eq!(pair.connections(), (2, 2));
    });
}

#[test]
fn nor_where_it_is_http_2_to_everyone() {
    for (head, body) in [(GET.to_owned(), &[][..]), (post(), &ZEROS)] {
        local(async {
            let (app, asked) = slow().await;
            let authority = Authority::new();
            let (_inner, inside) = serve(authority.identity(REVIEWS), &inbound(app, true, vec![])).await;
            let out = outbound(&[inside], &[REVIEWS], UpstreamVersion::Http2);
            let (outer, _) = serve(authority.identity(WEB), &out).await;
            one_more(&outer, &asked, &head, body).await;
            assert_eq!(connections(&outer), (1, 1));
        });
    }
}

#[test]
fn a_connection_that_is_not_needed_any_more_is_closed() {
    local(async {
        let many = usize::try_from(H2_RIDDEN.streams).unwrap() + 10;
        let pair = Pair::to(mirror(many).await).await;
        let asked =
            (0..many).map(|_| async { assert!(ask(pair.address, &get("/")).await.starts_with("HTTP/1.1 200")) });
        futures::future::join_all(asked).await;
        assert_eq!(pair.connections(), (2, 2));
        let tables = pair.outer.worker.shared.tables.load_full();
        let stats = &tables.clusters().find(|cluster| &*cluster.name == "c").unwrap().live.stats;
        let (pools, now) = (&pair.outer.worker.pools, Instant::now());
        pools.sweep(now);
        assert_eq!(stats.connections.get(), 2);
        pools.sweep(now + H2_SPARE_IDLE);
        until(|| stats.connections.get() == 1).await;
    });
}

/// A server of HTTP/2 that takes so many streams at once and answers none before so many have come.
async fn narrow(streams: u32, together: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gathered = Rc::new(tokio::sync::Barrier::new(together));
    tokio::task::spawn_local(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let gathered = Rc::clone(&gathered);
            let service = hyper::service::service_fn(move |_| {
                let gathered = Rc::clone(&gathered);
                async move {
                    gathered.wait().await;
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"yes"))))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(Here);
            let serving = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(socket), service);
            tokio::task::spawn_local(async move { drop(serving.await) });
        }
    });
    address
}

fn with(upstream: SocketAddr, version: UpstreamVersion) -> Spec {
    let mut spec = to(&[upstream]);
    for cluster in spec.clusters.values_mut() {
        Arc::make_mut(cluster).http.version = version;
    }
    spec
}

#[test]
fn a_peer_gets_no_more_streams_than_it_says() {
    local(async {
        let (_outer, address) = proxy(&with(narrow(2, 5).await, UpstreamVersion::Http2)).await;
        let asked = (0..5).map(|_| async { assert!(ask(address, &get("/")).await.ends_with("yes")) });
        futures::future::join_all(asked).await;
    });
}

#[test]
fn a_reply_that_its_server_gives_up_is_not_taken_for_whole() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"part"), false).unwrap();
            let (told, reset) = tokio::sync::oneshot::channel::<()>();
            tokio::task::spawn_local(async move {
                reset.await.unwrap();
                stream.send_reset(h2::Reason::CANCEL);
            });
            let mut told = Some(told);
            std::future::poll_fn(|cx| {
                let polled = connection.poll_closed(cx);
                // The part has gone.
                if let Some(told) = told.take() {
                    told.send(()).unwrap();
                }
                polled
            })
            .await
            .unwrap();
        });
        let (_outer, address) = proxy(&with(upstream, UpstreamVersion::Http2)).await;
        let mut client = Client::to(address).await;
        client.send(&get("/")).await;
        let reply = client.rest().await;
        assert!(reply.contains("part") && !reply.ends_with("0\r\n\r\n"), "{reply}");
    });
}

/// An application that never answers; what it was told.
async fn listener() -> (SocketAddr, Rc<RefCell<String>>, Rc<tokio::sync::Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, ended) = (Rc::new(RefCell::new(String::new())), Rc::new(tokio::sync::Notify::new()));
    let (noted, over) = (Rc::clone(&seen), Rc::clone(&ended));
    tokio::task::spawn_local(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buf = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut buf).await {
            noted.borrow_mut().push_str(&String::from_utf8_lossy(&buf[..count]));
        }
        over.notify_one();
    });
    (address, seen, ended)
}

#[test]
fn an_upload_that_its_client_gives_up_is_not_taken_for_whole() {
    // HTTP/1 that rides.
    local(async {
        let (app, seen, ended) = listener().await;
        let pair = Pair::to(app).await;
        let mut client = Client::to(pair.address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
        until(|| seen.borrow().contains("part")).await;
        drop(client);
        ended.notified().await;
        assert!(!seen.borrow().contains("\r\n0\r\n"), "{}", seen.borrow());
        assert_eq!(pair.connections(), (1, 1));
    });
    // HTTP/2.
    local(async {
        let (app, seen, ended) = listener().await;
        let (_proxy, address) = proxy(&with(app, UpstreamVersion::Http1)).await;
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (_reply, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"part"), false).unwrap();
        until(|| seen.borrow().contains("part")).await;
        stream.send_reset(h2::Reason::NO_ERROR);
        ended.notified().await;
        assert!(!seen.borrow().contains("\r\n0\r\n"), "{}", seen.borrow());
    });
}

#[test]
fn many_requests_of_http_2_clients_ride_in_their_own_way() {
    local(async {
        let authority = Authority::new();
        let (_inner, inside) =
            serve(authority.identity(REVIEWS), &ours(inbound(mirror(100).await, true, vec![]))).await;
        let out = ours(outbound(&[inside], &[REVIEWS], UpstreamVersion::Downstream));
        let (outer, address) = serve(authority.identity(WEB), &out).await;
        let socket = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(Here, TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let asked = (0..100).map(|_| {
            let mut sender = sender.clone();
            async move {
                let request = Request::get("http://a.test/").body(Empty::<Bytes>::new()).unwrap();
                let reply = sender.send_request(request).await.unwrap();
                assert_eq!(reply.status(), 200);
                reply.into_body().collect().await.unwrap();
            }
        });
        futures::future::join_all(asked).await;
        // One connection stands for all of them, as users who limit connections count on.
        assert_eq!(connections(&outer), (1, 1));
    });
}
